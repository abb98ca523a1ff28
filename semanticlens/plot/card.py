"""One component as one picture: its label, scores, classes, and the pictures that activate it most."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from semanticlens.plot import _facts
from semanticlens.plot._drawing import FORMATS, Shown
from semanticlens.plot._type import Pen, clean
from semanticlens.plot.html import number

__all__ = ["FORMATS", "Card", "card"]

INK, MUTED, LINE, PANEL, ACCENT, SOFT, WARM, WARM_SOFT = (
    "#1b1f24", "#59616b", "#e1e4e8", "#f1f3f5", "#275d91", "#dfe8f0", "#b0672c", "#f3e5d9",
)  # fmt: skip
MARGIN, CELL, GAP = 28.0, 112.0, 8.0  # in units of 1/scale pixels
ROW = 21.0  # height of a line with a bar


@dataclass(frozen=True, slots=True)
class Card(Shown):
    """A drawn component.

    Attributes
    ----------
    image : PIL.Image.Image
        RGB, at ``scale`` times the size it is meant to be seen in.
    layer, component : str, int
    scale : int
    """

    image: Image.Image
    layer: str
    component: int
    scale: int = 2

    def __repr__(self) -> str:
        return f"Card({self.layer!r}, {self.component}, {self.image.width} x {self.image.height} pixels)"


def card(
    db: Any,
    layer: str,
    component: int,
    *,
    labels: Any = None,
    scores: Any = None,
    n_examples: int = 12,
    columns: int = 6,
    font: str | os.PathLike[str] | None = None,
    scale: int = 2,
) -> Card:
    """Draw a component.

    Parameters
    ----------
    db : ConceptDB
        With its data set attached (``db.attach(images=...)``) the examples are drawn from the pictures themselves, else from
        its small copies.
    layer, component : str, int
    labels : Labels, optional
        What ``db.label(vocabulary)`` returned; without it the card has no label.
    scores : Scores or False, optional
        What ``db.scores()`` returned; None computes it, False leaves it out.
    n_examples : int
        At most this many pictures.
    columns : int
        Pictures side by side, at least 4.
    font : path, optional
        A font for scripts that neither Pillow's built-in font nor a font of this system covers.
    scale : int
        Pixels per unit; 2 is sharp on today's screens and in print.

    Returns
    -------
    Card

    Raises
    ------
    LayerNotFoundError, IndexError
        No such layer or component.
    ValueError
        ``n_examples`` below 0, ``columns`` below 4 or ``scale`` below 1.
    """
    for name, value, least in (("n_examples", n_examples, 0), ("columns", columns, 4), ("scale", scale, 1)):
        if value < least:
            raise ValueError(f"{name}={value}: must be at least {least}")
    scores = db.scores() if scores is None else scores or None
    facts = _facts.component(db, layer, component, labels, scores, n_examples)
    pictures = [db.picture(example.sample, example.box) for example in facts.examples]
    width = 2 * MARGIN + columns * CELL + (columns - 1) * GAP
    probe = Pen(Image.new("RGB", (1, 1)), scale, font)
    height = _draw(probe, facts, pictures, columns, width, db)
    image = Image.new("RGB", (round(width * scale), math.ceil(height * scale)), "white")
    _draw(Pen(image, scale, font), facts, pictures, columns, width, db)
    return Card(image, facts.layer, facts.index, scale)


def _draw(pen: Pen, facts: _facts.Component, pictures: list[Any], columns: int, width: float, db: Any) -> float:
    """Draw everything and return the height it took; on a canvas of one pixel that is how the height is found."""
    y = _heading(pen, facts, width, db)
    y = _columns(pen, facts, y, width)
    y = _grid(pen, facts, pictures, columns, y, width)
    encoder = db.record.get("encoder") or {}
    if facts.dead:
        return y + 20
    left = f"Encoder: {clean(encoder.get('name', 'not recorded'))}" if facts.candidates or facts.scores else ""
    pen.box(MARGIN, y + 6, width - 2 * MARGIN, 1, LINE)
    pen.text(MARGIN, y + 26, pen.fit(left, 10.5, (width - 2 * MARGIN) * 0.45), 10.5, MUTED)
    pen.text(width - MARGIN, y + 26, "Pictures that activate it most, with their activation", 10.5, MUTED, "right")
    return y + 26 + 20


def _heading(pen: Pen, facts: _facts.Component, width: float, db: Any) -> float:
    """Where it is, and what it is called."""
    room = width - 2 * MARGIN
    place = f"{clean(facts.layer)} · component {facts.index}"
    pen.text(MARGIN, 38, pen.fit(place, 12.5, room * 0.62), 12.5, MUTED)
    source = next(s for s in _facts.sources(db) if s.what == "Network").name
    pen.text(width - MARGIN, 38, pen.fit(clean(source), 12.5, room * 0.34), 12.5, MUTED, "right")
    if facts.label is not None:
        title, colour = clean(facts.label) or "(empty label)", INK
    elif facts.dead:
        title, colour = "dead component", MUTED
    else:
        title, colour = ("unlabelled", MUTED) if facts.labelled else (f"Component {facts.index}", INK)
    y = 72.0
    for line in pen.wrap(title, 27, room, 2):
        pen.text(MARGIN, y, line, 27, colour)
        y += 33
    return y - 22


def _columns(pen: Pen, facts: _facts.Component, y: float, width: float) -> float:
    """Labels, classes and scores side by side; what was not asked for or does not exist leaves its place to the others."""
    blocks: list[tuple[str, list[tuple[str, float, float]], str, str, int]] = []
    if facts.candidates:
        rows = [(name, value, value) for name, value in facts.candidates[:5]]
        blocks.append(("Label candidates, cosine", rows, ACCENT, SOFT, 3))
    if facts.classes:
        top = facts.classes[0][1]
        blocks.append(
            ("Classes, mean top activation", [(name, value, value / top) for name, value in facts.classes], WARM, WARM_SOFT, 2)
        )
    if facts.scores and not facts.dead:
        blocks.append(("Scores", [(name, value, value) for name, value in facts.scores.items()], MUTED, LINE, 3))
    if not blocks:
        return y
    gutter = 30.0
    each = (width - 2 * MARGIN - 2 * gutter) / 3  # always thirds, so that cards side by side line up
    y += 16
    for i, (title, rows, colour, soft, digits) in enumerate(blocks):
        x = MARGIN + i * (each + gutter)
        pen.text(x, y + 10, title, 11, MUTED)
        for j, (name, value, share) in enumerate(rows):
            _bar_row(pen, x, y + 20 + j * ROW, each, clean(name), value, share, colour, soft, digits)
    return y + 20 + ROW * max(len(rows) for _, rows, *_ in blocks) + 2


def _number(value: float, digits: int) -> str:
    """A number in the characters that Pillow's own font has."""
    return number(value, digits).replace("–", "n/a").replace("\N{MINUS SIGN}", "-").replace("\u202f", " ")


def _bar_row(
    pen: Pen, x: float, y: float, width: float, name: str, value: float, share: float, colour: str, soft: str, digits: int
) -> None:
    """A name, a bar below it, and the number at the right."""
    text = _number(value, digits)
    space = pen.width(text, 12)
    pen.text(x, y + 12.5, pen.fit(name, 12, width - space - 10), 12, INK)
    pen.text(x + width, y + 12.5, text, 12, INK if math.isfinite(value) else MUTED, "right")
    pen.box(x, y + 16.5, width, 2, soft)
    if math.isfinite(share) and share > 0:
        pen.box(x, y + 16.5, width * min(1.0, share), 2, colour)


def _grid(pen: Pen, facts: _facts.Component, pictures: list[Any], columns: int, y: float, width: float) -> float:
    y += 18
    if not facts.examples:
        words = "No picture of the data set activates this component." if facts.dead else "No examples are stored or asked for."
        pen.box(MARGIN, y, width - 2 * MARGIN, 56, PANEL, 4)
        pen.text(width / 2, y + 33, words, 13, MUTED, "centre")
        return y + 56 + 8
    for i, ((sample, score, _), picture) in enumerate(zip(facts.examples, pictures, strict=True)):
        x, top = MARGIN + (i % columns) * (CELL + GAP), y + (i // columns) * (CELL + 26)
        if picture is None:
            pen.box(x, top, CELL, CELL, PANEL, 3)
            pen.text(x + CELL / 2, top + CELL / 2 + 4, f"no. {sample}", 12, MUTED, "centre")
        else:
            _paste(pen, picture, x, top)
        pen.text(x + CELL / 2, top + CELL + 15, _number(score, 2), 11, MUTED, "centre")
    rows = math.ceil(len(facts.examples) / columns)
    return y + rows * (CELL + 26) + 2


def _paste(pen: Pen, picture: Image.Image, x: float, y: float) -> None:
    """A picture, whole, in the middle of a square with softened corners."""
    side = round(CELL * pen.scale)
    small = picture.convert("RGB")
    factor = side / max(small.size)
    size = (max(1, round(small.width * factor)), max(1, round(small.height * factor)))
    small = small.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC)
    cell = Image.new("RGB", (side, side), PANEL)
    cell.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, side - 1, side - 1), radius=3 * pen.scale, fill=255)
    pen.image.paste(cell, (round(x * pen.scale), round(y * pen.scale)), mask)
    corners = (round(x * pen.scale), round(y * pen.scale), round(x * pen.scale) + side - 1, round(y * pen.scale) + side - 1)
    pen.draw.rounded_rectangle(corners, radius=3 * pen.scale, outline=LINE, width=max(1, pen.scale // 2))
