"""What each ATen operation is in our table: one small function per operation, used by :mod:`semanticlens.nn.export`.

Imports no torch: everything is read off the traced graph that the translator holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semanticlens.nn.export import Translator

__all__ = ["IDENTITIES", "OPERATIONS", "Refused"]


class Refused(Exception):
    """Why an operation with these arguments has no counterpart."""


_Translation = Callable[["Translator", Any, dict[str, Any]], str]
OPERATIONS: dict[str, _Translation] = {}
IDENTITIES = {
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "clone",
    "contiguous",
    "detach",
    "alias",
    "lift_fresh_copy",
    "native_dropout",
}


def _operation(*kinds: str) -> Callable[[_Translation], _Translation]:
    def register(function: _Translation) -> _Translation:
        OPERATIONS.update(dict.fromkeys(kinds, function))
        return function

    return register


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return [int(item) for item in (values * 2 if len(values) == 1 else values)]


def _four(value: Any) -> list[int]:
    vertical, horizontal = _pair(value)
    return [vertical, horizontal, vertical, horizontal]


@_operation("conv2d", "convolution")
def _conv2d(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    if a.get("transposed"):
        raise Refused("a transposed convolution")
    if len(t.shape(a["input"])) != 4:
        raise Refused(f"its input has {len(t.shape(a['input']))} dimensions; only pictures (4) are supported")
    kernel, dilation = a["weight"].meta["val"].shape[2:], _pair(a["dilation"])
    if a["padding"] == "same":
        total = [d * (int(k) - 1) for k, d in zip(kernel, dilation, strict=True)]
        padding = [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]
    else:
        padding = [0, 0, 0, 0] if a["padding"] == "valid" else _four(a["padding"])
    return t.emit(
        fx,
        "conv2d",
        [a["input"]],
        {"weight": a["weight"], "bias": a["bias"]},
        stride=_pair(a["stride"]),
        padding=padding,
        dilation=dilation,
        groups=int(a["groups"]),
    )


@_operation("linear")
def _linear(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    return t.emit(fx, "dense", [a["input"]], {"weight": a["weight"], "bias": a["bias"]})


@_operation("addmm", "mm", "matmul")
def _addmm(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    if a.get("beta", 1) != 1 or a.get("alpha", 1) != 1:
        raise Refused("factors other than 1")
    left, right = (a["mat1"], a["mat2"]) if "mat1" in a else (a["self"], a["mat2"] if "mat2" in a else a["other"])
    weight = t.constant(right)
    if weight is None or weight.ndim != 2:
        raise Refused("a product of two values that both depend on the input")
    bias = a["self"] if "mat1" in a else None
    return t.emit(fx, "dense", [left], {"weight": weight.t(), "bias": bias})


@_operation("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    if a.get("training") or a.get("running_mean") is None or a.get("running_var") is None:
        raise Refused("batch normalisation with the statistics of the batch; track running statistics")
    return t.emit(
        fx,
        "batch_norm",
        [a["input"]],
        {"mean": a["running_mean"], "var": a["running_var"], "weight": a["weight"], "bias": a["bias"]},
        eps=float(a.get("eps", a.get("epsilon", 1e-5))),
    )


def _unary(op: str) -> _Translation:
    return lambda t, fx, a: t.emit(fx, op, [a["self"] if "self" in a else a["input"]])


for _kind in ("relu", "relu6", "sigmoid", "silu", "hardsigmoid", "hardswish"):
    OPERATIONS[_kind] = _unary(_kind)


@_operation("hardtanh", "clamp", "clamp_min")
def _clamp(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    low, high = (a.get("min_val", a.get("min")), a.get("max_val", a.get("max")))
    if low != 0 or high not in (None, 6):
        raise Refused(f"limits {low} and {high}; known are 0 and 6 (ReLU6), and 0 alone (ReLU)")
    return t.emit(fx, "relu" if high is None else "relu6", [a["self"]])


@_operation("softmax", "_softmax")
def _softmax(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    if int(a["dim"]) not in (-1, len(t.shape(a["self"])) - 1):
        raise Refused(f"over axis {a['dim']}; only the last axis is supported")
    return t.emit(fx, "softmax", [a["self"]])


@_operation("max_pool2d", "max_pool2d_with_indices")
def _max_pool2d(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    return t.emit(
        fx,
        "max_pool2d",
        [a["self"]],
        kernel=_pair(a["kernel_size"]),
        stride=_pair(a["stride"] or a["kernel_size"]),
        padding=_four(a["padding"]),
        dilation=_pair(a["dilation"]),
        ceil_mode=bool(a["ceil_mode"]),
    )


@_operation("avg_pool2d")
def _avg_pool2d(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    if a["divisor_override"] is not None:
        raise Refused("divisor_override")
    return t.emit(
        fx,
        "avg_pool2d",
        [a["self"]],
        kernel=_pair(a["kernel_size"]),
        stride=_pair(a["stride"] or a["kernel_size"]),
        padding=_four(a["padding"]),
        ceil_mode=bool(a["ceil_mode"]),
        count_include_pad=bool(a["count_include_pad"]),
    )


@_operation("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_avg_pool2d(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    return t.emit(fx, "adaptive_avg_pool2d", [a["self"]], size=list(t.shape(fx)[2:]))


@_operation("mean")
def _mean(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    rank = len(t.shape(a["self"]))
    axes = sorted(int(axis) % rank for axis in (a.get("dim") or []))
    if not axes or 0 in axes or a.get("dtype") is not None:
        raise Refused("a mean over the batch or in another dtype")
    return t.emit(fx, "mean", [a["self"]], axes=axes, keepdims=bool(a["keepdim"]))


@_operation("cat")
def _cat(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    axis = int(a["dim"]) % len(t.shape(fx))
    if axis == 0:
        raise Refused("along the batch")
    return t.emit(fx, "concat", list(a["tensors"]), axis=axis)


@_operation("flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze")
def _reshape(t: Translator, fx: Any, a: dict[str, Any]) -> Any:
    before, after = t.shape(a["self"]), t.shape(fx)
    if before == after:
        return t.values[a["self"]]
    if len(after) < 2:
        raise Refused(f"a result of shape {after} without features")
    if len(after) <= len(before) and after[:-1] == before[: len(after) - 1]:
        return t.emit(fx, "flatten", [a["self"]], start=len(after) - 1)
    return t.emit(fx, "reshape", [a["self"]], shape=list(after[1:]))


@_operation("slice")
def _slice(t: Translator, fx: Any, a: dict[str, Any]) -> Any:
    source, axis = a["self"], int(a["dim"]) % len(t.shape(a["self"]))
    if t.shape(source) == t.shape(fx):
        return t.values[source]
    start, end, size = a.get("start") or 0, a.get("end"), t.shape(source)[axis]
    if axis not in (2, 3) or len(t.shape(source)) != 4 or start != 0 or (end is not None and end < size):
        raise Refused("only strides over whole rows and columns (x[:, :, ::2, ::2]) are supported")
    return t.emit(fx, "slice2d", [source], stride=[int(a["step"]), 1] if axis == 2 else [1, int(a["step"])])


@_operation("pad", "constant_pad_nd")
def _pad(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    sides = [int(n) for n in a["pad"]] + [0] * (6 - len(a["pad"]))
    if a.get("mode", "constant") != "constant" or len(sides) > 6 or min(sides) < 0 or len(t.shape(a["self"])) != 4:
        raise Refused("only padding pictures by constants is supported")
    left, right, top, bottom, before, after = sides
    return t.emit(
        fx,
        "pad",
        [a["self"]],
        padding=[top, left, bottom, right],
        channels=[before, after],
        value=float(a.get("value") or 0.0),
    )


@_operation("add", "sub", "mul", "div")
def _arithmetic(t: Translator, fx: Any, a: dict[str, Any]) -> str:
    kind = fx.target._schema.name.removeprefix("aten::")
    left, right, alpha = a["self"], a["other"], a.get("alpha", 1)
    if a.get("rounding_mode") is not None:
        raise Refused("rounding")
    constants = [t.constant(left), t.constant(right)]
    if constants[0] is None and constants[1] is None:
        if kind not in ("add", "mul") or alpha != 1:
            raise Refused("of two values that depend on the input; only sums and products are supported")
        return t.emit(fx, kind, [left, right])
    if constants[1] is None:  # constant op value
        if kind in ("sub", "div"):
            raise Refused("a constant minus or divided by a value")
        left, constants = right, constants[::-1]
    number = constants[1].double().cpu() * (alpha if kind in ("add", "sub") else 1)
    one, zero = t.torch.ones((), dtype=number.dtype), t.torch.zeros((), dtype=number.dtype)
    scale, shift = {"add": (one, number), "sub": (one, -number), "mul": (number, zero), "div": (1 / number, zero)}[kind]
    return _affine(t, fx, left, scale, shift)


def _affine(t: Translator, fx: Any, source: Any, scale: Any, shift: Any) -> str:
    """A value times and plus constants per channel, as batch normalisation with mean 0 and variance 1."""
    shape = t.shape(source)
    channels = (1, shape[1], *([1] * (len(shape) - 2)))
    vectors = {}
    for role, tensor in (("weight", scale), ("bias", shift)):
        dims = [1] * (len(shape) - tensor.ndim) + list(tensor.shape)
        if (
            t.shape(fx) != shape
            or len(dims) != len(shape)
            or any(dim not in (1, channel) for dim, channel in zip(dims, channels, strict=True))
        ):
            raise Refused(
                f"with a constant of shape {tuple(tensor.shape)}; only numbers and one value per channel are supported"
            )
        vectors[role] = tensor.reshape(dims).expand(channels).reshape(-1).clone()
    zeros = t.torch.zeros(shape[1])
    return t.emit(fx, "batch_norm", [source], {"mean": zeros, "var": zeros + 1, **vectors}, eps=0.0)
