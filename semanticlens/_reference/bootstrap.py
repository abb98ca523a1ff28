"""Twin of the bootstrap kernel: the same draws, by forming the vectors of every resample.  Contract: sl_bootstrap.h; two groups kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._reference.lens import MASK, usable_rows

F64 = NDArray[np.float64]
Array = NDArray[Any]


def mix(x: int, part: int) -> int:
    """The finaliser of splitmix64 over (x, part)."""
    x = (x ^ part) + 0x9E3779B97F4A7C15 & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def counts_of(n: int, component: int, resample: int, seed: int) -> F64:
    """How often each of n examples is drawn; one hash gives two draws."""
    place = mix(mix(mix(0, seed), component), resample)
    hashes = [mix(place, j) for j in range(0, n, 2)]
    draws = [part * n >> 32 for h in hashes for part in (h & 0xFFFFFFFF, h >> 32)][:n]
    return np.bincount(draws, minlength=n).astype(np.float64)


def scores_of(rows: F64, w: F64, scale: F64, groups: Array, targets: F64) -> F64:
    """Clarity, polysemanticity and cosines of examples ``rows`` drawn ``w`` times."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = np.outer(w, w)
    np.fill_diagonal(pairs, 0.0)
    clarity = (pairs * (unit @ unit.T)).sum() / pairs.sum() if pairs.sum() > 0 else np.nan
    mean = w @ rows
    sizes = [w[groups == c].sum() for c in (0, 1)]
    if min(sizes) < 2:
        shown = unit[:10] @ mean / np.linalg.norm(mean)
        poly = 1 - w[:10] @ shown / w[:10].sum() if w[:10].sum() > 0 else np.nan
    else:
        a, b = (w[groups == c] @ rows[groups == c] for c in (0, 1))
        poly = 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    vector = (w * scale) @ rows
    return np.array([clarity, poly, *(targets @ vector / (np.linalg.norm(targets, axis=1) * np.linalg.norm(vector)))])


def bootstrap(
    examples: Array,
    ids: Array,
    clusters: Array,
    targets: Array,
    target_ids: Array,
    *,
    weights: Array | None = None,
    normalize: bool = False,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[F64, F64]:
    """(K, 2 + P, 5) value, lower, upper, mean, deviation; (K, P) shares of first places.  All examples usable, groups kept."""
    out, wins = [], []
    for k, (places, rows) in enumerate(usable_rows(examples, ids, None)):
        scale = np.ones(len(rows)) if weights is None else weights[k, places].astype(np.float64)
        scale = scale / np.linalg.norm(rows, axis=1) if normalize else scale
        own = targets[target_ids[k]].astype(np.float64)
        value = scores_of(rows, np.ones(len(rows)), scale, clusters[k, places], own)
        drawn = np.array(
            [scores_of(rows, counts_of(len(rows), k, r, seed), scale, clusters[k, places], own) for r in range(resamples)]
        )
        mean = np.nanmean(drawn, axis=0)
        low, high = (value + np.nanquantile(drawn, q, axis=0) - mean for q in (0.5 - level / 2, 0.5 + level / 2))
        low = np.maximum(low, [-1, 0, *[-1] * len(own)])
        high = np.minimum(high, [1, 2, *[1] * len(own)])
        out.append(np.stack([value, low, high, mean, np.nanstd(drawn, axis=0, ddof=1)], axis=1))
        wins.append(np.bincount(drawn[:, 2:].argmax(axis=1), minlength=len(own)) / resamples)
    return np.array(out), np.array(wins)
