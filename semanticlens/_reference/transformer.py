"""Twins of the transformer kernels.  Any float dtype; sums in double."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def norm_rows(x: Array, weight: Array | None, bias: Array | None, *, eps: float, centred: bool = True) -> Array:
    """``(x - m) / sqrt(mean((x - m)**2) + eps) * weight + bias`` over the last axis; m is the mean, or 0 where not centred."""
    y = x.astype(np.float64)
    if centred:
        y = y - y.mean(axis=-1, keepdims=True)
    y = y / np.sqrt((y * y).mean(axis=-1, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).astype(x.dtype)


def group_norm(x: Array, groups: int, weight: Array | None, bias: Array | None, *, eps: float) -> Array:
    """Layer norm of each group of channels of (B, C, ...), then one factor and term per channel."""
    y = norm_rows(x.astype(np.float64).reshape(x.shape[0], groups, -1), None, None, eps=eps).reshape(x.shape)
    shape = (-1, *([1] * (x.ndim - 2)))
    y = y if weight is None else y * weight.reshape(shape)
    return (y if bias is None else y + bias.reshape(shape)).astype(x.dtype)


def attention(q: Array, k: Array, v: Array, bias: Array | None = None, *, scale: float, causal: bool = False) -> Array:
    """``softmax(scale q k^T + bias) v`` over the last two axes; causal: query i of T looks at keys j <= i + S - T of S."""
    scores = scale * (q.astype(np.float64) @ k.swapaxes(-1, -2).astype(np.float64))
    if bias is not None:
        scores = scores + bias
    if causal:
        queries, keys = scores.shape[-2:]
        scores = np.where(np.tri(queries, keys, keys - queries, dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return ((e / e.sum(axis=-1, keepdims=True)) @ v).astype(q.dtype)
