"""Concept-based alignment against what else there is: index, matrix, concept pairs, soft membership, clustering, measures.

    python benchmarks/bench_alignment.py [--rows index pairs ...] [--full] [--save] [--name alignment] [--repeats 3] [--threads 1]

Quick sizes, which say little about the goals, without ``--full``.  Contestants run turn by turn; a row reports how many times
ours is faster, what share of the machine's multiply-add rate (``limits``) its arithmetic reaches where that is meaningful, and
the goal it is measured against.  Peers that are not installed are left out and named.  Times are this process's processor seconds, but
of the matrix, which is for several threads.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")    # else NumPy's threads wait busily, and are billed for it

import numpy as np
from common import compare, limits, ratio, record

from semanticlens.alignment import HDBSCAN, align, concept_distances, matrix, soft_membership
from semanticlens.alignment import measures as m

Calls = dict[str, Callable[[], Any]]


def skewed(n: int, k: int, seed: int, share: float = 1.0) -> np.ndarray:
    """(n, k) proximities, most of them small; ``share`` of them not zero."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, k)) ** 12
    x *= (np.where(rng.random(n) < 0.8, 0.6 * rng.random(n), 0.7 + 0.3 * rng.random(n)) / x.sum(axis=1))[:, None]
    return (x * (rng.random((n, k)) < share)).astype(np.float32)


def islands(n: int, d: int, count: int, seed: int = 7) -> np.ndarray:
    """(n, d) float32 points along random curves, islands of lognormal size, with 3 % scattered points: what an embedding looks like."""
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


def has(*packages: str) -> bool:
    return all(importlib.util.find_spec(p) for p in packages)


def finish(times: dict[str, dict[str, float]], goals: dict[str, float], **facts: Any) -> dict[str, Any]:
    """A row: times, how many times ours is faster than each peer, and whether that reaches the goal."""
    faster = {name: ratio(times, name, "ours") for name in times if not name.startswith("ours")}
    reached = {name: faster[name] >= goal for name, goal in goals.items() if name in faster}
    return {"times": times, "faster": faster, "goals": goals, "reached": reached, **facts}


def index(full: bool, repeats: int, threads: int, peak: float) -> dict[str, Any]:
    """One pair of representations."""
    n = 8000 if full else 2000
    p, q = skewed(n, 107, 0), skewed(n, 142, 1)
    calls: Calls = {"ours": lambda: align(p, q, n_threads=threads)}
    if has("torch"):
        import torch

        torch.set_num_threads(threads)
        a, b = torch.from_numpy(p), torch.from_numpy(q)

        def row_loop() -> float:
            total = torch.tensor(0.0)
            for i in range(n):
                total += (((a[i] - a[i + 1 :]).abs().sum(1) - (b[i] - b[i + 1 :]).abs().sum(1)) / 2).abs().sum()
            return float(total)

        def cdist(step: int = 512) -> float:
            total = 0.0
            for i in range(0, n, step):
                apart = (torch.cdist(a[i : i + step], a[i:], p=1) - torch.cdist(b[i : i + step], b[i:], p=1)) / 2
                total += float(apart.abs().triu(1).sum(dtype=torch.float64))
            return total

        calls |= {"torch row loop": row_loop, "torch.cdist in blocks": cdist}
    calls["ours"]()                                   # warm; the peers take too long for a second turn
    times = compare(calls, repeats=repeats, clock="cpu", warmup=0)
    operations = n * (n - 1) / 2 * 249 * 2            # one minimum and one addition an entry
    curve = {}
    for rows in (8000, 16_000, 32_000, 64_000) if full else (1000, 2000, 4000):
        p, q = skewed(rows, 107, 0), skewed(rows, 142, 1)
        one = compare({"ours": lambda p=p, q=q: align(p, q, n_threads=threads)}, repeats=1, warmup=0, clock="cpu")
        curve[rows] = one["ours"]["seconds"]
    exponent = np.polyfit(np.log(list(curve)), np.log(list(curve.values())), 1)[0]
    # Two instructions where a multiply-add is one that counts double: half of `peak` is the best that a minimum and a plain addition
    # can do where they share their units (Zen 3: measured 0.52 of `peak`).  The kernel adds by multiply-adds, which have others there
    # (0.90 to 0.96 of `peak` in registers), so that this share may exceed 1.
    return finish(times, {"torch row loop": 50, "torch.cdist in blocks": 20, "share of minimum and addition": 0.7}, n=n, concepts=249,
                  share_of_minimum_and_addition=operations / times["ours"]["seconds"] / (peak / 2), seconds_by_n=curve, exponent=exponent)


def matrices(full: bool, repeats: int, threads: int, peak: float) -> dict[str, Any]:
    """Eleven representations in one pass, against our own pair by pair (one pair, scaled to the published square of 121); by the clock."""
    n, sizes = (64_000 if full else 4000), (62, 86, 71, 74, 82, 107, 142, 257, 420, 497, 457)
    reps = [skewed(n, k, r) for r, k in enumerate(sizes)]
    times = compare({
        "ours": lambda: matrix(reps, n_threads=threads), "ours, one pair": lambda: align(reps[5], reps[6], n_threads=threads),
    }, repeats=1 if full else repeats, warmup=0)
    by_pairs = times["ours, one pair"]["seconds"] * 2 * 11 * sum(sizes) / (sizes[5] + sizes[6])
    faster = by_pairs / times["ours"]["seconds"]
    reached = {"pair by pair, 11 x 11": faster >= 15}
    if full and threads == 2:
        reached["wall seconds on 2 threads at n = 64 000"] = times["ours"]["wall"] <= 120
    return {"times": times, "faster": {"pair by pair, 11 x 11": faster}, "n": n, "concepts": sum(sizes), "threads": threads,
            "goals": {"pair by pair, 11 x 11": 15, "wall seconds on 2 threads at n = 64 000": 120},
            "reached": reached,
            "share_of_minimum_and_addition": n * (n - 1) / 2 * sum(sizes) * 2 / times["ours"]["seconds"] / (peak / 2)}


def pairs(full: bool, repeats: int, threads: int, _: float) -> dict[str, Any]:
    """The concept-pair matrix, from dense columns to mostly zeros, against NumPy's sorting identity (on a part, scaled to all pairs)."""
    out: dict[str, Any] = {}
    for n in (64_000, 320_000) if full else (16_000,):
        few = n > 64_000
        for share, goal in ((1.0, 2.0), (0.1, 8.0), (0.02, 8.0)):
            p, q = skewed(n, 107, 0, share)[:, : 48 if few else 107], skewed(n, 142, 1, share)[:, : 64 if few else 142]
            some = 6 if few else 12
            columns, others = np.ascontiguousarray(p[:, :some].T), np.ascontiguousarray(q[:, :some].T)
            weight = 2 * np.arange(n) - n + 1.0

            def identity(columns: np.ndarray = columns, others: np.ndarray = others, weight: np.ndarray = weight) -> list[list[float]]:
                return [[float(np.vdot(np.sort(a + b), weight) + np.vdot(np.sort(a - b), weight)) for b in others] for a in columns]

            times = compare({"ours": lambda p=p, q=q: concept_distances(p, q, n_threads=threads), "NumPy, sorting identity": identity},
                            repeats=1 if few else repeats, clock="cpu", warmup=0)
            number, scale = p.shape[1] * q.shape[1], p.shape[1] * q.shape[1] / some**2
            times["NumPy, sorting identity"] = {k: v if k == "repeats" else v * scale for k, v in times["NumPy, sorting identity"].items()}
            out[f"n = {n}, {share:.0%} not zero"] = finish(times, {"NumPy, sorting identity": goal}, pairs=number,
                                                           milliseconds_a_pair=times["ours"]["seconds"] * 1e3 / number)
    return out


def membership(full: bool, repeats: int, threads: int, _: float) -> dict[str, Any]:
    """Both forms of soft membership, and the closed form in NumPy (distances by scipy) for the same table of heights."""
    n = 50_000 if full else 10_000
    x = islands(n, 10, 110 if full else 34)
    fit = HDBSCAN(50, 20, n_threads=threads).fit(x)
    wide, K = x.astype(np.float64), len(fit.exemplars_)
    nodes = fit.condensed_tree_._nodes
    node, lam, lmax = nodes[4], nodes[5], nodes[2]
    height = fit.clusters_.height[node]

    def closed_form(fresh: bool) -> np.ndarray:
        from scipy.spatial.distance import cdist

        away = np.stack([cdist(wide, wide[e]).min(axis=1) for e in fit.exemplars_], axis=1)
        u = np.where(away > 0, 1 / np.where(away > 0, away, 1), np.finfo(float).max / K)
        u /= u.sum(axis=1, keepdims=True)
        own = lam.astype(np.float32).astype(np.float64) if fresh else lam
        h = np.where(np.isnan(height), own[:, None], height)
        below = lmax[node][:, None] - h
        t = lmax[node][:, None] / np.where(below > 0, below, 1e-8) if fresh else np.exp(-(lmax[node] + 1e-8)[:, None] / h)
        soft = np.exp(t - t.max(axis=1, keepdims=True))
        soft /= soft.sum(axis=1, keepdims=True)
        v = np.sqrt(u) * soft**2 if fresh else u * soft
        top = np.maximum(lmax[fit.clusters_.selected][h.argmax(axis=1)], lam)
        return v / v.sum(axis=1, keepdims=True) * (h.max(axis=1) / top)[:, None]

    out = {}
    for variant in ("new_point", "all_points"):
        calls: Calls = {"ours": lambda v=variant: soft_membership(fit, x, v, n_threads=threads)}
        if has("scipy"):
            calls["closed form in NumPy"] = lambda v=variant: closed_form(v == "new_point")
        if has("hdbscan"):
            calls |= hdbscan_membership(wide, variant)
        calls["ours"]()
        times = compare(calls, repeats=1 if full else repeats, warmup=0, clock="cpu")
        for name, rows in (("hdbscan, 200 points", 200),):
            if name in times:                         # measured on a part, scaled to all
                times["hdbscan"] = {key: value * (n / rows if key != "repeats" else 1) for key, value in times.pop(name).items()}
        out[variant] = finish(times, {"hdbscan": 100, "closed form in NumPy": 15}, n=n, concepts=K)
    return out


def hdbscan_membership(x: np.ndarray, variant: str) -> Calls:
    import hdbscan
    from hdbscan import prediction

    ready = hdbscan.HDBSCAN(
        min_cluster_size=50, min_samples=20, cluster_selection_method="leaf", core_dist_n_jobs=1, prediction_data=True
    ).fit(x)
    if variant == "new_point":
        return {"hdbscan, 200 points": lambda: prediction.membership_vector(ready, x[:200])}
    return {"hdbscan": lambda: prediction.all_points_membership_vectors(ready)}


def clustering(full: bool, repeats: int, threads: int, _: float) -> dict[str, Any]:
    """The fit with the exact tree, against hdbscan with its default, approximate one, and fast_hdbscan."""
    out: dict[str, Any] = {}
    cases = {"50k x 10": (50_000, 10, 110, 50), "20k x 50": (20_000, 50, 34, 100)} if full else {"5k x 10": (5000, 10, 34, 50)}
    for name, (n, d, count, size) in cases.items():
        x = islands(n, d, count).astype(np.float64)
        calls: Calls = {"ours": lambda x=x, size=size: HDBSCAN(size, 20, n_threads=threads).fit(x)}
        if has("hdbscan"):
            import hdbscan

            calls["hdbscan"] = lambda x=x, size=size: hdbscan.HDBSCAN(
                min_cluster_size=size, min_samples=20, cluster_selection_method="leaf", core_dist_n_jobs=1).fit(x)
        if has("fast_hdbscan"):
            import fast_hdbscan

            calls["fast_hdbscan"] = lambda x=x, size=size: fast_hdbscan.HDBSCAN(
                min_cluster_size=size, min_samples=20, cluster_selection_method="leaf").fit(x)
        out[name] = finish(compare(calls, repeats=repeats, clock="cpu", warmup=0), {"hdbscan": 1.5})
    for name, case in {"320k x 10": (320_000, 10, 110), "64k x 50": (64_000, 50, 34)}.items() if full else ():
        out[name] = alone(*case, threads)
    return out


def alone(n: int, d: int, count: int, threads: int) -> dict[str, Any]:
    """Our fit in a process of its own, whose peak memory is then the fit's and the data's."""
    code = (f"import json, sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from bench_alignment import islands; from common import peak_memory; from semanticlens.alignment import HDBSCAN\n"
            f"x = islands({n}, {d}, {count}); start = time.process_time(); f = HDBSCAN(200, 20, n_threads={threads}).fit(x)\n"
            "print(json.dumps([time.process_time() - start, peak_memory(), len(f.exemplars_)]))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, peak, concepts = json.loads(done.stdout)
    return {"times": {"ours": {"seconds": seconds, "cpu": seconds, "repeats": 1}}, "concepts": concepts, "peak_bytes_of_the_process": peak,
            "goals": {"bytes": 2 << 30}, "reached": {"bytes": peak <= 2 << 30}}


def measures(full: bool, repeats: int, threads: int, peak: float) -> dict[str, Any]:
    """The measures, against their usual form on n x n matrices in torch."""
    n, d = (8000, 768) if full else (1500, 768)
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((n, d)) * np.arange(1, d + 1.0) ** -0.5).astype(np.float32)
    y = (x @ rng.standard_normal((d, d)) / d**0.5 + 0.05 * rng.standard_normal((n, d))).astype(np.float32)
    ours: Calls = {
        "debiased CKA": lambda: m.cka(x, y, debiased=True, n_threads=threads),
        "RBF CKA": lambda: m.cka(x, y, kernel="rbf", n_threads=threads), "RSA": lambda: m.rsa(x, y, n_threads=threads),
        "mutual kNN": lambda: m.mutual_knn(x, y, n_threads=threads), "CKNNA": lambda: m.cknna(x, y, n_threads=threads),
        "linear CKA": lambda: m.cka(x, y, n_threads=threads), "Procrustes": lambda: m.procrustes(x, y, n_threads=threads),
    }
    peers = torch_measures(x, y, threads) if has("torch") else {}
    out = {}
    for name, call in ours.items():
        found: dict[str, float] = {}
        calls = {who: lambda found=found, who=who, f=f: found.__setitem__(who, float(f()))
                 for who, f in {"ours": call, "torch": peers.get(name)}.items() if f is not None}
        times = compare(calls, repeats=repeats, clock="cpu", warmup=0)
        out[name] = finish(times, {"torch": 2.0} if name not in ("linear CKA", "Procrustes") else {}, n=n, d=d,
                           ours=found["ours"], theirs=found.get("torch"))
        passes = {"RBF CKA": 4, "RSA": 4, "mutual kNN": 2, "CKNNA": 2}.get(name)
        if passes:
            out[name]["share_of_multiply_add_rate"] = passes * n * (n + 1) * d / times["ours"]["seconds"] / peak
    return out


def torch_measures(first: np.ndarray, second: np.ndarray, threads: int) -> Calls:
    """By the formulas as published, with the sums that avoid products of n x n matrices."""
    import torch

    torch.set_num_threads(threads)
    n, k = len(first), 10
    x, y = (torch.from_numpy(v - v.mean(0)) for v in (first, second))

    def hsic(a: Any, b: Any) -> Any:
        a, b = a.clone().fill_diagonal_(0), b.clone().fill_diagonal_(0)
        return ((a * b.T).sum() + a.sum() * b.sum() / (n - 1) / (n - 2) - 2 * (a.sum(0) @ b.sum(1)) / (n - 2)) / (n * (n - 3))

    def centred(a: Any) -> Any:
        return a - a.mean(0) - a.mean(1, keepdim=True) + a.mean()

    def ratio_of(f: Callable[[Any, Any], Any], a: Any, b: Any) -> float:
        return float(f(a, b) / (f(a, a) * f(b, b)).sqrt())

    def gauss(a: Any) -> Any:
        squared = torch.cdist(a, a).square_()
        return (squared / (-2 * squared.median())).exp_()

    def mask(a: Any) -> Any:
        return torch.zeros(n, n).scatter_(1, a.clone().fill_diagonal_(float("-inf")).topk(k, 1).indices, 1)

    def units() -> list[Any]:
        return [torch.nn.functional.normalize(torch.from_numpy(v), dim=1) for v in (first, second)]

    def cknna() -> float:
        a, b = (u @ u.T for u in units())
        in_a, in_b = mask(a), mask(b)
        top = hsic(a * in_a * in_b, b * in_a * in_b)
        return float(top / (hsic(a * in_a, a * in_a) * hsic(b * in_b, b * in_b)).sqrt())

    def knn() -> float:
        a, b = (mask(u @ u.T) for u in units())
        return float((a * b).sum()) / n / k

    def rsa() -> float:
        upper, ranks = torch.triu_indices(n, n, 1), []
        for v in (first, second):
            u = torch.nn.functional.normalize(torch.from_numpy(v - v.mean(1, keepdims=True)), dim=1)
            values = (u @ u.T)[upper[0], upper[1]]
            rank = torch.empty_like(values)
            rank[values.argsort()] = torch.arange(len(values), dtype=torch.float32)
            ranks.append(rank.double())
        return float(torch.corrcoef(torch.stack(ranks))[0, 1])

    return {
        "debiased CKA": lambda: ratio_of(hsic, x @ x.T, y @ y.T), "RSA": rsa, "mutual kNN": knn, "CKNNA": cknna,
        "RBF CKA": lambda: ratio_of(lambda a, b: (centred(a) * b).sum(), gauss(x), gauss(y)),
        "linear CKA": lambda: float((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())),
        "Procrustes": lambda: float((2 - 2 * torch.linalg.svdvals((x / x.norm()).T @ (y / y.norm())).sum()).clamp(min=0) ** 0.5),
    }


ROWS = {"index": index, "matrix": matrices, "pairs": pairs, "membership": membership, "clustering": clustering, "measures": measures}


def show(name: str, found: dict[str, Any]) -> None:
    if "times" not in found:
        for part, row in found.items():
            show(f"{name}, {part}", row)
        return
    facts = ("share_of_minimum_and_addition", "share_of_multiply_add_rate", "exponent", "milliseconds_a_pair", "peak_bytes_of_the_process")
    print(name, *(f"{key}={found[key]:.3g}" for key in facts if key in found))
    for call, time in found["times"].items():
        print(f"  {call:28s} {time['cpu']:8.3f} s" + (f", {time['wall']:.3f} s by the clock" if "wall" in time else ""))
    for peer, times in found.get("faster", {}).items():
        print(f"  {peer + ' / ours':40s} {times:8.1f} x   goal {found['goals'].get(peer, '-')}")


def main() -> None:
    """Print the rows, and write the result file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--full", action="store_true", help="the sizes of the goals")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/NAME.json")
    parser.add_argument("--name", default="alignment", help="of the result file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    best = limits(args.threads)
    results = {}
    for name in args.rows:
        results[name] = ROWS[name](args.full, args.repeats, args.threads, best["gflops"] * 1e9)
        show(name, results[name])
    absent = [p for p in ("torch", "scipy", "hdbscan", "fast_hdbscan") if not has(p)]
    if absent:
        print(f"not installed, left out: {', '.join(absent)}")
    if args.save:
        record(args.name, results, limits=best, full=args.full, absent=absent)


if __name__ == "__main__":
    main()
