"""What comes in the place of pixels that are taken away."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens.attribution.metrics.case import Case

__all__ = ["FILLS", "blurred", "check_fill", "fills"]

Array = NDArray[Any]
FILLS = ("mean", "blur", "noise")
BLUR = 0.05  # standard deviation of the blur, as a share of the picture's smaller side


def check_fill(case: Case, fill: str | float | tuple[float, ...]) -> None:
    """An error if ``fill`` is none of the ways there are.

    Raises
    ------
    ValueError
        With what it may be.
    """
    if isinstance(fill, str):
        if fill not in FILLS:
            raise ValueError(f"fill={fill!r}: must be one of {', '.join(FILLS)}, or a number (or one per channel)")
        return
    channels = case.x.shape[1]
    given = np.asarray(fill)
    if given.dtype.kind not in "fiu" or given.shape not in ((), (channels,)) or not np.isfinite(given).all():
        raise ValueError(f"fill={fill!r}: a constant must be a finite number, or one per channel ({channels} of them)")


def fills(case: Case, fill: str | float | tuple[float, ...], part: slice) -> Array:
    """(m, C, H, W) or what broadcasts to it: what comes in the place of the pixels of some samples."""
    x = case.x[part]
    if not isinstance(fill, str):
        constant = np.asarray(fill, dtype=np.float32).reshape(-1, 1, 1)
        return np.broadcast_to(constant, (len(x), x.shape[1], 1, 1))
    if fill == "mean":
        return np.asarray(x.mean(axis=(2, 3), keepdims=True, dtype=np.float64), dtype=np.float32)
    if fill == "blur":
        return blurred(x, BLUR * min(x.shape[2:]))
    return np.stack([_noise(case, i, picture) for i, picture in enumerate(x, start=part.start)])


def _noise(case: Case, sample: int, picture: Array) -> Array:
    """Uniform between the smallest and the largest value of each channel; the same for a sample in every call."""
    low, high = picture.min(axis=(1, 2), keepdims=True), picture.max(axis=(1, 2), keepdims=True)
    return np.asarray(
        low + (high - low) * case.rng(1, sample).random(picture.shape, dtype=np.float32), dtype=np.float32
    )


def blurred(x: Array, sigma: float) -> Array:
    """Pictures under a Gaussian of standard deviation ``sigma`` pixels, cut off at three of them, borders repeated."""
    radius = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-6)) ** 2)
    kernel /= kernel.sum()
    for axis in (2, 3):
        width = [(0, 0)] * x.ndim
        width[axis] = (radius, radius)
        padded = np.pad(x.astype(np.float64), width, mode="edge")
        n = x.shape[axis]
        x = np.zeros(x.shape)
        for k, weight in enumerate(kernel):
            x += weight * (padded[:, :, k : k + n] if axis == 2 else padded[:, :, :, k : k + n])
    return x.astype(np.float32)
