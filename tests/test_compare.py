"""Two networks side by side: what is compared, the report, the command, and input that does not fit together."""

from __future__ import annotations

import datetime
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from small_database import HOSTILE, pictures
from test_features import network
from test_features import pictures as noise_pictures

from semanticlens import DataError, LayerNotFoundError, MismatchError, data
from semanticlens.alignment import Features, KMeans, align, compare, compare_proximities, features
from semanticlens.cli import main

VOID = {"meta", "br", "img", "input", "hr", "link"}
WHEN = datetime.datetime(2030, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)
N = 240


def crisp(labels: np.ndarray) -> np.ndarray:
    return (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float32)


def sides() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two networks of three and two layers: 0 shared, 1 split in B, 2 and 3 merged in B, 4 in A alone."""
    a = np.arange(N) % 5
    b = a.copy()
    b[(a == 1) & (np.arange(N) % 2 == 0)] = 4
    b[a == 3] = 2
    b[a == 4] = -1
    b[b == 4] = 3
    mixed = np.where(np.arange(N) < 40, 0, a)
    return {"early": crisp(mixed), "middle": crisp(a), "late": crisp(a)}, {
        "x": crisp(np.random.default_rng(0).permutation(b)),
        HOSTILE: crisp(b),
    }


@pytest.fixture(scope="module")
def images() -> data.ImageArray:
    return data.ImageArray(pictures(N), labels=np.arange(N) % 5, class_names=["one", "two", HOSTILE, "four", "five"], name=f"set {HOSTILE}")


class Balanced(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        pass

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_given_proximities(images) -> None:
    a, b = sides()
    found = compare_proximities(a, b, images=images, names=("first", f"second {HOSTILE}"))
    assert [r.layer for r in found.side(0)] == ["early", "middle", "late"]
    assert found.matrix[1, 4].aci == pytest.approx(align(a["middle"], b[HOSTILE]).aci)
    assert [(p.a.layer, p.b.layer) for p in found.pairs] == [("middle", HOSTILE), ("late", HOSTILE)]
    assert [(r.kind, r.p, r.q) for r in found.pairs[0].relations] == [
        ("shared", (0,), (0,)), ("split", (1,), (1, 3)), ("merged", (2, 3), (2,)), ("only P", (4,), ())
    ]  # fmt: skip
    assert found.sanity == (1.0, None)
    assert found.graphs[0] is not None
    assert found.representations[1].truth is not None
    assert found.representations[1].truth.aci == 1.0
    assert found.representations[1].concepts[2].classes == ((HOSTILE, 1.0),)
    json.dumps(found.to_dict(), allow_nan=False)
    assert "1 shared, 1 split, 1 merged, 1 only P" in repr(found)
    asked = compare_proximities(a, b, pairs=[("early", "x")])
    assert [(p.a.layer, p.b.layer) for p in asked.pairs] == [("early", "x")]


def test_the_report_is_whole_safe_and_says_what_was_found(images, tmp_path) -> None:
    a, b = sides()
    found = compare_proximities(a, b, images=images, names=("first", f"second {HOSTILE}"))
    text = found.report(tmp_path / "a.html", date=WHEN, note=f"note {HOSTILE}").read_text()
    Balanced(text)
    assert "<script" not in text
    assert HOSTILE not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    assert "Shared concepts (1)" in text
    assert "Split (1)" in text
    assert "Merged (1)" in text
    assert "Only in A (1)" in text
    assert "Only in B" not in text
    assert text.count("background-image:url(data:image/") == len(set(re.findall(r'class="t p(\d+)"', text)))
    assert "A: 1.00 (3 of 3 layers)" in text
    assert text == found.report(tmp_path / "b.html", date=WHEN, note=f"note {HOSTILE}").read_text()
    few = found.report(tmp_path / "c.html", max_relations=0).read_text()
    assert "1 more are not shown" in few
    plain = compare_proximities(a, b).report(tmp_path / "d.html", title="Just numbers").read_text()
    Balanced(plain)
    assert "background-image" not in plain
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found.report(tmp_path / "no" / "a.html")
    with pytest.raises(ValueError, match="max_relations=-1"):
        found.report(tmp_path / "e.html", max_relations=-1)


def test_two_networks_over_pictures(tmp_path) -> None:
    shown = noise_pictures(60)
    found = compare(network(0), network(1), shown, ["conv", "relu", "fc"], discover=KMeans(4, n_init=1), seed=2)
    assert found.names == ("net0", "net1")
    assert len(found.representations) == 6
    assert found.matrix.n == 60
    assert found.representations[0].quality is not None
    again = compare(network(0), network(1), shown, (["conv", "relu", "fc"], ["conv", "relu", "fc"]),
                    discover=lambda layer: KMeans(4, n_init=1),
                    seed=2, batch_size=7, quality=False)  # fmt: skip
    assert np.array_equal(again.matrix.d, found.matrix.d)
    assert again.representations[0].quality is None
    same = compare(network(0), network(0), shown, ["conv"], discover=KMeans(4, n_init=1), quality=False)
    assert same.names == ("net0 (A)", "net0 (B)")
    assert same.pairs[0].alignment.aci == 1.0
    assert {r.kind for r in same.pairs[0].relations} == {"shared"}
    Balanced(same.report(tmp_path / "same.html").read_text())


def test_layers_without_concepts_are_not_the_most_alike(tmp_path) -> None:
    a = crisp(np.arange(N) % 4)
    nothing = np.zeros((N, 0), np.float32)
    found = compare_proximities({"none": nothing, "some": a}, {"none": nothing, "some": np.roll(a, 3, axis=0)})
    assert (found.pairs[0].a.layer, found.pairs[0].b.layer) == ("some", "some")
    empty = compare_proximities({"none": nothing}, {"none": nothing})
    assert empty.pairs[0].relations == ()
    Balanced(empty.report(tmp_path / "e.html").read_text())
    assert "no concepts" in repr(empty)


# ---- input that does not fit together


def test_permuted_rows_are_seen_where_ids_are_given() -> None:
    a, b = sides()
    ids = np.arange(N)
    compare_proximities(a, b, sample_ids=(ids, ids))
    order = np.random.default_rng(0).permutation(N)
    with pytest.raises(MismatchError, match=r"B has the samples of A in another order .*rows\[numpy.argsort"):
        compare_proximities(a, {k: v[order] for k, v in b.items()}, sample_ids=(ids, ids[order]))
    shown = noise_pictures(40)
    f = features(network(), shown, ["conv"])
    turned = Features(arrays={"conv": f["conv"][::-1]}, sample_ids=f.sample_ids[::-1], places=f.places[::-1], record=f.record)
    with pytest.raises(MismatchError, match="another order"):
        compare(f, turned)
    with pytest.raises(MismatchError, match="sampled at different places"):
        compare(f, features(network(1), shown, ["conv"], seed=5))
    other = data.ImageArray(np.zeros((40, 8, 8, 3), np.uint8), name="other")
    with pytest.raises(MismatchError, match="run on different pictures: 'noise' and 'other'"):
        compare(f, features(network(1), other, ["conv"]))


def test_messages(images) -> None:
    a, b = sides()
    with pytest.raises(DataError, match="A, early: row 3 has a negative proximity"):
        compare_proximities({"early": np.where(np.arange(N)[:, None] == 3, -0.1, a["early"])}, b)
    with pytest.raises(DataError, match="B, x: row 0 sums to more than 1"):
        compare_proximities(a, {"x": b["x"] + 0.5})
    with pytest.raises(DataError, match="B, x: row 7 is not finite"):
        compare_proximities(a, {"x": np.where(np.arange(N)[:, None] == 7, np.nan, b["x"])})
    with pytest.raises(DataError, match="B, x: has 239 rows, but A, early has 240"):
        compare_proximities(a, {"x": b["x"][1:]})
    with pytest.raises(DataError, match="A has 5 sample ids for 240 rows"):
        compare_proximities(a, b, sample_ids=(np.arange(5), None))
    with pytest.raises(DataError, match="B has no proximities"):
        compare_proximities(a, {})
    with pytest.raises(LayerNotFoundError, match="'earl'"):
        compare_proximities(a, b, pairs=[("earl", "x")])
    with pytest.raises(LayerNotFoundError, match="'zzz'"):
        compare({"x": a["early"]}, {"x": a["early"]}, layers=["zzz"])
    with pytest.raises(TypeError, match="not int"):
        compare(3, a)
    with pytest.raises(ValueError, match="cuts="):
        compare_proximities(a, b, cuts=(1, 2))
    with pytest.raises(MismatchError, match="name picture 999"):
        compare_proximities(a, b, images=images, sample_ids=(np.arange(N) + 760, None))
    tiny = {"x": np.array([[1.0, 0.0], [0.0, 1.0]])}
    assert compare_proximities(tiny, tiny).matrix.d[0, 1] == 0


# ---- the command


def test_command(tmp_path, capsys, images) -> None:
    a, b = sides()
    b = {"x": b["x"], "y": b[HOSTILE]}
    ids = np.arange(N)
    np.savez(tmp_path / "a.npz", sample_ids=ids, **a)
    np.savez(tmp_path / "b.npz", sample_ids=ids, **b)
    np.savez(tmp_path / "turned.npz", sample_ids=ids[::-1], **{k: v[::-1] for k, v in b.items()})
    for i in range(N):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        images[i].save(tmp_path / "pictures" / f"{i:03}.png")
    files = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    assert main(["align", *files]) == 0
    text = capsys.readouterr().out
    assert "240 samples" in text
    assert "middle / y: 1 shared, 1 split, 1 merged, 1 only in a" in text
    assert "sanity of a: 1.00" in text
    out = tmp_path / "out.html"
    assert main(["align", *files, "--json", "--out", str(out), "--images", str(tmp_path / "pictures"), "--pairs", "early:x"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"][0]["a"] == "early"
    assert "background-image:url(data:" in out.read_text()
    assert main(["align", str(tmp_path / "a.npz"), str(tmp_path / "turned.npz")]) == 1
    assert "turned has the samples of a in another order" in capsys.readouterr().err


def test_command_on_features(tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    rows = 8 * rng.standard_normal((4, 6))[np.arange(200) % 4] + 0.3 * rng.standard_normal((200, 6))
    np.savez(tmp_path / "a.npz", layer=rows)
    np.savez(tmp_path / "b.npz", layer=rows[:, ::-1] + 0.01)
    assert main(["align", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--features", "--min-cluster-size", "20"]) == 0
    assert "4 shared" in capsys.readouterr().out
    f = features(network(), noise_pictures(60), ["conv"])
    f.save(tmp_path / "f.safetensors")
    assert main(["align", str(tmp_path / "f.safetensors"), str(tmp_path / "f.safetensors"), "--min-cluster-size", "8"]) == 0


@pytest.mark.parametrize(("arrays", "message"), [
    ({"sample_ids": np.arange(4)}, "holds no matrix"), ({"x": np.ones(4)}, "must be a matrix"),
    ({"x": np.zeros((4, 2)), "sample_ids": np.ones(4)}, "whole numbers"), ({"x": np.full((4, 2), 0.9)}, "sums to more than 1"),
])  # fmt: skip
def test_command_refuses_files(tmp_path, capsys, arrays, message) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert main(["align", str(tmp_path / "a.npz"), str(tmp_path / "a.npz")]) == 1
    assert message in capsys.readouterr().err


def test_command_refuses_what_is_no_file(tmp_path, capsys) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    assert main(["align", str(tmp_path / "bad.npz"), str(tmp_path / "none.npz")]) == 1
    assert "not a readable .npz file" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)))
    assert main(["align", str(tmp_path / "a.npz"), str(tmp_path / "none.npz")]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert main(["align", str(tmp_path / "a.npz"), str(tmp_path / "a.npz"), "--pairs", "x"]) == 1
    assert "LAYER_OF_A:LAYER_OF_B" in capsys.readouterr().err
    assert main(["align", str(tmp_path / "a.npz"), str(tmp_path / "a.npz"), "--out", str(tmp_path / "a.txt")]) == 1


def test_default_discovery_runs_on_features() -> None:
    rng = np.random.default_rng(0)
    rows = 8 * rng.standard_normal((4, 6))[np.arange(200) % 4] + 0.3 * rng.standard_normal((200, 6))
    found = compare({"x": rows}, {"x": rows})
    assert found.pairs[0].alignment.aci == 1.0
    assert found.record["discover"].startswith("NLMCD(")
