"""What all ways to find concepts share: scikit-learn's habits, checks of the input, quality measured on demand."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, MismatchError
from semanticlens.alignment.quality import Quality, measure

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Real = NDArray[np.floating[Any]]
Self = TypeVar("Self", bound="Discovery")
EXEMPLARS = 50  # rows that stand for a concept, where the method itself names none


def whole(value: Any, name: str, least: int) -> int:
    """``value`` as an int of at least ``least``, or a ValueError that names the argument."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    return int(value)


def check_rows(values: ArrayLike, name: str = "X", least: int = 2) -> Real:
    """``values`` as a finite (n, F) float32 or float64 matrix of at least ``least`` rows that are not all the same."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, not {array.dtype}")
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{name} has shape {array.shape}: must be (samples, features)")
    if len(array) < least:
        raise DataError(f"{name} has {len(array)} rows: at least {least} are needed")
    array = np.ascontiguousarray(array, dtype=np.float32 if array.dtype == np.float32 else np.float64)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise DataError(f"{name} has NaN or infinite values in {bad.size} rows, the first is row {bad[0]}: remove them")
    return array


def shares(values: NDArray[Any]) -> F32:
    """Each row clipped at 0 and divided by its sum; a row without positive values is zero throughout."""
    positive = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
    total = positive.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(positive, total, out=np.zeros_like(positive), where=total > 0).astype(np.float32))


def top_rows(memberships: F32, concept: int, top: int, among: NDArray[np.bool_] | None = None) -> I64:
    """Up to ``top`` rows of the largest proximity to a concept, best first, ties by the lower row; only rows above 0 (and in ``among``)."""
    column = memberships[:, concept]
    usable = np.flatnonzero(column > 0 if among is None else (column > 0) & among)
    order = np.argsort(-column[usable], kind="stable")[:top]
    return usable[order].astype(np.int64)


class Discovery(ABC):
    """Base of the estimators: constructor arguments are kept as given, ``fit`` sets what ends in an underscore.

    Attributes
    ----------
    memberships_ : ndarray of shape (n, K), float32
        Proximity of each row to each concept: at least 0, row sums at most 1.
    labels_ : ndarray of shape (n,), int64
        The concept a row belongs to; -1 is none.
    exemplars_ : tuple of ndarray of int64
        Rows that stand for each concept, the most typical first.
    n_features_in_ : int

    Notes
    -----
    Results are the same for every ``n_threads``.  Matrix products of PCA, MCD, NMF and TopKSAE are NumPy's: another BLAS, or another number
    of its own threads, may change their last bits, and what a training makes of them.
    """

    memberships_: F32
    labels_: I64
    exemplars_: tuple[I64, ...]
    n_features_in_: int

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self: Self, **params: Any) -> Self:
        """Set constructor arguments; an unknown name raises ValueError."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def clone(self: Self, **changes: Any) -> Self:
        """An unfitted estimator with the same parameters, some of them changed."""
        return type(self)(**self.get_params()).set_params(**changes)

    @abstractmethod
    def fit(self: Self, X: ArrayLike, y: Any = None) -> Self:
        """Find concepts among the rows of X."""

    @abstractmethod
    def transform(self, X: ArrayLike) -> F32:
        """Proximities (m, K) of new rows."""

    def fit_transform(self, X: ArrayLike, y: Any = None) -> F32:
        """:meth:`fit`, then ``memberships_``."""
        return self.fit(X).memberships_

    def fit_predict(self, X: ArrayLike, y: Any = None) -> I64:
        """:meth:`fit`, then ``labels_``."""
        return self.fit(X).labels_

    @property
    def n_concepts_(self) -> int:
        """Number of concepts found."""
        self._needs_fit()
        return int(self.memberships_.shape[1])

    @property
    def quality_(self) -> Quality:
        """Quality of the concepts (see :class:`~semanticlens.alignment.quality.Quality`); measured when first read."""
        self._needs_fit()
        if self._quality is None:
            self._quality = measure(self._X, self.labels_, self._space())
        return self._quality

    _X: Real
    _quality: Quality | None = None

    def _space(self) -> Real:
        """Where the concepts were found."""
        return self._X

    def _start(self, X: ArrayLike, least: int = 2) -> Real:
        rows = check_rows(X, "X", least)
        if (rows == rows[0]).all():
            raise DataError(
                f"all {len(rows)} rows of X are equal (constant features): there is nothing to tell apart; look at layer and pooling"
            )
        self._X, self._quality, self.n_features_in_ = rows, None, rows.shape[1]
        return rows

    def _finish(self, memberships: F32, labels: I64, exemplars: tuple[I64, ...] | None = None) -> None:
        self.memberships_, self.labels_ = memberships, labels
        concepts = range(memberships.shape[1])
        self.exemplars_ = exemplars if exemplars is not None else tuple(top_rows(memberships, k, EXEMPLARS, labels == k) for k in concepts)

    def _needs_fit(self) -> None:
        if not hasattr(self, "memberships_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted: call fit(X) first")

    def _new(self, X: ArrayLike) -> Real:
        self._needs_fit()
        rows = check_rows(X, "X", 1)
        if rows.shape[1] != self.n_features_in_:
            raise MismatchError(f"X has {rows.shape[1]} features, but {self.n_features_in_} when this {type(self).__name__} was fitted")
        return rows

    def __repr__(self) -> str:
        defaults = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        parts = []
        for name, value in self.get_params().items():
            if isinstance(value, np.ndarray):
                parts.append(f"{name}=array of shape {value.shape}")
            elif value is not defaults[name] and value != defaults[name]:
                parts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


def argmax_labels(memberships: F32) -> I64:
    """The concept of the largest proximity, ties to the lower; -1 for a row of zeros."""
    if memberships.shape[1] == 0:
        return np.full(len(memberships), -1, np.int64)
    return np.where(memberships.max(axis=1) > 0, memberships.argmax(axis=1), -1).astype(np.int64)
