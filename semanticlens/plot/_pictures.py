"""Pictures of a page: each embedded once as a CSS rule, however often it is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from semanticlens.plot.html import Html, escape, image_uri, number

__all__ = ["Pictures"]

SIZES = ((800, 96), (4000, 72), (math.inf, 56))  # up to so many pictures, of this many pixels


class Pictures:
    """Pictures of a data set by their places in it; without a data set, their numbers are shown."""

    def __init__(self, images: Any) -> None:
        self.images = images
        self.places: dict[int, int] = {}

    def cell(self, sample: int, words: str = "") -> Html:
        """One picture, as large as its box; empty without a data set."""
        if self.images is None:
            return Html("")
        place = self.places.setdefault(sample, len(self.places))
        return Html(f'<i class="t p{place}" title="{escape(words or f"no. {sample}")}"></i>')

    def cells(self, examples: Iterable[tuple[int, float]], kind: str, what: str) -> Html:
        """A row of pictures with their values."""
        items = list(examples)
        if not items:
            return Html('<p class="muted small">no sample is close to it</p>')
        names = ", ".join(str(sample) for sample, _ in items)
        if self.images is None:
            return Html(f'<p class="muted small">samples {escape(names)}</p>')
        cells = "".join(self.cell(sample, f"no. {sample}, {number(value, 2)}") for sample, value in items)
        return Html(f'<div class="{kind}" role="img" aria-label="{escape(what)}: pictures {names}">{cells}</div>')

    def css(self) -> str:
        """The rules; pictures are read now."""
        if self.images is None:
            return ""
        size = next(pixels for limit, pixels in SIZES if len(self.places) <= limit)
        return "\n".join(
            f".p{place}{{background-image:url({image_uri(self.images[sample], size=size, quality=66)})}}"
            for sample, place in self.places.items()
        )
