"""What the tests of relevance propagation share: single layers, rules with their numbers, small networks."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np

import semanticlens as sl
from semanticlens import rules
from semanticlens._reference import relevance as twin
from semanticlens.attribution import Composite
from semanticlens.attribution.composites import Entry
from semanticlens.nn import Network, Node

# name -> outputs, channels, kernel, attributes
FORMS: dict[str, tuple[int, int, tuple[int, int], dict[str, Any]]] = {
    "2 x 2, one channel": (3, 1, (2, 2), {}),
    "3 x 3, one channel": (1, 1, (3, 3), {}),
    "2 x 2, three channels": (1, 3, (2, 2), {}),
    "3 x 3": (4, 3, (3, 3), {}),
    "1 x 1": (5, 4, (1, 1), {}),
    "padded": (4, 3, (3, 3), {"padding": [1, 1, 1, 1]}),
    "padded unevenly": (4, 3, (3, 2), {"padding": [2, 0, 1, 3]}),
    "strided": (4, 3, (3, 3), {"stride": [2, 2], "padding": [1, 1, 1, 1]}),
    "strided unevenly": (4, 3, (2, 3), {"stride": [1, 3]}),
    "1 x 1, strided": (4, 4, (1, 1), {"stride": [2, 2]}),
    "dilated": (4, 3, (2, 2), {"dilation": [2, 3]}),
    "strided and dilated": (4, 3, (3, 2), {"stride": [2, 1], "dilation": [2, 2], "padding": [2, 1, 2, 1]}),
    "grouped": (6, 4, (3, 3), {"groups": 2, "padding": [1, 1, 1, 1]}),
    "grouped, strided": (4, 6, (3, 3), {"groups": 2, "stride": [2, 2]}),
    "depthwise": (4, 4, (3, 3), {"groups": 4, "padding": [1, 1, 1, 1]}),
    "depthwise, strided": (8, 4, (3, 3), {"groups": 4, "stride": [2, 2], "padding": [1, 1, 1, 1]}),
    "dense": (15, 16, (0, 0), {}),
}
SIZE, BATCH = (7, 6), 2


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@lru_cache(maxsize=128)
def single(form: str, bias: bool, seed: int = 0) -> Network:
    """A network of one linear layer "y"."""
    outputs, channels, kernel, attrs = FORMS[form]
    rng = np.random.default_rng([seed, len(form)])
    shape = (outputs, channels) if form == "dense" else (outputs, channels // attrs.get("groups", 1), *kernel)
    params = {"w": draw(rng, *shape), **({"b": draw(rng, outputs)} if bias else {})}
    roles = {"weight": "w", **({"bias": "b"} if bias else {})}
    node = Node("y", "dense" if form == "dense" else "conv2d", params=roles, attrs=attrs)
    return Network([node], params, input_shape=(channels,) if form == "dense" else (channels, *SIZE))


def everywhere(*lines: rules.Rule, **by_type: rules.Rule) -> Composite:
    """One rule at all nodes, or rules by type."""
    entries = [Entry(rule, frozenset({op}), said=op) for op, rule in by_type.items()]
    return Composite("test", (*entries, *(Entry(rule, said="everywhere") for rule in lines)))


@lru_cache(maxsize=128)
def matrix_of(net: Network, node: str = "y") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A layer's matrix (O, I), which places it joins, its bias (O,), in float64."""
    item = next(item for item in net._graph if item.node.name == node)
    weight = net.params[item.node.params["weight"]].astype(np.float64)
    given = (
        net.params[item.node.params["bias"]].astype(np.float64) if "bias" in item.node.params else np.zeros(len(weight))
    )
    if item.op.name == "dense":
        where, places = twin.dense_connections(weight), 1
    else:
        attrs = {key: tuple(item.attrs[key]) for key in ("stride", "padding", "dilation")}
        where = twin.connections(weight, SIZE, groups=item.attrs["groups"], **attrs)
        places = int(np.prod(item.shape[1:]))
    joined = where >= 0
    return np.where(joined, weight.ravel()[where], 0.0), joined, np.repeat(given, places)


def numbers_of(rule: rules.Rule, x: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """A rule's numbers as the twin takes them, and its stabiliser's; bounds as (B, I)."""
    numbers = {
        key: getattr(rule, key) for key in (item.name for item in fields(rule)) if key not in ("epsilon", "stabiliser")
    }
    for key in ("low", "high"):
        if key in numbers:
            numbers[key] = np.broadcast_to(numbers[key], x.shape).reshape(len(x), -1)
    return numbers, {"eps": rule.st.eps, "clip": rule.st.clip, "norm_scale": rule.st.norm_scale}


def of_sample(numbers: dict[str, Any], i: int) -> dict[str, Any]:
    return {key: value[i] if key in ("low", "high") else value for key, value in numbers.items()}


def of_twin(net: Network, rule: rules.Rule, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """What the slow form gives for a batch."""
    m, joined, b = matrix_of(net)
    numbers, stabiliser = numbers_of(rule, x)
    name, flat, given = (
        type(rule).__name__,
        x.astype(np.float64).reshape(len(x), -1),
        r.astype(np.float64).reshape(len(r), -1),
    )
    rows = [
        twin.layer(name, m, joined, b, flat[i], given[i], **stabiliser, **of_sample(numbers, i)) for i in range(len(x))
    ]
    return np.stack(rows).reshape(x.shape)


def condition_of(net: Network, rule: rules.Rule, x: np.ndarray) -> np.ndarray:
    """How much of its terms each result's denominator is, in the shape of the result."""
    m, joined, b = matrix_of(net)
    numbers, _ = numbers_of(rule, x)
    flat = x.astype(np.float64).reshape(len(x), -1)
    rows = [twin.condition(type(rule).__name__, m, joined, b, flat[i], **of_sample(numbers, i)) for i in range(len(x))]
    return np.stack(rows).reshape(len(x), *net.output_shape)


def relevance(net: Network, rule: rules.Rule | Composite, x: np.ndarray, r: np.ndarray, **options: Any) -> np.ndarray:
    """Relevance of the input for relevance ``r`` of the output."""
    composite = rule if isinstance(rule, Composite) else everywhere(rule)
    return sl.attribute(net, x, r, composite=composite, **options).input


def resnet_like(seed: int = 0, size: int = 12, scale: float = 1.0) -> Network:
    """Convolution, two residual blocks (one with a strided shortcut), unfolded batch normalisation, pooling, a head."""
    rng = np.random.default_rng(seed)
    params: dict[str, np.ndarray] = {}
    nodes: list[Node] = []

    def conv(name: str, source: str, outputs: int, channels: int, kernel: int, stride: int = 1) -> str:
        params[f"{name}.w"] = draw(rng, outputs, channels, kernel, kernel) * np.float32(
            scale / np.sqrt(channels * kernel * kernel)
        )
        params[f"{name}.b"] = draw(rng, outputs) * np.float32(0.1)
        pad = kernel // 2
        roles = {"weight": f"{name}.w", "bias": f"{name}.b"}
        nodes.append(Node(name, "conv2d", source, roles, {"stride": [stride, stride], "padding": [pad] * 4}))
        return name

    def add(name: str, op: str, *sources: str, **attrs: Any) -> str:
        nodes.append(Node(name, op, sources, attrs=attrs))
        return name

    x = add("relu0", "relu", conv("conv0", "input", 6, 3, 3))
    x = add("pool", "max_pool2d", x, kernel=[3, 3], stride=[2, 2], padding=[1, 1, 1, 1])
    inner = conv("b1.conv2", add("b1.relu1", "relu", conv("b1.conv1", x, 6, 6, 3)), 6, 6, 3)
    x = add("b1.relu2", "relu", add("b1.sum", "add", inner, x))
    inner = conv("b2.conv2", add("b2.relu1", "relu", conv("b2.conv1", x, 8, 6, 3, 2)), 8, 8, 3)
    x = add("b2.relu2", "relu", add("b2.sum", "add", inner, conv("b2.short", x, 8, 6, 1, 2)))
    params |= {
        "bn.mean": draw(rng, 8),
        "bn.var": np.abs(draw(rng, 8)) + np.float32(0.5),
        "bn.weight": draw(rng, 8),
        "bn.bias": draw(rng, 8),
    }
    nodes.append(Node("bn", "batch_norm", x, {role: f"bn.{role}" for role in ("mean", "var", "weight", "bias")}))
    x = add("mean", "mean", add("relu3", "relu", "bn"), axes=[2, 3])
    params |= {"fc.w": draw(rng, 5, 8), "fc.b": draw(rng, 5)}
    nodes.append(Node("fc", "dense", x, {"weight": "fc.w", "bias": "fc.b"}))
    return Network(nodes, params, input_shape=(3, size, size))
