"""Roles: how much relevance each component of a layer has for each class, over a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.attribution.attribute import Prepared, prepare, starting
from semanticlens.attribution.composites import Composite
from semanticlens.attribution.graphs import channel_scores
from semanticlens.attribution.masks import channel_axis
from semanticlens.attribution.walk import Walk, run_forward
from semanticlens.data.batches import Transform, network_inputs
from semanticlens.data.dataset import Dataset
from semanticlens.nn.inputs import check_input

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["LayerRoles", "Relevances", "Roles", "roles"]

Array = NDArray[Any]


@dataclass(frozen=True)
class LayerRoles:
    """The roles R_k(y) of one layer's K components for Y classes; NaN for a class without samples.

    Attributes
    ----------
    layer : str
    mean : ndarray (Y, K), float64
        Mean relevance over the samples of a class, with its sign.
    magnitude : ndarray (Y, K), float64
        Mean of ``|R_k|``.
    max : ndarray (Y, K), float64
        The largest of any sample.
    counts : ndarray (Y,), int64
        Samples of each class.
    """

    layer: str
    mean: Array
    magnitude: Array
    max: Array
    counts: NDArray[np.int64]

    def top(self, target: int, n: int = 10, by: str = "mean") -> list[tuple[int, float]]:
        """The components with the largest role for a class, as (component, value); equal ones by the smaller number."""
        if by not in ("mean", "magnitude", "max"):
            raise ValueError(f"by={by!r}: must be 'mean', 'magnitude' or 'max'")
        if not 0 <= target < len(self.counts):
            raise ValueError(f"target={target} is out of range: there are classes 0 to {len(self.counts) - 1}")
        values = getattr(self, by)[target]
        order = np.argsort(-values, kind="stable")[:n]
        return [(int(k), float(values[k])) for k in order]


@dataclass(frozen=True)
class Roles(Mapping[str, LayerRoles]):
    """Roles of all layers, by name.

    Attributes
    ----------
    layers : mapping of str to LayerRoles
    n_samples : int
    parameters : mapping
        Composite, pooling and normalisation.
    """

    layers: Mapping[str, LayerRoles]
    n_samples: int
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, layer: str) -> LayerRoles:
        if layer not in self.layers:
            raise KeyError(f"{layer!r} is not among the layers {', '.join(map(repr, self.layers))}")
        return self.layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


class Relevances:
    """Relevance of layers for the class of each sample, batch by batch.

    Parameters
    ----------
    net : Network
    layers : sequence of str
    composite : str or Composite
    start : str
        See :func:`semanticlens.attribute`.
    n_threads : int, optional
    """

    def __init__(self, net: Network, layers: Sequence[str], composite: str | Composite, start: str, n_threads: int | None) -> None:
        self.net, self.layers, self.composite, self.start = net, list(layers), composite, start
        self.n_threads = resolve_threads(n_threads)
        self._ready: tuple[tuple[int, ...], Prepared] | None = None

    def ready(self, shape: tuple[int, ...]) -> Prepared:
        """Rules for one size of the input, chosen once."""
        if self._ready is None or self._ready[0] != shape:
            self._ready = shape, prepare(self.net, shape, self.composite)
        return self._ready[1]

    def axis(self, layer: str, shape: tuple[int, ...]) -> int:
        """The axis of a layer's values that counts components, without the batch."""
        ready = self.ready(shape)
        return channel_axis({item.node.name: item for item in ready.graph}, ready.value(layer))

    def __call__(self, x: Array, targets: Array) -> dict[str, Array]:
        """(B, ...) for each layer."""
        batch = check_input(self.net, x)
        ready = self.ready(batch.shape[1:])
        values = {layer: ready.value(layer) for layer in self.layers}
        route = ready.route(ready.value("output"), tuple(dict.fromkeys(values.values())))
        kept = run_forward(self.net, route, batch, self.n_threads)
        walk = Walk(self.net, kept, route.asked, self.n_threads)
        walk.back({route.of: starting(kept.arrays[route.of], targets, self.start)})
        return {layer: walk.found[value] for layer, value in values.items()}


def roles(
    net: Network,
    images: Dataset | ArrayLike,
    *,
    layers: Sequence[str] | str,
    targets: ArrayLike | None = None,
    composite: str | Composite = "epsilon_plus_flat",
    pool: str = "sum",
    abs_norm: bool = True,
    start: str = "value",
    transform: Transform | None = None,
    batch_size: int = 16,
    n_threads: int | None = None,
    progress: bool = False,
) -> Roles:
    """R_k(y): the relevance of component k for class y, over the samples of that class.

    Parameters
    ----------
    net : Network
    images : Dataset, or array_like (n, ...) float32
        Pictures, or inputs as the network takes them.
    layers : sequence of str
    targets : array_like (n,) of int, optional
        Class of each sample; those of the data set if left out. Samples of class -1 are passed over.
    composite : str or Composite
    pool : {"sum", "max"}
        Over positions.
    abs_norm : bool
        Divide each sample's relevance by the sum of magnitudes over the components, plus 1e-10.
    start : str
        See :func:`semanticlens.attribute`.
    transform : callable, optional
        Picture -> network input, instead of ``net.preprocess``.
    batch_size : int
        Samples at a time; the result does not depend on it but for the rounding of the network itself.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Roles
        Sums are formed in double, sample by sample.

    Raises
    ------
    ValueError, DataError
        For layers, targets or pictures that do not fit.
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise ValueError("layers is empty: name at least one layer")
    if pool not in ("sum", "max"):
        raise ValueError(f"pool={pool!r}: must be 'sum' or 'max'")
    labels = _targets(images, targets)
    classes = net.output_shape[-1]
    if labels.max(initial=-1) >= (classes or 0):
        raise DataError(f"targets go up to {int(labels.max())}, but the network has classes 0 to {(classes or 0) - 1}")
    made = Relevances(net, names, composite, start, n_threads)
    sums: dict[str, _Sums] = {}
    n = 0
    if transform is not None and not isinstance(images, Dataset):
        raise ValueError("transform is for pictures; arrays are the network's input as they are")
    given = network_inputs(images, transform or net.preprocess, batch_size=batch_size, chosen=labels >= 0)
    for ids, x in track(given, progress=progress, what="roles", unit="batch"):
        for layer, r in made(x, labels[ids]).items():
            scores = channel_scores(r, made.axis(layer, x.shape[1:]), abs_norm, pool)
            sums.setdefault(layer, _Sums(int(classes or 0), scores.shape[1])).add(scores, labels[ids])
        n += len(ids)
    if not n:
        raise DataError("no sample has a class: there is nothing to explain")
    parameters = {"composite": made.ready(x.shape[1:]).composite.name, "pool": pool, "abs_norm": abs_norm, "start": start}
    return Roles({layer: part.result(layer) for layer, part in sums.items()}, n, parameters)


class _Sums:
    def __init__(self, classes: int, components: int) -> None:
        self.total, self.size = np.zeros((classes, components)), np.zeros((classes, components))
        self.largest = np.full((classes, components), -np.inf)
        self.counts = np.zeros(classes, np.int64)

    def add(self, scores: Array, labels: Array) -> None:
        for row, label in zip(scores, labels, strict=True):
            self.total[label] += row
            self.size[label] += np.abs(row)
            np.maximum(self.largest[label], row, out=self.largest[label])
            self.counts[label] += 1

    def result(self, layer: str) -> LayerRoles:
        none = (self.counts == 0)[:, None]
        n = np.maximum(self.counts, 1)[:, None]
        mean, size, largest = (np.where(none, np.nan, a) for a in (self.total / n, self.size / n, self.largest))
        return LayerRoles(layer, mean, size, largest, self.counts)


def _targets(images: Dataset | ArrayLike, targets: ArrayLike | None) -> NDArray[np.int64]:
    given = getattr(images, "labels", None) if targets is None else targets
    if given is None:
        raise ValueError("targets is missing: the data set has no labels; pass the class of each sample")
    labels: Array = np.asarray(given)
    n = len(images)  # type: ignore[arg-type]
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise DataError(f"targets must be whole numbers of shape ({n},), not {labels.dtype} of shape {labels.shape}")
    if labels.min(initial=0) < -1:
        raise DataError(f"targets go down to {int(labels.min())}; -1 means no class")
    return labels.astype(np.int64)
