"""Activations, softmax, sums and products."""

from __future__ import annotations

from collections.abc import Sequence

from semanticlens._kernels import nn as kernels
from semanticlens._reference import nn as plain
from semanticlens.nn import shapes
from semanticlens.nn.ops.table import ACTIVATIONS, F32, Array, Call, Forward, Op, Plain, register_op


def _activation(kind: str) -> Forward:
    def forward(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
        return kernels.activate(xs[0], kind, out=out, n_threads=n_threads)

    return forward


def _plain_activation(kind: str) -> Plain:
    return lambda call, xs: plain.activate(xs[0], kind)


def _softmax(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.softmax(xs[0], out=out, n_threads=n_threads)


def _add(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.add(xs[0], xs[1], activation=call.activation, out=out, n_threads=n_threads)


def _plain_add(call: Call, xs: Sequence[Array]) -> Array:
    return plain.add(xs[0], xs[1], activation=call.activation)


def _mul(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    a, b = xs
    if a.size < b.size or out is b:  # the kernel scales its first argument, and may write over it
        a, b = b, a
    return kernels.multiply(a, b, out=out, n_threads=n_threads)


_ONNX = {"relu": ("Relu",), "sigmoid": ("Sigmoid",), "hardsigmoid": ("HardSigmoid",), "hardswish": ("HardSwish",)}

for _kind in ACTIVATIONS:
    register_op(
        Op(
            _kind,
            _activation(_kind),
            shapes.unary_shape,
            inplace=(0,),
            numpy=_plain_activation(_kind),
            aten=(_kind,),
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
        aten=("add",),
        onnx=("Add",),
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
