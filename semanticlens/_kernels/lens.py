"""Kernels for concept vectors, scores, probing and labelling.

Examples come dense, ``examples`` (K, m, d), or as rows ``ids`` (K, m) of a table ``examples`` (U, d), where id -1 is an empty place.
An example is usable if it stands before ``counts[k]``, is finite and not of length 0.  Contracts: sl_scores.h, sl_bootstrap.h, sl_cosine.h.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


def clarity(
    examples: F32, ids: I64 | None = None, counts: I64 | None = None, weights: F32 | None = None, *, n_threads: int | None = None
) -> tuple[F64, I64]:
    """Mean pairwise cosine (K,) and the number of usable examples (K,)."""
    return _core.clarity(examples, ids, counts, weights, n_threads=resolve_threads(n_threads))


def concept_vectors(
    examples: F32,
    ids: I64 | None = None,
    counts: I64 | None = None,
    weights: F32 | None = None,
    *,
    normalize: bool = False,
    n_threads: int | None = None,
) -> tuple[F32, I64]:
    """Mean example (K, d), NaN rows where undefined, and the number of usable examples (K,)."""
    return _core.concept_vectors(examples, ids, counts, weights, normalize=normalize, n_threads=resolve_threads(n_threads))


def polysemanticity(
    examples: F32,
    ids: I64 | None = None,
    counts: I64 | None = None,
    labels: I32 | None = None,
    *,
    n_clusters: int = 2,
    n_init: int = 10,
    max_iter: int = 300,
    seed: int = 123,
    exact: bool = False,
    n_threads: int | None = None,
) -> tuple[F64, I32, F64]:
    """Score (K,), labels (K, m) with -1 where no usable example, inertia (K,)."""
    return _core.polysemanticity(
        examples,
        ids,
        counts,
        labels,
        n_clusters=n_clusters,
        n_init=n_init,
        max_iter=max_iter,
        seed=seed,
        exact=exact,
        n_threads=resolve_threads(n_threads),
    )


def bootstrap(
    examples: F32,
    ids: I64,
    counts: I64 | None = None,
    weights: F32 | None = None,
    clusters: I32 | None = None,
    targets: F32 | None = None,
    target_ids: I64 | None = None,
    values: F64 | None = None,
    *,
    normalize: bool = False,
    resamples: int = 1000,
    steps: int = 20,
    level: float = 0.95,
    seed: int = 0,
    n_threads: int | None = None,
) -> tuple[F64, F64]:
    """Value, lower, upper, mean, deviation (K, 2 + P + V, 5) of clarity, polysemanticity, cosines, means; shares of first places (K, P)."""
    return _core.bootstrap(
        examples,
        ids,
        counts,
        weights,
        clusters,
        targets,
        target_ids,
        values,
        normalize=normalize,
        resamples=resamples,
        steps=steps,
        level=level,
        seed=seed,
        n_threads=resolve_threads(n_threads),
    )


def cosine(a: F32, b: F32, *, n_threads: int | None = None) -> F32:
    """(Q, d), (K, d) -> (Q, K) cosines, always; NaN where a row has no direction."""
    return _core.cosine(a, b, n_threads=resolve_threads(n_threads))


def redundancy(vectors: F32, *, n_threads: int | None = None) -> tuple[F64, I64]:
    """Highest cosine to another row (K,), and that row (K,), lowest on ties; NaN and -1 where there is none."""
    return _core.redundancy(vectors, n_threads=resolve_threads(n_threads))


def top_labels(vectors: F32, texts: F32, n: int, *, n_threads: int | None = None) -> tuple[I64, F32]:
    """(K, d), (L, d) -> indices (K, n) and cosines (K, n) of the closest texts, lowest index on ties; -1 and NaN where there are fewer."""
    return _core.top_labels(vectors, texts, n, n_threads=resolve_threads(n_threads))
