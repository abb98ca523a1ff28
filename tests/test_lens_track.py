"""Tracks: planted births, deaths, merges and splits are found, counts add up, and lives can be followed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import planted_concepts as planted
import pytest

from semanticlens._errors import DataError, LayerNotFoundError, MismatchError
from semanticlens.lens import Track, compare, track
from semanticlens.lens.track import COUNTS

V = planted.directions(12, 32)
FREE = np.linalg.svd(V)[2][12:].astype(np.float32)  # orthogonal to all of V


def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a + b) / np.linalg.norm(a + b)


def planted_track(**options: Any) -> Track:
    """0 stays, 1 moves (cosine 0.9), 2 and 3 merge, 4 splits, 5 dies, 6 is born."""
    old = V[:6]
    new = np.stack(
        [
            V[0],
            planted.at_cosine(V[1], 0.9, FREE[0]),
            between(V[2] * 1.1, V[3]),  # a little nearer to 2
            planted.at_cosine(V[4], 0.8, FREE[1]),
            planted.at_cosine(V[4], 0.75, -FREE[1]),
            V[6],
        ]
    )
    return track(planted.databases(old, new), threshold=0.6, **{"resamples": 20, **options})


def test_planted_events_are_found() -> None:
    t = planted_track()
    assert t.counts(0) == {"old": 6, "continues": 4, "merges": 1, "dies": 1, "splits": 1, "appears": 1, "new": 6}
    assert t.fates(0).tolist() == [0, 0, 0, 1, 0, 2]
    assert t.origins(0).tolist() == [0, 0, 0, 0, 1, 2]
    assert t.merges(0) == [(("layer", 2), [("layer", 2), ("layer", 3)])]
    assert t.splits(0) == [(("layer", 4), [("layer", 3), ("layer", 4)])]
    drift = t.drift(0)
    assert drift[0] == pytest.approx(0, abs=1e-6)
    assert drift[1] == pytest.approx(0.1, abs=1e-6)
    assert drift[4] == pytest.approx(0.2, abs=1e-6)
    assert np.isnan(drift[[3, 5]]).all()
    assert t.mean_drift(0) == pytest.approx(np.nanmean(drift))
    assert t.stayed(0) == 3
    assert t.at(0.95).counts(0) == {"old": 6, "continues": 1, "merges": 0, "dies": 5, "splits": 0, "appears": 5, "new": 6}


@pytest.mark.parametrize("seed", range(8))
def test_counts_add_up_whatever_the_vectors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = [rng.standard_normal((int(k), 5)).astype(np.float32) for k in rng.integers(3, 40, 4)]
    counts = [[int(c) for c in rng.choice([-3, 1, 2, 3], len(v), p=[0.2, 0.2, 0.2, 0.4])] for v in vectors]
    for own in counts:
        own[0] = 3
    t = track(planted.databases(*vectors, counts=counts), resamples=0)
    curve = t.curve(np.linspace(-1, 1, 21))
    for i in range(3):
        live = [sum(c > 0 for c in counts[i + j]) for j in (0, 1)]
        for threshold in (-1.0, 0.5, 0.8, 0.95, 1.0):
            found = t.at(threshold).counts(i)
            assert found["old"] == live[0] == found["continues"] + found["merges"] + found["dies"]
            assert found["new"] == live[1] == found["continues"] + found["splits"] + found["appears"]
            merged, split = t.at(threshold).merges(i), t.at(threshold).splits(i)
            assert sum(len(members) - 1 for _, members in merged) == found["merges"]
            assert sum(len(members) - 1 for _, members in split) == found["splits"]
            assert all(len(members) >= 2 for _, members in (*merged, *split))
        assert (np.diff(curve["continues"][i]) <= 0).all()
        assert (np.diff(curve["dies"][i]) >= 0).all()
    assert set(curve) == {"threshold", *COUNTS}


def test_members_of_a_merge_are_within_the_threshold() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((40, 4)).astype(np.float32) for _ in range(2))
    t = track(planted.databases(a, b), threshold=0.8, resamples=0)
    assert len(t.merges(0)) > 3
    for many, one, groups in ((a, b, t.merges(0)), (b, a, t.splits(0))):
        for (_, k), members in groups:
            for _, j in members:
                assert many[j] @ one[k] / np.linalg.norm(many[j]) / np.linalg.norm(one[k]) >= 0.8 - 1e-6


def test_a_network_that_does_not_change() -> None:
    copies = V[[0, 1, 1, 2, 2, 2]]
    t = track(planted.databases(copies, copies, copies), threshold=0.99, resamples=0)
    for i in range(2):
        assert t.counts(i) == {"old": 6, "continues": 6, "merges": 0, "dies": 0, "splits": 0, "appears": 0, "new": 6}
        assert t.stayed(i) == 6
        assert t.mean_drift(i) == pytest.approx(0, abs=1e-6)
    assert [e.value for e in (*t.to_last, *t.from_last)] == pytest.approx([1] * 6, abs=1e-6)


def test_similarity_to_the_last() -> None:
    t = track(planted.databases(V[:2], V[:4], V[:8]), threshold=0.9, resamples=50)
    assert [e.value for e in t.to_last] == pytest.approx([1, 1, 1], abs=1e-6)
    assert [e.value for e in t.from_last] == pytest.approx([0.25, 0.5, 1], abs=1e-6)
    assert [t.counts(i)["appears"] for i in range(2)] == [2, 4]


def test_lives() -> None:
    """0 lives throughout, and 1 splits; 2 is born in the second and merges into 0's life in the third."""
    first = V[:2]
    second = np.stack([planted.at_cosine(V[1], 0.95, FREE[0]), V[0], planted.at_cosine(V[1], 0.9, -FREE[0]), V[5]])
    third = np.stack([between(V[5], V[0] * 1.2), V[7]])
    t = track(planted.databases(first, second, third), threshold=0.6, resamples=0, names=["e1", "e5", "e9"])
    life = t.history("layer", 0)
    assert [(m.name, m.component, m.origin, m.fate) for m in life] == [
        ("e1", 0, "start", "continues"),
        ("e5", 1, "continues", "continues"),
        ("e9", 0, "continues", "end"),
    ]
    assert life[0].cosine != life[0].cosine
    assert life[1].cosine == pytest.approx(1, abs=1e-6)
    forward = t.history("layer", 3, step=1)
    assert [(m.name, m.component, m.origin, m.fate) for m in forward] == [("e5", 3, "appears", "merges"), ("e9", 0, "continues", "end")]
    split = t.history("layer", 2, step=1)
    assert [(m.component, m.origin, m.fate) for m in split] == [(1, "start", "continues"), (2, "splits", "dies")]
    assert [m.origin for m in t.history("layer", 1)] == ["appears"]
    assert "splits" in repr(split)
    assert json.loads(json.dumps(split.to_dict()))[0]["cosine"] is None
    assert len(split[:1]) == 1


def test_layers_names_and_labels() -> None:
    dbs = planted.databases({"a": V[:3], "x": V[:2]}, {"b": V[1:4]}, {"c": V[2:5], "d": V[5:6]})
    t = track(dbs, threshold=0.9, layers=["a", None, ["c", "d"]], resamples=0)
    assert [side.layers for side in (t.steps[0].a, t.steps[1].a, t.steps[1].b)] == [("a",), ("b",), ("c", "d")]
    assert t.names == ("alpha", "beta", "gamma")
    words = {f"word {k}": V[k] for k in range(6)}
    named = track(dbs, threshold=0.9, layers=["a", "b", "c"], labels=[db.label(words) for db in dbs], resamples=0)
    assert [m.label for m in named.history("c", 0)] == ["word 2"] * 3
    assert [m.label for m in t.history("c", 0)] == [None] * 3
    assert t.steps[0].pairs()[0].cosine == pytest.approx(compare(*dbs[:2], "a", resamples=0).pairs()[0].cosine)


def test_tables_and_json(tmp_path: Any) -> None:
    t = planted_track(names=["early", "late"])
    text = repr(t)
    assert "steps at threshold 0.6" in text
    assert "mean drift" in text
    found = json.loads(t.save(tmp_path / "t.json").read_text())
    assert found["steps"][0]["merges"] == 1
    assert found["components"][1]["used"] == 6
    free = track(planted.databases(V[:2], V[:2]), resamples=0)
    assert "no threshold yet" in repr(free)
    assert "steps" not in free.to_dict()
    assert free.curve()["continues"].shape == (1, 101)


def test_refusals() -> None:
    a, b = planted.databases(V[:4], V[4:])
    for given in ([a], [], a):
        with pytest.raises(DataError, match="needs at least two"):
            track(given)  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match="different encoders"):
        track([a, b, planted.databases(V[::-1])[0]])
    with pytest.raises(LayerNotFoundError):
        track([a, b], layers="none")
    with pytest.raises(ValueError, match="2 entries"):
        track([a, b], layers=["layer"])
    with pytest.raises(ValueError, match="2 different names"):
        track([a, b], names=["x"])
    with pytest.raises(ValueError, match="labels: 1 given for 2"):
        track([a, b], labels=[a.label({"w": V[0]})])
    t = track([a, b], resamples=0)
    with pytest.raises(DataError, match=r"t.curve\(\)"):
        t.counts(0)
    with pytest.raises(DataError, match=r"t.curve\(\)"):
        t.history("layer", 0)
    ready = t.at(0.5)
    for step in (1, -1, True):
        with pytest.raises(DataError, match="there are steps 0 to 0"):
            ready.counts(step)
    with pytest.raises(DataError, match="databases 0 to 1"):
        ready.history("layer", 0, step=2)
    with pytest.raises(DataError, match="components 0 to 7"):
        ready.history("layer", 9)
    with pytest.raises(ValueError, match="threshold=2"):
        t.at(2)


def test_axes() -> None:
    figure = pytest.importorskip("matplotlib.figure")
    t = planted_track(names=["early", "<late>"])
    axes = figure.Figure().subplots(1, 2)
    assert t.plot(axes[0]) is axes[0]
    t.plot(axes[1], what="drift")
    assert axes[1].get_lines()[2].get_ydata()[0] == pytest.approx(t.mean_drift(0))


def test_pictures() -> None:
    from semanticlens.plot.track import flow

    t = planted_track(names=["early", "<late>"])
    bands, numbers = flow(t)
    counts = t.counts(0)
    assert {event: n for _, _, event, n in numbers} == {event: n for event, n in counts.items() if n and event not in ("old", "new")}
    wide = {event: max(abs(a[1] - b[1]) for a in corners for b in corners if a[0] == b[0]) for event, corners in bands}
    assert wide == {event: counts[event] for event in wide}  # every band is as high as its count
    assert len(wide) == 5
    picture = t.plot()
    assert picture.image.height > 500
    with pytest.raises(ValueError, match="what='x'"):
        t.plot(what="x")
    free = track(planted.databases(V[:2], V[2:4]), resamples=0)
    with pytest.raises(DataError, match="no threshold"):
        free.plot()
    free.at(0.9).plot()  # nothing continues: no drift
    assert "<late>" not in t._repr_html_()
    assert "No threshold yet" in free._repr_html_()


def test_random_components_give_a_threshold() -> None:
    import small_database

    db = small_database.database()
    t = track([db, db, db], ["a", "b", "c"], layers="conv1", resamples=0, random=200)
    level = t.threshold_at(0.05)
    assert max((step.random[which] >= level).mean() for step in t.steps for which in ("a", "b") if step.random) <= 0.05
    assert t.at(level).counts(0)["continues"] == 4
