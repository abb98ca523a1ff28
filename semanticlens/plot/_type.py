"""Setting text with Pillow: any size, any script that some font here has, wrapped or cut to a width."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from typing import Any

from PIL import ImageDraw, ImageFont

__all__ = ["Pen"]

# Asked for by name, in this order, where Pillow's built-in font (mostly ASCII) lacks a character.  None of them has to exist.
FALLBACKS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf", "Arial.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "msyh.ttc", "PingFang.ttc",
    "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoEmoji-Regular.ttf", "Symbola.ttf",
)  # fmt: skip
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")


@functools.lru_cache(maxsize=64)
def _load(name: str | None, size: int) -> Any:
    """A font at a pixel size; ``None`` is Pillow's own.  None is returned where the font does not exist."""
    if name is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.lru_cache(maxsize=4096)
def _has(name: str | None, character: str) -> bool:
    """Whether a font draws ``character`` as something else than its sign for a missing one."""
    if character.isspace() or unicodedata.combining(character):
        return True
    font = _load(name, 20)
    if font is None:
        return False
    return _drawn(font, character) not in _missing(name)


def _drawn(font: Any, character: str) -> tuple[tuple[int, int], bytes]:
    glyph = font.getmask(character)
    return glyph.size, bytes(glyph)


@functools.lru_cache(maxsize=32)
def _missing(name: str | None) -> frozenset[tuple[tuple[int, int], bytes]]:
    """How a font draws characters that no font has."""
    font = _load(name, 20)
    return frozenset(_drawn(font, c) for c in ("\U0010fffd", "\uffff"))


def clean(text: object) -> str:
    """One line of drawable text: composed, white space collapsed, control and direction characters removed."""
    return unicodedata.normalize("NFC", " ".join(_INVISIBLE.sub(" ", str(text)).split()))


class Pen:
    """Draws text and boxes in units of which each is ``scale`` pixels.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB.
    scale : int
    font : path, optional
        A TrueType or OpenType font to use before Pillow's own.

    Raises
    ------
    FileNotFoundError
        ``font`` cannot be opened.
    """

    def __init__(self, image: Any, scale: int, font: str | os.PathLike[str] | None = None) -> None:
        self.image, self.scale, self.draw = image, scale, ImageDraw.Draw(image)
        chosen = [] if font is None else [os.fspath(font)]
        if chosen and _load(chosen[0], 20) is None:
            raise FileNotFoundError(f"font={font!r} is not a font that can be opened: pass the path of a .ttf or .otf file")
        self._fonts: list[str | None] = [*chosen, None, *FALLBACKS]

    def _runs(self, text: str) -> list[tuple[str | None, str]]:
        """Text cut into stretches of one font; one stretch wherever a single font has all of it."""
        for name in self._fonts:
            if all(_has(name, c) for c in text):
                return [(name, text)]
        runs: list[tuple[str | None, str]] = []
        for c in text:
            able = [runs[-1][0]] if runs and _has(runs[-1][0], c) else [f for f in self._fonts if _has(f, c)]
            if not able:  # no font has it: its plain base letter, or the sign for a missing one
                base = unicodedata.normalize("NFKD", c)[0]
                c = base if _has(None, base) else c
            name = able[0] if able else None
            if runs and runs[-1][0] == name:
                runs[-1] = (name, runs[-1][1] + c)
            else:
                runs.append((name, c))
        return runs

    def width(self, text: str, size: float) -> float:
        """Width of one line."""
        pixels = round(size * self.scale)
        return float(sum(_load(name, pixels).getlength(part) for name, part in self._runs(text))) / self.scale

    def text(self, x: float, y: float, text: str, size: float, fill: str, align: str = "left") -> None:
        """Draw one line with its base line at ``y``; ``align`` says which point of it is at ``x``."""
        if align != "left":
            x -= self.width(text, size) * (0.5 if align == "centre" else 1.0)
        at = x * self.scale
        for name, part in self._runs(text):
            font = _load(name, round(size * self.scale))
            self.draw.text((at, y * self.scale), part, fill=fill, font=font, anchor="ls")
            at += font.getlength(part)

    def fit(self, text: str, size: float, room: float) -> str:
        """``text``, cut with an ellipsis so that it is at most ``room`` wide."""
        if self.width(text, size) <= room:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.width(text[:middle].rstrip() + "…", size) <= room else (low, middle - 1)
        return text[:low].rstrip() + "…"

    def wrap(self, text: str, size: float, room: float, lines: int) -> list[str]:
        """``text`` in at most ``lines`` lines, broken between words where there are any, the last one cut if it must be."""
        out: list[str] = []
        rest = text
        while rest and len(out) < lines - 1:
            if self.width(rest, size) <= room:
                break
            cut = max(1, len(self.fit(rest, size, room)) - 1)
            space = rest.rfind(" ", 0, cut + 1)
            cut = space if space > 0 else cut
            out.append(rest[:cut].rstrip())
            rest = rest[cut:].lstrip()
        return [*out, self.fit(rest, size, room)] if rest else out

    def box(self, x: float, y: float, width: float, height: float, fill: str, radius: float = 0) -> None:
        """A filled rectangle."""
        s = self.scale
        left, top = round(x * s), round(y * s)
        corners = (left, top, max(left, round((x + width) * s) - 1), max(top, round((y + height) * s) - 1))
        self.draw.rounded_rectangle(corners, radius=radius * s, fill=fill)
