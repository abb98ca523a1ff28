"""Linear ways to find concepts, which non-linear ones are compared with: k-means, principal components, and subspaces of groups (MCD).

Proximities as in the official code of Vielhaben et al. (arXiv 2412.06639): inverse distances for k-means, cosines for the others,
clipped to
[0, 1] and divided by their sum; a row without a positive cosine is zero throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._kernels import hdbscan as kernels
from semanticlens.alignment.axes import principal_axes
from semanticlens.alignment.estimator import F32, F64, I64, Discovery, Real, argmax_labels, shares, whole

NEAR = 1e-6  # added to distances before they are inverted
BLOCK = 1 << 22  # values of a block of rows


def distances(rows: Real, centres: F64) -> F64:
    """Euclidean distances (n, K), by differences: exact where a row is a centre."""
    out = np.empty((len(rows), len(centres)))
    for k, centre in enumerate(centres):
        out[:, k] = np.sqrt(((rows - centre) ** 2).sum(axis=1, dtype=np.float64))
    return out


def cosines(rows: Real, axes: F64) -> F64:
    """Cosines (n, K) of rows with unit axes; 0 for a row of zeros."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(np.divide(rows @ axes.T, lengths, out=np.zeros((len(rows), len(axes))), where=lengths > 0))


def spread_seeds(rows: Real, k: int, rng: np.random.Generator) -> I64:
    """k rows far from each other (k-means++, the best of a few candidates each time)."""
    trials = 2 + int(np.log(k))
    chosen = [int(rng.integers(len(rows)))]
    least = ((rows - rows[chosen[0]]) ** 2).sum(axis=1, dtype=np.float64)
    while len(chosen) < k:
        total = least.sum()
        if total <= 0:
            break  # fewer different rows than seeds
        candidates = np.searchsorted(np.cumsum(least), rng.random(trials) * total).clip(max=len(rows) - 1)
        left = np.stack([np.minimum(least, ((rows - rows[c]) ** 2).sum(axis=1, dtype=np.float64)) for c in candidates])
        best = int(left.sum(axis=1).argmin())
        chosen.append(int(candidates[best]))
        least = left[best]
    return np.array(chosen, np.int64)


def group_sums(rows: Real, labels: I64, k: int) -> tuple[F64, I64]:
    """Sums (k, F) and sizes (k,) of the rows of each label."""
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=k)
    sums = np.zeros((k, rows.shape[1]))
    starts = np.cumsum([0, *sizes])
    for g in range(k):
        sums[g] = rows[order[starts[g] : starts[g + 1]]].sum(axis=0, dtype=np.float64)
    return sums, sizes


def lloyd(rows: F64, k: int, rng: np.random.Generator, max_iter: int, tol: float, n_threads: int | None) -> tuple[F64, I64, float]:
    """Centres, labels and inertia of one run of k-means; an emptied group takes the row farthest from its centre."""
    centres = rows[spread_seeds(rows, k, rng)].copy()
    scale = tol * rows.var(axis=0).mean()
    for _ in range(max_iter):
        index, distance = kernels.nearest(centres, rows, 1, n_threads=n_threads)
        labels = index[:, 0].astype(np.int64)
        sums, sizes = group_sums(rows, labels, len(centres))
        far = iter(np.argsort(-distance[:, 0], kind="stable"))
        moved = np.stack([sums[g] / sizes[g] if sizes[g] else rows[next(far)] for g in range(len(centres))])
        shift, centres = float(((moved - centres) ** 2).sum()), moved
        if shift <= scale:
            break
    index, distance = kernels.nearest(centres, rows, 1, n_threads=n_threads)
    return centres, index[:, 0].astype(np.int64), float((distance**2).sum())


class KMeans(Discovery):
    """k-means: a concept is a centre, proximity the share of 1 / (distance + 1e-6).

    Parameters
    ----------
    n_concepts : int
        At most; fewer where there are fewer different rows. The published baseline takes as many as NLMCD found.
    n_init : int
        Runs from different seeds, of which the one of least inertia is kept.
    max_iter, tol
        A run ends after ``max_iter`` rounds, or when the centres move less than ``tol`` times the mean variance.
    seed : int
    n_threads : int, optional

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (K, F), float64
    inertia_ : float
    memberships_, labels_, exemplars_, n_features_in_
        See :class:`Discovery`.
    """

    def __init__(
        self, n_concepts: int = 50, n_init: int = 4, max_iter: int = 100, tol: float = 1e-6, seed: int = 0, n_threads: int | None = None
    ) -> None:
        self.n_concepts = n_concepts
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.seed = seed
        self.n_threads = n_threads

    def fit(self, X: ArrayLike, y: Any = None) -> KMeans:
        """Find centres."""
        rows = self._start(X).astype(np.float64)
        k = min(whole(self.n_concepts, "n_concepts", 1), len(rows))
        rng = np.random.default_rng(self.seed)
        runs = [lloyd(rows, k, rng, self.max_iter, self.tol, self.n_threads) for _ in range(whole(self.n_init, "n_init", 1))]
        self.cluster_centers_, labels, self.inertia_ = min(runs, key=lambda run: run[2])
        self._finish(self._proximities(rows), labels)
        return self

    def transform(self, X: ArrayLike) -> F32:
        """Proximities of new rows."""
        return self._proximities(self._new(X))

    def _proximities(self, rows: Real) -> F32:
        return shares(1.0 / (distances(rows, self.cluster_centers_) + NEAR))


class PCA(Discovery):
    """Principal components: proximity is the cosine of a row (not centred) and a component, clipped to [0, 1], as a share of the row's sum.

    Parameters
    ----------
    n_concepts : int or None
        Components; None is all that have variance (published).

    Attributes
    ----------
    components_ : ndarray of shape (K, F), float64
        Unit vectors; the entry of largest magnitude is positive.
    explained_variance_ : ndarray of shape (K,), float64
    mean_ : ndarray of shape (F,), float64
    memberships_, labels_, exemplars_, n_features_in_
        See :class:`Discovery`.
    """

    def __init__(self, n_concepts: int | None = None) -> None:
        self.n_concepts = n_concepts

    def fit(self, X: ArrayLike, y: Any = None) -> PCA:
        """Find components."""
        rows = self._start(X)
        n = None if self.n_concepts is None else whole(self.n_concepts, "n_concepts", 1)
        self.mean_, self.components_, self.explained_variance_ = principal_axes(rows, n)
        memberships = self._proximities(rows)
        self._finish(memberships, argmax_labels(memberships))
        return self

    def transform(self, X: ArrayLike) -> F32:
        """Proximities of new rows."""
        return self._proximities(self._new(X))

    def _proximities(self, rows: Real) -> F32:
        return shares(cosines(rows, self.components_))


class MCD(Discovery):
    """Multi-dimensional concepts: a subspace per group of rows; proximity is the largest cosine of a row and a basis vector.

    Groups are those of k-means (as in the code the published baseline ran; the method's own paper uses sparse subspace
    clustering), groups of up to two rows are dropped, and a group's basis are its principal components with a variance of
    at least ``share`` of the first one's (Fukunaga and Olsen).

    Parameters
    ----------
    n_concepts : int
        Groups, at most.
    share : float
    n_init, max_iter, tol, seed, n_threads
        Of :class:`KMeans`.

    Attributes
    ----------
    bases_ : tuple of ndarray of shape (dimension, F), float64
        Unit vectors, turned so that the mean of the group lies on their positive side (in the published code the sign is that of the
        decomposition, which is arbitrary).
    memberships_, labels_, exemplars_, n_features_in_
        See :class:`Discovery`; labels are the groups, -1 for rows of a dropped one.
    """

    def __init__(
        self,
        n_concepts: int = 50,
        share: float = 0.05,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-6,
        seed: int = 0,
        n_threads: int | None = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.share = share
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.seed = seed
        self.n_threads = n_threads

    def fit(self, X: ArrayLike, y: Any = None) -> MCD:
        """Find groups and their bases."""
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share!r} must lie above 0 and at most at 1")
        rows = self._start(X)
        groups = KMeans(self.n_concepts, self.n_init, self.max_iter, self.tol, self.seed, self.n_threads).fit(rows).labels_
        labels = np.full(len(rows), -1, np.int64)
        bases: list[F64] = []
        for g in np.unique(groups):
            members = np.flatnonzero(groups == g)
            if len(members) > 2 and not (rows[members] == rows[members[0]]).all():
                labels[members] = len(bases)
                bases.append(self._basis(rows[members]))
        self.bases_ = tuple(bases)
        self._finish(self._proximities(rows), labels)
        return self

    def _basis(self, members: NDArray[Any]) -> F64:
        mean, axes, variance = principal_axes(members)
        axes = axes[variance >= self.share * variance[0]]
        return np.asarray(axes * np.where(axes @ mean < 0, -1.0, 1.0)[:, None])

    def transform(self, X: ArrayLike) -> F32:
        """Proximities of new rows."""
        return self._proximities(self._new(X))

    def _proximities(self, rows: Real) -> F32:
        if not self.bases_:
            return np.zeros((len(rows), 0), np.float32)
        return shares(np.stack([cosines(rows, basis).max(axis=1) for basis in self.bases_], axis=1))
