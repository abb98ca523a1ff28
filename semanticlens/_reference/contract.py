"""Twins of the contractions.  Any float dtype; the adjoint and the parameter form are written as sums over taps, not as products."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[int, int]
Quad = tuple[int, int, int, int]

SEEN: dict[str, Any] = {
    "plain": lambda w, gamma: w,
    "magnitude": lambda w, gamma: np.abs(w),
    "positive": lambda w, gamma: np.maximum(w, 0),
    "negative": lambda w, gamma: np.minimum(w, 0),
    "square": lambda w, gamma: w * w,
    "one": lambda w, gamma: np.ones_like(w),
    "more_positive": lambda w, gamma: w + gamma * np.maximum(w, 0),
    "more_negative": lambda w, gamma: w + gamma * np.minimum(w, 0),
}


def variant(w: Array, seen: str, gamma: float = 0.0) -> Array:
    """What is put in place of ``w``, elementwise."""
    return np.asarray(SEEN[seen](w, gamma), w.dtype)


def stabilised(v: Array, eps: float, clip: bool) -> Array:
    """``v + eps sgn(v)``, or ``sgn(v) max(|v|, eps)``, with sgn(0) = 1."""
    sign = np.where(v < 0, -1.0, 1.0)
    return np.asarray(sign * np.maximum(np.abs(v), eps) if clip else v + eps * sign, v.dtype)


def finish(z: Array, *, addend: Array | None = None, numerator: Array | None = None, eps: float = 0.0, clip: bool = False,
           factor: Array | None = None, part: str = "plain", gamma: float = 0.0, scale: float = 1.0, sum: Array | None = None,
           mask: Array | None = None, below: float = np.inf) -> Array:
    """The steps of ``sl_finish``."""
    v = z if addend is None else z + addend
    v = v if numerator is None else numerator / stabilised(v, eps, clip)
    v = v if factor is None else variant(factor, part, gamma) * v
    v = scale * v
    v = v if sum is None else v + sum
    return v if mask is None else np.where((mask > 0) & (mask < below), v, 0)


def _taps(size: Pair, kernel: Pair, out: Pair, stride: Pair, padding: Quad, dilation: Pair) -> Any:
    """For each tap (u, v): slices of the padded input, one value per output."""
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            rows = slice(u * dilation[0], u * dilation[0] + (out[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(v * dilation[1], v * dilation[1] + (out[1] - 1) * stride[1] + 1, stride[1])
            yield u, v, rows, columns


def conv_adjoint(s: Array, weight: Array, size: Pair, *, stride: Pair = (1, 1), padding: Quad = (0, 0, 0, 0), dilation: Pair = (1, 1),
                 groups: int = 1) -> Array:
    """The transposed convolution: every output spreads its value over its window; what falls on the padding is dropped."""
    batch, outputs, channels = s.shape[0], weight.shape[0] // groups, weight.shape[1]
    top, left, bottom, right = padding
    padded = np.zeros((batch, groups, channels, size[0] + top + bottom, size[1] + left + right), s.dtype)
    grouped = s.reshape(batch, groups, outputs, *s.shape[2:])
    kernels = weight.reshape(groups, outputs, channels, *weight.shape[2:])
    for u, v, rows, columns in _taps(size, weight.shape[2:], s.shape[2:], stride, padding, dilation):
        padded[:, :, :, rows, columns] += np.einsum("bgohw,goc->bgchw", grouped, kernels[..., u, v], optimize=True)
    return padded[:, :, :, top : top + size[0], left : left + size[1]].reshape(batch, groups * channels, *size)


def conv_parameter(s: Array, x: Array, kernel: Pair, *, stride: Pair = (1, 1), padding: Quad = (0, 0, 0, 0), dilation: Pair = (1, 1),
                   groups: int = 1) -> Array:
    """Gradient of ``<s, conv(x)>`` by the weight."""
    batch, outputs, channels = s.shape[0], s.shape[1] // groups, x.shape[1] // groups
    top, left, bottom, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))).reshape(
        batch, groups, channels, x.shape[2] + top + bottom, x.shape[3] + left + right)
    grouped = s.reshape(batch, groups, outputs, *s.shape[2:])
    f = np.zeros((groups, outputs, channels, *kernel), s.dtype)
    for u, v, rows, columns in _taps(x.shape[2:], kernel, s.shape[2:], stride, padding, dilation):
        f[..., u, v] = np.einsum("bgohw,bgchw->goc", grouped, padded[:, :, :, rows, columns], optimize=True)
    return f.reshape(groups * outputs, channels, *kernel)


WINOGRAD_B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
WINOGRAD_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
WINOGRAD_A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def winograd(x: Array, weight: Array, padding: Quad = (0, 0, 0, 0)) -> Array:
    """A 3 x 3 convolution by tiles of 2 x 2 outputs, as in ``sl_winograd.h``: ``A^T [sum_c (G w G^T) * (B^T d B)] A`` of every tile."""
    top, left, bottom, right = padding
    height, width = x.shape[2] + top + bottom - 2, x.shape[3] + left + right - 2
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom + height % 2), (left, right + width % 2)))
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), (2, 3))[:, :, ::2, ::2]
    values = np.einsum("ui,bcyxij,vj->bcyxuv", WINOGRAD_B, tiles, WINOGRAD_B, optimize=True)
    weights = np.einsum("ui,ocij,vj->ocuv", WINOGRAD_G, weight, WINOGRAD_G, optimize=True)
    products = np.einsum("bcyxuv,ocuv->boyxuv", values, weights, optimize=True)
    y = np.einsum("iu,boyxuv,jv->boyixj", WINOGRAD_A, products, WINOGRAD_A, optimize=True)
    return y.reshape(*y.shape[:2], 2 * y.shape[2], -1)[:, :, :height, :width]
