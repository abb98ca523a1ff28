"""Labels: the closest five of L texts for each of K components, against the whole matrix in NumPy.

    python benchmarks/bench_labels.py [--quick] [--threads N]

The NumPy way multiplies in blocks of components, so that it fits into memory, and takes argpartition of each block.

    python benchmarks/bench_labels.py --large [--threads N]

labels 100 000 components with 100 000 texts in a process of its own, with its memory, and searches 1 000 000 components.
"""

from __future__ import annotations

import argparse
import os

K, L, D, TOP, BLOCK = 10_000, 20_000, 512, 5, 1000


def large(threads: int, k: int, components: int) -> dict[str, object]:
    """Seconds and memory beyond the inputs of k x k labels; and the 95th percentile of searches over ``components``."""
    import time

    import numpy as np
    from bench_scores import peak
    from common import limits

    from semanticlens import _core

    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((k, D), dtype=np.float32), rng.standard_normal((k, D), dtype=np.float32)
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    _core.top_labels(x, t, TOP, n_threads=threads)
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    speed, machine, extra = 2.0 * k * k * D / seconds / 1e9, limits(threads), peak() - before
    del x, t
    space = rng.standard_normal((components, D), dtype=np.float32)
    found = []
    for _ in range(40):
        query = rng.standard_normal((1, D), dtype=np.float32)
        start = time.perf_counter()
        scores = _core.cosine(query, space, n_threads=threads)[0]
        some = np.argpartition(-scores, 10)[:10]
        some[np.argsort(-scores[some])]
        found.append(time.perf_counter() - start)
    search = {"size": [components, D], "p95_seconds": float(np.quantile(found, 0.95)), "median_seconds": float(np.median(found))}
    labels = {"size": [k, k, D], "seconds": seconds, "cpu": used, "gflops": speed, "extra_mb": extra / 1e6}
    return {"labels": labels, "share_of_peak": speed / machine["gflops"], "limits": machine, "search": search, "threads": threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, no result file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--large", action="store_true", help="100 000 x 100 000 labels and search over 1 000 000 components")
    args = parser.parse_args()
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)

    import numpy as np
    from common import compare, limits, ratio, record

    from semanticlens import _core

    if args.large:
        wide = large(args.threads, *((10_000, 100_000) if args.quick else (100_000, 1_000_000)))
        print(wide)
        if not args.quick:
            record(f"labels_large_{args.threads}t", wide)
        return
    k, n = (2000, 3000) if args.quick else (K, L)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((k, D), dtype=np.float32), rng.standard_normal((n, D), dtype=np.float32)

    def dense():
        a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (x, t))
        best = []
        for start in range(0, k, BLOCK):
            scores = a[start : start + BLOCK] @ b.T
            some = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
            order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1)
            best.append(np.take_along_axis(some, order, axis=1))
        return np.concatenate(best)

    agree = float((dense() == _core.top_labels(x, t, TOP, n_threads=args.threads)[0]).mean())
    times = compare(
        {"ours": lambda: _core.top_labels(x, t, TOP, n_threads=args.threads), "numpy": dense},
        repeats=2 if args.quick else 5,
        clock="cpu" if args.threads == 1 else "wall",
    )
    speed = 2.0 * k * n * D / times["ours"]["seconds"] / 1e9
    machine = limits(args.threads)
    results = {
        "size": [k, n, D],
        "top": TOP,
        "threads": args.threads,
        "times": times,
        "times_faster": ratio(times, "numpy", "ours"),
        "gflops": speed,
        "share_of_peak": speed / machine["gflops"],
        "limits": machine,
        "same_labels": agree,
    }
    print(
        f"labels {results['size']}: {times['ours']['seconds']:.2f} s ({speed:.0f} GFLOP/s, {results['share_of_peak']:.0%} of the peak); "
        f"NumPy {results['times_faster']:.1f} x; same labels {agree:.4f}"
    )
    if not args.quick:
        record(f"labels_{args.threads}t", results)


if __name__ == "__main__":
    main()
