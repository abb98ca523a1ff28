"""Pooling over windows, cells and axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from semanticlens._kernels import nn as kernels
from semanticlens._reference import nn as plain
from semanticlens.nn import attrs as check
from semanticlens.nn import shapes
from semanticlens.nn.ops.table import F32, Array, Attr, Call, Forward, Op, Plain, register_op


def _pool2d(kind: str) -> Forward:
    def forward(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
        return kernels.pool2d(xs[0], kind, out=out, n_threads=n_threads, **call.attrs)

    return forward


def _plain_pool2d(kind: str) -> Plain:
    return lambda call, xs: plain.pool2d(xs[0], kind, **call.attrs)


def _adaptive(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    return kernels.adaptive_avg_pool2d(xs[0], call.attrs["size"], out=out, n_threads=n_threads)


def _positions(call: Call, x: F32) -> F32 | None:
    """(B, K, P): what a mean over positions reads, where the axes are the trailing ones."""
    axes = call.attrs["axes"]
    if axes != tuple(range(axes[0], x.ndim)):
        return None
    return x.reshape(x.shape[0], math.prod(x.shape[1 : axes[0]]), math.prod(x.shape[axes[0] :]))


def _mean(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    x, axes = xs[0], call.attrs["axes"]
    rows = _positions(call, x)
    if rows is None:
        y = _plain_mean(call, xs)
    else:
        y = kernels.reduce_positions(rows, "mean", n_threads=n_threads)
        y = y.reshape(x.shape[: axes[0]] + ((1,) * len(axes) if call.attrs["keepdims"] else ()))
    if out is None:
        return y
    np.copyto(out, y)
    return out


def _bind_mean(call: Call, xs: Sequence[F32], out: F32, n_threads: int) -> Callable[[], Any] | None:
    rows = _positions(call, xs[0])
    if rows is None:
        return None
    means, into = kernels.bound_reduce_positions(rows, "mean", n_threads=n_threads), out.reshape(rows.shape[:2])
    return lambda: np.copyto(into, means())


def _plain_mean(call: Call, xs: Sequence[Array]) -> Array:
    means = np.asarray(np.mean(xs[0], axis=call.attrs["axes"], dtype=np.float64, keepdims=call.attrs["keepdims"]))
    return means.astype(xs[0].dtype)


_POOL = {
    "kernel": Attr(check.integers(2, 1)),
    "stride": Attr(check.integers(2, 1)),
    "padding": Attr(check.padding, (0, 0, 0, 0)),
    "dilation": Attr(check.integers(2, 1), (1, 1)),
    "ceil_mode": Attr(check.flag, False),
    "count_include_pad": Attr(check.flag, True),
}

for _name, _kind, _names, _onnx in (
    ("max_pool2d", "max", ("max_pool2d", "max_pool2d_with_indices"), "MaxPool"),
    ("avg_pool2d", "mean", ("avg_pool2d",), "AveragePool"),
):
    register_op(
        Op(
            _name,
            _pool2d(_kind),
            shapes.pool2d_shape,
            attrs=_POOL,
            resolve=shapes.resolve_pool2d,
            numpy=_plain_pool2d(_kind),
            aten=_names,
            onnx=(_onnx,),
        )
    )
register_op(
    Op(
        "adaptive_avg_pool2d",
        _adaptive,
        shapes.adaptive_shape,
        attrs={"size": Attr(check.integers(2, 1))},
        numpy=lambda call, xs: plain.adaptive_avg_pool2d(xs[0], call.attrs["size"]),
        aten=("adaptive_avg_pool2d", "_adaptive_avg_pool2d"),
    )
)
register_op(
    Op(
        "mean",
        _mean,
        shapes.mean_shape,
        attrs={
            "axes": Attr(check.integers(None, -check.MAX_RANK, check.MAX_RANK)),
            "keepdims": Attr(check.flag, False),
        },
        resolve=shapes.resolve_mean,
        numpy=_plain_mean,
        bind=_bind_mean,
        aten=("mean",),
        onnx=("ReduceMean", "GlobalAveragePool"),
    )
)


def _sum(call: Call, xs: Sequence[Array]) -> Array:
    totals = np.asarray(np.sum(xs[0], axis=call.attrs["axes"], dtype=np.float64, keepdims=call.attrs["keepdims"]))
    return totals.astype(xs[0].dtype)


def _max(call: Call, xs: Sequence[Array]) -> Array:
    return np.asarray(np.max(xs[0], axis=call.attrs["axes"], keepdims=call.attrs["keepdims"]))


for _name, _function, _aten, _onnx in (("sum", _sum, ("sum",), "ReduceSum"), ("max", _max, ("amax",), "ReduceMax")):
    register_op(
        Op(
            _name,
            shape=shapes.mean_shape,
            attrs={
                "axes": Attr(check.integers(None, -check.MAX_RANK, check.MAX_RANK)),
                "keepdims": Attr(check.flag, False),
            },
            takes_out=False,
            resolve=shapes.resolve_mean,
            numpy=_function,
            aten=_aten,
            onnx=(_onnx, "GlobalMaxPool") if _name == "max" else (_onnx,),
        )
    )
