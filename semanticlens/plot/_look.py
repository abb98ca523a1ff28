"""What sheets and panels have in common: how maps are coloured, and how they are put on a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from semanticlens.plot._drawing import Drawing, plain
from semanticlens.plot._heat import F64, ColourMap, enlarged, heat_colours, heat_limit, overlay, two_sided
from semanticlens.plot._type import Pen

__all__ = ["GAP", "HEAD", "INK", "LINE", "MARGIN", "MUTED", "Look", "bound", "cell_size", "finish", "joined", "put"]

INK, MUTED, LINE = "#1b1f24", "#59616b", "#d5dade"
MARGIN, GAP, HEAD = 20.0, 8.0, 15.0  # in units of 1/pixels
STRIP = 26.0  # height of a map with one row


@dataclass(frozen=True)
class Look:
    """How maps are coloured."""

    percentile: float
    cmap: ColourMap
    symmetric: bool | None
    over: bool

    @property
    def both(self) -> bool:
        return two_sided(self.cmap, self.symmetric)

    def limit(self, values: ArrayLike) -> float:
        return heat_limit(values, self.percentile, two_sided=self.both)

    def image(self, values: F64, limit: float, picture: Image.Image | None) -> Image.Image:
        if self.over and picture is not None:
            return overlay(picture, values, cmap=self.cmap, symmetric=self.symmetric, limit=limit)
        return Image.fromarray(heat_colours(values, cmap=self.cmap, symmetric=self.symmetric, limit=limit))


def joined(maps: Sequence[F64]) -> F64:
    return np.concatenate([m.ravel() for m in maps])


def bound(limit: float, look: Look) -> str:
    return f"± {plain(limit)}" if look.both else f"0 to {plain(limit)}"


def cell_size(image: Image.Image, cell: float) -> tuple[float, float]:
    """Width and height in units: the longer side fills the cell; a single row is a strip."""
    if image.height == 1:
        return cell, STRIP
    factor = cell / max(image.size)
    return image.width * factor, image.height * factor


def put(pen: Pen, image: Image.Image, x: float, y: float, cell: float, high: float) -> None:
    """A map or picture in the middle of its cell, with a thin frame."""
    width, height = cell_size(image, cell)
    x, y = x + (cell - width) / 2, y + (high - height) / 2
    s = pen.scale
    left, top = round(x * s), round(y * s)
    size = max(1, round(width * s)), max(1, round(height * s))
    pen.image.paste(enlarged(image, *size), (left, top))
    pen.draw.rectangle((left, top, left + size[0] - 1, top + size[1] - 1), outline=LINE, width=max(1, s // 2))


def finish(draw: Any, pixels: int, font: Any, about: str) -> Drawing:
    """Draw twice: on a canvas of one pixel to learn the size, then for good."""
    width, height = draw(Pen(Image.new("RGB", (1, 1)), pixels, font))
    image = Image.new("RGB", (math.ceil(width * pixels), math.ceil(height * pixels)), "white")
    draw(Pen(image, pixels, font))
    return Drawing(image, pixels, about)
