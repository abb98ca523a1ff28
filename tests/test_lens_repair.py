"""Repair: what is taken out, and the proof of what that changed, on networks whose answers are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

import semanticlens as sl
from semanticlens import lens
from semanticlens._errors import DataError, LayerNotFoundError, MismatchError
from semanticlens.data import ImageArray
from semanticlens.demo.explore import load_network
from semanticlens.demo.pictures import generate, with_overlay
from semanticlens.lens.proof import BeforeAfter
from semanticlens.nn import Network, Node


def classifier() -> Network:
    """Three inputs, one hidden component each; input 2 is a shortcut to class 1."""
    nodes = [
        Node("hidden", "dense", ("input",), {"weight": "w"}),
        Node("bend", "relu", ("hidden",)),
        Node("out", "dense", ("bend",), {"weight": "v"}),
    ]
    params = {"w": np.eye(3, dtype=np.float32), "v": np.array([[1, 0, 0], [0, 1, 5]], np.float32)}
    return Network(nodes, params, input_shape=(3,), name="by hand", labels=["a", "b"])


X = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 1]], np.float32)
Y = np.array([0, 0, 1, 1, -1])


def test_before_and_after_by_hand():
    fix = lens.repair(classifier(), [("bend", 2)], images=X, labels=Y)
    found = fix.before_after()
    np.testing.assert_array_equal(found.before, [[[1, 1], [0, 2]]])
    np.testing.assert_array_equal(found.after, [[[2, 0], [0, 2]]])
    np.testing.assert_array_equal(found.flips, [[0, 1]])
    assert found.accuracy("all") == (0.75, 1.0)
    assert found.accuracy("all", without=["b"]) == (0.5, 1.0)
    assert found.pulled("all", "b") == (0.5, 0.0)
    assert found.lowered("all", 1) == 1.0
    assert found.recall("all", 1) == (1.0, 1.0)
    change, error = found.change("all")
    each = np.array([0, 1, 0, 0])
    assert change == 0.25
    assert error == pytest.approx(each.std(ddof=1) / 2)
    assert "all" in repr(found)
    assert "Before and after" in found._repr_html_()
    assert found.to_dict()["groups"][0]["accuracy_after"] == 1.0
    groups = {"clean": (X[[0, 2]], Y[[0, 2]]), "with": (X[[1, 3]], Y[[1, 3]])}
    assert fix.before_after(groups).accuracy("with") == (0.5, 1.0)


def test_the_repaired_network_is_saved_and_differs_in_one_component(tmp_path):
    net = classifier()
    fix = lens.repair(net, [("bend", 2)])
    fix.network.save(tmp_path / "repaired.safetensors")
    again = sl.load(tmp_path / "repaired.safetensors")
    values = again.run(X, record=["bend"])["bend"]
    assert not values[:, 2].any()
    np.testing.assert_array_equal(values[:, :2], net.run(X, record=["bend"])["bend"][:, :2])
    assert fix.to_dict()["repaired"]["fingerprint"] == again.fingerprint


def test_means_and_directions():
    net = classifier()
    mean = lens.repair(net, [("bend", 2)], how="mean", images=X)
    np.testing.assert_allclose(mean.network.run(X, record=["bend"])["bend"][:, 2], 0.6, rtol=1e-6)
    without, with_it = X.copy(), X.copy()
    without[:, 2], with_it[:, 2] = 0.25, 3
    every = [("bend", k) for k in range(3)]
    projected = lens.repair(net, every, how="project", pairs=(without, with_it))
    np.testing.assert_allclose(projected.directions["bend"], [0, 0, 1], atol=1e-12)
    got = projected.network.run(with_it, record=["bend"])["bend"]
    np.testing.assert_allclose(got, without, atol=1e-6)
    slanted = with_it + np.float32([0, 1, 0])
    part = lens.repair(net, [("bend", 1)], how="project", pairs=(without, slanted))
    np.testing.assert_allclose(part.directions["bend"], [0, 1, 0], atol=1e-12)
    both = lens.repair(net, every, how="project", pairs=(without, slanted))
    values = both.network.run(slanted, record=["bend"])["bend"]
    along = both.directions["bend"]
    np.testing.assert_allclose(values @ along, without.mean(axis=0) @ along, rtol=1e-5)


@pytest.fixture(scope="module")
def demo():
    net, pictures = load_network(), generate(600, 1_000_000)
    images = ImageArray(pictures.pixels, labels=pictures.codes("shape"), class_names=net.labels)
    examples = sl.collect(net, images, ["relu3", "relu4"], top=10, pool="max")
    return net, pictures, images, sl.ConceptDB.build(examples, images, sl.encoders.load("demo"), thumbnails=32)


def test_repair_of_the_demo_network(demo, tmp_path):
    """The components that answer to the mark are taken out: other classes are no longer called the moon, the rest stays."""
    net, pictures, images, db = demo
    clean, marked = (
        ImageArray(with_overlay(pictures, name).pixels, labels=images.labels) for name in ("none", "corner mark")
    )
    every = [("relu4", k) for k in range(net.layers["relu4"].shape[0])]
    moon = net.labels.index("moon")
    told = lens.answers(net, clean, marked, every, classes=[moon])
    found = [every[c] for c in np.flatnonzero((told.separation >= 0.75) & (told.through[:, 0] > 0.1))]
    fix = lens.repair(net, found, images=images)
    proof = fix.before_after({"without": clean, "with": marked})
    assert proof.pulled("with", "moon")[0] > 0.2
    assert proof.lowered("with", "moon") > 0.85
    before, after = proof.accuracy("without", without=["moon"])
    assert after > before - 0.02
    moved = fix.drift(db)
    assert moved.median() <= 0.02
    assert moved.layers["relu4"].repaired.sum() == len(found)
    assert moved.layers["relu4"].died[[k for _, k in found]].all()
    assert (moved.layers["relu3"].distance[np.isfinite(moved.layers["relu3"].distance)] < 1e-6).all(), (
        "layers before it stay"
    )
    assert moved.to_dict()["median"] == moved.median()
    page = fix.report(tmp_path / "r.html", before_after=proof, drift=moved, db=db, target="moon", name="<b>R</b>")
    text = page.read_text()
    assert "&lt;b&gt;R&lt;/b&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    for part in (
        "Taken out",
        "Pictures of other classes that are called moon",
        "What else moved",
        "What taking out cannot do",
    ):
        assert part in text


def test_drift_of_nothing_is_nothing(demo):
    net, _, _, db = demo
    same = lens.repair(net, [("relu4", 0)], how="mean", images=np.zeros((1, 3, 64, 64), np.float32))
    moved = lens.proof.drift(net, db, [])
    assert moved.median() == 0
    assert (moved.layers["relu4"].kept[~db["relu4"].dead] == 1).all()
    with pytest.raises(MismatchError, match="is not the one the database was made from"):
        lens.repair(same.network, [("relu4", 0)]).drift(db)


def test_bad_input(demo):
    net = classifier()
    for more, message in (
        ({"components": []}, "components is empty"),
        ({"components": [("bend", 3)]}, "has components 0 to 2"),
        ({"components": [("bend", 1)], "how": "unlearn"}, "how='unlearn': must be one of"),
        ({"components": [("bend", 1)], "how": "mean"}, "pass images="),
        ({"components": [("bend", 1)], "how": "project"}, "needs pairs="),
        ({"components": [("bend", 1)], "how": "project", "pairs": (X, X[:2])}, "are no pairs"),
        ({"components": [("bend", 1)], "how": "project", "pairs": (X, X)}, "no direction to project out"),
    ):
        with pytest.raises(ValueError, match=message):
            lens.repair(net, **more)
    with pytest.raises(LayerNotFoundError):
        lens.repair(net, [("nowhere", 0)])
    fix = lens.repair(net, [("bend", 2)])
    for groups, message in (
        (None, "pass groups="),
        ({}, "groups is empty"),
        ({"g": (X[:0], Y[:0])}, "group 'g' has no pictures"),
        ({"g": (X, None)}, "group 'g' has no labels"),
        ({"g": (X, np.full(5, 7))}, "the network has classes 0 to 1"),
    ):
        with pytest.raises(DataError if "classes" not in message else MismatchError, match=message):
            fix.before_after(groups)
    bare = sl.ConceptDB(
        dict(demo[3]), demo[3]._arrays, {**demo[3].record, "encoder": {**demo[3].record["encoder"], "name": "other"}}
    )
    with pytest.raises(DataError, match="attach"):
        lens.repair(demo[0], [("relu4", 0)]).drift(bare)
    empty = BeforeAfter(
        groups=("g",),
        before=np.zeros((1, 2, 2), np.int64),
        after=np.zeros((1, 2, 2), np.int64),
        flips=np.zeros((1, 2), np.int64),
    )
    assert np.isnan(empty.lowered("g", 0))
    with pytest.raises(KeyError, match="no group 'x'"):
        empty.accuracy("x")
