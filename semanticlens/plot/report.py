"""A concept database as one self-contained HTML page: what was asked, what was found, and every component with its examples."""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semanticlens._version import __version__
from semanticlens.io import atomic_write
from semanticlens.plot import _facts, _report_style
from semanticlens.plot.html import Html, escape, histogram, image_uri, number, page, short_hash

__all__ = ["report"]

HITS = 8  # of each query given as text
STRIP = 10  # pictures beside a hit
# Pixels of the embedded pictures: fewer where there are many, so that the page stays one that can be mailed.
SIZES = ((2000, 96), (8000, 72), (math.inf, 56))
ORDERS = (
    ("i", "layer and number"), ("s", "label score, high first"), ("c", "clarity, high first"), ("c-", "clarity, low first"),
    ("p", "polysemanticity, high first"), ("r", "redundancy, high first"), ("r-", "redundancy, low first"), ("a", "activation, high first"),
)  # fmt: skip


def report(
    db: Any,
    path: str | os.PathLike[str],
    *,
    queries: Any = None,
    labels: Any = None,
    scores: Any = None,
    title: str | None = None,
    note: object = None,
    max_components: int = 2000,
    n_examples: int = 12,
    date: datetime.datetime | None = None,
) -> Path:
    """Write the page.

    Parameters
    ----------
    db : ConceptDB
    path : path
        The file to write, atomically; its folder must exist.
    queries : str, list of str, or SearchResult, optional
        What to search for, or what ``db.search`` returned.  Texts need the database's encoder.
    labels : Labels, optional
        What ``db.label(vocabulary)`` returned.
    scores : Scores or False, optional
        What ``db.scores()`` returned; None computes it, False leaves it out.
    title : str, optional
        None: made from the network's name.
    note : str or Html, optional
        A paragraph below the title; text is escaped.
    max_components : int
        Show at most this many: those the queries found, then those of highest clarity (without scores: of highest activation).
        The page says how many were left out.
    n_examples : int
        Pictures per component.  Every picture is embedded once, however often it is shown.
    date : datetime, optional
        Written into the page; None is now.

    Returns
    -------
    Path
        Where the page was written.

    Raises
    ------
    ValueError
        ``max_components`` or ``n_examples`` is below 0.
    FileNotFoundError
        The folder of ``path`` does not exist.
    """
    for name, value in (("max_components", max_components), ("n_examples", n_examples)):
        if value < 0:
            raise ValueError(f"{name}={value}: must be at least 0")
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist")
    found = db.search([queries] if isinstance(queries, str) else queries, top=HITS) if _is_text(queries) else queries
    scores = db.scores() if scores is None else scores or None
    shown = _chosen(db, found, scores, max_components)
    content = _Page(db, labels, scores, found, shown, n_examples)
    when = datetime.datetime.now().astimezone() if date is None else date
    name = title if title is not None else f"Concepts in {_facts.sources(db)[0].name}"
    body = content.body(name, note, when)
    text = page(
        name, body, style=_report_style.CSS + content.pictures.css(), script=_report_style.SCRIPT, description="Concept report"
    )
    with atomic_write(target, "w") as file:
        file.write(text)
    return target


def _is_text(queries: Any) -> bool:
    return isinstance(queries, str) or (
        isinstance(queries, (list, tuple)) and all(isinstance(q, str) for q in queries) and len(queries) > 0
    )


def _chosen(db: Any, found: Any, scores: Any, limit: int) -> dict[str, list[int]]:
    """Component numbers to show per layer: all, or the ``limit`` most telling ones."""
    total = sum(len(db[layer].ids) for layer in db.layers)
    if total <= limit:
        return {layer: list(range(len(db[layer].ids))) for layer in db.layers}
    order: dict[tuple[str, int], None] = {(hit.layer, hit.component): None for hit in (found or ())}
    ranked: list[tuple[float, int, str, int]] = []
    for i, layer in enumerate(db.layers):
        concepts = db[layer]
        value = scores[layer].clarity if scores is not None and layer in scores else concepts.example_scores[:, 0]
        value = np.where(concepts.dead | ~np.isfinite(value), -np.inf, value)
        ranked += [(-float(v), i, layer, k) for k, v in enumerate(value)]
    order.update({(layer, k): None for _, _, layer, k in sorted(ranked)})
    kept = list(order)[:limit]
    return {layer: sorted(k for name, k in kept if name == layer) for layer in db.layers}


@dataclass
class _Pictures:
    """Pictures, or parts of them, by their place in the data set; each becomes one CSS rule, however often it is shown."""

    db: Any
    places: dict[tuple[int, Any], int] = field(default_factory=dict)

    def cell(self, example: _facts.Example) -> str:
        place = self.places.setdefault((example.sample, example.box), len(self.places))
        return f'<i class="t p{place}" title="no. {example.sample}, {number(example.score, 2)}"></i>'

    def cells(self, examples: Iterable[_facts.Example], kind: str, what: str) -> Html:
        items = list(examples)
        if not items:
            return Html("")
        names = ", ".join(str(example.sample) for example in items)
        cells = "".join(map(self.cell, items))
        return Html(f'<div class="{kind}" role="img" aria-label="{escape(what)}: pictures {names}">{cells}</div>')

    def css(self) -> str:
        size = next(pixels for limit, pixels in SIZES if len(self.places) <= limit)
        rules = []
        for (sample, box), place in self.places.items():
            picture = self.db.picture(sample, box, small=True)
            if picture is not None:
                rules.append(f".p{place}{{background-image:url({image_uri(picture, size=size, quality=62)})}}")
        return "\n".join(rules)


class _Page:
    """The parts of the page, from top to bottom."""

    def __init__(self, db: Any, labels: Any, scores: Any, found: Any, shown: dict[str, list[int]], n_examples: int) -> None:
        self.db, self.labels, self.scores, self.found, self.shown, self.n_examples = db, labels, scores, found, shown, n_examples
        self.pictures = _Pictures(db)
        self.place = {layer: i for i, layer in enumerate(db.layers)}
        self.members = {layer: set(numbers) for layer, numbers in shown.items()}

    def body(self, title: str, note: object, when: datetime.datetime) -> str:
        links = [("overview", "Overview"), ("components", "Components"), ("reading", "How to read this")]
        if self.found is not None:
            links.insert(1, ("search", "Search"))
        nav = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in links)
        search = "" if self.found is None else self.search()
        return (
            f'{self.header(title, note, when)}<nav aria-label="Sections"><div class="wide">{nav}</div></nav>\n'
            f"<main>{self.overview()}{search}"
            f'{self.components()}{self.reading()}</main>\n<footer><div class="wide">Made with semanticlens-native {escape(__version__)} on '
            f"{when:%Y-%m-%d %H:%M %Z}. This page is complete in itself: it loads nothing and sends nothing.</div></footer>"
        )

    # ------------------------------------------------------------------ header
    def header(self, title: str, note: object, when: datetime.datetime) -> str:
        record = self.db.record
        facts = []
        for source in _facts.sources(self.db):
            print_ = f" {short_hash(source.fingerprint)}" if source.fingerprint else ""
            facts.append(
                (source.what, f'<span class="text">{escape(source.name)}</span><small>{escape(source.detail)}{print_}</small>')
            )
        asked = record.get("examples") or {}
        pools = sorted({str(layer["pool"]) for layer in record.get("layers", []) if layer.get("pool")})
        widths = sorted({self.db[layer].ids.shape[1] for layer in self.db.layers})
        top = asked.get("top", "–".join(str(w) for w in dict.fromkeys((widths[0], widths[-1]))) if widths else "0")
        facts.append(
            ("Examples", f"up to {escape(top)} per component<small>pooling: {escape(', '.join(pools) or 'not recorded')}</small>")
        )
        rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
        extra = f'<div class="note"><p>{escape(note)}</p></div>' if note is not None else ""
        return (
            f'<header class="top"><div class="wide"><p class="eyebrow">Concept report, {when:%Y-%m-%d}. Database built by '
            f'semanticlens-native {escape(record.get("version", __version__))}</p><h1 class="text">{escape(title)}</h1>'
            f'<p class="lead">{self.summary()}</p>{extra}<dl class="facts">{rows}</dl></div></header>\n'
        )

    def summary(self) -> str:
        """One sentence or two: how much there is, and what was asked of it."""
        total = sum(len(self.db[layer].ids) for layer in self.db.layers)
        dead = sum(int(self.db[layer].dead.sum()) for layer in self.db.layers)
        n = len(self.db.layers)
        text = f"{number(total)} component{'s' * (total != 1)} of {n} layer{'s' * (n != 1)}, "
        text += "described by the pictures that activate them most"
        text += f"; {number(dead)} of them never become active." if dead else "."
        if self.labels is not None:
            words, level = getattr(self.labels, "vocabulary", ()), getattr(self.labels, "threshold", None)
            limit = "" if level is None else f", accepted from a score of {number(float(level), 2)}"
            text += f" Labels come from a vocabulary of {number(len(words))} words{limit}."
        if self.found is not None:
            text += f" Searched for {_listed([str(q) for q in self.found.queries])}."
        return str(escape(text))

    # ------------------------------------------------------------------ overview
    def overview(self) -> str:
        spans = {name: self._span(name) for name in _facts.SCORE_NAMES} if self.scores is not None else {}
        heads = [
            "Layer",
            "Components",
            "Dead",
            *(["Labelled"] if self.labels is not None else []),
            *(name.capitalize() for name in spans),
        ]
        numeric = {"Components", "Dead", "Labelled"}
        head = "".join(f'<th scope="col"{" class=num" if name in numeric else ""}>{name}</th>' for name in heads)
        rows = "".join(self._overview_row(layer, spans) for layer in self.db.layers)
        ranges = "; ".join(f"{name} {number(low, 1)} to {number(high, 1)}" for name, (low, high) in spans.items())
        about = (
            f'<p class="muted small">Means over the components that have the score; histograms cover {ranges}.</p>'
            if spans
            else ""
        )
        return (
            f'<section id="overview"><h2>Overview</h2><div class="scroll"><table class="overview"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>{about}</section>\n"
        )

    def _span(self, name: str) -> tuple[float, float]:
        """One range for all layers, so that their histograms compare: 0 to 1, wider where values need it."""
        parts = [
            np.asarray(getattr(self.scores[layer], name), dtype=np.float64) for layer in self.db.layers if layer in self.scores
        ]
        values = np.concatenate(parts) if parts else np.empty(0)
        values = values[np.isfinite(values)]
        if len(values) == 0:
            return 0.0, 1.0
        return min(0.0, math.floor(values.min() * 10) / 10), max(1.0, math.ceil(values.max() * 10 - 1e-6) / 10)

    def _overview_row(self, layer: str, spans: dict[str, tuple[float, float]]) -> str:
        concepts = self.db[layer]
        cells = [f'<td class="num">{number(len(concepts.ids))}</td><td class="num">{number(int(concepts.dead.sum()))}</td>']
        if self.labels is not None:
            count = int((~self.labels[layer].unlabelled).sum()) if layer in self.labels else None
            cells.append(f'<td class="num">{number(count)}</td>')
        for name, (low, high) in spans.items():
            if layer not in self.scores:
                cells.append("<td>–</td>")
                continue
            values = np.asarray(getattr(self.scores[layer], name), dtype=np.float64)
            finite = values[np.isfinite(values)]
            mean = number(float(finite.mean()), 3) if len(finite) else "–"
            chart = histogram(values, low=low, high=high, label=name) if len(finite) else ""
            cells.append(f'<td><span class="mean">{mean}</span>{chart}</td>')
        return f'<tr><th scope="row" class="code">{escape(layer)}</th>{"".join(cells)}</tr>'

    # ------------------------------------------------------------------ search
    def search(self) -> str:
        found = self.found
        words = []
        if getattr(found, "templates", None):
            words.append(f"templates {_listed([str(t) for t in found.templates])}")
        if getattr(found, "null", "none") != "none":
            words.append(f"null correction “{found.null}”")
        if getattr(found, "threshold", None) is not None:
            words.append(f"only scores above {number(float(found.threshold), 2)}")
        how = f'<p class="muted small">{escape("; ".join(words).capitalize())}.</p>' if words else ""
        top = max((abs(hit.score) for hit in found), default=1.0) or 1.0
        parts = [self._query(str(query), [hit for hit in found if hit.query == query], top) for query in found.queries]
        return (
            f'<section id="search"><h2>Search</h2><p class="muted">The components whose concept vector is nearest to each query, '
            f"by cosine in the encoder’s space.</p>{how}{''.join(parts)}</section>\n"
        )

    def _query(self, query: str, hits: Sequence[Any], top: float) -> str:
        if not hits:
            nothing = '<p class="muted">No component scores above the threshold.</p>'
            return f'<div class="query"><h3 class="text">{escape(query)}</h3>{nothing}</div>'
        rows = []
        for hit in hits:
            facts = _facts.component(self.db, hit.layer, hit.component, self.labels, None, STRIP)
            name = facts.label if facts.label is not None else "unlabelled" if facts.labelled else f"component {hit.component}"
            place = f"<code>{escape(hit.layer)}</code> {hit.component}"
            label = self._link(hit.layer, hit.component, name)
            share = max(0.0, hit.score / max(top, 1e-12))
            rows.append(
                f'<li><span class="rank">{hit.rank}</span><span class="who">{label}<small>{place}</small></span>'
                f'<span class="bar"><i style="--v:{100 * share:.0f}%"></i>{number(hit.score, 3)}</span>'
                f"{self.pictures.cells(facts.examples, 'strip', 'examples')}</li>"
            )
        return f'<div class="query"><h3 class="text">{escape(query)}</h3><ol class="hits">{"".join(rows)}</ol></div>'

    def _link(self, layer: str, k: int, text: str) -> str:
        words = f'<span class="text">{escape(text)}</span>'
        return f'<a href="#{self._anchor(layer, k)}">{words}</a>' if k in self.members[layer] else words

    def _anchor(self, layer: str, k: int) -> str:
        return f"c-{self.place[layer]}-{k}"

    # ------------------------------------------------------------------ components
    def components(self) -> str:
        total, shown = sum(len(self.db[layer].ids) for layer in self.db.layers), sum(map(len, self.shown.values()))
        rule = "clearest" if self.scores is not None else "most active"
        left_out = (
            ""
            if shown == total
            else f"<p>The {number(shown)} {rule} of {number(total)} components{' and those found above' if self.found else ''}.</p>"
        )
        tiles = "".join(self._tile(layer, k) for layer, numbers in self.shown.items() for k in numbers)
        layers = "".join(f'<option value="{i}">{escape(layer)}</option>' for layer, i in self.place.items())
        orders = "".join(f'<option value="{key}">{text}</option>' for key, text in ORDERS if self._offers(key[0]))
        named = '<label class="check"><input type="checkbox" id="named"> labelled only</label>'
        if self.labels is None:
            named = '<input type="checkbox" id="named" hidden>'
        controls = (
            f'<div class="controls" role="search" aria-label="Filter components" hidden><label>Filter <input type="search" id="words" '
            f'placeholder="label, class, number" autocomplete="off"></label><label>Layer <select id="layer">'
            f'<option value="">all layers</option>{layers}</select></label><label>Order <select id="order">{orders}</select></label>'
            f'{named}<output id="shown" aria-live="polite"></output></div>'
        )
        return f'<section id="components"><h2>Components</h2>{left_out}{controls}<ul class="tiles">{tiles}</ul></section>\n'

    def _offers(self, key: str) -> bool:
        return self.labels is not None if key == "s" else self.scores is not None if key in "cpr" else True

    def _tile(self, layer: str, k: int) -> str:
        facts = _facts.component(self.db, layer, k, self.labels, self.scores, self.n_examples)
        data = {"l": str(self.place[layer]), "a": _data(facts.strength)}
        data.update({name[0]: _data(value) for name, value in facts.scores.items()})
        if facts.label is not None:
            data["n"] = ""
        if facts.candidates:
            data["s"] = _data(facts.candidates[0][1])
        attributes = "".join(f' data-{key}="{value}"' for key, value in data.items() if value is not None)
        anchor = self._anchor(layer, k)
        head = f'<p class="place"><a href="#{anchor}"><code>{escape(layer)}</code> {k}</a></p>'
        title, kind, cosine = self._title(facts)
        parts = [f'<header><h3 class="text{kind}">{title}</h3>{cosine}{head}</header>']
        if facts.dead:
            parts.append("<p>No picture of the data set activates this component.</p>")
        else:
            parts += [self.pictures.cells(facts.examples, "grid", "examples"), self._scores(facts), *self._lines(facts)]
        return f'<li class="tile{" dead" if facts.dead else ""}" id="{anchor}"{attributes}>{"".join(parts)}</li>\n'

    @staticmethod
    def _title(facts: _facts.Component) -> tuple[str, str, str]:
        if facts.label is not None:
            return escape(facts.label), "", f'<span class="cos">{number(facts.candidates[0][1], 3)}</span>'
        if facts.dead:
            return "dead", " none", ""
        return ("unlabelled" if facts.labelled else f"component {facts.index}"), " none", ""

    def _scores(self, facts: _facts.Component) -> str:
        if not facts.scores:
            return ""
        cells = []
        for name, value in facts.scores.items():
            bar = f'<i style="--v:{100 * min(1.0, max(0.0, value)):.0f}%"></i>' if math.isfinite(value) else ""
            cells.append(f"<div><dt>{name}</dt><dd>{number(value, 3)}{bar}</dd></div>")
        return f'<dl class="scores">{"".join(cells)}</dl>'

    def _lines(self, facts: _facts.Component) -> list[str]:
        """Runner-up labels, classes and the nearest component, each where there is one."""
        lines = []
        others = facts.candidates[1:4] if facts.label is not None else facts.candidates[:3]
        if others:
            names = ", ".join(f'<span class="text">{escape(name)}</span> {number(score, 2)}' for name, score in others)
            lines.append(f"<p>{'Next labels' if facts.label is not None else 'Nearest, below the threshold'}: {names}</p>")
        if facts.classes:
            names = ", ".join(f'<b class="text">{escape(name)}</b> {number(score, 2)}' for name, score in facts.classes[:3])
            lines.append(f"<p>Classes: {names}</p>")
        if facts.nearest is not None and math.isfinite(facts.scores.get("redundancy", math.nan)):
            lines.append(f"<p>Most similar: {self._link(facts.layer, facts.nearest, f'component {facts.nearest}')}</p>")
        return lines

    # ------------------------------------------------------------------ how to read
    def reading(self) -> str:
        encoder = next(s for s in _facts.sources(self.db) if s.what == "Encoder")
        terms = [
            ("Component", "A channel or unit of a layer. Its examples are the pictures of the data set that activate it most; "
                          "a dead component has none."),
            ("Label, search", "Cosine between the mean of a component’s example pictures and the words, both seen by the encoder "
                              f"“{encoder.name}”. What this encoder cannot tell apart cannot be found or named here, and another "
                              "encoder gives other numbers."),
            ("Clarity", "How alike the examples are: the mean cosine between them. 1 means that all say the same thing."),
            ("Polysemanticity", "How far the examples fall into two groups with different meanings. 0 means one meaning."),
            ("Redundancy", "Cosine to the most similar other component of the layer. Near 1, the layer says it twice."),
            ("Classes", "The classes whose pictures activate the component most, with the mean of their highest activations."),
        ]  # fmt: skip
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in terms)
        record = json.dumps(self.db.record, indent=1, sort_keys=True, ensure_ascii=False, default=str)
        if len(record) > 20000:
            record = record[:20000] + "\n… (cut here; the database holds the whole record)"
        return (
            '<section id="reading" class="reading"><h2>How to read this</h2><p>Labels say what the examples of a component have in '
            "common. They are not causes: whether the network uses a component for a decision, and whether the label is the reason, has "
            f"to be tested by switching the component off or by changing the picture.</p><dl>{rows}</dl><details><summary>Record of the "
            f"database</summary><pre>{escape(record)}</pre></details></section>"
        )


def _data(value: float) -> str | None:
    """A number for the script, short; None where undefined."""
    return f"{value:.4g}" if math.isfinite(value) else None


def _listed(words: Sequence[str], most: int = 12) -> str:
    quoted = [f"“{word}”" for word in words[:most]]
    rest = len(words) - most
    if rest > 0:
        return ", ".join(quoted) + f" and {rest} more"
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1] if quoted else "nothing"
