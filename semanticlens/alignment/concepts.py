"""What the concepts of a layer are and how they relate: examples, names, truth, robustness, order of layers, graph through the layers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, MismatchError
from semanticlens._kernels import lens as lens_kernels
from semanticlens._progress import track
from semanticlens.alignment.estimator import Discovery, argmax_labels, top_rows
from semanticlens.alignment.index import Alignment, AlignmentMatrix, Noise, align, matrix, proximities
from semanticlens.lens.label import label_vectors, vocabulary_queries

I64 = NDArray[np.int64]


# ---- the samples of two sides


def same_samples(a: ArrayLike, b: ArrayLike, names: tuple[str, str] = ("A", "B")) -> None:
    """Check that two lists of sample ids are equal, row by row.

    Raises
    ------
    MismatchError
        They are not: another number, other samples, or the same ones in another order, which the message tells apart.
    """
    x, y = np.asarray(a).reshape(-1), np.asarray(b).reshape(-1)
    if len(x) != len(y):
        raise MismatchError(f"{names[1]} has {len(y)} samples, but {names[0]} has {len(x)}: both must describe the same samples")
    different = np.flatnonzero(x != y)
    if not different.size:
        return
    first = f"the first difference is row {different[0]}: {x[different[0]]} and {y[different[0]]}"
    if (np.sort(x) == np.sort(y)).all():
        raise MismatchError(
            f"{names[1]} has the samples of {names[0]} in another order ({different.size} rows differ; {first}): bring both "
            f"into one order, "
            "rows[numpy.argsort(sample_ids, kind='stable')]"
        )
    raise MismatchError(f"{names[0]} and {names[1]} describe different samples ({different.size} rows differ; {first})")


# ---- what a concept is


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One concept, ready to be shown.

    Attributes
    ----------
    index : int
    size : int
        Rows that belong to it.
    examples : tuple of (int, float)
        Sample id and proximity of its most typical rows, one row per picture, best first.
    classes : tuple of (str, float)
        The classes most frequent among its rows, with their shares; empty without labels of the data set.
    label : str or None
        Name from a concept database's encoder and a vocabulary; None without, or below the threshold.
    score : float
        Of the label; NaN without.
    """

    index: int
    size: int
    examples: tuple[tuple[int, float], ...]
    classes: tuple[tuple[str, float], ...]
    label: str | None
    score: float


def describe(
    memberships: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    sample_ids: ArrayLike | None = None,
    top: int = 12,
    targets: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    db: Any = None,
    vocabulary: Any = None,
    threshold: float = 0.0,
) -> tuple[Concept, ...]:
    """Examples, classes and names of all concepts.

    Parameters
    ----------
    memberships : array-like of shape (n, K)
    labels : array-like of shape (n,), int, optional
        Concept of each row, -1 for none; None takes the largest proximity where it exceeds the missing mass.
    sample_ids : array-like of shape (n,), int, optional
        Picture of each row; None is the row's number.
    top : int
        Examples.
    targets : array-like of shape (n,), int, optional
        Class of each row, -1 for none.
    class_names : sequence of str, optional
    db : ConceptDB, optional
        With ``vocabulary``, names each concept by the mean of its examples' vectors, as :meth:`ConceptDB.label` names components.
    vocabulary : list of str, mapping of str to vector, or (names, matrix), optional
    threshold : float
        Below it a concept is unlabelled.

    Returns
    -------
    tuple of Concept
    """
    P = proximities(memberships, name="memberships")
    own = hard_labels(P) if labels is None else np.asarray(labels, dtype=np.int64)
    ids = np.arange(len(P)) if sample_ids is None else np.asarray(sample_ids, dtype=np.int64)
    if len(own) != len(P) or len(ids) != len(P):
        raise DataError(f"labels and sample_ids must have one entry for each of the {len(P)} rows, not {len(own)} and {len(ids)}")
    rows = [_typical(P, own, ids, k, top) for k in range(P.shape[1])]
    names = _names([ids[r] for r in rows], db, vocabulary, threshold)
    classes = None if targets is None else np.asarray(targets, dtype=np.int64)
    return tuple(
        Concept(
            index=k, size=int((own == k).sum()), examples=tuple((int(ids[r]), float(P[r, k])) for r in rows[k]),
            classes=() if classes is None else _frequent(classes[own == k], class_names), label=names[k][0], score=names[k][1],
        )
        for k in range(P.shape[1])
    )  # fmt: skip


def hard_labels(P: NDArray[np.float32]) -> I64:
    """The concept of the largest proximity of a row; -1 where the row's missing mass is larger."""
    own = argmax_labels(P)
    if not P.shape[1]:
        return own
    return np.where(P.max(axis=1) >= 1.0 - P.sum(axis=1, dtype=np.float64), own, -1).astype(np.int64)


def _typical(P: NDArray[np.float32], own: I64, ids: I64, k: int, top: int) -> I64:
    """Rows of the largest proximity among the concept's members, else among all, one per picture."""
    order = top_rows(P, k, len(P), own == k)
    if not len(order):
        order = top_rows(P, k, len(P))
    _, first = np.unique(ids[order], return_index=True)
    return order[np.sort(first)[:top]]


def _frequent(targets: I64, class_names: Sequence[str] | None, most: int = 3) -> tuple[tuple[str, float], ...]:
    known = targets[targets >= 0]
    if not len(known):
        return ()
    values, counts = np.unique(known, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return tuple((str(values[j]) if class_names is None else str(class_names[values[j]]), float(counts[j] / len(known))) for j in order)


def _names(examples: list[I64], db: Any, vocabulary: Any, threshold: float) -> list[tuple[str | None, float]]:
    nothing: list[tuple[str | None, float]] = [(None, float("nan"))] * len(examples)
    if db is None and vocabulary is None:
        return nothing
    if db is None or vocabulary is None:
        raise ValueError("names need both: db, whose encoder made vectors of the pictures, and vocabulary, the words to choose from")
    if not examples:
        return []
    known = [own[np.isin(own, db.sample_ids)] for own in examples]
    width = max(1, *(len(own) for own in known))
    table = np.full((len(known), width), -1, np.int64)
    for row, own in zip(table, known, strict=True):
        row[: len(own)] = np.searchsorted(db.sample_ids, own)
    counts = np.array([len(own) for own in known], np.int64)
    vectors, _ = lens_kernels.concept_vectors(np.asarray(db.embeddings), table, counts, None, normalize=True)
    queries = vocabulary_queries(vocabulary, db.encoder, vectors.shape[1], None, "auto")
    found = label_vectors("concepts", vectors, queries, top=1, threshold=threshold)
    return [
        (None if found.unlabelled[k] or not counts[k] else queries.names[int(found.indices[k, 0])], float(found.scores[k, 0]))
        for k in range(len(known))
    ]


# ---- comparisons beyond two layers


def sanity_score(values: ArrayLike, k: int = 1) -> float:
    """Share of layers whose most aligned other layer is at most ``k`` places away.

    Parameters
    ----------
    values : array-like of shape (R, R), float
        Alignment of the layers of one network, in their order, larger is more alike.
    k : int
        At least 1.

    Notes
    -----
    Neighbouring layers of a network are expected to be the most alike; a measure that does not see that is not to be trusted
    (sanity check of Vielhaben et al., arXiv 2412.06639, where k = 1). Ties go to the earlier layer.
    """
    table = np.array(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2:
        raise DataError(f"values must be a square matrix of at least two layers, not of shape {table.shape}")
    if not np.isfinite(table[~np.eye(len(table), dtype=bool)]).all():
        raise DataError("values must be finite off the diagonal")
    if k < 1:
        raise ValueError(f"k={k}: must be at least 1")
    np.fill_diagonal(table, -np.inf)
    nearest = table.argmax(axis=0)
    return float((np.abs(nearest - np.arange(len(table))) <= k).mean())


def ground_truth(P: ArrayLike, targets: ArrayLike, *, noise: Noise = "implicit", n_threads: int | None = None) -> Alignment:
    """Alignment of concepts with a known grouping of the samples.

    Parameters
    ----------
    P : array-like of shape (n, K)
    targets : array-like of shape (n,), int
        Class, place or any other group of each sample; -1 for none.
    """
    own = np.asarray(targets)
    if own.ndim != 1 or own.dtype.kind not in "iu" or len(own) != len(np.asarray(P)):
        raise DataError(f"targets must be {len(np.asarray(P))} whole numbers, one per row of P, not {own.dtype} of shape {own.shape}")
    return align(P, one_hot(own), noise=noise, n_threads=n_threads)


def one_hot(targets: ArrayLike) -> NDArray[np.float32]:
    """(n, groups) float32; a row of zeros for -1."""
    own = np.asarray(targets, dtype=np.int64)
    groups = np.unique(own[own >= 0])
    return np.asarray((own[:, None] == groups[None]).astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """Agreement of runs of one method on the same rows.

    Attributes
    ----------
    matrix : AlignmentMatrix
        Of every pair of runs.
    n_concepts : tuple of int
    ndc, aci : float
        Means over the pairs of runs.
    """

    matrix: AlignmentMatrix
    n_concepts: tuple[int, ...]
    ndc: float
    aci: float


def robustness(
    estimator: Discovery,
    X: ArrayLike,
    *,
    runs: int = 3,
    share: float = 1.0,
    seed: int = 0,
    noise: Noise = "implicit",
    progress: bool = False,
) -> Robustness:
    """Fit several times and align the results.

    Parameters
    ----------
    estimator : Discovery
        Cloned; runs get the seeds ``seed``, ``seed + 1``, ... where it has one.
    X : array-like of shape (n, F)
    runs : int
        At least 2.
    share : float
        Of the rows each run is fitted on, drawn by seed; all rows are then given their proximities.  1 differs between runs by the
        seeds only: an exact method agrees with itself.
    seed : int
    noise : {"implicit", "explicit"}
    progress : bool
    """
    if runs < 2 or not 0 < share <= 1:
        raise ValueError(f"runs={runs}, share={share}: there must be at least 2 runs, and 0 < share <= 1")
    rows = np.asarray(X)
    found = []
    for r in track(range(runs), progress=progress, what="runs", unit="run"):
        own = estimator.clone(**({"seed": seed + r} if "seed" in estimator.get_params() else {}))
        if share == 1:
            found.append(own.fit(rows).memberships_)
        else:
            chosen = np.sort(np.random.default_rng([seed, r]).choice(len(rows), max(2, round(share * len(rows))), replace=False))
            found.append(own.fit(rows[chosen]).transform(rows))
    table = matrix(found, names=[f"run {r + 1}" for r in range(runs)], noise=noise)
    upper = np.triu_indices(runs, 1)
    return Robustness(
        matrix=table, n_concepts=tuple(P.shape[1] for P in found), ndc=float(table.ndc[upper].mean()), aci=float(table.aci[upper].mean())
    )


# ---- the graph through the layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """``count`` samples go from a concept of one layer to one of the next: a ``share`` of those that reach the target from any concept."""

    layer: int
    source: int
    target: int
    count: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptGraph:
    """Concepts of consecutive layers and the samples they pass on.

    Attributes
    ----------
    layers : tuple of str
    sizes : tuple of ndarray of shape (K_l,), int64
        Samples in each concept.
    edges : tuple of Edge
        From ``layers[edge.layer]`` to the next; by layer, then target, then share from the largest.
    """

    layers: tuple[str, ...]
    sizes: tuple[I64, ...]
    edges: tuple[Edge, ...]

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers, for JSON."""
        edges = [{"layer": e.layer, "source": e.source, "target": e.target, "count": e.count, "share": e.share} for e in self.edges]
        return {"layers": list(self.layers), "sizes": [s.tolist() for s in self.sizes], "edges": edges}


def concept_graph(layers: Mapping[str, ArrayLike], *, threshold: float = 0.05, soft: float | None = None) -> ConceptGraph:
    """Which concepts of a layer become which of the next?

    Parameters
    ----------
    layers : mapping of str to array-like
        In the order of the network: labels (n,) with -1 for noise, or proximities (n, K).
    threshold : float
        An edge is kept when its share of the samples that reach its target is larger.
    soft : float, optional
        For proximities: a sample is in every concept it is closer to than this (0.5 and 0.7 were published); None takes
        the closest, where that exceeds the missing mass.
    """
    if not 0 <= threshold < 1 or (soft is not None and not 0 < soft < 1):
        raise ValueError(f"threshold={threshold}, soft={soft}: both must lie between 0 and 1")
    members = {str(name): _members(str(name), np.asarray(values), soft) for name, values in layers.items()}
    names = tuple(members)
    if len(names) < 2 or len({len(m) for m in members.values()}) != 1:
        raise DataError(f"a graph needs at least two layers of the same samples, not {[(name, len(m)) for name, m in members.items()]}")
    edges = []
    for depth, (first, second) in enumerate(itertools.pairwise(names)):
        counts = members[first].T.astype(np.float64) @ members[second]
        total = counts.sum(axis=0)
        part = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
        for target in range(counts.shape[1]):
            for source in np.argsort(-part[:, target], kind="stable"):
                if part[source, target] > threshold:
                    edges.append(Edge(layer=depth, source=int(source), target=target, count=int(counts[source, target]),
                                      share=float(part[source, target])))  # fmt: skip
    return ConceptGraph(layers=names, sizes=tuple(m.sum(axis=0).astype(np.int64) for m in members.values()), edges=tuple(edges))


def _members(name: str, values: NDArray[Any], soft: float | None) -> NDArray[np.float32]:
    if values.ndim == 1 and values.dtype.kind in "iu":
        return np.asarray((values[:, None] == np.arange(max(int(values.max(initial=-1)) + 1, 0))[None]).astype(np.float32))
    P = proximities(values, name=name)
    if soft is not None:
        return (soft < P).astype(np.float32)
    return np.asarray((hard_labels(P)[:, None] == np.arange(P.shape[1])[None]).astype(np.float32))
