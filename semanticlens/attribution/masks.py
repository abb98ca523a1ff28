"""Conditions on relevance, as data: which channels of which values keep it, and how that is checked.

A condition names layers and channels; relevance of the other channels is set to 0 before it passes the layer. Conditions
after Achtibat et al. 2023 (Concept Relevance Propagation).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens.attribution.walk import Hook
from semanticlens.nn.graph import INPUT, Checked

__all__ = ["At", "Channels", "Group", "Mask", "ancestors", "channel_axis", "groups", "masks_of", "rows", "sizes", "words"]

Array = NDArray[Any]

Position = int | tuple[int, int]
Channels = int | Iterable[int] | Mapping[int, Position | Iterable[Position] | None]
At = Mapping[str, Channels]

FIRST = frozenset({"conv2d", "batch_norm", "group_norm", "local_response_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"})
LAST = frozenset({"dense", "layer_norm", "rms_norm", "attention", "embedding", "positions", "matmul", "constant"})


@dataclass(frozen=True)
class Mask:
    """What a condition keeps of one value.

    Attributes
    ----------
    value : str
        The node that holds it.
    channels : tuple of (int, positions)
        Each channel with the flat positions that keep relevance, or None for all of them.
    """

    value: str
    channels: tuple[tuple[int, tuple[int, ...] | None], ...]


def sizes(item: Checked) -> tuple[int, ...]:
    """A node's shape without the batch, where it is known."""
    return tuple(int(n or 0) for n in item.shape)


def channel_axis(graph: Mapping[str, Checked], name: str) -> int:
    """Which axis of a value's shape (without the batch) counts its channels.

    The first behind convolutions and pooling, the last behind dense layers, attention and normalisations of tokens;
    operations that keep the shape, or move it, have it where their first input has it.
    """
    item = graph[name]
    rank, op = len(item.shape), item.op.name
    if rank <= 1 or op in FIRST:
        return 0
    if op in LAST:
        return rank - 1
    source = item.node.inputs[0] if item.node.inputs else INPUT
    if source in graph:
        axis, before = channel_axis(graph, source), graph[source].shape
        if len(before) == rank:
            return list(item.attrs["axes"]).index(axis + 1) if op == "permute" else axis
        if op in ("reshape", "flatten") and axis == 0 and before[0] == item.shape[0]:
            return 0
    return 0 if rank == 3 else rank - 1


def masks_of(at: At, resolve: Callable[[str], str], graph: Mapping[str, Checked], argument: str) -> tuple[Mask, ...]:
    """A condition, checked against the network.

    Raises
    ------
    TypeError, ValueError
        For what is no condition, layers named twice, channels and positions that a layer does not have.
    LayerNotFoundError
        For a layer that there is not.
    """
    if not isinstance(at, Mapping):
        raise TypeError(f"{argument} must map layers to channels, such as {{'features.28': [17, 40]}}, not {type(at).__name__}")
    found: dict[str, Mask] = {}
    for layer, channels in at.items():
        value = resolve(layer)
        if value == INPUT or value not in graph:
            raise ValueError(f"{argument}: {layer!r} is no layer with channels to choose; the input's relevance is the result")
        if value in found:
            raise ValueError(f"{argument}: {layer!r} names a layer that is named already")
        found[value] = Mask(value, _channels(channels, graph, value, f"{argument}[{layer!r}]"))
    return tuple(found.values())


def _channels(given: Any, graph: Mapping[str, Checked], value: str, where: str) -> tuple[tuple[int, tuple[int, ...] | None], ...]:
    shape, axis = sizes(graph[value]), channel_axis(graph, value)
    places: dict[Any, Any] = dict(given) if isinstance(given, Mapping) else {}
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        given = (given,)
    if isinstance(given, (str, bytes, bool)) or not isinstance(given, Iterable):
        raise TypeError(f"{where} must be channels, or a mapping of channels to positions, not {given!r}")
    others = tuple(n for i, n in enumerate(shape) if i != axis)
    result = []
    for channel in given:
        number = _whole(channel, where, "a channel")
        if not 0 <= number < shape[axis]:
            raise ValueError(f"{where}: channel {number} is out of range, the layer has {shape[axis]} (0 to {shape[axis] - 1})")
        place = places.get(channel)
        result.append((number, None if place is None else _positions(place, others, f"{where}, channel {number}")))
    return tuple(result)


def _positions(given: Any, others: tuple[int, ...], where: str) -> tuple[int, ...]:
    single = isinstance(given, (int, np.integer)) or (isinstance(given, tuple) and len(given) == len(others) > 1)
    found = []
    for place in (given,) if single else given:
        if isinstance(place, tuple) and len(place) == len(others):
            numbers = [_whole(number, where, "a position") for number in place]
            inside = all(0 <= number < size for number, size in zip(numbers, others, strict=True))
            flat = int(np.ravel_multi_index(numbers, others)) if inside else -1
        else:
            flat = _whole(place, where, "a position")
        if not 0 <= flat < int(np.prod(others)):
            raise ValueError(f"{where}: position {place!r} is out of range, the layer has {' x '.join(map(str, others)) or 1} positions")
        found.append(flat)
    return tuple(found)


def _whole(value: Any, where: str, what: str) -> int:
    try:
        return operator.index(value) if not isinstance(value, (bool, np.bool_)) else int("")
    except (TypeError, ValueError):
        raise TypeError(f"{where}: {what} must be a whole number, not {value!r}") from None


def rows(masks: Sequence[Mask], graph: Mapping[str, Checked]) -> NDArray[np.bool_]:
    """(n, *shape of the value), True where relevance stays; axes along which nothing differs have length 1."""
    value = masks[0].value
    shape, axis = sizes(graph[value]), channel_axis(graph, value)
    others = [n for i, n in enumerate(shape) if i != axis]
    placed = any(places is not None for mask in masks for _, places in mask.channels)
    kept = np.zeros((len(masks), shape[axis], int(np.prod(others)) if placed else 1), bool)
    for row, mask in zip(kept, masks, strict=True):
        for channel, places in mask.channels:
            row[channel, slice(None) if places is None else list(places)] = True
    kept = kept.reshape(len(masks), shape[axis], *(others if placed else [1] * len(others)))
    return np.ascontiguousarray(np.moveaxis(kept, 1, 1 + axis))


def words(at: At) -> str:
    """A condition in a few words: layers, channels, and how many positions where they are narrowed."""
    return "; ".join(f"{layer} {_channel_words(channels)}" for layer, channels in at.items()) or "everything"


def _channel_words(channels: Any) -> str:
    if isinstance(channels, Mapping):
        said = [str(channel) if place is None else f"{channel} at {_place_words(place)}" for channel, place in channels.items()]
    else:
        said = [str(channels)] if isinstance(channels, (int, np.integer)) else [str(channel) for channel in channels]
    if len(said) > 4:
        return f"{', '.join(said[:3])} and {len(said) - 3} more"
    return ", ".join(said) or "no channel"


def _place_words(place: Any) -> str:
    if isinstance(place, (int, np.integer, tuple)):
        return str(place)
    several = list(place)
    return str(several[0]) if len(several) == 1 else f"{len(several)} positions"


@dataclass(frozen=True)
class Group:
    """Conditions on the same layers.

    Attributes
    ----------
    index : tuple of int
        Which conditions.
    masks : tuple of tuples of Mask
        Layer by layer, the first that a walk comes to first; in each one mask for each condition.
    cut : frozenset of str
        Values behind which only relevance that passes them counts.
    beside : frozenset of str
        Values that no counted path passes.
    """

    index: tuple[int, ...]
    masks: tuple[tuple[Mask, ...], ...]
    cut: frozenset[str]
    beside: frozenset[str]

    def part(self, chosen: Sequence[int]) -> Group:
        """Some of the conditions."""
        return Group(
            tuple(self.index[i] for i in chosen), tuple(tuple(layer[i] for i in chosen) for layer in self.masks), self.cut, self.beside
        )

    def until(self) -> str | None:
        """The first layer, from the output on, where the conditions differ."""
        return next((layer[0].value for layer in self.masks if any(mask != layer[0] for mask in layer)), None)

    def hooks(self, graph: Mapping[str, Checked]) -> dict[str, Hook]:
        """What each layer's masks do to relevance."""
        return {layer[0].value: _hook(rows(layer if any(m != layer[0] for m in layer) else layer[:1], graph)) for layer in self.masks}


def _hook(kept: Array) -> Hook:
    def masked(r: Array) -> Array:
        return np.where(kept, r, r.dtype.type(0))

    return masked


def groups(all_masks: Sequence[tuple[Mask, ...]], graph: Sequence[Checked], through: str | None, exclude: bool) -> list[Group]:
    """Conditions by the layers they name, in the order in which they first occur.

    ``through`` is a value that all relevance has to pass, ``exclude`` says so of every conditioned one.

    Raises
    ------
    ValueError
        If no path passes such values together.
    """
    order = {item.node.name: i for i, item in enumerate(graph)}
    behind = ancestors(graph) if exclude or through is not None else {}
    by_layers: dict[tuple[str, ...], list[int]] = {}
    for i, masks in enumerate(all_masks):
        values = tuple(sorted((mask.value for mask in masks), key=lambda value: -order[value]))
        by_layers.setdefault(values, []).append(i)
    made = []
    for values, index in by_layers.items():
        layered = tuple(tuple(next(m for m in all_masks[i] if m.value == value) for i in index) for value in values)
        chain = {*(values if exclude else ()), *((through,) if through is not None else ())}
        made.append(Group(tuple(index), layered, frozenset(chain), _beside(chain, behind, graph)))
    return made


def _beside(chain: set[str], behind: Mapping[str, set[str]], graph: Sequence[Checked]) -> frozenset[str]:
    """Values that are on no path through all of a chain."""
    found = {
        item.node.name
        for item in graph
        for value in chain
        if value != item.node.name and value not in behind[item.node.name] and item.node.name not in behind[value]
    }
    lost = chain & found
    if lost:
        raise ValueError(f"exclude_parallel: no path passes all of {', '.join(map(repr, sorted(chain)))}: nothing would be left")
    return frozenset(found)


def ancestors(graph: Sequence[Checked]) -> dict[str, set[str]]:
    """Node -> all values it depends on."""
    found: dict[str, set[str]] = {INPUT: set()}
    for item in graph:
        found[item.node.name] = set().union(*({source, *found[source]} for source in item.node.inputs))
    return found
