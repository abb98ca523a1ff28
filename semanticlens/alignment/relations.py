"""How the concepts of two representations relate: shared one to one, split into several, merged into one, or found on one side only.

The published matching is one to one: of a concept that the other side holds in two halves, one half is matched badly and the other
counts as
unique.  Here a concept is also compared with the sum of those that lie inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._kernels import alignment as kernels
from semanticlens.alignment.assignment import assign
from semanticlens.alignment.index import proximities, same_rows
from semanticlens.alignment.pairs import ConceptDistances, concept_distances

F64 = NDArray[np.float64]
SHARED, SPLIT, MERGED, ONLY_P, ONLY_Q = "shared", "split", "merged", "only P", "only Q"
RELATIONS = (SHARED, SPLIT, MERGED, ONLY_P, ONLY_Q)
CUTS = (0.25, 0.5, 0.75)
NEVER = 1e6  # cost of a match that is not allowed, above any sum of allowed ones
INSIDE = 0.5  # share of a concept's mass that has to lie in another one for it to be a part of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Concepts ``p`` of P and ``q`` of Q that stand for the same samples.

    Attributes
    ----------
    kind : {"shared", "split", "merged", "only P", "only Q"}
        "split": one of P is several of Q; "merged": several of P are one of Q.
    p, q : tuple of int
    relative : float
        Relative distance of the two sides, several concepts of a side added up; for a concept on one side only, that to its
        nearest one, and 1 where the other side has none.
    """

    kind: str
    p: tuple[int, ...]
    q: tuple[int, ...]
    relative: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"kind": self.kind, "p": list(self.p), "q": list(self.q), "relative": self.relative}


def overlap(P: NDArray[np.float32], Q: NDArray[np.float32]) -> F64:
    """Common mass sum_i min(P[i, a], Q[i, b]) of every two concepts, (Kp, Kq)."""
    if not P.shape[1] or not Q.shape[1]:
        return np.zeros((P.shape[1], Q.shape[1]))
    return np.stack([np.minimum(P[:, a, None], Q).sum(axis=0, dtype=np.float64) for a in range(P.shape[1])])


def _together(p: NDArray[np.float32], q: NDArray[np.float32], common: F64) -> F64:
    """Common mass as a share of the mean mass of the two, (Kp, Kq); 0 where both are empty."""
    mean = (p.sum(axis=0, dtype=np.float64)[:, None] + q.sum(axis=0, dtype=np.float64)) / 2
    return np.asarray(np.divide(common, mean, out=np.zeros_like(common), where=mean > 0))


def check_cuts(cuts: Sequence[float]) -> tuple[float, float, float]:
    """``cuts`` as three ascending numbers of at least 0."""
    values = tuple(float(c) for c in cuts)
    if len(values) != 3 or not 0 <= values[0] <= values[1] <= values[2]:
        raise ValueError(f"cuts={tuple(cuts)} must be three ascending numbers of at least 0")
    return values


def relations(
    P: ArrayLike,
    Q: ArrayLike,
    *,
    cuts: Sequence[float] = CUTS,
    inside: float = INSIDE,
    distances: ConceptDistances | None = None,
    n_threads: int | None = None,
) -> tuple[Relation, ...]:
    """Sort all concepts of both sides into relations; every concept is in exactly one.

    Parameters
    ----------
    P, Q : array-like of shape (n, Kp) and (n, Kq)
        Proximities of the same samples.
    cuts : three ascending numbers
        Of the relative distance: 0 for equal concepts, near 1 for small unrelated ones, and for small crisp ones 1 minus the share of
        samples in common.  Up to the second cut a concept may be called the sum of others; up to the third two concepts are
        called shared, if the mass they have in common is also at least 1 minus that cut (the distance alone cannot tell a concept
        from its complement).
    inside : float
        Share of a concept's mass that must lie in another one for it to be a part of it.
    distances : ConceptDistances, optional
        Of P and Q, if known.
    n_threads : int, optional

    Returns
    -------
    tuple of Relation
        Shared, split, merged, only P, only Q; in each the closest first.
    """
    values = check_cuts(cuts)
    if not 0 < inside < 1:
        raise ValueError(f"inside={inside} must lie between 0 and 1")
    p, q = proximities(P, name="P"), proximities(Q, name="Q")
    same_rows([p, q], ["P", "Q"])
    known = concept_distances(p, q, n_threads=n_threads) if distances is None else distances
    if known.distance.shape != (p.shape[1], q.shape[1]):
        raise ValueError(f"distances is for {known.distance.shape} concepts, but P and Q have {(p.shape[1], q.shape[1])}")
    common, relative = overlap(p, q), known.relative
    whole = _sums(p, q, common, relative, inside, values[1], n_threads)
    turned = _sums(q, p, common.T, relative.T, inside, values[1], n_threads)
    found = [Relation(kind=SPLIT, p=(a,), q=parts, relative=r) for a, parts, r in whole]
    found += [Relation(kind=MERGED, p=parts, q=(b,), relative=r) for b, parts, r in turned]
    found = _disjoint(found)
    free_p = sorted(set(range(p.shape[1])) - {a for r in found for a in r.p})
    free_q = sorted(set(range(q.shape[1])) - {b for r in found for b in r.q})
    found += _one_to_one(relative, _together(p, q, common), free_p, free_q, values[2])
    free_p = sorted(set(free_p) - {a for r in found for a in r.p})
    free_q = sorted(set(free_q) - {b for r in found for b in r.q})
    found += [Relation(kind=ONLY_P, p=(a,), q=(), relative=float(relative[a].min(initial=1.0))) for a in free_p]
    found += [Relation(kind=ONLY_Q, p=(), q=(b,), relative=float(relative[:, b].min(initial=1.0))) for b in free_q]
    return tuple(sorted(found, key=lambda r: (RELATIONS.index(r.kind), r.relative, r.p, r.q)))


def _sums(
    p: NDArray[np.float32], q: NDArray[np.float32], common: F64, relative: F64, inside: float, cut: float, n_threads: int | None
) -> list[tuple[int, tuple[int, ...], float]]:
    """Concepts of p that are the sum of at least two of q: (concept, parts, relative distance)."""
    if not p.shape[1] or not q.shape[1]:
        return []
    mass = q.sum(axis=0, dtype=np.float64)
    best = common.argmax(axis=0)
    part_of = np.where((common.max(axis=0) > inside * mass) & (mass > 0), best, -1)
    found = []
    for a in range(p.shape[1]):
        parts = np.flatnonzero(part_of == a)
        if len(parts) < 2:
            continue
        total = np.minimum(q[:, parts].sum(axis=1), 1.0)
        distance, own, other = kernels.concept_distances(
            np.ascontiguousarray(p[:, a])[None], np.ascontiguousarray(total)[None], n_threads=n_threads
        )
        scaled = float(distance[0, 0] / (own[0] + other[0]))
        if scaled <= cut and scaled < relative[a].min():
            found.append((a, tuple(int(b) for b in parts), scaled))
    return found


def _disjoint(found: list[Relation]) -> list[Relation]:
    """The closest relations first, those that share a concept with one before left out."""
    kept: list[Relation] = []
    used_p: set[int] = set()
    used_q: set[int] = set()
    for r in sorted(found, key=lambda r: (r.relative, r.p, r.q)):
        if not used_p & set(r.p) and not used_q & set(r.q):
            kept.append(r)
            used_p |= set(r.p)
            used_q |= set(r.q)
    return kept


def _one_to_one(relative: F64, together: F64, free_p: list[int], free_q: list[int], cut: float) -> list[Relation]:
    """The matching of least total relative distance among concepts that are close enough and hold enough of the same samples."""
    if not free_p or not free_q:
        return []
    place = np.ix_(free_p, free_q)
    usable = (relative[place] <= cut) & (together[place] >= 1.0 - cut)
    rows, columns = assign(np.where(usable, relative[place], NEVER))
    return [
        Relation(kind=SHARED, p=(free_p[i],), q=(free_q[j],), relative=float(relative[free_p[i], free_q[j]]))
        for i, j in zip(rows, columns, strict=True)
        if usable[i, j]
    ]
