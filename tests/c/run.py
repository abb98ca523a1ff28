"""Builds and runs the C unit tests: each tests/c/test_<family>.c is linked with the whole of csrc/core, which needs no Python.

    python tests/c/run.py                                   # gcc, plain
    python tests/c/run.py --mode sanitize --cc gcc clang    # address+undefined
    python tests/c/run.py --mode valgrind --tier baseline   # valgrind knows no AVX-512
    python tests/c/run.py scores --mode all                 # one family, every mode
    python tests/c/run.py --cc aarch64-linux-gnu-gcc --emulator "qemu-aarch64 -L /usr/aarch64-linux-gnu"   # the NEON tier

Flags and tiers are those of setup.py, with warnings as errors, ``-DSL_TESTING`` and live asserts.  Ends with "N passed, N failed".
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODES = {
    "plain": ["-O2", "-g"],
    "sanitize": ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "valgrind": ["-O1", "-g1", "-gdwarf-4"],          # valgrind 3.19 cannot read clang's DWARF 5
}
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite,indirect",
            "--errors-for-leak-kinds=definite,indirect"]   # libgomp keeps its threads' memory: "possibly lost"
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0", "UBSAN_OPTIONS": "print_stacktrace=1", "OMP_WAIT_POLICY": "passive"}
TIMEOUT = 600                                         # seconds for one test program


def setup_module() -> ModuleType:
    """setup.py as a module: its flags are the only copy."""
    spec = importlib.util.spec_from_file_location("semanticlens_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def openmp_flags(cc: str, folder: Path, serial: list[str]) -> list[str]:
    """``-fopenmp`` where this compiler has a run-time for it, else the announced serial build."""
    probe = folder / f"probe_{cc}.c"
    probe.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
    found = subprocess.run([cc, "-fopenmp", str(probe), "-o", str(probe.with_suffix(""))], capture_output=True, check=False)
    if found.returncode == 0:
        return ["-fopenmp"]
    print(f"  {cc} has no OpenMP run-time here: serial build", flush=True)
    return serial


def build(cc: str, mode: str, tests: list[Path], folder: Path, jobs: int) -> dict[Path, Path]:
    """Compile core once and every test; the executables by test."""
    setup = setup_module()
    where = folder / f"{cc}_{mode}"
    where.mkdir()
    x86 = subprocess.run([cc, "-dumpmachine"], capture_output=True, text=True, check=True).stdout.startswith("x86_64")
    flags = [*setup.FLAGS, *setup.WARNINGS, "-Werror", "-UNDEBUG", "-DSL_TESTING", "-DSL_EMULATE_AMX=1", *MODES[mode],
             *openmp_flags(cc, folder, setup.SERIAL), "-Icsrc/include", "-Icsrc/core", "-Itests/c"]

    probe = [cc, *setup.AMX, "-xc", "-", "-fsyntax-only"]
    has_tiles = x86 and subprocess.run(probe, input=setup.AMX_PROBE, text=True, capture_output=True, check=False).returncode == 0

    def compile_one(source: Path) -> Path:
        name = source.relative_to(ROOT).as_posix()
        target = where / (name.replace("/", "_") + ".o")
        own = setup.TIER_FLAGS.get(name, []) if x86 and (has_tiles or source.stem != "tier_amx") else []
        subprocess.run([cc, *flags, *own, "-c", name, "-o", str(target)], cwd=ROOT, check=True)
        return target

    core = sorted((ROOT / "csrc/core").glob("*.c"))
    with ThreadPoolExecutor(jobs) as pool:
        objects = dict(zip([*core, *tests], pool.map(compile_one, [*core, *tests]), strict=True))
    programs = {}
    for test in tests:
        programs[test] = where / test.stem
        linked = [str(objects[source]) for source in [*core, test]]
        subprocess.run([cc, *flags, *linked, "-lm", "-lpthread", "-o", str(programs[test])], check=True)
    return programs


def run_one(program: Path, launcher: list[str], tier: str) -> bool:
    """Run one test program; its output is shown, True if it passed."""
    command = [*launcher, str(program)]
    environment = {**os.environ, **ENVIRONMENT, "SEMANTICLENS_TIER": "" if tier == "best" else tier}
    try:
        return subprocess.run(command, env=environment, timeout=TIMEOUT, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"  {program.name}: still running after {TIMEOUT} s", file=sys.stderr)
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="which test_<family>.c (default: all)")
    parser.add_argument("--mode", nargs="+", choices=[*MODES, "all"], default=["plain"])
    parser.add_argument("--cc", nargs="+", default=["gcc"])
    parser.add_argument("--tier", nargs="+", default=["best"], help="instruction-set tiers to run at")
    parser.add_argument("--emulator", default="", help="command that runs a program of the compiler's machine")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    tests = [HERE / f"test_{f}.c" for f in args.families] or sorted(HERE.glob("test_*.c"))
    modes = list(MODES) if "all" in args.mode else args.mode
    for tool in [*args.cc, *(["valgrind"] if "valgrind" in modes else [])]:
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not installed")
    missing = [str(t) for t in tests if not t.is_file()]
    if missing or not tests:
        parser.error(f"no such test: {', '.join(missing) or 'none found'}")
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for cc in args.cc:
            for mode in modes:
                print(f"{cc}, {mode}:", flush=True)
                try:
                    programs = build(cc, mode, tests, Path(folder), args.jobs)
                except subprocess.CalledProcessError as error:
                    print(f"{cc}, {mode}: the build failed (exit code {error.returncode}), see above", file=sys.stderr)
                    return 1
                for tier in args.tier:
                    for test in tests:
                        good = run_one(programs[test], VALGRIND if mode == "valgrind" else args.emulator.split(), tier)
                        passed, failed = passed + good, failed + (not good)
                        if not good:
                            print(f"FAILED {test.stem} ({cc}, {mode}, tier {tier})", file=sys.stderr, flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
