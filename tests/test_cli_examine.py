"""The commands audit and repair, on the demo network and generated pictures in folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from test_cli import fails

import semanticlens as sl
from semanticlens import cli, data
from semanticlens.demo.explore import load_network
from semanticlens.demo.pictures import PictureSet, generate, with_overlay

AUDIT = (
    "audit",
    "shapes.sldb",
    "net.safetensors",
    "look",
    "--classes",
    "moon",
    "--valid",
    "moon",
    "--spurious",
    "corner mark",
    "frame",
)


def write(folder: Path, pictures: PictureSet) -> None:
    for i, (pixels, truth) in enumerate(zip(pictures.pixels, pictures.truths, strict=True)):
        target = folder / truth["shape"]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target / f"{i:04}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, its database and folders of pictures: what was looked at, and pairs without and with the mark."""
    folder = tmp_path_factory.mktemp("examine")
    net = load_network()
    net.save(folder / "net.safetensors")
    write(folder / "look", generate(200, 5))
    few = generate(48, 6)
    for name, overlay in (("plain", "none"), ("marked", "corner mark")):
        write(folder / name, with_overlay(few, overlay))
    images = data.ImageFolder(folder / "look", labels="folders")
    sl.ConceptDB.build(sl.collect(net, images, ["relu4"], top=10, pool="max"), images, sl.encoders.load("demo")).save(
        folder / "shapes.sldb"
    )
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.mark.filterwarnings("ignore:components that were never above 0")
def test_audit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*AUDIT, "--null", "none", "--threshold", "0.3", "--measure", "26", "--pairs", "plain", "marked"]
    assert cli.main([*given, "--out", "a.html", "--save", "a.json", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["answers"]
    assert found["findings"][0]["layer"] == "relu4"
    assert json.loads((here / "a.json").read_text()) == found
    assert "moon" in (here / "a.html").read_text()
    saved = json.loads((here / "a.json").read_text())
    saved["decisions"] = [
        {"layer": "relu4", "component": found["findings"][0]["component"], "decision": "spurious", "note": "seen"}
    ]
    (here / "b.json").write_text(json.dumps(saved))
    assert cli.main([*given, "--decisions", "b.json"]) == 0
    done = capsys.readouterr()
    assert "spurious" in done.out
    assert "1 decisions taken over" in done.err


def test_audit_without_a_threshold_prints_the_curve(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*AUDIT, "--null", "none", "--measure", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "layer",
        "class",
        "threshold",
        "valid",
        "spurious",
        "unexpected",
    ]
    assert "--out and --save need --threshold" in fails(capsys, *AUDIT, "--out", "x.html", "--measure", "0")


def test_repair(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["repair", "net.safetensors", "relu4:14", "relu4:23", "--out", "repaired.safetensors"]
    more = ["--group", "plain=plain", "--group", "marked=marked", "--report", "r.html", "--target", "moon"]
    assert cli.main([*given, *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["group"]: row for row in found["before_after"]["groups"]}
    assert rows["marked"]["accuracy_after"] > rows["marked"]["accuracy_before"]
    repaired = sl.load(here / "repaired.safetensors")
    assert repaired.fingerprint == found["repaired"]["fingerprint"]
    assert "called moon" in (here / "r.html").read_text()
    assert "repaired.safetensors exists: pass --force" in fails(capsys, *given)
    assert cli.main([*given, "--force", "--how", "mean", "--images", "look"]) == 0
    assert "Repair(mean: relu4:14, relu4:23" in capsys.readouterr().out
    assert cli.main([*given, "--force", "--how", "project", "--pairs", "plain", "marked"]) == 0


def test_bad_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["repair", "net.safetensors", "relu4:14", "--out", "x.safetensors"]
    (here / "odd" / "unicorn").mkdir(parents=True)
    shutil.copy(next((here / "plain" / "moon").iterdir()), here / "odd" / "unicorn")
    for arguments, message in (
        ([*given[:2], "relu4", *given[3:]], "'relu4' is no component: write LAYER:NUMBER"),
        ([*given[:2], "relu4:99", *given[3:]], "has components 0 to 25"),
        ([*given, "--group", "plain"], "write NAME=FOLDER"),
        ([*given, "--group", "odd=odd"], "'unicorn' is no class of the network"),
        ([*given, "--how", "mean"], "pass images="),
        ([*given, "--how", "project", "--pairs", "plain", "look"], "plain has 48 pictures and look 200"),
        ([*given[:4], "x.html"], "the name must end in .safetensors"),
        ([*AUDIT[:5], "unicorn", *AUDIT[6:]], "unicorn"),
    ):
        assert message in fails(capsys, *arguments)
    assert not (here / "x.safetensors").exists()
