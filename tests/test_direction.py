"""Who may import whom: read from the sources, so that it holds for code that no test runs.

Rooms, lowest first; a file imports from its own room and from lower ones.  The extension is reached through ``_kernels`` alone, torch
through ``nn/export.py`` alone, and the C core knows no Python.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import semanticlens

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(semanticlens.__file__).resolve().parent
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS = {                                             # the higher may import the lower
    "_version": 0, "_errors": 0, "_progress": 0, "io": 1, "_reference": 1, "_kernels": 2, "nn": 3, "data": 4,
    "attribution": 5, "encoders": 5, "lens": 6, "alignment": 7, "plot": 8, "demo": 9, "cli": 10, "__main__": 11,
}
# Imports against the direction that are meant: a method that shows its object, a table of names.  Only inside functions, never at import.
LAZY = {
    ("lens", "plot"): "db.card(), db.report() and _repr_html_ draw what lens computed",
    ("lens", "alignment"): "lens.map lays components out as alignment lays out features",
    ("alignment", "plot"): "report(), picture() and page() draw what alignment computed",
    ("attribution", "plot"): "plot(), save() and _repr_html_ draw what attribution computed",
    ("nn", "plot"): "_repr_html_ of a network's table",
    ("encoders", "demo"): "encoders.load('demo') reads the weights shipped in demo/assets",
}
RUN_TIME = {"numpy", "safetensors", "PIL", "tqdm"}    # what pyproject.toml declares
TORCH_FILE = "nn/export.py"
EXTRAS = {"nn/load/onnx.py": "onnx",                  # the file that reads a format through an optional package
          "attribution/graphs.py": "networkx",        # the one that makes another package's graph
          "plot/_axes.py": "matplotlib"}              # and the one that draws on axes, which only matplotlib makes


def room(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Absolute dotted names that a file imports, and whether the import runs at import time."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = ("semanticlens", *path.relative_to(PACKAGE).parent.parts)

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, at_import
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            for alias in node.names:
                yield f"{module}.{alias.name}", at_import
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.orelse:
                yield from walk(child, at_import)
        else:
            inner = at_import and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for child in ast.iter_child_nodes(node):
                yield from walk(child, inner)

    yield from walk(tree, True)


def module_room(name: str) -> str | None:
    """The room of an imported name of this package, a lazy one (``semanticlens.load``) included; None for others."""
    package, _, rest = name.partition(".")
    if package != "semanticlens" or not rest:
        return None
    part = rest.split(".")[0]
    part = semanticlens._NAMES.get(part, part).split(".")[0]
    return part if part in ROOMS or part == "_core" else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    if here == "__init__":                            # the names users meet: all lazy, see test_build
        return
    assert here in ROOMS, f"{path.name}: a new room needs its place in ROOMS"
    for name, at_import in imports(path):
        there = module_room(name)
        if there is None or there == here:
            continue
        if there == "_core":
            assert here == "_kernels", f"{path}: imports {name}; only _kernels may"
        elif ROOMS[there] >= ROOMS[here]:
            assert (here, there) in LAZY, f"{path}: {here} imports {name}, against the direction"
            assert not at_import, f"{path}: {name} may only be imported inside a function"
        # the plain form of an operation is what runs in float64
        plain = (path.parent.name == "ops" and here == "nn") or path.relative_to(PACKAGE).as_posix() == "attribution/products.py"
        assert there != "_reference" or plain, f"{path}: twins are oracles for tests, not code to run: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_only_declared_packages(path: Path) -> None:
    for name, _ in imports(path):
        top = name.split(".")[0]
        if top in ("torch", "torchvision"):
            assert path.relative_to(PACKAGE).as_posix() == TORCH_FILE, f"{path}: only {TORCH_FILE} may import {top}"
        else:
            extra = EXTRAS.get(path.relative_to(PACKAGE).as_posix(), "semanticlens")
            known = RUN_TIME | {"semanticlens", extra} | sys.stdlib_module_names
            assert top in known, f"{path}: imports {name}, which is not declared"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "_reference"], ids=lambda p: p.name)
def test_twins_are_numpy_only(path: Path) -> None:
    for name, _ in imports(path):
        allowed = {"numpy", "__future__", "math", "collections", "typing", "itertools"}
        assert name.split(".")[0] in allowed or name.startswith("semanticlens._reference"), name


def test_a_wrong_import_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: relative forms, function bodies and TYPE_CHECKING blocks."""
    file = tmp_path / "nn" / "x.py"
    file.parent.mkdir()
    file.write_text("from typing import TYPE_CHECKING\nfrom ..lens import a\nfrom . import b\nfrom semanticlens import plot\n"
                    "def f():\n    import semanticlens.demo.run\nif TYPE_CHECKING:\n    import torch\n")
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    assert list(imports(file)) == [("typing.TYPE_CHECKING", True), ("semanticlens.lens.a", True), ("semanticlens.nn.b", True),
                                   ("semanticlens.plot", True), ("semanticlens.demo.run", False)]


# ---- C ---------------------------------------------------------------------------------------------------------------------------------

CSRC = ROOT / "csrc"
LIBC = {"assert.h", "float.h", "inttypes.h", "limits.h", "math.h", "omp.h", "pthread.h", "stdalign.h", "stdatomic.h", "stdbool.h",
        "stddef.h", "stdint.h", "stdlib.h", "string.h", "time.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def includes(path: Path) -> list[tuple[str, str]]:
    return [(mark, name) for mark, name in INCLUDE.findall(path.read_text(encoding="utf-8"))]


def c_files(folder: str) -> list[Path]:
    files = sorted(p for p in (CSRC / folder).rglob("*") if p.suffix in (".c", ".h"))
    assert files, f"no C sources in {CSRC / folder}"
    return files


def test_public_headers_stand_alone() -> None:
    for path in c_files("include"):
        for mark, name in includes(path):
            assert name in LIBC if mark == "<" else (CSRC / "include/sl" / name).is_file(), f"{path}: {name}"


def test_core_includes_no_python() -> None:
    for path in c_files("core"):
        for mark, name in includes(path):
            if mark == "<":
                own = ("cpuid.h", "sys/syscall.h", "unistd.h") if path.name == "sl_amx.c" else ("arm_neon.h",)
                assert name in LIBC or name.endswith("intrin.h") or name in own, f"{path}: <{name}>"
            else:
                assert (CSRC / "core" / name).is_file() or (CSRC / "include" / name).is_file(), f"{path}: {name}"
        text = path.read_text(encoding="utf-8")
        if path.name == "sl_tile_ops.h":
            text = text.replace("abort();", "")  # emulated tiles, for tests only, fault as the instructions do
        assert not re.search(r"\b(Py[A-Z]\w*|printf|abort|omp_set_num_threads)\s*\(", text), path


def test_glue_includes_public_headers_only() -> None:
    for path in c_files("glue"):
        for mark, name in includes(path):
            if mark == "<":
                assert name in LIBC | {"Python.h"} or name.startswith("numpy/"), f"{path}: <{name}>"
            else:
                public = name.startswith("sl/") and (CSRC / "include" / name).is_file()
                assert public or (CSRC / "glue" / name).is_file(), f"{path}: {name}"
