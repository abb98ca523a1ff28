"""Networks for the tests: random small graphs over the whole table of operations, and their values computed the plain way.

``evaluate`` shares no code with the engine but the NumPy twins: it walks the nodes in order, keeps every value, merges nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from semanticlens._reference import nn as twin
from semanticlens.nn import Network, Node, Preprocess

IMAGE = (3, 13, 11)


def values(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def evaluate(net: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every value of a network, by name."""
    known = {"input": x}
    for node in net.nodes:
        known[node.name] = evaluate_node(
            node, [known[name] for name in node.inputs], {role: net.params[key] for role, key in node.params.items()}
        )
    return known


def evaluate_node(node: Node, xs: list[np.ndarray], p: dict[str, np.ndarray]) -> np.ndarray:
    a: dict[str, Any] = dict(node.attrs)
    x = xs[0]
    if node.op in ("conv2d", "max_pool2d", "avg_pool2d"):
        kernel = tuple(p["weight"].shape[2:]) if node.op == "conv2d" else tuple(a["kernel"])
        stride, dilation = tuple(a.get("stride", (1, 1))), tuple(a.get("dilation", (1, 1)))
        padding = a.get("padding", (0, 0, 0, 0))
        if padding == "same":
            (top, bottom), (left, right) = (
                same_padding(*of) for of in zip(x.shape[2:], kernel, stride, dilation, strict=True)
            )
            padding = (top, left, bottom, right)
        if node.op == "conv2d":
            return twin.conv2d(
                x,
                p["weight"],
                p.get("bias"),
                stride=stride,
                padding=tuple(padding),
                dilation=dilation,
                groups=a.get("groups", 1),
            )
        return twin.pool2d(
            x,
            "max" if node.op == "max_pool2d" else "mean",
            kernel,
            stride=stride,
            padding=tuple(padding),
            dilation=dilation,
            ceil_mode=a.get("ceil_mode", False),
            count_include_pad=a.get("count_include_pad", True),
        )
    if node.op == "batch_norm":
        shape = (1, -1, *[1] * (x.ndim - 2))
        y = (x.astype(np.float64) - p["mean"].reshape(shape)) / np.sqrt(
            p["var"].astype(np.float64).reshape(shape) + a.get("eps", 1e-5)
        )
        return (
            y * p.get("weight", np.float32(1)).reshape(shape if "weight" in p else ())
            + (p["bias"].reshape(shape) if "bias" in p else 0)
        ).astype(np.float32)
    if node.op in twin.ACTIVATIONS:
        return twin.activate(x, node.op)
    plain = {
        "dense": lambda: twin.dense(x, p["weight"], p.get("bias")),
        "softmax": lambda: twin.softmax(x),
        "identity": lambda: x,
        "adaptive_avg_pool2d": lambda: twin.adaptive_avg_pool2d(x, tuple(a["size"])),
        "mean": lambda: x.mean(axis=tuple(a["axes"]), keepdims=a.get("keepdims", False), dtype=np.float64).astype(
            np.float32
        ),
        "add": lambda: x + xs[1],
        "mul": lambda: x * xs[1],
        "concat": lambda: np.concatenate(xs, axis=a.get("axis", 1)),
        "flatten": lambda: x.reshape(*x.shape[: a.get("start", 1)], -1),
        "reshape": lambda: x.reshape(len(x), *a["shape"]),
        "slice2d": lambda: x[:, :, :: a["stride"][0], :: a["stride"][1]],
        "pad": lambda: pad(x, a),
    }
    return plain[node.op]()


def pad(x: np.ndarray, a: dict[str, Any]) -> np.ndarray:
    top, left, bottom, right = a.get("padding", (0, 0, 0, 0))
    return np.pad(
        x, ((0, 0), tuple(a.get("channels", (0, 0))), (top, bottom), (left, right)), constant_values=a.get("value", 0.0)
    )


class Grower:
    """Grows a random graph node by node; every operation of the table can occur."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.params: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {"input": IMAGE}

    def emit(self, op: str, inputs: list[str], params: dict[str, np.ndarray] | None = None, **attrs: Any) -> str:
        name = f"n{len(self.nodes)}.{op}"
        keys = {}
        for role, array in (params or {}).items():
            keys[role] = f"{name}.{role}"
            self.params[keys[role]] = array
        node = Node(name, op, tuple(inputs), keys, attrs)
        self.nodes.append(node)
        zeros = [np.zeros((1, *self.shapes[source]), np.float32) for source in inputs]
        self.shapes[name] = evaluate_node(node, zeros, params or {}).shape[1:]
        return name

    def pick(self, rank: int | None = None) -> str:
        names = [name for name, shape in self.shapes.items() if rank is None or len(shape) == rank]
        return (
            names[int(self.rng.integers(max(0, len(names) - 4), len(names)))]
            if self.rng.random() < 0.8
            else str(self.rng.choice(names))
        )

    def step(self) -> None:
        r = self.rng
        op = str(
            r.choice(
                [
                    "conv",
                    "conv",
                    "conv",
                    "act",
                    "act",
                    "act",
                    "bn",
                    "pool",
                    "add",
                    "add",
                    "mul",
                    "concat",
                    "view",
                    "slice",
                    "pad",
                    "mean",
                    "flat",
                ]
            )
        )
        x = self.pick(3)
        C, H, W = self.shapes[x]
        if op == "conv":
            depthwise = r.random() < 0.3
            kh, kw = int(r.integers(1, min(4, H + 1))), int(r.integers(1, min(4, W + 1)))
            out = C if depthwise or r.random() < 0.5 else int(r.integers(1, 9))
            weight = values(r, out, 1 if depthwise else C, kh, kw) / np.float32(
                math.sqrt(kh * kw * (1 if depthwise else C))
            )
            padding: Any = "same" if r.random() < 0.5 else [int(n) for n in r.integers(0, 3, 4)]
            self.emit(
                "conv2d",
                [x],
                {"weight": weight, **({"bias": values(r, out)} if r.random() < 0.5 else {})},
                padding=padding,
                stride=[int(n) for n in r.integers(1, 3 if min(H, W) > 5 else 2, 2)],
                groups=C if depthwise else 1,
            )
        elif op == "act":
            self.emit(str(r.choice(["relu", "relu6", "sigmoid", "silu", "hardsigmoid", "hardswish"])), [self.pick()])
        elif op == "bn":
            self.emit(
                "batch_norm",
                [x],
                {
                    "mean": values(r, C),
                    "var": np.abs(values(r, C)) + np.float32(0.5),
                    "weight": values(r, C),
                    "bias": values(r, C),
                },
            )
        elif op == "pool" and min(H, W) >= 3:
            self.emit(
                str(r.choice(["max_pool2d", "avg_pool2d"])),
                [x],
                kernel=[3, 2],
                stride=[int(r.integers(1, 3)), 1],
                padding=[1, 0, 1, 1],
                ceil_mode=bool(r.random() < 0.5),
            )
        elif op in ("add", "mul"):
            same = [name for name, shape in self.shapes.items() if shape == (C, H, W)]
            if op == "mul" and r.random() < 0.5:
                scale = self.emit("adaptive_avg_pool2d", [x], size=[1, 1])
                self.emit("mul", [scale, x] if r.random() < 0.5 else [x, scale])
            else:
                self.emit(op, [x, str(r.choice(same))])
        elif op == "concat":
            self.emit(
                "concat",
                [name for name, shape in self.shapes.items() if len(shape) == 3 and shape[1:] == (H, W)][-3:],
                axis=1,
            )
        elif op == "view":
            if r.random() < 0.5:
                self.emit("identity", [self.pick()])
            else:
                self.emit("reshape", [x], shape=[C, W, H])
        elif op == "slice" and min(H, W) >= 4:
            self.emit("slice2d", [x], stride=[2, int(r.integers(1, 3))])
        elif op == "pad" and C < 16:
            self.emit(
                "pad",
                [x],
                padding=[int(n) for n in r.integers(0, 2, 4)],
                channels=[int(n) for n in r.integers(0, 2, 2)],
                value=float(r.integers(0, 2)),
            )
        elif op == "mean":
            self.emit("mean", [x], axes=[2, 3] if r.random() < 0.7 else [1], keepdims=True)
        elif op == "flat":
            self.tail(x)

    def tail(self, x: str) -> str:
        flat = self.emit("flatten", [x], start=1) if self.rng.random() < 0.7 else self.emit("mean", [x], axes=[2, 3])
        size = self.shapes[flat][0]
        dense = self.emit(
            "dense",
            [flat],
            {"weight": values(self.rng, 5, size) / np.float32(math.sqrt(size)), "bias": values(self.rng, 5)},
        )
        return self.emit("softmax", [dense]) if self.rng.random() < 0.3 else dense


def random_network(seed: int, steps: int = 14) -> Network:
    grower = Grower(seed)
    while len(grower.nodes) < steps:
        grower.step()
    output = grower.tail(grower.pick(3))
    return Network(grower.nodes, grower.params, input_shape=IMAGE, output=output, name=f"random {seed}")


def tiny_network(**options: Any) -> Network:
    """Convolution, batch normalisation, ReLU, a residual block, pooling, a classifier: the everyday case, by hand."""
    r = np.random.default_rng(7)
    nodes = [
        Node("conv1", "conv2d", "input", {"weight": "conv1.weight"}, {"stride": [2, 2], "padding": [1, 1, 1, 1]}),
        Node("bn1", "batch_norm", "conv1", {role: f"bn1.{role}" for role in ("mean", "var", "weight", "bias")}),
        Node("relu1", "relu", "bn1"),
        Node("conv2", "conv2d", "relu1", {"weight": "conv2.weight", "bias": "conv2.bias"}, {"padding": "same"}),
        Node("add", "add", ("conv2", "relu1")),
        Node("relu2", "relu", "add"),
        Node("pool", "adaptive_avg_pool2d", "relu2", attrs={"size": [1, 1]}),
        Node("flatten", "flatten", "pool"),
        Node("fc", "dense", "flatten", {"weight": "fc.weight", "bias": "fc.bias"}),
    ]
    params = {
        "conv1.weight": values(r, 6, 3, 3, 3) / 5,
        "bn1.mean": values(r, 6),
        "bn1.var": np.abs(values(r, 6)) + np.float32(0.1),
        "bn1.weight": values(r, 6),
        "bn1.bias": values(r, 6),
        "conv2.weight": values(r, 6, 6, 3, 3) / 7,
        "conv2.bias": values(r, 6),
        "fc.weight": values(r, 4, 6),
        "fc.bias": values(r, 4),
    }
    options = {
        "name": "tiny",
        "aliases": {"block": "relu2", "stem": "relu1"},
        "labels": ["a", "b", "c", "d"],
        "preprocess": Preprocess(size=IMAGE[1:], mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
        **options,
    }
    return Network(
        options.pop("nodes", nodes),
        {**params, **options.pop("params", {})},
        input_shape=options.pop("input_shape", IMAGE),
        **options,
    )
