"""A set of sample ids, small where ids come in runs."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


class IdSet:
    """Whole numbers as sorted, disjoint, non-adjacent intervals [start, stop)."""

    def __init__(self, intervals: Iterable[Sequence[int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in intervals:
            self._add_run(int(start), int(stop))

    @property
    def intervals(self) -> list[list[int]]:
        """[[start, stop], ...], ascending."""
        return [list(pair) for pair in zip(self._starts, self._stops, strict=True)]

    def __len__(self) -> int:
        return sum(self._stops) - sum(self._starts)

    def __contains__(self, number: int) -> bool:
        at = bisect.bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._stops[at]

    def contains(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of ``numbers`` are in the set."""
        if not self._starts:
            return np.zeros(numbers.shape, np.bool_)
        at = np.searchsorted(np.array(self._starts), numbers, side="right") - 1
        inside: NDArray[np.bool_] = (at >= 0) & (numbers < np.array(self._stops)[at])
        return inside

    def add(self, numbers: NDArray[np.int64]) -> None:
        """Add distinct numbers."""
        ordered = np.sort(numbers)
        for run in np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1):
            if run.size:
                self._add_run(int(run[0]), int(run[-1]) + 1)

    def isdisjoint(self, other: IdSet) -> bool:
        """Whether no number is in both."""
        union = IdSet(self.intervals)
        for start, stop in other.intervals:
            union._add_run(start, stop)
        return len(union) == len(self) + len(other)

    def union(self, other: IdSet) -> IdSet:
        """The numbers in either."""
        return IdSet(self.intervals + other.intervals)

    def _add_run(self, start: int, stop: int) -> None:
        first = bisect.bisect_left(self._stops, start)
        last = bisect.bisect_right(self._starts, stop)
        if first < last:  # touches or overlaps the intervals first .. last - 1
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]
