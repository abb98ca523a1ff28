"""Relevance of inputs and inner values for an output: the function users call, and what it returns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import NumericalError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.attribution.composites import Assigned, Composite, preset
from semanticlens.attribution.ledger import Ledger
from semanticlens.attribution.products import Counter
from semanticlens.attribution.walk import Route, Values, Walk, plan, run_forward
from semanticlens.io import atomic_write
from semanticlens.nn.backward import Target, cotangent
from semanticlens.nn.changed import insert
from semanticlens.nn.edit import by_node
from semanticlens.nn.graph import INPUT, Checked, check_graph
from semanticlens.nn.inputs import check_double, check_input

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["Attribution", "Prepared", "attribute", "prepare", "starting"]

Array = NDArray[Any]
STARTS = ("value", "one", "contrastive")
KEPT = 8  # assignments of rules per network, and routes per assignment


@dataclass(frozen=True, repr=False)
class Attribution:
    """What :func:`attribute` returns; ``r[name]`` is the relevance of a value that was asked for.

    Attributes
    ----------
    input : ndarray (B, ...)
        Relevance of the network's input.
    output : ndarray (B, ...)
        The value that relevance started from.
    start : ndarray (B, ...)
        Its relevance.
    arrays : mapping of str to ndarray
        By the names they were asked by.
    composite : Composite
    rules : mapping of str to Assigned
        Which rule each node got, and why.
    products : Counter
        Products with weights in the walk back, those of the forward run apart.
    net : Network, optional
    x : ndarray (B, ...), optional
        What the network saw: for the pictures beside heat maps.
    """

    input: Array
    output: Array
    start: Array
    arrays: Mapping[str, Array]
    composite: Composite
    rules: Mapping[str, Assigned]
    products: Counter
    again: Callable[[], Ledger] = field(repr=False, compare=False)
    net: Network | None = field(default=None, repr=False, compare=False)
    x: Array | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays:
            raise KeyError(f"{name!r} was not recorded: pass record=[{name!r}]")
        return self.arrays[name]

    def heatmap(self, name: str = INPUT) -> Array:
        """Relevance summed over channels (B, H, W), or over the features of tokens (B, T)."""
        r = self.input if name == INPUT else self[name]
        if r.ndim < 3:
            raise ValueError(f"the relevance of {name!r} has shape {r.shape}: there is nothing to sum over")
        return np.asarray(r.sum(axis=1 if r.ndim == 4 else -1))

    def ledger(self) -> Ledger:
        """Where relevance went, node by node: the walk is run again and booked in double."""
        return self.again()

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Heat maps as a picture that notebooks show and ``.save(path)`` writes; or drawn on axes of matplotlib, which are returned.

        Options are those of :func:`semanticlens.plot.attribution.plot`: ``name``, ``samples``, ``over``, ``cmap``, ``scale``, ...
        """
        from semanticlens.plot import attribution

        return attribution.plot(self, ax, **options)

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the picture that :meth:`plot` draws (.png, .jpg, .webp), or all arrays (.npz; options are for pictures only).

        The npz file holds ``input``, ``output``, ``start``, ``relevance:NAME`` for every recorded value, and ``about``: JSON with the
        composite's name and the rule of each node.
        """
        if Path(path).suffix.lower() != ".npz":
            written: Path = self.plot(**options).save(path)
            return written
        if options:
            raise TypeError(f"{', '.join(options)}: options are for pictures, not for {os.fspath(path)!r}")
        about = {"composite": self.composite.name, "rules": {a.node: str(a.rule) for a in self.rules.values()}}
        arrays = {"input": self.input, "output": self.output, "start": self.start, "about": np.array(json.dumps(about))}
        with atomic_write(path) as file:
            np.savez_compressed(file, **arrays, **{f"relevance:{name}": a for name, a in self.arrays.items()})  # type: ignore[arg-type]
        return Path(path)

    def __repr__(self) -> str:
        kept = f", recorded {', '.join(self.arrays)}" if self.arrays else ""
        return f"Attribution({self.composite.name!r}, input {self.input.shape}{kept})"

    def _repr_html_(self) -> str:
        from semanticlens.plot import _attribution_html

        return str(_attribution_html.attribution(self))


@dataclass(frozen=True)
class Prepared:
    """A network, an input's shape and rules, ready to walk.

    Attributes
    ----------
    graph : sequence of Checked
        With edits as nodes, and shapes that hold no None.
    chosen : mapping of str to Assigned
    names : mapping of str to str
        Value asked for -> the node that holds it.
    routes : dict
        Those that were planned, kept from run to run.
    """

    net: Network
    graph: Sequence[Checked]
    chosen: Mapping[str, Assigned]
    composite: Composite
    names: Mapping[str, str]
    routes: dict[Any, Route] = field(default_factory=dict, repr=False, compare=False)

    def value(self, name: str) -> str:
        """The node that holds a value, its edits applied."""
        resolved = self.net.resolve(name)
        return self.names.get(resolved, resolved)

    def route(self, of: str, wrt: Sequence[str], stops: frozenset[str] = frozenset()) -> Route:
        """See :func:`semanticlens.attribution.walk.plan`."""
        key = (of, tuple(wrt), stops)
        route = self.routes.get(key)
        if route is None:
            route = plan(self.graph, self.chosen, of, wrt, stops)
            with self.net._lock:
                if len(self.routes) >= KEPT:
                    self.routes.pop(next(iter(self.routes)))
                self.routes[key] = route
        return route


def prepare(net: Network, shape: tuple[int, ...], composite: str | Composite) -> Prepared:
    """Choose rules for a network at one size of its input.

    Raises
    ------
    ValueError
        If the composite does not decide about every node, or does not fit.
    """
    key = (composite if isinstance(composite, str) else id(composite), shape)
    kept = net._assignments.get(key)
    if kept is None:
        kept = _assigned(net, shape, preset(composite))
        with net._lock:
            if len(net._assignments) >= KEPT:
                net._assignments.pop(next(iter(net._assignments)))
            net._assignments[key] = kept  # with the composite, so that its id stays its own
    graph, names, chosen, rules, routes = kept
    return Prepared(net, graph, rules, chosen, names, routes)


def _assigned(net: Network, shape: tuple[int, ...], chosen: Composite) -> tuple[Any, ...]:
    """The graph of a size with its edits, the names in it, the composite, the rule of each node, and no route yet."""
    graph: Sequence[Checked] = net._graph if None not in net.input_shape else check_graph(net.nodes, net.params, shape)
    names: dict[str, str] = {}
    if net.edits:
        graph, names = insert(graph, by_node(net.edits, net.resolve), shape)
    return graph, names, chosen, chosen.assign(net, graph), {}


def starting(value: Array, target: Target | None, start: str) -> Array:
    """Relevance of the output: of class ``target`` its value, or 1; or, contrastive, 1 there and -1 / (C - 1) at the others.

    A target that is an array or a function of the output is taken as the relevance itself.
    """
    if start not in STARTS:
        raise ValueError(f"start={start!r}: must be one of {', '.join(STARTS)}")
    given = cotangent(target, value)
    whole = not callable(target) and np.asarray(target).dtype.kind in "iu"
    if not whole or start == "one":
        return given
    if start == "value":
        return given * value
    return np.asarray(np.where(given != 0, given, value.dtype.type(-1 / max(1, value.shape[1] - 1))))


def attribute(
    net: Network,
    x: ArrayLike,
    target: Target | None = None,
    *,
    composite: str | Composite = "epsilon_plus_flat",
    record: str | Iterable[str] = (),
    of: str = "output",
    start: str = "value",
    dtype: str = "float32",
    batch_size: int | None = None,
    n_threads: int | None = None,
    progress: bool = False,
) -> Attribution:
    """Layer-wise relevance propagation: how much each value contributed to an output.

    Parameters
    ----------
    net : Network
        Edits that it carries are part of it. Batch normalisation that can be folded into the layer before it should be: see
        :func:`semanticlens.nn.fold.fold_batch_norm`; what is not folded gets a rule of its own.
    x : array_like (B, ...)
    target : int, (B,) ints, array of the output's shape, or callable
        The class, one per sample; or the relevance of the output itself, or a function of the output that gives it.
    composite : str or Composite
        Which rule each node gets; names are in ``semanticlens.attribution.composites.PRESETS``.
    record : str or iterable of str
        Inner values whose relevance is kept.
    of : str
        The value that relevance starts from.
    start : {"value", "one", "contrastive"}
        For a class: its value (relevance then sums to what the network said), 1, or 1 against -1 / (C - 1) at each other.
    dtype : {"float32", "float64"}
        float64 runs the plain NumPy form of everything: for verification.
    batch_size : int, optional
        Samples at a time; all at once if left out.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Attribution

    Raises
    ------
    ValueError, TypeError
        For a target, name, composite or shape that does not fit.
    NumericalError
        If the value that relevance starts from, or relevance itself, is not finite; the message names the node.
    MemoryLimitError
        Before anything is allocated, if it would not fit.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype={dtype!r}: must be 'float32' or 'float64'")
    batch = check_input(net, x) if dtype == "float32" else check_double(net, x)
    threads = resolve_threads(n_threads)
    if not isinstance(record, Iterable):
        raise TypeError(f"record={record!r}: must be a name or several of them")
    names = (record,) if isinstance(record, str) else tuple(record)
    ready = prepare(net, batch.shape[1:], composite)
    values = {name: ready.value(name) for name in names}
    route = ready.route(ready.value(of), (INPUT, *values.values()))
    step = len(batch) if batch_size is None else _positive(batch_size)
    parts = []
    for i in track(range(0, len(batch), step), progress=progress, what="attribute", unit="batch"):
        here = _of_batch(target, i, i + step, len(batch))
        parts.append(_one(net, route, batch[i : i + step], here, start, threads, None))
    found = {
        name: np.concatenate([part[0].found[value] for part in parts])
        for name, value in {INPUT: INPUT, **values}.items()
    }
    counter = Counter(sum(part[0].counter.forward for part in parts), sum(part[0].counter.adjoint for part in parts))

    def again() -> Ledger:
        ledger = Ledger()
        for i in range(0, len(batch), step):
            _one(net, route, batch[i : i + step], _of_batch(target, i, i + step, len(batch)), start, threads, ledger)
        return ledger.merged()

    return Attribution(
        found[INPUT],
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
        {name: found[name] for name in names},
        ready.composite,
        ready.chosen,
        counter,
        again,
        net,
        batch,
    )


def _one(
    net: Network, route: Route, x: Array, target: Target | None, start: str, n_threads: int, ledger: Ledger | None
) -> tuple[Walk, Array, Array]:
    values: Values = run_forward(net, route, x, n_threads)
    output = values.arrays[route.of]
    first = starting(output, target, start)
    walk = Walk(net, values, route.asked, n_threads, ledger=ledger)
    try:
        walk.back({route.of: first})
    except NumericalError:  # once more, to say where
        Walk(net, run_forward(net, route, x, n_threads), route.asked, n_threads, careful=True).back({route.of: first})
        raise
    return walk, output, first


def _positive(number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"batch_size={number!r}: must be a whole number of at least 1")
    return number


def _of_batch(target: Target | None, first: int, end: int, total: int) -> Target | None:
    """The part of a target that belongs to some samples."""
    if target is None or callable(target) or np.ndim(target) == 0:
        return target
    given = np.asarray(target)
    return given if len(given) != total else given[first:end]
