"""What each ATen operation is in our table: one small function per operation, used by :mod:`semanticlens.nn.export`.

Imports no torch: everything is read off the traced graph that the translator holds.
"""

from __future__ import annotations

from semanticlens.nn.aten import arithmetic, layers, moves
from semanticlens.nn.aten.registry import IDENTITIES, OPERATIONS, SHAPES_ONLY, Parts
from semanticlens.nn.traced import Refused, Traced

__all__ = ["IDENTITIES", "OPERATIONS", "SHAPES_ONLY", "Parts", "Refused", "Traced", "arithmetic", "layers", "moves"]
