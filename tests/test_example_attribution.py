"""The tables of relevance maps: the committed page is what the script makes of the committed numbers; the script runs on a few photos."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT, TABLE, PAGE = (ROOT / name for name in ("examples/attribution_tables.py", "examples/results/attribution_tables.json",
                                                "docs/attribution_tables.md"))  # fmt: skip


def test_the_page_holds_the_committed_numbers() -> None:
    if not (SCRIPT.is_file() and PAGE.is_file()):
        pytest.skip("the examples and pages are not beside the tests")
    spec = importlib.util.spec_from_file_location("attribution_tables", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = json.loads(TABLE.read_text(encoding="utf-8"))
    assert module.page(result) == PAGE.read_text(encoding="utf-8")
    for found in result["networks"].values():
        control = found["localisation"][module.CONTROL]
        assert control["mass"]["mean"] == pytest.approx(0.25, abs=0.002)
        assert control["rank"]["mean"] == pytest.approx(0.25, abs=0.005)
        for name, row in found["localisation"].items():
            assert name == module.CONTROL or row["mass"]["mean"] > 0.3


@pytest.mark.slow
def test_the_script_runs(tmp_path: Path, data_dir: Path) -> None:
    options = ("--data", data_dir, "--out", tmp_path, "--networks", "SqueezeNet", "--photos", 2, "--mosaics", 1, "--steps", 2, "--shown", 2,
               "--table", tmp_path / "t.json", "--page", tmp_path / "p.md", "--threads", 1)  # fmt: skip
    done = subprocess.run([sys.executable, str(SCRIPT), *map(str, options)], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "t.json").read_text())["networks"]["SqueezeNet"]
    assert found["localisation"]["epsilon_plus_flat"]["mass"]["mean"] > 0.4
    assert "## SqueezeNet" in (tmp_path / "p.md").read_text()
    assert all((tmp_path / name).stat().st_size > 20_000 for name in ("SqueezeNet.png", "SqueezeNet_mosaics.png"))
