"""EfficientViT B0 to B3 (multi-scale linear attention) with the names of timm, for pictures of 224 x 224.

Cai et al., EfficientViT: Lightweight Multi-Scale Attention for High-Resolution Dense Prediction, ICCV 2023.
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

EXPAND, SCALE = 4, 5
SIZES = {"b0": ((8, 16, 32, 64, 128), (1, 2, 2, 2, 2), 16, (1024, 1280)), "b1": ((16, 32, 64, 128, 256), (1, 2, 3, 3, 4), 16, (1536, 1600)),
         "b2": ((24, 48, 96, 192, 384), (1, 3, 4, 4, 6), 32, (2304, 2560)),
         "b3": ((32, 64, 128, 256, 512), (1, 4, 6, 6, 9), 32, (2304, 2560))}        # widths, depths, width of a head, head


def _unit(b: Builder, at: str, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True,
          norm: bool = True) -> str:
    """Convolution with a normalisation, or with a bias instead, and perhaps hard swish."""
    x = b.conv(f"{at}.conv", x, inputs, outputs, kernel, stride, groups=groups, bias=not norm)
    x = b.norm(f"{at}.norm", x, outputs) if norm else x
    x = b.op(f"{at}.act", "hardswish", x) if act else x
    b.alias(**{at: x})
    return x


def _mbconv(b: Builder, at: str, x: str, inputs: int, outputs: int, stride: int, norm: bool) -> str:
    inner = EXPAND * inputs
    x = _unit(b, f"{at}.inverted_conv", x, inputs, inner, 1, norm=norm)
    x = _unit(b, f"{at}.depth_conv", x, inner, inner, 3, stride, inner, norm=norm)
    x = _unit(b, f"{at}.point_conv", x, inner, outputs, 1, act=False)
    b.alias(**{at: x})
    return x


def _attention(b: Builder, at: str, x: str, dim: int, size: int, side: int) -> str:
    """relu(q) (relu(k)^T v) over its sum of weights, from the values and from a convolution of them."""
    groups, wide = 2 * (dim // size), 3 * dim
    x = b.conv(f"{at}.qkv.conv", x, dim, wide, 1)
    b.alias(**{f"{at}.qkv": x})
    y = b.conv(f"{at}.aggreg.0.0", x, wide, wide, SCALE, groups=wide)
    y = b.conv(f"{at}.aggreg.0.1", y, wide, wide, 1, groups=wide // size)
    b.alias(**{f"{at}.aggreg.0": y})
    x = b.op(f"{at}.grouped", "reshape", b.op(f"{at}.scales", "concat", (x, y), axis=1), shape=(groups, 3 * size, side * side))
    x = b.op(f"{at}.places", "permute", x, axes=(1, 3, 2))
    q, k, v = (b.op(f"{at}.{name}", "slice", x, axis=3, start=i * size, stop=(i + 1) * size) for i, name in enumerate("qkv"))
    q, k = b.op(f"{at}.q.relu", "relu", q), b.op(f"{at}.k.relu", "relu", k)
    v = b.op(f"{at}.v.one", "pad_axes", v, before=(0, 0, 0), after=(0, 0, 1), value=1.0)
    y = b.op(f"{at}.product", "matmul", (q, b.op(f"{at}.kv", "matmul", (k, v), transpose_a=True)))
    total = b.op(f"{at}.total", "slice", y, axis=3, start=size, stop=size + 1)
    y = b.op(f"{at}.sums", "slice", y, axis=3, start=0, stop=size)
    y = b.op(f"{at}.share", "div", (y, b.op(f"{at}.stable", "scale_shift", total, term=1e-5)))
    y = b.op(f"{at}.picture", "reshape", b.op(f"{at}.turned", "permute", y, axes=(1, 3, 2)), shape=(2 * dim, side, side))
    y = _unit(b, f"{at}.proj", y, 2 * dim, dim, 1, act=False)
    b.alias(**{at: y})
    return y


def _stage(b: Builder, n: int, x: str, inputs: int, width: int, depth: int, size: int, side: int) -> str:
    """The first block halves the picture; blocks of the last two stages attend before they convolve."""
    late = n > 1
    for i in range(depth + late):
        at = f"stages.{n}.blocks.{i}"
        if not i:
            x = _mbconv(b, f"{at}.main", x, inputs, width, 2, not late)
            b.alias(**{at: x})
        elif late:
            x = b.op(f"{at}.context_module", "add", (_attention(b, f"{at}.context_module.main", x, width, size, side), x))
            x = b.op(at, "add", (_mbconv(b, f"{at}.local_module.main", x, width, width, 1, False), x))
            b.alias(**{f"{at}.local_module": x})
        else:
            x = b.op(at, "add", (_mbconv(b, f"{at}.main", x, width, width, 1, True), x))
    b.alias(**{f"stages.{n}": x, f"stages.{n}.blocks": x})
    return x


def _efficientvit(b: Builder, widths: tuple[int, ...], depths: tuple[int, ...], size: int, head: tuple[int, int]) -> None:
    stem, side = widths[0], 112
    x = _unit(b, "stem.in_conv", "input", 3, stem, 3, 2)
    for i in range(depths[0]):
        at = f"stem.res{i}"
        y = _unit(b, f"{at}.main.depth_conv", x, stem, stem, 3, groups=stem)
        y = _unit(b, f"{at}.main.point_conv", y, stem, stem, 1, act=False)
        b.alias(**{f"{at}.main": y})
        x = b.op(at, "add", (y, x))
    b.alias(stem=x)
    for n, (inputs, width, depth) in enumerate(zip(widths, widths[1:], depths[1:], strict=False)):
        side //= 2
        x = _stage(b, n, x, inputs, width, depth, size, side)
    b.alias(stages=x)
    x = b.global_pool("head.global_pool", _unit(b, "head.in_conv", x, widths[-1], head[0], 1))
    x = b.layer_norm("head.classifier.1", b.dense("head.classifier.0", x, head[0], head[1], bias=False), head[1])
    x = b.dense("head.classifier.4", b.op("head.classifier.2", "hardswish", x), head[1], ANY)
    b.alias(**{"head.classifier": x, "head": x})


ARCHITECTURES = [Architecture(f"efficientvit_{name}", "EfficientViT",
                              partial(_efficientvit, widths=widths, depths=depths, size=size, head=head), (3, 224, 224),
                              torchvision_preprocess(short=236, interpolation="bicubic"))
                 for name, (widths, depths, size, head) in SIZES.items()]
