"""Adjoints of activations, softmax, sums and products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semanticlens._kernels import adjoint as kernels
from semanticlens._reference import adjoint as plain
from semanticlens.nn.ops.table import ACTIVATIONS, INPUTS, RESULT, Adjoint, Array, Call, differentiate


def slope(kind: str, saved: Array, grad: Array, n_threads: int) -> Array:
    """``grad`` times the slope of an activation; ``saved`` as in :mod:`semanticlens._kernels.adjoint`."""
    if grad.dtype == np.float32:
        return kernels.activate(saved, grad, kind, n_threads=n_threads)
    return plain.activate(saved, grad, kind)


def unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which an array of ``shape`` was repeated to give ``grad``'s."""
    if grad.shape == shape:
        return grad
    lead = grad.ndim - len(shape)
    axes = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1 and grad.shape[lead + i] != 1))
    return np.asarray(grad.sum(axis=axes, dtype=np.float64).reshape(shape).astype(grad.dtype))


def _activation(kind: str) -> Adjoint:
    from_output = kind in kernels.FROM_OUTPUT

    def adjoint(
        call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
    ) -> Sequence[Array | None]:
        return [slope(kind, out if from_output else xs[0], grad, n_threads)]

    return adjoint


def _softmax(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    inner = np.einsum("...n,...n->...", out, grad, dtype=np.float64)[..., None].astype(grad.dtype)
    g = grad - inner
    g *= out
    return [g]


def _add(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    return [unbroadcast(grad, x.shape) if wanted else None for x, wanted in zip(xs, needed, strict=True)]


def _mul(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    a, b = xs
    return [
        unbroadcast(grad * b, a.shape) if needed[0] else None,
        unbroadcast(grad * a, b.shape) if needed[1] else None,
    ]


for _kind in ACTIVATIONS:
    differentiate(_kind, _activation(_kind), keeps=RESULT if _kind in kernels.FROM_OUTPUT else INPUTS)
differentiate("softmax", _softmax, keeps=RESULT)
differentiate("add", _add)
differentiate("mul", _mul, keeps=INPUTS)
