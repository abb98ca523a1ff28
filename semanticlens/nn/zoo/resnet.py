"""ResNet 18 to 152, Wide ResNet and ResNeXt, with the names of torchvision (the stride of a bottleneck is in its 3x3 convolution).

He et al., Deep Residual Learning for Image Recognition, CVPR 2016; Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016; Xie et al.,
Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017.
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess


def _basic(b: Builder, name: str, x: str, inputs: int, width: int, stride: int) -> str:
    y = b.norm(f"{name}.bn1", b.conv(f"{name}.conv1", x, inputs, width, 3, stride), width)
    y = b.op(f"{name}.relu1", "relu", y)
    return b.norm(f"{name}.bn2", b.conv(f"{name}.conv2", y, width, width, 3), width)


def _bottleneck(b: Builder, name: str, x: str, inputs: int, width: int, stride: int, inner: int, groups: int) -> str:
    y = b.norm(f"{name}.bn1", b.conv(f"{name}.conv1", x, inputs, inner, 1), inner)
    y = b.op(f"{name}.relu1", "relu", y)
    y = b.norm(f"{name}.bn2", b.conv(f"{name}.conv2", y, inner, inner, 3, stride, groups=groups), inner)
    y = b.op(f"{name}.relu2", "relu", y)
    return b.norm(f"{name}.bn3", b.conv(f"{name}.conv3", y, inner, 4 * width, 1), 4 * width)


def _resnet(b: Builder, blocks: tuple[int, ...], bottleneck: bool, group_width: int = 64, groups: int = 1) -> None:
    x = b.op("relu", "relu", b.norm("bn1", b.conv("conv1", "input", 3, 64, 7, 2), 64))
    x = b.max_pool("maxpool", x, 3, 2, 1)
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        outputs = 4 * width if bottleneck else width
        for i in range(count):
            name, stride = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            if bottleneck:
                y = _bottleneck(b, name, x, inputs, width, stride, width * group_width // 64 * groups, groups)
            else:
                y = _basic(b, name, x, inputs, width, stride)
            if stride != 1 or inputs != outputs:
                x = b.norm(f"{name}.downsample.1", b.conv(f"{name}.downsample.0", x, inputs, outputs, 1, stride), outputs)
                b.alias(**{f"{name}.downsample": x})
            x = b.op(name, "relu", b.op(f"{name}.add", "add", (y, x)))
            b.alias(**{f"{name}.relu": x})
            inputs = outputs
        b.alias(**{f"layer{stage + 1}": x})
    x = b.op("avgpool", "adaptive_avg_pool2d", x, size=(1, 1))
    b.dense("fc", b.op("flatten", "flatten", x, start=1), inputs, ANY)


_DEEP = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_DEFINITIONS = {
    "resnet18": partial(_resnet, blocks=(2, 2, 2, 2), bottleneck=False),
    "resnet34": partial(_resnet, blocks=(3, 4, 6, 3), bottleneck=False),
    **{f"resnet{n}": partial(_resnet, blocks=blocks, bottleneck=True) for n, blocks in _DEEP.items()},
    **{f"wide_resnet{n}_2": partial(_resnet, blocks=_DEEP[n], bottleneck=True, group_width=128) for n in (50, 101)},
    "resnext50_32x4d": partial(_resnet, blocks=_DEEP[50], bottleneck=True, group_width=4, groups=32),
    "resnext101_32x8d": partial(_resnet, blocks=_DEEP[101], bottleneck=True, group_width=8, groups=32),
    "resnext101_64x4d": partial(_resnet, blocks=_DEEP[101], bottleneck=True, group_width=4, groups=64),
}
ARCHITECTURES = [Architecture(name, "ResNet", define, (3, 224, 224), torchvision_preprocess()) for name, define in _DEFINITIONS.items()]
