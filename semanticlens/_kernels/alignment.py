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
CONCEPTS_A_CALL = 8


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
    for a in track(range(0, len(p), CONCEPTS_A_CALL), progress=progress, what="concepts", unit=f"{CONCEPTS_A_CALL} concepts"):
        _core.concept_distances(p, p_sorted, q, q_sorted, distance, lone_p, a, min(a + CONCEPTS_A_CALL, len(p)), n_threads=threads)
    nothing = np.zeros((len(q), 0))
    empty = np.zeros((0, p.shape[1]), np.float32)
    _core.concept_distances(q, q_sorted, empty, empty, nothing, lone_q, 0, len(q), n_threads=threads)
    return distance, lone_p, lone_q
