"""VGG 11, 13, 16 and 19, plain and with batch normalisation, with the names of torchvision.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015 (table 1: columns A, B, D, E).
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


def _vgg(b: Builder, depths: tuple[int, ...], norm: bool) -> None:
    x, inputs, i = "input", 3, 0
    for width, depth in zip(WIDTHS, depths, strict=True):
        for _ in range(depth):
            x = b.conv(f"features.{i}", x, inputs, width, 3, bias=True)
            if norm:
                x = b.norm(f"features.{i + 1}", x, width)
            i, inputs = i + 2 + norm, width
            x = b.op(f"features.{i - 1}", "relu", x)
        x = b.max_pool(f"features.{i}", x, 2, 2)
        i += 1
    b.alias(features=x)
    x = b.op("avgpool", "adaptive_avg_pool2d", x, size=(7, 7))
    x = b.op("flatten", "flatten", x, start=1)
    x = b.op("classifier.1", "relu", b.dense("classifier.0", x, 512 * 49, 4096))
    x = b.op("classifier.4", "relu", b.dense("classifier.3", x, 4096, 4096))
    x = b.dense("classifier.6", x, 4096, ANY)
    b.alias(**{"classifier.2": "classifier.1", "classifier.5": "classifier.4", "classifier": x})        # dropout does nothing here


ARCHITECTURES = [Architecture(f"vgg{n}{'_bn' if norm else ''}", "VGG", partial(_vgg, depths=depths, norm=norm), (3, 224, 224),
                              torchvision_preprocess()) for n, depths in DEPTHS.items() for norm in (False, True)]
