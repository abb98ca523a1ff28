"""Sparseness: how few pixels hold the relevance?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from semanticlens.attribution.metrics.case import Case, Part

__all__ = ["Sparseness", "gini"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Sparseness:
    """``gini``: the Gini index of ``|R|`` over the pixels, the map summed over channels first.

    0 where all pixels are equally relevant, near 1 where one holds everything; NaN for a map of zeros.

    References
    ----------
    Chalasani, Chen, Chowdhury, Wu, Jha: Concise explanations of neural networks using adversarial training. ICML, 2020,
    after Hurley and Rickard, 2009.
    """

    name: ClassVar[str] = "sparseness"

    def prepare(self, case: Case) -> int:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        return 1

    def run(self, case: Case, tick: Callable[[], None]) -> Part:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        found = gini(np.abs(case.heat()).reshape(len(case), -1))
        tick()
        return Part({"gini": found})


def gini(values: Array) -> Array:
    """(B,): ``1 - 2 sum_k v_(k) / sum(v) * (d - k + 1/2) / d`` over the sorted values ``v_(1) <= ... <= v_(d)`` >= 0."""
    ordered = np.sort(values, axis=1)
    d = ordered.shape[1]
    total = ordered.sum(axis=1)
    weights = (d - np.arange(1, d + 1) + 0.5) / d
    safe = np.where(total > 0, total, 1)
    return np.where(total > 0, 1 - 2 * (ordered @ weights) / safe, np.nan)
