"""How alike two maps are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ranks", "spearman", "ssim"]

Array = NDArray[Any]
WINDOW = 7


def ranks(values: Array) -> Array:
    """(B, d): ranks from 0 up, equal values share the mean of theirs."""
    result = np.empty(values.shape)
    for row, into in zip(values, result, strict=True):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        into[:] = ((last - counts) + (last - 1))[inverse.reshape(-1)] / 2
    return result


def spearman(a: Array, b: Array) -> Array:
    """(B,): correlation of ranks, row by row; NaN where a row is the same everywhere."""
    x, y = (ranks(given.reshape(len(given), -1)) for given in (a, b))
    x -= x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    size = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    return np.where(size > 0, (x * y).sum(axis=1) / np.where(size > 0, size, 1), np.nan)


def ssim(a: Array, b: Array, span: float = 1.0) -> Array:
    """(B,): structural similarity of pictures (B, H, W) with values in [0, ``span``]: mean over all full 7 x 7 windows.

    ``(2 m_a m_b + c1) (2 s_ab + c2) / ((m_a**2 + m_b**2 + c1) (s_a + s_b + c2))`` with means m, sample variances s and
    covariance ``s_ab`` of a window, ``c1 = (0.01 span)**2``, ``c2 = (0.03 span)**2`` (Wang et al., IEEE TIP 13, 2004).
    """
    n = WINDOW * WINDOW
    mean_a, mean_b = _window_means(a), _window_means(b)
    factor = n / (n - 1)
    var_a = factor * (_window_means(a * a) - mean_a**2)
    var_b = factor * (_window_means(b * b) - mean_b**2)
    both = factor * (_window_means(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    found = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return np.asarray(found.mean(axis=(1, 2)))


def _window_means(x: Array) -> Array:
    """(B, H - 6, W - 6): means of all full windows."""
    for axis in (1, 2):
        length = x.shape[axis] - WINDOW + 1
        x = np.add.reduce([x[:, i : i + length] if axis == 1 else x[:, :, i : i + length] for i in range(WINDOW)])
    return np.asarray(x / (WINDOW * WINDOW))
