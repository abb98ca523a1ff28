"""Features of the same places: independence of batches, equal places at any layer and network, pooling, tokens, files, messages."""

from __future__ import annotations

import numpy as np
import pytest

from semanticlens import DataError, LayerNotFoundError, ModelFileError, data
from semanticlens.alignment import Features, features
from semanticlens.alignment.features import draw_places
from semanticlens.nn.graph import Node
from semanticlens.nn.network import Network
from semanticlens.nn.preprocess import Preprocess

CONV = {"stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}


def network(seed: int = 0, size: int = 16) -> Network:
    rng = np.random.default_rng(seed)
    params = {"w": rng.standard_normal((5, 3, 3, 3)).astype(np.float32), "v": rng.standard_normal((4, 5)).astype(np.float32)}
    nodes = [
        Node("conv", "conv2d", ("input",), {"weight": "w"}, CONV),
        Node("relu", "relu", ("conv",), {}, {}),
        Node("pool", "mean", ("relu",), {}, {"axes": [2, 3], "keepdims": False}),
        Node("fc", "dense", ("pool",), {"weight": "v"}, {}),
    ]
    return Network(
        nodes,
        params,
        input_shape=(3, size, size),
        name=f"net{seed}",
        preprocess=Preprocess(size=(size, size), resize="stretch", short=None),
    )


def pictures(n: int = 11, size: int = 20) -> data.ImageArray:
    return data.ImageArray(np.random.default_rng(1).integers(0, 256, (n, size, size, 3), dtype=np.uint8), name="noise")


def maps(n: int, side: int, channels: int = 2) -> np.ndarray:
    """Feature maps whose values are the row and the column of the place, as shares of the side."""
    grid = (np.arange(side) + 0.5) / side
    one = np.stack([np.repeat(grid[:, None], side, 1), np.repeat(grid[None], side, 0)])[:channels]
    return np.repeat(one[None], n, 0).astype(np.float32)


def test_rows_do_not_depend_on_batches_or_threads() -> None:
    a = features(network(), pictures(), ["relu", "fc"], batch_size=4, n_threads=1)
    b = features(network(), pictures(), ["relu", "fc"], batch_size=11, n_threads=2)
    assert list(a) == ["relu", "fc"]
    assert a["relu"].shape == (11, 5)
    assert a["fc"].shape == (11, 4)
    assert np.array_equal(a.sample_ids, np.arange(11))
    for layer in a:
        assert a[layer].tobytes() == b[layer].tobytes()
    assert a.record["network"]["name"] == "net0"
    assert a.record["data"]["length"] == 11


def test_rows_are_values_of_the_network() -> None:
    net, images = network(), pictures(3)
    x = np.stack([net.preprocess(images[i]) for i in range(3)])
    values = net.run(x, record=["relu"])["relu"]
    found = features(net, images, "relu", seed=4)
    place = (found.places * 16).astype(int)
    for i in range(3):
        assert found["relu"][i] == pytest.approx(values[i, :, place[i, 0], place[i, 1]], abs=1e-6)
    mean = features(net, images, ["relu"], tokens="mean")
    assert mean["relu"] == pytest.approx(values.mean(axis=(2, 3)), abs=1e-5)
    assert np.isnan(mean.places).all()


def test_the_same_places_whatever_the_grid_and_the_network() -> None:
    ids = np.arange(40)
    found = features([(ids, {"fine": maps(40, 56), "coarse": maps(40, 7)})], per_image=2, where="uniform", seed=3)
    assert np.array_equal(found.sample_ids, np.repeat(ids, 2))
    assert np.abs(found["fine"] - found.places).max() <= 0.5 / 56 + 1e-6
    assert np.abs(found["coarse"] - found.places).max() <= 0.5 / 7 + 1e-6
    other = features([(ids[20:], {"x": maps(20, 14)}), (ids[:20], {"x": maps(20, 14)})], per_image=2, where="uniform", seed=3)
    assert np.array_equal(other.places, found.places)
    assert not np.array_equal(features([(ids, {"x": maps(40, 14)})], per_image=2, where="uniform", seed=4).places, found.places)


def test_places_differ_between_pictures_and_lie_around_the_middle() -> None:
    places = draw_places(np.arange(2000), 1)[:, 0]
    assert np.abs(places.mean(axis=0) - 0.5).max() < 0.02
    assert np.abs(places.std(axis=0) - 0.1).max() < 0.02
    assert len(np.unique(places[:, 0])) > 1990
    assert ((places >= 0) & (places < 1)).all()


def test_pooling_is_the_mean_of_a_window() -> None:
    x = np.random.default_rng(0).standard_normal((6, 3, 14, 14)).astype(np.float32)
    found = features([(np.arange(6), {"x": x})], pool=4)
    corner = (found.places * 11).astype(int)
    for i, (top, left) in enumerate(corner):
        assert found["x"][i] == pytest.approx(x[i, :, top : top + 4, left : left + 4].mean(axis=(1, 2)), abs=1e-6)
    assert features([(np.arange(6), {"x": x})], pool=1.0)["x"] == pytest.approx(x.mean(axis=(2, 3)), abs=1e-6)
    assert features([(np.arange(6), {"x": x})], pool=99)["x"] == pytest.approx(x.mean(axis=(2, 3)), abs=1e-6)


def test_tokens_of_a_transformer() -> None:
    patches = maps(5, 14, 2).reshape(5, 2, 196).transpose(0, 2, 1)
    special = np.full((5, 3, 2), 9.0, np.float32)
    tokens = np.concatenate([special, patches], axis=1)
    found = features([(np.arange(5), {"x": tokens})])
    assert np.abs(found["x"] - found.places).max() <= 0.5 / 14 + 1e-6
    assert (features([(np.arange(5), {"x": tokens})], tokens="class")["x"] == 9).all()
    assert features([(np.arange(5), {"x": tokens})], tokens="mean")["x"] == pytest.approx(tokens.mean(axis=1), abs=1e-5)


def test_a_file_brings_everything_back(tmp_path) -> None:
    found = features(network(), pictures(), ["relu", "fc"])
    found.save(tmp_path / "f.safetensors")
    again = Features.load(tmp_path / "f.safetensors")
    assert list(again) == ["relu", "fc"]
    assert all(np.array_equal(again[layer], found[layer]) for layer in found)
    assert np.array_equal(again.sample_ids, found.sample_ids)
    assert np.array_equal(again.places, found.places)
    assert again.record == found.record
    network().save(tmp_path / "net.safetensors")
    with pytest.raises(ModelFileError, match="does not hold features"):
        Features.load(tmp_path / "net.safetensors")


def test_pictures_that_cannot_be_used_are_skipped_and_listed(tmp_path) -> None:
    for i in range(3):
        pictures(3)[i].save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    folder = data.ImageFolder(tmp_path)
    found = features(network(), folder, ["fc"], on_error="skip")
    assert found.sample_ids.tolist() == [0, 2]
    assert found.skipped[0][0] == 1
    with pytest.raises(DataError, match=r"1\.png"):
        features(network(), folder, ["fc"])


@pytest.mark.parametrize(("options", "message"), [
    ({"tokens": "all"}, "tokens='all'"), ({"pool": 0}, "pool=0"), ({"pool": 1.5}, "pool=1.5"), ({"pool": True}, "pool=True"),
    ({"per_image": 0}, "per_image=0"), ({"where": "left"}, "where='left'"),
])  # fmt: skip
def test_arguments(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        features(network(), pictures(), ["relu"], **options)


def test_messages() -> None:
    ids, x = np.arange(4), maps(4, 4)
    with pytest.raises(DataError, match="per_image=2 must be 1"):
        features(network(), pictures(), ["fc"], per_image=2)
    with pytest.raises(DataError, match="no class token"):
        features(network(), pictures(), ["relu"], tokens="class")
    with pytest.raises(LayerNotFoundError, match="'reluu'"):
        features(network(), pictures(), ["reluu"])
    with pytest.raises(ValueError, match="images=None"):
        features(network())
    with pytest.raises(DataError, match="NaN or infinite activations for picture 2"):
        features([(ids, {"x": np.where(np.arange(4)[:, None] == 2, np.nan, 1).astype(np.float32)})])
    with pytest.raises(DataError, match="comes twice"):
        features([(ids, {"x": x}), (ids, {"x": x})])
    with pytest.raises(DataError, match="no batch"):
        features([])
    with pytest.raises(DataError, match="missing in some batches"):
        features([(ids, {"x": x, "y": x}), (ids + 4, {"x": x})])
    with pytest.raises(DataError, match="square grid"):
        features([(ids, {"x": np.zeros((4, 190, 3), np.float32)})])
    with pytest.raises(DataError, match="float64"):
        features([(ids, {"x": x.astype(np.float64)})])
