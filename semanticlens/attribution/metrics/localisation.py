"""Localisation: does the relevance lie where the thing is?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens.attribution.metrics.case import Case, Part
from semanticlens.attribution.metrics.flipping import rank

__all__ = ["Localisation", "boxes_to_masks", "mosaic"]

Array = NDArray[Any]
POOLS = ("positive", "absolute", "norm")


@dataclass(frozen=True)
class Localisation:
    """Compare maps with masks of where the thing is (``masks=`` of :func:`evaluate`).

    With p the map after pooling of its channels and S the pixels inside:

    - ``mass``: ``sum_S p / sum p``, relevance mass accuracy (Arras et al., 2022).
    - ``rank``: share of the ``|S|`` most relevant pixels that lie inside, relevance rank accuracy (same source).
    - ``pointing``: 1 if the most relevant pixel lies inside, or at most ``tolerance`` pixels away from it (Zhang et al., 2018).
    - ``area``: ``|S|`` over all pixels, what mass, rank and pointing of a map that knows nothing come to in the mean.

    NaN where a score is undefined: mass without any p > 0, rank and pointing of a map that is the same everywhere.

    Attributes
    ----------
    pool : {"positive", "absolute", "norm"}
        ``max(0, sum_c R_c)``; ``|sum_c R_c|``; or ``sqrt(sum_c R_c**2)``. With "positive", rank and pointing order by the sum
        itself, so that pixels without positive relevance have an order too.
    tolerance : int
        In pixels, measured along the larger of both axes.

    References
    ----------
    Arras, Osman, Samek: CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural network explanations.
    Information Fusion 81, 2022. Zhang et al.: Top-down neural attention by excitation backprop. IJCV 126, 2018.
    """

    pool: str = "positive"
    tolerance: int = 0
    name: ClassVar[str] = "localisation"

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise ValueError(f"pool={self.pool!r}: must be one of {', '.join(POOLS)}")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int) or self.tolerance < 0:
            raise ValueError(f"tolerance={self.tolerance!r}: must be a whole number of at least 0")

    def prepare(self, case: Case) -> int:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        if case.masks is None:
            raise ValueError(
                "metric 'localisation' needs masks=, True inside (boxes become masks by metrics.boxes_to_masks)"
            )
        return 1

    def run(self, case: Case, tick: Callable[[], None]) -> Part:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        assert case.masks is not None
        heat = case.heat()
        pooled = self._pooled(case.maps, heat)
        ordered = (heat if self.pool == "positive" else pooled).reshape(len(case), -1)
        inside = case.masks.reshape(len(case), -1)
        flat = pooled.reshape(len(case), -1)
        total, size = flat.sum(axis=1), inside.sum(axis=1)
        level = ordered.max(axis=1) == ordered.min(axis=1)
        hits = (inside & (rank(ordered) < size[:, None])).sum(axis=1) / size
        best = ordered.argmax(axis=1)
        near = _grown(case.masks, self.tolerance).reshape(len(case), -1)[np.arange(len(case)), best]
        tick()
        return Part(
            {
                "mass": np.where(total > 0, (flat * inside).sum(axis=1) / np.where(total > 0, total, 1), np.nan),
                "rank": np.where(level, np.nan, hits),
                "pointing": np.where(level, np.nan, near),
                "area": inside.mean(axis=1),
            }
        )

    def _pooled(self, maps: Array, heat: Array) -> Array:
        if self.pool == "positive":
            return np.maximum(heat, 0)
        if self.pool == "absolute" or maps.ndim == 3:
            return np.abs(heat)
        return np.asarray(np.sqrt((maps**2).sum(axis=1)))


def _grown(masks: Array, by: int) -> Array:
    """Masks with every pixel that is at most ``by`` rows and columns from one inside."""
    for axis in (1, 2):
        wide = masks.copy()
        for step in range(1, by + 1):
            ahead = [slice(None)] * 3
            behind = [slice(None)] * 3
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            wide[tuple(ahead)] |= masks[tuple(behind)]
            wide[tuple(behind)] |= masks[tuple(ahead)]
        masks = wide
    return masks


def boxes_to_masks(boxes: Sequence[ArrayLike], height: int, width: int) -> Array:
    """Masks of boxes.

    Parameters
    ----------
    boxes : sequence of array_like (4,) or (k, 4)
        Per picture one or several boxes (left, top, right, bottom) in pixels of the network's input; right and bottom are
        the first column and row outside.
    height, width : int

    Returns
    -------
    ndarray (B, height, width), bool

    Raises
    ------
    DataError
        For a box that is empty or not inside the picture.
    """
    masks = np.zeros((len(boxes), height, width), dtype=bool)
    for i, given in enumerate(boxes):
        rows = np.atleast_2d(np.asarray(given))
        if rows.ndim != 2 or rows.shape[1] != 4 or not len(rows) or rows.dtype.kind not in "iu":
            raise DataError(
                f"boxes of picture {i}: {rows.dtype}, shape {rows.shape}; must be whole numbers in shape (k, 4)"
            )
        for left, top, right, bottom in rows:
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                raise DataError(
                    f"boxes of picture {i}: ({left}, {top}, {right}, {bottom}) is empty or outside a picture of "
                    f"{width} x {height}; must be (left, top, right, bottom)"
                )
            masks[i, top:bottom, left:right] = True
    return masks


def mosaic(pictures: ArrayLike, seed: int = 0) -> tuple[Array, Array, Array]:
    """Mosaics of two by two pictures, for the grid pointing game: is the relevance of a class in the quadrant that shows it?

    Parameters
    ----------
    pictures : array_like (n, C, h, w)
        Network inputs of half the size the mosaics are to have; n is a multiple of 4. Four neighbours in the list make a
        mosaic, each in a quadrant drawn by ``seed``; their classes should differ.
    seed : int

    Returns
    -------
    mosaics : ndarray (n // 4, C, 2 h, 2 w)
    masks : ndarray (n, 2 h, 2 w), bool
        Where each picture lies in its mosaic ``i // 4``.
    quadrants : ndarray (n,), int64
        0 top left, 1 top right, 2 bottom left, 3 bottom right.

    Notes
    -----
    Zhang et al., 2018, point into boxes; the game on grids of pictures is that of Böhle, Fritz, Schiele: Convolutional dynamic
    alignment networks, CVPR 2021.
    """
    given = np.asarray(pictures)
    if given.ndim != 4 or len(given) == 0 or len(given) % 4:
        raise DataError(f"pictures of shape {given.shape}: must be (n, C, h, w) with n a multiple of 4")
    n, channels, h, w = given.shape
    mosaics = np.empty((n // 4, channels, 2 * h, 2 * w), dtype=given.dtype)
    masks = np.zeros((n, 2 * h, 2 * w), dtype=bool)
    rng = np.random.default_rng(seed)
    quadrants = np.concatenate([rng.permutation(4) for _ in range(n // 4)])
    for i, quadrant in enumerate(quadrants):
        row, column = divmod(int(quadrant), 2)
        place = np.s_[row * h : (row + 1) * h, column * w : (column + 1) * w]
        mosaics[(i // 4, slice(None), *place)] = given[i]
        masks[(i, *place)] = True
    return mosaics, masks, quadrants
