"""What :func:`semanticlens.attribution.condition` found: panels with a column per condition, and the same in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from semanticlens.plot._attribution_html import STYLE, _image
from semanticlens.plot._attribution_panel import Part, panel
from semanticlens.plot._drawing import Drawing, Shown, check_axes
from semanticlens.plot._heat import F64, ColourMap, heat_colours, overlay
from semanticlens.plot._look import Look
from semanticlens.plot._seen import facts, pictures_of
from semanticlens.plot.html import Html, escape, fragment, note, number, title

if TYPE_CHECKING:
    from semanticlens.attribution.condition import Conditional

__all__ = ["conditions", "html", "stack"]

INPUT = "input"
SAMPLES, CONDITIONS = 4, 8  # shown unless asked


def stack(drawings: Sequence[Shown]) -> Drawing:
    """Drawings one below the other, such as the panels of several samples.

    Raises
    ------
    ValueError
        If there are none, or their ``pixels`` differ.
    """
    if not drawings:
        raise ValueError("drawings is empty: there is nothing to stack")
    if len({d.scale for d in drawings}) > 1:
        raise ValueError(f"drawings have different pixels per unit ({sorted({d.scale for d in drawings})}): draw them with one pixels=")
    image = Image.new("RGB", (max(d.image.width for d in drawings), sum(d.image.height for d in drawings)), "white")
    y = 0
    for d in drawings:
        image.paste(d.image, (0, y))
        y += d.image.height
    return Drawing(image, drawings[0].scale, f"{len(drawings)} drawings")


def conditions(
    c: Conditional,
    ax: Any = None,
    *,
    name: str = INPUT,
    samples: int | Sequence[int] | None = None,
    conditions: int | Sequence[int] | None = None,
    over: bool | None = None,
    examples: Sequence[Sequence[Any]] | None = None,
    labels: Sequence[str] | None = None,
    percentile: float = 99.5,
    cmap: ColourMap = "bwr",
    symmetric: bool | None = None,
    scale: str | float = "each",
    bar: bool = False,
    **options: Any,
) -> Any:
    """What ``c.plot()`` draws: for each sample the picture, its map without conditions, and one map per condition with its sum.

    Parameters
    ----------
    c : Conditional
    ax : axes of matplotlib, or one for each shown row, optional
        Draw there, one map on each, sample by sample, and return them.
    name : str
        ``"input"``, or a value that was recorded.
    samples : int or sequence of int, optional
        Left out, the first 4; on one pair of axes the first.
    conditions : int or sequence of int, optional
        Which, in this order. Left out, all where there are at most 8, else the 8 with the largest relevance of either sign in the samples
        that are shown, largest first; on one pair of axes the first of them.
    over : bool, optional
        Lay maps on the pictures; left out, where those are known and the maps are of the input.
    examples : sequence of sequences of pictures, optional
        For each condition of ``c``, such as the crops that its channel is seen best in.
    labels : sequence of str, optional
        For each condition of ``c``, what it stands for.
    percentile, cmap, symmetric
        As in :func:`heat_colours`.
    scale : {"each", "all"} or float
        As in :func:`panel`; "all" also holds for axes.
    bar : bool
        A colour bar beside each of the axes.
    options
        Of :func:`panel`.

    Returns
    -------
    Drawing, or what was given as ``ax``

    Raises
    ------
    ValueError, TypeError, IndexError
        For samples and conditions that there are not, lists that do not fit, and arguments that :func:`panel` refuses.
    """
    many = ax is not None and not hasattr(ax, "imshow")
    one = ax is not None and not many
    shown = _chosen(c, name, samples, conditions, one)
    seen = pictures_of(c, [sample for sample, _ in shown])
    over = (seen is not None and name == INPUT) if over is None else over
    if over and seen is None:
        raise ValueError("over=True lays maps on pictures, but this result knows none: its input is not a picture")
    look: dict[str, Any] = {"percentile": percentile, "cmap": cmap, "symmetric": symmetric}
    maps = _maps(c.heatmap(name))
    if ax is not None:
        if options or examples is not None or labels is not None:
            raise TypeError(f"{', '.join(options) or 'examples, labels'}: not for axes, which have titles and sizes of their own")
        return _on_axes(c, ax, many, shown, maps, seen if over else None, scale, bar, look)
    for what, given in (("examples", examples), ("labels", labels)):
        if given is not None and len(given) != len(c.conditions):
            raise ValueError(f"{what} has {len(given)} entries for {len(c.conditions)} conditions")
    whole = _maps(c.whole(name).sum(axis=_summed(c, name)))
    sums = _sums(c, name)
    drawings = []
    for place, (sample, rows) in enumerate(shown):
        parts = [
            Part(maps[r], c.words(c.row[r]), float(sums[r]), _label(c, r, labels), () if examples is None else examples[c.row[r]])
            for r in rows
        ]
        drawings.append(
            panel(whole[sample], parts, picture=None if seen is None else seen[place], title=_line(c, sample, len(rows)), over=over,
                  scale=scale, **look, **options)
        )  # fmt: skip
    return drawings[0] if len(drawings) == 1 else stack(drawings)


def _summed(c: Conditional, name: str) -> int:
    return 1 if (c.input if name == INPUT else c[name]).ndim == 4 else -1


def _maps(values: Any) -> list[F64]:
    return [np.asarray(m if m.ndim == 2 else m[None], np.float64) for m in values]


def _sums(c: Conditional, name: str) -> F64:
    r = c.input if name == INPUT else c[name]
    return np.asarray(r.reshape(len(r), -1).sum(axis=1, dtype=np.float64))


def _label(c: Conditional, row: int, labels: Sequence[str] | None) -> str:
    said = "" if labels is None else labels[c.row[row]]
    return said or ("nothing reaches the input" if c.dead[row] else "")


def _line(c: Conditional, sample: int, count: int) -> str:
    every = int((c.sample == sample).sum())
    return facts(c, sample).line + (f": {count} of {every} conditions" if count < every else "")


def _chosen(
    c: Conditional, name: str, samples: int | Sequence[int] | None, conditions: int | Sequence[int] | None, one: bool
) -> list[tuple[int, list[int]]]:
    """Samples, and the rows of each that are shown."""
    count = len(c.output)
    own = _places(samples, count, "samples", min(count, 1 if one else SAMPLES))
    paired = len(c) == count and len(c.conditions) == count and bool((c.row == c.sample).all()) and count > 1
    if paired:
        if conditions is not None:
            raise ValueError("conditions=: every sample has one condition of its own; choose with samples=")
        return [(i, [i]) for i in own]
    each = len(c.conditions)
    if conditions is not None or each <= CONDITIONS:
        chosen = _places(conditions, each, "conditions", each)
    else:
        size = np.abs(_sums(c, name).reshape(count, each)[own]).sum(axis=0)
        chosen = [int(k) for k in np.argsort(-size, kind="stable")[:CONDITIONS]]
    chosen = chosen[:1] if one and conditions is None else chosen
    return [(i, [i * each + k for k in chosen]) for i in own]


def _places(given: int | Sequence[int] | None, count: int, what: str, first: int) -> list[int]:
    if given is None:
        return list(range(first))
    chosen = [given] if isinstance(given, (int, np.integer)) else list(given)
    if not chosen:
        raise ValueError(f"{what} is empty: there is nothing to draw")
    for i in chosen:
        if not -count <= i < count:
            raise IndexError(f"{what}: {i} is not one of the {count} {what}")
    return [int(i) % count for i in chosen]


def _on_axes(c: Conditional, ax: Any, many: bool, shown: list[tuple[int, list[int]]], maps: list[F64], seen: Any, scale: str | float,
             bar: bool, look: dict[str, Any]) -> Any:  # fmt: skip
    from semanticlens.plot._axes import heat_on

    axes = [check_axes(a) for a in (np.asarray(ax, dtype=object).ravel().tolist() if many else [ax])]
    rows = [(place, r) for place, (_, chosen) in enumerate(shown) for r in chosen]
    if len(axes) != len(rows):
        raise ValueError(f"ax holds {len(axes)} axes for {len(rows)} rows: give as many, or choose with samples= and conditions=")
    if scale not in ("each", "all") and isinstance(scale, str):
        raise ValueError(f"scale={scale!r}: must be 'each', 'all' or the value of the outermost colour")
    style = Look(**look, over=seen is not None)
    joint = np.concatenate([maps[r].ravel() for _, r in rows])
    for axis, (place, r) in zip(axes, rows, strict=True):
        limit = style.limit(maps[r] if scale == "each" else joint) if isinstance(scale, str) else float(scale)
        heat_on(axis, maps[r], picture=None if seen is None else seen[place], cmap=look["cmap"], symmetric=look["symmetric"], limit=limit,
                title=c.words(c.row[r]), bar=bar)  # fmt: skip
    return ax


# ------------------------------------------------------------------------------------------------- in a notebook


def html(c: Conditional) -> Html:
    """What a Conditional shows of itself: sample by sample the picture and the map of each condition with its sum."""
    count, dead = len(c.output), int(c.dead.sum())
    head = f"{_counted(len(c.conditions), 'condition')} on {_counted(count, 'sample')}, by {c.composite.name}"
    parts: list[object] = [Html(f"<style>{STYLE}</style>"), title(head)]
    if c.input.ndim in (3, 4) and np.isfinite(c.input).all():
        shown = _chosen(c, INPUT, None, None, False)
        seen = pictures_of(c, [sample for sample, _ in shown])
        maps, sums = c.heatmap(), _sums(c, INPUT)
        for place, (sample, rows) in enumerate(shown):
            parts.append(Html(f"<div><b>{escape(_line(c, sample, len(rows)))}</b></div>"))
            picture = None if seen is None else seen[place]
            figures = [] if picture is None else [_figure(picture, f"sample {sample}", "", "")]
            for r in rows:
                said = "nothing reaches the input" if c.dead[r] else f"relevance {number(float(sums[r]))}"
                figures.append(_figure(_laid(maps[r], picture), f"heat map of row {r}", c.words(c.row[r]), said))
            parts.append(Html(f'<div class="sl-maps">{"".join(figures)}</div>'))
        parts.append(Html('<div class="sl-note">against<i class="sl-ramp"></i>for. Each map has its own scale, up to the 99.5th '
                          "percentile of its absolute values.</div>"))  # fmt: skip
        if count > len(shown):
            parts.append(note(f"{count - len(shown)} more samples are not shown"))
    parts.append(note(f"{_counted(len(c), 'row')}, {dead} of them dead: nothing reaches the input"
                      f"{'; .ledger(row) says where it ended' if dead else ''}."))  # fmt: skip
    return fragment(*parts)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _laid(values: Any, picture: Image.Image | None) -> Image.Image:
    row = values if values.ndim == 2 else values[None]
    return Image.fromarray(heat_colours(row)) if picture is None else overlay(picture, row)


def _figure(image: Image.Image, words: str, name: str, said: str) -> str:
    return f"<figure>{_image(image, words)}<figcaption>{escape(name)}<small>{escape(said)}</small></figcaption></figure>"
