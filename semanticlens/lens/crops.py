"""Crops: the part of each concept example that its component looks at.

A heat map of the component at one position is blurred and cut off at a share of its maximum; the smallest square around what
is left is the crop. After the rendering of SemanticLens and of Concept Relevance Propagation, but with boxes that hold
their last row and column, stay inside the picture, and are the whole picture where a heat map is 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from semanticlens._errors import DataError, ModelFileError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.data.batches import Transform
from semanticlens.data.dataset import Dataset
from semanticlens.lens import checkpoint as checkpoints
from semanticlens.lens.relevance import places_of
from semanticlens.nn.graph import INPUT
from semanticlens.nn.inputs import check_input
from semanticlens.nn.preprocess import Preprocess

if TYPE_CHECKING:
    from semanticlens.attribution.composites import Composite
    from semanticlens.lens.examples import ConceptExamples, LayerExamples
    from semanticlens.nn.network import Network

__all__ = ["Crops", "blur", "check_options", "crop_box", "crops", "on_picture", "with_crops"]

CHECKPOINT_SECONDS = 10.0

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
    shares : ndarray (K, m, 4), float32, or None
        The boxes in the pictures themselves: (left, top, right, bottom) as shares of width and height, NaN for none. None where a
        transform made the input that is not a :class:`~semanticlens.nn.Preprocess`.
    heatmaps : ndarray (K, m, H, W), float32, or None
        Before the blur.
    """

    layer: str
    components: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]
    positions: NDArray[np.int64]
    shares: NDArray[np.float32] | None = None
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
    checkpoint: str | os.PathLike[str] | None = None,
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
    checkpoint : path, optional
        Where to keep what is done, every few seconds and on interruption; a rerun goes on from there to the same result. Heat maps are
        not kept in it. The file stays: delete it when the result is safe.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Crops

    Raises
    ------
    ValueError
        A component that is not there, a network without pictures as input, a kernel that does not fit it.
    MismatchError
        The checkpoint is of other examples or settings.

    Notes
    -----
    Components that show one picture share its forward run. For transformers the layer's values are tokens (T, K), and positions are tokens.
    """
    given = check_options(net, kernel, threshold, transform)
    chosen = np.arange(len(examples)) if components is None else np.asarray(list(components), np.int64)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= len(examples)):
        raise ValueError(f"components must lie between 0 and {len(examples) - 1}, found {int(chosen.min())} to {int(chosen.max())}")
    ids = np.array(examples.ids[chosen, : examples.ids.shape[1] if top is None else top])
    known = None if examples.positions is None else examples.positions[chosen, : ids.shape[1]]
    state = _Cropping(ids, images, given, None if keep_heatmaps or checkpoint is None else Path(checkpoint))
    settings = {"network": net.fingerprint, "layer": examples.layer, "whole_map": whole_map, "kernel": kernel, "threshold": threshold}
    state.restore({**settings, "composite": str(composite)}, [chosen, ids, known])
    kept: dict[tuple[int, int], Array] = {}
    for sample, rows, ranks in state.samples(progress):
        image = images[sample]
        x = np.asarray(given(image), np.float32)[None]
        starts = None if known is None else known[rows, ranks]
        maps, at = _heatmaps(net, x, examples.layer, chosen[rows], starts, composite, whole_map, n_threads)
        for row, rank, heat, place in zip(rows, ranks, maps, at, strict=True):
            state.put(row, rank, int(place), crop_box(heat, kernel=kernel, threshold=threshold), image.size)
            if keep_heatmaps:
                kept[int(row), int(rank)] = heat.astype(np.float32)
    stacked = None
    if keep_heatmaps:
        size = next(iter(kept.values())).shape if kept else (0, 0)
        stacked = np.zeros((*ids.shape, *size), np.float32)
        for where, heat in kept.items():
            stacked[where] = heat
    shares = state.shares if isinstance(given, Preprocess) else None
    return Crops(examples.layer, chosen, ids, state.boxes, state.places, shares, stacked)


def check_options(net: Network, kernel: int = 51, threshold: float = 0.01, transform: Transform | None = None) -> Any:
    """How pictures become the network's input; raises ValueError where crops of this kind cannot be made."""
    if len(net.input_shape) != 3:
        raise ValueError(f"crops are for networks of pictures, and this one takes {net.input_shape}")
    given: Any = transform if transform is not None else net.preprocess
    if given is None:
        raise ValueError(f"network {net.name!r} does not say how pictures become its input: give transform=")
    crop_box(np.zeros(net.input_shape[1:]), kernel=kernel, threshold=threshold)
    return given


class _Cropping:
    """Boxes and positions of the examples done so far, picture by picture; kept in a checkpoint."""

    def __init__(self, ids: NDArray[np.int64], images: Dataset, given: Any, checkpoint: Path | None) -> None:
        self.ids, self.images, self.given, self.checkpoint = ids, images, given, checkpoint
        self.boxes, self.places = np.full((*ids.shape, 4), -1, np.int64), np.full(ids.shape, -1, np.int64)
        self.shares = np.full((*ids.shape, 4), np.nan, np.float32)
        self.order = np.unique(ids[ids >= 0])
        self.done = 0
        self.made_of: dict[str, Any] = {}

    def put(self, row: int, rank: int, place: int, box: Box, size: tuple[int, int]) -> None:
        """One example's crop; ``size`` is its picture's (width, height)."""
        self.places[row, rank], self.boxes[row, rank] = place, box
        if isinstance(self.given, Preprocess):
            self.shares[row, rank] = np.divide(on_picture(box, size, self.given), (*size, *size))

    def samples(self, progress: bool) -> Iterator[tuple[int, Array, Array]]:
        """Each picture that is left, with the rows and ranks of its examples."""
        last = time.monotonic()
        left = track(self.order[self.done :], progress=progress, total=len(self.order), initial=self.done, what="crops", unit="img")
        try:
            for sample in left:
                rows, ranks = np.nonzero(self.ids == sample)
                yield int(sample), rows, ranks
                self.done += 1
                if time.monotonic() - last >= CHECKPOINT_SECONDS:
                    self.save()
                    last = time.monotonic()
        finally:
            self.save()

    def save(self) -> None:
        if self.checkpoint is not None:
            arrays = {"boxes": self.boxes, "places": self.places, "shares": self.shares}
            checkpoints.write(self.checkpoint, self.made_of, {"done": self.done}, arrays)

    def restore(self, settings: Mapping[str, Any], arrays: Sequence[Array | None]) -> None:
        """Go on from the checkpoint, if there is one of these settings and examples."""
        if self.checkpoint is None:
            return
        digests = hashlib.sha256(b"".join(b"-" if a is None else np.ascontiguousarray(a, "<i8").tobytes() for a in arrays))
        self.made_of = {"crops": {**settings, "data": self.images.fingerprint, "examples": digests.hexdigest()}}
        found = checkpoints.read(self.checkpoint, self.made_of)
        if found is None:
            return
        state, kept = found
        try:
            self.boxes[:], self.places[:], self.shares[:] = kept["boxes"], kept["places"], kept["shares"]
            self.done = int(state["done"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{self.checkpoint}: its record does not describe its arrays ({error}); delete it") from None


def with_crops(
    net: Network,
    images: Dataset,
    examples: ConceptExamples,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
    n_threads: int | None = None,
    transform: Transform | None = None,
    **options: Any,
) -> ConceptExamples:
    """Concept examples with the part of each picture that its component looks at, for :meth:`ConceptDB.build` to encode.

    Parameters
    ----------
    net, images, examples
        The network and the pictures that the examples were collected with.
    checkpoint : path, optional
        Kept layer by layer beside this path, and removed at the end.
    progress, n_threads, transform
        As for :func:`crops`.
    **options
        ``composite``, ``whole_map``, ``kernel``, ``threshold`` of :func:`crops`.

    Returns
    -------
    ConceptExamples
        With ``boxes`` in every layer, and the options in the record.

    Raises
    ------
    ValueError
        As :func:`crops`; or a transform that does not tell where its input lies in the picture.
    """
    if not isinstance(check_options(net, options.get("kernel", 51), options.get("threshold", 0.01), transform), Preprocess):
        raise ValueError("crops are cut from the pictures themselves, and transform= does not say where its input lies: pass a Preprocess")
    layers, kept = {}, []
    for i, (name, layer) in enumerate(examples.items()):
        state = None if checkpoint is None else Path(f"{os.fspath(checkpoint)}.crops{i}")
        made = crops(net, images, layer, transform=transform, checkpoint=state, n_threads=n_threads, progress=progress, **options)
        layers[name] = dataclasses.replace(layer, boxes=made.shares)
        kept += [] if state is None else [state]
    for state in kept:
        state.unlink(missing_ok=True)
    said = {"composite": str(options.get("composite", "epsilon_plus_flat")), "whole_map": False, "kernel": 51, "threshold": 0.01}
    said |= {key: value for key, value in options.items() if key != "composite"}
    parameters = {**examples.record["parameters"], "crops": said}
    return dataclasses.replace(examples, layers=layers, record={**examples.record, "parameters": parameters})


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
