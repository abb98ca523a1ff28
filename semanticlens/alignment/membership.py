"""How much does a point belong to each cluster?  Soft membership in closed form, from any condensed tree.

The two forms are those of the hdbscan package: ``"new_point"`` (``membership_vector``, used by Vielhaben et al.,
arXiv 2412.06639) and ``"all_points"`` (``all_points_membership_vectors``).  They agree on the nearest cluster, as a rule,
and not in shape.  The rest of a row, to 1, is noise.  Formulas: ``sl_membership.h``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from semanticlens._errors import MismatchError
from semanticlens._kernels import hdbscan as kernels
from semanticlens.alignment.clustering import Clusters, CondensedTree, _whole, as_points

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def soft_membership(
    tree: Any, Z: ArrayLike, variant: str = "new_point", *, selection: str = "leaf", epsilon: float = 0.0, dtype: DTypeLike = np.float32,
    n_threads: int | None = None,
) -> NDArray[Any]:
    """Membership of the clustered points themselves.

    Parameters
    ----------
    tree : HDBSCAN, Clusters, CondensedTree, or anything :meth:`CondensedTree.of` takes
        A fitted :class:`HDBSCAN` and :class:`Clusters` bring their own selection.
    Z : array-like of shape (n, d), real
        The points that were clustered, in the same order.
    variant : {"new_point", "all_points"}
    selection, epsilon
        See :meth:`CondensedTree.clusters`.
    dtype : float32 or float64
        Of the result; everything is computed in float64.
    n_threads : int, optional

    Returns
    -------
    ndarray of shape (n, K)
        Rows sum to at most 1 (up to rounding); columns in the order of the labels; (n, 0) where nothing is selected.

    Notes
    -----
    ``lambda`` = inf (more than ``min_samples`` coinciding points) counts as the largest finite lambda of the tree, where
    hdbscan has NaN rows.  Under "eom", a selected cluster keeps its own node; hdbscan takes the smallest node in which a
    labelled point sits.
    """
    clusters = _clusters(tree, selection, epsilon)
    points = as_points(Z)
    if len(points) != clusters.tree.n:
        raise MismatchError(f"Z has {len(points)} rows, but the tree has {clusters.tree.n} points: give the points that were clustered")
    nodes = clusters.tree._nodes
    return _membership(clusters, points, points, nodes[4], nodes[5], variant, dtype, n_threads)


def new_membership(
    tree: Any, Z: ArrayLike, points: ArrayLike, *, min_samples: int = 20, variant: str = "new_point", selection: str = "leaf",
    epsilon: float = 0.0, dtype: DTypeLike = np.float32, n_threads: int | None = None,
) -> NDArray[Any]:
    """Membership of points that were not clustered.

    Each takes the place of the neighbour it is nearest to in mutual reachability, among its ``2 * min_samples`` nearest rows of Z.

    Parameters
    ----------
    tree, Z, variant, selection, epsilon, dtype, n_threads
        See :func:`soft_membership`.
    points : array-like of shape (m, d), real
        Embedded as Z was.
    min_samples : int
        As for the fit.

    Returns
    -------
    ndarray of shape (m, K)
    """
    clusters = _clusters(tree, selection, epsilon)
    known = as_points(Z)
    if len(known) != clusters.tree.n:
        raise MismatchError(f"Z has {len(known)} rows, but the tree has {clusters.tree.n} points: give the points that were clustered")
    fresh = as_points(points, "points", known.shape[1])
    node, lam = _place(clusters.tree, known, fresh, _whole(min_samples, "min_samples", 1), n_threads)
    return _membership(clusters, known, fresh, node, lam, variant, dtype, n_threads)


def _clusters(tree: Any, selection: str, epsilon: float) -> Clusters:
    tree = getattr(tree, "clusters_", tree)
    return tree if isinstance(tree, Clusters) else CondensedTree.of(tree).clusters(selection, epsilon)


def _place(tree: CondensedTree, known: F64, fresh: F64, min_samples: int, n_threads: int | None) -> tuple[I64, F64]:
    """Node and lambda at which new points would leave the tree."""
    samples = min(min_samples, len(known) - 1)
    index, distance = kernels.nearest(known, fresh, min(2 * samples, len(known)), n_threads=n_threads)
    wanted, back = np.unique(index, return_inverse=True)
    core = kernels.nearest(known, known[wanted], max(samples, 1), n_threads=n_threads)[1][:, -1]
    own = distance[:, min(samples, distance.shape[1] - 1)]
    reach = np.maximum(np.maximum(core[back.reshape(index.shape)], own[:, None]), distance)
    best = reach.argmin(axis=1)
    rows = np.arange(len(fresh))
    neighbour, reached = index[rows, best], reach[rows, best]
    lam = np.divide(1.0, reached, out=np.full(len(fresh), np.inf), where=reached > 0)
    return tree._nodes[4][neighbour], np.minimum(lam, tree._nodes[5][neighbour])


def _membership(
    clusters: Clusters, known: F64, points: F64, node: I64, lam: F64, variant: str, dtype: DTypeLike, n_threads: int | None
) -> NDArray[Any]:
    if variant not in kernels.VARIANTS:
        raise ValueError(f"variant={variant!r} must be one of {', '.join(map(repr, kernels.VARIANTS))}")
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype={kind} must be float32 or float64")
    lmax = clusters.tree._nodes[2]
    finite = clusters.tree.lambda_[np.isfinite(clusters.tree.lambda_)]
    most = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    start = np.cumsum([0, *map(len, clusters.exemplars)], dtype=np.int64)
    rows = np.concatenate([*clusters.exemplars, np.zeros(0, np.int64)])
    return kernels.membership(
        points, node, lam, known[rows], start, clusters.height, lmax, lmax[clusters.selected],
        variant=variant, most=most, single=kind == np.float32, n_threads=n_threads,
    )
