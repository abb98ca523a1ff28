"""Two networks side by side: features of the same places, concepts of every layer, alignment of all layers, relations of their concepts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, LayerNotFoundError, MismatchError
from semanticlens._progress import track
from semanticlens._version import __version__
from semanticlens.alignment.concepts import (
    Concept,
    ConceptGraph,
    concept_graph,
    describe,
    ground_truth,
    hard_labels,
    same_samples,
    sanity_score,
)
from semanticlens.alignment.estimator import Discovery
from semanticlens.alignment.features import Features, features
from semanticlens.alignment.index import Alignment, AlignmentMatrix, Noise, matrix, proximities
from semanticlens.alignment.nlmcd import NLMCD
from semanticlens.alignment.pairs import ConceptDistances, concept_distances
from semanticlens.alignment.quality import Quality
from semanticlens.alignment.relations import CUTS, Relation, check_cuts, relations
from semanticlens.data.dataset import Dataset

I64 = NDArray[np.int64]
EXAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Representation:
    """The concepts of one layer of one network.

    Attributes
    ----------
    side : int
        0 for the first network, 1 for the second.
    layer : str
    memberships : ndarray of shape (n, K), float32
    labels : ndarray of shape (n,), int64
    concepts : tuple of Concept
    quality : Quality or None
        None where the proximities were given.
    truth : Alignment or None
        With the classes of the data set, where it has any.
    """

    side: int
    layer: str
    memberships: NDArray[np.float32]
    labels: I64
    concepts: tuple[Concept, ...]
    quality: Quality | None = None
    truth: Alignment | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerPair:
    """Two layers, concept by concept.

    Attributes
    ----------
    a, b : Representation
    alignment : Alignment
    distances : ConceptDistances
    relations : tuple of Relation
        P is the first network's layer, Q the second's.
    kinds_a, kinds_b : tuple of str
        Universality of each concept by its distance to its partner; see :meth:`ConceptDistances.universality`.
    """

    a: Representation
    b: Representation
    alignment: Alignment
    distances: ConceptDistances
    relations: tuple[Relation, ...]
    kinds_a: tuple[str, ...]
    kinds_b: tuple[str, ...]

    def of(self, kind: str) -> tuple[Relation, ...]:
        """The relations of a kind."""
        return tuple(r for r in self.relations if r.kind == kind)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """What :func:`compare` found.

    Attributes
    ----------
    names : tuple of str
        Of the two networks.
    representations : tuple of Representation
        The layers of the first network, then those of the second.
    matrix : AlignmentMatrix
        Of all of them, in that order.
    sanity : tuple of float or None
        Sanity score of each network by the adjusted index; None with fewer than three layers.
    pairs : tuple of LayerPair
    graphs : tuple of ConceptGraph or None
        Concepts through the layers of each network; None with one layer.
    cuts : tuple of float
    sample_ids : ndarray of shape (n,), int64
    images : Dataset or None
    record : dict
    """

    names: tuple[str, str]
    representations: tuple[Representation, ...]
    matrix: AlignmentMatrix
    sanity: tuple[float | None, float | None]
    pairs: tuple[LayerPair, ...]
    graphs: tuple[ConceptGraph | None, ConceptGraph | None]
    cuts: tuple[float, float, float]
    sample_ids: I64
    images: Dataset | None = None
    record: dict[str, Any] = field(default_factory=dict)

    def side(self, side: int) -> tuple[Representation, ...]:
        """The layers of one network."""
        return tuple(r for r in self.representations if r.side == side)

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write a self-contained HTML page; see :func:`semanticlens.plot.alignment.report`."""
        from semanticlens.plot.alignment import report

        return report(self, path, **options)

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers, for JSON; NaN becomes None."""
        found: dict[str, Any] = _plain(
            {
                "names": list(self.names), "n": self.matrix.n, "noise": self.matrix.noise, "cuts": list(self.cuts),
                "sanity": list(self.sanity), "matrix": self.matrix.to_dict(),
                "layers": [_layer_dict(r) for r in self.representations],
                "pairs": [
                    {
                        "a": p.a.layer, "b": p.b.layer, "alignment": p.alignment.to_dict(),
                        "relations": [r.to_dict() for r in p.relations], "kinds_a": list(p.kinds_a), "kinds_b": list(p.kinds_b),
                    }
                    for p in self.pairs
                ],
                "graphs": [None if g is None else g.to_dict() for g in self.graphs], "record": self.record,
            }
        )  # fmt: skip
        return found

    def __repr__(self) -> str:
        best = max(self.pairs, key=lambda p: p.alignment.aci)
        counts = {r.kind: sum(x.kind == r.kind for x in best.relations) for r in best.relations}
        words = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        return (
            f"Comparison({self.names[0]!r}, {self.names[1]!r}: {len(self.side(0))} and {len(self.side(1))} layers, "
            f"{self.matrix.n:,} samples; "
            f"{best.a.layer} and {best.b.layer}: aci {best.alignment.aci:.3f}, {words or 'no concepts'})"
        )


def _layer_dict(r: Representation) -> dict[str, Any]:
    concepts = [
        {"index": c.index, "size": c.size, "label": c.label, "score": c.score, "classes": [list(x) for x in c.classes],
         "examples": [list(x) for x in c.examples]}
        for c in r.concepts
    ]  # fmt: skip
    return {
        "side": r.side, "layer": r.layer, "n_concepts": r.memberships.shape[1], "noise": float((r.labels < 0).mean()),
        "quality": None if r.quality is None else r.quality.to_dict(), "truth": None if r.truth is None else r.truth.to_dict(),
        "concepts": concepts,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def default_discovery(n: int) -> NLMCD:
    """NLMCD in 10 dimensions with the published cluster size for many samples, and less for few: n / 100 of 5 to 50, n / 250 of 3 to 20."""
    return NLMCD(n_components=10, min_cluster_size=int(np.clip(n // 100, 5, 50)), min_samples=int(np.clip(n // 250, 3, 20)))


def compare(
    net_a: Any,
    net_b: Any,
    images: Dataset | None = None,
    layers: Any = None,
    *,
    discover: Discovery | Callable[[str], Discovery] | None = None,
    tokens: str = "patches",
    pool: int | float = 0.25,
    per_image: int = 1,
    seed: int = 0,
    where: str = "centre",
    noise: Noise = "implicit",
    cuts: Sequence[float] = CUTS,
    pairs: Sequence[tuple[str, str]] | None = None,
    names: tuple[str, str] | None = None,
    db: Any = None,
    vocabulary: Any = None,
    quality: bool = True,
    batch_size: int = 32,
    n_threads: int | None = None,
    progress: bool = False,
) -> Comparison:
    """Compare two networks, layer by layer and concept by concept.

    Parameters
    ----------
    net_a, net_b : Network, Features, or mapping of layer to array (n, F)
        What to compare; of arrays, row i must mean the same sample on both sides.
    images : Dataset, optional
        The pictures, for networks; for features, what their sample ids mean.  Its labels, if it has any, are taken as ground truth.
    layers : list of str, or pair of such lists
        Of both networks, or of each; for features None takes all.
    discover : Discovery, or function of the layer's name, optional
        How concepts are found, cloned for every layer; None is :func:`default_discovery`.
    tokens, pool, per_image, seed, where, batch_size
        See :func:`features`; ``pool`` is a share of the grid's side by default, so that layers of different size see equal parts.
    noise : {"implicit", "explicit"}
        See :func:`align`.
    cuts : three ascending numbers
        Of the relative distance; see :func:`relations` and :meth:`ConceptDistances.universality`.
    pairs : list of (layer of A, layer of B), optional
        Taken apart concept by concept; None: the most alike pair of layers, and the last layers.
    names : pair of str, optional
    db, vocabulary : optional
        Name concepts with a concept database's encoder; see :func:`describe`.
    quality : bool
        Measure the quality of each layer's concepts.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Comparison

    Raises
    ------
    MismatchError
        The two sides describe different samples, or the same in another order.
    """
    wanted_a, wanted_b = _two_lists(layers)
    options: dict[str, Any] = {"tokens": tokens, "pool": pool, "per_image": per_image, "seed": seed, "where": where,
                               "batch_size": batch_size, "n_threads": n_threads, "progress": progress}  # fmt: skip
    sides = [_features(net, images, wanted, options) for net, wanted in ((net_a, wanted_a), (net_b, wanted_b))]
    called = names or tuple(_name(net, side, f) for net, side, f in zip((net_a, net_b), "AB", sides, strict=True))
    if called[0] == called[1]:
        called = (f"{called[0]} (A)", f"{called[1]} (B)")
    if all(isinstance(f, Features) for f in sides):
        same_samples(sides[0].sample_ids, sides[1].sample_ids, (called[0], called[1]))
        _same_places(sides[0], sides[1], called)
    ids = next((f.sample_ids for f in sides if isinstance(f, Features)), None)
    found: list[tuple[int, str, Discovery]] = []
    jobs = [(s, layer, rows) for s, f in enumerate(sides) for layer, rows in f.items()]
    for s, layer, rows in track(jobs, progress=progress, what="concepts", unit="layer"):
        maker = default_discovery(len(np.asarray(rows))) if discover is None else discover
        own = maker.clone() if isinstance(maker, Discovery) else maker(layer)
        found.append((s, layer, own.fit(rows)))
    parts = [(s, layer, own.memberships_, own.labels_, own.quality_ if quality else None) for s, layer, own in found]
    record = {
        "discover": repr(found[0][2]),
        "features": [f.record if isinstance(f, Features) else None for f in sides],
        "version": __version__,
    }
    return _assemble(parts, called, ids, images, noise, cuts, pairs, db, vocabulary, record, n_threads, progress)


def compare_proximities(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    *,
    sample_ids: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
    images: Dataset | None = None,
    noise: Noise = "implicit",
    cuts: Sequence[float] = CUTS,
    pairs: Sequence[tuple[str, str]] | None = None,
    names: tuple[str, str] = ("A", "B"),
    db: Any = None,
    vocabulary: Any = None,
    n_threads: int | None = None,
    progress: bool = False,
) -> Comparison:
    """The same for concepts that were found elsewhere.

    Parameters
    ----------
    a, b : mapping of layer to array-like of shape (n, K)
        Proximities; see :func:`proximities`.
    sample_ids : pair of array-like of shape (n,), int
        What each row is, where known: a different order of the two sides is then an error.
    images, noise, cuts, pairs, names, db, vocabulary, n_threads, progress
        See :func:`compare`.
    """
    if not a or not b:
        raise DataError(f"{names[0] if not a else names[1]} has no proximities: give at least one layer")
    parts: list[tuple[int, str, Any, Any, Quality | None]] = []
    for s, side in enumerate((a, b)):
        for layer, values in side.items():
            P = proximities(values, name=f"{names[s]}, {layer}")
            parts.append((s, str(layer), P, hard_labels(P), None))
    ids = [None if i is None else np.asarray(i, dtype=np.int64).reshape(-1) for i in sample_ids]
    for own, name, side in zip(ids, names, (a, b), strict=True):
        n = len(np.asarray(next(iter(side.values()))))
        if own is not None and len(own) != n:
            raise DataError(f"{name} has {len(own)} sample ids for {n} rows")
    if ids[0] is not None and ids[1] is not None:
        same_samples(ids[0], ids[1], names)
    known = ids[0] if ids[0] is not None else ids[1]
    return _assemble(parts, names, known, images, noise, cuts, pairs, db, vocabulary, {"version": __version__}, n_threads, progress)


def _two_lists(layers: Any) -> tuple[Any, Any]:
    if isinstance(layers, (list, tuple)) and len(layers) == 2 and all(isinstance(part, (list, tuple)) for part in layers):
        return list(layers[0]), list(layers[1])
    return layers, layers


def _features(net: Any, images: Dataset | None, wanted: Any, options: dict[str, Any]) -> Any:
    if hasattr(net, "run"):
        return features(net, images, wanted, **options)
    if not isinstance(net, Mapping):
        raise TypeError(f"a network, Features, or a mapping of layer to features is needed, not {type(net).__name__}")
    if wanted is None:
        return net
    chosen = [wanted] if isinstance(wanted, str) else list(wanted)
    for layer in chosen:
        if layer not in net:
            raise LayerNotFoundError(layer, list(net), "the features")
    arrays = {layer: net[layer] for layer in chosen}
    if not isinstance(net, Features):
        return arrays
    return Features(arrays=arrays, sample_ids=net.sample_ids, places=net.places, record=net.record, skipped=net.skipped)


def _name(net: Any, side: str, found: Any) -> str:
    own = found.record["network"]["name"] if isinstance(found, Features) else None
    return str(own or getattr(net, "name", None) or side)


def _same_places(a: Features, b: Features, names: tuple[str, ...]) -> None:
    data_a, data_b = (f.record.get("data") for f in (a, b))
    if data_a and data_b and data_a.get("fingerprint") != data_b.get("fingerprint"):
        raise MismatchError(f"{names[0]} and {names[1]} were run on different pictures: {data_a['name']!r} and {data_b['name']!r}")
    both = np.isfinite(a.places).all() and np.isfinite(b.places).all()
    if both and not np.array_equal(a.places, b.places):
        raise MismatchError(f"{names[0]} and {names[1]} were sampled at different places: use the same seed, where and per_image for both")


def _assemble(
    parts: list[tuple[int, str, Any, Any, Quality | None]], names: Any, sample_ids: I64 | None, images: Dataset | None, noise: Noise,
    cuts: Sequence[float], pairs: Sequence[tuple[str, str]] | None, db: Any, vocabulary: Any, record: dict[str, Any], n_threads: int | None,
    progress: bool,
) -> Comparison:  # fmt: skip
    values = check_cuts(cuts)
    n = len(parts[0][2])
    for s, layer, P, _, _ in parts:
        if len(P) != n:
            raise DataError(f"{names[s]}, {layer}: has {len(P)} rows, but {names[parts[0][0]]}, {parts[0][1]} has {n}: all must "
                            f"describe the "
                            "same samples in the same order")  # fmt: skip
    ids = np.arange(n) if sample_ids is None else sample_ids
    targets, class_names = _targets(images, ids)
    made = tuple(
        Representation(
            side=s, layer=layer, memberships=P, labels=labels, quality=quality,
            concepts=describe(P, labels, sample_ids=ids, top=EXAMPLES, targets=targets,
                              class_names=class_names, db=db, vocabulary=vocabulary),
            truth=None if targets is None else ground_truth(P, targets, noise=noise, n_threads=n_threads),
        )
        for s, layer, P, labels, quality in parts
    )  # fmt: skip
    table = matrix([r.memberships for r in made], names=[f"{names[r.side]}, {r.layer}" for r in made], noise=noise, progress=progress,
                   n_threads=n_threads)  # fmt: skip
    chosen = _chosen_pairs(made, table, pairs)
    sides = [[i for i, r in enumerate(made) if r.side == s] for s in (0, 1)]
    sanity = [None if len(own) < 3 else sanity_score(table.aci[np.ix_(own, own)]) for own in sides]
    graphs = [None if len(own) < 2 else concept_graph({made[i].layer: made[i].labels for i in own}) for own in sides]
    return Comparison(
        names=(names[0], names[1]), representations=made, matrix=table, sanity=(sanity[0], sanity[1]),
        pairs=tuple(_layer_pair(made[i], made[j], table[i, j], values, n_threads) for i, j in chosen), graphs=(graphs[0], graphs[1]),
        cuts=values, sample_ids=np.asarray(ids, np.int64), images=images, record=record,
    )  # fmt: skip


def _targets(images: Dataset | None, ids: I64) -> tuple[I64 | None, tuple[str, ...] | None]:
    if images is None:
        return None, None
    if len(ids) and int(ids.max()) >= len(images):
        raise MismatchError(f"the samples name picture {int(ids.max())}, but {images.name!r} has {len(images)}")
    if images.labels is None or not (images.labels[ids] >= 0).any():
        return None, None
    return images.labels[ids], images.class_names


def _chosen_pairs(
    made: tuple[Representation, ...], table: AlignmentMatrix, pairs: Sequence[tuple[str, str]] | None
) -> list[tuple[int, int]]:
    place = {(r.side, r.layer): i for i, r in enumerate(made)}
    first, second = ([i for i, r in enumerate(made) if r.side == s] for s in (0, 1))
    if pairs is not None:
        for a, b in pairs:
            for s, layer in ((0, a), (1, b)):
                if (s, layer) not in place:
                    raise LayerNotFoundError(layer, [r.layer for r in made if r.side == s], "the compared layers")
        return [(place[0, a], place[1, b]) for a, b in pairs]
    cross = table.aci[np.ix_(first, second)].copy()
    empty = np.array([r.memberships.shape[1] == 0 for r in made])
    cross[empty[first][:, None] | empty[second] | ~np.isfinite(cross)] = -np.inf  # two layers without concepts agree, but say nothing
    i, j = np.unravel_index(int(cross.argmax()), cross.shape)
    return list(dict.fromkeys([(first[int(i)], second[int(j)]), (first[-1], second[-1])]))


def _layer_pair(
    a: Representation, b: Representation, index: Alignment, cuts: tuple[float, float, float], n_threads: int | None
) -> LayerPair:
    distances = concept_distances(a.memberships, b.memberships, n_threads=n_threads)
    kinds_a, kinds_b = distances.universality(cuts, relative=True)
    return LayerPair(
        a=a, b=b, alignment=index, distances=distances, kinds_a=kinds_a, kinds_b=kinds_b,
        relations=relations(a.memberships, b.memberships, cuts=cuts, distances=distances, n_threads=n_threads),
    )  # fmt: skip
