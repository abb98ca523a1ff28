"""The built extension and the import: stub, exported symbols, tiers, threads, forks, memory, what an import costs."""

from __future__ import annotations

import ast
import gc
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import semanticlens
from semanticlens import _core, _kernels

PACKAGE = Path(semanticlens.__file__).resolve().parent
EXTENSION = Path(_core.__file__)
HEAVY = ("torch", "torchvision", "matplotlib", "sklearn", "scipy", "pandas")


def python(code: str, **environment: str) -> str:
    """Standard output of a fresh interpreter with the package under test."""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- stub and symbols --------------------------------------------------------------------------------------------------------------------

def stub_functions() -> dict[str, ast.FunctionDef]:
    tree = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def core_functions() -> list[str]:
    return sorted(name for name, value in vars(_core).items() if callable(value) and not name.startswith("__"))


def test_the_stub_names_what_the_extension_has() -> None:
    assert sorted(stub_functions()) == core_functions()


@pytest.mark.parametrize("name", core_functions())
def test_signatures_agree_with_the_stub(name: str) -> None:
    """Names, order, kinds and which arguments have defaults; a default that the stub spells out must be the same."""
    function, arguments = getattr(_core, name), stub_functions()[name].args
    assert function.__text_signature__ is not None, f"{name}: its docstring must open with '{name}(...)\\n--\\n\\n'"
    found = {p.name: p for p in inspect.signature(function).parameters.values()}
    positional, keyword = [*arguments.posonlyargs, *arguments.args], arguments.kwonlyargs
    assert [*found] == [a.arg for a in [*positional, *keyword]]
    defaults = dict(zip([a.arg for a in reversed(positional)], reversed(arguments.defaults), strict=False))
    defaults |= {a.arg: d for a, d in zip(keyword, arguments.kw_defaults, strict=True) if d is not None}
    for name_, parameter in found.items():
        assert (parameter.kind is inspect.Parameter.KEYWORD_ONLY) == (name_ in {a.arg for a in keyword}), name_
        assert (parameter.default is inspect.Parameter.empty) == (name_ not in defaults), name_
        text = ast.unparse(defaults[name_]) if name_ in defaults else "..."
        assert text in ("...", repr(parameter.default)), f"{name_}: {text} in the stub, {parameter.default!r} in the extension"


@pytest.mark.parametrize("name", core_functions())
def test_every_entry_is_documented(name: str) -> None:
    assert (getattr(_core, name).__doc__ or "").strip()


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm (binutils)")
def test_the_extension_exports_its_init_function_only() -> None:
    table = subprocess.run(["nm", "-D", "--defined-only", str(EXTENSION)], capture_output=True, text=True, check=True).stdout
    symbols = {line.split()[-1].split("@")[0] for line in table.splitlines() if line.strip()}
    runtime = re.compile(r"^(_init|_fini|__bss_start|_edata|_end|__(a|ub|l)san_\w+|\.gomp_critical_user_\w*)$")
    assert {s for s in symbols if not runtime.match(s)} == {"PyInit__core"}


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf (binutils)")
def test_the_extension_needs_no_unusual_library() -> None:
    table = subprocess.run(["readelf", "-d", str(EXTENSION)], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[([^\]]+)\]", table))
    assert all(re.match(r"lib(c|m|gomp|omp|pthread|gcc_s|asan|ubsan)\.so|ld-linux", name) for name in needed), needed


# ---- tiers and threads -------------------------------------------------------------------------------------------------------------------

def test_build_info() -> None:
    info = semanticlens.build_info()
    assert re.match(r"(GCC|.*[Cc]lang) ", info["compiler"])
    assert info["tiers"][0] == info["supported"][0] == "baseline"
    assert set(info["supported"]) <= set(info["tiers"])
    assert info["tier"] in info["supported"]
    assert info["tier"] == os.environ.get("SEMANTICLENS_TIER", info["supported"][-1])
    assert info["threads"] == semanticlens.get_num_threads() >= 1
    assert all(isinstance(info[key], bool) for key in ("openmp", "march_native", "debug"))
    json.dumps(info)


@pytest.mark.parametrize("tier", _core.build_info()["supported"])
def test_each_tier_can_be_chosen(tier: str) -> None:
    assert python("import semanticlens; print(semanticlens.build_info()['tier'])", SEMANTICLENS_TIER=tier) == tier


def test_an_unknown_tier_is_an_error() -> None:
    done = subprocess.run([sys.executable, "-c", "import semanticlens; semanticlens.build_info()"],
                          env={**os.environ, "SEMANTICLENS_TIER": "sse9"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SEMANTICLENS_TIER=sse9" in done.stderr.splitlines()[-1]
    assert "baseline" in done.stderr.splitlines()[-1]


def test_thread_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEMANTICLENS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    everything = semanticlens.get_num_threads()
    assert everything <= len(os.sched_getaffinity(0))
    resolve = _kernels.resolve_threads
    assert (resolve(None), resolve(-1), resolve(3), resolve(np.int64(2))) == (everything, everything, 3, 2)
    assert resolve(-2) == max(1, everything - 1)
    assert resolve(-1000) == 1
    for bad, error in ((0, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="n_threads"):
            resolve(bad)                              # type: ignore[arg-type]
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert resolve(None) == 5
    monkeypatch.setenv("SEMANTICLENS_NUM_THREADS", "4")
    assert resolve(None) == 4
    with semanticlens.num_threads(2):
        assert resolve(None) == 2
        with semanticlens.num_threads(None):
            assert resolve(None) == 4
        assert resolve(None) == 2
    assert resolve(None) == 4
    semanticlens.set_num_threads(3)
    try:
        assert resolve(None) == 3
    finally:
        semanticlens.set_num_threads(None)
    for text in ("0", "-1", "many"):
        monkeypatch.setenv("SEMANTICLENS_NUM_THREADS", text)
        with pytest.raises(ValueError, match=f"SEMANTICLENS_NUM_THREADS='{text}'"):
            resolve(None)


# ---- imports -----------------------------------------------------------------------------------------------------------------------------

def test_the_import_brings_nothing_heavy() -> None:
    loaded = python("import sys, semanticlens; print(*sys.modules)").split()
    assert not {name.split(".")[0] for name in loaded} & {*HEAVY, "numpy", "PIL", "safetensors", "tqdm"}


def test_no_public_name_brings_anything_heavy() -> None:
    loaded = python("import sys, semanticlens\nfor name in semanticlens.__all__: getattr(semanticlens, name)\nprint(*sys.modules)").split()
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_public_names() -> None:
    assert {*semanticlens.__all__} == {*semanticlens._MODULES, *semanticlens._NAMES, "__version__"}
    assert dir(semanticlens) == sorted(semanticlens.__all__)
    for name in semanticlens.__all__:
        assert getattr(semanticlens, name) is getattr(semanticlens, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        semanticlens.nonsense                         # noqa: B018


def test_the_import_is_quick() -> None:
    """At most 0.15 s; the import measures itself in fresh interpreters, and the best of several counts, because the machine is shared."""
    code = "import time; t = time.perf_counter(); import semanticlens; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(5)) <= 0.15


# ---- forks, memory -----------------------------------------------------------------------------------------------------------------------

def kernels() -> dict[str, Callable[[], Any]]:
    """A few calls of every kernel family, large enough for a parallel region."""
    return {"build_info": _core.build_info}


def test_a_forked_child_works_after_a_parallel_region() -> None:
    """A region in a forked child hangs with GCC's run-time; the child must run serially and give the same bits."""
    code = """
import os, sys, warnings
sys.path.insert(0, {folder!r})
import numpy as np, test_build
calls = test_build.kernels()
before = {{name: test_build.digest(call()) for name, call in calls.items()}}
warnings.simplefilter("ignore", DeprecationWarning)   # 3.12 and later warn of a fork in a process with threads: that is the subject
child = os.fork()
if child == 0:
    os._exit(0 if {{name: test_build.digest(call()) for name, call in calls.items()}} == before else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python(code.format(folder=str(Path(__file__).parent)), SEMANTICLENS_NUM_THREADS="2") == "0"


def digest(value: Any) -> str:
    """Bytes of a result, whatever it is made of."""
    if isinstance(value, np.ndarray):
        return value.tobytes().hex()
    if isinstance(value, (tuple, list)):
        return " ".join(map(digest, value))
    return repr(value)


@pytest.mark.parametrize("name", kernels())
def test_memory_and_references_stay_flat(name: str) -> None:
    """1000 calls: resident size grows by less than 1 MB after a warm-up, the count of live blocks by next to nothing."""
    call = kernels()[name]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(20):
        call()
    gc.collect()
    blocks, size = sys.getallocatedblocks(), resident()
    for _ in range(1000):
        call()
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 100
    assert resident() - size < 1 << 20
