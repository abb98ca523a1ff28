"""A small vision transformer for digits (6 blocks, 16 patches and a class token of 64 numbers), described node by node for the engine."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from semanticlens import data, nn

BLOCKS, HEADS, PATCH, SIDE, DIM = 6, 8, 7, 4, 64
LAYERS = [f"blocks.{b}" for b in range(BLOCKS)]


def digits(folder: Path, n: int) -> data.ImageArray:
    """The first ``n`` test digits of the data folder, with their labels."""
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8)[16:].reshape(-1, 28, 28)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8)[8:]
    names = [str(k) for k in range(10)]
    return data.ImageArray(pixels[:n], labels=labels[:n].astype(np.int64), class_names=names, name="MNIST test")


class Nodes(list[nn.Node]):
    """Nodes in the order in which they are added."""

    def op(self, name: str, op: str, inputs: str | tuple[str, ...], params: dict[str, str] | None = None, **attrs: object) -> str:
        sources = (inputs,) if isinstance(inputs, str) else inputs
        self.append(nn.Node(name, op, sources, params or {}, attrs))
        return name

    def dense(self, name: str, x: str, bias: bool = True) -> str:
        return self.op(name, "dense", x, {role: f"{name}.{role}" for role in ("weight", "bias")[: 1 + bias]})

    def norm(self, name: str, x: str) -> str:
        return self.op(name, "layer_norm", x, {role: f"{name}.{role}" for role in ("weight", "bias")}, eps=1e-5)


def attention(nodes: Nodes, at: str, x: str) -> str:
    """Eight heads; their scores are scaled by the root of all 64 features, not of a head's 8: so the network was trained."""
    fused, parts = nodes.dense(f"{at}.qkv", x, bias=False), []
    for n, part in enumerate("qkv"):
        piece = nodes.op(f"{at}.{part}.part", "slice", fused, axis=2, start=n * DIM, stop=(n + 1) * DIM)
        piece = nodes.op(f"{at}.{part}.split", "reshape", piece, shape=(-1, HEADS, DIM // HEADS))
        parts.append(nodes.op(f"{at}.{part}", "permute", piece, axes=(2, 1, 3)))
    mixed = nodes.op(f"{at}.attention", "attention", tuple(parts), scale=DIM**-0.5)
    turned = nodes.op(f"{at}.turned", "permute", mixed, axes=(2, 1, 3))
    return nodes.dense(f"{at}.proj", nodes.op(f"{at}.joined", "reshape", turned, shape=(-1, DIM)))


def network(path: Path) -> nn.Network:
    """The network of the data folder; ``blocks.0`` to ``blocks.5`` are the tokens (B, 17, 64) after every block."""
    with np.load(path) as file:
        params = {name: file[name] for name in file.files}
    params["patch_embed.weight"] = params["patch_embed.weight"].reshape(DIM, 1, PATCH, PATCH)
    params["cls_token"], params["pos_embed"] = params["cls_token"].reshape(1, DIM), params["pos_embed"].reshape(-1, DIM)
    nodes = Nodes()
    weights = {role: f"patch_embed.{role}" for role in ("weight", "bias")}
    x = nodes.op("patch_embed", "conv2d", "input", weights, stride=(PATCH, PATCH), padding=(0, 0, 0, 0), groups=1)
    x = nodes.op("patches", "permute", nodes.op("flat", "reshape", x, shape=(DIM, SIDE * SIDE)), axes=(2, 1))
    x = nodes.op("tokens", "concat", (nodes.op("class", "constant", x, {"value": "cls_token"}), x), axis=1)
    x = nodes.op("embedding", "scale_shift", x, {"shift": "pos_embed"})
    for at in LAYERS:
        x = nodes.op(f"{at}.middle", "add", (x, attention(nodes, at, nodes.norm(f"{at}.ln1", x))))
        h = nodes.op(f"{at}.act", "gelu", nodes.dense(f"{at}.fc1", nodes.norm(f"{at}.ln2", x)))
        x = nodes.op(at, "add", (x, nodes.dense(f"{at}.fc2", h)))
    x = nodes.dense("head.fc1", nodes.op("first", "select", x, axis=1, index=0))
    nodes.dense("head.fc2", nodes.op("head.act", "gelu", x))
    size = SIDE * PATCH
    seen = nn.Preprocess(size=(size, size), resize="none", mode="L", mean=(0.1307,), std=(0.3081,))
    return nn.Network(nodes, params, input_shape=(1, size, size), name="ViT4MNIST", preprocess=seen)
