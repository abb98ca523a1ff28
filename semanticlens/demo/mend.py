"""Taking the artefact out of the demo network: by the components that answer to it, and by its direction; and what that changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from semanticlens import data
from semanticlens.demo.captions import ATTRIBUTES, vocabulary
from semanticlens.demo.explore import LAYER, Exploration
from semanticlens.demo.pictures import PictureSet, with_overlay
from semanticlens.lens.effects import answers
from semanticlens.lens.proof import BeforeAfter
from semanticlens.lens.repair import repair
from semanticlens.lens.results import number, text_table

__all__ = ["Mended", "mend"]

SEPARATES = 0.75                                      # share of the pairs in which a component that answers is larger with the artefact
PASSES = 0.5                                          # log odds of the class that must pass through it, and by two standard errors
WITHOUT, WITH = "without", "with"


@dataclass(frozen=True)
class Mended:
    """The network without the components that answer to the artefact, and without its direction.

    Attributes
    ----------
    components : tuple of (int, float)
        What answers, with the log odds of the class that pass through it, most first.
    taken_out, projected : BeforeAfter
        Answers on fresh pictures, without and with the artefact.
    blamed : str
        The class.
    """

    components: tuple[tuple[int, float], ...]
    taken_out: BeforeAfter
    projected: BeforeAfter
    blamed: str

    def rows(self) -> list[list[object]]:
        """One row for each way: called the class with the artefact, other classes right without it, the class right without it."""
        rows: list[list[object]] = []
        for what, proof, place in (("as it was", self.taken_out, 0), ("components taken out", self.taken_out, 1),
                                   ("direction projected out", self.projected, 1)):
            pulled, others = proof.pulled(WITH, self.blamed), proof.accuracy(WITHOUT, without=[self.blamed])
            rows.append([what, f"{pulled[place]:.1%}", f"{others[place]:.1%}", f"{proof.recall(WITHOUT, self.blamed)[place]:.1%}"])
        return rows

    def text(self) -> str:
        """The table."""
        heads = ["network", f"others with it, called {self.blamed}", "others without it, right", f"{self.blamed} without it, right"]
        return text_table(heads, self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {"components": [{"layer": LAYER, "component": k, "through": number(v)} for k, v in self.components],
                "taken_out": self.taken_out.to_dict(), "projected": self.projected.to_dict(), "lowered": number(self.lowered)}

    @property
    def lowered(self) -> float:
        """By which share fewer pictures of other classes are called the class when the artefact is added, components taken out."""
        return self.taken_out.lowered(WITH, self.blamed)

    @property
    def lost(self) -> float:
        """Accuracy that the other classes lost on pictures without the artefact, components taken out."""
        before, after = self.taken_out.accuracy(WITHOUT, without=[self.blamed])
        return before - after


def mend(found: Exploration, plain: PictureSet, fresh: PictureSet, *, n_threads: int | None) -> Mended | None:
    """Find what answers on pairs made of ``plain``, take it out, prove it on ``fresh``; None where nothing answers."""
    named, blamed = found.artefact.description, found.artefact.classes[0][0]
    overlay = vocabulary()[named][1]
    pair = (data.ImageArray(plain.pixels), data.ImageArray(with_overlay(plain, overlay).pixels))
    everything = [(LAYER, k) for k in np.flatnonzero(~found.db[LAYER].dead).tolist()]
    told = answers(found.net, *pair, everything, classes=[ATTRIBUTES["shape"].index(blamed)], n_threads=n_threads)
    through, error = told.through[:, 0], told.through_error[:, 0]
    chosen = np.flatnonzero((told.separation >= SEPARATES) & (through >= PASSES) & (through > 2 * error))
    if not len(chosen):
        return None
    order = chosen[np.argsort(-through[chosen], kind="stable")]
    codes = fresh.codes("shape")
    groups = {name: (data.ImageArray(with_overlay(fresh, value).pixels), codes) for name, value in ((WITHOUT, "none"), (WITH, overlay))}
    out = repair(found.net, [everything[c] for c in order], n_threads=n_threads).before_after(groups, n_threads=n_threads)
    projected = repair(found.net, everything, how="project", pairs=pair, n_threads=n_threads).before_after(groups, n_threads=n_threads)
    return Mended(tuple((everything[c][1], float(through[c])) for c in order), out, projected, blamed)
