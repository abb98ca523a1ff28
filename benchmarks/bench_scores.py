"""Scores: polysemanticity against scikit-learn's loop, clarity against pairs and one read, redundancy against the whole matrix.

    python benchmarks/bench_scores.py [--quick] [--threads N]

scikit-learn clusters a share of the components and its time is scaled to all of them (the cost per component is the same; the file says
how many were timed).  Dense redundancy is what the published package does, in NumPy: normalise, multiply, mask the diagonal, take row
maxima.  The bootstrap is 1 000 resamples of clarity, polysemanticity, redundancy and five label cosines, against all of them once.
Each memory peak is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

K, M, D = 2048, 30, 512
WIDE = 30_000


def vectors(rows: int, seed: int = 0):
    """Rows with a shared offset, as the vectors of an image tower have."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, D), dtype=np.float32) + np.float32(0.3)


def dense_redundancy(x):
    import numpy as np

    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similar = unit @ unit.T
    similar = similar - 2 * np.eye(len(x), dtype=np.float32)
    return similar.max(axis=1)


def peak() -> int:
    """Largest resident size of this process, in bytes; not ru_maxrss, which a child inherits from its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def child(what: str, rows: int, threads: int) -> None:
    """One redundancy run: seconds and memory above what the input needs."""
    import time

    from semanticlens import _core

    x = vectors(rows)
    before = peak()
    start, cpu = time.perf_counter(), time.process_time()
    values = _core.redundancy(x, n_threads=threads)[0] if what == "ours" else dense_redundancy(x)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - start,
                "cpu": time.process_time() - cpu,
                "extra_bytes": peak() - before,
                "peak_bytes": peak(),
                "mean": float(values.mean()),
            }
        )
    )


def in_a_process(what: str, rows: int, threads: int) -> dict[str, float]:
    limit = {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    run = subprocess.run(
        [sys.executable, __file__, "--child", what, "--rows", str(rows), "--threads", str(threads)],
        env={**os.environ, **limit},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def measure_polysemanticity(v, threads: int, timed: int) -> dict[str, object]:
    from common import compare
    from sklearn.cluster import KMeans

    from semanticlens import _core

    def loop():
        return [KMeans(n_clusters=2, n_init=10, random_state=123).fit(own) for own in v[:timed]]

    times = compare(
        {"ours": lambda: _core.polysemanticity(v, n_threads=threads), "scikit_learn": loop},
        repeats=3,
        clock="cpu" if threads == 1 else "wall",
    )
    scaled = times["scikit_learn"]["seconds"] * len(v) / timed
    ours = _core.polysemanticity(v[:timed])[2]
    inertia = [model.inertia_ for model in loop()]
    return {
        "size": [K, M, D],
        "threads": threads,
        "ours": times["ours"],
        "scikit_learn_timed": timed,
        "scikit_learn": times["scikit_learn"],
        "scikit_learn_scaled_seconds": scaled,
        "times_faster": scaled / times["ours"]["seconds"],
        "our_inertia_over_theirs": float((ours / inertia).mean()),
        "share_where_ours_is_not_higher": float((ours <= [i * 1.0001 for i in inertia]).mean()),
    }


def measure_clarity(v, threads: int) -> dict[str, object]:
    import numpy as np
    from common import compare, ratio

    from semanticlens import _core

    def pairs():
        unit = v / np.linalg.norm(v, axis=-1, keepdims=True)
        return ((unit @ unit.transpose(0, 2, 1)).sum((1, 2)) - M) / (M * (M - 1))

    times = compare(
        {
            "ours": lambda: _core.clarity(v, n_threads=threads),
            "numpy_pairs": pairs,
            "numpy_read": v.sum,
            "our_vectors": lambda: _core.concept_vectors(v, n_threads=threads),
        },
        clock="cpu" if threads == 1 else "wall",
    )
    return {
        "size": [K, M, D],
        "threads": threads,
        "times": times,
        "pairs_over_ours": ratio(times, "numpy_pairs", "ours"),
        "ours_over_one_read": ratio(times, "ours", "numpy_read"),
    }


def measure_redundancy(threads: int, rows: int, repeats: int) -> dict[str, object]:
    import statistics

    runs = {"ours": [], "dense": []}
    for _ in range(repeats):
        for what in runs:
            runs[what].append(in_a_process(what, rows, threads))
    clock = "cpu" if threads == 1 else "seconds"
    middle = {what: statistics.median(run[clock] for run in found) for what, found in runs.items()}
    return {
        "size": [rows, D],
        "threads": threads,
        "runs": runs,
        "seconds": middle,
        "times_faster": middle["dense"] / middle["ours"],
        "ours_extra_mb": max(run["extra_bytes"] for run in runs["ours"]) / 1e6,
        "ours_peak_mb": max(run["peak_bytes"] for run in runs["ours"]) / 1e6,
        "dense_extra_mb": max(run["extra_bytes"] for run in runs["dense"]) / 1e6,
        "input_mb": rows * D * 4 / 1e6,
    }


def measure_bootstrap(v, threads: int, resamples: int) -> dict[str, object]:
    import numpy as np
    from common import compare, ratio

    from semanticlens import _core

    table, ids = v.reshape(-1, D), np.arange(len(v) * M).reshape(-1, M)
    texts = vectors(1000, seed=1)
    x = _core.concept_vectors(table, ids)[0]
    nearest, groups = _core.redundancy(x)[1], _core.polysemanticity(table, ids)[1]
    best = _core.top_labels(x, texts, 5)[0]
    targets, chosen = np.concatenate([texts, x]), np.concatenate([nearest[:, None] + len(texts), best], axis=1)

    def once():
        _core.clarity(table, ids, n_threads=threads)
        _core.polysemanticity(table, ids, n_threads=threads)
        means = _core.concept_vectors(table, ids, n_threads=threads)[0]
        _core.redundancy(means, n_threads=threads)

    def intervals():
        _core.bootstrap(table, ids, None, None, groups, targets, chosen, resamples=resamples, n_threads=threads)

    times = compare({"once": once, "bootstrap": intervals}, repeats=5, clock="cpu" if threads == 1 else "wall")
    return {
        "size": [len(v), M, D],
        "threads": threads,
        "resamples": resamples,
        "times": times,
        "times_of_one": ratio(times, "bootstrap", "once"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, no result file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="runs of redundancy, each in its own process; the dense way takes 11 GB")
    parser.add_argument("--child")
    parser.add_argument("--rows", type=int, default=WIDE)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.rows, args.threads)
        return
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    from common import record

    v = vectors(K * M).reshape(K, M, D)
    results = {
        "clarity": measure_clarity(v, args.threads),
        "polysemanticity": measure_polysemanticity(v, args.threads, 32 if args.quick else 128),
        "bootstrap": measure_bootstrap(v, args.threads, 1000),
        "redundancy": measure_redundancy(args.threads, 6000 if args.quick else args.rows, 1 if args.quick else args.repeats),
    }
    c, p, r = results["clarity"], results["polysemanticity"], results["redundancy"]
    print(
        f"clarity {c['size']}: {c['times']['ours']['seconds'] * 1e3:.1f} ms; pairs in NumPy {c['pairs_over_ours']:.1f} x; "
        f"{c['ours_over_one_read']:.2f} times one read of the tensor"
    )
    print(
        f"polysemanticity {p['size']}: {p['ours']['seconds'] * 1e3:.0f} ms; scikit-learn {p['scikit_learn_scaled_seconds']:.1f} s "
        f"({p['scikit_learn_timed']} components timed, scaled): {p['times_faster']:.0f} x"
    )
    print(
        f"redundancy {r['size']}: {r['seconds']['ours']:.2f} s with {r['ours_extra_mb']:.0f} MB besides the input "
        f"(peak of the process {r['ours_peak_mb']:.0f} MB); "
        f"dense {r['seconds']['dense']:.2f} s with {r['dense_extra_mb']:.0f} MB: {r['times_faster']:.1f} x"
    )
    b = results["bootstrap"]
    print(
        f"bootstrap {b['size']}, {b['resamples']} resamples: {b['times']['bootstrap']['seconds']:.2f} s, "
        f"{b['times_of_one']:.1f} times all scores once"
    )
    if not args.quick:
        record(f"scores_{args.threads}t", results)


if __name__ == "__main__":
    main()
