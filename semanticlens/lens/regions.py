"""Regions of a map: places that lie together, coarse to fine, each with the name that most of its members have.

Places are first gathered in small groups by k-means in the plane, started from equal stretches of a curve that visits near places one after
the other (Morton's), then the groups are joined by Ward's rule: the two whose joining adds least to the sum of squares. Every level of the
joining is a partition, and finer levels are parts of coarser ones. There is no chance in it, and no sum whose order depends on threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens.lens.results import number

__all__ = ["Region", "regions"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
LEVELS = (6, 24, 96, 256)  # regions of each level, where there are members enough
MEMBERS = 6  # components per region of the finest level, on average
ROUNDS = 12  # of k-means
CHUNK = 8192


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Region:
    """A part of a map.

    Attributes
    ----------
    level : int
        0 for the coarsest.
    name : str or None
        The label that most members have (of equally many, the one whose members lie nearer to the middle); None if no member has one.
    x, y : float
        Place of the most central member of that name: where the name is written.
    members : ndarray of int64
        Rows of the map.
    named : int
        How many members have the name.
    """

    level: int
    name: str | None
    x: float
    y: float
    members: I64
    named: int

    @property
    def share(self) -> float:
        """Of the members, those that have the name."""
        return self.named / len(self.members)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "level": self.level,
            "name": self.name,
            "x": number(self.x),
            "y": number(self.y),
            "members": self.members.tolist(),
            "named": self.named,
        }

    def __repr__(self) -> str:
        return f"Region({self.name!r}, level {self.level}, {len(self.members)} components, {self.named} of that name)"


def regions(positions: NDArray[Any], names: Sequence[str | None]) -> tuple[Region, ...]:
    """Regions of all levels, coarse ones first, large ones first.

    Parameters
    ----------
    positions : ndarray of shape (K, 2)
        Finite.
    names : sequence of K str or None
    """
    places = np.ascontiguousarray(positions, dtype=np.float64)
    wanted = _levels(len(places))
    group = _groups(places, wanted[-1])
    found: list[Region] = []
    for level, label in enumerate(_join(places, group, wanted)):
        own = [_region(places, names, np.flatnonzero(label == r), level) for r in range(int(label.max()) + 1)]
        found += sorted(own, key=lambda region: (-len(region.members), int(region.members[0])))
    return tuple(found)


def _levels(count: int) -> list[int]:
    """How many regions each level has."""
    finest = min(LEVELS[-1], max(1, count // MEMBERS))
    chosen = [n for n in LEVELS if 2 * n <= finest]
    return [*chosen, finest]


def _morton(places: F64) -> I64:
    """Order of a curve through the plane: the bits of both coordinates, taken in turn."""
    low, size = places.min(axis=0), float(np.ptp(places, axis=0).max())
    cell = np.minimum((places - low) / (size or 1.0) * 65536, 65535).astype(np.uint64)
    key = np.zeros(len(places), np.uint64)
    for bit in range(16):
        for axis in range(2):
            key |= ((cell[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(2 * bit + axis)
    return np.argsort(key, kind="stable").astype(np.int64)


def _nearest(places: F64, centres: F64) -> I64:
    """The nearest centre of each place, the first of equally near ones."""
    found = np.empty(len(places), np.int64)
    for start in range(0, len(places), CHUNK):
        part = slice(start, start + CHUNK)
        across, up = (places[part, None, axis] - centres[None, :, axis] for axis in range(2))
        found[part] = (across * across + up * up).argmin(axis=1)
    return found


def _groups(places: F64, count: int) -> I64:
    """k-means; groups are numbered without gaps."""
    order = _morton(places)
    centres = np.stack([places[part].mean(axis=0) for part in np.array_split(order, count)])
    group = _nearest(places, centres)
    for _ in range(ROUNDS):
        size = np.bincount(group, minlength=count)
        for axis in range(2):
            sums = np.bincount(group, places[:, axis], count)
            centres[:, axis] = np.where(size > 0, sums / np.maximum(size, 1), centres[:, axis])
        before, group = group, _nearest(places, centres)
        if np.array_equal(before, group):
            break
    return np.unique(group, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _join(places: F64, group: I64, wanted: Sequence[int]) -> list[I64]:
    """Labels (K,) of each wanted number of regions, by Ward's joining of the groups."""
    count = int(group.max()) + 1
    size = np.bincount(group, minlength=count).astype(np.float64)
    centre = np.stack([np.bincount(group, places[:, axis], count) / size for axis in range(2)], axis=1)
    cost = np.stack([_costs(centre, size, i) for i in range(count)])
    label, alive = group.copy(), count
    kept: dict[int, I64] = {}
    while True:
        if alive in wanted or (alive < max(wanted) and not kept):
            kept[alive] = np.unique(label, return_inverse=True)[1].reshape(-1).astype(np.int64)
        if alive <= wanted[0]:
            return [kept[n] for n in sorted(kept)]
        i, j = sorted(divmod(int(cost.argmin()), count))
        total = size[i] + size[j]
        centre[i] = (size[i] * centre[i] + size[j] * centre[j]) / total
        size[i], size[j] = total, 0.0
        label[label == j] = i
        cost[j, :] = cost[:, j] = np.inf
        cost[i, :] = cost[:, i] = _costs(centre, size, i)
        alive -= 1


def _costs(centre: F64, size: F64, i: int) -> F64:
    """What joining group i with each other one adds to the sum of squares; infinite for itself and for those that are gone."""
    apart = ((centre - centre[i]) ** 2).sum(axis=1)
    found = np.where(size > 0, size * size[i] / np.maximum(size + size[i], 1.0) * apart, np.inf)
    found[i] = np.inf
    return np.asarray(found)


def _region(places: F64, names: Sequence[str | None], members: I64, level: int) -> Region:
    own = places[members]
    middle = np.median(own, axis=0)
    away = ((own - middle) ** 2).sum(axis=1)
    rows: dict[str, list[int]] = {}
    for row, k in enumerate(members):
        name = names[int(k)]
        if name is not None:
            rows.setdefault(name, []).append(row)
    if not rows:
        at = own[int(away.argmin())]
        return Region(level=level, name=None, x=float(at[0]), y=float(at[1]), members=members, named=0)
    name = min(rows, key=lambda word: (-len(rows[word]), float(away[rows[word]].mean()), word))
    mine = own[rows[name]]
    at = mine[int(((mine - np.median(mine, axis=0)) ** 2).sum(axis=1).argmin())]
    return Region(level=level, name=name, x=float(at[0]), y=float(at[1]), members=members, named=len(rows[name]))
