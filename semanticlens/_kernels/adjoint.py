"""Adjoints of activations and pooling, on float32 arrays; see ``csrc/include/sl/sl_adjoint.h``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels import resolve_threads
from semanticlens._kernels.nn import ACTIVATIONS, POOLINGS, _number

F32 = NDArray[np.float32]

FROM_OUTPUT = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "tanh"})  # activations whose slope follows from their result


def activate(saved: F32, s: F32, kind: str, *, out: F32 | None = None, n_threads: int | None = None) -> F32:
    """``s`` times the activation's slope; ``saved`` is its result for the kinds in ``FROM_OUTPUT``, else its input; ``out`` may be ``s``."""
    return _core.activate_adjoint(saved, s, _number(ACTIVATIONS, kind, "kind"), out, resolve_threads(n_threads))


def pool2d(s: F32, x: F32 | None, size: tuple[int, int], kind: str, kernel: tuple[int, int], *, stride: tuple[int, int],
           padding: tuple[int, int, int, int] = (0, 0, 0, 0), dilation: tuple[int, int] = (1, 1), ceil_mode: bool = False,
           count_include_pad: bool = True, n_threads: int | None = None) -> F32:
    """(B, C, H', W') -> (B, C, H, W) with ``size`` = (H, W); a maximum needs its input ``x``, and goes to the first tap that holds it."""
    return _core.pool2d_adjoint(s, x, size, _number(POOLINGS, kind, "kind"), kernel, stride, padding, dilation, ceil_mode,
                                count_include_pad, resolve_threads(n_threads))


def adaptive_avg_pool2d(s: F32, size: tuple[int, int], *, n_threads: int | None = None) -> F32:
    """(B, C, h, w) -> (B, C, H, W): each value spread evenly over its cell."""
    return _core.adaptive_avg_pool2d_adjoint(s, size, resolve_threads(n_threads))
