"""Twins of the top-m kernels: sort everything, keep the best.

One order everywhere: larger score first, equal scores (0.0 and -0.0 are equal) by the smaller id.  NaN is counted and
never kept; -inf is "no score" and never kept; with ``positive_only`` neither is anything at or below 0.  Ids are
distinct: each sample is offered once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


def empty_state(n_components: int, m: int) -> tuple[F32, I64]:
    """Scores (K, m) of -inf and ids (K, m) of -1."""
    return np.full((n_components, m), -np.inf, np.float32), np.full((n_components, m), -1, np.int64)


def top_m(values: F32, ids: I64, m: int, *, positive_only: bool = False) -> tuple[F32, I64, I64]:
    """The m best of values (N, K) with ids (N,), per column.

    Returns
    -------
    scores : ndarray (K, m), float32
        Descending; -inf where fewer than m were valid.
    ids : ndarray (K, m), int64
        -1 where ``scores`` is -inf.
    nan_counts : ndarray (K,), int64
    """
    scores, kept = empty_state(values.shape[1], m)
    for k, column in enumerate(values.T):
        valid = column > (0.0 if positive_only else -np.inf)
        pairs = sorted((-float(s), int(i)) for s, i in zip(column[valid], ids[valid], strict=True))[:m]
        for rank, (negative, i) in enumerate(pairs):
            scores[k, rank], kept[k, rank] = -negative, i
    return scores, kept, np.isnan(values).sum(axis=0, dtype=np.int64)


def merge(scores_a: F32, ids_a: I64, scores_b: F32, ids_b: I64) -> tuple[F32, I64]:
    """The m best of two states of shape (K, m): the same as one state over both inputs."""
    m = scores_a.shape[1]
    merged, kept = empty_state(len(scores_a), m)
    for k in range(len(scores_a)):
        scores, ids = np.concatenate([scores_a[k], scores_b[k]]), np.concatenate([ids_a[k], ids_b[k]])
        top, top_ids, _ = top_m(scores[:, None], ids, m)
        merged[k], kept[k] = top[0], top_ids[0]
    return merged, kept


def class_top(values: F32, targets: I64, n_classes: int, c: int, *, positive_only: bool = False) -> F32:
    """The c best scores (n_classes, K, c) of the samples of each class, descending, -inf where there are fewer.

    values (N, K), targets (N,); a target of -1 means no class.
    """
    floor = 0.0 if positive_only else -np.inf
    result = np.full((n_classes, values.shape[1], c), -np.inf, np.float32)
    for y in range(n_classes):
        rows = values[targets == y]
        rows = np.sort(np.where(rows > floor, rows, np.float32(-np.inf)), axis=0)[::-1][:c]
        result[y, :, : len(rows)] = rows.T
    return result
