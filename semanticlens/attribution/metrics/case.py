"""What a metric looks at: a network, pictures, classes, and the maps that are judged; all of it checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, MismatchError
from semanticlens._progress import track
from semanticlens.attribution.attribute import Attribution, attribute
from semanticlens.attribution.composites import Composite, preset
from semanticlens.nn.inputs import check_input

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["Case", "Curve", "MapFunction", "Metric", "Part", "make_case", "map_function"]

Array = NDArray[Any]
MapFunction = Callable[["Network", Array, Array], ArrayLike]
"""``function(net, x, targets)`` gives the maps of a batch: (B, H, W), or (B, C, H, W) with channels as the input's."""


@dataclass(frozen=True)
class Curve:
    """Something followed step by step, for plots.

    Attributes
    ----------
    x : ndarray (K,)
    y : ndarray (B, K)
    x_label, y_label : str
    names : tuple of str
        What the steps are called, where they have names.
    """

    x: Array
    y: Array
    x_label: str
    y_label: str
    names: tuple[str, ...] = ()

    def mean(self) -> Array:
        """(K,): mean over samples, those without a value left out."""
        kept = np.isfinite(self.y)
        return np.asarray(np.where(kept, self.y, 0).sum(axis=0) / np.where(kept.any(axis=0), kept.sum(axis=0), np.nan))


@dataclass(frozen=True)
class Part:
    """What one metric found: a number per sample in each column, and curves."""

    scores: Mapping[str, Array]
    curves: Mapping[str, Curve] = field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
    """One metric with its settings."""

    @property
    def name(self) -> str:
        """How it is asked for."""

    def prepare(self, case: Case) -> int:
        """Batches it will take; errors that need no run come from here, before any metric runs."""

    def run(self, case: Case, tick: Callable[[], None]) -> Part:
        """The scores; ``tick`` is called after each batch."""


@dataclass(frozen=True)
class Case:
    """What metrics are given.

    Attributes
    ----------
    x : ndarray (B, C, H, W), float32
    targets : ndarray (B,), int64
    output : ndarray (B, n), float64
        What the network says about the pictures.
    maps : ndarray (B, H, W) or (B, C, H, W), float64
    masks : ndarray (B, H, W), bool, or None
    method : callable or None
        What made the maps; see :data:`MapFunction`.
    given : bool
        Whether the maps came as numbers, not from ``method``.
    """

    net: Network
    x: Array
    targets: Array
    output: Array
    maps: Array
    masks: Array | None
    method: MapFunction | None
    given: bool
    batch_size: int
    seed: int
    n_threads: int

    def __len__(self) -> int:
        return len(self.x)

    def heat(self) -> Array:
        """The maps summed over channels, (B, H, W)."""
        return summed(self.maps)

    def batches(self, total: int) -> Iterator[slice]:
        """Slices of ``batch_size``."""
        return (slice(i, min(i + self.batch_size, total)) for i in range(0, total, self.batch_size))

    def n_batches(self, total: int) -> int:
        """How many they are."""
        return -(-total // self.batch_size)

    def value(self) -> Array:
        """(B,): the output for each sample's class."""
        return np.asarray(self.output[np.arange(len(self)), self.targets])

    def run(self, x: Array) -> Array:
        """The network's output (m, n) for other inputs, in double."""
        return np.asarray(self.net(x, n_threads=self.n_threads), dtype=np.float64)

    def draw_maps(self, net: Network, x: Array, targets: Array) -> Array:
        """What ``method`` gives for a batch, in double, checked."""
        assert self.method is not None
        return check_maps(self.method(net, x, targets), x, "what the map function returned")

    def need_method(self, metric: str) -> None:
        """An error unless maps can be made anew.

        Raises
        ------
        ValueError
            If the maps came as numbers alone.
        """
        if self.method is None:
            raise ValueError(
                f"metric {metric!r} makes maps of its own: pass method=, a composite or function(net, x, targets) -> maps"
            )

    def rng(self, *key: int) -> np.random.Generator:
        """Random numbers that depend on the seed and on ``key`` only: not on batches, threads or other samples."""
        return np.random.default_rng([self.seed, *key])


def summed(maps: Array) -> Array:
    """(B, H, W): the sum over channels."""
    return np.asarray(maps.sum(axis=1) if maps.ndim == 4 else maps)


def map_function(method: str | Composite | MapFunction, n_threads: int | None = None) -> MapFunction:
    """A function of network, inputs and classes that gives maps: a composite becomes one.

    Raises
    ------
    TypeError, ValueError
        If ``method`` is none of what it may be.
    """
    if isinstance(method, str | Composite):
        composite = preset(method)
        return lambda net, x, targets: attribute(net, x, targets, composite=composite, n_threads=n_threads).input
    if not callable(method):
        raise TypeError(
            f"method={method!r}: must be a composite, its name, or a function(net, x, targets) that returns maps"
        )
    return method


def check_maps(maps: ArrayLike, x: Array, what: str) -> Array:
    """Maps in double, of the pictures' shape with or without channels, finite.

    Raises
    ------
    DataError
        If they are not.
    """
    given = np.asarray(maps.detach().cpu() if hasattr(maps, "detach") else maps)
    fits = given.shape == x.shape or given.shape == (len(x), *x.shape[2:])
    if given.dtype.kind not in "fiu" or not fits:
        raise DataError(
            f"{what}: an array of {given.dtype}, shape {given.shape}; must hold real numbers in shape "
            f"{(len(x), *x.shape[2:])} or {x.shape}, one map per picture"
        )
    if not np.isfinite(given).all():
        raise DataError(f"{what} holds NaN or infinite values: nothing can be said about such maps")
    return given.astype(np.float64)


def make_case(
    net: Network,
    images: ArrayLike,
    maps: ArrayLike | Attribution | Composite | MapFunction | str,
    targets: ArrayLike | None,
    method: str | Composite | MapFunction | None,
    masks: ArrayLike | None,
    *,
    batch_size: int,
    seed: int,
    n_threads: int,
    progress: bool = False,
) -> Case:
    """Everything checked, the network run once on the pictures, and the maps made if they were not given."""
    x = check_input(net, images)
    if x.ndim != 4:
        raise DataError(
            f"images of shape {x.shape}: metrics are defined for pictures, (batch, channels, height, width)"
        )
    check_batch_size(batch_size)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r}: must be a whole number of at least 0")
    if isinstance(maps, Attribution):
        targets, method = _of_attribution(maps, targets, method)
        maps = maps.input
    making = isinstance(maps, str | Composite) or callable(maps)
    if making and method is not None:
        raise ValueError("maps are to be made by one method, and method= names another: pass one of them")
    function = _function(maps if making else method, n_threads)
    output = np.concatenate([_output(net, x[i : i + batch_size], n_threads) for i in range(0, len(x), batch_size)])
    chosen = check_targets(targets, output)
    inside = check_masks(masks, x)
    if making:
        assert function is not None
        made = _made(net, x, chosen, function, batch_size, progress)
    else:
        made = check_maps(maps, x, "maps")  # type: ignore[arg-type]
    return Case(net, x, chosen, output, made, inside, function, not making, batch_size, int(seed), n_threads)


def _function(method: Any, n_threads: int) -> MapFunction | None:
    return None if method is None else map_function(method, n_threads)


def _made(net: Network, x: Array, targets: Array, function: MapFunction, batch_size: int, progress: bool) -> Array:
    """The maps of all samples."""
    parts = []
    for i in track(range(0, len(x), batch_size), progress=progress, what="maps", unit="batch"):
        part = slice(i, i + batch_size)
        parts.append(check_maps(function(net, x[part], targets[part]), x[part], "maps"))
    return np.concatenate(parts)


def check_batch_size(batch_size: int) -> None:
    """An error unless it is a whole number of at least 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: must be a whole number of at least 1")


def _output(net: Network, x: Array, n_threads: int) -> Array:
    output = np.asarray(net(x, n_threads=n_threads), dtype=np.float64)
    if output.ndim != 2:
        raise DataError(
            f"the network's output has shape {output.shape}; metrics need one row of class scores per picture"
        )
    return output


def _of_attribution(
    given: Attribution, targets: ArrayLike | None, method: str | Composite | MapFunction | None
) -> tuple[ArrayLike, str | Composite | MapFunction]:
    """Classes and method of an attribution, from what it holds."""
    hot = given.start != 0
    one = given.start.ndim == 2 and bool((hot.sum(axis=1) == 1).all())
    if targets is None:
        if not one:
            raise ValueError(
                "the attribution did not start from one class per sample, of a value other than 0: pass targets="
            )
        targets = hot.argmax(axis=1)
    if method is not None:
        return targets, method
    if not one or not np.array_equal(given.start[hot], given.output[hot]):
        raise ValueError(
            "the attribution did not start from the value of a class, so its maps cannot be made again from its composite: "
            "pass method=, or maps=r.input"
        )
    return targets, given.composite


def check_targets(targets: ArrayLike | None, output: Array) -> Array:
    """One class per row of the output; the largest where none are named."""
    n, classes = output.shape
    if targets is None:
        return np.asarray(output.argmax(axis=1), dtype=np.int64)
    given = np.asarray(targets.detach().cpu() if hasattr(targets, "detach") else targets)
    if given.dtype.kind not in "iu" or given.shape not in ((), (n,)):
        raise DataError(
            f"targets: an array of {given.dtype}, shape {given.shape}; must be a class, or {n} classes, as whole numbers"
        )
    if given.size and (given.min() < 0 or given.max() >= classes):
        raise DataError(
            f"targets lie between {given.min()} and {given.max()}; the network has classes 0 to {classes - 1}"
        )
    return np.array(np.broadcast_to(given, (n,)), dtype=np.int64)


def check_masks(masks: ArrayLike | None, x: Array) -> Array | None:
    """Masks (B, H, W) as bool."""
    if masks is None:
        return None
    given = np.asarray(masks)
    want = (len(x), *x.shape[2:])
    if given.shape != want or given.dtype.kind not in "biu" or (given.dtype.kind != "b" and given.max(initial=0) > 1):
        raise DataError(
            f"masks: an array of {given.dtype}, shape {given.shape}; must be True inside and False outside, in shape {want} "
            "(boxes become masks by metrics.boxes_to_masks)"
        )
    empty = np.flatnonzero(~given.astype(bool).any(axis=(1, 2)))
    if empty.size:
        raise DataError(f"the mask of sample {empty[0]} is empty ({empty.size} of {len(given)} are): leave it out")
    return np.asarray(given, dtype=bool)


def check_same(case: Case, made: Array, metric: str) -> None:
    """An error if the maps that were given are not those that the method makes."""
    if not case.given:
        return
    difference = np.linalg.norm((summed(made) - case.heat()).ravel())
    size = max(np.linalg.norm(case.heat().ravel()), np.linalg.norm(summed(made).ravel()))
    if difference > 0.01 * size:
        raise MismatchError(
            f"metric {metric!r}: method= makes other maps than those given (difference {difference / size:.2g} of their norm); "
            "pass the method that made them, or let it make them: maps=method"
        )
