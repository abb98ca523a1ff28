"""Network kernels: twins, edges, epilogues, packing, threads, untouched inputs, messages."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens import build_info
from semanticlens._kernels import nn
from semanticlens._reference import nn as twin

SIZES = [1, 2, 3, 7, 15, 16, 17, 31, 33, 64, 97]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(y, expected, scale):
    """Within the rounding of a float32 sum: relative to sum |a||b|, not to the result, which may cancel."""
    assert y.dtype == np.float32
    assert y.shape == expected.shape
    assert np.abs(y - expected).max(initial=0) <= 2e-6 * max(float(np.max(scale, initial=0)), 1e-3)


def conv_both(x, w, bias=None, addend=None, **options):
    act = options.pop("activation", "none")
    exact = twin.conv2d(x.astype(np.float64), w.astype(np.float64), None if bias is None else bias.astype(np.float64), **options)
    scale = twin.conv2d(np.abs(x).astype(np.float64), np.abs(w).astype(np.float64), **options)
    if addend is not None:
        exact, scale = exact + addend, scale + np.abs(addend)
    return twin.activate(exact, act), scale + 1


CONVS = [
    # C, K, groups, kernel, stride, padding, dilation, H, W
    (3, 32, 1, (3, 3), (2, 2), (0, 0, 1, 1), (1, 1), 33, 31),
    (16, 24, 1, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 14, 14),
    (16, 24, 1, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 15, 13),
    (8, 8, 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 7, 7),
    (350, 5, 1, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 3, 5),           # K crosses the block of 320
    (40, 13, 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 9, 10),
    (5, 7, 1, (5, 3), (2, 1), (2, 0, 1, 3), (1, 2), 17, 19),
    (6, 4, 2, (3, 3), (1, 2), (1, 1, 1, 1), (2, 1), 11, 12),
    (12, 12, 12, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 14, 14),       # depthwise
    (12, 12, 12, (3, 3), (2, 2), (0, 0, 1, 1), (1, 1), 15, 14),
    (5, 5, 5, (5, 5), (2, 2), (2, 2, 2, 2), (1, 1), 28, 28),
    (5, 5, 5, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 9, 8),
    (4, 8, 4, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 8, 8),             # two outputs a group
    (3, 64, 1, (7, 7), (2, 2), (3, 3, 3, 3), (1, 1), 29, 30),
    (1, 1, 1, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, 1),
    (2, 3, 1, (4, 4), (4, 4), (0, 0, 0, 0), (1, 1), 16, 16),
]


@pytest.mark.parametrize("case", CONVS, ids=str)
@pytest.mark.parametrize("activation", ["none", "relu6"])
def test_conv2d_equals_the_twin(case, activation):
    C, K, groups, kernel, stride, padding, dilation, H, W = case
    x, w, bias = normal(3, C, H, W), normal(K, C // groups, *kernel, seed=1), normal(K, seed=2)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "activation": activation}
    exact, scale = conv_both(x, w, bias, **options)
    addend = normal(*exact.shape, seed=3)
    check(nn.conv2d(x, w, bias, **options), exact, scale)
    with_addend, scale = conv_both(x, w, bias, addend, **options)
    packed = nn.pack_conv2d(w, groups=groups)
    y = nn.conv2d(x, w, bias, addend=addend, packed=packed, **options)
    check(y, with_addend, scale)
    out = addend.copy()                               # the residual branch may be the result's own memory
    assert nn.conv2d(x, w, bias, addend=out, out=out, packed=packed, **options) is out
    assert np.array_equal(out, y)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_conv2d_at_random(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    groups = data.draw(st.sampled_from([1, 1, 1, 2, 3]))
    C, K = groups * draw(1, 6), groups * draw(1, 7)
    kernel, stride, dilation = (draw(1, 4), draw(1, 4)), (draw(1, 3), draw(1, 3)), (draw(1, 2), draw(1, 2))
    padding = tuple(draw(0, 3) for _ in range(4))
    H, W = (max(1, (k - 1) * d + 1 - sum(pad)) + draw(0, 20)
            for k, d, pad in zip(kernel, dilation, ((padding[0], padding[2]), (padding[1], padding[3])), strict=True))
    x, w = normal(draw(1, 3), C, H, W), normal(K, C // groups, *kernel, seed=1)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    exact, scale = conv_both(x, w, **options)
    check(nn.conv2d(x, w, **options), exact, scale)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [
    (1, 1, 1), (1, 5, 3), (1, 1280, 1000), (2, 33, 17), (3, 320, 16), (4, 321, 31), (5, 640, 33), (8, 97, 97), (17, 700, 65), (64, 64, 64),
    (0, 3, 4),
])
def test_dense_equals_the_twin(rows, inputs, outputs):
    x, w, bias = normal(rows, inputs), normal(outputs, inputs, seed=1), normal(outputs, seed=2)
    exact = twin.dense(x.astype(np.float64), w.astype(np.float64), bias.astype(np.float64), activation="relu")
    scale = np.abs(x).astype(np.float64) @ np.abs(w).T.astype(np.float64) + 1
    y = nn.dense(x, w, bias, activation="relu")
    check(y, exact, scale)
    assert np.array_equal(nn.dense(x, w, bias, activation="relu", packed=nn.pack_dense(w)), y)
    if rows > 1:                                      # a sample's result does not depend on its batch
        assert np.array_equal(nn.dense(x[1:2], w, bias, activation="relu"), y[1:2])


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "H", "W"), [
    ((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), 14, 14),
    ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 15, 17),
    ((3, 3), (2, 2), (0, 0, 0, 0), (1, 1), 13, 14),
    ((3, 3), (1, 1), (1, 1, 1, 1), (2, 2), 9, 8),
    ((5, 2), (3, 1), (2, 0, 1, 1), (1, 1), 11, 6),
    ((7, 7), (1, 1), (0, 0, 0, 0), (1, 1), 7, 7),
])
@pytest.mark.parametrize(("ceil_mode", "count_include_pad"), list(itertools.product([False, True], repeat=2)))
def test_pooling_equals_the_twin(kernel, stride, padding, dilation, H, W, ceil_mode, count_include_pad):
    x = normal(2, 3, H, W)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    np.testing.assert_array_equal(nn.pool2d(x, "max", kernel, **options), twin.pool2d(x, "max", kernel, **options))
    np.testing.assert_allclose(nn.pool2d(x, "mean", kernel, **options), twin.pool2d(x, "mean", kernel, **options), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (3, 5)])
def test_adaptive_pooling_equals_the_twin(size):
    x = normal(2, 5, 13, 9)
    np.testing.assert_allclose(nn.adaptive_avg_pool2d(x, size), twin.adaptive_avg_pool2d(x, size), atol=1e-6)


@pytest.mark.parametrize("kind", sorted(twin.ACTIVATIONS))
def test_activations(kind):
    x = np.concatenate([np.linspace(-110, 110, 4001), [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40]]).astype(np.float32)
    finite = np.isfinite(x)
    with np.errstate(invalid="ignore", over="ignore"):
        exact = twin.activate(x.astype(np.float64), kind)
    y = nn.activate(x, kind)
    np.testing.assert_allclose(y[finite], exact[finite], rtol=1e-6, atol=1e-30 if kind in ("sigmoid", "silu") else 0)
    assert np.isnan(y[-3])
    assert y[-5] == {"sigmoid": 1, "hardsigmoid": 1, "relu6": 6}.get(kind, np.inf)
    inplace = x.copy()
    assert nn.activate(inplace, kind, out=inplace) is inplace
    assert np.array_equal(inplace, y, equal_nan=True)


@pytest.mark.parametrize("n", SIZES)
def test_elementwise_equals_the_twins(n):
    a, b, scale, shift = normal(2, 3, n, 5), normal(2, 3, n, 5, seed=1), normal(3, seed=2), normal(3, seed=3)
    np.testing.assert_array_equal(nn.add(a, b, activation="relu"), twin.add(a, b, activation="relu"))
    np.testing.assert_array_equal(nn.multiply(a, b), a * b)
    gate = normal(2, 3, 1, 1, seed=4)
    np.testing.assert_array_equal(nn.multiply(a, gate), a * gate)
    expected = twin.scale_shift(a, scale, shift, activation="relu6")
    np.testing.assert_allclose(nn.scale_shift(a, scale, shift, activation="relu6"), expected, atol=1e-6)
    np.testing.assert_allclose(nn.softmax(a), twin.softmax(a), rtol=2e-6, atol=1e-12)
    for kind in ("mean", "max", "absmean", "absmax"):
        x = a.reshape(2, 3, -1)
        np.testing.assert_allclose(nn.reduce_positions(x, kind), twin.reduce_positions(x, kind), rtol=1e-6, atol=1e-7)


def test_nan_and_infinity_stay_where_they_belong():
    x, w = normal(2, 3, 8, 8), normal(4, 3, 3, 3, seed=1)
    x[1, 2, 5, 5] = np.nan
    y = nn.conv2d(x, w, padding=(1, 1, 1, 1), activation="relu")
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1, :, 4:7, 4:7]).all()
    y[1, :, 4:7, 4:7] = 0
    assert np.isfinite(y).all()
    assert np.isnan(nn.pool2d(x, "max", (2, 2), stride=(2, 2))[1, 2, 2, 2])
    assert np.isnan(nn.reduce_positions(x.reshape(2, 3, 64), "max")[1, 2])
    d = normal(3, 40)
    d[1, 7] = np.inf
    out = nn.dense(d, np.abs(normal(5, 40, seed=1)))
    assert np.isposinf(out[1]).all()
    assert np.isfinite(out[[0, 2]]).all()


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_bitwise_equal_for_every_thread_count(n_threads):
    for case in CONVS:
        C, K, groups, kernel, stride, padding, dilation, H, W = case
        x, w = normal(2, C, H, W), normal(K, C // groups, *kernel, seed=1)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        assert np.array_equal(nn.conv2d(x, w, n_threads=n_threads, **options), nn.conv2d(x, w, n_threads=1, **options)), case
    big, weight = normal(70, 650), normal(300, 650, seed=1)
    assert np.array_equal(nn.dense(big, weight, n_threads=n_threads), nn.dense(big, weight, n_threads=1))
    many = normal(4, 16, 70, 70)
    for call in (lambda t: nn.activate(many, "silu", n_threads=t), lambda t: nn.softmax(many, n_threads=t),
                 lambda t: nn.reduce_positions(many.reshape(4, 16, -1), "mean", n_threads=t),
                 lambda t: nn.pool2d(many, "mean", (3, 3), stride=(2, 2), n_threads=t),
                 lambda t: nn.adaptive_avg_pool2d(many, (3, 2), n_threads=t)):
        assert np.array_equal(call(n_threads), call(1))


def test_a_sample_does_not_depend_on_its_batch():
    x, w = normal(5, 6, 20, 20), normal(9, 6, 3, 3, seed=1)
    together = nn.conv2d(x, w, padding=(1, 1, 1, 1))
    for i in range(5):
        assert np.array_equal(nn.conv2d(x[i : i + 1], w, padding=(1, 1, 1, 1)), together[i : i + 1])


def test_inputs_are_untouched_and_strides_do_not_matter():
    x, w = normal(2, 9, 9, 4), normal(5, 4, 3, 3, seed=1)
    view = x.transpose(0, 3, 1, 2)                    # channels last, seen as channels first
    before = x.copy(), w.copy()
    y = nn.conv2d(view, w)
    assert np.array_equal(x, before[0])
    assert np.array_equal(w, before[1])
    assert np.array_equal(y, nn.conv2d(np.ascontiguousarray(view), w))


def test_empty_batches_are_legal():
    assert nn.conv2d(normal(0, 3, 8, 8), normal(4, 3, 3, 3)).shape == (0, 4, 6, 6)
    assert nn.pool2d(normal(0, 3, 8, 8), "max", (2, 2), stride=(2, 2)).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: nn.conv2d(normal(1, 3, 8, 8), normal(4, 2, 3, 3)), ValueError, "channels|weight"),
    (lambda: nn.conv2d(normal(1, 3, 2, 2), normal(4, 3, 3, 3)), ValueError, "smaller|output|window|kernel"),
    (lambda: nn.conv2d(normal(1, 3, 8, 8), normal(4, 3, 3, 3), stride=(0, 1)), ValueError, "stride"),
    (lambda: nn.conv2d(normal(1, 3, 8, 8), normal(4, 3, 3, 3), groups=2), ValueError, "group"),
    (lambda: nn.conv2d(normal(1, 3, 8, 8), normal(4, 3, 3, 3), normal(3)), ValueError, "bias"),
    (lambda: nn.conv2d(normal(1, 3, 8, 8).astype(np.float64), normal(4, 3, 3, 3)), TypeError, "float"),
    (lambda: nn.conv2d(normal(1, 3, 8, 8), normal(4, 3, 3, 3), activation="softplus"), ValueError, "softplus"),
    (lambda: nn.conv2d(normal(1, 3, 8, 8), normal(4, 3, 3, 3), out=np.zeros((1, 4, 5, 6), np.float32)), ValueError, "out"),
    (lambda: nn.conv2d(normal(1, 3, 8, 8), normal(4, 3, 3, 3), packed=normal(500)), ValueError, "pack"),
    (lambda: nn.dense(normal(2, 3), normal(4, 5)), ValueError, "weight|inputs|3"),
    (lambda: nn.dense(normal(20, 5), normal(4, 5), packed=nn.pack_dense(normal(40, 5))), ValueError, "pack"),
    (lambda: nn.pool2d(normal(1, 1, 4, 4), "median", (2, 2), stride=(2, 2)), ValueError, "median"),
    (lambda: nn.add(normal(2, 3), normal(3, 2)), ValueError, "shape"),
    (lambda: nn.conv2d(normal(1, 3, 8, 8), normal(4, 3, 3, 3), n_threads=0), ValueError, "n_threads"),
])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_tier_is_one_this_machine_has():
    info = build_info()
    assert info["tier"] in info["supported"]
