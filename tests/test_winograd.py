"""Convolutions by tiles against the formula in double and against the other way; where networks take them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens._kernels import contract, nn, winograd
from semanticlens._kernels.contract import SEEN, Finish, Form, Variant
from semanticlens._reference import contract as reference
from semanticlens._reference import nn as twin


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def wide(array):
    return np.asarray(array, np.float64)


def test_twin_is_the_convolution():
    x, weight = draw(2, 3, 7, 8), draw(4, 3, 3, 3, seed=1)
    expected = twin.conv2d(wide(x), wide(weight), padding=(1, 0, 2, 1))
    assert np.allclose(reference.winograd(wide(x), wide(weight), (1, 0, 2, 1)), expected, rtol=0, atol=1e-13)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.sampled_from([1, 3, 16, 130]), st.sampled_from([1, 6, 20]), st.integers(1, 20), st.integers(1, 150),
       st.tuples(*[st.integers(0, 3)] * 4), st.sampled_from(["none", "relu", "silu"]), st.booleans())
def test_forward(batch, channels, outputs, height, width, padding, activation, residual):
    height, width = max(height, 3 - padding[0] - padding[2]), max(width, 3 - padding[1] - padding[3])
    x, weight, bias = draw(batch, channels, height, width), draw(outputs, channels, 3, 3, seed=1), draw(outputs, seed=2)
    before = x.copy(), weight.copy()
    expected = reference.winograd(wide(x), wide(weight), padding) + bias[:, None, None]
    size = twin.conv2d(np.abs(wide(x)), np.abs(wide(weight)), padding=padding) + 1
    addend = draw(*expected.shape, seed=3) if residual else None
    packed = winograd.pack(weight)
    options = {"padding": padding, "activation": activation, "addend": addend, "packed": packed}
    y = nn.conv2d(x, weight, bias, n_threads=1, **options)
    expected = twin.activate(expected if addend is None else expected + addend, activation)
    assert np.all(np.abs(y - expected) <= 2e-6 * size)
    for n_threads in (2, 3, 8):
        assert np.array_equal(nn.conv2d(x, weight, bias, n_threads=n_threads, **options), y)
    for i in range(batch):
        alone = nn.conv2d(x[i : i + 1], weight, bias, **{**options, "addend": None if addend is None else addend[i : i + 1]})
        assert np.array_equal(alone[0], y[i])
    assert np.array_equal(x, before[0])
    assert np.array_equal(weight, before[1])


@pytest.mark.parametrize("seen", SEEN)
def test_variants_and_adjoint(seen):
    variant, form = Variant(seen, 0.25), Form(padding=(1, 1, 1, 1), groups=2)
    x, weight = draw(2, 8, 9, 11), draw(6, 4, 3, 3, seed=1)
    s, bias = draw(2, 6, 9, 11, seed=2), draw(6, seed=3)
    finish = Finish(factor=draw(2, 6, 9, 11, seed=4), part=Variant("positive"), scale=0.5, sum=s)
    part = Variant("negative")
    options = {"variant": variant, "part": part, "finish": finish}
    z = contract.conv_forward(x, weight, bias, form, packed=winograd.pack(weight, groups=2, variant=variant), **options)
    assert np.allclose(z, contract.conv_forward(x, weight, bias, form, **options), rtol=0, atol=2e-5)
    packed = winograd.pack(weight, groups=2, back=True, variant=variant)
    g = contract.conv_adjoint(s, weight, (9, 11), form, variant=variant, part=part, packed=packed)
    assert np.allclose(g, contract.conv_adjoint(s, weight, (9, 11), form, variant=variant, part=part), rtol=0, atol=2e-5)
    for n_threads in (2, 3, 8):
        again = contract.conv_adjoint(s, weight, (9, 11), form, variant=variant, part=part, packed=packed, n_threads=n_threads)
        assert np.array_equal(again, g)


@pytest.mark.parametrize("channels", [64, 256])
def test_error_is_that_of_float32(channels):
    """Against sum |w x| of each output's window: near the other way's, and below that of one chain of float32 (2.4e-8 measured)."""
    x, weight = np.maximum(draw(1, channels, 20, 20), 0), draw(16, channels, 3, 3, seed=1)
    expected, size = twin.conv2d(wide(x), wide(weight)), twin.conv2d(wide(x), np.abs(wide(weight)))

    def error(packed):
        return np.sqrt(np.mean(((nn.conv2d(x, weight, packed=packed) - expected) / size) ** 2))

    tiles, patches = error(winograd.pack(weight)), error(None)
    assert tiles < 2.4e-8
    assert tiles < 2 * patches


def test_locality():
    """NaN reaches the outputs whose window covers it; an output whose window is zero is its bias exactly; an adjoint conserves."""
    x, weight, bias = np.zeros((1, 32, 12, 12), np.float32), draw(32, 32, 3, 3), draw(32, seed=1)
    packed = winograd.pack(weight)
    x[:, :, 6, 7] = draw(32, seed=2)
    y = nn.conv2d(x, weight, bias, padding=(1, 1, 1, 1), packed=packed)
    outside = np.ones((12, 12), bool)
    outside[5:8, 6:9] = False
    assert np.array_equal(y[0][:, outside], np.broadcast_to(bias[:, None], (32, outside.sum())))
    x[0, 3, 6, 7] = np.nan
    y = nn.conv2d(x, weight, bias, padding=(1, 1, 1, 1), packed=packed)
    assert np.array_equal(np.isnan(y[0, 5]), ~outside)


def test_conservation():
    """The epsilon rule through this way: sum of x * L^T(R / z) is the sum of R to 1e-6, bias 0."""
    x, weight = np.maximum(draw(2, 48, 14, 14), 0), draw(64, 48, 3, 3, seed=1)
    form, plus = Form(padding=(1, 1, 1, 1)), Variant("positive")
    z = contract.conv_forward(x, weight, None, form, variant=plus, packed=winograd.pack(weight, variant=plus))
    relevance = np.abs(draw(*z.shape, seed=2))
    back = winograd.pack(weight, back=True, variant=plus)
    result = x * contract.conv_adjoint(relevance / (z + 1e-9), weight, (14, 14), form, variant=plus, packed=back)
    assert abs(wide(result).sum() / wide(relevance).sum() - 1) < 1e-6


def test_choice_by_shape():
    form = Form(padding=(1, 1, 1, 1))
    assert winograd.pays((64, 64, 3, 3), (56, 56), form)
    assert winograd.pays((64, 64, 3, 3), (56, 56), form, back=True)
    assert not winograd.pays((64, 3, 3, 3), (224, 224), form)
    assert not winograd.pays((64, 64, 1, 1), (56, 56))
    assert not winograd.pays((64, 64, 3, 3), (56, 56), Form(stride=(2, 2), padding=(1, 1, 1, 1)))
    assert not winograd.pays((64, 64, 3, 3), (1, 1))


def test_refused():
    weight, x = draw(8, 8, 3, 3), draw(1, 8, 9, 9)
    with pytest.raises(ValueError, match="3, 3"):
        winograd.pack(draw(8, 8, 1, 3))
    with pytest.raises(ValueError, match="groups"):
        winograd.pack(weight, groups=3)
    with pytest.raises(ValueError, match="packed was not made"):
        nn.conv2d(x, weight, stride=(2, 2), packed=winograd.pack(weight))
    with pytest.raises(ValueError, match="packed was not made"):
        nn.conv2d(x, weight, packed=winograd.pack(weight, back=True))
    with pytest.raises(ValueError, match="packed was not made"):
        contract.conv_forward(x, weight, variant=Variant("square"), packed=winograd.pack(weight))
    with pytest.raises(ValueError, match="packed was not made"):
        contract.conv_adjoint(draw(1, 8, 7, 7), weight, (9, 9), packed=winograd.pack(weight))
