"""How interpretable is a component?  Scores from the embeddings of its concept examples, without people.

Source of all formulas: Dreyer et al., "Mechanistic understanding and validation of large AI models with SemanticLens", Nature Machine
Intelligence 7 (2025), doi 10.1038/s42256-025-01084-w, and the authors' code.  Where that code has defects these
functions follow the formula; each docstring names the difference.

Examples are given dense, ``examples`` (K, m, d), or as rows of a table: ``examples`` (U, d) with ``ids`` (K, m),
where id -1 is an empty place; the second form never makes the (K, m, d) array.  An example is *usable* if it stands
before ``counts[k]``, is finite, and is not of length 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import as_float32, resolve_threads
from semanticlens._kernels import lens as kernels

__all__ = ["Clusters", "clarity", "concept_vectors", "example_redundancy", "polysemanticity", "redundancy", "set_similarity", "similarity"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


class Clusters(NamedTuple):
    """Polysemanticity with the clusters it was read from."""

    score: F64
    labels: NDArray[np.int32]
    inertia: F64


def _examples(examples: ArrayLike, ids: ArrayLike | None, counts: ArrayLike | None) -> tuple[F32, I64 | None, I64 | None]:
    table = as_float32(examples, "examples", 3 if ids is None else 2)
    rows = None if ids is None else _integers(ids, "ids", 2)
    n_components, width = table.shape[:2] if rows is None else rows.shape
    if width == 0 and n_components > 0:
        raise DataError("there are no examples per component (m = 0): collect with top of at least 1")
    valid = None if counts is None else _integers(counts, "counts", 1)
    if valid is not None and (len(valid) != n_components or (valid.size and (valid.min() < 0 or valid.max() > width))):
        raise DataError(f"counts must be {n_components} numbers from 0 to {width}, one per component")
    if rows is not None and rows.size and (rows.min() < -1 or rows.max() >= len(table)):
        raise DataError(
            f"ids must lie between -1 (empty) and {len(table) - 1}, the last row of examples; they range from {rows.min()} to {rows.max()}"
        )
    return table, rows, valid


def _integers(values: ArrayLike, name: str, ndim: int) -> I64:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.ndim != ndim:
        raise TypeError(f"{name} must be whole numbers with {ndim} dimensions, not {array.dtype} of shape {array.shape}")
    return np.ascontiguousarray(array, dtype=np.int64)


def _weights(weights: ArrayLike | None, shape: tuple[int, ...]) -> F32 | None:
    if weights is None:
        return None
    array = as_float32(weights, "weights", 2)
    if array.shape != shape:
        raise DataError(f"weights have shape {array.shape}, but there are {shape[0]} components with {shape[1]} examples")
    if not np.isfinite(array).all() or (array < 0).any():
        raise DataError("weights must be finite and not negative; for activations use np.maximum(scores, 0)")
    return array


def clarity(
    examples: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    n_threads: int | None = None,
) -> F64:
    """How alike are the examples of each component?  Mean cosine over all pairs of different examples.

    Parameters
    ----------
    examples : array_like of shape (K, m, d) or (U, d), float32
    ids : array_like of shape (K, m), int, optional
        Rows of ``examples`` (U, d), -1 for an empty place.
    counts : array_like of shape (K,), int, optional
        Only the first ``counts[k]`` examples are read.
    weights : array_like of shape (K, m), float32, optional
        Not negative.  Gives the weighted form.
    n_threads : int, optional

    Returns
    -------
    ndarray of shape (K,), float64
        In [-1/(m_k - 1), 1] with m_k usable examples (without weights); NaN where fewer than two are usable.

    Notes
    -----
    ``clarity_k = sum_{i != j} cos(v_i, v_j) / (m (m - 1)) = (|sum_i v_i/|v_i||^2 - m) / (m (m - 1))``; weighted
    ``(|sum w_i v_i/|v_i||^2 - sum w_i^2) / ((sum w_i)^2 - sum w_i^2)``.  The published code counts a zero vector as
    cosine 0 and returns NaN or an infinity for m = 1; here unusable examples are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from semanticlens.lens.scores import clarity
    >>> clarity(np.eye(4, dtype=np.float32)[None]).round(6)     # four orthogonal examples
    array([0.])
    """
    table, rows, valid = _examples(examples, ids, counts)
    shape = table.shape[:2] if rows is None else rows.shape
    return kernels.clarity(table, rows, valid, _weights(weights, shape), n_threads=resolve_threads(n_threads))[0]


def concept_vectors(
    examples: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    normalize: bool = False,
    n_threads: int | None = None,
) -> F32:
    """The concept vector of each component: the mean of its examples' embeddings.

    Parameters
    ----------
    examples, ids, counts, weights, n_threads
        As for :func:`clarity`; with weights, the weighted mean.
    normalize : bool
        Average the unit vectors of the examples instead of the raw embeddings.  False is what the published code does.

    Returns
    -------
    ndarray of shape (K, d), float32
        NaN where no example is usable or all weights are 0.  Sums in double.
    """
    table, rows, valid = _examples(examples, ids, counts)
    shape = table.shape[:2] if rows is None else rows.shape
    return kernels.concept_vectors(table, rows, valid, _weights(weights, shape), normalize=normalize, n_threads=resolve_threads(n_threads))[
        0
    ]


def polysemanticity(
    examples: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    n_clusters: int = 2,
    n_init: int = 10,
    max_iter: int = 300,
    seed: int = 123,
    exact: bool = False,
    n_threads: int | None = None,
) -> Clusters:
    """Do the examples of each component fall into groups that mean different things?

    The examples are clustered with k-means on the raw embeddings; the score is one minus the mean cosine of the
    cluster centres: 0 for one meaning, 1 for two unrelated ones, 2 for opposite ones.  If a cluster has fewer than
    two members there is no second meaning to speak of, and the score is one minus the mean cosine of the first ten
    usable examples to their common mean.

    Parameters
    ----------
    examples, ids, counts, n_threads
        As for :func:`clarity`.
    labels : array_like of shape (K, m), int, optional
        Clusters known beforehand, 0 to ``n_clusters - 1``; nothing is clustered then.  Entries of unusable examples are ignored.
    n_clusters : int
        At least 2.
    n_init, max_iter : int
        Restarts of k-means (greedy k-means++ starts), of which the lowest inertia wins, the earliest on ties; and the most steps of each.
    seed : int
        At least 0.  The random numbers depend on (seed, restart, draw) only, so that a component's score depends on
        its own examples and not on its neighbours, its place or the number of threads.
    exact : bool
        Try every split into two groups: the true optimum, for at most 20 usable examples and ``n_clusters=2``.

    Returns
    -------
    Clusters
        ``score`` (K,) float64: NaN with fewer usable examples than clusters (or than 2), 0 exactly if all are
        identical, NaN if a centre has length 0. ``labels`` (K, m) int32: -1 for unusable examples.  ``inertia`` (K,)
        float64: squared distances to the centres, summed.

    Notes
    -----
    ``1 - cos(c_1, c_2)``, c_a the centre of cluster a.  Computed from the Gram matrix G of the examples: with B_ab
    the sum of G over the pairs of clusters a and b, ``cos(c_a, c_b) = B_ab / sqrt(B_aa B_bb)``, so that every
    restart costs O(m^2) whatever d is.  Iterations run until no label changes; the published code stops a little
    earlier (tol 1e-4).  With one broad group of examples the split, and so the score, depends on the start: use
    ``exact=True`` there.
    """
    table, rows, valid = _examples(examples, ids, counts)
    n_components, width = table.shape[:2] if rows is None else rows.shape
    for name, value, least in (("n_clusters", n_clusters, 2), ("n_init", n_init, 1), ("max_iter", max_iter, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value < 2**31:
            raise DataError(f"{name}={value!r} must be a whole number of at least {least} (and below 2**31)")
    groups = None
    if labels is not None:
        groups = _integers(labels, "labels", 2).astype(np.int32)
        if groups.shape != (n_components, width):
            raise DataError(f"labels have shape {groups.shape}, but there are {n_components} components with {width} examples")
        if groups.size and groups.max() >= n_clusters:
            raise DataError(f"labels go up to {groups.max()}, but n_clusters={n_clusters} allows 0 to {n_clusters - 1}")
    if exact and (n_clusters != 2 or (width > 20 and (valid is None or (valid.size and valid.max() > 20)))):
        raise DataError(
            f"exact=True tries every split into 2 groups of at most 20 examples; here n_clusters={n_clusters} and m={width}: "
            "pass counts=np.minimum(counts, 20), or leave exact out"
        )
    return Clusters(
        *kernels.polysemanticity(
            table,
            rows,
            valid,
            groups,
            n_clusters=n_clusters,
            n_init=n_init,
            max_iter=max_iter,
            seed=seed,
            exact=exact,
            n_threads=resolve_threads(n_threads),
        )
    )


def similarity(a: ArrayLike, b: ArrayLike | None = None, *, n_threads: int | None = None) -> F32:
    """Cosines between the rows of two matrices, always as (Q, K).

    Parameters
    ----------
    a : array_like of shape (Q, d), float32
    b : array_like of shape (K, d), float32, optional
        ``a`` itself if left out.

    Returns
    -------
    ndarray of shape (Q, K), float32
        NaN where a row is not finite or has length 0.  The shape never depends on coincidences of Q, K and d.
    """
    left = as_float32(a, "a", 2)
    right = left if b is None else as_float32(b, "b", 2)
    if left.shape[1] != right.shape[1]:
        raise DataError(f"a has vectors of length {left.shape[1]}, but b of length {right.shape[1]}: they are not from one space")
    return kernels.cosine(left, right, n_threads=resolve_threads(n_threads))


def redundancy(vectors: ArrayLike, *, n_threads: int | None = None) -> tuple[F64, I64]:
    """How close is the most similar other component?

    Parameters
    ----------
    vectors : array_like of shape (K, d), float32
        Concept vectors.  Rows that are NaN or of length 0 (dead components) take no part.

    Returns
    -------
    values : ndarray of shape (K,), float64
        ``r_k = max_{l != k} cos(v_k, v_l)``; the redundancy of the layer is its mean (``np.nanmean``).  NaN where
        there is no other component.
    nearest : ndarray of shape (K,), int64
        The component that attains it, the lowest on ties; -1 where there is none.
    """
    return kernels.redundancy(as_float32(vectors, "vectors", 2), n_threads=resolve_threads(n_threads))


def example_redundancy(
    examples: ArrayLike, *, ids: ArrayLike | None = None, counts: ArrayLike | None = None, n_threads: int | None = None
) -> F64:
    """Per component the mean, over its usable examples, of the cosine to the nearest other example.

    This is what the published redundancy score gives for a (K, m, d) array.  NaN with fewer than two usable examples.
    """
    table, rows, valid = _examples(examples, ids, counts)
    n_components, width = table.shape[:2] if rows is None else rows.shape
    result = np.full(n_components, np.nan)
    for k in range(n_components):
        stop = width if valid is None else int(valid[k])
        own = table[k, :stop] if rows is None else table[rows[k, :stop][rows[k, :stop] >= 0]]
        values = kernels.redundancy(np.ascontiguousarray(own), n_threads=1)[0]
        if np.isfinite(values).any():
            result[k] = np.nanmean(values)
    return result


def set_similarity(a: ArrayLike, b: ArrayLike, *, n_threads: int | None = None) -> float:
    """Is every concept of A also in B?  ``mean_{a in A} max_{b in B} cos(a, b)``, over the rows that have a direction.

    Directed: ``set_similarity(A, B) = 1`` if B holds all of A, whatever else B holds. NaN if either set is empty.
    """
    left, right = as_float32(a, "a", 2), as_float32(b, "b", 2)
    if left.shape[1] != right.shape[1]:
        raise DataError(f"a has vectors of length {left.shape[1]}, but b of length {right.shape[1]}: they are not from one space")
    best = kernels.top_labels(left, right, 1, n_threads=resolve_threads(n_threads))[1][:, 0].astype(np.float64)
    return float(np.nanmean(best)) if np.isfinite(best).any() else float("nan")
