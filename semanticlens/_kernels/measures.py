"""Kernels of the measures that compare two representations as a whole; see ``sl_measures.h``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Range = tuple[float, float]

UNIT = 2.0**40  # of the row sums of pair_gauss


def cross(a: F64, b: F64, *, n_threads: int | None = None) -> F64:
    """a^T b, (p, q), of (n, p) and (n, q); half the work where b is a."""
    return _core.cross(a, b, n_threads=resolve_threads(n_threads))


def pair_counts(x: F32, limits: Range, bins: int, *, distance: bool = False, n_threads: int | None = None) -> I64:
    """(bins,) pairs of rows by product, or by squared distance; what lies outside ``limits`` counts in the first or last bin."""
    return _core.pair_counts(x, limits[0], limits[1], bins, distance=distance, n_threads=resolve_threads(n_threads))


def pair_scores(x: F32, limits_x: Range, score_x: F32, y: F32, limits_y: Range, score_y: F32, *, n_threads: int | None = None) -> float:
    """Sum over pairs of score_x[bin of the product in x] * score_y[bin in y]."""
    return _core.pair_scores(x, limits_x, score_x, y, limits_y, score_y, n_threads=resolve_threads(n_threads))


def pair_gauss(x: F32, rate_x: float, y: F32, rate_y: float, *, n_threads: int | None = None) -> tuple[F64, F64, F64]:
    """Of k = exp(-rate_x |x_i - x_j|^2) and l: sums over pairs of (k l, k^2, l^2), and each row's sums over the others."""
    sums, rows_x, rows_y = _core.pair_gauss(x, rate_x, y, rate_y, n_threads=resolve_threads(n_threads))
    return sums, rows_x / UNIT, rows_y / UNIT


def near_rows(u: F64, k: int, *, n_threads: int | None = None) -> tuple[NDArray[np.int32], F64]:
    """Indices and products, each (n, k), of the k other rows with the largest products; equal ones by the lower index."""
    index, value, _ = _core.near_rows(u, u.astype(np.float32), k, n_threads=resolve_threads(n_threads))
    return index, value
