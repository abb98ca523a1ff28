"""MobileNetV3 large and small with the names of torchvision.

Howard et al., Searching for MobileNetV3, ICCV 2019 (tables 1 and 2).
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess
from semanticlens.nn.zoo.units import pooled, rounded, squeeze_excite, unit

EPS = 1e-3
RE, HS = "relu", "hardswish"
Row = tuple[int, int, int, bool, str, int]
LARGE: tuple[Row, ...] = (                            # kernel, inner, outputs, squeeze and excite, activation, stride
    (3, 16, 16, False, RE, 1), (3, 64, 24, False, RE, 2), (3, 72, 24, False, RE, 1), (5, 72, 40, True, RE, 2),
    (5, 120, 40, True, RE, 1), (5, 120, 40, True, RE, 1), (3, 240, 80, False, HS, 2), (3, 200, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1), (3, 184, 80, False, HS, 1), (3, 480, 112, True, HS, 1), (3, 672, 112, True, HS, 1),
    (5, 672, 160, True, HS, 2), (5, 960, 160, True, HS, 1), (5, 960, 160, True, HS, 1))
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, RE, 2), (3, 72, 24, False, RE, 2), (3, 88, 24, False, RE, 1), (5, 96, 40, True, HS, 2), (5, 240, 40, True, HS, 1),
    (5, 240, 40, True, HS, 1), (5, 120, 48, True, HS, 1), (5, 144, 48, True, HS, 1), (5, 288, 96, True, HS, 2), (5, 576, 96, True, HS, 1),
    (5, 576, 96, True, HS, 1))


def _block(b: Builder, at: str, x: str, inputs: int, row: Row) -> str:
    kernel, inner, outputs, squeeze, act, stride = row
    y, i = x, 0
    if inner != inputs:
        y, i = unit(b, f"{at}.block.0", y, inputs, inner, 1, act=act, eps=EPS), 1
    y, i = unit(b, f"{at}.block.{i}", y, inner, inner, kernel, stride, inner, act, EPS), i + 1
    if squeeze:
        y, i = squeeze_excite(b, f"{at}.block.{i}", y, inner, rounded(inner // 4), "relu", "hardsigmoid"), i + 1
    y = unit(b, f"{at}.block.{i}", y, inner, outputs, 1, act=None, eps=EPS)
    b.alias(**{f"{at}.block": y})
    if stride == 1 and inputs == outputs:
        return b.op(at, "add", (y, x))
    b.alias(**{at: y})
    return y


def _mobilenet_v3(b: Builder, rows: tuple[Row, ...], last: int) -> None:
    x, inputs = unit(b, "features.0", "input", 3, 16, 3, 2, act=HS, eps=EPS), 16
    for i, row in enumerate(rows, 1):
        x, inputs = _block(b, f"features.{i}", x, inputs, row), row[2]
    x = unit(b, f"features.{len(rows) + 1}", x, inputs, 6 * inputs, 1, act=HS, eps=EPS)
    b.alias(features=x)
    x = b.op("classifier.1", HS, b.dense("classifier.0", pooled(b, x), 6 * inputs, last))
    b.alias(**{"classifier.2": x, "classifier": b.dense("classifier.3", x, last, ANY)})


ARCHITECTURES = [Architecture(f"mobilenet_v3_{name}", "MobileNetV3", partial(_mobilenet_v3, rows=rows, last=last), (3, 224, 224),
                              torchvision_preprocess()) for name, rows, last in (("large", LARGE, 1280), ("small", SMALL, 1024))]
