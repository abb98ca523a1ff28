"""Matrix products of VGG-16, ResNet-50, ViT-B/16 and MiniLM against OpenBLAS, and products of few rows against the memory.

    python benchmarks/bench_products.py [--threads 1 2] [--networks vgg16 ...] [--repeats 7] [--no-record]

A product is ``y (m, n) = x (m, k) w (n, k)^T``: dense layers as they are, convolutions as the product of their gathered columns
(m positions, n outputs, k = inputs times taps) at batch 1.  ``ours`` is the dense kernel with weights packed once, as a network
holds them; ``unpacked`` the batched product that packs both sides in every call; ``openblas`` the library that NumPy brings, on
the same arrays with the right operand laid out (k, n) as it likes it best, through ``numpy.matmul(out=)``.  They take turns; the
best of the repeats counts.  ``share`` is our rate over the peak of multiply-adds measured in the same run.  One thread is timed
by the thread's processor time, several by the wall clock.

Thin products (1, 2, 4 and 8 rows) read weights that do not fit into the caches: ``share`` is the rate at which the weights are
read over the bandwidth measured in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from bench_kernels_nn import Conv, Dense, merged, resnet50, vgg16
from common import limits, record
from threadpoolctl import threadpool_info, threadpool_limits

from semanticlens._kernels import contract, nn


class Product(NamedTuple):
    m: int
    n: int
    k: int
    stack: int = 1


def of_layers(layers: list[Any]) -> list[Product]:
    """The products of convolutions and dense layers at batch 1, each shape once."""
    found: dict[Product, None] = {}
    for layer in merged(layers):
        if isinstance(layer, Conv):
            side = -(-layer.size // layer.stride)
            found[Product(side * side, layer.outputs, layer.channels * layer.kernel**2)] = None
        elif isinstance(layer, Dense):
            found[Product(1, layer.outputs, layer.inputs)] = None
    return [product for product in found if product.m > 1]  # those of one row are among the thin ones


def transformer(tokens: int, dim: int, heads: int, fused: bool) -> list[Product]:
    width = dim // heads
    inner = [Product(tokens, 3 * dim if fused else dim, dim), Product(tokens, 4 * dim, dim), Product(tokens, dim, 4 * dim)]
    return [*inner, *([Product(tokens, dim, dim)] if fused else []), Product(tokens, tokens, width, heads),
            Product(tokens, width, tokens, heads)]


NETWORKS: dict[str, Callable[[], list[Product]]] = {
    "vgg16": lambda: of_layers(vgg16()),
    "resnet50": lambda: of_layers(resnet50()),
    "vit_b_16": lambda: [Product(196, 768, 768), *transformer(197, 768, 12, True)],
    "minilm": lambda: transformer(32, 384, 12, False),
    "square": lambda: [Product(n, n, n) for n in (256, 512, 1024)],
}
THIN = [("vgg16 fc1", 4096, 25088), ("vgg16 fc2", 4096, 4096), ("vgg16 fc3", 1000, 4096), ("vit fc1", 3072, 768),
        ("llama 7B mlp", 11008, 4096), ("llama head", 32000, 2048)]


def race(calls: dict[str, Callable[[], Any]], threads: int, repeats: int) -> dict[str, float]:
    """Best times, taken in turn; at least ``repeats`` rounds, more where they are short."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    for call in calls.values():
        call()
    best, spent, rounds = dict.fromkeys(calls, np.inf), 0.0, 0
    while rounds < repeats or (spent < 0.15 and rounds < 60 * repeats):
        for name, call in calls.items():
            start = clock()
            call()
            taken = clock() - start
            best[name], spent = min(best[name], taken), spent + taken
        rounds += 1
    return best


def contestants(p: Product, threads: int) -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    lead = (p.stack,) if p.stack > 1 else ()
    x, w = rng.standard_normal((*lead, p.m, p.k), np.float32), rng.standard_normal((*lead, p.n, p.k), np.float32)
    right, out, theirs = np.ascontiguousarray(w.swapaxes(-1, -2)), *(np.empty((*lead, p.m, p.n), np.float32) for _ in range(2))
    calls: dict[str, Callable[[], Any]] = {}
    if p.stack == 1:
        calls["ours"] = partial(nn.dense, x, w, packed=nn.pack_dense(w), out=out, n_threads=threads)
    calls["unpacked"] = partial(contract.matmul, x, right, out=out, n_threads=threads)
    calls["openblas"] = partial(np.matmul, x, right, out=theirs)
    for call in calls.values():
        call()
        np.testing.assert_allclose(out, x @ right, rtol=1e-3, atol=1e-4 * np.sqrt(p.k))
    return calls


def products(names: list[str], threads: int, repeats: int, peak: float) -> Iterator[dict[str, Any]]:
    for name in names:
        for p in NETWORKS[name]():
            times = race(contestants(p, threads), threads, repeats)
            ours = min(times[key] for key in ("ours", "unpacked") if key in times)
            rate = 2e-9 * p.stack * p.m * p.n * p.k / ours
            row = {"threads": threads, "network": name, "product": [p.m, p.n, p.k], "stack": p.stack,
                   "ms": {key: 1e3 * value for key, value in times.items()}, "ratio": times["openblas"] / ours,
                   "gflops": rate, "share": rate / peak}
            print(f"  {threads} thread(s) {name:10s} {p.m:6d} {p.n:5d} {p.k:5d} x {p.stack:2d}  {rate:6.1f} GFLOP/s "
                  f"({100 * row['share']:3.0f} %)  {row['ratio']:5.2f} x OpenBLAS  "
                  + "  ".join(f"{key} {1e3 * value:.3f}" for key, value in times.items()), flush=True)
            yield row


def thin(threads: int, repeats: int, bandwidth: float) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for name, n, k in THIN:
        copies = max(1, -(-(256 << 20) // (4 * n * k)))  # more than the caches hold, one after the other
        weights = [rng.standard_normal((n, k), np.float32) for _ in range(copies)]
        for m in (1, 2, 4, 8):
            x, out = rng.standard_normal((m, k), np.float32), np.empty((m, n), np.float32)
            packs = [nn.pack_dense(w) if m >= 8 else None for w in weights]

            def ours(x: Any = x, out: Any = out, packs: Any = packs, weights: Any = weights) -> None:
                for w, packed in zip(weights, packs, strict=True):
                    nn.dense(x, w, packed=packed, out=out, n_threads=threads)

            def openblas(x: Any = x, out: Any = out, weights: Any = weights) -> None:
                for w in weights:
                    np.matmul(x, w.T, out=out)

            times = race({"ours": ours, "openblas": openblas}, threads, repeats)
            rate = 4e-9 * copies * n * k / times["ours"]
            row = {"threads": threads, "thin": name, "product": [m, n, k], "gbytes_per_second": rate, "share": rate / bandwidth,
                   "ratio": times["openblas"] / times["ours"]}
            print(f"  {threads} thread(s) {name:14s} {m} x {n:5d} x {k:5d}  {rate:5.1f} GB/s ({100 * row['share']:3.0f} %)  "
                  f"{row['ratio']:5.2f} x OpenBLAS", flush=True)
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-thin", action="store_true")
    parser.add_argument("--no-record", action="store_true", help="print only")
    args = parser.parse_args()
    blas = next((info for info in threadpool_info() if info["internal_api"] == "openblas"), None)
    if blas is None:
        raise SystemExit("NumPy does not use OpenBLAS here: there is nothing to compare with")
    rows, most = [], {}
    for threads in args.threads:
        most[threads] = limits(threads)
        print(f"{threads} thread(s): peak {most[threads]['gflops']} GFLOP/s, {most[threads]['gbytes_per_second']} GB/s")
        with threadpool_limits(threads):
            rows += products(args.networks, threads, args.repeats, most[threads]["gflops"])
            rows += [] if args.no_thin else thin(threads, args.repeats, most[threads]["gbytes_per_second"])
    for threads in args.threads:
        mine = [row for row in rows if row["threads"] == threads and "network" in row]
        if mine:
            lost = [(row["network"], *row["product"]) for row in mine if row["ratio"] < 1.0]
            large = [row["share"] for row in mine if min(row["product"]) >= 256]
            print(f"{threads} thread(s): least ratio {min(row['ratio'] for row in mine):.2f}, slower than OpenBLAS: {lost or 'none'}; "
                  f"least share of the peak, all sizes >= 256: {min(large, default=float('nan')):.2f}")
    if not args.no_record:
        record("products", rows, limits=most, openblas=blas["version"], architecture=blas["architecture"])


if __name__ == "__main__":
    main()
