"""Activations, softmax, sums and products, and other work on single values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from semanticlens._kernels import nn as kernels
from semanticlens._reference import nn as plain
from semanticlens.nn import attrs as check
from semanticlens.nn import shapes
from semanticlens.nn.ops.table import ACTIVATIONS, F32, Array, Attr, Bind, Call, Forward, Op, Plain, register_op


def _activation(kind: str) -> Forward:
    def forward(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
        return kernels.activate(xs[0], kind, out=out, n_threads=n_threads)

    return forward


def _bind_activation(kind: str) -> Bind:
    return lambda call, xs, out, n_threads: kernels.bound_activate(xs[0], kind, out=out, n_threads=n_threads)


def _plain_activation(kind: str) -> Plain:
    return lambda call, xs: plain.activate(xs[0], kind)


def _softmax(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.softmax(xs[0], out=out, n_threads=n_threads)


def _add(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    if xs[0].shape == xs[1].shape:
        return kernels.add(xs[0], xs[1], activation=call.activation, out=out, n_threads=n_threads)
    y = np.add(xs[0], xs[1], out=out)
    return y if call.activation == "none" else kernels.activate(y, call.activation, out=y, n_threads=n_threads)


def _bind_add(call: Call, xs: Sequence[F32], out: F32, n_threads: int) -> Callable[[], Any] | None:
    if xs[0].shape != xs[1].shape:
        return None
    return kernels.bound_add(xs[0], xs[1], activation=call.activation, out=out, n_threads=n_threads)


def _plain_add(call: Call, xs: Sequence[Array]) -> Array:
    return plain.add(xs[0], xs[1], activation=call.activation)


def _mul(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    a, b = xs
    if a.size < b.size or out is b:  # the kernel scales its first argument, and may write over it
        a, b = b, a
    if a.shape == b.shape or (a.ndim > 2 and b.shape == (*a.shape[:2], *[1] * (a.ndim - 2))):
        return kernels.multiply(a, b, out=out, n_threads=n_threads)
    return np.multiply(a, b, out=out)


def _in_numpy(function: Callable[..., Array]) -> tuple[Forward, Plain]:
    """A NumPy ufunc as forward function and as plain form."""

    def forward(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
        with np.errstate(all="ignore"):
            return function(*xs, out=out)

    return forward, lambda call, xs: forward(call, xs, None, 1)


def _of_attrs(function: Callable[[Array, Mapping[str, float]], Array]) -> Plain:
    def plain(call: Call, xs: Sequence[Array]) -> Array:
        with np.errstate(all="ignore"):
            return function(xs[0], call.attrs).astype(xs[0].dtype)

    return plain


def _scale_shift(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    y, a, p = xs[0], call.attrs, call.params
    for factor in (p.get("scale"), None if a["factor"] == 1.0 else a["factor"]):
        y = y if factor is None else (out := np.multiply(y, factor, out=out))
    for term in (p.get("shift"), None if a["term"] == 0.0 else a["term"]):
        y = y if term is None else (out := np.add(y, term, out=out))
    return y


def _plain_scale_shift(call: Call, xs: Sequence[Array]) -> Array:
    a, p = call.attrs, call.params
    y = xs[0] * p.get("scale", 1.0) * a["factor"] + p.get("shift", 0.0) + a["term"]
    return np.asarray(y, dtype=xs[0].dtype)


def _lrn(x: Array, a: Mapping[str, float]) -> Array:
    size = int(a["size"])
    squares = np.pad((x * x).astype(np.float64), ((0, 0), ((size - 1) // 2, size // 2), *[(0, 0)] * (x.ndim - 2)))
    total = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(axis=-1)
    return np.asarray(x / (a["bias"] + a["alpha"] / size * total) ** a["beta"])


_ONNX = {
    "relu": ("Relu",),
    "sigmoid": ("Sigmoid",),
    "hardsigmoid": ("HardSigmoid",),
    "hardswish": ("HardSwish",),
    "gelu": ("Gelu",),
    "gelu_tanh": ("Gelu",),
    "tanh": ("Tanh",),
}
_ATEN = {"gelu_tanh": ("gelu",), "quick_gelu": ()}

for _kind in ACTIVATIONS:
    register_op(
        Op(
            _kind,
            _activation(_kind),
            shapes.unary_shape,
            inplace=(0,),
            numpy=_plain_activation(_kind),
            bind=_bind_activation(_kind),
            aten=_ATEN.get(_kind, (_kind,)),
            onnx=_ONNX.get(_kind, ()),
        )
    )
register_op(
    Op(
        "softmax",
        _softmax,
        shapes.unary_shape,
        inplace=(0,),
        numpy=lambda call, xs: plain.softmax(xs[0]),
        aten=("softmax", "_softmax"),
        onnx=("Softmax",),
    )
)
register_op(
    Op(
        "add",
        _add,
        shapes.add_shape,
        inputs=(2, 2),
        inplace=(0, 1),
        fuses_activation=True,
        numpy=_plain_add,
        bind=_bind_add,
        aten=("add",),
        onnx=("Add", "Sum"),
    )
)
register_op(
    Op(
        "mul",
        _mul,
        shapes.mul_shape,
        inputs=(2, 2),
        inplace=(0, 1),
        numpy=lambda call, xs: plain.multiply(*xs),
        aten=("mul",),
        onnx=("Mul",),
    )
)
_TWO: tuple[tuple[str, Any, str], ...] = (("sub", np.subtract, "Sub"), ("div", np.divide, "Div"))
_ONE: tuple[tuple[str, Any, str], ...] = (
    ("exp", np.exp, "Exp"),
    ("log", np.log, "Log"),
    ("sqrt", np.sqrt, "Sqrt"),
    ("reciprocal", np.reciprocal, "Reciprocal"),
    ("abs", np.abs, "Abs"),
    ("neg", np.negative, "Neg"),
)
for _name, _function, _onnx in _TWO:
    _forward, _plain = _in_numpy(_function)
    register_op(
        Op(
            _name,
            _forward,
            shapes.broadcast_shape,
            inputs=(2, 2),
            inplace=(0, 1),
            numpy=_plain,
            aten=(_name,),
            onnx=(_onnx,),
        )
    )
for _name, _function, _onnx in _ONE:
    _forward, _plain = _in_numpy(_function)
    register_op(Op(_name, _forward, shapes.unary_shape, inplace=(0,), numpy=_plain, aten=(_name,), onnx=(_onnx,)))


def _erf(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    """By the activation kernel: gelu(z) / z is Phi(z), and erf(x) = 2 Phi(sqrt(2) x) - 1."""
    z = xs[0] * np.float32(np.sqrt(2.0))
    phi = kernels.activate(z, "gelu", n_threads=n_threads)
    np.divide(phi, z, out=phi, where=z != 0)
    phi[z == 0] = 0.5
    y: F32 = np.subtract(2.0 * phi, np.float32(1.0), out=out)
    return y


register_op(
    Op(
        "erf",
        _erf,
        shapes.unary_shape,
        numpy=lambda call, xs: (2 * plain.normal(xs[0] * np.sqrt(2.0)) - 1).astype(xs[0].dtype),
        aten=("erf",),
        onnx=("Erf",),
    )
)
register_op(
    Op(
        "clamp",
        shape=shapes.clamp_shape,
        attrs={"low": Attr(check.number(), -check.FLOAT32_MAX), "high": Attr(check.number(), check.FLOAT32_MAX)},
        inplace=(0,),
        numpy=_of_attrs(lambda x, a: np.clip(x, a["low"], a["high"])),
        aten=("clamp", "clamp_min", "clamp_max", "hardtanh"),
        onnx=("Clip",),
    )
)
register_op(
    Op(
        "leaky_relu",
        shape=shapes.unary_shape,
        attrs={"slope": Attr(check.number(), 0.01)},
        inplace=(0,),
        numpy=_of_attrs(lambda x, a: np.where(x < 0, x * a["slope"], x)),
        aten=("leaky_relu",),
        onnx=("LeakyRelu",),
    )
)
register_op(
    Op(
        "elu",
        shape=shapes.unary_shape,
        attrs={"alpha": Attr(check.number(), 1.0)},
        inplace=(0,),
        numpy=_of_attrs(lambda x, a: np.where(x < 0, a["alpha"] * np.expm1(np.minimum(x, 0)), x)),
        aten=("elu",),
        onnx=("Elu",),
    )
)
register_op(
    Op(
        "softplus",
        shape=shapes.unary_shape,
        inplace=(0,),
        numpy=lambda call, xs: np.logaddexp(xs[0], xs[0].dtype.type(0)),
        aten=("softplus",),
        onnx=("Softplus",),
    )
)
register_op(
    Op(
        "power",
        shape=shapes.unary_shape,
        attrs={"exponent": Attr(check.number())},
        inplace=(0,),
        numpy=_of_attrs(lambda x, a: np.power(x, a["exponent"])),
        aten=("pow", "rsqrt"),
        onnx=("Pow",),
    )
)
register_op(
    Op(
        "scale_shift",
        _scale_shift,
        shapes.scale_shift_shape,
        optional=("scale", "shift"),
        attrs={"factor": Attr(check.number(), 1.0), "term": Attr(check.number(), 0.0)},     # numbers, in double
        inplace=(0,),
        numpy=_plain_scale_shift,
        aten=("add", "sub", "mul", "div", "rsub"),
        onnx=("Add", "Sub", "Mul", "Div"),
    )
)
register_op(
    Op(
        "local_response_norm",
        shape=shapes.lrn_shape,
        attrs={
            "size": Attr(check.integer(1)),
            "alpha": Attr(check.number(0.0), 1e-4),
            "beta": Attr(check.number(), 0.75),
            "bias": Attr(check.number(0.0), 1.0),
        },
        numpy=_of_attrs(_lrn),
        onnx=("LRN",),
    )
)
