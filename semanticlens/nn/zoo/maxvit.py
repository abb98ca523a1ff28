"""MaxViT in timm's "rw" form (convolution, attention in blocks, attention over a grid) with the names of timm.

Tu et al., MaxViT: Multi-Axis Vision Transformer, ECCV 2022. This form pads evenly on both sides (not TensorFlow's "same"), expands from
the inputs' channels, and has SiLU in its convolutions.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.zoo.builder import ANY, Architecture, Builder

EXPAND, HEAD, EPS = 4, 32, 1e-6
HALF = (0.5, 0.5, 0.5)
LAST, FIRST = (2, 3, 1), (3, 1, 2)                    # channels to the last place, and back
PARTITIONS = {"block": ((1, 3, 2, 4, 5), (1, 3, 2, 4, 5)),       # (n, w, n, w, C): neighbours attend to each other
              "grid": ((2, 4, 1, 3, 5), (3, 1, 4, 2, 5))}        # (w, n, w, n, C): places that lie n apart do; and back
SIZES = {"pico_rw_256": ((24, 32, 64, 128, 256), (2, 2, 5, 2), 256), "nano_rw_256": ((32, 64, 128, 256, 512), (1, 2, 3, 1), 256),
         "tiny_rw_224": ((32, 64, 128, 256, 512), (2, 2, 5, 2), 224), "tiny_rw_256": ((32, 64, 128, 256, 512), (2, 2, 5, 2), 256)}
#        widths of the stem's first convolution and of the four stages; depths; side of pictures: a window is 1/32 of it


def _bias(table: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """(heads, T, T): for each pair of places the table's row (dy + w - 1) * (2w - 1) + (dx + w - 1)."""
    y, x = (axis.ravel() for axis in np.indices((window, window)))
    rows, columns = (axis[:, None] - axis[None, :] + window - 1 for axis in (y, x))
    own: NDArray[np.float32] = table[rows * (2 * window - 1) + columns].transpose(2, 0, 1)
    return own


def _norm(b: Builder, at: str, x: str, channels: int) -> str:
    """A batch normalisation whose module applies SiLU too."""
    x = b.op(at, "silu", b.norm(f"{at}.drop", x, channels, key=at))
    b.alias(**{f"{at}.act": x})
    return x


def _shortcut(b: Builder, at: str, x: str, inputs: int, outputs: int) -> str:
    x = b.op(f"{at}.pool", "avg_pool2d", x, kernel=(2, 2), stride=(2, 2))
    if inputs != outputs:
        x = b.conv(f"{at}.expand", x, inputs, outputs, 1)
    b.alias(**{at: x, **({f"{at}.expand": x} if inputs == outputs else {})})
    return x


def _mbconv(b: Builder, at: str, x: str, inputs: int, outputs: int, stride: int) -> str:
    inner = EXPAND * inputs
    short = _shortcut(b, f"{at}.shortcut", x, inputs, outputs) if stride == 2 else x
    y = b.norm(f"{at}.pre_norm", x, inputs)
    b.alias(**dict.fromkeys((f"{at}.pre_norm.drop", f"{at}.pre_norm.act", f"{at}.down"), y))
    y = _norm(b, f"{at}.norm1", b.conv(f"{at}.conv1_1x1", y, inputs, inner, 1), inner)
    y = _norm(b, f"{at}.norm2", b.conv(f"{at}.conv2_kxk", y, inner, inner, 3, stride, groups=inner), inner)
    z = b.op(f"{at}.se.means", "mean", y, axes=(2, 3), keepdims=True)
    z = b.op(f"{at}.se.act", "silu", b.conv(f"{at}.se.fc1", z, inner, inner // 16, 1, bias=True))
    z = b.op(f"{at}.se.gate", "sigmoid", b.conv(f"{at}.se.fc2", z, inner // 16, inner, 1, bias=True))
    y = b.conv(f"{at}.conv3_1x1", b.op(f"{at}.se", "mul", (y, z)), inner, outputs, 1)
    b.alias(**{f"{at}.se.bn": f"{at}.se.fc1", f"{at}.drop_path": y})
    return b.op(at, "add", (y, short))


def _attention(b: Builder, at: str, x: str, dim: int, count: int, window: int) -> str:
    """Heads of 32 within each of ``count`` windows, query, key and value of a head side by side: (count, places, dim)."""
    places, heads = window * window, dim // HEAD
    x = b.op(f"{at}.heads", "reshape", b.dense(f"{at}.qkv", x, dim, 3 * dim), shape=(count, places, heads, 3 * HEAD))
    x = b.op(f"{at}.turned", "permute", x, axes=(1, 3, 2, 4))
    parts = [b.op(f"{at}.{part}", "slice", x, axis=4, start=i * HEAD, stop=(i + 1) * HEAD) for i, part in enumerate("qkv")]
    table = f"{at}.rel_pos.relative_position_bias_table"
    bias = b.derive(f"{at}.rel_pos.bias", table, ((2 * window - 1) ** 2, heads), partial(_bias, window=window))
    x = b.op(f"{at}.back", "permute", b.op(f"{at}.attention", "attention", parts, {"bias": bias}), axes=(1, 3, 2, 4))
    x = b.dense(f"{at}.proj", b.op(f"{at}.joined", "reshape", x, shape=(count, places, dim)), dim, dim)
    b.alias(**{at: x, f"{at}.proj_drop": x})
    return x


def _partition(b: Builder, at: str, x: str, dim: int, side: int, window: int, kind: Literal["block", "grid"]) -> str:
    """Attention within the windows of a partition, then a network for each place, on (side, side, dim)."""
    n, (there, back) = side // window, PARTITIONS[kind]
    shape = (n, window, n, window, dim) if kind == "block" else (window, n, window, n, dim)
    y = b.op(f"{at}.cut", "reshape", b.layer_norm(f"{at}.norm1", x, dim, EPS), shape=shape)
    y = b.op(f"{at}.windows", "reshape", b.op(f"{at}.sorted", "permute", y, axes=there), shape=(n * n, window * window, dim))
    y = b.op(f"{at}.tiles", "reshape", _attention(b, f"{at}.attn", y, dim, n * n, window), shape=(n, n, window, window, dim))
    y = b.op(f"{at}.picture", "reshape", b.op(f"{at}.placed", "permute", y, axes=back), shape=(side, side, dim))
    x = b.op(f"{at}.middle", "add", (x, y))
    z = b.op(f"{at}.mlp.act", "gelu", b.dense(f"{at}.mlp.fc1", b.layer_norm(f"{at}.norm2", x, dim, EPS), dim, EXPAND * dim))
    z = b.dense(f"{at}.mlp.fc2", z, EXPAND * dim, dim)
    b.alias(**{f"{at}.ls1": y, f"{at}.drop_path1": y, f"{at}.mlp.drop1": f"{at}.mlp.act", f"{at}.mlp.norm": f"{at}.mlp.act"})
    b.alias(**dict.fromkeys((f"{at}.mlp", f"{at}.mlp.drop2", f"{at}.ls2", f"{at}.drop_path2"), z))
    return b.op(at, "add", (x, z))


def _block(b: Builder, at: str, x: str, inputs: int, width: int, stride: int, side: int, window: int) -> str:
    x = b.op(f"{at}.last", "permute", _mbconv(b, f"{at}.conv", x, inputs, width, stride), axes=LAST)
    x = _partition(b, f"{at}.attn_block", x, width, side, window, "block")
    return b.op(at, "permute", _partition(b, f"{at}.attn_grid", x, width, side, window, "grid"), axes=FIRST)


def _maxvit(b: Builder, widths: tuple[int, ...], depths: tuple[int, ...], side: int) -> None:
    window, side = side // 32, side // 2
    x = _norm(b, "stem.norm1", b.conv("stem.conv1", "input", 3, widths[0], 3, 2), widths[0])
    x, inputs = b.conv("stem.conv2", x, widths[0], widths[1], 3), widths[1]
    b.alias(stem=x)
    for n, (width, depth) in enumerate(zip(widths[1:], depths, strict=True)):
        side //= 2
        for i in range(depth):
            x, inputs = _block(b, f"stages.{n}.blocks.{i}", x, inputs, width, 1 if i else 2, side, window), width
        b.alias(**{f"stages.{n}": x, f"stages.{n}.blocks": x})
    b.alias(stages=x)
    params = {role: b.expect(f"norm.{role}", inputs) for role in ("weight", "bias")}
    x = b.op("norm.norm", "layer_norm", b.op("norm.last", "permute", x, axes=LAST), params, eps=EPS)
    x = b.global_pool("head.global_pool", b.op("norm", "permute", x, axes=FIRST))
    b.alias(**dict.fromkeys(("head.global_pool.flatten", "head.drop"), x))
    x = b.dense("head.fc", x, inputs, ANY)
    b.alias(**{"head": x, "head.flatten": x})


ARCHITECTURES = [Architecture(f"maxvit_{name}", "MaxViT", partial(_maxvit, widths=widths, depths=depths, side=side), (3, side, side),
                              Preprocess((side, side), "crop", short=int(side / 0.95), interpolation="bicubic", mean=HALF, std=HALF))
                 for name, (widths, depths, side) in SIZES.items()]
