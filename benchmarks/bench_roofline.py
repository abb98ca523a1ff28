"""How far each network is from what the machine can do at best, per kind of layer; and what the Python executor costs.

    python benchmarks/bench_roofline.py [--networks ...] [--threads 1 2] [--repeats 9] [--no-record]      measure, write, draw
    python benchmarks/bench_roofline.py --draw                                                            draw again from the results

Every step of a plan is timed on its own (batch 1).  ``flops`` are the graph's (a multiply-add counts two), ``bytes`` what a step must
move at least: its inputs, parameters and result, once.  The roof is the lower of the measured multiply-add peak and bandwidth times
flops per byte.  ``executor`` is the share of a run that is spent outside the functions of the extension: Python between the kernels and
around them; it is measured in runs of their own, in which the extension's functions are timed and nothing else.

Writes benchmarks/results/roofline.json, docs/roofline.png and the table in docs/speed.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_forward import TRANSFORMERS, inputs, network
from common import RESULTS, ROOT, limits, record

from semanticlens import _core
from semanticlens.nn import Network
from semanticlens.nn.plan import Scratch

NETWORKS = ["vgg16", "resnet50", "mobilenet_v2", "vit_b_16", *TRANSFORMERS]
KINDS = {"conv2d": "convolution", "dense": "dense", "attention": "attention", "matmul": "attention"}
TABLE = ("<!-- table: written by benchmarks/bench_roofline.py -->", "<!-- end of table -->")


def clock_of(threads: int) -> Callable[[], float]:
    return time.thread_time if threads == 1 else time.perf_counter


def kind_of(step: Any, plan: Any) -> str:
    if step.head.op.name == "conv2d":
        weight = step.call.params["weight"]
        return "depthwise" if weight.shape[1] == 1 and step.call.attrs["groups"] > 1 else f"conv {weight.shape[2]}x{weight.shape[3]}"
    return KINDS.get(step.head.op.name, "other")


def work_of(step: Any, xs: list[np.ndarray]) -> tuple[float, float]:
    """Operations and least bytes of a step on these inputs."""
    op, batch = step.head.op, xs[0].shape[0]
    shapes = {role: array.shape for role, array in step.call.params.items()}
    flops = op.flops(step.call.attrs, shapes, [x.shape[1:] for x in xs], step.shape) if op.flops else int(np.prod(step.shape))
    params = 0 if op.name == "embedding" else sum(array.nbytes for array in step.call.params.values())
    moved = 0 if step.view else sum(x.nbytes for x in xs) + 4 * batch * step.size + params
    return float(batch * flops), float(moved)


def by_kind(net: Network, x: np.ndarray, threads: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds (median over the runs), flops and bytes of each kind of step."""
    net(x, n_threads=threads)
    (key, plan), clock = next(iter(net._plans.items())), clock_of(threads)
    seconds: dict[str, list[float]] = defaultdict(lambda: [0.0] * repeats)
    work: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    turn = [-1]

    def timed(step: Any) -> Any:
        kind = kind_of(step, plan)

        def forward(call: Any, xs: Any, out: Any, n_threads: int) -> Any:
            start = clock()
            y = step.forward(call, xs, out, n_threads)
            if turn[0] >= 0:
                seconds[kind][turn[0]] += clock() - start
            if turn[0] == 0:
                flops, moved = work_of(step, xs)
                work[kind][0] += flops
                work[kind][1] += moved
            return y

        unbound = dataclasses.replace(step.head, op=dataclasses.replace(step.head.op, bind=None))
        return dataclasses.replace(step, forward=forward, head=unbound)

    net._plans[key] = dataclasses.replace(plan, steps=tuple(timed(step) for step in plan.steps))
    for turn[0] in range(-1, repeats):
        net(x, n_threads=threads)
    net._plans[key] = plan
    return {kind: {"seconds": statistics.median(times), "flops": work[kind][0], "bytes": work[kind][1]} for kind, times in seconds.items()}


def executor_share(net: Network, x: np.ndarray, threads: int, repeats: int) -> float:
    """Share of the time of a run that is spent outside the extension: median over the runs, clock reading included."""
    clock, inside = time.perf_counter, [0.0]  # cheap to read; both parts are slowed down alike where the machine is busy

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                inside[0] += clock() - start

        return call

    original = {name: getattr(_core, name) for name in dir(_core) if not name.startswith("_") and callable(getattr(_core, name))}
    try:
        for name, function in original.items():
            setattr(_core, name, timed(function))
        net._scratch = Scratch()  # calls are bound anew, to the timed functions
        net(x, n_threads=threads)
        shares = []
        for _ in range(3 * repeats):
            inside[0], start = 0.0, clock()
            net(x, n_threads=threads)
            total = clock() - start
            shares.append(1.0 - inside[0] / total)
    finally:
        for name, function in original.items():
            setattr(_core, name, function)
        net._scratch = Scratch()
    return statistics.median(shares)


def measure(name: str, threads: int, repeats: int) -> dict[str, Any]:
    net = network(name)
    x, clock, runs = inputs(net, 1), clock_of(threads), []
    net(x, n_threads=threads)
    for _ in range(repeats):
        start = clock()
        net(x, n_threads=threads)
        runs.append(clock() - start)
    kinds, seconds = by_kind(net, x, threads, repeats), statistics.median(runs)
    share = executor_share(net, x, threads, repeats)
    rate = 1e-9 * sum(kind["flops"] for kind in kinds.values()) / seconds
    print(f"{name:14s} threads {threads}  {1e3 * seconds:8.2f} ms  {rate:6.1f} GFLOP/s  executor {100 * share:4.1f} %", flush=True)
    return {"network": name, "threads": threads, "seconds": seconds, "executor": share, "kinds": kinds}


def roof(kind: dict[str, float], limit: dict[str, Any]) -> float:
    """Least seconds that the machine allows."""
    return max(kind["flops"] / limit["gflops"], kind["bytes"] / limit["gbytes_per_second"]) / 1e9


def table(rows: list[dict[str, Any]], most: dict[str, Any]) -> str:
    lines = ["| network | threads | layers | ms | GFLOP/s | of the peak | GB/s | of the bandwidth | of the roof |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        limit = most[str(row["threads"])]
        all_kinds = {key: sum(kind[key] for kind in row["kinds"].values()) for key in ("flops", "bytes")}
        best = sum(roof(kind, limit) for kind in row["kinds"].values())
        entries = [("**all**", {**all_kinds, "seconds": row["seconds"]}, best)]
        entries += [(name, kind, roof(kind, limit)) for name, kind in sorted(row["kinds"].items(), key=lambda pair: -pair[1]["seconds"])]
        for name, kind, least in entries:
            if kind["seconds"] <= 0 or (name != "**all**" and kind["seconds"] < 0.005 * row["seconds"]):
                continue
            flops, moved = (1e-9 * kind[key] / kind["seconds"] for key in ("flops", "bytes"))
            lines.append(f"| {row['network'] if name == '**all**' else ''} | {row['threads'] if name == '**all**' else ''} | {name} | "
                         f"{1e3 * kind['seconds']:.2f} | {flops:.1f} | {100 * flops / limit['gflops']:.0f} % | {moved:.1f} | "
                         f"{100 * moved / limit['gbytes_per_second']:.0f} % | {100 * least / kind['seconds']:.0f} % |")
    shares = [f"{row['network']} {100 * row['executor']:.1f} % ({row['threads']} thread{'s' * (row['threads'] > 1)})" for row in rows]
    lines += ["", f"Share of a run outside the extension, in Python: {', '.join(shares)}."]
    return "\n".join(lines)


def draw(document: dict[str, Any]) -> None:
    try:
        import matplotlib
    except ModuleNotFoundError:
        print("the picture needs matplotlib: run again with --draw where it is installed")
        return

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import matplotlib.ticker

    rows, most = document["results"], document["limits"]
    used = sorted({row["threads"] for row in rows})
    names = list(dict.fromkeys(row["network"] for row in rows))
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["kinds"] if kind != "other"))
    markers = dict(zip(kinds, "osD^vP*Xp<>h", strict=False))
    colors = dict(zip(names, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444"), strict=False))
    figure, axes = plt.subplots(1, len(used), figsize=(5.4 * len(used), 4.6), sharey=True, squeeze=False, layout="constrained")
    for axis, threads in zip(axes[0], used, strict=True):
        limit = most[str(threads)]
        span = np.logspace(-1, 3, 200)
        axis.plot(span, np.minimum(limit["gflops"], span * limit["gbytes_per_second"]), color="#333333", lw=1.2)
        axis.text(900, limit["gflops"] * 1.08, f"{limit['gflops']:.0f} GFLOP/s", ha="right", va="bottom", fontsize=8)
        at = 0.25 * limit["gflops"] / limit["gbytes_per_second"]
        axis.set(xscale="log", yscale="log", xlim=(0.1, 1000), ylim=(1, 2.2 * max(limit["gflops"] for limit in most.values())),
                 xlabel="operations per byte that must be moved", title=f"{threads} thread{'s' * (threads > 1)}")
        axis.text(0.85 * at, at * limit["gbytes_per_second"], f"{limit['gbytes_per_second']:.0f} GB/s", ha="right", va="bottom", fontsize=8)
        for row in rows:
            if row["threads"] != threads:
                continue
            for name, kind in row["kinds"].items():
                if name != "other" and kind["seconds"] > 0.01 * row["seconds"]:
                    axis.scatter(kind["flops"] / kind["bytes"], 1e-9 * kind["flops"] / kind["seconds"], marker=markers[name], s=42,
                                 color=colors[row["network"]], alpha=0.85, linewidths=0.5, edgecolors="white")
        for part in (axis.xaxis, axis.yaxis):
            part.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, place: f"{value:g}"))
        axis.grid(True, which="major", color="#dddddd", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("GFLOP/s")
    handles = [plt.Line2D([], [], color=colors[name], marker="o", ls="", label=name) for name in names]
    handles += [plt.Line2D([], [], color="#555555", marker=markers[kind], ls="", label=kind) for kind in kinds]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(ROOT / "docs/roofline.png", dpi=110)
    print("wrote docs/roofline.png")


def write_table(document: dict[str, Any]) -> None:
    path = ROOT / "docs/speed.md"
    text = path.read_text(encoding="utf-8")
    before, after = text.index(TABLE[0]) + len(TABLE[0]), text.index(TABLE[1])
    path.write_text(f"{text[:before]}\n\n{table(document['results'], document['limits'])}\n\n{text[after:]}", encoding="utf-8")
    print("wrote docs/speed.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--draw", action="store_true", help="only draw again")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    path: Path = RESULTS / "roofline.json"
    if not given.draw:
        most = {str(threads): limits(threads) for threads in given.threads}
        rows = [measure(name, threads, given.repeats) for name in given.networks for threads in given.threads]
        if given.no_record:
            return
        record("roofline", rows, limits=most)
    document = json.loads(path.read_text(encoding="utf-8"))
    write_table(document)
    draw(document)


if __name__ == "__main__":
    main()
