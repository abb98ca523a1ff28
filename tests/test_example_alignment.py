"""The examples of alignment from the command line: the planted one whole, the real one on a few pictures of the data folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(script: str, *arguments: object) -> str:
    if not EXAMPLES.is_dir():
        pytest.skip("the examples are not beside the tests")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_planted(tmp_path) -> None:
    text = run("alignment_planted.py", "--seeds", 2, "--table", tmp_path / "t.json", "--report", tmp_path / "r.html")
    assert text.count("14 of 14 planted relations reported, 0 others") == 2
    found = json.loads((tmp_path / "t.json").read_text())
    committed = json.loads((EXAMPLES / "results" / "alignment_planted.json").read_text())
    for here, there in zip(found["disagreement"], committed["disagreement"], strict=True):
        assert here["aci"] == pytest.approx(there["aci"], abs=0.02)
    assert "Shared concepts (5)" in (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_real_networks(tmp_path, data_dir) -> None:
    options = ("--data", data_dir, "--out", tmp_path / "out", "--limit", 120, "--groups", "cifar", "--table", tmp_path / "t.json")
    run("alignment_real_networks.py", *options)
    found = json.loads((tmp_path / "t.json").read_text())["groups"]["cifar"]
    assert found["n"] == 120
    assert len(found["layers"]) == 27
    assert all(0 <= s["aci"] <= 1 for name, m in found["methods"].items() if "CKA" not in name for s in m["sanity"].values())
    assert (tmp_path / "out" / "ResNet-20_and_ResNet-56.html").stat().st_size > 50_000
