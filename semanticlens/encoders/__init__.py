"""Encoders: what turns pictures and texts into vectors of one space.  Nothing is ever downloaded."""

from __future__ import annotations

import importlib
from typing import cast

from semanticlens.encoders.adapter import Callable
from semanticlens.encoders.arrays import Arrays
from semanticlens.encoders.clip import CLIP
from semanticlens.encoders.protocol import Encoder
from semanticlens.encoders.sentences import Sentences

__all__ = ["CLIP", "Arrays", "Callable", "Encoder", "Sentences", "load"]

BUILT_IN = ("demo",)


def load(name: str) -> Encoder:
    """A built-in encoder by name.

    Parameters
    ----------
    name : {"demo"}
        "demo": the small image-text encoder that comes with the package (:mod:`semanticlens.encoders.demo`).

    Raises
    ------
    ValueError
        For any other name; models are not fetched from anywhere.
    """
    if name == "demo":
        return cast(Encoder, importlib.import_module("semanticlens.encoders.demo").load())
    raise ValueError(
        f"no built-in encoder is called {name!r}; there is {', '.join(repr(known) for known in BUILT_IN)}. Nothing is downloaded: "
        "for CLIP and the like pass encoders.Arrays(images=..., texts=...) with precomputed vectors, or encoders.Callable(...)"
    )
