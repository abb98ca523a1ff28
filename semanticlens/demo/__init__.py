"""The whole way in one command, on a network and pictures whose truth is known: ``semanticlens demo``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semanticlens.demo.result import DemoResult

__all__ = ["run"]


def run(out: str | os.PathLike[str] = "semanticlens-demo.html", *, n_pictures: int = 1200, seed: int = 0, n_threads: int | None = None,
        progress: bool = True, json: bool = False) -> DemoResult:
    """Look into the shipped network, print what is found, write a report, and compare it all with the truth.

    Parameters
    ----------
    out : path-like
        The report; its folder must exist.
    n_pictures : int
        Generated pictures to explore the network with; at least 400.
    seed : int
        Of the pictures, from 0; none were used in training, whatever the seed.
    n_threads : int, optional
    progress : bool
        Show bars on the error stream.
    json : bool
        Print one JSON object instead of text.

    Returns
    -------
    DemoResult
        ``exit_code`` is 0 if the demo's own checks hold, else 1.

    Raises
    ------
    ValueError
        If ``n_pictures`` is below 400 or ``seed`` negative.
    FileNotFoundError
        If the report's folder does not exist.
    """
    from semanticlens.demo.result import run_demo

    return run_demo(out, n_pictures=n_pictures, seed=seed, n_threads=n_threads, progress=progress, json=json)
