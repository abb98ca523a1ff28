"""Attribution graphs: which channels of earlier layers a channel got its relevance through, with pictures of what they stand for."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from semanticlens.plot._drawing import Drawing, plain
from semanticlens.plot._heat import as_picture
from semanticlens.plot._type import Pen, clean

__all__ = ["graph"]

INK, MUTED, PANEL, FOR, AGAINST = "#1b1f24", "#59616b", "#f1f3f5", (192, 40, 32), (39, 93, 145)
MARGIN, NODE, COLUMN, ROW, HEAD = 24.0, 60.0, 168.0, 22.0, 30.0  # in units of 1/pixels
FINE = 2  # edges are drawn so many times larger, and reduced: smooth lines

Key = tuple[str, int]


@dataclass(frozen=True)
class _Node:
    key: Key
    score: float
    picture: Image.Image | None
    label: str


@dataclass(frozen=True)
class _Edge:
    start: Key
    end: Key
    weight: float


def graph(
    nodes: Any,
    edges: Iterable[Any] | None = None,
    *,
    pictures: Mapping[Key, Any] | None = None,
    labels: Mapping[Key, str] | None = None,
    title: object = None,
    names: Mapping[str, str] | None = None,
    pixels: int = 2,
    font: str | os.PathLike[str] | None = None,
) -> Drawing:
    """Draw an attribution graph: a column for each layer, edges from left to right.

    Parameters
    ----------
    nodes : sequence, or an object with ``nodes`` and ``edges``
        Each node is a tuple ``(layer, channel, score)``, with a picture and a label behind it if there are any (None is none); or a
        mapping or an object with ``layer``, ``channel``, ``score`` and, where known, ``thumbnail`` and ``label``.
    edges : iterable, optional
        ``(from, to, weight)``, or mappings or objects with ``start``, ``end`` and ``weight`` (``source`` and ``target``, or ``parent`` and
        ``child``, will do); a node is named by its ``(layer, channel)`` or by its place in ``nodes``.
    pictures, labels : mapping of (layer, channel) to a picture, to str, optional
        For nodes that bring none themselves: the crop that activates a channel most, its concept's name.
    title : object, optional
    names : mapping of str to str, optional
        What to write above the column of a layer instead of its name.
    pixels : int
        Pixels per unit.
    font : path, optional

    Returns
    -------
    Drawing
        Red is relevance for, blue against what the graph explains; lines and frames are as wide as it is large.

    Raises
    ------
    ValueError
        If there are no nodes, a node occurs twice, an edge names none, a number is not finite, or edges between layers go in a circle.
    """
    if edges is None:
        if not (hasattr(nodes, "nodes") and hasattr(nodes, "edges")):
            raise TypeError("edges is missing: give nodes and edges, or one object that has both")
        nodes, edges = nodes.nodes, nodes.edges
    if pixels < 1:
        raise ValueError(f"pixels={pixels}: must be at least 1")
    found = _nodes(nodes, pictures or {}, labels or {})
    links = _edges(edges, list(found))
    columns = _columns(found, links)
    heads = [clean((names or {}).get(layer, layer)) for layer in columns]
    line = None if title is None else clean(str(title))
    width = max(2 * MARGIN + (len(columns) - 1) * COLUMN + NODE + 2 * 32, 360.0)
    probe = Pen(Image.new("RGB", (1, 1)), pixels, font)
    if line is not None:
        width = max(width, 2 * MARGIN + probe.width(line, 15))
    block = NODE + 16 + (14 if any(node.label for node in found.values()) else 0)
    rows = max(map(len, columns.values()))
    top = MARGIN + (28 if line is not None else 0) + HEAD
    height = top + rows * (block + ROW) - ROW + 46
    at = {
        key: (
            MARGIN + 32 + j * COLUMN,
            top + (rows - len(own)) * (block + ROW) / 2 + i * (block + ROW),
        )
        for j, own in enumerate(columns.values())
        for i, key in enumerate(own)
    }
    image = _lines(links, at, math.ceil(width * pixels), math.ceil(height * pixels), pixels)
    pen = Pen(image, pixels, font)
    if line is not None:
        pen.text(MARGIN, MARGIN + 13, line, 15, INK)
    for j, head in enumerate(heads):
        pen.text(MARGIN + 32 + j * COLUMN + NODE / 2, top - 14, pen.fit(head, 12, COLUMN - 14), 12, MUTED, "centre")
    largest = max((abs(node.score) for node in found.values()), default=0.0)
    for key, (x, y) in at.items():
        _draw_node(pen, found[key], x, y, abs(found[key].score) / largest if largest else 0.0)
    pen.text(MARGIN, height - 18, "red: for, blue: against; the wider, the more relevance", 10.5, MUTED)
    return Drawing(image, pixels, f"graph of {len(found)} nodes and {len(links)} edges")


# ------------------------------------------------------------------------------------------------- reading what was given


def _get(given: Any, *names: str) -> Any:
    for name in names:
        if isinstance(given, Mapping):
            if name in given:
                return given[name]
        elif hasattr(given, name):
            return getattr(given, name)
    return None


def _nodes(given: Iterable[Any], pictures: Mapping[Key, Any], labels: Mapping[Key, str]) -> dict[Key, _Node]:
    found: dict[Key, _Node] = {}
    for i, node in enumerate(given):
        if isinstance(node, Sequence) and not hasattr(node, "layer"):
            if not 3 <= len(node) <= 5:
                raise ValueError(f"nodes[{i}] has {len(node)} entries: must be (layer, channel, score[, picture[, label]])")
            layer, channel, score, picture, label = (*node, None, None)[:5]
        else:
            layer, channel = _get(node, "layer"), _get(node, "channel", "component")
            score = _get(node, "score", "relevance")
            picture, label = _get(node, "thumbnail", "picture"), _get(node, "label")
        if layer is None or channel is None or score is None:
            raise ValueError(f"nodes[{i}] lacks its layer, channel or score")
        key = (str(layer), int(channel))
        if key in found:
            raise ValueError(f"nodes[{i}]: {key[0]!r} {key[1]} occurs twice")
        picture = pictures.get(key) if picture is None else picture
        label = label or labels.get(key)
        shown = None if picture is None else as_picture(picture, f"the picture of nodes[{i}]")
        found[key] = _Node(key, _number(score, f"the score of nodes[{i}]"), shown, clean(label) if label else "")
    if not found:
        raise ValueError("nodes is empty: there is nothing to draw")
    return found


def _edges(given: Iterable[Any], keys: Sequence[Key]) -> list[_Edge]:
    links = []
    for i, edge in enumerate(given):
        if isinstance(edge, Sequence) and not any(hasattr(edge, name) for name in ("start", "source", "parent")):
            if len(edge) != 3:
                raise ValueError(f"edges[{i}] has {len(edge)} entries: must be (from, to, weight)")
            start, end, weight = edge
        else:
            start, end = _get(edge, "start", "source", "parent", "from"), _get(edge, "end", "target", "child", "to")
            weight = _get(edge, "weight", "relevance", "score")
        ends = [_key(end_, keys, i) for end_ in (start, end)]
        if ends[0][0] == ends[1][0]:
            raise ValueError(f"edges[{i}] joins two channels of layer {ends[0][0]!r}: edges go from one layer to another")
        links.append(_Edge(ends[0], ends[1], _number(weight, f"the weight of edges[{i}]")))
    return links


def _key(given: Any, keys: Sequence[Key], i: int) -> Key:
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(keys):
        return keys[given]
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) >= 2:
        key = (str(given[0]), int(given[1]))
    else:
        key = (str(_get(given, "layer")), -1 if _get(given, "channel", "component") is None else int(_get(given, "channel", "component")))
    if key not in keys:
        raise ValueError(f"edges[{i}] names {given!r}, which is not among the {len(keys)} nodes")
    return key


def _number(value: Any, what: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{what} is {number}: must be finite")
    return number


# ------------------------------------------------------------------------------------------------- where everything goes


def _columns(found: Mapping[Key, _Node], links: Sequence[_Edge]) -> dict[str, list[Key]]:
    """Layer -> its nodes from top to bottom, layers from left to right."""
    layers = _order(list(dict.fromkeys(key[0] for key in found)), {(e.start[0], e.end[0]) for e in links})
    columns = {layer: sorted((k for k in found if k[0] == layer), key=lambda k: (-found[k].score, k[1])) for layer in layers}
    sweep = layers if len(columns[layers[0]]) <= len(columns[layers[-1]]) else layers[::-1]
    for before, layer in itertools.pairwise(sweep):
        places = {k: i / max(1, len(columns[before]) - 1) for i, k in enumerate(columns[before])}
        columns[layer].sort(key=lambda k: _height(k, links, places))
    return columns


def _height(key: Key, links: Sequence[_Edge], places: Mapping[Key, float]) -> float:
    """The mean place of a node's neighbours in the column before; in the middle if it has none."""
    pairs = [(abs(e.weight), places[other]) for e in links for own, other in ((e.start, e.end), (e.end, e.start))
             if own == key and other in places]  # fmt: skip
    total = sum(weight for weight, _ in pairs)
    return sum(weight * place for weight, place in pairs) / total if total else 0.5


def _order(layers: list[str], joined: set[tuple[str, str]]) -> list[str]:
    """Layers so that all edges go from left to right; otherwise in the order in which they were given."""
    left, result = list(layers), []
    while left:
        free = next((layer for layer in left if not any(b == layer and a in left for a, b in joined)), None)
        if free is None:
            raise ValueError(f"edges between the layers {', '.join(left)} go in a circle: they must lead from one end to the other")
        left.remove(free)
        result.append(free)
    return result


# ------------------------------------------------------------------------------------------------- drawing


def _lines(links: Sequence[_Edge], at: Mapping[Key, tuple[float, float]], width: int, height: int, pixels: int) -> Image.Image:
    """White ground with the edges, the strongest on top."""
    image = Image.new("RGB", (width, height), "white")
    largest = max((abs(e.weight) for e in links), default=0.0)
    s = pixels * FINE
    for e in sorted(links, key=lambda e: abs(e.weight)):
        share = abs(e.weight) / largest if largest else 0.0
        (x, y), (u, v) = at[e.start], at[e.end]
        thick = max(1, round((0.8 + 5.5 * share) * s))
        points = [(a * s, b * s) for a, b in _curve((x + NODE + 3, y + NODE / 2), (u - 3, v + NODE / 2))]
        low = [max(0, int(min(p[i] for p in points) - thick) // FINE) for i in (0, 1)]  # a mask around the line is enough
        size = [math.ceil((max(p[i] for p in points) + thick) / FINE) - low[i] for i in (0, 1)]
        mask = Image.new("L", (size[0] * FINE, size[1] * FINE), 0)
        moved = [(a - low[0] * FINE, b - low[1] * FINE) for a, b in points]
        ImageDraw.Draw(mask).line(moved, fill=round(255 * (0.22 + 0.6 * share)), width=thick, joint="curve")
        small = mask.reduce(FINE)
        image.paste(Image.new("RGB", small.size, FOR if e.weight >= 0 else AGAINST), (low[0], low[1]), small)
    return image


def _curve(a: tuple[float, float], b: tuple[float, float], n: int = 40) -> list[tuple[float, float]]:
    """A cubic curve that leaves and arrives horizontally."""
    middle = (a[0] + b[0]) / 2
    points = []
    for i in range(n + 1):
        t = i / n
        x = (1 - t) ** 3 * a[0] + 3 * (1 - t) ** 2 * t * middle + 3 * (1 - t) * t * t * middle + t**3 * b[0]
        y = ((1 - t) ** 3 + 3 * (1 - t) ** 2 * t) * a[1] + (3 * (1 - t) * t * t + t**3) * b[1]
        points.append((x, y))
    return points


def _draw_node(pen: Pen, node: _Node, x: float, y: float, share: float) -> None:
    s = pen.scale
    colour = FOR if node.score >= 0 else AGAINST
    side = round(NODE * s)
    left, top = round(x * s), round(y * s)
    if node.picture is None:
        pen.box(x, y, NODE, NODE, PANEL, 6)
        pen.text(x + NODE / 2, y + NODE / 2 + 6, pen.fit(str(node.key[1]), 17, NODE - 8), 17, INK, "centre")
    else:
        edge = min(node.picture.size)
        cut = (node.picture.width - edge) // 2, (node.picture.height - edge) // 2
        square = node.picture.crop((cut[0], cut[1], cut[0] + edge, cut[1] + edge)).resize((side, side), Image.Resampling.LANCZOS)
        mask = Image.new("L", (side, side), 0)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, side - 1, side - 1), radius=6 * s, fill=255)
        pen.image.paste(square, (left, top), mask)
    pen.draw.rounded_rectangle((left, top, left + side - 1, top + side - 1), radius=6 * s, outline=colour,
                               width=max(1, round((1 + 2.5 * share) * s)))  # fmt: skip
    _caption(pen, x + NODE / 2, y + NODE + 13, f"{node.key[1]}  {'+' if node.score > 0 else ''}{plain(node.score)}", 11, INK)
    if node.label:
        _caption(pen, x + NODE / 2, y + NODE + 27, node.label, 11, MUTED)


def _caption(pen: Pen, x: float, y: float, text: str, size: float, colour: str) -> None:
    """A line in the middle of white ground, so that edges do not run through it."""
    text = pen.fit(text, size, COLUMN - 46)
    width = pen.width(text, size)
    pen.box(x - width / 2 - 2, y - size + 1, width + 4, size + 2, "white", 2)
    pen.text(x, y, text, size, colour, "centre")
