"""Crops: the part of each concept example that its component looks at.

A heat map of the component at one position is blurred and cut off at a share of its maximum; the smallest square around what
is left is the crop. After the rendering of SemanticLens and of Concept Relevance Propagation, but with boxes that hold
their last row and column, stay inside the picture, and are the whole picture where a heat map is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from semanticlens._errors import DataError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.data.batches import Transform
from semanticlens.data.dataset import Dataset
from semanticlens.lens.relevance import places_of
from semanticlens.nn.graph import INPUT
from semanticlens.nn.inputs import check_input
from semanticlens.nn.preprocess import Preprocess

if TYPE_CHECKING:
    from semanticlens.attribution.composites import Composite
    from semanticlens.lens.examples import LayerExamples
    from semanticlens.nn.network import Network

__all__ = ["Crops", "blur", "crop_box", "crops", "on_picture"]

Array = NDArray[Any]
Box = tuple[int, int, int, int]


def blur(heat: ArrayLike, kernel: int = 51) -> Array:
    """A map (H, W) smoothed by a Gaussian of ``kernel`` values, sigma = 0.3 ((kernel - 1) / 2 - 1) + 0.8, mirrored at the borders.

    Raises
    ------
    ValueError
        If the kernel is even, or its half is not smaller than the map.
    """
    h = np.asarray(heat, np.float64)
    if h.ndim != 2:
        raise ValueError(f"heat must have the shape (H, W), not {h.shape}")
    if isinstance(kernel, bool) or not isinstance(kernel, (int, np.integer)) or kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel={kernel!r}: must be an odd whole number")
    if kernel // 2 >= min(h.shape):
        raise ValueError(f"kernel={kernel}: its half must be smaller than the map {h.shape}; pass at most kernel={2 * min(h.shape) - 1}")
    return np.asarray(_smoother(h.shape[0], kernel) @ h @ _smoother(h.shape[1], kernel).T)


def _smoother(n: int, kernel: int) -> Array:
    """(n, n): the blur of one axis as a matrix."""
    half = kernel // 2
    sigma = max(0.3 * (half - 1) + 0.8, 1e-6)
    weights = np.exp(-0.5 * np.square(np.arange(-half, half + 1) / sigma))
    weights /= weights.sum()
    where = np.pad(np.arange(n), half, mode="reflect")
    made = np.zeros((n, n))
    for offset, weight in enumerate(weights):
        made[np.arange(n), where[offset : offset + n]] += weight
    return made


def crop_box(heat: ArrayLike, *, kernel: int = 51, threshold: float = 0.01) -> Box:
    """The square that holds what a heat map (H, W) shows: (top, left, bottom, right), as slices take it.

    The map is blurred, its magnitude divided by its largest; the box goes from the first to the last row and column above
    ``threshold``, both included, is made square, and moved inside the map; where it is higher or wider than the map, it is the map's size.
    A map that is 0 everywhere gives the whole.

    Raises
    ------
    ValueError
        For a threshold outside of [0, 1), or a kernel that does not fit.
    DataError
        If the map holds NaN or infinity.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold!r}: must be at least 0 and below 1")
    h = np.abs(blur(heat, kernel))
    if not np.isfinite(h).all():
        raise DataError("the heat map holds NaN or infinite values")
    rows, columns = h.shape
    if h.max() == 0:
        return 0, 0, rows, columns
    mask = h > threshold * h.max()
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(down[0]), int(down[-1]) + 1, int(across[0]), int(across[-1]) + 1
    side = max(bottom - top, right - left)
    top, bottom = _widened(top, bottom, side, rows)
    left, right = _widened(left, right, side, columns)
    return top, left, bottom, right


def _widened(first: int, end: int, side: int, n: int) -> tuple[int, int]:
    side = min(side, n)
    start = first - (side - (end - first)) // 2
    start = max(0, min(start, n - side))
    return start, start + side


def on_picture(box: Box, size: tuple[int, int], preprocess: Preprocess) -> Box:
    """A box in the network's input as one in the picture itself, of ``size`` (width, height): (left, top, right, bottom), as Pillow crops.

    Rounded outwards to whole pixels, and inside the picture.
    """
    width, height = size
    high, wide = preprocess.size
    top, left, bottom, right = box
    if preprocess.resize == "crop":
        scale = (preprocess.short or max(preprocess.size)) / min(size)
        across = down = 1 / scale
        x0, y0 = (width * scale - wide) / 2, (height * scale - high) / 2
    else:
        across, down, x0, y0 = width / wide, height / high, 0.0, 0.0
    return (
        max(0, int(np.floor((left + x0) * across + 1e-9))),
        max(0, int(np.floor((top + y0) * down + 1e-9))),
        min(width, int(np.ceil((right + x0) * across - 1e-9))),
        min(height, int(np.ceil((bottom + y0) * down - 1e-9))),
    )


@dataclass(frozen=True)
class Crops:
    """What :func:`crops` returns, for K components and m examples.

    Attributes
    ----------
    layer : str
    components : ndarray (K,), int64
    ids : ndarray (K, m), int64
        Positions in the data set; -1 for none.
    boxes : ndarray (K, m, 4), int64
        (top, left, bottom, right) in the network's input, -1 for none.
    positions : ndarray (K, m), int64
        Flat position in the layer's map that each heat map starts from.
    heatmaps : ndarray (K, m, H, W), float32, or None
        Before the blur.
    """

    layer: str
    components: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]
    positions: NDArray[np.int64]
    heatmaps: NDArray[np.float32] | None = None

    def picture(self, images: Dataset, preprocess: Preprocess, row: int, example: int) -> Image.Image:
        """The crop of one example, cut out of the picture in its own resolution."""
        if self.ids[row, example] < 0:
            raise ValueError(f"component {int(self.components[row])} has no example {example}")
        image = images[int(self.ids[row, example])]
        top, left, bottom, right = (int(n) for n in self.boxes[row, example])
        return image.crop(on_picture((top, left, bottom, right), image.size, preprocess))


def crops(
    net: Network,
    images: Dataset,
    examples: LayerExamples,
    components: Iterable[int] | None = None,
    *,
    top: int | None = None,
    composite: str | Composite = "epsilon_plus_flat",
    whole_map: bool = False,
    kernel: int = 51,
    threshold: float = 0.01,
    keep_heatmaps: bool = False,
    transform: Transform | None = None,
    n_threads: int | None = None,
    progress: bool = False,
) -> Crops:
    """For concept examples, the part of each picture that drives the component there.

    Parameters
    ----------
    net : Network
    images : Dataset
        The pictures that the examples were collected on.
    examples : LayerExamples
        ``collected[layer]``; positions of the largest relevance are used where they were collected, else those of the largest activation.
    components : iterable of int, optional
        All that have examples, if left out.
    top : int, optional
        Examples per component.
    composite : str or Composite
        Rules that the heat maps are made with; relevance starts from the layer with its activation.
    whole_map : bool
        Start from the component's whole map instead of one position.
    kernel, threshold
        As in :func:`crop_box`.
    keep_heatmaps : bool
    transform : callable, optional
        Picture -> network input, instead of ``net.preprocess``.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Crops

    Notes
    -----
    Components that show one picture share its forward run. For transformers the layer's values are tokens (T, K), and positions are tokens.
    """
    chosen = np.arange(len(examples)) if components is None else np.asarray(list(components), np.int64)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= len(examples)):
        raise ValueError(f"components must lie between 0 and {len(examples) - 1}, found {int(chosen.min())} to {int(chosen.max())}")
    if len(net.input_shape) != 3:
        raise ValueError(f"crops are for networks of pictures, and this one takes {net.input_shape}")
    given: Any = transform if transform is not None else net.preprocess
    if given is None:
        raise ValueError(f"network {net.name!r} does not say how pictures become its input: give transform=")
    ids = np.array(examples.ids[chosen, : examples.ids.shape[1] if top is None else top])
    known = None if examples.positions is None else examples.positions[chosen, : ids.shape[1]]
    boxes, places = np.full((*ids.shape, 4), -1, np.int64), np.full(ids.shape, -1, np.int64)
    kept: dict[tuple[int, int], Array] = {}
    for sample in track(np.unique(ids[ids >= 0]), progress=progress, what="crops", unit="img"):
        rows, ranks = np.nonzero(ids == sample)
        x = np.asarray(given(images[int(sample)]), np.float32)[None]
        starts = None if known is None else known[rows, ranks]
        maps, at = _heatmaps(net, x, examples.layer, chosen[rows], starts, composite, whole_map, n_threads)
        places[rows, ranks] = at
        for row, rank, heat in zip(rows, ranks, maps, strict=True):
            boxes[row, rank] = crop_box(heat, kernel=kernel, threshold=threshold)
            if keep_heatmaps:
                kept[int(row), int(rank)] = heat.astype(np.float32)
    stacked = None
    if keep_heatmaps:
        size = next(iter(kept.values())).shape if kept else (0, 0)
        stacked = np.zeros((*ids.shape, *size), np.float32)
        for where, heat in kept.items():
            stacked[where] = heat
    return Crops(examples.layer, chosen, ids, boxes, places, stacked)


def _heatmaps(
    net: Network,
    x: Array,
    layer: str,
    components: Sequence[int] | Array,
    places: Array | None,
    composite: str | Composite,
    whole_map: bool,
    n_threads: int | None,
) -> tuple[Array, Array]:
    """(n, H, W) of one picture for some components, and the positions that they start from."""
    from semanticlens.attribution.attribute import prepare
    from semanticlens.attribution.condition import propagate

    if places is None:
        found = places_of(net.run(x, record=[layer], n_threads=n_threads)[layer])[0]
        places = found[np.asarray(components)]
    at: list[dict[str, Any]] = [{layer: [int(k)] if whole_map else {int(k): int(p)}} for k, p in zip(components, places, strict=True)]
    ready = prepare(net, x.shape[1:], composite)
    job = propagate(ready, check_input(net, x), None, at, (INPUT,), of=layer, n_threads=resolve_threads(n_threads))
    return np.asarray(job.found[INPUT].sum(axis=1)), places
