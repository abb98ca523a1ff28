"""Gradients: the graph walked backwards, operation by operation.

The forward run keeps only what the operations on the way read (``Op.keeps``); values are let go as soon as the walk has
passed them.  Sums of gradients at branches and the slopes of ReLUs are formed while the adjoints of convolutions and
dense layers write their results.  In segments (see :mod:`semanticlens.nn.segments`) less is kept and computed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import UnsupportedOperationError
from semanticlens._kernels import adjoint as kernels
from semanticlens._kernels import nn as forward_kernels
from semanticlens._kernels.contract import Finish
from semanticlens.nn.changed import insert
from semanticlens.nn.edit import Edit, by_node
from semanticlens.nn.graph import INPUT, Checked, check_graph, check_reached
from semanticlens.nn.inputs import check_double, check_input
from semanticlens.nn.memory import check_bytes
from semanticlens.nn.ops.back_pointwise import slope
from semanticlens.nn.segments import Double, Forward, Link, Single, Split, split

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

Array = NDArray[Any]
Target = int | ArrayLike | Callable[[Array], ArrayLike]
_CUT_OFF = {"relu": float("inf"), "relu6": 6.0}  # slope 1 where 0 < result < this, else 0


@dataclass(frozen=True)
class Gradients:
    """What :meth:`semanticlens.nn.Network.gradient` returns.

    Attributes
    ----------
    arrays : mapping of str to ndarray of shape (B, ...)
        The gradient by each value asked for, under the name it was asked by; one vector-Jacobian product per sample.
    value : ndarray of shape (B, ...)
        The value that was differentiated (the output, unless ``of`` said otherwise).
    params : mapping of str to ndarray
        Gradients by the parameters, summed over the batch; empty unless asked for.
    peak_bytes : int
        Most bytes of values, gradients and working memory that were held at a time, without the parameters.
    segments : int
        In how many segments the forward run was; all but the last were computed twice.
    """

    arrays: Mapping[str, Array]
    value: Array
    params: Mapping[str, Array]
    peak_bytes: int
    segments: int = 1

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]


@dataclass(frozen=True)
class Route:
    """What a gradient has to pass: fixed by the graph and the names, not by the values.

    Attributes
    ----------
    graph : tuple of Checked
        The nodes that the differentiated value needs.
    wanted : frozenset of str
        Values whose gradient is formed.
    keep : frozenset of str
        Values that some adjoint reads.
    """

    graph: tuple[Checked, ...]
    wanted: frozenset[str]
    keep: frozenset[str]


def plan_route(graph: Sequence[Checked], of: str, wrt: Sequence[str], params: bool) -> Route:
    """Which nodes the gradient of ``of`` by ``wrt`` (and by all parameters) passes, and what they keep.

    Raises
    ------
    ValueError
        If ``of`` does not depend on a name in ``wrt``.
    UnsupportedOperationError
        If a node on the way has no adjoint.
    """
    needed = {of}
    path = []
    for item in reversed(graph):
        if item.node.name in needed:
            needed.update(item.node.inputs)
            path.append(item)
    path.reverse()
    for name in wrt:
        if name not in needed:
            raise ValueError(f"wrt={name!r}: {of!r} does not depend on it; name a value that comes before it")
    wanted, keep = set(wrt), set[str]()
    for item in path:
        name, op = item.node.name, item.op
        own = params and bool(item.node.params)
        passed = any(_differentiable(item, i) and source in wanted for i, source in enumerate(item.node.inputs))
        if passed or own:
            wanted.add(name)
        if passed and op.adjoint is None:
            raise UnsupportedOperationError(
                f"node {name!r}: operation {op.name!r} has no adjoint, so no gradient passes it; give it one "
                "(semanticlens.nn.Op(adjoint=...)), or ask for the gradient by a value behind it"
            )
        if own and op.parameter is None:
            raise UnsupportedOperationError(
                f"node {name!r}: operation {op.name!r} has no gradient by its parameters (Op.parameter); leave out params=True"
            )
        if own or (passed and "inputs" in op.keeps):
            keep.update(item.node.inputs)
        if passed and "output" in op.keeps:
            keep.add(name)
    return Route(tuple(path), frozenset(wanted), frozenset(keep))


def _differentiable(item: Checked, position: int) -> bool:
    """False for inputs that are whole numbers (token ids)."""
    return position not in getattr(item.op, "ids", ())


class Meter:
    """Bytes held at a time."""

    def __init__(self, working: int) -> None:
        self.held = self.peak = working
        self._holders: dict[int, int] = {}

    def add(self, *arrays: Array) -> None:
        """Somebody more holds these."""
        for array in arrays:
            memory = _memory(array)
            holders = self._holders[id(memory)] = self._holders.get(id(memory), 0) + 1
            self.held += memory.nbytes if holders == 1 else 0
        self.peak = max(self.peak, self.held)

    def reach(self, more: int) -> None:
        """For a time, so much more was held."""
        self.peak = max(self.peak, self.held + more)

    def drop(self, *arrays: Array) -> None:
        """Somebody less holds these."""
        for array in arrays:
            memory = _memory(array)
            self._holders[id(memory)] -= 1
            if not self._holders[id(memory)]:
                del self._holders[id(memory)]
                self.held -= memory.nbytes


def _memory(array: Array) -> Array:
    """The array that a view looks into."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _sum(a: Array, b: Array, out: Array | None, n_threads: int) -> Array:
    if a.dtype == np.float32:
        return forward_kernels.add(a, b, out=out, n_threads=n_threads)
    return np.asarray(np.add(a, b, out=out))


@dataclass
class _Cotangent:
    """A gradient that is being summed up.  ``owned``: nobody else holds the array, so that it may be written."""

    array: Array
    owned: bool
    masked: bool = False  # the slope of the value's own activation is already in it


@dataclass
class Walk:
    """The walk back over some links: gradients that arrive, values that are kept, what has been found."""

    route: Route
    wrt: frozenset[str]
    params: bool
    n_threads: int
    meter: Meter
    shapes: Mapping[str, tuple[int, ...]]
    values: dict[str, Array]
    cotangents: dict[str, _Cotangent] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    found: dict[str, Array] = field(default_factory=dict)
    by_params: dict[str, Array] = field(default_factory=dict)
    cut_off: dict[str, float] = field(default_factory=dict)
    prepare: Callable[[Link, tuple[int, ...]], Any] = lambda link, shape: None

    def expect(self, links: Sequence[Link]) -> None:
        """Count the gradients that each value will get, and note which values come out of a ReLU."""
        for link in links:
            if link.name not in self.route.wanted:
                continue
            for source in link.sources:
                self.pending[source] = self.pending.get(source, 0) + 1
            kind = link.call.activation if link.call.activation != "none" else link.head.op.name
            if kind in _CUT_OFF and link.name not in self.wrt:
                self.cut_off[link.name] = _CUT_OFF[kind]

    def back(self, links: Sequence[Link]) -> None:
        """Pass the links from the last to the first."""
        for link in reversed(links):
            if link.name in self.route.wanted and link.name in self.cotangents:
                self._pass(link)
            self._let_go(link)

    def _let_go(self, link: Link) -> None:
        """The value of a link is not read by anything that is still to come."""
        if link.name in self.values:
            self.meter.drop(self.values.pop(link.name))

    def _pass(self, link: Link) -> None:
        arrived = self.cotangents.pop(link.name)
        grad, op, call = arrived.array, link.head.op, link.call
        if link.name in self.wrt:
            self._find(link.name, arrived)
        needed = [source in self.route.wanted and _differentiable(link.head, i) for i, source in enumerate(link.sources)]
        own = self.params and bool(link.head.node.params)
        if not own and not any(needed):  # asked for by name, and nothing behind it is
            self.meter.drop(arrived.array)
            return
        if call.activation != "none" and not arrived.masked:
            grad = self._slope(link, arrived)
        if len(needed) > link.own and needed[-1]:
            self._arrive(link.sources[-1], grad, owned=False)
        if own:
            self._parameters(link, grad)
        if op.name in _CUT_OFF and arrived.masked:
            self._arrive(link.sources[0], grad, owned=arrived.owned)
        elif any(needed[: link.own]):
            self._adjoint(link, grad, needed[: link.own])
        self.meter.drop(arrived.array)

    def _find(self, name: str, arrived: _Cotangent) -> None:
        """A gradient that was asked for; nobody may write it any more."""
        self.found[name] = arrived.array if arrived.owned else arrived.array.copy()
        self.meter.add(self.found[name])
        arrived.owned = False

    def _slope(self, link: Link, arrived: _Cotangent) -> Array:
        """The gradient before a merged activation, in place where nobody else holds the one behind it."""
        kind, saved = link.call.activation, self.values[link.name]
        if arrived.owned and arrived.array.dtype == np.float32:
            return kernels.activate(saved, arrived.array, kind, out=arrived.array, n_threads=self.n_threads)
        return slope(kind, saved, arrived.array, self.n_threads)

    def _known(self, name: str, dtype: Any) -> Array:
        """A kept value, or NaN in its shape."""
        if name in self.values:
            return self.values[name]
        return np.broadcast_to(dtype.type(np.nan), self.shapes[name])

    def _parameters(self, link: Link, grad: Array) -> None:
        op = link.head.op
        assert op.parameter is not None
        xs = [self._known(source, grad.dtype) for source in link.sources[: link.own]]
        out = self._known(link.name, grad.dtype)
        for role, array in op.parameter(link.call, xs, out, grad, self.n_threads).items():
            key = link.head.node.params.get(role)
            if key is None or array.shape != link.call.params[role].shape:
                raise ValueError(
                    f"node {link.name!r}: the parameter gradient of {op.name!r} for {role!r} has shape {array.shape}, "
                    + ("the node has no such parameter" if key is None else f"not {link.call.params[role].shape}")
                )
            self.by_params[key] = self.by_params[key] + array if key in self.by_params else array

    def _adjoint(self, link: Link, grad: Array, needed: list[bool]) -> None:
        op = link.head.op
        if op.through is not None and needed[0] and grad.dtype == np.float32 and self._hand_over(link, grad):
            return
        assert op.adjoint is not None
        xs = [self._known(source, grad.dtype) for source in link.sources[: link.own]]
        results = op.adjoint(link.call, xs, self._known(link.name, grad.dtype), grad, tuple(needed), self.n_threads)
        if len(results) < link.own:
            raise ValueError(
                f"node {link.name!r}: the adjoint of {op.name!r} gave {len(results)} arrays for {link.own} inputs"
            )
        for source, wanted, result in zip(link.sources, needed, results, strict=False):
            if wanted and result is not None:
                if result.shape != self.shapes[source] or result.dtype != grad.dtype:
                    raise ValueError(
                        f"node {link.name!r}: the adjoint of {op.name!r} gave {result.dtype} of shape {result.shape} for "
                        f"an input of shape {self.shapes[source]}"
                    )
                self._arrive(source, result, owned=not np.may_share_memory(result, grad))

    def _hand_over(self, link: Link, grad: Array) -> bool:
        """The adjoint together with the sum at the source, and with the slope of the ReLU it comes out of."""
        source = link.sources[0]
        before = self.cotangents.get(source)
        mask = self._mask(source)
        finish = None
        if before is not None or mask is not None:
            finish = Finish(
                sum=None if before is None else before.array,
                mask=mask,
                below=self.cut_off.get(source, float("inf")),
            )
        assert link.head.op.through is not None
        shape = self.shapes[source]
        result = link.head.op.through(link.call, grad, shape, self.prepare(link, shape), finish, self.n_threads)
        self.meter.add(result)
        if before is not None:
            self.meter.drop(before.array)
        self.cotangents[source] = _Cotangent(result, True, mask is not None)
        self.pending[source] -= 1
        return True

    def _mask(self, source: str) -> Array | None:
        """What the last gradient that arrives at the result of a ReLU is masked with."""
        if self.pending[source] == 1 and source in self.cut_off and source in self.values:
            return self.values[source]
        return None

    def _arrive(self, source: str, array: Array, *, owned: bool) -> None:
        before = self.cotangents.get(source)
        self.pending[source] -= 1
        if before is None:
            self.cotangents[source] = _Cotangent(array, owned)
        else:
            out = before.array if before.owned else array if owned else None
            total = _sum(before.array, array, out, self.n_threads)
            self.meter.drop(before.array)
            self.cotangents[source] = _Cotangent(total, True)
        self.meter.add(self.cotangents[source].array)


# ---------------------------------------------------------------- forward


def _prepared(net: Network, link: Link, shape: tuple[int, ...]) -> Any:
    """Parameters of a node prepared for the walk back, made once for each size of its input."""
    prepare = link.head.op.prepare_through
    if prepare is None:
        return None
    key = f"{link.head.node.name}\n{shape[1:]}"  # names of nodes hold no line break
    with net._lock:
        if key not in net._prepared:
            net._prepared[key] = prepare(link.call, shape)
        return net._prepared[key]


def gradient(
    net: Network,
    x: ArrayLike,
    target: Target | None,
    wrt: str | Iterable[str],
    of: str,
    params: bool,
    edits: Iterable[Edit],
    dtype: str,
    segments: int | str,
    n_threads: int,
) -> Gradients:
    """See :meth:`semanticlens.nn.Network.gradient`."""
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype={dtype!r}: must be 'float32' or 'float64'")
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    if not names and not params:
        raise ValueError("wrt is empty: name at least one value, or ask for params=True")
    values, end = {name: net.resolve(name) for name in names}, net.resolve(of)
    changed = by_node((*net.edits, *((edits,) if isinstance(edits, Edit) else edits)), net.resolve)
    check_reached(net._graph, changed, frozenset((end,)), (INPUT,))
    batch = check_input(net, x) if dtype == "float32" else check_double(net, x)
    graph = net._graph if None not in net.input_shape else check_graph(net.nodes, net.params, batch.shape[1:])
    if changed:  # a value is what its edits leave of it, the input what was passed
        graph, edited = insert(graph, changed, batch.shape[1:])
        values = {name: edited.get(value, value) if value != INPUT else value for name, value in values.items()}
        end = edited.get(end, end)
    with np.errstate(all="ignore"):  # what overflows is infinite, as in a run
        result = run(net, graph, batch, target, tuple(dict.fromkeys(values.values())), end, params, segments, n_threads)
    return replace(result, arrays={name: result.arrays[value] for name, value in values.items()})


def run(
    net: Network,
    graph: Sequence[Checked],
    x: Array,
    target: Target | None,
    wrt: Sequence[str],
    of: str,
    params: bool,
    segments: int | str,
    n_threads: int,
) -> Gradients:
    """The gradient for a checked batch; ``wrt`` and ``of`` are names of values in ``graph``, whose shapes hold no None."""
    route = plan_route(graph, of, wrt, params)
    apart = frozenset(wrt)
    forward: Forward
    if x.dtype == np.float64:
        forward = Double(net, route.graph, x.shape[1:])
    else:
        forward = Single(net, route.graph, route.keep | {of}, apart, x.shape[1:], n_threads)
    shapes = {INPUT: x.shape, **{item.node.name: (len(x), *item.shape) for item in route.graph}}
    cut = split(forward.links, route.keep, shapes, segments)
    _check_memory(forward, cut, shapes, route, len(x))
    whole = len(cut.bounds) == 2
    meter = Meter(forward.working(len(x)) if whole else 0)
    last = route.keep & {link.name for link in forward.links[cut.bounds[-2] :]}
    records = route.keep | {of} if whole else cut.held | last | {of}
    values = forward.execute(0, len(forward.links), {INPUT: x}, records)
    values[INPUT] = x
    value = values[of]
    meter.reach(forward.took)
    meter.add(*values.values())
    walk = Walk(route, apart, params, n_threads, meter, shapes, values, prepare=partial(_prepared, net))
    start = cotangent(target, value)
    meter.add(start)
    walk.expect(forward.links)
    walk.cotangents[of] = _Cotangent(start, True)
    for j in reversed(range(len(cut.bounds) - 1)):
        first, end = cut.bounds[j : j + 2]
        if end < len(forward.links):
            _again(walk, forward, first, end)
        walk.back(forward.links[first:end])
    if INPUT in apart:
        if INPUT not in walk.cotangents:
            raise ValueError("wrt='input': the network takes whole numbers (token ids), which have no gradient; name an inner value")
        walk._find(INPUT, walk.cotangents[INPUT])
    return Gradients(walk.found, value, walk.by_params, meter.peak, len(cut.bounds) - 1)


def _again(walk: Walk, forward: Forward, first: int, end: int) -> None:
    """Compute what the walk reads of a segment once more, unless it is held."""
    names = frozenset(link.name for link in forward.links[first:end]) & walk.route.keep - walk.values.keys()
    if names:
        found = forward.execute(first, end, walk.values, names)
        walk.meter.reach(forward.took)
        walk.meter.add(*found.values())
        walk.values.update(found)


def _check_memory(forward: Forward, cut: Split, shapes: Mapping[str, tuple[int, ...]], route: Route, batch: int) -> None:
    """Refuse before the first run: kept values, and the gradient by the largest value on the way."""
    largest = max(math.prod(shapes[name]) for name in route.wanted | {INPUT})
    need = forward.working(batch) * (len(cut.bounds) == 2) + forward.itemsize * (cut.values * batch + largest)
    remedy = "pass a smaller batch or smaller inputs" + (", or segments='auto'" if len(cut.bounds) == 2 else "")
    check_bytes(need, "this gradient", remedy)


def cotangent(target: Target | None, value: Array) -> Array:
    """What the walk begins with, in the shape and dtype of ``value``.

    Raises
    ------
    ValueError, TypeError
        If the target does not fit; the message says what would.
    """
    if callable(target):
        given = np.asarray(target(value))
        source = "what target returned"
    elif target is None:
        raise ValueError(
            "target is missing: pass a class number, one per sample, an array of the output's shape, or a function of the output"
        )
    else:
        given = np.asarray(target)
        source = "target"
    if given.dtype.kind in "iu" and given.ndim < 2 and given.shape != value.shape:
        return _one_hot(given, value)
    if given.dtype.kind != "f":
        raise TypeError(f"{source} must be whole class numbers or real numbers, not {given.dtype}")
    if given.shape != value.shape:
        raise ValueError(f"{source} has shape {given.shape}, the value that is differentiated has {value.shape}: give one number for each")
    if not np.isfinite(given).all():
        raise ValueError(f"{source} holds NaN or infinite values")
    return np.array(given, value.dtype, order="C")


def _one_hot(classes: Array, value: Array) -> Array:
    if value.ndim != 2:
        raise ValueError(
            f"target is a class number, but the value has shape {value.shape}, not (batch, classes): pass an array of that shape"
        )
    if classes.ndim == 1 and len(classes) != len(value):
        raise ValueError(f"target has {len(classes)} class numbers for {len(value)} samples")
    bad = classes[(classes < 0) | (classes >= value.shape[1])] if classes.ndim else classes.reshape(1)
    if bad.size and not 0 <= bad[0] < value.shape[1]:
        raise ValueError(f"target={int(bad[0])} is out of range: the value has classes 0 to {value.shape[1] - 1}")
    grad = np.zeros_like(value)
    grad[np.arange(len(value)), classes] = 1
    return grad


__all__ = ["Gradients", "Link", "Route", "Walk", "cotangent", "gradient", "plan_route", "run"]
