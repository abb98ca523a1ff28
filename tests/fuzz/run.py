"""Coverage-guided fuzzing of every parser (extra "fuzz": atheris, which is libFuzzer for Python).

    python tests/fuzz/run.py --seconds 60                   # all targets, two at a time
    python tests/fuzz/run.py tensors --seconds 600 --seed 0 # one target, longer and elsewhere
    python tests/fuzz/run.py tensors --replay FILE          # run one input, for example a finding, without the fuzzer

Starts from tests/fuzz/corpus/TARGET; new inputs stay in a temporary folder.  A finding is printed (base64) and ends with exit code 1; add
its bytes to the corpus together with the repair.  Ends with "N passed, N failed".
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEMORY, TIMEOUT, LENGTH = 2048, 20, 16384             # MB, seconds for one input, bytes of one input


def fuzz(name: str, arguments: list[str]) -> None:
    """The fuzzing process: instruments the package, then searches until its time is over."""
    import atheris

    with atheris.instrument_imports(include=["semanticlens", "json", "zipfile"]):
        import targets

        for seed in (HERE / "corpus" / name).iterdir():   # imports what the target uses, instrumented
            targets.TARGETS[name](seed.read_bytes())
    atheris.Setup([sys.argv[0], *arguments], targets.TARGETS[name])
    atheris.Fuzz()


def search(name: str, seconds: int, seed: int) -> bool:
    """Run one target in a process of its own; True if it found nothing."""
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder, "new")
        new.mkdir()
        seeds = HERE / "corpus" / name
        command = [sys.executable, __file__, name, "--worker", f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={TIMEOUT}",
                   f"-rss_limit_mb={MEMORY}", f"-max_len={LENGTH}", f"-artifact_prefix={folder}/found-", "-print_final_stats=1",
                   str(new), str(seeds)]
        env = {**os.environ, "PYTHONHASHSEED": "0"}   # the same seed makes the same search, only longer on a faster machine
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=seconds + 300, env=env)
        runs = [line.split(":")[-1].strip() for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        print(f"{name}: {runs[0] if runs else '?'} inputs, {len(list(new.iterdir()))} new ones that reached new code", flush=True)
        if done.returncode == 0 and runs:
            return True
        said = [line for line in done.stderr.splitlines() if not line.startswith(("#", "INFO:"))]   # without the search's progress
        print("\n".join(done.stdout.splitlines()[-40:] + said[-40:]), flush=True)
        for finding in Path(folder).glob("found-*"):
            print(f"FOUND by {name} ({finding.name}): {base64.b64encode(finding.read_bytes()).decode()}", flush=True)
        return False


def main() -> int:
    sys.path.insert(0, str(HERE))
    if "--worker" in sys.argv:
        fuzz(sys.argv[1], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="which targets (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1, help="of the search; 0: another one each time, to look further than the gate does")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--replay", type=Path, help="run this one input and stop")
    args = parser.parse_args()
    import targets

    names = args.targets or list(targets.TARGETS)
    if unknown := set(names) - set(targets.TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(targets.TARGETS)}")
    if args.replay:
        for name in names:
            targets.TARGETS[name](args.replay.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install '.[fuzz]' (CPython 3.11 to 3.13)")
    with ThreadPoolExecutor(args.jobs) as pool:
        good = list(pool.map(lambda name: search(name, args.seconds, args.seed), names))
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
