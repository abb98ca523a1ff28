"""Audits: categories, shares and lists by hand on small arrays, and the planted artefact of the demo network."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from semanticlens import data, edit, encoders
from semanticlens._errors import DataError, LayerNotFoundError, MismatchError, ModelFileError
from semanticlens.attribution.roles import roles
from semanticlens.lens import ConceptDB, audit, collect
from semanticlens.lens.audit import CATEGORIES, Audit, LayerAudit

VALID, SPURIOUS = ["moon", "crescent"], ["corner mark", "frame", "ruler"]


def layer(**changes: Any) -> LayerAudit:
    nothing = np.full((2, 5), np.nan)
    given: dict[str, Any] = {
        "layer": "a",
        "valid": np.array([0.5, 0.3, 0.1, np.nan, 0.3]),
        "spurious": np.array([0.1, 0.4, 0.1, np.nan, 0.3]),
        "valid_prompt": np.array([0, 1, 0, -1, 0]),
        "spurious_prompt": np.array([0, 0, 2, -1, 1]),
        "shares": np.array([[0.4, 0.3, 0.2, 0.0, 0.1], [0.0, 0.0, 0.005, 0.0, 0.995]]),
        **{name: nothing.copy() for name in ("effect", "error", "pull", "through", "through_error")},
        "separation": np.full(5, np.nan),
        **changes,
    }
    return LayerAudit(**given)


def made(threshold: float | None = 0.3, **changes: Any) -> Audit:
    return Audit(
        layers={"a": layer(**changes)},
        classes=(3, 7),
        class_names=("ox", "moon"),
        valid=("horn", "fur"),
        spurious=("water", "text", "frame"),
        threshold=threshold,
        least=0.01,
        null="score",
        record={"network": {"name": "n", "fingerprint": "abc"}, "data": None, "encoder": None},
    )


def test_categories_shares_and_counts() -> None:
    a = made()
    assert layer().categories(0.3).tolist() == [0, 1, 2, -1, 0]  # a tie is valid, no vector is no category
    assert a.counts() == {"valid": 2, "spurious": 1, "unexpected": 1}
    assert a.shares()["ox"] == pytest.approx({"valid": 0.5, "spurious": 0.3, "unexpected": 0.2})
    assert a.at(0.45).shares()["ox"] == pytest.approx({"valid": 0.4, "spurious": 0.0, "unexpected": 0.6})
    curve = a.curve(thresholds=[0.0, 0.35, 1.0])
    assert curve["valid"][0] == pytest.approx([0.7, 0.4, 0.0])
    assert curve["spurious"][0] == pytest.approx([0.3, 0.3, 0.0])
    assert sum(curve[word] for word in CATEGORIES) == pytest.approx(np.ones((2, 3)))
    free = made(None)
    assert free.curve()["threshold"][[0, -1]] == pytest.approx([0.1, 0.5])
    assert "no threshold yet" in repr(free)
    with pytest.raises(DataError, match=r"a.curve\(\)"):
        free.shares()


def test_findings_put_what_acts_first_and_mark_what_does_not() -> None:
    effect, error = np.full((2, 5), np.nan), np.full((2, 5), np.nan)
    effect[0, :3], error[0, :3] = [0.1, 2.0, -1.0], [0.2, 0.1, 0.1]
    a = made(effect=effect, error=error)
    found = a.findings("ox")
    assert [f.component for f in found] == [1, 4, 0, 2]
    assert [f.acts for f in found] == ["for", "not measured", "not at all", "against"]
    assert [f.disagrees for f in found] == [False, False, True, True]
    assert [(f.category, f.prompt) for f in found] == [("spurious", "water"), ("valid", "horn"), ("valid", "horn"), ("unexpected", "horn")]
    assert [f.component for f in a.findings(7)] == [4]  # 0.005 is below least
    assert [f.component for f in a.unexpected("ox")] == [2]
    assert "(!)" in a.table()
    through = np.full((2, 5), np.nan)
    through[0, :3] = [0.5, 0.7, -0.1]
    separation = np.array([0.9, 0.8, 0.8, np.nan, np.nan])
    paired = made(effect=effect, error=error, separation=separation, through=through, through_error=np.full((2, 5), 0.1))
    unsure = made(effect=effect, error=error, separation=separation, through=through, through_error=np.full((2, 5), 0.4))
    assert not any(f.answers for f in unsure.findings("ox"))
    assert [(f.component, f.answers, f.disagrees) for f in paired.findings("ox")] == [
        (1, True, False),  # called spurious, and answers
        (0, True, True),  # called valid, and answers
        (4, False, False),
        (2, False, True),
    ]
    assert "Shares of relevance at threshold 0.3" in repr(a)
    a.decide("a", 1, "spurious", "looked at")
    assert a.findings("ox")[0].decision == "spurious"
    assert a.at(0.1).findings("ox", "spurious")[0].decision == "spurious"


def test_decisions_are_kept(tmp_path: Any) -> None:
    a = made()
    a.decide("a", 1, "spurious", "text on the picture")
    a.decide("a", 2, "unclear")
    a.save(tmp_path / "a.json")
    b = made()
    assert b.load_decisions(tmp_path / "a.json") == 2
    assert b.decisions == a.decisions
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["shares"]["a"]["ox"]["spurious"] == pytest.approx(0.3)
    saved["record"]["network"] = {"name": "other"}
    (tmp_path / "other.json").write_text(json.dumps(saved))
    with pytest.raises(MismatchError, match="another network"):
        b.load_decisions(tmp_path / "other.json")
    for text in ("{", "[]", '{"decisions": [{}]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ModelFileError, match="not a saved audit"):
            b.load_decisions(tmp_path / "bad.json")
    with pytest.raises(ModelFileError, match="cannot be read"):
        b.load_decisions(tmp_path / "none.json")
    with pytest.raises(ValueError, match="decision='bad'"):
        b.decide("a", 0, "bad")
    with pytest.raises(DataError, match="components 0 to 4"):
        b.decide("a", 5, "valid")
    with pytest.raises(LayerNotFoundError):
        b.decide("b", 0, "valid")


# ---------------------------------------------------------------- the demo's network


def told(change: Any = None) -> tuple[Any, Any, Any]:
    """The demo's network, a database of generated pictures, and these."""
    from semanticlens.demo.explore import LAYER, POOL, load_network
    from semanticlens.demo.pictures import generate

    net = load_network()
    pictures = generate(480, seed=31, change=change)
    labels = [net.labels.index(truth["shape"]) for truth in pictures.truths]
    images = data.ImageArray(pictures.pixels, labels=labels, class_names=net.labels, name="planted")
    examples = collect(net, images, layers=[LAYER], top=20, pool=POOL)
    return ConceptDB.build(examples, images, encoders.load("demo")).attach(network=net), net, images


@pytest.fixture(scope="module")
def story() -> tuple[Any, Any, Any]:
    """All attributes independent: what the network was not trained on."""
    return told()


def test_the_planted_artefact_leads_the_spurious_list(story: Any) -> None:
    db, net, _ = story
    got = audit(db, classes=["moon"], valid="moon", spurious=SPURIOUS, threshold=0.3, null="none", measure=26)
    found = got.findings("moon", "spurious")
    assert found[0].prompt == "corner mark"
    assert found[0].acts == "for"
    assert found[0].effect > 1
    assert 0.02 < got.shares()["moon"]["spurious"] < 1
    assert got.effects is not None
    none = audit(db, classes=["star"], valid="star", spurious=SPURIOUS, threshold=0.3, null="none", measure=26)
    assert not [f for f in none.findings("star", "spurious") if f.acts == "for" and f.effect > 0.5]
    assert net.labels[got.classes[0]] == "moon"


def test_pairs_find_what_labels_cannot() -> None:
    """Pictures as confounded as those of training: examples of the mark's components are moons, and so are their labels."""
    from semanticlens.demo.artefact import ARTEFACT, plant
    from semanticlens.demo.pictures import generate, with_overlay

    db, _, _ = told(plant)
    pictures = generate(40, seed=987)
    pairs = tuple(data.ImageArray(with_overlay(pictures, overlay).pixels) for overlay in ("none", ARTEFACT))
    options: dict[str, Any] = {"classes": ["moon"], "valid": "moon", "spurious": SPURIOUS, "threshold": 0.3, "null": "none", "measure": 26}
    blind = audit(db, **options)
    assert not blind.findings("moon", "spurious")
    got = audit(db, **options, pairs=pairs)
    first = got.findings("moon")[0]
    assert (first.category, first.answers, first.disagrees) == ("valid", True, True)
    assert first.through > 1
    assert sum(f.through for f in got.findings("moon") if f.answers) > 0.7 * 6
    assert "answers (!)" in got.table()


def test_roles_given_or_computed_are_the_same(story: Any) -> None:
    db, net, images = story
    options: dict[str, Any] = {"classes": [0, "moon"], "valid": "moon", "spurious": SPURIOUS, "threshold": 0.3, "measure": 0}
    one = audit(db, **options)
    two = audit(db, **options, roles=db.roles())
    three = audit(db, **options, roles=roles(net, images, layers=db.layers))
    assert one.to_dict() == two.to_dict() == three.to_dict()
    assert all(f.acts == "not measured" for f in one.findings())


def test_pages(story: Any, tmp_path: Any) -> None:
    db, _, _ = story
    got = audit(db, classes=["moon", "star"], valid="moon", spurious=SPURIOUS, threshold=0.3, measure=3, null="none")
    finding = got.findings("moon")[0]
    got.decide(finding.layer, finding.component, "spurious", "<b>text</b>")
    text = got.report(tmp_path / "audit.html", text="What <was> asked").read_text(encoding="utf-8")
    assert "&lt;b&gt;text&lt;/b&gt;" in text
    assert "What &lt;was&gt; asked" in text
    assert "<script" not in text
    assert "http:" not in text.replace("http://www.w3.org", "")
    assert "data:image" in text
    assert "corner mark" in got._repr_html_()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        got.report(tmp_path / "none" / "audit.html")
    with pytest.raises(DataError, match="no threshold"):
        audit(db, classes=[0], valid="moon", spurious=SPURIOUS, measure=0).report(tmp_path / "b.html")
    assert not (tmp_path / "b.html").exists()


def test_the_scatter(story: Any, tmp_path: Any) -> None:
    got = audit(story[0], classes=["moon"], valid="moon", spurious=SPURIOUS, threshold=0.3, null="none", measure=0)
    drawn = got.plot()
    assert drawn.save(tmp_path / "scatter.png").stat().st_size > 2000
    assert drawn.about == "26 components for moon"
    figure = pytest.importorskip("matplotlib.figure")
    ax = figure.Figure().add_subplot()
    assert got.plot(ax) is ax
    assert len(ax.collections) == 3


def test_related_data_and_unexpected_components(story: Any) -> None:
    db, _, images = story
    hit = db.search("corner mark", top=1)[0]
    behind = db.related_data((hit.layer, hit.component))
    assert behind.ids.tolist() == hit.ids.tolist()
    assert list(behind.by_class().values()) == sorted(behind.by_class().values(), reverse=True)
    assert sum(behind.by_class().values()) == len(behind.ids)
    assert behind.to_dict()["classes"] == images.labels[behind.ids].tolist()
    assert next(iter(behind.by_class())) in repr(behind)
    found = db.unexpected(valid="moon", spurious=SPURIOUS, threshold=0.2, null="none")
    scores = db.search(["moon", *SPURIOUS], top=1).scores[hit.layer].max(axis=0)
    assert [h.component for h in found] == [int(k) for k in np.argsort(scores, kind="stable") if scores[k] < 0.2]
    with pytest.raises(DataError, match="components 0 to"):
        db.related_data((hit.layer, 999))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"valid": []}, DataError, "valid is empty"),
        ({"spurious": ""}, TypeError, "spurious: ''"),
        ({"valid": "frame"}, DataError, "'frame' is among the valid and the spurious"),
        ({"classes": []}, DataError, "classes is empty"),
        ({"classes": ["dog"]}, DataError, "class 'dog' is not among"),
        ({"classes": [99]}, DataError, "class 99 is out of range"),
        ({"threshold": float("nan")}, ValueError, "threshold=nan"),
        ({"least": 2}, ValueError, "least=2"),
        ({"measure": -1}, ValueError, "measure=-1"),
        ({"pairs": (1, 2)}, ValueError, "measure=0 measures no component"),
        ({"layers": "nope"}, LayerNotFoundError, "nope"),
    ],
)
def test_bad_input(story: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"classes": ["moon"], "valid": "moon", "spurious": SPURIOUS, "threshold": 0.3, "measure": 0, **options}
    with pytest.raises(error, match=message):
        audit(story[0], **given)


def test_what_is_missing_is_said(story: Any) -> None:
    db, net, images = story
    bare = ConceptDB(db._layers, db._arrays, db.record).attach(encoders.load("demo"))
    options: dict[str, Any] = {"classes": ["moon"], "valid": "moon", "spurious": SPURIOUS, "threshold": 0.3}
    with pytest.raises(DataError, match="need the network: pass network="):
        audit(bare, **options)
    with pytest.raises(DataError, match="need labelled pictures"):
        audit(bare, **options, network=net)
    with pytest.raises(DataError, match="effects need the network"):
        audit(bare, **{**options, "classes": [0]}, roles=db.roles())
    with pytest.raises(MismatchError, match="is not the one the database was made from"):
        bare.attach(network=net.edited(edit.ablate("relu4", component=0)))
    few = np.where(images.labels == net.labels.index("star"), 0, images.labels)
    with pytest.raises(DataError, match="has no pictures"):
        audit(db, **{**options, "classes": ["star"]}, targets=few, measure=0)
