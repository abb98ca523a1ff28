"""Adjoints of activations, softmax, sums and products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    return [softmax_back(out, grad)]


def softmax_back(y: Array, grad: Array) -> Array:
    """y (g - sum(y g)) over the last axis."""
    g: Array = grad - np.einsum("...n,...n->...", y, grad)[..., None]
    g *= y
    return g


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


def _sub(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    first, second = needed
    return [
        unbroadcast(grad, xs[0].shape) if first else None,
        unbroadcast(-grad, xs[1].shape) if second else None,
    ]


def _div(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    a, b = xs
    with np.errstate(all="ignore"):
        g = grad / b
        return [
            unbroadcast(g, a.shape) if needed[0] else None,
            unbroadcast(-g * (a / b), b.shape) if needed[1] else None,
        ]


def _by_slope(function: Callable[[Array, Array, Mapping[str, Any]], Array]) -> Adjoint:
    """An adjoint from a slope that is a function of input, result and attributes."""

    def adjoint(
        call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
    ) -> Sequence[Array | None]:
        with np.errstate(all="ignore"):
            return [np.asarray(grad * function(xs[0], out, call.attrs), grad.dtype)]

    return adjoint


_SLOPES: dict[str, tuple[frozenset[str], Callable[[Array, Array, Mapping[str, Any]], Array]]] = {
    "exp": (RESULT, lambda x, y, a: y),
    "erf": (INPUTS, lambda x, y, a: 2.0 / np.sqrt(np.pi) * np.exp(-x * x)),
    "log": (INPUTS, lambda x, y, a: 1 / x),
    "sqrt": (RESULT, lambda x, y, a: 0.5 / y),
    "reciprocal": (RESULT, lambda x, y, a: -y * y),
    "abs": (INPUTS, lambda x, y, a: np.sign(x)),
    "neg": (frozenset(), lambda x, y, a: np.full(y.shape, -1, y.dtype)),
    "clamp": (INPUTS, lambda x, y, a: (x >= a["low"]) & (x <= a["high"])),
    "leaky_relu": (INPUTS, lambda x, y, a: np.where(x > 0, 1.0, a["slope"]).astype(x.dtype)),
    "elu": (INPUTS, lambda x, y, a: np.where(x < 0, a["alpha"] * np.exp(np.minimum(x, 0)), 1.0).astype(x.dtype)),
    "softplus": (INPUTS, lambda x, y, a: 1 / (1 + np.exp(-x))),
    "power": (INPUTS, lambda x, y, a: a["exponent"] * np.power(x, a["exponent"] - 1)),
}


def _scale_shift(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    grad = grad * call.params["scale"] if "scale" in call.params else grad
    return [grad if call.attrs["factor"] == 1.0 else grad * call.attrs["factor"]]


def _scale_shift_parameter(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int
) -> Mapping[str, Array]:
    by = {"scale": grad * xs[0] * call.attrs["factor"], "shift": grad} if "scale" in call.params else {"shift": grad}
    return {role: unbroadcast(by[role], param.shape) for role, param in call.params.items()}


def _response_norm(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    """y = x d^-beta with d[c] = bias + alpha / size * sum of the squares of the channels around c."""
    a, x = call.attrs, xs[0].astype(np.float64)
    size, rest = int(a["size"]), [(0, 0)] * (x.ndim - 2)

    def around(values: Array, before: int) -> Array:
        padded = np.pad(values, ((0, 0), (before, size - 1 - before), *rest))
        return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, size, axis=1).sum(axis=-1))

    d = a["bias"] + a["alpha"] / size * around(x * x, (size - 1) // 2)
    inner = around(grad * x * d ** (-a["beta"] - 1), size // 2)
    return [(grad * d ** -a["beta"] - 2 * a["beta"] * a["alpha"] / size * x * inner).astype(grad.dtype)]


for _kind in ACTIVATIONS:
    differentiate(_kind, _activation(_kind), keeps=RESULT if _kind in kernels.FROM_OUTPUT else INPUTS)
differentiate("softmax", _softmax, keeps=RESULT)
differentiate("add", _add)
differentiate("mul", _mul, keeps=INPUTS)
differentiate("sub", _sub)
differentiate("div", _div, keeps=INPUTS)
for _name, (_keeps, _slope) in _SLOPES.items():
    differentiate(_name, _by_slope(_slope), keeps=_keeps)
differentiate("scale_shift", _scale_shift, parameter=_scale_shift_parameter)
differentiate("local_response_norm", _response_norm, keeps=INPUTS)
