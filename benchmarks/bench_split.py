"""float32 products from bfloat16 tiles: error against the float tiers, cost of splitting, and speed where a machine has tiles.

Error: dense products with the sizes of VGG-16, ResNet-50 and ViT-B/16 (every term and at most 96 x 128 elements of each), relative
to the sum of magnitudes, against float64; for six and three tile products, and for the chains of multiply-adds of the best float tier.
Where the machine has no tiles their documented arithmetic is emulated, in a build made for this (a minute); the bits are the same.

Splitting: bytes of float32 per second and core, from cache, compiled as the running tier is; and its share of a product's time under
the assumption that tiles run at the rate given by --tile-gflops.  That share and the speed that follows are ESTIMATES, marked as such.

Speed: six and three products against the best float tier and its peak, one and two threads, weights packed; skipped with the reason
where there are no tiles.

    python benchmarks/bench_split.py [--tile-gflops 2600] [--float-peak 280] [--record]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any

import numpy as np
from common import ROOT, compare, record

from semanticlens import _core, build_info
from semanticlens._kernels import nn

SHAPES = [                                            # name, rows (pixels or tokens), outputs, terms, what comes in
    ("vgg16 conv1_1", 50176, 64, 27, "normal"), ("vgg16 conv2_2", 12544, 128, 1152, "positive"),
    ("vgg16 conv3_2", 3136, 256, 2304, "positive"), ("vgg16 conv5_1", 196, 512, 4608, "positive"),
    ("vgg16 fc6", 8, 4096, 25088, "positive"),
    ("resnet50 conv1", 12544, 64, 147, "normal"), ("resnet50 layer1 1x1", 3136, 64, 256, "positive"),
    ("resnet50 layer2 3x3", 784, 128, 1152, "positive"), ("resnet50 layer3 1x1", 196, 1024, 256, "positive"),
    ("resnet50 layer4 3x3", 49, 512, 4608, "positive"), ("resnet50 fc", 8, 1000, 2048, "positive"),
    ("vit_b_16 qkv", 197, 2304, 768, "normal"), ("vit_b_16 mlp in", 197, 3072, 768, "normal"),
    ("vit_b_16 mlp out", 197, 768, 3072, "positive"),
    ("vit_b_16 scores", 197, 197, 64, "normal"), ("vit_b_16 values", 197, 64, 197, "softmax"),
]
LARGE = [(1024, 1024, 1024), (2048, 2048, 2048), (3136, 256, 2304), (197, 3072, 768)]


def operands(m: int, n: int, k: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Left (m, k) and right (n, k) operand, the same in every process."""
    rng = np.random.default_rng([m, n, k])
    x = rng.standard_normal((m, k)).astype(np.float32)
    if kind == "positive":
        x = np.maximum(x, 0)
    elif kind == "softmax":
        x = np.exp(3 * x)
        x /= x.sum(axis=1, keepdims=True)
    return x, (rng.standard_normal((n, k)) * np.sqrt(2 / k)).astype(np.float32)


def errors() -> dict[str, dict[str, float]]:
    """Of the active tier, by shape: rms and largest error over the sum of magnitudes."""
    found = {}
    for name, m, n, k, kind in SHAPES:
        x, w = operands(min(m, 96), min(n, 128), k, kind)
        left, right = x.astype(np.float64), w.T.astype(np.float64)
        exact, size = left @ right, np.abs(left) @ np.abs(right)
        error = (nn.dense(x, w, n_threads=2) - exact) / size
        found[name] = {"rms": float(np.sqrt(np.mean(error**2))), "max": float(np.abs(error).max())}
    return found


def speeds(n_threads: int) -> dict[str, float]:
    """Of the active tier: GFLOP/s of large products, weights packed, and the peak of multiply-adds of a core."""
    found = {"fma_peak_per_core": _core.fma_peak(0.5) / 1e9}
    for m, n, k in LARGE:
        x, w = operands(m, n, k, "normal")
        packed = nn.pack_dense(w)
        times = compare({"dense": partial(nn.dense, x, w, packed=packed, n_threads=n_threads)}, repeats=9)
        found[f"{m}x{n}x{k}"] = 2e-9 * m * n * k / times["dense"]["low"]
    return found


def child(task: str, tier: str, build: str | None) -> Any:
    """``task`` in a process of its own at ``tier``, with the package in the folder ``build`` if one is given."""
    environment = {**os.environ, **({"PYTHONPATH": build} if build else {}), "SEMANTICLENS_TIER": tier}
    done = subprocess.run([sys.executable, __file__, "--child", task], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def emulated_build(folder: str) -> str:
    """A copy of the package with the emulation in it."""
    environment = {**os.environ, "SEMANTICLENS_EMULATE_AMX": "1"}
    command = [sys.executable, "setup.py", "-q", "build", "-b", f"{folder}/b", "--build-lib", f"{folder}/lib"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return f"{folder}/lib"


def estimate(rates: list[float], tile_gflops: float) -> dict[str, dict[str, float]]:
    """Share of splitting what comes in, and GFLOP/s, if six products run at a sixth of the tiles' rate and nothing else costs time."""
    found = {}
    for name, m, n, k, _ in SHAPES:
        conv = "conv" in name or "x" in name.split()[-1]                          # patches are the right operand there
        tiles, split = 2e-9 * m * n * k * 6 / tile_gflops, 4 * m * k / rates[1 if conv else 0]
        found[name] = {"share_of_splitting": split / (split + tiles), "gflops": 2e-9 * m * n * k / (split + tiles)}
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    info = build_info()
    best = info["supported"][-1]
    with tempfile.TemporaryDirectory() as folder:
        if "amx" in info["by_name"]:
            six, three, build = "amx", "amx3", None
        else:
            six, three = "amx-emulated", "amx3-emulated"
            build = None if six in info["by_name"] else emulated_build(folder)
        rms = {tier: child("errors", tier, build) for tier in (best, six, three)}
        rates = child("rates", six, build)
    print(f"{'error / sum of magnitudes':24} {best:>20} {six:>20} {three:>20}   (rms max)")
    for name, *_ in SHAPES:
        print(f"{name:24} " + " ".join(f"{rms[t][name]['rms']:9.2e} {rms[t][name]['max']:9.2e} " for t in (best, six, three)))
    worst = max(rms[six][name]["rms"] / rms[best][name]["rms"] for name, *_ in SHAPES)
    print(f"six products: at most {worst:.2f} of the rms error of {best}")
    print(f"splitting, one core, tier {six}: left operand {rates[0] / 1e9:.1f}, right operand {rates[1] / 1e9:.1f} GB/s of float32")
    guess = estimate(rates, args.tile_gflops)
    print(f"ESTIMATE: tiles of {args.tile_gflops:.0f} GFLOP/s in bfloat16, splitting as here, float peak {args.float_peak:.0f} GFLOP/s:")
    for name, value in guess.items():
        print(f"  {name:24} splitting {value['share_of_splitting']:5.1%}, {value['gflops']:5.0f} GFLOP/s, "
              f"{value['gflops'] / args.float_peak:.2f} x the float peak")
    assumed = {"is_an_estimate": True, "tile_gflops_assumed": args.tile_gflops, "float_peak_assumed": args.float_peak}
    found = {"tiers": {"float": best, "six": six, "three": three}, "errors": rms, "worst_rms_ratio_of_six": worst,
             "split_bytes_per_second": rates, "estimate": {**assumed, "shapes": guess}}
    if six != "amx":
        found["speed"] = f"not measured: {_core.tier_fault('amx')}"
        print(f"speed: {found['speed']}")
        return found
    found["speed"] = {f"{n} threads": {tier: child(f"speeds{n}", tier, None) for tier in (best, six, three)} for n in (1, 2)}
    for threads, by_tier in found["speed"].items():
        peak = by_tier[best]["fma_peak_per_core"] * int(threads.split()[0])
        for tier, value in by_tier.items():
            rates_of = {shape: rate for shape, rate in value.items() if shape != "fma_peak_per_core"}
            print(f"{threads}, {tier}: " + ", ".join(f"{shape} {g:.0f} GFLOP/s ({g / peak:.2f} x peak)" for shape, g in rates_of.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tile-gflops", type=float, default=2600.0, help="rate of bfloat16 tile products of a core, for the estimate")
    parser.add_argument("--float-peak", type=float, default=280.0, help="float32 multiply-add peak of such a core, for the estimate")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        tasks = {"errors": errors, "rates": lambda: _core.split_rates(0.5), "speeds1": lambda: speeds(1), "speeds2": lambda: speeds(2)}
        print(json.dumps(tasks[args.child]()))
        return
    found = measure(args)
    if args.record:
        record("split", found)


if __name__ == "__main__":
    main()
