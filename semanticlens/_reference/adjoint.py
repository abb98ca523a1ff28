"""Twins of the adjoints of activations, pooling, softmax, normalisations and attention.  Any float dtype."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._reference.nn import normal

Array = NDArray[Any]
Pair = tuple[int, int]
Quad = tuple[int, int, int, int]


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _gated(x: Array, factor: float, inner: Array | float = 1.0, z: Array | None = None) -> Array:
    """Slope of x sigmoid(z) with dz/dx = factor * inner."""
    s = _sigmoid(factor * x if z is None else z)
    return s + x * s * (1 - s) * factor * inner


_TANH = 2 * math.sqrt(2 / math.pi)
SLOPES: dict[str, Any] = {  # of the saved value: the result for the first five, the input for the others
    "relu": lambda y: (y > 0) * 1.0,
    "relu6": lambda y: ((y > 0) & (y < 6)) * 1.0,
    "sigmoid": lambda y: y * (1 - y),
    "hardsigmoid": lambda y: ((y > 0) & (y < 1)) / 6,
    "tanh": lambda y: 1 - y * y,
    "silu": lambda x: _gated(x, 1.0),
    "hardswish": lambda x: np.where(x > -3, np.where(x < 3, (2 * x + 3) / 6, 1.0), 0.0),
    "gelu": lambda x: normal(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    "gelu_tanh": lambda x: _gated(x, _TANH, 1 + 3 * 0.044715 * x * x, _TANH * (x + 0.044715 * x**3)),
    "quick_gelu": lambda x: _gated(x, 1.702),
}


def activate(saved: Array, s: Array, kind: str) -> Array:
    """``s`` times the activation's slope."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(SLOPES[kind](saved) * s, s.dtype)


def _taps(size: Pair, kernel: Pair, out: Pair, stride: Pair, padding: Quad, dilation: Pair) -> Any:
    """For each tap (u, v): rows and columns of outputs that find it inside the picture, and those of the picture."""
    axes = []
    for n, k, m, s, d, before in zip(size, kernel, out, stride, dilation, padding[:2], strict=True):
        places = np.arange(m) * s - before
        axes.append([(keep := np.flatnonzero((places + u * d >= 0) & (places + u * d < n)), places[keep] + u * d) for u in range(k)])
    for rows in axes[0]:
        for columns in axes[1]:
            yield np.ix_(rows[0], columns[0]), np.ix_(rows[1], columns[1])


def pool2d(s: Array, x: Array | None, size: Pair, kind: str, kernel: Pair, *, stride: Pair, padding: Quad = (0, 0, 0, 0),
           dilation: Pair = (1, 1), ceil_mode: bool = False, count_include_pad: bool = True) -> Array:
    """The transposed pooling: a maximum goes to the first tap that holds it, a mean evenly to the taps inside."""
    out = s.shape[2:]
    g = np.zeros((*s.shape[:2], *size), s.dtype)
    taps = list(_taps(size, kernel, out, stride, padding, dilation))
    if kind == "max":
        assert x is not None
        best, place = np.full(s.shape, -np.inf), np.full(s.shape, -1)
        for number, (outer, inner) in enumerate(taps):
            old, new = best[(slice(None), slice(None), *outer)], x[(slice(None), slice(None), *inner)]
            better = (new > old) | (np.isnan(new) & ~np.isnan(old)) | (place[(slice(None), slice(None), *outer)] < 0)
            best[(slice(None), slice(None), *outer)] = np.where(better, new, old)
            place[(slice(None), slice(None), *outer)] = np.where(better, number, place[(slice(None), slice(None), *outer)])
        for number, (outer, inner) in enumerate(taps):
            at = (slice(None), slice(None), *outer)
            g[(slice(None), slice(None), *inner)] += np.where(place[at] == number, s[at], 0)
        return g
    counts = np.zeros(out)
    if count_include_pad:
        padded = (size[0] + padding[0] + padding[2], size[1] + padding[1] + padding[3])
        for outer, _ in _taps(padded, kernel, out, stride, (0, 0, 0, 0), dilation):
            counts[outer] += 1
    else:
        for outer, _ in taps:
            counts[outer] += 1
    share = s / np.maximum(counts, 1)
    for outer, inner in taps:
        g[(slice(None), slice(None), *inner)] += share[(slice(None), slice(None), *outer)]
    return g


def adaptive_avg_pool2d(s: Array, size: Pair) -> Array:
    """Each value spread evenly over its cell."""
    g = np.zeros((*s.shape[:2], *size), s.dtype)
    (height, width), (h, w) = size, s.shape[2:]
    for i in range(h):
        for j in range(w):
            rows = slice(i * height // h, -(-(i + 1) * height // h))
            columns = slice(j * width // w, -(-(j + 1) * width // w))
            count = (rows.stop - rows.start) * (columns.stop - columns.start)
            g[:, :, rows, columns] += (s[:, :, i, j] / count)[:, :, None, None]
    return g


def softmax(y: Array, s: Array) -> Array:
    """``J^T s`` with ``J = diag(y) - y y^T`` for each row of results, in double."""
    wide = y.astype(np.float64)
    jacobian = wide[..., None] * np.eye(y.shape[-1]) - wide[..., :, None] * wide[..., None, :]
    return np.asarray(np.einsum("...ij,...i->...j", jacobian, s), s.dtype)


def norm_rows(x: Array, s: Array, weight: Array | None = None, *, eps: float, centred: bool = True) -> tuple[Array, Array, Array]:
    """Gradients of a layer norm (RMS norm where not centred) by its input, its factors and its terms; in double.

    With the input less its mean c, ``d = sqrt(mean(c**2) + eps)``, ``y = c / d`` and ``g = s * weight``, the derivative of ``y_i`` by
    ``c_j`` is
    ``(i == j) / d - c_i c_j / (n d**3)``, and c is the input times ``I - 1/n``.
    """
    n, wide = x.shape[-1], x.astype(np.float64)
    c = wide - wide.mean(axis=-1, keepdims=True) if centred else wide
    d = np.sqrt((c * c).mean(axis=-1, keepdims=True) + eps)
    g = s.astype(np.float64) if weight is None else s * weight.astype(np.float64)
    by_c = g / d - c * (g * c).sum(axis=-1, keepdims=True) / (n * d**3)
    by_x = by_c - by_c.mean(axis=-1, keepdims=True) if centred else by_c
    rows = tuple(range(x.ndim - 1))
    return by_x.astype(x.dtype), (s * (c / d)).sum(axis=rows).astype(x.dtype), s.sum(axis=rows, dtype=np.float64).astype(x.dtype)


def group_norm(x: Array, s: Array, groups: int, weight: Array | None = None, *, eps: float) -> Array:
    """Gradient of a group norm by its input (B, C, ...): that of a layer norm of each group."""
    g = s.astype(np.float64) if weight is None else s * weight.astype(np.float64).reshape(-1, *[1] * (x.ndim - 2))
    rows = (x.shape[0], groups, -1)
    return norm_rows(x.astype(np.float64).reshape(rows), g.reshape(rows), eps=eps)[0].reshape(x.shape).astype(x.dtype)


def attention(q: Array, k: Array, v: Array, s: Array, bias: Array | None = None, *, scale: float,
              causal: bool = False) -> tuple[Array, Array, Array, Array]:
    """Gradients of ``softmax(scale q k^T + bias) v`` by queries, keys, values and scores, in double."""
    q, k, v, s = (x.astype(np.float64) for x in (q, k, v, s))
    scores = scale * (q @ k.swapaxes(-1, -2))
    scores = scores if bias is None else scores + bias
    if causal:
        queries, keys = scores.shape[-2:]
        scores = np.where(np.tri(queries, keys, keys - queries, dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = e / e.sum(axis=-1, keepdims=True)
    by_scores = softmax(shares, s @ v.swapaxes(-1, -2))
    return scale * by_scores @ k, scale * by_scores.swapaxes(-1, -2) @ q, shares.swapaxes(-1, -2) @ s, by_scores
