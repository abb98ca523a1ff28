"""Attributions, ledgers and texts in a notebook, light or dark: complete in themselves, everything from outside escaped."""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from semanticlens.plot._drawing import plain
from semanticlens.plot._heat import finite, heat_colours, heat_limit
from semanticlens.plot._seen import facts, pictures_of
from semanticlens.plot.html import Html, code, escape, fragment, image_uri, note, number, table, title

if TYPE_CHECKING:
    from semanticlens.attribution.attribute import Attribution
    from semanticlens.attribution.ledger import Ledger

__all__ = ["attribution", "ledger", "tokens"]

SHOWN, SIZE = 8, 112  # samples, and pixels of a map
FOR, AGAINST = "214,48,40", "52,116,200"  # translucent on any ground
NOTHING = 1e-7  # of the largest sum of |R|: below it, rounding
KEPT = ("bias", "stabiliser", "degenerate", "stopped", "masked", "other")
STYLE = """
.sl-out .sl-maps{display:flex;flex-wrap:wrap;gap:.7em 1.2em;margin:.3em 0 .5em}
.sl-out .sl-maps figure{margin:0;line-height:1.3}
.sl-out .sl-maps img{display:inline-block;margin:0 3px 0 0;border-radius:3px;max-width:none;vertical-align:top;
box-sizing:border-box;border:1px solid var(--sl-line)}
.sl-out .sl-maps figcaption{font-size:.8em;padding-top:3px}
.sl-out .sl-maps figcaption small{display:block;opacity:.75;font-size:.92em}
.sl-out .sl-ramp{display:inline-block;width:9em;height:.6em;border-radius:2px;vertical-align:middle;margin:0 .5em;
background:linear-gradient(90deg,#00f,#fff,#f00);border:1px solid var(--sl-line)}
.sl-out .sl-signed{display:inline-block;position:relative;width:4.6em;height:.55em;vertical-align:middle;margin-right:.5em;
background:linear-gradient(var(--sl-line),var(--sl-line)) 50% 0/1px 100% no-repeat}
.sl-out .sl-signed i{position:absolute;top:0;height:100%;border-radius:1px}
.sl-out .sl-plus{left:50%;background:rgb(214,48,40)}.sl-out .sl-minus{right:50%;background:rgb(52,116,200)}
.sl-out .sl-kept{white-space:nowrap}
.sl-out .sl-rule{display:inline-block;min-width:11em}
.sl-out .sl-tokens{line-height:2;margin:.2em 0 .5em;max-width:60em;overflow-wrap:anywhere;white-space:pre-wrap}
.sl-out .sl-tokens span{padding:.16em 0;border-radius:2px}
"""


# ------------------------------------------------------------------------------------------------- a result


def attribution(r: Attribution) -> Html:
    """What an Attribution shows of itself: pictures with their heat maps, sums, rules."""
    chosen = range(min(len(r.input), SHOWN))
    parts: list[object] = [title(_headline(r))]
    if r.input.ndim in (3, 4) and r.input.shape[-1] and np.isfinite(r.input[: len(chosen)]).all():
        parts += _maps(r, chosen)
    else:
        rows = [[i, *_said(r, i)] for i in chosen]
        parts.append(table(("sample", "of", "relevance in", "at the input"), rows, style=False))
        if not np.isfinite(r.input).all():
            parts.append(note("The relevance of the input holds NaN or infinite values: r.ledger() says where they arise."))
    if len(r.input) > len(chosen):
        parts.append(note(f"{len(r.input) - len(chosen)} more samples are not shown"))
    return fragment(Html(f"<style>{STYLE}</style>"), *parts, _rules(r))


def _headline(r: Attribution) -> str:
    count = len(r.input)
    kept = f", recorded: {', '.join(r.arrays)}" if r.arrays else ""
    return f"Attribution of {count} sample{'' if count == 1 else 's'} by {r.composite.name}{kept}"


def _said(r: Attribution, i: int) -> tuple[str, float, float]:
    known = facts(r, i)
    what = "" if known.target is None else f"{known.label or 'class'} {known.target}" if not known.label else known.label
    return what, known.started, known.arrived


def _maps(r: Attribution, chosen: Sequence[int]) -> list[object]:
    seen = pictures_of(r, chosen)
    values = r.heatmap()
    figures = []
    for place, i in enumerate(chosen):
        known = facts(r, i)
        row = values[i] if values.ndim == 3 else values[i][None]
        heat = Image.fromarray(heat_colours(row))
        images = [(heat, f"heat map of sample {i}")]
        if seen is not None:
            images.insert(0, (seen[place], f"sample {i}"))
        shown = "".join(_image(image, words) for image, words in images)
        figures.append(
            f"<figure>{shown}<figcaption>{escape(known.line)}<small>relevance in {escape(number(known.started))}, "
            f"at the input {escape(number(known.arrived))}</small></figcaption></figure>"
        )
    scale = "Each map has its own scale, up to the 99.5th percentile of its absolute values."
    ramp = f'<div class="sl-note">against<i class="sl-ramp"></i>for. {scale}</div>'
    return [Html(f'<div class="sl-maps">{"".join(figures)}</div>'), Html(ramp)]


def _image(image: Image.Image, words: str) -> str:
    if image.height == 1:
        width, height = 2 * SIZE, 22
        image = image.resize((max(image.width, width), 2), Image.Resampling.NEAREST)
    else:
        factor = SIZE / max(image.size)
        width, height = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        if max(image.size) < 2 * SIZE:  # enlarged here, so that no browser smooths it
            times = -(-2 * SIZE // max(image.size))
            image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    source = image_uri(image, size=2 * SIZE, quality=88)
    return f'<img src="{source}" width="{width}" height="{height}" alt="{escape(words)}">'


def _rules(r: Attribution) -> Html:
    """Which rule how many nodes got, folded away."""
    counts = Counter((str(a.rule), a.op) for a in r.rules.values())
    by_rule: dict[str, list[str]] = {}
    for (rule, op), count in counts.items():
        by_rule.setdefault(rule, []).append(f"{op} ({count})")
    rows = [[code(rule), ", ".join(ops)] for rule, ops in by_rule.items()]
    inner = table(("rule", "of nodes"), rows, style=False)
    products = f"{r.products.forward} products with weights forwards, {r.products.adjoint} back, beside the network's own run"
    return Html(
        f"<details><summary>{len(r.rules)} nodes, {len(rows)} rules</summary>{inner}{note(products)}</details>"
    )


# ------------------------------------------------------------------------------------------------- ledger


def ledger(found: Ledger) -> Html:
    """Where relevance went: the nodes that kept some, with a bar for each kind."""
    size = max(found.largest, abs(found.started))
    columns = [c for c in KEPT if any(not abs(getattr(e, c)) <= NOTHING * size for e in found.entries)]
    keeping = [
        e for e in found.entries if e.degenerate_rows or any(not abs(getattr(e, c)) <= NOTHING * size for c in columns)
    ]
    most = max((abs(getattr(e, c)) for e in keeping for c in columns if np.isfinite(getattr(e, c))), default=0.0)
    rows: list[list[object]] = [
        [code(e.node), Html(f'<span class="sl-rule">{escape(e.rule)}</span>'), e.arrived, e.passed,
         *(_signed(getattr(e, c), most) for c in columns), e.degenerate_rows]
        for e in keeping
    ]  # fmt: skip
    totals = [found.total(c) for c in columns]
    top = max(map(abs, totals), default=0.0)
    rows.append([Html('<b class="sl-kept">whole</b>'), "", found.started, found.arrived, *(_signed(t, top) for t in totals),
                 sum(e.degenerate_rows for e in found.entries)])  # fmt: skip
    parts = [
        title(f"Where relevance went: {plain(found.started)} put in, {plain(found.arrived)} at the input"),
        table(("node", "rule", "arrived", "passed on", *columns, "rows lost"), rows, style=False),
    ]
    left_out = len(found.entries) - len(keeping)
    if left_out:
        parts.append(note(f"{left_out} of {len(found.entries)} nodes passed on all they got and are not shown."))
    nothing = [f"{c} {number(found.total(c))}" for c in KEPT if c not in columns and found.total(c)]
    if nothing:
        parts.append(note(f"Too small to be shown, over all nodes: {', '.join(nothing)}."))
    parts.append(note(f"Put in, less what arrived and what was kept: {number(found.balance)}; the largest sum of |R| of a node is "
                      f"{number(found.largest)}. Bars of the nodes share one scale, those of the whole have their own."))  # fmt: skip
    return fragment(Html(f"<style>{STYLE}</style>"), *parts)


def _signed(value: float, size: float) -> Html:
    """A number with a bar to the right of the middle, or to the left where it is negative."""
    if not value:
        return Html("0")
    share = min(1.0, abs(value) / size) if size and np.isfinite(value) else 0.0
    kind = "plus" if value > 0 else "minus"
    width = f'<i class="sl-{kind}" style="width:{50 * share:.1f}%"></i>'
    return Html(f'<span class="sl-kept"><span class="sl-signed" aria-hidden="true">{width}</span>{escape(number(value))}</span>')


# ------------------------------------------------------------------------------------------------- texts


def tokens(
    values: ArrayLike,
    words: Sequence[Any],
    *,
    titles: Sequence[object] | None = None,
    percentile: float = 100.0,
    scale: str | float = "each",
) -> Html:
    """Texts with their tokens coloured by relevance: red for, blue against; in a notebook the result shows itself.

    Parameters
    ----------
    values : array_like (T,) or (B, T)
        Such as ``r.heatmap(name)``; rows may be longer than their texts (padding is left out).
    words : sequence of T str, or B of them
        The tokens as they are to be read, white space included; they are escaped.
    titles : sequence, optional
        A line above each text.
    percentile : float
        Of the absolute values: what lies beyond gets the strongest colour.
    scale : {"each", "all"} or float
        One scale for each text or for all; or the value of the strongest colour.

    Returns
    -------
    Html
    """
    rows = finite(values, "values")
    lines: list[list[str]] = [[str(w) for w in words]] if rows.ndim == 1 else [[str(w) for w in line] for line in words]
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or len(rows) != len(lines):
        raise ValueError(f"values of shape {np.shape(values)} do not fit {len(lines)} texts: must be (T,) or (B, T)")
    for i, line in enumerate(lines):
        if not 0 < len(line) <= rows.shape[1]:
            raise ValueError(f"words[{i}] has {len(line)} tokens for {rows.shape[1]} values")
    if titles is not None and len(titles) != len(lines):
        raise ValueError(f"titles has {len(titles)} entries for {len(lines)} texts")
    parts: list[object] = []
    for i, (line, limit) in enumerate(zip(lines, _token_limits(rows, lines, percentile, scale), strict=True)):
        if titles is not None:
            parts.append(title(titles[i]))
        spans = "".join(_token(word, float(v), limit) for word, v in zip(line, rows[i], strict=False))
        parts.append(Html(f'<div class="sl-tokens">{spans}</div>'))
    return fragment(Html(f"<style>{STYLE}</style>"), *parts)


def _token_limits(rows: Any, lines: list[list[str]], percentile: float, scale: str | float) -> list[float]:
    own = [rows[i, : len(line)] for i, line in enumerate(lines)]
    if scale == "each":
        return [heat_limit(row, percentile) for row in own]
    if scale == "all":
        return [heat_limit(np.concatenate(own), percentile)] * len(own)
    if not (isinstance(scale, numbers.Real) and np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale={scale!r}: must be 'each', 'all' or the value of the strongest colour")
    return [float(scale)] * len(own)


def _token(word: str, value: float, limit: float) -> str:
    share = min(1.0, abs(value) / limit) if limit else 0.0
    colour = f"rgba({FOR if value > 0 else AGAINST},{0.6 * share:.3f})"
    return f'<span style="background:{colour}" title="{escape(number(value))}">{escape(word)}</span>'
