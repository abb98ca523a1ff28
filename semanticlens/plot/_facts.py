"""What cards and reports say about a component, read off a concept database and its optional labels and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from semanticlens._errors import LayerNotFoundError

__all__ = ["Component", "Example", "Source", "component", "sources"]

CLASSES = 5  # classes listed per component, the usual number
SCORE_NAMES = ("clarity", "polysemanticity", "redundancy")


class Example(NamedTuple):
    """One example: data set position, activation, and the part of the picture that was encoded, if not the whole."""

    sample: int
    score: float
    box: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component of one layer, ready to be shown.

    Attributes
    ----------
    layer, index : str, int
    dead : bool
        No picture activates it.
    examples : tuple of Example
        Best first.
    labelled : bool
        Labels were asked for; without them ``label`` says nothing about the component.
    label : str or None
        The accepted name; None if there is none, or none reaches the threshold.
    candidates : tuple of (str, float)
        The best names with their scores, accepted or not.
    scores : dict of str to float
        Clarity, polysemanticity and redundancy, NaN where undefined; empty if not asked for.
    nearest : int or None
        The component whose similarity is the redundancy.
    classes : tuple of (str, float)
        The classes whose pictures activate it most, with the mean of their highest activations.
    """

    layer: str
    index: int
    dead: bool
    examples: tuple[Example, ...]
    labelled: bool
    label: str | None
    candidates: tuple[tuple[str, float], ...]
    scores: dict[str, float]
    nearest: int | None
    classes: tuple[tuple[str, float], ...]

    @property
    def strength(self) -> float:
        """The highest activation; NaN without examples."""
        return self.examples[0][1] if self.examples else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Something the database was made from: what it is, its name, its fingerprint."""

    what: str
    name: str
    fingerprint: str | None
    detail: str = ""


def component(
    db: Any, layer: str, index: int, labels: Any = None, scores: Any = None, n_examples: int | None = None
) -> Component:
    """Read one component off ``db``; ``labels`` and ``scores`` are what ``db.label`` and ``db.scores`` returned.

    Raises
    ------
    LayerNotFoundError
        The database has no such layer.
    IndexError
        The layer has no such component.
    """
    if layer not in db.layers:
        raise LayerNotFoundError(str(layer), db.layers, "the database")
    concepts = db[layer]
    k, count = int(index), len(concepts.ids)
    if not 0 <= k < count:
        raise IndexError(f"component {index} is not in layer {layer!r}, which has components 0 to {count - 1}")
    dead = bool(concepts.dead[k])
    boxes: list[Any] = [None] * len(concepts.ids[k]) if concepts.boxes is None else [tuple(box.tolist()) for box in concepts.boxes[k]]
    shown = [
        Example(int(i), float(s), box)
        for i, s, box in zip(concepts.ids[k], concepts.example_scores[k], boxes, strict=True)
        if i >= 0 and not dead
    ]
    label, candidates = (None, ()) if labels is None or layer not in labels else _label(labels[layer, k])
    values, nearest = ({}, None) if scores is None or layer not in scores else _scores(scores[layer], k)
    return Component(
        layer=layer,
        index=k,
        dead=dead,
        examples=tuple(shown[:n_examples]),
        labelled=labels is not None and layer in labels,
        label=label,
        candidates=candidates,
        scores=values,
        nearest=nearest,
        classes=() if dead else _classes(concepts.class_affinity, k, db.class_names),
    )


def _label(found: Any) -> tuple[str | None, tuple[tuple[str, float], ...]]:
    candidates = tuple((str(name), float(score)) for name, score in found.candidates)
    return (None if found.unlabelled or not candidates else candidates[0][0]), candidates


def _scores(layer: Any, k: int) -> tuple[dict[str, float], int | None]:
    values = {name: float(getattr(layer, name)[k]) for name in SCORE_NAMES}
    nearest = int(layer.nearest[k])
    return values, (nearest if nearest >= 0 else None)


def _classes(affinity: Any, k: int, names: Any) -> tuple[tuple[str, float], ...]:
    """The classes with the highest positive affinity, best first."""
    if affinity is None:
        return ()
    row = np.asarray(affinity[k], dtype=np.float64)
    usable = np.where(np.isfinite(row) & (row > 0), row, -np.inf)
    order = np.argsort(-usable, kind="stable")[:CLASSES]
    return tuple((str(names[y]) if names is not None else f"class {y}", float(row[y])) for y in order if usable[y] > 0)


def sources(db: Any) -> tuple[Source, ...]:
    """Network, data set and encoder that the database's record names."""
    record: Mapping[str, Any] = db.record
    found = []
    for what, key in (("Network", "network"), ("Pictures", "data"), ("Encoder", "encoder")):
        entry = record.get(key)
        entry = entry if isinstance(entry, Mapping) else {"name": entry}
        size = entry.get("length") if key == "data" else entry.get("dim") if key == "encoder" else None
        unit = "pictures" if key == "data" else "dimensions"
        found.append(
            Source(
                what=what,
                name=str(entry.get("name") or "not recorded"),
                fingerprint=entry.get("fingerprint"),
                detail="" if size is None else f"{size} {unit}",
            )
        )
    return tuple(found)
