"""A track to look at: how many components continue, merge, split, appear and die from database to database, and how far they move."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from semanticlens.plot._drawing import check_axes
from semanticlens.plot._look import INK, LINE, MUTED, finish
from semanticlens.plot._type import Pen, clean
from semanticlens.plot.html import Html, fragment, note, number, table, title

if TYPE_CHECKING:
    from semanticlens.lens.track import Track

__all__ = ["flow", "fragment_of", "picture"]

COLOURS = {"continues": "#275d91", "merges": "#8a6d1f", "dies": "#b3362b", "splits": "#5c7f33", "appears": "#2b7a4b"}
PALE = {"continues": "#c9d9e8", "merges": "#e6dcc0", "dies": "#eccac6", "splits": "#d8e3c8", "appears": "#c8e0d1"}
KINDS = ("flow", "drift")
COLUMN = 0.035  # half the width of a column, in steps
STUB = 0.3  # how far what dies reaches into its step
Points = list[tuple[float, float]]


def flow(t: Track) -> tuple[list[tuple[str, Points]], list[tuple[float, float, str, int]]]:
    """Bands and numbers of the flow picture: x counts databases, y counts components downwards.

    Returns
    -------
    bands : list of (event, corners)
        Between the columns of two databases: what continues as a band, what merges and splits as wedges that close and open at it, what
        dies and appears as stubs.
    numbers : list of (x, y, event, count)
        Where the count of each event belongs.
    """
    bands: list[tuple[str, Points]] = []
    numbers: list[tuple[float, float, str, int]] = []
    for i in range(len(t.steps)):
        n = t.counts(i)
        x0, x1 = i + COLUMN, i + 1 - COLUMN
        m, c, s = n["merges"], n["continues"], n["splits"]
        old, new, wide = n["old"], n["new"], x1 - x0
        shapes: list[tuple[str, Points, tuple[float, float]]] = [
            ("continues", [(x0, m), (x1, 0), (x1, c), (x0, m + c)], ((x0 + x1) / 2, m / 2 + c / 2)),
            ("merges", [(x0, 0), (x1, 0), (x0, m)], (x0 + 0.16 * wide, m / 2.3)),
            ("splits", [(x0, m + c), (x1, c), (x1, c + s)], (x1 - 0.16 * wide, c + s / 2.3)),
            ("dies", [(x0, m + c), (x0 + STUB * wide, old), (x0, old)], (x0 + 0.09 * wide, old - n["dies"] / 2.6)),
            (
                "appears",
                [(x1, c + s), (x1, new), (x1 - STUB * wide, new)],
                (x1 - 0.09 * wide, new - n["appears"] / 2.6),
            ),
        ]
        for event, corners, at in shapes:
            if n[event]:
                bands.append((event, [(float(x), float(y)) for x, y in corners]))
                numbers.append((at[0], at[1], event, n[event]))
    return bands, numbers


def _columns(t: Track) -> list[int]:
    return [t.counts(i)["old"] for i in range(len(t.steps))] + [t.counts(len(t.steps) - 1)["new"]]


def picture(
    t: Track,
    ax: Any = None,
    *,
    what: str = "flow",
    pixels: int = 2,
    font: str | os.PathLike[str] | None = None,
) -> Any:
    """The flow of components from database to database; below it, mean drift per step and similarity to the last database.

    Parameters
    ----------
    t : Track
        With a threshold.
    ax : matplotlib axes, optional
        Draw there and return them, instead of making a picture.
    what : {"flow", "drift"}
        Which of the two to draw on axes; the picture has both.
    pixels : int
        Pixels per unit of the picture.
    font : path, optional
        For scripts that no font here covers.

    Returns
    -------
    Drawing, or the axes
    """
    if what not in KINDS:
        raise ValueError(f"what={what!r}: must be one of {', '.join(map(repr, KINDS))}")
    bands, numbers = flow(t)  # refuses a track without a threshold
    if ax is not None:
        return _flow_on(check_axes(ax), t, bands, numbers) if what == "flow" else _drift_on(check_axes(ax), t)

    def draw(pen: Pen) -> tuple[float, float]:
        step = max(130.0, min(300.0, 760.0 / len(t.steps)))
        wide = step * len(t.steps)
        room = [pen.width(pen.fit(clean(t.names[i]), 11, step - 10), 11) / 2 for i in (0, -1)]
        left = 20 + max(20.0, room[0])
        base = _draw_flow(pen, t, bands, numbers, left, step)
        return left + wide + max(70.0, room[1] + 20), _draw_drift(pen, t, left, step, base + 58)

    return finish(draw, pixels, font, f"{len(t.names)} databases in a row")


def _flow_on(ax: Any, t: Track, bands: Any, numbers: Any) -> Any:
    seen = set()
    for event, corners in bands:
        label = event if event not in seen else None
        seen.add(event)
        ax.fill(*zip(*corners, strict=True), color=COLOURS[event], alpha=0.3, linewidth=0, label=label)
    for x, y, event, count in numbers:
        ax.text(x, y, str(count), ha="center", va="center", fontsize=8, color=COLOURS[event])
    columns = _columns(t)
    ax.bar(range(len(columns)), columns, width=2 * COLUMN, color="0.3")
    ax.set_xticks(range(len(columns)), t.names)
    ax.set_ylabel("components")
    ax.set_ylim(max(columns) * 1.03, 0)
    ax.legend(
        frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize="small", columnspacing=1.0
    )
    return ax


def _drift_on(ax: Any, t: Track) -> Any:
    places = range(len(t.names))
    ax.plot(places, [e.value for e in t.to_last], color="#275d91", marker="o", label=f"similarity to {t.names[-1]}")
    ax.plot(places, [e.value for e in t.from_last], color="#b0562b", marker="o", label=f"from {t.names[-1]}")
    middles = [i + 0.5 for i in range(len(t.steps))]
    ax.plot(
        middles,
        [t.mean_drift(i) for i in range(len(t.steps))],
        color="0.45",
        marker="s",
        linestyle=":",
        label="mean drift",
    )
    ax.set_xticks(places, t.names)
    ax.legend(frameon=False)
    return ax


def _draw_flow(pen: Pen, t: Track, bands: Any, numbers: Any, left: float, step: float) -> float:
    """Columns, bands and counts; returns where the columns' ground is."""
    columns, top, high, s = _columns(t), 60.0, 220.0, pen.scale
    tall = max(columns)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x * step, top + y / tall * high

    pen.text(20, 22, f"Components from database to database, at threshold {t.threshold:g}", 12.5, INK)
    x = 20.0
    for event, colour in COLOURS.items():
        if any(band[0] == event for band in bands):
            pen.box(x, 32, 10, 10, PALE[event])
            pen.text(x + 15, 41, event, 10.5, colour)
            x += 31 + pen.width(event, 10.5)
    for event, corners in bands:
        pen.draw.polygon([tuple(s * v for v in place(*corner)) for corner in corners], fill=PALE[event])
    for i, count in enumerate(columns):
        x, y = place(i - COLUMN, 0)
        pen.box(x, y, 2 * COLUMN * step, count / tall * high, "#4a525b")
    for x, y, event, count in numbers:
        u, v = place(x, y)
        pen.text(u, v + 4, str(count), 10.5, COLOURS[event], "centre")
    base = top + high
    for i, (name, count) in enumerate(zip(t.names, columns, strict=True)):
        x, _ = place(i, 0)
        pen.text(x, base + 18, pen.fit(clean(name), 11, step - 10), 11, INK, "centre")
        pen.text(x, base + 33, str(count), 10, MUTED, "centre")
    return base


def _draw_drift(pen: Pen, t: Track, left: float, step: float, top: float) -> float:
    """Lines of similarity and drift; returns the height of it all."""
    s, high = pen.scale, 110.0
    lines: list[tuple[str, str, Points, bool]] = [
        (f"similarity to {t.names[-1]}", "#275d91", [(float(i), e.value) for i, e in enumerate(t.to_last)], True),
        (f"similarity from {t.names[-1]}", "#b0562b", [(float(i), e.value) for i, e in enumerate(t.from_last)], True),
        ("mean drift of what continues", "#59616b", [(i + 0.5, t.mean_drift(i)) for i in range(len(t.steps))], False),
    ]
    low = min(0.0, *(y for _, _, points, _ in lines for _, y in points if not math.isnan(y)))
    top, base = top + 26, top + 26 + high

    def place(x: float, y: float) -> tuple[float, float]:
        return (left + x * step) * s, (base - (y - low) / (1 - low) * high) * s

    x = 20.0
    for words, colour, _, _ in lines:
        words = pen.fit(clean(words), 10.5, 240)
        pen.box(x, top - 23, 12, 3, colour)
        pen.text(x + 17, top - 18, words, 10.5, INK)
        x += 34 + pen.width(words, 10.5)
    pen.draw.line([place(0, 0), place(len(t.steps), 0)], fill=LINE, width=s)
    for _, colour, points, joined in lines:
        good = [(x, y) for x, y in points if not math.isnan(y)]
        if joined and len(good) > 1:
            pen.draw.line([place(*p) for p in good], fill=colour, width=2 * s, joint="curve")
        for x, y in good:
            u, v = place(x, y)
            pen.draw.ellipse([u - 3 * s, v - 3 * s, u + 3 * s, v + 3 * s], fill=colour)
            if not joined:
                pen.text(u / s, v / s - 7, number(y, 2), 10, MUTED, "centre")
    pen.text(left + len(t.steps) * step + 12, place(0, 1)[1] / s + 4, "1", 10, MUTED)
    pen.text(left + len(t.steps) * step + 12, place(0, 0)[1] / s + 4, "0", 10, MUTED)
    return base + 20


def fragment_of(t: Track) -> Html:
    """What a track shows of itself in a notebook."""
    parts = [title(f"{len(t.names)} databases in a row"), table(*t.similarity_rows(), caption="Similarity to the last")]
    if t.threshold is None:
        parts.append(note("No threshold yet: see .curve() and .at(threshold)."))
    else:
        parts.append(table(*t.rows(), caption=f"Steps at threshold {t.threshold:g}"))
    return fragment(*parts, *(note(remark) for remark in t.remarks))
