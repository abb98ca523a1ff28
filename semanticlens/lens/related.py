"""The pictures behind a component, and the components that no prompt describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens.lens.probe import make_queries, probe
from semanticlens.lens.results import Hit, SearchResult, number, text_table

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB

__all__ = ["RelatedData", "related_data", "unexpected"]

SHOWN = 20


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RelatedData:
    """The pictures behind a component.

    Attributes
    ----------
    layer, component : str, int
    ids : ndarray (n,), int64
        Data set positions, best first.
    scores : ndarray (n,), float32
        Pooled activations (or relevance).
    classes : ndarray (n,), int64, or None
        The class of each.
    names : tuple of str, or None
        The name of each picture.
    class_names : tuple of str, or None
    affinity : tuple of (str, float)
        The classes whose pictures activate the component most, over all data.
    """

    layer: str
    component: int
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64] | None
    names: tuple[str, ...] | None
    class_names: tuple[str, ...] | None
    affinity: tuple[tuple[str, float], ...]

    def by_class(self) -> dict[str, int]:
        """How many of the examples are of each class, most first; -1 stands for none."""
        if self.classes is None:
            return {}
        values, counts = np.unique(self.classes, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return {self._class(int(values[i])): int(counts[i]) for i in order}

    def _class(self, y: int) -> str:
        return str(y) if self.class_names is None or not 0 <= y < len(self.class_names) else self.class_names[y]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "layer": self.layer,
            "component": self.component,
            "ids": self.ids.tolist(),
            "scores": [number(s) for s in self.scores],
            "classes": None if self.classes is None else self.classes.tolist(),
            "names": None if self.names is None else list(self.names),
            "by_class": self.by_class(),
            "affinity": [[name, number(score)] for name, score in self.affinity],
        }

    def __repr__(self) -> str:
        classes = [""] * len(self.ids) if self.classes is None else [self._class(int(y)) for y in self.classes]
        names = [""] * len(self.ids) if self.names is None else self.names
        rows = [list(row) for row in zip(self.ids.tolist(), map(float, self.scores), classes, names, strict=True)]
        head = ", ".join(f"{n} of {name}" for name, n in self.by_class().items())
        return f"{self.layer}:{self.component} {head}\n" + text_table(["id", "score", "class", "name"], rows, SHOWN)


def related_data(db: ConceptDB, component: tuple[str, int]) -> RelatedData:
    """See :meth:`semanticlens.lens.ConceptDB.related_data`."""
    layer, given = component
    own = db[layer]
    if not 0 <= given < len(own):
        raise DataError(f"component {given}: layer {layer!r} has components 0 to {len(own) - 1}")
    k, ids = int(given), own.examples(given)
    labels = getattr(db.images, "labels", None)
    return RelatedData(
        layer=layer,
        component=k,
        ids=ids,
        scores=np.asarray(own.example_scores[k, : len(ids)]),
        classes=None if labels is None else np.asarray(labels)[ids],
        names=tuple(db.images.names[i] for i in ids) if hasattr(db.images, "names") else None,
        class_names=getattr(db.images, "class_names", None) or db.class_names,
        affinity=db.classes(layer, k),
    )


def unexpected(
    db: ConceptDB,
    *,
    valid: str | Sequence[str],
    spurious: str | Sequence[str],
    threshold: float,
    layers: str | Sequence[str] | None = None,
    templates: str | Sequence[str] | None = None,
    null: str = "score",
) -> SearchResult:
    """See :meth:`semanticlens.lens.ConceptDB.unexpected`."""
    groups = [[group] if isinstance(group, str) else list(group) for group in (valid, spurious)]
    texts = list(dict.fromkeys([*groups[0], *groups[1]]))
    if not texts:
        raise DataError("valid and spurious are both empty: name at least one thing")
    queries = make_queries(texts, db._needed_encoder("unexpected"), db.record["encoder"]["dim"], templates, null)
    table = {name: probe(queries, db[name].vectors) for name in db._chosen(layers)}
    found: list[tuple[float, str, str, int]] = []
    for name, scores in table.items():
        usable = np.flatnonzero(~np.isnan(scores).any(axis=0))
        best = scores[:, usable].argmax(axis=0)
        found += [
            (float(scores[j, k]), texts[j], name, int(k)) for j, k in zip(best.tolist(), usable.tolist(), strict=True)
        ]
    kept = sorted((one for one in found if one[0] < threshold), key=lambda one: one[0])
    hits: tuple[Hit, ...] = tuple(
        db._hit(rank, query, layer, k, score) for rank, (score, query, layer, k) in enumerate(kept, start=1)
    )
    return SearchResult(
        hits=hits,
        queries=queries.names,
        templates=queries.templates,
        null=queries.null,
        threshold=float(threshold),
        scores=table,
        _pictures=partial(db.example, small=True) if "thumbnails" in db._arrays else None,
    )
