"""Convolutions and dense layers of VGG-16, ResNet-50 and MobileNetV2, and square products, against torch in the same run.

Per layer shape: ours and torch's are timed in turn, the best of the repeats counts; per network the times are added up with the
layers' counts. With one thread the clock is the processor time of the calling thread, with more the wall clock. `share` is the
rate over the measured peak of multiply-adds.

    python benchmarks/bench_kernels_nn.py [--threads 1 2] [--networks vgg16 resnet50 mobilenet_v2] [--batch 1] [--repeats 7]
                                          [--layers] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from functools import partial
from typing import NamedTuple

import numpy as np

from semanticlens import _core, build_info
from semanticlens._kernels import nn


class Conv(NamedTuple):
    channels: int
    size: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    activation: str
    count: int


class Dense(NamedTuple):
    inputs: int
    outputs: int
    count: int


def vgg16():
    layers, channels, size = [], 3, 224
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers.append(Conv(channels, size, width, 3, 1, 1, "relu", 1))
            channels = width
        size //= 2
    return layers + [Dense(25088, 4096, 1), Dense(4096, 4096, 1), Dense(4096, 1000, 1)]


def resnet50():
    layers, channels, size = [Conv(3, 224, 64, 7, 2, 1, "relu", 1)], 64, 56
    for stage, (width, repeats) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(repeats):
            stride = 2 if block == 0 and stage > 0 else 1
            layers.append(Conv(channels, size, width, 1, 1, 1, "relu", 1))
            layers.append(Conv(width, size, width, 3, stride, 1, "relu", 1))
            if block == 0:
                layers.append(Conv(channels, size, 4 * width, 1, stride, 1, "none", 1))
            size //= stride
            layers.append(Conv(width, size, 4 * width, 1, 1, 1, "none", 1))
            channels = 4 * width
    return layers + [Dense(2048, 1000, 1)]


def mobilenet_v2():
    layers, channels, size = [Conv(3, 224, 32, 3, 2, 1, "relu6", 1)], 32, 112
    for expand, width, repeats, first in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for block in range(repeats):
            stride, hidden = first if block == 0 else 1, channels * expand
            if expand > 1:
                layers.append(Conv(channels, size, hidden, 1, 1, 1, "relu6", 1))
            layers.append(Conv(hidden, size, hidden, 3, stride, hidden, "relu6", 1))
            size //= stride
            layers.append(Conv(hidden, size, width, 1, 1, 1, "none", 1))
            channels = width
    return layers + [Conv(320, 7, 1280, 1, 1, 1, "relu6", 1), Dense(1280, 1000, 1)]


NETWORKS = {"vgg16": vgg16, "resnet50": resnet50, "mobilenet_v2": mobilenet_v2}
PRODUCTS = [(256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (197, 768, 3072), (32, 1536, 384), (3136, 64, 576)]


def merged(layers):
    counts = {}
    for layer in layers:
        key = layer._replace(count=0)
        counts[key] = counts.get(key, 0) + layer.count
    return [key._replace(count=n) for key, n in counts.items()]


def prepare(layer, batch, threads, torch):
    """Two calls, ours and torch's, that do the same work on the same numbers; and the multiply-adds of one."""
    rng = np.random.default_rng(0)
    if isinstance(layer, Dense):
        x = rng.standard_normal((batch, layer.inputs), np.float32)
        w = rng.standard_normal((layer.outputs, layer.inputs), np.float32)
        b = rng.standard_normal(layer.outputs, np.float32)
        out = np.empty((batch, layer.outputs), np.float32)
        ours = lambda: nn.dense(x, w, b, out=out, n_threads=threads)  # noqa: E731
        tx, tw, tb = torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b)
        theirs = lambda: torch.nn.functional.linear(tx, tw, tb)  # noqa: E731
        return ours, theirs, batch * layer.inputs * layer.outputs
    x = rng.standard_normal((batch, layer.channels, layer.size, layer.size), np.float32)
    w = rng.standard_normal((layer.outputs, layer.channels // layer.groups, layer.kernel, layer.kernel), np.float32)
    b = rng.standard_normal(layer.outputs, np.float32)
    pad = layer.kernel // 2
    packed = nn.pack_conv2d(w, groups=layer.groups)
    form = {
        "stride": (layer.stride,) * 2,
        "padding": (pad,) * 4,
        "groups": layer.groups,
        "activation": layer.activation,
        "packed": packed,
    }
    out = nn.conv2d(x, w, b, n_threads=threads, **form)
    ours = lambda: nn.conv2d(x, w, b, out=out, n_threads=threads, **form)  # noqa: E731
    tx, tw, tb = torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b)
    conv = lambda: torch.nn.functional.conv2d(tx, tw, tb, layer.stride, pad, 1, layer.groups)  # noqa: E731
    after = {"relu": torch.relu_, "relu6": lambda y: torch.clamp_(y, 0, 6), "none": lambda y: y}[layer.activation]
    return ours, lambda: after(conv()), out.size * w[0].size


def race(ours, theirs, clock, repeats):
    """Best times of both, taken in turn; at least `repeats` rounds and about 50 ms each."""
    ours(), theirs()
    best, spent, rounds = [np.inf, np.inf], 0.0, 0
    while rounds < repeats or (spent < 0.1 and rounds < 40 * repeats):
        for i, call in enumerate((ours, theirs)):
            start = clock()
            call()
            taken = clock() - start
            best[i] = min(best[i], taken)
            spent += taken
        rounds += 1
    return best


def products(threads, clock, repeats, peak, torch):
    for m, n, k in PRODUCTS:
        rng = np.random.default_rng(0)
        x, w = rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32)
        packed, out = nn.pack_dense(w), np.empty((m, n), np.float32)
        tx, tw, ty = torch.from_numpy(x), torch.from_numpy(w).T.contiguous(), torch.empty(m, n)
        ours, theirs = race(
            partial(nn.dense, x, w, packed=packed, out=out, n_threads=threads), partial(torch.mm, tx, tw, out=ty), clock, repeats
        )
        rate = 2e-9 * m * n * k / ours
        yield {
            "product": [m, n, k],
            "ms": 1e3 * ours,
            "torch_ms": 1e3 * theirs,
            "ratio": theirs / ours,
            "gflops": rate,
            "share": rate / peak / threads,
        }


def network(name, batch, threads, clock, repeats, peak, torch, show):
    total = [0.0, 0.0]
    work = 0
    for layer in merged(NETWORKS[name]()):
        ours, theirs, size = prepare(layer, batch, threads, torch)
        times = race(ours, theirs, clock, repeats)
        work += layer.count * size
        for i in range(2):
            total[i] += layer.count * times[i]
        if show:
            print(
                f"    {layer.count} x {tuple(layer)[:-1]!s:48} {1e3 * times[0]:8.3f} ms  torch {1e3 * times[1]:8.3f}  "
                f"ratio {times[1] / times[0]:5.2f}  {2e-9 * size / times[0]:6.1f} GFLOP/s "
                f"({100 * 2e-9 * size / times[0] / peak / threads:3.0f} %)"
            )
    rate = 2e-9 * work / total[0]
    return {
        "network": name,
        "batch": batch,
        "ms": 1e3 * total[0],
        "torch_ms": 1e3 * total[1],
        "ratio": total[1] / total[0],
        "gflops": rate,
        "share": rate / peak / threads,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--layers", action="store_true", help="print each layer shape")
    parser.add_argument("--products", action="store_true", help="matrix products too")
    parser.add_argument("--json", help="write the results to this file")
    args = parser.parse_args()
    import torch

    info, peak = build_info(), 1e-9 * max(_core.fma_peak(0.05) for _ in range(5))
    results = []
    print(f"{platform.machine()}, tier {info['tier']}, peak {peak:.0f} GFLOP/s per core, torch {torch.__version__}")
    with torch.inference_mode():
        for threads in args.threads:
            torch.set_num_threads(threads)
            clock = time.thread_time if threads == 1 else time.perf_counter
            for row in products(threads, clock, args.repeats, peak, torch) if args.products else ():
                print(
                    f"  {threads} thread(s), product {row['product']}: {row['gflops']:.1f} GFLOP/s "
                    f"({100 * row['share']:.0f} %), {row['ratio']:.2f} x torch"
                )
                results.append({"threads": threads, **row})
            for name in args.networks:
                row = network(name, args.batch, threads, clock, args.repeats, peak, torch, args.layers)
                print(
                    f"  {threads} thread(s), {name}, batch {args.batch}: {row['ms']:.1f} ms, torch {row['torch_ms']:.1f} ms, "
                    f"{row['ratio']:.2f} x torch, "
                    f"{row['gflops']:.1f} GFLOP/s ({100 * row['share']:.0f} %)"
                )
                results.append({"threads": threads, **row})
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(
                {
                    "machine": platform.machine(),
                    "tier": info["tier"],
                    "compiler": info["compiler"],
                    "torch": torch.__version__,
                    "peak_gflops": peak,
                    "results": results,
                },
                file,
                indent=1,
            )


if __name__ == "__main__":
    main()
