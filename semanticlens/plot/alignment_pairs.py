"""The distances of the concepts of two representations as a picture: matched pairs along the diagonal, the most alike first."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from semanticlens.plot._type import Pen

__all__ = ["picture"]

NEAR, FAR = np.array([39.0, 93.0, 145.0]), np.array([255.0, 255.0, 255.0])
GRID, MARGIN, NUMBERS_TO = "#d5dade", 54, 60


def picture(
    distances: Any,
    *,
    relative: bool = True,
    size: int = 900,
    names: tuple[str, str] = ("P", "Q"),
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Draw a ConceptDistances as an RGB picture: dark is alike.

    Parameters
    ----------
    distances : ConceptDistances
        At least one concept on each side.
    relative : bool
        Relative distances, from 0 to 1, or the distances themselves, from 0 to the largest.
    size : int
        Longer side in pixels, at least 200.
    names : pair of str
        Of the rows and the columns.
    font : path, optional
        For scripts that no font here covers.
    """
    if size < 200:
        raise ValueError(f"size={size}: must be at least 200 pixels")
    values = distances.relative if relative else distances.distance
    if 0 in values.shape:
        raise ValueError(f"there is nothing to draw: {values.shape[0]} and {values.shape[1]} concepts")
    found = distances.match(relative=relative)
    rows = [m.a for m in found.matches] + list(found.alone_p)
    columns = [m.b for m in found.matches] + list(found.alone_q)
    top = 1.0 if relative else max(float(values.max()), 1e-300)
    ordered = np.clip(values[np.ix_(rows, columns)] / top, 0, 1)
    cell = max(1, (size - 2 * MARGIN) // max(ordered.shape))
    pixels = NEAR + (FAR - NEAR) * np.sqrt(ordered)[..., None]
    heat = Image.fromarray(pixels.round().astype(np.uint8)).resize((cell * len(columns), cell * len(rows)), Image.Resampling.NEAREST)
    image = Image.new("RGB", (heat.width + 2 * MARGIN, heat.height + 2 * MARGIN), "white")
    pen = Pen(image, 1, font)
    pen.box(MARGIN - 1, MARGIN - 1, heat.width + 2, heat.height + 2, GRID)
    image.paste(heat, (MARGIN, MARGIN))
    _write_numbers(pen, rows, columns, cell)
    matched = len(found.matches)
    if matched < max(len(rows), len(columns)):  # where the partners end
        at = MARGIN + matched * cell
        if matched < len(columns):
            pen.box(at - 1, MARGIN, 2, heat.height, "#9a5119")
        else:
            pen.box(MARGIN, at - 1, heat.width, 2, "#9a5119")
    title = f"{'relative distance' if relative else f'distance, white is {top:.3g}'}; dark is alike"
    pen.text(MARGIN, 20, f"rows {names[0]}, columns {names[1]}: {title}", 13, "#59616b")
    return image


def _write_numbers(pen: Pen, rows: list[int], columns: list[int], cell: int) -> None:
    letter = min(12.0, 0.62 * cell)
    if max(len(rows), len(columns)) > NUMBERS_TO or letter < 7:
        return
    for i, a in enumerate(rows):
        pen.text(MARGIN - 6, MARGIN + (i + 0.5) * cell + 0.35 * letter, str(a), letter, "#59616b", align="right")
    for j, b in enumerate(columns):
        pen.text(MARGIN + (j + 0.5) * cell, MARGIN - 6, str(b), letter, "#59616b", align="centre")
