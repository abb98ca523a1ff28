"""Forward pass and input gradient against torch eager, in one process, turn by turn; and peak memory, each in a process of its own.

    python benchmarks/bench_gradient.py [--networks ...] [--batch 1 8] [--threads 1 2] [--repeats 5]     (one result file per network)

``torch`` runs our folded graph with torch.nn.functional and automatic differentiation: exactly the same work. ``torchvision`` is the
module as people run it, batch normalisation and all. Parameters ask for no gradient. One thread is timed by processor time, which a busy
machine changes least; several by the wall clock.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bench_forward import in_torch, network, torchvision
from common import compare, limits, peak_memory, ratio, record

CLASS = 3
FLIPPED = 0.25  # a ReLU within a rounding of its corner may fall to either side: see tests/test_peers_gradient.py


def module_of(name: str) -> Any:
    """The torchvision module, its parameters frozen; None where torchvision is not installed."""
    if torchvision is None:
        return None
    module = getattr(torchvision.models, name)(weights=None).eval()
    return module.requires_grad_(False)


def in_gradient(run: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> Callable[[], np.ndarray]:
    """Forward and input gradient of one class in torch."""

    def call() -> np.ndarray:
        tensor = torch.from_numpy(x).clone().requires_grad_(True)
        with torch.enable_grad():
            run(tensor)[:, CLASS].sum().backward()
        assert tensor.grad is not None
        return tensor.grad.numpy()

    return call


def differentiable(net: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The plain port of a graph without the switch that bench_forward runs it under."""
    port = in_torch(net)
    return getattr(port, "__wrapped__", port)


def inputs(net: Any, batch: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, *net.input_shape)).astype(np.float32)


def measure(name: str, batches: list[int], threads: list[int], repeats: int) -> list[dict[str, Any]]:
    net, module, rows = network(name), module_of(name), []
    port = differentiable(net)
    for batch in batches:
        x = inputs(net, batch)
        want, got = in_gradient(port, x)(), net.gradient(x, CLASS)
        errors = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got["input"], want, strict=True)]
        value = float(np.abs(net(x) - port(torch.from_numpy(x)).numpy()).max() / np.abs(got.value).max())
        if not (value < 1e-4 and max(errors) < FLIPPED):
            raise SystemExit(f"{name}: differs from torch by {errors}; times of a wrong result mean nothing")
        less = net.gradient(x, CLASS, segments="auto")
        if not np.array_equal(less["input"], got["input"]):
            raise SystemExit(f"{name}: the gradient in segments is another one")
        for n_threads in threads:
            torch.set_num_threads(n_threads)
            calls: dict[str, Callable[[], Any]] = {
                "ours": lambda n=n_threads, x=x: net.gradient(x, CLASS, n_threads=n),
                "ours_segments": lambda n=n_threads, x=x: net.gradient(x, CLASS, n_threads=n, segments="auto"),
                "ours_forward": lambda n=n_threads, x=x: net(x, n_threads=n),
                "torch": in_gradient(port, x),
            }
            if module is not None:
                calls["torchvision"] = in_gradient(module, x)
            times = compare(calls, repeats=repeats, warmup=2, clock="cpu" if n_threads == 1 else "wall")
            of = {f"of_{peer}": ratio(times, "ours", peer) for peer in calls if peer != "ours"}
            rows.append({"network": name, "batch": batch, "threads": n_threads, "differences": errors,
                         "counted_peak_bytes": got.peak_bytes, "segments": less.segments,
                         "counted_peak_bytes_in_segments": less.peak_bytes, "times": times, **of})
            text = "  ".join(f"{key.replace('_', ' ')} {value:.2f}" for key, value in of.items())
            print(f"{name:14s} batch {batch:2d}  threads {n_threads}  ours {times['ours']['seconds'] * 1e3:8.1f} ms  {text}", flush=True)
    return rows


def grown(name: str, who: str, batch: int) -> int:
    """Bytes by which one forward pass and gradient raises the peak of this process over network and input."""
    net = network(name)
    x = inputs(net, batch)
    torch.set_num_threads(1)
    call: Callable[[], Any]
    if who.startswith("ours"):
        segments = "auto" if who == "ours_segments" else 1
        net.gradient(x[:1], CLASS, n_threads=1)                          # packs the weights
        call = lambda: net.gradient(x, CLASS, n_threads=1, segments=segments)  # noqa: E731
    else:
        run = differentiable(net) if who == "torch" else module_of(name)
        in_gradient(run, x[:1])()
        call = in_gradient(run, x)
    before = peak_memory()
    call()
    return peak_memory() - before


def memory(name: str, batch: int) -> dict[str, int]:
    found = {}
    for who in ("ours", "ours_segments", "torch", *(("torchvision",) if torchvision else ())):
        command = [sys.executable, __file__, "--grown", name, who, str(batch)]
        found[who] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    print(f"{name:14s} batch {batch:2d}  peak grows by " + ", ".join(f"{who} {n / 2**20:.0f} MiB" for who, n in found.items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "resnet50", "vgg16", "efficientnet_b0"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-batch", type=int, default=8)
    parser.add_argument("--memory-only", action="store_true", help="print the peaks of memory and stop")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--grown", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.grown:
        print(grown(given.grown[0], given.grown[1], int(given.grown[2])))
        return
    ratios = []
    for name in given.networks:
        peak = memory(name, given.memory_batch)
        if given.memory_only:
            continue
        rows = measure(name, given.batch, given.threads, given.repeats)
        ratios += [row["of_torch"] for row in rows]
        if not given.no_record:
            record(f"gradient_{name}", rows, limits={n: limits(n) for n in given.threads}, peak_memory=peak,
                   memory_batch=given.memory_batch, note="of_<peer>: our time over theirs; below 1 is faster")
    if ratios:
        print(f"geometric mean over all: torch takes {math.exp(-np.mean(np.log(ratios))):.2f} times as long")


if __name__ == "__main__":
    main()
