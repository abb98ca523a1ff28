"""Relevance propagation against zennit, in one process, turn by turn; the same network, sample, rules and threads.

    python benchmarks/bench_attribution.py [--networks ...] [--batch 1 8] [--threads 1] [--repeats 3]     (one result file per network)

``forward`` is our own plain run; ``ours`` the attribution with its forward run, so that ``of_forward`` says how many forward runs it costs.
zennit walks torchvision's module with its canonizers; random weights. One thread is timed by processor time.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from common import compare, limits, peak_memory, ratio, record
from zennit import composites as zennit_composites
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.torchvision import ResNetCanonizer

from semanticlens.attribution import Composite, attribute
from semanticlens.nn import export
from semanticlens.nn.fold import fold_batch_norm

CLASS, LOW, HIGH = 3, -2.5, 2.8
COMPOSITES: dict[str, tuple[Callable[[], Composite], Callable[..., Any]]] = {
    "epsilon_plus": (Composite.epsilon_plus, zennit_composites.EpsilonPlus),
    "epsilon_plus_flat": (Composite.epsilon_plus_flat, zennit_composites.EpsilonPlusFlat),
    "epsilon_alpha2_beta1": (Composite.epsilon_alpha2_beta1, zennit_composites.EpsilonAlpha2Beta1),
    "epsilon_gamma_box": (
        lambda: Composite.epsilon_gamma_box(LOW, HIGH),
        lambda **k: zennit_composites.EpsilonGammaBox(low=LOW, high=HIGH, **k),
    ),
}
WORK = {"vgg16": ["epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_gamma_box"],
        "resnet50": ["epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_gamma_box"], "mobilenet_v2": ["epsilon_plus"]}


def module_of(name: str) -> Any:
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None).eval().requires_grad_(False)


def network(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fold_batch_norm(export.from_torch(module_of(name), torch.zeros(1, 3, 224, 224)))


def in_zennit(name: str, composite: str, x: np.ndarray) -> Callable[[], np.ndarray]:
    module = module_of(name)
    canonizers = [ResNetCanonizer()] if name.startswith("resnet") else [SequentialMergeBatchNorm()]
    made = COMPOSITES[composite][1](canonizers=canonizers)

    def call() -> np.ndarray:
        tensor = torch.from_numpy(x).clone().requires_grad_(True)
        with Gradient(model=module, composite=made) as attributor:
            _, relevance = attributor(tensor, lambda out: torch.eye(out.shape[1])[[CLASS] * len(out)] * out.detach())
        return relevance.numpy()

    return call


def inputs(net: Any, batch: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, *net.input_shape)).astype(np.float32)


def measure(name: str, batches: list[int], threads: list[int], repeats: int) -> list[dict[str, Any]]:
    net, rows = network(name), []
    for composite in WORK[name]:
        for batch in batches:
            x, rules = inputs(net, batch), COMPOSITES[composite][0]()
            peer = in_zennit(name, composite, x)
            got, want = attribute(net, x, CLASS, composite=rules), peer()
            error = float(np.linalg.norm(got.input - want) / np.linalg.norm(want))
            if name == "vgg16" and not error < 2e-4:      # zennit's sums of residual branches and merged normalisation are others
                raise SystemExit(f"{name} {composite}: differs from zennit by {error:.1e}; times of a wrong result mean nothing")
            for n_threads in threads:
                torch.set_num_threads(n_threads)
                calls: dict[str, Callable[[], Any]] = {
                    "ours": lambda n=n_threads, x=x, c=rules: attribute(net, x, CLASS, composite=c, n_threads=n),
                    "forward": lambda n=n_threads, x=x: net(x, n_threads=n),
                    "zennit": peer,
                }
                times = compare(calls, repeats=repeats, warmup=1, clock="cpu" if n_threads == 1 else "wall")
                of = {f"of_{other}": ratio(times, "ours", other) for other in ("forward", "zennit")}
                rows.append({"network": name, "composite": composite, "batch": batch, "threads": n_threads, "difference": error,
                             "products": vars(got.products), "times": times, **of})
                print(f"{name:13s} {composite:22s} batch {batch}  threads {n_threads}  ours {times['ours']['seconds'] * 1e3:8.1f} ms = "
                      f"{of['of_forward']:.2f} forward runs; zennit takes {1 / of['of_zennit']:.2f} times as long  "
                      f"products {got.products.forward}+{got.products.adjoint}", flush=True)
    return rows


def grown(name: str, who: str, batch: int) -> int:
    """Bytes by which one attribution raises the peak of this process over network and input."""
    composite = WORK[name][-1]
    torch.set_num_threads(1)
    net = network(name)
    x = inputs(net, batch)
    call: Callable[[], Any]
    if who == "ours":
        rules = COMPOSITES[composite][0]()
        attribute(net, x[:1], CLASS, composite=rules, n_threads=1)
        call = lambda: attribute(net, x, CLASS, composite=rules, n_threads=1)  # noqa: E731
    else:
        in_zennit(name, composite, x[:1])()
        call = in_zennit(name, composite, x)
    before = peak_memory()
    call()
    return peak_memory() - before


def memory(name: str, batch: int) -> dict[str, int]:
    found = {}
    for who in ("ours", "zennit"):
        command = [sys.executable, __file__, "--grown", name, who, str(batch)]
        found[who] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    print(f"{name:13s} {WORK[name][-1]} batch {batch}  peak grows by "
          + ", ".join(f"{who} {n / 2**20:.0f} MiB" for who, n in found.items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(WORK))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-batch", type=int, default=8)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--grown", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.grown:
        print(grown(given.grown[0], given.grown[1], int(given.grown[2])))
        return
    ratios = []
    for name in given.networks:
        rows = measure(name, given.batch, given.threads, given.repeats)
        ratios += [row["of_zennit"] for row in rows]
        peak = {} if given.no_memory else memory(name, given.memory_batch)
        if not given.no_record:
            record(f"attribution_{name}", rows, limits={n: limits(n) for n in given.threads}, peak_memory=peak,
                   memory_batch=given.memory_batch, note="of_<other>: our time over theirs; zennit 0.5.1 with its canonizers")
    print(f"geometric mean over all: zennit takes {math.exp(-np.mean(np.log(ratios))):.2f} times as long")


if __name__ == "__main__":
    main()
