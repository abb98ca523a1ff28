"""The table of operations: everything the engine knows about each, in one entry.

An entry says which parameters and attributes an operation has, which shape it gives, how it is computed and what the executor may do with it. Adding
an operation is adding one entry, in NumPy if one likes::

    def forward(call, xs, out, n_threads):
        return np.tanh(xs[0], out=out)

    nn.register_op(nn.Op("tanh", forward=forward, shape=lambda attrs, params, shapes: shapes[0], inplace=(0,)))

Shapes are without the batch; a size is None where the network accepts any. Shape rules raise ``ValueError`` with the reason; the caller names the node.
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

F32 = NDArray[np.float32]
Dim = int | None
Shape = tuple[Dim, ...]
Attrs = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

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
        ``xs`` are C-contiguous float32 arrays (B, ...); ``out``, where given, has the result's shape and is written and returned.
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
        raise UnsupportedOperationError(f"node {node!r}: operation {str(name)[:80]!r} is not known here; known are {', '.join(sorted(OPS))} "
                                        "(semanticlens.nn.register_op adds one)")
    return OPS[name]


def attributes(op: Op, given: Attrs, node: str) -> Attrs:
    """``given`` checked, with defaults filled in; unknown and missing attributes are errors that name node and attribute."""
    unknown = sorted(set(given) - set(op.attrs))
    if unknown:
        raise UnsupportedOperationError(f"node {node!r} ({op.name}): attribute {unknown[0]!r} is not known; known are {', '.join(op.attrs) or 'none'}")
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


# ---------------------------------------------------------------- shapes

def _image(shape: Shape, what: str = "its input") -> Shape:
    if len(shape) != 3:
        raise ValueError(f"{what} must be (channels, height, width), not of shape {shape}")
    return shape


def _same(dim: Dim, want: int, what: str) -> None:
    if dim is not None and dim != want:
        raise ValueError(f"{what}: {dim} arrive, {want} are expected")


def _span(kernel: int, dilation: int) -> int:
    return (kernel - 1) * dilation + 1


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME: the output has ceil(size / stride) places, an odd cell of padding goes behind."""
    total = max((-(-size // stride) - 1) * stride + _span(kernel, dilation) - size, 0)
    return total // 2, total - total // 2


def _window_shape(attrs: Attrs, kernel: Sequence[int], sizes: Sequence[Dim], ceil_mode: bool = False) -> tuple[Dim, ...]:
    """Places of a sliding window along height and width; torch's rule for ceil mode."""
    result: list[Dim] = []
    for axis, size in enumerate(sizes):
        k, s, d = kernel[axis], attrs["stride"][axis], attrs["dilation"][axis]
        if size is None:
            result.append(None)
            continue
        before, after = _same_padding(size, k, s, d) if attrs["padding"] == "same" else attrs["padding"][axis :: 2]
        span = size + before + after - _span(k, d)
        if span < 0:
            raise ValueError(f"a {('height', 'width')[axis]} of {size} (+ {before + after} padding) is smaller than its window of {_span(k, d)}")
        n = -(-span // s) + 1 if ceil_mode else span // s + 1
        if ceil_mode and (n - 1) * s >= size + before:
            n -= 1
        result.append(n)
    return tuple(result)


def _conv2d_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    channels, *sizes = _image(inputs[0])
    weight = params["weight"]
    if len(weight) != 4:
        raise ValueError(f"its weight must be (outputs, inputs / groups, kernel height, kernel width), not of shape {weight}")
    if min(weight) < 1:
        raise ValueError(f"its weight has an empty shape {weight}")
    if weight[0] % attrs["groups"]:
        raise ValueError(f"{weight[0]} outputs cannot be split into {attrs['groups']} groups")
    _same(channels, weight[1] * attrs["groups"], f"input channels (weight {weight}, groups {attrs['groups']})")
    if "bias" in params and params["bias"] != weight[:1]:
        raise ValueError(f"its bias must have shape {weight[:1]}, not {params['bias']}")
    return (weight[0], *_window_shape(attrs, weight[2:], sizes))


def _resolve_conv2d(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Attrs:
    return _resolve_padding(attrs, params["weight"][2:], inputs)


def _resolve_pool2d(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Attrs:
    return _resolve_padding(attrs, attrs["kernel"], inputs)


def _resolve_padding(attrs: Attrs, kernel: Sequence[int], inputs: Sequence[Shape]) -> Attrs:
    if attrs["padding"] != "same":
        return attrs
    pads = [_same_padding(size, *rest) for size, *rest in zip(inputs[0][1:], kernel, attrs["stride"], attrs["dilation"], strict=True)]  # type: ignore[arg-type]
    return {**attrs, "padding": (pads[0][0], pads[1][0], pads[0][1], pads[1][1])}


def _pool2d_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    channels, *sizes = _image(inputs[0])
    kernel = attrs["kernel"]
    if attrs["padding"] != "same":
        for axis in (0, 1):
            if max(attrs["padding"][axis :: 2]) >= _span(kernel[axis], attrs["dilation"][axis]):
                raise ValueError(f"padding {list(attrs['padding'])} must be smaller than the window {list(kernel)}, or windows hold no pixel")
    return (channels, *_window_shape(attrs, kernel, sizes, attrs["ceil_mode"]))


def _dense_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    weight = params["weight"]
    if len(weight) != 2 or min(weight) < 1:
        raise ValueError(f"its weight must be (outputs, inputs), not of shape {weight}")
    _same(inputs[0][-1], weight[1], f"input features (weight {weight})")
    if "bias" in params and params["bias"] != weight[:1]:
        raise ValueError(f"its bias must have shape {weight[:1]}, not {params['bias']}")
    return (*inputs[0][:-1], weight[0])


def _batch_norm_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    channels = params["mean"]
    if len(channels) != 1:
        raise ValueError(f"its mean must be a vector, not of shape {channels}")
    for role, shape in params.items():
        if shape != channels:
            raise ValueError(f"its {role} must have shape {channels} as its mean, not {shape}")
    _same(inputs[0][0], channels[0], "input channels")
    return inputs[0]


def _unary_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    return inputs[0]


def _adaptive_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    return (_image(inputs[0])[0], *attrs["size"])


def _axis(axis: int, rank: int) -> int:
    """An axis counted with the batch, as a position that is not negative; the batch itself is refused."""
    result = axis + rank + 1 if axis < 0 else axis
    if not 1 <= result <= rank:
        raise ValueError(f"axis {axis} does not exist beside the batch in a value of {rank + 1} dimensions")
    return result


def _resolve_mean(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Attrs:
    axes = sorted({_axis(axis, len(inputs[0])) for axis in attrs["axes"]})
    return {**attrs, "axes": tuple(axes)}


def _mean_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    axes = _resolve_mean(attrs, params, inputs)["axes"]
    dims = [(1 if position in axes else dim) for position, dim in enumerate(inputs[0], 1) if attrs["keepdims"] or position not in axes]
    return tuple(dims)


def _add_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    a, b = inputs
    if len(a) != len(b) or any(p is not None and q is not None and p != q for p, q in zip(a, b, strict=True)):
        raise ValueError(f"its inputs must have equal shapes, not {a} and {b}")
    return tuple(q if p is None else p for p, q in zip(a, b, strict=True))


def _mul_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    a, b = inputs
    for full, scale in ((a, b), (b, a)):
        if len(full) == len(scale) == 3 and scale[1:] == (1, 1) and (None in (full[0], scale[0]) or full[0] == scale[0]):
            return full
    try:
        return _add_shape(attrs, params, inputs)
    except ValueError:
        raise ValueError(f"its inputs must have equal shapes, or one of them the form (channels, 1, 1), not {a} and {b}") from None


def _resolve_concat(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Attrs:
    return {**attrs, "axis": _axis(attrs["axis"], len(inputs[0]))}


def _concat_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    axis = _axis(attrs["axis"], len(inputs[0])) - 1
    result = list(inputs[0])
    for shape in inputs[1:]:
        if len(shape) != len(result) or any(p is not None and q is not None and p != q and i != axis for i, (p, q) in enumerate(zip(result, shape, strict=True))):
            raise ValueError(f"its inputs must agree in all but axis {axis + 1}, not {', '.join(map(str, inputs))}")
    parts = [shape[axis] for shape in inputs]
    result[axis] = None if None in parts else sum(part for part in parts if part is not None)
    return tuple(result)


def _size(dims: Sequence[Dim]) -> Dim:
    return None if None in dims else math.prod(dim for dim in dims if dim is not None)


def _flatten_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    start = _axis(attrs["start"], len(inputs[0])) - 1
    return (*inputs[0][:start], _size(inputs[0][start:]))


def _reshape_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    shape, size = list(attrs["shape"]), _size(inputs[0])
    holes = [i for i, dim in enumerate(shape) if dim == -1]
    if len(holes) > 1 or 0 in shape:
        raise ValueError(f"shape {shape} must have sizes of at least 1, one of them may be -1")
    known = math.prod(dim for dim in shape if dim != -1)
    if size is None:
        return tuple(None if dim == -1 else dim for dim in shape)
    if (size % known if holes else size != known):
        raise ValueError(f"{size} values (shape {inputs[0]}) do not fill the shape {shape}")
    return tuple(size // known if dim == -1 else dim for dim in shape)


def _slice2d_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    channels, *sizes = _image(inputs[0])
    return (channels, *(None if size is None else -(-size // stride) for size, stride in zip(sizes, attrs["stride"], strict=True)))


def _pad_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    top, left, bottom, right = attrs["padding"]
    extra = (sum(attrs["channels"]), top + bottom, left + right)
    return tuple(None if dim is None else dim + more for dim, more in zip(_image(inputs[0]), extra, strict=True))


# ---------------------------------------------------------------- forward

def _conv2d(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    a = call.attrs
    return kernels.conv2d(xs[0], call.params["weight"], call.params.get("bias"), stride=a["stride"], padding=a["padding"], dilation=a["dilation"],
                          groups=a["groups"], activation=call.activation, addend=xs[1] if len(xs) > 1 else None, packed=call.prepared, out=out,
                          n_threads=n_threads)


def _dense(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.dense(xs[0], call.params["weight"], call.params.get("bias"), activation=call.activation, packed=call.prepared, out=out, n_threads=n_threads)


def _batch_norm_values(params: Mapping[str, F32], attrs: Attrs) -> None:
    lowest = float(params["var"].min(initial=1.0))
    if not lowest + attrs["eps"] > 0.0:
        raise ValueError(f"its variance + eps must be positive, the lowest is {lowest:g} + {attrs['eps']:g}")


def _batch_norm_affine(params: Mapping[str, F32], attrs: Attrs) -> tuple[F32, F32]:
    scale, shift = affine(params, attrs["eps"])
    return scale.astype(np.float32), shift.astype(np.float32)


def affine(params: Mapping[str, F32], eps: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Batch normalisation with running statistics as ``x * scale + shift``: scale = weight / sqrt(var + eps), shift = bias - mean * scale, in double."""
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
        return kernels.pool2d(xs[0], kind, a["kernel"], stride=a["stride"], padding=a["padding"], dilation=a["dilation"], ceil_mode=a["ceil_mode"],
                              count_include_pad=a["count_include_pad"], out=out, n_threads=n_threads)

    return forward


def _adaptive(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.adaptive_avg_pool2d(xs[0], call.attrs["size"], out=out, n_threads=n_threads)


def _mean(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    x, axes = xs[0], call.attrs["axes"]
    first = axes[0]
    if axes == tuple(range(first, x.ndim)):           # the trailing axes: a mean over positions
        kept = x.shape[1:first]
        y = kernels.reduce_positions(x.reshape(x.shape[0], math.prod(kept), math.prod(x.shape[first:])), "mean", n_threads=n_threads)
        return y.reshape(x.shape[0], *kept, *((1,) * len(axes) if call.attrs["keepdims"] else ()))
    return np.mean(x, axis=axes, dtype=np.float64, keepdims=call.attrs["keepdims"]).astype(np.float32)


def _add(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.add(xs[0], xs[1], activation=call.activation, out=out, n_threads=n_threads)


def _mul(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    a, b = xs
    if a.size < b.size or out is b:                   # the kernel scales its first argument, and may write over it
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

_WINDOW = {"stride": Attr(check.integers(2, 1), (1, 1)), "padding": Attr(check.padding, (0, 0, 0, 0)), "dilation": Attr(check.integers(2, 1), (1, 1))}
_POOL = {"kernel": Attr(check.integers(2, 1)), "stride": Attr(check.integers(2, 1)), "padding": Attr(check.padding, (0, 0, 0, 0)),
         "dilation": Attr(check.integers(2, 1), (1, 1)), "ceil_mode": Attr(check.flag, False), "count_include_pad": Attr(check.flag, True)}

for _op in (
    Op("conv2d", _conv2d, _conv2d_shape, params=("weight",), optional=("bias",), attrs={**_WINDOW, "groups": Attr(check.integer(1), 1)},
       fuses_activation=True, fuses_add=True, resolve=_resolve_conv2d, prepare=lambda params, attrs: kernels.pack_conv2d(params["weight"], groups=attrs["groups"])),
    Op("dense", _dense, _dense_shape, params=("weight",), optional=("bias",), fuses_activation=True,
       prepare=lambda params, attrs: kernels.pack_dense(params["weight"])),
    Op("batch_norm", _batch_norm, _batch_norm_shape, params=("mean", "var"), optional=("weight", "bias"), attrs={"eps": Attr(check.number(0.0), 1e-5)},
       inplace=(0,), fuses_activation=True, prepare=_batch_norm_affine, values=_batch_norm_values),
    *(Op(kind, _activation(kind), _unary_shape, inplace=(0,)) for kind in ACTIVATIONS),
    Op("softmax", _softmax, _unary_shape, inplace=(0,)),
    Op("identity", _identity, _unary_shape, view=True),
    Op("max_pool2d", _pool2d("max"), _pool2d_shape, attrs=_POOL, resolve=_resolve_pool2d),
    Op("avg_pool2d", _pool2d("mean"), _pool2d_shape, attrs=_POOL, resolve=_resolve_pool2d),
    Op("adaptive_avg_pool2d", _adaptive, _adaptive_shape, attrs={"size": Attr(check.integers(2, 1))}),
    Op("mean", _mean, _mean_shape, attrs={"axes": Attr(check.integers(None, -check.MAX_RANK, check.MAX_RANK)), "keepdims": Attr(check.flag, False)},
       takes_out=False, resolve=_resolve_mean),
    Op("add", _add, _add_shape, inputs=(2, 2), inplace=(0, 1), fuses_activation=True),
    Op("mul", _mul, _mul_shape, inputs=(2, 2), inplace=(0, 1)),
    Op("concat", _concat, _concat_shape, attrs={"axis": Attr(check.integer(-check.MAX_RANK, check.MAX_RANK), 1)}, inputs=(1, 4096), resolve=_resolve_concat),
    Op("flatten", _flatten, _flatten_shape, attrs={"start": Attr(check.integer(-check.MAX_RANK, check.MAX_RANK), 1)}, view=True),
    Op("reshape", _reshape, _reshape_shape, attrs={"shape": Attr(check.integers(None, -1, 1 << 31))}, view=True),
    Op("slice2d", _slice2d, _slice2d_shape, attrs={"stride": Attr(check.integers(2, 1))}),
    Op("pad", _pad, _pad_shape, attrs={"padding": Attr(check.integers(4, 0), (0, 0, 0, 0)), "channels": Attr(check.integers(2, 0), (0, 0)),
                                       "value": Attr(check.number(), 0.0)}),
):
    register_op(_op)
