"""Twins of the alignment kernels, in double, by forming the pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def pair_distances(p: Array) -> Array:
    """m(i, j) = half the L1 distance of rows i < j, as a flat array in row order."""
    p = np.asarray(p, dtype=np.float64)
    i, j = np.triu_indices(len(p), 1)
    return 0.5 * np.abs(p[i] - p[j]).sum(axis=1)


def discordance(p: Array, q: Array) -> float:
    """Mean over pairs of |m_P - m_Q|."""
    return float(np.abs(pair_distances(p) - pair_distances(q)).mean())


def null_discordance(p: Array, q: Array) -> float:
    """Its expectation when the rows of q are permuted at random: E|X - Y| over independent pairs."""
    x, y = np.sort(pair_distances(p)), np.sort(pair_distances(q))
    below = np.searchsorted(y, x)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    total = x * below - sums[below] + (sums[-1] - sums[below]) - x * (len(y) - below)
    return float(total.mean() / len(y))


def row_differences(p: Array, q: Array) -> Array:
    """h(i) = mean over j != i of |m_P - m_Q|(i, j)."""
    n = len(p)
    i, j = np.triu_indices(n, 1)
    difference = np.abs(pair_distances(p) - pair_distances(q))
    return (np.bincount(i, difference, n) + np.bincount(j, difference, n)) / (n - 1)


def concept_distance(p: Array, q: Array) -> float:
    """Eq. 4 for one concept of each side, by forming the pairs."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    i, j = np.triu_indices(len(p), 1)
    return float(0.5 * np.abs(np.abs(p[i] - p[j]) - np.abs(q[i] - q[j])).mean())


def concept_distances_by_sorting(p: Array, q: Array) -> Array:
    """The same for all pairs of rows of p (Kp, n) and q (Kq, n), by the sorting identity."""
    n = p.shape[1]
    weight = 2.0 * np.arange(n) - n + 1

    def spread(v: Array) -> Array:
        return np.sort(v, axis=-1) @ weight

    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    both = np.stack([spread(row + q) + spread(row - q) for row in p]) if len(p) else np.zeros((0, len(q)))
    return (both - spread(p)[:, None] - spread(q)[None]) / (n * (n - 1))


def parts(p: Array, q: Array) -> tuple[Array, Array]:
    """Signed parts of the concepts in the discordance: c_a = mean over pairs of sign(m_P - m_Q) |p_ia - p_ja| / 2."""
    i, j = np.triu_indices(len(p), 1)
    sign = np.sign(pair_distances(p) - pair_distances(q))[:, None]
    sides = (np.asarray(side, dtype=np.float64) for side in (p, q))
    c_p, c_q = ((sign * np.abs(side[i] - side[j])).mean(axis=0) / 2 for side in sides)
    return c_p, c_q


def draw(seed: int, number: int, n: int) -> tuple[int, int]:
    """The pair of rows that draw ``number`` of ``seed`` is."""
    whole = (1 << 64) - 1

    def mix(z: int) -> int:
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & whole
        z = (z ^ z >> 27) * 0x94D049BB133111EB & whole
        return z ^ z >> 31

    base = mix(seed + 0x9E3779B97F4A7C15 & whole) + number * 0x9E3779B97F4A7C15 & whole
    i, j = mix(base) * n >> 64, mix(base ^ 0xD1B54A32D192ED03) * (n - 1) >> 64
    return i, j + (j >= i)
