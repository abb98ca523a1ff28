"""Adjoints and parameter gradients of convolution, dense layers and batch normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from semanticlens._kernels import contract, winograd
from semanticlens._kernels.contract import Finish, Form
from semanticlens._reference import contract as plain
from semanticlens.nn.ops.norm import affine
from semanticlens.nn.ops.table import Array, Call, differentiate


def _form(call: Call) -> Form:
    a = call.attrs
    return Form(a["stride"], a["padding"], a["dilation"], a["groups"])


def _plain_form(call: Call) -> dict[str, object]:
    return {key: call.attrs[key] for key in ("stride", "padding", "dilation", "groups")}


def _conv2d_to(
    call: Call, grad: Array, shape: tuple[int, ...], prepared: Array | None, finish: Finish | None, n_threads: int
) -> Array:
    return contract.conv_adjoint(
        grad,
        call.params["weight"],
        (shape[2], shape[3]),
        _form(call),
        packed=prepared,
        finish=finish,
        n_threads=n_threads,
    )


def _pack_conv2d(call: Call, shape: tuple[int, ...]) -> Array | None:
    weight, size, form = call.params["weight"], (shape[2], shape[3]), _form(call)
    if winograd.pays(weight.shape, size, form, back=True):
        return winograd.pack(weight, groups=form.groups, back=True)
    return contract.pack_conv_adjoint(weight, size, form)


def _conv2d(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    if not needed[0]:
        return [None]
    if grad.dtype == np.float32:
        return [_conv2d_to(call, grad, xs[0].shape, None, None, n_threads)]
    return [plain.conv_adjoint(grad, call.params["weight"], xs[0].shape[2:], **_plain_form(call))]  # type: ignore[arg-type]


def _bias(call: Call, grad: Array, n_threads: int) -> dict[str, Array]:
    if "bias" not in call.params:
        return {}
    if grad.dtype == np.float32:
        return {"bias": contract.channel_sum(grad, n_threads=n_threads)}
    return {"bias": grad.sum(axis=(0, *range(2, grad.ndim)))}


def _conv2d_parameter(call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int) -> Mapping[str, Array]:
    kernel = call.params["weight"].shape[2:]
    if grad.dtype == np.float32:
        weight = contract.conv_parameter(grad, xs[0], (kernel[0], kernel[1]), _form(call), n_threads=n_threads)
    else:
        weight = plain.conv_parameter(grad, xs[0], kernel, **_plain_form(call))  # type: ignore[arg-type]
    return {"weight": weight, **_bias(call, grad, n_threads)}


def _dense_to(
    call: Call, grad: Array, shape: tuple[int, ...], prepared: None, finish: Finish | None, n_threads: int
) -> Array:
    return contract.dense_adjoint(grad, call.params["weight"], finish=finish, n_threads=n_threads)


def _dense(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    if not needed[0]:
        return [None]
    if grad.dtype == np.float32:
        return [_dense_to(call, grad, xs[0].shape, None, None, n_threads)]
    return [grad @ call.params["weight"]]


def _dense_parameter(call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int) -> Mapping[str, Array]:
    rows = grad.reshape(-1, grad.shape[-1])
    if grad.dtype == np.float32:
        weight = contract.dense_parameter(grad, xs[0], n_threads=n_threads)
    else:
        weight = rows.T @ xs[0].reshape(-1, xs[0].shape[-1])
    return {"weight": weight, **_bias(call, rows, n_threads)}


def _batch_norm(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
) -> Sequence[Array | None]:
    scale = affine(call.params, call.attrs["eps"])[0].astype(grad.dtype)
    return [grad * scale.reshape(-1, *[1] * (grad.ndim - 2))]


def _batch_norm_parameter(
    call: Call, xs: Sequence[Array], out: Array, grad: Array, n_threads: int
) -> Mapping[str, Array]:
    """Of the factor and the term; the running statistics are constants."""
    if "weight" not in call.params and "bias" not in call.params:
        return {}
    if grad.dtype == np.float32:
        total, product = (contract.channel_sum(grad, x, n_threads=n_threads) for x in (None, xs[0]))
    else:
        axes = (0, *range(2, grad.ndim))
        total, product = grad.sum(axis=axes), (grad * xs[0]).sum(axis=axes)
    inverse = 1.0 / np.sqrt(call.params["var"].astype(np.float64) + call.attrs["eps"])
    mean = call.params["mean"].astype(np.float64)
    result = {"weight": ((product - total.astype(np.float64) * mean) * inverse).astype(grad.dtype), "bias": total}
    return {role: array for role, array in result.items() if role in call.params}


differentiate(
    "conv2d", _conv2d, parameter=_conv2d_parameter, through=_conv2d_to, prepare_through=_pack_conv2d
)
differentiate("dense", _dense, parameter=_dense_parameter, through=_dense_to)
differentiate("batch_norm", _batch_norm, parameter=_batch_norm_parameter)
