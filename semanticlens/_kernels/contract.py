"""The three contractions of linear operations, and batched matrix products, on float32 arrays.

For an operation ``z = L_W(x) + b`` these give ``L_V(part(x)) + b`` (forward), ``L_V^T(part(s))`` (adjoint) and the gradient of
``<s, L_W(x)>`` by ``W`` (parameter), where ``V`` is a variant of the weights that is formed while they are packed. The formulas, the
order of the sums and what happens to NaN are in ``csrc/include/sl/sl_contract.h``. Results are bit-identical for every thread count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads

F32 = NDArray[np.float32]

SEEN = {"plain": 0, "magnitude": 1, "positive": 2, "negative": 3, "square": 4, "one": 5, "more_positive": 6, "more_negative": 7}


@dataclass(frozen=True)
class Variant:
    """What is put in place of a number: ``seen`` is a key of ``SEEN``; ``gamma`` is for "more_positive" and "more_negative"."""

    seen: str = "plain"
    gamma: float = 0.0

    def args(self) -> tuple[int, float]:
        """As the extension takes it."""
        if self.seen not in SEEN:
            raise ValueError(f"variant {self.seen!r} is not known; known are {', '.join(SEEN)}")
        return SEEN[self.seen], self.gamma


PLAIN = Variant()


@dataclass(frozen=True)
class Finish:
    """Work on a result ``z`` while it is in the cache, in this order; every array has the result's shape and is left out where None.

    ``v = z + addend``; ``v = numerator / st(v)`` with ``st(v) = v + eps sgn(v)``, or with ``clip`` ``sgn(v) max(|v|, eps)``;
    ``v = part(factor) v``; ``v = scale v``; ``v = v + sum``; ``v = v`` where ``0 < mask < below``, else 0.
    """

    addend: F32 | None = None
    numerator: F32 | None = None
    eps: float = 0.0
    clip: bool = False
    factor: F32 | None = None
    part: Variant = PLAIN
    scale: float = 1.0
    sum: F32 | None = None
    mask: F32 | None = None
    below: float = float("inf")

    def args(self) -> tuple[Any, ...]:
        """As the extension takes it."""
        return (self.addend, self.numerator, self.eps, int(self.clip), self.factor, *self.part.args(), self.scale, self.sum, self.mask,
                self.below)


@dataclass(frozen=True)
class Form:
    """Stride, padding (top, left, bottom, right), dilation and groups of a convolution."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def args(self) -> tuple[tuple[int, ...], int]:
        """As the extension takes it."""
        return (*self.stride, *self.padding, *self.dilation), self.groups


UNIT = Form()


def _finish(finish: Finish | None) -> tuple[Any, ...] | None:
    return None if finish is None else finish.args()


def conv_forward(x: F32, weight: F32, bias: F32 | None = None, form: Form = UNIT, *, variant: Variant = PLAIN, part: Variant = PLAIN,
                 packed: F32 | None = None, finish: Finish | None = None, out: F32 | None = None,
                 n_threads: int | None = None) -> F32:
    """(B, C, H, W) -> (B, O, H', W'): ``L_V(part(x)) + bias``, then ``finish``.

    Weights are packed anew in each call, unless ``packed`` is what :func:`pack_conv_forward` made of the same weight and variant, or
    :func:`semanticlens._kernels.winograd.pack`: then the sums go by tiles, see there.
    """
    return _core.conv_forward(x, weight, bias, *form.args(), variant.args(), part.args()[0], _finish(finish), out,
                              resolve_threads(n_threads), packed)


def pack_conv_forward(weight: F32, *, groups: int = 1, variant: Variant = PLAIN) -> F32 | None:
    """Weights packed for :func:`conv_forward` on this tier; None where packing brings nothing (depthwise)."""
    size = _core.conv2d_packed_size(weight, groups)
    if size == 0:
        return None
    packed = np.empty(size, np.float32)
    _core.conv2d_pack(weight, groups, packed, variant.args())
    return packed


def conv_adjoint(s: F32, weight: F32, size: tuple[int, int], form: Form = UNIT, *, variant: Variant = PLAIN, part: Variant = PLAIN,
                 packed: F32 | None = None, finish: Finish | None = None, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """(B, O, H', W') -> (B, C, H, W) with ``size`` = (H, W): ``L_V^T(part(s))``, then ``finish``.

    ``packed`` is what :func:`pack_conv_adjoint` made of the same weight, size, form and variant, or
    :func:`semanticlens._kernels.winograd.pack` with ``back``: then the sums go by tiles, see there.
    """
    return _core.conv_adjoint(s, weight, size, *form.args(), variant.args(), part.args()[0], packed, _finish(finish), out,
                              resolve_threads(n_threads))


def pack_conv_adjoint(weight: F32, size: tuple[int, int], form: Form = UNIT, *, variant: Variant = PLAIN) -> F32 | None:
    """Weights packed for :func:`conv_adjoint` on this machine and tier; None where packing brings nothing (depthwise)."""
    count = _core.conv_adjoint_pack(weight, size, *form.args(), variant.args(), None)
    if not count:
        return None
    packed = np.empty(count, np.float32)
    _core.conv_adjoint_pack(weight, size, *form.args(), variant.args(), packed)
    return packed


def conv_parameter(s: F32, x: F32, kernel: tuple[int, int], form: Form = UNIT, *, n_threads: int | None = None) -> F32:
    """(B, O, H', W'), (B, C, H, W) -> (O, C/groups, kh, kw): gradient of ``<s, conv(x)>`` by the weight, summed over the batch."""
    return _core.conv_parameter(s, x, kernel, *form.args(), resolve_threads(n_threads))


def dense_forward(x: F32, weight: F32, bias: F32 | None = None, *, variant: Variant = PLAIN, part: Variant = PLAIN,
                  finish: Finish | None = None, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """(..., I) -> (..., O): ``L_V(part(x)) + bias``, then ``finish``."""
    return _core.dense_contract(x, weight, bias, 0, variant.args(), part.args()[0], _finish(finish), out, resolve_threads(n_threads))


def dense_adjoint(s: F32, weight: F32, *, variant: Variant = PLAIN, part: Variant = PLAIN, finish: Finish | None = None,
                  out: F32 | None = None, n_threads: int | None = None) -> F32:
    """(..., O) -> (..., I): ``L_V^T(part(s))``, then ``finish``."""
    return _core.dense_contract(s, weight, None, 1, variant.args(), part.args()[0], _finish(finish), out, resolve_threads(n_threads))


def dense_parameter(s: F32, x: F32, *, n_threads: int | None = None) -> F32:
    """(..., O), (..., I) -> (O, I): gradient of ``<s, x W^T>`` by ``W``, summed over all rows."""
    return _core.dense_parameter(s, x, resolve_threads(n_threads))


def channel_sum(s: F32, x: F32 | None = None, *, n_threads: int | None = None) -> F32:
    """(B, C, ...) -> (C,): sums of ``s``, or of ``s * x``, in double: the gradients of a bias and of a scale."""
    return _core.channel_sum(s, x, resolve_threads(n_threads))


def matmul(a: F32, b: F32, *, scale: float = 1.0, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """``scale * a @ b`` for stacks of matrices.

    Parameters
    ----------
    a : ndarray of shape (..., m, k), float32
        At most four axes.  Views whose last or last but one axis is dense are read in place: transposed matrices (``k.swapaxes(-1, -2)``)
        and the heads of an attention layer (``qkv.transpose(0, 2, 1, 3)``) are not copied.
    b : ndarray of shape (..., k, n), float32
        Batch axes equal those of ``a``, or are 1 in one of the two.
    scale : float
    out : ndarray of shape (..., m, n), float32, optional
        Written and returned; its rows must be dense, its other strides are free; no overlap with the inputs.
    n_threads : int, optional

    Returns
    -------
    ndarray of shape (..., m, n), float32
        Each element is one chain of multiply-adds per block of at most 320 terms: bit-identical for every thread count, and the same
        whatever stack it is part of.

    Raises
    ------
    TypeError
        If an array is not float32.
    ValueError
        If the shapes do not fit.
    """
    return _core.matmul(a, b, scale, out, resolve_threads(n_threads))
