"""How firmly do scores and labels stand?  Intervals by bootstrap over each component's concept examples.

A resample draws as many examples as the component has, with replacement.  Every score is computed again in Gram form, so that
a thousand resamples cost about ten times the scores themselves.  Formulas and the choice of interval: ``csrc/include/sl/sl_bootstrap.h``.

What is resampled are the examples a component has, the top m of the data set it was collected on: the interval says how much a score hangs
on single examples, not what another data set would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, LayerNotFoundError
from semanticlens._kernels import lens as kernels
from semanticlens._kernels import resolve_threads
from semanticlens.lens.probe import Queries
from semanticlens.lens.results import text_table

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB

__all__ = ["Interval", "Intervals", "LayerIntervals", "database_intervals"]

F64 = NDArray[np.float64]
STEPS = 20  # most steps of two-means per resample: they start from the groups of all examples and rarely need three
SHOWN = 20


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Interval:
    """A score of K components with its interval; all arrays (K,) float64, NaN where undefined.

    Attributes
    ----------
    value : ndarray
        The score of all examples.
    lower, upper : ndarray
        ``value`` plus the quantiles of the resamples' deviations from their mean; NaN with fewer than four usable examples.
    mean, deviation : ndarray
        Mean and standard deviation of the resamples. ``mean - value`` is the shift that drawing examples twice brings.
    """

    value: F64
    lower: F64
    upper: F64
    mean: F64
    deviation: F64

    @property
    def width(self) -> F64:
        """``upper - lower``."""
        return np.asarray(self.upper - self.lower)

    def to_dict(self) -> dict[str, list[float | None]]:
        """Plain Python, ready for JSON; None stands for undefined."""
        names = ("value", "lower", "upper", "mean", "deviation")
        return {name: [float(v) if np.isfinite(v) else None for v in getattr(self, name)] for name in names}


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LayerIntervals:
    """Intervals of a layer's scores.

    Attributes
    ----------
    clarity, polysemanticity : Interval
    redundancy : Interval
        Of the cosine to the nearest other component, given which one that is and its vector: too short by what that component's own
        examples, and another nearest one, leave open.
    label : Interval or None
        Of the best label's score, where a vocabulary was given.
    label_index : ndarray (K,), int64, or None
        The best label's place in the vocabulary, -1 for none.
    label_share : ndarray (K,), float64, or None
        Share of the resamples in which it stays the best of the candidates.
    values : mapping of str to Interval
        Means over examples of the numbers that were passed.
    """

    layer: str
    clarity: Interval
    polysemanticity: Interval
    redundancy: Interval
    label: Interval | None = None
    label_index: NDArray[np.int64] | None = None
    label_share: F64 | None = None
    values: Mapping[str, Interval] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clarity.value)

    def named(self) -> dict[str, Interval]:
        """All intervals by name."""
        label = {} if self.label is None else {"label": self.label}
        own = {"clarity": self.clarity, "polysemanticity": self.polysemanticity, "redundancy": self.redundancy}
        return {**own, **label, **self.values}


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Intervals(Mapping[str, LayerIntervals]):
    """Intervals of all layers: ``intervals["layer"].clarity.lower[k]`` and so on."""

    layers: Mapping[str, LayerIntervals]
    parameters: Mapping[str, Any]
    vocabulary: tuple[str, ...] | None = field(default=None, repr=False)

    def __getitem__(self, layer: str) -> LayerIntervals:
        if layer not in self.layers:
            raise LayerNotFoundError(layer, self.layers, "the intervals")
        return self.layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        layers: dict[str, Any] = {}
        for name, layer in self.layers.items():
            layers[name] = {score: interval.to_dict() for score, interval in layer.named().items()}
            if layer.label_index is not None and layer.label_share is not None and self.vocabulary is not None:
                layers[name]["labels"] = [self.vocabulary[j] if j >= 0 else None for j in layer.label_index]
                layers[name]["label_share"] = [float(v) if np.isfinite(v) else None for v in layer.label_share]
        return {"parameters": dict(self.parameters), "layers": layers}

    def _table(self) -> tuple[list[str], list[list[object]]]:
        rows: list[list[object]] = []
        for name, layer in self.layers.items():
            for score, own in layer.named().items():
                known = np.isfinite(own.lower)
                half = float(np.median(own.width[known]) / 2) if known.any() else float("nan")
                rows.append([name, score, int(known.sum()), float(np.mean(own.value[known])) if known.any() else float("nan"), half])
        return ["layer", "score", "components", "mean", "median half width"], rows

    def __repr__(self) -> str:
        return text_table(*self._table(), SHOWN)

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        headers, rows = self._table()
        caption = f"Intervals of level {self.parameters['level']}, {self.parameters['n']} resamples"
        return str(html.table(headers, rows, caption=caption, limit=SHOWN))


def check_options(level: float, n: int, seed: int) -> None:
    """Errors that name the option."""
    if not isinstance(level, float) or not 0 < level < 1:
        raise DataError(f"level={level!r} must be a number between 0 and 1, for example 0.95")
    for name, value, least in (("n", n, 2), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value < 2**31:
            raise DataError(f"{name}={value!r} must be a whole number of at least {least} (and below 2**31)")
    if n * min(level, 1 - level) < 2:
        raise DataError(f"n={n} resamples cannot carry an interval of level {level}: pass at least {int(2 / min(level, 1 - level)) + 1}")


def database_intervals(
    db: ConceptDB,
    layers: tuple[str, ...],
    *,
    level: float = 0.95,
    n: int = 1000,
    seed: int = 0,
    queries: Queries | None = None,
    top: int = 5,
    values: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    n_threads: int | None = None,
) -> Intervals:
    """Intervals of all scores of these layers; see :meth:`ConceptDB.intervals`; ``queries`` are the vocabulary."""
    check_options(level, n, seed)
    if queries is not None and queries.null_vector is not None:
        raise DataError("intervals of labels have no null='score': it orders the labels of a component as null='none' does, pass that")
    given = {} if values is None else dict(values)
    for name in given:
        db[name]
    found = {
        name: _layer(db, name, level, n, seed, queries, top, given.get(name, {}), resolve_threads(n_threads)) for name in layers
    }
    return Intervals(
        layers=found, parameters={"level": level, "n": n, "seed": seed, "top": top}, vocabulary=None if queries is None else queries.names
    )


def _numbers(values: Mapping[str, ArrayLike], shape: tuple[int, int]) -> F64 | None:
    tables = []
    for name, value in values.items():
        table = np.asarray(value, dtype=np.float64)
        if table.shape != shape:
            raise DataError(f"values[{name!r}] has shape {table.shape}, but the layer has {shape[0]} components with {shape[1]} examples")
        tables.append(table)
    return np.ascontiguousarray(np.stack(tables, axis=1)) if tables else None


def _layer(
    db: ConceptDB,
    name: str,
    level: float,
    n: int,
    seed: int,
    queries: Queries | None,
    top: int,
    values: Mapping[str, ArrayLike],
    threads: int,
) -> LayerIntervals:
    own, rows = db[name], db.rows(name)
    counts, weights, normalize = own.live_counts(), example_weights(db, name), bool(db.record["build"]["normalize_examples"])
    nearest = kernels.redundancy(own.vectors, n_threads=threads)[1]
    targets, ids = own.vectors, nearest[:, None]
    if queries is not None:
        best = kernels.top_labels(own.vectors, queries.vectors, min(top, len(queries.names)), n_threads=threads)[0]
        used, places = np.unique(best, return_inverse=True)  # only the candidates' vectors are handed on, not the vocabulary's
        texts = queries.vectors[np.maximum(used, 0)]
        chosen = np.where(best >= 0, places.reshape(best.shape) + len(targets), -1)
        targets, ids = np.concatenate([targets, texts]), np.concatenate([ids, chosen], axis=1)
    clusters = kernels.polysemanticity(db.embeddings, rows, counts, n_threads=threads)[1]
    table = (db.embeddings, rows, counts, weights, clusters, np.ascontiguousarray(targets), np.ascontiguousarray(ids, dtype=np.int64))
    options: dict[str, Any] = {"normalize": normalize, "resamples": n, "steps": STEPS, "level": level, "seed": seed, "n_threads": threads}
    out, _ = kernels.bootstrap(*table, _numbers(values, rows.shape), **options)
    label, index, share = None, None, None
    if queries is not None:
        wins = kernels.bootstrap(*table[:4], None, table[5], table[6][:, 1:].copy(), **options)[1]
        label, index, share = _interval(out, 3), best[:, 0], wins[:, 0]
    first = 2 + ids.shape[1]
    return LayerIntervals(
        layer=name,
        clarity=_interval(out, 0),
        polysemanticity=_interval(out, 1),
        redundancy=_interval(out, 2),
        label=label,
        label_index=index,
        label_share=share,
        values={key: _interval(out, first + j) for j, key in enumerate(values)},
    )


def example_weights(db: ConceptDB, layer: str) -> NDArray[np.float32] | None:
    """The weights the database's concept vectors were made with: (K, m) float32, or None for equal ones."""
    if db.record["build"]["weighting"] != "scores":
        return None
    activations = db[layer].example_scores
    return np.where(np.isfinite(activations), np.maximum(activations, 0), 0).astype(np.float32)


def _interval(out: F64, score: int) -> Interval:
    value, lower, upper, mean, deviation = (np.ascontiguousarray(out[:, score, j]) for j in range(5))
    return Interval(value=value, lower=lower, upper=upper, mean=mean, deviation=deviation)
