"""A map of the concepts of one representation: those that hold similar samples lie side by side, in groups."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, MissingExtraError
from semanticlens.alignment.baselines import KMeans
from semanticlens.alignment.concepts import Concept, describe
from semanticlens.alignment.estimator import whole
from semanticlens.alignment.pairs import concept_distances

if TYPE_CHECKING:
    from PIL import Image

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
LAYOUTS = ("tsne", "mds", "umap")
STEPS, EARLY = 750, 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Atlas:
    """Concepts on a plane.

    Attributes
    ----------
    places : ndarray of shape (K, 2), float64
        In [0, 1].
    groups : ndarray of shape (K,), int64
    group_names : tuple of str or None
        The class most frequent among the samples of a group, None where nothing is known of them.
    distance : ndarray of shape (K, K), float64
        Relative distances, which the map shows.
    concepts : tuple of Concept
    images : Dataset or None
    """

    places: F64
    groups: I64
    group_names: tuple[str | None, ...]
    distance: F64
    concepts: tuple[Concept, ...]
    images: Any = None

    def picture(self, **options: Any) -> Image.Image:
        """Draw the map; see :func:`semanticlens.plot.atlas.picture`."""
        from semanticlens.plot.atlas import picture

        return picture(self, **options)

    def page(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the map as a self-contained HTML page; see :func:`semanticlens.plot.atlas.page`."""
        from semanticlens.plot.atlas import write_page

        return write_page(self, path, **options)


def atlas(
    memberships: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    groups: int = 30,
    layout: str | ArrayLike = "tsne",
    sample_ids: ArrayLike | None = None,
    images: Any = None,
    targets: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    db: Any = None,
    vocabulary: Any = None,
    seed: int = 0,
    n_threads: int | None = None,
) -> Atlas:
    """Lay the concepts of one representation out on a plane by their distances.

    Parameters
    ----------
    memberships : array-like of shape (n, K)
        At least two concepts.
    labels, sample_ids, targets, class_names, db, vocabulary
        See :func:`describe`; ``targets`` and ``class_names`` default to those of ``images``.
    groups : int
        Clusters of the map (k-means), at most a quarter of the concepts.
    layout : {"tsne", "mds", "umap"} or array-like of shape (K, 2)
        "umap" (published; 70 neighbours) needs the extra ``align``; "tsne" starts from "mds" and needs nothing.
    images : Dataset, optional
    seed : int
    n_threads : int, optional
    """
    found = np.asarray(memberships)
    if found.ndim != 2 or found.shape[1] < 2:
        raise DataError(f"memberships has shape {found.shape}: an atlas needs at least two concepts")
    distances = concept_distances(found, found, n_threads=n_threads)
    relative = distances.relative
    places = _fit_square(_layout(layout, relative, seed))
    k = max(1, min(whole(groups, "groups", 1), found.shape[1] // 4))
    split = np.zeros(len(places), np.int64) if k == 1 else KMeans(k, seed=seed, n_threads=n_threads).fit(places).labels_
    if targets is None and images is not None and images.labels is not None:
        targets = images.labels[np.arange(len(found)) if sample_ids is None else np.asarray(sample_ids)]
        class_names = images.class_names
    concepts = describe(found, labels, sample_ids=sample_ids, targets=targets, class_names=class_names, db=db, vocabulary=vocabulary)
    names = tuple(_common([concepts[j] for j in np.flatnonzero(split == g)]) for g in range(int(split.max()) + 1))
    return Atlas(places=places, groups=split, group_names=names, distance=relative, concepts=concepts, images=images)


def _common(concepts: list[Concept]) -> str | None:
    weights: dict[str, float] = {}
    for c in concepts:
        for name, share in c.classes:
            weights[name] = weights.get(name, 0.0) + share * c.size
    return max(weights, key=lambda name: (weights[name], name)) if weights else None


def _layout(layout: Any, distance: F64, seed: int) -> F64:
    if not isinstance(layout, str):
        places = np.asarray(layout, dtype=np.float64)
        if places.shape != (len(distance), 2) or not np.isfinite(places).all():
            raise DataError(f"layout has shape {places.shape}: must be {(len(distance), 2)}, finite")
        return places
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: must be one of {', '.join(map(repr, LAYOUTS))}, or coordinates")
    if layout == "umap":
        try:
            umap = importlib.import_module("umap")
        except ImportError:
            raise MissingExtraError("umap-learn", "align", "layout='umap'") from None
        near = max(2, min(70, len(distance) - 1))
        return np.asarray(
            umap.UMAP(metric="precomputed", n_neighbors=near, min_dist=0.01, random_state=seed, n_jobs=1).fit_transform(distance)
        )
    start = scaled(distance)
    return start if layout == "mds" or len(distance) < 5 else tsne(distance, start)


def scaled(distance: F64) -> F64:
    """Classical scaling to two dimensions (Torgerson)."""
    squared = distance**2
    centred = -0.5 * (squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean())
    values, vectors = np.linalg.eigh(centred)
    axes = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0.0))
    if axes.shape[1] < 2:
        axes = np.concatenate([axes, np.zeros((len(axes), 2 - axes.shape[1]))], axis=1)
    top = axes[np.abs(axes).argmax(axis=0), [0, 1]]
    return np.asarray(axes * np.where(top < 0, -1.0, 1.0))


def tsne(distance: F64, start: F64, perplexity: float = 15.0) -> F64:
    """Exact t-SNE (van der Maaten and Hinton 2008) from a given start: no chance in it."""
    n = len(distance)
    shared = _neighbours(distance**2, min(perplexity, (n - 1) / 3))
    y = start / max(float(start.std()), 1e-12) * 1e-2
    y = y + 1e-4 * np.stack([np.cos(np.arange(n)), np.sin(np.arange(n))], axis=1)  # parts points that scaling put in one place
    speed, gain = np.zeros_like(y), np.ones_like(y)
    for step in range(STEPS):
        near = 1.0 / (1.0 + ((y[:, None] - y[None]) ** 2).sum(axis=2))
        np.fill_diagonal(near, 0.0)
        pull = (shared * (12.0 if step < EARLY else 1.0) - near / near.sum()) * near
        slope = 4 * (pull.sum(axis=1)[:, None] * y - pull @ y)
        gain = np.maximum(np.where((slope > 0) != (speed > 0), gain + 0.2, gain * 0.8), 0.01)
        speed = (0.5 if step < EARLY else 0.8) * speed - max(n / 12.0, 10.0) * gain * slope
        y = y + speed
        y = y - y.mean(axis=0)
    return y


def _neighbours(squared: F64, perplexity: float) -> F64:
    """Joint probabilities of t-SNE: Gaussian neighbourhoods of equal perplexity."""
    n = len(squared)
    out = np.zeros((n, n))
    for i in range(n):
        own = np.delete(squared[i], i)
        own = own - own.min()
        low, high, beta = 0.0, np.inf, 1.0
        for _ in range(60):
            weight = np.exp(-own * beta)
            total = weight.sum()
            entropy = np.log(total) + beta * float((own * weight).sum()) / total
            if abs(entropy - np.log(perplexity)) < 1e-6:
                break
            low, high = (beta, high) if entropy > np.log(perplexity) else (low, beta)
            beta = beta * 2 if not np.isfinite(high) else (low + high) / 2
        out[i, np.arange(n) != i] = weight / total
    return np.asarray(np.maximum((out + out.T) / (2 * n), 1e-12))


def _fit_square(places: F64) -> F64:
    """Coordinates moved and scaled, both axes alike, into [0, 1]."""
    low, high = places.min(axis=0), places.max(axis=0)
    size = float((high - low).max())
    return np.full_like(places, 0.5) if size <= 0 else (places - (low + high) / 2) / size + 0.5
