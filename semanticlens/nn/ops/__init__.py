"""The table of operations, one file per family; importing this fills it."""

from __future__ import annotations

from semanticlens.nn.ops import layout, linear, norm, pointwise, pool, tokens  # isort: skip
from semanticlens.nn.ops import back_layout, back_linear, back_pointwise, back_tokens  # isort: skip
from semanticlens.nn.ops.norm import affine
from semanticlens.nn.ops.table import (
    ACTIVATIONS,
    OPS,
    Attr,
    Call,
    Forward,
    Op,
    attributes,
    lookup,
    output_shape,
    register_op,
)
from semanticlens.nn.shapes import Shape

__all__ = [
    "ACTIVATIONS",
    "OPS",
    "Attr",
    "Call",
    "Forward",
    "Op",
    "Shape",
    "affine",
    "back_layout",
    "back_linear",
    "back_pointwise",
    "back_tokens",
    "attributes",
    "layout",
    "linear",
    "lookup",
    "norm",
    "output_shape",
    "pointwise",
    "pool",
    "register_op",
    "tokens",
]
