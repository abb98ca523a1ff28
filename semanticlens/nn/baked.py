"""Edits as nodes: a network that does by itself what edits did to it, so that it can be saved, loaded and handed on.

An edit of whole components is one affine map for every place of a node's value, x -> A x + b.  Behind each edited node stands a node
that applies the maps of its edits, one after the other; it takes over the name: whatever reads or records the node sees the edited value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens.nn.edit import Edit
from semanticlens.nn.graph import INPUT, Node

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["baked"]

F64 = NDArray[np.float64]


def baked(net: Network) -> Network:
    """See :meth:`semanticlens.nn.Network.baked`."""
    from semanticlens.nn.network import Network

    if not net.edits:
        return net
    by_node: dict[str, list[Edit]] = {}
    for one in net.edits:
        by_node.setdefault(net.resolve(one.node), []).append(one)
    shapes = {info.name: info.shape for info in net.layers}
    nodes: list[Node] = []
    params: dict[str, Any] = dict(net.params)
    for node in net.nodes:
        if node.name not in by_node:
            nodes.append(node)
            continue
        before = _free(f"{node.name}.unedited", {n.name for n in net.nodes} | set(net.aliases))
        nodes.append(Node(before, node.op, node.inputs, node.params, node.attrs))
        nodes.append(_node(node.name, before, by_node.pop(node.name), shapes[node.name], params))
    if by_node:
        raise ValueError(
            f"an edit of {next(iter(by_node))!r} cannot become a node: only edits of the network's own nodes can"
        )
    return Network(
        nodes,
        params,
        input_shape=net.input_shape,
        output=net.output,
        name=net.name,
        aliases=net.aliases,
        preprocess=net.preprocess,
        labels=net.labels,
        folded=net.folded,
        allow_nonfinite=net._allow_nonfinite,
    )


def _free(name: str, taken: set[str]) -> str:
    while name in taken or name == INPUT:
        name += "_"
    return name


def _node(name: str, before: str, edits: Sequence[Edit], shape: Sequence[int | None], params: dict[str, Any]) -> Node:
    """The node that applies ``edits`` to the value ``before``; adds its parameters."""
    rank = len(shape) + 1
    size = shape[0] if rank in (2, 4) else shape[-1]
    if size is None:
        raise ValueError(
            f"edits of {name!r} cannot become a node: its number of components is not known (shape {tuple(shape)})"
        )
    scale, shift, matrix = np.ones(size), np.zeros(size), None
    for one in edits:
        a, b = _affine(one, size, rank)
        if a.ndim == 1 and matrix is None:
            scale, shift = a * scale, a * shift + b
        else:
            full = np.diag(a) if a.ndim == 1 else a
            matrix = full @ (np.diag(scale) if matrix is None else matrix)
            shift = full @ shift + b
    kept: dict[str, F64] = {}
    if matrix is None:
        wide = (size, 1, 1) if rank == 4 else (size,)
        op, kept = "scale_shift", {"scale": scale.reshape(wide), "shift": shift.reshape(wide)}
    elif rank == 4:
        op, kept = "conv2d", {"weight": matrix[..., None, None], "bias": shift}
    else:
        op, kept = "dense", {"weight": matrix, "bias": shift}
    keys = {role: _free(f"{name}.edit.{role}", set(params)) for role in kept}
    params.update({keys[role]: np.ascontiguousarray(value, np.float32) for role, value in kept.items()})
    return Node(name, op, (before,), keys)


def _affine(one: Edit, size: int, rank: int) -> tuple[F64, F64]:
    """A, as its diagonal (K,) or whole (K, K), and b (K,) of an edit of K components."""
    _check(one, rank)
    chosen = np.arange(size) if one.components is None else np.asarray(one.components) % size
    value = np.zeros(()) if one.value is None else np.asarray(one.value, np.float64)
    if one.direction is not None:
        d = np.zeros(size)
        d[chosen] = one.direction
        factor = {"scale": one.factor - 1.0, "add": 0.0}.get(one.kind, -1.0)
        return np.eye(size) + factor * np.outer(d, d), (0.0 if one.kind in ("scale", "project") else float(value)) * d
    if value.ndim and one.kind == "ablate" and value.shape == (size,):
        value = value[chosen]
    if value.ndim > 1 or value.size not in (1, len(chosen)):
        raise ValueError(
            f"{one.kind} at {one.node!r}: a value of shape {value.shape} differs from place to place and cannot become a node"
        )
    a, b = np.ones(size), np.zeros(size)
    a[chosen] = {"scale": one.factor, "add": 1.0}.get(one.kind, 0.0)
    b[chosen] = 0.0 if one.kind == "scale" else value
    return a, b


def _check(one: Edit, rank: int) -> None:
    where = f"{one.kind} at {one.node!r}"
    if one.tokens is not None or one.positions is not None:
        raise ValueError(f"{where}: an edit of single tokens or positions cannot become a node; edit whole components")
    if one.kind == "replace":
        raise ValueError(f"{where}: a replaced value belongs to one picture and cannot become a node")
    if one.kind == "ablate" and one.value is None:
        raise ValueError(
            f"{where}: the mean of each sample cannot become a node; ablate to the mean over a data set (to=means)"
        )
    if one.axis is not None and one.axis != (1 if rank in (2, 4) else rank - 1):
        raise ValueError(
            f"{where}: axis={one.axis} is not the axis of components, and such an edit cannot become a node"
        )
