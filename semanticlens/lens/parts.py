"""What a concept database is put together from: checks of the sources, concept vectors, records, joined samples."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, MismatchError, SkippedDataWarning
from semanticlens._kernels import lens as kernels
from semanticlens.encoders.protocol import Encoder
from semanticlens.lens.boxes import check_boxes
from semanticlens.lens.concepts import LayerConcepts

__all__ = [
    "check_source",
    "data_record",
    "example_rows",
    "form_concepts",
    "layer_record",
    "merge_samples",
    "name_of",
    "print_of",
    "warn_unusable",
]


def example_rows(sample_ids: NDArray[np.int64], ids: ArrayLike) -> NDArray[np.int64]:
    """Rows of the embeddings for data set positions; -1 stays -1."""
    wanted = np.asarray(ids)
    return np.where(wanted < 0, -1, np.searchsorted(sample_ids, np.maximum(wanted, 0))).astype(np.int64)


def form_concepts(
    name: str, layer: Any, rows: NDArray[np.int64], embeddings: NDArray[np.float32], normalize: bool, weighting: str, threads: int
) -> LayerConcepts:
    """The concepts of a layer, from its examples and the embeddings, of which ``rows`` (K, m) belong to the examples."""
    ids, counts = np.ascontiguousarray(layer.ids, np.int64), np.ascontiguousarray(layer.counts, np.int64)
    activations = np.ascontiguousarray(layer.scores, np.float32)
    dead = np.ascontiguousarray(getattr(layer, "dead", ~(activations.max(axis=1) > 0)), bool)
    weights = np.where(np.isfinite(activations), np.maximum(activations, 0), 0).astype(np.float32) if weighting == "scores" else None
    vectors, _ = kernels.concept_vectors(
        embeddings,
        rows,
        np.where(dead, 0, counts).astype(np.int64),
        weights,
        normalize=normalize,
        n_threads=threads,
    )
    affinity, boxes = getattr(layer, "class_affinity", None), getattr(layer, "boxes", None)
    return LayerConcepts(
        layer=name,
        ids=ids,
        example_scores=activations,
        counts=counts,
        dead=dead,
        vectors=vectors,
        class_affinity=None if affinity is None else np.ascontiguousarray(affinity, np.float32),
        boxes=None if boxes is None else np.ascontiguousarray(boxes, np.float32),
        rows=None if boxes is None else rows,
    )


def check_source(layers: Mapping[str, Any], images: Any, encoder: Encoder, source: Mapping[str, Any]) -> None:
    """Do examples, pictures and encoder belong together?  Raises where they do not."""
    for name, layer in layers.items():
        if np.ndim(layer.ids) != 2 or np.shape(layer.scores) != np.shape(layer.ids) or np.shape(layer.counts) != (len(layer.ids),):
            raise DataError(
                f"layer {name!r}: ids and scores must be (K, m) and counts (K,), "
                f"not {np.shape(layer.ids)}, {np.shape(layer.scores)}, {np.shape(layer.counts)}"
            )
        if layer.ids.shape[1] == 0:
            raise DataError(f"layer {name!r} has no examples per component: collect with top of at least 1")
    _check_parts(layers, images, encoder)
    length = None if images is None else len(images)
    if images is None and not hasattr(encoder, "image_vectors"):
        raise DataError(f"encoder {encoder.name!r} has to see the pictures: pass images, the data set the examples were collected on")
    made, here = print_of(source.get("data")), getattr(images, "fingerprint", None)
    if made is not None and here is not None and made != here:
        raise MismatchError(
            f"the examples were collected on {name_of(source.get('data'))!r} ({str(made)[:12]}), but images is "
            f"{getattr(images, 'name', '?')!r} ({str(here)[:12]})"
        )
    rows = getattr(encoder, "n_images", None)
    if rows is not None and length is not None and rows != length:
        raise MismatchError(
            f"encoder {encoder.name!r} has vectors for {rows} pictures, but the data set has {length}: row i must belong to picture i"
        )
    limit = length if length is not None else rows
    highest = max((int(layer.ids.max()) for layer in layers.values() if layer.ids.size), default=-1)
    if limit is not None and highest >= limit:
        raise MismatchError(f"the examples name picture {highest}, but there are only {limit}: they were collected on another data set")


def _check_parts(layers: Mapping[str, Any], images: Any, encoder: Encoder) -> None:
    """Examples with crops: in all layers or in none, and only for an encoder that sees pictures."""
    cropped = [name for name, layer in layers.items() if getattr(layer, "boxes", None) is not None]
    if not cropped:
        return
    if len(cropped) < len(layers):
        other = next(name for name in layers if name not in cropped)
        raise DataError(f"layer {cropped[0]!r} has crops and layer {other!r} has none: collect them alike, or build two databases")
    if images is None or hasattr(encoder, "image_vectors"):
        raise DataError(
            f"the examples have crops, and encoder {encoder.name!r} has vectors of whole pictures: pass images and an encoder that sees "
            "pictures, or collect without crops"
        )
    for name in cropped:
        try:
            check_boxes(layers[name].boxes, layers[name].ids, f"boxes of layer {name!r}")
        except ValueError as error:
            raise DataError(str(error)) from None


def print_of(record: Any) -> Any:
    """The fingerprint in a record; None if there is none."""
    return record.get("fingerprint") if isinstance(record, Mapping) else None


def name_of(record: Any) -> Any:
    """The name in a record."""
    return record.get("name") if isinstance(record, Mapping) else record


def data_record(images: Any, source: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the data set: from the pictures, else from the record of the examples."""
    known = dict(source["data"]) if isinstance(source.get("data"), Mapping) else {}
    if images is not None:
        known.update(name=str(getattr(images, "name", type(images).__name__)), length=len(images))
        if getattr(images, "fingerprint", None) is not None:
            known["fingerprint"] = images.fingerprint
    names = source.get("class_names") or getattr(images, "class_names", None)
    if names is not None:
        known["class_names"] = [str(name) for name in names]
    return known


def layer_record(name: str, layer: Any) -> dict[str, Any]:
    """Name, sizes and pooling of a layer."""
    record = {"name": name, "components": int(layer.ids.shape[0]), "examples": int(layer.ids.shape[1])}
    for key in ("pool", "n_samples"):
        if getattr(layer, key, None) is not None:
            value = getattr(layer, key)
            record[key] = int(value) if isinstance(value, (int, np.integer)) else str(value)
    return record


def warn_unusable(vectors: NDArray[np.float32], encoder: Encoder) -> None:
    """One warning with the number of pictures whose vector is NaN, infinite or of length 0; an error if none is finite."""
    finite = np.isfinite(vectors).all(axis=1)
    if len(vectors) and not finite.any():
        raise DataError(
            f"the vectors of all {len(vectors)} pictures in encoder {encoder.name!r} hold NaN or infinite values: check how they were made"
        )
    bad = int((~finite | (vectors == 0).all(axis=1)).sum())
    if bad:
        warnings.warn(
            f"{bad} of {len(vectors)} pictures have no usable vector in encoder {encoder.name!r} (NaN, infinite or of length 0); "
            "they are left out of concept vectors and scores",
            SkippedDataWarning,
            stacklevel=3,
        )


def merge_samples(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]], *, parts: bool) -> dict[str, NDArray[Any]]:
    """Embeddings and thumbnails of the pictures of either database; embeddings of parts of pictures one after the other."""
    ids = np.union1d(a["sample_ids"], b["sample_ids"])
    from_a = np.isin(ids, a["sample_ids"])
    if parts:
        vectors = np.concatenate([a["embeddings"], b["embeddings"]])
    else:
        vectors = np.empty((len(ids), a["embeddings"].shape[1]), np.float32)
        vectors[from_a] = a["embeddings"]
        vectors[~from_a] = b["embeddings"][np.searchsorted(b["sample_ids"], ids[~from_a])]
    merged: dict[str, NDArray[Any]] = {"embeddings": vectors, "sample_ids": ids}
    if "thumbnails" in a and "thumbnails" in b:
        blobs = [_blob(a if own else b, int(i)) for i, own in zip(ids, from_a, strict=True)]
        merged["thumbnails"] = np.frombuffer(b"".join(blobs), np.uint8)
        merged["thumbnail_offsets"] = np.cumsum([0, *map(len, blobs)], dtype=np.int64)
    return merged


def _blob(arrays: Mapping[str, NDArray[Any]], sample_id: int) -> bytes:
    place = int(np.searchsorted(arrays["sample_ids"], sample_id))
    begin, end = arrays["thumbnail_offsets"][place : place + 2]
    return bytes(arrays["thumbnails"][begin:end].tobytes())
