"""The contractions of one linear operation in either precision, counted: what the rules are made of.

For float32 the kernels of :mod:`semanticlens._kernels.contract`, for float64 their NumPy twins; the same formulas, so
that the one verifies the other. Relevance may have several rows for each row of the values (conditions on one sample):
row r of R belongs to row r // n of x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._kernels import contract, winograd
from semanticlens._kernels import relevance as kernels
from semanticlens._kernels.contract import Finish, Form, Variant
from semanticlens._reference import contract as plain
from semanticlens._reference import nn as plain_forward
from semanticlens.attribution.rules import Stabiliser
from semanticlens.nn.ops import Call

__all__ = ["Counter", "Piece", "Products", "stabilised_quotient"]

Array = NDArray[Any]


@dataclass
class Counter:
    """Products with a weight that were computed, by kind."""

    forward: int = 0
    adjoint: int = 0


@dataclass(frozen=True)
class Piece:
    """A term of a sum: ``scale * part(x) * L_V^T(s)`` walking back, ``L_V(part(x))`` going forward."""

    seen: str = "plain"  # the variant V of the weights: a key of contract.SEEN
    part: str = "plain"  # of x: "plain", "positive", "negative"
    gamma: float = 0.0
    scale: float = 1.0

    @property
    def variant(self) -> Variant:
        """As the kernels take it."""
        return Variant(self.seen, self.gamma)


def stabilised_quotient(r: Array, z: Array, st: Stabiliser, n_threads: int, out: Array | None = None) -> Array:
    """``R / st(z)``; R may have several rows for each of z. 0 where R or the denominator is exactly 0."""
    if r.dtype == np.float32 and not st.norm_scale:
        return kernels.quotient(r, z, eps=st.eps, clip=st.clip, out=out, n_threads=n_threads)
    rows = r.reshape(len(z), -1, *z.shape[1:])
    eps: Any = st.eps
    if st.norm_scale:
        eps = st.eps * np.sqrt(np.mean(np.square(z, dtype=np.float64), axis=tuple(range(1, z.ndim)), keepdims=True))
    sign = np.where(z < 0, -1.0, 1.0)
    t = sign * np.maximum(np.abs(z), eps) if st.clip else z + eps * sign
    with np.errstate(all="ignore"):
        s = np.where((rows == 0) | (t == 0)[:, None], 0.0, rows / t[:, None])
    return np.ascontiguousarray(s.astype(r.dtype).reshape(r.shape))


def times(
    x: Array, part: str, g: Array, scale: float, before: Array | None, n_threads: int, *, in_place: bool = True
) -> Array:
    """``scale * part(x) * g + before``, in place of g unless told otherwise; g may have several rows for each of x."""
    if g.dtype == np.float32:
        out = g if in_place else None
        return kernels.times(g, x, part=part, scale=scale, sum=before, out=out, n_threads=n_threads)
    g = g if in_place else g.copy()
    rows = g.reshape(len(x), -1, *x.shape[1:])
    rows *= plain.variant(x, part)[:, None]
    if scale != 1.0:
        rows *= scale
    return g if before is None else g + before


@dataclass
class Products:
    """A conv2d or dense node at one input.

    Attributes
    ----------
    kind : {"conv2d", "dense"}
    call : Call
        Attributes and parameters, in the precision of ``x``.
    x : ndarray (B, ...)
    n_threads : int
    counter : Counter
    packed : dict
        Packed weights of this node and what else depends on it alone, kept from run to run.
    positive : bool
        Whether it is known without looking that no input is negative.
    """

    kind: str
    call: Call
    x: Array
    n_threads: int
    counter: Counter
    packed: dict[Any, Any] = field(default_factory=dict)
    positive: bool = False

    @property
    def weight(self) -> Array:
        """As the node has it."""
        return self.call.params["weight"]

    @property
    def bias(self) -> Array | None:
        """As the node has it, or None."""
        return self.call.params.get("bias")

    def not_negative(self) -> bool:
        """Whether no input is negative (NaN counts as negative)."""
        return self.positive or self.x.size == 0 or bool(self.x.min() >= 0)

    def outputs(self, per_channel: Array, shape: Sequence[int]) -> Array:
        """A number per output channel, in a shape that broadcasts to the result's."""
        return per_channel.reshape(-1, *[1] * (len(shape) - 2)) if self.kind == "conv2d" else per_channel

    def forward(
        self,
        pieces: Sequence[Piece],
        bias: Array | None = None,
        x: Array | None = None,
        numerator: Array | None = None,
        st: Stabiliser | None = None,
    ) -> Array:
        """``z = sum of L_V(part(x)) + bias``, or ``numerator / st(z)``."""
        x = self.x if x is None else x
        z: Array | None = None
        for piece in pieces[:-1]:
            z = self._forward(x, piece, None, None if z is None else Finish(addend=z))
        finish = None
        if numerator is not None:
            assert st is not None
            finish = Finish(addend=z, numerator=numerator, eps=st.eps, clip=st.clip)
        elif z is not None:
            finish = Finish(addend=z)
        return self._forward(x, pieces[-1], bias, finish)

    def _forward(self, x: Array, piece: Piece, bias: Array | None, finish: Finish | None) -> Array:
        self.counter.forward += 1
        if x.dtype != np.float32:
            return self._plain_forward(x, piece, bias, finish)
        part = Variant(piece.part)
        if self.kind == "dense":
            return contract.dense_forward(
                x, self.weight, bias, variant=piece.variant, part=part, finish=finish, n_threads=self.n_threads
            )
        return contract.conv_forward(
            x,
            self.weight,
            bias,
            self._form(),
            variant=piece.variant,
            part=part,
            finish=finish,
            packed=self._packed_forward(piece, x.shape),
            n_threads=self.n_threads,
        )

    def _plain_forward(self, x: Array, piece: Piece, bias: Array | None, finish: Finish | None) -> Array:
        weight, seen = plain.variant(self.weight, piece.seen, piece.gamma), plain.variant(x, piece.part)
        if self.kind == "dense":
            z = plain_forward.dense(seen, weight, bias)
        else:
            z = plain_forward.conv2d(seen, weight, bias, **self._form_arguments())
        if finish is None:
            return z
        return plain.finish(z, addend=finish.addend, numerator=finish.numerator, eps=finish.eps, clip=finish.clip)

    def back(
        self, pieces: Sequence[tuple[Array, Piece]], x: Array | None = None, *, bare: bool = False, before: Array | None = None
    ) -> Array:
        """``before + sum of scale part(x) L_V^T(s)``, or without ``part(x)`` where ``bare``."""
        x = self.x if x is None else x
        result = before
        for s, piece in pieces:
            result = self._back(s, piece, x, bare, result)
        assert result is not None
        return result

    def back_of_ones(self, s: Array) -> Array:
        """``L_1^T(s)``, all weights one: the channels of a group get the same, so that it is found once for each group."""
        self.counter.adjoint += 1
        shape = self.x.shape
        if self.kind == "dense":
            return np.repeat(s.sum(axis=-1, keepdims=True), shape[-1], axis=-1)
        groups, kernel, size = self.call.attrs["groups"], self.weight.shape[2:], (shape[2], shape[3])
        summed = s.reshape(len(s), groups, -1, *s.shape[2:]).sum(axis=2)
        ones = np.ones((groups, 1, *kernel), s.dtype)
        if s.dtype == np.float32:
            same = contract.conv_adjoint(summed, ones, size, self._form(), n_threads=self.n_threads)
        else:
            same = plain.conv_adjoint(summed, ones, size, **self._form_arguments())
        return np.repeat(same, shape[1] // groups, axis=1)

    def _back(self, s: Array, piece: Piece, x: Array, bare: bool, before: Array | None) -> Array:
        self.counter.adjoint += 1
        fused = s.dtype == np.float32 and len(s) == len(x)
        if not fused:
            g = self._adjoint(s, piece, x.shape, None)
            if not bare:
                return times(x, piece.part, g, piece.scale, before, self.n_threads)
            g = g if piece.scale == 1.0 else g * g.dtype.type(piece.scale)
            return g if before is None else g + before
        finish = None
        if not bare or piece.scale != 1.0 or before is not None:
            finish = Finish(factor=None if bare else x, part=Variant(piece.part), scale=piece.scale, sum=before)
        return self._adjoint(s, piece, x.shape, finish)

    def _adjoint(self, s: Array, piece: Piece, shape: tuple[int, ...], finish: Finish | None) -> Array:
        if s.dtype != np.float32:
            weight = plain.variant(self.weight, piece.seen, piece.gamma)
            if self.kind == "dense":
                return np.asarray(s @ weight)
            return plain.conv_adjoint(s, weight, (shape[2], shape[3]), **self._form_arguments())
        if self.kind == "dense":
            return contract.dense_adjoint(
                s, self.weight, variant=piece.variant, finish=finish, n_threads=self.n_threads
            )
        return contract.conv_adjoint(
            s,
            self.weight,
            (shape[2], shape[3]),
            self._form(),
            variant=piece.variant,
            finish=finish,
            packed=self._packed_back(piece, (shape[2], shape[3])),
            n_threads=self.n_threads,
        )

    # ---------------------------------------------------------- packed weights

    def _packed_forward(self, piece: Piece, shape: tuple[int, ...]) -> Any:
        size = (shape[2], shape[3])
        tiles = self._once(("tiles", size), lambda: winograd.pays(self.weight.shape, size, self._form()))
        pack = winograd.pack if tiles else contract.pack_conv_forward
        return self._once(
            ("forward", piece.seen, piece.gamma, tiles),
            lambda: pack(self.weight, groups=self._form().groups, variant=piece.variant),
        )

    def _packed_back(self, piece: Piece, size: tuple[int, int]) -> Any:
        def pack() -> Any:
            form = self._form()
            if winograd.pays(self.weight.shape, size, form, back=True):
                return winograd.pack(self.weight, groups=form.groups, back=True, variant=piece.variant)
            return contract.pack_conv_adjoint(self.weight, size, form, variant=piece.variant)

        return self._once(("back", piece.seen, piece.gamma, size), pack)

    def _form(self) -> Form:
        form: Form = self._once("form", lambda: Form(**self._form_arguments()))
        return form

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was kept under a key, made the first time."""
        if key not in self.packed:
            self.packed[key] = make()
        return self.packed[key]

    def _form_arguments(self) -> Any:
        return {key: self.call.attrs[key] for key in ("stride", "padding", "dilation", "groups")}
