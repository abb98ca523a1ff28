"""Byte pair encoding: neighbours become one, the best pair first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

__all__ = ["byte_letters", "merge"]

Part = TypeVar("Part", bound=Hashable)
Rank = Callable[[Part, Part], "tuple[float, Part] | None"]


def merge(parts: Sequence[Part], rank: Rank[Part]) -> list[Part]:
    """Join neighbours until no pair has a rank: the lowest rank first, the leftmost of equal ones.

    ``rank(a, b)`` is the pair's rank and what the two become, or None.  O(n log n) for n parts, whatever they are.
    """
    values: list[Part] = list(parts)
    alive = [True] * len(values)
    before = [i - 1 for i in range(len(values))]
    after = [i + 1 for i in range(len(values))]
    queue: list[tuple[float, int, int, Part, Part, Part]] = []

    def offer(left: int, right: int) -> None:
        found = rank(values[left], values[right])
        if found is not None:
            # positions are unique, so parts are never compared
            heapq.heappush(queue, (found[0], left, right, values[left], values[right], found[1]))

    for i in range(len(values) - 1):
        offer(i, i + 1)
    while queue:
        _, left, right, a, b, union = heapq.heappop(queue)
        if not (alive[left] and alive[right]) or after[left] != right or values[left] != a or values[right] != b:
            continue
        values[left], alive[right] = union, False
        after[left] = after[right]
        if after[left] < len(values):
            before[after[left]] = left
            offer(left, after[left])
        if before[left] >= 0:
            offer(before[left], left)
    return [value for value, here in zip(values, alive, strict=True) if here]


def byte_letters() -> dict[int, str]:
    """A printable character for each byte: itself where it is one, the next free one from 256 on otherwise."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in shown}
    for byte in range(256):
        table.setdefault(byte, chr(256 + len(table) - len(shown)))
    return table
