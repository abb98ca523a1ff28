"""The built extension and the import: stub, exported symbols, tiers, threads, forks, memory, what an import costs."""

from __future__ import annotations

import ast
import contextlib
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
from semanticlens._kernels import adjoint, alignment, collect, contract, lens, measures, nn, relevance, transformer, winograd
from semanticlens.alignment.clustering import HDBSCAN
from semanticlens.alignment.membership import new_membership, soft_membership

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
    assert info["tier"] in info["supported"] + info["by_name"]
    assert info["tier"] == os.environ.get("SEMANTICLENS_TIER", info["supported"][-1])    # those by name are never chosen unasked
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

def kernels(size: int = 1) -> dict[str, Callable[[], Any]]:
    """A call of every kernel; ``size`` scales the work, at 8 all of them enter parallel regions."""
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    x, weight, depthwise = floats(2, 8 * size, 8 * size, 8 * size), floats(16, 8 * size, 3, 3), floats(8 * size, 1, 3, 3)
    dense, vectors, examples, ids = floats(16 * size, 64), floats(32 * size, 16), floats(8 * size, 6, 16), np.arange(16 * size)
    top, best = collect.TopM(64, 4), collect.ClassTop(3, 64, 2)
    big, square, form = floats(2, 8 * size, 16 * size, 16 * size), contract.Variant("square"), contract.Form(padding=(1, 1, 1, 1))
    channels, shares = floats(8 * size), 0.1 * np.abs(floats(16 * size, 4))
    return {
        "build_info": _core.build_info,
        "all_finite": lambda: nn.all_finite(x),
        "split_f32": lambda: _core.split_f32(channels),
        "conv2d": lambda: nn.conv2d(x, weight, padding=(1, 1, 1, 1), activation="relu", n_threads=2),
        "depthwise": lambda: nn.conv2d(x, depthwise, groups=8 * size, stride=(2, 2), n_threads=2),
        "packed": lambda: nn.conv2d(x, weight, packed=nn.pack_conv2d(weight), n_threads=2),
        "dense": lambda: nn.dense(dense, vectors.reshape(-1, 64), n_threads=2),
        "pool2d": lambda: nn.pool2d(x, "max", (2, 2), stride=(2, 2), n_threads=2),
        "adaptive_avg_pool2d": lambda: nn.adaptive_avg_pool2d(x, (2, 3), n_threads=2),
        "scale_shift": lambda: nn.scale_shift(x, channels, channels, n_threads=2),
        "activate": lambda: nn.activate(x, "silu", n_threads=2),
        "add": lambda: nn.add(x, x, n_threads=2),
        "multiply": lambda: nn.multiply(x, x, n_threads=2),
        "softmax": lambda: nn.softmax(dense, n_threads=2),
        "norm_rows": lambda: transformer.norm_rows(dense, None, dense[0], eps=1e-5, n_threads=2),
        "group_norm": lambda: transformer.group_norm(x, 4, channels, None, eps=1e-5, n_threads=2),
        "attention": lambda: transformer.attention(x, x, x, scale=0.5, causal=True, n_threads=2),
        "matmul": lambda: contract.matmul(x, x.swapaxes(-1, -2), scale=0.5, n_threads=2),
        "winograd_pays": lambda: winograd.pays(weight.shape, (8 * size, 8 * size), contract.Form(padding=(1, 1, 1, 1))),
        "winograd_pack": lambda: nn.conv2d(x, weight, padding=(1, 1, 1, 1), packed=winograd.pack(weight), n_threads=2),
        "conv_forward": lambda: contract.conv_forward(x, weight, None, contract.Form(padding=(1, 1, 1, 1)), variant=square, n_threads=2),
        "conv_adjoint": lambda: contract.conv_adjoint(x[:, :8], weight[:8], (8 * size, 8 * size), contract.Form(padding=(1, 1, 1, 1)),
                                                      packed=contract.pack_conv_adjoint(weight[:8], (8 * size, 8 * size), form),
                                                      finish=contract.Finish(sum=x, mask=x), n_threads=2),
        "conv_parameter": lambda: contract.conv_parameter(x, x, (3, 3), contract.Form(padding=(1, 1, 1, 1)), n_threads=2),
        "dense_contract": lambda: contract.dense_adjoint(dense, vectors.reshape(64, -1), variant=square, n_threads=2),
        "dense_parameter": lambda: contract.dense_parameter(dense, dense, n_threads=2),
        "channel_sum": lambda: contract.channel_sum(x, x, n_threads=2),
        "activate_adjoint": lambda: adjoint.activate(x, x, "gelu", n_threads=2),
        "pool2d_adjoint": lambda: adjoint.pool2d(x, big, (16 * size, 16 * size), "max", (2, 2), stride=(2, 2), n_threads=2),
        "adaptive_avg_pool2d_adjoint": lambda: adjoint.adaptive_avg_pool2d(x, (16 * size, 16 * size), n_threads=2),
        "relevance_quotient": lambda: relevance.quotient(x, x[:1].copy(), eps=0.1, n_threads=2),
        "relevance_times": lambda: relevance.times(x, x[:1].copy(), part="negative", sum=x, n_threads=2),
        "relevance_by_sign": lambda: relevance.by_sign(x, x[:1].copy(), n_threads=2),
        "reduce_positions": lambda: nn.reduce_positions(x.reshape(2, 8 * size, -1), "absmax", n_threads=2),
        "topm": lambda: (top.update(dense, ids, n_threads=2), top.flush(n_threads=2), top.scores.shape),
        "class_top": lambda: best.update(dense, ids % 3, n_threads=2),
        "clarity": lambda: lens.clarity(examples, n_threads=2),
        "concept_vectors": lambda: lens.concept_vectors(examples, n_threads=2),
        "polysemanticity": lambda: lens.polysemanticity(examples, n_threads=2),
        "bootstrap": lambda: lens.bootstrap(vectors, np.arange(24).reshape(4, 6) % len(vectors), resamples=20, n_threads=2),
        "cosine": lambda: lens.cosine(vectors, vectors, n_threads=2),
        "redundancy": lambda: lens.redundancy(vectors, n_threads=2),
        "top_labels": lambda: lens.top_labels(vectors, vectors, 3, n_threads=2),
        "rand_pass": lambda: alignment.rand_pass([shares, shares[::-1].copy()], with_rows=True, n_threads=2),
        "rand_parts": lambda: alignment.rand_parts(shares, shares[::-1].copy(), n_threads=2),
        "rand_draw": lambda: alignment.rand_draw([shares, shares[::-1].copy()], 60, 1, n_threads=2),
        "concept_distances": lambda: alignment.concept_distances(shares.T.copy(), shares.T.copy(), n_threads=2),
        "hdbscan": lambda: digest(_cluster(vectors.astype(np.float64))),
        **_measures(vectors),
    }


def _measures(x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The kernels of measures."""
    wide, score = x.astype(np.float64), np.arange(32, dtype=np.float32)
    return {
        "cross": lambda: measures.cross(wide, wide, n_threads=2),
        "pair_counts": lambda: measures.pair_counts(x, (-9.0, 9.0), 32, n_threads=2),
        "pair_scores": lambda: measures.pair_scores(x, (-9.0, 9.0), score, x, (-9.0, 9.0), score, n_threads=2),
        "pair_gauss": lambda: measures.pair_gauss(x, 0.1, x, 0.2, n_threads=2),
        "near_rows": lambda: measures.near_rows(wide, 2, n_threads=2),
    }


def _cluster(x: np.ndarray) -> list[Any]:
    """Through all kernels of clustering and membership, old rows and new."""
    fitted = HDBSCAN(3, 2, n_threads=2).fit(x)
    soft, new = soft_membership(fitted, x, n_threads=2), new_membership(fitted, x, x[:4], min_samples=2, n_threads=2)
    return [fitted.labels_, fitted.core_distances_, soft, new]


def refused() -> dict[str, Callable[[], Any]]:
    """Calls that end in an error after some of their arguments were converted."""
    x = np.zeros((2, 3, 4, 4), np.float32)
    return {
        "conv2d, other channels": lambda: nn.conv2d(x, np.zeros((2, 4, 3, 3), np.float32)),
        "conv2d, strided output": lambda: nn.conv2d(x, x[:, :, :1, :1].copy(), out=np.zeros((2, 2, 4, 8), np.float32)[..., ::2]),
        "pool2d, empty window": lambda: nn.pool2d(x, "max", (0, 1), stride=(1, 1)),
        "attention, other features": lambda: transformer.attention(x, x, x[:, :, :, :2].copy()[:, :, :2], scale=1.0),
        "winograd, other groups": lambda: winograd.pack(np.zeros((4, 3, 3, 3), np.float32), groups=3),
        "conv_forward, packed for another variant": lambda: contract.conv_forward(
            x, np.zeros((3, 3, 3, 3), np.float32), packed=winograd.pack(np.zeros((3, 3, 3, 3), np.float32), back=True)),
        "relevance_times, other sum": lambda: relevance.times(x, x, sum=x[:1].copy()),
        "conv_adjoint, other size": lambda: contract.conv_adjoint(x, np.zeros((3, 4, 3, 3), np.float32), (9, 9)),
        "conv_adjoint, other mask": lambda: contract.conv_adjoint(x, np.zeros((3, 4, 1, 1), np.float32), (4, 4),
                                                                  finish=contract.Finish(sum=x, mask=x)),
        "matmul, other sizes": lambda: contract.matmul(x, x[:, :, :3]),
        "pool2d_adjoint, other input": lambda: adjoint.pool2d(x, x, (8, 8), "max", (2, 2), stride=(2, 2)),
        "add, float64": lambda: _core.add(x, x.astype(np.float64)),
        "clarity, other ids": lambda: lens.clarity(np.zeros((2, 3, 4), np.float32), np.zeros((3, 3), np.int64)),
        "top_labels, other width": lambda: lens.top_labels(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), 1),
        "topm, fewer ids": lambda: collect.TopM(3, 1).update(np.zeros((2, 3), np.float32), np.arange(3)),
    }


def test_a_forked_child_works_after_a_parallel_region() -> None:
    """A region in a forked child hangs with GCC's run-time; the child must run serially and give the same bits."""
    code = """
import os, sys, warnings
sys.path.insert(0, {folder!r})
import numpy as np, test_build
calls = test_build.kernels(size=8)
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


def test_every_kernel_is_among_them() -> None:
    """A new entry of the extension needs its call in kernels()."""
    indirect = {"conv_adjoint_pack", "conv2d_pack", "conv2d_packed_size", "dense_pack", "topm_init", "topm_update", "topm_merge",
                "topm_flush", "fma_peak", "split_rates", "tier_fault", "rand_blocks",
                "rand_sums", "rand_accumulate", "rand_finish", "nearest",
                "spanning_tree", "single_linkage", "condense", "tree_nodes", "tree_select", "tree_labels", "membership"}
    assert {*core_functions()} - indirect <= {*kernels()}


@pytest.mark.parametrize("name", [*kernels(), *refused()])
def test_memory_and_references_stay_flat(name: str) -> None:
    """1000 calls, successful or refused: after a warm-up the resident size grows by less than 1 MB, live blocks by next to nothing."""
    call = {**kernels(), **refused()}[name]

    def run(times: int) -> None:
        for _ in range(times):
            if name in refused_names:
                with contextlib.suppress(ValueError, TypeError):
                    call()
                    pytest.fail(f"{name} was not refused")
            else:
                call()
        gc.collect()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    refused_names = refused().keys()
    run(100)
    blocks, size = sys.getallocatedblocks(), resident()
    run(1000)
    assert sys.getallocatedblocks() - blocks < 500    # a leak of one object a call would be 1000
    assert resident() - size < 1 << 20
