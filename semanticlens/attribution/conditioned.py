"""Many conditions on one forward run: the walks that :func:`semanticlens.attribution.condition` and graphs are made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens.attribution.attribute import Prepared, starting
from semanticlens.attribution.masks import Group, rows, sizes
from semanticlens.attribution.products import Counter
from semanticlens.attribution.walk import Route, Values, Walk, run_forward
from semanticlens.nn.backward import Target
from semanticlens.nn.graph import INPUT, Checked
from semanticlens.nn.memory import allowed, check_bytes
from semanticlens.nn.segments import Link

__all__ = ["Conditioned", "Job"]

Array = NDArray[Any]
ROWS = 64  # of relevance walked at a time, at most
SHARE = 400 << 20  # bytes that rows walked at a time may take, at most: more is slower, the largest values leave the caches


@dataclass
class Conditioned(Walk):
    """A walk under conditions, which can stop before a layer so that others go on from there.

    Attributes
    ----------
    cut, beside : frozenset of str
        See :class:`Group`.
    until : str or None
        The value before which the walk stops; ``relevance`` then holds what has arrived.
    stopped : str or None
        The name under which that value's relevance is found there.
    since : str or None
        For a walk that goes on from there: the same name.
    """

    cut: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    until: str | None = None
    stopped: str | None = None
    since: str | None = None

    def _ahead(self) -> Sequence[Link]:
        links = super()._ahead()
        return links[next((i for i, link in enumerate(links) if link.name == self.since), 0) :]

    def _ends(self, link: Link, names: Sequence[str]) -> bool:
        """Stop before ``until``; past the others, let only relevance go on that counts."""
        if self.until in names:
            self.stopped = link.name
            return True
        if self.cut.intersection(names):
            self.relevance = {link.name: self.relevance[link.name]} if link.name in self.relevance else {}
        if self.beside.intersection(names):
            self.relevance.pop(link.name, None)
        return False


@dataclass
class Job:
    """Conditions on the samples of a batch.

    Attributes
    ----------
    ready : Prepared
    route : Route
    x : ndarray (B, ...)
    target : Target or None
        None: relevance starts from the whole value.
    start : str
        See :func:`semanticlens.attribution.attribute.starting`.
    asked : frozenset of str
        Values whose relevance is kept.
    each : int
        Conditions on each sample.
    chunk : int or None
        Rows walked at a time.
    n_threads : int
    found : dict of str to ndarray (B each, ...)
        The result.
    output, first : dict of int to ndarray
        Of each sample, the value that relevance started from, and its relevance.
    counter : Counter
    """

    ready: Prepared
    route: Route
    x: Array
    target: Target | None
    start: str
    asked: frozenset[str]
    each: int
    chunk: int | None
    n_threads: int
    found: dict[str, Array] = field(default_factory=dict)
    output: dict[int, Array] = field(default_factory=dict)
    first: dict[int, Array] = field(default_factory=dict)
    counter: Counter = field(default_factory=Counter)
    graph: dict[str, Checked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.graph = {item.node.name: item for item in self.route.graph}
        shapes = {name: self.x.shape[1:] if name == INPUT else sizes(self.graph[name]) for name in self.asked}
        total = len(self.x) * self.each
        need = total * self.x.itemsize * sum(math.prod(shape) for shape in shapes.values())
        check_bytes(need, "the relevance of all conditions", "pass fewer conditions, samples or records at a time")
        self.found = {name: np.zeros((total, *shape), self.x.dtype) for name, shape in shapes.items()}

    # ------------------------------------------------------------ one row for each sample

    def together(self, groups: Sequence[Group], paired: bool) -> Iterator[None]:
        """Walk samples side by side, each with one row; yields once per row."""
        for group in groups:
            samples = group.index if paired else range(len(self.x))
            step = min(len(samples), self.chunk or self._side_by_side())
            for i in range(0, len(samples), step):
                here = list(samples[i : i + step])
                part = group.part(range(i, i + len(here))) if paired else group
                values, start = self._forward(here)
                walk = self._walk(values, part, self.asked, release=True)
                walk.back(start)
                self._keep(walk.found, here)
                yield from (None for _ in here)

    # ------------------------------------------------------------ many rows for each sample

    def sample_by_sample(self, groups: Sequence[Group]) -> Iterator[None]:
        """Walk all conditions of each sample over one forward run; yields once per row."""
        for sample in range(len(self.x)):
            values, start = self._forward([sample])
            for group in groups:
                yield from self._conditions(sample, values, start, group)

    def _conditions(self, sample: int, values: Values, start: Mapping[str, Array], group: Group) -> Iterator[None]:
        until, places = group.until(), [sample * self.each + i for i in group.index]
        upper = self._walk(values, group.part([0]), self.asked, release=False, until=until)
        upper.back(start)
        self._keep(upper.found, places)
        rest = self.asked - upper.found.keys()
        if until is None or not rest:  # one walk is that of all
            yield from (None for _ in places)
            return
        assert upper.stopped is not None
        pending, link = upper.relevance, upper.stopped
        chosen = self._alive(group, until, link, pending, rest)
        yield from (None for _ in range(len(places) - len(chosen)))
        number = -(-len(chosen) // (self.chunk or self._fitting()))
        for j in range(number):  # of nearly equal length: a single row would not use the denominators that the others share
            here = chosen[j::number]
            walk = self._walk(values, group.part(here), rest, release=False)
            walk.since = link
            walk.back({**pending, **({link: np.repeat(pending[link], len(here), axis=0)} if link in pending else {})})
            self._keep(walk.found, [places[i] for i in here])
            yield from (None for _ in here)

    def _alive(self, group: Group, until: str, link: str, pending: Mapping[str, Array], rest: frozenset[str]) -> list[int]:
        """Conditions that leave something of the layer's relevance: the others' rows stay 0, unless there is more to them."""
        every = list(range(len(group.index)))
        others = (pending.keys() - {link}) & self.route.wanted
        if (others and until not in group.cut) or rest & {until, link} or link not in pending:
            return every
        layer = next(masks for masks in group.masks if masks[0].value == until)
        there, alive = pending[link] != 0, []
        for i in every:
            if (rows(layer[i : i + 1], self.graph) & there).any():
                alive.append(i)
        return alive

    # ------------------------------------------------------------ parts

    def _forward(self, samples: Sequence[int]) -> tuple[Values, dict[str, Array]]:
        values = run_forward(self.ready.net, self.route, self.x[samples], self.n_threads)
        output = values.arrays[self.route.of]
        target = _of_samples(self.target, samples, len(self.x))
        first = np.array(output) if target is None else starting(output, target, self.start)
        for i, sample in enumerate(samples):
            self.output[sample], self.first[sample] = np.array(output[i]), np.array(first[i])
        return values, {self.route.of: first}

    def _walk(self, values: Values, group: Group, wrt: frozenset[str], *, release: bool, until: str | None = None) -> Conditioned:
        return Conditioned(
            self.ready.net,
            values,
            wrt,
            self.n_threads,
            release,
            group.hooks(self.graph),
            counter=self.counter,
            cut=group.cut,
            beside=group.beside,
            until=until,
        )

    def _keep(self, found: Mapping[str, Array], places: Sequence[int]) -> None:
        for name, r in found.items():
            self.found[name][list(places)] = r  # one row stands for all where conditions made no difference

    def _side_by_side(self) -> int:
        """Samples whose forward run and walk go into the memory there is."""
        sizes_of = {INPUT: math.prod(self.x.shape[1:]), **{name: math.prod(sizes(item)) for name, item in self.graph.items()}}
        kept = sum(sizes_of[name] for name in self.route.keep | {self.route.of, INPUT}) + 4 * max(sizes_of.values())
        budget = min(4 * SHARE, allowed()[0] // 4)
        return int(max(1, min(ROWS, budget // (kept * self.x.itemsize))))

    def _fitting(self) -> int:
        """Rows of relevance that go into the memory there is."""
        largest = max(math.prod(sizes(item)) for item in self.route.graph)
        budget = min(SHARE, allowed()[0] // 4)
        return int(max(2, min(ROWS, budget // max(1, 4 * largest * self.x.itemsize))))


def _of_samples(target: Target | None, samples: Sequence[int], total: int) -> Target | None:
    """The part of a target that belongs to some samples."""
    if target is None or callable(target) or np.ndim(target) == 0:
        return target
    given = np.asarray(target)
    return given if len(given) != total else given[list(samples)]
