"""The forward run of a gradient: whole, or in segments that are run again when the walk back comes to them.

A segment is a range of the calls of the forward run.  Held from the first run on is only what later segments read of
earlier ones (and what the walk reads of the last one); the other values that the walk back reads are computed again,
segment by segment, by the same calls, so that every bit is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import UnsupportedOperationError
from semanticlens.nn.graph import INPUT, Checked
from semanticlens.nn.ops import Call
from semanticlens.nn.plan import Plan, Scratch, compile_plan

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["Double", "Forward", "Link", "Single", "Split", "call_double", "split"]

Array = NDArray[Any]
MOST = 16  # segments that "auto" considers


@dataclass(frozen=True)
class Link:
    """One call of the forward run, as the walk sees it: an operation, perhaps with an addition and an activation behind it."""

    name: str
    head: Checked
    call: Call
    sources: tuple[str, ...]

    @property
    def own(self) -> int:
        """Inputs of the operation itself: one fewer than all where an addition was merged."""
        return len(self.head.node.inputs)


class Forward(Protocol):
    """The calls of a forward run, and how some of them are run."""

    itemsize: int
    took: int  # bytes of values that the last part held at a time, its records among them

    @property
    def links(self) -> Sequence[Link]:
        """All calls, in order."""

    def execute(self, first: int, last: int, known: Mapping[str, Array], records: frozenset[str]) -> dict[str, Array]:
        """The values of ``records`` from the calls ``first`` to ``last - 1``, given all values that these read of earlier ones."""

    def working(self, batch: int) -> int:
        """Bytes of working memory that stay between the whole run and the next."""


class Single:
    """In float32, by the network's kernels."""

    itemsize = 4
    took = 0

    def __init__(
        self, net: Network, graph: Sequence[Checked], records: frozenset[str], apart: frozenset[str], shape: tuple[int, ...], n_threads: int
    ) -> None:
        self._net, self._graph, self._apart, self._shape, self._n_threads = net, graph, apart, shape, n_threads
        self._own = not any("\n" in item.node.name for item in graph)  # without edits: plans are kept
        self.plan = self._compile(graph, records, apart, None)
        self.links = [Link(step.name, step.head, step.call, step.sources) for step in self.plan.steps]
        self._records = records
        self._tails = frozenset(link.name for link in self.links)
        self._by_name = {item.node.name: item for item in graph}

    def _compile(
        self, graph: Sequence[Checked], records: frozenset[str], apart: frozenset[str], sources: Mapping[str, tuple[int, ...]] | None
    ) -> Plan:
        if self._own:
            return self._net._plan(records, self._shape, sources=sources, edited=apart, graph=graph)
        return compile_plan(
            graph, records, self._shape, self._net.params, self._net._prepare, sources=sources, edited=apart
        )

    def execute(self, first: int, last: int, known: Mapping[str, Array], records: frozenset[str]) -> dict[str, Array]:
        """See :class:`Forward`; runs apart from the whole get working memory of their own, which ends with them."""
        if (first, last) == (0, len(self.links)) and records == self._records:
            return self.plan.execute([known[INPUT]], self._n_threads, self._net._scratch, share=True)
        graph = self._nodes(first, last)
        inside = {item.node.name for item in graph}
        outside = dict.fromkeys(name for item in graph for name in item.node.inputs if name not in inside)
        sources = {name: known[name].shape[1:] for name in outside}
        plan = self._compile(graph, records, self._tails | self._apart, sources)
        given = [known[name] for name in outside]
        self.took = 4 * len(given[0]) * plan.peak
        return plan.execute(given, self._n_threads, Scratch(), share=True)

    def working(self, batch: int) -> int:
        """See :class:`Forward`."""
        return 4 * batch * self.plan.block

    def _nodes(self, first: int, last: int) -> list[Checked]:
        """The nodes of some calls, those that were merged into them among them."""
        chosen = set()
        for link in self.links[first:last]:
            name = link.name
            chosen.add(name)
            while name != link.head.node.name:
                name = next(source for source in self._by_name[name].node.inputs if source not in self._tails and source != INPUT)
                chosen.add(name)
        return [item for item in self._graph if item.node.name in chosen]


class Double:
    """In float64, every node by the plain NumPy form of its operation."""

    itemsize = 8
    took = 0  # not counted: for verification

    def __init__(self, net: Network, graph: Sequence[Checked], shape: tuple[int, ...]) -> None:
        shapes: dict[str, Any] = {INPUT: shape, **{item.node.name: item.shape for item in graph}}
        self.links = [
            Link(item.node.name, item, call_double(net, item, [shapes[name] for name in item.node.inputs]), item.node.inputs)
            for item in graph
        ]

    def execute(self, first: int, last: int, known: Mapping[str, Array], records: frozenset[str]) -> dict[str, Array]:
        """See :class:`Forward`."""
        values: dict[str, Array] = dict(known)
        links = self.links[first:last]
        final = {source: i for i, link in enumerate(links) for source in link.sources}
        for i, link in enumerate(links):
            assert link.head.op.numpy is not None
            with np.errstate(all="ignore"):
                values[link.name] = np.ascontiguousarray(link.head.op.numpy(link.call, [values[name] for name in link.sources]))
            for source in set(link.sources):
                if final[source] == i and source not in records:
                    del values[source]
        return {name: values[name] for name in records}

    def working(self, batch: int) -> int:
        """See :class:`Forward`."""
        return 0


def call_double(net: Network, item: Checked, shapes: Sequence[tuple[int, ...]]) -> Call:
    """What a node's operation needs in float64, for inputs of ``shapes``."""
    if item.op.numpy is None:
        raise UnsupportedOperationError(
            f"node {item.node.name!r}: operation {item.op.name!r} has no form in NumPy (Op.numpy), so float64 cannot be had"
        )
    params = {role: net.params[key] for role, key in item.node.params.items()}
    attrs = item.attrs
    if item.op.resolve is not None:
        attrs = item.op.resolve(attrs, {role: param.shape for role, param in params.items()}, list(shapes))
    return Call(dict(attrs), {role: param.astype(np.float64) for role, param in params.items()})


@dataclass(frozen=True)
class Split:
    """Where the calls are cut; ``bounds`` begins with 0 and ends with their number.

    Attributes
    ----------
    bounds : tuple of int
    held : frozenset of str
        Values of earlier segments that later ones read, the input apart.
    values : int
        Values per sample that are held at a time, at most: those, and what the walk reads of one segment.
    """

    bounds: tuple[int, ...]
    held: frozenset[str]
    values: int


def split(links: Sequence[Link], keep: frozenset[str], shapes: Mapping[str, tuple[int, ...]], segments: int | str) -> Split:
    """Cut the calls where little passes, into segments that keep about as much each.

    Parameters
    ----------
    links : sequence of Link
    keep : frozenset of str
        What the walk back reads.
    shapes : mapping of str to shape
        With the batch in front.
    segments : int or "auto"
        How many; "auto" takes the number that holds the least.

    Raises
    ------
    ValueError
        If ``segments`` is neither.
    """
    if segments != "auto" and (isinstance(segments, (bool, str)) or not isinstance(segments, int) or segments < 1):
        raise ValueError(f"segments={segments!r}: must be a whole number of at least 1, or 'auto'")
    most = len(links)
    numbers: Iterable[int] = range(1, max(1, min(MOST, most)) + 1) if segments == "auto" else (max(1, min(int(segments), most)),)
    size = {link.name: math.prod(shapes[link.name][1:]) for link in links}
    return min((_cut(links, keep, size, number) for number in numbers), key=lambda cut: cut.values)


def _cut(links: Sequence[Link], keep: frozenset[str], size: Mapping[str, int], number: int) -> Split:
    passing = _passing(links, size) if number > 1 else []
    kept = [size[link.name] if link.name in keep else 0 for link in links]
    total, so_far = sum(kept), np.cumsum([0, *kept])
    bounds = [0]
    for j in range(1, number):
        aim, reach = total * j / number, total / (4 * number)
        near = [i for i in range(bounds[-1] + 1, len(links)) if abs(so_far[i] - aim) <= reach]
        near = near or [i for i in range(bounds[-1] + 1, len(links)) if so_far[i] >= aim][:1]
        if near:
            bounds.append(min(near, key=lambda i: (passing[i], abs(so_far[i] - aim))))
    bounds.append(len(links))
    held: set[str] = set()
    for first, last in pairwise(bounds):
        inside = {link.name for link in links[first:last]}
        held |= {name for link in links[first:last] for name in link.sources if name not in inside and name != INPUT}
    largest = max(
        sum(kept[i] for i in range(first, last) if links[i].name not in held)
        for first, last in pairwise(bounds)
    )
    return Split(tuple(bounds), frozenset(held), sum(size[name] for name in held) + largest)


def _passing(links: Sequence[Link], size: Mapping[str, int]) -> list[int]:
    """Values per sample that calls before each place give to calls from there on."""
    change = [0] * (len(links) + 1)
    final = {name: i for i, link in enumerate(links) for name in link.sources}
    for i, link in enumerate(links):
        if link.name in final:
            change[i + 1] += size[link.name]
            change[final[link.name] + 1] -= size[link.name]
    return [int(n) for n in np.cumsum(change)]
