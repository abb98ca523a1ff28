"""What every benchmark shares: interleaved medians, the machine's own limits, one JSON form for results.

    from common import compare, limits, record          # when run as `python benchmarks/bench_x.py`

Times of different runs are not comparable on a shared machine: a benchmark measures all its contestants in one run, turn by turn, and
reports ratios.  A number may be quoted only from a file that :func:`record` wrote under benchmarks/results/.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

import semanticlens
from semanticlens import _core

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
PACKAGES = ("numpy", "torch", "torchvision", "scikit-learn", "scipy", "safetensors", "pillow")


def compare(calls: Mapping[str, Callable[[], Any]], *, repeats: int = 7, warmup: int = 1,
            clock: str = "wall") -> dict[str, dict[str, float]]:
    """Time several calls turn by turn: A B C, A B C, ...; a slow spell of the machine hits all of them alike.

    Parameters
    ----------
    calls : mapping of str to callable
    repeats, warmup : int
        Counted and uncounted rounds.
    clock : {"wall", "cpu"}
        ``time.perf_counter``; or ``time.process_time``, the sum over this process's threads, which is what to read for one thread on a busy
        machine.  Both are recorded; this one orders ``seconds``, ``low`` and ``high``.

    Returns
    -------
    dict
        By name: ``seconds`` (median), ``low`` and ``high`` (extremes), ``wall`` and ``cpu`` (medians).
    """
    walls: dict[str, list[float]] = {name: [] for name in calls}
    cpus: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn >= warmup:
                walls[name].append(wall)
                cpus[name].append(cpu)
    chosen = {"wall": walls, "cpu": cpus}[clock]
    return {name: {"seconds": statistics.median(chosen[name]), "low": min(chosen[name]), "high": max(chosen[name]),
                   "wall": statistics.median(walls[name]), "cpu": statistics.median(cpus[name]), "repeats": repeats} for name in calls}


def ratio(times: Mapping[str, Mapping[str, float]], slow: str, fast: str) -> float:
    """How many times longer ``slow`` took than ``fast``."""
    return times[slow]["seconds"] / times[fast]["seconds"]


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes.  Measure each contestant in a process of its own.

    On Linux from VmHWM: ``ru_maxrss`` survives exec and would count the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limits(n_threads: int = 1, seconds: float = 0.5) -> dict[str, Any]:
    """What this machine can do at best, measured now: the top of the scale for the numbers of a benchmark.

    ``gflops``: float32 multiply-adds in registers, at the active tier (2 operations per lane).  ``gbytes_per_second``: reading 256 MB per
    thread once, with the faster of two readers that are not ours: NumPy's maximum, and products of four rows of 2048 with a vector by its
    BLAS, which are too small for threads of its own and read several places at a time (one place alone keeps a core waiting).
    ``n_threads`` threads at once, best of several rounds within ``seconds`` for each reader; one thread by processor time, as the
    benchmarks time it: by the wall clock a busy machine read at half the rate.
    """
    clock = time.process_time if n_threads == 1 else time.perf_counter
    data = [np.ones(64 << 20, np.float32) for _ in range(n_threads)]
    vector = np.ones(2048, np.float32)

    def largest(array: np.ndarray) -> None:
        array.view(np.int32).max()

    def products(array: np.ndarray) -> None:
        np.matmul(array.reshape(-1, 4, 2048), vector)

    with ThreadPoolExecutor(n_threads) as pool:
        rounds = max(3, int(seconds / 0.05))
        flops = max(sum(pool.map(_core.fma_peak, [0.05] * n_threads)) for _ in range(rounds))
        best = float("inf")
        for read in (largest, products):
            rounds, end = 0, time.perf_counter() + seconds
            while time.perf_counter() < end or rounds < 2:
                start = clock()
                list(pool.map(read, data))
                best, rounds = min(best, clock() - start), rounds + 1
    return {"tier": semanticlens.build_info()["tier"], "threads": n_threads, "gflops": round(flops / 1e9, 1),
            "gbytes_per_second": round(n_threads * data[0].nbytes / best / 1e9, 2)}


def machine() -> dict[str, Any]:
    """Processor, memory, compiler and versions; nothing that names this particular machine or its folders."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    info: dict[str, Any] = {
        "cpu": _cpu_model(), "cores": os.cpu_count(), "memory_gb": round(memory / 2**30, 1), "caches": _caches(),
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
        "build": semanticlens.build_info(), "packages": {"semanticlens-native": semanticlens.__version__},
    }
    for package in PACKAGES:
        try:
            info["packages"][package] = version(package)
        except PackageNotFoundError:
            continue
    return info


def record(name: str, results: Any, **more: Any) -> Path:
    """Write benchmarks/results/<name>.json: date, machine, ``results`` and whatever else is given; returns the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"name": name, "date": date.today().isoformat(), "commit": _commit(), "machine": machine(), **more, "results": results}
    path.write_text(json.dumps(document, indent=1, default=_plain) + "\n", encoding="utf-8")
    print(f"wrote benchmarks/results/{path.name}")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _commit() -> str:
    """Commit that was measured, with a plus sign if the tree had changes; empty outside a repository."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "csrc", "semanticlens", "setup.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _caches() -> dict[str, str]:
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level = (index / "type").read_text().strip(), (index / "level").read_text().strip()
            sizes[f"L{level}{'' if kind == 'Unified' else kind[0].lower()}"] = (index / "size").read_text().strip()
        except OSError:
            continue
    return sizes
