"""A map of components to look at: a picture (Pillow, SVG, or axes of matplotlib), and one page to zoom, pan and search in."""

from __future__ import annotations

import base64
import datetime
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from semanticlens._version import __version__
from semanticlens.io import atomic_write
from semanticlens.plot import _map_page
from semanticlens.plot._axes import map_on
from semanticlens.plot._drawing import FORMATS, Drawing
from semanticlens.plot._look import INK, MUTED
from semanticlens.plot._map_data import (
    RAMP,
    UNDEFINED,
    example_sheets,
    kind_colours,
    limits,
    on_ramp,
    page_data,
    point_colours,
    script_json,
    written,
)
from semanticlens.plot._type import Pen, clean
from semanticlens.plot.html import Html, escape, fragment, image_bytes, note, number, page, table, title

if TYPE_CHECKING:
    from semanticlens.lens.map import Colouring, SemanticMap

__all__ = ["fragment_of", "picture", "place", "save", "write_page"]

F64 = NDArray[np.float64]
Boxed = tuple[str, float, float, float, float]  # text, middle, width and height
WIDTH, EDGE, TOP = 780.0, 26.0, 40.0
SIZES = (15.0, 11.5)  # of the names of the coarsest regions and of the next
STAY = 0.3  # dots that a name may cover rather than move one place further
FAR = 0.22  # of the picture's width: the same name is not written twice within
STEPS = (
    (0, 0),
    (0, -1.1),
    (0, 1.1),
    (0.6, 0),
    (-0.6, 0),
    (0, -2.2),
    (0, 2.2),
    (0.6, -1.1),
    (-0.6, -1.1),
    (0.6, 1.1),
    (-0.6, 1.1),
)
BUDGET = 6_000_000
KEYS = (
    "Drag to pan, turn the wheel or pinch to zoom, tap a dot to keep its card open. Keys, with the map in focus: arrows pan, "
    "<kbd>+</kbd> and <kbd>−</kbd> zoom, <kbd>0</kbd> shows all, <kbd>Enter</kbd> opens the component nearest to the middle, "
    "<kbd>Esc</kbd> closes it, <kbd>/</kbd> goes to the search."
)


# ---------------------------------------------------------------------------------------------------------------- names


@dataclass(frozen=True)
class Name:
    """A name to be written, its middle at (x, y)."""

    text: str
    x: float
    y: float
    size: float
    width: float


def place(
    wanted: Sequence[Name],
    frame: tuple[float, float, float, float],
    points: F64 | None = None,
    *,
    apart: float = 0.0,
    limit: int = 60,
) -> list[tuple[int, Name]]:
    """Names moved a little, off each other and off dots, with their places in ``wanted``; those for which there is no room are left out.

    Parameters
    ----------
    wanted : sequence of Name
        The important ones first.
    frame : (left, top, right, bottom)
        Names stay inside.
    points : ndarray (K, 2), optional
        Dots, which are better not covered.
    apart : float
        The same text is not written twice within this distance.
    limit : int
    """
    boxes = np.empty((0, 4))
    done: list[tuple[int, Name]] = []
    for i, name in enumerate(wanted):
        if len(done) >= limit:
            break
        same = [other for _, other in done if other.text == name.text]
        if name.width > frame[2] - frame[0] or any(max(abs(o.x - name.x), abs(o.y - name.y)) < apart for o in same):
            continue
        best, least = None, np.inf
        for step, box in enumerate(_candidates(name, frame)):
            if not ((box[:2] < boxes[:, 2:]) & (boxes[:, :2] < box[2:])).all(axis=1).any():
                covered = 0 if points is None else int(((points > box[:2]) & (points < box[2:])).all(axis=1).sum())
                if covered + STAY * step < least:
                    best, least = box, covered + STAY * step
        if best is not None:
            boxes = np.concatenate([boxes, best[None]])
            x, y = (best[:2] + best[2:]) / 2
            done.append((i, Name(name.text, float(x), float(y), name.size, name.width)))
    return done


def _candidates(name: Name, frame: tuple[float, float, float, float]) -> list[F64]:
    """Boxes (left, top, right, bottom) around the place of a name, near ones first, all inside the frame."""
    high, found = name.size * 1.35, []
    for across, up in STEPS:
        x = min(max(name.x + across * name.width, frame[0] + name.width / 2), frame[2] - name.width / 2)
        y = min(max(name.y + up * high, frame[1] + high / 2), frame[3] - high / 2)
        found.append(np.array([x - name.width / 2, y - high / 2, x + name.width / 2, y + high / 2]))
    return found


def _wanted(
    m: SemanticMap, to: Callable[[float, float], tuple[float, float]], width: Callable[[str, float], float]
) -> list[Name]:
    """Names of the coarsest regions, then of the next level, at their places in the picture."""
    found = []
    for region in written(m):
        if region.level < len(SIZES):
            text = clean(region.name)
            text = text if len(text) <= 36 else text[:34].rstrip() + "…"
            x, y = to(region.x, region.y)
            found.append(Name(text, x, y, SIZES[region.level], width(text, SIZES[region.level]) + 8))
    return found


# ---------------------------------------------------------------------------------------------------------------- picture


@dataclass(frozen=True)
class Scene:
    """All that a picture shows, in units of the page, y downward."""

    width: float
    height: float
    points: F64
    radius: float
    colours: NDArray[np.uint8]
    names: list[Name]
    head: str
    base: float

    @property
    def rim(self) -> float:
        """Of white around each dot, where dots are large enough for one."""
        return 0.5 if self.radius > 1.8 else 0.0


def _scene(m: SemanticMap, pen: Pen) -> Scene:
    places = m.positions.astype(np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    span = np.maximum(high - low, 1e-9)
    factor = (WIDTH - 2 * EDGE) / max(float(span[0]), float(span[1]) * 1.25)
    height = max(float(span[1]) * factor, 160.0)
    left = (WIDTH - float(span[0]) * factor) / 2
    down = TOP + 14 + (height - float(span[1]) * factor) / 2

    def to(x: float, y: float) -> tuple[float, float]:
        return left + (x - low[0]) * factor, down + (high[1] - y) * factor

    points: F64 = np.stack([left + (places[:, 0] - low[0]) * factor, down + (high[1] - places[:, 1]) * factor], axis=1)
    base = TOP + height + 28
    frame = (6.0, TOP - 4, WIDTH - 6, base)
    names = [name for _, name in place(_wanted(m, to, pen.width), frame, points, apart=FAR * WIDTH)]
    head = f"{len(m)} components, coloured by {clean(m.colour.name)}"
    rows = _legend_rows(m.colour, pen)
    radius = float(np.clip(0.11 * WIDTH / np.sqrt(len(m)), 1.2, 4.6))
    return Scene(WIDTH, base + 26 + 18 * rows, points, radius, point_colours(m.colour), names, head, base)


def _legend_items(colouring: Colouring, pen: Pen) -> list[tuple[str, str, float, int]]:
    """(text, colour, x, row) of the kinds, in rows as wide as the picture."""
    names = colouring.names or ()
    found, x, row = [], EDGE, 0
    for name, colour in zip(names, kind_colours(len(names)), strict=True):
        text = pen.fit(clean(name), 11, 180)
        wide = pen.width(text, 11) + 30
        if x + wide > WIDTH - EDGE and x > EDGE:
            x, row = EDGE, row + 1
        found.append((text, "#" + bytes(colour).hex(), x, row))
        x += wide
    return found


def _legend_rows(colouring: Colouring, pen: Pen) -> int:
    return _legend_items(colouring, pen)[-1][3] if colouring.names else 0


def _undefined(colouring: Colouring) -> int:
    return int(np.isnan(colouring.values).sum())


def picture(m: SemanticMap, ax: Any = None, *, pixels: int = 2, font: str | os.PathLike[str] | None = None) -> Any:
    """Draw the map: one dot per component, coloured as chosen, with the names of its regions where there is room for them.

    Names that fewer than 15 % of a region's members have are not written.

    Parameters
    ----------
    m : SemanticMap
    ax : matplotlib axes, optional
        Draw there and return them, instead of making a picture.
    pixels : int
        Pixels per unit of the picture, at least 1.
    font : path, optional
        For scripts that no font here covers.

    Returns
    -------
    Drawing, or the axes
    """
    if ax is not None:
        return _on_axes(m, ax)
    if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 1:
        raise ValueError(f"pixels={pixels!r}: must be a whole number of at least 1")
    scene = _scene(m, Pen(Image.new("RGB", (1, 1)), pixels, font))
    size = round(scene.width * pixels), round(scene.height * pixels)
    image = _dots(scene, size, pixels)
    pen = Pen(image, pixels, font)
    pen.text(EDGE, 25, pen.fit(scene.head, 13, WIDTH - 2 * EDGE), 13, INK)
    for name in scene.names:
        x, y = name.x, name.y + name.size * 0.36
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1), (-0.8, -0.8), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8)):
            pen.text(x + 1.3 * dx, y + 1.3 * dy, name.text, name.size, "white", "centre")
        pen.text(x, y, name.text, name.size, INK, "centre")
    _legend(pen, m.colour, scene.base + 14)
    return Drawing(image, pixels, f"map of {len(m)} components")


def _dots(scene: Scene, size: tuple[int, int], pixels: int) -> Image.Image:
    """The dots, drawn at twice the size and made smaller, so that their edges are smooth."""
    large = Image.new("RGB", (2 * size[0], 2 * size[1]), "white")
    draw, s = ImageDraw.Draw(large), 2 * pixels
    outer, inner = (scene.radius + scene.rim) * s, scene.radius * s
    order = np.random.default_rng(0).permutation(
        len(scene.points)
    )  # else the last layer would lie on top of all others
    for (x, y), colour in zip(scene.points[order] * s, scene.colours[order], strict=True):
        draw.ellipse((x - outer, y - outer, x + outer, y + outer), fill="white")
        draw.ellipse(
            (x - inner, y - inner, x + inner, y + inner), fill=(int(colour[0]), int(colour[1]), int(colour[2]))
        )
    return large.resize(size, Image.Resampling.BOX)


def _legend(pen: Pen, colouring: Colouring, y: float) -> None:
    s = pen.scale
    if colouring.names is not None:
        for text, colour, x, row in _legend_items(colouring, pen):
            top = y + 18 * row
            pen.draw.ellipse((x * s, (top - 8) * s, (x + 8) * s, top * s), fill=colour)
            pen.text(x + 13, top, text, 11, MUTED)
        return
    low, high = limits(colouring)
    x = EDGE + pen.width(number(low), 11) + 7
    pen.text(EDGE, y, number(low), 11, MUTED)
    for i, colour in enumerate(on_ramp(np.linspace(0, 1, 120))):
        pen.box(x + i * 1.5, y - 8, 2, 8, "#" + bytes(colour).hex())
    pen.text(x + 187, y, number(high), 11, MUTED)
    x += 187 + pen.width(number(high), 11) + 14
    if gone := _undefined(colouring):
        pen.draw.ellipse((x * s, (y - 8) * s, (x + 8) * s, y * s), fill=UNDEFINED)
        pen.text(x + 13, y, f"undefined ({gone})", 11, MUTED)
        x += 30 + pen.width(f"undefined ({gone})", 11)
    pen.text(x, y, pen.fit(clean(colouring.about), 11, max(WIDTH - EDGE - x, 1)), 11, MUTED)


def _svg(m: SemanticMap, font: str | os.PathLike[str] | None) -> str:
    pen = Pen(Image.new("RGB", (1, 1)), 4, font)
    scene = _scene(m, pen)
    family = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, Arial, sans-serif"
    dots = "".join(
        f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{scene.radius:.2f}" fill="#{bytes(c).hex()}"/>'
        for (x, y), c in zip(scene.points, scene.colours, strict=True)
    )
    names = "".join(
        f'<text x="{n.x:.1f}" y="{n.y + n.size * 0.36:.1f}" font-size="{n.size:g}" text-anchor="middle">{escape(n.text)}</text>'
        for n in scene.names
    )
    y, c = scene.base + 14, m.colour
    if c.names is not None:
        legend = "".join(
            f'<circle cx="{x + 4:.1f}" cy="{y + 18 * row - 4:.1f}" r="4" fill="{colour}"/>'
            f'<text x="{x + 13:.1f}" y="{y + 18 * row:.1f}">{escape(text)}</text>'
            for text, colour, x, row in _legend_items(c, pen)
        )
    else:
        low, high = (number(v) for v in limits(c))
        x = EDGE + pen.width(low, 11) + 8
        stops = "".join(
            f'<stop offset="{i / (len(RAMP) - 1):g}" stop-color="{colour}"/>' for i, colour in enumerate(RAMP)
        )
        gone = f", undefined ({_undefined(c)})" if _undefined(c) else ""
        legend = (
            f'<defs><linearGradient id="ramp">{stops}</linearGradient></defs><text x="{EDGE:g}" y="{y:.1f}">{low}</text>'
            f'<rect x="{x:.1f}" y="{y - 8:.1f}" width="180" height="8" fill="url(#ramp)"/>'
            f'<text x="{x + 187:.1f}" y="{y:.1f}">{high}<tspan dx="14">{escape(clean(c.about))}{gone}</tspan></text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {scene.width:g} {scene.height:g}" width="{scene.width:g}" '
        f'height="{scene.height:g}" font-family="{family}"><title>{escape(scene.head)}</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="{EDGE:g}" y="25" font-size="13" fill="{INK}">{escape(scene.head)}</text>'
        f'<g stroke="#ffffff" stroke-width="{1.4 * scene.rim:g}">{dots}</g>'
        f'<g fill="{INK}" font-weight="600" paint-order="stroke" stroke="#ffffff" stroke-width="3" stroke-linejoin="round">{names}</g>'
        f'<g font-size="11" fill="{MUTED}">{legend}</g></svg>\n'
    )


def save(
    m: SemanticMap, path: str | os.PathLike[str], *, pixels: int = 2, font: str | os.PathLike[str] | None = None
) -> Path:
    """Write the picture, atomically; the suffix (.png, .jpg, .webp, .svg) says how. No other package is needed.

    Raises
    ------
    ValueError
        Another suffix.
    """
    target = Path(path)
    if target.suffix.lower() == ".svg":
        text = _svg(m, font)
        with atomic_write(target, "w") as file:
            file.write(text)
        return target
    if target.suffix.lower() not in FORMATS:
        raise ValueError(
            f"cannot tell a picture format from {target.name!r}: end the name in {', '.join([*FORMATS, '.svg'])}"
        )
    drawn: Drawing = picture(m, pixels=pixels, font=font)
    return drawn.save(target)


def _on_axes(m: SemanticMap, ax: Any) -> Any:
    c = m.colour
    names = [(str(region.name), region.x, region.y, region.level) for region in written(m) if region.level < len(SIZES)]
    key = [(name, colour / 255) for name, colour in zip(c.names or (), kind_colours(len(c.names or ())), strict=True)]
    bar = None if c.names is not None else (on_ramp(np.linspace(0, 1, 256)) / 255, *limits(c))

    def fitted(boxes: Sequence[Boxed], frame: tuple[float, float, float, float], points: F64) -> Any:
        wanted = [Name(text, x, y, high / 1.35, wide) for text, x, y, wide, high in boxes]
        return [(i, n.x, n.y) for i, n in place(wanted, frame, points, apart=FAR * (frame[2] - frame[0]))]

    return map_on(ax, m.positions, point_colours(c) / 255, names, fitted, key=key, bar=bar, title=c.name)


# ---------------------------------------------------------------------------------------------------------------- HTML


def fragment_of(m: SemanticMap) -> Html:
    """What a map shows of itself in a notebook."""
    raw, mime = image_bytes(picture(m).image, format="png")
    uri = f"data:{mime};base64,{base64.b64encode(raw).decode('ascii')}"
    gone = sum(m.left_out.values())
    left = f" {gone} without a vector are left out." if gone else ""
    return fragment(
        title("Map"),
        Html(
            f'<img src="{uri}" alt="map of {len(m)} components" style="width:{WIDTH:.0f}px;max-width:100%;height:auto">'
        ),
        note(f"{len(m)} components, {m.method}.{left} Near means alike; how far apart says little."),
        table(m.headers(), m.rows(), limit=12),
    )


def write_page(
    m: SemanticMap,
    path: str | os.PathLike[str],
    *,
    pictures: int = 8,
    budget: int = BUDGET,
    name: str | None = None,
    date: datetime.datetime | None = None,
) -> Path:
    """Write the map as one self-contained page, atomically: zoom, pan, examples on hovering, search by label, a choice of colourings.

    The file stays small: a component takes some 30 bytes and 3 more per colouring, of which there are at most those of layer and scores,
    the chosen one, and 24 classes. Example pictures take at most ``budget`` bytes: each is kept once, in sheets of 256, of 64 pixels a
    side (48 from 1500 on, 40 from 6000 on), cut to squares; first the best example of every component, then the second, and so on until
    the budget is full. The page says how many there are.

    Parameters
    ----------
    m : SemanticMap
    path : path
        Its folder must exist.
    pictures : int
        Examples per component, from the database's thumbnails or its attached pictures; 0 for none.
    budget : int
        Bytes that pictures may take in the file.
    name : str, optional
        Title of the page.
    date : datetime, optional
        Written into the page; None is now.
    """
    for what, given in (("pictures", pictures), ("budget", budget)):
        if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < 0:
            raise ValueError(f"{what}={given!r}: must be a whole number of at least 0")
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist")
    when = datetime.datetime.now().astimezone() if date is None else date
    made = page_data(m, example_sheets(m, int(pictures), int(budget)))
    heading = name if name is not None else "Map of components"
    body = _body(m, heading, made, when)
    with atomic_write(target, "w") as file:
        file.write(
            page(
                heading, body, style=_map_page.CSS, script=_map_page.SCRIPT, description="Map of a network's components"
            )
        )
    return target


def _body(m: SemanticMap, heading: str, made: dict[str, Any], when: datetime.datetime) -> str:
    gone, shown = sum(m.left_out.values()), made["pictures"]
    facts = [f"{number(len(m))} components of {number(len(m.layers))} layer{'' if len(m.layers) == 1 else 's'}"]
    facts += [f"{number(gone)} without a vector left out"] if gone else []
    network = (m.record.get("network") or {}).get("name")
    facts += [f"network {network}"] if network else []
    choices = "".join(f'<option value="{i}">{escape(c["name"])}</option>' for i, c in enumerate(made["colourings"]))
    few = "" if shown is None else f" It holds {number(shown['shown'])} of {number(shown['wanted'])} example pictures."
    record = ", ".join(
        f"{key} {(m.record.get(key) or {}).get('fingerprint') or 'unknown'}" for key in ("network", "data", "encoder")
    )
    return (
        f'<header class="head"><h1 class="text">{escape(heading)}</h1><p>{escape(", ".join(facts))}</p></header>'
        '<div class="tools" hidden><label>Label <input id="words" type="search" placeholder="search" autocomplete="off"></label>'
        f'<label>Colour <select id="colour">{choices}</select></label><button id="in" type="button" aria-label="zoom in">+</button>'
        '<button id="out" type="button" aria-label="zoom out">−</button><button id="all" type="button">all</button>'
        '<output id="shown"></output><div class="legend"></div></div>'
        f'<div class="stage"><canvas class="map" tabindex="0" role="application" aria-label="map of {len(m)} components"></canvas>'
        '<div class="ring" hidden></div><ul class="found" hidden></ul><div class="card" role="status" hidden>'
        '<button type="button" aria-label="close">×</button></div>'
        "<noscript><p>The map is drawn by a script, which is switched off here.</p></noscript></div>"
        '<footer class="foot"><details><summary>How to read and use this map</summary>'
        "<p>Each dot is a component of the network. Its place says what the pictures that activate it most look like to the encoder: "
        "near means alike, and how far apart, or in which direction, says little. "
        "A region is named as most of its members are labelled, where at least 15 % are; "
        f"further names appear on zooming in.</p><p>{KEYS}</p><p>Laid out by {escape(m.method)} "
        f"{escape(json.dumps(dict(m.parameters)))} on "
        f"cosine similarity. SHA-256: {escape(record)}. Made with semanticlens-native {escape(__version__)} on "
        f"{when:%Y-%m-%d %H:%M %Z}.{few} This page is complete in itself: it loads nothing and sends nothing.</p></details></footer>"
        f'<script type="application/json" id="map-data">{script_json(made)}</script>'
    )
