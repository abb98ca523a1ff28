"""Twins of relevance propagation, written the slow way: a layer is the matrix of what every input contributes to every output.

With ``c[o, i] = x[i] M[o, i]`` each rule is a sum over columns of shares of R. Nothing here shares a formula with the walk, which
never forms contributions: it works with products by parts of the weights and of the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def connections(
    weight: Array,
    size: tuple[int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Array:
    """(O H' W', C H W) whole numbers: which value of ``weight`` joins an output to an input, -1 where none does."""
    outputs, channels, kh, kw = weight.shape
    top, left, bottom, right = padding
    rows = (size[0] + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (size[1] + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    found = np.full((outputs, rows, columns, channels * groups, *size), -1)
    taps = np.arange(weight.size).reshape(weight.shape)
    for o, y, x, u, v in np.ndindex(outputs, rows, columns, kh, kw):
        i, j = y * stride[0] + u * dilation[0] - top, x * stride[1] + v * dilation[1] - left
        if 0 <= i < size[0] and 0 <= j < size[1]:
            first = o // (outputs // groups) * channels
            found[o, y, x, first : first + channels, i, j] = taps[o, :, u, v]
    return found.reshape(outputs * rows * columns, -1)


def dense_connections(weight: Array) -> Array:
    """(O, I): all of them."""
    return np.arange(weight.size).reshape(weight.shape)


def stabilised(t: Array, eps: float = 0.0, clip: bool = False, norm_scale: bool = False) -> Array:
    """One sample's denominators (O,) kept from zero; sgn(0) = 1."""
    if norm_scale:
        eps = eps * np.sqrt(np.mean(t * t))
    sign = np.where(t < 0, -1.0, 1.0)
    return sign * np.maximum(np.abs(t), eps) if clip else t + sign * eps


def _shares(c: Array, bias: Array, r: Array, st: dict[str, Any]) -> Array:
    """``sum over o of c[o, i] R[o] / st(sum over i of c[o, i] + bias[o])``; where the denominator is 0 nothing."""
    t = stabilised(c.sum(axis=1) + bias, **st)
    return ((r / np.where(t == 0, 1, t) * (t != 0))[:, None] * c).sum(axis=0)


def terms(
    rule: str,
    m: Array,
    joined: Array,
    b: Array,
    x: Array,
    *,
    alpha: float = 2.0,
    beta: float = 1.0,
    gamma: float = 0.25,
    low: Array | None = None,
    high: Array | None = None,
    zero_bias: bool = False,
) -> list[tuple[float, Array, Array, Array]]:
    """What a rule shares relevance by, for one sample of a linear layer ``z = m x + b``.

    Parameters
    ----------
    rule : str
        Name of a class of :mod:`semanticlens.attribution.rules`.
    m : ndarray (O, I)
        The layer as a matrix.
    joined : ndarray (O, I) of bool
        Which outputs see which inputs.
    b : ndarray (O,)
    x : ndarray (I,)

    Returns
    -------
    list
        Of (factor, contributions (O, I), bias in the denominator (O,), which outputs it is for (O,)).
    """
    z, c, every = m @ x + b, m * x, np.ones(len(m))
    b = np.zeros_like(b) if zero_bias else b
    none, more, less = np.zeros_like(b), np.maximum(c, 0), np.minimum(c, 0)
    if rule in ("Epsilon", "Norm"):
        return [(1.0, c, b, every)]
    if rule == "ZPlus":
        return [(1.0, more, np.maximum(b, 0), every)]
    if rule == "AlphaBeta":
        return [(alpha, more, np.maximum(b, 0), every), (-beta, less, np.minimum(b, 0), every)]
    if rule == "Gamma":
        above = (1.0, c + gamma * more, b + gamma * np.maximum(b, 0), z > 0)
        return [above, (1.0, c + gamma * less, b + gamma * np.minimum(b, 0), z < 0)]
    if rule == "PlainGamma":
        return [(1.0, (m + gamma * np.maximum(m, 0)) * x, b + gamma * np.maximum(b, 0), every)]
    if rule == "ZBox":
        assert low is not None
        assert high is not None
        return [(1.0, c - low * np.maximum(m, 0) - high * np.minimum(m, 0), none, every)]
    if rule == "WSquare":
        return [(1.0, m * m, b * b, every)]
    if rule == "Flat":
        return [(1.0, joined.astype(x.dtype), none, every)]
    raise ValueError(f"rule={rule!r} has no matrix form here")


def layer(
    rule: str,
    m: Array,
    joined: Array,
    b: Array,
    x: Array,
    r: Array,
    *,
    eps: float = 1e-6,
    clip: bool = False,
    norm_scale: bool = False,
    **numbers: Any,
) -> Array:
    """Relevance (I,) of one sample's input for the relevance ``r`` (O,) of the result; the other arguments are those of :func:`terms`."""
    st: dict[str, Any] = {"eps": eps, "clip": clip, "norm_scale": norm_scale}
    parts = [factor * _shares(c, bias, r * of, st) for factor, c, bias, of in terms(rule, m, joined, b, x, **numbers)]
    return np.sum(parts, axis=0)


def condition(rule: str, m: Array, joined: Array, b: Array, x: Array, **numbers: Any) -> Array:
    """(O,): the smallest ``|t| / (sum of |c| + |bias|)`` of an output's denominators t; how many digits cancel in the worst of them."""
    found = np.ones(len(m))
    for _, c, bias, of in terms(rule, m, joined, b, x, **numbers):
        whole = np.abs(c).sum(axis=1) + np.abs(bias)
        share = np.abs(c.sum(axis=1) + bias) / np.where(whole == 0, 1, whole)
        found = np.where((whole > 0) & (of > 0), np.minimum(found, share), found)
    return found
