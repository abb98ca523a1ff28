"""The three contractions of linear operations, and batched matrix products, on float32 arrays; see ``csrc/include/sl/sl_contract.h``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads

F32 = NDArray[np.float32]


def matmul(a: F32, b: F32, *, scale: float = 1.0, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """``scale * a @ b`` for stacks of matrices.

    Parameters
    ----------
    a : ndarray of shape (..., m, k), float32
        At most four axes.  Views whose last or last but one axis is dense are read in place: transposed matrices (``k.swapaxes(-1, -2)``)
        and the heads of an attention layer (``qkv.transpose(0, 2, 1, 3)``) are not copied.
    b : ndarray of shape (..., k, n), float32
        Batch axes equal those of ``a``, or are 1 in one of the two.
    scale : float
    out : ndarray of shape (..., m, n), float32, optional
        Written and returned; its rows must be dense, its other strides are free; no overlap with the inputs.
    n_threads : int, optional

    Returns
    -------
    ndarray of shape (..., m, n), float32
        Each element is one chain of multiply-adds per block of at most 320 terms: bit-identical for every thread count, and the same whatever
        stack it is part of.

    Raises
    ------
    TypeError
        If an array is not float32.
    ValueError
        If the shapes do not fit.
    """
    return _core.matmul(a, b, scale, out, resolve_threads(n_threads))
