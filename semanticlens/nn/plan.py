"""What is computed for a set of records, in which order and into which memory: decided once, then run for any batch.

A plan keeps the nodes that the records need, merges convolution (or dense) + residual addition + activation into one
kernel call where the values between are not recorded, writes elementwise results over inputs that die, and hands a
dead value's memory to one of the next steps that needs as much. What no later step needs is released at once.
Recorded values and the caller's input are never written over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import NumericalError
from semanticlens.nn.graph import INPUT, Checked
from semanticlens.nn.ops import ACTIVATIONS, Call, Forward, Op
from semanticlens.nn.shapes import Attrs

F32 = NDArray[np.float32]
Prepare = Callable[[Checked], Any]

_NEW, _REUSE, _INPLACE, _OWN = range(4)
_WINDOW = 2  # steps a dead buffer may wait for its next use
_SLACK = 1.25  # and how much larger than needed it may be


@dataclass(frozen=True)
class Step:
    """One kernel call; values are numbered, 0 is the network's input."""

    name: str
    forward: Forward
    call: Call
    inputs: tuple[int, ...]
    output: int
    shape: tuple[int, ...]
    memory: int  # _NEW, _REUSE, _INPLACE, or _OWN where the operation allocates or gives a view
    source: int  # the value (_REUSE) or the position among the inputs (_INPLACE) that gives the memory
    view: bool
    forget: tuple[int, ...]  # values nobody needs after this step
    release: tuple[int, ...]  # and the memory to give back


@dataclass(frozen=True)
class Plan:
    """Steps in order, and which value each record is; ``copies`` share memory with the input or another record."""

    steps: tuple[Step, ...]
    records: Mapping[str, int]
    copies: frozenset[str]

    def execute(self, x: F32, n_threads: int) -> dict[str, F32]:
        """Run on a checked batch; returns the recorded values by node name."""
        batch = x.shape[0]
        values: list[Any] = [None] * (len(self.steps) + 1)
        memory: list[Any] = [None] * (len(self.steps) + 1)
        values[0] = x
        for step in self.steps:
            xs: Any = [values[i] for i in step.inputs]
            out: Any = None
            if step.memory == _NEW:
                out = np.empty((batch, *step.shape), np.float32)
                memory[step.output] = out
            elif step.memory == _REUSE:
                memory[step.output], memory[step.source] = memory[step.source], None
                out = memory[step.output].reshape(-1)[: batch * math.prod(step.shape)].reshape(batch, *step.shape)
            elif step.memory == _INPLACE:
                out = xs[step.source]
            y: Any = step.forward(step.call, xs, out, n_threads)
            if y is not out:
                y = _accept(step, y, xs, batch)
                memory[step.output] = None if step.view else y
            values[step.output] = y
            for i in step.forget:
                values[i] = None
            for i in step.release:
                memory[i] = None
            xs = out = y = None  # no references into the next step
        return {name: values[i].copy() if name in self.copies else values[i] for name, i in self.records.items()}


def _accept(step: Step, y: Any, xs: Sequence[F32], batch: int) -> F32:
    """What an operation returned in memory of its own; what was not declared is an error here, not nonsense later."""
    if not isinstance(y, np.ndarray) or y.dtype != np.float32 or y.shape != (batch, *step.shape):
        got = f"{y.dtype} of shape {y.shape}" if isinstance(y, np.ndarray) else type(y).__name__
        raise NumericalError(
            f"node {step.name!r}: its operation returned {got}, its shape rule promised float32 of shape "
            f"{(batch, *step.shape)}"
        )
    if step.view:
        return y
    if not y.flags.c_contiguous or not y.flags.writeable or any(np.may_share_memory(y, x) for x in xs):
        return np.array(y, order="C")
    return y


@dataclass
class _Group:
    """Nodes that become one call."""

    head: Checked
    inputs: list[str]
    tail: str
    position: int
    activation: str = "none"
    added: bool = False


def compile_plan(
    graph: Sequence[Checked],
    records: frozenset[str],
    input_shape: tuple[int, ...],
    params: Mapping[str, F32],
    prepare: Prepare,
    *,
    fuse: bool = True,
) -> Plan:
    """Decide steps and memory.

    Parameters
    ----------
    graph : sequence of Checked
        With shapes that hold no None.
    records : frozenset of str
        Node names, or "input".
    input_shape : tuple of int
        Without the batch.
    params : mapping of str to ndarray, float32
    prepare : callable (Checked) -> Any
        Prepared parameters of a node, cached by the network.
    fuse : bool
        False makes one call per node: for tests and for finding a fault.
    """
    groups = _merge(_needed(graph, records), records, fuse)
    shapes: dict[str, Any] = {INPUT: input_shape, **{item.node.name: item.shape for item in graph}}
    number = {INPUT: 0, **{group.tail: i for i, group in enumerate(groups, 1)}}
    layout = _Layout(groups, number, shapes, records)
    steps = []
    for i, group in enumerate(groups, 1):
        item = group.head
        memory, source, forget, release = layout.place(i, group)
        steps.append(
            Step(
                group.tail,
                item.op.forward,
                _call(item, group.activation, shapes, params, prepare),
                tuple(number[name] for name in group.inputs),
                i,
                shapes[group.tail],
                memory,
                source,
                item.op.view,
                forget,
                release,
            )
        )
    order = [name for name in (INPUT, *(item.node.name for item in graph)) if name in records]
    copies: set[str] = set()
    seen = {0}
    for name in order:
        root = layout.root[number[name]]
        if root in seen:
            copies.add(name)
        seen.add(root)
    return Plan(
        tuple(replace(step, release=tuple(v for v in step.release if v not in layout.taken)) for step in steps),
        {name: number[name] for name in order},
        frozenset(copies),
    )


def _call(
    item: Checked, activation: str, shapes: Mapping[str, Any], params: Mapping[str, F32], prepare: Prepare
) -> Call:
    attrs: Attrs = item.attrs
    if item.op.resolve is not None:
        attrs = item.op.resolve(
            attrs,
            {role: params[key].shape for role, key in item.node.params.items()},
            [shapes[name] for name in item.node.inputs],
        )
    return Call(dict(attrs), {role: params[key] for role, key in item.node.params.items()}, activation, prepare(item))


def _needed(graph: Sequence[Checked], records: frozenset[str]) -> list[Checked]:
    wanted = set(records)
    result = []
    for item in reversed(graph):
        if item.node.name in wanted:
            wanted.update(item.node.inputs)
            result.append(item)
    return result[::-1]


def _merge(graph: Sequence[Checked], records: frozenset[str], fuse: bool) -> list[_Group]:
    """Groups in the order of their last nodes; a group may grow while its value is not recorded and has one use."""
    uses: dict[str, int] = {}
    for item in graph:
        for name in item.node.inputs:
            uses[name] = uses.get(name, 0) + 1
    open_groups: dict[str, _Group] = {}
    groups: list[_Group] = []
    for position, item in enumerate(graph):
        name = item.node.name
        group = _grow(item, open_groups) if fuse else None
        if group is None:
            group = _Group(item, list(item.node.inputs), name, position)
            groups.append(group)
        group.tail, group.position = name, position
        if name not in records and uses.get(name) == 1:
            open_groups[name] = group
    return sorted(groups, key=lambda group: group.position)


def _grow(item: Checked, open_groups: dict[str, _Group]) -> _Group | None:
    """The group that takes this node in, if one does."""
    inputs = item.node.inputs
    if item.op.name in ACTIVATIONS:
        group = open_groups.get(inputs[0])
        if group is not None and group.head.op.fuses_activation and group.activation == "none":
            group.activation = item.op.name
            return group
    elif item.op.name == "add" and inputs[0] != inputs[1]:
        able = [
            (group.position, name, group)
            for name in inputs
            if (group := open_groups.get(name)) is not None
            and group.head.op.fuses_add
            and not group.added
            and group.activation == "none"
        ]
        if able:
            _, name, group = max(able, key=lambda entry: entry[0])
            group.inputs.append(inputs[0] if name == inputs[1] else inputs[1])
            group.added = True
            return group
    return None


class _Layout:
    """Which memory each value lives in: ``root`` is the value whose memory it shares; 0, the caller's, is never written."""

    def __init__(
        self,
        groups: Sequence[_Group],
        number: Mapping[str, int],
        shapes: Mapping[str, tuple[int, ...]],
        records: frozenset[str],
    ) -> None:
        self.number, self.shapes = number, shapes
        self.root = list(range(len(groups) + 1))
        self.size = [0, *(math.prod(shapes[group.tail]) for group in groups)]
        self.last = [0] * (len(groups) + 1)  # the step of a value's last use
        for i, group in enumerate(groups, 1):
            for name in group.inputs:
                self.last[number[name]] = i
            if group.head.op.view:
                self.root[i] = self.root[number[group.inputs[0]]]
        self.members: list[list[int]] = [[] for _ in self.root]
        self.dying: list[list[int]] = [[] for _ in self.root]
        self.pinned = {number[name] for name in records}
        for value, root in enumerate(self.root):
            self.members[root].append(value)
            if value not in self.pinned:
                self.dying[self.last[value]].append(value)
        self.kept = {0} | {self.root[value] for value in self.pinned}
        self.spare: list[tuple[int, int, int]] = []  # (size, value, step of death)
        self.taken: set[int] = set()

    def place(self, i: int, group: _Group) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
        """Memory of step i, then which values and whose memory are dead after it."""
        memory, source = self._choose(i, group)
        forget = tuple(self.dying[i])
        release = tuple(
            root
            for root in sorted({self.root[value] for value in forget} - self.kept)
            if all(self.last[v] <= i for v in self.members[root])
        )
        self.spare = [entry for entry in self.spare if i - entry[2] < _WINDOW] + [
            (self.size[root], root, i) for root in release
        ]
        return memory, source, forget, release

    def _choose(self, i: int, group: _Group) -> tuple[int, int]:
        op: Op = group.head.op
        if op.view or not op.takes_out:
            return _OWN, 0
        for position in (len(group.inputs) - 1,) if group.added else op.inplace:
            if self._may_overwrite(i, group, position):
                self._join(i, self.root[self.number[group.inputs[position]]])
                return _INPLACE, position
        exact = self.root[i] in self.kept  # a recorded value brings no spare bytes along
        fits = [entry for entry in self.spare if self.size[i] <= entry[0] <= (1.0 if exact else _SLACK) * self.size[i]]
        if not fits:
            return _NEW, 0
        best = min(fits)
        self.spare.remove(best)
        self.taken.add(best[1])
        self.size[i] = best[0]
        return _REUSE, best[1]

    def _may_overwrite(self, i: int, group: _Group, position: int) -> bool:
        name = group.inputs[position]
        root = self.root[self.number[name]]
        if (
            root in self.kept
            or self.shapes[name] != self.shapes[group.tail]
            or any(self.last[v] > i for v in self.members[root])
        ):
            return False
        if any(self.root[self.number[other]] == root for k, other in enumerate(group.inputs) if k != position):
            return False
        return self.root[i] not in self.kept or self.size[root] == self.size[i]

    def _join(self, i: int, root: int) -> None:
        """The result of step i lives in the memory of ``root``; so do its views."""
        if i in self.kept:
            self.kept.add(root)
        for value in self.members[i]:
            self.root[value] = root
        self.members[root] += self.members[i]
        self.members[i] = []
