"""The concepts of one layer: examples, concept vectors, flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LayerConcepts"]

_STORED = ("ids", "example_scores", "counts", "dead", "vectors", "class_affinity", "boxes", "rows")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LayerConcepts:
    """Concept examples and concept vectors of a layer with K components and up to m examples each.

    Attributes
    ----------
    layer : str
    ids : ndarray of shape (K, m), int64
        Data set positions of the examples, best first; -1 for an empty place.
    example_scores : ndarray of shape (K, m), float32
        Their pooled activations; -inf for an empty place.
    counts : ndarray of shape (K,), int64
        Examples there are.
    dead : ndarray of shape (K,), bool
        No activation was above 0: no vector, no scores, left out of means.
    vectors : ndarray of shape (K, d), float32
        Concept vectors; NaN rows where undefined.
    class_affinity : ndarray of shape (K, Y), float32, or None
        Mean of each class's top activations.
    boxes : ndarray of shape (K, m, 4), float32, or None
        Where the encoder saw a part of each picture: (left, top, right, bottom) as shares of its width and height; NaN for an empty place.
    rows : ndarray of shape (K, m), int64, or None
        With ``boxes``: which row of the database's embeddings belongs to each example.
    """

    layer: str
    ids: NDArray[np.int64]
    example_scores: NDArray[np.float32]
    counts: NDArray[np.int64]
    dead: NDArray[np.bool_]
    vectors: NDArray[np.float32]
    class_affinity: NDArray[np.float32] | None = None
    boxes: NDArray[np.float32] | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        sizes = f"{self.ids.shape[1]} examples each, {self.vectors.shape[1]} dimensions"
        return f"LayerConcepts({self.layer!r}, {len(self)} components ({int(self.dead.sum())} dead), {sizes})"

    def examples(self, component: int) -> NDArray[np.int64]:
        """Data set positions of a component's examples, best first, without empty places."""
        own = self.ids[component, : int(self.counts[component])]
        return np.asarray(own[own >= 0])

    def live_counts(self) -> NDArray[np.int64]:
        """``counts`` with 0 for dead components: what statistics read."""
        return np.where(self.dead, 0, self.counts).astype(np.int64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored, by name."""
        found = {name: getattr(self, name) for name in _STORED}
        return {name: value for name, value in found.items() if value is not None}
