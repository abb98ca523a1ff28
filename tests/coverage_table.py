"""Writes docs/coverage.md from docs/coverage.json, which the tests of the coverage table fill in.

    SEMANTICLENS_WRITE_COVERAGE=1 python -m pytest tests/test_coverage.py -m "peers and slow"
    python tests/coverage_table.py

Any test may add a figure with `coverage_cases.note(name, column, error, values, section)`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = {
    "export": "export from torch",
    "onnx": "ONNX",
    "state": "weights alone",
    "float64": "float64",
}
SECTIONS = {"pictures": "Pictures", "clip": "Pictures and texts", "language": "Texts"}
HEAD = """# Coverage

Networks whose output and layers were compared with their origin, and through which door they came: `nn.export.from_torch`,
an ONNX file (compared with onnxruntime), and weights alone with `arch=`. A number is the largest error of any compared
value, relative to the largest magnitude of the layer it is in; in brackets how many values (layers, parameters) were
compared. All weights are random and seeded, with normalisation statistics that are not trivial, unless the row says
otherwise.

- The doors are in float32 and must stay below 1e-4.
- *float64* is `run(..., dtype="float64")` against torch in double, and must stay below 1e-10.

Gradients have [a page of their own](gradients.md). An empty place was not compared. This page is written by
`tests/coverage_table.py` from the results of `tests/test_coverage.py` and of the other tests that note a figure.
"""


def page() -> str:
    """The page as text: one table per section, without columns that have no figure."""
    rows = json.loads((DOCS / "coverage.json").read_text(encoding="utf-8"))
    unknown = {row.get("section", "pictures") for row in rows.values()} - set(SECTIONS)
    unknown |= {key for row in rows.values() for key in row} - set(COLUMNS) - {"section"}
    if unknown:
        raise ValueError(f"docs/coverage.json holds {', '.join(sorted(unknown))}, which coverage_table.py does not know")
    parts = [HEAD]
    for section, title in SECTIONS.items():
        own = {name: row for name, row in rows.items() if row.get("section", "pictures") == section}
        if own:
            parts.append(f"## {title}\n\n{_table(own)}\n")
    return "\n".join(parts)


def _table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows by name, timm's last, in columns of equal width."""
    columns = [key for key in COLUMNS if any(key in row for row in rows.values())]
    lines = [["network", *(COLUMNS[key] for key in columns)]]
    for name in sorted(rows, key=lambda key: ("/" in key, key)):
        cells = [rows[name].get(key) for key in columns]
        lines.append([name, *("" if cell is None else f"{cell['error']:.1e} ({cell['layers']})" for cell in cells)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
    text = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines]
    return "\n".join([text[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *text[1:]])


if __name__ == "__main__":
    (DOCS / "coverage.md").write_text(page(), encoding="utf-8")
