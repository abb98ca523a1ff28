"""Density clustering (HDBSCAN) with an exact, reproducible tree, and condensed trees of any origin.

Campello, Moulavi, Sander (2013); McInnes, Healy, Astels (2017).  The spanning tree is the exact one, settled by the order of the rows where
distances tie, so that equal input gives equal labels whatever the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import hdbscan as kernels

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
FIELDS = ("parent", "child", "lambda_val", "child_size")


def as_points(values: ArrayLike, name: str = "Z", columns: int | None = None) -> F64:
    """``values`` as a finite (n, d) float64 array; float32 is widened, which is exact."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, not {array.dtype}")
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{name} has shape {array.shape}: must be (n, d) with at least one row and one column")
    if columns is not None and array.shape[1] != columns:
        raise DataError(f"{name} has {array.shape[1]} columns, but the tree's points have {columns}: embed them the same way")
    array = np.ascontiguousarray(array, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise DataError(f"{name} has NaN or infinite values in {bad.size} rows, the first is row {bad[0]}: remove them")
    return array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CondensedTree:
    """A condensed tree: row r says that ``child`` leaves or splits off cluster ``parent`` at ``lambda_`` = 1 / distance.

    Points are 0..n-1, the root cluster is n, and a cluster has a higher number than its parent.  Make one from another implementation's
    tree with :meth:`of`.

    Attributes
    ----------
    parent, child, child_size : ndarray of shape (rows,), int64
    lambda_ : ndarray of shape (rows,), float64
        inf where points coincide.
    """

    parent: I64
    child: I64
    lambda_: F64
    child_size: I64
    _nodes: kernels.Nodes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not len(self.parent):
            raise DataError("the condensed tree has no rows")
        n = int(self.parent.min())
        try:
            nodes = kernels.tree_nodes(self.columns, n, int(self.parent.max()) - n + 1)
        except ValueError as error:
            raise DataError(f"{error} (root {n}, {len(self.parent)} rows)") from error
        object.__setattr__(self, "_nodes", nodes)

    @classmethod
    def of(cls, tree: Any) -> CondensedTree:
        """``tree`` as a condensed tree.

        Parameters
        ----------
        tree : CondensedTree, four arrays, structured array, or object with ``condensed_tree_`` or ``to_numpy``
            The four arrays, in order or as fields: parent, child, lambda_val, child_size.
        """
        if isinstance(tree, cls):
            return tree
        if hasattr(tree, "condensed_tree_"):
            return cls.of(tree.condensed_tree_)
        if hasattr(tree, "to_numpy"):
            tree = tree.to_numpy()
        names = getattr(getattr(tree, "dtype", None), "names", None)
        if names is not None and set(FIELDS) <= set(names):
            tree = [tree[name] for name in FIELDS]
        try:
            parent, child, lam, size = (np.asarray(column) for column in tree)
        except (TypeError, ValueError):
            raise TypeError(f"tree must be a CondensedTree, or the four arrays {', '.join(FIELDS)}, not {type(tree).__name__}") from None
        whole = [np.ascontiguousarray(c, dtype=np.int64) for c in (parent, child, size)]
        return cls(parent=whole[0], child=whole[1], lambda_=np.ascontiguousarray(lam, dtype=np.float64), child_size=whole[2])

    @property
    def columns(self) -> kernels.Columns:
        """The four arrays."""
        return self.parent, self.child, self.lambda_, self.child_size

    @property
    def n(self) -> int:
        """Number of points."""
        return len(self._nodes[4])

    @property
    def n_clusters(self) -> int:
        """Number of clusters in the tree, the root included."""
        return len(self._nodes[0])

    def clusters(self, selection: str = "leaf", epsilon: float = 0.0) -> Clusters:
        """Select clusters.

        Parameters
        ----------
        selection : {"leaf", "eom"}
            The clusters without child clusters, or those of the largest total stability ("excess of mass").
        epsilon : float
            A cluster born at a distance below ``epsilon`` is replaced by its nearest ancestor born above it.  The root is never selected.
        """
        if selection not in kernels.SELECTIONS:
            raise ValueError(f"selection={selection!r} must be one of {', '.join(map(repr, kernels.SELECTIONS))}")
        if not epsilon >= 0:
            raise ValueError(f"epsilon={epsilon} must be a distance of at least 0")
        chosen = kernels.select(self._nodes, selection, float(epsilon))
        _, labels, strength, exemplar, height = kernels.labels(self._nodes, chosen)
        rows = np.flatnonzero(exemplar)
        rows = rows[np.argsort(labels[rows], kind="stable")]
        ends = np.searchsorted(labels[rows], np.arange(1, height.shape[1] + 1))
        return Clusters(
            tree=self, selected=np.flatnonzero(chosen), labels=labels, probabilities=strength, height=height,
            exemplars=tuple(np.split(rows, ends)[:-1]),
        )

    def __repr__(self) -> str:
        return f"CondensedTree({self.n} points, {self.n_clusters} clusters)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clusters:
    """Clusters selected from a condensed tree.

    Attributes
    ----------
    selected : ndarray of shape (K,), int64
        Nodes of the tree (cluster number minus n), ascending: label k is node ``selected[k]``.
    labels : ndarray of shape (n,), int64
        -1 is noise.
    probabilities : ndarray of shape (n,), float64
        How long a point stays, relative to the cluster's densest point.
    exemplars : tuple of ndarray of int64
        Per cluster, the rows that leave the densest leaves below it last.
    height : ndarray of shape (T, K), float64
        Lambda at which node and cluster part; NaN where one lies above the other.
    """

    tree: CondensedTree
    selected: I64
    labels: I64
    probabilities: F64
    exemplars: tuple[I64, ...]
    height: F64


class HDBSCAN:
    """Hierarchical density clustering with the exact spanning tree.

    Parameters
    ----------
    min_cluster_size : int
        At least 2.
    min_samples : int or None
        Density is measured by the distance to this many OTHER points (scikit-learn counts the point itself); None is ``min_cluster_size``.
        At most n - 1 are used.
    selection : {"leaf", "eom"}
    epsilon : float
        See :meth:`CondensedTree.clusters`.
    n_threads : int, optional
        Changes the time, never the result.

    Attributes
    ----------
    labels_ : ndarray of shape (n,), int64
        -1 is noise.
    probabilities_ : ndarray of shape (n,), float64
    exemplars_ : tuple of ndarray of int64
        Rows that stand for each cluster.
    condensed_tree_ : CondensedTree
    clusters_ : Clusters
    core_distances_ : ndarray of shape (n,), float64
    spanning_tree_ : tuple of (low, high, weight)
        Ties in weight by the lower, then the higher row.
    n_features_in_ : int

    Notes
    -----
    Distances are Euclidean, in float64; for other metrics embed first.  Labels equal those of the hdbscan package with
    ``approx_min_span_tree=False`` up to ties: edges that share a core distance are common, and which of them the tree
    has is then a convention.
    """

    def __init__(
        self, min_cluster_size: int = 50, min_samples: int | None = 20, selection: str = "leaf", epsilon: float = 0.0,
        n_threads: int | None = None,
    ) -> None:
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples
        self.selection = selection
        self.epsilon = epsilon
        self.n_threads = n_threads

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name."""
        return {name: getattr(self, name) for name in ("min_cluster_size", "min_samples", "selection", "epsilon", "n_threads")}

    def set_params(self, **params: Any) -> HDBSCAN:
        """Set constructor arguments; an unknown name raises ValueError."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"HDBSCAN has no parameter {name!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def fit(self, X: ArrayLike, y: Any = None) -> HDBSCAN:
        """Cluster the rows of X.

        Parameters
        ----------
        X : array-like of shape (n, d), real
            n at least 2, finite.
        y : ignored

        Raises
        ------
        DataError
            Fewer than two rows, or NaN and inf, with the first such row.
        """
        size = _whole(self.min_cluster_size, "min_cluster_size", 2)
        samples = size if self.min_samples is None else _whole(self.min_samples, "min_samples", 1)
        points = as_points(X, "X")
        if len(points) < 2:
            raise DataError(f"X has {len(points)} row: clustering needs at least 2")
        low, high, weight, core = kernels.spanning_tree(points, min(samples, len(points) - 1), n_threads=self.n_threads)
        parent, child, lam, sizes = kernels.condense(low, high, weight, size)
        self.condensed_tree_ = CondensedTree(parent=parent, child=child, lambda_=lam, child_size=sizes)
        self.clusters_ = self.condensed_tree_.clusters(self.selection, self.epsilon)
        self.labels_ = self.clusters_.labels
        self.probabilities_ = self.clusters_.probabilities
        self.exemplars_ = self.clusters_.exemplars
        self.core_distances_ = core
        self.spanning_tree_ = (low, high, weight)
        self.n_features_in_ = points.shape[1]
        return self

    def fit_predict(self, X: ArrayLike, y: Any = None) -> I64:
        """:meth:`fit`, then ``labels_``."""
        return self.fit(X).labels_

    def __repr__(self) -> str:
        return f"HDBSCAN({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"


def _whole(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    return int(value)
