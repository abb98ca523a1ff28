"""Kernels of density clustering and soft membership."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Columns = tuple[I64, I64, F64, I64]
Nodes = tuple[I64, F64, F64, F64, I64, F64]

SELECTIONS = ("leaf", "eom")
VARIANTS = ("new_point", "all_points")


def nearest(x: F64, z: F64, k: int, *, n_threads: int | None = None) -> tuple[NDArray[np.int32], F64]:
    """Indices and distances, each (m, k), of the k rows of x nearest to each row of z; ties by the lower index."""
    index, squared = _core.nearest(x, z, k, n_threads=resolve_threads(n_threads))
    return index, np.sqrt(squared)


def spanning_tree(x: F64, min_samples: int, *, n_threads: int | None = None) -> tuple[I64, I64, F64, F64]:
    """Exact minimum spanning tree of mutual reachability.

    Returns
    -------
    low, high : (n - 1,) int64
    weight : (n - 1,) float64, ascending
    core : (n,) float64
        Distance of each row to its ``min_samples``-th other one.
    """
    return _core.spanning_tree(x, min_samples, n_threads=resolve_threads(n_threads))


def condense(low: I64, high: I64, weight: F64, min_size: int) -> Columns:
    """Condensed tree (parent, child, lambda, child_size) of the dendrogram that the edges make in their order."""
    left, right, size = _core.single_linkage(low, high)
    return _core.condense(left, right, weight, size, min_size)


def condense_linkage(left: I64, right: I64, height: F64, size: I64, min_size: int) -> Columns:
    """The same from the merges of a dendrogram."""
    return _core.condense(left, right, height, size, min_size)


def tree_nodes(columns: Columns, n: int, n_nodes: int) -> Nodes:
    """(up, birth, lmax, stability, point_node, point_lambda) of a condensed tree over n points; node t is cluster n + t."""
    return _core.tree_nodes(*columns, n, n_nodes)


def select(nodes: Nodes, selection: str, epsilon: float) -> NDArray[np.uint8]:
    """(n_nodes,) 1 for selected nodes."""
    return _core.tree_select(nodes, SELECTIONS.index(selection), epsilon)


def labels(nodes: Nodes, selected: NDArray[np.uint8]) -> tuple[I64, I64, F64, NDArray[np.uint8], F64]:
    """(concept_of (T,), labels (n,), strength (n,), exemplar (n,), height (T, K)); see ``sl_hdbscan.h``."""
    return _core.tree_labels(nodes, selected)


def membership(
    z: F64, node: I64, lam: F64, exemplars: F64, start: I64, height: F64, lmax: F64, top: F64,
    *, variant: str, most: float, single: bool, n_threads: int | None = None,
) -> NDArray[np.float32] | F64:
    """(n, K) memberships of rows z that leave the tree at ``node`` and ``lam``; see ``sl_membership.h``."""
    return _core.membership(
        z, node, lam, exemplars, start, height, lmax, top,
        variant=VARIANTS.index(variant), most=most, single=single, n_threads=resolve_threads(n_threads),
    )
