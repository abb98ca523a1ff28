"""What components do to classes: measured by taking them out, not read off their activations.

A label says what a component's examples show, and relevance says what a network's answer can be attributed to. Neither is an
experiment: where only ships have a watermark, a component for ships and one for watermarks have the same examples. Here
the network is run with and without the component, on the same pictures, and what changes is its effect. With pairs of pictures that
differ in one thing only, the experiment goes the other way as well: which components answer to that thing, and how much of
what it does to a class passes through them.

The value of a class is its log odds, ``z_y - log sum of exp(z_j) over the other classes``: what is added to all logits alike does
not count. Effects of several components do not add up where they stand in for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.data.batches import Transform, network_inputs
from semanticlens.data.dataset import Dataset
from semanticlens.lens.results import number, text_table
from semanticlens.nn import edit

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["Answers", "Effects", "answers", "effects", "log_odds"]

F64 = NDArray[np.float64]
HOW = ("zero", "mean")
SHOWN = 20


def log_odds(z: ArrayLike) -> F64:
    """``z_y - log sum of exp(z_j), j != y``, for logits or log probabilities (B, Y) of at least two classes."""
    wide = np.asarray(z, np.float64)
    rows, best = np.arange(len(wide)), wide.argmax(axis=1)
    top = wide[rows, best][:, None]
    e = np.exp(wide - top)
    others = top + np.log(np.maximum(e.sum(axis=1, keepdims=True) - e, 1e-300))
    apart = wide.copy()  # the largest is left out, not taken away: no digits are lost where it stands alone
    apart[rows, best] = -np.inf
    second = apart.max(axis=1)
    others[rows, best] = second + np.log(np.exp(apart - second[:, None]).sum(axis=1))
    result: F64 = wide - others
    return result


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Effects:
    """What taking components out does to classes.

    Attributes
    ----------
    components : tuple of (layer, int)
        C of them.
    classes : tuple of int
        Y of them, as the network counts its outputs.
    own, others : ndarray (C, Y), float64
        Mean over the pictures of class y, and over all others, of the log odds of y with the component less those without it: above 0 it
        speaks for the class. NaN where there are no pictures.
    own_error, others_error : ndarray (C, Y), float64
        Standard errors of these means; NaN below two pictures.
    counts : ndarray (Y,), int64
        Pictures of each class.
    n : int
        All pictures.
    how : {"zero", "mean"}
        What was left in a component's place: 0, or its mean over the pictures.
    class_names : tuple of str, or None
    """

    components: tuple[tuple[str, int], ...]
    classes: tuple[int, ...]
    own: F64
    others: F64
    own_error: F64
    others_error: F64
    counts: NDArray[np.int64]
    n: int
    how: str
    class_names: tuple[str, ...] | None = field(default=None, repr=False)

    def of(self, layer: str, component: int) -> int:
        """The row of a component."""
        if (layer, component) not in self.components:
            raise KeyError(f"component {component} of {layer!r} was not measured: pass it among components")
        return self.components.index((layer, component))

    def name(self, place: int) -> str:
        """Of the class in a column."""
        number_of = self.classes[place]
        return str(number_of) if self.class_names is None else self.class_names[number_of]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "how": self.how,
            "n": self.n,
            "classes": [
                {"class": y, "name": self.name(i), "pictures": int(self.counts[i])} for i, y in enumerate(self.classes)
            ],
            "components": [
                {
                    "layer": layer,
                    "component": k,
                    "own": [number(v) for v in self.own[c]],
                    "own_error": [number(v) for v in self.own_error[c]],
                    "others": [number(v) for v in self.others[c]],
                    "others_error": [number(v) for v in self.others_error[c]],
                }
                for c, (layer, k) in enumerate(self.components)
            ],
        }

    def __repr__(self) -> str:
        rows = [
            [layer, k, self.name(y), self.own[c, y], self.own_error[c, y], self.others[c, y], self.others_error[c, y]]
            for y in range(len(self.classes))
            for c, (layer, k) in enumerate(self.components)
        ]
        head = f"log odds with less without each component ({self.how} in its place), {self.n} pictures"
        return head + "\n" + text_table(["layer", "component", "class", "own", "error", "others", "error"], rows, SHOWN)


def effects(
    net: Network,
    images: Dataset | ArrayLike,
    components: Iterable[tuple[str, int]],
    *,
    classes: Sequence[int] | None = None,
    targets: ArrayLike | None = None,
    how: str = "zero",
    transform: Transform | None = None,
    batch_size: int = 32,
    n_threads: int | None = None,
    progress: bool = False,
) -> Effects:
    """Take components out one at a time and see what becomes of classes.

    Each batch runs once; for every component only what comes after its layer runs again.

    Parameters
    ----------
    net : Network
        Ends in logits, or in a softmax.
    images : Dataset, or array_like (n, ...) float32
        Pictures, or inputs as the network takes them.
    components : iterable of (layer, int)
    classes : sequence of int, optional
        Outputs of the network; all of them if left out.
    targets : array_like (n,) of int, optional
        Class of each picture, -1 for none; those of the data set if left out.
    how : {"zero", "mean"}
        Put 0 in a component's place, or its mean over all pictures and places (which costs one more pass).
    transform : callable, optional
        Picture -> network input, instead of ``net.preprocess``.
    batch_size : int
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Effects

    Raises
    ------
    DataError, ValueError, LayerNotFoundError
        For components, classes or pictures that do not fit.
    """
    if how not in HOW:
        raise ValueError(f"how={how!r}: must be one of {', '.join(map(repr, HOW))}")
    chosen = check_components(net, components)
    wanted = _classes(net, classes)
    labels = sample_labels(images, targets)
    threads = resolve_threads(n_threads)
    given = transform if transform is not None else net.preprocess
    means = {} if how == "zero" else layer_means(net, images, chosen, given, batch_size, threads, progress)
    edits = {c: edit.ablate(c[0], component=c[1], to=means.get(c[0], "zero")) for c in chosen}
    shape = (len(chosen), len(wanted))
    own, others = _Moments(shape), _Moments(shape)
    counts, n = np.zeros(len(wanted), np.int64), 0
    inputs = network_inputs(images, given, batch_size=batch_size)
    for ids, x in track(inputs, progress=progress, total=steps_of(images, batch_size), what="effects", unit="batch"):
        whole, runs = _runs(net, x, chosen, threads)
        before = whole[:, wanted]
        mine = labels[ids][:, None] == np.asarray(wanted)
        counts += mine.sum(axis=0)
        n += len(ids)
        for c, after in enumerate(runs(edits)):
            change = before - after[:, wanted]
            own.add(c, change, mine)
            others.add(c, change, ~mine)
    if not n:
        raise DataError("there are no pictures: effects are measured on pictures")
    names = getattr(images, "class_names", None) or net.labels
    return Effects(
        components=tuple(chosen),
        classes=tuple(wanted),
        own=own.mean(),
        others=others.mean(),
        own_error=own.error(),
        others_error=others.error(),
        counts=counts,
        n=n,
        how=how,
        class_names=tuple(names) if names is not None and len(names) > max(wanted) else None,
    )


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Answers:
    """Which components answer to what pairs of pictures differ in, and how much of its effect passes through them.

    Attributes
    ----------
    components : tuple of (layer, int)
    classes : tuple of int
    separation : ndarray (C,), float64
        Share of pairs in which the component is larger (its maximum over places) in the second picture; ties count half. 0.5: it does
        not answer.
    change : ndarray (C,), float64
        Mean difference of these maxima.
    through : ndarray (C, Y), float64
        Mean drop of a class's log odds in the second picture when the component alone is given the values of the first.
    through_error : ndarray (C, Y), float64
        Standard errors of these means; NaN for one pair.
    total : ndarray (Y,), float64
        Mean difference of the log odds between second and first.
    n : int
        Pairs.
    """

    components: tuple[tuple[str, int], ...]
    classes: tuple[int, ...]
    separation: F64
    change: F64
    through: F64
    through_error: F64
    total: F64
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "n": self.n,
            "classes": list(self.classes),
            "total": [number(v) for v in self.total],
            "components": [
                {
                    "layer": layer,
                    "component": k,
                    "separation": number(self.separation[c]),
                    "change": number(self.change[c]),
                    "through": [number(v) for v in self.through[c]],
                    "through_error": [number(v) for v in self.through_error[c]],
                }
                for c, (layer, k) in enumerate(self.components)
            ],
        }

    def __repr__(self) -> str:
        rows = [
            [layer, k, self.separation[c], self.change[c], *self.through[c]]
            for c, (layer, k) in enumerate(self.components)
        ]
        headers = ["layer", "component", "separation", "change", *(f"through, class {y}" for y in self.classes)]
        totals = ", ".join(f"class {y} {v:+.3f}" for y, v in zip(self.classes, self.total, strict=True))
        return f"{self.n} pairs; in all: {totals}\n" + text_table(headers, rows, SHOWN)


def answers(
    net: Network,
    without: Dataset | ArrayLike,
    with_it: Dataset | ArrayLike,
    components: Iterable[tuple[str, int]],
    *,
    classes: Sequence[int] | None = None,
    transform: Transform | None = None,
    batch_size: int = 32,
    n_threads: int | None = None,
    progress: bool = False,
) -> Answers:
    """Show the network pairs of pictures that differ in one thing.

    Parameters
    ----------
    net : Network
    without, with_it : Dataset, or array_like (n, ...) float32
        The same pictures in the same order, without and with the thing.
    components, classes, transform, batch_size, n_threads, progress
        As in :func:`effects`.

    Returns
    -------
    Answers

    Raises
    ------
    DataError, ValueError, LayerNotFoundError
        For pairs, components or classes that do not fit.
    """
    if len(without) != len(with_it) or not len(without):  # type: ignore[arg-type]
        raise DataError(
            f"without has {len(without)} pictures and with_it {len(with_it)}: pairs are needed, at least one"  # type: ignore[arg-type]
        )
    chosen, wanted, threads = check_components(net, components), _classes(net, classes), resolve_threads(n_threads)
    given = transform if transform is not None else net.preprocess
    pairs = zip(*(network_inputs(side, given, batch_size=batch_size) for side in (without, with_it)), strict=True)
    larger, change = np.zeros(len(chosen)), np.zeros(len(chosen))
    through, total, n = _Moments((len(chosen), len(wanted))), np.zeros(len(wanted)), 0
    for (ids, x), (others, y) in track(
        pairs, progress=progress, total=steps_of(without, batch_size), what="pairs", unit="batch"
    ):
        if not np.array_equal(ids, others):
            raise DataError(f"pair {int(ids[0])}: one of the two pictures could not be used")
        layers = list(dict.fromkeys(layer for layer, _ in chosen))
        first = net.run(x, record=[*layers, logits_node(net)], n_threads=threads)
        whole, runs = _runs(net, y, chosen, threads)
        total += (whole - _value(net, first[logits_node(net)]))[:, wanted].sum(axis=0)
        second = net.run(y, record=layers, n_threads=threads)
        edits = {c: edit.replace(c[0], first[c[0]], component=c[1]) for c in chosen}
        for c, after in enumerate(runs(edits)):
            layer, k = chosen[c]
            a, b = (_largest(v[layer], k) for v in (first, second))
            larger[c] += (b > a).sum() + 0.5 * (b == a).sum()
            change[c] += float((b - a).sum(dtype=np.float64))
            through.add(c, (whole - after)[:, wanted], np.ones((len(ids), len(wanted)), bool))
        n += len(ids)
    return Answers(
        components=tuple(chosen),
        classes=tuple(wanted),
        separation=larger / n,
        change=change / n,
        through=through.mean(),
        through_error=through.error(),
        total=total / n,
        n=n,
    )


# ---------------------------------------------------------------- running


def _runs(net: Network, x: NDArray[np.float32], chosen: Sequence[tuple[str, int]], n_threads: int) -> tuple[F64, Any]:
    """The values of all classes (B, Y), and a function that gives those under each component's edit, one after the other."""
    layers = list(dict.fromkeys(layer for layer, _ in chosen))
    last = logits_node(net)
    beside = {layer: net.frontier(layer, last) for layer in layers}
    needed = dict.fromkeys(name for layer in layers for name in (layer, *beside[layer]) if name != "input")
    values: dict[str, Any] = {**net.run(x, record=[*needed, last], n_threads=n_threads), "input": x}

    def edited(edits: dict[tuple[str, int], edit.Edit]) -> Iterator[F64]:
        for component in chosen:
            layer = component[0]
            given = {name: values[name] for name in beside[layer]}
            after = net.run_from(layer, values[layer], last, given=given, edits=[edits[component]], n_threads=n_threads)
            yield _value(net, after[last])

    return _value(net, values[last]), edited


def steps_of(images: Any, batch_size: int) -> int:
    """Batches that ``images`` make."""
    return -(-len(images) // max(1, batch_size))


def logits_node(net: Network) -> str:
    """The node that gives logits: the output, or what its softmax is of."""
    node = next(node for node in net.nodes if node.name == net.output)
    return node.inputs[0] if node.op == "softmax" else node.name


def _value(net: Network, logits: NDArray[np.float32]) -> F64:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise DataError(
            f"network {net.name!r} gives {logits.shape[1:]} for each picture: effects need at least two classes"
        )
    return log_odds(logits)


def _largest(values: NDArray[np.float32], component: int) -> NDArray[np.float32]:
    """(B,): the largest value of a component over all places."""
    if values.ndim == 2:
        return np.asarray(values[:, component])
    own = values[:, component] if values.ndim == 4 else values[..., component]
    return np.asarray(own.reshape(len(own), -1).max(axis=1))


def layer_means(
    net: Network,
    images: Any,
    chosen: Sequence[tuple[str, int]],
    transform: Transform | None,
    batch_size: int,
    n_threads: int,
    progress: bool,
) -> dict[str, F64]:
    """Of every layer, the mean of each component over all pictures and places."""
    layers = list(dict.fromkeys(layer for layer, _ in chosen))
    sums: dict[str, F64] = {}
    n: dict[str, int] = dict.fromkeys(layers, 0)
    for _, x in track(
        network_inputs(images, transform, batch_size=batch_size), progress=progress, what="means", unit="batch"
    ):
        for layer, values in net.run(x, record=layers, n_threads=n_threads).items():
            axis = 1 if values.ndim in (2, 4) else values.ndim - 1
            over = tuple(i for i in range(values.ndim) if i != axis)
            sums[layer] = sums.get(layer, 0.0) + values.sum(axis=over, dtype=np.float64)
            n[layer] += values.size // values.shape[axis]
    return {layer: sums[layer] / n[layer] for layer in layers}


class _Moments:
    """Means and standard errors, formed in double, sample by sample of a batch."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.n, self.sum, self.squares = (np.zeros(shape) for _ in range(3))

    def add(self, row: int, values: F64, mask: NDArray[np.bool_]) -> None:
        self.n[row] += mask.sum(axis=0)
        self.sum[row] += np.where(mask, values, 0.0).sum(axis=0)
        self.squares[row] += np.where(mask, values * values, 0.0).sum(axis=0)

    def mean(self) -> F64:
        return np.where(self.n > 0, self.sum / np.maximum(self.n, 1), np.nan)

    def error(self) -> F64:
        mean = self.sum / np.maximum(self.n, 1)
        variance = np.maximum(self.squares - self.n * mean * mean, 0) / np.maximum(self.n - 1, 1)
        return np.where(self.n > 1, np.sqrt(variance / np.maximum(self.n, 1)), np.nan)


# ---------------------------------------------------------------- checks


def check_components(net: Network, components: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Components of a network, each once; raises DataError for one that it does not have, and for none."""
    chosen: list[tuple[str, int]] = []
    sizes = {info.name: info.shape for info in net.layers}
    for given in components:
        try:
            layer, k = given
        except (TypeError, ValueError):
            raise TypeError(f"components: {given!r} must be a pair (layer, number)") from None
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
            raise TypeError(f"components: {given!r} must be a pair (layer, number)")
        shape = sizes[net.resolve(layer)]
        size = shape[0] if len(shape) in (1, 3) else shape[-1]
        if size is not None and not 0 <= k < size:
            raise DataError(f"components: layer {layer!r} has components 0 to {size - 1}, not {k}")
        chosen.append((layer, int(k)))
    if not chosen:
        raise DataError("components is empty: name at least one, as (layer, number)")
    return list(dict.fromkeys(chosen))


def _classes(net: Network, classes: Sequence[int] | None) -> list[int]:
    count = net.output_shape[-1] or 0
    wanted = list(range(count)) if classes is None else [int(y) for y in classes]
    bad = [y for y in wanted if not 0 <= y < count]
    if bad or not wanted:
        raise DataError(f"classes={classes!r}: the network has classes 0 to {count - 1}, name at least one of them")
    return wanted


def sample_labels(images: Any, targets: ArrayLike | None) -> NDArray[np.int64]:
    """(n,): given classes, or those of the data set; -1 where there are none."""
    given = getattr(images, "labels", None) if targets is None else targets
    labels = np.full(len(images), -1) if given is None else np.asarray(given)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise DataError(
            f"targets must be whole numbers of shape ({len(images)},), not {labels.dtype} of shape {labels.shape}"
        )
    return labels.astype(np.int64)
