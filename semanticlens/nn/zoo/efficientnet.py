"""EfficientNet B0 to B7 with the names of torchvision.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019 (table 1).
"""

from __future__ import annotations

import math
from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess
from semanticlens.nn.zoo.units import pooled, rounded, squeeze_excite, unit

STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
          (6, 3, 1, 320, 1))                          # expand, kernel, stride, width, count
VARIANTS = {0: (1.0, 1.0, 224, 256), 1: (1.0, 1.1, 240, 256), 2: (1.1, 1.2, 288, 288), 3: (1.2, 1.4, 300, 320), 4: (1.4, 1.8, 380, 384),
            5: (1.6, 2.2, 456, 456), 6: (1.8, 2.6, 528, 528), 7: (2.0, 3.1, 600, 600)}   # width, depth, size of pictures, short side before


def _block(b: Builder, at: str, x: str, inputs: int, outputs: int, expand: int, kernel: int, stride: int, eps: float) -> str:
    y, i, inner = x, 0, rounded(inputs * expand)
    if inner != inputs:
        y, i = unit(b, f"{at}.block.0", y, inputs, inner, 1, act="silu", eps=eps), 1
    y = unit(b, f"{at}.block.{i}", y, inner, inner, kernel, stride, inner, "silu", eps)
    y = squeeze_excite(b, f"{at}.block.{i + 1}", y, inner, max(1, inputs // 4), "silu", "sigmoid")
    y = unit(b, f"{at}.block.{i + 2}", y, inner, outputs, 1, act=None, eps=eps)
    b.alias(**{f"{at}.block": y})
    if stride == 1 and inputs == outputs:
        b.alias(**{f"{at}.stochastic_depth": y})
        return b.op(at, "add", (y, x))
    b.alias(**{at: y})
    return y


def _efficientnet(b: Builder, width: float, depth: float, eps: float) -> None:
    inputs = rounded(32 * width)
    x = unit(b, "features.0", "input", 3, inputs, 3, 2, act="silu", eps=eps)
    for stage, (expand, kernel, stride, channels, count) in enumerate(STAGES, 1):
        outputs = rounded(channels * width)
        for i in range(math.ceil(count * depth)):
            x = _block(b, f"features.{stage}.{i}", x, inputs, outputs, expand, kernel, 1 if i else stride, eps)
            inputs = outputs
        b.alias(**{f"features.{stage}": x})
    x = unit(b, f"features.{len(STAGES) + 1}", x, inputs, 4 * inputs, 1, act="silu", eps=eps)
    b.alias(features=x)
    x = pooled(b, x)
    b.alias(**{"classifier.0": x, "classifier": b.dense("classifier.1", x, 4 * inputs, ANY)})


ARCHITECTURES = [Architecture(f"efficientnet_b{n}", "EfficientNet",
                              partial(_efficientnet, width=width, depth=depth, eps=1e-3 if n > 4 else 1e-5), (3, size, size),
                              torchvision_preprocess(size, short, "bicubic")) for n, (width, depth, size, short) in VARIANTS.items()]
