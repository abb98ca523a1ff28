"""Concept examples: for each component of a layer, the samples that stimulate it most."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import LayerNotFoundError, MismatchError, ModelFileError
from semanticlens._kernels import collect as kernels
from semanticlens.io import read_tensors, sha256_of_arrays, write_tensors
from semanticlens.lens.boxes import check_boxes
from semanticlens.lens.idset import IdSet
from semanticlens.lens.relevance import carried

FORMAT = "semanticlens-examples"
SCHEMA = "1"
_ARRAYS = ("ids", "scores", "counts", "nan_counts")


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
class LayerExamples:
    """The concept examples of one layer with K components.

    Attributes
    ----------
    layer : str
    ids : ndarray (K, m), int64
        Positions in the data set, best first, equal scores by the smaller id; -1 where fewer than m were valid.
    scores : ndarray (K, m), float32
        Pooled activations, -inf where ``ids`` is -1.
    counts : ndarray (K,), int64
        How many of the m are there.
    nan_counts : ndarray (K,), int64
        How many samples gave NaN; they are never among the examples.
    n_samples : int
        Samples that were looked at.
    pool : str
        Name of the pooling.
    class_scores : ndarray (Y, K, c), float32, or None
        The c best scores of the samples of each class, descending, -inf where there are fewer.
    positions : ndarray (K, m), int64, or None
        For scores by relevance: the flat position (row * width + column, or the token) of each example's largest relevance in the
        layer's map; -1 where ``ids`` is -1.
    boxes : ndarray (K, m, 4), float32, or None
        For examples with crops: the part of each picture that the component looks at, (left, top, right, bottom) as shares of the
        picture's width and height; NaN where ``ids`` is -1.
    """

    layer: str
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    counts: NDArray[np.int64]
    nan_counts: NDArray[np.int64]
    n_samples: int
    pool: str
    class_scores: NDArray[np.float32] | None = None
    positions: NDArray[np.int64] | None = None
    boxes: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shape = self.scores.shape
        if (
            len(shape) != 2
            or self.ids.shape != shape
            or self.counts.shape != shape[:1]
            or self.nan_counts.shape != shape[:1]
        ):
            raise ValueError(
                f"layer {self.layer!r}: ids {self.ids.shape}, scores {shape}, counts {self.counts.shape} and nan_counts "
                f"{self.nan_counts.shape} do not belong together: (K, m), (K, m), (K,), (K,)"
            )
        if self.class_scores is not None and (self.class_scores.ndim != 3 or self.class_scores.shape[1] != shape[0]):
            raise ValueError(
                f"layer {self.layer!r}: class_scores has the shape {self.class_scores.shape}, not (classes, {shape[0]}, c)"
            )
        if self.positions is not None and self.positions.shape != shape:
            raise ValueError(f"layer {self.layer!r}: positions {self.positions.shape} and scores {shape} do not belong together")
        if self.boxes is not None and self.boxes.shape != (*shape, 4):
            raise ValueError(f"layer {self.layer!r}: boxes {self.boxes.shape} and scores {shape} do not belong together")
        for array in (self.ids, self.scores, self.counts, self.nan_counts, self.class_scores, self.positions, self.boxes):
            if array is not None and array.flags.writeable:
                array.flags.writeable = False

    def __len__(self) -> int:
        """Number of components."""
        return len(self.ids)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """(K,): no valid score is above 0."""
        return np.asarray(~(self.scores[:, 0] > 0.0))

    @property
    def class_affinity(self) -> NDArray[np.float32] | None:
        """(K, Y) float32: mean score of the c best samples of each class; NaN for a class without valid samples; None without labels.

        Source: the class statistics of Concept Relevance Propagation (c = 10 there).
        """
        if self.class_scores is None:
            return None
        valid = self.class_scores > -np.inf
        n = valid.sum(axis=2)
        total = np.where(valid, self.class_scores, 0.0).sum(axis=2, dtype=np.float64)
        affinity: NDArray[np.float32] = np.where(n > 0, total / np.maximum(n, 1), np.nan).T.astype(np.float32)
        return affinity

    def top_classes(self, n: int = 5, *, relative: bool = False) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The classes whose best samples stimulate each component most.

        Parameters
        ----------
        n : int
            At most this many; fewer if there are fewer classes.
        relative : bool
            Divide each component's values by its first.

        Returns
        -------
        classes : ndarray (K, n), int64
            Best first, equal values by the smaller class; -1 where a component has no more classes.
        affinity : ndarray (K, n), float32
            NaN where ``classes`` is -1.
        """
        affinity = self.class_affinity
        if affinity is None:
            raise ValueError(f"layer {self.layer!r} has no class statistics: collect with labels")
        if n < 1:
            raise ValueError(f"n={n}: must be at least 1")
        order = np.argsort(-affinity, axis=1, kind="stable")[:, :n]  # NaN sorts last
        best = np.take_along_axis(affinity, order, axis=1)
        classes = np.where(np.isnan(best), -1, order).astype(np.int64)
        if relative:
            with np.errstate(divide="ignore", invalid="ignore"):
                best = best / best[:, :1]
        return classes, best

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers; -inf becomes None."""
        affinity = self.class_affinity
        return {
            "layer": self.layer,
            "pool": self.pool,
            "n_samples": self.n_samples,
            "ids": self.ids.tolist(),
            "scores": [[s if s > -np.inf else None for s in row] for row in self.scores.tolist()],
            "counts": self.counts.tolist(),
            "nan_counts": self.nan_counts.tolist(),
            "dead": self.dead.tolist(),
            "class_affinity": None
            if affinity is None
            else [[None if a != a else a for a in row] for row in affinity.tolist()],
            **({} if self.positions is None else {"positions": self.positions.tolist()}),
            **({} if self.boxes is None else {"boxes": [[None if b[0] != b[0] else b for b in row] for row in self.boxes.tolist()]}),
        }

    def __repr__(self) -> str:
        classes = "" if self.class_scores is None else f", {len(self.class_scores)} classes"
        return (
            f"LayerExamples({self.layer!r}, {len(self):,} components ({int(self.dead.sum()):,} dead), top {self.ids.shape[1]} of "
            f"{self.n_samples:,} samples, pool {self.pool}{classes})"
        )

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        rows = [
            [
                k,
                int(self.counts[k]),
                _number(self.scores[k, 0]),
                ", ".join(str(i) for i in self.ids[k, :5] if i >= 0),
                "dead" if dead else "",
            ]
            for k, dead in zip(range(min(len(self), 20)), self.dead, strict=False)
        ]
        return html.table(["component", "examples", "best score", "best ids", ""], rows)


def _number(value: float) -> str:
    return f"{value:.4g}" if value > -np.inf else "–"


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
class ConceptExamples(Mapping[str, LayerExamples]):
    """Concept examples of one or more layers, with the record of what made them.

    Attributes
    ----------
    layers : dict of str to LayerExamples
    record : dict
        JSON-able: network and data set (name, SHA-256), parameters, package version, class names, ids looked at, pictures left out.
    """

    layers: Mapping[str, LayerExamples]
    record: dict[str, Any]

    def __getitem__(self, layer: str) -> LayerExamples:
        try:
            return self.layers[layer]
        except KeyError:
            raise LayerNotFoundError(layer, self.layers, "these concept examples") from None

    def __contains__(self, layer: object) -> bool:
        return layer in self.layers

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """Pictures left out: ``{"id": position, "reason": text}``, by position."""
        return [dict(entry) for entry in self.record["skipped"]]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that ``class_scores`` counts, or None."""
        names = self.record["class_names"]
        return None if names is None else tuple(names)

    @property
    def n_samples(self) -> int:
        """Samples that were looked at."""
        return len(IdSet(self.record["samples"]))

    def to_dict(self) -> dict[str, Any]:
        """The record and every layer as plain lists and numbers."""
        return {"record": self.record, "layers": {name: layer.to_dict() for name, layer in self.layers.items()}}

    def __repr__(self) -> str:
        lines = [
            f"ConceptExamples: network {self.record['network']['name']!r} on {self.record['data']['name']!r}, {self.n_samples:,} samples"
        ]
        lines += [
            f"  {name:<24} {len(e):>7,} components  {int(e.dead.sum()):>6,} dead  top {e.ids.shape[1]}  pool {e.pool}"
            for name, e in self.layers.items()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        rows = [
            [name, len(e), int(e.dead.sum()), e.ids.shape[1], e.n_samples, e.pool] for name, e in self.layers.items()
        ]
        return html.table(["layer", "components", "dead", "examples each", "samples", "pool"], rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; equal examples give equal bytes."""
        arrays = {
            f"{name}/{key}": value for name, layer in self.layers.items() for key, value in _arrays(layer).items()
        }
        record = dump_record(self.record)
        write_tensors(
            path, arrays, {"format": FORMAT, "schema": SCHEMA, "record": record, "sha256": digest(record, arrays)}
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConceptExamples:
        """Read what :meth:`save` wrote; the arrays stay on disk until they are used.

        Raises
        ------
        ModelFileError
            Not such a file, of another schema, truncated or changed since.
        """
        record, arrays = read_recorded(path, FORMAT, SCHEMA, "concept examples")
        try:
            for key in (*_SAME, "samples", "skipped", "version"):
                record[key]
            layers = {name: _layer(name, record, arrays) for name in record["layers"]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(
                f"{path}: its record does not describe its arrays ({type(error).__name__}: {error})"
            ) from None
        return cls(layers, record)

    def merge(self, *others: ConceptExamples) -> ConceptExamples:
        """These and ``others``, collected from different samples of the same data with the same parameters, as one.

        The result is that of a single run over all samples, in whatever order the parts are given.

        Raises
        ------
        MismatchError
            If network, data set, layers or parameters differ, or a sample was looked at twice.
        """
        result = self
        for other in others:
            result = _merge(result, other)
        return result


def _arrays(layer: LayerExamples) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {key: getattr(layer, key) for key in _ARRAYS}
    if layer.class_scores is not None:
        arrays["class_scores"] = layer.class_scores
    for key in ("positions", "boxes"):
        if getattr(layer, key) is not None:
            arrays[key] = getattr(layer, key)
    return arrays


def _layer(name: str, record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> LayerExamples:
    expected = {
        "ids": np.int64,
        "scores": np.float32,
        "counts": np.int64,
        "nan_counts": np.int64,
        "class_scores": np.float32,
        "positions": np.int64,
        "boxes": np.float32,
    }
    found = {key: arrays[f"{name}/{key}"] for key in expected if f"{name}/{key}" in arrays}
    for key, array in found.items():
        if array.dtype != expected[key]:
            raise ValueError(f"{name}/{key} is {array.dtype}, not {np.dtype(expected[key])}")
    if "boxes" in found:
        check_boxes(found["boxes"], found["ids"], f"{name}/boxes")
    if found["ids"].min(initial=0) < -1 or not np.array_equal(found["counts"], (found["ids"] >= 0).sum(axis=-1)):
        raise ValueError(f"{name}/ids and {name}/counts do not belong together")
    return LayerExamples(
        name, n_samples=len(IdSet(record["samples"])), pool=str(record["parameters"]["pool"][name]), **found
    )


def dump_record(record: Mapping[str, Any]) -> str:
    """JSON text, the same for equal records."""
    return json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def digest(record: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over a record and its arrays."""
    return hashlib.sha256(f"{record}\n{sha256_of_arrays(arrays)}".encode("utf-8", "surrogatepass")).hexdigest()


def read_recorded(
    path: str | os.PathLike[str], file_format: str, schema: str, what: str
) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    """Record and arrays of a file written with :func:`dump_record` and :func:`digest`, checked."""
    file = read_tensors(path)
    metadata = file.metadata
    if metadata.get("format") != file_format:
        raise ModelFileError(
            f"{path}: this file holds {metadata.get('format', 'plain tensors')!r}, not {what} ({file_format!r})"
        )
    if metadata.get("schema") != schema:
        raise ModelFileError(
            f"{path}: {what} of schema {metadata.get('schema')!r}; this version reads schema {schema!r}: make it anew or update the package"
        )
    if metadata.get("sha256") != digest(metadata.get("record", ""), file):
        raise ModelFileError(
            f"{path}: the contents do not match their SHA-256: the file was damaged or changed; make it anew"
        )
    try:
        record = json.loads(metadata.get("record", ""))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: its record is not valid JSON ({error})") from None
    if not isinstance(record, dict):
        raise ModelFileError(f"{path}: its record is not a JSON object")
    return record, file


_SAME = ("network", "data", "layers", "parameters", "labels", "class_names")


def _merge(a: ConceptExamples, b: ConceptExamples) -> ConceptExamples:
    for key in _SAME:
        if a.record[key] != b.record[key]:
            raise MismatchError(
                f"cannot merge concept examples: {key} is {a.record[key]} in one and {b.record[key]} in the other"
            )
    seen_a, seen_b = IdSet(a.record["samples"]), IdSet(b.record["samples"])
    if not seen_a.isdisjoint(seen_b):
        raise MismatchError(
            f"cannot merge concept examples: samples {_short(seen_a)} and {_short(seen_b)} overlap, they would count twice"
        )
    if a.record["version"] != b.record["version"]:
        raise MismatchError(
            f"cannot merge concept examples of package versions {a.record['version']} and {b.record['version']}"
        )
    samples = seen_a.union(seen_b)
    skipped = sorted(a.skipped + b.skipped, key=lambda entry: int(entry["id"]))
    return ConceptExamples(
        {name: _merge_layer(a[name], b[name], len(samples)) for name in a},
        {**a.record, "samples": samples.intervals, "skipped": skipped},
    )


def _short(ids: IdSet) -> str:
    runs = [f"{start}-{stop - 1}" for start, stop in ids.intervals]
    return ", ".join(runs[:4]) + (f" and {len(runs) - 4} more runs" if len(runs) > 4 else "")


def _merge_layer(a: LayerExamples, b: LayerExamples, n_samples: int) -> LayerExamples:
    if a.scores.shape != b.scores.shape:
        raise MismatchError(
            f"cannot merge concept examples: layer {a.layer!r} has {a.scores.shape} (components, top) in one, {b.scores.shape} in the other"
        )
    best = kernels.TopM(*a.scores.shape)
    for part in (a, b):
        best.merge(part.scores, part.ids, part.nan_counts)
    class_scores = None
    if a.class_scores is not None and b.class_scores is not None:
        both = np.concatenate([a.class_scores, b.class_scores], axis=2)
        class_scores = np.ascontiguousarray(-np.sort(-both, axis=2)[:, :, : a.class_scores.shape[2]])
    positions = None
    if a.positions is not None and b.positions is not None:
        positions = carried(best.ids, [(a.ids, a.positions), (b.ids, b.positions)])
    boxes = None
    if a.boxes is not None and b.boxes is not None:
        boxes = carried(best.ids, [(a.ids, a.boxes), (b.ids, b.boxes)])
    return LayerExamples(
        a.layer, best.ids, best.scores, best.counts, best.nan_counts, n_samples, a.pool, class_scores, positions, boxes
    )
