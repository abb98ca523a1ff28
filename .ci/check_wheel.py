"""Looks into the built wheel and sdist: sizes that are promised, files that must and must not be there.

    python .ci/check_wheel.py WHEEL SDIST
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

LIMIT, LIMIT_ASSETS = 3 * 2**20, 2 * 2**20            # bytes: the wheel without the demo's assets; those (each at most 1 MB)
ASSETS = "semanticlens/demo/assets/"
NEEDED = ("semanticlens/__init__.py", "semanticlens/_core.pyi", "semanticlens/py.typed")
NEEDED_SOURCES = ("LICENSE", "README.md", "CHANGELOG.md", "setup.py", "pyproject.toml", "csrc/include/sl/sl_common.h",
                  "csrc/core/sl_tier.h", "csrc/glue/py_common.h", "tests/conftest.py", "tests/c/check.h")


def main(wheel: str, sdist: str) -> int:
    """Print the sizes and what is wrong; 1 if anything is."""
    wrong = []
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    assets = sum(size for name, size in sizes.items() if name.startswith(ASSETS))
    rest = Path(wheel).stat().st_size - assets
    print(f"wheel {Path(wheel).stat().st_size:,} bytes: {rest:,} without the demo's assets, assets {assets:,}")
    if rest > LIMIT:
        wrong.append(f"the wheel without assets is larger than {LIMIT:,} bytes")
    if assets > LIMIT_ASSETS:
        wrong.append(f"the demo's assets are larger than {LIMIT_ASSETS:,} bytes")
    wrong += [f"the wheel lacks {name}" for name in NEEDED if name not in sizes]
    if not any(name.startswith("semanticlens/_core.") and name.endswith(".so") for name in sizes):
        wrong.append("the wheel lacks the extension")
    if not any(name.endswith("/LICENSE") for name in sizes):
        wrong.append("the wheel lacks the licence")
    wrong += [f"the wheel has {name}" for name in sizes if not name.startswith(("semanticlens/", "semanticlens_native-"))]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wrong += [f"the sdist lacks {name}" for name in NEEDED_SOURCES if name not in names]
    wrong += [f"the sdist has {name}" for name in names if name.endswith((".so", ".o", ".pyc"))]
    print("\n".join(wrong) if wrong else "contents as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2]))
