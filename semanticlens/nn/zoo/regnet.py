"""RegNetX and RegNetY with the names of torchvision: widths of the stages follow a quantised line.

Radosavovic et al., Designing Network Design Spaces, CVPR 2020 (section 3.3).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess
from semanticlens.nn.zoo.units import pooled, rounded, squeeze_excite, unit

STEM = 32
SIZES = {                                             # depth, w_0, w_a, w_m, width of a group
    "y_400mf": (16, 48, 27.89, 2.09, 8), "y_800mf": (14, 56, 38.84, 2.4, 16), "y_1_6gf": (27, 48, 20.71, 2.65, 24),
    "y_3_2gf": (21, 80, 42.63, 2.66, 24), "y_8gf": (17, 192, 76.82, 2.19, 56), "y_16gf": (18, 200, 106.23, 2.48, 112),
    "y_32gf": (20, 232, 115.89, 2.53, 232), "x_400mf": (22, 24, 24.48, 2.54, 16), "x_800mf": (16, 56, 35.73, 2.28, 16),
    "x_1_6gf": (18, 80, 34.01, 2.25, 24), "x_3_2gf": (25, 88, 26.31, 2.25, 48), "x_8gf": (23, 80, 49.56, 2.88, 120),
    "x_16gf": (22, 216, 55.59, 2.1, 128), "x_32gf": (23, 320, 69.86, 2.0, 168)}


def stages(depth: int, first: int, slope: float, factor: float, group: int) -> list[tuple[int, int, int]]:
    """(width, depth, width of a group) of each stage: u_j = w_0 + w_a j, rounded to powers of w_m times w_0, then to multiples of 8."""
    powers = np.round(np.log((first + slope * np.arange(depth)) / first) / np.log(factor))
    widths = (np.round(first * factor**powers / 8) * 8).astype(int)
    found = []
    for width in np.unique(widths):
        own = min(group, int(width))
        found.append((rounded(int(width), own), int((widths == width).sum()), own))
    return found


def _block(b: Builder, at: str, x: str, inputs: int, width: int, stride: int, group: int, squeeze: bool) -> str:
    short = x
    if inputs != width or stride != 1:
        short = unit(b, f"{at}.proj", x, inputs, width, 1, stride, act=None)
    y = unit(b, f"{at}.f.a", x, inputs, width, 1)
    y = unit(b, f"{at}.f.b", y, width, width, 3, stride, width // group)
    if squeeze:
        y = squeeze_excite(b, f"{at}.f.se", y, width, round(0.25 * inputs), "relu", "sigmoid")
    y = unit(b, f"{at}.f.c", y, width, width, 1, act=None)
    b.alias(**{f"{at}.f": y, f"{at}.activation": at})
    return b.op(at, "relu", b.op(f"{at}.sum", "add", (short, y)))


def _regnet(b: Builder, size: tuple[int, int, float, float, int], squeeze: bool) -> None:
    x, inputs = unit(b, "stem", "input", 3, STEM, 3, 2), STEM
    for n, (width, depth, group) in enumerate(stages(*size), 1):
        for i in range(depth):
            x = _block(b, f"trunk_output.block{n}.block{n}-{i}", x, inputs, width, 1 if i else 2, group, squeeze)
            inputs = width
        b.alias(**{f"trunk_output.block{n}": x})
    b.alias(trunk_output=x)
    b.dense("fc", pooled(b, x), inputs, ANY)


ARCHITECTURES = [Architecture(f"regnet_{name}", "RegNet", partial(_regnet, size=size, squeeze=name[0] == "y"), (3, 224, 224),
                              torchvision_preprocess()) for name, size in SIZES.items()]
