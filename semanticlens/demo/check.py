"""The demo against the truth: fresh pictures, the same with and without the mark, and some as confounded as the training set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semanticlens.demo import artefact
from semanticlens.demo.captions import ATTRIBUTES, label, vocabulary
from semanticlens.demo.evaluate import auroc, aurocs, truth_table
from semanticlens.demo.explore import LAYER, Exploration, run_network
from semanticlens.demo.mend import Mended, mend
from semanticlens.demo.pictures import PictureSet, from_truths, generate, with_overlay

CLEAR = 0.95                                          # AUROC from which a component answers to an attribute, and the artefact's floor
RIGHT = 0.80                                          # share of the clear components whose label must be right
FOLLOWS = 0.75                                        # AUROC from which a component is said to follow the artefact at all
LOWERED, KEPT = 0.85, 0.98                            # what the repair must reach
FEWEST = 5                                            # clear components, below which that share would say nothing
N_FRESH, N_PAIRED, N_CONFOUNDED = 640, 256, 512
SEEDS = {"fresh": 2_000_000, "paired": 3_000_000, "confounded": 4_000_000}  # added to the demo's seed; training used 1 to 4


@dataclass(frozen=True)
class Check:
    """One figure, what it must reach, and whether it does."""

    name: str
    value: float
    floor: float

    @property
    def passed(self) -> bool:
        """False also for NaN."""
        return self.value >= self.floor


@dataclass(frozen=True)
class ClearComponent:
    """A component that separates the pictures with one attribute value from the rest.

    Attributes
    ----------
    component : int
    truths : tuple of (str, float)
        Labels of the values with AUROC >= 0.95, best first.
    label : str
    """

    component: int
    truths: tuple[tuple[str, float], ...]
    label: str

    @property
    def right(self) -> bool:
        """Whether the label names one of these values."""
        return self.label in [name for name, _ in self.truths]


@dataclass(frozen=True)
class Follower:
    """A component that separates pictures with the artefact from others, in pictures like those of training.

    Attributes
    ----------
    component : int
    label : str
    observed : float
        AUROC, pictures with the artefact against those without, where only one class has it.
    paired : float
        AUROC, the same pictures with the artefact against without: what the artefact itself does.
    """

    component: int
    label: str
    observed: float
    paired: float

    @property
    def answers(self) -> bool:
        """Whether the artefact itself moves it."""
        return self.paired >= FOLLOWS


@dataclass(frozen=True)
class Intervention:
    """The same pictures of other classes, without and with the artefact.

    Attributes
    ----------
    named, blamed : str
        The artefact's description and the class that the exploration named.
    without, with_it : float
        Share of the pictures that the network calls the class.
    n : int
        Pictures.
    followers : tuple of Follower
        Components that seem to answer to the artefact where only the class has it, as in training; strongest first.
    """

    named: str
    blamed: str
    without: float
    with_it: float
    n: int
    followers: tuple[Follower, ...]


@dataclass(frozen=True)
class Findings:
    """All comparisons with the truth."""

    checks: tuple[Check, ...]
    clear: tuple[ClearComponent, ...]
    intervention: Intervention
    mended: Mended | None
    accuracy: float

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)


def check(found: Exploration, seed: int, *, n_threads: int | None) -> Findings:
    """Compare with the truth on pictures that neither training nor the exploration has seen."""
    fresh = generate(N_FRESH, SEEDS["fresh"] + seed)
    answers, pooled = run_network(found.net, fresh.pixels, n_threads=n_threads)
    clear = _clear_components(found, pooled, fresh)
    first = next(s for s in found.suspicions if s.description == label("overlay", artefact.ARTEFACT)).hit
    mark = fresh.is_value("overlay", artefact.ARTEFACT)
    suspect = found.artefact
    effect, plain = _intervene(found, fresh, seed, n_threads=n_threads)
    mended = mend(found, plain, fresh, n_threads=n_threads)
    checks = (
        Check(f"first hit for {first.query!r} (component {first.component}) separates the marked pictures: AUROC",
              auroc(pooled[:, first.component], mark), CLEAR),
        Check(f"right labels among the {len(clear)} components with a clear attribute", _share([c.right for c in clear]), RIGHT),
        Check("components with a clear attribute", float(len(clear)), FEWEST),
        Check(f"the artefact and class that were named ({suspect.description}, {suspect.classes[0][0]}) are the planted ones",
              float((suspect.description, suspect.classes[0][0]) == (label("overlay", artefact.ARTEFACT), artefact.CLASS)), 1.0),
        Check("taking out what answers to it: share by which fewer others are called the class with it",
              float("nan") if mended is None else mended.lowered, LOWERED),
        Check("the same: 1 less the accuracy that the other classes lost", float("nan") if mended is None else 1 - mended.lost, KEPT),
    )
    accuracy = float((answers == fresh.codes("shape"))[~mark].mean())
    return Findings(checks, clear, effect, mended, accuracy)


def _share(values: list[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _clear_components(found: Exploration, pooled: NDArray[np.float32], fresh: PictureSet) -> tuple[ClearComponent, ...]:
    pairs, truth = truth_table(fresh)
    table, best = aurocs(pooled, truth), found.labels[LAYER].best
    names = {pair: name for name, pair in vocabulary().items()}
    result = []
    for k, row in enumerate(table):
        values = [(names[pairs[j]], float(row[j])) for j in np.argsort(-row, kind="stable") if row[j] >= CLEAR]
        if values:
            result.append(ClearComponent(k, tuple(values), best[k]))
    return tuple(result)


def _intervene(found: Exploration, fresh: PictureSet, seed: int, *, n_threads: int | None) -> tuple[Intervention, PictureSet]:
    """Add the artefact that was named to pictures of other classes than the one that was named; also the pictures without it."""
    named, blamed = found.artefact.description, found.artefact.classes[0][0]
    overlay = vocabulary()[named][1]
    chosen = [{**truth, "overlay": "none"} for truth in fresh.truths if truth["shape"] != blamed][:N_PAIRED]
    plain = from_truths(chosen, SEEDS["paired"] + seed)
    before, without = run_network(found.net, plain.pixels, n_threads=n_threads)
    after, with_it = run_network(found.net, with_overlay(plain, overlay).pixels, n_threads=n_threads)
    position = ATTRIBUTES["shape"].index(blamed)
    paired = aurocs(np.concatenate([without, with_it]), np.repeat([False, True], len(plain))[:, None])[:, 0]
    tied = generate(N_CONFOUNDED, SEEDS["confounded"] + seed, change=artefact.plant)
    _, observed = run_network(found.net, tied.pixels, n_threads=n_threads)
    seen = aurocs(observed, tied.is_value("overlay", overlay)[:, None])[:, 0]
    names = found.labels[LAYER].best
    order = [int(k) for k in np.argsort(-seen, kind="stable") if seen[k] >= FOLLOWS]
    followers = tuple(Follower(k, names[k], float(seen[k]), float(paired[k])) for k in order)
    shares = float((before == position).mean()), float((after == position).mean())
    return Intervention(named, blamed, *shares, len(plain), followers), plain
