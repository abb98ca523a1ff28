"""Crops in the concept database: what the encoder sees is the part of each picture that the component looks at."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from test_relevance_examples import images, net, options  # noqa: F401
from zoo_states import random_state

import semanticlens as sl
from semanticlens import lens
from semanticlens._errors import ConceptWarning, DataError, MismatchError, ModelFileError
from semanticlens.data import ImageArray
from semanticlens.encoders import Arrays
from semanticlens.lens.boxes import check_boxes, cut, distinct
from semanticlens.lens.database import ConceptDB
from semanticlens.nn import zoo
from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.zoo import vit
from semanticlens.nn.zoo.builder import Architecture

CROPS = {"kernel": 3, "threshold": 0.2, "composite": "epsilon"}


class Colours:
    """An encoder that counts what it sees: mean and spread of each colour, and the size."""

    name, dim, fingerprint = "colours", 8, "cd" * 32

    def __init__(self):
        self.seen = []

    def encode_images(self, pictures):
        self.seen += pictures
        rows = [np.asarray(p, np.float32).reshape(-1, 3) for p in pictures]
        return np.stack(
            [np.r_[r.mean(0), r.std(0), p.size].astype(np.float32) for r, p in zip(rows, pictures, strict=True)]
        )

    def encode_texts(self, texts):
        return np.ones((len(texts), 8), np.float32)


@pytest.fixture(scope="module")
def found(net, images):  # noqa: F811
    return sl.collect(net, images, **options(crops=CROPS))


def test_examples_carry_the_boxes_of_crops(net, images, found):  # noqa: F811
    for name in found:
        made = lens.crops(net, images, found[name], **CROPS)
        own = found[name].boxes
        assert own.dtype == np.float32
        assert own.shape == (*found[name].ids.shape, 4)
        for k, i in np.ndindex(found[name].ids.shape):
            whole = images[int(found[name].ids[k, i])]
            expected = made.picture(images, net.preprocess, k, i)
            assert cut(whole, own[k, i]).tobytes() == expected.tobytes()
    assert found.record["parameters"]["crops"] == {
        "kernel": 3,
        "threshold": 0.2,
        "composite": "epsilon",
        "whole_map": False,
    }


def test_the_encoder_sees_each_crop_once(images, found):  # noqa: F811
    encoder = Colours()
    db = ConceptDB.build(found, images, encoder, thumbnails=16)
    ids, boxes, rows = distinct(found)
    assert len(encoder.seen) == len(ids) == len(db.embeddings)
    assert len({(int(i), *b.tolist()) for i, b in zip(ids, boxes, strict=True)}) == len(ids)
    for name in db:
        np.testing.assert_array_equal(db.rows(name), rows[name])
        for k, i in np.ndindex(db[name].ids.shape):
            part = cut(images[int(found[name].ids[k, i])], found[name].boxes[k, i])
            np.testing.assert_array_equal(db.embeddings[db.rows(name)[k, i]], Colours().encode_images([part])[0])
            assert db.example(name, k, i).tobytes() == part.tobytes()
        live = ~db[name].dead
        np.testing.assert_allclose(db[name].vectors[live], db.embeddings[db.rows(name)].mean(axis=1)[live], rtol=1e-6)
    whole = ConceptDB.build(
        sl.ConceptExamples({n: dataclasses.replace(e, boxes=None) for n, e in found.items()}, found.record),
        images,
        Colours(),
    )
    assert not np.allclose(whole["conv"].vectors, db["conv"].vectors)
    assert np.isfinite(db.scores()["conv"].clarity[~db["conv"].dead]).all()


def test_files_keep_the_crops(tmp_path, images, found):  # noqa: F811
    found.save(tmp_path / "examples")
    again = sl.ConceptExamples.load(tmp_path / "examples")
    np.testing.assert_array_equal(again["last"].boxes, found["last"].boxes)
    assert again.to_dict() == found.to_dict()
    db = ConceptDB.build(again, images, Colours(), thumbnails=16)
    db.save(tmp_path / "a.sldb")
    loaded = ConceptDB.load(tmp_path / "a.sldb")
    np.testing.assert_array_equal(loaded.rows("conv"), db.rows("conv"))
    assert loaded.example("conv", 0, 0).size <= (13, 13), "without the pictures, a part of the small copy"
    loaded.save(tmp_path / "b.sldb")
    assert (tmp_path / "a.sldb").read_bytes() == (tmp_path / "b.sldb").read_bytes()
    for page in (db.search("x")._repr_html_(), db.card("conv", 0).image):
        assert page
    db.report(tmp_path / "r.html")
    with pytest.raises(IndexError, match="no component 0 with an example 99"):
        db.example("conv", 0, 99)


def test_a_damaged_file_is_refused(tmp_path, images, found):  # noqa: F811
    db = ConceptDB.build(found, images, Colours(), thumbnails=0)
    own = db["conv"]
    for key, value in (("rows", own.rows + 1000), ("boxes", own.boxes + 1)):
        broken = ConceptDB(
            {**{n: db[n] for n in db}, "conv": dataclasses.replace(own, **{key: value})}, db._arrays, db.record
        )
        broken.save(tmp_path / "x.sldb")
        with pytest.raises(ModelFileError, match=key):
            ConceptDB.load(tmp_path / "x.sldb")


def test_merging_databases_and_examples(net, images, found):  # noqa: F811
    whole = ConceptDB.build(found, images, Colours(), thumbnails=16)
    parts = [
        ConceptDB.build(sl.ConceptExamples({n: found[n]}, found.record), images, Colours(), thumbnails=16)
        for n in found
    ]
    both = parts[0].merge(parts[1])
    for name in found:
        np.testing.assert_array_equal(both[name].vectors, whole[name].vectors)
        np.testing.assert_array_equal(both.embeddings[both.rows(name)], whole.embeddings[whole.rows(name)])
    plain = ConceptDB.build(
        sl.ConceptExamples({"last": dataclasses.replace(found["last"], boxes=None)}, found.record),
        images,
        Colours(),
        thumbnails=16,
    )
    with pytest.raises(MismatchError, match="different settings"):
        parts[0].merge(plain)
    shards = [sl.collect(net, images, **options(crops=CROPS, shard=part)) for part in ((0, 11), (11, len(images)))]
    joined = shards[0].merge(shards[1])
    for name in found:
        np.testing.assert_array_equal(joined[name].ids, found[name].ids)
        np.testing.assert_allclose(joined[name].boxes, found[name].boxes)


def test_an_interrupted_pass_goes_on(tmp_path, net, images, found, monkeypatch):  # noqa: F811
    state = tmp_path / "state"
    calls = {"n": 0}
    real = lens.crops.__globals__["_heatmaps"]

    def stopping(*args):
        calls["n"] += 1
        if calls["n"] == 7:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setitem(lens.crops.__globals__, "_heatmaps", stopping)
    with pytest.raises(KeyboardInterrupt):
        sl.collect(net, images, checkpoint=state, **options(crops=CROPS))
    made = sl.collect(net, images, checkpoint=state, **options(crops=CROPS))
    pictures = sum(len(np.unique(found[name].ids)) for name in found)
    assert calls["n"] == pictures + 1, "pictures that were done are not done again"
    for name in found:
        np.testing.assert_array_equal(made[name].boxes, found[name].boxes)
    assert [p.name for p in tmp_path.iterdir()] == ["state"], "the states of the crops are gone"
    lens.crops(net, images, found["conv"], checkpoint=tmp_path / "c", **CROPS)
    with pytest.raises(MismatchError, match="kernel was 3, now 5"):
        lens.crops(net, images, found["conv"], checkpoint=tmp_path / "c", **{**CROPS, "kernel": 5})


def test_bad_input(net, images, found):  # noqa: F811
    for more, message in (
        ({"crops": 3}, "crops=3: must be True, False or a mapping"),
        ({"crops": {"size": 3}}, "crops has no option 'size'"),
        ({"crops": {"kernel": 4}}, "kernel=4: must be an odd"),
        ({"crops": True}, "pass at most kernel=25"),
        ({"crops": CROPS, "transform": lambda p: np.zeros((3, 13, 13), np.float32)}, "pass a Preprocess"),
    ):
        with pytest.raises(ValueError, match=message):
            sl.collect(net, images, **options(**more))
    with pytest.raises(ValueError, match="not activations"):
        sl.collect([(np.arange(2), {"a": np.ones((2, 3), np.float32)})], crops=True)
    vectors = Arrays(images=np.ones((len(images), 4), np.float32), name="given")
    with pytest.raises(DataError, match="vectors of whole pictures"):
        ConceptDB.build(found, images, vectors)
    mixed = {"conv": found["conv"], "last": dataclasses.replace(found["last"], boxes=None)}
    with pytest.raises(DataError, match="'conv' has crops and layer 'last' has none"):
        ConceptDB.build(sl.ConceptExamples(mixed, found.record), images, Colours())
    ids = np.zeros((1, 1), np.int64)
    for box in ([0.5, 0, 0.5, 1], [-0.1, 0, 1, 1], [np.nan] * 4):
        with pytest.raises(ValueError, match="empty or outside"):
            check_boxes(np.array([[box]], np.float32), ids, "boxes")


def test_crops_of_a_vision_transformer(monkeypatch):
    """A token of the first layer sees its patch and nothing else; deeper layers give vectors of what their tokens look at."""
    arch = Architecture(
        "tiny_vit",
        "ViT",
        partial(vit._timm, dim=16, heads=2, depth=1, patch=32),
        (3, 224, 224),
        Preprocess(size=(224, 224), resize="stretch", mean=(0.5,) * 3, std=(0.25,) * 3),
    )
    monkeypatch.setitem(zoo._ARCHITECTURES, "tiny_vit", arch)
    transformer = arch.build(random_state("tiny_vit", classes=3))
    pictures = ImageArray(np.random.default_rng(3).integers(0, 256, (4, 56, 112, 3), dtype=np.uint8))
    found = sl.collect(
        transformer,
        pictures,
        ["patches"],
        top=2,
        pool="max",
        crops={"composite": "attn_lrp", "kernel": 1, "threshold": 0.0},
    )
    made = lens.crops(transformer, pictures, found["patches"], composite="attn_lrp", kernel=1, threshold=0.0)
    for k, i in np.ndindex(made.ids.shape):
        row, column = divmod(int(made.positions[k, i]), 7)
        np.testing.assert_array_equal(made.boxes[k, i], [32 * row, 32 * column, 32 * row + 32, 32 * column + 32])
        expected = np.array([column, row, column + 1, row + 1]) / 7
        np.testing.assert_allclose(found["patches"].boxes[k, i], expected, atol=1e-6)
    with pytest.warns(ConceptWarning, match="never above 0"):
        deep = sl.collect(
            transformer, pictures, ["blocks.0"], top=2, crops={"composite": "attn_lrp", "kernel": 31, "threshold": 0.2}
        )
    db = ConceptDB.build(deep, pictures, Colours(), thumbnails=0)
    assert np.isfinite(db["blocks.0"].vectors[~db["blocks.0"].dead]).all()
