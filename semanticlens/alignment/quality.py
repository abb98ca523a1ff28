"""How good are concepts in themselves?  Noise, density validity, intrinsic dimension, separability, faithfulness of the embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._kernels import hdbscan as kernels
from semanticlens.alignment.axes import principal_axes

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
MOST_ROWS = 5000  # of separability and of the embedding's error; more are thinned out evenly
MOST_FEATURES = 256  # of separability; more are replaced by their principal components
FOLDS = 3
COST = 1.0  # of a margin violation
NEWTON_STEPS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Quality of a run of concept discovery; NaN where undefined.

    Attributes
    ----------
    n_concepts : int
    noise : float
        Share of rows that belong to no concept.
    dbcv : float
        Density-based validity, mean of the concepts' scores in [-1, 1]; see :func:`dbcv`.
    intrinsic_dimension : float
        Mean of the concepts' two-nearest-neighbour dimensions, where the concepts were found; see :func:`two_nn`.
    separability, separability_auc : float
        Share of member rows that a linear classifier on the features gives to the right concept, and the mean area under the
        curve of one concept against the others, both on rows it was not trained on; see :func:`separability`.
    embedding_rmse : float
        How far the embedding changes the distances of rows; see :func:`embedding_rmse`.
    """

    n_concepts: int
    noise: float
    dbcv: float
    intrinsic_dimension: float
    separability: float
    separability_auc: float
    embedding_rmse: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, None for NaN, for JSON."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in found.items()}


def measure(X: ArrayLike, labels: ArrayLike, Z: ArrayLike | None = None) -> Quality:
    """All measures at once.

    Parameters
    ----------
    X : array-like of shape (n, F)
        Features.
    labels : array-like of shape (n,), int
        Concept of each row, -1 for none.
    Z : array-like of shape (n, D), optional
        Where the concepts were found; None is X.
    """
    features, own = np.asarray(X), np.asarray(labels, dtype=np.int64)
    space = features if Z is None else np.asarray(Z)
    names = np.unique(own[own >= 0])
    dimensions = np.array([two_nn(space[own == k]) for k in names])
    finite = dimensions[np.isfinite(dimensions)]
    accuracy, auc = separability(features, own)
    return Quality(
        n_concepts=len(names), noise=float((own < 0).mean()), dbcv=float(dbcv(space, own)[0]),
        intrinsic_dimension=float(finite.mean()) if len(finite) else math.nan, separability=accuracy, separability_auc=auc,
        embedding_rmse=0.0 if space is features else embedding_rmse(features, space),
    )  # fmt: skip


# ---- density-based validity


def _core(points: F64) -> F64:
    """All-points core distances (mean of d^-D over the other points)^(-1/D) without coinciding points; in logarithms, as d^-D overflows."""
    n, dim = points.shape
    out = np.zeros(n)
    step = max(1, (1 << 22) // max(n, 1))
    for start in range(0, n, step):
        squared = _squared(points[start : start + step], points)
        with np.errstate(divide="ignore"):
            logs = np.where(squared > 0, -0.5 * dim * np.log(squared), -np.inf)
        top = logs.max(axis=1, keepdims=True)
        usable = np.isfinite(top[:, 0])
        total = np.zeros(len(logs))
        total[usable] = top[usable, 0] + np.log(np.exp(logs[usable] - top[usable]).sum(axis=1)) - math.log(n - 1)
        out[start : start + step][usable] = np.exp(-total[usable] / dim)
    return out


def _squared(a: F64, b: F64) -> F64:
    """Squared distances (m, n); exact zeros where rows are equal."""
    out = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    doubtful = np.argwhere(out <= 1e-9 * ((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)))
    if len(doubtful):
        i, j = doubtful.T
        out[i, j] = ((a[i] - b[j]) ** 2).sum(axis=1)
    return np.asarray(np.maximum(out, 0.0))


def _tree(points: F64, core: F64) -> tuple[I64, I64, F64]:
    """Minimum spanning tree of mutual reachability (Prim from the first row), each row attached to the lowest one that is nearest."""
    n = len(points)
    near, via = np.full(n, np.inf), np.zeros(n, np.int64)
    free = np.ones(n, bool)
    current, ends = 0, np.empty((n - 1, 2), np.int64)
    weights = np.empty(n - 1)
    for step in range(n - 1):
        free[current] = False
        reach = np.maximum(np.sqrt(((points - points[current]) ** 2).sum(axis=1)), np.maximum(core, core[current]))
        closer = free & ((reach < near) | ((reach == near) & (current < via)))
        near[closer], via[closer] = reach[closer], current
        current = int(np.where(free, near, np.inf).argmin())
        ends[step], weights[step] = (via[current], current), near[current]
    return ends[:, 0], ends[:, 1], weights


def dbcv(Z: ArrayLike, labels: ArrayLike) -> tuple[float, F64]:
    """Density-based clustering validation: mean of the clusters' scores, and the scores (K,).

    A cluster's score is (separation - sparseness) / max of both: sparseness is the longest inner edge of its spanning tree under mutual
    reachability, separation the shortest reachability from its inner points to those of another cluster (Moulavi et al. 2014;
    conventions of
    the hdbscan package).  NaN for clusters of one row, and with fewer than two clusters.
    """
    space, own = np.asarray(Z, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    names = np.unique(own[own >= 0])
    scores = np.full(len(names), np.nan)
    inner: list[tuple[F64, F64]] = []
    sparse = np.zeros(len(names))
    for k, name in enumerate(names):
        points = space[own == name]
        core = _core(points) if len(points) > 1 else np.zeros(1)
        nodes = np.ones(len(points), bool)
        if len(points) > 1:
            a, b, weight = _tree(points, core)
            degree = np.bincount(np.concatenate([a, b]), minlength=len(points))
            nodes = degree > 1 if (degree > 1).any() else nodes
            both = nodes[a] & nodes[b]
            sparse[k] = weight[both].max() if both.any() else weight.max()
        inner.append((points[nodes], core[nodes]))
    if len(names) < 2:
        return math.nan, scores
    for k, (points, core) in enumerate(inner):
        apart = min(_separation(points, core, *other) for j, other in enumerate(inner) if j != k)
        scale = max(apart, sparse[k])
        if scale > 0 and (own == names[k]).sum() > 1:
            scores[k] = (apart - sparse[k]) / scale
    finite = scores[np.isfinite(scores)]
    return (float(finite.mean()) if len(finite) else math.nan), scores


def _separation(a: F64, core_a: F64, b: F64, core_b: F64) -> float:
    least = math.inf
    step = max(1, (1 << 22) // max(len(b), 1))
    for start in range(0, len(a), step):
        reach = np.maximum(np.sqrt(_squared(a[start : start + step], b)), np.maximum(core_a[start : start + step, None], core_b))
        least = min(least, float(reach.min()))
    return least


# ---- intrinsic dimension


def two_nn(points: ArrayLike, discard: float = 0.5) -> float:
    """Intrinsic dimension from the ratio of the distances to the two nearest neighbours (Facco et al. 2017).

    Slope through the origin of -log(1 - i / n) against the log of the i-th smallest ratio, i from 1, without the ``discard`` share
    of largest ratios.
    Coinciding rows count once; NaN for fewer than four rows.
    """
    rows = np.unique(np.asarray(points, dtype=np.float64), axis=0)
    n = len(rows)
    if n < 4:
        return math.nan
    _, distance = kernels.nearest(rows, rows, 3)
    ratio = np.sort(distance[:, 2] / distance[:, 1])[: int(n * (1 - discard))]
    x, y = np.log(ratio), -np.log1p(-np.arange(1, len(ratio) + 1) / n)
    return float((x @ y) / (x @ x)) if (x @ x) > 0 else math.nan


# ---- linear separability


def _thinned(labels: I64, most: int) -> I64:
    """Rows of members of concepts, at most about ``most``, every j-th of each concept."""
    members = np.flatnonzero(labels >= 0)
    step = -(-len(members) // most) if len(members) else 1
    order = members[np.argsort(labels[members], kind="stable")]
    return np.sort(order[::step])


def separability(X: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """How well do linear classifiers tell the concepts apart?

    One classifier per concept against the rest (squared hinge loss, cost 1, features scaled to a mean squared length of 1 around
    their mean),
    trained on two thirds of the member rows and asked about the other, in turn.  At most 5000 rows and 256 principal components enter.

    Returns
    -------
    accuracy, auc : float
        NaN with fewer than two concepts of three rows.
    """
    own = np.asarray(labels, dtype=np.int64)
    rows = _thinned(own, MOST_ROWS)
    names, sizes = np.unique(own[rows], return_counts=True)
    names = names[sizes >= FOLDS]
    if len(names) < 2:
        return math.nan, math.nan
    rows = rows[np.isin(own[rows], names)]
    y = np.searchsorted(names, own[rows])
    x = np.asarray(X)[rows].astype(np.float64)
    if x.shape[1] > MOST_FEATURES or x.shape[1] > len(x):
        mean, axes, _ = principal_axes(x, MOST_FEATURES)
        x = (x - mean) @ axes.T
    x = x - x.mean(axis=0)
    length = math.sqrt(float((x**2).sum(axis=1).mean()))
    x = np.concatenate([x / length if length > 0 else x, np.ones((len(x), 1))], axis=1)
    order = np.argsort(y, kind="stable")
    fold = np.empty(len(y), np.int64)
    starts = np.searchsorted(y[order], y[order])
    fold[order] = (np.arange(len(y)) - starts) % FOLDS
    values = np.empty((len(y), len(names)))
    for f in range(FOLDS):
        for k in range(len(names)):
            values[fold == f, k] = x[fold == f] @ _svm(x[fold != f], np.where(y[fold != f] == k, 1.0, -1.0))
    accuracy = float((values.argmax(axis=1) == y).mean())
    return accuracy, float(np.mean([_auc(values[:, k], y == k) for k in range(len(names))]))


def _svm(x: F64, sign: F64) -> F64:
    """Weights of min ½|w|² + C sum max(0, 1 - y w·x)², by Newton steps on the rows inside the margin (Chapelle 2007)."""
    w = np.zeros(x.shape[1])

    def loss(v: F64) -> float:
        return 0.5 * float(v @ v) + COST * float((np.maximum(0.0, 1 - sign * (x @ v)) ** 2).sum())

    now = loss(w)
    for _ in range(NEWTON_STEPS):
        inside = sign * (x @ w) < 1
        own = x[inside]
        wanted = np.linalg.solve(np.eye(x.shape[1]) + 2 * COST * own.T @ own, 2 * COST * own.T @ sign[inside])
        step = 1.0
        while step > 1e-4 and loss(w + step * (wanted - w)) > now - 1e-12 * abs(now):
            step /= 2
        after = loss(w + step * (wanted - w))
        if after >= now - 1e-10 * abs(now):
            break
        w, now = w + step * (wanted - w), after
    return w


def _auc(values: F64, positive: NDArray[np.bool_]) -> float:
    """Area under the receiver operating curve, ties counted half."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    n = int(positive.sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(values) - n)))


# ---- the embedding


def embedding_rmse(X: ArrayLike, Z: ArrayLike) -> float:
    """Root mean square of the change of pair distances, sqrt(2 sum_{i<j} (|x_i - x_j| - |z_i - z_j|)² / n²); at most 5000 rows enter."""
    x, z = np.asarray(X, dtype=np.float64), np.asarray(Z, dtype=np.float64)
    step = -(-len(x) // MOST_ROWS)
    x, z = x[::step], z[::step]
    total = 0.0
    for start in range(0, len(x), 512):
        block = slice(start, start + 512)
        total += float(((np.sqrt(_squared(x[block], x)) - np.sqrt(_squared(z[block], z))) ** 2).sum())
    return math.sqrt(total / len(x) ** 2)
