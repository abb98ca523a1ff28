"""The file of a concept database: one safetensors container, its record as JSON in the metadata, a SHA-256 over both."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError
from semanticlens.io import TensorFile, read_tensors, sha256_of_arrays, write_tensors
from semanticlens.lens.boxes import check_boxes
from semanticlens.lens.concepts import LayerConcepts

__all__ = ["FORMAT", "SCHEMA", "read_database", "write_database"]

FORMAT = "semanticlens-concepts"
SCHEMA = "1"
_LAYER = {"ids": ("i8", 2), "example_scores": ("f4", 2), "counts": ("i8", 1), "dead": ("b1", 1), "vectors": ("f4", 2)}

Arrays = dict[str, NDArray[Any]]


def _digest(arrays: Mapping[str, NDArray[Any]], record: str) -> str:
    return sha256_of_arrays({**arrays, "(record)": np.frombuffer(record.encode("utf-8"), np.uint8)})


def write_database(path: str | os.PathLike[str], arrays: Arrays, layers: Mapping[str, LayerConcepts], record: Mapping[str, Any]) -> None:
    """Write atomically; the same content always gives the same bytes."""
    stored = dict(arrays)
    for i, concepts in enumerate(layers.values()):
        stored.update({f"layer.{i}.{name}": value for name, value in concepts.arrays().items()})
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_tensors(path, stored, {"format": FORMAT, "schema": SCHEMA, "record": text, "sha256": _digest(stored, text)})


def read_database(path: str | os.PathLike[str], *, verify: bool = True) -> tuple[Arrays, dict[str, LayerConcepts], dict[str, Any]]:
    """Arrays (memory-mapped), layers and record of a file, all checked against one another.

    Raises
    ------
    ModelFileError
        Not a concept database, another schema, damaged, or parts that do not fit together.
    """
    file = read_tensors(path)
    record = _record(file)
    if verify and _digest(file, file.metadata["record"]) != file.metadata.get("sha256"):
        raise ModelFileError(f"{path}: the content does not match its SHA-256; the file is damaged, make or copy it again")
    try:
        return _checked(file, record)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: not a consistent concept database: {error}") from None


def _record(file: TensorFile) -> dict[str, Any]:
    meta = file.metadata
    if meta.get("format") != FORMAT:
        raise ModelFileError(f"{file.path}: not a concept database (its format is {meta.get('format')!r}); ConceptDB.save writes one")
    if meta.get("schema") != SCHEMA:
        raise ModelFileError(
            f"{file.path}: concept database of schema {meta.get('schema')!r}; this version reads {SCHEMA!r}: build it again, "
            "or update the package"
        )
    try:
        record = json.loads(meta["record"])
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{file.path}: the record of the concept database cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise ModelFileError(f"{file.path}: the record of the concept database is not an object")
    return record


def _take(file: Mapping[str, NDArray[Any]], name: str, code: str, ndim: int) -> NDArray[Any]:
    if name not in file:
        raise ValueError(f"array {name!r} is missing")
    array = file[name]
    if array.dtype != np.dtype(code) or array.ndim != ndim:
        raise ValueError(f"array {name!r} is {array.dtype} with {array.ndim} dimensions instead of {np.dtype(code)} with {ndim}")
    return array


def _checked(file: TensorFile, record: dict[str, Any]) -> tuple[Arrays, dict[str, LayerConcepts], dict[str, Any]]:
    encoder, names = record["encoder"], [layer["name"] for layer in record["layers"]]
    if not (isinstance(encoder["name"], str) and isinstance(encoder["fingerprint"], str) and isinstance(encoder["dim"], int)):
        raise ValueError("the record's encoder has no name, fingerprint and dim")
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError("layer names are not different texts")
    arrays: Arrays = {"embeddings": _take(file, "embeddings", "f4", 2), "sample_ids": _take(file, "sample_ids", "i8", 1)}
    ids, n = arrays["sample_ids"], len(arrays["embeddings"])
    parts = any(f"layer.{i}.boxes" in file for i in range(len(names)))
    if arrays["embeddings"].shape != (n if parts else len(ids), encoder["dim"]):
        raise ValueError(f"embeddings have shape {arrays['embeddings'].shape} for {len(ids)} samples and {encoder['dim']} dimensions")
    if ids.size and (ids[0] < 0 or (np.diff(ids) <= 0).any()):
        raise ValueError("sample ids are not ascending")
    if "thumbnails" in file:
        arrays["thumbnails"], arrays["thumbnail_offsets"] = _take(file, "thumbnails", "u1", 1), _take(file, "thumbnail_offsets", "i8", 1)
        offsets = arrays["thumbnail_offsets"]
        if len(offsets) != len(ids) + 1 or offsets[0] != 0 or offsets[-1] != arrays["thumbnails"].size or (np.diff(offsets) < 0).any():
            raise ValueError("thumbnail offsets do not describe the thumbnails")
    layers = {name: _layer(file, i, name, ids, encoder["dim"], n if parts else None) for i, name in enumerate(names)}
    expected = set(arrays) | {f"layer.{i}.{name}" for i, layer in enumerate(layers.values()) for name in layer.arrays()}
    if set(file) != expected:
        raise ValueError(f"unknown arrays {sorted(set(file) - expected)[:3]}")
    return arrays, layers, record


def _layer(file: TensorFile, i: int, name: str, sample_ids: NDArray[Any], dim: int, parts: int | None) -> LayerConcepts:
    """Layer ``i``; ``parts``: how many embeddings there are, where they are of parts of pictures."""
    got = {key: _take(file, f"layer.{i}.{key}", code, ndim) for key, (code, ndim) in _LAYER.items()}
    ids, counts = got["ids"], got["counts"]
    n_components, width = ids.shape
    shapes = {"example_scores": ids.shape, "counts": (n_components,), "dead": (n_components,), "vectors": (n_components, dim)}
    for key, shape in shapes.items():
        if got[key].shape != shape:
            raise ValueError(f"layer {name!r}: {key} has shape {got[key].shape} instead of {shape}")
    if counts.size and (counts.min() < 0 or counts.max() > width):
        raise ValueError(f"layer {name!r}: counts outside 0..{width}")
    present = ids[ids != -1]
    if present.size:
        place = np.minimum(np.searchsorted(sample_ids, present), max(len(sample_ids) - 1, 0))
        if len(sample_ids) == 0 or (sample_ids[place] != present).any():
            raise ValueError(f"layer {name!r}: an example id is not among the samples")
    key = f"layer.{i}.class_affinity"
    affinity = _take(file, key, "f4", 2) if key in file else None
    if affinity is not None and len(affinity) != n_components:
        raise ValueError(f"layer {name!r}: class_affinity has {len(affinity)} rows instead of {n_components}")
    return LayerConcepts(
        layer=name,
        ids=ids,
        example_scores=got["example_scores"],
        counts=counts,
        dead=got["dead"],
        vectors=got["vectors"],
        class_affinity=affinity,
        **({} if parts is None else _parts(file, i, name, ids, parts)),
    )


def _parts(file: TensorFile, i: int, name: str, ids: NDArray[Any], n: int) -> dict[str, NDArray[Any]]:
    """Boxes of a layer's examples, and which embeddings are theirs."""
    boxes, rows = _take(file, f"layer.{i}.boxes", "f4", 3), _take(file, f"layer.{i}.rows", "i8", 2)
    check_boxes(boxes, ids, f"boxes of layer {name!r}")
    if rows.shape != ids.shape or ((rows < 0) != (ids < 0)).any() or rows.max(initial=-1) >= n or rows.min(initial=0) < -1:
        raise ValueError(f"layer {name!r}: rows do not say which of the {n} embeddings belong to the examples")
    return {"boxes": boxes, "rows": rows}
