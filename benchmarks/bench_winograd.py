"""Convolutions of 3 x 3 by tiles and by patches: time against torch, error against float64, on the layers of VGG-16 and ResNet-50.

    python benchmarks/bench_winograd.py [--batch 1] [--repeats 9]

Inputs are what a layer sees: max(., 0) of normal numbers, weights of He's scale.  Errors are measured against sum |w x| of each output,
on up to 16 outputs of one picture.  ``larger_tiles`` is what F(4 x 4, 3 x 3) (points 0, 1, -1, 1/2, -2, its best) would do to the error.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from common import compare, limits, ratio, record
from torch.nn import functional as F

from semanticlens._kernels import nn, winograd
from semanticlens._reference import nn as twin

LAYERS = [(64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56), (256, 256, 56), (256, 512, 28), (512, 512, 28), (512, 512, 14),
          (64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7)]
PADDING = (1, 1, 1, 1)
POINTS = [0, 1, -1, 0.5, -2]


def matrices_of_larger_tiles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B^T, G, A^T of F(4 x 4, 3 x 3) by Toom and Cook: values at the points, interpolated."""
    others = [[q for q in POINTS if q != p] for p in POINTS]
    b = np.array([*(np.append(np.poly(rest)[::-1], 0) for rest in others), np.poly(POINTS)[::-1]])
    g = np.array([*([p**k / np.prod([p - q for q in rest]) for k in range(3)] for p, rest in zip(POINTS, others, strict=True)), [0, 0, 1]])
    a = np.array([[*(p**k for p in POINTS), float(k == 3)] for k in range(4)])
    return b, g, a


def in_float32(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """matrix x matrix^T over the first two axes, every step rounded to float32."""
    matrix = matrix.astype(np.float32)

    def once(x: np.ndarray) -> np.ndarray:
        rows = []
        for line in matrix:
            total = np.zeros(x.shape[1:], np.float32)
            for factor, row in zip(line, x, strict=True):
                total = total + factor * row
            rows.append(total)
        return np.stack(rows)

    return once(once(x).swapaxes(0, 1)).swapaxes(0, 1)


def larger_tiles(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """One picture (C, H, W) by tiles of 4 x 4 outputs, without padding; H and W leave multiples of 4 when 2 is taken away."""
    b, g, a = matrices_of_larger_tiles()
    tiles = np.lib.stride_tricks.sliding_window_view(x, (6, 6), (1, 2))[:, ::4, ::4]
    values = in_float32(b, np.ascontiguousarray(tiles.transpose(3, 4, 0, 1, 2)))
    weights = np.einsum("ui,ocij,vj->uvoc", g, weight.astype(np.float64), g).astype(np.float32)
    products = np.zeros((6, 6, len(weight), *values.shape[3:]), np.float32)
    for start in range(0, len(x), 128):
        total = np.zeros_like(products)
        for c in range(start, min(start + 128, len(x))):
            total += weights[:, :, :, c, None, None] * values[:, :, None, c]
        products += total
    y = in_float32(a, products).transpose(2, 3, 0, 4, 1)
    return y.reshape(len(weight), 4 * tiles.shape[1], 4 * tiles.shape[2])


def errors(channels: int, size: int) -> dict[str, list[float]]:
    """[root mean square, largest] error over sum |w x|."""
    rng = np.random.default_rng(0)
    size = min(size, 28) // 4 * 4 + 2
    x = np.maximum(rng.standard_normal((1, channels, size, size)), 0).astype(np.float32)
    weight = (rng.standard_normal((16, channels, 3, 3)) / np.sqrt(4.5 * channels)).astype(np.float32)
    wide = x.astype(np.float64), weight.astype(np.float64)
    expected, scale = twin.conv2d(*wide), twin.conv2d(wide[0], np.abs(wide[1]))
    found = {
        "patches": nn.conv2d(x, weight), "tiles": nn.conv2d(x, weight, packed=winograd.pack(weight)),
        "torch": F.conv2d(torch.from_numpy(x), torch.from_numpy(weight)).numpy(), "larger_tiles": larger_tiles(x[0], weight)[None],
    }
    relative = {name: np.abs(y - expected) / scale for name, y in found.items()}
    return {name: [float(np.sqrt(np.mean(e**2))), float(e.max())] for name, e in relative.items()}


def measure(batch: int, channels: int, outputs: int, size: int, repeats: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    x = np.maximum(rng.standard_normal((batch, channels, size, size)), 0).astype(np.float32)
    weight = (rng.standard_normal((outputs, channels, 3, 3)) / np.sqrt(4.5 * channels)).astype(np.float32)
    out = np.empty((batch, outputs, size, size), np.float32)
    packed = {"patches": nn.pack_conv2d(weight), "tiles": winograd.pack(weight)}
    tensors = torch.from_numpy(x), torch.from_numpy(weight)
    options: dict[str, Any] = {"padding": PADDING, "activation": "relu", "out": out, "n_threads": 1}
    calls: dict[str, Any] = {name: lambda form=form: nn.conv2d(x, weight, packed=form, **options) for name, form in packed.items()}
    calls["torch"] = lambda: F.relu(F.conv2d(*tensors, padding=1))
    with torch.inference_mode():
        times = compare(calls, repeats=repeats, warmup=2, clock="cpu")
    gflops = 18e-9 * batch * channels * outputs * size * size / times["tiles"]["seconds"]
    row = {"batch": batch, "channels": channels, "outputs": outputs, "size": size, "times": times, "gflops": gflops,
           "of_torch": ratio(times, "tiles", "torch"), "of_patches": ratio(times, "tiles", "patches"), "errors": errors(channels, size)}
    rates = "  ".join(f"{name} {rms:.1e}/{most:.1e}" for name, (rms, most) in row["errors"].items())
    print(f"{batch} x {channels:3d} -> {outputs:3d}, {size:3d}^2: tiles {times['tiles']['seconds'] * 1e3:7.2f} ms ({gflops:.0f} GFLOP/s "
          f"counted as patches), of patches {row['of_patches']:.2f}, of torch {row['of_torch']:.2f}; errors {rates}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(given.batch, *layer, given.repeats) for layer in LAYERS]
    if not given.no_record:
        record("winograd", rows, limits={1: limits(1)}, note="one thread; errors: [root mean square, largest] of sum |w x|")


if __name__ == "__main__":
    main()
