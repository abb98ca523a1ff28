"""What the rules do at operations without a weight matrix: sums, products, pooling, normalisation, attention, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens.attribution.ledger import Entry
from semanticlens.attribution.products import stabilised_quotient, times
from semanticlens.attribution.rules import (
    Attention,
    BetaSmooth,
    ConstantScale,
    Deconvnet,
    Epsilon,
    Flat,
    Gradient,
    GuidedBackprop,
    Norm,
    Pass,
    Product,
    Rule,
    SignalTakesAll,
    Softmax,
    Stabiliser,
    Stop,
)
from semanticlens.nn.graph import Checked
from semanticlens.nn.ops import Call, affine

__all__ = ["Spot", "needs", "propagate"]

Array = NDArray[Any]
Results = Sequence["Array | None"]

BOUNDED = frozenset({"sigmoid", "hardsigmoid", "softmax", "tanh"})  # what gates come out of


@dataclass
class Spot:
    """A node on the way back.

    Attributes
    ----------
    item : Checked
    call : Call
        In the precision of the values.
    xs : sequence of ndarray (B, ...)
        Its inputs; NaN in their shape where ``needs`` did not ask for them.
    y : ndarray (B, ...)
        Its result, likewise.
    r : ndarray (B n, ...)
        Relevance of the result.
    wanted : sequence of bool
        Inputs whose relevance is asked for.
    gate : int or None
        The input that is a gate, for products.
    n_threads : int
    entry : Entry or None
    """

    item: Checked
    call: Call
    xs: Sequence[Array]
    y: Array
    r: Array
    wanted: Sequence[bool]
    gate: int | None
    n_threads: int
    entry: Entry | None = None

    @property
    def repeats(self) -> int:
        """Rows of relevance for each row of the values."""
        return len(self.r) // len(self.y)

    def transposed(self, s: Array, wanted: Sequence[bool]) -> Results:
        """The transposed Jacobian times ``s`` (B n, ...), by each input."""
        assert self.item.op.adjoint is not None
        n = self.repeats
        xs, y = (
            (self.xs, self.y) if n == 1 else ([np.repeat(x, n, axis=0) for x in self.xs], np.repeat(self.y, n, axis=0))
        )
        return self.item.op.adjoint(self.call, xs, y, s, tuple(wanted), self.n_threads)

    def shares(self, st: Stabiliser, factors: Sequence[float], bias: Array | None = None) -> Results:
        """``factor x J^T(R / st(y))`` for each input; factor 0 leaves an input without relevance."""
        s = stabilised_quotient(self.r, self.y, st, self.n_threads)
        if self.entry is not None:
            self.entry.share(self.r, s, self.y, bias)
        wanted = [w and f != 0 for w, f in zip(self.wanted, factors, strict=True)]
        back = self.transposed(s, wanted)
        return [
            self._times(x, g, s, f) if w else None for x, g, w, f in zip(self.xs, back, wanted, factors, strict=True)
        ]

    def _times(self, x: Array, g: Array | None, s: Array, factor: float) -> Array:
        assert g is not None
        own = g.flags.writeable and g.flags.c_contiguous and not np.may_share_memory(g, s)
        return times(x, "plain", np.ascontiguousarray(g), factor, None, self.n_threads, in_place=own)


def needs(rule: Rule, item: Checked) -> frozenset[str]:
    """What a rule reads of a node without weights: "inputs", "output"."""
    if isinstance(rule, (Norm, Epsilon, ConstantScale, Attention)):
        return frozenset({"inputs", "output"})
    if isinstance(rule, (Pass, Stop, Deconvnet)):
        return frozenset()
    if isinstance(rule, Product):
        return frozenset({"inputs"}) if item.op.name == "div" else frozenset()
    if isinstance(rule, (SignalTakesAll, Softmax, BetaSmooth)):
        return frozenset({"inputs", "output"} if isinstance(rule, Softmax) else {"inputs"})
    if isinstance(rule, Flat):
        return frozenset()
    return item.op.keeps  # Gradient and GuidedBackprop walk by the adjoint


def _norm(spot: Spot, rule: Any) -> Results:
    return spot.shares(rule.st, [1.0] * len(spot.xs), _constant_term(spot))


def _constant_term(spot: Spot) -> Array | None:
    """What an affine operation adds whatever its input is, to be broadcast to the result; None where that is nothing."""
    op, params, attrs = spot.item.op.name, spot.call.params, spot.call.attrs
    if op == "batch_norm":
        return affine(params, attrs["eps"])[1].astype(spot.r.dtype).reshape(-1, *[1] * (spot.r.ndim - 2))
    if op == "scale_shift" and ("shift" in params or attrs["term"]):
        return np.asarray(params.get("shift", 0.0) + np.float64(attrs["term"]))
    if op == "positions":
        return np.asarray(params["weight"][attrs["offset"] :][: spot.r.shape[-2]], spot.r.dtype)
    return None


def _pass(spot: Spot, rule: Pass) -> Results:
    moved = [w and x.shape == spot.y.shape for w, x in zip(spot.wanted, spot.xs, strict=True)]
    if len(spot.xs) != 1 or moved != list(spot.wanted):
        raise ValueError(
            f"Pass hands relevance on as it is, and {spot.item.op.name!r} has {len(spot.xs)} inputs of shapes "
            f"{', '.join(str(x.shape[1:]) for x in spot.xs)} for a result of {spot.y.shape[1:]}"
        )
    return [spot.r]


def _gradient(spot: Spot, rule: Gradient) -> Results:
    results = spot.transposed(spot.r, spot.wanted)
    if spot.entry is not None and spot.item.op.name in ("pad", "pad_axes") and results[0] is not None:
        spot.entry.stopped += float(spot.r.sum(dtype=np.float64) - results[0].sum(dtype=np.float64))  # the padding's
    return results


def _stop(spot: Spot, rule: Stop) -> Results:
    if spot.entry is not None:
        spot.entry.stopped += float(spot.r.sum(dtype=np.float64))
    return [None] * len(spot.xs)


def _guided(spot: Spot, rule: GuidedBackprop) -> Results:
    return spot.transposed(np.maximum(spot.r, 0), spot.wanted)


def _deconvnet(spot: Spot, rule: Deconvnet) -> Results:
    return [np.maximum(spot.r, 0)]


def _beta_smooth(spot: Spot, rule: BetaSmooth) -> Results:
    with np.errstate(over="ignore"):
        factor = (1 / (1 + np.exp(-rule.beta * spot.xs[0].astype(np.float64)))).astype(spot.r.dtype)
    return [times(factor, "plain", spot.r.copy(), 1.0, None, spot.n_threads)]


def _all_to_one(spot: Spot, rule: SignalTakesAll) -> Results:
    if spot.item.op.name != "add":
        return spot.transposed(spot.r, spot.wanted)
    if spot.xs[0].shape != spot.xs[1].shape:
        raise ValueError(
            f"SignalTakesAll: the branches have shapes {spot.xs[0].shape[1:]} and {spot.xs[1].shape[1:]}, they must be equal"
        )
    first = np.abs(spot.xs[0]) >= np.abs(spot.xs[1])
    rows = spot.r.reshape(len(first), -1, *first.shape[1:])
    zero = spot.r.dtype.type(0)
    return [
        np.where(mask[:, None], rows, zero).reshape(spot.r.shape) if wanted else None
        for mask, wanted in zip((first, ~first), spot.wanted, strict=True)
    ]


def _product(spot: Spot, rule: Product) -> Results:
    if spot.item.op.name == "div":
        if not spot.wanted[0] and spot.entry is not None:
            spot.entry.stopped += float(spot.r.sum(dtype=np.float64))
        return [_summed(spot.r, spot.xs[0].shape[1:], spot) if spot.wanted[0] else None, None]
    if spot.wanted[0] != spot.wanted[1]:  # a constant takes no share
        parts: list[Array | None] = [spot.r if w else None for w in spot.wanted]
    elif rule.to == "both" or spot.gate is None:
        half = spot.r * spot.r.dtype.type(0.5)
        parts = [half, half.copy()]
    else:
        parts = [None if i == spot.gate else spot.r for i in range(2)]
    return [None if part is None else _summed(part, spot.xs[i].shape[1:], spot) for i, part in enumerate(parts)]


def _summed(r: Array, shape: tuple[int, ...], spot: Spot) -> Array:
    """The sum over axes along which a factor was repeated."""
    if r.shape[1:] == shape:
        return r
    lead = r.ndim - 1 - len(shape)
    axes = (*range(1, 1 + lead), *(1 + lead + i for i, n in enumerate(shape) if n == 1 and r.shape[1 + lead + i] != 1))
    return np.ascontiguousarray(r.sum(axis=axes, dtype=np.float64).reshape(len(r), *shape).astype(r.dtype))


def _attention(spot: Spot, rule: Attention) -> Results:
    all_ways = rule.through == "all"
    if spot.item.op.name == "matmul":
        if all_ways:
            return spot.shares(rule.st, [0.5, 0.5])
        if spot.gate is None:  # queries times keys: their relevance ends with the weights that they make
            return _stop(spot, Stop())
        return spot.shares(rule.st, [0.0 if i == spot.gate else 1.0 for i in range(2)])
    factors = [0.25, 0.25, 0.5] if all_ways else [0.0, 0.0, 1.0]
    return spot.shares(rule.st, [*factors, *[0.0] * (len(spot.xs) - 3)])


def _softmax(spot: Spot, rule: Softmax) -> Results:
    x, p = (np.repeat(a, spot.repeats, axis=0) if spot.repeats > 1 else a for a in (spot.xs[0], spot.y))
    total = spot.r.sum(axis=-1, keepdims=True, dtype=np.float64).astype(spot.r.dtype)
    return [np.where(np.isneginf(x), 0, x) * (spot.r - p * total)]


def _constant_scale(spot: Spot, rule: ConstantScale) -> Results:
    op, params, x = spot.item.op.name, spot.call.params, spot.xs[0]
    if op == "local_response_norm":
        return [spot.r]
    bias = params.get("bias")
    channels = op == "group_norm"
    shape = (-1, *[1] * (x.ndim - 2)) if channels else (-1,)
    s = stabilised_quotient(spot.r, spot.y, rule.st, spot.n_threads)
    if spot.entry is not None:
        spot.entry.share(spot.r, s, spot.y, None if bias is None else np.asarray(bias, s.dtype).reshape(shape))
    g = s if params.get("weight") is None else s * np.asarray(params["weight"], s.dtype).reshape(shape)
    seen = x.reshape(len(x), spot.call.attrs["groups"], -1) if channels else x
    back = g.reshape(len(x), spot.repeats, *seen.shape[1:])
    wide = seen.astype(np.float64)
    mean = 0.0 if op == "rms_norm" else wide.mean(axis=-1, keepdims=True)
    scale = (1 / np.sqrt(np.square(wide - mean).mean(axis=-1, keepdims=True) + spot.call.attrs["eps"])).astype(s.dtype)
    if op != "rms_norm":
        back = back - back.mean(axis=-1, keepdims=True, dtype=np.float64).astype(s.dtype)
    return [np.ascontiguousarray((back * (seen * scale)[:, None]).reshape(spot.r.shape))]


def _flat(spot: Spot, rule: Flat) -> Results:
    """At pooling: the share of every value of a window is the same, and a window's own weights cancel."""
    assert spot.item.op.numpy is not None
    ones = np.ones((1, *spot.xs[0].shape[1:]), spot.r.dtype)
    z = np.asarray(spot.item.op.numpy(spot.call, [ones]), spot.r.dtype)
    s = stabilised_quotient(spot.r, np.ascontiguousarray(np.broadcast_to(z, spot.y.shape)), rule.st, spot.n_threads)
    return spot.transposed(s, spot.wanted)


_RULES: dict[type[Rule], Callable[[Spot, Any], Results]] = {
    Norm: _norm,
    Epsilon: _norm,
    Pass: _pass,
    Gradient: _gradient,
    Stop: _stop,
    GuidedBackprop: _guided,
    Deconvnet: _deconvnet,
    BetaSmooth: _beta_smooth,
    SignalTakesAll: _all_to_one,
    Product: _product,
    Attention: _attention,
    Softmax: _softmax,
    ConstantScale: _constant_scale,
    Flat: _flat,
}


def propagate(spot: Spot, rule: Rule) -> Results:
    """Relevance (B n, ...) of each input, None for those that get none."""
    return _RULES[type(rule)](spot, rule)
