"""Work on single values: activations, sums and products with values and constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semanticlens.nn.aten.registry import OPERATIONS, operation, unary
from semanticlens.nn.traced import Refused, Traced

if TYPE_CHECKING:
    from semanticlens.nn.export import Translator

for _kind in (
    *("relu", "relu6", "sigmoid", "silu", "hardsigmoid", "hardswish", "tanh"),
    *("exp", "log", "sqrt", "reciprocal", "abs", "neg", "erf"),
):
    OPERATIONS[_kind] = unary(_kind)
OPERATIONS["rsqrt"] = unary("power", exponent=-0.5)


@operation("gelu")
def _gelu(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    return t.emit(fx, "gelu_tanh" if a["approximate"] == "tanh" else "gelu", [t.traced(a["self"])])


@operation("hardtanh", "clamp", "clamp_min", "clamp_max")
def _clamp(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    low, high = (a.get("min_val", a.get("min")), a.get("max_val", a.get("max")))
    for limit in (low, high):
        if limit is not None and not isinstance(limit, (int, float)):
            raise Refused("limits that are no numbers")
    source = t.traced(a["self"])
    if low == 0 and high in (None, 6):
        return t.emit(fx, "relu" if high is None else "relu6", [source])
    limits: dict[str, Any] = {name: float(n) for name, n in (("low", low), ("high", high)) if n is not None}
    return t.emit(fx, "clamp", [source], **limits)


@operation("leaky_relu")
def _leaky_relu(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    return t.emit(fx, "leaky_relu", [t.traced(a["self"])], slope=float(a["negative_slope"]))


@operation("elu")
def _elu(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    if a.get("scale", 1) != 1 or a.get("input_scale", 1) != 1:
        raise Refused("scales other than 1")
    return t.emit(fx, "elu", [t.traced(a["self"])], alpha=float(a["alpha"]))


@operation("softplus")
def _softplus(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    if a.get("beta", 1) != 1:
        raise Refused("beta other than 1")
    return t.emit(fx, "softplus", [t.traced(a["self"])])


@operation("pow")
def _pow(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    if not isinstance(a["exponent"], (int, float)):
        raise Refused("an exponent that is no number")
    return t.emit(fx, "power", [t.traced(a["self"])], exponent=float(a["exponent"]))


@operation("masked_fill")
def _masked_fill(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    return _fill(t, fx, a["self"], t.constant(a["mask"]), a["value"])


@operation("where")
def _where(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    mask = t.constant(a["condition"])
    if t.constant(a["self"]) is None:
        return _fill(t, fx, a["self"], None if mask is None else ~mask.bool(), a["other"])
    return _fill(t, fx, a["other"], mask, a["self"])


def _fill(t: Translator, fx: Any, source: Any, mask: Any, number: Any) -> Traced:
    """A value, replaced by a number where a constant mask says so: times 0 or 1, plus the number or 0."""
    number = t.constant(number)
    if mask is None or number is None or number.numel() != 1:
        raise Refused("with a mask or a number that depends on the input")
    if t.shape(fx) != t.shape(source):
        raise Refused(f"a result of shape {t.shape(fx)} from a value of shape {t.shape(source)}")
    mask = mask.bool()
    fill = max(float(number), -1e30)  # parameters are finite; exp of both is 0
    return _scale_shift(t, fx, source, (~mask).float(), mask.float() * fill)


@operation("add", "sub", "mul", "div", "rsub")
def _arithmetic(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    kind = fx.target._schema.name.removeprefix("aten::")
    left, right, alpha = a["self"], a["other"], a.get("alpha", 1)
    if a.get("rounding_mode") is not None:
        raise Refused("rounding")
    if kind == "rsub":
        kind, left, right = "sub", right, left
    constants = [t.constant(left), t.constant(right)]
    if constants[0] is None and constants[1] is None:
        if alpha != 1:
            raise Refused("of two values with a factor")
        return t.emit(fx, kind, t.aligned(fx, [left, right]))
    torch = t.torch
    if constants[1] is None:  # constant op value
        number = constants[0].double().cpu()
        if kind == "sub":
            return _affine(t, fx, right, torch.full((), -float(alpha), dtype=number.dtype), number)
        if kind == "div":
            turned = t.emit(fx, "reciprocal", [t.traced(right)], suffix="reciprocal")
            return _scaled(t, fx, turned, len(t.shape(right)), number, torch.zeros((), dtype=number.dtype))
        left, constants = right, constants[::-1]
    number = constants[1].double().cpu() * (alpha if kind in ("add", "sub") else 1)
    one, zero = torch.ones((), dtype=number.dtype), torch.zeros((), dtype=number.dtype)
    scale, shift = {"add": (one, number), "sub": (one, -number), "mul": (number, zero), "div": (1 / number, zero)}[kind]
    return _affine(t, fx, left, scale, shift)


def _affine(t: Translator, fx: Any, source: Any, scale: Any, shift: Any) -> Traced:
    """A value times and plus constants: per channel of pictures and vectors as batch normalisation with mean 0 and variance 1."""
    shape = t.shape(source)
    channels = (1, shape[1], *([1] * (len(shape) - 2)))
    vectors = {}
    for role, tensor in (("weight", scale), ("bias", shift)):
        dims = [1] * (len(shape) - tensor.ndim) + list(tensor.shape)
        if (
            t.shape(fx) != shape
            or len(shape) not in (2, 4)
            or not t.traced(source).plain
            or len(dims) != len(shape)
            or any(dim not in (1, channel) for dim, channel in zip(dims, channels, strict=True))
            or (tensor.numel() == 1 and float(tensor.float()) != float(tensor))
        ):
            return _scale_shift(t, fx, source, scale, shift)
        vectors[role] = tensor.reshape(dims).expand(channels).reshape(-1).clone()
    zeros = t.torch.zeros(shape[1])
    return t.emit(fx, "batch_norm", [t.traced(source)], {"mean": zeros, "var": zeros + 1, **vectors}, eps=0.0)


def _scale_shift(t: Translator, fx: Any, source: Any, scale: Any, shift: Any) -> Traced:
    """Constants spread over the value; a factor of 1 and a term of 0 are left out."""
    if t.shape(fx) != t.shape(source):
        raise Refused(f"with a constant that spreads {t.shape(source)} to {t.shape(fx)}")
    return _scaled(t, fx, t.traced(source), len(t.shape(source)), scale, shift)


def _scaled(t: Translator, fx: Any, layout: Traced, rank: int, scale: Any, shift: Any) -> Traced:
    """Arrays become parameters, single numbers attributes, which keep the precision that float64 runs ask for."""
    params: dict[str, Any] = {}
    attrs: dict[str, Any] = {}
    for role, number, tensor, nothing in (("scale", "factor", scale, 1.0), ("shift", "term", shift, 0.0)):
        if tensor.numel() != 1:
            params[role] = t.own_constant(tensor.float(), layout, rank)
        elif float(tensor) != nothing:
            attrs[number] = float(tensor)
    return t.emit(fx, "scale_shift", [layout], params, **attrs) if params or attrs else layout
