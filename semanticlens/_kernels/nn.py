"""Kernels of the network engine, on float32 arrays.

``out=`` takes a C-contiguous float32 array of the result's shape to write into, so that the executor can reuse memory; it must
not overlap an input unless the function says so. ``packed=`` takes what :func:`pack_conv2d` or :func:`pack_dense` made of the
same weight on this machine and tier. Activations: "none", "relu", "relu6", "sigmoid", "silu", "hardsigmoid", "hardswish",
"gelu" (by the normal distribution), "gelu_tanh" (its approximation), "quick_gelu", "tanh"; NaN stays NaN in all of them.

Sums run in an order that the shape of the weights alone decides: a result is bit-identical for every thread count, with and
without ``packed=``, and for every batch its picture or row is part of. It may differ in the last bits between instruction-set
tiers. Float64 arrays raise TypeError; shapes that do not fit raise ValueError naming the argument.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads

F32 = NDArray[np.float32]

ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 2, "sigmoid": 3, "silu": 4, "hardsigmoid": 5, "hardswish": 6, "gelu": 7,
               "gelu_tanh": 8, "quick_gelu": 9, "tanh": 10}
REDUCTIONS = {"mean": 0, "max": 1, "absmean": 2, "absmax": 3}
POOLINGS = {"max": 0, "mean": 1}


def _number(table: dict[str, int], name: str, argument: str) -> int:
    """Number of a named choice, or ValueError with the choices."""
    try:
        return table[name]
    except (KeyError, TypeError):
        raise ValueError(f"{argument}={name!r}: must be one of {', '.join(table)}") from None


def _aligned(size: int) -> F32:
    """Uninitialised floats that begin at a multiple of 64 bytes, as the kernels like it (they work with any)."""
    whole = np.empty(size + 15, np.float32)
    start = -whole.ctypes.data % 64 // 4
    return whole[start : start + size]


def pack_conv2d(weight: F32, *, groups: int = 1) -> F32 | None:
    """Weights in the layout of the active tier, for ``conv2d(packed=...)``; None where packing brings nothing (depthwise).

    Parameters
    ----------
    weight : ndarray of shape (O, C/groups, kh, kw), float32
    groups : int

    Returns
    -------
    ndarray, float32, 1-d
        Opaque: it begins with a header (tier, shape), and ``conv2d`` refuses it for another tier or shape.  About the size of ``weight``.
    """
    size = _core.conv2d_packed_size(weight, groups)
    if size == 0:
        return None
    packed = _aligned(size)
    _core.conv2d_pack(weight, groups, packed)
    return packed


def pack_dense(weight: F32) -> F32 | None:
    """Weights (O, I) in the layout of the active tier, for ``dense(packed=...)``.

    Worth its memory for layers that see 8 rows or more per call; a single row runs at memory bandwidth from ``weight`` itself.
    """
    size = _core.dense_pack(weight, None)
    assert size is not None
    packed = _aligned(size)
    _core.dense_pack(weight, packed)
    return packed


def conv2d(x: F32, weight: F32, bias: F32 | None = None, *, stride: tuple[int, int] = (1, 1),
           padding: tuple[int, int, int, int] = (0, 0, 0, 0), dilation: tuple[int, int] = (1, 1), groups: int = 1,
           activation: str = "none", addend: F32 | None = None, packed: F32 | None = None, out: F32 | None = None,
           n_threads: int | None = None) -> F32:
    """(B, C, H, W) * (O, C/groups, kh, kw) -> (B, O, H', W'); padding is (top, left, bottom, right).

    ``activation(conv(x) + bias + addend)``: ``addend`` (B, O, H', W') is a residual branch, added before the activation; it may be ``out``.
    Without ``packed`` the weights are packed anew in every call.  Raises ValueError where the kernel does not fit the padded picture.
    """
    return _core.conv2d(x, weight, bias, addend, packed, out, stride, padding, dilation, groups,
                        _number(ACTIVATIONS, activation, "activation"), resolve_threads(n_threads))


def dense(x: F32, weight: F32, bias: F32 | None = None, *, activation: str = "none", addend: F32 | None = None,
          packed: F32 | None = None, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """(..., I) x (O, I) -> (..., O): ``activation(x weight^T + bias + addend)``; ``addend`` (..., O) may be ``out``."""
    return _core.dense(x, weight, bias, packed, out, _number(ACTIVATIONS, activation, "activation"), resolve_threads(n_threads), addend)


def bound_conv2d(x: F32, weight: F32, bias: F32 | None = None, *, stride: tuple[int, int] = (1, 1),
                 padding: tuple[int, int, int, int] = (0, 0, 0, 0), dilation: tuple[int, int] = (1, 1), groups: int = 1,
                 activation: str = "none", addend: F32 | None = None, packed: F32 | None = None, out: F32,
                 n_threads: int | None = None) -> Callable[[], F32]:
    """:func:`conv2d` with all its arguments, to be called again and again on what the arrays hold then."""
    return partial(_core.conv2d, x, weight, bias, addend, packed, out, stride, padding, dilation, groups,
                   _number(ACTIVATIONS, activation, "activation"), resolve_threads(n_threads))


def bound_dense(x: F32, weight: F32, bias: F32 | None = None, *, activation: str = "none", addend: F32 | None = None,
                packed: F32 | None = None, out: F32, n_threads: int | None = None) -> Callable[[], F32]:
    """:func:`dense` with all its arguments, to be called again and again on what the arrays hold then."""
    return partial(_core.dense, x, weight, bias, packed, out, _number(ACTIVATIONS, activation, "activation"),
                   resolve_threads(n_threads), addend)


def pool2d(x: F32, kind: str, kernel: tuple[int, int], *, stride: tuple[int, int], padding: tuple[int, int, int, int] = (0, 0, 0, 0),
           dilation: tuple[int, int] = (1, 1), ceil_mode: bool = False, count_include_pad: bool = True, out: F32 | None = None,
           n_threads: int | None = None) -> F32:
    """Max ("max") or average ("mean") pooling of (B, C, H, W), with torch's ceil mode."""
    return _core.pool2d(x, _number(POOLINGS, kind, "kind"), kernel, stride, padding, dilation, ceil_mode, count_include_pad, out,
                        resolve_threads(n_threads))


def adaptive_avg_pool2d(x: F32, size: tuple[int, int], *, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """(B, C, H, W) -> (B, C, h, w), means over torch's cells."""
    return _core.adaptive_avg_pool2d(x, size, out, resolve_threads(n_threads))


def scale_shift(x: F32, scale: F32, shift: F32, *, activation: str = "none", out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Per-channel affine map of (B, C, ...); ``out`` may be ``x``."""
    return _core.scale_shift(x, scale, shift, _number(ACTIVATIONS, activation, "activation"), out, resolve_threads(n_threads))


def activate(x: F32, kind: str, *, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Elementwise activation; ``out`` may be ``x``."""
    return _core.activate(x, _number(ACTIVATIONS, kind, "kind"), out, resolve_threads(n_threads))


def bound_activate(x: F32, kind: str, *, out: F32, n_threads: int | None = None) -> Callable[[], F32]:
    """:func:`activate` with all its arguments, to be called again and again on what the arrays hold then."""
    return partial(_core.activate, x, _number(ACTIVATIONS, kind, "kind"), out, resolve_threads(n_threads))


def bound_add(a: F32, b: F32, *, activation: str = "none", out: F32, n_threads: int | None = None) -> Callable[[], F32]:
    """:func:`add` with all its arguments, to be called again and again on what the arrays hold then."""
    return partial(_core.add, a, b, _number(ACTIVATIONS, activation, "activation"), out, resolve_threads(n_threads))


def add(a: F32, b: F32, *, activation: str = "none", out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Sum of two arrays of equal shape; ``out`` may be either."""
    return _core.add(a, b, _number(ACTIVATIONS, activation, "activation"), out, resolve_threads(n_threads))


def multiply(a: F32, b: F32, *, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Product of equal shapes, or of (B, C, H, W) with (B, C, 1, 1); ``out`` may be ``a``."""
    return _core.multiply(a, b, out, resolve_threads(n_threads))


def softmax(x: F32, *, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """Softmax over the last axis; ``out`` may be ``x``."""
    return _core.softmax(x, out, resolve_threads(n_threads))


def reduce_positions(x: F32, kind: str, *, n_threads: int | None = None) -> F32:
    """(B, K, P) -> (B, K): "mean", "max", "absmean" or "absmax" over positions; NaN anywhere gives NaN."""
    return _core.reduce_positions(x, _number(REDUCTIONS, kind, "kind"), resolve_threads(n_threads))


def bound_reduce_positions(x: F32, kind: str, *, n_threads: int | None = None) -> Callable[[], F32]:
    """:func:`reduce_positions` with all its arguments, to be called again and again on what ``x`` holds then."""
    return partial(_core.reduce_positions, x, _number(REDUCTIONS, kind, "kind"), resolve_threads(n_threads))


def all_finite(x: F32) -> bool:
    """Whether no value is NaN or infinite, in one pass."""
    return _core.all_finite(x)
