"""The three contractions against their NumPy twins in double."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens._kernels import contract

RELATIVE = 2e-6


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def wide(array):
    return np.asarray(array, np.float64)


def close(actual, expected, size):
    return np.all(np.abs(actual - expected) <= RELATIVE * size + 1e-6)


# ---- batched products -----------------------------------------------------------------------------------------------------------

def check_product(a, b, **options):
    y = contract.matmul(a, b, **options)
    scale = options.get("scale", 1.0)
    expected, size = scale * (wide(a) @ wide(b)), abs(scale) * (np.abs(wide(a)) @ np.abs(wide(b)))
    assert y.shape == expected.shape
    assert close(y, expected, size)
    for n_threads in (2, 3, 8):
        assert np.array_equal(contract.matmul(a, b, **{**options, "n_threads": n_threads, "out": None}), y)
    return y


def laid_out(shape, way, seed):
    """The same values in different memory orders."""
    x = draw(*shape, seed=seed)
    if way == "transposed":
        return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    if way == "gaps":
        wider = np.zeros((*shape[:-1], shape[-1] + 3), np.float32)
        wider[..., : shape[-1]] = x
        return wider[..., : shape[-1]]
    if way == "scattered":
        wider = np.zeros((*shape[:-1], 2 * shape[-1]), np.float32)
        wider[..., ::2] = x
        return wider[..., ::2]
    return x


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([(), (3,), (2, 3)]), st.integers(1, 40), st.integers(1, 70), st.sampled_from([1, 2, 3, 17, 64, 319, 321, 700]),
       st.sampled_from(["dense", "transposed", "gaps", "scattered"]), st.sampled_from(["dense", "transposed", "gaps", "scattered"]),
       st.sampled_from([1.0, 0.125]))
def test_matmul_any_layout(batch, m, n, k, way_a, way_b, scale):
    a, b = laid_out((*batch, m, k), way_a, 1), laid_out((*batch, k, n), way_b, 2)
    check_product(a, b, scale=scale)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8, 9, 241, 300])
@pytest.mark.parametrize("transposed", [False, True])
def test_matmul_every_height_and_one_row_alone(m, transposed):
    a, b = draw(2, m, 321), laid_out((2, 321, 530), "transposed" if transposed else "dense", 3)
    y = check_product(a, b)
    for i in {0, m // 2, m - 1}:
        assert np.array_equal(contract.matmul(a[:, i : i + 1], b)[:, 0], y[:, i])


def test_matmul_repeats_matrices_and_fills_strided_results():
    a, b = draw(2, 3, 5, 7), draw(3, 7, 4)
    assert close(contract.matmul(a, b), wide(a) @ wide(b), 10.0)
    assert close(contract.matmul(a[:1], b), wide(a[:1]) @ wide(b), 10.0)
    heads = np.zeros((2, 5, 3, 4), np.float32)
    y = contract.matmul(a, b, out=heads.transpose(0, 2, 1, 3))
    assert np.array_equal(heads.transpose(0, 2, 1, 3), contract.matmul(a, b))
    assert y.base is heads


def test_matmul_of_attention_heads_in_place():
    qkv = draw(2, 9, 3, 4, 8)
    q, k = qkv[:, :, 0].transpose(0, 2, 1, 3), qkv[:, :, 1].transpose(0, 2, 3, 1)
    check_product(q, k, scale=8**-0.5)


def test_matmul_edge_sizes():
    assert np.array_equal(contract.matmul(draw(3, 0), draw(0, 4)), np.zeros((3, 4)))
    assert contract.matmul(draw(0, 2, 3), draw(0, 3, 4)).shape == (0, 2, 4)
    assert contract.matmul(draw(0, 3), draw(3, 4)).shape == (0, 4)


def test_matmul_messages():
    a, b = draw(2, 3), draw(3, 4)
    with pytest.raises(TypeError, match="a must be a float32 array"):
        contract.matmul(wide(a), b)
    with pytest.raises(TypeError, match="b must be a float32 array with two to four axes"):
        contract.matmul(a, b[0])
    with pytest.raises(ValueError, match="do not fit"):
        contract.matmul(a, a)
    with pytest.raises(ValueError, match="do not fit"):
        contract.matmul(draw(2, 2, 3), draw(3, 3, 4))
    with pytest.raises(ValueError, match="out must have shape"):
        contract.matmul(a, b, out=draw(4, 2))
    with pytest.raises(ValueError, match="dense along its last axis"):
        contract.matmul(a, b, out=draw(4, 2).T)
    with pytest.raises(ValueError, match="shares memory"):
        contract.matmul(draw(3, 3), b := draw(3, 3), out=b)
