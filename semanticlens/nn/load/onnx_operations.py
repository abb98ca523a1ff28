"""What each ONNX operation is in our table: the attributes it may have with their defaults, and a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens.nn.load.onnx import Reader
from semanticlens.nn.traced import Refused, Traced

__all__ = ["OPERATIONS", "operation"]

Array = NDArray[Any]
Function = Callable[[Reader, Any, dict[str, Any]], None]
OPERATIONS: dict[str, tuple[dict[str, Any], Function]] = {}


def operation(*kinds: str, **attrs: Any) -> Callable[[Function], Function]:
    """Register a function for some operations that may have these attributes."""

    def register(function: Function) -> Function:
        OPERATIONS.update(dict.fromkeys(kinds, (attrs, function)))
        return function

    return register


def _unary(op: str, **fixed: Any) -> Function:
    def function(r: Reader, node: Any, a: dict[str, Any]) -> None:
        layout, shape = r.value(node.input[0])
        r.emit(node, op, [layout], shape, **fixed)

    return function


for _kind, _op in {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hardswish",
    "Softplus": "softplus",
    "Erf": "erf",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Abs": "abs",
    "Neg": "neg",
}.items():
    OPERATIONS[_kind] = ({}, _unary(_op))


@operation("Identity", "Dropout", "Cast", ratio=0.5, seed=0, to=1, saturate=1)
def _identity(r: Reader, node: Any, a: dict[str, Any]) -> None:
    if node.op_type == "Cast" and a["to"] not in (1, 10, 11, 16):
        raise Refused(f"attribute 'to' is {a['to']}; values stay floating-point numbers")
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        training = r.constant(node.input[2])
        if training is None or bool(training.any()):
            raise Refused("dropout that is on")
    layout, shape = r.value(node.input[0])
    r.set(node, layout, shape)


@operation("Gelu", approximate="none")
def _gelu(r: Reader, node: Any, a: dict[str, Any]) -> None:
    if a["approximate"] not in ("none", "tanh"):
        raise Refused(f"attribute 'approximate' is {a['approximate']!r}")
    _unary("gelu_tanh" if a["approximate"] == "tanh" else "gelu")(r, node, a)


@operation("HardSigmoid", alpha=0.2, beta=0.5)
def _hard_sigmoid(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.value(node.input[0])
    if abs(a["alpha"] - 1 / 6) < 1e-6 and a["beta"] == 0.5:
        r.emit(node, "hardsigmoid", [layout], shape)
        return
    params: dict[str, Any] = {"scale": np.asarray([a["alpha"]]), "shift": np.asarray([a["beta"]])}
    line = r.emit(node, "scale_shift", [layout], shape, params, suffix="line", output=None)
    r.emit(node, "clamp", [line], shape, low=0.0, high=1.0)


@operation("LeakyRelu", alpha=0.01)
def _leaky_relu(r: Reader, node: Any, a: dict[str, Any]) -> None:
    _unary("leaky_relu", slope=float(a["alpha"]))(r, node, a)


@operation("Elu", alpha=1.0)
def _elu(r: Reader, node: Any, a: dict[str, Any]) -> None:
    _unary("elu", alpha=float(a["alpha"]))(r, node, a)


@operation("Clip", min=None, max=None)
def _clip(r: Reader, node: Any, a: dict[str, Any]) -> None:
    limits = [a["min"], a["max"]]
    for position in (1, 2):
        if len(node.input) > position and node.input[position]:
            limit = r.constant(node.input[position])
            if limit is None or limit.size != 1:
                raise Refused("limits must be constant numbers")
            limits[position - 1] = float(limit.reshape(-1)[0])
    low, high = (
        None if limit is None or not math.isfinite(limit) or abs(limit) > 3e38 else float(limit) for limit in limits
    )
    if low == 0.0 and high in (None, 6.0):
        _unary("relu" if high is None else "relu6")(r, node, a)
        return
    given: dict[str, Any] = {name: limit for name, limit in (("low", low), ("high", high)) if limit is not None}
    _unary("clamp", **given)(r, node, a)


@operation("Softmax", axis=None)
def _softmax(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.value(node.input[0])
    axis = (1 if r.opset < 13 else -1) if a["axis"] is None else int(a["axis"])
    axis %= len(shape)
    if r.opset < 13 and math.prod(shape[axis + 1 :]) != 1 and axis != len(shape) - 1:
        raise Refused(f"attribute 'axis' is {axis}: before opset 13 that is one softmax over several axes")
    own, place = len(layout.dims(shape)), layout.place(axis, len(shape))
    if place == own:
        r.emit(node, "softmax", [layout], shape)
        return
    swap = list(range(1, own + 1))
    swap[place - 1], swap[-1] = own, place
    order = list(range(len(shape)))
    order[axis], order[-1] = order[-1], order[axis]
    turned = tuple(shape[i] for i in order)
    moved, axes = layout.permuted(order)
    x = r.emit(node, "permute", [layout], turned, layout=moved, suffix="turned", output=None, axes=list(axes))
    x = r.emit(node, "softmax", [x], turned, suffix="weights", output=None)
    back, axes = x.permuted(order)
    r.emit(node, "permute", [x], shape, layout=back, axes=list(axes))


# ---------------------------------------------------------------- layers


def _pads(a: dict[str, Any], node: Any) -> list[int] | str:
    if a["auto_pad"] in ("SAME_UPPER",):
        return "same"
    if a["auto_pad"] not in ("NOTSET", "VALID"):
        raise Refused(f"attribute 'auto_pad' is {a['auto_pad']!r}")
    pads = [0, 0, 0, 0] if a["pads"] is None or a["auto_pad"] == "VALID" else [int(n) for n in a["pads"]]
    if len(pads) != 4 or min(pads) < 0:
        raise Refused(f"attribute 'pads' is {pads}; four sizes of pictures are supported")
    return pads


def _window(
    size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int] | None, ceil: bool = False
) -> int:
    if pads is None:
        return -(-size // stride)
    span = size + sum(pads) - (kernel - 1) * dilation - 1
    n = (-(-span // stride) if ceil else span // stride) + 1
    return n - 1 if ceil and (n - 1) * stride >= size + pads[0] else n


def _places(shape: Sequence[int], kernel: Any, stride: Any, dilation: Any, pads: Any, ceil: bool = False) -> list[int]:
    return [
        _window(
            shape[2 + i], kernel[i], stride[i], dilation[i], None if pads == "same" else (pads[i], pads[i + 2]), ceil
        )
        for i in (0, 1)
    ]


@operation("Conv", auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None)
def _conv(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.plain(node.input[0], 4)
    weight = r.constant(node.input[1])
    if weight is None or weight.ndim != 4:
        raise Refused("its weight must be a constant of four axes")
    bias = r.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
    stride, dilation = [int(n) for n in a["strides"] or (1, 1)], [int(n) for n in a["dilations"] or (1, 1)]
    pads = _pads(a, node)
    after = (shape[0], weight.shape[0], *_places(shape, weight.shape[2:], stride, dilation, pads))
    params = {"weight": weight, "bias": bias}
    r.emit(
        node, "conv2d", [layout], after, params, stride=stride, dilation=dilation, padding=pads, groups=int(a["group"])
    )


@operation(
    "MaxPool",
    auto_pad="NOTSET",
    ceil_mode=0,
    dilations=None,
    kernel_shape=None,
    pads=None,
    storage_order=0,
    strides=None,
)
def _max_pool(r: Reader, node: Any, a: dict[str, Any]) -> None:
    if len(node.output) > 1 and node.output[1]:
        raise Refused("the places of the maxima are not given")
    _pool(r, node, a, "max_pool2d")


@operation(
    "AveragePool",
    auto_pad="NOTSET",
    ceil_mode=0,
    count_include_pad=0,
    dilations=None,
    kernel_shape=None,
    pads=None,
    strides=None,
)
def _average_pool(r: Reader, node: Any, a: dict[str, Any]) -> None:
    _pool(r, node, a, "avg_pool2d", count_include_pad=bool(a["count_include_pad"]))


def _pool(r: Reader, node: Any, a: dict[str, Any], op: str, **more: Any) -> None:
    layout, shape = r.plain(node.input[0], 4)
    kernel = [int(n) for n in a["kernel_shape"] or ()]
    stride, dilation = [int(n) for n in a["strides"] or (1, 1)], [int(n) for n in a["dilations"] or (1, 1)]
    pads, ceil = _pads(a, node), bool(a["ceil_mode"])
    after = (*shape[:2], *_places(shape, kernel, stride, dilation, pads, ceil))
    given: dict[str, Any] = {
        "kernel": kernel,
        "stride": stride,
        "padding": pads,
        "dilation": dilation,
        "ceil_mode": ceil,
    }
    r.emit(node, op, [layout], after, **given, **more)


@operation("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.plain(node.input[0], 4)
    r.emit(
        node, "mean" if "Average" in node.op_type else "max", [layout], (*shape[:2], 1, 1), axes=[2, 3], keepdims=True
    )


@operation("BatchNormalization", epsilon=1e-5, momentum=0.9, spatial=1, training_mode=0)
def _batch_norm(r: Reader, node: Any, a: dict[str, Any]) -> None:
    if a["training_mode"] or not a["spatial"]:
        raise Refused("attributes 'training_mode' and 'spatial' must be 0 and 1")
    layout, shape = r.plain(node.input[0])
    weight, bias, mean, var = (r.constants[name] for name in node.input[1:5])
    r.emit(
        node,
        "batch_norm",
        [layout],
        shape,
        {"weight": weight, "bias": bias, "mean": mean, "var": var},
        eps=float(a["epsilon"]),
    )


@operation("LayerNormalization", "RMSNormalization", axis=-1, epsilon=1e-5, stash_type=1)
def _layer_norm(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.value(node.input[0])
    if (
        int(a["axis"]) % len(shape) != len(shape) - 1
        or layout.axis == len(shape) - 1
        or len([o for o in node.output if o]) > 1
    ):
        raise Refused(f"attribute 'axis' is {a['axis']}: only the last axis, and only the first result")
    params = {
        "weight": r.constants[node.input[1]],
        "bias": r.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None,
    }
    op = "layer_norm" if node.op_type.startswith("Layer") else "rms_norm"
    r.emit(node, op, [layout], shape, {k: v for k, v in params.items() if v is not None}, eps=float(a["epsilon"]))


@operation("GroupNormalization", epsilon=1e-5, num_groups=1, stash_type=1)
def _group_norm(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.plain(node.input[0])
    params = {"weight": r.constants[node.input[1]], "bias": r.constants[node.input[2]]}
    if r.opset < 21 and params["weight"].shape[0] != shape[1]:
        each = shape[1] // params["weight"].shape[0]  # before opset 21: one factor per group
        params = {role: np.repeat(array, each) for role, array in params.items()}
    r.emit(node, "group_norm", [layout], shape, params, groups=int(a["num_groups"]), eps=float(a["epsilon"]))


@operation("InstanceNormalization", epsilon=1e-5)
def _instance_norm(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.plain(node.input[0])
    weight, bias = (r.constants[name] for name in node.input[1:3])
    r.emit(
        node, "group_norm", [layout], shape, {"weight": weight, "bias": bias}, groups=shape[1], eps=float(a["epsilon"])
    )


@operation("LRN", alpha=1e-4, beta=0.75, bias=1.0, size=None)
def _lrn(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.plain(node.input[0])
    given: dict[str, Any] = {name: float(a[name]) for name in ("alpha", "beta", "bias")}
    r.emit(node, "local_response_norm", [layout], shape, size=int(a["size"]), **given)


@operation("Gemm", alpha=1.0, beta=1.0, transA=0, transB=0)
def _gemm(r: Reader, node: Any, a: dict[str, Any]) -> None:
    weight = r.constant(node.input[1])
    if a["transA"] or a["alpha"] != 1.0 or a["beta"] != 1.0 or weight is None:
        raise Refused("attributes 'transA', 'alpha', 'beta' must be 0, 1, 1 and the second factor constant")
    bias = r.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
    weight = weight if a["transB"] else weight.T
    _dense(r, node, weight, None if bias is None else np.broadcast_to(bias.reshape(-1), (weight.shape[0],)))


def _dense(r: Reader, node: Any, weight: Array, bias: Array | None) -> None:
    layout, shape = r.value(node.input[0])
    if layout.axis == len(shape) - 1:
        raise Refused("along the batch")
    r.emit(node, "dense", [layout], (*shape[:-1], weight.shape[0]), {"weight": weight, "bias": bias})


@operation("MatMul")
def _matmul(r: Reader, node: Any, a: dict[str, Any]) -> None:
    weight = r.constant(node.input[1])
    if weight is not None and weight.ndim == 2:
        _dense(r, node, weight.T, None)
        return
    if weight is not None or r.constant(node.input[0]) is not None:
        raise Refused("with a constant that is no matrix on the right")
    layouts, (left, right) = r.aligned(node, node.input)
    if layouts[0].axis >= len(left) - 2:
        raise Refused("along the batch")
    lead = np.broadcast_shapes(left[:-2], right[:-2])
    r.emit(node, "matmul", layouts, (*lead, left[-2], right[-1]))


# ---------------------------------------------------------------- arithmetic


@operation("Add", "Sub", "Mul", "Div")
def _arithmetic(r: Reader, node: Any, a: dict[str, Any]) -> None:
    kind = node.op_type.lower()
    constants = [r.constant(name) for name in node.input]
    if constants[0] is None and constants[1] is None:
        layouts, shapes = r.aligned(node, node.input)
        r.emit(node, kind, layouts, np.broadcast_shapes(*shapes))
        return
    first = constants[0] is None
    source, number = (node.input[0], constants[1]) if first else (node.input[1], constants[0])
    assert number is not None
    number = number.astype(np.float64)
    if first or kind in ("add", "mul"):
        one, zero = np.ones(1), np.zeros(1)
        with np.errstate(divide="ignore"):
            scale, shift = {
                "add": (one, number),
                "sub": (one, -number),
                "mul": (number, zero),
                "div": (1 / number, zero),
            }[kind]
    elif kind == "sub":
        scale, shift = -np.ones(1), number
    else:
        layout, shape = r.value(source)
        layout = r.emit(node, "reciprocal", [layout], shape, suffix="reciprocal", output=None)
        r.emit(node, "scale_shift", [layout], shape, {"scale": r.spread(number, layout, len(shape))})
        return
    _scale_shift(r, node, source, scale, shift)


def _scale_shift(r: Reader, node: Any, source: str, scale: Array, shift: Array) -> None:
    layout, shape = r.value(source)
    if np.broadcast_shapes(shape, scale.shape, shift.shape) != shape:
        raise Refused(f"with a constant that spreads {shape}")
    params = {
        role: r.spread(array, layout, len(shape))
        for role, array, nothing in (("scale", scale, 1.0), ("shift", shift, 0.0))
        if array.size != 1 or float(array.reshape(-1)[0]) != nothing
    }
    if params:
        r.emit(node, "scale_shift", [layout], shape, params)
    else:
        r.set(node, layout, shape)


@operation("Sum")
def _sum(r: Reader, node: Any, a: dict[str, Any]) -> None:
    if any(r.constant(name) is not None for name in node.input):
        raise Refused("of constants")
    layouts, shapes = r.aligned(node, node.input)
    total, shape = layouts[0], shapes[0]
    if len(layouts) == 1:
        r.set(node, total, shape)
    for number, (layout, other) in enumerate(zip(layouts[1:], shapes[1:], strict=True), 2):
        shape, last = tuple(np.broadcast_shapes(shape, other)), number == len(layouts)
        total = r.emit(
            node, "add", [total, layout], shape, suffix="" if last else str(number), output=0 if last else None
        )


@operation("Pow")
def _pow(r: Reader, node: Any, a: dict[str, Any]) -> None:
    exponent = r.constant(node.input[1])
    if exponent is None or exponent.size != 1:
        raise Refused("the exponent must be a constant number")
    _unary("power", exponent=float(exponent.reshape(-1)[0]))(r, node, a)


@operation("Where")
def _where(r: Reader, node: Any, a: dict[str, Any]) -> None:
    mask, yes, no = (r.constant(name) for name in node.input)
    other = no if yes is None else yes
    if mask is None or other is None or other.size != 1:
        raise Refused("with a mask or a number that depends on the input")
    mask = ~mask.astype(bool) if yes is None else mask.astype(bool)
    fill = max(float(other.reshape(-1)[0]), -1e30)
    _scale_shift(r, node, node.input[1] if yes is None else node.input[2], (~mask).astype(float), mask * fill)


@operation("ReduceMean", "ReduceSum", "ReduceMax", axes=None, keepdims=1, noop_with_empty_axes=0)
def _reduce(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.value(node.input[0])
    given = a["axes"] if a["axes"] is not None else r.whole(node, 1, "axes")
    axes = sorted({int(n) % len(shape) for n in given or ()})
    if not axes or layout.axis in axes:
        raise Refused("attribute 'axes' must name axes other than the batch's")
    keep = bool(a["keepdims"])
    after = tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)
    moved = (
        layout
        if keep
        else Traced(layout.node, layout.axis - sum(i < layout.axis for i in axes), layout.outer, layout.inner)
    )
    own = [layout.place(axis, len(shape)) for axis in axes]
    r.emit(node, node.op_type.removeprefix("Reduce").lower(), [layout], after, layout=moved, axes=own, keepdims=keep)
