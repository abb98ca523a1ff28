"""Kernels of the network engine, on float32 arrays.

``out=`` takes a C-contiguous float32 array of the result's shape to write into, so that the executor can reuse memory; it must not overlap an
input unless the function says so.  ``packed=`` takes what :func:`pack_conv2d` or :func:`pack_dense` made of the same weight on this machine
and tier. Activations: "none", "relu", "relu6", "sigmoid", "silu", "hardsigmoid", "hardswish"; NaN stays NaN in all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens._reference import nn as twin

F32 = NDArray[np.float32]


def _into(out: F32 | None, y: F32) -> F32:
    if out is None:
        return np.ascontiguousarray(y)
    out[...] = y
    return out


def pack_conv2d(weight: F32, *, groups: int = 1) -> F32 | None:
    """Weights in the layout of the active tier, for ``conv2d(packed=...)``; None where packing brings nothing (depthwise)."""
    return None


def pack_dense(weight: F32) -> F32 | None:
    """Weights in the layout of the active tier, for ``dense(packed=...)``."""
    return None


def conv2d(x: F32, weight: F32, bias: F32 | None = None, *, stride: tuple[int, int] = (1, 1), padding: tuple[int, int, int, int] = (0, 0, 0, 0),
           dilation: tuple[int, int] = (1, 1), groups: int = 1, activation: str = "none", addend: F32 | None = None, packed: F32 | None = None,
           out: F32 | None = None, n_threads: int | None = None) -> F32:
    """(B, C, H, W) * (O, C/groups, kh, kw) -> (B, O, H', W'); padding is (top, left, bottom, right).

    ``activation(conv(x) + bias + addend)``: ``addend`` (B, O, H', W') is a residual branch, added before the activation; it may be ``out``.
    """
    y = twin.conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if addend is not None:
        y = y + addend
    return _into(out, twin.activate(y, activation))


def dense(x: F32, weight: F32, bias: F32 | None = None, *, activation: str = "none", packed: F32 | None = None, out: F32 | None = None,
          n_threads: int | None = None) -> F32:
    """(..., I) x (O, I) -> (..., O)."""
    return _into(out, twin.dense(x, weight, bias, activation=activation))


def pool2d(x: F32, kind: str, kernel: tuple[int, int], *, stride: tuple[int, int], padding: tuple[int, int, int, int] = (0, 0, 0, 0),
           dilation: tuple[int, int] = (1, 1), ceil_mode: bool = False, count_include_pad: bool = True, out: F32 | None = None,
           n_threads: int | None = None) -> F32:
    """Max ("max") or average ("mean") pooling of (B, C, H, W), with torch's ceil mode."""
    return _into(out, twin.pool2d(x, kind, kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode, count_include_pad=count_include_pad))


def adaptive_avg_pool2d(x: F32, size: tuple[int, int], *, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """(B, C, H, W) -> (B, C, h, w), means over torch's cells."""
    return _into(out, twin.adaptive_avg_pool2d(x, size))


def scale_shift(x: F32, scale: F32, shift: F32, *, activation: str = "none", out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Per-channel affine map of (B, C, ...); ``out`` may be ``x``."""
    return _into(out, twin.scale_shift(x, scale, shift, activation=activation))


def activate(x: F32, kind: str, *, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Elementwise activation; ``out`` may be ``x``."""
    return _into(out, twin.activate(x, kind))


def add(a: F32, b: F32, *, activation: str = "none", out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Sum of two arrays of equal shape; ``out`` may be either."""
    return _into(out, twin.add(a, b, activation=activation))


def multiply(a: F32, b: F32, *, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Product of equal shapes, or of (B, C, H, W) with (B, C, 1, 1); ``out`` may be ``a``."""
    return _into(out, twin.multiply(a, b))


def softmax(x: F32, *, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Softmax over the last axis; ``out`` may be ``x``."""
    return _into(out, twin.softmax(x))


def reduce_positions(x: F32, kind: str, *, n_threads: int | None = None) -> F32:
    """(B, K, P) -> (B, K): "mean", "max", "absmean" or "absmax" over positions; NaN anywhere gives NaN."""
    return twin.reduce_positions(x, kind)
