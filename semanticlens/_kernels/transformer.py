"""Kernels of transformers, on float32 arrays: normalisation and attention.  ``out=`` as in :mod:`semanticlens._kernels.nn`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads

F32 = NDArray[np.float32]


def norm_rows(x: F32, weight: F32 | None, bias: F32 | None, *, eps: float, centred: bool = True, out: F32 | None = None,
              n_threads: int | None = None) -> F32:
    """Layer norm (centred) or RMS norm over the last axis; ``out`` may be ``x``.

    ``(x - m) / sqrt(mean((x - m)**2) + eps) * weight + bias`` with the mean m, or 0 where not centred.
    """
    return _core.norm_rows(x, weight, bias, eps, centred, out, resolve_threads(n_threads))


def group_norm(x: F32, groups: int, weight: F32 | None, bias: F32 | None, *, eps: float, out: F32 | None = None,
               n_threads: int | None = None) -> F32:
    """Normalisation of each group of channels of (B, C, ...); ``out`` may be ``x``."""
    return _core.group_norm(x, groups, weight, bias, eps, out, resolve_threads(n_threads))


def attention(q: F32, k: F32, v: F32, bias: F32 | None = None, *, scale: float, causal: bool = False, out: F32 | None = None,
              n_threads: int | None = None) -> F32:
    """``softmax(scale q k^T + bias) v`` over the last two axes.

    Parameters
    ----------
    q, k, v : ndarray of shape (..., T, D), (..., S, D), (..., S, E), float32
        With equal leading axes.
    bias : ndarray of shape (R, T, S), float32, optional
        R divides the product of the leading axes and runs through its last part: (heads, T, S) for q (B, heads, T, D).
    scale : float
    causal : bool
        Query i looks at keys j <= i + S - T only.

    Returns
    -------
    ndarray of shape (..., T, E), float32
    """
    shape = (*q.shape[:-1], v.shape[-1])
    pairs = math.prod(q.shape[:-2])
    q, k, v = (a.reshape(pairs, *a.shape[-2:]) if a.shape[:-2] == q.shape[:-2] else a for a in (q, k, v))
    into = None if out is None else out.reshape(pairs, *shape[-2:])
    return _core.attention(q, k, v, bias, scale, causal, into, resolve_threads(n_threads)).reshape(shape)


def bound_norm_rows(x: F32, weight: F32 | None, bias: F32 | None, *, eps: float, centred: bool = True, out: F32,
                    n_threads: int | None = None) -> Callable[[], F32]:
    """:func:`norm_rows` with all its arguments, to be called again and again on what the arrays hold then."""
    return partial(_core.norm_rows, x, weight, bias, eps, centred, out, resolve_threads(n_threads))


def bound_attention(q: F32, *, scale: float, causal: bool = False, out: F32, n_threads: int | None = None) -> Callable[[F32, F32], F32]:
    """:func:`attention` of what ``q`` (P, T, D) holds with given keys and values (P, S, D), whose pairs may lie apart."""
    threads = resolve_threads(n_threads)
    return lambda k, v: _core.attention(q, k, v, None, scale, causal, out, threads)
