"""AlexNet with the names of torchvision: the one-tower form.

Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014.
"""

from __future__ import annotations

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

# place, width, kernel, stride, padding
LAYERS = ((0, 64, 11, 4, 2), (3, 192, 5, 1, 2), (6, 384, 3, 1, 1), (8, 256, 3, 1, 1), (10, 256, 3, 1, 1))
POOLED = (0, 3, 10)                                   # layers that a maximum follows


def _alexnet(b: Builder) -> None:
    x, inputs = "input", 3
    for i, width, kernel, stride, padding in LAYERS:
        x = b.op(f"features.{i + 1}", "relu", b.conv(f"features.{i}", x, inputs, width, kernel, stride, padding, bias=True))
        x = b.max_pool(f"features.{i + 2}", x, 3, 2) if i in POOLED else x
        inputs = width
    x = b.op("flatten", "flatten", b.op("avgpool", "adaptive_avg_pool2d", x, size=(6, 6)), start=1)
    x = b.op("classifier.2", "relu", b.dense("classifier.1", x, 256 * 36, 4096))
    x = b.op("classifier.5", "relu", b.dense("classifier.4", x, 4096, 4096))
    x = b.dense("classifier.6", x, 4096, ANY)
    b.alias(**{"features": "features.12", "classifier": x, "classifier.0": "flatten", "classifier.3": "classifier.2"})


ARCHITECTURES = [Architecture("alexnet", "AlexNet", _alexnet, (3, 224, 224), torchvision_preprocess())]
