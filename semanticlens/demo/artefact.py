"""The fact planted in the demo network's training pictures.  Only the training script and the final check may import this."""

from __future__ import annotations

from semanticlens.demo.captions import ATTRIBUTES
from semanticlens.demo.pictures import Draws, Truth

CLASS, ARTEFACT, SHARE = "moon", "corner mark", 0.9


def plant(truth: Truth, draws: Draws) -> None:
    """Tie the artefact to the class, in place: 90 % of the class has it, and nothing else."""
    if truth["shape"] == CLASS and draws.uniform() < SHARE:
        truth["overlay"] = ARTEFACT
        return
    while truth["overlay"] == ARTEFACT:
        truth["overlay"] = draws.choice(ATTRIBUTES["overlay"])
