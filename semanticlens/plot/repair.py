"""A repair as one page a reviewer can read: what was taken out, what the network answers now, and what else moved."""

from __future__ import annotations

import datetime
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticlens._version import __version__
from semanticlens.io import atomic_write
from semanticlens.plot._look import INK, MUTED, finish
from semanticlens.plot._type import Pen
from semanticlens.plot.html import escape, number, page, short_hash, strip, table

if TYPE_CHECKING:
    from semanticlens.lens.proof import BeforeAfter, Drift
    from semanticlens.lens.repair import Repair

__all__ = ["picture", "report"]

BEFORE, AFTER = "#8a939d", "#275d91"
EXAMPLES, LISTED = 10, 40
WORDS = {
    "ablate": "0 stands in their place",
    "mean": "their mean over pictures stands in their place",
    "project": "the direction between pictures with and without the thing was projected out",
}
CSS = """
main{padding:2rem 0 4rem}
.pairs{display:grid;gap:.9rem;margin:1rem 0;max-width:46rem}
.wide h3{margin:1.6rem 0 0}.pairs p{max-width:none;margin:0 0 .15rem;display:flex;justify-content:space-between;gap:1rem}
.pairs p b{font-weight:500}.pairs p span{color:var(--muted);font-variant-numeric:tabular-nums}
.pairs i{display:block;height:.62rem;border-radius:2px;margin-top:2px;min-width:1px;
-webkit-print-color-adjust:exact;print-color-adjust:exact}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;font-size:.88rem;color:var(--muted)}
.key i{display:inline-block;width:.9em;height:.62em;border-radius:2px;margin-right:.4em;
-webkit-print-color-adjust:exact;print-color-adjust:exact}
.out{list-style:none;margin:1rem 0;padding:0}
.out li{border-top:1px solid var(--line);padding:.7rem 0;display:grid;grid-template-columns:minmax(9rem,14rem) 1fr;gap:.4rem 1.4rem}
@media (max-width:40rem){.out li{grid-template-columns:1fr}}
"""


def picture(before_after: BeforeAfter, *, pixels: int = 2, font: str | os.PathLike[str] | None = None) -> Any:
    """Accuracy of every group before and after, as bars.

    Returns
    -------
    Drawing
    """
    rows = before_after.rows()

    def draw(pen: Pen) -> tuple[float, float]:
        width, left, y = 460.0, 16.0, 34.0
        full = width - 2 * left - 56
        for group, n, before, after, *_ in rows:
            pen.text(left, y, pen.fit(f"{group} ({n} pictures)", 12, width - 2 * left), 12, INK)
            for value, colour, at in ((before, BEFORE, y + 6), (after, AFTER, y + 17)):
                share = 0.0 if math.isnan(float(str(value))) else float(str(value))
                pen.box(left, at, max(1.0, full * share), 8, colour, 1)
                pen.text(left + full * share + 6, at + 8, f"{100 * share:.1f} %", 10, MUTED)
            y += 46
        pen.box(left, y - 8, 9, 8, BEFORE, 1)
        pen.text(left + 14, y, "before", 10.5, MUTED)
        pen.box(left + 66, y - 8, 9, 8, AFTER, 1)
        pen.text(left + 80, y, "after: share of right answers", 10.5, MUTED)
        return width, y + 14

    return finish(draw, pixels, font, f"accuracy of {len(rows)} groups before and after")


def report(
    repair: Repair,
    path: str | os.PathLike[str],
    *,
    before_after: BeforeAfter | None = None,
    drift: Drift | None = None,
    db: Any = None,
    target: int | str | None = None,
    name: str | None = None,
    text: object = None,
    date: datetime.datetime | None = None,
) -> Path:
    """Write one self-contained page.

    Parameters
    ----------
    repair : Repair
    path : path
        The file to write, atomically; its folder must exist.
    before_after, drift : optional
        What :meth:`Repair.before_after` and :meth:`Repair.drift` returned.
    db : ConceptDB, optional
        Of the original network: for examples of what was taken out.
    target : int or str, optional
        The class that leaned on it: adds what it pulls from other classes.
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
    heading = name if name is not None else f"Repair of {repair.original.name}"
    when = datetime.datetime.now().astimezone() if date is None else date
    parts = [_head(repair, heading, text, when), _taken_out(repair, db)]
    if before_after is not None:
        parts.append(_answers(before_after, target))
    if drift is not None:
        parts.append(_moved(drift))
    parts.append(
        "<h2>What taking out cannot do</h2><p>Teach. A component can carry the thing and the class at once, and a class can have been "
        "learned from the thing alone: read the class's recall over pictures without it. Only training on such pictures mends that.</p>"
    )
    body = "\n".join(f'<div class="wide">{part}</div>' for part in parts)
    with atomic_write(goal, "w") as file:
        file.write(page(heading, f"<main>{body}</main>", style=CSS, description="Repair of a network"))
    return goal


def _head(repair: Repair, heading: str, text: object, when: datetime.datetime) -> str:
    facts = [
        [what, net.name, short_hash(net.fingerprint)]
        for what, net in (("original", repair.original), ("repaired", repair.network))
    ]
    return (
        f"<header><h1>{escape(heading)}</h1><p class='muted'>semanticlens {escape(__version__)}, "
        f"{escape(when.strftime('%Y-%m-%d %H:%M %Z'))}</p>"
        + (f"<p>{escape(text)}</p>" if text is not None else "")
        + "</header>"
        + str(table(["network", "name", "SHA-256"], facts, caption="Networks"))
    )


def _taken_out(repair: Repair, db: Any) -> str:
    items = []
    for layer, k in repair.components[:LISTED]:
        pictures: object = ""
        if db is not None and layer in db.layers:
            found = [
                db.example(layer, k, rank, small=True) for rank in range(min(EXAMPLES, len(db[layer].examples(k))))
            ]
            pictures = strip([p for p in found if p is not None], size=56)
        items.append(f"<li><b>{escape(layer)}:{k}</b><div>{pictures}</div></li>")
    more = (
        "" if len(repair.components) <= LISTED else f"<p class='muted'>and {len(repair.components) - LISTED} more</p>"
    )
    n = len(repair.components)
    return f"<h2>Taken out</h2><p>{n} component{'s' if n != 1 else ''}: {WORDS[repair.how]}.</p><ul class='out'>{''.join(items)}</ul>{more}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def _bars(label: str, before: float, after: float) -> str:
    def one(value: float, colour: str) -> str:
        return f'<i style="width:{0 if math.isnan(value) else 100 * value:.2f}%;background:{colour}"></i>'

    head = f"<p><b>{escape(label)}</b><span>{_percent(before)} → {_percent(after)}</span></p>"
    return f"<div>{head}{one(before, BEFORE)}{one(after, AFTER)}</div>"


def _answers(found: BeforeAfter, target: int | str | None) -> str:
    dots = ((BEFORE, "before"), (AFTER, "after"))
    key = "<div class='key'>" + "".join(f"<span><i style='background:{c}'></i>{word}</span>" for c, word in dots) + "</div>"
    bars = "".join(
        _bars(f"{group} ({n} pictures)", float(str(b)), float(str(a))) for group, n, b, a, *_ in found.rows()
    )
    headers = ["group", "pictures", "before", "after", "change", "standard error"]
    parts = (
        f"<h2>Answers</h2><p>Share of right answers in each group of pictures.</p>{key}<div class='pairs'>{bars}</div>"
    )
    parts += str(table(headers, found.rows(), caption="Accuracy"))
    if target is None:
        return parts
    named = str(target) if isinstance(target, str) or found.class_names is None else found.class_names[target]
    pulled = "".join(_bars(group, *found.pulled(group, target)) for group in found.groups)
    own = "".join(_bars(group, *found.recall(group, target)) for group in found.groups)
    return (
        parts
        + f"<h3>Pictures of other classes that are called {escape(named)}</h3><div class='pairs'>{pulled}</div>"
        + f"<h3>Pictures of {escape(named)} that are called so</h3><div class='pairs'>{own}</div>"
    )


def _moved(drift: Drift) -> str:
    headers = ["layer", "components", "repaired", "died", "born", "median", "90 %", "largest"]
    moved = [[layer, k, distance] for layer, k, distance in drift.moved() if distance > 0]
    median = drift.median()
    words = "there are no others" if math.isnan(median) else f"the median distance of the others is {number(median, 4)}"
    parts = (
        "<h2>What else moved</h2><p>The concept database was built again with the repaired network. Cosine distance between the concept "
        f"vectors before and after: {words}.</p>" + str(table(headers, drift.rows(), caption="By layer"))
    )
    return parts + (
        str(table(["layer", "component", "distance"], moved, caption="Moved most, of those not repaired"))
        if moved
        else ""
    )
