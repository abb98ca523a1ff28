"""Comparisons: similarities, shared and unique concepts on vectors whose relations are planted."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import planted_concepts as planted
import pytest
import small_database

from semanticlens import data, encoders
from semanticlens._errors import DataError, LayerNotFoundError, MismatchError
from semanticlens.encoders import Arrays
from semanticlens.lens import Comparison, ConceptDB, collect, compare
from semanticlens.lens.scores import set_similarity
from semanticlens.lens.sides import resampled

V = planted.directions(12, 24)


def made(a: Any, b: Any, **options: Any) -> Comparison:
    counts = options.pop("counts", None)
    return compare(*planted.databases(a, b, counts=counts), **{"resamples": 50, **options})


def test_a_set_equals_itself_and_any_order_of_it() -> None:
    order = np.random.default_rng(3).permutation(12)
    c = made(V, V[order], threshold=0.99)
    assert (c.there.value, c.back.value, c.symmetric.value) == pytest.approx((1, 1, 1), abs=1e-6)
    assert c.counts("a") == c.counts("b") == {"shared": 12, "covered": 0, "unique": 0}
    assert {(m.component, m.other) for m in c.pairs()} == {(int(k), j) for j, k in enumerate(order)}
    assert c.there.lower == pytest.approx(1, abs=1e-6)  # nothing to vary


def test_a_superset_holds_all_of_a_set_and_not_the_reverse() -> None:
    c = made(V[:5], V[[7, 2, 4, 0, 1, 3, 9]], threshold=0.9)
    assert c.there.value == pytest.approx(1, abs=1e-6)
    assert c.back.value == pytest.approx(5 / 7, abs=1e-6)  # the two others are orthogonal to all of A
    assert c.symmetric.value == pytest.approx((1 + 5 / 7) / 2, abs=1e-6)
    assert c.counts("b") == {"shared": 5, "covered": 0, "unique": 2}
    assert sorted(m.component for m in c.unique("b")) == [0, 6]
    assert c.unique("a") == []
    assert c.shares("b")["unique"].value == pytest.approx(2 / 7)
    assert 0 <= c.shares("b")["unique"].lower <= 2 / 7 <= c.shares("b")["unique"].upper


def test_rotation_of_both_changes_nothing_and_of_one_changes_all() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((30, 8)).astype(np.float32), rng.standard_normal((20, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0].astype(np.float32)
    plain, turned, one = made(a, b), made(a @ turn, b @ turn), made(a, a @ turn)
    assert turned.there.value == pytest.approx(plain.there.value, abs=1e-6)
    np.testing.assert_array_equal(turned.a.match, plain.a.match)
    assert one.there.value < 0.95
    assert plain.there.value == pytest.approx(set_similarity(a, b), abs=1e-7)
    assert plain.back.value == pytest.approx(set_similarity(b, a), abs=1e-7)
    scaled = made(a * rng.uniform(0.1, 9, (30, 1)).astype(np.float32), b)
    np.testing.assert_allclose(scaled.a.best, plain.a.best, atol=1e-6)


def test_every_component_is_one_of_three_and_left_out_ones_are_counted() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((40, 6)), rng.standard_normal((25, 6))
    a[3], a[4] = 0, np.nan
    counts = [[3] * 38 + [1, -3], [3] * 25]
    with pytest.warns(UserWarning, match="2 of 40 pictures have no usable vector"):
        c = made(a, b, counts=counts, threshold=0.8)
    for which, left_out in (("a", 3), ("b", 0)):
        side, found = c.side(which), c.counts(which)
        assert sum(found.values()) + left_out == len(side)
        assert (c.kinds(which) == -1).sum() == left_out
        assert found["shared"] == c.counts("a")["shared"]
        curve = c.curve(which)
        np.testing.assert_allclose(curve["shared"] + curve["covered"] + curve["unique"], 1)
        assert curve["unique"][0] <= curve["unique"][-1]
        assert sum(e.value for e in c.shares(which).values()) == pytest.approx(1)
    assert c.a.counts() == {"components": 40, "used": 37, "dead": 1, "unusable": 2, "too few examples": 0, "one example": 1}
    cosines = np.array([m.cosine for m in c.pairs()])
    assert (np.diff(cosines) <= 0).all()
    assert (cosines >= 0.8).all()
    assert c.match("a", "layer", 38).examples == 1
    with pytest.raises(DataError, match="is left out"):
        c.match("a", "layer", 39)
    with pytest.warns(UserWarning, match="no usable"):
        stricter = made(a, b, counts=counts, min_examples=2)
    assert stricter.a.counts()["too few examples"] == 1
    assert stricter.a.counts()["one example"] == 0


def test_matches_equal_those_of_the_whole_matrix() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((33, 5)).astype(np.float32), rng.standard_normal((21, 5)).astype(np.float32)
    c = made(a, b, threshold=0.9)
    table = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    np.testing.assert_array_equal(c.a.match, table.argmax(axis=1))
    np.testing.assert_array_equal(c.b.match, table.argmax(axis=0))
    for m in c.matches("a"):
        both = table[:, m.other].argmax() == m.component
        assert m.mutual == both
        assert m.kind == ("unique" if m.cosine < 0.9 else "shared" if both else "covered")
    for threads in (2, 3, 8):
        again = made(a, b, threshold=0.9, n_threads=threads)
        np.testing.assert_array_equal(again.a.best, c.a.best)
        assert again.there.lower == c.there.lower


def test_equal_components_keep_their_number() -> None:
    """Copies in a layer would cross over: the lowest number of several that are equal is not the component itself."""
    copies = V[[0, 1, 1, 1, 2]]
    c = made(copies, copies, threshold=0.99)
    assert c.counts("a") == {"shared": 5, "covered": 0, "unique": 0}
    assert c.a.match.tolist() == [0, 1, 2, 3, 4]
    moved = made({"x": copies}, {"y": copies}, threshold=0.99)  # other layers: the lowest number
    assert moved.a.match.tolist() == [0, 1, 1, 1, 4]
    assert moved.counts("a") == {"shared": 3, "covered": 2, "unique": 0}


def test_layers_together_and_alone() -> None:
    a, b = planted.databases({"one": V[:4], "two": V[4:8]}, {"three": V[2:6]})
    c = compare(a, b, threshold=0.9, resamples=0)
    assert np.isnan(c.there.lower)
    assert c.a.layers == ("one", "two")
    assert [(m.layer, m.component, m.other) for m in sorted(c.pairs(), key=lambda m: m.other)] == [
        ("one", 2, 0),
        ("one", 3, 1),
        ("two", 0, 2),
        ("two", 1, 3),
    ]
    assert [(row["used"], row["shared"], row["unique"]) for row in c.by_layer("a")] == [(4, 2, 2), (4, 2, 2)]
    assert c.by_layer("b")[0]["most in"] == "one"
    alone = compare(a, b, "two", ["three"], resamples=0)
    assert alone.a.layers == ("two",)
    assert alone.there.value == pytest.approx(0.5, abs=1e-6)
    inside = compare(a, a, "one", "two", resamples=0)  # two layers of one network
    assert inside.there.value == pytest.approx(0, abs=1e-6)


def test_intervals_are_those_of_the_mean_over_components() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((200, 6)), rng.standard_normal((60, 6))
    c = made(a, b, resamples=2000, seed=4)
    error = c.a.best.std() / np.sqrt(200)
    assert c.there.lower == pytest.approx(c.there.value - 1.96 * error, abs=0.2 * error)
    assert c.there.upper == pytest.approx(c.there.value + 1.96 * error, abs=0.2 * error)
    narrow = c.symmetric.upper - c.symmetric.lower
    assert narrow < max(e.upper - e.lower for e in (c.there, c.back))
    assert made(a, b, resamples=2000, seed=4).there.lower == c.there.lower
    assert made(a, b, resamples=2000, seed=5).there.lower != c.there.lower
    means = resampled(np.array([[1.0], [1.0]]), 7, (0,))
    assert means.tolist() == [[1.0]] * 7


def test_random_components_show_what_any_two_sets_share() -> None:
    """Two groups of pictures around a common direction: components of one group each are matched; random ones fall in between."""
    rng = np.random.default_rng(9)
    centres = np.eye(8)[:6] + 0.8
    pictures = centres[np.arange(120) % 6] + 0.15 * rng.standard_normal((120, 8))
    encoder = Arrays(images=pictures.astype(np.float32))

    def db(seed: int) -> ConceptDB:
        draw = np.random.default_rng(seed)
        layer = planted.Layer(0, [8] * 6, 8)
        layer.ids = np.stack([draw.choice(np.flatnonzero(np.arange(120) % 6 == k), 8, replace=False) for k in range(6)])
        return ConceptDB.build({"layer": layer}, None, encoder)

    c = compare(db(1), db(2), random=400, resamples=50)
    assert c.random is not None
    assert c.there.value > 0.99
    chance = c.at_random("a")
    assert 0.7 < chance.value < c.there.value - 0.01
    assert chance.lower < chance.value < chance.upper
    level = c.threshold_at(0.05)
    for which in ("a", "b"):
        assert len(c.random[which]) == 400
        assert (c.random[which] >= level).mean() <= 0.05
        assert c.curve(which, [level, -1.0])["at random"] == pytest.approx([(c.random[which] >= level).mean(), 1.0])
    assert max((c.random[which] >= level - 1e-3).mean() for which in ("a", "b")) > 0.04
    assert c.at(level).counts("a")["unique"] == 0
    with pytest.raises(ValueError, match="share=0"):
        c.threshold_at(0)
    with pytest.raises(DataError, match="pass random=1000"):
        compare(db(1), db(2), resamples=0).threshold_at()
    again = compare(db(1), db(2), random=400, resamples=50, n_threads=3)
    assert again.random is not None
    np.testing.assert_array_equal(again.random["b"], c.random["b"])
    assert "at random" in repr(c)
    with pytest.raises(DataError, match="too few to draw random components"):
        made(V[:2], V[:2], random=5)


def test_labels_and_classes() -> None:
    db = small_database.database()
    c = compare(db, db, "conv1", "conv1", threshold=0.9, resamples=10)
    assert c.pairs()[0].label in ("ruby", small_database.HOSTILE, "sea")  # the class, where nothing was labelled
    labels = db.label(list(small_database.WORDS[:3]), threshold=0.0)
    named = compare(db, db, "conv1", "conv1", threshold=0.9, resamples=10, labels=(labels, labels))
    assert {m.label for m in named.pairs()} <= {"red", "green", "blue"}
    with pytest.raises(TypeError, match="labels: must be the pair"):
        compare(db, db, labels=labels)  # type: ignore[arg-type]
    other = planted.databases(V[:3])[0]
    few = other.label({"word": V[0]}, threshold=-1)
    with pytest.raises(DataError, match="do not cover"):
        compare(db, db, labels=(labels, few))


def test_refusals() -> None:
    a, b = planted.databases(V[:4], V[4:])
    with pytest.raises(MismatchError, match="different encoders"):
        compare(a, small_database.database())
    encoder, examples = Arrays(images=V), {"layer": planted.Layer(0, [3, 3], 3)}
    plain = ConceptDB.build(examples, None, encoder)
    for change in ({"normalize_examples": True}, {"weighting": "scores"}):
        with pytest.raises(MismatchError, match=f"{next(iter(change))} is .* so their vectors cannot be compared"):
            compare(plain, ConceptDB.build(examples, None, encoder, **change))
    cropped = ConceptDB.build(examples, None, encoder)
    cropped.record["build"]["crops"] = True
    with pytest.raises(MismatchError, match="crops is True in one and False in the other"):
        compare(cropped, plain)
    with pytest.raises(LayerNotFoundError):
        compare(a, b, layers_b="none")
    with pytest.raises(DataError, match="layers_a is empty: name at least one of 'layer'"):
        compare(a, b, layers_a=[])
    with pytest.raises(DataError, match="no component with a concept vector"):
        compare(*planted.databases(V[:2], V[2:], counts=[[-3, -3], [3] * 10]))
    with pytest.raises(DataError, match="at least 4 example"):
        compare(a, b, min_examples=4)
    for options, message in (
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"threshold": "high"}, "threshold='high'"),
        ({"names": ["x", "x"]}, "2 different names"),
        ({"min_examples": 0}, "min_examples=0"),
        ({"resamples": -1}, "resamples=-1"),
        ({"level": 1.0}, "level=1.0"),
        ({"seed": -1}, "seed=-1"),
        ({"random": True}, "random=True"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(a, b, **options)  # type: ignore[arg-type]
    c = compare(a, b)
    with pytest.raises(DataError, match=r"c.curve\('a'\)"):
        c.counts("a")
    with pytest.raises(ValueError, match="side 'c'"):
        c.side("c")
    with pytest.raises(DataError, match="components 0 to 3"):
        c.match("a", "layer", 4)
    with pytest.raises(DataError, match="layer 'x' is not in 'alpha'"):
        c.match("a", "x", 0)


def test_what_differs_is_said() -> None:
    encoder = encoders.load("demo")
    rng = np.random.default_rng(1)

    def db(seed: int, top: int, positive: bool = False) -> ConceptDB:
        images = data.ImageArray(rng.integers(0, 255, (12, 64, 64, 3), np.uint8), name=f"set {seed}")
        acts = np.abs(rng.standard_normal((12, 3))).astype(np.float32)
        return ConceptDB.build(collect([(np.arange(12), {"layer": acts})], images, top=top), images, encoder)

    c = compare(db(1, 3), db(2, 4), names=["x", "y"], resamples=0)
    assert any("'set 1' (x), 'set 2' (y)" in line for line in c.remarks)
    assert any("3 (x), 4 (y)" in line for line in c.remarks)
    assert "note: the examples come from different pictures" in repr(c)
    same = planted.databases(V[:3], V[3:])
    assert compare(*same, resamples=0).remarks == ()


def test_names_tables_and_json() -> None:
    c = made(V[:5], V[2:8], threshold=0.9)
    assert (c.a.name, c.b.name) == ("alpha", "beta")
    text = repr(c)
    assert "shared at threshold 0.9" in text
    assert "layer:2  layer:0" in text
    found = json.loads(json.dumps(c.to_dict(), allow_nan=False))
    assert found["counts"]["a"] == {"shared": 3, "covered": 0, "unique": 2}
    assert len(found["matches"]["b"]) == 6
    assert "no threshold yet" in repr(made(V[:5], V[2:8]))
    twice = compare(*planted.databases(V[:2], V[2:4], names=["net", "net"]), resamples=0)
    assert (twice.a.name, twice.b.name) == ("net (1)", "net (2)")
    assert len(c.pairs(2)) == 2
    assert c.side("beta") is c.b


def test_memory_grows_with_the_sets_and_not_with_their_product() -> None:
    rng = np.random.default_rng(0)
    a, b = planted.databases(*(rng.standard_normal((6000, 16)).astype(np.float32) for _ in range(2)))
    tracemalloc.start()
    c = compare(a, b, resamples=100, threshold=0.8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12e6  # the matrix of cosines would be 144 MB
    assert sum(c.counts("a").values()) == 6000


def test_vectors_less_their_mean() -> None:
    """A direction that all vectors share makes any two sets alike, until it is taken away."""
    rng = np.random.default_rng(2)
    a, b = (5 * np.eye(1, 12)[0] + rng.standard_normal((20, 12)) for _ in range(2))
    plain, centred = made(a, b), made(a, b, centre=True)
    mean = (a.mean(axis=0) + b.mean(axis=0)) / 2
    assert plain.there.value > 0.85
    assert centred.there.value == pytest.approx(set_similarity(*((v - mean).astype(np.float32) for v in (a, b))), abs=1e-5)
    assert centred.there.value < plain.there.value - 0.2
    assert made(a, a, centre=True, threshold=0.999).counts("a")["shared"] == 20
    assert "less their mean" in repr(centred)
    assert made(a, b, centre=True, counts=[[-3] + [3] * 19, [3] * 20]).a.counts()["dead"] == 1
    one = np.ones((1, 12), np.float32)
    with pytest.raises(DataError, match="centre=True leaves no direction"):
        made(one, one, centre=True)


def drawn(random: int = 0) -> Comparison:
    db, names = small_database.database(), ["first", small_database.HOSTILE]
    return compare(db, db, "conv1", small_database.HOSTILE, names=names, threshold=0.9, resamples=20, random=random)


def test_pictures(tmp_path: Any) -> None:
    for c in (drawn(), drawn(200)):
        picture = c.plot()
        assert picture.image.width > 600
        assert len(np.unique(np.asarray(picture.image).reshape(-1, 3), axis=0)) > 10
        picture.save(tmp_path / "c.png")
    with pytest.raises(ValueError, match="what='all'"):
        c.plot(what="all")
    made(V[:4], V[:4]).plot()  # all cosines 1, no threshold
    html = c._repr_html_()
    assert small_database.HOSTILE not in html
    assert "data:image" in html
    assert "data:image" not in made(V[:4], V[:4], threshold=0.5)._repr_html_()


def test_axes() -> None:
    figure = pytest.importorskip("matplotlib.figure")
    for c in (drawn(), drawn(200)):
        axes = figure.Figure().subplots(1, 2)
        assert c.plot(axes[0]) is axes[0]
        c.plot(axes[1], what="curve")
        np.testing.assert_allclose(axes[1].get_lines()[0].get_ydata(), 1 - c.curve("a")["unique"])
    with pytest.raises(TypeError, match="axes of matplotlib"):
        c.plot(ax=3)


def test_page(tmp_path: Any) -> None:
    c = drawn(200)
    text = c.report(tmp_path / "page.html", text="A <b>line</b>.").read_text(encoding="utf-8")
    assert "A &lt;b&gt;line&lt;/b&gt;." in text
    assert small_database.HOSTILE not in text
    assert text.count("<li>") == len(c.pairs()) + len(c.unique("a")) + len(c.unique("b"))
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text
    few = c.report(tmp_path / "few.html", pairs=1, unique=0, examples=1).read_text(encoding="utf-8")
    assert few.count("<li>") == 1
    assert few.count("<img") == 2
    with pytest.raises(DataError, match="no threshold"):
        made(V[:3], V[3:]).report(tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        c.report(tmp_path / "no" / "page.html")
    with pytest.raises(ValueError, match="pairs=-1"):
        c.report(tmp_path / "x.html", pairs=-1)
    plain = made(V[:4], V[2:6], threshold=0.5).report(tmp_path / "plain.html").read_text(encoding="utf-8")
    assert "<img" not in plain  # databases without pictures
    assert "Shared: 2 pairs" in plain
