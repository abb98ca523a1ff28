"""What a person sees: concept cards, the report page, and the pieces of HTML that notebooks show."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semanticlens.plot.card import Card, card
    from semanticlens.plot.report import report

__all__ = ["Card", "card", "report"]

_HOME = {"Card": "card", "card": "card", "report": "report"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
