"""Non-linear concepts: dense regions of an embedding of the features, with soft membership (NLMCD)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from semanticlens._errors import ConceptWarning, DataError
from semanticlens.alignment.clustering import HDBSCAN
from semanticlens.alignment.embedding import embedder
from semanticlens.alignment.estimator import F32, I64, Discovery, Real, whole
from semanticlens.alignment.membership import new_membership, soft_membership


class NLMCD(Discovery):
    """Non-linear multi-dimensional concept discovery: embed, cluster by density, give every row its proximity to each cluster.

    Parameters
    ----------
    embed : {"neighbours", "umap", "pca", "none"}, array, function, or object with fit_transform and transform
        "umap" (published) needs the extra ``align``; "neighbours" lowers the same objective here, in NumPy, the same in every run.
        Features of real networks have hardly any dense regions before such an embedding: "pca" and "none" are for
        features that do. An array (n, D) holds the coordinates of the rows of X.
    n_components : int
        Of the embedding; for "pca" at most.
    n_neighbors, min_dist : int, float
        Of "neighbours" and "umap".
    min_cluster_size, min_samples, selection, epsilon
        See :class:`HDBSCAN`.
    variant : {"new_point", "all_points"}
        Form of the membership; see :func:`soft_membership`.
    seed : int
        Of "neighbours" and "umap"; everything else is exact.
    n_threads : int, optional
        Changes the time, never the result.

    Attributes
    ----------
    memberships_ : ndarray of shape (n, K), float32
        Rows are not brought to sum 1: what is missing is the probability of noise.
    labels_ : ndarray of shape (n,), int64
        -1 is noise.
    exemplars_ : tuple of ndarray of int64
        The densest rows of each concept, those of the highest proximity first.
    embedding_ : ndarray of shape (n, D), float64
    clusterer_ : HDBSCAN
    embedder_ : object
    n_features_in_ : int

    Notes
    -----
    Published settings (Vielhaben et al., arXiv 2412.06639): embed="umap", n_components=50, n_neighbors=30, min_dist=0.01,
    min_cluster_size=50, min_samples=20, selection="leaf", variant="new_point", for some 10^5 rows. For few rows take
    a smaller ``min_cluster_size``.
    """

    def __init__(
        self,
        embed: Any = "neighbours",
        n_components: int = 50,
        n_neighbors: int = 30,
        min_dist: float = 0.01,
        min_cluster_size: int = 50,
        min_samples: int | None = 20,
        selection: str = "leaf",
        epsilon: float = 0.0,
        variant: str = "new_point",
        seed: int = 0,
        n_threads: int | None = None,
    ) -> None:
        self.embed = embed
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.min_dist = min_dist
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples
        self.selection = selection
        self.epsilon = epsilon
        self.variant = variant
        self.seed = seed
        self.n_threads = n_threads

    def fit(self, X: ArrayLike, y: Any = None) -> NLMCD:
        """Find concepts.

        Parameters
        ----------
        X : array-like of shape (n, F), real
        y : ignored

        Raises
        ------
        DataError
            Fewer than two rows, NaN and inf, rows that are all equal, an embedding of another length.

        Warns
        -----
        ConceptWarning
            No dense region was found: all rows are noise and there are no concepts.
        """
        rows = self._start(X)
        self.embedder_ = embedder(
            self.embed,
            whole(self.n_components, "n_components", 1),
            whole(self.n_neighbors, "n_neighbors", 2),
            self.min_dist,
            self.seed,
            self.n_threads,
        )
        self.embedding_ = self._checked(self.embedder_.fit_transform(rows), len(rows))
        self.clusterer_ = HDBSCAN(self.min_cluster_size, self.min_samples, self.selection, self.epsilon, self.n_threads).fit(
            self.embedding_
        )
        memberships = soft_membership(self.clusterer_, self.embedding_, self.variant, n_threads=self.n_threads)
        ordered = tuple(rows_[np.argsort(-memberships[rows_, k], kind="stable")] for k, rows_ in enumerate(self.clusterer_.exemplars_))
        self._finish(memberships, self.clusterer_.labels_, ordered)
        if not memberships.shape[1]:
            warnings.warn(
                f"no concept was found: all {len(rows)} rows are noise; lower min_cluster_size={self.min_cluster_size} or "
                f"min_samples={self.min_samples}, or look at the features", ConceptWarning, stacklevel=2,
            )  # fmt: skip
        return self

    def transform(self, X: ArrayLike, embedding: ArrayLike | None = None) -> F32:
        """Proximities of new rows, by their place among the fitted ones.

        Parameters
        ----------
        X : array-like of shape (m, F), real
        embedding : array-like of shape (m, D), optional
            Their coordinates, where ``embed`` was an array.

        Returns
        -------
        ndarray of shape (m, K), float32
        """
        rows = self._new(X)
        points = self._checked(self.embedder_.transform(rows) if embedding is None else embedding, len(rows))
        samples = self.min_cluster_size if self.min_samples is None else self.min_samples
        found: F32 = new_membership(
            self.clusterer_, self.embedding_, points, min_samples=samples, variant=self.variant, n_threads=self.n_threads
        )
        return found

    def predict(self, X: ArrayLike, embedding: ArrayLike | None = None) -> I64:
        """The concept of the largest proximity of each new row; -1 where noise is the likelier."""
        found = self.transform(X, embedding)
        if not found.shape[1]:
            return np.full(len(found), -1, np.int64)
        return np.where(found.sum(axis=1) > 0.5, found.argmax(axis=1), -1).astype(np.int64)

    def _space(self) -> Real:
        return self.embedding_

    @staticmethod
    def _checked(values: Any, n: int) -> Real:
        points = np.ascontiguousarray(values, dtype=np.float64)
        if points.ndim != 2 or len(points) != n or not points.shape[1]:
            raise DataError(f"the embedding has shape {points.shape}, but there are {n} rows: it must be ({n}, D)")
        return points
