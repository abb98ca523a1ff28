"""Relevance in place of activations: the source that collects concept examples by what mattered for a class.

Relevance maximisation after Achtibat et al. 2023 (Concept Relevance Propagation).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens.data.batches import Transform
from semanticlens.data.dataset import Dataset
from semanticlens.lens.sources import Batch, NetworkSource, RunsLayers

if TYPE_CHECKING:
    from semanticlens.attribution.composites import Composite

__all__ = ["RelevanceSource", "carried", "places_of"]

I64 = NDArray[np.int64]


class RelevanceSource(NetworkSource):
    """Relevance of a network's layers for the class of each picture.

    Parameters
    ----------
    network : Network
    images : Dataset
    layers : sequence of str
    targets : ndarray (n,), int64
        The class that is explained, by position in the data set.
    composite : str or Composite
    batch_size, transform, start, stop, on_error, n_threads
        As in :class:`~semanticlens.lens.sources.NetworkSource`.
    """

    def __init__(
        self,
        network: RunsLayers,
        images: Dataset,
        layers: Sequence[str],
        *,
        targets: I64,
        composite: str | Composite,
        batch_size: int = 32,
        transform: Transform | None = None,
        start: int = 0,
        stop: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        n_threads: int | None = None,
    ) -> None:
        from semanticlens.attribution.composites import preset
        from semanticlens.attribution.roles import Relevances
        from semanticlens.nn.network import Network

        super().__init__(
            network,
            images,
            layers,
            batch_size=batch_size,
            transform=transform,
            start=start,
            stop=stop,
            on_error=on_error,
            n_threads=n_threads,
        )
        if not isinstance(network, Network):
            raise TypeError(f"score='relevance' needs a semanticlens.Network, not {type(network).__name__}")
        _check(targets[self.start : self.stop], network)
        self.targets, self.composite = targets, preset(composite)
        self._relevances = Relevances(network, self.layers, self.composite, "value", n_threads)

    def values(self, ids: I64, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Relevance of each layer, for the class of each picture."""
        return self._relevances(x, self.targets[ids])

    def batches_from(self, start: int) -> Iterator[Batch]:
        """The batches from position ``start`` on."""
        for ids, x in self.pictures_from(start):
            yield ids, self.values(ids, x)

    def describe(self) -> dict[str, Any]:
        """What the scores depend on, for records."""
        return {
            "kind": "relevance",
            "composite": [self.composite.name, *([entry.said, _rule(entry.rule)] for entry in self.composite.entries)],
            "targets": hashlib.sha256(self.targets.astype("<i8").tobytes()).hexdigest(),
        }


def _check(targets: I64, network: Any) -> None:
    classes = int(network.output_shape[-1])
    if len(targets) and (targets.min() < 0 or targets.max() >= classes):
        bad = int(((targets < 0) | (targets >= classes)).sum())
        raise DataError(
            f"score='relevance' explains a class of every picture, 0 to {classes - 1}: {bad} of {len(targets)} have none or another; "
            "pass targets=, or leave these pictures out (data.Subset)"
        )


def _rule(rule: Any) -> str:
    """A rule with the contents of its arrays."""
    arrays = [
        hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        for value in (getattr(rule, one.name) for one in dataclasses.fields(rule))
        if isinstance(value, np.ndarray)
    ]
    return " ".join([str(rule), *arrays])


def places_of(values: NDArray[Any]) -> I64:
    """(B, K): the flat position of the largest value of each component, the first of equals; 0 where there are no positions."""
    if values.ndim == 2:
        return np.zeros(values.shape, np.int64)
    if values.ndim == 3:
        return np.asarray(values.argmax(axis=1), np.int64)
    return np.asarray(values.reshape(*values.shape[:2], -1).argmax(axis=2), np.int64)


def carried(ids: I64, parts: Sequence[tuple[I64, NDArray[Any]]]) -> NDArray[Any]:
    """What belongs to ids (K, m): looked up in parts of ids (K, n) and values (K, n, ...); -1, or NaN, where the id is -1."""
    base = max(int(part.max(initial=0)) for part in (ids, *(own for own, _ in parts))) + 2
    row = np.arange(len(ids))[:, None] * base
    keys = np.concatenate([(own + 1 + row).ravel() for own, _ in parts])
    values = np.concatenate([own.reshape(-1, *own.shape[2:]) for _, own in parts])
    order = np.argsort(keys, kind="stable")
    found = order[np.minimum(np.searchsorted(keys[order], (ids + 1 + row).ravel()), len(order) - 1)]
    result = values[found].reshape(*ids.shape, *values.shape[1:])
    result[ids < 0] = -1 if values.dtype.kind == "i" else np.nan
    return np.asarray(result)
