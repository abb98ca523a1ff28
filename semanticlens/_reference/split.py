"""NumPy twin of the splitting of float32 numbers into bfloat16 parts, and of a product of the parts in double precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

PAIRS = {6: ((0, 2), (2, 0), (1, 1), (0, 1), (1, 0), (0, 0)), 3: ((0, 1), (1, 0), (0, 0))}   # (part of a, part of b), as they are added


def near(x: F32) -> F32:
    """``x`` rounded to bfloat16, ties away from zero, as float32."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def split(x: F32) -> NDArray[np.uint16]:
    """Bits of the parts (3, n) of ``x`` (n): hi, mid, lo."""
    hi = near(x)
    rest = x - hi
    mid = near(rest)
    parts = np.stack([hi, mid, rest - mid])
    return (parts.view(np.uint32) >> 16).astype(np.uint16)


def parts(x: F32) -> F32:
    """The same as float32 numbers, for ``x`` of any shape: (3, ...)."""
    bits = split(x.ravel()).astype(np.uint32) << 16
    return bits.view(np.float32).reshape(3, *x.shape)


def product(a: F32, b: F32, products: int = 6) -> NDArray[np.float64]:
    """``a @ b.T`` from the pairs of parts that so many tile products keep, without rounding: what splitting alone costs."""
    left, right = parts(a).astype(np.float64), parts(b).astype(np.float64)
    total = np.zeros((len(a), len(b)))
    for i, j in PAIRS[products]:
        total += left[i] @ right[j].T
    return total
