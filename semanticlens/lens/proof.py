"""What a repair changed: answers by group of pictures, and how far the concept of every component moved."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ConceptWarning, DataError, MismatchError
from semanticlens.data.batches import Transform
from semanticlens.lens.results import number, text_table

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB
    from semanticlens.nn.network import Network

__all__ = ["BeforeAfter", "Drift", "LayerDrift", "drift"]

F64 = NDArray[np.float64]
SHOWN = 24


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class BeforeAfter:
    """Answers of a network before and after a repair, on G groups of labelled pictures and Y classes.

    Attributes
    ----------
    groups : tuple of str
    before, after : ndarray (G, Y, Y), int64
        Pictures of each class (rows) by what they were called (columns).
    flips : ndarray (G, 2), int64
        Pictures that were right and are wrong, that were wrong and are right.
    class_names : tuple of str, or None
    """

    groups: tuple[str, ...]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    flips: NDArray[np.int64]
    class_names: tuple[str, ...] | None = field(default=None, repr=False)

    def _place(self, group: str) -> int:
        if group not in self.groups:
            raise KeyError(f"there is no group {group!r}; there are {', '.join(self.groups)}")
        return self.groups.index(group)

    def _class(self, target: int | str) -> int:
        n = self.before.shape[1]
        if isinstance(target, str):
            if self.class_names is None or target not in self.class_names:
                raise KeyError(f"there is no class {target!r}")
            return self.class_names.index(target)
        if not 0 <= target < n:
            raise IndexError(f"there is no class {target}; the network has {n}")
        return int(target)

    def accuracy(self, group: str, *, without: Sequence[int | str] = ()) -> tuple[float, float]:
        """Share of right answers before and after; ``without`` leaves pictures of some classes out. NaN where there are none."""
        kept = np.setdiff1d(np.arange(self.before.shape[1]), [self._class(y) for y in without])
        tables = [table[self._place(group)][kept] for table in (self.before, self.after)]
        before, after = (_share(table[np.arange(len(kept)), kept].sum(), table.sum()) for table in tables)
        return before, after

    def change(self, group: str) -> tuple[float, float]:
        """Change of the accuracy, and its standard error from the pictures whose answer became right or wrong."""
        g = self._place(group)
        n, (worse, better) = int(self.before[g].sum()), (int(v) for v in self.flips[g])
        variance = (worse + better - (better - worse) ** 2 / n) / (n - 1) / n if n > 1 else np.nan
        return (better - worse) / n, float(np.sqrt(variance))

    def recall(self, group: str, target: int | str) -> tuple[float, float]:
        """Share of a class's pictures that are called by it, before and after."""
        g, y = self._place(group), self._class(target)
        before, after = (_share(table[g, y, y], table[g, y].sum()) for table in (self.before, self.after))
        return before, after

    def pulled(self, group: str, target: int | str) -> tuple[float, float]:
        """Share of the pictures of all other classes that are called ``target``, before and after."""
        g, y = self._place(group), self._class(target)
        others = np.arange(self.before.shape[1]) != y
        before, after = (
            _share(table[g][others, y].sum(), table[g][others].sum()) for table in (self.before, self.after)
        )
        return before, after

    def lowered(self, group: str, target: int | str) -> float:
        """By which share :meth:`pulled` fell: 1 - after / before; NaN where nothing was pulled before."""
        before, after = self.pulled(group, target)
        return 1.0 - after / before if before > 0 else float("nan")

    def rows(self) -> list[list[object]]:
        """A row for each group: pictures, accuracy before and after, change and its standard error."""
        return [[g, int(self.before[i].sum()), *self.accuracy(g), *self.change(g)] for i, g in enumerate(self.groups)]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        keys = ("group", "pictures", "accuracy_before", "accuracy_after", "change", "change_error")
        rows = [
            dict(zip(keys, [number(v) if isinstance(v, float) else v for v in row], strict=True)) for row in self.rows()
        ]
        tables = {"before": self.before.tolist(), "after": self.after.tolist(), "flips": self.flips.tolist()}
        return {"groups": rows, **tables, "class_names": None if self.class_names is None else list(self.class_names)}

    def __repr__(self) -> str:
        return text_table(["group", "pictures", "before", "after", "change", "error"], self.rows(), SHOWN)

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        headers = ["group", "pictures", "accuracy before", "after", "change", "standard error"]
        return str(html.table(headers, self.rows(), caption="Before and after"))


def _share(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else float("nan")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LayerDrift:
    """One layer's components before and after.

    Attributes
    ----------
    distance : ndarray (K,), float64
        ``1 - cos`` between the concept vectors; NaN where one of them does not exist.
    kept : ndarray (K,), float64
        Share of the examples before that still are examples.
    died, born : ndarray (K,), bool
        Lost, or gained, a concept vector.
    repaired : ndarray (K,), bool
    """

    distance: F64
    kept: F64
    died: NDArray[np.bool_]
    born: NDArray[np.bool_]
    repaired: NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Drift:
    """How far every component's concept moved by a repair.

    Attributes
    ----------
    layers : dict of str to LayerDrift
    after : ConceptDB
        Of the repaired network.
    """

    layers: dict[str, LayerDrift]
    after: Any = field(repr=False)

    def others(self, layer: str | None = None) -> F64:
        """Distances of all components that were not repaired, and have a concept vector before and after."""
        chosen = self.layers.values() if layer is None else [self.layers[layer]]
        parts = [own.distance[~own.repaired & np.isfinite(own.distance)] for own in chosen]
        return np.concatenate(parts) if parts else np.empty(0)

    def median(self, layer: str | None = None) -> float:
        """Of :meth:`others`; NaN where there are none."""
        own = self.others(layer)
        return float(np.median(own)) if own.size else float("nan")

    def moved(self, top: int = 10) -> list[tuple[str, int, float]]:
        """The components that moved most without being repaired: (layer, component, distance)."""
        found = [
            (layer, int(k), float(own.distance[k]))
            for layer, own in self.layers.items()
            for k in np.flatnonzero(~own.repaired & np.isfinite(own.distance))
        ]
        return sorted(found, key=lambda one: -one[2])[:top]

    def rows(self) -> list[list[object]]:
        """A row for each layer: components, repaired, died, born, then median, 90th percentile and largest distance of the others."""
        rows: list[list[object]] = []
        for layer, own in self.layers.items():
            others = self.others(layer)
            spread = [float(np.quantile(others, q)) for q in (0.5, 0.9, 1.0)] if others.size else [float("nan")] * 3
            died = int((own.died & ~own.repaired).sum())
            rows.append([layer, len(own.distance), int(own.repaired.sum()), died, int(own.born.sum()), *spread])
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        keys = ("layer", "components", "repaired", "died", "born", "median", "q90", "largest")
        rows = [
            dict(zip(keys, [number(v) if isinstance(v, float) else v for v in row], strict=True)) for row in self.rows()
        ]
        moved = [{"layer": layer, "component": k, "distance": number(v)} for layer, k, v in self.moved()]
        return {"layers": rows, "median": number(self.median()), "moved": moved}

    def __repr__(self) -> str:
        headers = ["layer", "components", "repaired", "died", "born", "median", "90 %", "largest"]
        return "cosine distance between concept vectors before and after\n" + text_table(headers, self.rows(), SHOWN)

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        headers = ["layer", "components", "repaired", "died", "born", "median distance", "90 %", "largest"]
        return str(html.table(headers, self.rows(), caption="Concept vectors before and after"))


def drift(
    network: Network,
    db: ConceptDB,
    repaired: Sequence[tuple[str, int]],
    *,
    examples: Any = None,
    transform: Transform | None = None,
    **options: Any,
) -> Drift:
    """Collect and build as ``db`` was, with another network, and compare component by component; see :meth:`Repair.drift`."""
    from semanticlens.lens.collect import collect
    from semanticlens.lens.database import ConceptDB

    if db.images is None or db.encoder is None:
        raise DataError("drift builds the database again: db.attach(encoder=..., images=...) first")
    if examples is None:
        given = _settings(db) | ({} if transform is None else {"transform": transform})
        with warnings.catch_warnings():  # what was taken out is dead now; the result says which
            warnings.filterwarnings("ignore", message="components that were never above 0", category=ConceptWarning)
            examples = collect(network, db.images, list(db.layers), **{**given, **options})
    made = db.record["build"]
    after = ConceptDB.build(
        examples,
        db.images,
        db.encoder,
        normalize_examples=made["normalize_examples"],
        weighting=made["weighting"],
        thumbnails=made["thumbnails"],
        n_threads=options.get("n_threads"),
    )
    chosen = {(network.resolve(layer), k) for layer, k in repaired}
    layers = {}
    for layer in db.layers:
        if layer not in after or len(after[layer]) != len(db[layer]):
            raise MismatchError(f"examples: layer {layer!r} is missing or has another number of components than before")
        mask = np.array([(network.resolve(layer), k) in chosen for k in range(len(db[layer]))], bool)
        layers[layer] = _compared(db[layer], after[layer], mask)
    return Drift(layers=layers, after=after)


def _settings(db: ConceptDB) -> dict[str, Any]:
    """Options of collect, from what the database says of its making."""
    parameters = (db.record.get("examples") or {}).get("parameters")
    if not parameters:
        raise DataError(
            "the database does not say how its examples were collected: pass examples= of the repaired network"
        )
    if parameters.get("score") or parameters.get("crops"):
        raise DataError(
            "the database's examples were collected by relevance or with crops: pass examples=, collected alike"
        )
    found = {"top": parameters["top"], "positive_only": parameters["positive_only"], "pool": parameters["pool"]}
    if parameters.get("class_top"):
        return found | {"class_top": parameters["class_top"]}
    return found | {"labels": False}


def _compared(a: Any, b: Any, repaired: NDArray[np.bool_]) -> LayerDrift:
    x, y = (np.asarray(own.vectors, np.float64) for own in (a, b))
    there = [np.isfinite(v).all(axis=1) & (np.linalg.norm(v, axis=1) > 0) for v in (x, y)]
    both = there[0] & there[1]
    distance = np.full(len(x), np.nan)
    norms = np.linalg.norm(x[both], axis=1) * np.linalg.norm(y[both], axis=1)
    distance[both] = np.maximum(1.0 - (x[both] * y[both]).sum(axis=1) / norms, 0.0)
    distance[(x == y).all(axis=1)] = 0.0
    kept = [np.isin(before[before >= 0], after[after >= 0]) for before, after in zip(a.ids, b.ids, strict=True)]
    shares = np.array([own.mean() if own.size else np.nan for own in kept])
    return LayerDrift(
        distance=distance, kept=shares, died=there[0] & ~there[1], born=~there[0] & there[1], repaired=repaired
    )
