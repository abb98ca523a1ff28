"""Pixel flipping: does the output fall when what a map calls relevant is taken away?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from semanticlens.attribution.metrics.case import Case, Curve, Part
from semanticlens.attribution.metrics.fill import check_fill, fills

__all__ = ["PixelFlipping"]

Array = NDArray[Any]
ORDERS = ("most", "least")
SCORES = ("output", "probability")


@dataclass(frozen=True)
class PixelFlipping:
    """Take regions of a picture away in the order of their relevance, and follow the output of the class.

    With ``f_k`` the output after step k of L, ``x_0`` the picture itself, ``n_k = round(k / L * share * n)`` regions gone
    after step k (a region's relevance is the mean of the map over it, so that a larger region is not a more relevant one):

    - ``aopc``: ``mean_{k=0..L} (f_0 - f_k)``, most relevant regions first: the area over the curve of Samek et al. (2017);
      large is good.
    - ``aopc_least``: the same, least relevant regions first; small is good.
    - ``abpc``: ``aopc - aopc_least``, the area between the two curves; large is good. It does not reward a map for merely
      leaving the data's manifold early, as both orders do. (Blücher et al., 2024, call it symmetric relevance gain.)
    - ``auc``, ``auc_least``: area under each curve by the trapezoidal rule over the share of the picture taken away.

    The order is fixed once per sample, equal relevance by the lower index; least relevant first is its exact reverse, so
    both orders start and (with ``share=1``) end at the same picture, which is run once.

    Attributes
    ----------
    region : int
        Side of the square regions in pixels; 1 flips pixels. A side that is no multiple of it is cut into parts that differ by
        at most one pixel.
    steps : int
        L; never more than there are regions to take.
    share : float
        How much of the picture is gone in the end, in (0, 1].
    orders : tuple of {"most", "least"}
    fill : {"mean", "blur", "noise"}, float, or tuple of floats
        What comes instead: the mean colour of each picture, the picture blurred, uniform noise over each picture's range
        per channel, or a constant (one number, or one per channel) in the network's input units.
    score : {"output", "probability"}
        The output itself, or its softmax.

    References
    ----------
    Samek, Binder, Montavon, Lapuschkin, Müller: Evaluating the visualization of what a deep neural network has learned. IEEE
    TNNLS 28, 2017. Blücher, Vielhaben, Strodthoff: Decoupling pixel flipping and occlusion strategy for consistent XAI
    benchmarks. TMLR, 2024.
    """

    region: int = 8
    steps: int = 20
    share: float = 1.0
    orders: tuple[str, ...] = ORDERS
    fill: str | float | tuple[float, ...] = "mean"
    score: str = "output"
    name: ClassVar[str] = "pixel_flipping"

    def __post_init__(self) -> None:
        for key in ("region", "steps"):
            number = getattr(self, key)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{key}={number!r}: must be a whole number of at least 1")
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share!r}: must lie in (0, 1]")
        object.__setattr__(self, "orders", (self.orders,) if isinstance(self.orders, str) else tuple(self.orders))
        if not self.orders or len(set(self.orders)) != len(self.orders) or set(self.orders) - set(ORDERS):
            raise ValueError(f"orders={self.orders!r}: must be 'most', 'least' or both")
        if self.score not in SCORES:
            raise ValueError(f"score={self.score!r}: must be one of {', '.join(SCORES)}")

    def prepare(self, case: Case) -> int:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        height, width = case.x.shape[2:]
        if self.region > min(height, width):
            raise ValueError(f"region={self.region}: at most the smaller side of the pictures, {min(height, width)}")
        check_fill(case, self.fill)
        return case.n_batches(len(case) * len(self._jobs(case)))

    def run(self, case: Case, tick: Callable[[], None]) -> Part:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        regions, counts, jobs = self._regions(case), self._counts(case), self._jobs(case)
        places = rank(region_means(case.heat(), regions))
        curves = {order: np.empty((len(case), len(counts))) for order in self.orders}
        for curve in curves.values():
            curve[:, 0] = self._score(case.output, case.targets)
        for part in case.batches(len(case) * len(jobs)):
            samples, which = np.divmod(np.arange(part.start, part.stop), len(jobs))
            first = samples[0]
            filled = fills(case, self.fill, slice(first, samples[-1] + 1))
            gone = np.stack([self._gone(places[i], jobs[j], counts) for i, j in zip(samples, which, strict=True)])
            x = np.where(gone[:, regions][:, None], filled[samples - first], case.x[samples])
            for i, j, value in zip(samples, which, self._score(case.run(x), case.targets[samples]), strict=True):
                curves[jobs[j][0]][i, jobs[j][1]] = value
            tick()
        if len(jobs) < len(self.orders) * (len(counts) - 1):
            curves[self.orders[1]][:, -1] = curves[self.orders[0]][:, -1]
        return self._part(curves, counts / (regions.max() + 1))

    def _regions(self, case: Case) -> Array:
        """(H, W): which region a pixel belongs to."""
        height, width = (np.arange(n) * max(1, round(n / self.region)) // n for n in case.x.shape[2:])
        return np.asarray(height[:, None] * (width[-1] + 1) + width)

    def _counts(self, case: Case) -> Array:
        """(L + 1,): how many regions are gone after each step."""
        last = max(1, round(self.share * (self._regions(case).max() + 1)))
        steps = min(self.steps, last)
        return np.asarray(np.round(np.arange(steps + 1) / steps * last), dtype=np.int64)

    def _jobs(self, case: Case) -> list[tuple[str, int]]:
        """(order, step) of the pictures that are run: not the picture itself, and what both orders share once."""
        counts = self._counts(case)
        jobs = [(order, k) for order in self.orders for k in range(1, len(counts))]
        shared = len(self.orders) == 2 and counts[-1] == self._regions(case).max() + 1
        return jobs[:-1] if shared else jobs

    @staticmethod
    def _gone(places: Array, job: tuple[str, int], counts: Array) -> Array:
        """(n,): which regions are gone."""
        order, k = job
        return np.asarray(places < counts[k] if order == "most" else places >= len(places) - counts[k])

    def _score(self, output: Array, targets: Array) -> Array:
        value = np.asarray(output[np.arange(len(output)), targets])
        if self.score == "output":
            return value
        largest = output.max(axis=1)
        return np.asarray(np.exp(value - largest) / np.exp(output - largest[:, None]).sum(axis=1))

    def _part(self, curves: dict[str, Array], share: Array) -> Part:
        scores = {}
        for order, curve in curves.items():
            suffix = "" if order == "most" else "_least"
            scores[f"aopc{suffix}"] = (curve[:, :1] - curve).mean(axis=1)
            scores[f"auc{suffix}"] = ((curve[:, 1:] + curve[:, :-1]) / 2 * np.diff(share)).sum(axis=1)
        if len(curves) == 2:
            scores["abpc"] = scores["aopc"] - scores["aopc_least"]
        label = f"{self.score} of the class"
        found = {
            f"{order} relevant first": Curve(share, curve, "share taken away", label) for order, curve in curves.items()
        }
        return Part(scores, found)


def region_means(heat: Array, regions: Array) -> Array:
    """(B, n): the mean of each map over each region."""
    flat = regions.ravel()
    return np.stack([np.bincount(flat, weights=row.ravel()) for row in heat]) / np.bincount(flat)


def rank(values: Array) -> Array:
    """(B, n): each value's place from the largest down, 0 first; equal ones by the lower index."""
    order = np.argsort(-values, axis=1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(values.shape[1]), order.shape), axis=1)
    return places
