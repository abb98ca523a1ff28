"""Adjoints of what moves values, and of pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from semanticlens._kernels import adjoint as kernels
from semanticlens._reference import adjoint as plain
from semanticlens.nn.ops.back_pointwise import unbroadcast
from semanticlens.nn.ops.layout import shuffled
from semanticlens.nn.ops.table import INPUTS, RESULT, Adjoint, Array, Call, differentiate


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
    return [np.broadcast_to(g, shape).copy()]             # a view of one place would be contiguous, and read-only


def _sum(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    shape, axes = xs[0].shape, [axis % xs[0].ndim for axis in call.attrs["axes"]]
    return [np.broadcast_to(kept_axes(grad, shape, axes, call.attrs["keepdims"]), shape).copy()]


def _max(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    """Spread evenly over the places that hold the maximum, as torch's amax does."""
    shape, axes = xs[0].shape, [axis % xs[0].ndim for axis in call.attrs["axes"]]
    top, g = (kept_axes(v, shape, axes, call.attrs["keepdims"]) for v in (out, grad))
    held = xs[0] == top
    return [np.where(held, g / held.sum(axis=tuple(axes), keepdims=True), 0).astype(grad.dtype)]


def _permute(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    return [np.ascontiguousarray(grad.transpose(np.argsort((0, *call.attrs["axes"]))))]


def _placed(index: Callable[[Mapping[str, Any]], Any]) -> Adjoint:
    """The adjoint of picking a part: zeros with the gradient in its place."""

    def adjoint(
        call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
    ) -> Sequence[Array | None]:
        g = np.zeros(xs[0].shape, grad.dtype)
        g[(*[slice(None)] * call.attrs["axis"], index(call.attrs))] = grad
        return [g]

    return adjoint


def _expand(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    return [unbroadcast(grad, xs[0].shape)]


def _roll(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    return [np.roll(grad, [-shift for shift in call.attrs["shifts"]], call.attrs["axes"])]


def _pad_axes(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    inside = tuple(slice(b, b + n) for b, n in zip((0, *call.attrs["before"]), xs[0].shape, strict=True))
    return [np.ascontiguousarray(grad[inside])]


def _channel_shuffle(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    """Back by a shuffle with the other factor of the number of channels."""
    return [shuffled(grad, grad.shape[1] // call.attrs["groups"])]


def _repeat(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    axis, shape = call.attrs["axis"], xs[0].shape
    parts = grad.reshape(*shape[: axis + 1], call.attrs["times"], *shape[axis + 1 :])
    return [np.asarray(parts.sum(axis=axis + 1))]


for _name in ("identity", "flatten", "reshape"):
    differentiate(_name, _reshaped)
differentiate("concat", _concat)
differentiate("slice2d", _slice2d)
differentiate("pad", _pad)
differentiate("max_pool2d", _pool2d("max"), keeps=INPUTS)
differentiate("avg_pool2d", _pool2d("mean"))
differentiate("adaptive_avg_pool2d", _adaptive)
differentiate("mean", _mean)
differentiate("sum", _sum)
differentiate("max", _max, keeps=INPUTS | RESULT)
differentiate("permute", _permute)
differentiate("slice", _placed(lambda a: slice(a["start"], a["stop"], a["step"])))
differentiate("select", _placed(lambda a: a["index"]))
differentiate("expand", _expand)
differentiate("roll", _roll)
differentiate("pad_axes", _pad_axes)
differentiate("repeat", _repeat)
differentiate("channel_shuffle", _channel_shuffle)
