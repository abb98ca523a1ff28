"""A comparison to look at: cosines to the nearest both ways, shares by threshold, and a page with matched pairs side by side."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._version import __version__
from semanticlens.io import atomic_write
from semanticlens.plot._drawing import check_axes
from semanticlens.plot._look import INK, LINE, MUTED, finish
from semanticlens.plot._type import Pen, clean
from semanticlens.plot.html import Html, escape, fragment, note, number, page, short_hash, strip, table, title

if TYPE_CHECKING:
    from semanticlens.lens.compare import Comparison, Match

__all__ = ["fragment_of", "picture", "report"]

COLOURS = {"a": "#275d91", "b": "#b0562b"}
BINS, NOTEBOOK = 30, 8
WIDTH, HEIGHT, LEFT, BOTTOM = 560, 280, 48, 40
KINDS = ("distribution", "curve")
F64 = NDArray[np.float64]
CSS = """
main{padding:2rem 0 4rem}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;font-size:.88rem;color:var(--muted);margin:.6rem 0}
.key i{display:inline-block;width:1.1em;height:.22em;margin-right:.45em;vertical-align:.28em;
-webkit-print-color-adjust:exact;print-color-adjust:exact}
.a{color:var(--accent)}.b{color:var(--warm)}
i.a{background:var(--accent)}i.b{background:var(--warm)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem 2rem;margin:1rem 0}
.plot{width:100%;max-width:40rem;height:auto;color:var(--ink)}
.scroll{overflow-x:auto}
.scroll .sl-out .sl-table td,.scroll .sl-out .sl-table th{white-space:nowrap;overflow-wrap:normal}
.pairs,.alone{list-style:none;margin:1rem 0;padding:0}
.pairs li{border-top:1px solid var(--line);padding:.8rem 0;display:grid;grid-template-columns:4.5rem 1fr 1fr;gap:.4rem 1.4rem}
.alone li{border-top:1px solid var(--line);padding:.7rem 0;display:grid;grid-template-columns:minmax(9rem,15rem) 1fr;gap:.4rem 1.4rem}
.pairs b{font-weight:500;font-size:1.05rem}
.pairs h3,.alone h3{font-size:.98rem;margin:0;font-weight:500}
.pairs small,.alone small{display:block;color:var(--muted);font-size:.82rem}
.sl-strip{display:flex;flex-wrap:wrap;gap:4px;margin:.35rem 0 0}
.sl-strip figure{margin:0}
.sl-strip img{display:block;border-radius:3px;object-fit:cover;background:var(--panel)}
@media (max-width:44rem){.pairs li{grid-template-columns:1fr 1fr}.pairs b{grid-column:1/-1}.alone li{grid-template-columns:1fr}}
"""


# ---------------------------------------------------------------------------------------------------------------- picture


def _histogram(c: Comparison) -> tuple[F64, dict[str, F64]]:
    """Edges, and the share of each side's components in each bin."""
    best = {which: c.side(which).best[c.side(which).usable] for which in ("a", "b")}
    low, high = (float(f(np.concatenate(list(best.values())))) for f in (np.min, np.max))
    if high - low < 1e-3:  # all alike
        low, high = max(low - 0.05, -1.0), min(high + 0.05, 1.0)
    bins = int(np.clip(2 * np.sqrt(min(len(v) for v in best.values())), 6, BINS))
    edges = np.linspace(low, high, bins + 1)
    return edges, {which: np.histogram(np.clip(v, low, high), edges)[0] / len(v) for which, v in best.items()}


def _curves(c: Comparison) -> tuple[F64, dict[str, list[tuple[F64, str]]]]:
    """Thresholds; per side the shares found in the other, found one to one, and of random components found, each with its kind of line."""
    steps, found = np.empty(0), {}
    for which in ("a", "b"):
        curve = c.curve(which)
        steps, found[which] = curve["threshold"], [(1 - curve["unique"], "solid"), (curve["shared"], "dotted")]
        if "at random" in curve:
            found[which].append((curve["at random"], "dashed"))
    return steps, found


def _words(c: Comparison, which: str, what: str = "distribution") -> str:
    own, other = (_short(c.side(one).name) for one in (which, "b" if which == "a" else "a"))
    return f"{own}, nearest in {other}" if what == "distribution" else f"{own}, found in {other}"


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


def picture(
    c: Comparison,
    ax: Any = None,
    *,
    what: str = "distribution",
    pixels: int = 2,
    font: str | os.PathLike[str] | None = None,
) -> Any:
    """How near each component's nearest is, in both directions, and what share has one at each threshold.

    Parameters
    ----------
    c : Comparison
    ax : matplotlib axes, optional
        Draw there and return them, instead of making a picture.
    what : {"distribution", "curve"}
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
    if ax is not None:
        return _on_axes(c, check_axes(ax), what)

    def draw(pen: Pen) -> tuple[float, float]:
        wide, gap = 380.0, 44.0
        for i, kind in enumerate(KINDS):
            _panel(pen, c, kind, 20 + i * (wide + gap), wide)
        return 2 * wide + gap + 40, 330.0

    return finish(draw, pixels, font, f"{c.a.name} and {c.b.name} compared")


def _on_axes(c: Comparison, ax: Any, what: str) -> Any:
    for which, colour in COLOURS.items():
        words = _words(c, which, what)
        if what == "distribution":
            edges, shares = _histogram(c)
            ax.stairs(shares[which], edges, color=colour, fill=True, alpha=0.15)
            ax.stairs(shares[which], edges, color=colour, label=words)
        else:
            steps, found = _curves(c)
            for (y, line), label in zip(found[which], (words, "one to one", "at random"), strict=False):
                ax.plot(steps, y, color=colour, linestyle=line, linewidth=1.6 if line == "solid" else 1.1, label=label)
    if c.threshold is not None:
        ax.axvline(c.threshold, color="0.6", linewidth=0.8)
    ax.set_xlabel("cosine to the nearest" if what == "distribution" else "threshold")
    ax.set_ylabel("share of components")
    ax.legend(frameon=False)
    return ax


def _panel(pen: Pen, c: Comparison, what: str, left: float, wide: float) -> None:
    """One of the two, with its own axes and key."""
    top, base, s, y = 36.0, 262.0, pen.scale, 0.0
    if what == "distribution":
        edges, shares = _histogram(c)
        low, high, most = float(edges[0]), float(edges[-1]), max(float(v.max()) for v in shares.values())
        lines = {w: [(np.repeat(edges, 2)[1:-1], np.repeat(v, 2), "solid")] for w, v in shares.items()}
    else:
        steps, curves = _curves(c)
        low, high, most = float(steps[0]), float(steps[-1]), 1.0
        lines = {w: [(steps, y, line) for y, line in each] for w, each in curves.items()}

    def place(x: Any, y: Any) -> list[tuple[float, float]]:
        across = left + (np.asarray(x) - low) / ((high - low) or 1.0) * wide
        up = base - np.asarray(y) / (most or 1.0) * (base - top)
        return [(float(u) * s, float(v) * s) for u, v in zip(across, up, strict=True)]

    pen.text(left, 20, "Cosine to the nearest" if what == "distribution" else "Share found, by threshold", 12, INK)
    if what == "curve":
        key = "dotted: one to one" + ("" if c.random is None else "; dashed: random components")
        pen.text(left + wide / 2, base + 15, key, 10, MUTED, "centre")
    pen.draw.line([(left * s, base * s), ((left + wide) * s, base * s)], fill=LINE, width=s)
    if c.threshold is not None and low <= c.threshold <= high:
        at = left + (c.threshold - low) / ((high - low) or 1.0) * wide
        pen.draw.line([(at * s, top * s), (at * s, base * s)], fill="#9ba5af", width=s)
    for which, parts in lines.items():
        for across, up, line in parts:
            points = place(across, up)
            if line != "solid":
                _dots(pen, points, COLOURS[which], dash=7 if line == "dashed" else 0)
            else:
                pen.draw.line(points, fill=COLOURS[which], width=2 * s, joint="curve")
    if what == "distribution" and c.random is not None:
        for i, (which, colour) in enumerate(COLOURS.items()):
            e, y = c.at_random(which), base + 4 + 4 * i
            ends = [
                left + (min(max(v, low), high) - low) / ((high - low) or 1.0) * wide
                for v in (e.lower, e.value, e.upper)
            ]
            pen.draw.line([(ends[0] * s, y * s), (ends[2] * s, y * s)], fill=colour, width=s)
            pen.draw.ellipse([(ends[1] - 2) * s, (y - 2) * s, (ends[1] + 2) * s, (y + 2) * s], fill=colour)
        pen.text(left + wide / 2, base + 21, "below the line: random components", 10, MUTED, "centre")
        base += 7
    pen.text(left, base + 15, number(low, 2), 10.5, MUTED)
    pen.text(left + wide, base + 15, number(high, 2), 10.5, MUTED, "right")
    pen.text(left + wide, 20, f"{number(most, 2)} at the top", 10.5, MUTED, "right")
    for i, which in enumerate(("a", "b")):
        y = base + 36 + 18 * i
        pen.box(left, y - 5, 14, 3, COLOURS[which])
        words = _words(c, which, what)
        pen.text(left + 20, y, pen.fit(clean(words), 11, wide - 20), 11, INK)


def _dots(pen: Pen, points: Sequence[tuple[float, float]], colour: str, dash: int = 0) -> None:
    """A dotted line, or a dashed one: a dot every few units of its length, or a stroke of a few units."""
    s, every, gone = pen.scale, (0.5 if dash else 5.0) * pen.scale, 0.0
    following, radius = 0.0, (0.5 if dash else 1.0) * s
    for (x0, y0), (x1, y1) in pairwise(points):
        length = float(np.hypot(x1 - x0, y1 - y0))
        while following < gone + length:
            share = (following - gone) / length
            x, y = x0 + (x1 - x0) * share, y0 + (y1 - y0) * share
            if not dash or following // (dash * s) % 2 == 0:
                pen.draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
            following += every
        gone += length


# ---------------------------------------------------------------------------------------------------------------- HTML


def fragment_of(c: Comparison) -> Html:
    """What a comparison shows of itself in a notebook."""
    heads, rows = c.summary_rows()
    pair_heads, pair_rows = c.pair_rows(NOTEBOOK)
    shown = c.pairs(NOTEBOOK)
    if _has_pictures(c):
        pair_heads = [*pair_heads, f"examples of {c.a.name}", f"of {c.b.name}"]
        pair_rows = [[*row, *_both(c, "a", m, 4, 40)] for row, m in zip(pair_rows, shown, strict=True)]
    counted = len(c.pairs())
    level = "each other's nearest" if c.threshold is None else f"shared at threshold {c.threshold:g}"
    return fragment(
        title(f"{c.a.name} and {c.b.name}: symmetric similarity {c.symmetric!r}"),
        table(heads, rows, caption="Similarity"),
        table(pair_heads, pair_rows, caption=f"The most alike of {counted} pairs, {level}"),
        *(note(remark) for remark in c.remarks),
    )


def report(
    c: Comparison,
    path: str | os.PathLike[str],
    *,
    pairs: int = 40,
    unique: int = 24,
    examples: int = 6,
    name: str | None = None,
    text: object = None,
    date: datetime.datetime | None = None,
) -> Path:
    """Write one self-contained page: similarities, matched pairs with their pictures side by side, and what only one side has.

    Parameters
    ----------
    c : Comparison
        With a threshold.
    path : path
        The file to write, atomically; its folder must exist.
    pairs, unique : int
        At most so many pairs, and components per side that the other has not.
    examples : int
        Pictures per component.
    name : str, optional
        The title.
    text : str or Html, optional
        A paragraph below it; text is escaped.
    date : datetime, optional
        None is now.

    Returns
    -------
    Path
    """
    goal = Path(path)
    if not goal.parent.is_dir():
        raise FileNotFoundError(f"cannot write {goal}: the folder {goal.parent} does not exist")
    for what, value in (("pairs", pairs), ("unique", unique), ("examples", examples)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{what}={value!r}: must be a whole number of at least 0")
    c._level()  # refuses a comparison without a threshold before anything is written
    heading = name if name is not None else f"{c.a.name} and {c.b.name}"
    parts = [_head(c, heading, text, date), _pairs(c, pairs, examples)]
    parts += [_unique(c, which, unique, examples) for which in ("a", "b")]
    body = "\n".join(f'<div class="wide">{part}</div>' for part in parts)
    document = page(
        heading,
        f"<main>{body}</main>",
        style=CSS,
        description="Concepts that two networks share, and concepts of one only",
    )
    with atomic_write(goal, "w") as file:
        file.write(document)
    return goal


def _head(c: Comparison, heading: str, text: object, date: datetime.datetime | None) -> str:
    when = (datetime.datetime.now().astimezone() if date is None else date).strftime("%Y-%m-%d %H:%M %Z")
    facts = []
    for i, side in enumerate((c.a, c.b)):
        counts = side.counts()
        gone = ", ".join(f"{counts[key]} {key}" for key in ("dead", "unusable", "too few examples") if counts[key])
        network, data = ((c.record.get(key) or [None, None])[i] or {} for key in ("network", "data"))
        source = [str(network.get("name") or "–"), short_hash(network.get("fingerprint"))]
        used = [
            ", ".join(side.layers),
            str(data.get("name") or "–"),
            counts["used"],
            gone or "none",
            counts["one example"],
        ]
        facts.append([side.name, *source, *used])
    encoder = (c.record.get("encoder") or [{}])[0] or {}
    heads, rows = c.summary_rows()
    lines = "dotted: one to one" + ("" if c.random is None else "; dashed: random components")
    keys = "".join(f'<span><i class="{w}"></i>{escape(_words(c, w, "curve"))}</span>' for w in ("a", "b"))
    keys += f"<span>{lines}</span>"
    chance = (
        ""
        if c.random is None
        else " “At random” is the same for components whose examples are drawn at random from that side's."
    )
    remarks = "".join(f'<p class="muted">Note: {escape(remark)}.</p>' for remark in c.remarks)
    made = f"semanticlens {escape(__version__)}, {escape(when)}, threshold {number(c.threshold, 3)}"
    less = ", of concept vectors less their mean" if c.centre else ""
    about = ["name", "network", "SHA-256", "layers", "pictures", "used", "left out", "one example"]
    return (
        f"<header><h1>{escape(heading)}</h1><p class='muted'>{made}</p>"
        + (f"<p>{escape(text)}</p>" if text is not None else "")
        + f"</header><p>Symmetric similarity <b>{escape(repr(c.symmetric))}</b>{less}.</p>"
        + f"<div class='scroll'>{table(heads, rows)}</div>"
        + "<p>The similarity from one to the other is the mean cosine of its components to their nearest there, with the "
        f"{100 * c.level:g} % interval over components.{chance} Shared: each is the nearest of the other, at the threshold or "
        "above. Covered: the nearest reaches the threshold, and is nearer to another. Unique: no component of the other side "
        f"reaches it.</p>{remarks}<div class='key'>{keys}</div>"
        f"<div class='plots'>{_svg(c, 'distribution')}{_svg(c, 'curve')}</div>"
        f"<div class='scroll'>{table(about, facts, caption='Of what')}</div>"
        f"<p class='muted'>Encoder {escape(str(encoder.get('name')))} {short_hash(encoder.get('fingerprint'))}. "
        "What it cannot tell apart counts as the same here.</p>"
    )


def _pairs(c: Comparison, most: int, examples: int) -> str:
    found = c.pairs()
    left_out = f" The {most} most alike are shown." if len(found) > most else ""
    items = "".join(
        f"<li><b>{number(m.cosine, 3)}</b><div>{_who(m, 'a', True)}{pair[0]}</div><div>{_who(m, 'b', False)}{pair[1]}</div></li>"
        for m, pair in ((m, _both(c, "a", m, examples, 56)) for m in found[:most])
    )
    names = f"<span class='a'>{escape(c.a.name)}</span> left, <span class='b'>{escape(c.b.name)}</span> right"
    return (
        f"<h2>Shared: {len(found)} pairs</h2><p>{names}, with their cosine.{left_out}</p><ul class='pairs'>{items}</ul>"
    )


def _unique(c: Comparison, which: str, most: int, examples: int) -> str:
    found, own = c.unique(which), c.side(which)
    other = c.side("b" if which == "a" else "a").name
    if not found:
        return f"<h2>Only in {escape(own.name)}: none</h2>"
    left_out = f" The {most} least alike are shown." if len(found) > most else ""
    items = "".join(
        f"<li><div>{_who(m, which, True)}<small>{_nearest(m)}</small></div>{_both(c, which, m, examples, 56)[0]}</li>"
        for m in found[:most]
    )
    heading = f"Only in {escape(own.name)}: {len(found)} of {int(own.usable.sum())}"
    why = f"No component of {escape(other)} reaches the threshold.{left_out}"
    return f"<h2>{heading}</h2><p>{why}</p><ul class='alone'>{items}</ul>"


def _nearest(m: Match) -> Html:
    label = f" ({m.other_label})" if m.other_label else ""
    return escape(f"nearest {m.other_layer}:{m.other}{label}, {number(m.cosine, 3)}")


def _who(m: Match, which: str, own: bool) -> str:
    layer, component, label, n = (
        (m.layer, m.component, m.label, m.examples)
        if own
        else (m.other_layer, m.other, m.other_label, m.other_examples)
    )
    few = " · one example" if n == 1 else ""
    return f"<h3 class='{which}'>{escape(label or f'{layer}:{component}')}</h3><small>{escape(layer)}:{component}{few}</small>"


def _has_pictures(c: Comparison) -> bool:
    return c.databases is not None and all("thumbnails" in db._arrays or db.images is not None for db in c.databases)


def _both(c: Comparison, which: str, m: Match, most: int, size: int) -> tuple[Html, Html]:
    """Examples of a component and of its nearest."""
    if c.databases is None:
        return Html(""), Html("")
    mine, theirs = c.databases if which == "a" else c.databases[::-1]
    return _strip(mine, m.layer, m.component, most, size), _strip(theirs, m.other_layer, m.other, most, size)


def _strip(db: Any, layer: str, component: int, most: int, size: int) -> Html:
    if "thumbnails" not in db._arrays and db.images is None:
        return Html("")
    ranks = range(min(most, len(db[layer].examples(component))))
    return strip(
        [db.example(layer, component, rank, small=True) for rank in ranks],
        size=size,
        alt=f"{layer}:{component}, example",
    )


def _svg(c: Comparison, what: str) -> str:
    """One of the two plots, in the page's colours."""
    if what == "distribution":
        edges, shares = _histogram(c)
        low, high, most = float(edges[0]), float(edges[-1]), max(float(v.max()) for v in shares.values())
        lines = [(w, np.repeat(edges, 2)[1:-1], np.repeat(v, 2), "") for w, v in shares.items()]
    else:
        steps, curves = _curves(c)
        low, high, most = float(steps[0]), float(steps[-1]), 1.0
        dashes = {
            "solid": "",
            "dotted": " stroke-dasharray='2 4'",
            "dashed": " stroke-dasharray='7 5' stroke-opacity='.7'",
        }
        lines = [(w, steps, y, dashes[line]) for w, each in curves.items() for y, line in each]
    base, span = HEIGHT - BOTTOM, (high - low) or 1.0
    inner = ""
    for which, xs, ys, dash in lines:
        points = [
            f"{LEFT + (x - low) / span * (WIDTH - 8 - LEFT):.1f} {base - y / (most or 1) * (base - 12):.1f}"
            for x, y in zip(xs, ys, strict=True)
        ]
        colour = "var(--accent)" if which == "a" else "var(--warm)"
        inner += f'<path d="M{"L".join(points)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    if c.threshold is not None and low <= c.threshold <= high:
        at = LEFT + (c.threshold - low) / span * (WIDTH - 8 - LEFT)
        inner += f'<path d="M{at:.1f} 8V{base}" stroke="currentColor" stroke-opacity=".5" stroke-dasharray="4 3"/>'
    label = "Cosine to the nearest" if what == "distribution" else "Share with a counterpart (dotted: one to one)"
    across = "cosine to the nearest" if what == "distribution" else "threshold"
    small = '<text font-size="11" fill="currentColor" fill-opacity=".7"'
    large = 'text-anchor="middle" font-size="12" fill="currentColor"'
    ends = f'text-anchor="end">{number(high, 2)}</text>'
    return (
        f'<svg class="plot" role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {HEIGHT}"><title>{label}</title>{inner}'
        f'<path d="M{LEFT} 8V{base}H{WIDTH - 8}" fill="none" stroke="currentColor" stroke-opacity=".45"/>'
        f'{small} x="{LEFT}" y="{base + 15}">{number(low, 2)}</text>{small} x="{WIDTH - 8}" y="{base + 15}" {ends}'
        f'{small} x="{LEFT - 5}" y="{base}" text-anchor="end">0</text>'
        f'{small} x="{LEFT - 5}" y="18" text-anchor="end">{number(most, 2)}</text>'
        f'<text x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 6}" {large}>{across}</text>'
        f'<text transform="translate(12 {base / 2}) rotate(-90)" {large}>share of components</text></svg>'
    )
