"""Pyramid vision transformers, second version, with the names of timm, for pictures of 224 x 224.

Wang et al., PVT v2: Improved Baselines with Pyramid Vision Transformer, 2022.
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

EPS = 1e-6
HEADS, SHRINK, RATIOS = (1, 2, 5, 8), (8, 4, 2, 1), (8, 8, 4, 4)
WIDE = (64, 128, 320, 512)
SIZES = {"b0": ((32, 64, 160, 256), (2, 2, 2, 2)), "b1": (WIDE, (2, 2, 2, 2)), "b2": (WIDE, (3, 4, 6, 3)), "b3": (WIDE, (3, 4, 18, 3)),
         "b4": (WIDE, (3, 8, 27, 3))}                 # widths, depths


def _places(b: Builder, name: str, x: str, channels: int) -> str:
    """(C, H, W) -> (H W, C)."""
    return b.op(name, "permute", b.op(f"{name}.flat", "reshape", x, shape=(channels, -1)), axes=(2, 1))


def _picture(b: Builder, name: str, x: str, channels: int, side: int) -> str:
    """(H W, C) -> (C, H, W)."""
    return b.op(name, "reshape", b.op(f"{name}.turned", "permute", x, axes=(2, 1)), shape=(channels, side, side))


def _embed(b: Builder, at: str, x: str, inputs: int, width: int, kernel: int, stride: int) -> str:
    x = b.op(f"{at}.last", "permute", b.conv(f"{at}.proj", x, inputs, width, kernel, stride, bias=True), axes=(2, 3, 1))
    x = b.layer_norm(f"{at}.norm", x, width)
    b.alias(**{at: x})
    return x


def _heads(b: Builder, name: str, x: str, heads: int, size: int) -> str:
    return b.op(name, "permute", b.op(f"{name}.split", "reshape", x, shape=(-1, heads, size)), axes=(2, 1, 3))


def _attention(b: Builder, at: str, x: str, dim: int, heads: int, side: int, shrink: int) -> str:
    parts = [_heads(b, f"{at}.queries", b.dense(f"{at}.q", x, dim, dim), heads, dim // heads)]
    if shrink > 1:
        x = b.conv(f"{at}.sr", _picture(b, f"{at}.picture", x, dim, side), dim, dim, shrink, shrink, 0, bias=True)
        x = b.layer_norm(f"{at}.norm", _places(b, f"{at}.fewer", x, dim), dim)
    x = b.dense(f"{at}.kv", x, dim, 2 * dim)
    for i, part in enumerate(("keys", "values")):
        y = b.op(f"{at}.{part}.part", "slice", x, axis=2, start=i * dim, stop=(i + 1) * dim)
        parts.append(_heads(b, f"{at}.{part}", y, heads, dim // heads))
    x = b.op(f"{at}.turned", "permute", b.op(f"{at}.attention", "attention", parts), axes=(2, 1, 3))
    x = b.dense(f"{at}.proj", b.op(f"{at}.joined", "reshape", x, shape=(-1, dim)), dim, dim)
    b.alias(**{at: x})
    return x


def _block(b: Builder, at: str, x: str, dim: int, heads: int, side: int, shrink: int, ratio: int) -> str:
    h = _attention(b, f"{at}.attn", b.layer_norm(f"{at}.norm1", x, dim, EPS), dim, heads, side, shrink)
    x, inner = b.op(f"{at}.middle", "add", (x, h)), dim * ratio
    h = b.dense(f"{at}.mlp.fc1", b.layer_norm(f"{at}.norm2", x, dim, EPS), dim, inner)
    h = b.conv(f"{at}.mlp.dwconv", _picture(b, f"{at}.mlp.picture", h, inner, side), inner, inner, 3, groups=inner, bias=True)
    h = b.op(f"{at}.mlp.act", "gelu", _places(b, f"{at}.mlp.places", h, inner))
    h = b.dense(f"{at}.mlp.fc2", h, inner, dim)
    b.alias(**{f"{at}.mlp": h})
    return b.op(at, "add", (x, h))


def _pvt(b: Builder, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
    x, inputs, side = _embed(b, "patch_embed", "input", 3, widths[0], 7, 4), widths[0], 56
    for n, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if n:
            x, side = _embed(b, f"stages.{n}.downsample", x, inputs, width, 3, 2), side // 2
        x = b.op(f"stages.{n}.tokens", "reshape", x, shape=(side * side, width))
        for i in range(depth):
            x = _block(b, f"stages.{n}.blocks.{i}", x, width, HEADS[n], side, SHRINK[n], RATIOS[n])
        x = _picture(b, f"stages.{n}", b.layer_norm(f"stages.{n}.norm", x, width, EPS), width, side)
        inputs = width
    b.alias(stages=x)
    b.dense("head", b.global_pool("global_pool", x), inputs, ANY)


ARCHITECTURES = [Architecture(f"pvt_v2_{name}", "PVT v2", partial(_pvt, widths=widths, depths=depths), (3, 224, 224),
                              torchvision_preprocess(short=249, interpolation="bicubic")) for name, (widths, depths) in SIZES.items()]
