"""Which concept of one representation is which of the other?  Distances of single concepts, matching, universality.

The distance of concept a of P and concept b of Q is the mean over pairs of samples of half the difference of their
one-dimensional pair distances
(eq. 4 of Vielhaben et al., arXiv 2412.06639); it is computed over all pairs, to 2e-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._kernels import alignment as kernels
from semanticlens.alignment.assignment import assign
from semanticlens.alignment.index import proximities, same_rows

if TYPE_CHECKING:
    from PIL import Image

UNIVERSAL, SEMI_UNIVERSAL, SEMI_UNIQUE, UNIQUE = "universal", "semi-universal", "semi-unique", "unique"
KINDS = (UNIVERSAL, SEMI_UNIVERSAL, SEMI_UNIQUE, UNIQUE)

SHOWN = 20  # rows of a printed matching


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A concept of one side and its partner on the other."""

    a: int
    b: int
    distance: float
    relative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """One-to-one matching of least total distance.

    Attributes
    ----------
    matches : tuple of Match
        The most alike first; ties by the lower ``a``.
    alone_p, alone_q : tuple of int
        Concepts that found no partner because the other side has fewer.
    """

    matches: tuple[Match, ...]
    alone_p: tuple[int, ...]
    alone_q: tuple[int, ...]

    def __repr__(self) -> str:
        """The pairs, the most alike first."""
        rows = [f"{m.a:6d} {m.b:6d} {m.distance:10.4f} {m.relative:10.3f}" for m in self.matches[:SHOWN]]
        more = len(self.matches) - len(rows)
        head = f"Matching: {len(self.matches)} pairs, {len(self.alone_p)} of P and {len(self.alone_q)} of Q alone"
        lines = [head, f"{'P':>6} {'Q':>6} {'distance':>10} {'relative':>10}", *rows, *([f"... {more} more"] if more else [])]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers, for JSON."""
        return {
            "matches": [{"a": m.a, "b": m.b, "distance": m.distance, "relative": m.relative} for m in self.matches],
            "alone_p": list(self.alone_p),
            "alone_q": list(self.alone_q),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptDistances:
    """Distances between the concepts of two representations.

    Attributes
    ----------
    distance : ndarray of shape (Kp, Kq), float64
        In [0, 0.5]; small numbers are normal, because most pairs of samples are far from both concepts.
    lone_p, lone_q : ndarray of shape (Kp,) and (Kq,), float64
        Distance of each concept to a concept nobody belongs to: the scale to read ``distance`` against.
    n : int
        Samples.
    """

    distance: NDArray[np.float64]
    lone_p: NDArray[np.float64]
    lone_q: NDArray[np.float64]
    n: int

    @property
    def relative(self) -> NDArray[np.float64]:
        """distance / (lone_p + lone_q), in [0, 1] and comparable between concepts of different size; 0 where both are empty."""
        scale = self.lone_p[:, None] + self.lone_q[None]
        return np.divide(self.distance, scale, out=np.zeros_like(self.distance), where=scale > 0)

    def match(self, *, relative: bool = False) -> Matching:
        """Match concepts one to one so that the total distance is least (Hungarian method).

        Parameters
        ----------
        relative : bool
            Match on :attr:`relative`, so that large concepts do not dominate the total.
        """
        scaled = self.relative
        rows, columns = assign(scaled if relative else self.distance)
        found = sorted(
            (
                Match(a=int(a), b=int(b), distance=float(self.distance[a, b]), relative=float(scaled[a, b]))
                for a, b in zip(rows, columns, strict=True)
            ),
            key=lambda m: (m.relative if relative else m.distance, m.a),
        )
        return Matching(
            matches=tuple(found),
            alone_p=tuple(sorted(set(range(len(self.lone_p))) - {m.a for m in found})),
            alone_q=tuple(sorted(set(range(len(self.lone_q))) - {m.b for m in found})),
        )

    def universality(self, cuts: Sequence[float], *, relative: bool = True) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Call each concept of either side universal, semi-universal, semi-unique or unique, by its distance to its partner.

        Parameters
        ----------
        cuts : three ascending numbers
            The largest distance that is still universal, semi-universal, semi-unique. The published cuts were set by
            eye: there is no default.
        relative : bool
            Whether ``cuts`` (and the matching) mean :attr:`relative` distances.

        Returns
        -------
        tuple of str, tuple of str
            Kinds of the concepts of P and of Q; a concept without partner is unique.
        """
        values = tuple(float(c) for c in cuts)
        if len(values) != 3 or not 0 <= values[0] <= values[1] <= values[2]:
            raise ValueError(f"cuts={tuple(cuts)} must be three ascending numbers of at least 0")
        kinds_p, kinds_q = [UNIQUE] * len(self.lone_p), [UNIQUE] * len(self.lone_q)
        for m in self.match(relative=relative).matches:
            kind = KINDS[int(np.searchsorted(values, m.relative if relative else m.distance))]
            kinds_p[m.a] = kinds_q[m.b] = kind
        return tuple(kinds_p), tuple(kinds_q)

    def plot(self, *, relative: bool = True, **options: Any) -> Image.Image:
        """Draw the distances as a heat map in the order of the matching; see :func:`semanticlens.plot.alignment_pairs.picture`."""
        from semanticlens.plot.alignment_pairs import picture

        return picture(self, relative=relative, **options)


def concept_distances(P: ArrayLike, Q: ArrayLike, *, progress: bool = False, n_threads: int | None = None) -> ConceptDistances:
    """Distances between every concept of P and every concept of Q, over all pairs of samples, to 2e-8.

    Parameters
    ----------
    P, Q : array-like of shape (n, Kp) and (n, Kq), float
        Proximities of the same samples in the same order; see :func:`semanticlens.alignment.proximities`. Give the
        same matrix twice for the distances between the concepts of one representation: half the work, zeros on the diagonal.
    progress : bool
    n_threads : int, optional

    Returns
    -------
    ConceptDistances

    Notes
    -----
    O(Kp Kq n) on average instead of O(Kp Kq n^2): see ``sl_concept_pairs.h`` for the identity. Agrees with the definition to 5e-8.
    """
    p = proximities(P, name="P")
    q = p if Q is P else proximities(Q, name="Q")
    same_rows([p, q], ["P", "Q"])
    columns = np.ascontiguousarray(p.T)
    others = columns if Q is P else np.ascontiguousarray(q.T)
    distance, lone_p, lone_q = kernels.concept_distances(columns, others, progress=progress, n_threads=n_threads)
    return ConceptDistances(distance=distance, lone_p=lone_p, lone_q=lone_q, n=len(p))
