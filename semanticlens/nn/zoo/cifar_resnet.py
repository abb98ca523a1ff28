"""CIFAR-10 ResNets 20 to 1202 with parameter-free shortcuts, with the names of the widely used PyTorch reimplementation.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2, option A: where the shape changes, the shortcut takes every
second pixel and pads the channels with zeros, half of them on either side.
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.zoo.builder import ANY, IMAGENET_MEAN, IMAGENET_STD, Architecture, Builder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _block(b: Builder, name: str, x: str, inputs: int, width: int, stride: int) -> str:
    y = b.op(f"{name}.relu1", "relu", b.norm(f"{name}.bn1", b.conv(f"{name}.conv1", x, inputs, width, 3, stride), width))
    y = b.norm(f"{name}.bn2", b.conv(f"{name}.conv2", y, width, width, 3), width)
    if stride != 1:
        x = b.op(f"{name}.shortcut.slice", "slice2d", x, stride=(2, 2))
        x = b.op(f"{name}.shortcut", "pad", x, padding=(0, 0, 0, 0), channels=(width // 4, width // 4))
    return b.op(name, "relu", b.op(f"{name}.add", "add", (y, x)))


def _cifar_resnet(b: Builder, count: int) -> None:
    x = b.op("relu", "relu", b.norm("bn1", b.conv("conv1", "input", 3, 16, 3), 16))
    inputs = 16
    for stage, width in enumerate((16, 32, 64)):
        for i in range(count):
            x = _block(b, f"layer{stage + 1}.{i}", x, inputs, width, 2 if stage and not i else 1)
            inputs = width
        b.alias(**{f"layer{stage + 1}": x})
    b.dense("linear", b.global_pool("avgpool", x), 64, ANY)


_PREPROCESS = Preprocess(size=(32, 32), mean=IMAGENET_MEAN, std=IMAGENET_STD)
ARCHITECTURES = [Architecture(f"cifar_resnet{6 * count + 2}", "CIFAR ResNet", partial(_cifar_resnet, count=count), (3, 32, 32),
                              _PREPROCESS, CLASSES) for count in (3, 5, 7, 9, 18, 200)]
