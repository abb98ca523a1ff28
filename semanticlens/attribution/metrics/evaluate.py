"""How good are these maps? One call for all metrics, and a result that prints as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.attribution.attribute import Attribution
from semanticlens.attribution.composites import Composite
from semanticlens.attribution.metrics.case import Case, Curve, MapFunction, Metric, Part, make_case
from semanticlens.attribution.metrics.completeness import Completeness
from semanticlens.attribution.metrics.flipping import PixelFlipping
from semanticlens.attribution.metrics.localisation import Localisation
from semanticlens.attribution.metrics.randomisation import Randomisation
from semanticlens.attribution.metrics.sensitivity import Sensitivity
from semanticlens.attribution.metrics.sparseness import Sparseness

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["METRICS", "Evaluation", "evaluate", "table"]

Array = NDArray[Any]
METRICS: Mapping[str, Callable[[], Metric]] = {
    kind.name: kind for kind in (PixelFlipping, Localisation, Sparseness, Sensitivity, Randomisation, Completeness)
}
"""Name -> the metric with its usual settings."""
BETTER: Mapping[str, str] = {
    "aopc": "large",
    "abpc": "large",
    "auc": "small",
    "aopc_least": "small",
    "auc_least": "large",
    "mass": "large",
    "rank": "large",
    "pointing": "large",
    "gini": "",
    "area": "",
    "max_sensitivity": "small",
    "rank_correlation": "small",
    "rank_correlation_absolute": "small",
    "ssim": "small",
    "completeness_error": "small",
}
"""Which end of a column is the good one; nothing where neither is."""


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` returns.

    Attributes
    ----------
    scores : mapping of str to ndarray (B,)
        One number per sample and column; NaN where it is undefined for a sample.
    curves : mapping of str to Curve
        "most relevant first", "least relevant first", "rank_correlation", ...: what there is to plot.
    metrics : tuple of Metric
        With all their settings.
    targets : ndarray (B,)
        The class of each sample.
    maps : ndarray (B, H, W)
        What was judged, summed over channels.
    seed : int
    """

    scores: Mapping[str, Array]
    curves: Mapping[str, Curve]
    metrics: tuple[Metric, ...]
    targets: Array
    maps: Array
    seed: int

    def __getitem__(self, column: str) -> Array:
        if column not in self.scores:
            raise KeyError(f"{column!r} was not scored; there are {', '.join(self.scores)}")
        return self.scores[column]

    def count(self, column: str) -> int:
        """How many samples have a score."""
        return int(np.isfinite(self[column]).sum())

    def mean(self, column: str) -> float:
        """Mean over the samples that have a score; NaN if none has."""
        kept = self[column][np.isfinite(self[column])]
        return float(kept.mean()) if len(kept) else math.nan

    def standard_error(self, column: str) -> float:
        """Standard deviation (of the sample, n - 1) over the root of n; NaN for fewer than two scores."""
        kept = self[column][np.isfinite(self[column])]
        return float(kept.std(ddof=1) / math.sqrt(len(kept))) if len(kept) > 1 else math.nan

    def table(self) -> str:
        """Every column with mean, standard error, number of samples, and which end is good."""
        lines = [("score", "mean", "error", "n", "better")]
        for name in self.scores:
            numbers = (_number(self.mean(name)), _number(self.standard_error(name)), str(self.count(name)))
            lines.append((name, *numbers, BETTER.get(name, "")))
        return _aligned(lines)

    def to_dict(self) -> dict[str, Any]:
        """Means, standard errors, counts and settings, as JSON takes them (NaN as None)."""
        return {
            "scores": {
                name: {
                    "mean": _plain(self.mean(name)),
                    "standard_error": _plain(self.standard_error(name)),
                    "n": self.count(name),
                }
                for name in self.scores
            },
            "settings": [repr(metric) for metric in self.metrics],
            "seed": self.seed,
        }

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"Evaluation({len(self.targets)} samples; {', '.join(self.scores)})"


def evaluate(
    net: Network,
    images: ArrayLike,
    maps: ArrayLike | Attribution | Composite | MapFunction | str,
    *,
    targets: ArrayLike | None = None,
    metrics: str | Metric | Iterable[str | Metric] | None = None,
    method: str | Composite | MapFunction | None = None,
    masks: ArrayLike | None = None,
    batch_size: int = 16,
    seed: int = 0,
    n_threads: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Judge relevance maps by what the network does, by where things are, and by what maps should not depend on.

    Parameters
    ----------
    net : Network
        With an output of one row of class scores per picture.
    images : array_like (B, C, H, W), float32
        Network inputs.
    maps : array_like (B, H, W) or (B, C, H, W), Attribution, Composite, name of a composite, or callable
        What is judged; a composite or a function ``(net, x, targets) -> maps`` makes the maps. An :class:`Attribution` brings
        its classes, and its composite as ``method``.
    targets : int or array_like (B,), optional
        The class whose output the maps explain; the network's own answer if left out.
    metrics : str, Metric, or iterable of them, optional
        Names ("pixel_flipping", "localisation", "sparseness", "sensitivity", "randomisation", "completeness") or the
        metrics with settings of your own, such as ``metrics.PixelFlipping(fill="blur")``. If left out: all that what was
        passed is enough for.
    method : Composite, name of a composite, or callable, optional
        What made the maps, for metrics that need maps of other inputs or networks.
    masks : array_like (B, H, W), bool, optional
        Where the thing is, for "localisation".
    batch_size : int
        Inputs that the network gets at a time, also of those made by a metric. Does not change what is drawn or perturbed.
    seed : int
        Of all random numbers. What is drawn for a sample depends on its place in ``images``, not on the others.
    n_threads : int, optional
        For the network and for composites; functions of your own choose their own.
    progress : bool

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        For images, maps, masks or targets that do not fit or are not finite.
    ValueError, TypeError
        For unknown metrics, settings out of range, or a metric that needs ``method`` or ``masks``; before any metric runs.
    MismatchError
        If ``method`` does not make the maps that were given.
    """
    case = make_case(
        net,
        images,
        maps,
        targets,
        method,
        masks,
        batch_size=batch_size,
        seed=seed,
        n_threads=resolve_threads(n_threads),
        progress=progress,
    )
    chosen = _chosen(metrics, case)
    batches = [metric.prepare(case) for metric in chosen]
    parts: list[Part] = []
    for metric, number in zip(chosen, batches, strict=True):
        bar = track(range(number), progress=progress, what=metric.name, unit="batch")
        parts.append(metric.run(case, lambda bar=bar: next(bar, None)))  # type: ignore[misc]
        for _ in bar:  # closes it
            pass
    return Evaluation(
        {name: scores for part in parts for name, scores in part.scores.items()},
        {name: curve for part in parts for name, curve in part.curves.items()},
        chosen,
        case.targets,
        case.heat(),
        case.seed,
    )


def _chosen(metrics: str | Metric | Iterable[str | Metric] | None, case: Case) -> tuple[Metric, ...]:
    if isinstance(metrics, type):
        raise TypeError(f"metrics={metrics!r} is a class: pass {metrics.__name__}()")
    if metrics is None:
        lacking = {"localisation"} if case.masks is None else set()
        lacking |= {"sensitivity", "randomisation"} if case.method is None else set()
        return tuple(make() for name, make in METRICS.items() if name not in lacking)
    given = (metrics,) if isinstance(metrics, str | Metric) else tuple(metrics)
    found: list[Metric] = []
    for item in given:
        if isinstance(item, str):
            if item not in METRICS:
                raise ValueError(f"metric {item!r} is not known; known are {', '.join(METRICS)}")
            found.append(METRICS[item]())
        elif isinstance(item, type) or not isinstance(item, Metric):
            raise TypeError(f"metrics: {item!r} is neither a name nor a metric such as PixelFlipping()")
        else:
            found.append(item)
    names = [metric.name for metric in found]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"metrics={names}: name at least one, each once; settings are compared in calls of their own")
    return tuple(found)


def table(
    evaluations: Mapping[str, Evaluation],
    columns: Iterable[str] | None = None,
    *,
    errors: bool = True,
    markdown: bool = False,
) -> str:
    """Several methods side by side: a row each, means with standard errors.

    Parameters
    ----------
    evaluations : mapping of str to Evaluation
        By the name of the method.
    columns : iterable of str, optional
        Those of the first evaluation if left out.
    errors : bool
        Print standard errors.
    markdown : bool
        Bars between cells.

    Raises
    ------
    ValueError
        If there is none.
    KeyError
        If a column was not scored.
    """
    if not evaluations:
        raise ValueError("evaluations is empty: there is nothing to tabulate")
    names = list(next(iter(evaluations.values())).scores if columns is None else columns)
    lines = [("method", *names)]
    for method, found in evaluations.items():
        cells = [
            f"{_number(found.mean(name))} ± {_number(found.standard_error(name))}"
            if errors
            else _number(found.mean(name))
            for name in names
        ]
        lines.append((method, *cells))
    if not markdown:
        return _aligned(lines)
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _aligned(lines: list[Any]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = (
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    )
    return "\n".join("  ".join(row).rstrip() for row in rows)
