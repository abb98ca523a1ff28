"""MobileNetV2 with the names of torchvision.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018 (table 2).
"""

from __future__ import annotations

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
          (6, 320, 1, 1))                             # expand, width, count, stride


def _unit(b: Builder, name: str, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
    y = b.norm(f"{name}.1", b.conv(f"{name}.0", x, inputs, outputs, kernel, stride, groups=groups), outputs)
    y = b.op(f"{name}.2", "relu6", y)
    b.alias(**{name: y})
    return y


def _block(b: Builder, name: str, x: str, inputs: int, outputs: int, stride: int, expand: int) -> str:
    inner, i, y = inputs * expand, 0, x
    if expand != 1:
        y, i = _unit(b, f"{name}.conv.0", y, inputs, inner, 1), 1
    y = _unit(b, f"{name}.conv.{i}", y, inner, inner, 3, stride, inner)
    y = b.norm(f"{name}.conv.{i + 2}", b.conv(f"{name}.conv.{i + 1}", y, inner, outputs, 1), outputs)
    b.alias(**{f"{name}.conv": y})
    if stride == 1 and inputs == outputs:
        return b.op(name, "add", (x, y))
    b.alias(**{name: y})
    return y


def _mobilenet_v2(b: Builder) -> None:
    x, inputs, i = _unit(b, "features.0", "input", 3, 32, 3, 2), 32, 1
    for expand, width, count, first in STAGES:
        for n in range(count):
            x = _block(b, f"features.{i}", x, inputs, width, 1 if n else first, expand)
            inputs, i = width, i + 1
    x = _unit(b, f"features.{i}", x, inputs, 1280, 1)
    b.alias(features=x)
    x = b.dense("classifier.1", b.global_pool("avgpool", x), 1280, ANY)
    b.alias(classifier=x)


ARCHITECTURES = [Architecture("mobilenet_v2", "MobileNetV2", _mobilenet_v2, (3, 224, 224), torchvision_preprocess())]
