"""Conditional relevance at a late layer of VGG-16 against zennit-crp, in one process, turn by turn; same sample, rules and threads.

    python benchmarks/bench_crp.py [--conditions 100] [--peer-conditions 4] [--threads 1] [--repeats 3]

Channels without relevance cost nothing here, so that only channels with relevance are asked for, of both. ``per_condition`` is the
whole call, its forward run and its walk down to the layer among it, by the number of conditions; zennit-crp has its conditions in
one batch. Random weights.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from common import compare, limits, peak_memory, record
from crp.attribution import CondAttribution
from zennit.composites import EpsilonPlusFlat

from semanticlens.attribution import attribute, condition
from semanticlens.nn import export

LAYER, CLASS, RULES = "features.28", 3, "epsilon_plus_flat"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conditions", type=int, default=100)
    parser.add_argument("--peer-conditions", type=int, default=4)
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    torch.manual_seed(0)
    module = torchvision.models.vgg16(weights=None).eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = export.from_torch(module, torch.zeros(1, 3, 224, 224))
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype(np.float32)
    relevance = attribute(net, x, CLASS, composite=RULES, record=LAYER)[LAYER][0]
    live = [int(k) for k in np.flatnonzero(relevance.any(axis=(1, 2)))][: options.conditions]

    def ours(n: int) -> Any:
        return condition(net, x, CLASS, each={LAYER: live}, composite=RULES, n_threads=n)

    def peer() -> np.ndarray:
        data = torch.from_numpy(x).clone().requires_grad_(True)
        given = [{"y": [CLASS], LAYER: [k]} for k in live[: options.peer_conditions]]
        return CondAttribution(module)(data, given, EpsilonPlusFlat(canonizers=[]), exclude_parallel=False).heatmap.numpy()

    got, want = ours(1), peer()
    error = float(np.linalg.norm(got.heatmap()[: len(want)] - want) / np.linalg.norm(want))
    if not error < 1e-4 or got.dead.any():
        raise SystemExit(f"differs from zennit-crp by {error:.1e}: times of a wrong result mean nothing")
    rows = []
    for n_threads in options.threads:
        torch.set_num_threads(n_threads)
        calls: dict[str, Callable[[], Any]] = {
            "ours": lambda n=n_threads: ours(n), "forward": lambda n=n_threads: net(x, n_threads=n), "zennit-crp": peer,
        }
        times = compare(calls, repeats=options.repeats, warmup=0, clock="cpu" if n_threads == 1 else "wall")
        one, other = times["ours"]["seconds"] / len(live), times["zennit-crp"]["seconds"] / len(want)
        of = one / times["forward"]["seconds"]
        rows.append({"network": "vgg16", "layer": LAYER, "composite": RULES, "conditions": len(live), "peer_conditions": len(want),
                     "threads": n_threads, "difference": error, "products": vars(got.products), "times": times,
                     "per_condition": {"ours": one, "zennit-crp": other}, "of_forward": of})
        print(f"{len(live)} conditions at {LAYER}, threads {n_threads}: {one * 1e3:.1f} ms each = {of:.2f} forward runs; "
              f"zennit-crp takes {other / one:.2f} times as long; products {got.products.forward}+{got.products.adjoint}; "
              f"error {error:.1e}; peak {peak_memory() / 2**20:.0f} MiB", flush=True)
    if not options.no_record:
        record("crp", rows, limits=limits())


if __name__ == "__main__":
    main()
