"""Networks: the graph and its operations, running and recording, loading, folding, export from torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semanticlens.nn import attrs, edit, export, fold, load, ops
    from semanticlens.nn.fold import fold_batch_norm
    from semanticlens.nn.layers import LayerInfo, Layers
    from semanticlens.nn.network import Network, Node
    from semanticlens.nn.ops import OPS, Attr, Call, Op, register_op
    from semanticlens.nn.preprocess import Preprocess

_MODULES = ("attrs", "edit", "export", "fold", "load", "ops", "zoo")
_NAMES = {
    "Network": "network",
    "Node": "network",
    "LayerInfo": "layers",
    "Layers": "layers",
    "Preprocess": "preprocess",
    "fold_batch_norm": "fold",
    "OPS": "ops",
    "Op": "ops",
    "Attr": "ops",
    "Call": "ops",
    "register_op": "ops",
}

__all__ = [
    "OPS",
    "Attr",
    "Call",
    "LayerInfo",
    "Layers",
    "Network",
    "Node",
    "Op",
    "Preprocess",
    "attrs",
    "edit",
    "export",
    "fold",
    "fold_batch_norm",
    "load",
    "ops",
    "register_op",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "zoo"])
