"""Relevance walked backwards through a network, node by node.

The forward run keeps what the rules on the way read and nothing else; a value is let go when the walk has passed it.
Where a value has several names (a convolution with its ReLU merged into it), its relevance is found under each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import NumericalError, UnsupportedOperationError
from semanticlens._kernels import nn as forward_kernels
from semanticlens.attribution import elsewhere, linear
from semanticlens.attribution.composites import GROUPS, Assigned
from semanticlens.attribution.elsewhere import BOUNDED, Spot
from semanticlens.attribution.ledger import Entry, Ledger
from semanticlens.attribution.products import Counter, Products
from semanticlens.attribution.rules import (
    LINEAR,
    AlphaBeta,
    Attention,
    ConstantScale,
    Epsilon,
    Gamma,
    Gradient,
    Norm,
    Pass,
    PlainGamma,
    Product,
    Rule,
    SignalTakesAll,
    ZPlus,
)
from semanticlens.nn.graph import INPUT, Checked, all_finite
from semanticlens.nn.memory import check_bytes
from semanticlens.nn.segments import Double, Forward, Link, Single

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["Hook", "Route", "Values", "Walk", "plan", "run_forward"]

Array = NDArray[Any]
Hook = Callable[[Array], Array]
NOT_NEGATIVE = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "abs", "exp", "sqrt", "softplus"})
KEEP_SIGN = GROUPS["move"] - {"pad_axes"} | GROUPS["max"] | GROUPS["pool"] | {"add", "mul"}
TIMES_INPUT = (Epsilon, Norm, ZPlus, AlphaBeta, Gamma, PlainGamma, Attention, ConstantScale)  # 0 where the input is


@dataclass(frozen=True)
class Route:
    """What a walk passes and reads: fixed by graph, rules and names, not by values.

    Attributes
    ----------
    graph : tuple of Checked
        The nodes that the start needs.
    chosen : mapping of str to Assigned
    of : str
        Where relevance starts.
    asked : frozenset of str
        Values whose relevance is asked for.
    keep : frozenset of str
        Values that some rule reads.
    apart : frozenset of str
        Values that are computed as they are, not merged into others.
    result : mapping of str to str
        Node -> the value that stands for its result: its own, or its ReLU's where relevance is 0 wherever that is.
    wanted : frozenset of str
        Values that relevance passes.
    gates : mapping of str to int
        Product -> the input that is its gate.
    positive : frozenset of str
        Values that are never negative, whatever the input.
    """

    graph: tuple[Checked, ...]
    chosen: Mapping[str, Assigned]
    of: str
    asked: frozenset[str]
    keep: frozenset[str]
    apart: frozenset[str]
    result: Mapping[str, str]
    wanted: frozenset[str]
    gates: Mapping[str, int]
    positive: frozenset[str]


def plan(
    graph: Sequence[Checked],
    chosen: Mapping[str, Assigned],
    of: str,
    wrt: Sequence[str],
    stops: frozenset[str] = frozenset(),
) -> Route:
    """Which nodes relevance passes from ``of`` to the values ``wrt``, and what they read.

    ``stops`` are values where something is done to relevance, so that it need not vanish with the value any more.
    """
    needed, path = {of}, []
    for item in reversed(graph):
        if item.node.name in needed:
            needed.update(item.node.inputs)
            path.append(item)
    path.reverse()
    for name in wrt:
        if name not in needed:
            raise ValueError(
                f"{of!r} does not depend on {name!r}, so no relevance gets there; name a value that comes before it"
            )
    wanted = _wanted(path, wrt)
    users: dict[str, list[Checked]] = {}
    for item in path:
        for source in set(item.node.inputs):
            users.setdefault(source, []).append(item)
    vanishing = _vanishing(path, chosen, users, of)
    keep: set[str] = set()
    apart, result = set(stops), dict[str, str]()
    for item in path:
        name = item.node.name
        if item.op.name in LINEAR and any(user.op.name == "add" for user in users.get(name, ())):
            apart.add(name)
        _read(item, chosen, users, vanishing, wanted, keep, apart, result)
    return Route(
        graph=tuple(path),
        chosen=chosen,
        of=of,
        asked=frozenset(wrt),
        keep=frozenset(keep),
        apart=frozenset(apart),
        result=result,
        wanted=wanted,
        gates=_gates(path),
        positive=_positive(path),
    )


def _wanted(path: Sequence[Checked], wrt: Sequence[str]) -> frozenset[str]:
    wanted = set(wrt)
    for item in path:
        if item.op.name != "constant" and any(source in wanted for source in item.node.inputs):
            wanted.add(item.node.name)
    return frozenset(wanted)


def _read(
    item: Checked,
    chosen: Mapping[str, Assigned],
    users: Mapping[str, Sequence[Checked]],
    vanishing: frozenset[str],
    wanted: frozenset[str],
    keep: set[str],
    apart: set[str],
    result: dict[str, str],
) -> None:
    """Note what the rule of one node reads."""
    name, rule = item.node.name, chosen[item.node.name].rule
    if name not in wanted or not any(source in wanted for source in item.node.inputs):
        return
    behind = users.get(name, ())
    merged = behind[0] if len(behind) == 1 and behind[0].op.name in GROUPS["activation"] else None
    if merged is not None and not isinstance(chosen[merged.node.name].rule, Pass):
        apart.add(name)
        merged = None
    if item.op.name in LINEAR and isinstance(rule, linear.RULES):
        reads = {"inputs", "output"} if isinstance(rule, linear.READS_RESULT) else {"inputs"}
    elif isinstance(rule, Gradient):
        reads = set(item.op.keeps)
    else:
        reads = set(elsewhere.needs(rule, item))
    if "inputs" in reads:
        keep.update(item.node.inputs)
    if "output" in reads:
        stands = name
        fused = merged is not None and merged.op.name == "relu" and name not in apart and item.op.fuses_activation
        if fused and merged is not None and merged.node.name in vanishing:
            stands = merged.node.name
        keep.add(stands)
        result[name] = stands


def _vanishing(
    path: Sequence[Checked], chosen: Mapping[str, Assigned], users: Mapping[str, Sequence[Checked]], of: str
) -> frozenset[str]:
    """Values whose relevance is 0 wherever they are, because every rule behind them multiplies by them."""
    result: set[str] = set()
    for item in reversed(path):
        name = item.node.name
        if name == of:
            continue
        if all(_vanishes(user, chosen[user.node.name].rule, result) for user in users.get(name, ())):
            result.add(name)
    return frozenset(result)


def _vanishes(user: Checked, rule: Rule, result: set[str]) -> bool:
    if user.op.name == "local_response_norm" and isinstance(rule, ConstantScale):  # hands relevance on
        return user.node.name in result
    if isinstance(rule, TIMES_INPUT):
        return True
    moves = user.op.name in GROUPS["move"] | GROUPS["max"] and isinstance(rule, (Gradient, SignalTakesAll))
    return (moves or (user.op.name == "relu" and isinstance(rule, Pass))) and user.node.name in result


def _gates(path: Sequence[Checked]) -> dict[str, int]:
    """Which factor of each product is the gate (or the attention weights); absent where no factor is told apart."""
    shapes = {item.node.name: item.shape for item in path}
    ops = {item.node.name: item for item in path}
    scores = _scores(path, ops)
    result = {}
    for item in path:
        if item.op.name not in ("matmul", "mul"):
            continue
        sources = item.node.inputs
        if item.op.name == "matmul":  # weights of attention; without a softmax, the factors that a feature map made
            tests = [frozenset({"softmax"}), frozenset() if item.node.name in scores else GROUPS["activation"]]
        else:  # what is bounded, else what is bent
            tests = [BOUNDED, GROUPS["activation"] - GROUPS["relu"]]
        for kinds in tests:
            found = [_comes_from(source, ops, kinds) for source in sources]
            if found[0] != found[1]:
                result[item.node.name] = found.index(True)
                break
        else:
            repeated = [shapes.get(source) != item.shape for source in sources]
            if item.op.name == "mul" and repeated[0] != repeated[1]:  # a hard sigmoid, written out
                at = repeated.index(True)
                if _comes_from(sources[at], ops, GROUPS["activation"], through=GROUPS["move"] | GROUPS["scale"]):
                    result[item.node.name] = at
    return result


def _scores(path: Sequence[Checked], ops: Mapping[str, Checked]) -> set[str]:
    """Products of queries and keys: what a softmax is of, moved, scaled, shifted or masked on the way."""
    result: set[str] = set()
    ahead = [source for item in path if item.op.name == "softmax" for source in item.node.inputs]
    between = GROUPS["move"] | GROUPS["scale"] | GROUPS["sum"] | {"div", "mul"}
    while ahead:
        name = ahead.pop()
        if name not in ops or name in result:
            continue
        result.add(name)
        if ops[name].op.name in between:
            ahead += ops[name].node.inputs
    return result


def _positive(path: Sequence[Checked]) -> frozenset[str]:
    result: set[str] = set()
    for item in path:
        op, inputs = item.op.name, item.node.inputs
        kept = op in KEEP_SIGN and (op != "pad" or item.attrs.get("value", 0) >= 0)
        if op in NOT_NEGATIVE or (kept and all(source in result for source in inputs)):
            result.add(item.node.name)
    return frozenset(result)


def _comes_from(
    name: str, ops: Mapping[str, Checked], kinds: frozenset[str] | set[str], through: frozenset[str] = GROUPS["move"]
) -> bool:
    """Whether a value is the result of one of some operations, moved perhaps."""
    while name in ops and ops[name].op.name in through and len(ops[name].node.inputs) == 1:
        name = ops[name].node.inputs[0]
    return name in ops and ops[name].op.name in kinds


# ---------------------------------------------------------------- forward


@dataclass
class Values:
    """What a forward run left for walks back.

    Attributes
    ----------
    route : Route
    links : sequence of Link
    shapes : mapping of str to shape
        With the batch in front.
    arrays : dict of str to ndarray
    denominators : dict
        Of linear layers, by node; filled where relevance has several rows per sample.
    unknown : dict
        NaN by shape, in place of values that were not kept.
    """

    route: Route
    links: Sequence[Link]
    shapes: Mapping[str, tuple[int, ...]]
    arrays: dict[str, Array]
    dtype: np.dtype[Any]
    denominators: dict[str, dict[Any, Array]] = field(default_factory=dict)
    unknown: dict[tuple[int, ...], Array] = field(default_factory=dict)


def run_forward(net: Network, route: Route, x: Array, n_threads: int) -> Values:
    """Run a checked batch and keep what the rules read.

    Raises
    ------
    MemoryLimitError
        Before anything is allocated, with the number of bytes.
    NumericalError
        If the value that relevance starts from holds NaN or infinity; the message names the first node where it does.
    """
    records = route.keep | {route.of}
    forward: Forward
    if x.dtype == np.float64:
        forward = Double(net, route.graph, x.shape[1:])
    else:
        forward = Single(net, route.graph, records, route.apart, x.shape[1:], n_threads)
    shapes = {INPUT: x.shape, **{item.node.name: (len(x), *item.shape) for item in route.graph}}
    need = sum(math.prod(shapes[name]) for name in records | {INPUT}) * x.itemsize
    check_bytes(need + 2 * x.itemsize * max(math.prod(shape) for shape in shapes.values()), "this attribution")
    values = forward.execute(0, len(forward.links), {INPUT: x}, records)
    values[INPUT] = x
    if not np.isfinite(values[route.of]).all():
        order = [item.node.name for item in route.graph if item.node.name in values]
        bad = next(name for name in order if not np.isfinite(values[name]).all())
        raise NumericalError(
            f"the value of {bad!r} holds NaN or infinity, so relevance is undefined: check the input and the parameters"
        )
    return Values(route, forward.links, shapes, values, x.dtype)


# ---------------------------------------------------------------- backward


def _finite(r: Array) -> bool:
    return all_finite(r) if r.dtype == np.float32 else bool(np.isfinite(r).all())


@dataclass
class Walk:
    """One walk back over the values of a forward run.

    Attributes
    ----------
    net : Network
    values : Values
    wrt : frozenset of str
        Values whose relevance is kept.
    n_threads : int
    release : bool
        Let values go when they are passed; off where another walk follows.
    hooks : mapping of str to callable
        What is done to the relevance of a value before it passes the node that made it: R (B n, ...) -> R (B m, ...).
    ledger : Ledger or None
    careful : bool
        Look at the relevance of every node, so that the message names the first that makes it NaN or infinite.
    """

    net: Network
    values: Values
    wrt: frozenset[str]
    n_threads: int
    release: bool = True
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    ledger: Ledger | None = None
    careful: bool = False
    found: dict[str, Array] = field(default_factory=dict)
    relevance: dict[str, Array] = field(default_factory=dict)
    counter: Counter = field(default_factory=Counter)

    def back(self, start: Mapping[str, Array]) -> None:
        """From the relevance of some values to that of ``wrt``; ``found`` holds the result.

        Raises
        ------
        NumericalError
            If some of it is NaN or infinite.
        """
        self.relevance.update(start)
        if self.ledger is not None:
            self.ledger.started += float(sum(r.sum(dtype=np.float64) for r in start.values()))
        with np.errstate(all="ignore"):
            for link in self._ahead():
                names = (link.name,) if link.name == link.head.node.name else (link.name, link.head.node.name)
                if self._ends(link, names):
                    return
                if link.name in self.relevance and link.name in self.values.route.wanted:
                    self._pass(link, names)
                if self.release:
                    self._let_go(link)
        self._finish()

    def _ahead(self) -> Sequence[Link]:
        """What the walk passes, in its order."""
        return list(reversed(self.values.links))

    def _ends(self, link: Link, names: Sequence[str]) -> bool:
        """Whether the walk ends before a link."""
        return False

    def _let_go(self, link: Link) -> None:
        """Values that nothing still to come reads: a link's own, unless it stands for the result of a node before it."""
        result, head = self.values.route.result, link.head.node.name
        if link.name == head and any(stands == head != node for node, stands in result.items()):
            return
        for name in (link.name, result.get(head, head)):
            self.values.arrays.pop(name, None)

    def _finish(self) -> None:
        if INPUT in self.relevance:
            r = self._hooked(INPUT, self.relevance.pop(INPUT))
            if INPUT in self.wrt:
                self.found[INPUT] = r
            if self.ledger is not None:
                self.ledger.arrived += float(r.sum(dtype=np.float64))
        rows = {len(r) for r in self.found.values()}
        for name in self.wrt - self.found.keys():  # nothing got there
            shape = self.values.shapes[name]
            self.found[name] = np.zeros((max(rows, default=shape[0]), *shape[1:]), self.values.dtype)
        for name, r in self.found.items():
            if not _finite(r):
                raise NumericalError(f"the relevance of {name!r} holds NaN or infinity")

    def _look(self, item: Checked, r: Array, results: Sequence[Array | None]) -> None:
        """Raise where a node made relevance that is not finite."""
        if all(result is None or _finite(result) for result in results):
            return
        rule = self.values.route.chosen[item.node.name].rule
        raise NumericalError(
            f"node {item.node.name!r}: rule {rule} makes relevance NaN or infinite, where at most {np.abs(r).max():.3g} arrived: "
            "give it a larger stabiliser, or another rule"
        )

    def _hooked(self, name: str, r: Array) -> Array:
        return self.hooks[name](r) if name in self.hooks else r

    def _pass(self, link: Link, names: Sequence[str]) -> None:
        r = self.relevance.pop(link.name)
        entry = self._entry(link, r)
        for name in names:  # the activation first, then what it is merged into
            if name in self.wrt:
                self.found[name] = r
            r = self._hooked(name, r)
        wanted = [source in self.values.route.wanted for source in link.sources]
        if entry is not None and self.hooks:
            entry.masked += entry.arrived - float(r.sum(dtype=np.float64))
        if not any(wanted[: link.own]):
            if entry is not None:
                entry.stopped += float(r.sum(dtype=np.float64))
            return
        booked = entry is not None and not isinstance(self.values.route.chosen[link.head.node.name].rule, Product)
        results = self._results(link, r, [True] * len(wanted) if booked else wanted, entry)
        if self.careful:
            self._look(link.head, r, results)
        for source, result, passes in zip(link.sources, results, wanted, strict=True):
            if result is not None and passes:
                self._arrive(source, result, entry)
            elif result is not None and entry is not None:
                entry.stopped += float(result.sum(dtype=np.float64))  # at a constant of the network

    def _entry(self, link: Link, r: Array) -> Entry | None:
        if self.ledger is None:
            return None
        given = self.values.route.chosen[link.head.node.name]
        entry = Entry(link.head.node.name, given.op, str(given.rule), float(r.sum(dtype=np.float64)))
        entry.magnitude = float(np.abs(r).sum(dtype=np.float64))
        self.ledger.entries.append(entry)
        return entry

    def _results(self, link: Link, r: Array, wanted: Sequence[bool], entry: Entry | None) -> Sequence[Array | None]:
        item, route = link.head, self.values.route
        rule = route.chosen[item.node.name].rule
        xs = [self._known(source) for source in link.sources]
        y = self._known(route.result.get(item.node.name, item.node.name))
        if item.op.name in LINEAR and isinstance(rule, linear.RULES):
            products = Products(
                item.op.name,
                link.call,
                xs[0],
                self.n_threads,
                self.counter,
                self._packed(item),
                link.sources[0] in route.positive,
            )
            kept = self.values.denominators.setdefault(item.node.name, {})
            stands = route.result.get(item.node.name, item.node.name) != item.node.name
            layer = linear.Layer(products, y, r, kept, entry, stands)
            return [self._named(item, lambda: linear.propagate(layer, rule))]
        if item.op.adjoint is None:
            raise UnsupportedOperationError(
                f"node {item.node.name!r}: operation {item.op.name!r} has no adjoint, so no relevance passes it"
            )
        ids = getattr(item.op, "ids", ())
        wanted = [w and i not in ids for i, w in enumerate(wanted)]
        spot = Spot(item, link.call, xs, y, r, wanted, route.gates.get(item.node.name), self.n_threads, entry)
        results: Sequence[Array | None] = self._named(item, lambda: elsewhere.propagate(spot, rule))
        return results

    @staticmethod
    def _named(item: Checked, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except ValueError as error:
            raise ValueError(f"node {item.node.name!r}: {error}") from None

    def _packed(self, item: Checked) -> dict[Any, Any]:
        if self.values.dtype != np.float32:
            return {}
        kept: dict[Any, Any] = self.net._prepared.setdefault(f"{item.node.name}\nrelevance", {})
        return kept

    def _known(self, name: str) -> Array:
        """A kept value, or NaN in its shape."""
        if name in self.values.arrays:
            return self.values.arrays[name]
        shape, unknown = self.values.shapes[name], self.values.unknown
        if shape not in unknown:
            unknown[shape] = np.broadcast_to(self.values.dtype.type(np.nan), shape)
        return unknown[shape]

    def _arrive(self, source: str, r: Array, entry: Entry | None) -> None:
        if entry is not None:
            entry.passed += float(r.sum(dtype=np.float64))
        before = self.relevance.get(source)
        if before is None:
            self.relevance[source] = r
            return
        if len(before) != len(r):  # one of the two was widened to several conditions
            rows = max(len(before), len(r))
            before, r = (a if len(a) == rows else np.repeat(a, rows // len(a), axis=0) for a in (before, r))
        self.relevance[source] = (
            forward_kernels.add(before, r, n_threads=self.n_threads) if r.dtype == np.float32 else before + r
        )
