"""What is known about the samples of an attribution: their pictures, classes and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semanticlens.plot._drawing import plain

if TYPE_CHECKING:
    from semanticlens.attribution.attribute import Attribution
    from semanticlens.attribution.condition import Conditional

__all__ = ["Facts", "facts", "pictures_of"]


@dataclass(frozen=True)
class Facts:
    """One sample.

    Attributes
    ----------
    target : int or None
        The class that relevance started from, where it was one class.
    label : str
        Its name, if the network knows it.
    output : float or None
        What the network said for it.
    started, arrived : float
        Sums of the relevance that was put in and of what the input got.
    """

    target: int | None
    label: str
    output: float | None
    started: float
    arrived: float

    @property
    def line(self) -> str:
        """Class and value in a few words."""
        if self.target is None:
            return f"sum {plain(self.started)}"
        return f"{self.label or f'class {self.target}'} {plain(self.output or 0.0)}"


def facts(r: Attribution | Conditional, i: int) -> Facts:
    """Read them off."""
    start, output = np.asarray(r.start[i], np.float64), np.asarray(r.output[i], np.float64)
    target = None
    if start.ndim == 1 and start.shape == output.shape:
        given = np.flatnonzero(start > 0) if (start < 0).any() else np.flatnonzero(start)
        given = np.flatnonzero(start) if np.count_nonzero(start) == 1 else given  # a negative logit too
        target = int(given[0]) if len(given) == 1 else None
    labels = getattr(getattr(r, "net", None), "labels", None)
    label = str(labels[target]) if target is not None and labels and target < len(labels) else ""
    said = None if target is None else float(output[target])
    return Facts(target, label, said, float(start.sum()), float(np.sum(r.input[i], dtype=np.float64)))


def pictures_of(r: Attribution | Conditional, samples: Sequence[int]) -> list[Image.Image] | None:
    """The pictures that the network saw: its preprocessing undone where it is known, else each stretched from its least to its
    largest value. None if the input is not a picture of 1 or 3 channels, or not known.
    """
    x = getattr(r, "x", None)
    if x is None or x.ndim != 4 or x.shape[1] not in (1, 3):
        return None
    preprocess = getattr(getattr(r, "net", None), "preprocess", None)
    return [_picture(np.asarray(x[i], np.float64), preprocess) for i in samples]


def _picture(x: NDArray[np.float64], preprocess: Any) -> Image.Image:
    if preprocess is not None and preprocess.channels == len(x):
        mean, std = (np.asarray(v, np.float64)[:, None, None] for v in (preprocess.mean, preprocess.std))
        pixels = (x * std + mean) / preprocess.scale
        pixels = pixels[::-1] if preprocess.mode == "BGR" else pixels
    else:
        low, high = x.min(), x.max()
        pixels = (x - low) * (255 / (high - low)) if high > low else np.full_like(x, 127.0)
    eight = np.floor(np.clip(pixels, 0, 255) + 0.5).astype(np.uint8)
    return Image.fromarray(eight[0] if len(eight) == 1 else eight.transpose(1, 2, 0)).convert("RGB")
