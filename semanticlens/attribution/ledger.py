"""Where relevance went: what every node took in, passed on and kept, in sums of doubles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Entry", "Ledger"]

Array = NDArray[Any]
COLUMNS = ("arrived", "passed", "bias", "stabiliser", "degenerate", "stopped", "masked", "other")


@dataclass
class Entry:
    """One node.

    Attributes
    ----------
    node, op, rule : str
    arrived : float
        Relevance of its result.
    passed : float
        Relevance of its inputs.
    bias : float
        Kept by the bias: its share of the denominators.
    stabiliser : float
        Kept by what the stabiliser added to the denominators (negative where that made relevance).
    degenerate : float
        Lost at results whose denominator was exactly 0, or which the rule drops.
    stopped : float
        Ended here by the rule, or at a constant of the network.
    masked : float
        Removed by conditions: by the mask of this node, or because the paths it came along do not count.
    degenerate_rows : int
        How many results with relevance had such a denominator.
    magnitude : float
        Sum of ``|R|`` over the result.
    """

    node: str
    op: str
    rule: str
    arrived: float = 0.0
    passed: float = 0.0
    bias: float = 0.0
    stabiliser: float = 0.0
    degenerate: float = 0.0
    stopped: float = 0.0
    masked: float = 0.0
    degenerate_rows: int = 0
    magnitude: float = 0.0

    @property
    def other(self) -> float:
        """What none of the others explains: rounding, and what a rule that does not conserve made or took."""
        return self.arrived - self.passed - self.bias - self.stabiliser - self.degenerate - self.stopped - self.masked

    def share(self, r: Array, s: Array, z: Array, bias: Array | None, factor: float = 1.0) -> None:
        """Book a quotient ``s = R / st(z)`` whose denominator holds ``bias``; R may have several rows for each of z.

        ``R = s (z - bias) + s bias + s (st(z) - z)``: the first passes, the second is the bias's, the third the stabiliser's.
        """
        rows = s.reshape(len(z), -1, *z.shape[1:])
        given = r.reshape(rows.shape)
        lost = (rows == 0) & (given != 0)
        kept = np.where(lost, 0.0, given).astype(np.float64)
        weighted = rows.astype(np.float64) * z[:, None]
        self.degenerate_rows += int(lost.sum())
        self.degenerate += factor * float(given[lost].sum(dtype=np.float64))
        self.stabiliser += factor * float((kept - weighted).sum())
        if bias is not None:
            self.bias += factor * float((rows * bias.astype(np.float64)).sum())


SUMS = tuple(f.name for f in fields(Entry) if f.name not in ("node", "op", "rule"))


@dataclass
class Ledger:
    """What happened to the relevance of every node, and the whole.

    Attributes
    ----------
    entries : list of Entry
        From the output back to the input.
    started : float
        Sum of the relevance that was put in.
    arrived : float
        Sum of what the network's input got.
    """

    entries: list[Entry] = field(default_factory=list)
    started: float = 0.0
    arrived: float = 0.0
    magnitude: float = 0.0

    def total(self, column: str) -> float:
        """Sum of a column over all nodes."""
        return float(sum(getattr(entry, column) for entry in self.entries))

    @property
    def balance(self) -> float:
        """``started - arrived - everything kept``: 0 up to rounding where nothing is forgotten."""
        return self.started - self.arrived - sum(self.total(column) for column in COLUMNS[2:])

    @property
    def largest(self) -> float:
        """The largest sum of ``|R|`` of a node: what errors are small against."""
        return max((entry.magnitude for entry in self.entries), default=0.0)

    def merged(self) -> Ledger:
        """One entry per node, summed over walks."""
        result: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.node not in result:
                result[entry.node] = replace(entry)
                continue
            into = result[entry.node]
            for name in SUMS:
                setattr(into, name, getattr(into, name) + getattr(entry, name))
        return replace(self, entries=list(result.values()))

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per node, for a table."""
        return [
            {
                "node": e.node,
                "op": e.op,
                "rule": e.rule,
                **{column: getattr(e, column) for column in COLUMNS},
                "degenerate_rows": e.degenerate_rows,
                "magnitude": e.magnitude,
            }
            for e in self.entries
        ]

    def __str__(self) -> str:
        columns = [c for c in COLUMNS if c != "masked" or any(entry.masked for entry in self.entries)]
        head = ["node", "rule", *columns, "rows"]
        lines = [
            head,
            *(
                [e.node, e.rule, *(_number(getattr(e, column)) for column in columns), str(e.degenerate_rows)]
                for e in self.entries
            ),
        ]
        lines.append(
            [
                "total",
                "",
                _number(self.started),
                _number(self.arrived),
                *(_number(self.total(c)) for c in columns[2:]),
                "",
            ]
        )
        return _table(lines)

    def _repr_html_(self) -> str:
        from semanticlens.plot import _attribution_html

        return str(_attribution_html.ledger(self))


def _number(value: float) -> str:
    return f"{value:.4g}" if value else "0"


def _table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
