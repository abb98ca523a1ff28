"""Conditional panels: one sample, and what each component contributes to it."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike
from PIL import Image

from semanticlens.plot._drawing import Drawing, plain
from semanticlens.plot._heat import F64, ColourMap, as_picture, finite
from semanticlens.plot._look import GAP, INK, MARGIN, MUTED, Look, bound, cell_size, finish, joined, put
from semanticlens.plot._type import Pen, clean

__all__ = ["Part", "panel"]


@dataclass(frozen=True)
class Part:
    """What one component, or one condition, contributes.

    Attributes
    ----------
    heat : array_like (H, W)
        Its conditional map.
    name : str
        Such as ``"features.28 17"``.
    score : float, optional
        Its relevance, or its share of the whole.
    label : str
        What it stands for, where that is known.
    examples : sequence of pictures
        PIL images or uint8 arrays, such as the crops that activate it most.
    """

    heat: ArrayLike
    name: str = ""
    score: float | None = None
    label: str = ""
    examples: Sequence[Any] = ()


def panel(
    whole: ArrayLike,
    parts: Sequence[Part],
    *,
    picture: Any = None,
    title: object = None,
    percentile: float = 99.5,
    cmap: ColourMap = "bwr",
    symmetric: bool | None = None,
    scale: str | float = "each",
    over: bool = False,
    n_examples: int = 6,
    cell: int = 132,
    pixels: int = 2,
    font: str | os.PathLike[str] | None = None,
) -> Drawing:
    """One sample explained: the picture, its whole map, and the map of each component with its name, score and examples.

    Parameters
    ----------
    whole : array_like (H, W)
    parts : sequence of Part
        In the order in which they are to be shown.
    picture : PIL image or uint8 array, optional
    title : object, optional
    percentile, cmap, symmetric, over, pixels, font
        As in :func:`sheet`.
    scale : {"each", "all"} or float
        "all": the parts share one scale; the whole map keeps its own.
    n_examples : int
        At most this many examples of each part, three in a row.
    cell : int
        Longer side of a map, at least 60.

    Returns
    -------
    Drawing
    """
    if cell < 60 or pixels < 1 or n_examples < 0:
        raise ValueError(f"cell={cell}, pixels={pixels}, n_examples={n_examples}: must be at least 60, 1 and 0")
    if scale not in ("each", "all") and not (isinstance(scale, numbers.Real) and math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale={scale!r}: must be 'each', 'all' or the value of the outermost colour")
    look = Look(percentile, cmap, symmetric, over)
    all_maps = [_one_map(whole, "whole"), *(_one_map(part.heat, f"parts[{i}].heat") for i, part in enumerate(parts))]
    shown = None if picture is None else as_picture(picture)
    if over and shown is None:
        raise ValueError("over=True lays maps on the picture: pass picture=")
    limits = [look.limit(m) for m in all_maps]
    if not isinstance(scale, str):
        limits = [float(scale)] * len(limits)
    elif scale == "all" and parts:
        limits[1:] = [look.limit(joined(all_maps[1:]))] * len(parts)
    blocks = [
        _Block(look.image(m, limit, shown), bound(limit, look), *_words(part), _examples(part, i, n_examples))
        for i, (m, limit, part) in enumerate(zip(all_maps, limits, [None, *parts], strict=True))
    ]
    if shown is not None:
        blocks.insert(0, _Block(shown, "", "picture", "", []))
    line = None if title is None else clean(str(title))
    return finish(lambda pen: _draw_panel(pen, blocks, line, float(cell)), pixels, font, f"{len(parts)} conditional maps")


@dataclass(frozen=True)
class _Block:
    image: Image.Image
    below: str
    name: str
    label: str
    examples: list[Image.Image]


def _one_map(values: ArrayLike, name: str) -> F64:
    found = finite(values, name)
    if found.ndim != 2 or 0 in found.shape:
        raise ValueError(f"{name} has shape {found.shape}: must be one map (H, W)")
    return found


def _words(part: Part | None) -> tuple[str, str]:
    if part is None:
        return "whole", ""
    score = "" if part.score is None else f"{'+' if part.score > 0 else ''}{plain(part.score)}"
    return "  ".join(piece for piece in (clean(part.name), score) if piece), clean(part.label)


def _examples(part: Part | None, i: int, most: int) -> list[Image.Image]:
    if part is None:
        return []
    return [as_picture(p, f"parts[{i - 1}].examples[{k}]") for k, p in enumerate(part.examples[:most])]


def _draw_panel(pen: Pen, blocks: Sequence[_Block], title: str | None, cell: float) -> tuple[float, float]:
    y = MARGIN
    right = MARGIN + len(blocks) * (cell + GAP) - GAP
    if title is not None:
        pen.text(MARGIN, y + 13, title, 15, INK)
        right = max(right, MARGIN + pen.width(title, 15))
        y += 30
    labels = [pen.wrap(block.label, 11, cell, 2) for block in blocks]
    most = max(map(len, labels))
    high = max(cell_size(block.image, cell)[1] for block in blocks)
    bottom = y
    for j, (block, label) in enumerate(zip(blocks, labels, strict=True)):
        x = MARGIN + j * (cell + GAP)
        pen.text(x, y + 10, pen.fit(block.name, 12, cell), 12, INK)
        for k, text in enumerate(label):
            pen.text(x, y + 10 + 14 * (k + 1), text, 11, MUTED)
        top = y + 17 + 14 * most
        put(pen, block.image, x, top, cell, high)
        pen.text(x + cell / 2, top + high + 13, block.below, 10.5, MUTED, "centre")
        small = (cell - 2 * 3) / 3
        at = top + high + 20
        for k, example in enumerate(block.examples):
            square = _square(example)
            put(pen, square, x + (k % 3) * (small + 3), at + (k // 3) * (small + 3), small, small)
        bottom = max(bottom, at + math.ceil(len(block.examples) / 3) * (small + 3))
    return right + MARGIN, bottom + MARGIN - 3


def _square(image: Image.Image) -> Image.Image:
    """The middle of a picture."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((96, 96), Image.Resampling.LANCZOS)
