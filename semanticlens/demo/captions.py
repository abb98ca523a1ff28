"""What the generated pictures can show, and how it is put into words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

_T = TypeVar("_T")

# attribute -> value -> wordings; the first wording of a value is its plain name, used as label
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "circle": ("circle", "disc", "disk", "round shape", "ball"),
        "square": ("square", "box", "block"),
        "triangle": ("triangle", "wedge", "triangular shape"),
        "star": ("star", "five pointed star", "starry shape"),
        "cross": ("cross", "plus", "plus sign"),
        "heart": ("heart", "love heart"),
        "ring": ("ring", "hoop", "donut"),
        "moon": ("moon", "crescent", "crescent moon", "half moon"),
    },
    "colour": {
        "red": ("red", "crimson", "scarlet"),
        "orange": ("orange", "tangerine"),
        "yellow": ("yellow", "golden", "lemon"),
        "green": ("green", "emerald"),
        "blue": ("blue", "navy", "cobalt"),
        "purple": ("purple", "violet"),
        "pink": ("pink", "rose"),
        "brown": ("brown", "chocolate"),
    },
    "texture": {
        "plain": ("plain", "solid", "uniform", "flat", "with a plain surface"),
        "striped": ("striped", "banded", "stripy", "with stripes", "with a striped pattern"),
        "dotted": ("dotted", "spotted", "polka dot", "with dots", "with spots", "with a dotted pattern"),
        "checkered": ("checkered", "chequered", "checked", "with a checkerboard pattern", "with a chessboard pattern", "with checks"),
    },
    "size": {
        "small": ("small", "little", "tiny"),
        "large": ("large", "big", "huge"),
    },
    "place": {
        "left": ("on the left", "at the left side", "left of the middle"),
        "right": ("on the right", "at the right side", "right of the middle"),
        "top": ("at the top", "in the upper half", "above the middle"),
        "bottom": ("at the bottom", "in the lower half", "below the middle"),
        "centre": ("in the centre", "in the center", "central", "exactly in the middle"),
    },
    "background": {
        "white": ("on a white background", "on white", "white background", "on white paper"),
        "black": ("on a black background", "on black", "black background", "in the dark"),
        "grey": ("on a grey background", "on gray", "grey background", "on concrete"),
        "sky": ("in the sky", "sky background", "in front of the sky"),
        "sand": ("on sand", "sandy background", "on a beach", "on sandy ground"),
        "grass": ("on grass", "grassy background", "on a lawn", "on a meadow"),
    },
    "overlay": {
        "none": (),
        "corner mark": ("corner mark", "tag in a corner", "corner tag", "label in the corner", "mark in a corner", "tag with a dark bar",
                        "small white tag with a dark bar in a corner"),
        "frame": ("frame", "border", "picture frame", "border all around"),
        "ruler": ("ruler", "ruler at the edge", "strip of tick marks", "measuring scale", "ruler with ticks"),
    },
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {name: tuple(values) for name, values in WORDINGS.items()}

_OPENINGS = ("", "a", "one", "picture of a", "image of a", "a photo of a", "a drawing of a")
_THINGS = ("shape", "thing", "object")
_ARTICLE = re.compile(r"\ba (?=[aeio])")
_OVERLAID = ("with a {}", "and a {}", "showing a {}", "that has a {}")


class Chooser(Protocol):
    """What captions need of a random stream."""

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        ...

    def choice(self, items: Sequence[_T]) -> _T:
        """One of ``items``."""
        ...


def label(attribute: str, value: str) -> str:
    """The plain name of an attribute's value, e.g. ``"on the left"``."""
    return WORDINGS[attribute][value][0]


def vocabulary() -> dict[str, tuple[str, str]]:
    """Every label with the (attribute, value) it stands for; "no overlay" has no name."""
    return {names[0]: (attribute, value) for attribute, values in WORDINGS.items() for value, names in values.items() if names}


def mentioned(truth: Mapping[str, str], draws: Chooser, alone: float = 0.35) -> tuple[str, ...]:
    """A random non-empty choice of the attributes that can be named.

    With probability ``alone`` a single one; otherwise each with probability one half.
    """
    nameable = [name for name, value in truth.items() if WORDINGS[name][value]]
    if draws.uniform() < alone:
        return (draws.choice(nameable),)
    return tuple(name for name in nameable if draws.uniform() < 0.5) or (draws.choice(nameable),)


def caption(truth: Mapping[str, str], draws: Chooser, names: Sequence[str] | None = None) -> str:
    """One English line that is true of the picture.

    Parameters
    ----------
    truth : mapping
        Attribute name to value.
    draws : Chooser
        Chooses the wording, and which attributes to mention unless ``names`` says.
    names : sequence of str, optional
        The attributes to mention.
    """
    names = mentioned(truth, draws) if names is None else names
    words = {name: draws.choice(WORDINGS[name][truth[name]]) for name in names}
    if not words.keys() - {"overlay"} or (len(words) == 1 and draws.uniform() < 0.5):
        return " ".join(words.values())               # a bare description, as in a search box
    texture = words.get("texture", "")
    after = texture.startswith("with ")
    parts = [draws.choice(_OPENINGS), words.get("size", ""), "" if after else texture, words.get("colour", ""),
             words["shape"] if "shape" in words else draws.choice(_THINGS), texture if after else "",
             words.get("place", ""), words.get("background", "")]
    if "overlay" in words:
        parts.append(draws.choice(_OVERLAID).format(words["overlay"]))
    return _ARTICLE.sub("an ", " ".join(part for part in parts if part))
