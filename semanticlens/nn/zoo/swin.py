"""Swin transformers (first version) with the names of torchvision, for pictures of 224 x 224.

Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

WINDOW, PATCH, SIDE = 7, 4, 56
SIZES = {"t": (96, (2, 2, 6, 2), (3, 6, 12, 24), 232), "s": (96, (2, 2, 18, 2), (3, 6, 12, 24), 246),
         "b": (128, (2, 2, 18, 2), (4, 8, 16, 32), 238)}                            # width, depths, heads, short side of pictures


def _relative_index() -> NDArray[np.int64]:
    """For each pair of places of a window the row of the table of biases: (dy + 6) * 13 + (dx + 6)."""
    y, x = (axis.ravel() for axis in np.indices((WINDOW, WINDOW)))
    rows, columns = (axis[:, None] - axis[None, :] + WINDOW - 1 for axis in (y, x))
    return (rows * (2 * WINDOW - 1) + columns).astype(np.int64)


def _mask(side: int, shift: int) -> NDArray[np.float32]:
    """-100 between places of a window that the roll brought together from different regions: (windows, 1, T, T)."""
    region = np.digitize(np.arange(side), [side - WINDOW, side - shift])
    region = 3 * region[:, None] + region[None, :]
    n = side // WINDOW
    ids = region.reshape(n, WINDOW, n, WINDOW).transpose(0, 2, 1, 3).reshape(n * n, 1, WINDOW * WINDOW)
    return np.where(ids[:, :, :, None] == ids[:, :, None, :], 0.0, -100.0).astype(np.float32)


def _bias(table: NDArray[np.float32], side: int, shift: int) -> NDArray[np.float32]:
    places = WINDOW * WINDOW
    own: NDArray[np.float32] = table[_relative_index().ravel()].reshape(places, places, -1).transpose(2, 0, 1)
    return own + _mask(side, shift) if shift else own


def _attention(b: Builder, at: str, x: str, dim: int, heads: int, side: int, shift: int) -> str:
    n, places = side // WINDOW, WINDOW * WINDOW
    x = b.op(f"{at}.rolled", "roll", x, shifts=(-shift, -shift), axes=(1, 2)) if shift else x
    x = b.op(f"{at}.grid", "reshape", x, shape=(n, WINDOW, n, WINDOW, dim))
    x = b.op(f"{at}.windows", "reshape", b.op(f"{at}.sorted", "permute", x, axes=(1, 3, 2, 4, 5)), shape=(n * n, places, dim))
    x = b.dense(f"{at}.qkv", x, dim, 3 * dim)
    parts = []
    for i, part in enumerate("qkv"):
        y = b.op(f"{at}.{part}.part", "slice", x, axis=3, start=i * dim, stop=(i + 1) * dim)
        y = b.op(f"{at}.{part}.split", "reshape", y, shape=(n * n, places, heads, dim // heads))
        parts.append(b.op(f"{at}.{part}", "permute", y, axes=(1, 3, 2, 4)))
    table, count = f"{at}.relative_position_bias_table", (2 * WINDOW - 1) ** 2
    b.buffer(f"{at}.relative_position_index", _relative_index().ravel())
    bias = b.derive(f"{at}.relative_position_bias", table, (count, heads), partial(_bias, side=side, shift=shift))
    x = b.op(f"{at}.attention", "attention", parts, {"bias": bias})
    x = b.op(f"{at}.joined", "reshape", b.op(f"{at}.turned", "permute", x, axes=(1, 3, 2, 4)), shape=(n * n, places, dim))
    x = b.op(f"{at}.tiles", "reshape", b.dense(f"{at}.proj", x, dim, dim), shape=(n, n, WINDOW, WINDOW, dim))
    back = f"{at}.unrolled" if shift else at
    x = b.op(back, "reshape", b.op(f"{at}.placed", "permute", x, axes=(1, 3, 2, 4, 5)), shape=(side, side, dim))
    return b.op(at, "roll", x, shifts=(shift, shift), axes=(1, 2)) if shift else x


def _block(b: Builder, at: str, x: str, dim: int, heads: int, side: int, shift: int) -> str:
    h = _attention(b, f"{at}.attn", b.layer_norm(f"{at}.norm1", x, dim), dim, heads, side, shift)
    x = b.op(f"{at}.middle", "add", (x, h))
    h = b.dense(f"{at}.mlp.0", b.layer_norm(f"{at}.norm2", x, dim), dim, 4 * dim)
    h = b.dense(f"{at}.mlp.3", b.op(f"{at}.mlp.1", "gelu", h), 4 * dim, dim)
    b.alias(**{f"{at}.mlp": h, f"{at}.mlp.2": f"{at}.mlp.1", f"{at}.mlp.4": h})
    return b.op(at, "add", (x, h))


def _merge(b: Builder, at: str, x: str, dim: int, side: int) -> str:
    """Each 2 x 2 places to one, columns before rows."""
    half = side // 2
    x = b.op(f"{at}.pairs", "reshape", x, shape=(half, 2, half, 2, dim))
    x = b.op(f"{at}.joined", "reshape", b.op(f"{at}.sorted", "permute", x, axes=(1, 3, 4, 2, 5)), shape=(half, half, 4 * dim))
    x = b.dense(f"{at}.reduction", b.layer_norm(f"{at}.norm", x, 4 * dim), 4 * dim, 2 * dim, bias=False)
    b.alias(**{at: x})
    return x


def _swin(b: Builder, dim: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> None:
    x = b.op("features.0.1", "permute", b.conv("features.0.0", "input", 3, dim, PATCH, PATCH, 0, bias=True), axes=(2, 3, 1))
    x, side = b.layer_norm("features.0.2", x, dim), SIDE
    b.alias(**{"features.0": x})
    for stage, depth in enumerate(depths):
        if stage:
            x = _merge(b, f"features.{2 * stage}", x, dim, side)
            dim, side = 2 * dim, side // 2
        for i in range(depth):
            shift = WINDOW // 2 if i % 2 and side > WINDOW else 0
            x = _block(b, f"features.{2 * stage + 1}.{i}", x, dim, heads[stage], side, shift)
        b.alias(**{f"features.{2 * stage + 1}": x})
    b.alias(features=x)
    x = b.op("permute", "permute", b.layer_norm("norm", x, dim), axes=(3, 1, 2))
    x = b.op("flatten", "flatten", b.op("avgpool", "adaptive_avg_pool2d", x, size=(1, 1)), start=1)
    b.dense("head", x, dim, ANY)


ARCHITECTURES = [Architecture(f"swin_{name}", "Swin", partial(_swin, dim=dim, depths=depths, heads=heads), (3, 224, 224),
                              torchvision_preprocess(short=short, interpolation="bicubic"))
                 for name, (dim, depths, heads, short) in SIZES.items()]
