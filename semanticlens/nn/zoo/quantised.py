"""Quantised weights with a graph beside them: ``name.npz`` and ``name.json``, for networks converted from TensorFlow Lite.

The archive holds for each node with weights

    NODE.q      int8 or uint8, (outputs, inputs / groups, height, width) or (outputs, inputs)
    NODE.scale  float32, one number or one for each output
    NODE.zp     integer zero point, one number or one for each output
    NODE.bias   float32, (outputs,)

and the weight is ``(q - zp) * scale``. The JSON file is an object with

    nodes       list in order, each with name, op, inputs ("input" is the picture); ops: conv, dwconv (stride, pad "same" or a number,
                groups, act), fc (act), add, gap (mean over all places); act: "none" or "relu6" or "relu"
    output      name of the last node
    resolution  height and width of the picture
    input       "... RGB, x/127.5-1"; or preprocess, as Preprocess.to_dict gives it
    classes     number of outputs
    labels      optional: a list of names, or the name of a text file beside with one per line

Values keep the graph's names: ``NODE`` is the value after its activation, ``NODE.pre`` the one before. A MobileNetV2 also answers to the
names of torchvision's blocks, ``features.0`` to ``features.18``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens.nn.network import Network, Node
from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.zoo.builder import State

NAME = "quantised"
ROLES = ("q", "scale", "zp", "bias")
ACTIVATIONS = ("none", "relu", "relu6")
MAX_JSON = 1 << 24


def looks_quantised(state: State) -> bool:
    """Whether all parameters are in groups of q, scale, zp and bias."""
    heads = {key.rpartition(".")[0] for key in state}
    return bool(state) and len(state) == len(ROLES) * len(heads) and all(f"{head}.{role}" in state for head in heads for role in ROLES)


def build(state: State, path: Path) -> Network:
    """The network of an archive, with the graph of the JSON file beside it.

    Raises
    ------
    ModelFileError
        If there is no such file, or graph and weights do not fit.
    UnsupportedOperationError
        If the graph has an operation that is not in the list above.
    """
    graph_path = path.with_suffix(".json")
    graph = _read_graph(graph_path, path)
    try:
        return _network(graph, state, path)
    except (ModelFileError, UnsupportedOperationError) as error:
        raise type(error)(f"{graph_path}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelFileError(f"{graph_path}: the graph is malformed: {type(error).__name__} {str(error)[:100]}") from None


def _read_graph(graph_path: Path, path: Path) -> dict[str, Any]:
    if not graph_path.is_file():
        raise ModelFileError(f"{path} holds quantised weights, whose graph is expected in {graph_path}, which is missing")
    if graph_path.stat().st_size > MAX_JSON:
        raise ModelFileError(f"{graph_path} is larger than {MAX_JSON:,} bytes")
    try:
        graph = json.loads(graph_path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{graph_path} is not valid JSON: {error}") from None
    if not isinstance(graph, dict) or not isinstance(graph.get("nodes"), list):
        raise ModelFileError(f"{graph_path}: not an object with a list of nodes")
    return graph


def _network(graph: Mapping[str, Any], state: State, path: Path) -> Network:
    nodes: list[Node] = []
    params: dict[str, NDArray[np.float32]] = {}
    ranks: dict[str, int] = {"input": 3}
    for item in graph["nodes"]:
        nodes.extend(_nodes(item, state, params, ranks))
    weights = {f"{key.rpartition('.')[0]}.{role}" for key in params for role in ROLES}
    extra = [key for key in state if key not in weights]
    if extra:
        raise ModelFileError(f"{len(extra)} arrays belong to no node: {', '.join(extra[:6])}")
    output = graph["output"]
    if ranks.get(output) == 3:                        # a classifier written as a 1x1 convolution
        nodes.append(Node("logits", "flatten", (output,), {}, {"start": 1}))
        output = "logits"
    resolution, classes = graph.get("resolution"), graph.get("classes")
    preprocess = _preprocess(graph)
    if type(resolution) is not int or preprocess.size != (resolution, resolution):
        raise ModelFileError(f"its resolution {resolution!r} is not that of its preprocessing")
    net = Network(nodes, params, input_shape=(3, resolution, resolution), output=output, name=path.stem, aliases=_block_names(nodes),
                  preprocess=preprocess, labels=_labels(graph, path))
    if classes is not None and net.output_shape != (classes,):
        raise ModelFileError(f"it declares {classes} classes, its output has shape {net.output_shape}")
    return net


def _nodes(item: Any, state: State, params: dict[str, NDArray[np.float32]], ranks: dict[str, int]) -> list[Node]:
    """The nodes of one entry; adds its parameters, and the rank of its value."""
    name, op, inputs = item["name"], item["op"], item["inputs"]
    if not isinstance(name, str) or not isinstance(inputs, list) or not all(isinstance(n, str) for n in inputs):
        raise ModelFileError(f"an entry has a malformed name or inputs: {str(item)[:80]}")
    for one in inputs:
        if one not in ranks:
            raise ModelFileError(f"node {name!r}: its input {one[:60]!r} is not an earlier node")
    ranks[name] = 1 if op in ("gap", "fc") else ranks[inputs[0]]
    if op == "add":
        return [Node(name, "add", tuple(inputs))]
    if op == "gap":
        return [Node(name, "mean", tuple(inputs), {}, {"axes": (2, 3), "keepdims": False})]
    if op not in ("conv", "dwconv", "fc"):
        raise UnsupportedOperationError(f"node {name!r}: operation {str(op)[:60]!r} is not one of conv, dwconv, fc, add, gap")
    weight, bias = _dequantised(name, state)
    act = item.get("act", "none")
    if act not in ACTIVATIONS:
        raise UnsupportedOperationError(f"node {name!r}: activation {str(act)[:60]!r} is not one of {', '.join(ACTIVATIONS)}")
    if ranks[inputs[0]] == 1 and weight.shape[2:] == (1, 1):
        weight, op = weight[:, :, 0, 0], "fc"         # behind the mean over all places, a 1x1 convolution is a dense layer
    if weight.ndim != (2 if op == "fc" else 4):
        raise ModelFileError(f"node {name!r} ({op}): its weight has shape {weight.shape}")
    ranks[name] = 1 if op == "fc" else 3
    params[f"{name}.weight"], params[f"{name}.bias"] = np.ascontiguousarray(weight), bias
    inner = name if act == "none" else f"{name}.pre"
    roles = {"weight": f"{name}.weight", "bias": f"{name}.bias"}
    first = Node(inner, "dense", tuple(inputs), roles) if op == "fc" else Node(inner, "conv2d", tuple(inputs), roles, _window(item, name))
    return [first] if act == "none" else [first, Node(name, act, (inner,))]


def _window(item: Mapping[str, Any], name: str) -> dict[str, Any]:
    stride, pad, groups = item.get("stride", 1), item.get("pad", "same"), item.get("groups", 1)
    if type(stride) is not int or type(groups) is not int or not (pad == "same" or type(pad) is int):
        raise ModelFileError(f"node {name!r}: stride, pad or groups is malformed")
    return {"stride": (stride, stride), "padding": pad if pad == "same" else (pad,) * 4, "groups": groups}


def _dequantised(name: str, state: State) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    missing = [f"{name}.{role}" for role in ROLES if f"{name}.{role}" not in state]
    if missing:
        raise ModelFileError(f"missing arrays: {', '.join(missing)}")
    q, scale, zp, bias = (state[f"{name}.{role}"] for role in ROLES)
    if q.dtype.kind not in "iu" or q.dtype.itemsize > 2 or q.ndim not in (2, 4) or zp.dtype.kind not in "iu" or scale.dtype.kind != "f":
        raise ModelFileError(f"node {name!r}: its weights must be small integers with integer zero points and floating point scales")
    if bias.dtype.kind != "f" or bias.shape != q.shape[:1] or scale.size not in (1, len(q)) or zp.size not in (1, len(q)):
        raise ModelFileError(f"node {name!r}: its bias {bias.shape}, scale {scale.shape} or zero point {zp.shape} do not fit "
                             f"its weight {q.shape}")
    column = (-1, *(1,) * (q.ndim - 1))
    weight = (q.astype(np.int32) - zp.astype(np.int32).reshape(column)) * scale.astype(np.float32).reshape(column)
    return weight.astype(np.float32), bias.astype(np.float32)


def _preprocess(graph: Mapping[str, Any]) -> Preprocess:
    if "preprocess" in graph:
        return Preprocess.from_dict(graph["preprocess"])
    text, size = str(graph.get("input", "")), graph.get("resolution")
    if not text.replace(" ", "").endswith("RGB,x/127.5-1") or type(size) is not int:
        raise ModelFileError(f"its input {text[:80]!r} is not understood; write the key preprocess instead")
    return Preprocess(size=(size, size), scale=1.0, mean=(127.5,) * 3, std=(127.5,) * 3)


def _labels(graph: Mapping[str, Any], path: Path) -> list[str] | None:
    """Class names from the graph, from the file it names, or for the 1001 classes of ImageNet from ``imagenet_labels.txt`` beside it."""
    named, classes = graph.get("labels"), graph.get("classes")
    if isinstance(named, list):
        return [str(label) for label in named]
    files = [named] if isinstance(named, str) and named.endswith(".txt") and Path(named).name == named else []
    if classes == 1001:
        files.append("imagenet_labels.txt")
    for name in files:
        file = path.parent / name
        if file.is_file():
            lines = file.read_text(encoding="utf-8").splitlines()
            if len(lines) == classes:
                return lines
    return None


def _block_names(nodes: list[Node]) -> dict[str, str]:
    """``features.i`` for a MobileNetV2: its stem, 17 blocks that end in a linear 1x1 convolution (or the sum behind it), its head."""
    sums = {node.inputs: node.name for node in nodes if node.op == "add"}
    linear = [node.name for node in nodes if node.op == "conv2d" and not node.name.endswith(".pre")]
    if len(linear) != 17:
        return {}
    ends = [next((total for inputs, total in sums.items() if name == _later(inputs, nodes)), name) for name in linear]
    order = [node.name for node in nodes]
    relus = [node.name for node in nodes if node.op == "relu6"]
    head = [name for name in relus if order.index(name) > order.index(ends[-1])]
    if not relus or len(head) != 1:
        return {}
    return {f"features.{i}": name for i, name in enumerate([relus[0], *ends, head[0]])}


def _later(inputs: tuple[str, ...], nodes: list[Node]) -> str:
    """The input that is computed last: the branch of a residual block, not its shortcut."""
    order = {node.name: i for i, node in enumerate(nodes)}
    return max(inputs, key=lambda name: order.get(name, -1))
