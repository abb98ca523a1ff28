"""The figures of docs/demo.md, from the weights the package ships: benchmarks/results/demo.json.

    pip install ".[torch]" && python benchmarks/bench_demo.py [--seeds 13] [--also NETWORK ...]

Encoder: zero-shot accuracies over 2000 new pictures each of combinations seen and held out in training. Network: what the artefact does
to it over 1500 new pictures of any class with any overlay. Demo: its own checks over several sets of pictures. torch is needed only
because the measurement of the network lives beside its training, in examples/train_demo_network.py.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

from common import ROOT, record

import semanticlens as sl
from semanticlens import demo
from semanticlens.demo import explore
from semanticlens.demo.evaluate import encoder_accuracies
from semanticlens.demo.explore import load_network
from semanticlens.demo.pictures import generate
from semanticlens.encoders import load

sys.path.insert(0, str(ROOT / "examples"))

from train_demo_encoder import TEST_SEED as ENCODER_TEST_SEED
from train_demo_network import TEST_SEED, measure


def encoder() -> dict[str, dict[str, float]]:
    found = {}
    for combinations in ("seen", "held-out"):
        accuracies = encoder_accuracies(load("demo"), generate(2000, ENCODER_TEST_SEED, combinations))
        found[combinations] = {**accuracies.accuracy, "corner mark AUROC": accuracies.mark_auroc}
        print(accuracies.table(f"2000 pictures of {combinations} combinations"))
    return found


def runs(seeds: int) -> list[dict[str, object]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = demo.run(Path(folder, "demo.html"), seed=seed, progress=False)
            checks = {check["name"]: check["value"] for check in result.to_dict()["checks"]}
            found.append({"seed": seed, "passed": result.passed, "checks": checks})
            print(f"demo, seed {seed}: {'holds' if result.passed else 'FAILS'}", *(f"{value:.3f}" for value in checks.values()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=13, help="sets of pictures for the demo")
    parser.add_argument("--also", nargs="*", type=Path, default=[],
                        help="networks of other training seeds, as the training script writes them")
    given = parser.parse_args()
    test = generate(1500, TEST_SEED)
    results = {"encoder": encoder(), "network": measure(load_network(), test), "runs": runs(given.seeds), "also": {}}
    print(results["network"])
    for path in given.also:
        explore.load_network = lambda path=path: sl.load(path)
        results["also"][path.stem] = {"network": measure(sl.load(path), test), "runs": runs(4)}
        print(path.stem, results["also"][path.stem]["network"])
    record("demo", results)


if __name__ == "__main__":
    main()
