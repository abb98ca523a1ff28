"""The graph a network is: its nodes, and every check that makes it safe to run.

All checks are made on names, shapes and Python integers before any array is allocated, so a hostile file costs
nothing but its header.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError, NumericalError
from semanticlens._kernels import nn as kernels
from semanticlens.nn import ops
from semanticlens.nn.attrs import LIMIT
from semanticlens.nn.ops import Op
from semanticlens.nn.shapes import Attrs, Shape

INPUT, OUTPUT = "input", "output"
MAX_NODES = 10_000
MAX_NAME = 1024  # characters
MAX_VALUES = 1 << 31  # values of one node for one sample: 8 GiB

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Node:
    """One step of a network.

    Attributes
    ----------
    name : str
        Unique; what ``record=`` takes. "input" is the network's input and cannot be used.
    op : str
        A key of :data:`semanticlens.nn.OPS`.
    inputs : tuple of str
        Names of earlier nodes, or "input".
    params : mapping of str to str
        Role of the parameter (such as "weight") -> key in ``Network.params``.
    attrs : mapping
        The operation's attributes; those left out take their defaults.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = (INPUT,)
    params: Mapping[str, str] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inputs = (self.inputs,) if isinstance(self.inputs, str) else self.inputs
        object.__setattr__(self, "inputs", tuple(inputs))
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Node, (self.name, self.op, self.inputs, dict(self.params), dict(self.attrs))


@dataclass(frozen=True)
class Checked:
    """A node with its table entry, its checked attributes and the shape it gives, without the batch."""

    node: Node
    op: Op
    attrs: Attrs
    shape: Shape


def check_name(name: Any, what: str) -> str:
    """A name that can be printed and looked up: text, not empty, not absurdly long, no control characters."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ModelFileError(f"{what} must be a printable text of 1 to {MAX_NAME} characters, not {str(name)[:60]!r}")
    return name


def check_input_shape(shape: Any) -> Shape:
    """(C, H, W), (T, D) or (D,): sizes of at least 1, or None for any."""
    if (
        not isinstance(shape, (list, tuple))
        or not 1 <= len(shape) <= 3
        or not all(
            dim is None or (isinstance(dim, int) and not isinstance(dim, bool) and 1 <= dim <= LIMIT) for dim in shape
        )
    ):
        raise ModelFileError(
            f"the input shape must be (channels, height, width) or (features,), each from 1 to {LIMIT} "
            f"or None for any, not {str(shape)[:80]}"
        )
    return tuple(shape)


def check_graph(nodes: Sequence[Node], params: Mapping[str, F32], input_shape: Shape) -> list[Checked]:
    """Check names, references, parameters, attributes and shapes of all nodes, in order.

    Raises
    ------
    UnsupportedOperationError
        If an operation or attribute is not in the table.
    ModelFileError
        For anything else; the message names the node.
    """
    if not 1 <= len(nodes) <= MAX_NODES:
        raise ModelFileError(f"a network must have 1 to {MAX_NODES} nodes, not {len(nodes)}")
    shapes: dict[str, Shape] = {INPUT: input_shape}
    param_shapes = {key: array.shape for key, array in params.items()}
    result = []
    for position, node in enumerate(nodes):
        check_name(node.name, f"the name of node {position}")
        if node.name in shapes or node.name == OUTPUT:
            raise ModelFileError(
                f"node name {node.name!r} is reserved"
                if node.name in (INPUT, OUTPUT)
                else f"node name {node.name!r} occurs twice"
            )
        checked = _check_node(node, shapes, param_shapes)
        shapes[node.name] = checked.shape
        result.append(checked)
    unused = set(params) - {key for node in nodes for key in node.params.values()}
    if unused:
        raise ModelFileError(f"parameter {min(unused)!r} is used by no node; leave it out")
    return result


def _check_node(node: Node, shapes: Mapping[str, Shape], params: Mapping[str, tuple[int, ...]]) -> Checked:
    op = ops.lookup(node.op, node.name)
    where = f"node {node.name!r} ({op.name})"
    fewest, most = op.inputs
    if not fewest <= len(node.inputs) <= most:
        raise ModelFileError(
            f"{where} has {len(node.inputs)} inputs, it takes {fewest if fewest == most else f'{fewest} to {most}'}"
        )
    for name in node.inputs:
        if not isinstance(name, str) or name not in shapes:
            raise ModelFileError(f"{where}: its input {str(name)[:80]!r} is not the name of an earlier node")
    for role in op.params:
        if role not in node.params:
            raise ModelFileError(f"{where}: parameter {role!r} is missing")
    for role, key in node.params.items():
        if role not in op.params and role not in op.optional:
            raise ModelFileError(
                f"{where}: parameter {str(role)[:80]!r} is not known; known are "
                f"{', '.join(op.params + op.optional) or 'none'}"
            )
        if not isinstance(key, str) or key not in params:
            raise ModelFileError(f"{where}: its {role} {str(key)[:80]!r} is not among the network's parameters")
    attrs = ops.attributes(op, node.attrs, node.name)
    shape = ops.output_shape(
        op,
        attrs,
        {role: params[key] for role, key in node.params.items()},
        [shapes[name] for name in node.inputs],
        node.name,
    )
    size = math.prod(dim or 1 for dim in shape)
    if any(dim is not None and dim < 1 for dim in shape) or size > MAX_VALUES:
        large = f"too large: {4 * size:,} bytes for one sample, at most {4 * MAX_VALUES:,} are taken"
        raise ModelFileError(f"{where} would give a value of shape {shape}, which is {'empty' if 0 in shape else large}")
    return Checked(node, op, attrs, shape)


def check_params(params: Mapping[str, Any]) -> dict[str, F32]:
    """Parameters as read-only, C-contiguous float32 arrays, borrowed where they are that."""
    result = {}
    for key, values in params.items():
        check_name(key, "a parameter's name")
        array = np.asarray(values)
        if array.dtype != np.float32:
            raise ModelFileError(
                f"parameter {key!r} must be float32, not {array.dtype}: convert it with .astype(np.float32)"
            )
        array = np.require(array, np.float32, ["C", "A"]).view()
        array.flags.writeable = False
        result[key] = array
    return result


def check_values(graph: Sequence[Checked], params: Mapping[str, F32]) -> None:
    """Refuse parameters that hold NaN or infinity, or values that make no sense for their operation."""
    finite: set[str] = set()
    for item in graph:
        for role, key in item.node.params.items():
            if key not in finite and not all_finite(params[key]):
                bad = int(params[key].size - np.isfinite(params[key]).sum())
                raise NumericalError(
                    f"parameter {key!r} ({role} of node {item.node.name!r}) holds {bad} values that are NaN or "
                    f"infinite of {params[key].size}; "
                    "the network was not trained to an end or the file is damaged (allow_nonfinite=True loads "
                    "it all the same)"
                )
            finite.add(key)
        if item.op.values is not None:
            try:
                item.op.values({role: params[key] for role, key in item.node.params.items()}, item.attrs)
            except ValueError as error:
                raise NumericalError(f"node {item.node.name!r} ({item.op.name}): {error}") from None


def check_reached(
    graph: Sequence[Checked], changed: Mapping[str, Any], records: frozenset[str], given: Sequence[str]
) -> None:
    """Refuse an edit at a node that no record depends on, or that lies before what a run resumes from."""
    needed = set(records)
    for item in reversed(graph):
        if item.node.name in needed and item.node.name not in given:
            needed.update(item.node.inputs)
    for name in changed:
        if name not in needed:
            raise ValueError(
                f"the edit at {name!r} changes nothing: none of {', '.join(sorted(records))} depends on it in this run"
            )


def all_finite(array: F32) -> bool:
    """Whether no value is NaN or infinite."""
    return kernels.all_finite(array)
