"""Conditional relevance: what contributed to an output through chosen channels of chosen layers.

All conditions on a sample share its forward run, the walk from the output down to the first layer where they differ, and the
denominators of the rules; from there on a condition is one row of relevance. After Achtibat et al. 2023 (Concept Relevance
Propagation); masks act on the relevance of a layer's result, before the layer's own rule.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import ConceptWarning
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.attribution.attribute import STARTS, Prepared, prepare
from semanticlens.attribution.composites import Assigned, Composite
from semanticlens.attribution.conditioned import Job, of_samples
from semanticlens.attribution.ledger import Ledger
from semanticlens.attribution.masks import At, Channels, Mask, groups, masks_of, words
from semanticlens.attribution.products import Counter
from semanticlens.nn.backward import Target
from semanticlens.nn.graph import INPUT
from semanticlens.nn.inputs import check_double, check_input

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["Conditional", "condition"]

Array = NDArray[Any]
BOOKED = 64  # rows walked at a time for a ledger


@dataclass(frozen=True, repr=False)
class Conditional:
    """What :func:`condition` returns: rows of relevance, sample by sample, in each the conditions in their order.

    Attributes
    ----------
    input : ndarray (R, ...)
        Relevance of the network's input, one row for each sample and condition.
    arrays : mapping of str to ndarray (R, ...)
        Of recorded values, by the names they were asked by; of a conditioned layer before its own mask.
    conditions : tuple
        As they were given, one mapping of layers to channels each.
    sample, row : ndarray (R,), int64
        Which sample and which condition a row belongs to.
    dead : ndarray (R,), bool
        Rows of which nothing reached the input: a condition that kills everything, or that keeps channels without relevance.
    output : ndarray (B, ...)
        The value that relevance started from.
    start : ndarray (B, ...)
        Its relevance, before any mask.
    composite : Composite
    rules : mapping of str to Assigned
    products : Counter
        Products with weights, those of the forward run apart.
    net : Network, optional
    x : ndarray (B, ...), optional
        What the network saw: for the pictures under heat maps.
    """

    input: Array
    arrays: Mapping[str, Array]
    conditions: tuple[At, ...]
    sample: NDArray[np.int64]
    row: NDArray[np.int64]
    dead: NDArray[np.bool_]
    output: Array
    start: Array
    composite: Composite
    rules: Mapping[str, Assigned]
    products: Counter
    again: Callable[[NDArray[np.int64] | None, Ledger | None, str], Array] = field(repr=False, compare=False)
    net: Network | None = field(default=None, repr=False, compare=False)
    x: Array | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.input)

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays:
            raise KeyError(f"{name!r} was not recorded: pass record=[{name!r}]")
        return self.arrays[name]

    def heatmap(self, name: str = INPUT) -> Array:
        """Relevance summed over channels (R, H, W), or over the features of tokens (R, T)."""
        r = self.input if name == INPUT else self[name]
        if r.ndim < 3:
            raise ValueError(f"the relevance of {name!r} has shape {r.shape}: there is nothing to sum over")
        return np.asarray(r.sum(axis=1 if r.ndim == 4 else -1))

    def whole(self, name: str = INPUT) -> Array:
        """Relevance of the input, or of another value, (B, ...) without any condition: one more walk."""
        return self.again(None, None, name)

    def words(self, condition: int) -> str:
        """A condition in a few words, such as "features.28 17, 40"."""
        return words(self.conditions[condition])

    def ledger(self, row: int | None = None, *, condition: int | None = None) -> Ledger:
        """Where relevance went, node by node: of one row, of all rows of one condition, or of all rows.

        Every row is walked again from the start to the input and booked in double, so what rows share counts once for each of them.
        The column ``masked`` says what conditions removed: at their layers, and with ``exclude_parallel`` on the paths beside them.
        """
        if row is not None and condition is not None:
            raise ValueError(f"row={row}, condition={condition}: choose one of them")
        rows = np.arange(len(self))
        if row is not None:
            rows = rows[[_place(row, len(self), "row")]]
        elif condition is not None:
            rows = np.flatnonzero(self.row == _place(condition, len(self.conditions), "condition"))
        ledger = Ledger()
        for i in range(0, len(rows), BOOKED):
            self.again(rows[i : i + BOOKED], ledger, INPUT)
        return ledger.merged()

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """The picture, its whole map, and one column per condition, sample by sample; or maps on axes of matplotlib.

        Options are those of :func:`semanticlens.plot.attribution.conditions`: ``name``, ``samples``, ``conditions``, ``over``, ...
        """
        from semanticlens.plot import attribution

        return attribution.conditions(self, ax, **options)

    def _repr_html_(self) -> str:
        from semanticlens.plot import _attribution_conditions

        return str(_attribution_conditions.html(self))

    def __repr__(self) -> str:
        return (
            f"Conditional({len(self)} rows of {len(self.conditions)} conditions on {len(self.output)} samples, "
            f"{int(self.dead.sum())} dead, composite {self.composite.name})"
        )


def condition(
    net: Network,
    x: ArrayLike,
    target: Target | None = None,
    *,
    at: At | Sequence[At] | None = None,
    each: At | None = None,
    composite: str | Composite = "epsilon_plus_flat",
    record: str | Iterable[str] = (),
    exclude_parallel: bool = False,
    paired: bool = False,
    of: str = "output",
    start: str = "value",
    dtype: str = "float32",
    chunk: int | None = None,
    n_threads: int | None = None,
    progress: bool = False,
) -> Conditional:
    """Concept relevance propagation: relevance that passes through chosen channels of chosen layers.

    Parameters
    ----------
    net : Network
    x : array_like (B, ...)
    target : int, (B,) ints, array of the output's shape, or callable
        As in :func:`semanticlens.attribute`. Left out, relevance starts from the whole value of ``of``: for an inner layer its
        activation, and the whole prediction where every condition chooses among its classes.
    at : mapping of layer to channels, or a sequence of such mappings
        One condition, or several. In a condition only the chosen channels of each named layer keep their relevance, before it passes the
        layer; several layers hold together; an empty list lets nothing through. Channels are a number, several, or a mapping of channels to
        the positions that keep relevance: flat ones, or (row, column); None for all. In tokens (T, K) the features are the channels
        and the tokens the positions.
    each : mapping of layer to channels
        One condition for each channel of each layer, in that order, all of them also under ``at``, which is then one mapping.
    composite : str or Composite
    record : str or iterable of str
        Inner values whose relevance is kept, of conditioned layers before their own mask.
    exclude_parallel : bool
        Count only relevance that passes all conditioned layers: branches beside them are cut, and layers on such branches have none.
    paired : bool
        The i-th condition for the i-th sample alone, instead of every condition for every sample.
    of : str
        The value that relevance starts from.
    start : {"value", "one", "contrastive", "relevance"}
        As in :func:`semanticlens.attribute`; "relevance", for an inner layer ``of``, starts with the relevance that it has for
        ``target`` at the output.
    dtype : {"float32", "float64"}
    chunk : int, optional
        Rows of relevance walked at a time; left out, chosen by memory. Samples under one condition are walked together as well.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Conditional

    Raises
    ------
    ValueError, TypeError
        For conditions, targets, names or shapes that do not fit; with ``exclude_parallel`` also for layers no path passes together.
    NumericalError
        If a value that relevance starts from is not finite.
    MemoryLimitError
        Before anything is allocated, if it would not fit.

    Warns
    -----
    ConceptWarning
        If nothing reaches the input under a condition of ``at``, whatever the sample, or under none of ``each``; the message names them.

    Notes
    -----
    Where every path from the output passes a layer, or with ``exclude_parallel``, the rows of all its channels sum to the relevance that
    passes the layer. Each row is what the same condition gives alone, up to rounding.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype={dtype!r}: must be 'float32' or 'float64'")
    batch = check_input(net, x) if dtype == "float32" else check_double(net, x)
    names = (record,) if isinstance(record, str) else tuple(record)
    ready = prepare(net, batch.shape[1:], composite)
    given = conditions(at, each)
    threads = resolve_threads(n_threads)
    common: dict[str, Any] = {"of": of, "start": start, "chunk": chunk, "n_threads": threads}
    job = propagate(
        ready,
        batch,
        target,
        given,
        (INPUT, *names),
        exclude_parallel=exclude_parallel,
        paired=paired,
        progress=progress,
        **common,
    )
    n, samples = job.each, np.arange(len(batch))
    reached = np.asarray(job.found[INPUT].reshape(len(batch) * n, -1).any(axis=1))
    row = samples if paired else np.tile(np.arange(n), len(batch))
    _warn_of_dead(given, row, reached, each is not None)

    def again(rows: NDArray[np.int64] | None, ledger: Ledger | None, name: str) -> Array:
        """The relevance of a value in some rows once more, booked; None: the samples without conditions."""
        which = samples if rows is None else rows // n
        at_rows: list[At] = [{}] if rows is None else [given[i] for i in row[rows]]
        begin: Target = (lambda value: value) if target is None else _rows_of(target, which, len(batch))
        walked = propagate(
            ready,
            batch[which],
            begin,
            at_rows,
            (INPUT, name),
            exclude_parallel=exclude_parallel,
            paired=rows is not None,
            ledger=ledger,
            **common,
        )
        return walked.found[ready.value(name)]

    return Conditional(
        job.found[INPUT],
        {name: job.found[ready.value(name)] for name in names},
        given,
        np.repeat(samples, n),
        row,
        np.logical_not(reached),
        np.stack([job.output[i] for i in range(len(batch))]),
        np.stack([job.first[i] for i in range(len(batch))]),
        ready.composite,
        ready.chosen,
        job.counter,
        again,
        net,
        batch,
    )


def _warn_of_dead(given: Sequence[At], row: NDArray[np.int64], reached: Array, one_by_one: bool) -> None:
    """Say which conditions leave nothing; of channels one by one, many often do."""
    alive = set(row[reached].tolist())
    dead = [i for i in range(len(given)) if i not in alive]
    if not dead or not len(row) or (one_by_one and alive):
        return
    named = "; ".join(f"{i} ({words(given[i])})" for i in dead[:5])
    more = f" and {len(dead) - 5} more" if len(dead) > 5 else ""
    warnings.warn(
        f"no relevance reaches the input under condition{'s' * (len(dead) > 1)} {named}{more}: the rows are 0 and marked in .dead; "
        "record= the layer and choose channels that have relevance there, .ledger(row) says where it ended",
        ConceptWarning,
        stacklevel=3,
    )


def _rows_of(target: Target, which: NDArray[np.int64], total: int) -> Target:
    """A target with one entry per sample, for rows."""
    chosen = of_samples(target, which.tolist(), total)
    assert chosen is not None
    return chosen


def _place(number: int, total: int, what: str) -> int:
    try:
        i = operator.index(number)
    except TypeError:
        raise TypeError(f"{what}={number!r}: must be a whole number") from None
    if not -total <= i < total:
        raise IndexError(f"{what}={i}: there are {total}")
    return i % total


def conditions(at: At | Sequence[At] | None, each: At | None) -> tuple[At, ...]:
    """All conditions, in order.

    Raises
    ------
    TypeError, ValueError
        If there are none, or ``each`` meets several.
    """
    several = at is not None and not isinstance(at, Mapping)
    if several and (isinstance(at, str) or not isinstance(at, Iterable)):
        raise TypeError(f"at={at!r}: must map layers to channels, or be a sequence of such mappings")
    given: tuple[Any, ...] = tuple(at) if several else (at,) if at is not None else ()  # type: ignore[arg-type]
    given = tuple(_kept(one) for one in given)
    if each is None:
        if not given:
            raise ValueError("there is no condition: pass at={layer: channels}, or each={layer: channels}")
        return given
    if several:
        raise ValueError("each goes with one mapping in at, not with several: list all conditions in at")
    if not isinstance(each, Mapping):
        raise TypeError(f"each={each!r}: must map layers to channels")
    common: At = given[0] if given else {}
    made: list[At] = []
    for layer, channels in each.items():
        if layer in common:
            raise ValueError(f"layer {layer!r} is in at and in each")
        made += [{**common, layer: one} for one in _one_by_one(channels)]
    if not made:
        raise ValueError("each names no channel")
    return tuple(made)


def _kept(at: Any) -> Any:
    """A condition whose channels can be read more than once."""
    if not isinstance(at, Mapping) or not any(isinstance(channels, Iterator) for channels in at.values()):
        return at
    return {layer: list(channels) if isinstance(channels, Iterator) else channels for layer, channels in at.items()}


def _one_by_one(channels: Channels) -> list[Channels]:
    if isinstance(channels, Mapping):
        return [{channel: place} for channel, place in channels.items()]
    if isinstance(channels, (int, np.integer)):
        return [[int(channels)]]
    if isinstance(channels, str):
        raise TypeError(f"channels must be whole numbers, not {channels!r}")
    return [[channel] for channel in channels]


def propagate(
    ready: Prepared,
    x: Array,
    target: Target | None,
    given: Sequence[At],
    wrt: Sequence[str],
    *,
    exclude_parallel: bool = False,
    paired: bool = False,
    of: str = "output",
    start: str = "value",
    chunk: int | None = None,
    n_threads: int = 1,
    progress: bool = False,
    ledger: Ledger | None = None,
) -> Job:
    """:func:`condition` for a prepared network and a checked batch; ``wrt`` are the values asked for, "input" among them or not."""
    if paired and len(given) != len(x):
        raise ValueError(f"paired=True takes one condition for each of the {len(x)} samples, and there are {len(given)}")
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"chunk={chunk!r}: must be a whole number of at least 1")
    graph = {item.node.name: item for item in ready.graph}
    masks = [masks_of(at, ready.value, graph, "the condition" if len(given) == 1 else f"condition {i}") for i, at in enumerate(given)]
    end, through, target = _beginning(ready, target, of, start, masks)
    asked = frozenset(ready.value(name) for name in wrt)
    passed = dict.fromkeys((*asked, *(mask.value for one in masks for mask in one), *((through,) if through else ())))
    route = ready.route(end, tuple(passed))
    job = Job(
        ready,
        route,
        x,
        target,
        "value" if start == "relevance" else start,
        asked,
        1 if paired else len(given),
        chunk,
        n_threads,
        ledger,
    )
    parts = groups(masks, route.graph, through, exclude_parallel)
    work = job.together(parts, paired) if job.each == 1 else job.sample_by_sample(parts)
    for _ in track(work, progress=progress, total=len(x) * job.each, what="condition", unit="row"):
        pass
    return job


def _beginning(
    ready: Prepared, target: Target | None, of: str, start: str, masks: Sequence[tuple[Mask, ...]]
) -> tuple[str, str | None, Target | None]:
    """Where walks begin, the value that they have to pass, and the target; a target of None is the whole value."""
    if start not in (*STARTS, "relevance"):
        raise ValueError(f"start={start!r}: must be one of {', '.join((*STARTS, 'relevance'))}")
    end, output = ready.value(of), ready.value("output")
    if start == "relevance":
        if end == output or target is None:
            raise ValueError("start='relevance' takes an inner layer in of, and the target at the output that it has relevance for")
        return output, end, target
    if target is None and end == output and not all(any(mask.value == output for mask in one) for one in masks):
        raise ValueError(
            "target is missing: pass a class number, one per sample, an array of the output's shape, or a function of the output; "
            "or choose classes in every condition by at={'output': [...]}"
        )
    if target is None and start != "value":
        raise ValueError(f"start={start!r} takes a target; without one relevance starts from the value itself")
    return end, None, target
