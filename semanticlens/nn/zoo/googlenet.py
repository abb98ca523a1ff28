"""GoogLeNet with batch normalisation, with the names of torchvision (its 5x5 convolutions are 3x3, as in the file everybody has).

Szegedy et al., Going Deeper with Convolutions, CVPR 2015.  torchvision's weights come from a framework that scaled pictures to -1..1 and
are evaluated with a change of scale inside the network; here it is in the preprocessing, and the two heads of training are left out.
"""

from __future__ import annotations

from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.zoo.builder import ANY, Architecture, Builder

EPS = 1e-3
INCEPTIONS = {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
              "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
              "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)}
POOLS = {"3b": (3, 3), "4e": (4, 2)}                  # after which inception: number and kernel of a maximum


def _conv(b: Builder, at: str, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
    return b.op(at, "relu", b.norm(f"{at}.bn", b.conv(f"{at}.conv", x, inputs, outputs, kernel, stride), outputs, EPS))


def _inception(b: Builder, at: str, x: str, inputs: int, widths: tuple[int, ...]) -> str:
    one, thin, three, thinner, five, pool = widths
    parts = [_conv(b, f"{at}.branch1", x, inputs, one, 1)]
    for n, (inner, outer) in enumerate(((thin, three), (thinner, five)), 2):
        y = _conv(b, f"{at}.branch{n}.0", x, inputs, inner, 1)
        parts.append(_conv(b, f"{at}.branch{n}.1", y, inner, outer, 3))
    y = b.max_pool(f"{at}.branch4.0", x, 3, 1, 1, ceil_mode=True)
    parts.append(_conv(b, f"{at}.branch4.1", y, inputs, pool, 1))
    b.alias(**{f"{at}.branch{n}": part for n, part in enumerate(parts[1:], 2)})
    return b.op(at, "concat", parts, axis=1)


def _googlenet(b: Builder) -> None:
    x = b.max_pool("maxpool1", _conv(b, "conv1", "input", 3, 64, 7, 2), 3, 2, ceil_mode=True)
    x = _conv(b, "conv3", _conv(b, "conv2", x, 64, 64, 1), 64, 192, 3)
    x, inputs = b.max_pool("maxpool2", x, 3, 2, ceil_mode=True), 192
    for name, widths in INCEPTIONS.items():
        x = _inception(b, f"inception{name}", x, inputs, widths)
        inputs = widths[0] + widths[2] + widths[4] + widths[5]
        if name in POOLS:
            n, kernel = POOLS[name]
            x = b.max_pool(f"maxpool{n}", x, kernel, 2, ceil_mode=True)
    x = b.op("flatten", "flatten", b.op("avgpool", "adaptive_avg_pool2d", x, size=(1, 1)), start=1)
    b.alias(dropout=x)
    b.dense("fc", x, inputs, ANY)


ARCHITECTURES = [Architecture("googlenet", "GoogLeNet", _googlenet, (3, 224, 224), ignored=("aux1.", "aux2."),
                              preprocess=Preprocess(size=(224, 224), resize="crop", short=256, mean=(0.5,) * 3, std=(0.5,) * 3))]
