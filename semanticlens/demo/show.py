"""Plain text for a terminal: headings and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def text_table(headers: Sequence[str], rows: Iterable[Sequence[object]], indent: str = "  ") -> str:
    """Columns padded to their widest cell; numbers (and what stands above them) to the right."""
    body = [list(row) for row in rows]
    numeric = [bool(body) and all(isinstance(row[j], (int, float)) for row in body) for j in range(len(headers))]
    cells = [list(headers)] + [[_cell(value) for value in row] for row in body]
    widths = [max(len(row[j]) for row in cells) for j in range(len(headers))]
    lines = [indent + "  ".join(_pad(cell, width, right) for cell, width, right in zip(row, widths, numeric, strict=True)).rstrip() for row in cells]
    lines.insert(1, indent + "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
