"""Products of two values, attention, and what texts need: embedding, places, rotation, picking a token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import contract, transformer
from semanticlens._reference import transformer as plain
from semanticlens.nn import attrs as check
from semanticlens.nn import shapes
from semanticlens.nn.ops.table import F32, Array, Attr, Call, Op, register_op


def _matmul(call: Call, xs: Sequence[Array]) -> Array:
    a, b = xs
    a = a.swapaxes(-1, -2) if call.attrs["transpose_a"] else a
    y: Array = np.matmul(a, b.swapaxes(-1, -2) if call.attrs["transpose_b"] else b)
    return y


def _matmul_kernel(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    a, b = xs
    a = a.swapaxes(-1, -2) if call.attrs["transpose_a"] else a
    b = b.swapaxes(-1, -2) if call.attrs["transpose_b"] else b
    if a.ndim <= 4:
        return contract.matmul(a, b, out=out, n_threads=n_threads)
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # the kernel knows four axes: fold the others
    flat = [np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(-1, *x.shape[-2:]) for x in (a, b)]
    shape = (*lead, a.shape[-2], b.shape[-1])
    into = None if out is None else out.reshape(-1, *shape[-2:])
    return contract.matmul(*flat, out=into, n_threads=n_threads).reshape(shape)


def score_scale(call: Call, q: Array) -> float:
    """What the products of queries and keys are multiplied with."""
    scale: float | None = call.attrs["scale"]
    return 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale


def score_bias(call: Call, xs: Sequence[Array]) -> Array | None:
    """What is added to the scores, as (R, T, S) that runs through the last R pairs; None where nothing is."""
    q, k = xs[:2]
    full = (*q.shape[:-1], k.shape[-2])
    bias = call.params.get("bias")
    if len(xs) > 3:
        bias = xs[3] if bias is None else xs[3] + bias
    if bias is None:
        return None
    while bias.ndim > 3 and bias.shape[0] == 1:
        bias = bias[0]
    if bias.ndim == 2 or (bias.ndim == 3 and bias.shape[0] == 1):
        return np.ascontiguousarray(bias.reshape(1, *bias.shape[-2:]))
    spread = np.broadcast_to(bias, full[-bias.ndim :])
    return np.ascontiguousarray(spread).reshape(-1, *full[-2:])


def _attention(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    q, k, v = xs[:3]
    return transformer.attention(
        q, k, v, score_bias(call, xs), scale=score_scale(call, q), causal=call.attrs["causal"], out=out, n_threads=n_threads
    )


def _bind_attention(call: Call, xs: Sequence[F32], out: F32, n_threads: int) -> Callable[[], Any] | None:
    q, k, v = xs[:3]
    if len(xs) > 3 or "bias" in call.params or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return None
    q, k, v, into = (a.reshape(-1, *a.shape[-2:]) for a in (q, k, v, out))
    scale = score_scale(call, q)
    return partial(
        transformer.bound_attention(q, scale=scale, causal=call.attrs["causal"], out=into, n_threads=n_threads), k, v
    )


def _plain_attention(call: Call, xs: Sequence[Array]) -> Array:
    q, k, v = xs[:3]
    bias = call.params.get("bias")
    if len(xs) > 3:
        bias = xs[3] if bias is None else xs[3] + bias
    return plain.attention(q, k, v, bias, scale=score_scale(call, q), causal=call.attrs["causal"])


def whole_numbers(ids: Array, limit: int, what: str) -> Any:
    """Ids as integers, each from 0 to limit - 1."""
    numbers = ids.astype(np.int64)
    if numbers.size and (numbers.min() < 0 or numbers.max() >= limit or np.any(numbers != ids)):
        bad = ids.ravel()[
            np.flatnonzero((numbers.ravel() < 0) | (numbers.ravel() >= limit) | (numbers != ids).ravel())[0]
        ]
        raise DataError(f"{what} must be whole numbers from 0 to {limit - 1}; one is {bad:g}")
    return numbers


def _embedding(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    weight = call.params["weight"]
    return np.take(weight, whole_numbers(xs[0], len(weight), "token ids"), axis=0, out=out)


def _positions(call: Call, xs: Sequence[F32], out: F32 | None, n_threads: int) -> F32:
    start = call.attrs["offset"]
    return np.add(xs[0], call.params["weight"][start : start + xs[0].shape[-2]], out=out)


def rotary_speeds(attrs: Mapping[str, Any], half: int) -> NDArray[np.float64]:
    """Angles (half,) from one token to the next: ``frequencies``, or 1 / base**(i / half) where those are None."""
    given = attrs["frequencies"]
    return attrs["base"] ** (-np.arange(half) / half) if given is None else np.asarray(given, np.float64)


def rotate(x: Array, attrs: Mapping[str, Any]) -> Array:
    """Rotary positions: each pair of features of token t turned by the angle t f_i, and multiplied by ``magnitude``.

    f_i are the `rotary_speeds`.  Pairs are neighbours (interleaved) or the i-th of each half.  x (..., T, D), token 0 at
    place ``offset``.
    """
    half, start, interleaved = x.shape[-1] // 2, attrs["offset"], attrs["interleaved"]
    angles = np.arange(start, start + x.shape[-2])[:, None] * rotary_speeds(attrs, half)
    cos = (attrs["magnitude"] * np.cos(angles)).astype(x.dtype)
    sin = (attrs["magnitude"] * np.sin(angles)).astype(x.dtype)
    y = np.empty_like(x)
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    left, right = (y[..., 0::2], y[..., 1::2]) if interleaved else (y[..., :half], y[..., half:])
    np.subtract(a * cos, b * sin, out=left)
    np.add(a * sin, b * cos, out=right)
    return y


def _rotary(call: Call, xs: Sequence[Array]) -> Array:
    return rotate(xs[0], call.attrs)


def _pick(call: Call, xs: Sequence[Array]) -> Array:
    x, ids = xs
    y: Array = x[np.arange(len(x)), ids.argmax(axis=1)]
    return y


register_op(
    Op(
        "matmul",
        _matmul_kernel,
        shapes.matmul_shape,
        attrs={"transpose_a": Attr(check.flag, False), "transpose_b": Attr(check.flag, False)},
        inputs=(2, 2),
        numpy=_matmul,
        flops=lambda attrs, params, inputs, shape: 2 * math.prod(shape) * inputs[0][-2 if attrs["transpose_a"] else -1],
        aten=("matmul", "bmm"),
        onnx=("MatMul",),
    )
)
register_op(
    Op(
        "attention",
        _attention,
        shapes.attention_shape,
        optional=("bias",),
        attrs={"scale": Attr(check.number(), None), "causal": Attr(check.flag, False)},
        inputs=(3, 4),
        numpy=_plain_attention,
        bind=_bind_attention,
        flops=lambda attrs, params, inputs, shape: 2 * math.prod(inputs[0]) * inputs[1][-2]
        + 2 * math.prod(shape) * inputs[1][-2],
        aten=("scaled_dot_product_attention",),
        onnx=("Attention",),
    )
)
register_op(
    Op(
        "embedding",
        _embedding,
        shapes.embedding_shape,
        params=("weight",),
        ids=(0,),
        numpy=lambda call, xs: _embedding(call, xs, None, 1),
        aten=("embedding",),
        onnx=("Gather",),
    )
)
register_op(
    Op(
        "positions",
        _positions,
        shapes.positions_shape,
        params=("weight",),
        attrs={"offset": Attr(check.integer(0), 0)},
        inplace=(0,),
        numpy=lambda call, xs: _positions(call, xs, None, 1),
    )
)
register_op(
    Op(
        "rotary",
        shape=shapes.rotary_shape,
        attrs={
            "base": Attr(check.number(1.0), 10000.0),
            "interleaved": Attr(check.flag, False),
            "offset": Attr(check.integer(0), 0),
            "frequencies": Attr(check.numbers(0.0), None),
            "magnitude": Attr(check.number(0.0), 1.0),
        },
        numpy=_rotary,
    )
)
register_op(Op("pick_largest", shape=shapes.pick_shape, inputs=(2, 2), ids=(1,), takes_out=False, numpy=_pick))
