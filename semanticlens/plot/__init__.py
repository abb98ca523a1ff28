"""What a person sees: concept cards, report pages, the concept atlas, heat maps and attribution graphs, and the pieces of HTML that
notebooks show.

``semanticlens.plot.card.card`` and ``semanticlens.plot.report.report`` are what ``db.card`` and ``db.report`` call.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semanticlens.plot import alignment, alignment_pairs, atlas, attribution, card, html, report

__all__ = ["alignment", "alignment_pairs", "atlas", "attribution", "card", "html", "report"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
