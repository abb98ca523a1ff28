"""Collecting concept examples: from a network and from batches, against sorting; shards, class statistics, bad input."""

import os
import signal
import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest

import semanticlens as sl
from semanticlens import ConceptExamples, DataError, LayerNotFoundError, MismatchError, ModelFileError
from semanticlens._errors import ConceptWarning, SkippedDataWarning
from semanticlens._reference import collect as twin
from semanticlens.data import ImageArray, ImageFolder, batches
from semanticlens.lens import Pooling, pooling, special_token
from semanticlens.lens.idset import IdSet
from semanticlens.nn.network import Network, Node
from semanticlens.nn.preprocess import Preprocess

N, CLASSES = 41, 3


def network(**options):
    rng = np.random.default_rng(0)
    nodes = [
        Node("conv", "conv2d", ("input",), {"weight": "w"}, {}),
        Node("bend", "relu", ("conv",), {}, {}),
        Node("mean", "mean", ("bend",), {}, {"axes": [2, 3], "keepdims": False}),
        Node("head", "dense", ("mean",), {"weight": "fc"}, {}),
    ]
    params = {"w": rng.standard_normal((7, 3, 3, 3)).astype(np.float32), "fc": rng.random((4, 7), dtype=np.float32)}
    return Network(
        nodes,
        params,
        input_shape=(3, 12, 12),
        name="tiny",
        aliases={"features.0": "conv"},
        preprocess=Preprocess(size=(12, 12), resize="stretch", mean=(0.5,) * 3, std=(0.25,) * 3),
        **options,
    )


def pictures(n=N, labels=True):
    rng = np.random.default_rng(1)
    return ImageArray(
        rng.integers(0, 256, (n, 12, 12, 3), dtype=np.uint8),
        labels=rng.integers(-1, CLASSES, n) if labels else None,
        class_names=["ant", "bee", "cat"] if labels else None,
        name="noise",
    )


def activations(net, images, layers, batch_size=8):
    for ids, x in batches(images, net.preprocess, batch_size=batch_size):
        yield ids, net.run(x, record=layers)


def same_layers(a, b):
    assert list(a) == list(b)
    for name in a:
        for key in ("ids", "scores", "counts", "nan_counts"):
            assert getattr(a[name], key).tobytes() == getattr(b[name], key).tobytes(), (name, key)
        assert a[name].n_samples == b[name].n_samples
        if a[name].class_scores is not None or b[name].class_scores is not None:
            assert a[name].class_scores.tobytes() == b[name].class_scores.tobytes()


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def images():
    return pictures()


@pytest.fixture(scope="module")
def examples(net, images):
    return sl.collect(net, images, layers=["conv", "bend", "head"], top=6, class_top=4)


# ---------------------------------------------------------------- the result


def test_equals_pooling_by_hand_and_sorting(net, images, examples):
    x = np.stack([net.preprocess(image) for image in images])
    for name, a in net.run(x, record=["conv", "bend", "head"]).items():
        pooled = a.mean(axis=(2, 3), dtype=np.float64).astype(np.float32) if a.ndim == 4 else a
        scores, ids, nan_counts = twin.top_m(pooled, np.arange(N), 6)
        np.testing.assert_array_equal(examples[name].ids, ids)
        np.testing.assert_allclose(examples[name].scores, scores, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(examples[name].nan_counts, nan_counts)
        np.testing.assert_allclose(
            examples[name].class_scores, twin.class_top(pooled, images.labels, CLASSES, 4), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_batches_and_threads_do_not_matter(net, images, examples, batch_size, n_threads):
    got = sl.collect(
        net, images, layers=["conv", "bend", "head"], top=6, class_top=4, batch_size=batch_size, n_threads=n_threads
    )
    same_layers(got, examples)


def test_an_iterator_gives_the_same_database(net, images, examples, tmp_path):
    made_of = {"network": {"name": net.name, "fingerprint": net.fingerprint}}
    got = sl.collect(activations(net, images, ["conv", "bend", "head"]), images, top=6, class_top=4, record=made_of)
    same_layers(got, examples)
    assert got.record["network"] == examples.record["network"]
    assert got.record["data"] == examples.record["data"]
    arrays_only = sl.collect(
        activations(net, images, ["head", "conv"]), layers=["conv"], labels=images.labels, top=6, class_top=4
    )
    same_layers(arrays_only, {"conv": examples["conv"]})
    assert arrays_only.class_names == ("class 0", "class 1", "class 2")


def test_batches_in_another_order_give_the_same(net, images, examples):
    shuffled = list(activations(net, images, ["conv", "bend", "head"], 5))[::-1]
    same_layers(sl.collect(shuffled, images, top=6, class_top=4), examples)


def test_the_network_runs_once_per_batch(images):
    net = network()
    calls = []
    run = net.run
    net.run = lambda x, record, **options: calls.append((len(x), tuple(record))) or run(x, record, **options)
    sl.collect(net, images, layers=["conv", "bend"], top=3, batch_size=20)
    assert calls == [(20, ("conv", "bend")), (20, ("conv", "bend")), (1, ("conv", "bend"))]


def test_aliases_and_a_single_name(net, images, examples):
    got = sl.collect(net, images, layers="features.0", top=6, class_top=4)
    assert list(got) == ["features.0"]
    np.testing.assert_array_equal(got["features.0"].ids, examples["conv"].ids)


def test_record_and_texts(net, images, examples):
    record = examples.record
    assert record["network"] == {"name": "tiny", "fingerprint": net.fingerprint}
    assert record["data"] == {"name": "noise", "fingerprint": images.fingerprint, "length": N}
    assert record["samples"] == [[0, N]]
    assert record["layers"] == ["conv", "bend", "head"]
    assert record["parameters"]["top"] == 6
    assert record["parameters"]["pool"] == {"conv": "auto", "bend": "auto", "head": "auto"}
    assert examples.class_names == ("ant", "bee", "cat")
    assert examples.n_samples == N
    assert "'tiny' on 'noise', 41 samples" in repr(examples)
    assert (
        repr(examples["conv"])
        == "LayerExamples('conv', 7 components ("
        + f"{examples['conv'].dead.sum()} dead), top 6 of 41 samples, pool auto, 3 classes)"
    )
    assert "<table" in examples._repr_html_()
    assert "<table" in examples["conv"]._repr_html_()
    data = examples.to_dict()
    assert data["layers"]["conv"]["ids"] == examples["conv"].ids.tolist()
    assert "conv" in examples
    assert "nothing" not in examples
    with pytest.raises(LayerNotFoundError, match="layer 'convv' is not in these concept examples; nearest: conv"):
        examples["convv"]
    with pytest.raises(ValueError, match="read-only"):
        examples["conv"].scores[0, 0] = 1
    with pytest.raises(AttributeError):
        examples.layers = {}


def test_class_statistics(examples):
    layer = examples["bend"]
    expected = np.stack([np.where(np.isinf(s), np.nan, s) for s in layer.class_scores])
    np.testing.assert_allclose(layer.class_affinity, np.nanmean(expected, axis=2).T, rtol=1e-6)
    classes, affinity = layer.top_classes(2)
    assert classes.shape == affinity.shape == (7, 2)
    for k in range(7):
        assert affinity[k, 0] == np.nanmax(layer.class_affinity[k])
        assert classes[k, 0] == np.nanargmax(layer.class_affinity[k])
    alive = ~layer.dead
    assert (layer.top_classes(9, relative=True)[1][alive, 0] == 1).all()
    with pytest.raises(ValueError, match="n=0"):
        layer.top_classes(0)


def test_a_class_without_samples_is_undefined():
    batch = [(np.arange(3), {"a": np.array([[1.0], [2.0], [np.nan]], np.float32)})]
    with pytest.warns(SkippedDataWarning):
        got = sl.collect(batch, labels=[0, 0, 2], top=2, class_top=2)["a"]
    assert got.class_affinity[0, 0] == 1.5
    assert np.isnan(got.class_affinity[0, 1:]).all()
    classes, affinity = got.top_classes(3)
    assert classes.tolist() == [[0, -1, -1]]
    assert np.isnan(affinity[0, 1:]).all()


def test_labels_can_be_left_out(net, images):
    got = sl.collect(net, images, layers="conv", top=2, labels=False)["conv"]
    assert got.class_scores is None
    assert got.class_affinity is None
    with pytest.raises(ValueError, match="'conv' has no class statistics: collect with labels"):
        got.top_classes()


def test_dead_components_and_positive_only():
    batch = [(np.arange(4), {"a": np.array([[0, 1, -1], [0, 2, -2], [0, -3, 0], [0, 0, 3]], np.float32)})]
    with pytest.warns(ConceptWarning, match=r"never above 0: 1 of 3 in layer 'a' \(see .dead\)"):
        plain = sl.collect(batch, top=2)["a"]
    assert plain.dead.tolist() == [True, False, False]
    assert plain.ids.tolist() == [[0, 1], [1, 0], [3, 2]]
    with pytest.warns(ConceptWarning, match="never above 0"):
        positive = sl.collect(batch, top=2, positive_only=True)["a"]
    assert positive.ids.tolist() == [[-1, -1], [1, 0], [3, -1]]
    assert positive.counts.tolist() == [0, 2, 1]


def test_warnings_come_once_each():
    values = np.array([[np.nan, 1.0], [1.0, 2.0]], np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = sl.collect([(np.array([i]), {"a": values[i : i + 1], "b": values[i : i + 1]}) for i in range(2)], top=5)
    texts = [str(w.message) for w in caught]
    assert len(texts) == 2
    assert texts[0].startswith("NaN activations were left out: 1 in layer 'a', 1 in layer 'b'")
    assert texts[1] == "only 2 samples for top=5: the lists end with id -1"
    assert got["a"].nan_counts.tolist() == [1, 0]
    assert got["a"].ids.tolist() == [[1, -1, -1, -1, -1], [1, 0, -1, -1, -1]]


# ---------------------------------------------------------------- files and merging


def test_saved_examples_are_read_back(examples, tmp_path):
    examples.save(tmp_path / "x.examples")
    got = ConceptExamples.load(tmp_path / "x.examples")
    same_layers(got, examples)
    assert got.record == examples.record
    got.save(tmp_path / "y.examples")
    assert (tmp_path / "x.examples").read_bytes() == (tmp_path / "y.examples").read_bytes()


def test_damaged_files_are_refused(examples, tmp_path):
    path = tmp_path / "x.examples"
    examples.save(path)
    whole = path.read_bytes()
    for at in (len(whole) - 3, len(whole) // 2, whole.index(b"noise")):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ModelFileError, match=r"x\.examples"):
            ConceptExamples.load(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(ModelFileError, match="truncated"):
        ConceptExamples.load(path)
    sl.io.write_tensors(path, {"a": np.zeros(3)})
    with pytest.raises(ModelFileError, match="this file holds 'plain tensors', not concept examples"):
        ConceptExamples.load(path)


def test_a_record_that_does_not_fit_its_arrays(examples, tmp_path):
    from semanticlens.lens import examples as module

    arrays = {
        "conv/ids": np.zeros((2, 3), np.int64),
        "conv/scores": np.zeros((2, 3), np.float32),
        "conv/counts": np.full(2, 3),
        "conv/nan_counts": np.zeros(2, np.int64),
    }
    record = {**examples.record, "layers": ["conv"]}

    def write(record, **changes):
        chosen = {**arrays, **changes}
        text = module.dump_record(record)
        sl.io.write_tensors(
            tmp_path / "x",
            chosen,
            {"format": module.FORMAT, "schema": module.SCHEMA, "record": text, "sha256": module.digest(text, chosen)},
        )
        return ConceptExamples.load(tmp_path / "x")

    assert list(write(record)) == ["conv"]
    for wrong in (
        {**record, "layers": ["conv", "none"]},
        {**record, "layers": 3},
        {k: v for k, v in record.items() if k != "skipped"},
        {**record, "samples": 1},
        {**record, "parameters": {}},
    ):
        with pytest.raises(ModelFileError, match="does not describe its arrays"):
            write(wrong)
    for changes in (
        {"conv/ids": np.full((2, 3), -2)},
        {"conv/counts": np.zeros(2, np.int64)},
        {"conv/scores": np.zeros((2, 3))},
        {"conv/ids": np.zeros((3, 3), np.int64)},
        {"conv/class_scores": np.zeros((1, 3, 1), np.float32)},
    ):
        with pytest.raises(ModelFileError, match="does not describe its arrays"):
            write(record, **changes)


def test_shards_merge_to_the_whole(net, images, examples, tmp_path):
    options = {"layers": ["conv", "bend", "head"], "top": 6, "class_top": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConceptWarning)
        a, b, c = (sl.collect(net, images, shard=shard, **options) for shard in [(0, 3), (3, 20), (20, N)])
    assert a.n_samples == 3
    whole = a.merge(b, c)
    same_layers(whole, examples)
    whole.save(tmp_path / "a")
    c.merge(b).merge(a).save(tmp_path / "b")
    examples.save(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    with pytest.raises(MismatchError, match=r"samples 0-2 and 0-2 overlap, they would count twice"):
        a.merge(a)


def test_what_cannot_be_merged(net, images):
    def part(shard, net=net, images=images, **options):
        return sl.collect(net, images, **{"layers": "conv", "top": 2, "shard": shard, **options})

    first = part((0, 20))
    for other, message in [
        (part((20, N), top=3), "parameters is .* in one and .* in the other"),
        (part((20, N), layers="bend"), "layers is"),
        (part((20, 41), images=pictures(60)), "data is"),
        (part((20, N), labels=False), "labels is|parameters is"),
    ]:
        with pytest.raises(MismatchError, match=message):
            first.merge(other)


# ---------------------------------------------------------------- pooling


def test_every_pooling():
    rng = np.random.default_rng(0)
    conv, tokens, flat = (rng.standard_normal(shape).astype(np.float32) for shape in [(2, 5, 3, 4), (2, 6, 5), (2, 5)])
    expected = {
        "conv_mean": conv.mean((2, 3)),
        "conv_max": conv.max((2, 3)),
        "conv_sum": conv.sum((2, 3)),
        "conv_absmean": np.abs(conv).mean((2, 3)),
        "conv_absmax": np.abs(conv).max((2, 3)),
        "transformer_mean": tokens.mean(1),
        "transformer_max": tokens.max(1),
        "transformer_sum": tokens.sum(1),
        "transformer_absmean": np.abs(tokens).mean(1),
        "transformer_absmax": np.abs(tokens).max(1),
        "special_token": tokens[:, 0],
        "special_token:2": tokens[:, 2],
        "special_token:-1": tokens[:, -1],
        "none": flat,
    }
    for name, value in expected.items():
        x = conv if name.startswith("conv") else flat if name == "none" else tokens
        got = pooling(name)(x)
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-6)
        assert got.dtype == np.float32
        assert got.flags.c_contiguous
        assert pooling(pooling(name).name) == pooling(name)
    for kind in ("mean", "max", "sum", "absmean", "absmax"):
        np.testing.assert_array_equal(pooling(kind)(conv), pooling(f"conv_{kind}")(conv))
        np.testing.assert_array_equal(pooling(kind)(tokens), pooling(f"transformer_{kind}")(tokens))
        np.testing.assert_array_equal(pooling(kind)(flat), np.abs(flat) if kind.startswith("abs") else flat)
    for x, kind in ((conv, "conv_mean"), (tokens, "transformer_mean"), (flat, "none")):
        np.testing.assert_array_equal(pooling("auto")(x), pooling(kind)(x))
    assert special_token(3) == pooling("special_token:3")


def test_sum_and_mean_rank_alike_and_abs_norm_sums_to_one():
    x = np.random.default_rng(1).standard_normal((30, 4, 5, 5)).astype(np.float32)
    mean, total = pooling("conv_mean")(x), pooling("conv_sum")(x)
    assert np.array_equal(np.argsort(mean, axis=0), np.argsort(total, axis=0))
    np.testing.assert_allclose(np.abs(pooling("conv_sum+abs_norm")(x)).sum(axis=1), 1, rtol=1e-6)
    assert not pooling("sum+abs_norm")(np.zeros((2, 3, 1, 1), np.float32)).any()
    assert pooling("conv_sum+abs_norm").name == "conv_sum+abs_norm"


def test_nan_at_one_position_is_nan():
    x = np.zeros((1, 2, 2, 2), np.float32)
    x[0, 1, 1, 0] = np.nan
    for kind in ("conv_mean", "conv_max", "conv_sum", "conv_absmean", "conv_absmax"):
        assert np.isnan(pooling(kind)(x)).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pooling("median"), ValueError, "pool='median' is unknown; there are auto, mean"),
        (lambda: pooling("conv_max:1"), ValueError, "takes no token"),
        (lambda: pooling("conv max"), ValueError, "unknown"),
        (lambda: pooling(3), TypeError, "pool must be a name or a Pooling, not int"),
        (
            lambda: Pooling("special_token", token=4)(np.zeros((1, 4, 2), np.float32)),
            DataError,
            "have 4 tokens; there is none at 4",
        ),
        (
            lambda: pooling("conv_mean")(np.zeros((1, 4, 2), np.float32)),
            DataError,
            r"\(1, 4, 2\), but pool='conv_mean' takes \(B, K, H, W\)",
        ),
        (lambda: pooling("transformer_max")(np.zeros((1, 4), np.float32)), DataError, r"takes \(B, T, K\)"),
        (lambda: pooling("none")(np.zeros((1, 4, 2, 2), np.float32)), DataError, r"takes \(B, K\)"),
        (lambda: pooling("auto")(np.zeros(3, np.float32)), DataError, r"shape \(3,\)"),
        (lambda: pooling("auto")(np.zeros((2, 3, 0, 4), np.float32)), DataError, "there is nothing to pool"),
        (
            lambda: pooling("auto")(np.zeros((2, 3)), layer="a"),
            TypeError,
            "activations of layer 'a' must be float32, not float64",
        ),
    ],
)
def test_bad_poolings_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_pool_by_layer(net, images):
    got = sl.collect(net, images, layers=["conv", "bend"], top=2, pool={"conv": "conv_max"})
    assert [got["conv"].pool, got["bend"].pool] == ["conv_max", "auto"]
    x = np.stack([net.preprocess(image) for image in images])
    np.testing.assert_array_equal(got["conv"].scores[:, 0], net.run(x, record=["conv"])["conv"].max(axis=(0, 2, 3)))


# ---------------------------------------------------------------- bad input


def batch(ids=(0, 1), values=((1.0, 2.0), (3.0, 4.0)), name="a"):
    return np.array(ids), {name: np.array(values, np.float32)}


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ([], {}, DataError, "the source gave no batches"),
        ([batch(ids=(0, 0))], {}, DataError, "sample id 0 comes twice in one batch"),
        (
            [batch(), batch(ids=(5, 1))],
            {},
            DataError,
            "sample id 1 comes twice: ids must be distinct over the whole run",
        ),
        ([batch(ids=(0, -1))], {}, DataError, "sample id -1 is negative"),
        ([batch(ids=(0.0, 1.0))], {}, DataError, "whole numbers .* not float64"),
        ([batch(ids=())], {}, DataError, "at least one"),
        ([batch(ids=(0, 1, 2))], {}, DataError, "activations of layer 'a' are for 2 samples, but the batch has 3 ids"),
        (
            [batch(), batch(ids=(2, 3), values=((1,), (2,)))],
            {},
            DataError,
            "have 1 components, but 2 in the batches before",
        ),
        (
            [batch(), batch(ids=(2, 3), name="b")],
            {},
            LayerNotFoundError,
            "layer 'a' is not in the batch of activations; nearest: b",
        ),
        ([batch()], {"layers": ["c"]}, LayerNotFoundError, "layer 'c' is not in the batch"),
        ([np.zeros((3, 3))], {}, DataError, r"must be a pair \(ids, \{layer: activations\}\)"),
        ([(np.arange(2), np.zeros((2, 2)))], {}, DataError, "its second part is ndarray"),
        (
            [(np.arange(2), {"a": np.zeros((2, 2))})],
            {},
            TypeError,
            "activations of layer 'a' must be float32, not float64",
        ),
        ([batch()], {"labels": [0]}, DataError, "sample id 1 has no label: labels has 1 entries"),
        ([batch()], {"labels": [0.5, 1]}, DataError, "labels must be whole numbers"),
        ([batch()], {"labels": [-2, 1]}, DataError, "labels must lie between -1"),
        ([batch()], {"transform": np.asarray}, ValueError, "transform and shard are for a network"),
        ([batch()], {"pool": {"a": "auto"}}, ValueError, "pool by layer needs layers="),
        ([batch()], {"pool": {"b": "auto"}, "layers": ["a"]}, LayerNotFoundError, "layer 'b' is not in layers="),
        ([batch()], {"top": 0}, ValueError, "top=0"),
        ([batch()], {"record": {"model": 1}}, ValueError, "may have the keys 'network' and 'data' only"),
    ],
)
def test_bad_sources_are_named(source, options, error, message):
    with pytest.raises(error, match=message):
        sl.collect(source, **options)


def test_bad_networks_and_pictures(net, images, tmp_path):
    with pytest.raises(ValueError, match="images=None: give the data set"):
        sl.collect(net, layers="conv")
    with pytest.raises(ValueError, match=r"layers=None: name the layers .* layers=\['head'\]"):
        sl.collect(net, images)
    with pytest.raises(LayerNotFoundError, match=r"layer 'cnv' .*nearest: conv"):
        sl.collect(net, images, layers=["conv", "cnv"])
    with pytest.raises(ValueError, match="named twice"):
        sl.collect(net, images, layers=["conv", "conv"])
    with pytest.raises(ValueError, match=r"shard=\(5, 99\): must be \(start, stop\)"):
        sl.collect(net, images, layers="conv", shard=(5, 99))
    bare = Network(net.nodes, net.params, input_shape=(3, 12, 12), name="bare")
    with pytest.raises(ValueError, match="network 'bare' does not say how pictures become its input: give transform="):
        sl.collect(bare, images, layers="conv")
    with pytest.raises(DataError, match="12 x 12 pixels, got 9 x 9"):
        sl.collect(net, images, layers="conv", transform=lambda image: np.zeros((3, 9, 9), np.float32))
    with pytest.raises(DataError, match="picture 0 of noise has values that are not finite"):
        sl.collect(net, images, layers="conv", transform=lambda image: np.full((3, 12, 12), np.nan, np.float32))
    got = sl.collect(bare, images, layers="conv", transform=net.preprocess, top=3)
    np.testing.assert_array_equal(got["conv"].ids, sl.collect(net, images, layers="conv", top=3)["conv"].ids)
    assert len(sl.collect(net, images, layers=[])) == 0


def test_nan_weights_are_counted_and_warned_about(images):
    net = network()
    weights = {"w": net.params["w"].copy(), "fc": net.params["fc"]}
    weights["w"][2] = np.nan
    net = Network(
        net.nodes, weights, input_shape=(3, 12, 12), name="broken", preprocess=net.preprocess, allow_nonfinite=True
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = sl.collect(net, images, layers="conv", top=3)["conv"]
    assert "41 in layer 'conv'; look for NaN in the network's weights" in str(caught[0].message)
    assert got.nan_counts.tolist() == [0, 0, 41, 0, 0, 0, 0]
    assert got.counts[2] == 0
    assert got.dead[2]


def test_pictures_that_cannot_be_read(net, tmp_path):
    for i, image in enumerate(pictures(12, labels=False)):
        image.save(tmp_path / f"{i:02}.png")
    for i in (3, 7):
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    images = ImageFolder(tmp_path)
    with pytest.raises(DataError, match=r"03.png: the file is empty"):
        sl.collect(net, images, layers="conv", top=2)
    with pytest.warns(SkippedDataWarning, match=r"2 pictures were left out, see .skipped; the first: .*03.png"):
        got = sl.collect(net, images, layers="conv", top=2, on_error="skip")
    assert [entry["id"] for entry in got.skipped] == [3, 7]
    assert got.record["samples"] == [[0, 3], [4, 7], [8, 12]]
    assert not np.isin([3, 7], got["conv"].ids).any()
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 12 pictures could be used; the first: .*00.png"):
        sl.collect(net, ImageFolder(tmp_path), layers="conv", on_error="skip")


def test_torch_like_tensors_are_taken():
    class Tensor:
        def __init__(self, values):
            self.values = values

        def detach(self):
            return self

        def cpu(self):
            return self

        def numpy(self):
            return self.values

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConceptWarning)
        got = sl.collect([(Tensor(np.arange(2)), {"a": Tensor(np.array([[1.0], [2.0]], np.float16))})], top=2)
    assert got["a"].ids.tolist() == [[1, 0]]


# ---------------------------------------------------------------- interruption


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_comes_between_batches(net, images, examples, tmp_path, sent):
    """A signal in the middle of counting a batch: the checkpoint holds whole batches, the next call ends like an undisturbed one."""
    options = {
        "layers": ["conv", "bend", "head"],
        "top": 6,
        "class_top": 4,
        "batch_size": 4,
        "checkpoint": tmp_path / "c",
    }
    from semanticlens._kernels.collect import TopM

    update, calls = TopM.update, []

    def interrupted(self, *args, **kwargs):
        update(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 8:  # the second layer of the third batch
            os.kill(os.getpid(), sent)

    def ends(*_):
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, ends)
    assert threading.current_thread() is threading.main_thread()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TopM, "update", interrupted)
        try:
            with pytest.raises(KeyboardInterrupt if sent == signal.SIGINT else SystemExit):
                sl.collect(net, images, **options)
            assert signal.getsignal(signal.SIGTERM) is ends
        finally:
            signal.signal(signal.SIGTERM, before)
    assert len(calls) == 9  # all layers of that batch were counted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    got = sl.collect(net, images, **options)
    same_layers(got, sl.collect(net, images, **{**options, "checkpoint": None}))
    same_layers(got, examples)


def test_id_sets():
    rng = np.random.default_rng(0)
    ids, expected = IdSet(), set()
    for chunk in np.array_split(rng.permutation(200)[:120], 9):
        ids.add(chunk)
        expected |= set(chunk.tolist())
        assert len(ids) == len(expected)
        assert [i in ids for i in range(-1, 201)] == [i in expected for i in range(-1, 201)]
        assert ids.contains(np.arange(-1, 201)).tolist() == [i in expected for i in range(-1, 201)]
        assert IdSet(ids.intervals).intervals == ids.intervals
    intervals = ids.intervals
    assert all(a[1] < b[0] for a, b in pairwise(intervals))
    assert IdSet([(0, 5)]).isdisjoint(IdSet([(5, 9)]))
    assert not IdSet([(0, 5)]).isdisjoint(IdSet([(4, 9)]))
    assert IdSet([(0, 5)]).union(IdSet([(5, 9)])).intervals == [[0, 9]]
    assert not IdSet().contains(np.arange(3)).any()
