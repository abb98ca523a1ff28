"""Two sets of concepts side by side: which belong to a set, and which concept of the other set is the nearest.

With unit vectors a of set A and b of set B, ``best(a) = max over b of cos(a, b)`` and ``match(a)`` is the b that attains it. Both
directions are products whose rows keep their largest value only: memory grows with the sets, not with their product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError, MismatchError
from semanticlens._kernels import lens as kernels
from semanticlens.lens.parts import name_of, print_of
from semanticlens.lens.results import number

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB

__all__ = [
    "Estimate",
    "Side",
    "centre_of",
    "check_alike",
    "level_of",
    "mutual",
    "nearest",
    "remarks",
    "resampled",
    "side_of",
    "titles",
]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
ROUNDING = 4e-7  # cosines of equal vectors, computed in float32, may differ by this
BUILD = {"normalize_examples": False, "weighting": "mean", "crops": False}  # settings that move the vectors
EXAMPLES = (
    "score",
    "pool",
    "crops",
)  # settings of the examples that two databases may differ in, which is worth saying


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Estimate:
    """A number with its bootstrap interval; NaN bounds where none was asked for.

    Attributes
    ----------
    value, lower, upper : float
    """

    value: float
    lower: float = float("nan")
    upper: float = float("nan")

    def __float__(self) -> float:
        return self.value

    def to_dict(self) -> dict[str, float | None]:
        """Plain Python, ready for JSON."""
        return {"value": number(self.value), "lower": number(self.lower), "upper": number(self.upper)}

    def __repr__(self) -> str:
        return f"{self.value:.3f}" if np.isnan(self.lower) else f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Side:
    """One of two sets: the K components of some layers of a database, in one row, and the nearest of the other set.

    Attributes
    ----------
    name : str
    layers : tuple of str
    layer : ndarray (K,), int64
        Place of each component's layer in ``layers``.
    component : ndarray (K,), int64
        Its number there.
    examples : ndarray (K,), int64
        How many examples it has; 0 for dead components.
    best : ndarray (K,), float64
        Cosine to the nearest component of the other set; NaN for components that are left out.
    match : ndarray (K,), int64
        Which one that is, a place in the other set's row; -1 for components that are left out.
    dead, unusable, few : int
        Components that are left out: dead, without a vector for another reason (no usable picture, or pictures that cancel), and with
        fewer examples than were asked for.
    single : int
        Components with one example that are not left out: their vectors are those of one picture.
    """

    name: str
    layers: tuple[str, ...]
    layer: I64
    component: I64
    examples: I64
    best: F64
    match: I64
    dead: int
    unusable: int
    few: int
    single: int

    def __len__(self) -> int:
        return len(self.component)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(K,): which components take part."""
        return self.match >= 0

    def place(self, layer: str, component: int) -> int:
        """Where a component stands in the row.

        Raises
        ------
        DataError
            If it is not in the set.
        """
        if layer not in self.layers:
            raise DataError(f"layer {layer!r} is not in {self.name!r}, which has {', '.join(map(repr, self.layers))}")
        own = np.flatnonzero(self.layer == self.layers.index(layer))
        if isinstance(component, bool) or not 0 <= component < len(own):
            raise DataError(
                f"component {component!r}: layer {layer!r} of {self.name!r} has components 0 to {len(own) - 1}"
            )
        return int(own[int(component)])

    def key(self, place: int) -> tuple[str, int]:
        """Layer and number of the component at a place."""
        return self.layers[self.layer[place]], int(self.component[place])

    def counts(self) -> dict[str, int]:
        """How many there are, take part, and are left out why."""
        return {
            "components": len(self),
            "used": int(self.usable.sum()),
            "dead": self.dead,
            "unusable": self.unusable,
            "too few examples": self.few,
            "one example": self.single,
        }


def side_of(
    db: ConceptDB, layers: str | Sequence[str] | None, name: str, what: str, least: int
) -> tuple[Side, NDArray[np.float32]]:
    """A set without its matches, and its vectors (K, d), NaN in rows that are left out; ``what`` names the argument in errors."""
    chosen = db._chosen(layers)
    if not chosen:
        raise DataError(
            f"{what} is empty: name at least one of {', '.join(map(repr, db.layers)) or 'the layers (there are none)'}"
        )
    own = [db[layer] for layer in chosen]
    vectors = np.concatenate([np.asarray(one.vectors, np.float32) for one in own])
    counts = np.concatenate([one.live_counts() for one in own])
    dead = np.concatenate([np.asarray(one.dead, bool) for one in own])
    unusable = ~dead & (~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1))
    few = ~dead & ~unusable & (counts < least)
    gone = dead | unusable | few
    vectors[gone] = np.nan
    if gone.all():
        raise DataError(
            f"{name!r} has no component with a concept vector and at least {least} example(s) in {', '.join(map(repr, chosen))}: "
            f"{int(dead.sum())} of {len(gone)} are dead, {int(few.sum())} have fewer examples"
        )
    side = Side(
        name=name,
        layers=chosen,
        layer=np.repeat(np.arange(len(own)), [len(one) for one in own]).astype(np.int64),
        component=np.concatenate([np.arange(len(one)) for one in own]).astype(np.int64),
        examples=counts.astype(np.int64),
        best=np.full(len(gone), np.nan),
        match=np.full(len(gone), -1, np.int64),
        dead=int(dead.sum()),
        unusable=int(unusable.sum()),
        few=int(few.sum()),
        single=int((~gone & (counts == 1)).sum()),
    )
    return side, vectors


def nearest(
    a: Side, b: Side, vectors_a: NDArray[np.float32], vectors_b: NDArray[np.float32], *, n_threads: int | None = None
) -> tuple[Side, Side]:
    """Both sets with their matches. Among equal cosines, a component of the same layer and number is preferred, then the lowest place."""
    matched = []
    for x, y in ((vectors_a, vectors_b), (vectors_b, vectors_a)):
        labels, cosines = kernels.top_labels(x, y, 1, n_threads=n_threads)
        matched.append((labels[:, 0].astype(np.int64), np.clip(cosines[:, 0].astype(np.float64), -1, 1)))
    (to_b, best_a), (to_a, best_b) = matched
    _prefer_same(a, b, vectors_a, vectors_b, to_b, best_a, to_a, best_b)
    both = np.flatnonzero(mutual(to_b, to_a))
    best_a[both] = best_b[to_b[both]] = np.maximum(best_a[both], best_b[to_b[both]])
    return _matched(a, best_a, to_b), _matched(b, best_b, to_a)


def _matched(side: Side, best: F64, match: I64) -> Side:
    usable = match >= 0
    return replace(
        side,
        best=best,
        match=match,
        unusable=int((~usable).sum()) - side.dead - side.few,
        single=int((usable & (side.examples == 1)).sum()),
    )


def centre_of(a: NDArray[np.float32], b: NDArray[np.float32]) -> F64:
    """(d,): mean concept vector of both sets, each weighing the same; rows of NaN are left out."""
    means = [v[~np.isnan(v).any(axis=1)].mean(axis=0, dtype=np.float64) for v in (a, b)]
    return np.asarray((means[0] + means[1]) / 2, np.float64)


def _prefer_same(
    a: Side, b: Side, vectors_a: Any, vectors_b: Any, to_b: I64, best_a: F64, to_a: I64, best_b: F64
) -> None:
    """Let equal components of the same layer and number match each other: else duplicates in a layer that did not change cross over."""
    known = {b.key(j): j for j in range(len(b))}
    pairs = [(i, known[a.key(i)]) for i in range(len(a)) if a.key(i) in known]
    pairs = [(i, j) for i, j in pairs if to_b[i] >= 0 and to_a[j] >= 0]
    if not pairs:
        return
    i, j = np.array(pairs, np.int64).T
    for start in range(0, len(i), 4096):
        here, there = i[start : start + 4096], j[start : start + 4096]
        x, y = vectors_a[here].astype(np.float64), vectors_b[there].astype(np.float64)
        own = (x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
        closest_a, closest_b = own >= best_a[here] - ROUNDING, own >= best_b[there] - ROUNDING
        to_b[here[closest_a]], to_a[there[closest_b]] = there[closest_a], here[closest_b]


def mutual(to_b: I64, to_a: I64) -> NDArray[np.bool_]:
    """(K_A,): which components are the nearest of their nearest."""
    if not len(to_a):
        return np.zeros(len(to_b), bool)
    return np.asarray((to_b >= 0) & (to_a[to_b] == np.arange(len(to_b))), bool)


def resampled(values: F64, resamples: int, seed: Sequence[int]) -> F64:
    """(resamples, C): means of the columns of ``values`` (K, C) over components drawn with replacement."""
    rng = np.random.default_rng(list(seed))
    found = np.empty((resamples, values.shape[1]))
    for r in range(resamples):
        found[r] = values[rng.integers(0, len(values), len(values))].mean(axis=0)
    return found


def check_alike(a: ConceptDB, b: ConceptDB) -> None:
    """Refuse databases whose vectors do not mean the same: another encoder, or examples that were combined in another way.

    Raises
    ------
    MismatchError
    """
    a._check_comparable(b)
    mine, theirs = a.record.get("build") or {}, b.record.get("build") or {}
    for key, default in BUILD.items():
        if mine.get(key, default) != theirs.get(key, default):
            raise MismatchError(
                f"the databases were built with different settings: {key} is {mine.get(key, default)!r} in one and "
                f"{theirs.get(key, default)!r} in the other, so their vectors cannot be compared; build both alike"
            )


def remarks(databases: Sequence[ConceptDB], names: Sequence[str]) -> tuple[str, ...]:
    """What differs between databases without forbidding a comparison: pictures, and how the examples were chosen."""
    found = []
    prints = [print_of(db.record.get("data")) for db in databases]
    if len({p for p in prints if p is not None}) > 1:
        listed = ", ".join(
            f"{name_of(db.record.get('data'))!r} ({name})" for db, name in zip(databases, names, strict=True)
        )
        found.append(f"the examples come from different pictures: {listed}; differences may be of these")
    for key in EXAMPLES:
        values = [_setting(db, key) for db in databases]
        if any(value != values[0] for value in values):
            listed = ", ".join(f"{value} ({name})" for value, name in zip(values, names, strict=True))
            found.append(f"the examples were chosen with different settings: {key} {listed}")
    tops = [max((db[layer].ids.shape[1] for layer in db.layers), default=0) for db in databases]
    if len(set(tops)) > 1:
        found.append(
            f"examples per component differ: {', '.join(f'{n} ({name})' for n, name in zip(tops, names, strict=True))}"
        )
    return tuple(found)


def _setting(db: ConceptDB, key: str) -> Any:
    record = db.record.get("examples") or {}
    parameters = record.get("parameters") if isinstance(record, Mapping) else None
    found = (parameters if isinstance(parameters, Mapping) else record).get(key)
    if isinstance(found, Mapping) and key == "pool":  # by layer
        found = ", ".join(sorted({str(value) for value in found.values()}))
    return str(found) if found is not None else "not recorded" if key != "score" else "activation"


def titles(databases: Sequence[ConceptDB], names: Sequence[str] | None) -> tuple[str, ...]:
    """What to call the databases: the names given, else those of their networks, made different where they are not."""
    if names is not None:
        given = (names,) if isinstance(names, str) else tuple(str(name) for name in names)
        if len(given) != len(databases) or len(set(given)) != len(given):
            raise ValueError(f"names={names!r}: must be {len(databases)} different names, one for each database")
        return given
    found = [str(name_of(db.record.get("network")) or "network") for db in databases]
    return tuple(name if found.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(found, start=1))


def level_of(threshold: Any) -> float | None:
    """A threshold that was given, checked; None stays None."""
    if threshold is None:
        return None
    if isinstance(threshold, (bool, str)) or not np.isscalar(threshold) or not -1 <= float(threshold) <= 1:  # type: ignore[arg-type]
        raise ValueError(f"threshold={threshold!r}: must be a cosine, -1 to 1, such as 0.8")
    return float(threshold)
