"""Other ways to name components, on the same arrays: what semantic labels are compared with.

``soft_wpmi``: CLIP-Dissect (ICLR 2023).  ``invert``: concepts and short formulas of them by how well activations separate them (INVERT,
NeurIPS 2023), which needs pictures whose concepts are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens.lens.descriptions import average_ranks

__all__ = ["Formula", "invert", "soft_wpmi"]

F64 = NDArray[np.float64]


def soft_wpmi(
    activations: ArrayLike,
    similarities: ArrayLike,
    *,
    top: int = 100,
    scale: float = 10.0,
    lam: float = 1.0,
    shares: tuple[float, float] = (0.998, 0.97),
) -> F64:
    """Scores (K, L) of every text for every component by soft weighted pointwise mutual information.

    With ``P = softmax over texts of scale * similarity`` and the ``top`` pictures n_0, n_1, ... that activate component k most, each with
    the share p_i that falls from ``shares[0]`` towards ``shares[1]``:
    ``log p(l | k) = sum over i of log(1 + p_i (P[n_i, l] - 1) + 1e-7)``; the score is
    ``log p(l | k) - lam (log sum over k' of p(l | k') - log K)``.

    Parameters
    ----------
    activations : array_like (N, K)
    similarities : array_like (N, L)
        Cosines of pictures and texts.
    top : int
        Fewer where there are fewer pictures.
    scale, lam : float
    shares : (float, float)

    Returns
    -------
    ndarray (K, L), float64
        Unbounded; compare within one call only. NaN rows for components without an activation above 0.

    Notes
    -----
    Formula and defaults: Oikarinen and Weng, CLIP-Dissect, ICLR 2023.
    """
    a, sims = _pair(activations, similarities, "similarities")
    if not sims.shape[1]:
        raise DataError("similarities has no texts: name at least one")
    if not (len(shares) == 2 and 0 <= shares[1] <= shares[0] < 1 and np.isfinite([scale, lam]).all()):
        raise ValueError(f"shares={shares!r}, scale={scale!r}, lam={lam!r}: 0 <= shares[1] <= shares[0] < 1 and finite numbers are needed")
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise ValueError(f"top={top!r}: must be a whole number of at least 1")
    logits = scale * (sims - sims.max(axis=1, keepdims=True))
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    m = min(top, len(a))
    member = shares[0] - np.arange(m) / top * (shares[0] - shares[1])
    order = np.argsort(-a, axis=0, kind="stable")[:m].T
    conditional = np.empty((a.shape[1], sims.shape[1]))
    for k, ids in enumerate(order):
        conditional[k] = np.log1p(member[:, None] * (p[ids] - 1.0) + 1e-7).sum(axis=0)
    live = a.max(axis=0) > 0  # a dead component says nothing about how common a text is
    if live.any():
        most = conditional[live].max(axis=0)
        prior = most + np.log(np.exp(conditional[live] - most).sum(axis=0)) - np.log(live.sum())
        conditional -= lam * prior
    conditional[~live] = np.nan
    return conditional


@dataclass(frozen=True, slots=True)
class Formula:
    """A concept, or several joined by AND, OR and NOT, for one component.

    Attributes
    ----------
    text : str
    auc : float
        How well the component's activations separate the pictures it holds for.
    pictures : int
        For which it holds.
    p_value : float
        Two-sided, of the rank sum in its normal approximation with ties; not corrected for the search.
    holds : ndarray (N,), bool
    """

    text: str
    auc: float
    pictures: int
    p_value: float
    holds: NDArray[np.bool_]

    def __str__(self) -> str:
        return self.text


def invert(
    activations: ArrayLike,
    concepts: ArrayLike,
    names: Sequence[str],
    *,
    length: int = 1,
    beam: int = 5,
    min_fraction: float = 0.0,
    max_fraction: float = 0.5,
    negation: bool = True,
) -> list[Formula | None]:
    """For every component the formula of concepts that its activations separate best, by beam search.

    Parameters
    ----------
    activations : array_like (N, K)
    concepts : array_like (N, C) of bool
        Which picture shows which concept.
    names : sequence of str, C of them
    length : int
        Most concepts in a formula; 1 searches single concepts only.
    beam : int
        Formulas kept after each step.
    min_fraction, max_fraction : float
        Formulas that hold for a smaller or larger share of the pictures are left out.
    negation : bool
        Whether formulas may say NOT.

    Returns
    -------
    list of Formula or None
        None for constant components, and where no formula is allowed.

    Notes
    -----
    The score is the area under the ROC curve. Bykov et al., Labeling Neural Representations with Inverse Recognition, NeurIPS 2023.
    """
    a, c = _pair(activations, concepts, "concepts")
    if np.asarray(concepts).dtype != np.bool_:
        raise DataError(f"concepts must be of bool, not {np.asarray(concepts).dtype}")
    if len(names) != c.shape[1] or len(set(names)) != len(names):
        raise DataError(f"names has {len(names)} entries, {len(set(names))} of them different, for {c.shape[1]} concepts")
    if not all(isinstance(n, (int, np.integer)) and n >= 1 for n in (length, beam)):
        raise ValueError(f"length={length!r}, beam={beam!r}: both must be whole numbers of at least 1")
    if not 0 <= min_fraction < max_fraction <= 1:
        raise ValueError(f"min_fraction={min_fraction}, max_fraction={max_fraction}: 0 <= min < max <= 1 is needed")
    atoms = c.astype(bool)
    masks, texts = list(atoms.T), list(names)
    if negation:
        masks, texts = masks + list(~atoms.T), texts + [f"NOT {name}" for name in names]
    return [_search(a[:, k], masks, texts, length, beam, (min_fraction, max_fraction)) for k in range(a.shape[1])]


def _search(
    values: F64, masks: list[NDArray[np.bool_]], texts: list[str], length: int, beam: int, allowed: tuple[float, float]
) -> Formula | None:
    if (values == values[0]).all():
        return None
    ranks = average_ranks(values)
    best = _kept(ranks, masks, texts, beam, allowed)
    parts = {text: {text.removeprefix("NOT ")} for text in texts}
    for step in range(length - 1):
        tried = dict(best)
        for text, (_, mask) in best:
            shown = f"({text})" if len(parts[text]) > 1 else text
            for other, name in zip(masks, texts, strict=True):
                if parts[name] <= parts[text] or len(parts[text]) <= step:  # a formula of an earlier step was extended before
                    continue
                for joined, both in ((f"{shown} AND {name}", mask & other), (f"{shown} OR {name}", mask | other)):
                    tried[joined], parts[joined] = (0.0, both), parts[text] | parts[name]
        best = _kept(ranks, [mask for _, mask in tried.values()], list(tried), beam, allowed)
    if not best:
        return None
    text, (auc, mask) = best[0]
    return Formula(text, auc, int(mask.sum()), _p_value(ranks, mask, auc), mask)


def _kept(
    ranks: F64, masks: list[NDArray[np.bool_]], texts: list[str], beam: int, allowed: tuple[float, float]
) -> list[tuple[str, tuple[float, NDArray[np.bool_]]]]:
    """The best ``beam`` formulas; of equals the earlier, so shorter, one."""
    table = np.array(masks)
    n, total = table.sum(axis=1), len(ranks)
    usable = (n > 0) & (n < total) & (n >= allowed[0] * total) & (n <= allowed[1] * total)
    auc = np.full(len(masks), -1.0)
    auc[usable] = (table[usable] @ ranks - n[usable] * (n[usable] + 1) / 2) / (n[usable] * (total - n[usable]))
    order = [int(i) for i in np.argsort(-auc, kind="stable")[:beam] if usable[i]]
    return [(texts[i], (float(auc[i]), masks[i])) for i in order]


def _p_value(ranks: F64, mask: NDArray[np.bool_], auc: float) -> float:
    """Two-sided normal approximation of the rank sum, its variance corrected for ties."""
    from math import erfc, sqrt

    n, total = int(mask.sum()), len(ranks)
    _, counts = np.unique(ranks, return_counts=True)
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / (total * (total - 1)) if total > 1 else 0.0
    variance = (total + 1 - ties) / (12.0 * n * (total - n))
    return float(erfc(abs(auc - 0.5) / sqrt(variance) / sqrt(2))) if variance > 0 else float("nan")


def _pair(activations: ArrayLike, other: ArrayLike, what: str) -> tuple[F64, F64]:
    a, b = np.asarray(activations, np.float64), np.asarray(other, np.float64)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or not len(a):
        raise DataError(
            f"activations {a.shape} and {what} {b.shape} must be (N, K) and (N, ...) over the same pictures, at least one"
        )
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        raise DataError(f"activations or {what} hold NaN or infinite values")
    return a, b
