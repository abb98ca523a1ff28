"""Relevance maximisation and crops: against attribution sample by sample, over cuts, resumes and merges."""

from __future__ import annotations

import numpy as np
import pytest

import semanticlens as sl
from semanticlens import lens
from semanticlens.attribution import attribute
from semanticlens.data import ImageArray
from semanticlens.lens.crops import blur, crop_box, on_picture
from semanticlens.nn import Network, Node
from semanticlens.nn.preprocess import Preprocess

N, K = 23, 5


def network():
    rng = np.random.default_rng(0)
    nodes = [
        Node("conv", "conv2d", ("input",), {"weight": "w"}, {"stride": (2, 2)}),
        Node("bend", "relu", ("conv",)),
        Node("last", "conv2d", ("bend",), {"weight": "v"}),
        Node("mean", "mean", ("last",), attrs={"axes": [2, 3], "keepdims": False}),
        Node("head", "dense", ("mean",), {"weight": "fc"}),
    ]
    params = {"w": rng.standard_normal((K, 3, 3, 3)), "v": rng.standard_normal((4, K, 3, 3)), "fc": rng.standard_normal((3, 4))}
    return Network(
        nodes,
        {key: value.astype(np.float32) for key, value in params.items()},
        input_shape=(3, 13, 13),
        name="tiny",
        preprocess=Preprocess(size=(13, 13), resize="stretch", mean=(0.5,) * 3, std=(0.25,) * 3),
    )


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return ImageArray(
        rng.integers(0, 256, (N, 13, 13, 3), dtype=np.uint8), labels=rng.integers(0, 3, N), class_names=["a", "b", "c"]
    )


def options(**more):
    return {"layers": ["conv", "last"], "score": "relevance", "top": 4, "batch_size": 5, **more}


def same(a, b):
    for name in a:
        for key in ("ids", "scores", "counts", "positions", "class_scores"):
            assert getattr(a[name], key).tobytes() == getattr(b[name], key).tobytes(), (name, key)


@pytest.mark.parametrize("pool", ["auto", "max", "sum+abs_norm"])
def test_equals_attribution_one_by_one(net, images, pool):
    found = sl.collect(net, images, **options(pool=pool, composite="epsilon_plus"))
    for layer in ("conv", "last"):
        scores, places = [], []
        for i in range(N):
            x = net.preprocess(images[i])[None]
            r = attribute(net, x, int(images.labels[i]), composite="epsilon_plus", record=layer)[layer][0]
            space = r.reshape(len(r), -1).astype(np.float64)
            value = space.max(axis=1) if pool == "max" else space.sum(axis=1)
            scores.append(value / (np.abs(value).sum() + 1e-10) if pool == "sum+abs_norm" else value)
            places.append(space.argmax(axis=1))
        best = np.argsort(-np.array(scores), axis=0, kind="stable")[:4].T
        np.testing.assert_array_equal(found[layer].ids, best)
        np.testing.assert_allclose(found[layer].scores, np.take_along_axis(np.array(scores).T, best, 1), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found[layer].positions, np.take_along_axis(np.array(places).T, best, 1))
    assert found.record["parameters"]["score"]["kind"] == "relevance"
    assert found["conv"].pool == {"auto": "sum"}.get(pool, pool)


def test_saved_merged_and_threads(net, images, tmp_path):
    whole = sl.collect(net, images, **options())
    whole.save(tmp_path / "examples.safetensors")
    same(sl.ConceptExamples.load(tmp_path / "examples.safetensors"), whole)
    parts = [sl.collect(net, images, **options(shard=shard)) for shard in ((15, 23), (0, 5), (5, 15))]
    same(parts[0].merge(*parts[1:]), whole)
    for n_threads in (2, 3):
        same(sl.collect(net, images, **options(n_threads=n_threads)), whole)
    assert whole["conv"].to_dict()["positions"] == whole["conv"].positions.tolist()


def test_targets_are_classes_of_the_network(net, images):
    """Not of the data set: its names may be others, and fewer."""
    named = ImageArray(np.stack([np.asarray(images[i]) for i in range(N)]), labels=np.zeros(N, int), class_names=["only"])
    found = sl.collect(net, named, **options(targets=images.labels))
    whole = sl.collect(net, images, **options())
    np.testing.assert_array_equal(found["conv"].ids, whole["conv"].ids)
    assert len(found["conv"].class_scores) == 1


def test_activations_have_no_positions(net, images):
    found = sl.collect(net, images, layers=["conv"], top=4)
    assert found["conv"].positions is None
    assert "score" not in found.record["parameters"]


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_run_resumes_in_the_same_bytes(net, images, tmp_path, monkeypatch, stop):
    from semanticlens.lens.relevance import RelevanceSource

    sl.collect(net, images, **options()).save(tmp_path / "whole.safetensors")
    original, calls = RelevanceSource.values, []

    def failing(self, ids, x):
        calls.append(1)
        if len(calls) == stop + 1:
            raise KeyboardInterrupt
        return original(self, ids, x)

    monkeypatch.setattr(RelevanceSource, "values", failing)
    file = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        sl.collect(net, images, **options(checkpoint=file, checkpoint_every=0))
    monkeypatch.undo()
    with pytest.raises(sl.MismatchError, match="score"):
        sl.collect(net, images, **options(checkpoint=file, composite="epsilon"))
    with pytest.raises(sl.MismatchError, match="targets"):
        sl.collect(net, images, **options(checkpoint=file, targets=np.zeros(N, int)))
    sl.collect(net, images, **options(checkpoint=file)).save(tmp_path / "resumed.safetensors")
    assert (tmp_path / "resumed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"score": "gradient"}, ValueError, "score='gradient': must be 'activation' or 'relevance'"),
        ({"score": "activation", "targets": [0] * N}, ValueError, "targets is for score='relevance'"),
        ({"targets": [-1] * N}, sl.DataError, "23 of 23 have none or another"),
        ({"targets": [3] * N}, sl.DataError, "explains a class of every picture, 0 to 2: 23 of 23"),
        ({"targets": [0, -1] + [0] * (N - 2)}, sl.DataError, "1 of 23 have none or another"),
        ({"targets": [0]}, sl.DataError, r"targets must be whole numbers of shape \(23,\)"),
        ({"composite": "none"}, ValueError, "composite 'none' is not known"),
    ],
)
def test_bad_input(net, images, more, error, message):
    with pytest.raises(error, match=message):
        sl.collect(net, images, **options(**more))


def test_activations_have_no_relevance(net, images):
    with pytest.raises(ValueError, match="walks back through a network"):
        sl.collect([(np.arange(2), {"a": np.ones((2, 3), np.float32)})], score="relevance", targets=[0, 1])
    unlabelled = ImageArray(np.zeros((2, 13, 13, 3), np.uint8))
    with pytest.raises(ValueError, match="needs the class to explain"):
        sl.collect(net, unlabelled, ["conv"], score="relevance")


# ------------------------------------------------------------ crops


def test_blur_by_hand():
    """A point far from the borders becomes the kernel; a constant stays; borders are mirrored without repeating the last value."""
    heat = np.zeros((61, 61))
    heat[30, 30] = 1
    sigma = 0.3 * ((9 - 1) / 2 - 1) + 0.8
    weights = np.exp(-0.5 * (np.arange(-4, 5) / sigma) ** 2)
    weights /= weights.sum()
    np.testing.assert_allclose(blur(heat, 9)[26:35, 26:35], np.outer(weights, weights), atol=1e-15)
    np.testing.assert_allclose(blur(np.ones((30, 40)), 51), 1, atol=1e-12)
    row = np.arange(12.0)[None].repeat(12, 0)
    padded = np.pad(row, 2, mode="reflect")
    weights = np.exp(-0.5 * (np.arange(-2, 3) / 1.1) ** 2)
    weights /= weights.sum()
    expected = np.array([np.convolve(line, weights, "valid") for line in padded[2:-2]])
    np.testing.assert_allclose(blur(row, 5), expected, atol=1e-12)


def test_boxes_are_inclusive_square_and_inside():
    heat = np.zeros((20, 30))
    heat[4:7, 10:17] = -1
    assert crop_box(heat, kernel=1) == (2, 10, 9, 17)  # 3 x 7: two rows more on each side; row 6 and column 16 are in it
    heat = np.zeros((20, 30))
    heat[18:20, 3:9] = 1
    assert crop_box(heat, kernel=1) == (14, 3, 20, 9)  # moved inside
    heat = np.zeros((20, 30))
    heat[5, :] = 1
    assert crop_box(heat, kernel=1) == (0, 0, 20, 30)  # wider than the picture is high
    assert crop_box(np.zeros((60, 60))) == (0, 0, 60, 60)
    heat = np.zeros((20, 30))
    heat[3, 4] = 1e-30
    assert crop_box(heat, kernel=1) == (3, 4, 4, 5)
    heat[10, 10] = 2e-29
    assert crop_box(heat, kernel=1, threshold=0.1) == (10, 10, 11, 11)


@pytest.mark.parametrize(
    ("heat", "more", "message"),
    [
        (np.zeros((9, 9)), {}, "pass at most kernel=17"),
        (np.zeros((9, 9)), {"kernel": 4}, "kernel=4: must be an odd"),
        (np.zeros(9), {}, "must have the shape"),
        (np.zeros((9, 9)), {"kernel": 3, "threshold": 1.0}, "threshold=1.0"),
        (np.full((9, 9), np.nan), {"kernel": 3}, "NaN or infinite"),
    ],
)
def test_bad_heat_maps(heat, more, message):
    with pytest.raises(ValueError, match=message):
        crop_box(heat, **more)


def test_boxes_on_the_picture():
    assert on_picture((0, 0, 10, 10), (40, 20), Preprocess(size=(10, 10), resize="stretch")) == (0, 0, 40, 20)
    crop = Preprocess(size=(10, 10), resize="crop", short=20)  # 40 x 20 stays; the middle 10 x 10 is at (15, 5)
    assert on_picture((2, 3, 4, 6), (40, 20), crop) == (18, 7, 21, 9)
    assert on_picture((2, 3, 4, 6), (80, 40), crop) == (36, 14, 42, 18)
    assert on_picture((2, 3, 4, 6), (10, 10), Preprocess(size=(10, 10), resize="none")) == (3, 2, 6, 4)


@pytest.mark.parametrize("score", ["relevance", "activation"])
def test_crops_hold_the_receptive_field(net, images, score):
    """From one position of the first layer, only its 3 x 3 receptive field is in the box."""
    found = sl.collect(net, images, **options(score=score, layers=["conv"]))["conv"]
    made = lens.crops(net, images, found, [3, 1], top=2, kernel=1, composite="epsilon", threshold=0.0, keep_heatmaps=True)
    np.testing.assert_array_equal(made.ids, found.ids[[3, 1], :2])
    assert made.heatmaps.shape == (2, 2, 13, 13)
    for row, k in enumerate((3, 1)):
        for i in range(2):
            x = net.preprocess(images[int(made.ids[row, i])])[None]
            top, left = np.unravel_index(made.positions[row, i], (6, 6))
            if score == "relevance":
                assert made.positions[row, i] == found.positions[k, i]
            else:
                assert made.positions[row, i] == net.run(x, record=["conv"])["conv"][0, k].argmax()
            np.testing.assert_array_equal(made.boxes[row, i], [2 * top, 2 * left, 2 * top + 3, 2 * left + 3])
            window = x[0, :, 2 * top : 2 * top + 3, 2 * left : 2 * left + 3] * net.params["w"][k]
            heat = made.heatmaps[row, i][2 * top : 2 * top + 3, 2 * left : 2 * left + 3]
            np.testing.assert_allclose(heat, window.sum(axis=0), rtol=1e-3, atol=1e-4)
    assert made.picture(images, net.preprocess, 0, 0).size == (3, 3)
    whole = lens.crops(net, images, found, [3], top=1, kernel=1, whole_map=True)
    assert (whole.boxes[0, 0, 2:] - whole.boxes[0, 0, :2] > 3).all()
    with pytest.raises(ValueError, match="components must lie between 0 and 4"):
        lens.crops(net, images, found, [5], kernel=1)
