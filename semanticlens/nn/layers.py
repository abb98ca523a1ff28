"""The layer table of a network: what a user reads before choosing what to record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from semanticlens._errors import LayerNotFoundError

__all__ = ["LayerInfo", "Layers", "shape_text"]


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape for people: (3, 224, 224), with ? for any size."""
    return f"({', '.join('?' if dim is None else str(dim) for dim in shape)}{',' if len(shape) == 1 else ''})"


@dataclass(frozen=True)
class LayerInfo:
    """One row: a node's name, operation, shape without the batch, parameter values, inputs and further names."""

    name: str
    op: str
    shape: tuple[int | None, ...]
    n_params: int
    inputs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class Layers(Sequence[LayerInfo]):
    """The rows in execution order; also indexed by name or alias, and ``in`` takes both."""

    def __init__(self, rows: Sequence[LayerInfo], aliases: Mapping[str, str] | None = None) -> None:
        self._rows = tuple(rows)
        self._index = {row.name: i for i, row in enumerate(self._rows)}
        self._index.update(
            {alias: self._index[target] for alias, target in (aliases or {}).items() if alias not in self._index}
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Node names in order."""
        return tuple(row.name for row in self._rows)

    @overload
    def __getitem__(self, index: int | str) -> LayerInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Layers: ...

    def __getitem__(self, index: int | str | slice) -> LayerInfo | Layers:
        if isinstance(index, slice):
            return Layers(self._rows[index])
        if isinstance(index, str):
            if index not in self._index:
                raise LayerNotFoundError(index, self._index)
            return self._rows[self._index[index]]
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[LayerInfo]:
        return iter(self._rows)

    def __contains__(self, item: object) -> bool:
        return item in self._index if isinstance(item, str) else item in self._rows

    def _table(self) -> list[tuple[str, str, str, str, str]]:
        return [
            (
                row.name,
                row.op,
                shape_text(row.shape),
                f"{row.n_params:,}" if row.n_params else "",
                ", ".join(row.aliases),
            )
            for row in self._rows
        ]

    def __repr__(self) -> str:
        head = ("name", "op", "shape", "parameters", "also")
        rows = [head, *self._table()]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            "  ".join(
                [
                    *(
                        cell.rjust(w) if i == 3 else cell.ljust(w)
                        for i, (cell, w) in enumerate(zip(row, widths, strict=False))
                    ),
                    row[4],
                ]
            ).rstrip()
            for row in rows
        ]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        return str(html.fragment(self._html_table()))

    def _html_table(self) -> str:
        """The bare table, to be put into a fragment."""
        from semanticlens.plot import html

        rows = [
            [html.code(row.name), row.op, shape_text(row.shape), row.n_params or None, ", ".join(row.aliases)] for row in self._rows
        ]
        return html.table(("name", "op", "shape", "parameters", "also"), rows, style=False)
