"""Kernels of concept-based alignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

BLOCKS_A_CALL = 8  # block rows between two looks at the keyboard and the progress bar
ENTRIES_A_CALL = 1 << 29  # pairs of concepts times samples between two such looks
DRAWS_A_CALL = 1 << 18
BINS = 4096  # SL_RAND_BINS
DRAW_UNIT = 2.0**30


def rand_pass(
    memberships: Sequence[F32], *, with_rows: bool = False, bin_every: int = 1, progress: bool = False, n_threads: int | None = None
) -> tuple[F64, F64, F64 | None, I64, F64]:
    """One pass over all pairs of rows of R aligned membership matrices.

    Returns
    -------
    mean_difference : (R, R) float64
    mean_distance : (R,) float64
    row_difference : (R(R-1)/2, n) float64, or None unless ``with_rows``
    bin_count, bin_sum : (R, 4096) int64 and float64
        Distribution of the pair distances in every ``bin_every``-th tile.
    """
    threads = resolve_threads(n_threads)
    n = len(memberships[0])
    sums = _core.rand_sums(len(memberships), n, with_rows=with_rows)
    blocks = _core.rand_blocks(n)
    starts = list(range(0, blocks, BLOCKS_A_CALL))[::-1]  # the longest block rows first: the bar slows down at the start, not at the end
    for start in track(starts, progress=progress, what="pairs", unit="block"):
        _core.rand_accumulate(
            memberships, sums, start, min(start + BLOCKS_A_CALL, blocks), bin_every=bin_every, with_rows=with_rows, n_threads=threads
        )
    return _core.rand_finish(sums, len(memberships), n, with_rows=with_rows)


def rand_parts(p: F32, q: F32, *, progress: bool = False, n_threads: int | None = None) -> tuple[F64, F64]:
    """Parts (Kp,) and (Kq,) of the concepts in the discordance: d = sum of the first - sum of the second."""
    threads = resolve_threads(n_threads)
    n, blocks, unit = len(p), _core.rand_blocks(len(p)), 1.0
    parts = np.zeros(p.shape[1] + q.shape[1], np.int64)
    for start in track(list(range(0, blocks, BLOCKS_A_CALL))[::-1], progress=progress, what="pairs", unit="block"):
        unit = _core.rand_parts(p, q, parts, start, min(start + BLOCKS_A_CALL, blocks), n_threads=threads)
    means = parts / (unit * n * (n - 1))
    return means[: p.shape[1]], means[p.shape[1] :]


def rand_draw(
    memberships: Sequence[F32], draws: int, seed: int, *, progress: bool = False, n_threads: int | None = None
) -> tuple[F64, F64, I64, F64]:
    """Random pairs of rows of R aligned membership matrices.

    Returns
    -------
    mean, square : (R, R) float64
        Means over the pairs of |m_r - m_s| and of its square.
    bin_count, bin_sum : (R, 4096) int64 and float64
        Distribution of the pair distances.
    """
    threads, R = resolve_threads(n_threads), len(memberships)
    sums = np.zeros((R * (R - 1) // 2, 2), np.int64)
    count, total = np.zeros((R, BINS), np.int64), np.zeros((R, BINS), np.int64)
    for start in track(range(0, draws, DRAWS_A_CALL), progress=progress, what="pairs", unit=f"{DRAWS_A_CALL} pairs"):
        _core.rand_draw(memberships, sums, count, total, seed, start, min(start + DRAWS_A_CALL, draws), n_threads=threads)
    mean, square = np.zeros((R, R)), np.zeros((R, R))
    upper = np.triu_indices(R, 1)
    for out, column in ((mean, 0), (square, 1)):
        out[upper] = sums[:, column] / (draws * DRAW_UNIT)
        out += out.T
    return mean, square, count, total / DRAW_UNIT


def concept_distances(p: F32, q: F32, *, progress: bool = False, n_threads: int | None = None) -> tuple[F64, F64, F64]:
    """Distances of every concept of one side to every concept of the other (eq. 4), exact.

    Parameters
    ----------
    p, q : (Kp, n) and (Kq, n) float32
        One row per concept, at least 0.

    Returns
    -------
    distance : (Kp, Kq) float64
    lone_p, lone_q : (Kp,) and (Kq,) float64
        Distance of each concept to the empty one.
    """
    threads = resolve_threads(n_threads)
    p_sorted, q_sorted = np.sort(p, axis=1), np.sort(q, axis=1)
    distance, lone_p, lone_q = np.zeros((len(p), len(q))), np.zeros(len(p)), np.zeros(len(q))
    step = max(4, ENTRIES_A_CALL // max(1, q.size))
    for a in track(range(0, len(p), step), progress=progress, what="concepts", unit=f"{step} concepts"):
        _core.concept_distances(p, p_sorted, q, q_sorted, distance, lone_p, a, min(a + step, len(p)), n_threads=threads)
    nothing = np.zeros((len(q), 0))
    empty = np.zeros((0, p.shape[1]), np.float32)
    _core.concept_distances(q, q_sorted, empty, empty, nothing, lone_q, 0, len(q), n_threads=threads)
    return distance, lone_p, lone_q
