"""Builds and runs limits.c: the multiply-add peak and the read bandwidth that benchmarks relate their numbers to.

    python benchmarks/limits.py [THREADS]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import semanticlens

SOURCE = Path(__file__).with_name("limits.c")
TIERS = {"baseline": (4, []), "neon": (4, []), "avx2": (8, ["-mavx2", "-mfma"]),
         "avx512": (16, ["-mavx512f", "-mfma", "-mprefer-vector-width=512"])}


def measure(n_threads: int, seconds: float) -> dict[str, Any]:
    """``gflops`` and ``gbytes_per_second`` of ``n_threads`` processes at once, at the active tier."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("measuring the machine's limits needs a C compiler (gcc)")
    tier = semanticlens.build_info()["tier"]
    lanes, flags = TIERS[tier]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "limits")
        subprocess.run([compiler, "-std=gnu11", "-O2", "-ffp-contract=fast", *flags, f"-DLANES={lanes}", str(SOURCE), "-o", str(program)],
                       check=True)

        def total(what: str) -> float:
            running = [subprocess.Popen([str(program), what, str(seconds)], stdout=subprocess.PIPE, text=True) for _ in range(n_threads)]
            return sum(float(process.communicate()[0]) for process in running)

        return {"tier": tier, "threads": n_threads, "gflops": round(total("fma"), 1), "gbytes_per_second": round(total("read"), 2)}


if __name__ == "__main__":
    print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1, 0.5))
