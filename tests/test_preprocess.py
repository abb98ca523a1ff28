"""From a picture to numbers: against the formula, and (peers) against torchvision's transforms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import semanticlens as sl
from semanticlens.nn import Preprocess
from semanticlens.nn import preprocess as preprocess_module

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def test_the_formula() -> None:
    image = picture(8, 6)
    got = Preprocess(size=(6, 8), resize="none", mean=MEAN, std=STD)(image)
    want = ((np.asarray(image) / 255 - MEAN) / STD).transpose(2, 0, 1)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert got.shape == (3, 6, 8)
    assert np.abs(got - want).max() < 1e-6
    raw = Preprocess(size=(6, 8), resize="none", scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)(image)
    assert np.array_equal(raw, ((np.asarray(image, np.float32) - 127) / 128).transpose(2, 0, 1))


def test_channels() -> None:
    image = picture(5, 5)
    settings = {"size": (5, 5), "resize": "none"}
    rgb = Preprocess(**settings)(image)
    assert np.array_equal(Preprocess(**settings, mode="BGR")(image), rgb[::-1])
    grey = Preprocess(**settings, mode="L", mean=(0.5,), std=(2.0,))
    assert grey(image).shape == (1, 5, 5)
    assert np.allclose(grey(image)[0], (np.asarray(image.convert("L")) / 255 - 0.5) / 2, atol=1e-6)
    for mode in ("RGBA", "L", "P", "CMYK", "1", "LA"):
        assert np.array_equal(
            Preprocess(**settings)(
                image.convert("RGB").convert("L").convert(mode) if mode in ("L", "1", "LA") else image.convert(mode)
            ).shape,
            (3, 5, 5),
        )


def test_arrays_are_pictures() -> None:
    image, prepare = picture(40, 30), Preprocess(size=(8, 8), short=10)
    array = np.asarray(image)
    assert np.array_equal(prepare(array), prepare(image))
    assert np.array_equal(prepare(array[:, ::-1]), prepare(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    grey = np.asarray(image.convert("L"))
    assert np.array_equal(prepare(grey[:, :, None]), prepare(grey))


def test_the_picture_that_the_network_sees() -> None:
    seen = Preprocess(size=(20, 24), short=32).picture(picture(100, 64))
    assert (seen.width, seen.height, seen.mode) == (24, 20, "RGB")


def test_settings_survive_json() -> None:
    for prepare in (
        Preprocess(),
        Preprocess((7, 9), "stretch", None, "bicubic", "BGR", 1.0, (1, 2, 3), (4, 5, 6)),
        Preprocess((5, 5), mode="L", mean=(0.5,), std=(0.5,), short=6),
    ):
        assert Preprocess.from_dict(json.loads(json.dumps(prepare.to_dict()))) == prepare
        assert hash(Preprocess.from_dict(prepare.to_dict())) == hash(prepare)
    assert "short side to 224, centre crop, bilinear" in str(Preprocess())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"resize": "fit"}, "resize must be one of crop, stretch, none, not 'fit'"),
        ({"interpolation": "lanczos"}, "interpolation must be one of"),
        ({"mode": []}, "mode must be one of"),
        ({"size": (0, 5)}, "size and short must be whole numbers from 1"),
        ({"size": (5.0, 5)}, "size and short"),
        ({"size": 224}, "size and short"),
        ({"short": 100}, "short=100 must be at least the larger of size"),
        ({"short": True}, "size and short"),
        ({"scale": 0.0}, "scale must be 1 finite positive number"),
        ({"scale": float("inf")}, "scale"),
        ({"mean": (0.5,)}, "mean must be 3 finite numbers"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean must be 3 finite numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be 3 finite positive numbers"),
        ({"std": "abc"}, "std must be"),
        ({"mode": "L"}, "mean must be 1 finite number,"),
    ],
)
def test_wrong_settings(change: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Preprocess(**change)
    with pytest.raises(sl.ModelFileError, match=f"preprocess: {text}"):
        Preprocess.from_dict({**Preprocess().to_dict(), **change})


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((4, 4, 3)), "uint8 array .* not float64 of shape"),
        (np.zeros((4, 4, 2), np.uint8), "not uint8 of shape"),
        (np.zeros((0, 4, 3), np.uint8), "not uint8 of shape"),
        (np.zeros((3,), np.uint8), "not uint8 of shape"),
        ("picture.png", "a picture must be a PIL image"),
        (Image.new("RGB", (0, 5)), "the picture is empty"),
    ],
)
def test_wrong_pictures(image: object, text: str) -> None:
    with pytest.raises(sl.DataError, match=text):
        Preprocess()(image)  # type: ignore[arg-type]


def test_a_picture_of_another_size() -> None:
    with pytest.raises(sl.DataError, match="the picture is 40 x 30, the network takes 224 x 224"):
        Preprocess(resize="none")(picture(40, 30))


def test_a_ribbon_is_not_blown_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaling it whole would take 100 MB times 3; scaling its middle gives the same."""
    ribbon, prepare = picture(20, 4000), Preprocess(size=(224, 224), short=256, scale=1.0)
    whole = prepare(ribbon)
    part = prepare.picture(picture(2, 60_000)).size
    assert part == (224, 224)
    monkeypatch.setattr(preprocess_module, "_MAX_PIXELS", 0)
    assert np.abs(prepare(ribbon) - whole).max() <= 1.0


def test_extreme_shapes() -> None:
    prepare = Preprocess(size=(8, 8), short=9)
    for size in ((1, 1), (1, 200), (200, 1), (8, 8), (9, 9), (3, 4000)):
        assert prepare(picture(*size)).shape == (3, 8, 8)


@pytest.mark.peers
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("size", "short"), [((224, 224), 256), ((64, 48), 80), ((33, 33), 33)])
def test_equals_torchvision(interpolation: str, size: tuple[int, int], short: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    mode = transforms.InterpolationMode(interpolation)
    theirs = transforms.Compose(
        [
            transforms.Resize(short, mode),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    ours = Preprocess(size=size, short=short, interpolation=interpolation, mean=MEAN, std=STD)  # type: ignore[arg-type]
    for i, shape in enumerate([(300, 200), (200, 301), (257, 255), (256, 256), (97, 511), (640, 427), (33, 34)]):
        image = picture(*shape, seed=i)
        assert np.abs(ours(image) - theirs(image).numpy()).max() < 1e-5, shape
    stretch = transforms.Compose(
        [transforms.Resize(size, mode), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    ours = Preprocess(size=size, resize="stretch", interpolation=interpolation, mean=MEAN, std=STD)  # type: ignore[arg-type]
    assert np.abs(ours(picture(301, 77)) - stretch(picture(301, 77)).numpy()).max() < 1e-5
