"""Clustering and soft membership: ours, one thread, against the hdbscan package where it is installed.

    python benchmarks/bench_hdbscan.py [--save] [--large]

Data: filament-shaped islands of lognormal size with 3 % scattered points, which is what an embedding looks like to the
method.  hdbscan runs with its default, approximate spanning tree and once with the exact one; ours is exact.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

import numpy as np
from common import compare, limits, peak_memory, ratio, record

from semanticlens.alignment import HDBSCAN, soft_membership

CASES = {  # n, d, islands, min_cluster_size, min_samples
    "10k_10d": (10_000, 10, 34, 50, 20), "10k_10d_many": (10_000, 10, 138, 15, 10), "10k_50d": (10_000, 50, 34, 50, 20),
}
LARGE = {
    "50k_10d_many": (50_000, 10, 110, 50, 20), "20k_50d": (20_000, 50, 34, 100, 20), "64k_50d": (64_000, 50, 34, 200, 20),
    "320k_10d": (320_000, 10, 110, 200, 20),
}
PEER_ROWS = 50_000  # beyond this only ours runs


def islands(n: int, d: int, count: int, seed: int = 7) -> np.ndarray:
    """(n, d) float32 points along random curves."""
    rng = np.random.default_rng(seed)
    side = 10.0 * count ** (1.0 / min(d, 4))
    weight = rng.lognormal(0, 0.5, count)
    scattered = int(0.03 * n)
    parts = [rng.uniform(-2, side + 2, (scattered, d))]
    for size in rng.multinomial(n - scattered, weight / weight.sum()):
        step = rng.normal(0, 1, (24, d))
        step[:, min(d, 3):] *= 0.3
        path = np.cumsum(step, 0)
        path = (path - path.mean(0)) * 2.0 / np.abs(path - path.mean(0)).max()
        t = rng.beta(0.8, 0.8, size) * 22.999
        i, f = t.astype(int), (t % 1)[:, None]
        noise = rng.normal(0, 0.12, (size, d)) * rng.gamma(2, 0.5, (size, 1))
        parts.append(rng.uniform(0, side, d) + path[i] * (1 - f) + path[i + 1] * f + noise)
    return np.ascontiguousarray(rng.permutation(np.concatenate(parts)), dtype=np.float32)


def measure(n: int, d: int, count: int, size: int, samples: int, repeats: int) -> dict[str, Any]:
    """Times of one case, interleaved."""
    x = islands(n, d, count)
    ours = HDBSCAN(size, samples, n_threads=1)
    fitted = ours.fit(x)
    calls = {
        "fit": lambda: ours.fit(x),
        "membership, new_point": lambda: soft_membership(fitted, x, n_threads=1),
        "membership, all_points": lambda: soft_membership(fitted, x, "all_points", n_threads=1),
    }
    if importlib.util.find_spec("hdbscan") and n <= PEER_ROWS:
        calls |= peers(x, size, samples)
    times = compare(calls, repeats=repeats, clock="cpu")
    found = {"n": n, "d": d, "concepts": len(fitted.exemplars_), "exemplars": sum(map(len, fitted.exemplars_)), "times": times}
    for peer in calls:
        if peer.startswith("hdbscan"):
            kind = "fit" if "fit" in peer else f"membership, {'new' if 'new' in peer else 'all'}_point" + ("" if "new" in peer else "s")
            found[f"{peer} / ours"] = ratio(times, peer, kind) * (n / 200 if "200" in peer else 1)
    return found


def peers(x: np.ndarray, size: int, samples: int) -> dict[str, Any]:
    """The same with hdbscan; its membership_vector on 200 points, to be multiplied."""
    import hdbscan
    from hdbscan import prediction

    wide = x.astype(np.float64)
    model = {"min_cluster_size": size, "min_samples": samples, "cluster_selection_method": "leaf", "core_dist_n_jobs": 1}
    ready = hdbscan.HDBSCAN(**model, prediction_data=True).fit(wide)
    return {
        "hdbscan fit": lambda: hdbscan.HDBSCAN(**model).fit(wide),
        "hdbscan fit, exact tree": lambda: hdbscan.HDBSCAN(**model, approx_min_span_tree=False).fit(wide),
        "hdbscan all_points": lambda: prediction.all_points_membership_vectors(ready),
        "hdbscan new points, 200": lambda: prediction.membership_vector(ready, wide[:200]),
    }


def main() -> None:
    """Print the times, and write the result file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/hdbscan.json")
    parser.add_argument("--large", action="store_true", help="the sizes of the goals too")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    for name, case in {**CASES, **(LARGE if args.large else {})}.items():
        results[name] = measure(*case, args.repeats) | {"peak_memory": peak_memory()}
        print(f"{name}: {results[name]['concepts']} concepts, {results[name]['exemplars']} exemplars")
        for call, time in results[name]["times"].items():
            print(f"  {call:28s} {time['cpu']:8.3f} s")
        for key, value in results[name].items():
            if key.endswith("/ ours"):
                print(f"  {key:36s} {value:8.1f} x")
    if args.save:
        record("hdbscan", {"limits": limits(), "cases": results})


if __name__ == "__main__":
    main()
