"""ConvNeXt with the names of torchvision.

Liu et al., A ConvNet for the 2020s, CVPR 2022.
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

EPS = 1e-6
LAST, FIRST = (2, 3, 1), (3, 1, 2)                    # channels to the last place, and back
SIZES = {"tiny": (96, (3, 3, 9, 3), 236), "small": (96, (3, 3, 27, 3), 230), "base": (128, (3, 3, 27, 3), 232),
         "large": (192, (3, 3, 27, 3), 232)}          # width, depths, short side of pictures


def _norm2d(b: Builder, at: str, x: str, channels: int) -> str:
    """A layer norm over the channels of (C, H, W)."""
    turned = b.op(f"{at}.last", "permute", x, axes=LAST)
    params = {role: b.expect(f"{at}.{role}", channels) for role in ("weight", "bias")}
    return b.op(at, "permute", b.op(f"{at}.norm", "layer_norm", turned, params, eps=EPS), axes=FIRST)


def _block(b: Builder, at: str, x: str, width: int) -> str:
    y = b.conv(f"{at}.block.0", x, width, width, 7, groups=width, bias=True)
    y = b.layer_norm(f"{at}.block.2", b.op(f"{at}.block.1", "permute", y, axes=LAST), width, EPS)
    y = b.op(f"{at}.block.4", "gelu", b.dense(f"{at}.block.3", y, width, 4 * width))
    y = b.op(f"{at}.block.6", "permute", b.dense(f"{at}.block.5", y, 4 * width, width), axes=FIRST)
    b.alias(**{f"{at}.block": y})
    y = b.op(f"{at}.stochastic_depth", "scale_shift", y, {"scale": b.expect(f"{at}.layer_scale", width, 1, 1)})
    return b.op(at, "add", (y, x))


def _convnext(b: Builder, width: int, depths: tuple[int, ...]) -> None:
    x = _norm2d(b, "features.0.1", b.conv("features.0.0", "input", 3, width, 4, 4, 0, bias=True), width)
    b.alias(**{"features.0": x})
    for stage, depth in enumerate(depths):
        if stage:
            at = f"features.{2 * stage}"
            x = b.conv(f"{at}.1", _norm2d(b, f"{at}.0", x, width), width, 2 * width, 2, 2, 0, bias=True)
            b.alias(**{at: x})
            width *= 2
        for i in range(depth):
            x = _block(b, f"features.{2 * stage + 1}.{i}", x, width)
        b.alias(**{f"features.{2 * stage + 1}": x})
    b.alias(features=x)
    x = _norm2d(b, "classifier.0", b.op("avgpool", "adaptive_avg_pool2d", x, size=(1, 1)), width)
    x = b.dense("classifier.2", b.op("classifier.1", "flatten", x, start=1), width, ANY)
    b.alias(classifier=x)


ARCHITECTURES = [Architecture(f"convnext_{name}", "ConvNeXt", partial(_convnext, width=width, depths=depths), (3, 224, 224),
                              torchvision_preprocess(short=short)) for name, (width, depths, short) in SIZES.items()]
