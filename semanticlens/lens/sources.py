"""Where activations come from: our network over a data set, or anybody's batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens.data.batches import Skipped, Transform, batches
from semanticlens.data.dataset import Dataset

Batch = tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]]]


class ActivationSource(Protocol):
    """Anything that yields ``(ids, {layer: activations})``.

    ``ids`` (B,) are whole numbers from 0 on, each offered once, positions in the data set; ``activations`` are float32 (B, K), (B, T, K) or
    (B, K, H, W), the same layers in every batch.  Torch tensors are taken too (``.detach().cpu()``).
    """

    def __iter__(self) -> Iterator[tuple[ArrayLike, Mapping[str, ArrayLike]]]: ...


class RunsLayers(Protocol):
    """The part of :class:`semanticlens.Network` that collecting needs."""

    @property
    def name(self) -> str: ...                        # noqa: D102
    @property
    def layers(self) -> Any: ...                      # noqa: D102
    @property
    def preprocess(self) -> Any: ...                  # noqa: D102
    @property
    def fingerprint(self) -> str: ...                 # noqa: D102

    def resolve(self, name: str) -> str:
        """The node that a name stands for, or :class:`LayerNotFoundError`."""

    def run(
        self, x: NDArray[np.float32], record: Sequence[str], *, n_threads: int | None = None
    ) -> Mapping[str, NDArray[np.float32]]:
        """Outputs of the layers in ``record``."""


class NetworkSource:
    """Activations of a network's layers over the pictures ``images[start:stop]``, decoded ahead of the computation.

    Parameters
    ----------
    network : Network
    images : Dataset
    layers : sequence of str
        Names or aliases.
    batch_size : int
    transform : callable, optional
        Picture -> (C, H, W) float32; None is ``network.preprocess``.
    start, stop : int, optional
        Part of the data set.
    on_error : {"raise", "skip"}
        For pictures that cannot be used; those left out are listed in ``skipped``.
    n_threads : int, optional
    """

    def __init__(
        self,
        network: RunsLayers,
        images: Dataset,
        layers: Sequence[str],
        *,
        batch_size: int = 32,
        transform: Transform | None = None,
        start: int = 0,
        stop: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        n_threads: int | None = None,
    ) -> None:
        if transform is None:
            transform = network.preprocess
        if transform is None:
            raise ValueError(
                f"network {network.name!r} does not say how pictures become its input: give transform=, a function from a PIL picture to "
                f"a float32 array (C, H, W), or set the network's preprocess"
            )
        if len(images) == 0:
            raise DataError(f"the data set {images.name!r} has no pictures")
        self.network, self.images, self.layers = network, images, check_layers(network, layers)
        self.batch_size, self.transform, self.on_error, self.n_threads = batch_size, transform, on_error, n_threads
        self.start, self.stop = start, len(images) if stop is None else stop
        self.skipped: list[Skipped] = []

    def __len__(self) -> int:
        """Pictures in the part that is gone through."""
        return self.stop - self.start

    def __iter__(self) -> Iterator[Batch]:
        yield from self.batches_from(self.start)

    def batches_from(self, start: int) -> Iterator[Batch]:
        """The batches from position ``start`` on."""
        for ids, x in self.pictures_from(start):
            yield ids, self.network.run(x, record=self.layers, n_threads=self.n_threads)

    def pictures_from(self, start: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Network inputs from position ``start`` on."""
        self.skipped.clear()
        pictures = batches(
            self.images,
            self.transform,
            batch_size=self.batch_size,
            start=start,
            stop=self.stop,
            on_error=self.on_error,
            skipped=self.skipped,
        )
        try:
            yield from pictures
        finally:
            pictures.close()


def check_layers(network: RunsLayers, layers: Sequence[str] | str | None) -> list[str]:
    """``layers`` as a list, each known to the network."""
    if layers is None:
        known = [layer.name for layer in network.layers]
        raise ValueError(
            f"layers=None: name the layers to collect from, for example layers=[{known[-1]!r}]; net.layers lists all {len(known)}"
        )
    names = [layers] if isinstance(layers, str) else list(layers)
    for name in names:
        network.resolve(name)
    if len(set(names)) != len(names):
        raise ValueError(f"layers={names}: a layer is named twice")
    return names
