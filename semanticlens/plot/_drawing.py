"""A finished picture: saved, shown in notebooks, put on axes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticlens.io import atomic_write
from semanticlens.plot.html import number

__all__ = ["FORMATS", "Drawing", "Shown", "check_axes", "plain"]

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"optimize": True},
    "JPEG": {"quality": 92, "subsampling": 0},
    "WEBP": {"quality": 92},
}


def plain(value: float, digits: int = 3) -> str:
    """A number in the characters that Pillow's own font has; few digits for the very small and the very large."""
    size = abs(value)
    digits = max(0, digits - 1) if size >= 10 else digits if size >= 0.1 or size == 0 else digits + 1
    return number(value, digits).replace("–", "n/a").replace("\N{MINUS SIGN}", "-").replace("\u202f", " ")


def check_axes(ax: Any) -> Any:
    """``ax``, if it is something that pictures can be drawn on.

    Raises
    ------
    TypeError
        If it is not.
    """
    if not all(hasattr(ax, name) for name in ("imshow", "set_title", "set_axis_off", "figure")):
        raise TypeError(
            f"ax must be axes of matplotlib, such as matplotlib.figure.Figure().subplots(), not {type(ax).__name__}; "
            "without ax the picture is drawn without matplotlib"
        )
    return ax


class Shown:
    """What everything with an ``image`` and a ``scale`` can do."""

    __slots__ = ()
    image: Image.Image
    scale: int

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture, atomically; the suffix (.png, .jpg, .webp) says how.

        Raises
        ------
        ValueError
            Another suffix.
        """
        target = Path(path)
        kind = FORMATS.get(target.suffix.lower())
        if kind is None:
            raise ValueError(f"cannot tell a picture format from {target.name!r}: end the name in {', '.join(FORMATS)}")
        with atomic_write(target) as file:
            self.image.save(file, kind, dpi=(72 * self.scale, 72 * self.scale), **OPTIONS[kind])
        return target

    def on(self, ax: Any) -> Any:
        """Draw the picture on axes of matplotlib, and return them; no state of pyplot is touched."""
        check_axes(ax).imshow(np.asarray(self.image), interpolation="antialiased")
        ax.set_axis_off()
        return ax

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The picture with the width it should be shown in, so that a notebook keeps it sharp."""
        data = {"image/png": self._repr_png_(), "text/plain": repr(self)}
        return data, {"image/png": {"width": self.image.width // self.scale}}


@dataclass(frozen=True, slots=True)
class Drawing(Shown):
    """A finished picture.

    Attributes
    ----------
    image : PIL.Image.Image
        RGB, at ``scale`` times the size it is meant to be seen in.
    scale : int
    about : str
        What it shows, in a few words.
    """

    image: Image.Image
    scale: int = 2
    about: str = "picture"

    def __repr__(self) -> str:
        return f"Drawing({self.about}, {self.image.width} x {self.image.height} pixels)"
