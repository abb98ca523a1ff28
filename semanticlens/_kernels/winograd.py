"""Convolutions of 3 x 3 and stride 1 by tiles of 2 x 2 outputs: 16 products instead of 36 (Winograd's F(2 x 2, 3 x 3)).

:func:`pack` makes transformed weights; ``conv2d``, ``conv_forward`` and ``conv_adjoint`` take this way where they are given as ``packed=``.
The formula and what becomes of rounding errors, NaN and inf are in ``csrc/include/sl/sl_winograd.h``: in short, errors are float32's, an
output whose window is zero is exactly its bias, NaN in ``x`` reaches the outputs whose window covers it, and inf becomes NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semanticlens import _core
from semanticlens._kernels.contract import PLAIN, UNIT, Form, Variant

F32 = NDArray[np.float32]


def pays(weight: tuple[int, ...], size: tuple[int, int], form: Form = UNIT, *, back: bool = False) -> bool:
    """Whether a convolution of pictures of ``size`` (H, W) by a weight of shape ``weight``, or its adjoint, is faster by tiles.

    False for shapes that tiles do not do. The shape alone decides: the same network computes the same on every machine of a tier.
    """
    return _core.winograd_pays(weight, size, *form.args(), int(back))


def pack(weight: F32, *, groups: int = 1, back: bool = False, variant: Variant = PLAIN) -> F32:
    """Transformed weights (O, C/groups, 3, 3) of a variant for this tier; 16/9 of the weight's size, good for pictures of every size.

    Raises ValueError where the weight is not of that shape.
    """
    size = _core.winograd_pack(weight, groups, int(back), variant.args(), None)
    assert size is not None
    whole = np.empty(size + 15, np.float32)
    start = -whole.ctypes.data % 64 // 4
    packed = whole[start : start + size]
    _core.winograd_pack(weight, groups, int(back), variant.args(), packed)
    return packed
