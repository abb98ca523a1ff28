"""A network in double precision: every node by the plain NumPy form of its operation, for verification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import UnsupportedOperationError
from semanticlens.nn.edit import Edits, apply_all
from semanticlens.nn.graph import INPUT, Checked
from semanticlens.nn.memory import check_bytes
from semanticlens.nn.ops import Call

__all__ = ["evaluate"]

F64 = NDArray[np.float64]


def evaluate(
    graph: Sequence[Checked],
    params: Mapping[str, NDArray[Any]],
    x: F64,
    records: frozenset[str],
    edits: Edits,
) -> dict[str, F64]:
    """The recorded values for a checked batch; graph with shapes that hold no None.

    Raises
    ------
    UnsupportedOperationError
        If an operation has no plain form.
    """
    shapes: dict[str, Any] = {INPUT: x.shape[1:], **{item.node.name: item.shape for item in graph}}
    last = {name: i for i, item in enumerate(graph) for name in item.node.inputs}
    needed = set(records)
    for item in reversed(graph):
        if item.node.name in needed:
            needed.update(item.node.inputs)
    check_bytes(8 * len(x) * _held(graph, shapes, needed, records, last), "this run in float64")
    values: dict[str, F64] = {INPUT: apply_all(edits.get(INPUT, ()), x)}
    for i, item in enumerate(graph):
        if item.node.name not in needed:
            continue
        name = item.node.name
        with np.errstate(all="ignore"):
            values[name] = apply_all(edits.get(name, ()), _node(item, values, shapes, params, len(x)))
        for source in item.node.inputs:
            if last[source] <= i and source not in records:
                values.pop(source, None)
    return {name: np.array(values[name], order="C") for name in records}


def _held(
    graph: Sequence[Checked], shapes: Mapping[str, Any], needed: set[str], records: frozenset[str], last: Mapping[str, int]
) -> int:
    """The most values per sample that are held at a time."""
    held = peak = int(math.prod(shapes[INPUT]))
    alive = {INPUT}
    for i, item in enumerate(graph):
        if item.node.name in needed:
            alive.add(item.node.name)
            held += math.prod(item.shape)  # type: ignore[arg-type]
            peak = max(peak, held)
            gone = {name for name in item.node.inputs if last[name] <= i and name not in records} & alive
            alive -= gone
            held -= sum(math.prod(shapes[name]) for name in gone)
    return peak


def _node(
    item: Checked, values: Mapping[str, F64], shapes: Mapping[str, Any], params: Mapping[str, NDArray[Any]], batch: int
) -> F64:
    op, node = item.op, item.node
    if op.numpy is None:
        raise UnsupportedOperationError(
            f"node {node.name!r}: operation {op.name!r} has no plain form (Op.numpy), so it cannot be run in float64"
        )
    attrs = item.attrs
    if op.resolve is not None:
        roles = {role: params[key].shape for role, key in node.params.items()}
        attrs = op.resolve(attrs, roles, [shapes[name] for name in node.inputs])
    call = Call(attrs, {role: params[key].astype(np.float64) for role, key in node.params.items()})
    y = np.asarray(op.numpy(call, [values[name] for name in node.inputs]))
    if y.shape != (batch, *shapes[node.name]) or y.dtype != np.float64:
        raise UnsupportedOperationError(
            f"node {node.name!r}: the plain form of {op.name!r} gives {y.dtype} of shape {y.shape}, not float64 of shape "
            f"{(batch, *shapes[node.name])}"
        )
    return y
