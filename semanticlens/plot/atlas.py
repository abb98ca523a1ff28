"""The atlas of concepts as a picture and as a page: each concept where it lies, with its most typical sample."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticlens._version import __version__
from semanticlens.io import atomic_write
from semanticlens.plot import _alignment_style, _report_style
from semanticlens.plot._pictures import Pictures
from semanticlens.plot._type import Pen
from semanticlens.plot.html import Html, escape, number
from semanticlens.plot.html import page as html_page

__all__ = ["picture", "write_page"]

# Twelve hues told apart at equal lightness; groups beyond them repeat.
COLOURS = (
    "#2f6fab",
    "#b0562b",
    "#3d8a4f",
    "#8b4ea3",
    "#a8862a",
    "#2c8c8c",
    "#b8436b",
    "#5f6fc4",
    "#7a7a2e",
    "#9a5f3c",
    "#4d7f9e",
    "#7f5fa0",
)
MARGIN = 40
SIZE, NODE = 1000, 40  # of the map on the page, and of the largest picture in it


def _side(count: int, size: int) -> float:
    """Side of a concept's picture: less where there are many."""
    return float(np.clip(size / (1.5 * np.sqrt(max(count, 1))), 14, NODE * size / 1000 * 1.6))


def _spread(places: np.ndarray, room: float, rounds: int = 60) -> np.ndarray:
    """Places moved as little as it takes to keep ``room`` between their centres (in units of the map), where that converges."""
    out = places.astype(np.float64).copy()
    for _ in range(rounds):
        difference = out[:, None] - out[None]
        gap = room - np.abs(difference).max(axis=2)
        np.fill_diagonal(gap, -1.0)
        close = gap > 1e-4
        if not close.any():
            break
        axis = np.abs(difference).argmax(axis=2)
        sign = np.sign(np.take_along_axis(difference, axis[..., None], axis=2)[..., 0])
        order = np.sign(np.arange(len(out))[:, None] - np.arange(len(out))[None])
        push = np.where(close, 0.25 * gap, 0.0) * np.where(sign == 0, order, sign)
        out[:, 0] += np.where(axis == 0, push, 0.0).sum(axis=1)
        out[:, 1] += np.where(axis == 1, push, 0.0).sum(axis=1)
        out = np.clip(out, 0.0, 1.0)
    return np.asarray(out)


def _group_labels(atlas: Any, places: np.ndarray) -> list[tuple[str, float, float, int]]:
    """(text, x, y, group) of the groups that have a name, at their topmost concept."""
    found = []
    for g, name in enumerate(atlas.group_names):
        own = places[atlas.groups == g]
        if name is not None and len(own):
            top = own[own[:, 1].argmin()]
            found.append((str(name), float(top[0]), float(top[1]), g))
    return found


def picture(atlas: Any, *, size: int = 1000, font: str | os.PathLike[str] | None = None) -> Image.Image:
    """Draw the map as an RGB picture of ``size`` pixels a side.

    Parameters
    ----------
    atlas : Atlas
    size : int
        At least 200.
    font : path, optional
        For scripts that no font here covers.
    """
    if size < 200:
        raise ValueError(f"size={size}: must be at least 200 pixels")
    image = Image.new("RGB", (size, size), "white")
    pen = Pen(image, 1, font)
    side = _side(len(atlas.places), size)
    places = _spread(atlas.places, (side + 6) / (size - 2 * MARGIN))
    corner = MARGIN + places * (size - 2 * MARGIN) - side / 2
    for concept, (x, y), group in zip(atlas.concepts, corner, atlas.groups, strict=True):
        colour = COLOURS[int(group) % len(COLOURS)]
        pen.box(x - 3, y - 3, side + 6, side + 6, colour, radius=4)
        if atlas.images is not None and concept.examples:
            thumb = atlas.images[concept.examples[0][0]].convert("RGB").resize((round(side), round(side)), Image.Resampling.LANCZOS)
            image.paste(thumb, (round(x), round(y)))
        else:
            text = concept.label or str(concept.index)
            pen.text(x + side / 2, y + side / 2 + 4, pen.fit(text, 11, side), 11, "white", align="centre")
    for text, x, y, group in _group_labels(atlas, places):
        left, top = MARGIN + x * (size - 2 * MARGIN), MARGIN + y * (size - 2 * MARGIN) - side / 2 - 8
        words = pen.fit(text, 14, 220)
        width = pen.width(words, 14)
        left = min(max(left, width / 2 + 4), size - width / 2 - 4)
        pen.box(left - width / 2 - 4, max(top - 14, 0), width + 8, 19, "white", radius=3)
        pen.text(left, max(top, 14), words, 14, COLOURS[group % len(COLOURS)], align="centre")
    return image


def _map(atlas: Any, pictures: Pictures) -> str:
    side = _side(len(atlas.places), SIZE)
    places = _spread(atlas.places, (side + 6) / (SIZE - 2 * MARGIN))
    nodes = []
    for c, (x, y), group in zip(atlas.concepts, MARGIN + places * (SIZE - 2 * MARGIN), atlas.groups, strict=True):
        colour, left, top = COLOURS[int(group) % len(COLOURS)], x - side / 2, y - side / 2
        classes = ", ".join(f"{name} {number(100 * share, 0)} %" for name, share in c.classes)
        words = f"{c.label + ', ' if c.label else ''}concept {c.index}, {c.size} samples{', ' + classes if classes else ''}"
        cell = pictures.cell(c.examples[0][0], words) if c.examples else Html("")
        nodes.append(
            f'<a href="#concept-{c.index}"><rect x="{left - 3:.1f}" y="{top - 3:.1f}" width="{side + 6:.1f}" '
            f'height="{side + 6:.1f}" rx="5" '
            f'fill="{colour}"><title>{escape(words)}</title></rect>'
            f'<foreignObject x="{left:.1f}" y="{top:.1f}" width="{side:.1f}" height="{side:.1f}">{cell}</foreignObject></a>'
        )
    names = []
    for text, x, y, _ in _group_labels(atlas, places):
        left, top = MARGIN + x * (SIZE - 2 * MARGIN), MARGIN + y * (SIZE - 2 * MARGIN) - side / 2 - 9
        names.append(f'<text x="{left:.0f}" y="{max(top, 14):.0f}" text-anchor="middle">{escape(text)}</text>')
    words = f"map of {len(atlas.concepts)} concepts"
    drawn = "".join(nodes + names)
    return f'<div class="map"><svg role="img" aria-label="{words}" viewBox="0 0 {SIZE} {SIZE}">{drawn}</svg></div>'


def write_page(atlas: Any, path: str | os.PathLike[str], *, title: str = "Concept atlas", date: datetime.datetime | None = None) -> Path:
    """Write the map and the list of its concepts as one self-contained HTML page, atomically.

    Parameters
    ----------
    atlas : Atlas
    path : path
        Its folder must exist.
    title : str
    date : datetime, optional
        Written into the page; None is now.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist")
    when = datetime.datetime.now().astimezone() if date is None else date
    pictures = Pictures(atlas.images)
    drawn = _map(atlas, pictures)
    tiles = []
    for g, name in enumerate(atlas.group_names):
        own = [atlas.concepts[int(k)] for k in np.flatnonzero(atlas.groups == g)]
        items = "".join(f'<li id="concept-{c.index}">{_tile(c, pictures)}</li>' for c in own)
        head = f'<i style="display:inline-block;width:.8em;height:.8em;border-radius:2px;background:{COLOURS[g % len(COLOURS)]}"></i>'
        tiles.append(f'<h3 class="sub">{head} {escape(name if name is not None else f"Group {g + 1}")}</h3><ul class="alone">{items}</ul>')
    body = (
        f'<header class="top"><div class="wide"><p class="eyebrow">Concept atlas, {when:%Y-%m-%d}</p><h1 class="text">{escape(title)}</h1>'
        f'<p class="lead">{len(atlas.concepts)} concepts in {len(atlas.group_names)} groups. Concepts that hold similar samples '
        f"lie near each other; "
        "far apart means unalike, but how far says little.</p></div></header>"
        f'<main>{drawn}<section><h2>Concepts</h2>{"".join(tiles)}</section></main><footer><div class="wide">Made with semanticlens-native '
        f"{escape(__version__)} on {when:%Y-%m-%d %H:%M %Z}. This page is complete in itself: it loads nothing and sends "
        f"nothing.</div></footer>"
    )
    style = _report_style.CSS + _alignment_style.CSS + pictures.css()
    with atomic_write(target, "w") as file:
        file.write(html_page(title, body, style=style, description="Concept atlas"))
    return target


def _tile(c: Any, pictures: Pictures) -> str:
    classes = ", ".join(f"{escape(word)} {number(100 * share, 0)} %" for word, share in c.classes)
    name = f"<b>{escape(c.label)}</b> " if c.label is not None else ""
    facts = f"{c.size} sample{'' if c.size == 1 else 's'}{': ' + classes if classes else ''}"
    shown = pictures.cells(c.examples, "strip", f"concept {c.index}")
    return f'<div class="concept"><p class="text">{name}<b>concept {c.index}</b> <small>{facts}</small></p>{shown}</div>'
