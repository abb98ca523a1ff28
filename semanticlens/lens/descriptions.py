"""How good are descriptions of components? Measured on pictures that fit a description and pictures that do not.

For component k with description d, activations x_j on pictures that show d and b_i on the others:

``AUC = P(b < x) + P(b = x) / 2``, ``MAD = (mean x - mean b) / std(b)`` with the unbiased deviation (0 where it is 0; both CoSy, NeurIPS
2024), ``DMA = mean x / largest activation of the probe pictures`` (as evaluated with contrastive semantic projection), and the simulation
correlation, Pearson's of the activations with the similarity of every picture to the text d (Oikarinen and Weng, ICML 2024).

AUC and MAD ask whether the component reacts to what it is called, DMA also whether that is what it reacts to most, the simulation
correlation whether the name predicts its activations. None needs a person; all need pictures whose content is known or made to order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens.lens.results import number, text_table

__all__ = ["DescriptionScores", "average_ranks", "evaluate_descriptions", "simulation_correlation"]

F64 = NDArray[np.float64]
NAMES = ("auc", "mad", "dma", "simulation")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class DescriptionScores:
    """Scores of the descriptions of K components; NaN where they are not defined.

    Attributes
    ----------
    auc, mad, dma, simulation : ndarray (K,), float64
        See the module's formulas. Without a description, without pictures that show it or that do not: NaN. ``dma`` also where no
        activation is above 0, ``simulation`` for constant activations or similarities, and where no similarities were given.
    pictures : ndarray (K,), int64
        That show each component's description.
    seed, resamples : int
        Of the bootstrap over components in :meth:`means`.
    """

    auc: F64
    mad: F64
    dma: F64
    simulation: F64
    pictures: NDArray[np.int64]
    seed: int = 0
    resamples: int = 2000

    def __len__(self) -> int:
        return len(self.auc)

    def means(self, level: float = 0.95) -> dict[str, tuple[float, float, float]]:
        """Mean of each score over the components that have it, with its bootstrap interval: (mean, lower, upper)."""
        if not 0 < level < 1:
            raise ValueError(f"level={level!r}: must lie between 0 and 1")
        rng, found = np.random.default_rng(self.seed), {}
        for name in NAMES:
            own = getattr(self, name)
            own = own[np.isfinite(own)]
            if not len(own):
                found[name] = (float("nan"),) * 3
                continue
            again = own[rng.integers(0, len(own), (self.resamples, len(own)))].mean(axis=1)
            low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2])
            found[name] = (float(own.mean()), float(low), float(high))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "means": {name: [number(v) for v in values] for name, values in self.means().items()},
            "components": [
                {"pictures": int(self.pictures[k]), **{name: number(getattr(self, name)[k]) for name in NAMES}}
                for k in range(len(self))
            ],
        }

    def __repr__(self) -> str:
        rows: list[list[object]] = []
        for name, (mean, low, high) in self.means().items():
            rows.append([name, int(np.isfinite(getattr(self, name)).sum()), mean, low, high])
        return text_table(["score", "components", "mean", "lower", "upper"], rows)

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        rows = [[name, *values] for name, values in self.means().items()]
        return str(
            html.table(["score", "mean", "lower", "upper"], rows, caption=f"Descriptions of {len(self)} components")
        )


def evaluate_descriptions(
    activations: ArrayLike,
    shows: ArrayLike,
    labels: ArrayLike,
    similarities: ArrayLike | None = None,
    *,
    largest: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> DescriptionScores:
    """Score the description of every component.

    Parameters
    ----------
    activations : array_like (N, K)
        Pooled activations on N test pictures, not those that the descriptions were made from.
    shows : array_like (N, L) of bool
        Whether a picture shows what a text says: known, or made to order.
    labels : array_like (K,) of int
        The description of each component, as a place among the L texts; -1 for none.
    similarities : array_like (N, L), optional
        Of pictures and texts in an encoder, for the simulation correlation.
    largest : array_like (K,), optional
        Largest activations over the probe pictures, for DMA; those of ``activations`` if left out.
    seed, resamples : int
        Of the intervals of :meth:`DescriptionScores.means`.

    Returns
    -------
    DescriptionScores

    Raises
    ------
    DataError
        Shapes that do not fit, NaN among the activations, labels that name no text, no pictures.
    """
    a, s, own = _checked(activations, shows, labels)
    top = a.max(axis=0) if largest is None else np.asarray(largest, np.float64)
    if top.shape != (a.shape[1],) or not np.isfinite(top).all():
        raise DataError(f"largest must have one finite value for each of the {a.shape[1]} components, not {top!r}")
    if isinstance(resamples, bool) or not isinstance(resamples, (int, np.integer)) or resamples < 1:
        raise ValueError(f"resamples={resamples!r}: must be a whole number of at least 1")
    scores = {name: np.full(a.shape[1], np.nan) for name in NAMES}
    counts = np.zeros(a.shape[1], np.int64)
    for k in np.flatnonzero(own >= 0):
        with_it = s[:, own[k]]
        counts[k] = n = int(with_it.sum())
        if not n or n == len(a):
            continue
        x, b = a[with_it, k], a[~with_it, k]
        scores["auc"][k] = (average_ranks(a[:, k])[with_it].sum() - n * (n + 1) / 2) / (n * len(b))
        spread = b.std(ddof=1) if len(b) > 1 else 0.0
        scores["mad"][k] = (x.mean() - b.mean()) / spread if spread > 0 else 0.0
        scores["dma"][k] = x.mean() / top[k] if top[k] > 0 else np.nan
    if similarities is not None:
        scores["simulation"] = simulation_correlation(a, similarities, own)
    return DescriptionScores(**scores, pictures=counts, seed=seed, resamples=resamples)


def simulation_correlation(activations: ArrayLike, similarities: ArrayLike, labels: ArrayLike) -> F64:
    """(K,): Pearson's correlation of a component's activations (N, K) with the similarities (N, L) to its text; NaN if one is constant."""
    a, sims = np.asarray(activations, np.float64), np.asarray(similarities, np.float64)
    own = np.asarray(labels)
    fits = a.ndim == 2 and sims.ndim == 2 and len(a) == len(sims) and own.shape == (a.shape[1],) and own.dtype.kind in "iu"
    if not fits:
        raise DataError(
            f"activations {a.shape}, similarities {sims.shape} and labels {own.shape} must be (N, K), (N, L) and (K,) whole numbers"
        )
    if not np.isfinite(a).all() or not np.isfinite(sims).all():
        raise DataError("activations or similarities hold NaN or infinite values")
    _check_labels(own, sims.shape[1])
    found = np.full(a.shape[1], np.nan)
    for k in np.flatnonzero(own >= 0):
        x, y = a[:, k] - a[:, k].mean(), sims[:, own[k]] - sims[:, own[k]].mean()
        length = np.linalg.norm(x) * np.linalg.norm(y)
        if length > 1e-12 * max(1.0, np.abs(a[:, k]).max() * np.abs(sims[:, own[k]]).max()):
            found[k] = float(x @ y / length)
    return found


def average_ranks(values: ArrayLike) -> F64:
    """Ranks from 1 up; equal values share the mean of theirs."""
    v = np.asarray(values, np.float64)
    _, back, counts = np.unique(v, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    result: F64 = (ends - (counts - 1) / 2.0)[back.ravel()]
    return result


def _checked(
    activations: ArrayLike, shows: ArrayLike, labels: ArrayLike
) -> tuple[F64, NDArray[np.bool_], NDArray[np.int64]]:
    a, s, own = np.asarray(activations, np.float64), np.asarray(shows), np.asarray(labels)
    if a.ndim != 2 or s.ndim != 2 or len(a) != len(s) or own.shape != (a.shape[1],) or own.dtype.kind not in "iu":
        raise DataError(
            f"activations {a.shape}, shows {s.shape} and labels {own.shape} must be (N, K), (N, L) and (K,) whole numbers"
        )
    if not len(a):
        raise DataError("activations has no pictures: descriptions are scored on pictures")
    if s.dtype != np.bool_:
        raise DataError(f"shows must be of bool, not {s.dtype}: whether picture n shows what text l says")
    if not np.isfinite(a).all():
        raise DataError("activations holds NaN or infinite values")
    _check_labels(own, s.shape[1])
    return a, s, own.astype(np.int64)


def _check_labels(labels: NDArray[Any], n: int) -> None:
    if labels.size and (labels.min() < -1 or labels.max() >= n):
        raise DataError(
            f"labels must lie between -1 (none) and {n - 1}, found {int(labels.min())} to {int(labels.max())}"
        )
