"""Normalisations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._kernels import nn as kernels
from semanticlens._kernels import transformer
from semanticlens._reference import nn as plain
from semanticlens._reference import transformer as plain_transformer
from semanticlens.nn import attrs as check
from semanticlens.nn import shapes
from semanticlens.nn.ops.table import F32, Array, Attr, Bind, Call, Forward, Op, Plain, register_op
from semanticlens.nn.shapes import Attrs


def _batch_norm_values(params: Mapping[str, F32], attrs: Attrs) -> None:
    lowest = float(params["var"].min(initial=1.0))
    if not lowest + attrs["eps"] > 0.0:
        raise ValueError(f"its variance + eps must be positive, the lowest is {lowest:g} + {attrs['eps']:g}")


def _batch_norm_affine(params: Mapping[str, F32], attrs: Attrs) -> tuple[F32, F32]:
    scale, shift = affine(params, attrs["eps"])
    with np.errstate(over="ignore"):  # what float32 cannot hold is inf
        return scale.astype(np.float32), shift.astype(np.float32)


def affine(params: Mapping[str, Array], eps: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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


def _plain_batch_norm(call: Call, xs: Sequence[Array]) -> Array:
    return plain.scale_shift(xs[0], *affine(call.params, call.attrs["eps"]), activation=call.activation)


register_op(
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
        numpy=_plain_batch_norm,
        aten=("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
        onnx=("BatchNormalization",),
    )
)


def _norm_rows(centred: bool) -> tuple[Forward, Plain, Bind]:
    def forward(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
        p, eps = call.params, call.attrs["eps"]
        return transformer.norm_rows(
            xs[0], p.get("weight"), p.get("bias"), eps=eps, centred=centred, out=out, n_threads=n_threads
        )

    def plain_form(call: Call, xs: Sequence[Array]) -> Array:
        p, eps = call.params, call.attrs["eps"]
        return plain_transformer.norm_rows(xs[0], p.get("weight"), p.get("bias"), eps=eps, centred=centred)

    def bind(call: Call, xs: Sequence[F32], out: F32, n_threads: int) -> Callable[[], Any]:
        p, eps = call.params, call.attrs["eps"]
        return transformer.bound_norm_rows(
            xs[0], p.get("weight"), p.get("bias"), eps=eps, centred=centred, out=out, n_threads=n_threads
        )

    return forward, plain_form, bind


def _group_norm(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    a, p = call.attrs, call.params
    return transformer.group_norm(
        xs[0], a["groups"], p.get("weight"), p.get("bias"), eps=a["eps"], out=out, n_threads=n_threads
    )


def _plain_group_norm(call: Call, xs: Sequence[Array]) -> Array:
    a, p = call.attrs, call.params
    return plain_transformer.group_norm(xs[0], a["groups"], p.get("weight"), p.get("bias"), eps=a["eps"])


for _name, _centred, _optional, _aten, _onnx in (
    ("layer_norm", True, ("weight", "bias"), ("layer_norm", "native_layer_norm"), "LayerNormalization"),
    ("rms_norm", False, ("weight",), ("rms_norm",), "RMSNormalization"),
):
    _forward, _plain, _bind = _norm_rows(_centred)
    register_op(
        Op(
            _name,
            _forward,
            shapes.row_norm_shape,
            optional=_optional,
            attrs={"eps": Attr(check.number(0.0), 1e-5)},
            inplace=(0,),
            numpy=_plain,
            bind=_bind,
            aten=_aten,
            onnx=(_onnx,),
        )
    )
register_op(
    Op(
        "group_norm",
        _group_norm,
        shapes.group_norm_shape,
        optional=("weight", "bias"),
        attrs={"groups": Attr(check.integer(1)), "eps": Attr(check.number(0.0), 1e-5)},
        inplace=(0,),
        numpy=_plain_group_norm,
        aten=("group_norm", "native_group_norm"),
        onnx=("GroupNormalization", "InstanceNormalization"),
    )
)
