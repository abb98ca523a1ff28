"""Products from bfloat16 tiles: splitting, why a tier cannot be used, and the tiers themselves where build or machine has them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from semanticlens import _core, build_info
from semanticlens._reference import split as twin

INFO = build_info()
BY_NAME = INFO["by_name"]
WHY_NOT = f"amx: {_core.tier_fault('amx')}; amx-emulated: {_core.tier_fault('amx-emulated')}"
SIX = next((t for t in ("amx", "amx-emulated") if t in BY_NAME), None)
THREE = next((t for t in ("amx3", "amx3-emulated") if t in BY_NAME), None)
needs_tiles = pytest.mark.skipif(SIX is None, reason=f"no tier with tiles ({WHY_NOT})")

ERRORS = """
import json
import numpy as np
from semanticlens._kernels import nn
rng = np.random.default_rng(3)
out = {}
for k in (5, 27, 64, 147, 197, 576, 768, 1152, 2304):     # terms of products in VGG-16, ResNet-50, ViT-B/16
    for kind in ("normal", "positive"):
        x = rng.standard_normal((48, k)).astype(np.float32)
        x = np.maximum(x, 0) if kind == "positive" else x
        w = rng.standard_normal((64, k)).astype(np.float32)
        exact, size = x.astype(float) @ w.T.astype(float), np.abs(x).astype(float) @ np.abs(w).T.astype(float)
        error = (nn.dense(x, w, n_threads=1) - exact) / np.maximum(size, 1e-30)
        out[f"{k} {kind}"] = [float(np.sqrt(np.mean(error**2))), float(np.abs(error).max())]
print(json.dumps(out))
"""


def start(code: str, tier: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SEMANTICLENS_TIER": tier}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def run(code: str, tier: str) -> str:
    done = start(code, tier)
    assert done.returncode == 0, done.stderr
    return done.stdout


def floats() -> np.ndarray:
    rng = np.random.default_rng(0)
    exponents = rng.integers(24, 254, 20000, dtype=np.uint32) << 23
    bits = exponents | rng.integers(0, 1 << 23, 20000, dtype=np.uint32) | rng.integers(0, 2, 20000, dtype=np.uint32) << 31
    edges = np.array([0.0, -0.0, 1.0, -1.0, 1 + 2.0**-23, 1 - 2.0**-24, 2.0**-103, 1.00390625, 255.5, 65535.0, 3.3e38], np.float32)
    return np.concatenate([edges, bits.view(np.float32)])


# ---- splitting ---------------------------------------------------------------------------------------------------------------------------

def test_three_parts_add_up_exactly() -> None:
    x = floats()
    before = x.copy()
    bits = _core.split_f32(x)
    assert bits.dtype == np.uint16
    parts = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    assert np.array_equal(parts.sum(axis=0), x.astype(np.float64))
    assert np.array_equal(x, before)
    assert (np.abs(parts[1]) <= np.abs(parts[0]) * 2.0**-8).all()
    assert (np.abs(parts[2]) <= np.abs(parts[1]) * 2.0**-8).all()


def test_the_twin_splits_alike() -> None:
    tiny = (np.arange(1, 2000, dtype=np.uint32) * 4099).view(np.float32)           # denormal and just above
    x = np.concatenate([floats(), tiny, -tiny])
    assert np.array_equal(_core.split_f32(x), twin.split(x))
    assert _core.split_f32(np.empty(0, np.float32)).shape == (3, 0)


def test_what_splitting_alone_costs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 30, 200)).astype(np.float32)
    exact, size = a.astype(float) @ b.T.astype(float), np.abs(a).astype(float) @ np.abs(b).T.astype(float)
    assert np.abs(twin.product(a, b, 6) - exact).max() < 2.0**-25 * size.max()
    assert (np.abs(twin.product(a, b, 6) - exact) <= 2.0**-23 * size).all()
    assert (np.abs(twin.product(a, b, 3) - exact) <= 3 * 2.0**-16 * size).all()
    assert np.abs(twin.product(a, b, 3) - exact).max() > 2.0**-25 * size.max()     # and is no float32 product


def test_arrays_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="x must be"):
        _core.split_f32(np.zeros(3))
    with pytest.raises(ValueError, match="x must"):
        _core.split_f32(np.zeros((3, 2), np.float32))


# ---- choice of the tier ------------------------------------------------------------------------------------------------------------------

def test_tiers_with_tiles_are_never_chosen_unasked() -> None:
    assert not {t for t in INFO["tiers"] + INFO["supported"] if t.startswith("amx")}
    assert _core.tier_fault("baseline") is None
    assert _core.tier_fault("sse9") == "this build has no such tier"


@pytest.mark.parametrize("tier", ["amx", "amx3", "amx-emulated", "amx3-emulated"])
def test_a_tier_runs_or_says_why_not(tier: str) -> None:
    code = "import semanticlens; print(semanticlens.build_info()['tier'])"
    fault = _core.tier_fault(tier)
    assert (fault is None) == (tier in BY_NAME)
    if fault is None:
        assert run(code, tier).strip() == tier
        return
    done = start(code, tier)
    assert done.returncode == 1
    assert re.search(rf"ImportError: SEMANTICLENS_TIER={tier}: .*\({re.escape(fault)}\).*'baseline'", done.stderr.splitlines()[-1])


# ---- products ----------------------------------------------------------------------------------------------------------------------------

@needs_tiles
def test_six_products_err_less_than_the_float_tiers() -> None:
    assert SIX is not None
    assert THREE is not None
    ours, three = json.loads(run(ERRORS, SIX)), json.loads(run(ERRORS, THREE))
    best = json.loads(run(ERRORS, INFO["supported"][-1]))
    for shape, (rms, largest) in ours.items():
        assert rms <= best[shape][0], shape
        assert largest <= 1.1 * best[shape][1], shape                             # one extreme of 3072 numbers each
        assert rms < three[shape][0] < 1e-5, shape


@needs_tiles
def test_results_do_not_depend_on_threads_batch_or_packing() -> None:
    assert SIX is not None
    out = run("""
import numpy as np
from semanticlens._kernels import nn, contract
rng = np.random.default_rng(0)
x, w = rng.standard_normal((70, 650)).astype(np.float32), rng.standard_normal((90, 650)).astype(np.float32)
x[7, 3], x[40] = np.nan, x[40] * np.float32(1e-20)
y = nn.dense(x, w, n_threads=1)
same = [np.array_equal(y, nn.dense(x, w, n_threads=t), equal_nan=True) for t in (2, 3, 8)]
same.append(np.array_equal(y, nn.dense(x, w, packed=nn.pack_dense(w), n_threads=2), equal_nan=True))
same += [np.array_equal(y[i:i + 1], nn.dense(x[i:i + 1], w), equal_nan=True) for i in (0, 7, 40, 69)]
print(all(same), np.isnan(y).sum(axis=1).tolist() == [90 if i == 7 else 0 for i in range(70)])
""", SIX)
    assert out.split() == ["True", "True"]


@needs_tiles
def test_the_rate_of_splitting_can_be_measured() -> None:
    assert SIX is not None
    out = run("from semanticlens import _core; print(*_core.split_rates(0.01))", SIX)
    assert all(1e6 < float(rate) < 1e13 for rate in out.split())


def test_only_tiers_with_tiles_split() -> None:
    if INFO["tier"].startswith("amx"):
        pytest.skip("this is one")
    with pytest.raises(ValueError, match="no tiles"):
        _core.split_rates(0.01)
    with pytest.raises(ValueError, match="seconds must lie"):
        _core.split_rates(-1.0)
