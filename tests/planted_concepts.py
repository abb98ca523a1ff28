"""Concept databases with concept vectors of one's own: every component has copies of one picture, whose vector is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semanticlens.encoders import Arrays
from semanticlens.lens.database import ConceptDB


class Layer:
    """Examples as ConceptDB.build takes them: component k has `counts[k]` times picture `first + k`; a negative count is dead."""

    def __init__(self, first: int, counts: Sequence[int], width: int) -> None:
        k = len(counts)
        self.ids = np.full((k, width), -1, np.int64)
        self.scores = np.full((k, width), -np.inf, np.float32)
        self.counts = np.abs(np.array(counts, np.int64))
        for row, count in enumerate(counts):
            self.ids[row, : abs(count)] = first + row
            self.scores[row, : abs(count)] = 1.0 if count > 0 else -1.0


def databases(*given: Any, counts: Any = None, names: Sequence[str] = ("alpha", "beta", "gamma", "delta")) -> list[ConceptDB]:
    """A database per argument: vectors (K, d), or a mapping of layer to these. ``counts`` has lists of the same form."""
    layers = [one if isinstance(one, dict) else {"layer": one} for one in given]
    sizes = [None if counts is None else counts[i] if isinstance(counts[i], dict) else {"layer": counts[i]} for i in range(len(layers))]
    table = np.concatenate([np.asarray(v, np.float32) for one in layers for v in one.values()])
    encoder = Arrays(images=table, name="planted")
    made, start = [], 0
    for i, one in enumerate(layers):
        examples = {}
        for name, vectors in one.items():
            own = [3] * len(vectors) if sizes[i] is None else sizes[i][name]
            examples[name] = Layer(start, own, 3)
            start += len(vectors)
        db = ConceptDB.build(examples, None, encoder)
        db.record["network"] = {"name": names[i], "fingerprint": names[i] * 8}
        made.append(db)
    return made


def directions(n: int, d: int, seed: int = 0) -> np.ndarray:
    """(n, d) unit vectors, orthogonal to each other where there is room."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((n, d))
    if n <= d:
        found = np.linalg.qr(found.T)[0].T
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def at_cosine(vectors: np.ndarray, cosine: float, away: np.ndarray) -> np.ndarray:
    """Vectors moved towards ``away`` (orthogonal unit vectors), so that their cosine to where they were is ``cosine``."""
    return (cosine * vectors + np.sqrt(1 - cosine**2) * away).astype(np.float32)
