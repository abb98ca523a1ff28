"""Completeness: does the relevance add up to what the network said?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from semanticlens.attribution.metrics.case import Case, Part
from semanticlens.attribution.metrics.fill import check_fill, fills

__all__ = ["Completeness"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Completeness:
    """``completeness_error``: ``|sum R - (f(x) - f(b))| / |f(x) - f(b)|`` for the output f of the class.

    Without a baseline ``f(b)`` is 0: conservation as layer-wise relevance propagation means it (Bach et al., 2015);
    what biases and stabilisers keep counts as an error here, and :meth:`Attribution.ledger` says where it went. With a
    baseline it is the completeness of Sundararajan et al. (2017). NaN where the difference is 0. Maps that are not meant to
    add up (gradients, maps that started from 1) have large errors by construction.

    Attributes
    ----------
    baseline : None, {"mean", "blur", "noise"}, float, or tuple of floats
        The picture b, as ``fill`` of :class:`PixelFlipping`.

    References
    ----------
    Bach et al.: On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance propagation. PLoS ONE
    10, 2015. Sundararajan, Taly, Yan: Axiomatic attribution for deep networks. ICML, 2017.
    """

    baseline: str | float | tuple[float, ...] | None = None
    name: ClassVar[str] = "completeness"

    def prepare(self, case: Case) -> int:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        if self.baseline is None:
            return 1
        check_fill(case, self.baseline)
        return case.n_batches(len(case))

    def run(self, case: Case, tick: Callable[[], None]) -> Part:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        base = np.zeros(len(case))
        if self.baseline is None:
            tick()
        else:
            for part in case.batches(len(case)):
                x = np.broadcast_to(fills(case, self.baseline, part), case.x[part].shape)
                base[part] = case.run(np.ascontiguousarray(x))[np.arange(len(x)), case.targets[part]]
                tick()
        want = case.value() - base
        error = np.abs(case.maps.reshape(len(case), -1).sum(axis=1) - want)
        return Part({"completeness_error": np.where(want != 0, error / np.where(want != 0, np.abs(want), 1), np.nan)})
