"""Stub of the extension; tests/test_build.py compares it with the module."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def build_info() -> dict[str, Any]: ...

# alignment
def rand_blocks(n: int) -> int: ...
def rand_sums(n_representations: int, n: int, *, with_rows: bool = False) -> NDArray[np.int64]: ...
def rand_accumulate(
    memberships: Sequence[NDArray[np.float32]],
    sums: NDArray[np.int64],
    begin: int,
    end: int,
    *,
    bin_every: int = 0,
    with_rows: bool = False,
    n_threads: int = 1,
) -> None: ...
def rand_finish(
    sums: NDArray[np.int64], n_representations: int, n: int, *, with_rows: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.int64], NDArray[np.float64]]: ...
def concept_distances(
    p: NDArray[np.float32],
    p_sorted: NDArray[np.float32],
    q: NDArray[np.float32],
    q_sorted: NDArray[np.float32],
    distance: NDArray[np.float64],
    lone: NDArray[np.float64],
    begin: int,
    end: int,
    *,
    n_threads: int = 1,
) -> None: ...
