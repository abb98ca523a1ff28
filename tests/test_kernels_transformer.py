"""Kernels of transformers against their twins in double."""

from __future__ import annotations

import numpy as np
import pytest

from semanticlens import _core
from semanticlens._kernels import nn
from semanticlens._kernels import transformer as kernels
from semanticlens._reference import transformer as twin


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("n", [1, 3, 8, 17, 64, 65, 384])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("params", [(False, False), (True, False), (True, True)])
def test_norm_rows(n, centred, params):
    x = 3 * draw(5, 7, n) + 20
    weight, bias = (draw(n, seed=i) if given else None for i, given in enumerate(params, 1))
    got = kernels.norm_rows(x, weight, bias, eps=1e-5, centred=centred, n_threads=1)
    np.testing.assert_allclose(
        got, twin.norm_rows(x.astype(np.float64), weight, bias, eps=1e-5, centred=centred), rtol=2e-5, atol=2e-5
    )
    for threads in (2, 3, 8):
        assert np.array_equal(kernels.norm_rows(x, weight, bias, eps=1e-5, centred=centred, n_threads=threads), got)


def test_norm_rows_in_place_and_alone():
    x = draw(300, 96)
    want = kernels.norm_rows(x, None, None, eps=1e-6)
    assert np.array_equal(kernels.norm_rows(x[17:18], None, None, eps=1e-6), want[17:18])
    copy = x.copy()
    assert kernels.norm_rows(copy, None, None, eps=1e-6, out=copy) is copy
    assert np.array_equal(copy, want)


@pytest.mark.parametrize("groups", [1, 2, 12])
def test_group_norm(groups):
    x, weight, bias = draw(3, 12, 5, 4) + 2, draw(12, seed=1), draw(12, seed=2)
    want = twin.group_norm(x.astype(np.float64), groups, weight, bias, eps=1e-5)
    got = kernels.group_norm(x, groups, weight, bias, eps=1e-5, n_threads=3)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)
    assert np.array_equal(kernels.group_norm(x, groups, weight, bias, eps=1e-5, n_threads=1), got)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 9, 17, 5), (197, 197, 64, 64), (8, 200, 33, 16), (1, 300, 64, 64), (100, 101, 8, 9)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [0, 1, 3])
def test_attention(shape, causal, biased):
    queries, keys, width, depth = shape
    q, k, v = draw(2, 3, queries, width), draw(2, 3, keys, width, seed=1), draw(2, 3, keys, depth, seed=2)
    bias = draw(biased, queries, keys, seed=3) if biased else None
    got = kernels.attention(q, k, v, bias, scale=width**-0.5, causal=causal, n_threads=1)
    wide = [a.astype(np.float64) for a in (q, k, v)]
    want = twin.attention(*wide, bias, scale=width**-0.5, causal=causal)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-6)
    for threads in (2, 3, 8):
        assert np.array_equal(kernels.attention(q, k, v, bias, scale=width**-0.5, causal=causal, n_threads=threads), got)
    one = kernels.attention(q[1:], k[1:], v[1:], bias, scale=width**-0.5, causal=causal)
    assert np.array_equal(one, got[1:])


def test_refusals():
    q = draw(2, 3, 4, 5)
    with pytest.raises(ValueError, match="bias"):
        kernels.attention(q, q, q, draw(4, 4, 4), scale=1.0)
    with pytest.raises(ValueError, match="k must have shape"):
        kernels.attention(q, draw(2, 3, 4, 6), q, scale=1.0)
    with pytest.raises(ValueError, match="v"):
        kernels.attention(q, q, q[:, :, :3].copy(), scale=1.0)
    with pytest.raises(TypeError, match="float64"):
        kernels.attention(q.astype(np.float64), q, q, scale=1.0)
    with pytest.raises(ValueError, match="weight"):
        kernels.norm_rows(q, draw(4), None, eps=1e-5)
    with pytest.raises(ValueError, match="groups"):
        kernels.group_norm(q, 2, None, None, eps=1e-5)
    with pytest.raises(ValueError, match="out"):
        _core.attention(q[0], q[0], q[0], None, 1.0, False, q[0], 1)


def test_keys_and_values_may_be_the_first_part_of_a_cache() -> None:
    rng = np.random.default_rng(0)
    keys, values = (rng.standard_normal((3, 40, width), np.float32) for width in (16, 8))
    for tokens in (1, 9, 40):
        for queries in (1, 12):
            q = rng.standard_normal((3, queries, 16), np.float32)
            part = [np.ascontiguousarray(a[:, :tokens]) for a in (keys, values)]
            want = kernels.attention(q, *part, scale=0.3)
            attend = kernels.bound_attention(q, scale=0.3, out=np.empty_like(want))
            assert np.array_equal(attend(keys[:, :tokens], values[:, :tokens]), want)
    with pytest.raises(ValueError, match="out shares memory with v"):
        kernels.bound_attention(q, scale=0.3, out=values.reshape(-1)[-3 * 12 * 8 :].reshape(3, 12, 8))(keys[:, :39], values[:, :39])


def test_a_dense_layer_adds_its_residual() -> None:
    rng = np.random.default_rng(0)
    for rows, columns, inputs in ((1, 40, 33), (4, 7, 700), (5, 16, 9), (130, 50, 641), (500, 100, 1024)):
        x, w = rng.standard_normal((rows, inputs), np.float32), rng.standard_normal((columns, inputs), np.float32)
        b, r = rng.standard_normal(columns, np.float32), rng.standard_normal((rows, columns), np.float32)
        want = np.maximum(x.astype(float) @ w.T.astype(float) + b + r, 0)
        first = nn.dense(x, w, b, addend=r, activation="relu", n_threads=1)
        np.testing.assert_allclose(first, want, rtol=1e-4, atol=1e-3)
        for threads in (2, 3, 8):
            for packed in (None, nn.pack_dense(w)):
                assert np.array_equal(nn.dense(x, w, b, addend=r, activation="relu", packed=packed, n_threads=threads), first)
        assert np.array_equal(nn.dense(x[-1:], w, b, addend=r[-1:], activation="relu")[0], first[-1])
        assert np.array_equal(nn.bound_dense(x, w, b, addend=r, activation="relu", out=r)(), first)
    with pytest.raises(ValueError, match="addend"):
        nn.dense(x, w, b, addend=b)
