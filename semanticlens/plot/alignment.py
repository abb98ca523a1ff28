"""Two networks side by side as one self-contained HTML page: which layers agree, which concepts both have, which only one."""

from __future__ import annotations

import datetime
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from semanticlens._version import __version__
from semanticlens.io import atomic_write
from semanticlens.plot import _alignment_style, _report_style
from semanticlens.plot._graph import graph
from semanticlens.plot._pictures import Pictures
from semanticlens.plot.html import Html, escape, number, page

__all__ = ["report"]

KINDS = ("universal", "semi-universal", "semi-unique", "unique")
Z95 = 1.96  # half width of a 95 % interval in standard errors
NUMBERS_TO, INTERVALS_TO = 26, 20  # layers up to which the heat map writes numbers, and intervals


def report(
    comparison: Any,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    note: object = None,
    max_relations: int = 40,
    date: datetime.datetime | None = None,
) -> Path:
    """Write the page.

    Parameters
    ----------
    comparison : Comparison
        What :func:`semanticlens.alignment.compare` returned.
    path : path
        The file to write, atomically; its folder must exist.
    title : str, optional
    note : str or Html, optional
        A paragraph below the title; text is escaped.
    max_relations : int
        Of a kind and pair of layers, at most this many are shown; the page says how many were left out.
    date : datetime, optional
        Written into the page; None is now.

    Returns
    -------
    Path
    """
    if max_relations < 0:
        raise ValueError(f"max_relations={max_relations}: must be at least 0")
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist")
    when = datetime.datetime.now().astimezone() if date is None else date
    name = title if title is not None else f"{comparison.names[0]} and {comparison.names[1]}"
    content = _Page(comparison, max_relations)
    body = content.body(name, note, when)
    style = _report_style.CSS + _alignment_style.CSS + content.pictures.css()
    with atomic_write(target, "w") as file:
        file.write(page(name, body, style=style, description="Concept alignment report"))
    return target


def interval(alignment: Any) -> float:
    """Half width of the 95 % interval of the adjusted index; NaN where it is undefined."""
    null = 1.0 - alignment.ndc_null
    return Z95 * alignment.stderr / null if null > 0 else math.nan


class _Page:
    """The parts of the page, from top to bottom."""

    def __init__(self, comparison: Any, most: int) -> None:
        self.c, self.most = comparison, most
        self.pictures = Pictures(comparison.images)
        values = comparison.matrix.aci[~np.eye(len(comparison.representations), dtype=bool)]
        values = values[np.isfinite(values)]
        self.full = max(0.1, float(np.quantile(values, 0.95))) if len(values) else 1.0  # the value of the darkest shade
        self.best = max(comparison.pairs, key=lambda p: p.alignment.aci if math.isfinite(p.alignment.aci) else -math.inf)

    def body(self, title: str, note: object, when: datetime.datetime) -> str:
        pairs = "".join(self.pair(p, i) for i, p in enumerate(self.c.pairs))
        graphs = self.graphs()
        links = [("agreement", "Layers"), *((f"pair-{i}", f"{p.a.layer} / {p.b.layer}") for i, p in enumerate(self.c.pairs))]
        links += [("through", "Through the layers")] if graphs else []
        links += [("quality", "Quality"), ("reading", "How to read this")]
        nav = "".join(f'<a href="#{anchor}">{escape(text)}</a>' for anchor, text in links)
        return (
            f'{self.header(title, note, when)}<nav aria-label="Sections"><div class="wide">{nav}</div></nav>\n<main>'
            f"{self.agreement()}{pairs}"
            f'{graphs}{self.quality()}{self.reading()}</main>\n<footer><div class="wide">Made with semanticlens-native '
            f"{escape(__version__)} on "
            f"{when:%Y-%m-%d %H:%M %Z}. This page is complete in itself: it loads nothing and sends nothing.</div></footer>"
        )

    # ------------------------------------------------------------------ header
    def header(self, title: str, note: object, when: datetime.datetime) -> str:
        c, best = self.c, self.best
        counts = {kind: len(best.of(kind)) for kind in ("shared", "split", "merged", "only P", "only Q")}
        lead = (
            f"The most alike layers taken apart here are {best.a.layer} and {best.b.layer}: adjusted index {_value(best.alignment)}. "
            f"Of {_many(best.a.memberships.shape[1], 'concept')} and {_many(best.b.memberships.shape[1], 'concept')}, "
            f"{_many(counts['shared'], 'pair')} {_is(counts['shared'])} shared, {counts['split']} {_is(counts['split'])} split, "
            f"{counts['merged']} "
            f"{_is(counts['merged'])} merged, and {counts['only P']} and {counts['only Q']} are found on one side only."
        )
        facts = [(f"Network {side}", f'<span class="text">{escape(c.names[s])}</span><small>{_many(len(c.side(s)), "layer")}</small>')
                 for s, side in enumerate("AB")]  # fmt: skip
        pictures = "" if c.images is None else f"<small>{escape(c.images.name)}</small>"
        facts.append(("Samples", f"{number(c.matrix.n)}{pictures}"))
        if c.record.get("discover"):
            facts.append(("Concepts found by", f"<code>{escape(c.record['discover'])}</code>"))
        sampling = next((f["parameters"] for f in c.record.get("features") or [] if f), None)
        if sampling:
            words = f"{sampling['per_image']} of each picture, {sampling['tokens']}, "
            if sampling["tokens"] == "patches":
                words += f"pool {sampling['pool']}, {sampling['where']}, "
            words += f"seed {sampling['seed']}"
            facts.append(("Samples are", escape(words)))
        rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
        extra = f'<div class="note"><p>{escape(note)}</p></div>' if note is not None else ""
        return (
            f'<header class="top"><div class="wide"><p class="eyebrow">Alignment report, {when:%Y-%m-%d}</p><h1 class="text">'
            f"{escape(title)}</h1>"
            f'<p class="lead">{escape(lead)}</p>{extra}<dl class="facts">{rows}</dl></div></header>\n'
        )

    # ------------------------------------------------------------------ layers against layers
    def agreement(self) -> str:
        c = self.c
        lines = []
        for s, side in enumerate("AB"):
            score = c.sanity[s]
            if score is not None:
                hits = round(score * len(c.side(s)))
                lines.append(f"{side}: {number(score, 2)} ({hits} of {len(c.side(s))} layers)")
        sanity = (
            f"<h3 class=sub>Sanity</h3><p>Layers whose most alike other layer is a neighbour. {escape('; '.join(lines))}. A "
            f"measure that does not see that "
            "neighbouring layers of one network resemble each other is not to be trusted across networks.</p>" if lines else ""
        )  # fmt: skip
        intervals = (
            ", with the half width of its 95 % interval"
            if len(c.representations) <= INTERVALS_TO
            else "; its interval is shown on hovering"
        )
        return (
            f'<section id="agreement"><h2>Which layers agree</h2><p>Adjusted index of every pair of layers{intervals}: 1 is '
            f"full agreement, 0 that of "
            f"unrelated concepts. Shades run from 0 to {number(min(self.full, 1.0), 2)}. Framed: for each layer of A, the most "
            f"alike layer of B.</p>"
            f'<div class="scroll">{self.heat()}</div>{sanity}</section>\n'
        )

    def heat(self) -> str:
        layers = self.c.representations
        first = sum(r.side == 0 for r in layers)
        cross = self.c.matrix.aci[:first, first:]
        best = {(i, first + int(np.nanargmax(row))) for i, row in enumerate(cross) if np.isfinite(row).any()}
        sides = [(0, first), (1, len(layers) - first)]
        nets = "".join(
            f'{"<th></th>" if s else ""}<th colspan="{width}" class="text">{"AB"[s]}: {escape(self.c.names[s])}</th>' for s, width in sides
        )
        heads = "".join(
            f'{"<th></th>" if j == first else ""}<th scope="col"><span>{escape(r.layer)}</span></th>' for j, r in enumerate(layers)
        )
        body = []
        for i, r in enumerate(layers):
            cells = "".join(f"{'<td class=gap></td>' if j == first else ''}{self.cell(i, j, (i, j) in best)}" for j in range(len(layers)))
            if i == first:
                body.append(f'<tr><td class="gap" colspan="{len(layers) + 2}" style="height:.5rem"></td></tr>')
            body.append(f'<tr><th scope="row"><span class="muted">{"AB"[r.side]}</span> {escape(r.layer)}</th>{cells}</tr>')
        small = "" if len(layers) <= INTERVALS_TO else " small"
        return (
            f'<table class="heat{small}"><thead><tr class="nets"><th></th>{nets}</tr><tr><th></th>{heads}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table>"
        )

    def cell(self, i: int, j: int, best: bool) -> str:
        layers = self.c.representations
        if i == j:
            return '<td class="self">–</td>'
        a = self.c.matrix[i, j]
        half = interval(a)
        words = (
            f"{'AB'[layers[i].side]} {layers[i].layer}, {'AB'[layers[j].side]} {layers[j].layer}: adjusted {number(a.aci)} ± "
            f"{number(half)}, "
            f"index {number(a.ndc, 4)} ± {number(Z95 * a.stderr, 4)}, by chance {number(a.ndc_null, 4)}"
        )
        shade = min(1.0, max(0.0, a.aci / self.full)) if math.isfinite(a.aci) else 0.0
        text = number(a.aci, 2) if len(layers) <= NUMBERS_TO else ""
        text += f"<small>±{number(half, 2)}</small>" if len(layers) <= INTERVALS_TO else ""
        kind = " ".join(k for k, on in (("hi", shade > 0.6), ("best", best)) if on)
        return f'<td style="--v:{shade:.3f}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""} title="{escape(words)}">{text}</td>'

    # ------------------------------------------------------------------ concepts against concepts
    def pair(self, p: Any, place: int) -> str:
        parts = [
            f'<section id="pair-{place}"><h2><span class="muted">A</span> {escape(p.a.layer)} and <span class="muted">B</span> '
            f"{escape(p.b.layer)}</h2>"
            f"<p>Adjusted index {_value(p.alignment)}; index {number(p.alignment.ndc)} where {number(p.alignment.ndc_null)} is "
            f"expected by chance.</p>",
            self.universality(p),
        ]
        titles = (
            ("shared", "Shared concepts", "One concept on each side that holds the same samples."),
            ("split", "Split", "One concept of A that B holds in parts."),
            ("merged", "Merged", "Several concepts of A that are one in B."),
        )
        for kind, name, text in titles:
            parts.append(self.side_by_side(p, kind, name, text))
        parts.append(self.alone(p))
        return "".join(parts) + "</section>\n"

    def universality(self, p: Any) -> str:
        rows = []
        for side, kinds in (("A", p.kinds_a), ("B", p.kinds_b)):
            if not kinds:
                continue
            counts = [kinds.count(kind) for kind in KINDS]
            bars = "".join(f'<i class="k{k}" style="flex:{n}" title="{n} {KINDS[k]}"></i>' for k, n in enumerate(counts) if n)
            words = ", ".join(f"{n} {KINDS[k]}" for k, n in enumerate(counts))
            rows.append(f'<div class="counts" role="img" aria-label="{side}: {words}">{bars}</div><p class="legend"><span>{side}</span>'
                        + "".join(f'<span><i class="k{k}"></i>{n} {KINDS[k]}</span>' for k, n in enumerate(counts)) + "</p>")  # fmt: skip
        cuts = ", ".join(number(cut, 2) for cut in self.c.cuts)
        return (
            f'<h3 class="sub">Universality</h3><p class="muted small">By the relative distance of each concept to its partner '
            f"in a one-to-one matching; cut at {cuts}.</p>"
            f"{''.join(rows)}"
        )

    def side_by_side(self, p: Any, kind: str, name: str, text: str) -> str:
        found = p.of(kind)
        if not found:
            return ""
        lines = []
        for r in found[: self.most]:
            left, right = self.concepts(p.a, r.p), self.concepts(p.b, r.q)
            share = 100 * min(1.0, max(0.0, 1 - r.relative))
            middle = f'<div class="middle"><b>{number(r.relative, 2)}</b><span class="bar" style="--v:{share:.0f}%"></span>apart</div>'
            lines.append(f'<div class="relation"><div>{left}</div>{middle}<div>{right}</div></div>')
        return (
            f'<h3 class="sub">{name} ({len(found)})</h3><p class="muted small">{text}{_left_out(len(found), self.most)}</p>'
            f'<div class="relation head"><div>A, {escape(p.a.layer)}</div><div class="middle">relative distance</div><div>B, '
            f"{escape(p.b.layer)}</div></div>"
            f"{''.join(lines)}"
        )

    def alone(self, p: Any) -> str:
        parts = []
        for kind, side, layer in (("only P", "A", p.a), ("only Q", "B", p.b)):
            found = sorted(p.of(kind), key=lambda r: (-r.relative, r.p, r.q))
            if not found:
                continue
            items = "".join(
                f'<li>{self.concepts(layer, r.p or r.q)}<p class="muted small">nearest on the other side: {number(r.relative, 2)}</p></li>'
                for r in found[: self.most]
            )
            parts.append(
                f'<h3 class="sub">Only in {side} ({len(found)})</h3><p class="muted small">The most distant first.'
                f'{_left_out(len(found), self.most)}</p><ul class="alone">{items}</ul>'
            )
        return "".join(parts)

    def concepts(self, layer: Any, numbers: tuple[int, ...]) -> str:
        return "".join(self.concept(layer.concepts[k]) for k in numbers)

    def concept(self, c: Any) -> str:
        name = f"<b>{escape(c.label)}</b> " if c.label is not None else ""
        classes = ", ".join(f"{escape(word)} {number(100 * share, 0)} %" for word, share in c.classes)
        facts = f"{_many(c.size, 'sample')}{': ' + classes if classes else ''}"
        tag = "small" if name else "b"
        head = f'<p class="text">{name}<{tag}>concept {c.index}</{tag}> <small>{facts}</small></p>'
        return f'<div class="concept">{head}{self.pictures.cells(c.examples, "strip", f"concept {c.index}")}</div>'

    # ------------------------------------------------------------------ through the layers
    def graphs(self) -> str:
        parts = []
        for s, found in enumerate(self.c.graphs):
            if found is not None:
                layers = self.c.side(s)
                parts.append(
                    f'<h3 class="sub">{"AB"[s]}: <span class="text">{escape(self.c.names[s])}</span></h3><div class="graph scroll">'
                    f"{graph(found, [r.concepts for r in layers], self.pictures)}</div>"
                )
        if not parts:
            return ""
        return (
            '<section id="through"><h2>Through the layers</h2><p>The largest concepts of each layer and where their samples '
            "come from. The width "
            f"of a line is its share of all samples that reach the concept on its right.</p>{''.join(parts)}</section>\n"
        )

    # ------------------------------------------------------------------ quality
    def quality(self) -> str:
        heads = ["", "Layer", "Concepts", "Noise", "DBCV", "Intrinsic dimension", "Separability", "AUC", "Embedding error", "Classes"]
        rows = []
        for r in self.c.representations:
            q = r.quality
            values = [None] * 5 if q is None else [q.dbcv, q.intrinsic_dimension, q.separability, q.separability_auc, q.embedding_rmse]
            cells = [number(r.memberships.shape[1]), number(100 * float((r.labels < 0).mean()), 0) + " %", *(number(v, 2) for v in values)]
            cells.append("–" if r.truth is None else _value(r.truth))
            rows.append(f'<tr><th scope="row">{"AB"[r.side]}</th><td class="code">{escape(r.layer)}</td>'
                        + "".join(f'<td class="num">{cell}</td>' for cell in cells) + "</tr>")  # fmt: skip
        head = "".join(f'<th scope="col"{" class=num" if i > 1 else ""}>{text}</th>' for i, text in enumerate(heads))
        return (
            f'<section id="quality"><h2>Quality of the concepts</h2><div class="scroll"><table class="overview"><thead><tr>'
            f"{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div></section>\n"
        )

    # ------------------------------------------------------------------ how to read
    def reading(self) -> str:
        terms = [
            ("Concept", "A group of samples that a layer holds together: a dense region of its feature vectors, or what the "
                        "method named above "
                        "finds. Its pictures are those with the highest proximity."),
            ("Index", "The generalised Rand index: how far two layers agree, over all pairs of samples, on which samples belong together. "
                      "Unrelated layers are far above 0, so it is read beside its value by chance."),
            ("Adjusted index", "The index with its value by chance brought to 0: 1 is full agreement. For crisp groups, the "
                               "adjusted Rand index."),
            ("Interval", "From the jackknife over samples: what other samples of the same kind would change. It says nothing about other "
                         "pictures, other seeds or other methods."),
            ("Relative distance", "0 for two concepts that hold the same samples, near 1 for small unrelated ones. For small "
                                  "crisp concepts it is 1 "
                                  "minus the share of samples in common."),
            ("Universality", "Each concept by the distance to its partner when concepts are matched one to one. Where the cuts "
                             "lie is a choice."),
            ("Noise", f"Samples that belong to no concept. Here their missing mass is {self.c.matrix.noise}."),
            ("DBCV", "Density-based validity from −1 to 1: are concepts denser inside than the gaps between them?"),
            ("Separability", "Share of member samples that a linear classifier on the features gives to the right concept, and its AUC."),
            ("Classes", "Adjusted index with the classes of the pictures, where they are known."),
        ]  # fmt: skip
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in terms)
        record = json.dumps(self.c.record, indent=1, sort_keys=True, ensure_ascii=False, default=str)
        return (
            f'<section id="reading" class="reading"><h2>How to read this</h2><dl>{rows}</dl><details><summary>Record</summary>'
            f"<pre>{escape(record)}</pre>"
            "</details></section>"
        )


def _value(alignment: Any) -> str:
    return f"{number(alignment.aci, 2)} ± {number(interval(alignment), 2)}"


def _many(count: int, what: str) -> Html:
    return Html(f"{number(count)} {what}{'' if count == 1 else 's'}")


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _left_out(count: int, most: int) -> str:
    return f" {count - most} more are not shown." if count > most else ""
