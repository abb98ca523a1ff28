"""Network kernels against their NumPy twins: shapes, non-finite values, threads, packed weights, output arrays, messages.

Tolerance: a float32 sum of n products differs from the exact one by at most about n * 2^-24 * sum |a||b|, and in blocks of 320 with
random signs by far less; 2e-6 * sum |a||b| is 32 roundings of the whole magnitude.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens import _core, build_info
from semanticlens._kernels import nn
from semanticlens._reference import nn as twin

SIZES = [1, 2, 3, 5, 6, 7, 8, 11, 13, 15, 16, 17, 31, 32, 33]
ACTIVATIONS = list(nn.ACTIVATIONS)
RELATIVE = 2e-6


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def wide(array):
    return None if array is None else array.astype(np.float64)


def check_conv(x, weight, bias=None, *, addend=None, activation="none", n_threads=1, **form):
    """conv2d, packed and not, against the twin in double."""
    expected = twin.conv2d(wide(x), wide(weight), wide(bias), **form)
    size = twin.conv2d(np.abs(wide(x)), np.abs(wide(weight)), None if bias is None else np.abs(wide(bias)), **form)
    if addend is not None:
        expected, size = expected + addend, size + np.abs(addend)
    expected = twin.activate(expected, activation)
    packed = nn.pack_conv2d(weight, groups=form.get("groups", 1))
    y = nn.conv2d(x, weight, bias, addend=addend, activation=activation, packed=packed, n_threads=n_threads, **form)
    assert y.shape == expected.shape
    assert y.dtype == np.float32
    assert np.all(np.abs(y - expected) <= RELATIVE * size + 1e-6)
    assert np.array_equal(nn.conv2d(x, weight, bias, addend=addend, activation=activation, n_threads=2, **form), y)


# ---- convolution ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_every_width(size, kernel, stride):
    check_conv(draw(2, 3, 9, size), draw(7, 3, kernel, kernel), draw(7), stride=(stride, stride), padding=(kernel // 2,) * 4)


@pytest.mark.parametrize("channels", [1, 35, 36, 70, 319, 320, 321, 700])
@pytest.mark.parametrize("kernel", [1, 3])
def test_conv_crosses_blocks_of_k(channels, kernel):
    check_conv(draw(1, channels, 5, 6), draw(13, channels, kernel, kernel), draw(13), padding=(kernel // 2,) * 4)


@pytest.mark.parametrize("outputs", [1, 5, 6, 7, 12, 240, 241, 500])
def test_conv_crosses_blocks_of_outputs(outputs):
    check_conv(draw(2, 8, 7, 7), draw(outputs, 8, 3, 3), draw(outputs), padding=(1, 1, 1, 1), activation="relu")


@pytest.mark.parametrize("kernel", [(18, 19), (33, 1), (1, 34)])
def test_conv_one_channel_fills_several_blocks(kernel):
    check_conv(draw(1, 2, 34, 35), draw(6, 2, *kernel), padding=(2, 0, 1, 3))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_depthwise_every_width(size, kernel, stride):
    padding = (kernel // 2, kernel // 2, kernel - 1, kernel)
    check_conv(draw(2, 5, 11, size), draw(5, 1, kernel, kernel), draw(5), stride=(stride, stride), padding=padding, groups=5,
               activation="relu6")


def test_depthwise_planes_larger_than_a_band():
    check_conv(draw(1, 3, 150, 131), draw(3, 1, 3, 3), draw(3), padding=(1, 1, 1, 1), groups=3, activation="silu")
    check_conv(draw(1, 3, 151, 130), draw(6, 1, 5, 5), draw(6), stride=(2, 2), padding=(1, 2, 2, 1), groups=3, addend=draw(1, 6, 75, 65),
               activation="relu")


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


@settings(max_examples=150, deadline=None)
@given(convolutions(), st.sampled_from(ACTIVATIONS), st.booleans(), st.booleans(), st.integers(0, 99))
def test_conv_any_form(case, activation, with_bias, with_addend, seed):
    x_shape, w_shape, form = case
    x, weight = draw(*x_shape, seed=seed), draw(*w_shape, seed=seed)
    bias = draw(w_shape[0], seed=seed) if with_bias else None
    addend = draw(*twin.conv2d(x, weight, **form).shape, seed=seed + 1) if with_addend else None
    check_conv(x, weight, bias, addend=addend, activation=activation, n_threads=3, **form)


def test_a_picture_does_not_depend_on_its_batch():
    for groups, shape in ((1, (20, 9, 3, 3)), (9, (9, 1, 3, 3))):
        x, weight = draw(5, 9, 7, 7), draw(*shape)
        whole = nn.conv2d(x, weight, padding=(1, 1, 1, 1), groups=groups)
        for i in range(5):
            assert np.array_equal(nn.conv2d(x[i : i + 1], weight, padding=(1, 1, 1, 1), groups=groups)[0], whole[i])


@pytest.mark.parametrize("groups", [1, 6])
def test_conv_spreads_nan_to_the_covering_outputs_only(groups):
    x, weight = draw(2, 6, 9, 20), draw(6, 6 // groups, 3, 3)
    x[1, 2, 4, 17] = np.nan
    y = nn.conv2d(x, weight, padding=(1, 1, 1, 1), groups=groups, activation="relu")
    expected = np.zeros(y.shape, bool)
    expected[1, slice(2, 3) if groups > 1 else slice(None), 3:6, 16:19] = True
    assert np.array_equal(np.isnan(y), expected)
    x[1, 2, 4, 17] = np.inf
    assert np.array_equal(np.isfinite(nn.conv2d(x, weight, padding=(1, 1, 1, 1), groups=groups)), ~expected)


def test_conv_known_values():
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    ones = np.ones((1, 1, 2, 2), np.float32)
    assert nn.conv2d(x, ones).ravel().tolist() == [8, 12, 20, 24]
    assert nn.conv2d(x, ones, stride=(2, 2), padding=(1, 0, 0, 0)).ravel().tolist() == [1, 20]
    assert nn.conv2d(x, ones, np.float32([-15]), activation="relu").ravel().tolist() == [0, 0, 5, 9]


# ---- dense ----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 7, 13, 33, 250, 1000])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 320), (17, 321), (33, 700), (40, 1024), (7, 13)])
def test_dense_equals_the_twin(rows, outputs, inputs):
    x, weight, bias = draw(rows, inputs), draw(outputs, inputs), draw(outputs)
    expected = wide(x) @ wide(weight).T + bias
    y = nn.dense(x, weight, bias)
    assert np.all(np.abs(y - expected) <= RELATIVE * (np.abs(wide(x)) @ np.abs(wide(weight)).T + np.abs(bias)))
    assert np.array_equal(nn.dense(x, weight, bias, packed=nn.pack_dense(weight), n_threads=3), y)
    for i in (0, rows // 2, rows - 1) if rows else ():
        assert np.array_equal(nn.dense(x[i], weight, bias), y[i])      # one row alone: the same bits


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_activation_and_leading_axes(activation):
    x, weight, bias = draw(2, 3, 4, 50), draw(23, 50), draw(23)
    expected = twin.dense(wide(x), wide(weight), wide(bias), activation=activation)
    np.testing.assert_allclose(nn.dense(x, weight, bias, activation=activation), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(nn.dense(x[0, 0, 0], weight, bias, activation=activation), expected[0, 0, 0], rtol=1e-5, atol=1e-5)


def test_dense_without_inputs_is_the_bias():
    nothing = np.zeros((3, 0), np.float32)
    assert nn.dense(nothing[:2], nothing, np.float32([-1, 0, 2]), activation="relu").tolist() == [[0, 0, 2]] * 2


def test_dense_spreads_nan_along_its_row_only():
    x, weight = draw(9, 40), draw(20, 40)
    x[3, 39] = np.nan
    assert np.array_equal(np.isnan(nn.dense(x, weight)).all(axis=1), np.arange(9) == 3)
    assert np.array_equal(np.isnan(nn.dense(x, weight)).any(axis=1), np.arange(9) == 3)


# ---- elementwise ----------------------------------------------------------------------------------------------------------------

def ulps(y, exact):
    """Distance from the exact value in units of the last place of the float32 nearest to it."""
    return np.abs(y.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)


def test_exponential_is_exact_to_the_last_places():
    """softmax([x, 0]) over x <= 0 is exp(x) / (1 + exp(x)); sigmoid is 1 / (1 + exp(-x)): both are dominated by exp below -1."""
    x = np.concatenate([np.linspace(-87, 0, 400001, dtype=np.float32), -np.geomspace(1e-30, 1, 2000, dtype=np.float32)])
    assert ulps(nn.activate(-x, "sigmoid"), 1 / (1 + np.exp(wide(x)))).max() <= 3
    tail = x[x < -17]                                       # there 1 + exp(-x) rounds to exp(-x): sigmoid is 1 / exp
    assert ulps(nn.activate(tail, "sigmoid"), 1 / (1 + np.exp(-wide(tail)))).max() <= 4


@pytest.mark.parametrize("n", [0, 1, 3, 7, 8, 9, 17, 100003])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(kind, n):
    x = 5 * draw(n)
    np.testing.assert_allclose(nn.activate(x, kind, n_threads=2), twin.activate(wide(x), kind), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_of_special_values(kind):
    x = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 89, -89, 104, -104, 6, -3, 3])
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(nn.activate(x, kind), twin.activate(x, kind), rtol=2e-5)
    assert np.isnan(nn.activate(x, kind)[0])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_add_and_scale_shift(activation):
    a, b, scale, shift = draw(3, 5, 7, 3), draw(3, 5, 7, 3, seed=1), draw(5), draw(5, seed=1)
    np.testing.assert_allclose(nn.add(a, b, activation=activation), twin.add(a, b, activation=activation), rtol=2e-6, atol=1e-7)
    expected = twin.scale_shift(a, scale, shift, activation=activation)
    np.testing.assert_allclose(nn.scale_shift(a, scale, shift, activation=activation), expected, rtol=2e-6, atol=1e-7)
    assert np.array_equal(nn.add(a, b), a + b)
    assert np.array_equal(nn.scale_shift(a, scale, shift), twin.scale_shift(a, scale, shift))
    assert np.array_equal(nn.scale_shift(a[:, :, 0, 0], scale, shift), twin.scale_shift(a[:, :, 0, 0], scale, shift))


def test_multiply():
    a, b = draw(3, 5, 7, 3), draw(3, 5, 7, 3, seed=1)
    assert np.array_equal(nn.multiply(a, b), a * b)
    assert np.array_equal(nn.multiply(a, b[:, :, :1, :1].copy()), a * b[:, :, :1, :1])


@pytest.mark.parametrize("shape", [(1, 1), (4, 5), (2, 3, 1000), (7, 16), (0, 4), (3, 0)])
def test_softmax(shape):
    x = 10 * draw(*shape)
    y = nn.softmax(x)
    if x.size:
        np.testing.assert_allclose(y, twin.softmax(x), rtol=2e-6, atol=1e-30)
        np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-5)
    assert y.shape == shape


def test_softmax_of_non_finite_rows():
    x = np.float32([[1, np.nan, 2], [0, -np.inf, 0], [1, np.inf, 2], [1e4, -1e4, 1e4]])
    y = nn.softmax(x)
    assert np.isnan(y[[0, 2]]).all()
    assert y[1].tolist() == [0.5, 0, 0.5]
    assert y[3].tolist() == [0.5, 0, 0.5]


@pytest.mark.parametrize("kind", list(nn.REDUCTIONS))
@pytest.mark.parametrize("positions", [1, 2, 7, 8, 15, 16, 17, 49, 1000])
def test_reduce_positions(kind, positions):
    x = draw(3, 5, positions)
    x[1, 2, positions // 2] = np.nan
    x[0, 1, positions - 1] = np.inf
    x[2, 4, 0] = -np.inf
    np.testing.assert_array_max_ulp(nn.reduce_positions(x, kind), twin.reduce_positions(x, kind), maxulp=1)
    assert np.argwhere(np.isnan(nn.reduce_positions(x, kind))).tolist() == [[1, 2]]


# ---- pooling --------------------------------------------------------------------------------------------------------------------

@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.integers(1, 20)] * 2), st.tuples(*[st.integers(1, 4)] * 2), st.tuples(*[st.integers(1, 4)] * 2),
       st.tuples(*[st.integers(0, 2)] * 4), st.tuples(*[st.integers(1, 2)] * 2), st.booleans(), st.booleans(),
       st.sampled_from(["max", "mean"]))
def test_pool_any_form(size, kernel, stride, padding, dilation, ceil_mode, count_include_pad, kind):
    x = draw(2, 3, *size)
    form = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    fits = all(n + p + q + (s - 1 if ceil_mode else 0) >= d * (k - 1) + 1
               for n, p, q, d, k, s in zip(size, padding[:2], padding[2:], dilation, kernel, stride, strict=True))
    if not fits:
        with pytest.raises(ValueError, match="do not fit a picture"):
            nn.pool2d(x, kind, kernel, **form)
        return
    with np.errstate(invalid="ignore"):
        expected = twin.pool2d(x, kind, kernel, **form)
    np.testing.assert_allclose(nn.pool2d(x, kind, kernel, n_threads=2, **form), expected, rtol=1e-6, atol=1e-7)


def test_max_pool_lets_nan_win():
    x = draw(1, 1, 6, 6)
    x[0, 0, 3, 3] = np.nan
    y = nn.pool2d(x, "max", (3, 3), stride=(1, 1))
    assert np.array_equal(np.isnan(y), np.isnan(twin.pool2d(x, "max", (3, 3), stride=(1, 1))))
    assert np.isnan(y).sum() == 9


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 9), (10, 4)])
def test_adaptive_mean(size):
    x = draw(2, 3, 7, 9)
    np.testing.assert_allclose(nn.adaptive_avg_pool2d(x, size), twin.adaptive_avg_pool2d(x, size), rtol=1e-6, atol=1e-7)


# ---- what all have in common ----------------------------------------------------------------------------------------------------

def calls():
    """name -> function of (n_threads, out) on arrays large enough for several threads, and the arrays."""
    x, weight, bias = draw(3, 32, 41, 43), draw(40, 32, 3, 3), draw(40)
    addend, depthwise, rows, matrix = draw(3, 40, 41, 43), draw(32, 1, 3, 3), draw(70, 900), draw(150, 900)
    scale, gate, long = draw(32), draw(3, 32, 1, 1), draw(300, 700)
    same = {"padding": (1, 1, 1, 1)}
    arrays = [x, weight, bias, addend, depthwise, rows, matrix, scale, gate, long]
    return arrays, {
        "conv2d": lambda n, out: nn.conv2d(x, weight, bias, addend=addend, activation="silu", n_threads=n, out=out, **same),
        "conv2d 1x1": lambda n, out: nn.conv2d(x, weight[:, :, :1, :1].copy(), bias, activation="relu", n_threads=n, out=out),
        "depthwise": lambda n, out: nn.conv2d(x, depthwise, scale, activation="relu6", groups=32, n_threads=n, out=out, **same),
        "dense": lambda n, out: nn.dense(rows, matrix, activation="sigmoid", n_threads=n, out=out),
        "dense, thin": lambda n, out: nn.dense(rows[:3], matrix, activation="relu", n_threads=n, out=out),
        "max pool": lambda n, out: nn.pool2d(x, "max", (3, 3), stride=(2, 2), n_threads=n, out=out),
        "mean pool": lambda n, out: nn.pool2d(x, "mean", (2, 2), stride=(2, 2), n_threads=n, out=out),
        "adaptive": lambda n, out: nn.adaptive_avg_pool2d(x, (6, 6), n_threads=n, out=out),
        "scale_shift": lambda n, out: nn.scale_shift(x, scale, scale, activation="hardswish", n_threads=n, out=out),
        "activate": lambda n, out: nn.activate(x, "silu", n_threads=n, out=out),
        "add": lambda n, out: nn.add(addend, addend, activation="relu", n_threads=n, out=out),
        "multiply": lambda n, out: nn.multiply(x, x, n_threads=n, out=out),
        "gate": lambda n, out: nn.multiply(x, gate, n_threads=n, out=out),
        "softmax": lambda n, out: nn.softmax(long, n_threads=n, out=out),
        "reduce": lambda n, out: nn.reduce_positions(x.reshape(3, 32, -1), "mean", n_threads=n),
    }


@pytest.mark.parametrize("name", list(calls()[1]))
def test_threads_repeats_outputs_and_inputs(name):
    arrays, functions = calls()
    before = [array.copy() for array in arrays]
    call = functions[name]
    first = call(1, None)
    for n_threads in (2, 3, 8, 2, 1):
        assert np.array_equal(call(n_threads, None), first)
    if name != "reduce":
        out = np.full(first.shape, np.nan, np.float32)
        assert call(2, out) is out
        assert np.array_equal(out, first)
        with pytest.raises(ValueError, match="out must have shape"):
            call(1, np.empty((*first.shape, 1), np.float32))
        with pytest.raises(TypeError, match="out must be a writable, C-contiguous float32"):
            call(1, np.empty(first.shape))
        frozen = np.empty(first.shape, np.float32)
        frozen.flags.writeable = False
        with pytest.raises(TypeError, match="out must be a writable"):
            call(1, frozen)
    for array, copy in zip(arrays, before, strict=True):
        assert np.array_equal(array, copy)


def test_in_place_where_allowed():
    x, y = draw(2, 4, 9, 9), draw(2, 4, 9, 9, seed=1)
    weight, scale = draw(4, 4, 3, 3), draw(4)
    expected = nn.conv2d(x, weight, addend=y, activation="relu", padding=(1, 1, 1, 1))
    depthwise = nn.conv2d(x, weight[:, :1].copy(), addend=y, groups=4, padding=(1, 1, 1, 1))
    out = y.copy()
    assert np.array_equal(nn.conv2d(x, weight, addend=out, activation="relu", padding=(1, 1, 1, 1), out=out), expected)
    out = y.copy()
    assert np.array_equal(nn.conv2d(x, weight[:, :1].copy(), addend=out, groups=4, padding=(1, 1, 1, 1), out=out), depthwise)
    for call in (lambda a, out: nn.activate(a, "silu", out=out), lambda a, out: nn.add(a, y, out=out),
                 lambda a, out: nn.softmax(a, out=out), lambda a, out: nn.multiply(a, y, out=out),
                 lambda a, out: nn.scale_shift(a, scale, scale, out=out)):
        out = x.copy()
        assert call(out, out) is out
        assert np.array_equal(out, call(x, None))
    assert np.array_equal(nn.add(x, y, out=y.copy()), x + y)


def test_long_k_in_place_addend():
    """The addend may be the output even where the sum runs over several blocks of K."""
    x, weight, y = draw(1, 700, 6, 6), draw(20, 700, 1, 1), draw(1, 20, 6, 6)
    out = y.copy()
    assert np.array_equal(nn.conv2d(x, weight, addend=out, out=out), nn.conv2d(x, weight, addend=y))


@pytest.mark.parametrize("call", [
    lambda x: nn.conv2d(x, np.ones((4, 4, 1, 1), np.float32), out=x),
    lambda x: nn.pool2d(x, "max", (1, 1), stride=(1, 1), out=x),
    lambda x: nn.adaptive_avg_pool2d(x, (4, 4), out=x),
    lambda x: nn.activate(x[1:], "relu", out=x[:-1]),
    lambda x: nn.dense(x, np.eye(4, dtype=np.float32), out=x),
])
def test_overlapping_output_is_refused(call):
    with pytest.raises(ValueError, match="out shares memory with x"):
        call(draw(4, 4, 4, 4))


def test_strided_and_foreign_inputs_are_converted():
    x, weight = draw(2, 6, 8, 8), draw(5, 3, 3, 3)
    assert np.array_equal(nn.conv2d(x[:, ::2], weight), nn.conv2d(x[:, ::2].copy(), weight))
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert np.array_equal(nn.conv2d(channels_last, draw(5, 6, 3, 3)), nn.conv2d(x, draw(5, 6, 3, 3)))
    assert np.array_equal(nn.activate(x.transpose(3, 1, 0, 2), "relu"), nn.activate(x, "relu").transpose(3, 1, 0, 2))
    assert np.array_equal(nn.activate(x.astype(">f4"), "relu"), nn.activate(x, "relu"))
    assert np.array_equal(nn.activate(x.astype(np.float16), "relu"), nn.activate(x.astype(np.float16).astype(np.float32), "relu"))


def test_empty_batches():
    none = np.zeros((0, 4, 5, 5), np.float32)
    assert nn.conv2d(none, draw(3, 4, 3, 3)).shape == (0, 3, 3, 3)
    assert nn.conv2d(none, draw(4, 1, 3, 3), groups=4).shape == (0, 4, 3, 3)
    assert nn.pool2d(none, "max", (2, 2), stride=(2, 2)).shape == (0, 4, 2, 2)
    assert nn.adaptive_avg_pool2d(none, (1, 1)).shape == (0, 4, 1, 1)
    assert nn.activate(none, "silu").shape == none.shape
    assert nn.reduce_positions(none.reshape(0, 4, 25), "max").shape == (0, 4)


def test_packed_weights_of_another_kind_are_refused():
    weight, x = draw(8, 4, 3, 3), draw(1, 4, 6, 6)
    packed = nn.pack_conv2d(weight)
    assert nn.pack_conv2d(draw(4, 1, 3, 3), groups=4) is None
    for wrong in (nn.pack_conv2d(draw(8, 4, 1, 9)), nn.pack_dense(weight.reshape(8, -1)), packed[:-1], np.zeros_like(packed), packed[:0]):
        with pytest.raises(ValueError, match="packed was not made by pack_conv2d"):
            nn.conv2d(x, weight, packed=wrong)
    other_tier = packed.copy()
    other_tier.view(np.int32)[3] *= 2                       # lanes of the header
    with pytest.raises(ValueError, match="instruction-set tier"):
        nn.conv2d(x, weight, packed=other_tier)
    with pytest.raises(ValueError, match="packed was not made by pack_dense"):
        nn.dense(draw(2, 36), weight.reshape(8, -1), packed=packed)
    with pytest.raises(ValueError, match="packed"):
        nn.conv2d(x, draw(4, 1, 3, 3), groups=4, packed=packed)


def test_a_packed_copy_at_another_address_works():
    weight, x = draw(8, 4, 3, 3), draw(1, 4, 6, 6)
    moved = np.empty(nn.pack_conv2d(weight).size + 1, np.float32)[1:]
    moved[:] = nn.pack_conv2d(weight)
    assert np.array_equal(nn.conv2d(x, weight, packed=moved), nn.conv2d(x, weight))


ONE, KERNEL = np.zeros((1, 4, 5, 5), np.float32), np.zeros((8, 4, 3, 3), np.float32)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: nn.conv2d(ONE[0], KERNEL), ValueError, "x must have 4 dimensions"),
    (lambda: nn.conv2d(ONE, KERNEL[0]), ValueError, "weight must have 4 dimensions"),
    (lambda: nn.conv2d(ONE[:, :3], KERNEL), ValueError, "x has 3 channels, but weight and groups=1 ask for 4"),
    (lambda: nn.conv2d(ONE, KERNEL, groups=3), ValueError, "groups=3 must be at least 1 and divide the 8 outputs"),
    (lambda: nn.conv2d(ONE, KERNEL, np.zeros(7, np.float32)), ValueError, r"bias must have shape \(8,\), not \(7,\)"),
    (lambda: nn.conv2d(ONE, KERNEL, addend=ONE), ValueError, r"addend must have shape \(1, 8, 3, 3\), not \(1, 4, 5, 5\)"),
    (lambda: nn.conv2d(ONE, KERNEL, stride=(0, 1)), ValueError, r"stride \(0, 1\) and dilation \(1, 1\) must be at least 1"),
    (lambda: nn.conv2d(ONE, KERNEL, padding=(0, -1, 0, 0)), ValueError, r"padding \(0, -1, 0, 0\) must not be negative"),
    (lambda: nn.conv2d(ONE, KERNEL, dilation=(1, 3)), ValueError, r"3 x 3 with dilation \(1, 3\) reaches beyond a picture of 5 x 5"),
    (lambda: nn.conv2d(ONE, KERNEL, padding=(2**62, 0, 0, 0)), ValueError, "would not fit into memory"),
    (lambda: nn.conv2d(ONE.astype(np.float64), KERNEL), TypeError, "float64"),
    (lambda: nn.conv2d(ONE, KERNEL[:0]), ValueError, "weight is empty"),
    (lambda: nn.conv2d(ONE, KERNEL, activation="nelu"), ValueError, "activation='nelu': must be one of none, relu"),
    (lambda: nn.conv2d(ONE, KERNEL, n_threads=0), ValueError, "n_threads=0"),
    (lambda: nn.dense(ONE, KERNEL[0, 0]), ValueError, "weight must have shape"),
    (lambda: nn.dense(np.float32(1), KERNEL[0, 0]), ValueError, "x must have at least 1 dimensions"),
    (lambda: nn.dense(KERNEL[0, 0], KERNEL[0, 0], ONE[0, 0, 0]), ValueError, r"bias must have shape \(3,\)"),
    (lambda: nn.pool2d(ONE, "median", (2, 2), stride=(1, 1)), ValueError, "kind='median': must be one of max, mean"),
    (lambda: nn.pool2d(ONE, "max", (6, 6), stride=(1, 1)), ValueError, "windows of 6 x 6"),
    (lambda: nn.pool2d(ONE[0], "max", (2, 2), stride=(1, 1)), ValueError, "x must have 4 dimensions, not 3"),
    (lambda: nn.adaptive_avg_pool2d(ONE, (0, 1)), ValueError, r"size \(0, 1\)"),
    (lambda: nn.adaptive_avg_pool2d(ONE[:, :, :0], (1, 1)), ValueError, "the picture of 0 x 5"),
    (lambda: nn.add(ONE, ONE[:, :3]), ValueError, r"b must have shape \(1, 4, 5, 5\), not \(1, 3, 5, 5\)"),
    (lambda: nn.multiply(ONE, ONE[:, :, :1]), ValueError, r"b must have shape \(1, 4, 5, 5\)"),
    (lambda: nn.scale_shift(ONE, ONE[0, 0, 0], ONE[0, 0, 0]), ValueError, r"scale must have shape \(4,\), not \(5,\)"),
    (lambda: nn.reduce_positions(ONE, "mean"), ValueError, "x must have 3 dimensions"),
    (lambda: nn.reduce_positions(np.zeros((2, 3, 0), np.float32), "mean"), ValueError, "x has no positions"),
    (lambda: nn.reduce_positions(ONE[0], "sum"), ValueError, "kind='sum': must be one of mean, max, absmean, absmax"),
    (lambda: _core.conv2d(ONE, KERNEL, activation=99), ValueError, "activation a known number"),
    (lambda: _core.conv2d(ONE, KERNEL, n_threads=-1), ValueError, "n_threads must be at least 1"),
    (lambda: _core.activate(ONE, 99), ValueError, "activation a known number"),
    (lambda: _core.conv2d_pack(KERNEL[:4, :1], 4, np.zeros(9, np.float32)), ValueError, "depthwise"),
    (lambda: _core.conv2d_pack(KERNEL, 1, np.zeros(9, np.float32)), ValueError, "out must have shape"),
    (lambda: _core.dense_pack(KERNEL[0, 0], np.zeros(9, np.float32)), ValueError, "out must have shape"),
    (lambda: _core.fma_peak(-1.0), ValueError, "seconds must lie in"),
])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_tier_is_one_this_machine_has():
    info = build_info()
    assert info["tier"] in info["supported"] + info["by_name"]


def test_fma_peak_is_a_rate():
    assert 1e8 < _core.fma_peak(0.002) < 1e13                # 9e8 was seen under sanitizers
