"""The three contractions against their NumPy twins in double."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens._kernels import contract, nn
from semanticlens._reference import contract as reference
from semanticlens._reference import nn as twin

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


@settings(max_examples=80, deadline=None)
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


# ---- convolution and dense layers -----------------------------------------------------------------------------------------------

@st.composite
def convolutions(draw_from):
    groups = draw_from(st.sampled_from([1, 1, 2, 3, 8]))
    depthwise = draw_from(st.booleans()) and groups > 1
    channels = groups * (1 if depthwise else draw_from(st.sampled_from([1, 2, 5, 16, 40])))
    outputs = groups * (draw_from(st.integers(1, 3)) if depthwise else draw_from(st.sampled_from([1, 2, 4, 6, 7, 13, 33])))
    kernel = draw_from(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    form = {"stride": draw_from(st.tuples(st.integers(1, 4), st.integers(1, 4))),
            "dilation": draw_from(st.tuples(st.integers(1, 3), st.integers(1, 3))),
            "padding": draw_from(st.tuples(*[st.integers(0, 5)] * 4)), "groups": groups}
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, form["dilation"], strict=True)]
    low = [max(1, reach[0] - form["padding"][0] - form["padding"][2]), max(1, reach[1] - form["padding"][1] - form["padding"][3])]
    size = [draw_from(st.integers(n, n + 33)) for n in low]
    return (draw_from(st.integers(1, 3)), channels, *size), (outputs, channels // groups, *kernel), form


variants = st.builds(contract.Variant, st.sampled_from(list(contract.SEEN)), st.sampled_from([0.25, 2.0]))
parts = st.sampled_from(["plain", "magnitude", "positive", "negative", "square"]).map(contract.Variant)


def seen(w, variant):
    return reference.variant(w, variant.seen, np.float32(variant.gamma))


def plain_conv(x, weight, form):
    return twin.conv2d(wide(x), wide(weight), **form)


@settings(max_examples=120, deadline=None)
@given(convolutions(), variants, parts, st.integers(0, 99))
def test_the_adjoint_of_any_convolution(case, variant, part, seed):
    x_shape, w_shape, form = case
    weight = draw(*w_shape, seed=seed)
    s = draw(*plain_conv(np.zeros(x_shape), weight, form).shape, seed=seed + 1)
    v, left = seen(weight, variant), seen(s, part)
    expected = reference.conv_adjoint(wide(left), wide(v), x_shape[2:], **form)
    size = reference.conv_adjoint(np.abs(wide(left)), np.abs(wide(v)), x_shape[2:], **form)
    options = {"variant": variant, "part": part}
    g = contract.conv_adjoint(s, weight, x_shape[2:], contract.Form(**form), **options, n_threads=1)
    assert g.shape == x_shape
    assert close(g, expected, size)
    packed = contract.pack_conv_adjoint(weight, x_shape[2:], contract.Form(**form), variant=variant)
    assert np.array_equal(contract.conv_adjoint(s, weight, x_shape[2:], contract.Form(**form), **options, packed=packed, n_threads=3), g)


@settings(max_examples=100, deadline=None)
@given(convolutions(), variants, parts, st.integers(0, 99))
def test_the_forward_form_of_any_convolution(case, variant, part, seed):
    x_shape, w_shape, form = case
    x, weight, bias = draw(*x_shape, seed=seed), draw(*w_shape, seed=seed), draw(w_shape[0], seed=seed)
    v, left = seen(weight, variant), seen(x, part)
    expected = plain_conv(left, v, form) + bias[:, None, None]
    size = plain_conv(np.abs(left), np.abs(v), form) + np.abs(bias[:, None, None])
    z = contract.conv_forward(x, weight, bias, contract.Form(**form), variant=variant, part=part, n_threads=2)
    assert close(z, expected, size)
    if variant.seen == part.seen == "plain":
        assert np.array_equal(z, nn.conv2d(x, weight, bias, **form))


@settings(max_examples=100, deadline=None)
@given(convolutions(), st.integers(0, 99))
def test_the_parameter_form_of_any_convolution(case, seed):
    x_shape, w_shape, form = case
    x = draw(*x_shape, seed=seed)
    s = draw(*plain_conv(x, np.zeros(w_shape), form).shape, seed=seed + 1)
    f = contract.conv_parameter(s, x, w_shape[2:], contract.Form(**form), n_threads=1)
    assert f.shape == w_shape
    assert close(f, reference.conv_parameter(wide(s), wide(x), w_shape[2:], **form),
                 reference.conv_parameter(np.abs(wide(s)), np.abs(wide(x)), w_shape[2:], **form))
    assert np.array_equal(contract.conv_parameter(s, x, w_shape[2:], contract.Form(**form), n_threads=3), f)


@pytest.mark.parametrize(("channels", "outputs", "kernel", "stride"), [(64, 500, 3, 1), (300, 64, 3, 2), (321, 700, 1, 1), (96, 250, 1, 2),
                                                                      (3, 64, 7, 2), (1, 2, 33, 1)])
def test_convolutions_that_cross_blocks(channels, outputs, kernel, stride):
    form = {"stride": (stride, stride), "padding": (kernel // 2,) * 4}
    x, weight = draw(2, channels, 17, 34), draw(outputs, channels, kernel, kernel)
    s = draw(*plain_conv(x, weight, form).shape, seed=1)
    g = contract.conv_adjoint(s, weight, (17, 34), contract.Form(**form), n_threads=1)
    assert close(g, reference.conv_adjoint(wide(s), wide(weight), (17, 34), **form),
                 reference.conv_adjoint(np.abs(wide(s)), np.abs(wide(weight)), (17, 34), **form))
    f = contract.conv_parameter(s, x, (kernel, kernel), contract.Form(**form), n_threads=1)
    assert close(f, reference.conv_parameter(wide(s), wide(x), (kernel, kernel), **form),
                 reference.conv_parameter(np.abs(wide(s)), np.abs(wide(x)), (kernel, kernel), **form))
    for n_threads in (2, 3, 8):
        assert np.array_equal(contract.conv_adjoint(s, weight, (17, 34), contract.Form(**form), n_threads=n_threads), g)
        assert np.array_equal(contract.conv_parameter(s, x, (kernel, kernel), contract.Form(**form), n_threads=n_threads), f)
    assert np.array_equal(contract.conv_adjoint(s[1:], weight, (17, 34), contract.Form(**form)), g[1:])    # a picture alone


def test_a_stride_beyond_the_picture_costs_nothing():
    form = contract.Form(stride=(1 << 40, 1 << 40), padding=(1, 1, 1, 1))
    x, weight = draw(1, 2, 3, 4), draw(5, 2, 3, 3)
    s = contract.conv_forward(x, weight, None, form)
    assert s.shape == (1, 5, 1, 1)
    assert close(contract.conv_adjoint(s, weight, (3, 4), form),
                 reference.conv_adjoint(wide(s), wide(weight), (3, 4), stride=(9, 9), padding=(1, 1, 1, 1)), 50.0)


@pytest.mark.parametrize("rows", [0, 1, 2, 4, 5, 8, 9, 13, 250])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 320), (17, 321), (700, 33), (7, 2100)])
@pytest.mark.parametrize("variant", [contract.PLAIN, contract.Variant("positive"), contract.Variant("more_negative", 0.5)])
def test_dense_contractions(rows, outputs, inputs, variant):
    x, weight, bias, s = draw(rows, inputs), draw(outputs, inputs), draw(outputs), draw(rows, outputs, seed=1)
    v = seen(weight, variant)
    z = contract.dense_forward(x, weight, bias, variant=variant)
    assert close(z, wide(x) @ wide(v).T + bias, np.abs(wide(x)) @ np.abs(wide(v)).T + np.abs(bias))
    g = contract.dense_adjoint(s, weight, variant=variant)
    assert close(g, wide(s) @ wide(v), np.abs(wide(s)) @ np.abs(wide(v)))
    f = contract.dense_parameter(s, x)
    assert close(f, wide(s).T @ wide(x), np.abs(wide(s)).T @ np.abs(wide(x)))
    for n_threads in (1, 3, 8):
        assert np.array_equal(contract.dense_forward(x, weight, bias, variant=variant, n_threads=n_threads), z)
        assert np.array_equal(contract.dense_adjoint(s, weight, variant=variant, n_threads=n_threads), g)
        assert np.array_equal(contract.dense_parameter(s, x, n_threads=n_threads), f)
    if rows > 1:
        assert np.array_equal(contract.dense_adjoint(s[1], weight, variant=variant), g[1])


FINISHES = {
    "quotient": {"numerator": 0, "eps": 0.25},
    "clipped": {"numerator": 0, "eps": 0.5, "clip": True, "addend": 1},
    "product": {"factor": 0, "part": "positive", "scale": -0.5, "sum": 1},
    "gamma": {"factor": 0, "part": "more_positive", "gamma": 0.25},
    "mask": {"sum": 0, "mask": 1},
    "mask6": {"mask": 1, "below": 1.5},
    "all": {"addend": 0, "numerator": 1, "eps": 0.125, "factor": 2, "part": "negative", "scale": 2.0, "sum": 3, "mask": 4},
}


@pytest.mark.parametrize("kind", FINISHES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 1), (3, 2), (1, 2), (3, 3), (3, "depthwise"), (3, "depthwise2")])
def test_work_on_results_is_what_the_twin_says(kind, shape):
    kernel, how = shape
    groups, stride = (10, 1 + (how == "depthwise2")) if isinstance(how, str) else (1, how)
    form = contract.Form((stride, stride), (kernel // 2,) * 4, groups=groups)
    x, weight = draw(3, 10, 13, 40), draw(30 if groups == 1 else 10, 10 // groups, kernel, kernel)
    z = contract.conv_forward(x, weight, None, form)
    g = contract.conv_adjoint(z, weight, (13, 40), form)
    d = contract.dense_forward(x[0, 0], w := draw(33, 40))
    for result, run in ((z, lambda f: contract.conv_forward(x, weight, None, form, finish=f)),
                        (g, lambda f: contract.conv_adjoint(z, weight, (13, 40), form, finish=f)),
                        (d, lambda f: contract.dense_forward(x[0, 0], w, finish=f)),
                        (contract.dense_adjoint(d[:3], w), lambda f: contract.dense_adjoint(d[:3], w, finish=f))):
        options = {key: draw(*result.shape, seed=10 + value) if key in ("addend", "numerator", "factor", "sum", "mask") else value
                   for key, value in FINISHES[kind].items()}
        expected = reference.finish(result.astype(np.float64), **{k: wide(v) if isinstance(v, np.ndarray) else v for k, v in options.items()})
        if "part" in options:
            options["part"] = contract.Variant(options["part"], options.pop("gamma", 0.0))
        actual = run(contract.Finish(**options))
        assert np.all(np.abs(actual - expected) <= 1e-5 * (1 + np.abs(expected))), np.abs(actual - expected).max()


def test_channel_sums():
    s, x = draw(3, 5, 7, 9), draw(3, 5, 7, 9, seed=1)
    assert np.allclose(contract.channel_sum(s), wide(s).sum((0, 2, 3)), rtol=1e-6)
    assert np.allclose(contract.channel_sum(s, x), (wide(s) * x).sum((0, 2, 3)), rtol=1e-6)
    assert np.array_equal(contract.channel_sum(s[..., 0, 0].copy()), wide(s[..., 0, 0]).sum(0).astype(np.float32))


def test_variants_keep_nan_and_square_infinity():
    weight = np.float32([[np.nan, 1, -2]])
    x = np.eye(3, dtype=np.float32)
    for name in contract.SEEN:
        z = contract.dense_adjoint(np.ones((1, 1), np.float32), weight, variant=contract.Variant(name))[0]
        assert np.isnan(z[0]) == (name != "one")
        assert np.array_equal(z[1:], seen(weight, contract.Variant(name))[0, 1:])
    assert np.isnan(contract.dense_forward(x, weight, variant=contract.Variant("positive"))).all()


def test_contract_messages():
    x, weight = draw(1, 4, 5, 5), draw(6, 4, 3, 3)
    s = contract.conv_forward(x, weight)
    with pytest.raises(ValueError, match="s must have shape"):
        contract.conv_adjoint(s, weight, (6, 5))
    with pytest.raises(ValueError, match="kernel must fit"):
        contract.conv_adjoint(s, weight, (2, 2))
    with pytest.raises(ValueError, match="variant 'other' is not known"):
        contract.conv_adjoint(s, weight, (5, 5), variant=contract.Variant("other"))
    with pytest.raises(ValueError, match="variant, part and n_threads"):
        contract.conv_forward(x, weight, part=contract.Variant("one"))
    packed = contract.pack_conv_adjoint(weight, (5, 5))
    with pytest.raises(ValueError, match="packed was not made"):
        contract.conv_adjoint(s, weight, (5, 5), packed=packed, variant=contract.Variant("square"))
    with pytest.raises(ValueError, match="mask must have shape"):
        contract.conv_adjoint(s, weight, (5, 5), finish=contract.Finish(mask=s))
    with pytest.raises(ValueError, match="out shares memory with sum"):
        contract.conv_adjoint(s, weight, (5, 5), finish=contract.Finish(sum=x), out=x)
    with pytest.raises(TypeError, match="Cannot cast|float32"):
        contract.dense_adjoint(wide(draw(2, 6)), draw(6, 4))
    with pytest.raises(ValueError, match="with 5 outputs"):
        contract.dense_adjoint(draw(2, 5), draw(6, 4))
    with pytest.raises(ValueError, match="share all axes"):
        contract.dense_parameter(draw(2, 5), draw(3, 4))
