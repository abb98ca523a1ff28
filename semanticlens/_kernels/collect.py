"""Streaming selection: the m largest values per component with their ids, and the c largest per class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens._reference import collect as twin

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


class TopM:
    """The m largest scores per component of everything offered so far.

    Order: larger score first, equal scores by the smaller id.  NaN is counted and never kept, -inf ("no score") is never kept, +inf is.  The same
    (score, id) pair offered again is ignored; otherwise ids must be distinct, which the caller sees to.  The result depends only on what was
    offered: not on batches, order or threads.

    Parameters
    ----------
    n_components, m : int
    positive_only : bool
        Keep scores above 0 only.
    """

    def __init__(self, n_components: int, m: int, *, positive_only: bool = False) -> None:
        if n_components < 0 or m < 1:
            raise ValueError(f"n_components={n_components}, m={m}: m must be at least 1, n_components at least 0")
        self.positive_only = positive_only
        self._scores, self._ids = twin.empty_state(n_components, m)
        self._nan_counts = np.zeros(n_components, np.int64)

    @property
    def scores(self) -> F32:
        """(K, m) float32, descending, -inf where fewer than m were valid."""
        return self._scores

    @property
    def ids(self) -> I64:
        """(K, m) int64, -1 exactly where ``scores`` is -inf."""
        return self._ids

    @property
    def counts(self) -> I64:
        """(K,) int64: how many are kept."""
        return (self._ids >= 0).sum(axis=1, dtype=np.int64)

    @property
    def nan_counts(self) -> I64:
        """(K,) int64: how many NaN were offered."""
        return self._nan_counts

    def update(self, values: F32, ids: I64, *, n_threads: int | None = None) -> None:
        """Offer values (B, K) float32 of the samples ids (B,) int64."""
        self._nan_counts += np.isnan(values).sum(axis=0)
        usable = values > (0.0 if self.positive_only else -np.inf)
        rows = np.concatenate([self._scores, np.where(usable, values, np.float32(-np.inf)).T], axis=1)
        row_ids = np.concatenate([self._ids, np.where(usable.T, ids, -1)], axis=1)
        order = np.lexsort((row_ids, -rows), axis=1)[:, : self._ids.shape[1]]
        self._scores, self._ids = np.take_along_axis(rows, order, 1), np.take_along_axis(row_ids, order, 1)

    def restore(self, scores: F32, ids: I64, nan_counts: I64) -> None:
        """Continue from a state that was read from :attr:`scores`, :attr:`ids` and :attr:`nan_counts`."""
        self._scores, self._ids, self._nan_counts = scores.copy(), ids.copy(), nan_counts.copy()


def merge_top(scores_a: F32, ids_a: I64, scores_b: F32, ids_b: I64, *, n_threads: int | None = None) -> tuple[F32, I64]:
    """The m best of two states (K, m): what one state over both inputs would hold."""
    return twin.merge(scores_a, ids_a, scores_b, ids_b)


class ClassTop:
    """The c largest scores per class and component; NaN and -inf are left out, samples of class -1 too.

    ``scores`` is (n_classes, K, c) float32, descending, -inf where a class has fewer.
    """

    def __init__(self, n_classes: int, n_components: int, c: int, *, positive_only: bool = False) -> None:
        self.positive_only = positive_only
        self.scores = np.full((n_classes, n_components, c), -np.inf, np.float32)

    def update(self, values: F32, targets: I64, *, n_threads: int | None = None) -> None:
        """Offer values (B, K) float32 of samples of the classes targets (B,) int64."""
        usable = np.where(values > (0.0 if self.positive_only else -np.inf), values, np.float32(-np.inf))
        for y in np.unique(targets[targets >= 0]):
            rows = np.concatenate([self.scores[y], usable[targets == y].T], axis=1)
            self.scores[y] = -np.sort(-rows, axis=1)[:, : self.scores.shape[2]]
