"""What the rules do at a convolution or a dense layer.

Each function takes the layer at its input (:class:`~semanticlens.attribution.products.Products`), its result z where
the rule reads it, and the relevance of the result, and gives that of the input. How many products with the weight it
costs stands in ``COST``; where no input is negative, as behind a ReLU, products with the negative part are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._kernels import relevance as kernels
from semanticlens.attribution.ledger import Entry
from semanticlens.attribution.products import Piece, Products, stabilised_quotient
from semanticlens.attribution.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Norm,
    PlainGamma,
    Rule,
    Stabiliser,
    WSquare,
    ZBox,
    ZPlus,
)

__all__ = ["COST", "READS_RESULT", "RULES", "Layer", "propagate"]

Array = NDArray[Any]

UP, DOWN = Piece("positive"), Piece("negative")  # of the weights, on all of x
POSITIVE = (Piece("positive", "positive"), Piece("negative", "negative"))  # terms that are not negative
NEGATIVE = (Piece("negative", "positive"), Piece("positive", "negative"))

# rule -> products with the weight in the walk back: behind a ReLU (no negative input), and for inputs of either sign
COST = {
    Epsilon: (1, 1),
    Norm: (1, 1),
    ZPlus: (2, 4),
    AlphaBeta: (4, 8),
    Gamma: (3, 3),  # for gamma up to 1, else (4, 8)
    PlainGamma: (2, 2),
    ZBox: (6, 6),
    WSquare: (2, 2),
    Flat: (2, 2),
}
RULES = tuple(COST)  # others, such as Pass, need no product of theirs
READS_RESULT = (Epsilon, Norm, Gamma)  # of a linear layer: unless zero_bias makes the denominator another one
READS_SIGN = (Gamma,)


@dataclass
class Layer:
    """A linear layer on the way back.

    Attributes
    ----------
    products : Products
    z : ndarray or None
        Its result, where the rule reads it.
    r : ndarray (B n, ...)
        Relevance of the result.
    denominators : dict
        Denominators that were computed, kept where several walks share them; only used where relevance has several rows per sample.
    entry : Entry or None
        Where sums are booked, if they are asked for.
    stands : bool
        Whether ``z`` is the result behind a ReLU, which stands for it because relevance is 0 wherever that is.
    """

    products: Products
    z: Array | None
    r: Array
    denominators: dict[Any, Array]
    entry: Entry | None = None
    stands: bool = False

    @property
    def n_threads(self) -> int:
        """For elementwise work."""
        return self.products.n_threads

    @property
    def apart(self) -> bool:
        """Whether denominators are needed as arrays: for several rows, or for the ledger."""
        return len(self.r) != len(self.products.x) or self.entry is not None

    def bias(self, kind: str, zero: bool, gamma: float = 0.0) -> Array | None:
        """The layer's bias in a variant, or None."""
        given = self.products.bias
        if given is None or zero:
            return None
        return _seen(given, kind, gamma) if kind != "plain" else given

    def quotient(
        self,
        pieces: tuple[Piece, ...],
        bias: Array | None,
        st: Stabiliser,
        r: Array | None = None,
        factor: float = 1.0,
        x: Array | None = None,
    ) -> Array:
        """``r / st(z)`` with the denominators of some pieces; in one pass where nobody needs them apart."""
        r = self.r if r is None else r
        if not self.apart and not st.norm_scale and r.dtype.type(st.eps) > 0:  # a tiny eps may be 0 in float32
            return self.products.forward(pieces, bias, x, r, st)
        key = (pieces, None if bias is None else bias.tobytes())
        if key not in self.denominators:
            self.denominators[key] = self.products.forward(pieces, bias, x)
        return self.divide(self.denominators[key], bias, st, r, factor)

    def divide(
        self, z: Array, bias: Array | None, st: Stabiliser, r: Array | None = None, factor: float = 1.0
    ) -> Array:
        """``r / st(z)``, booked."""
        r = self.r if r is None else r
        s = stabilised_quotient(r, z, st, self.n_threads)
        if self.entry is not None:
            self.entry.share(r, s, z, None if bias is None else self.products.outputs(bias, z.shape), factor)
        return s


def _seen(bias: Array, kind: str, gamma: float) -> Array:
    part = np.maximum(bias, 0) if kind.endswith("positive") else np.minimum(bias, 0)
    return part if not kind.startswith("more") else np.asarray(bias + bias.dtype.type(gamma) * part)


def _epsilon(layer: Layer, rule: Any) -> Array:
    bias = layer.bias("plain", rule.zero_bias)
    if rule.zero_bias and layer.products.bias is not None:
        s = layer.quotient((Piece(),), None, rule.st)
    else:
        assert layer.z is not None
        s = layer.divide(layer.z, bias, rule.st)
    return layer.products.back([(s, Piece())])


def _signed(pieces: tuple[Piece, ...], positive: bool) -> tuple[Piece, ...]:
    """Without the negative part of x, which is 0 where x is not negative."""
    return (Piece(pieces[0].seen, "plain", pieces[0].gamma),) if positive else pieces


def _z_plus(layer: Layer, rule: ZPlus) -> Array:
    pieces = _signed(POSITIVE, layer.products.not_negative())
    s = layer.quotient(pieces, layer.bias("positive", rule.zero_bias), rule.st)
    return layer.products.back([(s, piece) for piece in pieces])


def _alpha_beta(layer: Layer, rule: AlphaBeta) -> Array:
    positive = layer.products.not_negative()
    terms: list[tuple[Array, Piece]] = []
    for pieces, factor, kind in ((POSITIVE, rule.alpha, "positive"), (NEGATIVE, -rule.beta, "negative")):
        if factor == 0:
            continue
        used = _signed(pieces, positive)
        s = layer.quotient(used, layer.bias(kind, rule.zero_bias), rule.st, factor=factor)
        terms += [(s, Piece(piece.seen, piece.part, piece.gamma, factor)) for piece in used]
    return layer.products.back(terms)


def _gamma(layer: Layer, rule: Gamma) -> Array:
    """Either half of the results by its own weights; or both by sums and magnitudes, ``sum of w+ x+ + w- x- = (W x + |W| |x|) / 2``.

    The latter takes 3 products, whatever the signs. A large gamma would make it a difference of nearly equal sums, as for AlphaBeta; and a
    stabiliser that is scaled by the norm of the denominators means those of each half.
    """
    positive = layer.products.not_negative()
    direct = rule.gamma > 1 or rule.st.norm_scale or (layer.stands and positive)
    return _gamma_direct(layer, rule, positive) if direct else _gamma_by_magnitudes(layer, rule)


def _gamma_by_magnitudes(layer: Layer, rule: Gamma) -> Array:
    """With ``A = |W| |x| + |b|`` and z = W x + b: denominators ``d = (1 + g/2) z + sgn(z) g/2 A``, of the sign of z, ``s = R / st(d)``, and

    ``Rin = x (1 + g/2) W^T s + |x| g/2 |W|^T (sgn(z) s)``; 0 where z is 0.
    """
    assert layer.z is not None
    half, z, x, bias = rule.gamma / 2, layer.z, layer.products.x, layer.products.bias
    size, key = np.abs(x), ("magnitudes", rule.gamma, rule.zero_bias)
    spread = None if bias is None else layer.products.outputs(bias, z.shape)
    d = layer.denominators.get(key)
    if d is None:
        a = layer.products.forward((Piece("magnitude"),), None if bias is None or rule.zero_bias else np.abs(bias), size)
        d = np.copysign(a, z)
        d *= half
        d += (1 + half) * (z - spread if rule.zero_bias and spread is not None else z)
        if layer.apart:
            layer.denominators[key] = d
    rows = layer.r.reshape(len(z), -1, *z.shape[1:])
    r = np.where((z == 0)[:, None], 0, rows).reshape(layer.r.shape) if not z.all() else layer.r
    s = stabilised_quotient(r, d, rule.st, layer.n_threads)
    if layer.entry is not None:
        layer.entry.degenerate += float((layer.r - r).sum(dtype=np.float64))
        layer.entry.degenerate_rows += int((layer.r != r).sum())
        held = None if spread is None or rule.zero_bias else (1 + half) * spread + half * np.copysign(np.abs(spread), z)
        layer.entry.share(r, s, d, None if held is None else held[:, None])
    flipped = np.where((z < 0)[:, None], -s.reshape(rows.shape), s.reshape(rows.shape)).reshape(s.shape)
    first = layer.products.back([(s, Piece(scale=1 + half))])
    return layer.products.back([(flipped, Piece("magnitude", scale=half))], size, before=first)


def _gamma_direct(layer: Layer, rule: Gamma, positive: bool) -> Array:
    assert layer.z is not None
    gamma = rule.gamma
    up = _signed((Piece("more_positive", "positive", gamma), Piece("more_negative", "negative", gamma)), positive)
    down = _signed((Piece("more_negative", "positive", gamma), Piece("more_positive", "negative", gamma)), positive)
    above, below = (layer.r, None) if layer.stands else _by_sign(layer.r, layer.z, layer.n_threads)
    if layer.entry is not None:
        dropped = layer.r - sum(part for part in (above, below) if part is not None)
        layer.entry.degenerate += float(dropped.sum(dtype=np.float64))
        layer.entry.degenerate_rows += int((dropped != 0).sum())
    terms = []
    for pieces, r, kind in ((up, above, "more_positive"), (down, below, "more_negative")):
        if r is not None:
            s = layer.quotient(pieces, layer.bias(kind, rule.zero_bias, gamma), rule.st, r)
            terms += [(s, piece) for piece in pieces]
    if not terms:
        return np.zeros((len(layer.r), *layer.products.x.shape[1:]), layer.r.dtype)
    return layer.products.back(terms)


def _by_sign(r: Array, z: Array, n_threads: int) -> tuple[Array | None, Array | None]:
    """Relevance of the results above 0, and of those below; None where there is none."""
    if r.dtype == np.float32:
        return kernels.by_sign(r, z, n_threads=n_threads)
    rows = r.reshape(len(z), -1, *z.shape[1:])
    zero = r.dtype.type(0)
    parts = [np.where(mask[:, None], rows, zero).reshape(r.shape) for mask in (z > 0, z < 0)]
    above, below = (part if part.any() else None for part in parts)
    return above, below


def _plain_gamma(layer: Layer, rule: PlainGamma) -> Array:
    if not layer.products.not_negative():
        raise ValueError(
            "PlainGamma is defined for inputs that are not negative, and this layer has negative ones: use Gamma"
        )
    piece = Piece("more_positive", gamma=rule.gamma)
    s = layer.quotient((piece,), layer.bias("more_positive", rule.zero_bias, rule.gamma), rule.st)
    return layer.products.back([(s, piece)])


def _z_box(layer: Layer, rule: ZBox) -> Array:
    x = layer.products.x
    try:
        low, high = (
            np.ascontiguousarray(np.broadcast_to(np.asarray(bound, x.dtype), x.shape))
            for bound in (rule.low, rule.high)
        )
    except ValueError:
        raise ValueError(
            f"low of shape {np.shape(rule.low)} and high of shape {np.shape(rule.high)} do not broadcast to the input's {x.shape}"
        ) from None
    products = layer.products
    z = products.forward((Piece(),))
    z = z - products.forward((UP,), x=low) - products.forward((DOWN,), x=high)
    s = layer.divide(z, None, rule.st)
    own = products.back([(s, Piece())])
    return np.asarray(own - products.back([(s, UP)], low) - products.back([(s, DOWN)], high))


def _of_ones(layer: Layer, rule: WSquare | Flat) -> Array:
    """The denominators depend on the layer and the picture's size alone, not on the sample."""
    square = isinstance(rule, WSquare)
    piece, x = Piece("square" if square else "one"), layer.products.x
    key = ("ones", piece.seen, x.shape[1:], str(x.dtype), rule.zero_bias)
    bias = layer.bias("plain", rule.zero_bias or not square)
    bias = None if bias is None else bias * bias
    if key not in layer.products.packed:
        layer.products.packed[key] = layer.products.forward((piece,), bias, np.ones((1, *x.shape[1:]), x.dtype))
    z = np.broadcast_to(layer.products.packed[key], (len(x), *layer.products.packed[key].shape[1:]))
    s = layer.divide(np.ascontiguousarray(z), bias, rule.st)
    return layer.products.back([(s, piece)], bare=True) if square else layer.products.back_of_ones(s)


_RULES: dict[type[Rule], Callable[[Layer, Any], Array]] = {
    Epsilon: _epsilon,
    Norm: _epsilon,
    ZPlus: _z_plus,
    AlphaBeta: _alpha_beta,
    Gamma: _gamma,
    PlainGamma: _plain_gamma,
    ZBox: _z_box,
    WSquare: _of_ones,
    Flat: _of_ones,
}


def propagate(layer: Layer, rule: Rule) -> Array:
    """Relevance (B n, ...) of a linear layer's input."""
    return _RULES[type(rule)](layer, rule)
