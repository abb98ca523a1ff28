"""The command: every sub-command, what lands on which stream, exit codes, messages, interruption and continuation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_database import HOSTILE, LAYERS, WORDS, database, encoder, pictures, vectors

import semanticlens
from semanticlens import ConceptDB, Network, cli
from semanticlens._errors import DataError, MismatchError
from semanticlens.cli import commands
from semanticlens.nn.graph import Node
from semanticlens.nn.preprocess import Preprocess

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, pictures, vectors, a vocabulary and a database of other layers."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((6, 3, 3, 3)).astype(np.float32), "b": np.zeros(6, np.float32)}
    nodes = [
        Node("conv1", "conv2d", ("input",), {"weight": "w", "bias": "b"}, {"stride": [2, 2], "padding": [1, 1, 1, 1]}),
        Node("relu1", "relu", ("conv1",), {}, {}),
    ]
    preprocess = Preprocess(size=(16, 16), resize="stretch", short=None)
    net = Network(nodes, params, input_shape=(3, 16, 16), name="tiny", preprocess=preprocess, aliases={"features.0": "relu1"})
    net.save(folder / "net.safetensors")
    for i, pixels in enumerate(pictures()):
        target = folder / "pictures" / ("ruby", "grass", "sea")[i % 3]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target / f"{i:02}.png")
    np.savez(folder / "vectors.npz", **vectors())
    found = vectors()
    np.savez(folder / "texts.npz", texts=found["texts"], names=found["names"])
    (folder / "words.txt").write_text("\ufeff" + "\n".join([*WORDS, "", "red"]), encoding="utf-8")
    database().save(folder / "small.sldb")
    return folder


@pytest.fixture
def run(place: Path) -> Run:
    """The command as another process, in the folder; text streams."""

    def call(*arguments: str, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(  # type: ignore[call-overload]
            [sys.executable, "-m", "semanticlens", *arguments], cwd=place, capture_output=True, encoding="utf-8", timeout=120, **options
        )
        assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder as working folder of this process."""
    monkeypatch.chdir(place)
    return place


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """Run in this process, expect one line on standard error and nothing on standard output; returns the line."""
    assert cli.main(list(arguments)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("semanticlens: ")
    assert "Traceback" not in err
    return err


BUILD = ("build", "net.safetensors", "pictures", "--layers", "relu1", "--encoder", "vectors.npz", "--top", "7")


# ---------------------------------------------------------------------- each command


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout == f"semanticlens {semanticlens.__version__}\n"
    assert cli.main([]) == 0


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    shown = ("info", "build", "search", "label", "scores", "report", "card", "map", "audit", "repair", "compare", "track", "align", "demo")
    for command in shown:
        with pytest.raises(SystemExit):
            cli.main([command, "-h"])
        assert f"examples:\n  semanticlens {command}" in capsys.readouterr().out


def test_info_of_a_network(run: Run, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "net.safetensors"]) == 0
    text = capsys.readouterr().out
    assert "tiny" in text
    assert "relu1" in text
    found = json.loads(run("info", "net.safetensors", "--json").stdout)
    assert (found["kind"], found["name"], found["n_params"]) == ("network", "tiny", 168)
    assert found["input_shape"] == [3, 16, 16]
    assert [row["name"] for row in found["layers"]][-2:] == ["conv1", "relu1"]
    assert found["layers"][-1]["shape"] == [6, 8, 8]
    assert found["layers"][-1]["aliases"] == ["features.0"]


def test_info_of_a_database(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "small.sldb", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["layers"] == [{"name": n, "components": k, "dead": 1, "examples": 9} for n, k in zip(LAYERS, (5, 8), strict=True)]
    assert found["record"]["encoder"]["dim"] == 6


def test_build_gives_what_the_library_gives(run: Run, place: Path) -> None:
    done = run(*BUILD, "--labels", "folders", "--out", "built.sldb", "--json")
    said = json.loads(done.stdout)
    assert done.stderr == "", "no bar where standard error is no terminal"
    assert said["pictures"] == 30
    assert said["bytes"] == (place / "built.sldb").stat().st_size
    db = ConceptDB.load(place / "built.sldb")
    assert said["layers"] == {"relu1": {"components": 6, "dead": int(db["relu1"].dead.sum())}}
    images = semanticlens.data.ImageFolder(place / "pictures", labels="folders")
    examples = semanticlens.collect(semanticlens.load(place / "net.safetensors"), images, ["relu1"], top=7)
    found = vectors()
    own = semanticlens.encoders.Arrays(images=found["images"], texts=(list(WORDS), found["texts"]), name="vectors")
    np.testing.assert_array_equal(db["relu1"].ids, examples["relu1"].ids)
    np.testing.assert_array_equal(db["relu1"].vectors, ConceptDB.build(examples, images, own)["relu1"].vectors)
    assert db.class_names == ("grass", "ruby", "sea")
    assert not list(place.glob("built.sldb.*")), "the state of the build is gone"


def test_build_from_a_zip_with_the_demo_encoder(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.make_archive(str(tmp_path / "p"), "zip", here / "pictures")
    out = str(tmp_path / "z.sldb")
    assert cli.main(["build", "net.safetensors", str(tmp_path / "p.zip"), "--layers", "features.0", "--encoder", "demo", "--out", out]) == 0
    capsys.readouterr()
    assert cli.main(["search", out, "red", "--top", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 2, "the built-in encoder attaches itself"


def test_search(run: Run, place: Path) -> None:
    done = run("search", "small.sldb", "red", HOSTILE, "--encoder", "vectors.npz", "--top", "3", "--json")
    assert done.stderr == ""
    expected = ConceptDB.load(place / "small.sldb", encoder()).search(["red", HOSTILE], top=3).to_dict()
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))
    text = run("search", "small.sldb", "red", "--encoder", "texts.npz", "--layers", "conv1")
    assert text.stdout.splitlines()[0].split() == ["query", "rank", "layer", "component", "score", "classes"]
    assert "red" in text.stdout.splitlines()[1]
    assert "taken to be of the database's encoder" in text.stderr


def test_search_options(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["search", "small.sldb", "red", "--encoder", "vectors.npz", "--json"]
    assert cli.main([*base, "--threshold", "0.9999"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"] == []
    assert cli.main([*base[:-1], "--threshold", "0.9999"]) == 0
    assert capsys.readouterr().out == "no component scores above the threshold\n"
    assert cli.main([*base, "--templates", "{}", "--null", "none", "--threads", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["templates"] == ["{}"]


def test_label(run: Run, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--vocabulary", "words.txt", "--encoder", "vectors.npz", "--threshold", "0.3")
    done = run("label", "small.sldb", *words, "--out", "labels.json", "--json")
    found = json.loads(done.stdout)
    assert found == json.loads((here / "labels.json").read_text(encoding="utf-8"))
    assert found["vocabulary_size"] == len(WORDS), "blank and repeated lines do not count"
    assert [row["name"] for row in found["layers"]["conv1"][:3]] == ["red", "green", "blue"]
    assert cli.main(["label", "small.sldb", "--vocabulary", "texts.npz", "--threshold", "0.3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == found["layers"], "vectors need no encoder"
    assert cli.main(["label", "small.sldb", "--vocabulary", "texts.npz", "--threshold", "0.3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "dead" in lines[4]
    assert "red" in lines[1]


def test_scores(run: Run, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run("scores", "small.sldb", "--json").stdout)
    assert found == json.loads(json.dumps(ConceptDB.load(place / "small.sldb").scores().to_dict()))
    assert cli.main(["scores", str(place / "small.sldb")]) == 0
    assert "clarity" in capsys.readouterr().out


def test_report_and_card(run: Run, place: Path) -> None:
    words = ("--encoder", "vectors.npz", "--vocabulary", "words.txt")
    done = run("report", "small.sldb", "r.html", "--queries", "red", "blue", *words, "--title", "A title", "--max-components", "5")
    assert done.stdout.startswith("r.html: ")
    page = (place / "r.html").read_text(encoding="utf-8")
    assert "A title" in page
    assert "Searched for “red” and “blue”" in page
    assert page.count('<li class="tile') == 5
    done = run("card", "small.sldb", "conv1", "0", "c.png", *words, "--examples", "4")
    with Image.open(place / "c.png") as drawn:
        assert f"{drawn.width} x {drawn.height} pixels" in done.stdout


def test_streams_are_written_whole(run: Run) -> None:
    done = run("search", "small.sldb", "полосатый", "--encoder", "vectors.npz", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert "\\u043f" in done.stdout, "a terminal without the letters still gets an answer"


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "none.safetensors"], ["no file", "none.safetensors"]),
        (["info", "none.sldb"], ["no database", "none.sldb"]),
        (["info", "words.txt"], ["words.txt", ".txt", "not known"]),
        (["info", "small.txt"], ["no file"]),
        (["search", "none.sldb", "red"], ["no database none.sldb", "semanticlens build"]),
        (["search", "words.txt", "red"], ["words.txt"]),
        (["search", "net.safetensors", "red"], ["net.safetensors"]),
        (["search", "small.sldb", "red"], ["encoder", "--encoder FILE.npz"]),
        (["search", "small.sldb", "rad", "--encoder", "vectors.npz"], ["'rad'", "red"]),
        (["search", "small.sldb", "red", "--encoder", "vectors.npz", "--layers", "conv2"], ["'conv2'", "nearest: conv1"]),
        (["search", "small.sldb", "red", "--encoder", "none.npz"], ["no file none.npz"]),
        (["search", "small.sldb", "red", "--encoder", "words.txt"], ["--encoder words.txt", "demo"]),
        (["search", "small.sldb", "red", "--encoder", "clip"], ["'clip'", "demo"]),
        (["label", "small.sldb", "--vocabulary", "none.txt"], ["none.txt", "No such file"]),
        (["label", "small.sldb", "--vocabulary", "texts.npz", "--out", "labels.csv"], ["labels.csv", ".json"]),
        (["scores", "small.sldb", "--layers", "conv9"], ["'conv9'", "conv1"]),
        (["report", "small.sldb", "r.pdf"], ["r.pdf", ".html"]),
        (["report", "small.sldb", "none/r.html"], ["folder none does not exist"]),
        (["card", "small.sldb", "conv", "0", "c.png"], ["'conv'", "nearest: conv1"]),
        (["card", "small.sldb", "conv1", "5", "c.png"], ["component 5", "0 to 4"]),
        (["card", "small.sldb", "conv1", "0", "c.gif"], ["c.gif", ".png"]),
        (["card", "small.sldb", "conv1", "0", "none/c.png"], ["c.png", "folder none does not exist"]),
        ([*BUILD, "--out", "small.sldb"], ["small.sldb exists", "--force"]),
        ([*BUILD, "--out", "pictures"], ["is a folder"]),
        ([*BUILD, "--out", "none/x.sldb"], ["folder none does not exist"]),
        ([*BUILD, "--out", "x.safetensors"], ["x.sldb"]),
        (["build", "net.safetensors", "pictures", "--layers", "relu2", "--encoder", "demo", "--out", "x.sldb"], ["'relu2'", "relu1"]),
        (["build", "net.safetensors", "none", "--layers", "relu1", "--encoder", "demo", "--out", "x.sldb"], ["none"]),
        (["build", "net.safetensors", "words.txt", "--layers", "relu1", "--encoder", "demo", "--out", "x.sldb"], ["neither a folder"]),
        (["build", "net.safetensors", "pictures", "--layers", "relu1", "--encoder", "texts.npz", "--out", "x.sldb"], ["texts.npz"]),
        (["build", "none.npz", "pictures", "--layers", "relu1", "--encoder", "demo", "--out", "x.sldb"], ["no file none.npz"]),
        ([*BUILD, "--pool", "median", "--out", "x.sldb"], ["median"]),
        (["demo", "--out", "demo.txt"], ["demo.txt", ".html"]),
    ],
    ids=lambda value: "-".join(value)[:60].replace("/", "_") if isinstance(value, list) else None,
)
def test_what_was_wrong_is_said_in_one_line(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    line = fails(capsys, *arguments)
    for word in words:
        assert word in line, line
    assert not (here / "x.sldb").exists()


def test_wrong_use_is_2(run: Run) -> None:
    for arguments in (["nonsense"], ["search"], ["search", "small.sldb"], ["card", "small.sldb", "conv1", "one", "c.png"],
                      ["search", "small.sldb", "red", "--threads", "0"], ["search", "small.sldb", "red", "--top", "0"],
                      ["search", "small.sldb", "red", "--null", "maybe"], ["build", "net.safetensors", "pictures"]):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            cli.main(arguments)
    done = run("search", "small.sldb", "red", "--top", "x", code=2)
    assert done.stdout == ""
    assert "'x' is not a whole number of at least 1" in done.stderr


def test_damaged_and_foreign_vectors(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = vectors()
    short, half, objects, text = (str(tmp_path / f"{name}.npz") for name in ("short", "half", "objects", "text"))
    np.savez(short, images=found["images"][:-1], texts=found["texts"], names=found["names"])
    line = fails(capsys, "build", "net.safetensors", "pictures", "--layers", "relu1", "--encoder", short, "--out", "x.sldb")
    assert "29" in line
    assert "30" in line
    assert "is not the one the database was made with" in fails(capsys, "search", "small.sldb", "red", "--encoder", short)
    np.savez(half, images=found["images"], texts=found["texts"])
    assert "only one of texts and names" in fails(capsys, "search", "small.sldb", "red", "--encoder", half)
    np.savez(objects, texts=found["texts"], names=np.array(list(WORDS), dtype=object))
    assert "not of objects" in fails(capsys, "search", "small.sldb", "red", "--encoder", objects)
    Path(text).write_text("no zip file")
    assert "not a readable .npz" in fails(capsys, "search", "small.sldb", "red", "--encoder", text)
    (tmp_path / "latin.txt").write_bytes("grün".encode("latin-1"))
    assert "not UTF-8" in fails(capsys, "label", "small.sldb", "--vocabulary", str(tmp_path / "latin.txt"), "--encoder", "vectors.npz")
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "has no words" in fails(capsys, "label", "small.sldb", "--vocabulary", str(tmp_path / "empty.txt"), "--encoder", "vectors.npz")


def test_unreadable_pictures(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, pixels in enumerate(pictures(6)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "3.png").write_bytes(b"not a picture")
    command = ["build", "net.safetensors", str(folder), "--layers", "relu1", "--encoder", "demo", "--top", "3"]
    command += ["--out", str(tmp_path / "x.sldb")]
    assert "3.png" in fails(capsys, *command)
    assert cli.main([*command, "--on-error", "skip", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["skipped"] == 1
    assert "3.png" in err
    assert "warning: " in err, "the library's warnings come as lines of the command"
    assert "UserWarning" not in err


def test_tracebacks_are_for_those_who_ask(
    run: Run, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("scores", "none.sldb", code=1, env={**os.environ, cli.TRACEBACK: "1"})
    assert "Traceback" in done.stderr
    assert "no database none.sldb" in done.stderr
    with pytest.raises(FileNotFoundError, match="no database"):
        cli.main(["scores", "none.sldb", "--traceback"])
    monkeypatch.setenv(cli.TRACEBACK, "0")
    fails(capsys, "scores", "none.sldb")


def test_unforeseen_errors_say_so(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: object) -> None:
        raise RuntimeError("one\n\x1b[31mtwo")

    monkeypatch.setattr(commands, "scores", fail)
    line = fails(capsys, "scores", "small.sldb")
    assert line == "semanticlens: RuntimeError: one \\x1b[31mtwo (unexpected; --traceback shows where)\n"
    monkeypatch.setattr(commands, "scores", lambda options: (_ for _ in ()).throw(MemoryError()))
    assert "not enough memory" in fails(capsys, "scores", "small.sldb")


def test_no_control_characters_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.printable("a\x1b]0;x\x07\u202eb\tc\nд") == "a\\x1b]0;x\\x07\\u202eb\tc\nд"


def test_a_closed_pipe_is_no_error(place: Path) -> None:
    command = [sys.executable, "-m", "semanticlens", "scores", "small.sldb", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(command, cwd=place, stdout=writing, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# ---------------------------------------------------------------------- interruption

INTERRUPTED = """
import os, signal, sys, time
from semanticlens import cli, data
original = data.ImageFolder.__getitem__
def read(self, index):
    if index == 24:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(0.3)
    return original(self, index)
data.ImageFolder.__getitem__ = read
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_build_continues_to_the_same_bytes(here: Path, capsys: pytest.CaptureFixture[str], sent: str, code: int) -> None:
    arguments = [*BUILD, "--batch-size", "2", "--out", f"{sent}.sldb"]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, sent, *arguments], capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    state = here / f"{sent}.sldb.collect.part"
    assert state.exists()
    assert not (here / f"{sent}.sldb").exists()
    if sent == "SIGINT":
        assert done.stderr == f"semanticlens: interrupted; the state is kept in {state.name}: the same command continues from there\n"
    assert cli.main(arguments) == 0
    assert f"continuing the build kept in {state.name}" in capsys.readouterr().err
    assert not state.exists()
    assert cli.main([*arguments[:-1], f"{sent}-undisturbed.sldb"]) == 0
    assert (here / f"{sent}.sldb").read_bytes() == (here / f"{sent}-undisturbed.sldb").read_bytes()


def test_state_of_another_build_is_refused_until_restart(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ConceptDB, "build", stop)
        assert cli.main([*BUILD, "--out", "other.sldb", "--checkpoint", "state"]) == 130
    assert "state.collect.part" in capsys.readouterr().err
    assert cli.main([*BUILD, "--top", "5", "--out", "other.sldb", "--checkpoint", "state"]) == 1
    err = capsys.readouterr().err
    assert "top was 7, now 5" in err
    assert cli.main([*BUILD, "--top", "5", "--out", "other.sldb", "--checkpoint", "state", "--restart"]) == 0
    assert not list(here.glob("state.*"))
    before = (here / "other.sldb").read_bytes()
    assert cli.main([*BUILD, "--top", "5", "--out", "other.sldb", "--force"]) == 0
    assert (here / "other.sldb").read_bytes() == before


def test_an_interruption_with_nothing_kept_promises_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "search", stop)
    assert fails(capsys, "search", "small.sldb", "red", code=130) == "semanticlens: interrupted\n"


def test_errors_of_this_package_are_foreseen() -> None:
    for error in (DataError("a"), MismatchError("b"), FileNotFoundError(2, "No such file", "f"), ValueError("v")):
        assert "unexpected" not in cli._message(error)
