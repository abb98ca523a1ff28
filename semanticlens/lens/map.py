"""A map of a network's components: those whose examples mean the same lie near each other.

Concept vectors are compared by their direction: rows are brought to length 1, so that squared distances are ``2 - 2 cos``. They are
laid out by UMAP's objective as :mod:`semanticlens.alignment.neighbours` lowers it ("neighbours"; no extra package, the same bits in
every run and for every number of threads), by the package umap-learn ("umap"), or by the first two principal components ("pca").

Near means alike. Far means unalike, but how far says little, and neither do directions, sizes of groups, or gaps. (SemanticLens, Nature
Machine Intelligence 2025, shows such a map made by UMAP and does not tell its parameters; those here are UMAP's own defaults.)
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, LayerNotFoundError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.lens.regions import Region, regions
from semanticlens.lens.results import Labels, number, text_table

if TYPE_CHECKING:
    from semanticlens.attribution.roles import Roles
    from semanticlens.lens.database import ConceptDB

__all__ = ["Colouring", "SemanticMap", "map"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
METHODS = ("neighbours", "umap", "pca")
SCORES = ("clarity", "polysemanticity", "redundancy")
LEAST = {"neighbours": 3, "umap": 5, "pca": 3}  # components of a map; what umap-learn starts from needs a few more
SHOWN = 24


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Colouring:
    """One number per component of a map, to be shown as colour.

    Attributes
    ----------
    name : str
        "layer", a score, a class, or what the caller named.
    values : ndarray of shape (K,), float64
        NaN where undefined. For kinds ("layer") places in ``names``.
    names : tuple of str or None
        Names of the kinds; None for amounts.
    about : str
        What the number is.
    kind : {"layer", "score", "class", "given"}
    """

    name: str
    values: F64
    names: tuple[str, ...] | None = None
    about: str = ""
    kind: str = "given"

    def __repr__(self) -> str:
        return f"Colouring({self.name!r}, {self.about})"


@dataclass(frozen=True, eq=False, kw_only=True)
class SemanticMap(Sequence[tuple[str, int]]):
    """What :func:`map` returns: a sequence of (layer, component), which prints as a table of its regions.

    Attributes
    ----------
    positions : ndarray of shape (K, 2), float32
        From 0 to 1 along the longer side; x to the right, y upward.
    layers : tuple of str
    layer_index : ndarray of shape (K,), int64
        Place of each component's layer in ``layers``.
    components : ndarray of shape (K,), int64
    labels : tuple of K str or None
        None where a component is unlabelled, or labels were not given.
    label_scores : ndarray of shape (K,), float32
        NaN where unknown.
    regions : tuple of Region
        Of all levels, coarse ones first.
    colourings : tuple of Colouring
        The chosen one first.
    left_out : mapping of str to int
        By layer: components that are dead or have no vector, and no place on the map.
    method : str
    parameters : mapping
    record : mapping
        Fingerprints of network, data and encoder.
    """

    positions: F32
    layers: tuple[str, ...]
    layer_index: I64
    components: I64
    labels: tuple[str | None, ...]
    label_scores: F32
    regions: tuple[Region, ...]
    colourings: tuple[Colouring, ...]
    left_out: Mapping[str, int]
    method: str
    parameters: Mapping[str, Any]
    record: Mapping[str, Any] = field(default_factory=dict)
    db: Any = field(default=None, repr=False)

    # ---------------------------------------------------------------- reading
    def __len__(self) -> int:
        return len(self.components)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return tuple(self[i] for i in range(*row.indices(len(self))))
        k = range(len(self))[row]
        return self.layers[self.layer_index[k]], int(self.components[k])

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for layer, component in zip(self.layer_index.tolist(), self.components.tolist(), strict=True):
            yield self.layers[layer], component

    @property
    def keys(self) -> tuple[tuple[str, int], ...]:
        """(layer, component) of every row."""
        return tuple(self)

    @property
    def colour(self) -> Colouring:
        """The colouring that was chosen."""
        return self.colourings[0]

    def row(self, layer: str, component: int) -> int:
        """Row of a component.

        Raises
        ------
        LayerNotFoundError, DataError
            It is not on the map.
        """
        if layer not in self.layers:
            raise LayerNotFoundError(layer, self.layers, "the map")
        found = np.flatnonzero((self.layer_index == self.layers.index(layer)) & (self.components == component))
        if not len(found):
            raise DataError(
                f"component {component} of layer {layer!r} is not on the map: it is dead, has no vector, or there is none"
            )
        return int(found[0])

    def near(self, layer: str, component: int, top: int = 10) -> tuple[tuple[str, int], ...]:
        """The components nearest to one in the picture; for what lies nearest in the encoder's space ask ``db.neighbours``."""
        here = self.positions.astype(np.float64)
        k = self.row(layer, component)
        away = ((here - here[k]) ** 2).sum(axis=1)
        away[k] = np.inf
        return tuple(self[int(i)] for i in np.argsort(away, kind="stable")[: min(top, len(self) - 1)])

    def colouring(self, name: str) -> Colouring:
        """One of the colourings."""
        for found in self.colourings:
            if found.name == name:
                return found
        raise DataError(
            f"colouring {name!r} is not on the map; there are {', '.join(repr(c.name) for c in self.colourings)}"
        )

    # ---------------------------------------------------------------- showing
    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        places = self.positions.tolist()
        rows = [
            {"layer": layer, "component": k, "x": places[i][0], "y": places[i][1], "label": self.labels[i]}
            for i, (layer, k) in enumerate(self)
        ]
        colourings = [
            {
                "name": c.name,
                "about": c.about,
                "kinds": None if c.names is None else list(c.names),
                "values": [number(v) for v in c.values],
            }
            for c in self.colourings
        ]
        return {
            "method": self.method,
            "parameters": dict(self.parameters),
            "record": dict(self.record),
            "left_out": dict(self.left_out),
            "components": rows,
            "regions": [region.to_dict() for region in self.regions],
            "colourings": colourings,
        }

    def table(self) -> str:
        """The regions of the coarsest level: how many members have the name, what others are called, the mean of the colouring."""
        return text_table(self.headers(), self.rows(), SHOWN)

    def headers(self) -> list[str]:
        """Heads of :meth:`table`."""
        return [
            "region",
            "components",
            "of that name",
            "then",
            *([] if self.colour.names else [f"mean {self.colour.name}"]),
        ]

    def rows(self) -> list[list[object]]:
        """Cells of :meth:`table`."""
        found: list[list[object]] = []
        for region in self.regions:
            if region.level > 0:
                break
            counts = Counter(self.labels[int(k)] for k in region.members)
            others = sorted(
                (word for word in counts if word not in (None, region.name)),
                key=lambda word: (-counts[word], word or ""),
            )
            values = self.colour.values[region.members]
            defined = values[~np.isnan(values)]
            mean = [] if self.colour.names else [float(defined.mean()) if len(defined) else float("nan")]
            found.append(
                [
                    region.name or "-",
                    len(region.members),
                    region.named,
                    ", ".join(str(word) for word in others[:3]),
                    *mean,
                ]
            )
        return found

    def __repr__(self) -> str:
        gone = sum(self.left_out.values())
        head = f"Map of {len(self)} components of {', '.join(self.layers)} ({gone} without a vector left out)"
        return f"{head}, {self.method}, coloured by {self.colour.name}\n{self.table()}"

    def _repr_html_(self) -> str:
        from semanticlens.plot import map as drawing

        return str(drawing.fragment_of(self))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """The map as a picture, or on axes of matplotlib; see :func:`semanticlens.plot.map.picture`."""
        from semanticlens.plot import map as drawing

        return drawing.picture(self, ax, **options)

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the picture (.png, .jpg, .webp or .svg), atomically; see :func:`semanticlens.plot.map.save`."""
        from semanticlens.plot import map as drawing

        return Path(drawing.save(self, path, **options))

    def to_html(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """One self-contained page to zoom, pan, search and look at examples in; see :func:`semanticlens.plot.map.write_page`."""
        from semanticlens.plot import map as drawing

        return Path(drawing.write_page(self, path, **options))


def map(
    db: ConceptDB,
    layers: str | Sequence[str] | None = None,
    labels: Labels | Mapping[str, Sequence[str | None]] | None = None,
    method: str = "neighbours",
    color: str | int | ArrayLike | Mapping[str, ArrayLike] = "layer",
    *,
    roles: Roles | None = None,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    n_threads: int | None = None,
    progress: bool = False,
) -> SemanticMap:
    """Lay a database's components out in the plane by what their examples mean.

    Parameters
    ----------
    db : ConceptDB
    layers : str or sequence of str, optional
        All, if left out.
    labels : Labels or mapping of str to sequence, optional
        From ``db.label``; or by layer one name (or None) per component. Without, regions have no names.
    method : {"neighbours", "umap", "pca"}
        "umap" needs the extra ``align``.
    color : str, int, array, or mapping of one name to an array
        "layer", "clarity", "polysemanticity", "redundancy"; a class, by name or number; or one number per component of the chosen
        layers, in their order, dead ones included (what stands there is not read). The page offers all of them.
    roles : Roles, optional
        From :func:`semanticlens.attribution.roles` or ``db.roles``: classes then colour by relevance, a component's share of what speaks
        for the class in its layer. Without, by activation: the class's share of the component's mean top activations over classes.
    n_neighbors, min_dist
        As UMAP's; ``n_neighbors`` is lowered where there are fewer components.
    seed : int
    n_threads : int, optional
        The result is the same for every number.
    progress : bool

    Returns
    -------
    SemanticMap

    Raises
    ------
    DataError
        For fewer than 3 components that have a vector (5 for "umap"), labels that name none of them or do not fit, numbers to colour by
        that are not finite or do not fit, and scores that are undefined for every component.
    LayerNotFoundError, ValueError
        For what does not exist; the message offers what does.
    MissingExtraError
        For "umap" without umap-learn.

    Notes
    -----
    All pairs of components are compared once to find neighbours, so that time grows with the square of their number; the rest is linear.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: must be one of {', '.join(repr(m) for m in METHODS)}")
    _check_numbers(n_neighbors, min_dist, seed)
    names, threads = db._chosen(layers), resolve_threads(n_threads)
    live = {name: np.flatnonzero(_usable(db[name])) for name in names}
    count = sum(len(rows) for rows in live.values())
    if count < LEAST[method]:
        there = f"{count} components of {', '.join(repr(n) for n in names)} have a vector"
        raise DataError(f"{there}: method={method!r} needs at least {LEAST[method]}; add layers")
    known, sure = _labels(labels, db, live)
    steps = track(("colours", "positions", "regions"), progress=progress, what="map", unit="step")
    made: dict[str, Any] = {}
    for step in steps:
        if step == "colours":
            made[step] = _colourings(db, live, color, roles, sure, threads)
        elif step == "positions":
            vectors = np.concatenate([db[name].vectors[rows] for name, rows in live.items()])
            made[step] = _positions(vectors, method, n_neighbors, min_dist, seed, threads)
        else:
            made[step] = regions(made["positions"], known)
    parameters = (
        {"n_neighbors": int(min(n_neighbors, count - 1)), "min_dist": float(min_dist), "seed": int(seed)}
        if method != "pca"
        else {}
    )
    return SemanticMap(
        positions=made["positions"],
        layers=names,
        layer_index=np.repeat(np.arange(len(names)), [len(rows) for rows in live.values()]),
        components=np.concatenate(list(live.values())).astype(np.int64),
        labels=known,
        label_scores=sure,
        regions=made["regions"],
        colourings=made["colours"],
        left_out={name: len(db[name]) - len(rows) for name, rows in live.items()},
        method=method,
        parameters=parameters,
        record={key: db.record.get(key) for key in ("network", "data", "encoder")},
        db=db,
    )


def _check_numbers(n_neighbors: Any, min_dist: Any, seed: Any) -> None:
    for name, value, least in (("n_neighbors", n_neighbors, 2), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name}={value!r}: must be a whole number of at least {least}")
    if isinstance(min_dist, bool) or not np.isscalar(min_dist) or not 0 <= float(min_dist) <= 1:  # type: ignore[arg-type]
        raise ValueError(f"min_dist={min_dist!r}: must lie between 0 and 1")


def _usable(concepts: Any) -> NDArray[np.bool_]:
    """Components that are alive and whose vector has a direction."""
    vectors = np.asarray(concepts.vectors, np.float64)
    length = np.sqrt((vectors**2).sum(axis=1))
    return np.asarray(~concepts.dead & np.isfinite(length) & (length > 0))


def _positions(vectors: F32, method: str, n_neighbors: int, min_dist: float, seed: int, threads: int) -> F32:
    """Places (K, 2), the longer side from 0 to 1."""
    from semanticlens.alignment.embedding import embedder

    rows = vectors.astype(np.float64)
    rows /= np.sqrt((rows**2).sum(axis=1, keepdims=True))
    found = np.asarray(
        embedder(method, 2, min(n_neighbors, len(rows) - 1), min_dist, seed, threads).fit_transform(rows), np.float64
    )
    if found.shape[1] < 2:  # vectors on a line, or all alike: the axis that is missing has no extent
        found = np.concatenate([found, np.zeros((len(found), 2 - found.shape[1]))], axis=1)
    if not np.isfinite(found).all():
        raise DataError(f"method={method!r} gave places that are not finite; try another method or seed")
    low, high = found.min(axis=0), found.max(axis=0)
    size = float((high - low).max())
    placed = (found - low) / size + (1 - (high - low) / size) / 2 if size > 0 else np.full_like(found, 0.5)
    return np.round(placed, 6).astype(np.float32)  # the last bits of principal axes depend on BLAS and its threads


def _labels(labels: Any, db: ConceptDB, live: Mapping[str, I64]) -> tuple[tuple[str | None, ...], F32]:
    if labels is None:
        count = sum(len(rows) for rows in live.values())
        return (None,) * count, np.full(count, np.nan, np.float32)
    if not isinstance(labels, Mapping):
        raise TypeError(
            f"labels must be what db.label returned, or a mapping of layer to names, not {type(labels).__name__}"
        )
    known: list[str | None] = []
    scores: list[float] = []
    for name, rows in live.items():
        if name not in labels:
            raise LayerNotFoundError(name, labels, "the labels")
        own = labels[name]
        if len(own) != len(db[name]):
            raise DataError(f"labels of layer {name!r} are of {len(own)} components, the database has {len(db[name])}")
        for k in rows:
            one = own[int(k)]
            given = isinstance(labels, Labels)
            known.append(one.name if given else None if one is None else str(one))
            scores.append(one.score if given else float("nan"))
    if not any(name is not None for name in known):
        raise DataError("labels name no component of these layers: label with a lower threshold, or leave labels out")
    return tuple(known), np.asarray(scores, np.float32)


# -------------------------------------------------------------------- colours


def _colourings(
    db: ConceptDB, live: Mapping[str, I64], color: Any, roles: Any, sure: F32, threads: int
) -> tuple[Colouring, ...]:
    """All there are, the chosen one first."""
    found = [Colouring(name="layer", values=_by_layer(live), names=tuple(live), about="layer", kind="layer")]
    found += _scores(db, live, threads)
    if not np.isnan(sure).all():
        found.append(
            Colouring(name="label score", values=sure.astype(np.float64), about="score of the best label", kind="score")
        )
    found += _by_class(db, live, roles)
    if isinstance(color, (str, int, np.integer)) and not isinstance(color, bool):
        chosen = _named(color, found, db, roles)
    else:
        chosen = _given(color, db, live)
        found = [c for c in found if c.name != chosen.name]
    if np.isnan(chosen.values).all():
        raise DataError(f"color={color!r} is undefined for every component of these layers: choose another")
    rest = [c for c in found if c is not chosen and not np.isnan(c.values).all()]
    return (chosen, *rest)


def _by_layer(live: Mapping[str, I64]) -> F64:
    return np.repeat(np.arange(len(live), dtype=np.float64), [len(rows) for rows in live.values()])


def _scores(db: ConceptDB, live: Mapping[str, I64], threads: int) -> list[Colouring]:
    table = db.scores(layers=None if tuple(live) == db.layers else tuple(live), n_threads=threads)
    about = {
        "clarity": "how alike its examples are",
        "polysemanticity": "how far its examples fall in two groups",
        "redundancy": "how near the most similar other component of its layer is",
    }
    return [
        Colouring(
            name=word,
            values=np.concatenate([getattr(table[name], word)[rows] for name, rows in live.items()]),
            about=about[word],
            kind="score",
        )
        for word in SCORES
    ]


def _by_class(db: ConceptDB, live: Mapping[str, I64], roles: Any) -> list[Colouring]:
    if roles is not None:
        tables = [_of_relevance(roles, name, len(db[name]), rows) for name, rows in live.items()]
    else:
        affinities = [db[name].class_affinity for name in live]
        if any(table is None for table in affinities):
            return []
        tables = [
            _of_activation(np.asarray(table)[rows]) for table, rows in zip(affinities, live.values(), strict=True)
        ]
    if len({table.shape[1] for table in tables}) > 1:
        raise DataError(
            "the layers count different numbers of classes: choose layers that were made with the same labels"
        )
    shares = np.concatenate(tables)
    words = _class_words(db, shares.shape[1], roles)
    about = (
        "share of its layer's relevance for {}"
        if roles is not None
        else "share of {} in its mean top activations by class"
    )
    return [
        Colouring(name=w, values=shares[:, y], about=about.replace("{}", w), kind="class") for y, w in enumerate(words)
    ]


def _class_words(db: ConceptDB, count: int, roles: Any) -> list[str]:
    names = None if roles is not None and db.network is not None and db.network.labels is not None else db.class_names
    if names is None and db.network is not None:
        names = db.network.labels
    return [str(names[y]) if names is not None and y < len(names) else f"class {y}" for y in range(count)]


def _of_relevance(roles: Any, name: str, count: int, rows: I64) -> F64:
    if name not in roles:
        raise LayerNotFoundError(name, roles, "the roles")
    mean = np.asarray(roles[name].mean, np.float64)
    if mean.shape[1] != count:
        raise DataError(f"roles of layer {name!r} are of {mean.shape[1]} components, the database has {count}")
    positive = np.maximum(mean, 0)
    total = positive.sum(axis=1, keepdims=True)
    shares = np.where(
        total > 0, positive / np.where(total > 0, total, 1), 0.0
    )  # a class without pictures is NaN in roles
    return np.asarray(np.where(np.isnan(mean), np.nan, shares)[:, rows].T)


def _of_activation(affinity: F32) -> F64:
    values = np.maximum(np.where(np.isfinite(affinity), affinity, 0), 0).astype(np.float64)
    total = values.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, values / np.where(total > 0, total, 1), np.nan)
    return np.asarray(np.where(np.isfinite(affinity), shares, np.nan))


def _named(color: str | int | np.integer[Any], found: list[Colouring], db: ConceptDB, roles: Any) -> Colouring:
    classes = [c for c in found if c.kind == "class"]
    if not isinstance(color, str):
        if not 0 <= int(color) < len(classes):
            there = (
                f"there are classes 0 to {len(classes) - 1}"
                if classes
                else "the database was made without class labels"
            )
            raise DataError(f"color={color!r}: {there}")
        return classes[int(color)]
    for one in found:
        if one.name == color:
            return one
    known = [c.name for c in found]
    near = difflib.get_close_matches(color, known, n=4, cutoff=0.4) or known[:8]
    why = "" if classes else "; classes need labels at collection, or roles"
    raise ValueError(
        f"color={color!r} is no colouring: must be {', '.join(repr(word) for word in near)}, or an array{why}"
    )


def _given(color: Any, db: ConceptDB, live: Mapping[str, I64]) -> Colouring:
    name, values = "value", color
    if isinstance(color, Mapping):
        if len(color) != 1:
            raise ValueError(f"color has {len(color)} entries: as a mapping it is one name with one array")
        name, values = next(iter(color.items()))
    array = np.asarray(values)
    total = sum(len(db[layer]) for layer in live)
    if array.dtype.kind not in "fiub" or array.shape != (total,):
        raise DataError(
            f"color is {array.dtype} of shape {array.shape}: must be {total} numbers, one per component of "
            f"{', '.join(repr(n) for n in live)}, dead ones included"
        )
    starts = np.cumsum([0, *(len(db[layer]) for layer in live)])
    rows = np.concatenate([start + own for start, own in zip(starts[:-1], live.values(), strict=True)])
    chosen = array[rows].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(chosen))
    if len(bad):
        raise DataError(
            f"color has {len(bad)} numbers that are not finite at components on the map, the first at place {rows[bad[0]]}"
        )
    return Colouring(name=str(name), values=chosen, about="as given")
