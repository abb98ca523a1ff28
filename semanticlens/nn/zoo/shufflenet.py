"""ShuffleNetV2 with the names of torchvision.

Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018 (table 5).
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess
from semanticlens.nn.zoo.units import unit

REPEATS = (4, 8, 4)
WIDTHS = {"x0_5": (24, 48, 96, 192, 1024), "x1_0": (24, 116, 232, 464, 1024), "x1_5": (24, 176, 352, 704, 1024),
          "x2_0": (24, 244, 488, 976, 2048)}


def _conv(b: Builder, at: str, i: int, x: str, inputs: int, outputs: int, act: bool = True) -> str:
    """A 1x1 convolution, a normalisation and perhaps a ReLU at places i, i + 1, i + 2 of a sequence."""
    y = b.norm(f"{at}.{i + 1}", b.conv(f"{at}.{i}", x, inputs, outputs, 1), outputs)
    return b.op(f"{at}.{i + 2}", "relu", y)


def _depthwise(b: Builder, at: str, i: int, x: str, width: int, stride: int) -> str:
    return b.norm(f"{at}.{i + 1}", b.conv(f"{at}.{i}", x, width, width, 3, stride, groups=width), width)


def _block(b: Builder, at: str, x: str, inputs: int, outputs: int, stride: int) -> str:
    half = outputs // 2
    if stride == 1:
        left = b.op(f"{at}.left", "slice", x, axis=1, start=0, stop=half)
        x, inputs = b.op(f"{at}.right", "slice", x, axis=1, start=half, stop=outputs), half
    else:
        left = _conv(b, f"{at}.branch1", 2, _depthwise(b, f"{at}.branch1", 0, x, inputs, stride), inputs, half)
        b.alias(**{f"{at}.branch1": left})
    y = _depthwise(b, f"{at}.branch2", 3, _conv(b, f"{at}.branch2", 0, x, inputs, half), half, stride)
    y = _conv(b, f"{at}.branch2", 5, y, half, half)
    b.alias(**{f"{at}.branch2": y})
    return b.op(at, "channel_shuffle", b.op(f"{at}.joined", "concat", (left, y), axis=1), groups=2)


def _shufflenet(b: Builder, widths: tuple[int, ...]) -> None:
    x, inputs = unit(b, "conv1", "input", 3, widths[0], 3, 2), widths[0]
    x = b.max_pool("maxpool", x, 3, 2, 1)
    for stage, (count, width) in enumerate(zip(REPEATS, widths[1:4], strict=True), 2):
        for i in range(count):
            x, inputs = _block(b, f"stage{stage}.{i}", x, inputs, width, 1 if i else 2), width
        b.alias(**{f"stage{stage}": x})
    x = unit(b, "conv5", x, inputs, widths[4], 1)
    b.dense("fc", b.global_pool("mean", x), widths[4], ANY)


ARCHITECTURES = [Architecture(f"shufflenet_v2_{name}", "ShuffleNetV2", partial(_shufflenet, widths=widths), (3, 224, 224),
                              torchvision_preprocess()) for name, widths in WIDTHS.items()]
