"""What moves values without computing: concatenation, reshaping, slicing, padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from semanticlens.nn import attrs as check
from semanticlens.nn import shapes
from semanticlens.nn.ops.table import Array, Attr, Call, Op, Plain, register_op


def _as_plain(function: object) -> Plain:
    """A forward function that NumPy alone computes, for any dtype."""
    return lambda call, xs: function(call, xs, None, 1)  # type: ignore[operator]


def _identity(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    return xs[0]


def _concat(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    return np.concatenate(xs, axis=call.attrs["axis"], out=out)


def _flatten(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    x, start = xs[0], call.attrs["start"]
    start = start + x.ndim if start < 0 else start
    return x.reshape(*x.shape[:start], math.prod(x.shape[start:]))


def _reshape(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    x, shape = xs[0], call.attrs["shape"]
    known = math.prod(dim for dim in shape if dim != -1)
    return x.reshape(x.shape[0], *(math.prod(x.shape[1:]) // known if dim == -1 else dim for dim in shape))


def _slice2d(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    vertical, horizontal = call.attrs["stride"]
    view = xs[0][:, :, ::vertical, ::horizontal]
    if out is None:
        return np.ascontiguousarray(view)
    np.copyto(out, view)
    return out


def _pad(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    x, (top, left, bottom, right), (before, after) = xs[0], call.attrs["padding"], call.attrs["channels"]
    batch, channels, height, width = x.shape
    if out is None:
        out = np.empty((batch, channels + before + after, height + top + bottom, width + left + right), x.dtype)
    out.fill(call.attrs["value"])
    out[:, before : before + channels, top : top + height, left : left + width] = x
    return out


def _permute(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    view = xs[0].transpose(0, *call.attrs["axes"])
    if out is None:
        return np.ascontiguousarray(view)
    np.copyto(out, view)
    return out


def _bind_permute(call: Call, xs: Sequence[Array], out: Array, n_threads: int) -> Callable[[], Any]:
    return partial(np.copyto, out, xs[0].transpose(0, *call.attrs["axes"]))


def _bind_slice(call: Call, xs: Sequence[Array], out: Array, n_threads: int) -> Callable[[], Any]:
    a = call.attrs
    return partial(np.copyto, out, xs[0][_along(a["axis"], slice(a["start"], a["stop"], a["step"]))])


def _along(axis: int, index: Any) -> Any:
    return (*[slice(None)] * axis, index)


def _slice(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    a = call.attrs
    view = xs[0][_along(a["axis"], slice(a["start"], a["stop"], a["step"]))]
    if out is None:
        return np.ascontiguousarray(view)
    np.copyto(out, view)
    return out


def _select(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    view = xs[0][_along(call.attrs["axis"], call.attrs["index"])]
    if out is None:
        return np.ascontiguousarray(view)
    np.copyto(out, view)
    return out


def _expand(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    view = np.broadcast_to(xs[0], (len(xs[0]), *call.attrs["shape"]))
    if out is None:
        return np.ascontiguousarray(view)
    np.copyto(out, view)
    return out


def _roll(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    return np.roll(xs[0], call.attrs["shifts"], call.attrs["axes"])


def _pad_axes(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    a = call.attrs
    sides = [(0, 0), *zip(a["before"], a["after"], strict=True)]
    return np.pad(xs[0], sides, constant_values=a["value"])


def _channel_shuffle(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    """Channel j of group i goes to place j * groups + i."""
    return shuffled(xs[0], call.attrs["groups"], out)


def shuffled(x: Array, groups: int, out: Array | None = None) -> Array:
    """The channels of (B, C, H, W) as a table of ``groups`` rows, read by columns."""
    batch, channels, *size = x.shape
    out = np.empty(x.shape, x.dtype) if out is None else out
    turned = x.reshape(batch, groups, channels // groups, *size).swapaxes(1, 2)
    np.copyto(out.reshape(batch, channels // groups, groups, *size), turned)
    return out


def _constant(call: Call, xs: Sequence[Array], out: Array | None, n_threads: int) -> Array:
    value = call.params["value"]
    if out is None:
        out = np.empty((len(xs[0]), *value.shape), value.dtype)
    np.copyto(out, value)
    return out


def _register(op: Op) -> None:
    register_op(replace(op, flops=lambda attrs, params, inputs, shape: 0))


_register(Op("identity", _identity, shapes.unary_shape, view=True, numpy=_as_plain(_identity), onnx=("Identity",)))
_register(
    Op(
        "concat",
        _concat,
        shapes.concat_shape,
        attrs={"axis": Attr(check.integer(-check.MAX_RANK, check.MAX_RANK), 1)},
        inputs=(1, 4096),
        resolve=shapes.resolve_concat,
        numpy=_as_plain(_concat),
        aten=("cat",),
        onnx=("Concat",),
    )
)
_register(
    Op(
        "flatten",
        _flatten,
        shapes.flatten_shape,
        attrs={"start": Attr(check.integer(-check.MAX_RANK, check.MAX_RANK), 1)},
        view=True,
        numpy=_as_plain(_flatten),
        aten=("flatten",),
        onnx=("Flatten",),
    )
)
_register(
    Op(
        "reshape",
        _reshape,
        shapes.reshape_shape,
        attrs={"shape": Attr(check.integers(None, -1, 1 << 31))},
        view=True,
        numpy=_as_plain(_reshape),
        aten=("view", "reshape", "_unsafe_view", "squeeze", "unsqueeze"),
        onnx=("Reshape", "Squeeze", "Unsqueeze"),
    )
)
_register(
    Op(
        "slice2d",
        _slice2d,
        shapes.slice2d_shape,
        attrs={"stride": Attr(check.integers(2, 1))},
        numpy=_as_plain(_slice2d),
        aten=("slice",),
        onnx=("Slice",),
    )
)
_register(
    Op(
        "pad",
        _pad,
        shapes.pad_shape,
        attrs={
            "padding": Attr(check.integers(4, 0), (0, 0, 0, 0)),
            "channels": Attr(check.integers(2, 0), (0, 0)),
            "value": Attr(check.number(), 0.0),
        },
        numpy=_as_plain(_pad),
        aten=("pad", "constant_pad_nd"),
        onnx=("Pad",),
    )
)
_AXIS = check.integer(-check.MAX_RANK, check.MAX_RANK)
_PLACE = check.integer(-check.LIMIT, check.LIMIT)
_register(
    Op(
        "permute",
        _permute,
        shapes.permute_shape,
        attrs={"axes": Attr(check.integers(None, 1, check.MAX_RANK))},
        numpy=_as_plain(_permute),
        bind=_bind_permute,
        aten=("permute", "transpose", "t"),
        onnx=("Transpose",),
    )
)
_register(
    Op(
        "slice",
        _slice,
        shapes.slice_shape,
        attrs={
            "axis": Attr(_AXIS),
            "start": Attr(_PLACE, 0),
            "stop": Attr(_PLACE, check.LIMIT),
            "step": Attr(check.integer(1), 1),
        },
        resolve=shapes.resolve_axis,
        numpy=_as_plain(_slice),
        bind=_bind_slice,
        aten=("slice", "split", "split_with_sizes", "chunk", "narrow"),
        onnx=("Slice", "Split"),
    )
)
_register(
    Op(
        "select",
        _select,
        shapes.select_shape,
        attrs={"axis": Attr(_AXIS), "index": Attr(_PLACE)},
        resolve=shapes.resolve_axis,
        numpy=_as_plain(_select),
        aten=("select", "unbind"),
        onnx=("Gather",),
    )
)
_register(
    Op(
        "expand",
        _expand,
        shapes.expand_shape,
        attrs={"shape": Attr(check.integers(None, 1))},
        numpy=_as_plain(_expand),
        aten=("expand",),
        onnx=("Expand",),
    )
)
_register(
    Op(
        "roll",
        _roll,
        shapes.roll_shape,
        attrs={
            "shifts": Attr(check.integers(None, -check.LIMIT)),
            "axes": Attr(check.integers(None, 1, check.MAX_RANK)),
        },
        takes_out=False,
        numpy=_as_plain(_roll),
        aten=("roll",),
    )
)
_register(
    Op(
        "pad_axes",
        _pad_axes,
        shapes.pad_axes_shape,
        attrs={
            "before": Attr(check.integers(None, 0)),
            "after": Attr(check.integers(None, 0)),
            "value": Attr(check.number(), 0.0),
        },
        takes_out=False,
        numpy=_as_plain(_pad_axes),
        aten=("pad", "constant_pad_nd"),
        onnx=("Pad",),
    )
)
_register(
    Op(
        "repeat",
        shape=shapes.repeat_shape,
        attrs={"axis": Attr(_AXIS), "times": Attr(check.integer(1))},
        takes_out=False,
        resolve=shapes.resolve_axis,
        numpy=lambda call, xs: np.repeat(xs[0], call.attrs["times"], call.attrs["axis"]),
    )
)
_register(
    Op(
        "channel_shuffle",
        _channel_shuffle,
        shapes.shuffle_shape,
        attrs={"groups": Attr(check.integer(1))},
        numpy=_as_plain(_channel_shuffle),
        aten=("channel_shuffle", "native_channel_shuffle"),
    )
)
_register(
    Op(
        "constant",
        _constant,
        shapes.constant_shape,
        params=("value",),
        ids=(0,),
        numpy=_as_plain(_constant),
        aten=("cat",),
        onnx=("Constant", "Concat"),
    )
)
