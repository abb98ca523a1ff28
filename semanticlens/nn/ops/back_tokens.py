"""Adjoints and parameter gradients of normalisations, products of two values, attention and what texts need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticlens._kernels import contract
from semanticlens._kernels import nn as kernels
from semanticlens._reference import nn as plain
from semanticlens.nn.ops.back_pointwise import softmax_back, unbroadcast
from semanticlens.nn.ops.table import INPUTS, Adjoint, Array, Call, Parameter, differentiate
from semanticlens.nn.ops.tokens import rotate, score_bias, score_scale

CHUNK = 1 << 24  # attention scores that are held at a time


def product(a: Array, b: Array, n_threads: int, scale: float = 1.0) -> Array:
    """``scale * a @ b``."""
    if a.dtype == np.float32 and max(a.ndim, b.ndim) <= 4:
        return contract.matmul(a, b, scale=scale, n_threads=n_threads)
    return np.asarray(np.matmul(a, b) * a.dtype.type(scale))


# ---------------------------------------------------------------- normalisations


def _normalised(x: Array, eps: float, centred: bool) -> tuple[Array, Array]:
    """(x - m) / d and 1 / d over the last axis, in double."""
    y = x.astype(np.float64)
    if centred:
        y -= y.mean(axis=-1, keepdims=True)
    inverse = 1.0 / np.sqrt(np.einsum("...n,...n->...", y, y)[..., None] / y.shape[-1] + eps)
    y *= inverse
    return y, inverse


def _norm_back(x: Array, grad: Array, eps: float, centred: bool) -> Array:
    """Adjoint of the normalisation without its factor and term: (g - mean(g) - y mean(g y)) / d."""
    y, inverse = _normalised(x, eps, centred)
    inner = np.einsum("...n,...n->...", y, grad)[..., None] / y.shape[-1]
    g = grad - y * inner
    if centred:
        g -= grad.mean(axis=-1, dtype=np.float64, keepdims=True)
    return np.asarray((g * inverse).astype(x.dtype))


def _norm_rows(centred: bool) -> tuple[Adjoint, Parameter]:
    def adjoint(
        call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
    ) -> Sequence[Array | None]:
        weight = call.params.get("weight")
        return [_norm_back(xs[0], grad if weight is None else grad * weight, call.attrs["eps"], centred)]

    def parameter(call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int) -> Mapping[str, Array]:
        y, _ = _normalised(xs[0], call.attrs["eps"], centred)
        return _affine_gradients(call, y, grad, tuple(range(grad.ndim - 1)))

    return adjoint, parameter


def _affine_gradients(call: Call, y: Array, grad: Array, axes: tuple[int, ...]) -> dict[str, Array]:
    found = {}
    if "weight" in call.params:
        found["weight"] = (grad * y).sum(axis=axes).astype(grad.dtype)
    if "bias" in call.params:
        found["bias"] = grad.sum(axis=axes, dtype=np.float64).astype(grad.dtype)
    return found


def _group_norm(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    x, weight = xs[0], call.params.get("weight")
    g = grad if weight is None else grad * weight.reshape(-1, *[1] * (x.ndim - 2))
    rows = (x.shape[0], call.attrs["groups"], -1)
    return [_norm_back(x.reshape(rows), g.reshape(rows), call.attrs["eps"], True).reshape(x.shape)]


def _group_norm_parameter(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int
) -> Mapping[str, Array]:
    x = xs[0]
    y, _ = _normalised(x.reshape(x.shape[0], call.attrs["groups"], -1), call.attrs["eps"], True)
    return _affine_gradients(call, y.reshape(x.shape), grad, (0, *range(2, x.ndim)))


# ---------------------------------------------------------------- products


def _matmul(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    (a, b), found = xs, [None, None]
    flip_a, flip_b = call.attrs["transpose_a"], call.attrs["transpose_b"]
    right = b if flip_b else b.swapaxes(-1, -2)
    left = a if flip_a else a.swapaxes(-1, -2)
    result: list[Array | None] = list(found)
    if needed[0]:
        g = product(grad, right, n_threads)
        result[0] = unbroadcast(np.ascontiguousarray(g.swapaxes(-1, -2)) if flip_a else g, a.shape)
    if needed[1]:
        g = product(left, grad, n_threads)
        result[1] = unbroadcast(np.ascontiguousarray(g.swapaxes(-1, -2)) if flip_b else g, b.shape)
    return result


def _shares(call: Call, q: Array, k: Array, bias: Array | None, first: int, n_threads: int) -> Array:
    """softmax(scale q k^T + bias) for pairs of (P, T, D) from number ``first`` on."""
    scores = product(q, k.swapaxes(-1, -2), n_threads, score_scale(call, q))
    if bias is not None:
        scores += bias[(first + np.arange(len(q))) % len(bias)]
    if call.attrs["causal"]:
        queries, keys = scores.shape[-2:]
        scores[:, ~np.tri(queries, keys, keys - queries, dtype=bool)] = -np.inf
    if q.dtype == np.float32:
        return kernels.softmax(scores, out=scores, n_threads=n_threads)
    return plain.softmax(scores)


def _attention_back(
    call: Call, xs: Sequence[Array], grad: Array, needed: Sequence[bool], scores: bool, n_threads: int
) -> tuple[list[Array], Array | None]:
    """Gradients by queries, keys and values, and by the scores where asked for; pairs of heads in chunks."""
    q, k, v = (x.reshape(-1, *x.shape[-2:]) for x in xs[:3])
    g, bias = grad.reshape(-1, *grad.shape[-2:]), score_bias(call, xs)
    found = [np.empty_like(x) for x in (q, k, v)]
    by_scores = np.empty((len(q), q.shape[1], k.shape[1]), q.dtype) if scores else None
    scale, step = score_scale(call, q), max(1, CHUNK // max(1, q.shape[1] * k.shape[1]))
    for i in range(0, len(q), step):
        part = slice(i, i + step)
        shares = _shares(call, q[part], k[part], bias, i, n_threads)
        found[2][part] = product(shares.swapaxes(-1, -2), g[part], n_threads)
        slopes = softmax_back(shares, product(g[part], v[part].swapaxes(-1, -2), n_threads))
        found[0][part] = product(slopes, k[part], n_threads, scale)
        found[1][part] = product(slopes.swapaxes(-1, -2), q[part], n_threads, scale)
        if by_scores is not None:
            by_scores[part] = slopes
    return [f.reshape(x.shape) for f, x in zip(found, xs[:3], strict=True)], by_scores


def _attention(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    by_bias = len(xs) > 3 and needed[3]
    found, by_scores = _attention_back(call, xs, grad, needed, by_bias, n_threads)
    result: list[Array | None] = [f if wanted else None for f, wanted in zip(found, needed[:3], strict=True)]
    if len(xs) > 3:
        result.append(None)
    if by_scores is not None:
        full = (*xs[0].shape[:-1], xs[1].shape[-2])
        result[3] = unbroadcast(by_scores.reshape(full), xs[3].shape)
    return result


def _attention_parameter(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int
) -> Mapping[str, Array]:
    _, by_scores = _attention_back(call, xs, grad, (), True, n_threads)
    assert by_scores is not None
    full = (*xs[0].shape[:-1], xs[1].shape[-2])
    return {"bias": unbroadcast(by_scores.reshape(full), call.params["bias"].shape)}


# ---------------------------------------------------------------- texts


def _embedding_parameter(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int
) -> Mapping[str, Array]:
    weight = np.zeros(call.params["weight"].shape, np.float64)
    np.add.at(weight, xs[0].astype(np.int64).ravel(), grad.reshape(-1, grad.shape[-1]))
    return {"weight": weight.astype(grad.dtype)}


def _unchanged(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    return [grad]


def _positions_parameter(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int
) -> Mapping[str, Array]:
    weight, start = np.zeros(call.params["weight"].shape, grad.dtype), call.attrs["offset"]
    weight[start : start + grad.shape[-2]] = grad.reshape(-1, *grad.shape[-2:]).sum(axis=0)
    return {"weight": weight}


def _rotary(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    """The same turn backwards: mirror the second feature of each pair, turn, mirror again."""
    mirror: Any = np.ones(grad.shape[-1], grad.dtype)
    mirror[slice(1, None, 2) if call.attrs["interleaved"] else slice(grad.shape[-1] // 2, None)] = -1
    return [rotate(grad * mirror, call.attrs) * mirror]


def _pick_largest(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    g = np.zeros(xs[0].shape, grad.dtype)
    g[np.arange(len(g)), xs[1].argmax(axis=1)] = grad
    return [g, None]


def _constant_parameter(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int
) -> Mapping[str, Array]:
    return {"value": grad.sum(axis=0)}


for _name, _centred in (("layer_norm", True), ("rms_norm", False)):
    _adjoint, _parameter = _norm_rows(_centred)
    differentiate(_name, _adjoint, keeps=INPUTS, parameter=_parameter)
differentiate("group_norm", _group_norm, keeps=INPUTS, parameter=_group_norm_parameter)
differentiate("matmul", _matmul, keeps=INPUTS)
differentiate("attention", _attention, keeps=INPUTS, parameter=_attention_parameter)
differentiate("embedding", _unchanged, parameter=_embedding_parameter)
differentiate("positions", _unchanged, parameter=_positions_parameter)
differentiate("rotary", _rotary)
differentiate("pick_largest", _pick_largest, keeps=INPUTS)
differentiate("constant", _unchanged, parameter=_constant_parameter)
