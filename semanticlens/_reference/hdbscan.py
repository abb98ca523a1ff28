"""Twins of the clustering kernels: from the definitions, with the n x n matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tree = tuple[Array, Array, Array, Array]


def squared_distances(x: Array, z: Array) -> Array:
    """(m, n) squared distances of the rows of z to those of x, coordinate by coordinate."""
    x, z = np.asarray(x, dtype=np.float64), np.asarray(z, dtype=np.float64)
    total = np.zeros((len(z), len(x)))
    for j in range(x.shape[1]):
        total += (z[:, j, None] - x[None, :, j]) ** 2
    return total


def nearest(x: Array, z: Array, k: int) -> tuple[Array, Array]:
    """Indices and squared distances of the k nearest rows of x, ties by the lower index."""
    squared = squared_distances(x, z)
    index = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(squared, index, axis=1)


def spanning_tree(x: Array, min_samples: int) -> tuple[Array, Array, Array, Array]:
    """Kruskal over all pairs, ordered by (squared mutual reachability, low, high)."""
    squared = squared_distances(x, x)
    n = len(squared)
    core = np.sort(squared, axis=1)[:, min_samples]
    low, high = np.triu_indices(n, 1)
    reach = np.maximum(squared[low, high], np.maximum(core[low], core[high]))
    name, taken = np.arange(n), []
    for e in np.lexsort((high, low, reach)):
        a, b = name[low[e]], name[high[e]]
        if a != b:
            name[name == b] = a
            taken.append(e)
    return low[taken], high[taken], np.sqrt(reach[taken]), np.sqrt(core)


def single_linkage(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Clusters joined by each edge and the size of the result."""
    n = len(low) + 1
    name, size = list(range(n)), [1] * n
    rows = []
    for t, (a, b) in enumerate(zip(low, high, strict=True)):
        left, right = name[a], name[b]
        size.append(size[left] + size[right])
        rows.append((left, right, size[-1]))
        name = [n + t if c in (left, right) else c for c in name]
    left, right, sizes = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return left, right, sizes


def condense(left: Array, right: Array, height: Array, size: Array, min_size: int) -> Tree:
    """Condensed tree, written with lists."""
    n = len(left) + 1

    def count(node: int) -> int:
        return 1 if node < n else int(size[node - n])

    def points(node: int) -> list[int]:
        level, found = [node], []
        while level:
            found += [c for c in level if c < n]
            level = [int(side[c - n]) for c in level if c >= n for side in (left, right)]
        return found

    rows, level, following = [], [(2 * n - 2, n)], n + 1
    while level:
        below = []
        for node, cluster in level:
            sides = [int(left[node - n]), int(right[node - n])]
            at = 1.0 / height[node - n] if height[node - n] > 0 else np.inf
            large = [s for s in sides if count(s) >= min_size]
            for side in sides:
                if side not in large:
                    rows += [(cluster, p, at, 1) for p in points(side)]
                elif len(large) == 2:
                    rows.append((cluster, following, at, count(side)))
                    below.append((side, following))
                    following += 1
                else:
                    below.append((side, cluster))
        level = below
    parent, child, lam, sizes = zip(*rows, strict=True)
    return np.array(parent), np.array(child), np.array(lam), np.array(sizes)


def select(tree: Tree, method: str, epsilon: float = 0.0) -> list[int]:
    """Names of the selected clusters, ascending."""
    parent, child, lam, size = tree
    root = int(parent.min())
    clusters = sorted(int(c) for c in child if c > root)
    birth = {root: 0.0, **{int(c): float(v) for c, v in zip(child, lam, strict=True) if c > root}}
    up = {int(c): int(p) for p, c in zip(parent, child, strict=True) if c > root}
    children: dict[int, list[int]] = {c: [] for c in [root, *clusters]}
    for c, p in up.items():
        children[p].append(c)
    chosen = {c for c in clusters if not children[c]}
    if method == "eom":
        worth = {c: float(((lam[parent == c] - birth[c]) * size[parent == c]).sum()) for c in clusters}
        for c in reversed(clusters):
            inside = sum(worth[k] for k in children[c])
            if children[c] and inside > worth[c]:
                worth[c] = inside
            else:
                chosen = {k for k in chosen if not _below(k, c, up)} | {c}
    if epsilon > 0:
        chosen = {_rise(c, up, birth, root, epsilon) for c in chosen}
        chosen = {c for c in chosen if not any(k != c and _below(c, k, up) for k in chosen)}
    return sorted(chosen)


def _below(c: int, ancestor: int, up: dict[int, int]) -> bool:
    while c in up and c != ancestor:
        c = up[c]
    return c == ancestor


def _rise(c: int, up: dict[int, int], birth: dict[int, float], root: int, epsilon: float) -> int:
    if 1.0 / birth[c] >= epsilon:
        return c
    while up[c] != root:
        c = up[c]
        if 1.0 / birth[c] > epsilon:
            break
    return c


def labels(tree: Tree, chosen: list[int]) -> tuple[Array, Array]:
    """Labels and strengths of the points."""
    parent, child, lam, _ = tree
    root = int(parent.min())
    up = {int(c): int(p) for p, c in zip(parent, child, strict=True)}
    most = [lam[parent == s].max() for s in chosen]
    label, strength = np.full(root, -1), np.zeros(root)
    for p in range(root):
        for k, s in enumerate(chosen):
            if _below(p, s, up):
                own = lam[child == p][0]
                label[p] = k
                strength[p] = 1.0 if np.isinf(own) or most[k] == 0 else min(own, most[k]) / most[k]
    return label, strength


def exemplars(tree: Tree, chosen: list[int]) -> list[Array]:
    """Points of each cluster that leave a childless cluster below it last."""
    parent, child, lam, _ = tree
    root = int(parent.min())
    up = {int(c): int(p) for p, c in zip(parent, child, strict=True) if c > root}
    leaves = [int(c) for c in child if c > root and c not in set(up.values())]
    found = []
    for s in chosen:
        points = [child[(parent == c) & (lam == lam[parent == c].max()) & (child < root)] for c in leaves if _below(c, s, up)]
        found.append(np.sort(np.concatenate(points)))
    return found


def merge_height(tree: Tree, c: int, s: int) -> float:
    """Lambda at which clusters c and s part; NaN on one path."""
    parent, child, lam, _ = tree
    up = {int(k): int(p) for p, k in zip(parent, child, strict=True)}
    if _below(c, s, up) or _below(s, c, up):
        return float("nan")
    while not _below(s, up[c], up):
        c = up[c]
    return float(lam[child == c][0])


def membership(tree: Tree, chosen: list[int], x: Array, z: Array, node: Array, lam: Array, variant: str) -> Array:
    """Both forms, row by row, from the formulas; ``node`` and ``lam`` place the rows of z in the tree over the rows of x."""
    parent, _, value, _ = tree
    finite = value[np.isfinite(value)]
    most = finite.max() if finite.size and finite.max() > 0 else 1.0
    lmax = {int(c): min(float(value[parent == c].max()), most) for c in np.unique(parent)}
    near = [np.sqrt(squared_distances(x[e], z).min(axis=1)) for e in exemplars(tree, chosen)]
    out = np.zeros((len(z), len(chosen)))
    for i in range(len(z) if chosen else 0):
        c, own = int(node[i]), min(float(lam[i]), most)
        u = np.array([1.0 / d[i] if d[i] > 0 else np.finfo(float).max / len(chosen) for d in near])
        apart = np.array([merge_height(tree, c, s) for s in chosen])
        h = np.where(np.isnan(apart), own, np.minimum(apart, most))
        top = lmax[chosen[int(h.argmax())]]
        if variant == "new_point":
            below = lmax[c] - np.where(np.isnan(apart), float(np.float32(own)), h)
            t = lmax[c] / np.where(below > 0, below, 1e-8)
            p = h.max() / (max(own, top) + 1e-8)
        else:
            t = np.exp(-(lmax[c] + 1e-8) / h)
            p = h.max() / max(own, top)
        soft = np.exp(t - t.max())
        soft /= soft.sum()
        u /= u.sum()
        v = np.sqrt(u) * soft**2 if variant == "new_point" else u * soft
        out[i] = p * v / v.sum() if v.sum() > 0 else 0.0
    return out
