"""A small vision transformer for digits (6 blocks, 16 patches and a class token of 64 numbers) in NumPy: activations for any tool."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semanticlens import data

F32 = NDArray[np.float32]
BLOCKS, HEADS, PATCH, DIM = 6, 8, 7, 64
erf = np.frompyfunc(math.erf, 1, 1)


def digits(folder: Path, n: int) -> data.ImageArray:
    """The first ``n`` test digits of the data folder, with their labels."""
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8)[16:].reshape(-1, 28, 28)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8)[8:]
    names = [str(k) for k in range(10)]
    return data.ImageArray(pixels[:n], labels=labels[:n].astype(np.int64), class_names=names, name="MNIST test")


class ViT:
    """The network; ``run`` gives the tokens (B, 17, 64) after every block, and the logits."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.w = {name: file[name] for name in file.files}

    def _norm(self, x: F32, name: str) -> F32:
        x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def _linear(self, x: F32, name: str) -> F32:
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", np.float32(0))

    def _attention(self, x: F32, name: str) -> F32:
        q, k, v = self._linear(x, f"{name}.qkv").reshape(*x.shape[:2], 3, HEADS, -1).transpose(2, 0, 3, 1, 4)
        scores = q @ k.transpose(0, 1, 3, 2) * DIM**-0.5
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        return self._linear(mixed.transpose(0, 2, 1, 3).reshape(x.shape), f"{name}.proj")

    def run(self, images: NDArray[np.uint8]) -> tuple[dict[str, F32], F32]:
        x = ((images / 255 - 0.1307) / 0.3081).astype(np.float32)
        side = x.shape[1] // PATCH
        patches = x.reshape(-1, side, PATCH, side, PATCH).transpose(0, 1, 3, 2, 4).reshape(len(x), side * side, PATCH * PATCH)
        tokens = (
            np.concatenate([np.repeat(self.w["cls_token"], len(x), axis=0), self._linear(patches, "patch_embed")], axis=1)
            + self.w["pos_embed"]
        )
        found = {}
        for b in range(BLOCKS):
            tokens = tokens + self._attention(self._norm(tokens, f"blocks.{b}.ln1"), f"blocks.{b}")
            tokens = tokens + self._linear(gelu(self._linear(self._norm(tokens, f"blocks.{b}.ln2"), f"blocks.{b}.fc1")), f"blocks.{b}.fc2")
            found[f"blocks.{b}"] = np.ascontiguousarray(tokens, np.float32)
        names = sorted({name.rsplit(".", 1)[0] for name in self.w if name.startswith(("head", "mlp_head"))})
        return found, self._linear(gelu(self._linear(tokens[:, 0], names[0])), names[1])


def gelu(x: F32) -> F32:
    """x Φ(x), exact."""
    return (x * (0.5 + 0.5 * erf(x / math.sqrt(2)).astype(np.float64))).astype(np.float32)


def activations(net: ViT, images: data.ImageArray, batch_size: int = 250) -> Iterator[tuple[NDArray[np.int64], dict[str, F32]]]:
    """Batches of (ids, tokens after every block); prints the accuracy at the end."""
    hits = 0
    for start in range(0, len(images), batch_size):
        ids = np.arange(start, min(start + batch_size, len(images)))
        pixels = np.stack([np.asarray(images[int(i)].convert("L")) for i in ids])
        found, logits = net.run(pixels)
        hits += int((logits.argmax(axis=1) == images.labels[ids]).sum())
        yield ids, found
    print(f"{hits} of {len(images)} digits recognised", flush=True)
