"""Principal axes, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def principal_axes(X: NDArray[Any], n: int | None = None) -> tuple[F64, F64, F64]:
    """Mean (F,), unit axes (k, F) of falling variance and their variances (k,), by the smaller of the two covariance forms.

    Axes of no variance (below 1e-10 of the largest) are left out; each axis is turned so that its entry of largest magnitude is positive.
    """
    rows = np.asarray(X, dtype=np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    if rows.shape[1] <= len(rows):
        values, vectors = np.linalg.eigh(centred.T @ centred)
        axes = vectors.T[::-1]
    else:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        axes = vectors.T[::-1] @ centred
    values = np.maximum(values[::-1], 0.0)
    kept = np.flatnonzero(values > 1e-10 * max(values[0], np.finfo(float).tiny))[:n]
    axes, values = axes[kept], values[kept]
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    top = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return mean, axes * np.where(top < 0, -1.0, 1.0), values / max(len(rows) - 1, 1)
