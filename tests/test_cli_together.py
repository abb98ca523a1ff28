"""The commands compare and track, on small databases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import planted_concepts as planted
import pytest
import small_database
from test_cli import fails

from semanticlens import ConceptDB, cli
from semanticlens.lens import compare, track

V = planted.directions(6, 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    for name, db in zip("abc", planted.databases(V[:4], V[2:], V[3:5]), strict=True):
        db.save(folder / f"{name}.sldb")
    small_database.database().save(folder / "small.sldb")
    np.savez(folder / "words.npz", texts=V, names=[f"word {k}" for k in range(6)])
    found = small_database.vectors()
    np.savez(folder / "vectors.npz", **found)
    (folder / "words.txt").write_text("\n".join(small_database.WORDS), encoding="utf-8")
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def load(folder: Path, name: str) -> ConceptDB:
    return ConceptDB.load(folder / name)


def test_compare(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "a.sldb", "b.sldb", "--threshold", "0.9", "--resamples", "50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    whole = compare(load(here, "a.sldb"), load(here, "b.sldb"), threshold=0.9, resamples=50)
    assert found == json.loads(json.dumps(whole.to_dict()))
    assert found["counts"]["a"] == {"shared": 2, "covered": 0, "unique": 2}
    assert cli.main(["compare", "a.sldb", "b.sldb", "--threshold", "0.9", "--vocabulary", "words.npz", "--out", "ab.html"]) == 0
    done = capsys.readouterr()
    assert "word 2" in done.out
    assert "ab.html" in done.err
    assert "Shared: 2 pairs" in (here / "ab.html").read_text(encoding="utf-8")
    assert cli.main(["compare", "a.sldb", "b.sldb", "--names", "old", "new", "--centre"]) == 0
    text = capsys.readouterr().out
    assert "no threshold yet" in text
    assert "less their mean" in text
    assert text.splitlines()[1].startswith("old   new")


def test_compare_layers_texts_and_chance(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["compare", "small.sldb", "small.sldb", "--layers-a", "conv1", "--layers-b", small_database.HOSTILE, "--resamples", "20"]
    assert cli.main([*given, "--vocabulary", "words.txt", "--encoder", "vectors.npz", "--chance", "0.05", "--random", "200", "--json"]) == 0
    done = capsys.readouterr()
    assert done.err == ""
    found = json.loads(done.out)
    assert found["layers"] == [["conv1"], [small_database.HOSTILE]]
    assert found["random"]["a"]["value"] < 1
    assert {m["label"] for m in found["matches"]["a"]} <= {*small_database.WORDS}
    db = load(here, "small.sldb")
    whole = compare(db, db, "conv1", small_database.HOSTILE, random=200, resamples=20)
    assert found["threshold"] == pytest.approx(whole.threshold_at(0.05))


def test_track(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["track", "a.sldb", "b.sldb", "c.sldb", "--threshold", "0.9", "--resamples", "20"]
    assert cli.main([*given, "--json", "--plot", "t.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    whole = track([load(here, f"{name}.sldb") for name in "abc"], threshold=0.9, resamples=20)
    assert found == json.loads(json.dumps(whole.to_dict()))
    assert [step["continues"] for step in found["steps"]] == [2, 2]
    assert (here / "t.png").stat().st_size > 1000
    assert cli.main([*given, "--layers", "layer", "layer", "layer", "--names", "x", "y", "z", "--vocabulary", "words.npz"]) == 0
    assert "steps at threshold 0.9" in capsys.readouterr().out
    assert cli.main(["track", "small.sldb", "small.sldb", "--layers", "conv1", "--chance", "0.05", "--random", "100"]) == 0
    assert "steps at threshold" in capsys.readouterr().out


def test_errors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no database none.sldb" in fails(capsys, "compare", "a.sldb", "none.sldb")
    assert "different encoders" in fails(capsys, "compare", "a.sldb", "small.sldb")
    assert "--out needs --threshold or --chance" in fails(capsys, "compare", "a.sldb", "b.sldb", "--out", "x.html")
    assert "leave out one" in fails(capsys, "compare", "a.sldb", "b.sldb", "--threshold", "0.9", "--chance", "0.05")
    assert "must end in .html" in fails(capsys, "compare", "a.sldb", "b.sldb", "--threshold", "0.9", "--out", "x.txt")
    assert "threshold=3" in fails(capsys, "compare", "a.sldb", "b.sldb", "--threshold", "3")
    assert "layer 'x' is not in the database" in fails(capsys, "compare", "a.sldb", "b.sldb", "--layers-a", "x")
    assert "too few to draw random" in fails(capsys, "compare", "a.sldb", "b.sldb", "--random", "10")
    assert "needs at least two" in fails(capsys, "track", "a.sldb")
    assert "--plot needs --threshold or --chance" in fails(capsys, "track", "a.sldb", "b.sldb", "--plot", "t.png")
    assert "2 entries" in fails(capsys, "track", "a.sldb", "b.sldb", "--layers", "x", "y", "z")
    assert "3 different names" in fails(capsys, "track", "a.sldb", "b.sldb", "c.sldb", "--names", "x")
