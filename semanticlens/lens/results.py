"""What searching, labelling and scoring return: frozen, printable, and convertible to plain Python with ``to_dict``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import LayerNotFoundError
from semanticlens.io import atomic_write

__all__ = ["ComponentLabel", "Hit", "Labels", "LayerLabels", "LayerScores", "Scores", "SearchResult", "text_table"]

UNLABELLED = "unlabelled"
SHOWN = 20  # rows of a printed table


def text_table(headers: Sequence[str], rows: Iterable[Sequence[object]], limit: int | None = None) -> str:
    """Columns of text, numbers to the right, with a last line that says how many rows are not shown."""
    body = [[_cell(value) for value in row] for row in rows]
    left_out = 0 if limit is None else max(0, len(body) - limit)
    body = body[: len(body) - left_out]
    widths = [max(map(len, column)) for column in zip(headers, *body, strict=True)]
    right = [bool(body) and all(_looks_numeric(row[j]) for row in body) for j in range(len(headers))]
    lines = [
        "  ".join(text.rjust(w) if r else text.ljust(w) for text, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in [list(headers), *body]
    ]
    return "\n".join(lines + ([f"... {left_out} more"] if left_out else []))


def _cell(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _looks_numeric(text: str) -> bool:
    return text == "-" or text.lstrip("-").replace(".", "", 1).isdigit()


def number(value: Any) -> float | None:
    """A float that JSON can hold: None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def _html_table(headers: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> str:
    from semanticlens.plot import html

    return str(html.table(headers, rows, caption=caption, limit=SHOWN))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Hit:
    """One component that answers to a query.

    Attributes
    ----------
    rank : int
        1 for the best of its query.
    query : str
        The text, or a name such as "vector 0" or "image".
    layer, component : str, int
    score : float
        Cosine, or difference of cosines with ``null="score"``.
    ids, example_scores : ndarray of shape (n,)
        The component's examples: data set positions, best first, and their activations.
    classes : tuple of (str, float)
        The classes whose pictures activate it most (mean of its top activations per class), if the data had labels.
    """

    rank: int
    query: str
    layer: str
    component: int
    score: float
    ids: NDArray[np.int64]
    example_scores: NDArray[np.float32]
    classes: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "rank": self.rank,
            "query": self.query,
            "layer": self.layer,
            "component": self.component,
            "score": number(self.score),
            "ids": self.ids.tolist(),
            "example_scores": [number(s) for s in self.example_scores],
            "classes": [[name, number(score)] for name, score in self.classes],
        }

    def __repr__(self) -> str:
        return f"Hit({self.rank}. {self.query!r}: {self.layer}:{self.component}, score {self.score:.3f})"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SearchResult(Sequence[Hit]):
    """Hits of all queries, query after query, best first.

    Attributes
    ----------
    hits : tuple of Hit
    queries : tuple of str
    templates : tuple of str, or None
    null : {"none", "vector", "score"}
        The null correction that was applied.
    threshold : float or None
        Only components above it are hits.
    scores : mapping of str to ndarray (Q, K)
        Scores of all components of each layer, one row per query; NaN for dead components.
    """

    hits: tuple[Hit, ...]
    queries: tuple[str, ...]
    templates: tuple[str, ...] | None
    null: str
    threshold: float | None
    scores: Mapping[str, NDArray[np.float32]]
    _pictures: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def of(self, query: str) -> tuple[Hit, ...]:
        """Hits of one query."""
        if query not in self.queries:
            raise KeyError(f"{query!r} was not a query; there were {', '.join(map(repr, self.queries[:8]))}")
        return tuple(hit for hit in self.hits if hit.query == query)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON (without the full score matrices)."""
        return {
            "queries": list(self.queries),
            "templates": None if self.templates is None else list(self.templates),
            "null": self.null,
            "threshold": self.threshold,
            "hits": [hit.to_dict() for hit in self.hits],
        }

    def _rows(self) -> list[list[object]]:
        return [[h.query, h.rank, h.layer, h.component, h.score, ", ".join(name for name, _ in h.classes[:3])] for h in self.hits]

    def __repr__(self) -> str:
        return (
            text_table(["query", "rank", "layer", "component", "score", "classes"], self._rows(), SHOWN)
            if self.hits
            else "no component scores above the threshold"
        )

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        headers, rows = ["query", "rank", "layer", "component", "score", "classes"], self._rows()
        if self._pictures is not None:
            headers.append("examples")
            for row, hit in zip(rows, self.hits, strict=True):
                row.append(html.strip([self._pictures(hit.layer, hit.component, rank) for rank in range(min(6, len(hit.ids)))], size=48))
        return _html_table(headers, rows, "Search")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ComponentLabel:
    """The label of one component: ``str()`` of it is the name, or "unlabelled"."""

    layer: str
    component: int
    candidates: tuple[tuple[str, float], ...]
    unlabelled: bool
    p_value: float | None = None
    q_value: float | None = None

    @property
    def name(self) -> str | None:
        """The best name, or None if it does not reach the threshold or, with ``fdr``, is no better than chance."""
        return None if self.unlabelled else self.candidates[0][0]

    @property
    def score(self) -> float:
        """Score of the best candidate; NaN if there is none (dead component)."""
        return self.candidates[0][1] if self.candidates else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "layer": self.layer,
            "component": self.component,
            "name": self.name,
            "score": number(self.score),
            "unlabelled": self.unlabelled,
            "candidates": [[name, number(score)] for name, score in self.candidates],
            **({} if self.p_value is None or self.q_value is None else {"p": number(self.p_value), "q": number(self.q_value)}),
        }

    def __str__(self) -> str:
        return self.name if self.name is not None else UNLABELLED


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LayerLabels:
    """Labels of a layer as arrays.

    Attributes
    ----------
    indices : ndarray of shape (K, n), int64
        Places in the vocabulary, best first; -1 where there are fewer candidates, and for dead components.
    scores : ndarray of shape (K, n), float32
    unlabelled : ndarray of shape (K,), bool
        The best score is below the threshold, or there is none; with ``fdr``, or it is not significant.
    vocabulary : tuple of str
    p_values, q_values : ndarray of shape (K,), float64, or None
        With ``fdr``: p-value of the best score, and adjusted for all components, see :mod:`semanticlens.lens.significance`.
    """

    layer: str
    indices: NDArray[np.int64]
    scores: NDArray[np.float32]
    unlabelled: NDArray[np.bool_]
    vocabulary: tuple[str, ...] = field(repr=False)
    p_values: NDArray[np.float64] | None = None
    q_values: NDArray[np.float64] | None = None

    @property
    def names(self) -> NDArray[np.object_]:
        """(K, n) candidate names, best first; None where there is none."""
        table = np.array([*self.vocabulary, None], dtype=object)
        return table[self.indices]  # -1 picks the None at the end

    @property
    def best(self) -> list[str]:
        """Per component its name, or "unlabelled"."""
        return [UNLABELLED if skip else self.vocabulary[row[0]] for row, skip in zip(self.indices, self.unlabelled, strict=True)]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, component: int) -> ComponentLabel:
        k = range(len(self))[component]
        pairs = [(self.vocabulary[j], float(s)) for j, s in zip(self.indices[k], self.scores[k], strict=True) if j >= 0]
        p, q = (None if v is None else float(v[k]) for v in (self.p_values, self.q_values))
        return ComponentLabel(
            layer=self.layer, component=k, candidates=tuple(pairs), unlabelled=bool(self.unlabelled[k]), p_value=p, q_value=q
        )


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Labels(Mapping[str, LayerLabels]):
    """Labels of all layers: ``labels["layer"]`` is a :class:`LayerLabels`, ``labels["layer", k]`` a :class:`ComponentLabel`."""

    layers: Mapping[str, LayerLabels]
    vocabulary: tuple[str, ...] = field(repr=False)
    templates: tuple[str, ...] | None
    null: str
    threshold: float
    fdr: float | None = None

    @overload
    def __getitem__(self, key: str) -> LayerLabels: ...
    @overload
    def __getitem__(self, key: tuple[str, int]) -> ComponentLabel: ...
    def __getitem__(self, key: str | tuple[str, int]) -> LayerLabels | ComponentLabel:
        layer = key if isinstance(key, str) else key[0]
        if layer not in self.layers:
            raise LayerNotFoundError(layer, self.layers, "the labels")
        return self.layers[layer] if isinstance(key, str) else self.layers[layer][key[1]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __contains__(self, key: object) -> bool:
        return key in self.layers

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "templates": None if self.templates is None else list(self.templates),
            "null": self.null,
            "threshold": self.threshold,
            **({} if self.fdr is None else {"fdr": self.fdr}),
            "vocabulary_size": len(self.vocabulary),
            "layers": {name: [layer[k].to_dict() for k in range(len(layer))] for name, layer in self.layers.items()},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_dict` as JSON, atomically."""
        with atomic_write(path, "w") as file:
            json.dump(self.to_dict(), file, indent=1, ensure_ascii=False, allow_nan=False)

    def _rows(self) -> list[list[object]]:
        return [
            [name, k, layer.best[k], layer[k].score, ", ".join(n for n, _ in layer[k].candidates[1:4])]
            for name, layer in self.layers.items()
            for k in range(len(layer))
        ]

    def __repr__(self) -> str:
        return text_table(["layer", "component", "label", "score", "then"], self._rows(), SHOWN)

    def _repr_html_(self) -> str:
        return _html_table(["layer", "component", "label", "score", "then"], self._rows(), "Labels")


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LayerScores:
    """Scores of a layer's components; NaN where undefined (dead, too few usable examples), and left out of the means.

    Attributes
    ----------
    clarity, polysemanticity, redundancy : ndarray of shape (K,), float64
    nearest : ndarray of shape (K,), int64
        The most similar other component, whose cosine is the redundancy; -1 if there is none.
    intervals : LayerIntervals or None
        With ``db.scores(intervals=True)``.
    """

    layer: str
    clarity: NDArray[np.float64]
    polysemanticity: NDArray[np.float64]
    redundancy: NDArray[np.float64]
    nearest: NDArray[np.int64]
    intervals: Any = None

    @property
    def means(self) -> dict[str, float]:
        """Mean of each score over the components that have it."""
        return {name: _mean(getattr(self, name)) for name in ("clarity", "polysemanticity", "redundancy")}

    def __len__(self) -> int:
        return len(self.clarity)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Scores(Mapping[str, LayerScores]):
    """Scores of all layers: ``scores["layer"].clarity[k]`` and so on."""

    layers: Mapping[str, LayerScores]
    parameters: Mapping[str, Any]

    def __getitem__(self, layer: str) -> LayerScores:
        if layer not in self.layers:
            raise LayerNotFoundError(layer, self.layers, "the scores")
        return self.layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON; None stands for undefined."""
        layers = {}
        for name, layer in self.layers.items():
            lists = {score: [number(v) for v in getattr(layer, score)] for score in ("clarity", "polysemanticity", "redundancy")}
            layers[name] = {**lists, "nearest": layer.nearest.tolist(), "means": {key: number(value) for key, value in layer.means.items()}}
        return {"parameters": dict(self.parameters), "layers": layers}

    def _rows(self) -> list[list[object]]:
        return [[name, len(layer), int(np.isfinite(layer.clarity).sum()), *layer.means.values()] for name, layer in self.layers.items()]

    def __repr__(self) -> str:
        return text_table(["layer", "components", "scored", "clarity", "polysemanticity", "redundancy"], self._rows(), SHOWN)

    def _repr_html_(self) -> str:
        return _html_table(
            ["layer", "components", "scored", "clarity", "polysemanticity", "redundancy"], self._rows(), "Scores, means per layer"
        )
