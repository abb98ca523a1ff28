"""The table of operations: everything the engine knows about each, in one entry.

An entry says which parameters and attributes an operation has, which shape it gives, how it is computed and what the
executor may do with it. Adding an operation is adding one entry, in NumPy if one likes::

    def forward(call, xs, out, n_threads):
        return np.tanh(xs[0], out=out)

    nn.register_op(nn.Op("tanh", forward=forward, shape=lambda attrs, params, shapes: shapes[0], inplace=(0,)))

Shapes are without the batch; a size is None where the network accepts any. Shape rules raise ``ValueError`` with the
reason; the caller names the node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens._kernels import nn as kernels
from semanticlens.nn import attrs as check
from semanticlens.nn import shapes
from semanticlens.nn.shapes import Attrs, Shape, Shapes

F32 = NDArray[np.float32]

__all__ = ["ACTIVATIONS", "OPS", "Attr", "Call", "Op", "Shape", "attributes", "lookup", "output_shape", "register_op"]

ACTIVATIONS = ("relu", "relu6", "sigmoid", "silu", "hardsigmoid", "hardswish")
_REQUIRED = object()


@dataclass(frozen=True)
class Attr:
    """One attribute: how it is checked, and its default (none: it must be given)."""

    check: check.Check
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether a node must give it."""
        return self.default is _REQUIRED


@dataclass(frozen=True)
class Call:
    """What a forward function needs beside its inputs: fixed when a plan is made, shared by all runs and threads.

    Attributes
    ----------
    attrs : mapping
        Checked, with defaults filled in and everything that depends on sizes resolved.
    params : mapping of str to ndarray, float32
        Role -> array.
    activation : str
        An activation the executor merged into this call, or "none".
    prepared : Any
        What ``Op.prepare`` made of the parameters.
    """

    attrs: Attrs
    params: Mapping[str, F32]
    activation: str = "none"
    prepared: Any = None


Forward = Callable[[Call, Sequence[F32], F32 | None, int], F32]
ShapeRule = Callable[[Attrs, Shapes, Sequence[Shape]], Shape]


@dataclass(frozen=True)
class Op:
    """An operation.

    Attributes
    ----------
    name : str
    forward : callable (call, xs, out, n_threads) -> ndarray
        ``xs`` are C-contiguous float32 arrays (B, ...); ``out``, where given, has the result's shape and is written
        and returned.
    shape : callable (attrs, parameter shapes, input shapes) -> shape
        Raises ``ValueError`` where inputs, parameters and attributes do not fit together.
    params, optional : tuple of str
        Roles of the parameters.
    attrs : mapping of str to Attr
    inputs : (int, int)
        Fewest and most inputs.
    inplace : tuple of int
        Inputs that ``out`` may be.
    view : bool
        The result shares the first input's memory.
    takes_out : bool
        Whether ``forward`` can write into ``out``.
    fuses_activation, fuses_add : bool
        Whether ``call.activation`` is applied, and whether a second input is added before it.
    resolve : callable (attrs, parameter shapes, input shapes) -> attrs, optional
        Fills in what depends on sizes.
    prepare : callable (params, attrs) -> Any, optional
        Work on the parameters that is done once per network, for example packing.
    values : callable (params, attrs) -> None, optional
        Raises ``ValueError`` where finite parameter values make no sense, for example a negative variance.
    """

    name: str
    forward: Forward
    shape: ShapeRule
    params: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    inputs: tuple[int, int] = (1, 1)
    inplace: tuple[int, ...] = ()
    view: bool = False
    takes_out: bool = True
    fuses_activation: bool = False
    fuses_add: bool = False
    resolve: Callable[[Attrs, Shapes, Sequence[Shape]], Attrs] | None = None
    prepare: Callable[[Mapping[str, F32], Attrs], Any] | None = None
    values: Callable[[Mapping[str, F32], Attrs], None] | None = None


OPS: dict[str, Op] = {}


def register_op(op: Op, *, replace: bool = False) -> None:
    """Add an operation to the table for this process.

    Raises
    ------
    ValueError
        If the name is taken and ``replace`` is not set.
    """
    if op.name in OPS and not replace:
        raise ValueError(f"operation {op.name!r} exists; pass replace=True to put another in its place")
    OPS[op.name] = op


def lookup(name: Any, node: str) -> Op:
    """The entry of an operation, or an error that names the node which asks for it."""
    if not isinstance(name, str) or name not in OPS:
        raise UnsupportedOperationError(
            f"node {node!r}: operation {str(name)[:80]!r} is not known here; known are {', '.join(sorted(OPS))} "
            "(semanticlens.nn.register_op adds one)"
        )
    return OPS[name]


def attributes(op: Op, given: Attrs, node: str) -> Attrs:
    """``given`` checked, with defaults filled in; errors name node and attribute."""
    unknown = sorted(set(given) - set(op.attrs))
    if unknown:
        raise UnsupportedOperationError(
            f"node {node!r} ({op.name}): attribute {unknown[0]!r} is not known; known are "
            f"{', '.join(op.attrs) or 'none'}"
        )
    result = {}
    for name, attr in op.attrs.items():
        if name not in given and attr.required:
            raise ModelFileError(f"node {node!r} ({op.name}): attribute {name!r} is missing")
        try:
            result[name] = attr.check(given[name]) if name in given else attr.default
        except ValueError as error:
            raise ModelFileError(f"node {node!r} ({op.name}): attribute {name!r} {error}") from None
    return MappingProxyType(result)


def output_shape(op: Op, attrs: Attrs, params: Shapes, inputs: Sequence[Shape], node: str) -> Shape:
    """The operation's shape rule, with errors that name the node."""
    try:
        return op.shape(attrs, params, inputs)
    except ValueError as error:
        raise ModelFileError(f"node {node!r} ({op.name}): {error}") from None


# ---------------------------------------------------------------- forward


def _conv2d(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    a = call.attrs
    return kernels.conv2d(
        xs[0],
        call.params["weight"],
        call.params.get("bias"),
        stride=a["stride"],
        padding=a["padding"],
        dilation=a["dilation"],
        groups=a["groups"],
        activation=call.activation,
        addend=xs[1] if len(xs) > 1 else None,
        packed=call.prepared,
        out=out,
        n_threads=n_threads,
    )


class _DensePack:
    """Packed weights, made when a call first has rows enough to profit; two threads may both make them, with equal result."""

    ROWS = 8

    def __init__(self, weight: F32) -> None:
        self._weight = weight
        self._packed: F32 | None = None

    def get(self, rows: int) -> F32 | None:
        if rows < self.ROWS:
            return None
        if self._packed is None:
            self._packed = kernels.pack_dense(self._weight)
        return self._packed


def _dense(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    x = xs[0]
    return kernels.dense(
        x,
        call.params["weight"],
        call.params.get("bias"),
        activation=call.activation,
        packed=call.prepared.get(x.size // x.shape[-1]),
        out=out,
        n_threads=n_threads,
    )


def _batch_norm_values(params: Mapping[str, F32], attrs: Attrs) -> None:
    lowest = float(params["var"].min(initial=1.0))
    if not lowest + attrs["eps"] > 0.0:
        raise ValueError(f"its variance + eps must be positive, the lowest is {lowest:g} + {attrs['eps']:g}")


def _batch_norm_affine(params: Mapping[str, F32], attrs: Attrs) -> tuple[F32, F32]:
    scale, shift = affine(params, attrs["eps"])
    return scale.astype(np.float32), shift.astype(np.float32)


def affine(params: Mapping[str, F32], eps: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Batch normalisation with running statistics as ``x * scale + shift``, in double.

    scale = weight / sqrt(var + eps), shift = bias - mean * scale.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1.0 / np.sqrt(params["var"].astype(np.float64) + eps)
        if "weight" in params:
            scale = scale * params["weight"]
        shift = -params["mean"].astype(np.float64) * scale
    return scale, shift + params["bias"] if "bias" in params else shift


def _batch_norm(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.scale_shift(xs[0], *call.prepared, activation=call.activation, out=out, n_threads=n_threads)


def _activation(kind: str) -> Forward:
    def forward(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
        return kernels.activate(xs[0], kind, out=out, n_threads=n_threads)

    return forward


def _softmax(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.softmax(xs[0], out=out, n_threads=n_threads)


def _identity(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return xs[0]


def _pool2d(kind: str) -> Forward:
    def forward(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
        a = call.attrs
        return kernels.pool2d(
            xs[0],
            kind,
            a["kernel"],
            stride=a["stride"],
            padding=a["padding"],
            dilation=a["dilation"],
            ceil_mode=a["ceil_mode"],
            count_include_pad=a["count_include_pad"],
            out=out,
            n_threads=n_threads,
        )

    return forward


def _adaptive(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.adaptive_avg_pool2d(xs[0], call.attrs["size"], out=out, n_threads=n_threads)


def _mean(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    x, axes = xs[0], call.attrs["axes"]
    first = axes[0]
    if axes == tuple(range(first, x.ndim)):  # the trailing axes: a mean over positions
        kept = x.shape[1:first]
        y = kernels.reduce_positions(
            x.reshape(x.shape[0], math.prod(kept), math.prod(x.shape[first:])), "mean", n_threads=n_threads
        )
        return y.reshape(x.shape[0], *kept, *((1,) * len(axes) if call.attrs["keepdims"] else ()))
    means = np.asarray(np.mean(x, axis=axes, dtype=np.float64, keepdims=call.attrs["keepdims"]))
    return means.astype(np.float32)


def _add(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.add(xs[0], xs[1], activation=call.activation, out=out, n_threads=n_threads)


def _mul(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    a, b = xs
    if a.size < b.size or out is b:  # the kernel scales its first argument, and may write over it
        a, b = b, a
    return kernels.multiply(a, b, out=out, n_threads=n_threads)


def _concat(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return np.concatenate(xs, axis=call.attrs["axis"], out=out)


def _flatten(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    x, start = xs[0], call.attrs["start"]
    start = start + x.ndim if start < 0 else start
    return x.reshape(*x.shape[:start], math.prod(x.shape[start:]))


def _reshape(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    x, shape = xs[0], call.attrs["shape"]
    known = math.prod(dim for dim in shape if dim != -1)
    return x.reshape(x.shape[0], *(math.prod(x.shape[1:]) // known if dim == -1 else dim for dim in shape))


def _slice2d(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    vertical, horizontal = call.attrs["stride"]
    view = xs[0][:, :, ::vertical, ::horizontal]
    if out is None:
        return np.ascontiguousarray(view)
    np.copyto(out, view)
    return out


def _pad(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    x, (top, left, bottom, right), (before, after) = xs[0], call.attrs["padding"], call.attrs["channels"]
    batch, channels, height, width = x.shape
    if out is None:
        out = np.empty((batch, channels + before + after, height + top + bottom, width + left + right), np.float32)
    out.fill(call.attrs["value"])
    out[:, before : before + channels, top : top + height, left : left + width] = x
    return out


# ---------------------------------------------------------------- the table

_WINDOW = {
    "stride": Attr(check.integers(2, 1), (1, 1)),
    "padding": Attr(check.padding, (0, 0, 0, 0)),
    "dilation": Attr(check.integers(2, 1), (1, 1)),
}
_POOL = {
    "kernel": Attr(check.integers(2, 1)),
    "stride": Attr(check.integers(2, 1)),
    "padding": Attr(check.padding, (0, 0, 0, 0)),
    "dilation": Attr(check.integers(2, 1), (1, 1)),
    "ceil_mode": Attr(check.flag, False),
    "count_include_pad": Attr(check.flag, True),
}

for _op in (
    Op(
        "conv2d",
        _conv2d,
        shapes.conv2d_shape,
        params=("weight",),
        optional=("bias",),
        attrs={**_WINDOW, "groups": Attr(check.integer(1), 1)},
        fuses_activation=True,
        fuses_add=True,
        resolve=shapes.resolve_conv2d,
        prepare=lambda params, attrs: kernels.pack_conv2d(params["weight"], groups=attrs["groups"]),
    ),
    Op(
        "dense",
        _dense,
        shapes.dense_shape,
        params=("weight",),
        optional=("bias",),
        fuses_activation=True,
        prepare=lambda params, attrs: _DensePack(params["weight"]),
    ),
    Op(
        "batch_norm",
        _batch_norm,
        shapes.batch_norm_shape,
        params=("mean", "var"),
        optional=("weight", "bias"),
        attrs={"eps": Attr(check.number(0.0), 1e-5)},
        inplace=(0,),
        fuses_activation=True,
        prepare=_batch_norm_affine,
        values=_batch_norm_values,
    ),
    *(Op(kind, _activation(kind), shapes.unary_shape, inplace=(0,)) for kind in ACTIVATIONS),
    Op("softmax", _softmax, shapes.unary_shape, inplace=(0,)),
    Op("identity", _identity, shapes.unary_shape, view=True),
    Op("max_pool2d", _pool2d("max"), shapes.pool2d_shape, attrs=_POOL, resolve=shapes.resolve_pool2d),
    Op("avg_pool2d", _pool2d("mean"), shapes.pool2d_shape, attrs=_POOL, resolve=shapes.resolve_pool2d),
    Op("adaptive_avg_pool2d", _adaptive, shapes.adaptive_shape, attrs={"size": Attr(check.integers(2, 1))}),
    Op(
        "mean",
        _mean,
        shapes.mean_shape,
        attrs={
            "axes": Attr(check.integers(None, -check.MAX_RANK, check.MAX_RANK)),
            "keepdims": Attr(check.flag, False),
        },
        takes_out=False,
        resolve=shapes.resolve_mean,
    ),
    Op("add", _add, shapes.add_shape, inputs=(2, 2), inplace=(0, 1), fuses_activation=True),
    Op("mul", _mul, shapes.mul_shape, inputs=(2, 2), inplace=(0, 1)),
    Op(
        "concat",
        _concat,
        shapes.concat_shape,
        attrs={"axis": Attr(check.integer(-check.MAX_RANK, check.MAX_RANK), 1)},
        inputs=(1, 4096),
        resolve=shapes.resolve_concat,
    ),
    Op(
        "flatten",
        _flatten,
        shapes.flatten_shape,
        attrs={"start": Attr(check.integer(-check.MAX_RANK, check.MAX_RANK), 1)},
        view=True,
    ),
    Op("reshape", _reshape, shapes.reshape_shape, attrs={"shape": Attr(check.integers(None, -1, 1 << 31))}, view=True),
    Op("slice2d", _slice2d, shapes.slice2d_shape, attrs={"stride": Attr(check.integers(2, 1))}),
    Op(
        "pad",
        _pad,
        shapes.pad_shape,
        attrs={
            "padding": Attr(check.integers(4, 0), (0, 0, 0, 0)),
            "channels": Attr(check.integers(2, 0), (0, 0)),
            "value": Attr(check.number(), 0.0),
        },
    ),
):
    register_op(_op)
