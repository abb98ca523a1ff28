"""``semanticlens align``: two files of proximities or features, compared layer by layer and concept by concept."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens.cli.npz import read_npz

__all__ = ["Layers", "compared", "read", "summary"]

IDS, PLACES = "sample_ids", "places"


@dataclass(frozen=True, slots=True)
class Layers:
    """What a file holds: matrices (n, K) by layer, and what their rows are, if it says."""

    name: str
    arrays: Mapping[str, NDArray[Any]]
    sample_ids: NDArray[np.int64] | None
    features: Any = None


def read(path: Path) -> Layers:
    """Matrices of a .npz file, in its order, or features as :meth:`Features.save` wrote them."""
    if path.suffix == ".safetensors" and path.is_file():
        from semanticlens.alignment import Features

        found = Features.load(path)
        return Layers(path.stem, found, found.sample_ids, found)
    arrays = read_npz(path)
    ids = arrays.pop(IDS, None)
    arrays.pop(PLACES, None)
    for name, array in arrays.items():
        if array.ndim != 2 or array.dtype.kind not in "fiub":
            raise DataError(
                f"{path}: {name} is {array.dtype} of shape {array.shape}; every array but {IDS} must be a matrix (samples, concepts)"
            )
    if not arrays:
        raise DataError(f"{path} holds no matrix: save proximities by layer, numpy.savez(path, layer1=P1, layer2=P2, {IDS}=ids)")
    if ids is not None and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
        raise DataError(f"{path}: {IDS} is {ids.dtype} of shape {ids.shape}; it must be whole numbers, one per row")
    return Layers(path.stem, arrays, None if ids is None else ids.astype(np.int64))


def _pairs(texts: list[str] | None) -> list[tuple[str, str]] | None:
    if texts is None:
        return None
    pairs = [tuple(text.split(":")) for text in texts]
    for text, pair in zip(texts, pairs, strict=True):
        if len(pair) != 2:
            raise ValueError(f"--pairs {text}: must be LAYER_OF_A:LAYER_OF_B")
    return [(pair[0], pair[1]) for pair in pairs]


def compared(options: argparse.Namespace, images: Any, progress: bool) -> Any:
    """The Comparison that the options ask for."""
    from semanticlens.alignment import compare, compare_proximities

    a, b = read(Path(options.a)), read(Path(options.b))
    names = (a.name, b.name) if a.name != b.name else (str(options.a), str(options.b))
    shared: dict[str, Any] = {"images": images, "noise": options.noise, "cuts": options.cuts, "pairs": _pairs(options.pairs),
                              "names": names,
                              "n_threads": options.threads, "progress": progress}  # fmt: skip
    if options.features or a.features is not None or b.features is not None:
        return compare(a.features or _with_ids(a), b.features or _with_ids(b), discover=_discovery(options), **shared)
    return compare_proximities(a.arrays, b.arrays, sample_ids=(a.sample_ids, b.sample_ids), **shared)


def _with_ids(found: Layers) -> Any:
    """Features of a .npz, as Features where it says what its rows are."""
    if found.sample_ids is None:
        return dict(found.arrays)
    from semanticlens.alignment import Features

    places = np.full((len(found.sample_ids), 2), np.nan)
    record: dict[str, Any] = {"network": {"name": found.name, "fingerprint": None}, "data": None, "parameters": None}
    return Features(arrays=dict(found.arrays), sample_ids=found.sample_ids, places=places, record=record)


def _discovery(options: argparse.Namespace) -> Any:
    if options.min_cluster_size is None:
        return None
    from semanticlens.alignment import NLMCD

    size = options.min_cluster_size
    return NLMCD(n_components=10, min_cluster_size=size, min_samples=max(2, size * 2 // 5))


def summary(found: Any) -> str:
    """The comparison in a few lines of text."""
    from semanticlens.lens.results import text_table

    first, table = len(found.side(0)), found.matrix
    rows: list[list[object]] = []
    for i, a in enumerate(found.side(0)):
        j = first + int(np.nan_to_num(table.aci[i, first:], nan=-np.inf).argmax())
        one = table[i, j]
        b = found.representations[j]
        rows.append([a.layer, a.memberships.shape[1], b.layer, b.memberships.shape[1], one.aci,
                     one.ndc, one.ndc_null, one.stderr])  # fmt: skip
    heads = [f"layer of {found.names[0]}", "concepts", f"nearest in {found.names[1]}", "concepts", "aci", "ndc", "by chance", "stderr"]
    lines = [f"{table.n} samples, noise {table.noise}", "", text_table(heads, rows)]
    for name, score in zip(found.names, found.sanity, strict=True):
        if score is not None:
            lines.append(f"sanity of {name}: {score:.2f} of the layers resemble a neighbour most")
    for p in found.pairs:
        counts: dict[str, int] = {}
        for r in p.relations:
            kind = {"only P": f"only in {found.names[0]}", "only Q": f"only in {found.names[1]}"}.get(r.kind, r.kind)
            counts[kind] = counts.get(kind, 0) + 1
        lines.append(f"{p.a.layer} / {p.b.layer}: " + (", ".join(f"{n} {kind}" for kind, n in counts.items()) or "no concepts"))
    return "\n".join(lines)
