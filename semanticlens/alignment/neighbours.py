"""A neighbour embedding that needs no extra package: UMAP's objective, lowered in NumPy, the same for every run and thread count.

McInnes, Healy, Melville (arXiv 1802.03426): fuzzy neighbourhoods of the k nearest rows (exact here), pulled together along their
edges and pushed
apart from rows drawn at random.  Moves are made for all rows at once, which is what makes the result independent of any order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._kernels import hdbscan as kernels
from semanticlens.alignment.axes import principal_axes

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
NEGATIVE = 5  # rows drawn per edge
FARTHEST = 4.0  # a single pull or push moves no coordinate farther
CHUNK = 1 << 21  # values of a chunk of edges


def curve(min_dist: float, spread: float = 1.0) -> tuple[float, float]:
    """(a, b) of 1 / (1 + a d^2b), which is near 1 up to ``min_dist`` and then falls like exp(-(d - min_dist) / spread); by Gauss-Newton."""
    d = np.linspace(1e-3, 3 * spread, 300)
    wanted = np.where(d < min_dist, 1.0, np.exp(-(d - min_dist) / spread))
    log_a, b = 0.5, 0.8
    for _ in range(100):
        power = np.exp(log_a) * d ** (2 * b)
        value = 1 / (1 + power)
        slope = -(value**2) * power
        jacobian = np.stack([slope, slope * 2 * np.log(d)], axis=1)
        step = np.linalg.lstsq(jacobian, wanted - value, rcond=None)[0]
        log_a, b = log_a + float(np.clip(step[0], -0.5, 0.5)), b + float(np.clip(step[1], -0.2, 0.2))
    return math.exp(log_a), b


def strengths(distance: F64) -> F64:
    """Membership of each row's neighbours (n, k): 1 for the nearest, and log2(k) in all."""
    k = distance.shape[1]
    positive = np.where(distance > 0, distance, np.inf)
    nearest = positive.min(axis=1, keepdims=True)
    beyond = np.maximum(distance - np.where(np.isfinite(nearest), nearest, 0.0), 0.0)
    low, high, width = np.zeros(len(distance)), np.full(len(distance), np.inf), np.ones(len(distance))
    for _ in range(64):
        total = np.exp(-beyond / width[:, None]).sum(axis=1)
        above = total > math.log2(k)
        high, low = np.where(above, width, high), np.where(above, low, width)
        width = np.where(np.isfinite(high), (low + high) / 2, width * 2)
    width = np.maximum(width, 1e-3 * np.maximum(distance.mean(axis=1), np.finfo(float).tiny))
    found: F64 = np.exp(-beyond / width[:, None])
    return found


def fuzzy_graph(index: I64, strength: F64) -> tuple[I64, I64, F64]:
    """Edges (head, tail, weight) of the fuzzy union of neighbourhoods, both directions, by head and then tail."""
    n, k = index.shape
    head, tail = np.repeat(np.arange(n), k), index.reshape(-1).astype(np.int64)
    keep = head != tail
    head, tail, weight = head[keep], tail[keep], strength.reshape(-1)[keep]
    key = np.concatenate([head * n + tail, tail * n + head])
    one_way = np.concatenate([weight, np.zeros(len(weight))])
    back = np.concatenate([np.zeros(len(weight)), weight])
    keys, place = np.unique(key, return_inverse=True)
    forth, return_ = np.bincount(place, one_way, len(keys)), np.bincount(place, back, len(keys))
    return keys // n, keys % n, forth + return_ - forth * return_


class Neighbours:
    """Coordinates in which near rows stay near and gaps become wide.

    Parameters
    ----------
    n_components, n_neighbors, min_dist
        As UMAP's.
    seed : int
        Of the rows that are pushed away.
    epochs : int, optional
        None: 300, from 20 000 rows on 150.
    n_threads : int, optional
    """

    def __init__(
        self, n_components: int, n_neighbors: int = 30, min_dist: float = 0.01, seed: int = 0, epochs: int | None = None,
        n_threads: int | None = None,
    ) -> None:  # fmt: skip
        self.n_components, self.n_neighbors, self.min_dist = n_components, n_neighbors, min_dist
        self.seed, self.epochs, self.n_threads = seed, epochs, n_threads

    def fit_transform(self, X: NDArray[Any]) -> F64:
        """Embed the rows of X."""
        rows = np.ascontiguousarray(X, dtype=np.float64)
        self.rows = rows
        k = min(self.n_neighbors, len(rows) - 1)
        index, distance = kernels.nearest(rows, rows, k + 1, n_threads=self.n_threads)
        head, tail, weight = fuzzy_graph(index[:, 1:].astype(np.int64), strengths(distance[:, 1:]))
        mean, axes, _ = principal_axes(rows, self.n_components)
        start = (rows - mean) @ axes.T
        rng = np.random.default_rng(self.seed)
        if start.shape[1] < self.n_components:  # fewer components than wanted: the others start as small noise
            extra = rng.standard_normal((len(rows), self.n_components - start.shape[1]))
            start = np.concatenate([start, 0.01 * start.std() * extra], axis=1)
        start = np.round(start * (10.0 / max(float(np.abs(start).max()), 1e-300)), 5)  # the axes' last bits depend on BLAS and its threads
        start = start + 1e-4 * rng.standard_normal(start.shape)
        self.places = self._lay_out(start, head, tail, weight, rng)
        return self.places

    def transform(self, X: NDArray[Any]) -> F64:
        """Put new rows at the mean of their neighbours, weighted by membership."""
        rows = np.ascontiguousarray(X, dtype=np.float64)
        index, distance = kernels.nearest(self.rows, rows, min(self.n_neighbors, len(self.rows)), n_threads=self.n_threads)
        strength = strengths(distance)
        strength = np.where((distance == 0).any(axis=1)[:, None], (distance == 0).astype(np.float64), strength)
        found: F64 = (self.places[index] * strength[..., None]).sum(axis=1) / strength.sum(axis=1, keepdims=True)
        return found

    def _lay_out(self, y: F64, head: I64, tail: I64, weight: F64, rng: np.random.Generator) -> F64:
        a, b = curve(self.min_dist)
        epochs = self.epochs if self.epochs is not None else 300 if len(y) < 20_000 else 150
        share = weight / weight.max()
        keep = share >= 1.0 / epochs
        head, tail, share = head[keep], tail[keep], share[keep]
        for epoch in range(epochs):
            active = np.floor((epoch + 1) * share) > np.floor(epoch * share)
            i, j = head[active], tail[active]
            moves = np.zeros_like(y)
            for start in range(0, len(i), max(1, CHUNK // y.shape[1])):
                part = slice(start, start + max(1, CHUNK // y.shape[1]))
                _add(moves, i[part], _pull(y[i[part]] - y[j[part]], a, b))
                for _ in range(NEGATIVE):
                    other = rng.integers(0, len(y), len(i[part]))
                    _add(moves, i[part], _push(y[i[part]] - y[other], a, b))
            y = y + (1 - epoch / epochs) * np.clip(moves, -FARTHEST, FARTHEST)
        return y


def _add(moves: F64, rows: I64, values: F64) -> None:
    """Add values to ascending rows."""
    if len(rows):
        starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
        moves[rows[starts]] += np.add.reduceat(values, starts, axis=0)


def _pull(difference: F64, a: float, b: float) -> F64:
    squared = (difference**2).sum(axis=1)
    factor = np.divide(-2 * a * b * squared ** (b - 1), 1 + a * squared**b, out=np.zeros_like(squared), where=squared > 0)
    return np.asarray(np.clip(factor[:, None] * difference, -FARTHEST, FARTHEST))


def _push(difference: F64, a: float, b: float) -> F64:
    squared = (difference**2).sum(axis=1)
    factor = 2 * b / ((0.001 + squared) * (1 + a * squared**b))
    return np.asarray(np.clip(factor[:, None] * difference, -FARTHEST, FARTHEST))
