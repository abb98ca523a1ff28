"""DenseNet with the names of torchvision; older files write ``norm.1`` for ``norm1``.

Huang et al., Densely Connected Convolutional Networks, CVPR 2017.
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

SIZES = {121: (32, (6, 12, 24, 16), 64), 161: (48, (6, 12, 36, 24), 96), 169: (32, (6, 12, 32, 32), 64),
         201: (32, (6, 12, 48, 32), 64)}              # growth, layers of each block, stem
OLD = ((r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)\.", r"\1\2."),)


def _layer(b: Builder, at: str, parts: list[str], inputs: int, growth: int) -> str:
    x = parts[0] if len(parts) == 1 else b.op(f"{at}.joined", "concat", parts, axis=1)
    x = b.op(f"{at}.relu1", "relu", b.norm(f"{at}.norm1", x, inputs))
    x = b.norm(f"{at}.norm2", b.conv(f"{at}.conv1", x, inputs, 4 * growth, 1), 4 * growth)
    x = b.conv(f"{at}.conv2", b.op(f"{at}.relu2", "relu", x), 4 * growth, growth, 3)
    b.alias(**{at: x})
    return x


def _densenet(b: Builder, growth: int, blocks: tuple[int, ...], stem: int) -> None:
    x = b.norm("features.norm0", b.conv("features.conv0", "input", 3, stem, 7, 2), stem)
    x, width = b.max_pool("features.pool0", b.op("features.relu0", "relu", x), 3, 2, 1), stem
    for n, count in enumerate(blocks, 1):
        parts = [x]
        for i in range(1, count + 1):
            parts.append(_layer(b, f"features.denseblock{n}.denselayer{i}", parts, width, growth))
            width += growth
        x = b.op(f"features.denseblock{n}", "concat", parts, axis=1)
        if n < len(blocks):
            at = f"features.transition{n}"
            x = b.op(f"{at}.relu", "relu", b.norm(f"{at}.norm", x, width))
            x, width = b.conv(f"{at}.conv", x, width, width // 2, 1), width // 2
            x = b.op(f"{at}.pool", "avg_pool2d", x, kernel=(2, 2), stride=(2, 2))
            b.alias(**{at: x})
    x = b.norm("features.norm5", x, width)
    b.alias(features=x)
    b.dense("classifier", b.global_pool("avgpool", b.op("relu", "relu", x)), width, ANY)


ARCHITECTURES = [Architecture(f"densenet{n}", "DenseNet", partial(_densenet, growth=growth, blocks=blocks, stem=stem), (3, 224, 224),
                              torchvision_preprocess(), renames=OLD) for n, (growth, blocks, stem) in SIZES.items()]
