"""Batches of network inputs, decoded in threads ahead of use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from semanticlens._errors import DataError
from semanticlens.data.dataset import Dataset

Transform = Callable[[Image.Image], NDArray[np.float32]]
Batch = tuple[NDArray[np.int64], NDArray[np.float32]]


class Skipped(NamedTuple):
    """A picture that was left out."""

    id: int
    reason: str


def batches(
    dataset: Dataset,
    transform: Transform,
    *,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    workers: int = 2,
    skipped: list[Skipped] | None = None,
) -> Generator[Batch, None, None]:
    """Go through ``dataset[start:stop]`` once.

    Batch j covers the positions ``start + j * batch_size`` to ``start + (j + 1) * batch_size``; one with unusable
    pictures is shorter, one with nothing else is left out.  At most two batches of pictures are held beside the one
    in use.  Closing the generator, or an error, stops the threads.

    Parameters
    ----------
    dataset : Dataset
    transform : callable
        PIL picture -> (C, H, W) float32, the same shape for all pictures; a network's ``preprocess``.
    batch_size : int
    start, stop : int, optional
        Part of the data set; ``stop=None`` is its end.
    on_error : {"raise", "skip"}
        What a picture does that cannot be decoded or transformed (a :class:`DataError`): end the run, or be left out.
    workers : int
        Decoding threads; 0 decodes in the caller's.
    skipped : list, optional
        Gets a ``Skipped(id, reason)`` for every picture left out, at the latest when the batch it belonged to has passed.

    Yields
    ------
    ids : ndarray (B,), int64
        Positions in the data set.
    x : ndarray (B, C, H, W), float32
        A new array each time.
    """
    n = len(dataset)
    stop = n if stop is None else stop
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    if workers < 0:
        raise ValueError(f"workers={workers}: must be at least 0")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: must be 'raise' or 'skip'")
    if not 0 <= start <= stop <= n:
        raise ValueError(f"start={start}, stop={stop}: must be a part of the data set's {n:,} pictures")
    return _batches(
        _Loader(dataset, transform),
        batch_size,
        range(start, stop),
        on_error == "skip",
        workers,
        [] if skipped is None else skipped,
    )


def network_inputs(
    images: Dataset | ArrayLike, transform: Transform | None, *, batch_size: int, chosen: NDArray[np.bool_] | None = None
) -> Generator[Batch, None, None]:
    """What a network takes, from pictures or from an array that is its input already.

    Parameters
    ----------
    images : Dataset, or array_like (n, ...) float32
    transform : callable or None
        Picture -> (C, H, W) float32; not used for arrays.
    batch_size : int
    chosen : ndarray (n,) of bool, optional
        The samples to go through; all of them if left out.

    Yields
    ------
    ids : ndarray (B,), int64
        Positions in ``images``.
    x : ndarray (B, ...), float32
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    if not isinstance(images, Dataset):
        array = np.asarray(images)
        wanted = np.arange(len(array)) if chosen is None else np.flatnonzero(chosen)
        for i in range(0, len(wanted), batch_size):
            here = wanted[i : i + batch_size]
            yield here, np.ascontiguousarray(array[here])
        return
    if transform is None:
        raise ValueError("the network does not say how pictures become its input: give transform=")
    for ids, x in batches(images, transform, batch_size=batch_size):
        kept = slice(None) if chosen is None else chosen[ids]
        if len(ids[kept]):
            yield ids[kept], x[kept]


class _Loader:
    """Decode and transform one picture."""

    def __init__(self, dataset: Dataset, transform: Transform) -> None:
        self.dataset, self.transform = dataset, transform

    def __call__(self, index: int) -> NDArray[np.float32]:
        x: NDArray[Any] = np.asarray(self.transform(self.dataset[index]))
        if x.dtype != np.float32 or x.ndim != 3:
            raise TypeError(f"transform must return a float32 array (C, H, W), not {x.dtype} of shape {x.shape}")
        if not np.isfinite(x).all():
            raise DataError(
                f"picture {index} of {self.dataset.name} has values that are not finite after the transform"
            )
        return x


def _batches(
    load: _Loader, batch_size: int, positions: range, skip: bool, workers: int, skipped: list[Skipped]
) -> Generator[Batch, None, None]:
    shape: tuple[int, ...] | None = None
    pictures = _ahead(load, positions, 2 * batch_size, workers)
    try:
        for begin in range(positions.start, positions.stop, batch_size):
            size = min(batch_size, positions.stop - begin)
            ids, x, used = np.empty(size, np.int64), None, 0
            for index in range(begin, begin + size):
                try:
                    picture = next(pictures)()
                except DataError as error:
                    if not skip:
                        raise
                    skipped.append(Skipped(index, str(error)))
                    continue
                if shape is not None and picture.shape != shape:
                    raise DataError(
                        f"picture {index} of {load.dataset.name} is {picture.shape} after the transform, but those before it are {shape}: "
                        f"the transform must bring all pictures to one size"
                    )
                shape = picture.shape
                if x is None:
                    x = np.empty((size, *shape), np.float32)
                x[used], ids[used] = picture, index
                used += 1
            if x is not None:
                yield ids[:used], x[:used]
    finally:
        pictures.close()


def _ahead(
    load: _Loader, positions: range, depth: int, workers: int
) -> Generator[Callable[[], NDArray[np.float32]], None, None]:
    """For each position in turn, a call that gives its picture or raises what loading it raised; up to ``depth`` are in work."""
    if workers == 0:
        for index in positions:
            yield lambda index=index: load(index)  # type: ignore[misc]
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="semanticlens-decode")
    waiting: deque[Future[NDArray[np.float32]]] = deque()
    try:
        for index in positions:
            waiting.append(pool.submit(load, index))
            if len(waiting) > depth:
                yield waiting.popleft().result
        while waiting:
            yield waiting.popleft().result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
