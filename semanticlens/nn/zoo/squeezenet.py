"""SqueezeNet 1.0 and 1.1 with the names of torchvision, and 1.0 with those of the Deep Compression release.

Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016; Han et al., Deep Compression, ICLR 2016.
"""

from __future__ import annotations

from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

SQUEEZES = (16, 16, 32, 32, 48, 48, 64, 64)           # fire 2 to 9; each expands to 4 + 4 times as many channels


def _convs(b: Builder, names: tuple[str, str], x: str, inputs: int, outputs: int, kernel: int) -> str:
    return b.op(names[1], "relu", b.conv(names[0], x, inputs, outputs, kernel, bias=True))


def _fire(b: Builder, name: str, x: str, inputs: int, squeeze: int) -> str:
    """A fire module of torchvision; gives 8 * squeeze channels."""
    x = _convs(b, (f"{name}.squeeze", f"{name}.squeeze_activation"), x, inputs, squeeze, 1)
    parts = [_convs(b, (f"{name}.expand{k}x{k}", f"{name}.expand{k}x{k}_activation"), x, squeeze, 4 * squeeze, k) for k in (1, 3)]
    return b.op(name, "concat", parts, axis=1)


def _torchvision(b: Builder, width: int, kernel: int, pools: tuple[int, int]) -> None:
    x = b.op("features.1", "relu", b.conv("features.0", "input", 3, width, kernel, 2, 0, bias=True))
    x = b.max_pool("features.2", x, 3, 2, ceil_mode=True)
    inputs, i = width, 3
    for n, squeeze in enumerate(SQUEEZES):
        x = _fire(b, f"features.{i}", x, inputs, squeeze)
        inputs, i = 8 * squeeze, i + 1
        if n in pools:
            x = b.max_pool(f"features.{i}", x, 3, 2, ceil_mode=True)
            i += 1
    b.alias(features=x)
    x = b.op("classifier.2", "relu", b.conv("classifier.1", x, 512, ANY, 1, bias=True))
    b.alias(**{"classifier.3": b.global_pool("classifier", x)})


def _deep_compression(b: Builder) -> None:
    """Names conv1, fireN.s1, .e1, .e3 and final; the last convolution has a border of one cell."""
    x = b.op("relu1", "relu", b.conv("conv1", "input", 3, 96, 7, 2, 0, bias=True))
    x = b.max_pool("pool1", x, 3, 2, ceil_mode=True)
    inputs = 96
    for n, squeeze in enumerate(SQUEEZES, 2):
        name = f"fire{n}"
        x = _convs(b, (f"{name}.s1", f"{name}.s1_relu"), x, inputs, squeeze, 1)
        x = b.op(name, "concat", [_convs(b, (f"{name}.e{k}", f"{name}.e{k}_relu"), x, squeeze, 4 * squeeze, k) for k in (1, 3)], axis=1)
        inputs = 8 * squeeze
        if n in (4, 8):
            x = b.max_pool(f"pool{n}", x, 3, 2, ceil_mode=True)
    x = b.op("final_relu", "relu", b.conv("final", x, 512, ANY, 1, padding=1, bias=True))
    b.global_pool("pool_final", x)


ARCHITECTURES = [
    Architecture("squeezenet1_0", "SqueezeNet", lambda b: _torchvision(b, 96, 7, (2, 6)), (3, 224, 224), torchvision_preprocess()),
    Architecture("squeezenet1_1", "SqueezeNet", lambda b: _torchvision(b, 64, 3, (1, 3)), (3, 224, 224), torchvision_preprocess()),
    Architecture("squeezenet1_0_deep_compression", "SqueezeNet", _deep_compression, (3, 227, 227),
                 Preprocess(size=(227, 227), mode="BGR", scale=1.0, mean=(104.0, 117.0, 123.0))),
]
