"""What do two networks have in common? Their components compared as points in one encoder's space.

With concept vectors ``a`` of A and ``b`` of B (SemanticLens, Nature Machine Intelligence 2025):

``sim(A -> B) = mean over a of max over b of cos(a, b)``: is every concept of A also in B? It is 1 if B holds all of A, whatever else B
holds, so it has a direction; the symmetric similarity is the mean of both. With a threshold t every component is one of three:

=========  ===================================================================================================
shared     it and its nearest are the nearest of each other, at a cosine of at least t
covered    its nearest reaches t, and is nearer to another component: the concept is there, but not one to one
unique     its nearest is below t
=========  ===================================================================================================

Both must come from the same encoder. Cosines of an encoder start above 0 (pictures of anything are alike to some degree), so a
similarity means something beside another one: of other networks, of other layers, of a copy that was trained anew. ``random`` gives
one such measure, the same for components whose examples are drawn at random, and with it a threshold that chance seldom reaches.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import resolve_threads
from semanticlens.io import atomic_write
from semanticlens.lens.results import Labels, number, text_table
from semanticlens.lens.sides import (
    F64,
    Estimate,
    Side,
    centre_of,
    check_alike,
    level_of,
    mutual,
    nearest,
    remarks,
    resampled,
    side_of,
    titles,
)
from semanticlens.lens.stored import whole

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB

__all__ = ["Comparison", "Match", "compare"]

KINDS = ("shared", "covered", "unique")
SHOWN = 12


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Match:
    """A component of one side and the nearest of the other.

    Attributes
    ----------
    layer, component : str, int
    other_layer, other : str, int
        The nearest component of the other side.
    cosine : float
    kind : {"shared", "covered", "unique"} or None
        None without a threshold.
    mutual : bool
        Whether each is the nearest of the other.
    examples, other_examples : int
        How many pictures their vectors are made of.
    label, other_label : str or None
        Where labels were given; else the class whose pictures activate it most, if the data had classes.
    """

    layer: str
    component: int
    other_layer: str
    other: int
    cosine: float
    kind: str | None
    mutual: bool
    examples: int
    other_examples: int
    label: str | None = None
    other_label: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "layer": self.layer,
            "component": self.component,
            "other_layer": self.other_layer,
            "other": self.other,
            "cosine": number(self.cosine),
            "kind": self.kind,
            "mutual": self.mutual,
            "examples": self.examples,
            "other_examples": self.other_examples,
            "label": self.label,
            "other_label": self.other_label,
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """What :func:`compare` returns; prints as a table.

    Attributes
    ----------
    a, b : Side
        The components of each, with their nearest of the other.
    there, back, symmetric : Estimate
        ``sim(A -> B)``, ``sim(B -> A)`` and their mean, with bootstrap intervals.
    centre : bool
        Whether vectors were compared from their common mean.
    random : mapping of {"a", "b"} to ndarray (n,), or None
        Cosines to the nearest of the other side, ascending, of components whose examples are drawn at random from that side's.
    threshold : float or None
    level : float
        Of the intervals.
    resamples, seed : int
    remarks : tuple of str
        What differs between the databases besides the network, as far as their records say.
    record : mapping
        Network, data and encoder of each side.
    labels : pair of Labels, or None
    """

    a: Side
    b: Side
    there: Estimate
    back: Estimate
    symmetric: Estimate
    centre: bool
    random: Mapping[str, F64] | None
    threshold: float | None
    level: float
    resamples: int
    seed: int
    remarks: tuple[str, ...]
    record: Mapping[str, Any]
    labels: tuple[Labels, Labels] | None = field(default=None, repr=False)
    databases: tuple[ConceptDB, ConceptDB] | None = field(default=None, repr=False)

    # ---------------------------------------------------------------- reading
    def at(self, threshold: float) -> Comparison:
        """The same comparison with another threshold."""
        found = level_of(threshold)
        if found is None:
            raise ValueError("threshold=None: must be a cosine, -1 to 1, such as 0.8")
        return replace(self, threshold=found)

    def side(self, which: str) -> Side:
        """Side "a" or "b"; their names do as well."""
        if which not in ("a", "b", self.a.name, self.b.name):
            raise ValueError(f"side {which!r}: must be 'a' ({self.a.name}) or 'b' ({self.b.name})")
        return self.a if which in ("a", self.a.name) else self.b

    def at_random(self, which: str) -> Estimate:
        """The similarity of a side's random components to the other side; the bounds are quantiles of single ones.

        Raises
        ------
        DataError
            If there are none: pass ``random`` to :func:`compare`.
        """
        values = self._random(which)
        lower, upper = np.quantile(values, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Estimate(value=float(values.mean()), lower=float(lower), upper=float(upper))

    def threshold_at(self, share: float = 0.05) -> float:
        """The least threshold that at most this share of the random components of each side reaches; for :meth:`at`."""
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
            raise ValueError(f"share={share!r}: must be between 0 and 1, such as 0.05")
        both = [self._random(which) for which in ("a", "b")]
        found = max(float(v[min(math.ceil((1 - share) * len(v)), len(v) - 1)]) for v in both)
        return min(float(np.nextafter(found, 2.0)), 1.0)

    def kinds(self, which: str) -> NDArray[np.int64]:
        """(K,): places in ("shared", "covered", "unique") for every component of a side; -1 for those that are left out."""
        return self._kinds(which, self._level())

    def counts(self, which: str) -> dict[str, int]:
        """How many components of a side are shared, covered and unique; with those left out they are all."""
        kinds = self.kinds(which)
        return {word: int((kinds == i).sum()) for i, word in enumerate(KINDS)}

    def shares(self, which: str) -> dict[str, Estimate]:
        """Shares of the used components of a side, with bootstrap intervals; they sum to 1."""
        own = self.side(which)
        kinds = self.kinds(which)[own.usable]
        flags = np.stack([kinds == i for i in range(len(KINDS))], axis=1).astype(np.float64)
        bounds = self._bounds(resampled(flags, self.resamples, (self.seed, 0 if own is self.a else 1)))
        return {
            word: Estimate(value=float(flags[:, i].mean()), lower=bounds[0][i], upper=bounds[1][i])
            for i, word in enumerate(KINDS)
        }

    def curve(self, which: str, thresholds: Iterable[float] | None = None) -> dict[str, F64]:
        """What each threshold would give: ``threshold`` (T,), and by kind the shares (T,) of the used components of a side; with random
        components also which share of these would not be unique, "at random".

        Left out, thresholds go from the least to the largest cosine of both sides in 101 steps.
        """
        if thresholds is None:
            both = np.concatenate([side.best[side.usable] for side in (self.a, self.b)])
            thresholds = np.linspace(both.min(), both.max(), 101)
        steps = np.asarray(list(thresholds), np.float64)
        found = [self._kinds(which, float(t))[self.side(which).usable] for t in steps]
        result = {"threshold": steps}
        for i, word in enumerate(KINDS):
            result[word] = np.array([float((kinds == i).mean()) for kinds in found])
        if self.random is not None:
            values = self._random(which)
            result["at random"] = 1 - np.searchsorted(values, steps, side="left") / len(values)
        return result

    def by_layer(self, which: str) -> list[dict[str, Any]]:
        """For each layer of a side: components that are used, mean cosine to the nearest, the other side's layer where most of these are,
        and counts by kind where there is a threshold."""
        own, other = self.side(which), self._other(which)
        kinds = None if self.threshold is None else self.kinds(which)
        found = []
        for i, layer in enumerate(own.layers):
            here = np.flatnonzero((own.layer == i) & own.usable)
            row: dict[str, Any] = {"layer": layer, "used": len(here), "similarity": float("nan"), "most in": None}
            if len(here):
                places = np.bincount(other.layer[own.match[here]], minlength=len(other.layers))
                row.update({"similarity": float(own.best[here].mean()), "most in": other.layers[int(places.argmax())]})
            if kinds is not None:
                row.update({word: int((kinds[here] == j).sum()) for j, word in enumerate(KINDS)})
            found.append(row)
        return found

    def pairs(self, n: int | None = None) -> list[Match]:
        """Shared concepts, the most alike first: pairs that are each other's nearest, at the threshold or above where there is one."""
        places = np.flatnonzero(mutual(self.a.match, self.b.match))
        if self.threshold is not None:
            places = places[self.a.best[places] >= self.threshold]
        return self._listed("a", places[np.argsort(-self.a.best[places], kind="stable")], n)

    def unique(self, which: str, n: int | None = None) -> list[Match]:
        """Components of a side that the other has not, the least alike first."""
        own = self.side(which)
        places = np.flatnonzero(self.kinds(which) == KINDS.index("unique"))
        return self._listed(which, places[np.argsort(own.best[places], kind="stable")], n)

    def matches(self, which: str) -> list[Match]:
        """All used components of a side with their nearest, in their own order."""
        return self._listed(which, np.flatnonzero(self.side(which).usable), None)

    def match(self, which: str, layer: str, component: int) -> Match:
        """One component of a side with its nearest.

        Raises
        ------
        DataError
            If it is not in this side, or left out.
        """
        own = self.side(which)
        place = own.place(layer, component)
        if not own.usable[place]:
            raise DataError(
                f"component {component} of layer {layer!r} of {own.name!r} is left out: it is dead, has no vector, or too few examples"
            )
        return self._match(which, place)

    # ---------------------------------------------------------------- showing
    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        result: dict[str, Any] = {
            "names": [self.a.name, self.b.name],
            "layers": [list(self.a.layers), list(self.b.layers)],
            "components": [self.a.counts(), self.b.counts()],
            "similarity": {name: getattr(self, name).to_dict() for name in ("there", "back", "symmetric")},
            "random": None if self.random is None else {which: self.at_random(which).to_dict() for which in ("a", "b")},
            "centre": self.centre,
            "threshold": self.threshold,
            "level": self.level,
            "resamples": self.resamples,
            "seed": self.seed,
            "remarks": list(self.remarks),
            "record": dict(self.record),
            "curve": {which: {k: v.tolist() for k, v in self.curve(which).items()} for which in ("a", "b")},
            "matches": {which: [m.to_dict() for m in self.matches(which)] for which in ("a", "b")},
        }
        if self.threshold is not None:
            result["counts"] = {which: self.counts(which) for which in ("a", "b")}
            result["shares"] = {which: {w: e.to_dict() for w, e in self.shares(which).items()} for which in ("a", "b")}
        return result

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`to_dict` as JSON, atomically."""
        with atomic_write(path, "w") as file:
            json.dump(self.to_dict(), file, indent=1, ensure_ascii=False, allow_nan=False)
        return Path(path)

    def table(self, n: int | None = SHOWN) -> str:
        """The shared concepts, see :meth:`pairs`."""
        heads, rows = self.pair_rows()
        return text_table(heads, rows, n)

    def pair_rows(self, n: int | None = None) -> tuple[list[str], list[list[object]]]:
        """Headers and rows of the table of pairs."""
        heads, rows = [self.a.name, self.b.name, "cosine"], []
        found = self.pairs(n)
        named = any(m.label or m.other_label for m in found)
        for m in found:
            row: list[object] = [f"{m.layer}:{m.component}", f"{m.other_layer}:{m.other}", m.cosine]
            rows.append(row + ([m.label or "", m.other_label or ""] if named else []))
        return heads + (["label", "label there"] if named else []), rows

    def summary_rows(self) -> tuple[list[str], list[list[object]]]:
        """Headers and rows of the table of similarities, one row per direction."""
        heads = ["from", "to", "components", "left out", "similarity", "lower", "upper"]
        rows: list[list[object]] = []
        for which, estimate in (("a", self.there), ("b", self.back)):
            own, other = self.side(which), self._other(which)
            used = int(own.usable.sum())
            rows.append([own.name, other.name, used, len(own) - used, estimate.value, estimate.lower, estimate.upper])
            if self.random is not None:
                rows[-1].append(self.at_random(which).value)
            if self.threshold is not None:
                rows[-1].extend(self.counts(which).values())
                found = 1 - self.shares(which)["unique"].value
                rows[-1].append(found)
                if self.random is not None:
                    rows[-1].append(float(self.curve(which, [self.threshold])["at random"][0]))
        heads += [] if self.random is None else ["at random"]
        if self.threshold is not None:
            heads += [*KINDS, "found", *([] if self.random is None else ["found at random"])]
        return heads, rows

    def __repr__(self) -> str:
        heads, rows = self.summary_rows()
        single = self.a.single + self.b.single
        lines = [
            text_table(heads, rows),
            f"symmetric {self.symmetric!r}{', vectors less their mean' if self.centre else ''}",
        ]
        if single:
            lines.append(f"{single} component(s) with one example: their vectors are those of one picture")
        lines += [f"note: {remark}" for remark in self.remarks]
        if self.threshold is None:
            lines.append("no threshold yet, see .curve('a') and .at(threshold); pairs that are each other's nearest:")
        else:
            lines.append(f"shared at threshold {self.threshold:g}:")
        return "\n".join([*lines, self.table()])

    def _repr_html_(self) -> str:
        from semanticlens.plot import compare as drawing

        return str(drawing.fragment_of(self))

    def plot(self, ax: Any = None, *, what: str = "distribution", **options: Any) -> Any:
        """Cosines to the nearest both ways, and shares by threshold; see :func:`semanticlens.plot.compare.picture`."""
        from semanticlens.plot import compare as drawing

        return drawing.picture(self, ax, what=what, **options)

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """One self-contained HTML page; see :func:`semanticlens.plot.compare.report`."""
        from semanticlens.plot import compare as drawing

        return Path(drawing.report(self, path, **options))

    # ---------------------------------------------------------------- parts
    def _random(self, which: str) -> F64:
        if self.random is None:
            raise DataError("there are no random components to compare with: pass random=1000, say, to compare")
        return self.random["a" if self.side(which) is self.a else "b"]

    def _other(self, which: str) -> Side:
        return self.b if self.side(which) is self.a else self.a

    def _level(self) -> float:
        if self.threshold is None:
            raise DataError(
                "the comparison has no threshold, so nothing is shared or unique: look at c.curve('a'), then take c.at(0.8), say"
            )
        return self.threshold

    def _kinds(self, which: str, threshold: float) -> NDArray[np.int64]:
        own, other = self.side(which), self._other(which)
        with np.errstate(invalid="ignore"):
            reaches = own.best >= threshold
        found = np.where(~reaches, 2, np.where(mutual(own.match, other.match), 0, 1))
        return np.where(own.usable, found, -1).astype(np.int64)

    def _bounds(self, means: F64) -> tuple[list[float], list[float]]:
        if not len(means):
            nothing = [float("nan")] * means.shape[1]
            return nothing, nothing
        lower, upper = np.quantile(means, [(1 - self.level) / 2, (1 + self.level) / 2], axis=0)
        return lower.tolist(), upper.tolist()

    def _listed(self, which: str, places: NDArray[Any], n: int | None) -> list[Match]:
        most = len(places) if n is None else whole(n, "n", 0)
        return [self._match(which, int(place)) for place in places[:most]]

    def _match(self, which: str, place: int) -> Match:
        own, other = self.side(which), self._other(which)
        there, cosine = int(own.match[place]), float(own.best[place])
        here, away = own.key(place), other.key(there)
        each = int(other.match[there]) == place
        kind = None
        if self.threshold is not None:
            kind = "unique" if cosine < self.threshold else "shared" if each else "covered"
        i = 0 if own is self.a else 1
        return Match(
            layer=here[0],
            component=here[1],
            other_layer=away[0],
            other=away[1],
            cosine=cosine,
            kind=kind,
            mutual=each,
            examples=int(own.examples[place]),
            other_examples=int(other.examples[there]),
            label=self._label(i, *here),
            other_label=self._label(1 - i, *away),
        )

    def _label(self, i: int, layer: str, component: int) -> str | None:
        if self.labels is not None:
            return str(self.labels[i][layer, component])
        if self.databases is None:
            return None
        classes = self.databases[i].classes(layer, component)
        return classes[0][0] if classes else None


def compare(
    db_a: ConceptDB,
    db_b: ConceptDB,
    layers_a: str | Sequence[str] | None = None,
    layers_b: str | Sequence[str] | None = None,
    *,
    threshold: float | None = None,
    names: Sequence[str] | None = None,
    labels: tuple[Labels, Labels] | None = None,
    min_examples: int = 1,
    centre: bool = False,
    random: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    n_threads: int | None = None,
) -> Comparison:
    """Which concepts do two networks, or two layers, share, and which has only one of them?

    Parameters
    ----------
    db_a, db_b : ConceptDB
        Made with one encoder and the same settings. The pictures may differ, which the result then says.
    layers_a, layers_b : str or sequence of str, optional
        All components of these layers together are one set; left out, of all layers.
    threshold : float, optional
        Cosine from which two components show the same. There is no default that fits all encoders: left out, nothing is shared or unique
        yet; look at :meth:`Comparison.curve`, then take :meth:`Comparison.at`.
    names : pair of str, optional
        What to call the two; left out, by their networks.
    labels : pair of Labels, optional
        From ``db_a.label(...)`` and ``db_b.label(...)``, for tables and pages.
    min_examples : int
        Components with fewer examples are left out, and counted. A component with one example has that picture's vector.
    centre : bool
        Compare the vectors less their mean (of both sides, each weighing the same). Means of pictures lie around the mean of all pictures,
        and two components may be near each other because both are near that; with ``centre`` they must differ from it in the same way.
    random : int
        Also compare so many components per side whose examples are drawn at random from those of the side's own components, each picture
        as often as it occurs there: what any two sets of means of such pictures have in common. 0: none. Then
        :meth:`Comparison.threshold_at` gives a threshold that few of them reach.
    resamples, level : int, float
        Of the intervals: percentiles of the mean over components drawn with replacement, of A for A -> B and of B for B -> A; 0: no
        intervals. The other side stays as it is, and so do the vectors: what other pictures would give is not in them.
    seed : int
        Of intervals and random components.
    n_threads : int, optional

    Returns
    -------
    Comparison

    Raises
    ------
    MismatchError
        If the databases were made with different encoders or settings.
    LayerNotFoundError
    DataError
        If a side has no layers or no component with a vector.

    Notes
    -----
    Dead components and those without a vector are left out, and counted. Costs ``2 K_A K_B d`` multiply-adds; memory O((K_A + K_B) d).
    """
    check_alike(db_a, db_b)
    called = titles((db_a, db_b), names)
    limit, least = level_of(threshold), whole(min_examples, "min_examples", 1)
    options: dict[str, Any] = {
        "resamples": whole(resamples, "resamples", 0),
        "seed": whole(seed, "seed", 0),
        "level": _share(level),
    }
    many, threads = whole(random, "random", 0), resolve_threads(n_threads)
    a, vectors_a = side_of(db_a, layers_a, called[0], "layers_a", least)
    b, vectors_b = side_of(db_b, layers_b, called[1], "layers_b", least)
    _check_labels(labels, (a, b))
    mean = centre_of(vectors_a, vectors_b) if centre else None
    if mean is not None:
        vectors_a, vectors_b = ((v - mean).astype(np.float32) for v in (vectors_a, vectors_b))
    a, b = nearest(a, b, vectors_a, vectors_b, n_threads=threads)
    if not (a.usable.any() and b.usable.any()):
        raise DataError("centre=True leaves no direction: all concept vectors are equal to their mean")
    there, back, symmetric = _similarities(a, b, **options)
    chance = None
    if many:
        from semanticlens.lens.chance import at_random

        chance = {
            "a": at_random(db_a, a, vectors_b, many, (options["seed"], 2), mean, threads),
            "b": at_random(db_b, b, vectors_a, many, (options["seed"], 3), mean, threads),
        }
    return Comparison(
        a=a,
        b=b,
        there=there,
        back=back,
        symmetric=symmetric,
        centre=bool(centre),
        random=chance,
        threshold=limit,
        remarks=remarks((db_a, db_b), called),
        record={key: [db.record.get(key) for db in (db_a, db_b)] for key in ("network", "data", "encoder")},
        labels=None if labels is None else (labels[0], labels[1]),
        databases=(db_a, db_b),
        **options,
    )


def _similarities(a: Side, b: Side, *, resamples: int, seed: int, level: float) -> tuple[Estimate, Estimate, Estimate]:
    values = [side.best[side.usable][:, None] for side in (a, b)]
    means = [resampled(v, resamples, (seed, i))[:, 0] for i, v in enumerate(values)]
    points = [float(v.mean()) for v in values]
    found = []
    for point, drawn in ((points[0], means[0]), (points[1], means[1]), (sum(points) / 2, (means[0] + means[1]) / 2)):
        bounds = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if resamples else (np.nan, np.nan)
        found.append(Estimate(value=point, lower=float(bounds[0]), upper=float(bounds[1])))
    return found[0], found[1], found[2]


def _share(level: Any) -> float:
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
        raise ValueError(f"level={level!r}: must be between 0 and 1, such as 0.95")
    return float(level)


def _check_labels(labels: Any, sides: tuple[Side, Side]) -> None:
    if labels is None:
        return
    if not isinstance(labels, (tuple, list)) or len(labels) != 2 or not all(isinstance(one, Labels) for one in labels):
        raise TypeError("labels: must be the pair (db_a.label(...), db_b.label(...))")
    for one, side in zip(labels, sides, strict=True):
        for i, layer in enumerate(side.layers):
            count = int((side.layer == i).sum())
            if layer not in one or len(one[layer]) != count:
                raise DataError(
                    f"labels of {side.name!r} do not cover the {count} components of layer {layer!r}: label this database"
                )
