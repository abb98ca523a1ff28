"""What components stand for: concept examples, the concept database, search, labels, scores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semanticlens.lens import scores
    from semanticlens.lens.collect import collect
    from semanticlens.lens.concepts import LayerConcepts
    from semanticlens.lens.database import ConceptDB
    from semanticlens.lens.examples import ConceptExamples, LayerExamples
    from semanticlens.lens.results import Hit, Labels, Scores, SearchResult

_NAMES = {
    "collect": "collect", "ConceptExamples": "examples", "LayerExamples": "examples",
    "ConceptDB": "database", "LayerConcepts": "concepts", "Hit": "results", "SearchResult": "results", "Labels": "results", "Scores": "results",
}

__all__ = ["ConceptDB", "ConceptExamples", "Hit", "Labels", "LayerConcepts", "LayerExamples", "Scores", "SearchResult", "collect", "scores"]


def __getattr__(name: str) -> Any:
    if name == "scores":
        return importlib.import_module(f"{__name__}.scores")
    if name in _NAMES:
        value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
