"""What a network costs: its nodes with shapes, parameters and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semanticlens.nn.layers import shape_text

if TYPE_CHECKING:
    from semanticlens.nn.graph import Checked
    from semanticlens.nn.network import Network

__all__ = ["Row", "Summary", "summarise"]


@dataclass(frozen=True)
class Row:
    """A node: shape without the batch, parameter values, operations for one sample (None where a size is free)."""

    name: str
    op: str
    shape: tuple[int | None, ...]
    n_params: int
    flops: int | None


@dataclass(frozen=True)
class Summary:
    """The rows in execution order; prints as a table.

    Attributes
    ----------
    title : str
    rows : tuple of Row
    n_params : int
        Parameter values of the network; shared ones count once.
    flops : int or None
        Operations for one sample, a multiply-add counted as two.
    """

    title: str
    rows: tuple[Row, ...]
    n_params: int
    flops: int | None

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.name,
                row.op,
                shape_text(row.shape),
                f"{row.n_params:,}" if row.n_params else "",
                "?" if row.flops is None else f"{row.flops:,}",
            )
            for row in self.rows
        ]

    def __repr__(self) -> str:
        total = ("total", "", "", f"{self.n_params:,}", "?" if self.flops is None else f"{self.flops:,}")
        rows = [("name", "op", "shape", "parameters", "flops"), *self._cells(), total]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(
                cell.rjust(w) if i > 2 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([self.title, lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        rows = [[html.code(cells[0]), *cells[1:]] for cells in self._cells()]
        total = ["total", "", "", f"{self.n_params:,}", "?" if self.flops is None else f"{self.flops:,}"]
        table = html.table(("name", "op", "shape", "parameters", "flops"), [*rows, total], style=False)
        return str(html.fragment(html.title(self.title), table))


def summarise(net: Network, graph: Sequence[Checked], input_shape: tuple[int | None, ...]) -> Summary:
    """Count each node; see :meth:`Network.summary`."""
    shapes: dict[str, tuple[int | None, ...]] = {"input": input_shape, **{item.node.name: item.shape for item in graph}}
    rows = []
    for item in graph:
        params = {role: net.params[key].shape for role, key in item.node.params.items()}
        inputs = [shapes[name] for name in item.node.inputs]
        flops = None
        if not any(dim is None for shape in (item.shape, *inputs) for dim in shape):
            whole = [tuple(dim or 0 for dim in shape) for shape in (item.shape, *inputs)]
            flops = item.op.flops(item.attrs, params, whole[1:], whole[0]) if item.op.flops else math.prod(whole[0])
        size = sum(math.prod(shape) for shape in params.values())
        rows.append(Row(item.node.name, item.op.name, item.shape, size, flops))
    known = [row.flops for row in rows if row.flops is not None]
    return Summary(repr(net), tuple(rows), net.n_params, sum(known) if len(known) == len(rows) else None)
