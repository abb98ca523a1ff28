"""What a newcomer pays: install time, wheel size, import time, the demo's time and memory.  Writes benchmarks/results/install.json.

    python benchmarks/bench_install.py

Builds from this checkout in a new virtual environment in a temporary folder. The dependencies are installed first: the install
time is that of this package alone (build environment, compilation, wheel, installation). Limits, from the project's issue: import
0.15 s, wheel 3 MB without the demo's assets, install 60 s, demo 30 s and 1 GB on two cores.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from common import ROOT, record

IMPORTS = {"python": "pass", "numpy": "import numpy", "semanticlens": "import semanticlens",
           "semanticlens, all public names": "import semanticlens as s; [getattr(s, n) for n in s.__all__]"}
MEMORY = ("import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; "
          "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024); sys.exit(code)")


def timed(command: list[str], **options: object) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, **options)
    return time.perf_counter() - start


def imports(python: Path, folder: Path, repeats: int = 9) -> dict[str, float]:
    """Median seconds of a whole interpreter for each line, turn by turn; the cost of an import is the difference to the empty one."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for turn in range(repeats + 1):
        for name, code in IMPORTS.items():
            seconds = timed([str(python), "-c", code], cwd=folder)
            if turn:                                  # the first turn fills the page cache
                times[name].append(seconds)
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1"}
        environment.pop("PYTHONPATH", None)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
        python = folder / "env/bin/python"
        subprocess.run([str(python), "-m", "pip", "wheel", "--no-deps", "-w", str(folder), str(ROOT)], check=True, env=environment)
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            assets = sum(i.compress_size for i in archive.infolist() if i.filename.startswith("semanticlens/demo/assets/"))
        dependencies = [str(python), "-m", "pip", "install", "numpy>=1.26", "safetensors", "pillow", "tqdm"]
        results: dict[str, object] = {"dependencies_seconds": round(timed(dependencies, env=environment), 1)}
        results["install_seconds"] = round(timed([str(python), "-m", "pip", "install", "--no-deps", str(ROOT)], env=environment), 1)
        results["wheel_bytes"], results["wheel_bytes_without_assets"] = wheel.stat().st_size, wheel.stat().st_size - assets
        environment.update(OMP_WAIT_POLICY="passive")
        results["interpreter_seconds"] = imports(python, folder)
        results["import_seconds"] = round(results["interpreter_seconds"]["semanticlens"] - results["interpreter_seconds"]["python"], 4)
        demo = [str(python), "-c", MEMORY, str(folder / "env/bin/semanticlens"), "demo", "--quiet", "--out", str(folder / "demo.html")]
        start = time.perf_counter()
        done = subprocess.run(demo, check=True, env=environment, cwd=folder, capture_output=True, text=True)
        results["demo_seconds"] = round(time.perf_counter() - start, 1)
        results["demo_peak_bytes"], results["demo_report_bytes"] = int(done.stdout), (folder / "demo.html").stat().st_size
    print(json.dumps(results, indent=1))
    record("install", results, limits={"import_seconds": 0.15, "wheel_bytes_without_assets": 3 * 2**20, "install_seconds": 60,
                                       "demo_seconds": 30, "demo_peak_bytes": 2**30})


if __name__ == "__main__":
    main()
