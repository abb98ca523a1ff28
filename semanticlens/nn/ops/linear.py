"""Convolution and dense layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from semanticlens._kernels import nn as kernels
from semanticlens._kernels import winograd
from semanticlens._kernels.contract import Form
from semanticlens._reference import nn as plain
from semanticlens.nn import attrs as check
from semanticlens.nn import shapes
from semanticlens.nn.ops.table import F32, Array, Attr, Call, Op, register_op
from semanticlens.nn.shapes import Attrs


class _ConvPack:
    """Packed weights, made when a picture of some size first comes; two threads may both make them, with equal result.

    Whether by patches or by tiles (see ``_kernels.winograd``) is decided by shapes alone, so results do not depend on where or when.
    """

    def __init__(self, weight: F32, groups: int) -> None:
        self._weight, self._groups = weight, groups
        self._packed: dict[bool, F32 | None] = {}
        self._chosen: dict[tuple[int, ...], F32 | None] = {}

    def get(self, size: tuple[int, ...], attrs: Attrs) -> F32 | None:
        if size not in self._chosen:
            form = Form(attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"])
            tiles = winograd.pays(self._weight.shape, (size[0], size[1]), form)
            if tiles not in self._packed:
                self._packed[tiles] = (
                    winograd.pack(self._weight, groups=self._groups)
                    if tiles
                    else kernels.pack_conv2d(self._weight, groups=self._groups)
                )
            self._chosen[size] = self._packed[tiles]
        return self._chosen[size]


def _conv2d_options(call: Call, xs: Sequence[F32]) -> dict[str, Any]:
    a = call.attrs
    return {
        "stride": a["stride"],
        "padding": a["padding"],
        "dilation": a["dilation"],
        "groups": a["groups"],
        "activation": call.activation,
        "addend": xs[1] if len(xs) > 1 else None,
        "packed": call.prepared.get(xs[0].shape[2:], a),
    }


def _conv2d(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    p = call.params
    return kernels.conv2d(xs[0], p["weight"], p.get("bias"), out=out, n_threads=n_threads, **_conv2d_options(call, xs))


def _bind_conv2d(call: Call, xs: Sequence[F32], out: F32, n_threads: int) -> Callable[[], Any]:
    p = call.params
    return kernels.bound_conv2d(xs[0], p["weight"], p.get("bias"), out=out, n_threads=n_threads, **_conv2d_options(call, xs))


def _plain_conv2d(call: Call, xs: Sequence[Array]) -> Array:
    a = call.attrs
    y = plain.conv2d(
        xs[0],
        call.params["weight"],
        call.params.get("bias"),
        stride=a["stride"],
        padding=a["padding"],
        dilation=a["dilation"],
        groups=a["groups"],
    )
    return plain.activate(y + xs[1] if len(xs) > 1 else y, call.activation)


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


def _dense_options(call: Call, xs: Sequence[F32]) -> dict[str, Any]:
    x = xs[0]
    return {
        "activation": call.activation,
        "addend": xs[1] if len(xs) > 1 else None,
        "packed": call.prepared.get(x.size // x.shape[-1]),
    }


def _dense(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    p = call.params
    return kernels.dense(xs[0], p["weight"], p.get("bias"), out=out, n_threads=n_threads, **_dense_options(call, xs))


def _bind_dense(call: Call, xs: Sequence[F32], out: F32, n_threads: int) -> Callable[[], Any]:
    p = call.params
    return kernels.bound_dense(xs[0], p["weight"], p.get("bias"), out=out, n_threads=n_threads, **_dense_options(call, xs))


def _plain_dense(call: Call, xs: Sequence[Array]) -> Array:
    if len(xs) == 1:
        return plain.dense(xs[0], call.params["weight"], call.params.get("bias"), activation=call.activation)
    return plain.activate(plain.dense(xs[0], call.params["weight"], call.params.get("bias")) + xs[1], call.activation)


register_op(
    Op(
        "conv2d",
        _conv2d,
        shapes.conv2d_shape,
        params=("weight",),
        optional=("bias",),
        attrs={
            "stride": Attr(check.integers(2, 1), (1, 1)),
            "padding": Attr(check.padding, (0, 0, 0, 0)),
            "dilation": Attr(check.integers(2, 1), (1, 1)),
            "groups": Attr(check.integer(1), 1),
        },
        fuses_activation=True,
        fuses_add=True,
        bind=_bind_conv2d,
        resolve=shapes.resolve_conv2d,
        prepare=lambda params, attrs: _ConvPack(params["weight"], attrs["groups"]),
        numpy=_plain_conv2d,
        flops=lambda attrs, params, inputs, shape: 2 * math.prod(shape) * math.prod(params["weight"][1:]),
        aten=("conv2d", "convolution"),
        onnx=("Conv",),
    )
)
register_op(
    Op(
        "dense",
        _dense,
        shapes.dense_shape,
        params=("weight",),
        optional=("bias",),
        fuses_activation=True,
        fuses_add=True,
        bind=_bind_dense,
        prepare=lambda params, attrs: _DensePack(params["weight"]),
        numpy=_plain_dense,
        flops=lambda attrs, params, inputs, shape: 2 * math.prod(shape) * params["weight"][1],
        aten=("linear", "addmm", "mm"),
        onnx=("Gemm",),
    )
)
