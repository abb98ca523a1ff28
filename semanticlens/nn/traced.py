"""How a value of ours lies in a traced tensor.

The engine keeps the batch first in every value.  Traced programs do not: windows are folded into the batch, tokens
stand before it, queries, keys and values are stacked in front of it.  A traced tensor therefore carries where its batch
is: its axis ``axis`` has ``outer * batch * inner`` places, and ours is the same numbers with the batch pulled to the
front and ``outer`` and ``inner`` as axes of their own where they are not 1.  Reshaping and permuting keep that form or
are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Refused", "Traced"]


class Refused(Exception):
    """Why an operation with these arguments has no counterpart."""


@dataclass(frozen=True)
class Traced:
    """A node of ours, and the place of the batch in the traced tensor it stands for."""

    node: str
    axis: int = 0
    outer: int = 1
    inner: int = 1

    @property
    def plain(self) -> bool:
        """Whether the traced tensor is ours as it is."""
        return (self.axis, self.outer, self.inner) == (0, 1, 1)

    @property
    def leading(self) -> bool:
        """Whether the batch is the slowest axis of the traced tensor."""
        return self.axis == 0 and self.outer == 1

    def same(self, other: Traced) -> bool:
        """Whether the batch has the same place in both."""
        return (self.axis, self.outer, self.inner) == (other.axis, other.outer, other.inner)

    def at(self, node: str) -> Traced:
        """The same place in another node's value."""
        return replace(self, node=node)

    def places(self, rank: int) -> list[tuple[int, ...]]:
        """For each traced axis, the axes of ours that it stands for; the batch is 0."""
        result: list[tuple[int, ...]] = []
        position = 1
        for axis in range(rank):
            count = (self.outer > 1) + (self.inner > 1) if axis == self.axis else 1
            result.append(tuple(range(position, position + count)))
            position += count
        return result

    def place(self, axis: int, rank: int) -> int:
        """The axis of ours that a traced axis is; refused for the batch's."""
        if axis == self.axis:
            raise Refused("along the batch")
        return self.places(rank)[axis][0]

    def dims(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Our shape, without the batch."""
        parts = [n for n in (self.outer, self.inner) if n > 1]
        return (*shape[: self.axis], *parts, *shape[self.axis + 1 :])

    def permuted(self, order: Sequence[int]) -> tuple[Traced, tuple[int, ...]]:
        """The place after permuting the traced tensor, and the order of our axes that gives it."""
        places = self.places(len(order))
        return replace(self, axis=list(order).index(self.axis)), tuple(p for axis in order for p in places[axis])

    def reshaped(self, before: Sequence[int], after: Sequence[int], batch: int) -> Traced:
        """The place after reshaping the traced tensor; ours is reshaped to ``dims(after)`` of it."""
        ahead = math.prod(before[: self.axis]) * self.outer
        passed = 1
        for axis, size in enumerate(after):
            if ahead % passed == 0 and size % (ahead // passed * batch) == 0 and size > 0:
                outer = ahead // passed
                return Traced(self.node, axis, outer, size // (outer * batch))
            passed *= size
        raise Refused(f"a reshape from {tuple(before)} to {tuple(after)}, which tears the batch of {batch} apart")

    def back(self, value: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
        """Our value in the traced tensor's form."""
        ahead = self.axis + (self.outer > 1)
        return np.moveaxis(value, 0, ahead).reshape(shape)
