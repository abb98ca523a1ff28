"""Sensitivity: how far does a map move when the picture hardly does?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from semanticlens.attribution.metrics.case import Case, Part, check_same, summed

__all__ = ["Sensitivity"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Sensitivity:
    """``max_sensitivity``: the largest ``|M(x + e) - M(x)| / |M(x)|`` over drawn e, M the map summed over channels.

    That is SENS_MAX of Yeh et al. (2019), its maximum over a ball taken over ``draws`` draws, relative to the map. Each
    element of e is uniform within ``noise`` times the range of the picture's values; the class stays. NaN for a map of
    zeros. Needs a method that makes maps.

    Attributes
    ----------
    noise : float
        Radius, as a share of each picture's range.
    draws : int

    References
    ----------
    Yeh, Hsieh, Suggala, Inouye, Ravikumar: On the (in)fidelity and sensitivity of explanations. NeurIPS, 2019.
    """

    noise: float = 0.02
    draws: int = 8
    name: ClassVar[str] = "sensitivity"

    def __post_init__(self) -> None:
        if not 0 < self.noise < np.inf:
            raise ValueError(f"noise={self.noise!r}: must be a positive number")
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 1:
            raise ValueError(f"draws={self.draws!r}: must be a whole number of at least 1")

    def prepare(self, case: Case) -> int:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        case.need_method(self.name)
        return case.n_batches(len(case)) + case.n_batches(len(case) * self.draws)

    def run(self, case: Case, tick: Callable[[], None]) -> Part:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        base = []
        for part in case.batches(len(case)):
            base.append(case.draw_maps(case.net, case.x[part], case.targets[part]))
            tick()
        original = np.concatenate(base)
        check_same(case, original, self.name)
        heat = summed(original).reshape(len(case), -1)
        moved = np.empty(len(case) * self.draws)
        for part in case.batches(len(moved)):
            samples, draws = np.divmod(np.arange(part.start, part.stop), self.draws)
            x = np.stack([self._noisy(case, i, k) for i, k in zip(samples, draws, strict=True)])
            made = summed(case.draw_maps(case.net, x, case.targets[samples]))
            moved[part] = np.linalg.norm(made.reshape(len(x), -1) - heat[samples], axis=1)
            tick()
        size = np.linalg.norm(heat, axis=1)
        largest = moved.reshape(len(case), self.draws).max(axis=1)
        return Part({"max_sensitivity": np.where(size > 0, largest / np.where(size > 0, size, 1), np.nan)})

    def _noisy(self, case: Case, sample: int, draw: int) -> Array:
        x = case.x[sample]
        radius = self.noise * (float(x.max()) - float(x.min()))
        return np.asarray(x + case.rng(2, int(sample), int(draw)).uniform(-radius, radius, x.shape), dtype=np.float32)
