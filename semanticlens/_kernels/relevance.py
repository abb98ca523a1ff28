"""Elementwise work of relevance propagation on float32 arrays; see ``csrc/include/sl/sl_relevance.h``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads
from semanticlens._kernels.contract import SEEN

F32 = NDArray[np.float32]


def quotient(r: F32, z: F32, *, eps: float, clip: bool = False, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """(B n, ...), (B, ...) -> (B n, ...): ``r / st(z)``, 0 where r or st(z) is exactly 0; ``out`` may be ``r``."""
    return _core.relevance_quotient(r, z, eps, clip, out, resolve_threads(n_threads))


def times(g: F32, x: F32, *, part: str = "plain", scale: float = 1.0, sum: F32 | None = None, out: F32 | None = None,
          n_threads: int | None = None) -> F32:
    """(B n, ...), (B, ...) -> (B n, ...): ``scale * part(x) * g + sum``; ``out`` may be ``g`` or ``sum``."""
    return _core.relevance_times(g, x, SEEN[part], scale, sum, out, resolve_threads(n_threads))


def by_sign(r: F32, z: F32, *, n_threads: int | None = None) -> tuple[F32 | None, F32 | None]:
    """(B n, ...), (B, ...) -> r where z > 0 and r where z < 0, 0 elsewhere; None in place of one that is 0 everywhere."""
    above, below, found = _core.relevance_by_sign(r, z, resolve_threads(n_threads))
    return above if found & 1 else None, below if found & 2 else None
