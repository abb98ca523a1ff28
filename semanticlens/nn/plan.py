"""What is computed for a set of records, in which order and into which memory: decided once, then run for any batch.

A plan keeps the nodes that the records need, merges convolution (or dense) + residual addition + activation into one
kernel call where the values between are not recorded, and writes elementwise results over inputs that die.  All other
values between input and records share one block of memory, laid out so that a place is used again as soon as no later
step needs what it holds; recorded values get arrays of their own, and the caller's input is never written.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import NumericalError
from semanticlens.nn.edit import Edits, apply_all
from semanticlens.nn.graph import INPUT, Checked
from semanticlens.nn.memory import check_bytes
from semanticlens.nn.ops import ACTIVATIONS, Call, Forward, Op
from semanticlens.nn.shapes import Attrs

F32 = NDArray[np.float32]
Prepare = Callable[[Checked], Any]

_BLOCK, _FRESH, _INPLACE, _OWN = range(4)
_ALIGN = 16  # floats: 64 bytes
KEPT_BYTES = 256 << 20  # of working memory a network keeps for its next run
SMALL_RECORD = 1 << 14  # floats: a record of no more is computed in its place like other values, and copied


@dataclass
class Frame:
    """Working memory of a run of one plan: what stays in its place from run to run, and the calls on it, made once.

    Making an array or looking up the arguments of a call costs as much as a small kernel.  ``values`` holds the values
    that stay, None for others; ``calls`` holds a call per step, None where the step must be looked at; ``lent`` are the
    small records that stay, of which the caller gets copies.
    """

    plan: Plan
    batch: int
    n_threads: int
    base: F32
    values: list[Any]
    calls: list[Callable[[], Any] | None]
    lent: frozenset[int]


class Scratch:
    """Working memory kept from run to run, because fresh memory costs a page fault every 4 kB; safe to share by threads."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []

    def take(self, plan: Plan, batch: int, n_threads: int) -> Frame:
        """A frame whose places begin at multiples of 64 bytes, with any contents."""
        count = batch * plan.block
        try:
            frame = self._frames.pop()
        except IndexError:
            return _frame(plan, batch, n_threads, np.empty(count + _ALIGN, np.float32))
        if frame.plan is plan and frame.batch == batch and frame.n_threads == n_threads:
            return frame
        enough = frame.base.size >= count + _ALIGN
        return _frame(plan, batch, n_threads, frame.base if enough else np.empty(count + _ALIGN, np.float32))

    def give(self, frame: Frame) -> None:
        """Keep a frame for later, or let it go where that would be too much."""
        if frame.base.nbytes + sum(kept.base.nbytes for kept in tuple(self._frames)) <= KEPT_BYTES:
            self._frames.append(frame)


def _frame(plan: Plan, batch: int, n_threads: int, base: F32) -> Frame:
    start = -base.ctypes.data % (4 * _ALIGN) // 4
    block = base[start : start + batch * plan.block]
    values: list[Any] = [None] * (len(plan.sources) + len(plan.steps))
    calls: list[Callable[[], Any] | None] = []
    lent: set[int] = set()
    for step in plan.steps:
        xs: Any = [values[i] for i in step.inputs]
        stay = all(x is not None for x in xs)
        out: Any = None
        if step.memory == _BLOCK:
            out = block[batch * step.place : batch * (step.place + step.size)].reshape(batch, *step.shape)
        elif step.memory == _INPLACE:
            out = xs[step.place]
        elif step.memory == _FRESH and stay and step.head.op.bind is not None and batch * step.size <= SMALL_RECORD:
            out = np.empty((batch, *step.shape), np.float32)
            lent.add(step.output)
        values[step.output], call = out, None
        if step.view and stay:
            view = step.forward(step.call, xs, None, n_threads)
            if isinstance(view, np.ndarray) and view.shape == (batch, *step.shape) and np.may_share_memory(view, xs[0]):
                values[step.output], call = view, _nothing
        elif stay and out is not None and step.head.op.bind is not None:
            call = step.head.op.bind(step.call, xs, out, n_threads)
        if step.output in lent and call is None:
            values[step.output] = None
            lent.remove(step.output)
        elif (step.view or step.memory == _INPLACE) and step.inputs[step.place] in lent:
            lent.add(step.output)
        calls.append(call)
    return Frame(plan, batch, n_threads, base, values, calls, frozenset(lent))


def _nothing() -> None:
    """The call of a step whose value is a view of another."""


@dataclass(frozen=True)
class Step:
    """One kernel call; values are numbered, first those that are given: the network's input, or what a run resumes from."""

    name: str
    forward: Forward
    call: Call
    inputs: tuple[int, ...]
    output: int
    shape: tuple[int, ...]
    size: int
    memory: int  # _BLOCK, _FRESH for records, _INPLACE, or _OWN where the operation allocates or gives a view
    place: int  # the offset (_BLOCK) per sample, or the position among the inputs (_INPLACE)
    view: bool
    forget: tuple[int, ...]  # values nobody needs after this step
    head: Checked  # the node whose operation this is; an addition and an activation may follow it in the same call
    sources: tuple[str, ...]  # names of the inputs


@dataclass(frozen=True)
class Plan:
    """Steps in order, and which value each record is; ``copies`` share memory with the input or another record."""

    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    records: Mapping[str, int]
    copies: frozenset[str]
    block: int  # floats of working memory per sample
    peak: int  # floats per sample that are held at a time: the block, records, results of operations that allocate

    def execute(
        self,
        given: Sequence[F32],
        n_threads: int,
        scratch: Scratch,
        edits: Edits | None = None,
        *,
        share: bool = False,
    ) -> dict[str, F32]:
        """Run on a checked batch (the value of each source); returns the recorded values by node name.

        With ``share`` records may share memory with each other and with ``given``: for callers who only read them.
        """
        check_bytes(4 * given[0].shape[0] * self.peak, "this run")
        with np.errstate(all="ignore"):  # what overflows is infinite, in NumPy's operations without a warning too
            return self._execute(given, n_threads, scratch, edits or {}, share)

    def _execute(
        self, given: Sequence[F32], n_threads: int, scratch: Scratch, edits: Edits, share: bool
    ) -> dict[str, F32]:
        batch = given[0].shape[0]
        frame = scratch.take(self, batch, n_threads)
        values, calls = frame.values.copy(), frame.calls
        values[: len(given)] = [
            apply_all(edits[name], value) if name in edits else value
            for name, value in zip(self.sources, given, strict=True)
        ]
        for step, call in zip(self.steps, [None] * len(calls) if edits else calls, strict=True):
            if call is not None:
                call()
            else:
                self._look(step, values, frame, edits)
        copies, lent = frozenset() if share else self.copies, frozenset() if edits else frame.lent
        result = {
            name: values[i].copy() if name in copies or i in lent else values[i] for name, i in self.records.items()
        }
        scratch.give(frame)
        return result

    def _look(self, step: Step, values: list[Any], frame: Frame, edits: Edits) -> None:
        """A step whose arrays are not known beforehand."""
        xs: Any = [values[i] for i in step.inputs]
        out: Any = None
        if step.memory == _BLOCK:
            out = frame.values[step.output]
        elif step.memory == _FRESH:
            out = np.empty((frame.batch, *step.shape), np.float32)
        elif step.memory == _INPLACE:
            out = xs[step.place]
        y: Any = step.forward(step.call, xs, out, frame.n_threads)
        if y is not out:
            y = _accept(step, y, xs, frame.batch)
            if out is not None:  # later calls look there
                np.copyto(out, y)
                y = out
        values[step.output] = apply_all(edits[step.name], y) if step.name in edits else y
        for i in step.forget:
            values[i] = None


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
    sources: Mapping[str, tuple[int, ...]] | None = None,
    edited: frozenset[str] = frozenset(),
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
    sources : mapping of str to shape, optional
        Values that are given instead of the input, with their shapes.
    edited : frozenset of str
        Nodes whose values are changed, or needed apart: they are not merged into others.
    """
    given = {INPUT: input_shape} if sources is None else dict(sources)
    first = len(given)
    shapes: dict[str, Any] = {**{item.node.name: item.shape for item in graph}, **given}
    groups = _merge(_needed(graph, records, frozenset(given)), records | edited, shapes, fuse)
    number = {name: i for i, name in enumerate(given)}
    number.update({group.tail: i for i, group in enumerate(groups, first)})
    layout = _Layout(groups, number, shapes, records, first)
    places = [layout.place(i, group) for i, group in enumerate(groups, first)]
    offsets, block = layout.offsets()
    steps = tuple(
        Step(
            name=group.tail,
            forward=group.head.op.kernel,
            call=_call(group.head, group.activation, shapes, params, prepare),
            inputs=tuple(number[name] for name in group.inputs),
            output=i,
            shape=shapes[group.tail],
            size=layout.size[i],
            memory=memory,
            place=offsets[i] if memory == _BLOCK else place,
            view=group.head.op.view,
            forget=tuple(layout.dying[i]),
            head=group.head,
            sources=tuple(group.inputs),
        )
        for i, (group, (memory, place)) in enumerate(zip(groups, places, strict=True), first)
    )
    wanted = {name: number[name] for name in (INPUT, *(item.node.name for item in graph)) if name in records}
    copies = layout.sharing(wanted)
    peak = block + layout.allocated([memory for memory, _ in places]) + sum(math.prod(shapes[name]) for name in copies)
    return Plan(tuple(given), steps, wanted, copies, block, peak)


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


def _needed(graph: Sequence[Checked], records: frozenset[str], given: frozenset[str]) -> list[Checked]:
    wanted = set(records)
    result = []
    for item in reversed(graph):
        if item.node.name in wanted and item.node.name not in given:
            wanted.update(item.node.inputs)
            result.append(item)
    return result[::-1]


def _merge(graph: Sequence[Checked], records: frozenset[str], shapes: Mapping[str, Any], fuse: bool) -> list[_Group]:
    """Groups in the order of their last nodes; a group may grow while its value is not recorded and has one use."""
    uses: dict[str, int] = {}
    for item in graph:
        for name in item.node.inputs:
            uses[name] = uses.get(name, 0) + 1
    open_groups: dict[str, _Group] = {}
    groups: list[_Group] = []
    for position, item in enumerate(graph):
        name = item.node.name
        group = _grow(item, open_groups, shapes) if fuse else None
        if group is None:
            group = _Group(item, list(item.node.inputs), name, position)
            groups.append(group)
        group.tail, group.position = name, position
        if name not in records and uses.get(name) == 1:
            open_groups[name] = group
    return sorted(groups, key=lambda group: group.position)


def _grow(item: Checked, open_groups: dict[str, _Group], shapes: Mapping[str, Any]) -> _Group | None:
    """The group that takes this node in, if one does."""
    inputs = item.node.inputs
    if item.op.name in ACTIVATIONS:
        group = open_groups.get(inputs[0])
        if group is not None and group.head.op.fuses_activation and group.activation == "none":
            group.activation = item.op.name
            return group
    elif item.op.name == "add" and inputs[0] != inputs[1] and shapes[inputs[0]] == shapes[inputs[1]]:
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
    """Which memory each value lives in: ``root`` is the value whose memory it shares; the caller's is never written."""

    def __init__(
        self,
        groups: Sequence[_Group],
        number: Mapping[str, int],
        shapes: Mapping[str, tuple[int, ...]],
        records: frozenset[str],
        first: int,
    ) -> None:
        self.number, self.shapes, self.first = number, shapes, first
        self.root = list(range(len(groups) + first))
        self.size = [0] * first + [math.prod(shapes[group.tail]) for group in groups]
        self.last = [0] * len(self.root)  # the step of a value's last use
        for i, group in enumerate(groups, first):
            for name in group.inputs:
                self.last[number[name]] = i
            if group.head.op.view:
                self.root[i] = self.root[number[group.inputs[0]]]
        self.members: list[list[int]] = [[] for _ in self.root]
        self.dying: list[list[int]] = [[] for _ in self.root]
        pinned = {number[name] for name in records}
        for value, root in enumerate(self.root):
            self.members[root].append(value)
            if value not in pinned:
                self.dying[self.last[value]].append(value)
        self.kept = {*range(first)} | {self.root[value] for value in pinned}  # memory that outlives the run
        self.shared: list[int] = []  # roots that live in the block

    def place(self, i: int, group: _Group) -> tuple[int, int]:
        """Kind of memory of step i, and the input it is taken from where it is that."""
        op: Op = group.head.op
        if op.view or not op.takes_out:
            return _OWN, 0
        for position in (len(group.inputs) - 1,) if group.added else op.inplace:
            if self._may_overwrite(i, group, position):
                self._join(i, self.root[self.number[group.inputs[position]]])
                return _INPLACE, position
        if i in self.kept:
            return _FRESH, 0
        self.shared.append(i)
        return _BLOCK, 0

    def _may_overwrite(self, i: int, group: _Group, position: int) -> bool:
        name = group.inputs[position]
        root = self.root[self.number[name]]
        if root in self.kept or self.shapes[name] != self.shapes[group.tail]:
            return False
        if any(self.last[v] > i for v in self.members[root]):
            return False
        if any(self.root[self.number[other]] == root for k, other in enumerate(group.inputs) if k != position):
            return False
        return i not in self.kept or root not in self.shared  # a record is not left in the block

    def _join(self, i: int, root: int) -> None:
        """The result of step i lives in the memory of ``root``; so do its views."""
        if i in self.kept:
            self.kept.add(root)
        for value in self.members[i]:
            self.root[value] = root
        self.members[root] += self.members[i]
        self.members[i] = []

    def offsets(self) -> tuple[dict[int, int], int]:
        """Offset of each shared root in the block, and the block's size.

        Largest first, each at the lowest place that is free for as long as it lives.
        """
        placed: list[tuple[int, int, int, int]] = []  # (offset, end, first step, last step)
        result: dict[int, int] = {}
        for root in sorted(self.shared, key=lambda value: (-self.size[value], value)):
            first, last = root, max(self.last[value] for value in self.members[root])
            size, offset = -(-self.size[root] // _ALIGN) * _ALIGN, 0
            for begin, end, birth, death in placed:  # by offset
                if birth <= last and first <= death and begin < offset + size and offset < end:
                    offset = end
            insort(placed, (offset, offset + size, first, last))
            result[root] = offset
        return result, max((end for _, end, _, _ in placed), default=0)

    def allocated(self, memory: Sequence[int]) -> int:
        """The most floats that arrays of their own hold at a time: records, and what operations allocate."""
        change = [0] * (len(self.root) + 1)
        for i, kind in enumerate(memory, self.first):
            if self.root[i] == i and kind in (_FRESH, _OWN):
                change[i] += self.size[i]
                if i not in self.kept:
                    change[max(i, *(self.last[value] for value in self.members[i])) + 1] -= self.size[i]
        return max(accumulate(change))

    def sharing(self, wanted: Mapping[str, int]) -> frozenset[str]:
        """Records that share memory with the input or with an earlier record: they are copied."""
        copies, seen = set(), {*range(self.first)}
        for name, value in wanted.items():
            if self.root[value] in seen:
                copies.add(name)
            seen.add(self.root[value])
        return frozenset(copies)
