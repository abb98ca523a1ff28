"""Attributions to look at: heat maps, contact sheets, conditional panels, attribution graphs, texts.

Everything is drawn with Pillow, into a :class:`~semanticlens.plot._drawing.Drawing` that notebooks show and ``save`` writes; given axes
of matplotlib, :func:`plot` draws there and returns them. No state is kept anywhere, pyplot's least of all.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from semanticlens.plot._attribution_conditions import conditions, stack
from semanticlens.plot._attribution_graph import graph
from semanticlens.plot._attribution_html import tokens
from semanticlens.plot._attribution_panel import Part, panel
from semanticlens.plot._drawing import Drawing, check_axes, plain
from semanticlens.plot._heat import (
    COLOUR_MAPS,
    F64,
    ColourMap,
    as_picture,
    finite,
    heat_colours,
    heat_limit,
    overlay,
)
from semanticlens.plot._look import GAP, HEAD, INK, LINE, MARGIN, MUTED, Look, bound, cell_size, finish, joined, put
from semanticlens.plot._seen import facts, pictures_of
from semanticlens.plot._type import Pen, clean

if TYPE_CHECKING:
    from semanticlens.attribution.attribute import Attribution

__all__ = [
    "COLOUR_MAPS",
    "Drawing",
    "Part",
    "conditions",
    "graph",
    "heat_colours",
    "heat_limit",
    "overlay",
    "panel",
    "plot",
    "sheet",
    "stack",
    "tokens",
]

BAR = 260.0  # width of the colour bar
SCALES = ("each", "row", "column", "all")
INPUT = "input"
_Column = tuple[str, list[tuple[Image.Image, float | None]]]  # title; pictures, with the limits of those that are maps
SHOWN = 8  # samples that plot() shows unless asked


# ---------------------------------------------------------------------------------------------------------------- contact sheets


def sheet(
    maps: Any,
    *,
    pictures: Sequence[Any] | None = None,
    rows: Sequence[object] | None = None,
    columns: Sequence[object] | None = None,
    title: object = None,
    percentile: float = 99.5,
    cmap: ColourMap = "bwr",
    symmetric: bool | None = None,
    scale: str | float = "each",
    over: bool = False,
    bar: bool = True,
    cell: int = 112,
    pixels: int = 2,
    font: str | os.PathLike[str] | None = None,
) -> Drawing:
    """Maps side by side: a row for each sample, a column for each method or condition.

    Parameters
    ----------
    maps : mapping of str to (array_like or Attribution), array_like, or sequence of array_like
        Column title -> maps (B, H, W) or, for texts and the like, (B, T); an Attribution stands for its heat maps.
    pictures : sequence of B pictures, optional
        PIL images or uint8 arrays (H, W, 3): the first column.
    rows, columns : sequence, optional
        Titles.
    title : object, optional
        A line above all.
    percentile, cmap, symmetric
        As in :func:`heat_colours`.
    scale : {"each", "row", "column", "all"} or float
        Which maps share the scale of colours; a number is the value of the outermost colour of them all. Below each map stands its own.
    over : bool
        Lay maps on the pictures, where there are any.
    bar : bool
        Draw the colour bar.
    cell : int
        Longer side of a map, at least 24.
    pixels : int
        Pixels per unit; 2 is sharp on today's screens and in print.
    font : path, optional
        For scripts that no font here covers.

    Returns
    -------
    Drawing

    Raises
    ------
    ValueError, TypeError
        For maps that do not go together, NaN or infinite values, and arguments that do not fit.
    """
    if cell < 24 or pixels < 1:
        raise ValueError(f"cell={cell}, pixels={pixels}: must be at least 24 and 1")
    look = Look(percentile, cmap, symmetric, over)
    names, grid = _grid(maps, columns)
    seen = _fitting(pictures, len(grid[0]), "pictures")
    shown = None if seen is None else [as_picture(p, f"pictures[{i}]") for i, p in enumerate(seen)]
    if over and shown is None:
        raise ValueError("over=True lays maps on pictures: pass pictures=")
    limits = _limits(grid, look, scale)
    images = [
        [look.image(values, limits[i][j], None if shown is None else shown[i]) for j, values in enumerate(line)]
        for i, line in enumerate(zip(*grid, strict=True))
    ]
    cells: list[_Column] = [] if shown is None else [("", [(picture, None) for picture in shown])]
    cells += [(name, [(images[i][j], limits[i][j]) for i in range(len(images))]) for j, name in enumerate(names)]
    given = _fitting(rows, len(images), "rows")
    layout = _Sheet(cells, [clean(str(r)) for r in given] if given is not None else [], title, float(cell), look, scale, bar)
    return finish(layout.draw, pixels, font, f"{len(images)} x {len(names)} maps")


def _grid(maps: Any, columns: Sequence[object] | None) -> tuple[list[str], list[list[F64]]]:
    """Titles, and for each column its maps, all (H, W)."""
    if isinstance(maps, Mapping):
        if columns is not None:
            raise ValueError("columns= names the columns of arrays; a mapping has its own names")
        names, given = [str(name) for name in maps], list(maps.values())
    else:
        given = [maps] if hasattr(maps, "heatmap") or isinstance(maps, np.ndarray) else list(maps)
        names = [""] * len(given)
        if columns is not None:
            if len(columns) != len(given):
                raise ValueError(f"columns has {len(columns)} titles for {len(given)} columns of maps")
            names = [str(name) for name in columns]
    if not given:
        raise ValueError("maps is empty: there is nothing to draw")
    return [clean(name) for name in names], [_column(m, names[j] or f"maps[{j}]") for j, m in enumerate(given)]


def _column(maps: Any, name: str) -> list[F64]:
    values = finite(maps.heatmap() if hasattr(maps, "heatmap") else maps, name)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(
            f"{name} has shape {values.shape}: maps are (B, H, W) or (B, T); sum relevance over channels first, as r.heatmap() does"
        )
    return [m if m.ndim == 2 else m[None] for m in values]


def _fitting(given: Sequence[Any] | None, count: int, what: str) -> list[Any] | None:
    if given is None:
        return None
    if isinstance(given, str) or len(given) != count:
        raise ValueError(f"{what} has {len(given)} entries for {count} rows of maps")
    return list(given)


def _limits(grid: list[list[F64]], look: Look, scale: str | float) -> list[list[float]]:
    """Row by row, the value of the outermost colour of each map."""
    for j, column in enumerate(grid):
        if len(column) != len(grid[0]):
            raise ValueError(f"maps[{j}] has {len(column)} samples, the first column has {len(grid[0])}")
    count, width = len(grid[0]), len(grid)
    if isinstance(scale, numbers.Real) and not isinstance(scale, bool):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale={scale!r}: must be a finite number above 0, or one of {', '.join(SCALES)}")
        return [[float(scale)] * width for _ in range(count)]
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r}: must be one of {', '.join(SCALES)}, or the value of the outermost colour")
    if scale == "each":
        return [[look.limit(grid[j][i]) for j in range(width)] for i in range(count)]
    if scale == "row":
        return [[look.limit(joined([column[i] for column in grid]))] * width for i in range(count)]
    if scale == "column":
        return [[look.limit(joined(column)) for column in grid]] * count
    return [[look.limit(joined([m for column in grid for m in column]))] * width for _ in range(count)]


@dataclass(frozen=True)
class _Sheet:
    """What a sheet consists of, ready to be drawn."""

    columns: list[_Column]
    rows: list[str]
    title: object
    cell: float
    look: Look
    scale: str | float
    bar: bool

    def draw(self, pen: Pen) -> tuple[float, float]:
        left = MARGIN
        if self.rows:
            left += min(140.0, max(pen.width(name, 12) for name in self.rows)) + 12
        y = MARGIN
        if self.title is not None:
            pen.text(MARGIN, y + 13, clean(str(self.title)), 15, INK)
            y += 30
        width = len(self.columns) * (self.cell + GAP) - GAP
        y = self._heads(pen, left, y)
        numbers = 16.0 if self.scale == "each" else 0.0
        for i in range(len(self.columns[0][1])):
            high = max(cell_size(column[i][0], self.cell)[1] for _, column in self.columns)
            if self.rows:
                pen.text(left - 12, y + high / 2 + 4, pen.fit(self.rows[i], 12, 140), 12, MUTED, "right")
            for j, (_, column) in enumerate(self.columns):
                image, limit = column[i]
                x = left + j * (self.cell + GAP)
                put(pen, image, x, y, self.cell, high)
                if numbers and limit is not None:
                    pen.text(x + self.cell / 2, y + high + 13, bound(limit, self.look), 10.5, MUTED, "centre")
            y += high + numbers + GAP
        right = left + max(width, BAR if self.bar else 0)
        if self.title is not None:
            right = max(right, MARGIN + pen.width(clean(str(self.title)), 15))
        if self.bar:
            y = _colour_bar(pen, left, y + 6, self.look, self._said(), self._bar_limit())
            right = max(right, left + pen.width(self._said(), 10.5))
        return right + MARGIN, y - GAP + MARGIN

    def _heads(self, pen: Pen, left: float, y: float) -> float:
        """Titles of columns, in up to three lines, on one base line."""
        lines = [_wrapped(pen, name, self.cell) for name, _ in self.columns]
        most = max(map(len, lines))
        for j, own in enumerate(lines):
            for k, text in enumerate(own):
                at = y + (most - len(own) + k) * HEAD + 10
                pen.text(left + j * (self.cell + GAP) + self.cell / 2, at, text, 12, INK, "centre")
        return y + most * HEAD + (3 if most else 0)

    def _bar_limit(self) -> float | None:
        if self.scale == "all" or not isinstance(self.scale, str):
            return next(limit for _, column in self.columns for _, limit in column if limit is not None)
        return None

    def _said(self) -> str:
        end = "relevance" if self.look.both else "positive relevance"
        if not isinstance(self.scale, str):
            return f"{end}, one scale for all"
        whose = {"each": "each map has its own scale", "row": "one scale in each row", "column": "one scale in each column"}
        pieces = f"{end}; {whose.get(self.scale, 'one scale for all')}"
        return f"{pieces}, up to percentile {self.look.percentile:g}" if self.look.percentile < 100 else pieces


def _wrapped(pen: Pen, text: str, room: float) -> list[str]:
    """A title in up to three lines, broken after white space and after the marks that join words in names."""
    lines = [""]
    for piece in re.split(r"(?<=[\s_./,-])", text):
        if lines[-1] and pen.width((lines[-1] + piece).rstrip(), 12) > room:
            lines.append("")
        lines[-1] += piece
    lines = [*lines[:2], "".join(lines[2:])] if len(lines) > 3 else lines
    return [pen.fit(line.strip(), 12, room) for line in lines if line.strip()]


def _colour_bar(pen: Pen, x: float, y: float, look: Look, words: str, limit: float | None) -> float:
    """The colours with their ends, and a line that says what they mean; the height that is reached is returned."""
    s = pen.scale
    low = -1.0 if look.both else 0.0
    ramp = heat_colours(np.linspace(low, 1, round(BAR * s))[None], cmap=look.cmap, symmetric=look.symmetric, limit=1.0)
    strip = Image.fromarray(ramp).resize((ramp.shape[1], round(10 * s)), Image.Resampling.NEAREST)
    left, top = round(x * s), round(y * s)
    pen.image.paste(strip, (left, top))
    pen.draw.rectangle((left, top, left + strip.width - 1, top + strip.height - 1), outline=LINE, width=max(1, s // 2))
    ends = ("against", "0", "for") if limit is None else (plain(-limit), "0", plain(limit))
    if look.both:
        pen.text(x, y + 22, ends[0], 10.5, MUTED)
        pen.text(x + BAR / 2, y + 22, ends[1], 10.5, MUTED, "centre")
    else:
        pen.text(x, y + 22, ends[1], 10.5, MUTED)
    pen.text(x + BAR, y + 22, ends[2], 10.5, MUTED, "right")
    pen.text(x, y + 38, words, 10.5, MUTED)
    return y + 38 + GAP + 4


# ---------------------------------------------------------------------------------------------------------------- of a result


def plot(
    r: Attribution,
    ax: Any = None,
    *,
    name: str | None = None,
    samples: int | Sequence[int] | None = None,
    over: bool = False,
    percentile: float = 99.5,
    cmap: ColourMap = "bwr",
    symmetric: bool | None = None,
    scale: str | float = "each",
    bar: bool = False,
    **options: Any,
) -> Any:
    """What ``r.plot()`` draws: the heat maps of the input and of the recorded values, with the pictures where they are known.

    Parameters
    ----------
    r : Attribution
    ax : axes of matplotlib, or as many of them as there are samples, optional
        Draw there, one map of one value on each, and return them.
    name : str, optional
        Only this value: ``"input"`` or one that was recorded. Left out: on axes the input, else the input and every recorded map.
    samples : int or sequence of int, optional
        Left out, the first 8; on one pair of axes the first.
    over : bool
        Lay maps on the pictures.
    percentile, cmap, symmetric
        As in :func:`heat_colours`.
    scale : {"each", "row", "column", "all"} or float
        As in :func:`sheet`; on axes "column" and "all" mean one scale for all samples.
    bar : bool
        A colour bar beside each of the axes (without ``ax`` there always is one).
    options
        Of :func:`sheet`.

    Returns
    -------
    Drawing, or what was given as ``ax``
    """
    many = ax is not None and not hasattr(ax, "imshow")
    chosen = _samples(r, samples, ax is not None and not many)
    seen = pictures_of(r, chosen)
    if over and seen is None:
        raise ValueError("over=True lays maps on pictures, but this attribution knows none: its input is not a picture")
    if ax is None:
        names = [name] if name is not None else [INPUT, *(n for n, a in r.arrays.items() if a.ndim >= 3)]
        maps = {n: r.heatmap(n)[chosen] for n in names}
        options.setdefault("rows", [facts(r, i).line for i in chosen])
        return sheet(
            maps, pictures=seen, over=over, percentile=percentile, cmap=cmap, symmetric=symmetric, scale=scale, **options
        )
    if options:
        raise TypeError(f"{', '.join(options)}: not for axes, which have titles and sizes of their own")
    return _on_axes(r, ax, many, chosen, seen if over else None, name or INPUT, scale,
                    Look(percentile, cmap, symmetric, over), bar)  # fmt: skip


def _on_axes(r: Attribution, ax: Any, many: bool, chosen: list[int], seen: Any, name: str, scale: str | float, look: Look,
             bar: bool) -> Any:  # fmt: skip
    from semanticlens.plot._axes import heat_on

    axes = [check_axes(one) for one in (np.asarray(ax, dtype=object).ravel().tolist() if many else [ax])]
    if len(axes) != len(chosen):
        raise ValueError(f"ax holds {len(axes)} axes for {len(chosen)} samples: give as many, or choose with samples=")
    column = _column(r.heatmap(name)[chosen], name)
    limits = _limits([column], look, scale)
    for i, one in enumerate(axes):
        heat_on(one, column[i], picture=None if seen is None else seen[i], cmap=look.cmap, symmetric=look.symmetric,
                limit=limits[i][0], title=facts(r, chosen[i]).line, bar=bar)  # fmt: skip
    return ax


def _samples(r: Attribution, samples: int | Sequence[int] | None, one: bool) -> list[int]:
    count = len(r.input)
    if samples is None:
        return list(range(min(count, 1 if one else SHOWN)))
    chosen = [samples] if isinstance(samples, (int, np.integer)) else list(samples)
    if not chosen:
        raise ValueError("samples is empty: there is nothing to draw")
    for i in chosen:
        if not -count <= i < count:
            raise ValueError(f"samples: {i} is not one of the {count} samples")
    return [int(i) % count for i in chosen]
