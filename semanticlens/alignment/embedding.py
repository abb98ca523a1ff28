"""From feature vectors to the space that is clustered: as they are, principal components, neighbour embeddings, or the user's."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, MissingExtraError
from semanticlens.alignment.axes import principal_axes
from semanticlens.alignment.neighbours import Neighbours

F64 = NDArray[np.float64]
NAMED = ("none", "pca", "neighbours", "umap")


class Embedder(Protocol):
    """What an embedding has to do."""

    def fit_transform(self, X: Any) -> Any: ...  # noqa: D102
    def transform(self, X: Any) -> Any: ...  # noqa: D102


class Plain:
    """The features themselves."""

    def fit_transform(self, X: NDArray[Any]) -> F64:
        """X."""
        return np.asarray(X, dtype=np.float64)

    def transform(self, X: NDArray[Any]) -> F64:
        """X."""
        return np.asarray(X, dtype=np.float64)


class Principal:
    """The first principal components, not scaled: distances are those of the features, less what the other components hold."""

    def __init__(self, n_components: int) -> None:
        self.n_components = n_components

    def fit_transform(self, X: NDArray[Any]) -> F64:
        """Fit, and the components of X."""
        self.mean, self.axes, self.variance = principal_axes(X, self.n_components)
        return self.transform(X)

    def transform(self, X: NDArray[Any]) -> F64:
        """The components of X."""
        return np.asarray((np.asarray(X, dtype=np.float64) - self.mean) @ self.axes.T)


class Given:
    """Coordinates computed elsewhere, one row per row of X."""

    def __init__(self, values: ArrayLike) -> None:
        self.values = np.asarray(values, dtype=np.float64)

    def fit_transform(self, X: NDArray[Any]) -> F64:
        """The coordinates."""
        if self.values.ndim != 2 or len(self.values) != len(X):
            raise DataError(f"embed has shape {self.values.shape}, but X has {len(X)} rows: give one embedded row per row of X")
        return self.values

    def transform(self, X: NDArray[Any]) -> F64:
        """Impossible."""
        raise DataError("embed was an array, which says nothing about new rows: pass their coordinates, transform(X, embedding=Z)")


class Applied:
    """A function of the features."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def fit_transform(self, X: NDArray[Any]) -> F64:
        """The function of X."""
        return self.transform(X)

    def transform(self, X: NDArray[Any]) -> F64:
        """The function of X."""
        return np.asarray(self.function(X), dtype=np.float64)


def embedder(embed: Any, n_components: int, n_neighbors: int, min_dist: float, seed: int, n_threads: int | None = None) -> Embedder:
    """What ``embed`` means: a name, an array, a function, or an object with ``fit_transform`` and ``transform``."""
    if isinstance(embed, str):
        if embed not in NAMED:
            raise ValueError(f"embed={embed!r}: must be one of {', '.join(map(repr, NAMED))}, an array, or a function")
        if embed == "none":
            return Plain()
        if embed == "pca":
            return Principal(n_components)
        if embed == "neighbours":
            return Neighbours(n_components, n_neighbors, min_dist, seed, n_threads=n_threads)
        try:
            umap = importlib.import_module("umap")
        except ImportError:
            raise MissingExtraError("umap-learn", "align", "embed='umap'") from None
        made: Embedder = umap.UMAP(n_components=n_components, n_neighbors=n_neighbors, min_dist=min_dist, random_state=seed, n_jobs=1)
        return made
    if hasattr(embed, "fit_transform") and hasattr(embed, "transform"):
        found: Embedder = embed
        return found
    if callable(embed):
        return Applied(embed)
    return Given(embed)
