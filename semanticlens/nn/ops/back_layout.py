"""Adjoints of what moves values, and of pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from semanticlens._kernels import adjoint as kernels
from semanticlens._reference import adjoint as plain
from semanticlens.nn.ops.table import INPUTS, Adjoint, Array, Call, differentiate


def _reshaped(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    return [grad.reshape(xs[0].shape)]


def _concat(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    axis = call.attrs["axis"]
    parts = np.split(grad, np.cumsum([x.shape[axis] for x in xs])[:-1], axis=axis)
    return [np.ascontiguousarray(part) if wanted else None for part, wanted in zip(parts, needed, strict=True)]


def _slice2d(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    vertical, horizontal = call.attrs["stride"]
    g = np.zeros(xs[0].shape, grad.dtype)
    g[:, :, ::vertical, ::horizontal] = grad
    return [g]


def _pad(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    (top, left, _, _), (before, _) = call.attrs["padding"], call.attrs["channels"]
    _, channels, height, width = xs[0].shape
    return [np.ascontiguousarray(grad[:, before : before + channels, top : top + height, left : left + width])]


def _pool2d(kind: str) -> Adjoint:
    def adjoint(
        call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
    ) -> Sequence[Array | None]:
        x = xs[0] if kind == "max" else None
        size = (xs[0].shape[2], xs[0].shape[3])
        if grad.dtype == np.float32:
            return [kernels.pool2d(grad, x, size, kind, n_threads=n_threads, **call.attrs)]
        return [plain.pool2d(grad, x, size, kind, **call.attrs)]

    return adjoint


def _adaptive(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    size = (xs[0].shape[2], xs[0].shape[3])
    if grad.dtype == np.float32:
        return [kernels.adaptive_avg_pool2d(grad, size, n_threads=n_threads)]
    return [plain.adaptive_avg_pool2d(grad, size)]


def kept_axes(grad: Array, shape: tuple[int, ...], axes: Sequence[int], keepdims: bool) -> Array:
    """``grad`` of a reduction over ``axes`` with those axes as 1."""
    return grad if keepdims else grad.reshape([1 if i in axes else n for i, n in enumerate(shape)])


def _mean(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    shape, axes = xs[0].shape, [axis % xs[0].ndim for axis in call.attrs["axes"]]
    g = kept_axes(grad, shape, axes, call.attrs["keepdims"]) / math.prod(shape[axis] for axis in axes)
    return [np.ascontiguousarray(np.broadcast_to(g, shape))]


for _name in ("identity", "flatten", "reshape"):
    differentiate(_name, _reshaped)
differentiate("concat", _concat)
differentiate("slice2d", _slice2d)
differentiate("pad", _pad)
differentiate("max_pool2d", _pool2d("max"), keeps=INPUTS)
differentiate("avg_pool2d", _pool2d("mean"))
differentiate("adaptive_avg_pool2d", _adaptive)
differentiate("mean", _mean)
