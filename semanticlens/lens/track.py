"""How do concepts change over training, or over a family of networks? Databases in a row, each compared with the next.

From one database (old) to the next (new), with a threshold t, ``n(o)`` the new component nearest to an old one and ``o(n)`` the old
component nearest to a new one, every old component has one fate and every new one one origin:

==========  =========================================================================================================
continues   old o and new n(o) are the nearest of each other, at a cosine of at least t; its drift is ``1 - cos(o, n(o))``
merges      n(o) is at t or above, and nearer to another old one: both are within t of one new component
dies        no new component reaches t
splits      new n: o(n) is at t or above, and nearer to another new one: both new ones are within t of one old component
appears     new n: no old component reaches t
==========  =========================================================================================================

So ``old = continues + merges + dies`` and ``new = continues + splits + appears``. A fate is of a concept, not of a number: component 3 may
continue as component 7. Copies within a layer are merges and splits as well, unless they stay what they are: among equal cosines a
component of the same layer and number comes first. Dead components take no part: a concept whose component dies may go on in another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens._progress import track as bar
from semanticlens.io import atomic_write
from semanticlens.lens.compare import Comparison, compare
from semanticlens.lens.results import Labels, number, text_table
from semanticlens.lens.sides import F64, Estimate, Side, check_alike, level_of, remarks, titles

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB

__all__ = ["History", "Moment", "Track", "track"]

FATES = ("continues", "merges", "dies")  # of old components, in the order of shared, covered, unique
ORIGINS = ("continues", "splits", "appears")  # of new ones
COUNTS = ("old", "continues", "merges", "dies", "splits", "appears", "new")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Moment:
    """One database in the life of a concept.

    Attributes
    ----------
    step : int
        Place of the database.
    name : str
    layer, component : str, int
    origin : str
        "continues", "splits" or "appears"; "start" in the first database.
    fate : str
        "continues", "merges" or "dies"; "end" in the last database.
    cosine : float
        To the concept in the database before; NaN at the start of the life.
    label : str or None
    """

    step: int
    name: str
    layer: str
    component: int
    origin: str
    fate: str
    cosine: float
    label: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        own = {name: getattr(self, name) for name in ("step", "name", "layer", "component", "origin", "fate", "label")}
        return {**own, "cosine": number(self.cosine)}


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class History(Sequence[Moment]):
    """The life of a concept, oldest first; prints as a table."""

    moments: tuple[Moment, ...]

    def __len__(self) -> int:
        return len(self.moments)

    @overload
    def __getitem__(self, index: int) -> Moment: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Moment, ...]: ...
    def __getitem__(self, index: int | slice) -> Moment | tuple[Moment, ...]:
        return self.moments[index]

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain Python, ready for JSON."""
        return [moment.to_dict() for moment in self.moments]

    def __repr__(self) -> str:
        heads = ["step", "name", "layer", "component", "origin", "fate", "cosine", "label"]
        rows = [[m.step, m.name, m.layer, m.component, m.origin, m.fate, m.cosine, m.label or ""] for m in self.moments]
        return text_table(heads, rows)


@dataclass(frozen=True, eq=False, kw_only=True)
class Track:
    """What :func:`track` returns; prints as a table.

    Attributes
    ----------
    names : tuple of str
        Of the D databases.
    steps : tuple of Comparison
        Each database with the next (D - 1): ``steps[0].pairs()`` and so on.
    to_last, from_last : tuple of Estimate
        ``sim(database -> last)`` and ``sim(last -> database)`` for every database (D); the last with itself is 1.
    threshold : float or None
    remarks : tuple of str
    labels : tuple of Labels, or None
    """

    names: tuple[str, ...]
    steps: tuple[Comparison, ...]
    to_last: tuple[Estimate, ...]
    from_last: tuple[Estimate, ...]
    threshold: float | None
    remarks: tuple[str, ...]
    labels: tuple[Labels, ...] | None = field(default=None, repr=False)

    # ---------------------------------------------------------------- reading
    def at(self, threshold: float) -> Track:
        """The same with another threshold."""
        steps = tuple(step.at(threshold) for step in self.steps)
        return replace(self, steps=steps, threshold=steps[0].threshold)

    def threshold_at(self, share: float = 0.05) -> float:
        """The least threshold that at most this share of the random components reaches in every step; for :meth:`at`."""
        return max(step.threshold_at(share) for step in self.steps)

    def fates(self, step: int) -> NDArray[np.int64]:
        """(K_old,): places in ("continues", "merges", "dies") for the old components of a step; -1 for those left out."""
        return self._step(step).kinds("a")

    def origins(self, step: int) -> NDArray[np.int64]:
        """(K_new,): places in ("continues", "splits", "appears") for the new components of a step; -1 for those left out."""
        return self._step(step).kinds("b")

    def counts(self, step: int) -> dict[str, int]:
        """Components of a step by fate and origin: ``old = continues + merges + dies``, ``new = continues + splits + appears``."""
        fates, origins = self.fates(step), self.origins(step)
        found = {word: int((fates == i).sum()) for i, word in enumerate(FATES)}
        found |= {word: int((origins == i).sum()) for i, word in enumerate(ORIGINS) if word != "continues"}
        found |= {"old": int((fates >= 0).sum()), "new": int((origins >= 0).sum())}
        return {word: found[word] for word in COUNTS}

    def drift(self, step: int) -> F64:
        """(K_old,): cosine distance that each continuing component moved; NaN for all others."""
        own = self._step(step).a
        return np.where(self.fates(step) == 0, 1 - own.best, np.nan)

    def mean_drift(self, step: int) -> float:
        """Mean of :meth:`drift` over the components that continue; NaN if none does."""
        moved = self.drift(step)
        moved = moved[~np.isnan(moved)]
        return float(moved.mean()) if len(moved) else float("nan")

    def stayed(self, step: int) -> int:
        """How many of the components that continue have kept layer and number."""
        own, other = self._step(step).a, self._step(step).b
        return sum(own.key(int(i)) == other.key(int(own.match[i])) for i in np.flatnonzero(self.fates(step) == 0))

    def curve(self, thresholds: Iterable[float] | None = None) -> dict[str, F64]:
        """What each threshold would give: ``threshold`` (T,), and every count of :meth:`counts` as (D - 1, T).

        Left out, thresholds go from the least to the largest cosine of all steps in 101 steps.
        """
        if thresholds is None:
            every = np.concatenate([side.best[side.usable] for step in self.steps for side in (step.a, step.b)])
            thresholds = np.linspace(every.min(), every.max(), 101)
        given = [float(t) for t in thresholds]
        moved = [self.at(t) for t in given]
        table = [[one.counts(i) for one in moved] for i in range(len(self.steps))]
        found = {word: np.array([[cell[word] for cell in row] for row in table], np.float64) for word in COUNTS}
        return {"threshold": np.array(given), **found}

    def merges(self, step: int) -> list[tuple[tuple[str, int], list[tuple[str, int]]]]:
        """New components into which old ones merge, with all old ones within the threshold whose nearest they are, or who are theirs."""
        own, other = self._step(step).a, self._step(step).b
        return _groups(own, other, self.fates(step) == 1)

    def splits(self, step: int) -> list[tuple[tuple[str, int], list[tuple[str, int]]]]:
        """Old components from which new ones split, with all new ones within the threshold whose nearest they are, or who are theirs."""
        own, other = self._step(step).a, self._step(step).b
        return _groups(other, own, self.origins(step) == 1)

    def history(self, layer: str, component: int, step: int = -1) -> History:
        """The life of a concept, found from its component in one database, the last if left out.

        Back along the nearest component of the database before until it appears, forward along the nearest of the next until it dies;
        where it merges, the life goes on as that of the component it merges into.

        Raises
        ------
        DataError
            If there is no such component, or it takes no part.
        """
        at = range(len(self.names))[self._place(step)]
        side = self._side(at)
        start = side.place(layer, component)
        if not side.usable[start]:
            raise DataError(
                f"component {component} of layer {layer!r} takes no part in {self.names[at]!r}: it has no concept vector"
            )
        before, after = [(at, start)], []
        while before[-1][0] > 0 and self._origin(*before[-1]) != "appears":
            i, place = before[-1]
            before.append((i - 1, int(self.steps[i - 1].b.match[place])))
        i, place = at, start
        while i < len(self.steps) and self._fate(i, place) != "dies":
            place, i = int(self.steps[i].a.match[place]), i + 1
            after.append((i, place))
        moments, last = [], None
        for i, place in [*reversed(before), *after]:
            moments.append(self._moment(i, place, last))
            last = place
        return History(moments=tuple(moments))

    # ---------------------------------------------------------------- showing
    def rows(self) -> tuple[list[str], list[list[object]]]:
        """Headers and rows of the table: a row per step."""
        heads = ["from", "to", "old", "continues", "stayed", "merges", "dies", "splits", "appears", "new", "mean drift"]
        table: list[list[object]] = []
        for i in range(len(self.steps)):
            counts = self.counts(i)
            row: list[object] = [self.names[i], self.names[i + 1], counts["old"], counts["continues"], self.stayed(i)]
            row += [counts[word] for word in ("merges", "dies", "splits", "appears", "new")]
            table.append([*row, self.mean_drift(i)])
        return heads, table

    def similarity_rows(self) -> tuple[list[str], list[list[object]]]:
        """Headers and rows of the similarities to the last database."""
        heads = ["database", "components", f"to {self.names[-1]}", "lower", "upper", f"from {self.names[-1]}"]
        found: list[list[object]] = []
        for i, (name, to, back) in enumerate(zip(self.names, self.to_last, self.from_last, strict=True)):
            found.append([name, int(self._side(i).usable.sum()), to.value, to.lower, to.upper, back.value])
        return heads, found

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        result: dict[str, Any] = {
            "names": list(self.names),
            "threshold": self.threshold,
            "remarks": list(self.remarks),
            "components": [self._side(i).counts() for i in range(len(self.names))],
            "to_last": [e.to_dict() for e in self.to_last],
            "from_last": [e.to_dict() for e in self.from_last],
        }
        if self.threshold is not None:
            result["steps"] = [
                {
                    "from": self.names[i],
                    "to": self.names[i + 1],
                    **self.counts(i),
                    "stayed": self.stayed(i),
                    "mean_drift": number(self.mean_drift(i)),
                }
                for i in range(len(self.steps))
            ]
        return result

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`to_dict` as JSON, atomically."""
        with atomic_write(path, "w") as file:
            json.dump(self.to_dict(), file, indent=1, ensure_ascii=False, allow_nan=False)
        return Path(path)

    def table(self) -> str:
        """Counts and drift of each step, see :meth:`rows`."""
        return text_table(*self.rows())

    def __repr__(self) -> str:
        lines = [text_table(*self.similarity_rows()), *(f"note: {remark}" for remark in self.remarks), ""]
        if self.threshold is None:
            return "\n".join([*lines, "no threshold yet, so no steps: see .curve() and .at(threshold)"])
        return "\n".join([*lines, f"steps at threshold {self.threshold:g}:", self.table()])

    def _repr_html_(self) -> str:
        from semanticlens.plot import track as drawing

        return str(drawing.fragment_of(self))

    def plot(self, ax: Any = None, *, what: str = "flow", **options: Any) -> Any:
        """Flow of components from database to database, and drift; see :func:`semanticlens.plot.track.picture`."""
        from semanticlens.plot import track as drawing

        return drawing.picture(self, ax, what=what, **options)

    # ---------------------------------------------------------------- parts
    def _place(self, step: int) -> int:
        if isinstance(step, bool) or not -len(self.names) <= step < len(self.names):
            raise DataError(f"step={step!r}: there are databases 0 to {len(self.names) - 1}")
        return step

    def _step(self, step: int) -> Comparison:
        if isinstance(step, bool) or not 0 <= step < len(self.steps):
            raise DataError(
                f"step={step!r}: there are steps 0 to {len(self.steps) - 1}, from each database to the next"
            )
        if self.threshold is None:
            raise DataError("the track has no threshold, so no fates: look at t.curve(), then take t.at(0.8), say")
        return self.steps[step]

    def _side(self, i: int) -> Side:
        return self.steps[i].a if i < len(self.steps) else self.steps[-1].b

    def _origin(self, i: int, place: int) -> str:
        return "start" if i == 0 else ORIGINS[self.origins(i - 1)[place]]

    def _fate(self, i: int, place: int) -> str:
        return "end" if i == len(self.steps) else FATES[self.fates(i)[place]]

    def _moment(self, i: int, place: int, before: int | None) -> Moment:
        layer, component = self._side(i).key(place)
        cosine = float("nan")
        if before is not None:  # the one before is this one's nearest, or this one is the nearest of that
            step = self.steps[i - 1]
            cosine = float(step.a.best[before] if step.a.match[before] == place else step.b.best[place])
        return Moment(
            step=i,
            name=self.names[i],
            layer=layer,
            component=component,
            origin=self._origin(i, place),
            fate=self._fate(i, place),
            cosine=cosine,
            label=self._label(i, layer, component),
        )

    def _label(self, i: int, layer: str, component: int) -> str | None:
        if self.labels is not None:
            return str(self.labels[i][layer, component])
        step = self.steps[min(i, len(self.steps) - 1)]
        return step._label(0 if i < len(self.steps) else 1, layer, component)


def track(
    databases: Sequence[ConceptDB],
    names: Sequence[str] | None = None,
    *,
    threshold: float | None = None,
    layers: Any = None,
    labels: Sequence[Labels] | None = None,
    min_examples: int = 1,
    centre: bool = False,
    random: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    n_threads: int | None = None,
    progress: bool = False,
) -> Track:
    """Follow every concept from database to database: which continue, merge, die, split off and appear, and how far they move.

    Parameters
    ----------
    databases : sequence of ConceptDB
        At least two, in order: checkpoints of a training, or networks of growing depth. Made with one encoder and the same settings.
    names : sequence of str, optional
        What to call them; left out, by their networks.
    threshold : float, optional
        As for :func:`compare`. Left out, there are similarities and :meth:`Track.curve`, and no fates; then take :meth:`Track.at`.
    layers : str, or sequence with one entry per database, optional
        A name: this layer of every database. A sequence: for each database a name, several names, or None for all its layers.
    labels : sequence of Labels, optional
        One for each database, from ``db.label(...)``, for histories.
    min_examples, centre, random, resamples, level, seed, n_threads
        As for :func:`compare`.
    progress : bool

    Returns
    -------
    Track

    Raises
    ------
    MismatchError
        If the databases were made with different encoders or settings.
    LayerNotFoundError
    DataError
        For fewer than two databases, and as for :func:`compare`.
    """
    alone: Any = databases  # a database is a mapping of layers: one alone is no list of databases
    dbs: list[ConceptDB] = [alone] if hasattr(alone, "layers") else list(databases)
    if len(dbs) < 2:
        raise DataError(f"databases: {len(dbs)} given; to track concepts needs at least two, in order")
    called, limit = titles(dbs, names), level_of(threshold)
    chosen = _layers(layers, len(dbs))
    for db in dbs[1:]:
        check_alike(dbs[0], db)
    if labels is not None and len(labels) != len(dbs):
        raise ValueError(f"labels: {len(labels)} given for {len(dbs)} databases; there must be one for each")
    options: dict[str, Any] = {
        "min_examples": min_examples,
        "centre": centre,
        "level": level,
        "seed": seed,
        "n_threads": n_threads,
    }
    steps, last = [], []
    pairs = [(i, i + 1) for i in range(len(dbs) - 1)]
    for i, j in bar(pairs, progress=progress, what="compare", unit="step"):
        both = None if labels is None else (labels[i], labels[j])
        own: dict[str, Any] = {"names": (called[i], called[j]), "threshold": limit, "labels": both, "random": random}
        # the last step is also the comparison with the last database
        steps.append(compare(dbs[i], dbs[j], chosen[i], chosen[j], resamples=resamples, **own, **options))
        far = (
            steps[-1]
            if j == len(dbs) - 1
            else compare(dbs[i], dbs[-1], chosen[i], chosen[-1], resamples=resamples, **options)
        )
        last.append((far.there, far.back))
    itself = Estimate(value=1.0, lower=1.0, upper=1.0)
    return Track(
        names=called,
        steps=tuple(steps),
        to_last=(*(there for there, _ in last), itself),
        from_last=(*(back for _, back in last), itself),
        threshold=limit,
        remarks=remarks(dbs, called),
        labels=None if labels is None else tuple(labels),
    )


def _layers(layers: Any, n: int) -> list[Any]:
    if layers is None or isinstance(layers, str):
        return [layers] * n
    found = list(layers)
    if len(found) != n:
        raise ValueError(f"layers={layers!r}: must be one name for all, or {n} entries, one for each database")
    return found


def _groups(many: Side, one: Side, chosen: NDArray[np.bool_]) -> list[tuple[tuple[str, int], list[tuple[str, int]]]]:
    """Components of ``one`` that are the nearest of a chosen one of ``many``, with those and with their own nearest."""
    found: dict[int, set[int]] = {}
    for i in np.flatnonzero(chosen):
        found.setdefault(int(many.match[i]), {int(one.match[many.match[i]])}).add(int(i))
    return [(one.key(j), [many.key(i) for i in sorted(found[j])]) for j in sorted(found)]
