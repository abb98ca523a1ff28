"""Twins of the kernels for concept vectors, scores, probing and labelling.

All arithmetic in float64 and by another route than the kernels: pairs are formed, clusters live in the space of the
examples, matrices are whole. Examples come dense, ``examples`` (K, m, d), or as rows ``ids`` (K, m) of a table
``examples`` (U, d); id -1 is an empty place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
MASK = (1 << 64) - 1


def usable_rows(examples: Array, ids: Array | None, counts: Array | None) -> Iterator[tuple[Array, F64]]:
    """Per component the positions and float64 rows that count: before ``counts``, id not -1, all finite, length above 0."""
    n_components, width = examples.shape[:2] if ids is None else ids.shape
    for k in range(n_components):
        places = np.arange(width if counts is None else int(counts[k]))
        if ids is not None:
            places = places[ids[k, places] >= 0]
        rows = np.asarray(examples[k, places] if ids is None else examples[ids[k, places]], dtype=np.float64)
        keep = np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)
        yield places[keep], rows[keep]


def clarity(examples: Array, ids: Array | None = None, counts: Array | None = None, weights: Array | None = None) -> tuple[F64, I64]:
    """(Weighted) mean cosine over all ordered pairs of different usable examples, by forming the pairs; and how many are usable."""
    values, used = [], []
    for k, (places, rows) in enumerate(usable_rows(examples, ids, counts)):
        w = np.ones(len(rows)) if weights is None else np.asarray(weights[k, places], dtype=np.float64)
        pairs = np.outer(w, w)
        np.fill_diagonal(pairs, 0.0)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        values.append((pairs * (unit @ unit.T)).sum() / pairs.sum() if pairs.sum() > 0 else np.nan)
        used.append(len(rows))
    return np.array(values, np.float64), np.array(used, np.int64)


def concept_vectors(
    examples: Array, ids: Array | None = None, counts: Array | None = None, weights: Array | None = None, *, normalize: bool = False
) -> tuple[NDArray[np.float32], I64]:
    """(Weighted) mean of the usable examples, or of their unit vectors; NaN where there is none or the weights are all 0."""
    vectors, used = [], []
    for k, (places, rows) in enumerate(usable_rows(examples, ids, counts)):
        w = np.ones(len(rows)) if weights is None else np.asarray(weights[k, places], dtype=np.float64)
        if normalize:
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        vectors.append(w @ rows / w.sum() if w.sum() > 0 else np.full(examples.shape[-1], np.nan))
        used.append(len(rows))
    return np.array(vectors, np.float64).reshape(len(used), examples.shape[-1]).astype(np.float32), np.array(used, np.int64)


def uniform(seed: int, restart: int, draw: int) -> float:
    """Number in [0, 1) for a place in the random sequence: three rounds of the splitmix64 finaliser over (seed, restart, draw)."""
    x = 0
    for part in (seed, restart, draw):
        x = (x ^ part) + 0x9E3779B97F4A7C15 & MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
        x ^= x >> 31
    return (x >> 11) * 2.0**-53


def _distances(rows: F64, centres: F64) -> F64:
    return np.asarray(((rows[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2))


def _first_centres(rows: F64, n_clusters: int, seed: int, restart: int) -> list[int]:
    """Greedy k-means++: each centre is the best of 2 + floor(ln h) draws with probability proportional to the squared distance."""
    n, draw = len(rows), 1
    scatter = ((rows - rows.mean(axis=0)) ** 2).sum()
    chosen = [min(int(uniform(seed, restart, 0) * n), n - 1)]
    nearest = _distances(rows, rows[chosen])[:, 0]
    while len(chosen) < n_clusters and nearest.sum() > 0:
        best, best_total = -1, np.inf
        for _ in range(2 + int(np.log(n_clusters))):
            target = uniform(seed, restart, draw) * nearest.sum()
            draw += 1
            at = min(int(np.searchsorted(np.cumsum(nearest), target, side="right")), n - 1)
            total = np.minimum(nearest, _distances(rows, rows[[at]])[:, 0]).sum()
            if total < best_total - 1e-12 * scatter:
                best, best_total = at, total
        chosen.append(best)
        nearest = np.minimum(nearest, _distances(rows, rows[[best]])[:, 0])
    return chosen


def _lloyd(rows: F64, labels: Array, n_clusters: int, max_iter: int) -> Array:
    """Assign and average until nothing moves; an empty cluster takes the point farthest from its own centre."""
    scatter = ((rows - rows.mean(axis=0)) ** 2).sum()
    for _ in range(max_iter):
        centres = np.array(
            [rows[labels == c].mean(axis=0) if (labels == c).any() else np.full(rows.shape[1], np.inf) for c in range(n_clusters)]
        )
        with np.errstate(invalid="ignore"):
            distance = _distances(rows, centres)
        new = distance.argmin(axis=1)
        for c in range(n_clusters):
            if not (new == c).any():
                own = distance[np.arange(len(rows)), new]
                own[np.bincount(new, minlength=n_clusters)[new] < 2] = 0.0
                if own.max() > 1e-12 * scatter:
                    new[own.argmax()] = c
        if (new == labels).all():
            break
        labels = new
    return labels


def _inertia(rows: F64, labels: Array) -> float:
    return float(sum(((rows[labels == c] - rows[labels == c].mean(axis=0)) ** 2).sum() for c in np.unique(labels)))


def cluster(rows: F64, *, n_clusters: int, n_init: int, max_iter: int, seed: int) -> Array:
    """Labels of the best of ``n_init`` runs by inertia; a later run must be better by 1e-12 of the scatter."""
    scatter = ((rows - rows.mean(axis=0)) ** 2).sum()
    best: Array = np.zeros(len(rows), np.int64)
    best_inertia = np.inf
    for restart in range(n_init):
        centres = _first_centres(rows, n_clusters, seed, restart)
        labels = _lloyd(rows, _distances(rows, rows[centres]).argmin(axis=1), n_clusters, max_iter)
        inertia = _inertia(rows, labels)
        if inertia < best_inertia - 1e-12 * scatter:
            best, best_inertia = labels, inertia
    return best


def cluster_exact(rows: F64) -> Array:
    """The split into two groups of least inertia, by trying all of them; the last row is in group 0."""
    n = len(rows)
    scatter = ((rows - rows.mean(axis=0)) ** 2).sum()
    best, best_inertia = np.zeros(n, np.int64), np.inf
    for i in range(1, 1 << (n - 1)):
        gray = i ^ i >> 1
        labels = np.array([gray >> j & 1 for j in range(n)])
        inertia = _inertia(rows, labels)
        if inertia < best_inertia - 1e-12 * scatter:
            best, best_inertia = labels, inertia
    return best


def polysemanticity_of(rows: F64, labels: Array, n_clusters: int) -> float:
    """1 - mean cosine of the cluster centres; if one has fewer than two members, 1 - mean cosine of the first ten rows to the mean."""
    if (rows == rows[0]).all():
        return 0.0
    small = np.bincount(labels, minlength=n_clusters).min() < 2
    groups = [rows] if small else [rows[labels == c] for c in range(n_clusters)]
    centres = [group.mean(axis=0) for group in groups]
    if any((c**2).sum() <= 1e-13 * (group**2).sum(axis=1).mean() for c, group in zip(centres, groups, strict=True)):
        return float("nan")  # members cancel: the centre has no direction
    pairs = [(centres[0], row) for row in rows[:10]] if small else [(a, b) for i, a in enumerate(centres) for b in centres[:i]]
    return 1.0 - float(np.mean([a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs]))


def polysemanticity(
    examples: Array,
    ids: Array | None = None,
    counts: Array | None = None,
    labels: Array | None = None,
    *,
    n_clusters: int = 2,
    n_init: int = 10,
    max_iter: int = 300,
    seed: int = 123,
    exact: bool = False,
) -> tuple[F64, NDArray[np.int32], F64]:
    """Score, labels (-1 where no usable example) and inertia of each component, in the space of the examples."""
    n_components, width = examples.shape[:2] if ids is None else ids.shape
    score, inertia = np.full(n_components, np.nan), np.full(n_components, np.nan)
    groups = np.full((n_components, width), -1, np.int32)
    for k, (places, rows) in enumerate(usable_rows(examples, ids, counts)):
        if labels is not None:
            places, rows = places[labels[k, places] >= 0], rows[labels[k, places] >= 0]
        if len(rows) < n_clusters:
            continue
        if labels is not None:
            own = np.asarray(labels[k, places], np.int64)
        elif (rows == rows[0]).all():
            own = np.zeros(len(rows), np.int64)
        elif exact:
            own = cluster_exact(rows)
        else:
            own = cluster(rows, n_clusters=n_clusters, n_init=n_init, max_iter=max_iter, seed=seed)
        groups[k, places], score[k], inertia[k] = own, polysemanticity_of(rows, own, n_clusters), _inertia(rows, own)
    return score, groups, inertia


def unit_rows(x: Array) -> F64:
    """Rows of length 1; NaN rows where the length is 0 or not finite."""
    wide: F64 = np.asarray(x, np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unit: F64 = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    unit[~np.isfinite(unit).all(axis=1)] = np.nan
    return unit


def cosine(a: Array, b: Array) -> NDArray[np.float32]:
    """All cosines of the rows of two matrices, (Q, K); NaN where a row has none."""
    left, right = unit_rows(a), unit_rows(b)
    bad = np.logical_or.outer(np.isnan(left).any(axis=1), np.isnan(right).any(axis=1))
    return np.where(bad, np.nan, np.nan_to_num(left) @ np.nan_to_num(right).T).astype(np.float32)


def redundancy(vectors: Array) -> tuple[F64, I64]:
    """Cosine of each row to its most similar other row, and which that is (lowest on ties); NaN and -1 where there is none."""
    unit = unit_rows(vectors)
    valid = np.flatnonzero(~np.isnan(unit).any(axis=1))
    value, nearest = np.full(len(unit), np.nan), np.full(len(unit), -1, np.int64)
    if len(valid) >= 2:
        matrix = unit[valid] @ unit[valid].T
        np.fill_diagonal(matrix, -np.inf)
        nearest[valid] = valid[matrix.argmax(axis=1)]
        value[valid] = matrix.max(axis=1)
    return value, nearest


def top_labels(vectors: Array, texts: Array, n: int) -> tuple[I64, NDArray[np.float32]]:
    """For each vector the ``n`` texts of highest cosine, best first, lowest index on ties; -1 and NaN where there are fewer."""
    scores = cosine(vectors, texts)
    order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), axis=1, kind="stable")[:, :n].astype(np.int64)
    best = np.take_along_axis(scores, order, axis=1)
    order[np.isnan(best)] = -1
    pad = n - order.shape[1]
    return np.pad(order, ((0, 0), (0, pad)), constant_values=-1), np.pad(best, ((0, 0), (0, pad)), constant_values=np.nan)
