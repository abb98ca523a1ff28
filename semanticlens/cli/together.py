"""``semanticlens compare`` and ``semanticlens track``: what databases share, and what becomes of concepts from one to the next."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticlens.cli import commands as common

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB

__all__ = ["compare", "track"]

RANDOM = 2000  # random components per side, where a threshold is to come from them


def _databases(options: argparse.Namespace, paths: Sequence[str]) -> tuple[list[ConceptDB], Any]:
    """The databases, and a vocabulary to label them with."""
    words = None if options.vocabulary is None else common.words_at(Path(options.vocabulary))
    texts = isinstance(words, list)
    opened = [argparse.Namespace(db=path, encoder=options.encoder) for path in paths]
    return [common.open_database(one, texts=texts) for one in opened], words


def _labels(options: argparse.Namespace, databases: Sequence[ConceptDB], words: Any) -> Any:
    if words is None:
        return None
    return tuple(db.label(words, top=1, threshold=options.label_threshold) for db in databases)


def _shared(options: argparse.Namespace) -> dict[str, Any]:
    if options.threshold is not None and options.chance is not None:
        raise ValueError("--threshold and --chance are given: leave out one of them")
    random = options.random if options.random is not None else RANDOM if options.chance is not None else 0
    return {
        "threshold": options.threshold,
        "names": options.names,
        "min_examples": options.min_examples,
        "centre": options.centre,
        "random": random,
        "resamples": options.resamples,
        "seed": options.seed,
    }


def compare(options: argparse.Namespace) -> None:
    """Shared and unique concepts of two databases."""
    from semanticlens.lens.compare import compare as run

    page = None if options.out is None else common.target_at(options.out, (".html", ".htm"), "--out")
    shared = _shared(options)
    if page is not None and options.threshold is None and options.chance is None:
        raise ValueError("--out needs --threshold or --chance: without one nothing is shared or unique")
    (a, b), words = _databases(options, (options.a, options.b))
    found = run(a, b, options.layers_a, options.layers_b, labels=_labels(options, (a, b), words), **shared)
    if options.chance is not None:
        found = found.at(found.threshold_at(options.chance))
    if page is not None:
        found.report(page)
        common.note(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
    common.show(found.to_dict(), repr(found), options)


def track(options: argparse.Namespace) -> None:
    """Databases in a row."""
    from semanticlens.lens.track import track as run
    from semanticlens.plot._drawing import FORMATS

    picture = None if options.plot is None else common.target_at(options.plot, tuple(FORMATS), "--plot")
    shared, layers = _shared(options), options.layers
    if picture is not None and options.threshold is None and options.chance is None:
        raise ValueError("--plot needs --threshold or --chance: without one no concept continues or dies")
    databases, words = _databases(options, options.databases)
    if layers is not None and len(layers) == 1:
        layers = layers[0]
    found = run(
        databases,
        layers=layers,
        labels=_labels(options, databases, words),
        progress=common.show_progress(options),
        **shared,
    )
    if options.chance is not None:
        found = found.at(found.threshold_at(options.chance))
    if picture is not None:
        found.plot().save(picture)
    common.show(found.to_dict(), repr(found), options)
