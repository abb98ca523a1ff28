"""What all tests share: the package under test, the data folder, a working folder that is not the source tree.

The tests run against whatever ``semanticlens`` is importable: an installed package, or the source tree after
``setup.py build_ext --inplace`` (then with ``python -m pytest``).  In the project's root the bare source tree has no extension and must not
shadow the installed package, hence the two guards below.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")   # idle threads must not spin on a shared machine; read when the extension loads

import importlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:   # as background jobs inherit it; the tests of interruption need the usual handler
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _drop_bare_source_tree() -> None:
    """Take the root off the search path if it holds the package without its extension (``python -m pytest`` puts it there)."""
    if any((ROOT / "semanticlens").glob("_core*.so")):
        return
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT]
    importlib.invalidate_caches()


_drop_bare_source_tree()
try:
    import semanticlens
    BUILD = semanticlens.build_info()
except ImportError as error:
    raise pytest.UsageError(f"semanticlens cannot be imported ({error}): install it (pip install '.[test]') or build it in place "
                            f"(python setup.py build_ext --inplace) first") from error

# The same examples in every run, and no folder of them in the tree; tests/fuzz is where chance is let loose.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
PACKAGE = Path(semanticlens.__file__).resolve().parent
# For the interpreters that tests start: the same package, whatever the working folder is.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))


def pytest_report_header() -> list[str]:
    where = "source tree" if PACKAGE.parent == ROOT else "installed"
    return [f"semanticlens {semanticlens.__version__} ({where}): tier {BUILD['tier']} of {', '.join(BUILD['supported'])}; "
            f"OpenMP {BUILD['openmp']}, {BUILD['threads']} threads; debug {BUILD['debug']}; {BUILD['compiler']}"]


@pytest.fixture(autouse=True, scope="session")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in an empty folder: nothing lands in the source tree, and ``python -c`` in a test imports the package under test."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real models and pictures: SEMANTICLENS_DATA, else ../shared/data beside the project; skips where there is none."""
    folder = Path(os.environ.get("SEMANTICLENS_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}: set SEMANTICLENS_DATA to run this test")
    return folder


@pytest.fixture
def forget_ops() -> Iterator[None]:
    """Take back what a test puts into the table of operations."""
    from semanticlens.nn.ops import OPS

    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)
