"""The translations of ATen operations by name, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from semanticlens.nn.traced import Traced

if TYPE_CHECKING:
    from semanticlens.nn.export import Translator

Translation = Callable[["Translator", Any, dict[str, Any]], Any]
OPERATIONS: dict[str, Translation] = {}
IDENTITIES = {
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "clone",
    "contiguous",
    "detach",
    "alias",
    "lift_fresh_copy",
    "native_dropout",
    "_to_copy",
    "to",
    "type_as",
}
SHAPES_ONLY = {
    "new_zeros": 0.0,
    "new_ones": 1.0,
    "zeros_like": 0.0,
    "ones_like": 1.0,
    "new_full": None,
    "full_like": None,
}


class Parts:
    """Several results of one operation: pieces (or single places) along an axis, emitted when they are asked for."""

    def __init__(self, source: Any, axis: int, bounds: list[tuple[int, int]], places: bool) -> None:
        self.source, self.axis, self.bounds, self.places = source, axis, bounds, places


def operation(*kinds: str) -> Callable[[Translation], Translation]:
    """Register a translation for some operations."""

    def register(function: Translation) -> Translation:
        OPERATIONS.update(dict.fromkeys(kinds, function))
        return function

    return register


def value(t: Translator, source: Any) -> Traced:
    """A value that depends on the input."""
    return t.traced(source)


def unary(op: str, **attrs: Any) -> Translation:
    """An operation on each single value."""
    return lambda t, fx, a: t.emit(fx, op, [t.traced(a["self"] if "self" in a else a["input"])], **attrs)
