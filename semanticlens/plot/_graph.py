"""The graph of concepts through the layers, as SVG with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semanticlens.plot._pictures import Pictures
from semanticlens.plot.html import Html, escape, number

__all__ = ["graph"]

NODE, GAP, COLUMN, TOP = 38, 12, 150, 34
SHOWN = 12  # concepts per layer, the largest ones


def graph(found: Any, concepts: Sequence[Sequence[Any]], pictures: Pictures, shown: int = SHOWN) -> Html:
    """Draw a ConceptGraph: one column per layer, the largest concepts from top to bottom in an order with few crossings."""
    order = _order(found, shown)
    rows = max((len(column) for column in order), default=0)
    width, height = COLUMN * (len(order) - 1) + NODE + 120, TOP + rows * (NODE + GAP)
    at = {(d, k): (d * COLUMN, TOP + i * (NODE + GAP) + (rows - len(column)) * (NODE + GAP) // 2)
          for d, column in enumerate(order) for i, k in enumerate(column)}  # fmt: skip
    lines = []
    for e in sorted(found.edges, key=lambda e: e.share):
        if (e.layer, e.source) in at and (e.layer + 1, e.target) in at:
            (x, y), (u, v) = at[e.layer, e.source], at[e.layer + 1, e.target]
            x, y, v = x + NODE, y + NODE // 2, v + NODE // 2
            middle = (x + u) / 2
            ends = f"{found.layers[e.layer]} {e.source} to {found.layers[e.layer + 1]} {e.target}"
            words = f"{ends}: {e.count} samples, {number(100 * e.share, 0)} %"
            lines.append(
                f'<path d="M{x} {y:.0f}C{middle:.0f} {y:.0f} {middle:.0f} {v:.0f} {u} {v:.0f}" stroke-width="{0.6 + 7 * e.share:.1f}" '
                f'stroke-opacity="{0.12 + 0.5 * e.share:.2f}"><title>{escape(words)}</title></path>'
            )
    nodes = []
    for (d, k), (x, y) in at.items():
        c = concepts[d][k]
        classes = ", ".join(f"{name} {number(100 * share, 0)} %" for name, share in c.classes)
        words = f"{c.label + ', ' if c.label else ''}concept {k} of {found.layers[d]}, {c.size} samples{', ' + classes if classes else ''}"
        inner = pictures.cell(c.examples[0][0], words) if c.examples and pictures.images is not None else Html(
            f'<span class="dot" title="{escape(words)}">{k}</span>')  # fmt: skip
        nodes.append(f'<foreignObject x="{x}" y="{y}" width="{NODE}" height="{NODE}">{inner}</foreignObject>')
    heads = []
    for d, layer in enumerate(found.layers):
        left_out = len(found.sizes[d]) - len(order[d])
        more = f" (+{left_out})" if left_out else ""
        heads.append(f'<text x="{d * COLUMN}" y="16">{escape(layer)}{more}</text>')
    return Html(
        f'<svg role="img" aria-label="concepts through {len(order)} layers" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}">'
        f"{''.join(lines)}{''.join(nodes)}{''.join(heads)}</svg>"
    )


def _order(found: Any, shown: int) -> list[list[int]]:
    """The largest concepts of each layer; from the second on, by the mean height of where their samples come from."""
    columns = [np.argsort(-sizes, kind="stable")[:shown].tolist() for sizes in found.sizes]
    columns = [[k for k in column if found.sizes[d][k] > 0] for d, column in enumerate(columns)]
    for d in range(1, len(columns)):
        place = {k: i / max(len(columns[d - 1]), 1) for i, k in enumerate(columns[d - 1])}
        height = {}
        for k in columns[d]:
            own = [(e.share, place[e.source]) for e in found.edges if e.layer == d - 1 and e.target == k and e.source in place]
            total = sum(share for share, _ in own)
            height[k] = sum(share * y for share, y in own) / total if total else 1.0
        columns[d] = sorted(columns[d], key=lambda k: (height[k], k))
    return columns
