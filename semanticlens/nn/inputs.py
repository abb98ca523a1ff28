"""What is asked of a network's input before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, ModelFileError
from semanticlens.nn.graph import all_finite
from semanticlens.nn.layers import shape_text
from semanticlens.nn.preprocess import Preprocess

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["check_double", "check_extras", "check_input"]

F32 = NDArray[np.float32]


def check_input(net: Network, x: ArrayLike) -> F32:
    """The batch as the kernels take it, or an error that says what to do."""
    if hasattr(x, "detach"):  # a torch tensor, without importing torch
        x = x.detach().cpu()
    array = np.asarray(x)
    if net.takes_ids:
        return _check_ids(net, array)
    if array.dtype != np.float32:
        raise TypeError(f"x must be float32, not {array.dtype}: {_dtype_remedy(net, array.dtype)}")
    want = net.input_shape
    if array.ndim != len(want) + 1 or any(
        dim is not None and dim != got for dim, got in zip(want, array.shape[1:], strict=True)
    ):
        raise DataError(_shape_message(net, array.shape))
    if array.size == 0:
        raise DataError(f"x has shape {array.shape}: the batch is empty; pass at least one sample")
    if not all_finite(array):
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
        raise DataError(
            f"sample {bad[0]} of the batch holds NaN or infinite values ({bad.size} of {len(array)} samples "
            "do); leave it out or repair it"
        )
    return np.ascontiguousarray(array)


def _check_ids(net: Network, array: NDArray[Any]) -> F32:
    """Whole numbers as the kernels take them: float32 holds each up to 2**24."""
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"x must hold whole numbers such as token ids, not {array.dtype}: pass int64")
    want = net.input_shape
    if array.ndim != len(want) + 1 or any(
        dim not in (None, got) for dim, got in zip(want, array.shape[1:], strict=True)
    ):
        raise DataError(_shape_message(net, array.shape))
    if array.size == 0:
        raise DataError(f"x has shape {array.shape}: it holds no ids")
    if array.min() < 0 or array.max() >= 1 << 24:
        raise DataError(f"ids must lie between 0 and {(1 << 24) - 1}, not between {array.min()} and {array.max()}")
    return np.ascontiguousarray(array, dtype=np.float32)


def _dtype_remedy(net: Network, dtype: np.dtype[Any]) -> str:
    if dtype == np.uint8 and net.preprocess is not None:
        return f"pass pictures through net.preprocess, which gives {net.preprocess}"
    if dtype == np.uint8:
        return "8-bit pixels must be scaled as in training first (this network carries no preprocess)"
    return (
        "convert with x.astype(np.float32) if the loss of digits is meant"
        if np.issubdtype(dtype, np.number)
        else "pass numbers"
    )


def _shape_message(net: Network, shape: tuple[int, ...]) -> str:
    want = net.input_shape
    text = f"x has shape {shape}, the network {net.name!r} takes (batch, {shape_text(want)[1:]}"
    if len(shape) == len(want):
        return f"{text}; for one sample pass x[None]"
    if len(want) == 3 and len(shape) == 4:
        if shape[1] != want[0]:
            text += f": expected {want[0]} channels, got {shape[1]}"
            if shape[3] == want[0]:
                text += " (channels are last here; transpose to x.transpose(0, 3, 1, 2))"
        else:
            text += f": expected {want[1]} x {want[2]} pixels, got {shape[2]} x {shape[3]}"
            text += " (net.with_input_size gives a network for another size)"
    return text + (
        f"; net.preprocess gives {net.preprocess.output_shape} from a picture" if net.preprocess is not None else ""
    )


def check_double(net: Network, x: ArrayLike) -> NDArray[np.float64]:
    """A batch for a run in float64: float32, float64 or token ids, checked like :func:`check_input`."""
    array = np.asarray(x)
    if array.dtype not in (np.float32, np.float64) and not net.takes_ids:
        raise TypeError(f"x must be float64 or float32 for dtype='float64', not {array.dtype}")
    check_input(net, array if net.takes_ids else array.astype(np.float32))
    return np.ascontiguousarray(array, np.float64)


def check_extras(net: Network) -> None:
    """Preprocessing and labels of a network against its shapes, while it is made."""
    _check_preprocess(net)
    _check_labels(net)


def _check_preprocess(net: Network) -> None:
    if net.preprocess is None:
        return
    if not isinstance(net.preprocess, Preprocess):
        raise TypeError(f"preprocess must be a Preprocess or None, not {type(net.preprocess).__name__}")
    want = net.preprocess.output_shape
    if len(net.input_shape) != 3 or any(
        dim is not None and dim != got for dim, got in zip(net.input_shape, want, strict=True)
    ):
        raise ModelFileError(
            f"preprocess gives inputs of shape {want}, the network takes {shape_text(net.input_shape)}"
        )


def _check_labels(net: Network) -> None:
    if net.labels is None:
        return
    classes = net._by_name[net.output].shape[-1] if len(net._by_name[net.output].shape) == 1 else None
    if classes is not None and classes != len(net.labels):
        raise ModelFileError(
            f"{len(net.labels)} labels are given, the output {net.output!r} has {classes} classes"
        )
