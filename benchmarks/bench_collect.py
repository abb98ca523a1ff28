"""Streaming top-m against the reference loop, and what collecting adds to the forward pass.

    python benchmarks/bench_collect.py [--quick]

Reference loop: per batch, top-k over the stored scores and the new ones side by side, then a gather of the ids (the
published package's way); in torch where it is installed, and in NumPy with argpartition. Its time per batch does not
depend on the values, so it is measured on every n-th batch of the same stream and scaled up; ours is measured on every
batch, the final sort included. The share of bandwidth is taken over the last batches: each is pushed out of the caches,
offered to us, pushed out again, and read once by NumPy's maximum.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import limits, record

import semanticlens as sl
from semanticlens._kernels.collect import TopM
from semanticlens.data import ImageArray, batches
from semanticlens.nn.network import Network, Node
from semanticlens.nn.preprocess import Preprocess

try:
    import torch
except ImportError:
    torch = None


LATE = 100                                            # last batches, where few values enter: timed from memory, beside a plain read


class TorchLoop:
    name = "torch"

    def __init__(self, k, m):
        self.k = k
        self.scores, self.ids = torch.full((k, m), -torch.inf), torch.full((k, m), -1)

    def update(self, values, ids):
        scores = torch.cat([self.scores, torch.from_numpy(values).T], dim=1)
        every = torch.cat([self.ids, torch.from_numpy(ids).expand(self.k, -1)], dim=1)
        self.scores, order = scores.topk(self.scores.shape[1], dim=1)
        self.ids = every.gather(1, order)


class NumpyLoop:
    name = "numpy"

    def __init__(self, k, m):
        self.scores, self.ids = np.full((k, m), -np.inf, np.float32), np.full((k, m), -1)

    def update(self, values, ids):
        m = self.ids.shape[1]
        scores = np.concatenate([self.scores, values.T], axis=1)
        every = np.concatenate([self.ids, np.broadcast_to(ids, values.T.shape)], axis=1)
        order = np.argpartition(scores, -m, axis=1)[:, -m:]
        kept = np.take_along_axis(scores, order, axis=1)
        order = np.take_along_axis(order, np.argsort(-kept, axis=1), axis=1)
        self.scores, self.ids = np.take_along_axis(scores, order, axis=1), np.take_along_axis(every, order, axis=1)


def timed(call, *args, **kwargs):
    start = time.process_time()
    call(*args, **kwargs)
    return time.process_time() - start


def stream(k, m, n, batch, sparse, seed=0):
    """One thread each, processor time; exchangeable normal values."""
    rng = np.random.default_rng(seed)
    ours, loops = TopM(k, m), [loop(k, m) for loop in ([TorchLoop] if torch else []) + [NumpyLoop]]
    spent, cold, reads = 0.0, [], []
    theirs = {loop.name: [] for loop in loops}
    evict = np.ones(32 << 20, np.float32)             # larger than any cache: what is timed behind it comes from memory
    for number in range(n // batch):
        values, ids = rng.standard_normal((batch, k), dtype=np.float32), np.arange(number * batch, (number + 1) * batch)
        late = number >= n // batch - LATE
        if late:
            evict.max()
        last = timed(ours.update, values, ids, n_threads=1)
        spent += last
        if late:
            cold.append(last)
            evict.max()
            reads.append(timed(values.max))
        if number % sparse == 0:
            for loop in loops:
                theirs[loop.name].append(timed(loop.update, values, ids))
    spent += timed(ours.flush, n_threads=1)
    result = {"components": k, "m": m, "samples": n, "batch": batch, "seconds": spent, "mean_gbytes_per_second": n * k * 4 / spent / 1e9,
              "late_gbytes_per_second": values.nbytes / float(np.median(cold)) / 1e9,
              "read_gbytes_per_second": values.nbytes / float(np.median(reads)) / 1e9}
    result["late_share_of_read"] = result["late_gbytes_per_second"] / result["read_gbytes_per_second"]
    for name, times in theirs.items():
        result[f"{name}_ms_per_batch"] = 1e3 * float(np.median(times))
        result[f"{name}_ratio"] = float(np.median(times)) * (n // batch) / spent
    return result


def overhead(n=192, repeats=5):
    """Collecting from two layers of a small network over the bare forward pass on the same pictures, decoding included in both."""
    rng = np.random.default_rng(0)
    nodes, params, channels = [], {}, 3
    for i, (width, stride) in enumerate([(32, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)]):
        params[f"w{i}"] = (rng.standard_normal((width, channels, 3, 3)) * np.sqrt(2 / (9 * channels))).astype(np.float32)
        nodes += [Node(f"conv{i}", "conv2d", (nodes[-1].name if nodes else "input",), {"weight": f"w{i}"},
                       {"stride": [stride, stride], "padding": [1, 1, 1, 1]}), Node(f"relu{i}", "relu", (f"conv{i}",), {}, {})]
        channels = width
    net = Network(nodes, params, input_shape=(3, 96, 96), name="bench", preprocess=Preprocess(size=(96, 96), resize="stretch"))
    images = ImageArray(rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8), labels=rng.integers(0, 10, n), name="noise")
    layers = ["relu3", "relu5"]

    def forward():
        for _, x in batches(images, net.preprocess, batch_size=32):
            net.run(x, record=layers)

    def collect():
        sl.collect(net, images, layers=layers, top=20)

    import warnings
    warnings.simplefilter("ignore")
    images.fingerprint  # noqa: B018  computed once per data set, not once per pass
    times = {"forward": [], "collect": []}
    for _ in range(repeats + 1):
        times["forward"].append(timed(forward))
        times["collect"].append(timed(collect))
    bare, whole = (float(np.median(times[name][1:])) for name in ("forward", "collect"))
    return {"pictures": n, "forward_seconds": bare, "collect_seconds": whole, "overhead_percent": 100 * (whole / bare - 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short stream, nothing recorded")
    quick = parser.parse_args().quick
    if torch:
        torch.set_num_threads(1)
    results = {"limits": limits(1), "streams": []}
    for k, m, n, sparse in [(30_000, 100, 1_280 if quick else 49_984, 5 if quick else 60), (2_048, 20, 4_992 if quick else 49_984, 10)]:
        result = stream(k, m, n, 64, sparse)
        results["streams"].append(result)
        ratios = ", ".join(f"{result[f'{name}_ratio']:.1f} x {name}" for name in ("torch", "numpy") if f"{name}_ratio" in result)
        print(f"top-m, {k} components, m = {m}, {n} samples: {result['seconds']:.2f} s, {ratios}; late batches "
              f"{result['late_gbytes_per_second']:.1f} GB/s = {100 * result['late_share_of_read']:.0f} % of reading them")
    results["overhead"] = overhead()
    print(f"collect over the forward pass of {results['overhead']['pictures']} pictures: {results['overhead']['overhead_percent']:+.1f} %")
    if not quick:
        record("collect", results)


if __name__ == "__main__":
    main()
