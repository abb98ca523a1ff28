"""Streaming selection: the m largest values per component with their ids, and the c largest per class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

_PENDING = 64  # SL_TOPM_PENDING; the extension checks it


class TopM:
    """The m largest scores per component of everything offered so far.

    Order: larger score first, equal scores by the smaller id.  NaN is counted and never kept, -inf ("no score") is
    never kept, +inf is.  Ids must be distinct over the life of the object; the caller sees to that (a sample offered
    twice is kept twice).  The result depends only on what was offered: not on batches, order or threads.  Not to be
    updated by two threads of the caller at once.

    Parameters
    ----------
    n_components, m : int
    positive_only : bool
        Keep scores above 0 only.

    Notes
    -----
    Values that beat their component's m-th score are appended to a short list and merged into the sorted
    lists 64 at a time, or when results are read.  Memory: 12 m + 1060 bytes per component.
    """

    def __init__(self, n_components: int, m: int, *, positive_only: bool = False) -> None:
        if n_components < 0 or m < 1:
            raise ValueError(f"n_components={n_components}, m={m}: m must be at least 1, n_components at least 0")
        self.positive_only = positive_only
        self._scores, self._ids = np.empty((n_components, m), np.float32), np.empty((n_components, m), np.int64)
        self._counts, self._nan_counts = np.empty(n_components, np.int64), np.empty(n_components, np.int64)
        self._state = (
            self._scores,
            self._ids,
            self._counts,
            self._nan_counts,
            np.empty(n_components, np.float32),
            np.empty(n_components, np.int64),
            np.zeros((n_components, _PENDING, 2), np.int64),
            np.empty(n_components, np.int32),
        )
        self._pending = False
        _core.topm_init(self._state, positive_only=positive_only)

    @property
    def scores(self) -> F32:
        """(K, m) float32, descending, -inf where fewer than m were valid.  A view: later updates change it."""
        self.flush()
        return self._scores

    @property
    def ids(self) -> I64:
        """(K, m) int64, -1 exactly where ``scores`` is -inf.  A view: later updates change it."""
        self.flush()
        return self._ids

    @property
    def counts(self) -> I64:
        """(K,) int64: how many are kept.  A view: later updates change it."""
        self.flush()
        return self._counts

    @property
    def nan_counts(self) -> I64:
        """(K,) int64: how many NaN were offered.  A view: later updates change it."""
        return self._nan_counts

    def update(self, values: F32, ids: I64, *, n_threads: int | None = None) -> None:
        """Offer values (B, K) float32 of the samples ids (B,) int64."""
        self._pending = True
        _core.topm_update(
            self._state, values, ids, positive_only=self.positive_only, n_threads=resolve_threads(n_threads)
        )

    def merge(self, scores: F32, ids: I64, nan_counts: I64, *, n_threads: int | None = None) -> None:
        """Offer what another run over the same components and other samples kept: scores (K, n), ids (K, n), nan_counts (K,)."""
        _core.topm_merge(
            self._state, scores, ids, positive_only=self.positive_only, n_threads=resolve_threads(n_threads)
        )
        self._nan_counts += nan_counts

    def flush(self, *, n_threads: int | None = None) -> None:
        """Merge what is pending into the sorted lists; reading a result does it too."""
        if self._pending:
            _core.topm_flush(self._state, positive_only=self.positive_only, n_threads=resolve_threads(n_threads))
            self._pending = False


class ClassTop:
    """The c largest scores per class and component; NaN and -inf are left out, samples of class -1 too.

    ``scores`` is (n_classes, K, c) float32, descending, -inf where a class has fewer.
    """

    def __init__(self, n_classes: int, n_components: int, c: int, *, positive_only: bool = False) -> None:
        if c < 1:
            raise ValueError(f"c={c}: must be at least 1")
        self.positive_only = positive_only
        self.scores: F32 = np.full((n_classes, n_components, c), -np.inf, np.float32)

    def update(self, values: F32, targets: I64, *, n_threads: int | None = None) -> None:
        """Offer values (B, K) float32 of samples of the classes targets (B,) int64."""
        _core.class_top(
            self.scores, values, targets, positive_only=self.positive_only, n_threads=resolve_threads(n_threads)
        )
