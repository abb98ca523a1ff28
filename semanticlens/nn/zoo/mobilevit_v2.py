"""MobileViT v2 with the names of timm, for pictures of 256 x 256.

Mehta and Rastegari, Separable Self-attention for Mobile Vision Transformers, 2022.
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.zoo.builder import ANY, Architecture, Builder

SIDE = 256
STAGES = ((64, 1, 0, 0), (128, 2, 0, 0), (256, 1, 128, 2), (384, 1, 192, 4), (512, 1, 256, 3))   # width, blocks, inner width, transformers
FACTORS = {"050": 0.5, "075": 0.75, "100": 1.0, "125": 1.25, "150": 1.5, "175": 1.75, "200": 2.0}


def _unit(b: Builder, at: str, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> str:
    """Convolution, then a normalisation whose module applies the activation too."""
    x = b.conv(f"{at}.conv", x, inputs, outputs, kernel, stride, groups=groups)
    x = b.norm(f"{at}.bn.norm" if act else f"{at}.bn", x, outputs, key=f"{at}.bn")
    x = b.op(f"{at}.bn", "silu", x) if act else x
    b.alias(**{at: x, **({f"{at}.bn.act": x} if act else {})})
    return x


def _bottleneck(b: Builder, at: str, x: str, inputs: int, outputs: int, stride: int) -> str:
    inner = 2 * inputs
    y = _unit(b, f"{at}.conv2_kxk", _unit(b, f"{at}.conv1_1x1", x, inputs, inner, 1), inner, inner, 3, stride, inner)
    y = _unit(b, f"{at}.conv3_1x1", y, inner, outputs, 1, act=False)
    if stride == 1 and inputs == outputs:
        return b.op(at, "add", (y, x))
    b.alias(**{at: y})
    return y


def _norm(b: Builder, at: str, x: str, dim: int) -> str:
    return b.op(at, "group_norm", x, {role: b.expect(f"{at}.{role}", dim) for role in ("weight", "bias")}, groups=1, eps=1e-5)


def _transformer(b: Builder, at: str, x: str, dim: int) -> str:
    """Attention in linear time: one score per place, a context from all keys, on (dim, places of a patch, patches)."""
    y = b.conv(f"{at}.attn.qkv_proj", _norm(b, f"{at}.norm1", x, dim), dim, 2 * dim + 1, 1, bias=True)
    query, key, value = (b.op(f"{at}.attn.{name}", "slice", y, axis=1, start=start, stop=stop)
                         for name, start, stop in (("query", 0, 1), ("key", 1, dim + 1), ("value", dim + 1, 2 * dim + 1)))
    y = b.op(f"{at}.attn.weighed", "mul", (key, b.op(f"{at}.attn.scores", "softmax", query)))
    y = b.op(f"{at}.attn.context", "sum", y, axes=(3,), keepdims=True)
    y = b.op(f"{at}.attn.product", "mul", (b.op(f"{at}.attn.gate", "relu", value), y))
    y = b.conv(f"{at}.attn.out_proj", y, dim, dim, 1, bias=True)
    x = b.op(f"{at}.middle", "add", (x, y))
    y = b.conv(f"{at}.mlp.fc1", _norm(b, f"{at}.norm2", x, dim), dim, 2 * dim, 1, bias=True)
    y = b.conv(f"{at}.mlp.fc2", b.op(f"{at}.mlp.act", "silu", y), 2 * dim, dim, 1, bias=True)
    b.alias(**{f"{at}.attn": f"{at}.attn.out_proj", f"{at}.mlp": y})
    return b.op(at, "add", (x, y))


def _vit(b: Builder, at: str, x: str, width: int, dim: int, depth: int, side: int) -> str:
    n = side // 2
    x = b.conv(f"{at}.conv_1x1", _unit(b, f"{at}.conv_kxk", x, width, width, 3, groups=width), width, dim, 1)
    x = b.op(f"{at}.sorted", "permute", b.op(f"{at}.grid", "reshape", x, shape=(dim, n, 2, n, 2)), axes=(1, 3, 5, 2, 4))
    x = b.op(f"{at}.patches", "reshape", x, shape=(dim, 4, n * n))
    for i in range(depth):
        x = _transformer(b, f"{at}.transformer.{i}", x, dim)
    b.alias(**{f"{at}.transformer": x})
    x = b.op(f"{at}.tiles", "reshape", _norm(b, f"{at}.norm", x, dim), shape=(dim, 2, 2, n, n))
    x = b.op(f"{at}.picture", "reshape", b.op(f"{at}.placed", "permute", x, axes=(1, 4, 2, 5, 3)), shape=(dim, side, side))
    x = _unit(b, f"{at}.conv_proj", x, dim, width, 1, act=False)
    b.alias(**{at: x})
    return x


def _mobilevit(b: Builder, factor: float) -> None:
    inputs, side = int(32 * factor), SIDE // 2
    x = _unit(b, "stem", "input", 3, inputs, 3, 2)
    for n, (full, blocks, inner, depth) in enumerate(STAGES):
        width = int(full * factor)
        for i in range(blocks):
            stride = 2 if n and not i else 1
            x, inputs, side = _bottleneck(b, f"stages.{n}.{i}", x, inputs, width, stride), width, side // stride
        if depth:
            x = _vit(b, f"stages.{n}.{blocks}", x, width, int(inner * factor), depth, side)
        b.alias(**{f"stages.{n}": x})
    b.alias(stages=x, final_conv=x)
    x = b.op("head.global_pool", "mean", x, axes=(2, 3), keepdims=False)
    b.alias(head=b.dense("head.fc", x, inputs, ANY))


ARCHITECTURES = [Architecture(f"mobilevitv2_{name}", "MobileViT v2", partial(_mobilevit, factor=factor), (3, SIDE, SIDE),
                              Preprocess((SIDE, SIDE), "crop", short=288, interpolation="bicubic")) for name, factor in FACTORS.items()]
