"""A graph in which edits are operations: what a gradient walks through where a run applies them to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens.nn.edit import Edits, apply_all
from semanticlens.nn.graph import INPUT, Checked, Node
from semanticlens.nn.ops import Call, Op
from semanticlens.nn.shapes import Shape

__all__ = ["insert"]

Array = NDArray[Any]


def insert(graph: Sequence[Checked], edits: Edits, input_shape: Shape) -> tuple[list[Checked], dict[str, str]]:
    """The graph with a node behind each edited one that applies its edits.

    Parameters
    ----------
    graph : sequence of Checked
    edits : mapping of node to edits
    input_shape : tuple of int
        Without the batch.

    Returns
    -------
    graph : list of Checked
    names : dict of str to str
        Edited node -> the node that holds its edited value.
    """
    names = {name: f"{name}\nedited" for name in edits}  # names of nodes in files hold no line break
    result: list[Checked] = []
    if INPUT in edits:
        result.append(_edited(INPUT, names[INPUT], input_shape, edits))
    for item in graph:
        sources = tuple(names.get(source, source) for source in item.node.inputs)
        result.append(item if sources == item.node.inputs else replace(item, node=replace(item.node, inputs=sources)))
        if item.node.name in edits:
            result.append(_edited(item.node.name, names[item.node.name], item.shape, edits))
    return result, names


def _edited(source: str, name: str, shape: Shape, edits: Mapping[str, Any]) -> Checked:
    changes = tuple(edits[source])

    def forward(call: Call, xs: Sequence[Array]) -> Array:
        return apply_all(changes, xs[0])

    def adjoint(
        call: Call, xs: Sequence[Array], out: Array, grad: Array, needed: Sequence[bool], n_threads: int
    ) -> Sequence[Array | None]:
        for change in reversed(changes):
            grad = change.adjoint(grad)
        return (np.ascontiguousarray(grad),)

    op = Op("edit", numpy=forward, adjoint=adjoint, takes_out=False)
    return Checked(Node(name, op.name, (source,)), op, {}, shape)
