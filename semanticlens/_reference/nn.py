"""Twins of the network kernels.  Any float dtype; sums in the input's dtype unless said otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_ERFC = np.frompyfunc(math.erfc, 1, 1)


def normal(x: Array) -> Array:
    """Phi(x), the normal distribution."""
    return np.asarray(_ERFC(np.asarray(x, np.float64) / -math.sqrt(2)) / 2).astype(x.dtype)


ACTIVATIONS: dict[str, Any] = {
    "none": lambda x: x,
    "relu": lambda x: np.where(np.isnan(x), x, np.maximum(x, 0)),
    "relu6": lambda x: np.where(np.isnan(x), x, np.minimum(np.maximum(x, 0), 6)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "hardsigmoid": lambda x: np.minimum(np.maximum(x + 3, 0), 6) / 6,
    "hardswish": lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6,
    "gelu": lambda x: x * normal(x),
    "gelu_tanh": lambda x: x * ((1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "tanh": np.tanh,
}


def activate(x: Array, kind: str) -> Array:
    """Elementwise activation by name."""
    with np.errstate(over="ignore"):
        return ACTIVATIONS[kind](x).astype(x.dtype)


def _windows(x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int], dilation: tuple[int, int],
             fill: float) -> Array:
    """(B, C, H', W', kh, kw) view of the padded input."""
    top, left, bottom, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def conv2d(x: Array, weight: Array, bias: Array | None = None, *, stride: tuple[int, int] = (1, 1),
           padding: tuple[int, int, int, int] = (0, 0, 0, 0), dilation: tuple[int, int] = (1, 1), groups: int = 1,
           activation: str = "none") -> Array:
    """Cross-correlation, as in every deep-learning framework: one einsum per group."""
    outputs = weight.shape[0] // groups
    windows = _windows(x, weight.shape[2:], stride, padding, dilation, 0.0)
    parts = [np.einsum("bchwij,ocij->bohw", windows[:, g * weight.shape[1] : (g + 1) * weight.shape[1]],
                       weight[g * outputs : (g + 1) * outputs], optimize=True) for g in range(groups)]
    y = np.concatenate(parts, axis=1)
    if bias is not None:
        y = y + bias[None, :, None, None]
    return activate(y.astype(x.dtype), activation)


def dense(x: Array, weight: Array, bias: Array | None = None, *, activation: str = "none") -> Array:
    """``x @ weight.T + bias`` over the last axis."""
    y = x @ weight.T
    return activate((y if bias is None else y + bias).astype(x.dtype), activation)


def pool2d(x: Array, kind: str, kernel: tuple[int, int], *, stride: tuple[int, int], padding: tuple[int, int, int, int] = (0, 0, 0, 0),
           dilation: tuple[int, int] = (1, 1), ceil_mode: bool = False, count_include_pad: bool = True) -> Array:
    """Max or average over windows; NaN wins a maximum.  Ceil mode as in torch: a window must start inside the input or its left padding."""
    top, left, bottom, right = padding
    sizes, extra = [], []
    for size, k, s, d, before, after in zip(x.shape[2:], kernel, stride, dilation, (top, left), (bottom, right), strict=True):
        span = size + before + after - d * (k - 1) - 1
        n = -(-span // s) + 1 if ceil_mode else span // s + 1
        if ceil_mode and (n - 1) * s >= size + before:
            n -= 1
        sizes.append(n)
        extra.append(max(0, (n - 1) * s + d * (k - 1) + 1 - (size + before + after)))
    grown = (top, left, bottom + extra[0], right + extra[1])
    fill = -np.inf if kind == "max" else 0.0
    windows = _windows(x, kernel, stride, grown, dilation, fill)[:, :, : sizes[0], : sizes[1]]
    if kind == "max":
        return windows.max(axis=(4, 5))
    inside = np.pad(np.ones((1, 1, *x.shape[2:])), ((0, 0), (0, 0), (top, bottom), (left, right)),
                    constant_values=1.0 if count_include_pad else 0.0)
    counts = _windows(inside, kernel, stride, (0, 0, extra[0], extra[1]), dilation, 0.0)[:, :, : sizes[0], : sizes[1]].sum(axis=(4, 5))
    return (windows.sum(axis=(4, 5), dtype=np.float64) / counts).astype(x.dtype)


def adaptive_avg_pool2d(x: Array, size: tuple[int, int]) -> Array:
    """Mean over the cells [floor(i H / h), ceil((i + 1) H / h))."""
    y = np.empty((*x.shape[:2], *size), x.dtype)
    H, W = x.shape[2:]
    for i in range(size[0]):
        for j in range(size[1]):
            cell = x[:, :, i * H // size[0] : -(-(i + 1) * H // size[0]), j * W // size[1] : -(-(j + 1) * W // size[1])]
            y[:, :, i, j] = cell.mean(axis=(2, 3), dtype=np.float64)
    return y


def scale_shift(x: Array, scale: Array, shift: Array, *, activation: str = "none") -> Array:
    """``x[:, c] * scale[c] + shift[c]``: batch normalisation with its running statistics."""
    shape = (1, -1, *([1] * (x.ndim - 2)))
    return activate((x * scale.reshape(shape) + shift.reshape(shape)).astype(x.dtype), activation)


def add(a: Array, b: Array, *, activation: str = "none") -> Array:
    """Sum of two arrays of equal shape."""
    return activate(a + b, activation)


def multiply(a: Array, b: Array) -> Array:
    """Product; ``b`` of shape (B, C, 1, 1) scales channels (squeeze-and-excitation)."""
    return a * b


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    e = np.exp((x - x.max(axis=-1, keepdims=True)).astype(np.float64))
    return (e / e.sum(axis=-1, keepdims=True)).astype(x.dtype)


def reduce_positions(x: Array, kind: str) -> Array:
    """(B, K, P) -> (B, K): mean, max, absmean or absmax over the positions; mean and absmean in double.  NaN anywhere gives NaN."""
    values = np.abs(x) if kind.startswith("abs") else x
    if kind.endswith("mean"):
        return values.mean(axis=2, dtype=np.float64).astype(x.dtype)
    return values.max(axis=2)
