"""See, search, label and audit what a trained network has learned: on a CPU, without a deep-learning framework.

The names below are what users meet; each is imported when it is first touched, so that ``import semanticlens`` costs next to nothing.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from semanticlens._version import __version__

if TYPE_CHECKING:
    from semanticlens import alignment, attribution, data, encoders, io, lens, nn, plot
    from semanticlens._errors import (
        DataError,
        LayerNotFoundError,
        MemoryLimitError,
        MismatchError,
        MissingExtraError,
        ModelFileError,
        NumericalError,
        SemanticLensError,
        UnsupportedOperationError,
    )
    from semanticlens._kernels import build_info, get_num_threads, num_threads, set_num_threads
    from semanticlens.attribution import rules
    from semanticlens.attribution.attribute import attribute
    from semanticlens.attribution.composites import Composite
    from semanticlens.lens.collect import collect
    from semanticlens.lens.database import ConceptDB
    from semanticlens.lens.examples import ConceptExamples
    from semanticlens.nn import edit
    from semanticlens.nn.load import load
    from semanticlens.nn.network import Network

_ELSEWHERE = {"edit": "nn.edit", "rules": "attribution.rules"}
_MODULES = ("alignment", "attribution", "data", "edit", "encoders", "io", "lens", "nn", "plot", "rules")
_NAMES = {
    "build_info": "_kernels", "get_num_threads": "_kernels", "num_threads": "_kernels", "set_num_threads": "_kernels",
    "attribute": "attribution.attribute", "Composite": "attribution.composites",
    "load": "nn.load", "Network": "nn.network",
    "collect": "lens.collect", "ConceptExamples": "lens.examples", "ConceptDB": "lens.database",
    "SemanticLensError": "_errors", "ModelFileError": "_errors", "UnsupportedOperationError": "_errors", "DataError": "_errors",
    "MismatchError": "_errors", "LayerNotFoundError": "_errors", "MemoryLimitError": "_errors", "MissingExtraError": "_errors",
    "NumericalError": "_errors",
}

__all__ = [
    "Composite",
    "ConceptDB",
    "ConceptExamples",
    "DataError",
    "LayerNotFoundError",
    "MemoryLimitError",
    "MismatchError",
    "MissingExtraError",
    "ModelFileError",
    "Network",
    "NumericalError",
    "SemanticLensError",
    "UnsupportedOperationError",
    "__version__",
    "alignment",
    "attribute",
    "attribution",
    "build_info",
    "collect",
    "data",
    "edit",
    "encoders",
    "get_num_threads",
    "io",
    "lens",
    "load",
    "nn",
    "num_threads",
    "plot",
    "rules",
    "set_num_threads",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, name)}")
    if name in _NAMES:
        value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
