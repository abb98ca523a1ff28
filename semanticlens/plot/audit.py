"""An audit to look at: the scatter of alignment against relevance, and one page a reviewer can read."""

from __future__ import annotations

import datetime
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semanticlens._version import __version__
from semanticlens.io import atomic_write
from semanticlens.lens.audit import CATEGORIES
from semanticlens.plot._drawing import check_axes
from semanticlens.plot._look import INK, LINE, MUTED, finish
from semanticlens.plot._type import Pen
from semanticlens.plot.html import Html, bar, escape, fragment, note, number, page, short_hash, strip, table, title

if TYPE_CHECKING:
    from semanticlens.lens.audit import Audit, Finding

__all__ = ["fragment_of", "report", "scatter"]

COLOURS = {"valid": "#2b7a4b", "spurious": "#b3362b", "unexpected": "#8a6d1f"}
NOTEBOOK, PAGE = 12, 200  # findings that are listed
EXAMPLES = 8
WIDTH, HEIGHT, LEFT, BOTTOM = 560, 300, 48, 40
CSS = """
.shares{display:grid;gap:.5rem;margin:1rem 0}
.shares div{display:grid;grid-template-columns:minmax(6rem,14rem) 1fr;gap:1rem;align-items:center}
.shares small{grid-column:2;color:var(--muted);margin-top:-.3rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem 2rem}
main{padding:2rem 0 4rem}
.shares .stack{display:flex;height:1.15rem;border-radius:3px;overflow:hidden;background:var(--panel);
box-shadow:inset 0 0 0 1px var(--line)}
.shares .stack i{display:block;height:100%;-webkit-print-color-adjust:exact;print-color-adjust:exact}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;font-size:.88rem;color:var(--muted);margin:.4rem 0 1rem}
.key i,.dot{display:inline-block;width:.72em;height:.72em;border-radius:50%;margin-right:.4em;vertical-align:-.02em;
-webkit-print-color-adjust:exact;print-color-adjust:exact}
.found{list-style:none;margin:1rem 0;padding:0}
.found li{border-top:1px solid var(--line);padding:.8rem 0;display:grid;grid-template-columns:minmax(12rem,18rem) 1fr;gap:.4rem 1.4rem}
.found h3{font-size:1rem;margin:0}
.found small{display:block;color:var(--muted)}
.found dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem .8rem;margin:.4rem 0 0;font-size:.9rem}
.found dt{color:var(--muted)}.found dd{margin:0}
.warn{color:#b3362b;font-weight:500}
@media (prefers-color-scheme:dark){.warn{color:#f08a7e}}
.plot{width:100%;max-width:40rem;height:auto;color:var(--ink)}
@media (max-width:40rem){.found li{grid-template-columns:1fr}.shares div{grid-template-columns:1fr}.shares small{grid-column:1}}
"""


def scatter(
    audit: Audit,
    ax: Any = None,
    *,
    target: int | str | None = None,
    layer: str | None = None,
    pixels: int = 2,
    font: str | os.PathLike[str] | None = None,
) -> Any:
    """Each component: how well a valid prompt describes it, against its share of the class's relevance; coloured by category.

    Parameters
    ----------
    audit : Audit
    ax : matplotlib axes, optional
        Draw there and return them, instead of making a picture.
    target : int or str, optional
        The class; the first if left out.
    layer : str, optional
        Needed where there are several.
    pixels : int
        Pixels per unit of the picture.
    font : path, optional
        For scripts that no font here covers.

    Returns
    -------
    Drawing, or the axes
    """
    own, categories, i, name = _chosen(audit, target, layer)
    across, up = "score of the closest valid prompt", f"share of the relevance of {name}"
    if ax is not None:
        check_axes(ax)
        for c, word in enumerate(CATEGORIES):
            here = categories == c
            known = f"{word} ({int(here.sum())})"
            ax.scatter(own.valid[here], own.shares[i][here], s=16, color=COLOURS[word], label=known, linewidths=0)
        ax.axvline(audit.threshold, color="0.6", linewidth=0.8)
        ax.set_xlabel(across)
        ax.set_ylabel(up)
        ax.legend(frameon=False)
        return ax
    shown = np.flatnonzero(categories >= 0)

    def draw(pen: Pen) -> tuple[float, float]:
        width, height, left, top, base = 460.0, 330.0, 16.0, 40.0, 286.0
        pen.text(left, 22, up, 12, INK)
        if len(shown):
            low, high = float(own.valid[shown].min()), float(own.valid[shown].max())
            most = float(own.shares[i][shown].max()) or 1.0
            s = pen.scale
            pen.draw.line([(left * s, top * s), (left * s, base * s), ((width - 16) * s, base * s)], fill=LINE, width=s)
            for k in shown:
                x = left + 6 + (own.valid[k] - low) / ((high - low) or 1.0) * (width - left - 34)
                y = base - own.shares[i, k] / most * (base - top - 8)
                colour = COLOURS[CATEGORIES[categories[k]]]
                pen.draw.ellipse([(x - 3.4) * s, (y - 3.4) * s, (x + 3.4) * s, (y + 3.4) * s], fill=colour)
            pen.text(left, base + 16, number(low, 2), 10.5, MUTED)
            pen.text(width - 16, base + 16, number(high, 2), 10.5, MUTED, "right")
            pen.text(width / 2, base + 16, across, 10.5, MUTED, "centre")
            pen.text(width - 16, top - 6, number(most, 2), 10.5, MUTED, "right")
        x = left
        for c, word in enumerate(CATEGORIES):
            known = f"{word} ({int((categories == c).sum())})"
            pen.draw.ellipse([x * pen.scale, (base + 27) * pen.scale, (x + 7) * pen.scale, (base + 34) * pen.scale], fill=COLOURS[word])
            pen.text(x + 12, base + 34, known, 10.5, INK)
            x += 30 + pen.width(known, 10.5)
        return width, height

    return finish(draw, pixels, font, f"{len(shown)} components for {name}")


def _chosen(audit: Audit, target: int | str | None, layer: str | None) -> tuple[Any, Any, int, str]:
    i = 0 if target is None else audit._place(target)
    return audit._layer(layer), audit._categories(layer), i, audit.class_names[i]


# ---------------------------------------------------------------------------------------------------------------- HTML


def fragment_of(audit: Audit) -> Html:
    """What an audit shows of itself in a notebook."""
    if audit.threshold is None:
        return fragment(title("Audit"), note(f"{audit!r}"))
    rows = [
        [layer, name, *(shares[word] for word in CATEGORIES)]
        for layer in audit.layers
        for name, shares in audit.shares(layer).items()
    ]
    headers = [
        "class",
        "layer",
        "component",
        "category",
        "prompt",
        "alignment",
        "share",
        "effect",
        "error",
        "acts",
        "decision",
        "examples",
    ]
    found = [[*audit.row(f), _strip(audit, f, 4)] for f in audit.findings()[:NOTEBOOK]]
    return fragment(
        title(f"Audit at threshold {audit.threshold:g}"),
        table(["layer", "class", *CATEGORIES], rows, caption="Shares of relevance"),
        table(headers, found, caption="Components", limit=NOTEBOOK),
        note(
            "Effect: the class's log odds with the component less those without it. (!): label or relevance and experiment disagree."
        ),
    )


def _strip(audit: Audit, f: Finding, most: int = EXAMPLES, size: int = 48) -> object:
    db = audit.db
    if db is None or "thumbnails" not in db._arrays:
        return ""
    pictures = [db.example(f.layer, f.component, rank, small=True) for rank in range(min(most, len(db[f.layer].examples(f.component))))]
    return strip([p for p in pictures if p is not None], size=size)


def report(
    audit: Audit,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    text: object = None,
    date: datetime.datetime | None = None,
) -> Path:
    """Write one self-contained page: what was asked, of what, what was found, what was decided.

    Parameters
    ----------
    audit : Audit
        With a threshold.
    path : path
        The file to write, atomically; its folder must exist.
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
    audit._categories(next(iter(audit.layers)))  # refuses an audit without a threshold before anything is written
    when = datetime.datetime.now().astimezone() if date is None else date
    heading = (
        name
        if name is not None
        else f"Audit: {', '.join(audit.class_names[:4])}{', ...' if len(audit.class_names) > 4 else ''}"
    )
    parts = [_head(audit, heading, text, when)]
    for layer in audit.layers:
        parts.append(_layer(audit, layer))
    parts.append(_decisions(audit))
    body = "\n".join(f'<div class="wide">{part}</div>' for part in parts)
    with atomic_write(goal, "w") as file:
        file.write(page(heading, f"<main>{body}</main>", style=CSS, description="Audit of a network's components"))
    return goal


def _head(audit: Audit, heading: str, text: object, when: datetime.datetime) -> str:
    facts = []
    for key in ("network", "data", "encoder"):
        made = audit.record.get(key) or {}
        if made.get("name"):
            facts.append([key, made["name"], short_hash(made.get("fingerprint") or "")])
    asked = [
        ["may be used", ", ".join(audit.valid)],
        ["must not be used", ", ".join(audit.spurious)],
        ["threshold", f"{audit.threshold:g}"],
    ]
    asked.append(["null correction", audit.null])
    how = (
        ""
        if audit.effects is None
        else f", effects over {number(audit.effects.n)} pictures with {audit.effects.how} in a component's place"
    )
    return (
        f"<header><h1>{escape(heading)}</h1>"
        f"<p class='muted'>semanticlens {escape(__version__)}, {escape(when.strftime('%Y-%m-%d %H:%M %Z'))}{escape(how)}</p>"
        + (f"<p>{escape(text)}</p>" if text is not None else "")
        + "</header>"
        + str(table(["what", "name", "SHA-256"], facts, caption="Of what"))
        + str(table(["", ""], asked, caption="What was asked"))
        + "<p>A component's label says what its examples show. Relevance says what the network's answer can be attributed to. Neither is a "
        "cause: the effect is measured, by taking the component out. Where relevance and experiment disagree, the list says so.</p>"
    )


def _layer(audit: Audit, layer: str) -> str:
    shares, counts = audit.shares(layer), audit.counts(layer)
    bars = "".join(
        f'<div><span>{escape(name)}</span><span class="stack" title="{escape(_words(row))}">'
        + "".join(f'<i style="width:{100 * row[word]:.2f}%;background:{COLOURS[word]}"></i>' for word in CATEGORIES)
        + f"</span><small>{escape(_words(row))}</small></div>"
        for name, row in shares.items()
    )
    key = "".join(
        f'<span><i style="background:{COLOURS[w]}"></i>{w}: {counts[w]} components</span>' for w in CATEGORIES
    )
    items = "".join(_item(audit, f) for f in audit.findings(layer=layer)[:PAGE])
    plots = "".join(
        f"<h3>{escape(name)}</h3><div class='plots'>{_curves(audit, layer, i)}{_dots(audit, layer, i)}</div>"
        for i, name in enumerate(audit.class_names)
    )
    return (
        f"<h2>Layer {escape(layer)}</h2><p>Shares of the relevance that speaks for each class; not of components.</p>"
        f'<div class="shares">{bars}</div><div class="key">{key}</div>{plots}<h2>Components of {escape(layer)}</h2>'
        f'<ul class="found">{items}</ul>'
    )


def _words(row: dict[str, float]) -> str:
    return ", ".join(f"{100 * row[word]:.1f} % {word}" for word in CATEGORIES)


def _item(audit: Audit, f: Finding) -> str:
    name = audit.class_names[audit.classes.index(f.target)]
    effect = (
        "not measured"
        if math.isnan(f.effect)
        else f"{number(f.effect, 2, signed=True)} ± {number(f.error, 2)}: acts {f.acts}"
    )
    why = "answers to what must not be used" if f.answers else "relevance speaks for the class, the experiment does not"
    warn = f"<small class='warn'>{why}</small>" if f.disagrees else ""
    decision = (
        ""
        if f.decision is None
        else f"<dt>decided</dt><dd>{escape(f.decision)} {escape(audit.decisions[f.layer, f.component][1])}</dd>"
    )
    passes = f"{number(f.through, 2, signed=True)} ± {number(f.through_error, 2)} passes through it"
    paired = "" if math.isnan(f.through) else f"<dt>in pairs</dt><dd>{passes}; larger in {100 * f.separation:.0f} %</dd>"
    pull = "" if math.isnan(f.pull) else f"<dt>on others</dt><dd>{number(f.pull, 2, signed=True)}</dd>"
    return (
        f"<li><div><h3><i class='dot' style='background:{COLOURS[f.category]}'></i>{escape(f.layer)}:{f.component}</h3>"
        f"<small>{escape(f.category)} · for {escape(name)}</small>{warn}</div><div>{_strip(audit, f, EXAMPLES, 56)}"
        f"<dl><dt>label</dt><dd>{escape(f.prompt)}, {number(f.alignment, 3)}</dd>"
        f"<dt>relevance</dt><dd>{bar(f.share)}</dd><dt>effect</dt><dd>{escape(effect)}</dd>{pull}{paired}{decision}</dl></div></li>"
    )


def _decisions(audit: Audit) -> str:
    if not audit.decisions:
        return "<h2>Decisions</h2><p class='muted'>None yet: audit.decide(layer, component, decision, note).</p>"
    rows = [[layer, k, decision, words] for (layer, k), (decision, words) in sorted(audit.decisions.items())]
    return "<h2>Decisions</h2>" + str(table(["layer", "component", "decision", "note"], rows))


def _frame(inner: str, x: str, y: str, label: str) -> str:
    return (
        f'<svg class="plot" role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}"><title>{escape(label)}</title>{inner}'
        f'<path d="M{LEFT} 8V{HEIGHT - BOTTOM}H{WIDTH - 8}" fill="none" stroke="currentColor" stroke-opacity=".45"/>'
        f'<text x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 6}" text-anchor="middle" font-size="12" fill="currentColor">{escape(x)}</text>'
        f'<text transform="translate(12 {(HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" font-size="12" fill="currentColor">'
        f"{escape(y)}</text></svg>"
    )


def _ticks(low: float, high: float, top: float) -> str:
    """Numbers at the ends of both axes."""
    base = HEIGHT - BOTTOM
    return (
        f'<g font-size="11" fill="currentColor" fill-opacity=".7"><text x="{LEFT}" y="{base + 15}">{number(low, 2)}</text>'
        f'<text x="{WIDTH - 8}" y="{base + 15}" text-anchor="end">{number(high, 2)}</text>'
        f'<text x="{LEFT - 5}" y="{base}" text-anchor="end">0</text>'
        f'<text x="{LEFT - 5}" y="18" text-anchor="end">{number(top, 2)}</text></g>'
    )


def _curves(audit: Audit, layer: str, i: int) -> str:
    """Shares by threshold, stacked."""
    curve = audit.curve(layer)
    steps = curve["threshold"]
    low, high = float(steps[0]), float(steps[-1])
    across = LEFT + (steps - low) / ((high - low) or 1.0) * (WIDTH - 8 - LEFT)
    base, below, paths = HEIGHT - BOTTOM, np.zeros(len(steps)), ""
    for word in CATEGORIES:
        above = below + curve[word][i]
        points = [(x, base - (base - 8) * v) for x, v in zip(across, above, strict=True)]
        points += [(x, base - (base - 8) * v) for x, v in zip(across[::-1], below[::-1], strict=True)]
        paths += (
            f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}Z" fill="{COLOURS[word]}" fill-opacity=".75"/>'
        )
        below = above
    assert audit.threshold is not None
    if low <= audit.threshold <= high:
        at = LEFT + (audit.threshold - low) / ((high - low) or 1.0) * (WIDTH - 8 - LEFT)
        paths += f'<path d="M{at:.1f} 8V{base}" stroke="currentColor" stroke-dasharray="4 3"/>'
    inner = paths + _ticks(low, high, 1.0)
    return _frame(inner, "threshold", "share of relevance", f"Shares of {audit.class_names[i]} by threshold, {layer}")


def _dots(audit: Audit, layer: str, i: int) -> str:
    """The scatter."""
    own, categories, _, name = _chosen(audit, audit.classes[i], layer)
    shown = np.flatnonzero(categories >= 0)
    if not len(shown):
        return ""
    low, high = float(own.valid[shown].min()), float(own.valid[shown].max())
    top = float(own.shares[i][shown].max()) or 1.0
    base, dots = HEIGHT - BOTTOM, ""
    for k in shown:
        x = LEFT + (own.valid[k] - low) / ((high - low) or 1.0) * (WIDTH - 16 - LEFT)
        y = base - own.shares[i, k] / top * (base - 14)
        word = CATEGORIES[categories[k]]
        words = escape(f"{layer}:{k}, {word}, share {number(float(own.shares[i, k]), 3)}")
        dots += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{COLOURS[word]}"><title>{words}</title></circle>'
    return _frame(
        dots + _ticks(low, high, top),
        "score of the closest valid prompt",
        f"share of {name}",
        f"Components of {layer} for {name}",
    )
