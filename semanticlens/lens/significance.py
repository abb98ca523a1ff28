"""Is a label better than chance?  Components of random examples, and control of the false discovery rate.

The best of a large vocabulary fits anything a little: even a component of random pictures has a closest word.  The null distribution is
therefore that of the *maximum over the vocabulary* for a component whose examples are drawn at random from the examples of all components
of its layer, a picture as often as it occurs among them, no picture twice.  With N such draws and the observed best score s,

    p = (1 + #{null >= s}) / (N + 1),

a valid p-value whatever the distribution (Phipson & Smyth 2010).  Benjamini and Hochberg's procedure over the components of a layer
then bounds the expected share of chance labels among the labels given by the ``fdr`` asked for.  All components are compared with the same
null scores; such p-values are positively dependent, for which the procedure holds (Bates et al., Annals of Statistics
51, 2023).

A word that the whole layer is about is in the null, too: where most components stand for one theme, random ones come close
to its word, and p-values are large.  A label that is kept says more than "what this layer sees".

The smallest p-value is 1 / (N + 1).  One component that stands alone among K passes only if that is at most ``fdr / K``:
N >= K / fdr draws see every component that could pass.  Null scores come from the labelling kernel, a block of null vectors
at a time: the matrix of scores is never formed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import lens as kernels
from semanticlens._kernels import resolve_threads
from semanticlens.lens.intervals import example_weights
from semanticlens.lens.label import label_vectors
from semanticlens.lens.probe import Queries
from semanticlens.lens.results import LayerLabels

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB

__all__ = ["benjamini_hochberg", "null_best_scores", "null_examples", "p_values", "significant_labels"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
BLOCK = 4096  # null vectors at a time: 8 MB at 512 dimensions


def p_values(scores: F32, null: F32) -> F64:
    """``(1 + #{null >= score}) / (N + 1)``: scores (K,), null (N,) -> (K,) float64; NaN where the score is."""
    ordered = np.sort(np.asarray(null)[~np.isnan(null)])
    p = (1.0 + len(ordered) - np.searchsorted(ordered, scores, side="left")) / (len(ordered) + 1.0)
    return np.asarray(np.where(np.isnan(scores), np.nan, p), dtype=np.float64)


def benjamini_hochberg(p: F64) -> F64:
    """Adjusted p-values (K,): ``min over j >= i of K p_(j) / j``; those at most q are the discoveries at rate q. NaN take no part.

    Examples
    --------
    >>> import numpy as np
    >>> from semanticlens.lens.significance import benjamini_hochberg
    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, np.nan]))
    array([0.03, 0.04, 0.04,  nan])
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or (values < 0).any() or (values > 1).any():
        raise DataError(f"p must be one row of numbers from 0 to 1 (or NaN), not shape {values.shape}")
    adjusted = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    scaled = values[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def _hash(seed: int, place: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 over (seed, place)."""
    x = np.zeros_like(place)
    for part in (np.uint64(seed), place):
        x = (x ^ part) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return x


def null_examples(rows: I64, counts: I64, width: int, first: int, n: int, seed: int) -> I64:
    """Examples of random components: draws ``first .. first + n - 1``.

    Parameters
    ----------
    rows : ndarray of shape (K, m), int64
        Examples of the components, -1 for an empty place.
    counts : ndarray of shape (K,), int64
        How many of each component's places count.
    width : int
        Examples per random component.
    first, n, seed : int
        A draw depends on (seed, its number) only.

    Returns
    -------
    ndarray of shape (n, width), int64
        Flat places k * m + i of ``rows``; a place is drawn as often as any other, so that a picture comes as often as it occurs;
        a picture that was drawn before is drawn again.
    """
    flat = np.flatnonzero((np.arange(rows.shape[1]) < counts[:, None]) & (rows >= 0))
    pictures = rows.ravel()[flat]
    if len(np.unique(pictures)) < 2 * width:
        raise DataError(
            f"the components share {len(np.unique(pictures))} different pictures, too few to draw random components of {width} from: "
            "collect more components or fewer examples, or label without fdr"
        )
    found = np.full((n, width), -1, np.int64)
    filled, offset, draws = np.zeros(n, np.int64), 0, 2 * width + 8
    own = np.full((n, 0), -1, np.int64)
    while (filled < width).any():
        numbers = np.arange(first, first + n, dtype=np.uint64) << np.uint64(24)
        place: NDArray[np.uint64] = np.add.outer(numbers, np.arange(offset, offset + draws, dtype=np.uint64)).astype(np.uint64)
        with np.errstate(over="ignore"):
            hashed = _hash(seed, place) >> np.uint64(32)
        pick = (hashed * np.uint64(len(flat)) >> np.uint64(32)).astype(np.int64)
        own = np.concatenate([own, pick], axis=1)
        fresh = _first_of_kind(pictures[own])
        rank = np.cumsum(fresh, axis=1)
        filled = np.minimum(rank[:, -1], width)
        offset += draws
    i, j = np.nonzero(fresh & (rank <= width))
    found[i, rank[i, j] - 1] = flat[own[i, j]]
    return found


def _first_of_kind(table: I64) -> NDArray[np.bool_]:
    """Per row, which entries do not occur before."""
    order = np.argsort(table, axis=1, kind="stable")
    sorted_rows = np.take_along_axis(table, order, axis=1)
    first = np.ones(table.shape, bool)
    first[:, 1:] = sorted_rows[:, 1:] != sorted_rows[:, :-1]
    result = np.empty_like(first)
    np.put_along_axis(result, order, first, axis=1)
    return result


def null_best_scores(
    db: ConceptDB, layer: str, queries: Queries, width: int, *, draws: int, seed: int = 0, n_threads: int | None = None
) -> F32:
    """Best label scores (draws,) of random components with ``width`` examples each; formed as the layer's own vectors are."""
    rows, weights = db.rows(layer), example_weights(db, layer)
    best = np.empty(draws, np.float32)
    for begin in range(0, draws, BLOCK):
        n = min(BLOCK, draws - begin)
        places = null_examples(rows, db[layer].live_counts(), width, begin, n, seed)
        vectors, _ = kernels.concept_vectors(
            db.embeddings,
            rows.ravel()[places],
            None,
            None if weights is None else np.ascontiguousarray(weights.ravel()[places]),
            normalize=bool(db.record["build"]["normalize_examples"]),
            n_threads=resolve_threads(n_threads),
        )
        best[begin : begin + n] = label_vectors(layer, vectors, queries, top=1, threshold=-np.inf, n_threads=n_threads).scores[:, 0]
    return best


def significant_labels(
    db: ConceptDB, labels: LayerLabels, queries: Queries, *, fdr: float, draws: int = 10_000, seed: int = 0, n_threads: int | None = None
) -> LayerLabels:
    """The labels with p-values, adjusted p-values, and "unlabelled" where the adjusted one is above ``fdr``.

    Components with different numbers of examples are compared with null components of their own number: fewer examples average less, and so
    fit some word better by chance.
    """
    if not isinstance(fdr, float) or not 0 < fdr < 1:
        raise DataError(f"fdr={fdr!r} must be a number between 0 and 1, for example 0.05")
    for name, value, least in (("draws", draws, 100), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value < 2**31:
            raise DataError(f"{name}={value!r} must be a whole number of at least {least} (and below 2**31)")
    own, rows = db[labels.layer], db.rows(labels.layer)
    filled = ((np.arange(rows.shape[1]) < own.live_counts()[:, None]) & (rows >= 0)).sum(axis=1)
    observed = labels.scores[:, 0]
    p = np.full(len(observed), np.nan)
    for width in np.unique(filled[~np.isnan(observed)]):
        null = null_best_scores(db, labels.layer, queries, int(width), draws=draws, seed=seed, n_threads=n_threads)
        chosen = filled == width
        p[chosen] = p_values(observed[chosen], null)
    q = benjamini_hochberg(p)
    with np.errstate(invalid="ignore"):
        return replace(labels, unlabelled=labels.unlabelled | ~(q <= fdr), p_values=p, q_values=q)
