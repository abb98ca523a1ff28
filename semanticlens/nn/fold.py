"""Batch normalisation folded into the convolution or dense layer before it: one pass over memory, the same function.

A value keeps its name: the merged node is called what the batch normalisation was called, because that is the value
it gives.  The name of the layer before it has no value any more; recording it is an error that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens.nn.network import Network, Node
from semanticlens.nn.ops import affine, lookup

__all__ = ["fold_batch_norm"]

F32 = NDArray[np.float32]


def fold_batch_norm(net: Network) -> Network:
    """Merge each batch normalisation into the conv2d or dense node it follows, where nothing else reads that node.

    With scale = weight / sqrt(var + eps) and shift = bias - mean * scale (in double): W'[o] = W[o] scale[o], b' = b
    scale + shift.

    Returns
    -------
    Network
        A new network, equal to the old one up to rounding; the same object if there is nothing to fold.
    """
    pairs = _pairs(net)
    if not pairs:
        return net
    params: dict[str, NDArray[Any]] = dict(net.params)
    nodes, moved = [], {}
    for node in net.nodes:
        if node.name in moved:
            continue
        if node.name in pairs.values():
            continue
        if node.name not in pairs:
            nodes.append(node)
            continue
        before = next(item for item in net.nodes if item.name == pairs[node.name])
        moved[before.name] = node.name
        nodes.append(_merged(before, node, net.params, params))
    used = {key for node in nodes for key in node.params.values()}
    aliases = {alias: target for alias, target in net.aliases.items() if target not in moved}
    folded = {name: moved.get(target, target) for name, target in net.folded.items()}
    folded.update(moved)
    folded.update({alias: moved[target] for alias, target in net.aliases.items() if target in moved})
    return Network(
        nodes,
        {key: array for key, array in params.items() if key in used},
        input_shape=net.input_shape,
        output=net.output,
        name=net.name,
        aliases=aliases,
        preprocess=net.preprocess,
        labels=net.labels,
        folded=folded,
        allow_nonfinite=net._allow_nonfinite,
    )


def _pairs(net: Network) -> dict[str, str]:
    """Batch normalisation -> the layer it can be folded into."""
    by_name = {node.name: node for node in net.nodes}
    uses: dict[str, int] = {net.output: 1}
    for node in net.nodes:
        for name in node.inputs:
            uses[name] = uses.get(name, 0) + 1
    pairs = {}
    for node in net.nodes:
        before = by_name.get(node.inputs[0])
        if (
            node.op == "batch_norm"
            and before is not None
            and before.op in ("conv2d", "dense")
            and uses[before.name] == 1
            and (before.op == "conv2d" or len(net._by_name[before.name].shape) == 1)
        ):
            pairs[node.name] = before.name
    return pairs


def _merged(before: Node, norm: Node, source: Mapping[str, F32], params: dict[str, NDArray[Any]]) -> Node:
    eps = norm.attrs.get("eps", lookup("batch_norm", norm.name).attrs["eps"].default)
    scale, shift = affine({role: source[key] for role, key in norm.params.items()}, eps)
    weight = source[before.params["weight"]]
    bias = source[before.params["bias"]].astype(np.float64) if "bias" in before.params else 0.0
    keys = {role: _fresh(f"{norm.name}.folded_{role}", params) for role in ("weight", "bias")}
    params[keys["weight"]] = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    params[keys["bias"]] = (bias * scale + shift).astype(np.float32)
    return Node(norm.name, before.op, before.inputs, keys, before.attrs)


def _fresh(key: str, params: Mapping[str, Any]) -> str:
    while key in params:
        key += "_"
    return key
