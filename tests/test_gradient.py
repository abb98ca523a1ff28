"""Gradients: every operation against finite differences in float64, float32 against float64, whole networks, threads, messages."""

from __future__ import annotations

import numpy as np
import pytest
from network_cases import IMAGE, random_network, tiny_network
from test_operations import CASES

from semanticlens._errors import DataError, LayerNotFoundError, UnsupportedOperationError
from semanticlens._kernels import adjoint as kernels
from semanticlens._reference import adjoint as twin
from semanticlens._reference import nn as plain
from semanticlens._reference import transformer
from semanticlens.nn import Network, Node
from semanticlens.nn.ops import ACTIVATIONS, OPS, Call, Op, attributes, register_op

ALL = [(name, i) for name in CASES for i in range(len(CASES[name]))]
STEP = 1e-6


def inputs_of(net: Network, seed: int = 1, batch: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (batch, *net.input_shape)
    return rng.integers(0, 4, shape) if net.takes_ids else rng.standard_normal(shape).astype(np.float32)


def difference(run, point: np.ndarray, direction: np.ndarray) -> float:
    """Central difference of a number along a direction."""
    return (run(point + STEP * direction) - run(point - STEP * direction)) / (2 * STEP)


def corner_free(x: np.ndarray) -> np.ndarray:
    """The same values, a little away from the corners of piecewise linear operations (0, +-3, +-0.5, 0.25) and from ties."""
    for corner in (0.0, 3.0, -3.0, 0.5, -0.5, 0.25):
        x = np.where(np.abs(x - corner) < 0.01, corner + 0.02, x)
    return x.astype(np.float32)


@pytest.mark.parametrize(("name", "i"), ALL)
def test_every_operation_against_finite_differences(name: str, i: int) -> None:
    net = CASES[name][i]
    x = inputs_of(net)
    if not net.takes_ids:
        x = corner_free(x)
    wide = x if net.takes_ids else x.astype(np.float64)
    value = net.run(wide, dtype="float64")["output"]
    rng = np.random.default_rng(5)
    target = rng.standard_normal(value.shape)

    def number(at: np.ndarray) -> float:
        return float((net.run(at, dtype="float64")["output"] * target).sum())

    wrt = () if net.takes_ids else ("input",)
    if not wrt and not net.params:
        pytest.skip("takes whole numbers and has no parameters")
    result = net.gradient(wide, target, wrt=wrt, dtype="float64", params=True)
    if wrt:
        for _ in range(3):
            direction = rng.standard_normal(x.shape)
            got = float((result["input"] * direction).sum())
            assert got == pytest.approx(difference(number, wide, direction), rel=1e-5, abs=1e-6)
    check_parameters(net, wide, target, result.params, rng)
    narrow = net.gradient(x, target, wrt=wrt, params=True, n_threads=1)
    check_single(narrow, result)
    for n_threads in (2, 3, 8):
        again = net.gradient(x, target, wrt=wrt, params=True, n_threads=n_threads)
        for key in wrt:
            assert np.array_equal(again[key], narrow[key])
        for key, array in narrow.params.items():
            assert np.array_equal(again.params[key], array)


def check_parameters(net: Network, x: np.ndarray, target: np.ndarray, found, rng: np.random.Generator) -> None:
    from semanticlens.nn.segments import call_double

    for key, gradient in found.items():
        direction = rng.standard_normal(net.params[key].shape)
        numbers = []
        for sign in (1, -1):
            values = {"input": x.astype(np.float64)}
            for item in net._graph:
                call = call_double(net, item, [values[s].shape[1:] for s in item.node.inputs])
                for role, own in item.node.params.items():
                    if own == key and role not in ("mean", "var"):
                        call.params[role] += sign * STEP * direction
                values[item.node.name] = item.op.numpy(call, [values[s] for s in item.node.inputs])
            numbers.append(float((values[net.output] * target).sum()))
        expected = (numbers[0] - numbers[1]) / (2 * STEP)
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-6), key


def check_single(narrow, wide, limit: float = 2e-5) -> None:
    for key, array in narrow.arrays.items():
        assert array.dtype == np.float32
        assert np.abs(array - wide[key]).max() <= limit * max(1.0, np.abs(wide[key]).max()), key
    for key, array in narrow.params.items():
        assert array.dtype == np.float32
        assert np.abs(array - wide.params[key]).max() <= limit * max(1.0, np.abs(wide.params[key]).max()), key


def test_every_operation_has_an_adjoint_and_is_tested() -> None:
    missing = [name for name, op in OPS.items() if op.adjoint is None or ((op.params or op.optional) and op.parameter is None)]
    assert not [name for name in missing if name in CASES]
    assert {name for name, op in OPS.items() if op.adjoint is not None} <= set(CASES)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_slopes_of_activations(kind: str) -> None:
    x = np.linspace(-9, 9, 1003)
    slope = twin.activate(OPS[kind].numpy(None, [x]) if kind in kernels.FROM_OUTPUT else x, np.ones_like(x), kind)
    h = 1e-5
    expected = (OPS[kind].numpy(None, [x + h]) - OPS[kind].numpy(None, [x - h])) / (2 * h)
    away = np.min(np.abs(x[:, None] - np.array([0, 3, -3, 6])), axis=1) > 2 * h
    assert np.abs(slope - expected)[away].max() < 1e-7
    s = np.random.default_rng(0).standard_normal(x.size).astype(np.float32)
    saved = OPS[kind].numpy(None, [x]) if kind in kernels.FROM_OUTPUT else x
    got = kernels.activate(saved.astype(np.float32), s, kind, n_threads=1)
    exact = twin.activate(saved.astype(np.float32).astype(np.float64), s.astype(np.float64), kind)
    assert np.abs(got - exact).max() < 1e-5
    assert np.array_equal(kernels.activate(saved.astype(np.float32), s.copy(), kind, n_threads=3), got)


POOLS = [
    {"kernel": (2, 2), "stride": (2, 2)},
    {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)},
    {"kernel": (3, 2), "stride": (1, 3), "padding": (1, 0, 0, 1), "dilation": (2, 1)},
    {"kernel": (2, 2), "stride": (2, 2), "ceil_mode": True, "count_include_pad": False},
    {"kernel": (5, 5), "stride": (4, 3), "padding": (2, 2, 2, 2), "ceil_mode": True},
]


@pytest.mark.parametrize("form", POOLS)
@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize("size", [(8, 10), (11, 7), (6, 6)])
def test_pooling(form: dict, kind: str, size: tuple[int, int]) -> None:
    from semanticlens._kernels import nn

    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, (2, 3, *size)).astype(np.float32)          # with ties: the first tap takes all
    y = nn.pool2d(x, kind, **form)
    s = rng.integers(-8, 9, y.shape).astype(np.float32)
    got = kernels.pool2d(s, x, size, kind, n_threads=1, **form)
    assert np.allclose(got, twin.pool2d(s.astype(np.float64), x, size, kind, **form), rtol=1e-6, atol=1e-6)
    assert np.array_equal(kernels.pool2d(s, x, size, kind, n_threads=3, **form), got)
    if kind == "max":
        assert np.isclose(got.sum(), s.sum())


def test_a_nan_is_a_maximum() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    x[0, 0, 0, 0] = np.nan
    s = np.ones((1, 1, 2, 2), np.float32)
    assert kernels.pool2d(s, x, (4, 4), "max", (2, 2), stride=(2, 2))[0, 0, 0].tolist() == [1, 0, 0, 0]
    assert kernels.pool2d(np.ones((1, 1, 1, 1), np.float32), x, (4, 4), "max", (4, 4), stride=(4, 4))[0, 0, 0, 0] == 1


# ---- networks -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed: int) -> None:
    net = random_network(seed)
    x = inputs_of(net, seed)
    value = net(x)
    target = np.random.default_rng(seed).standard_normal(value.shape)
    inner = [item.name for item in net.layers if item.name != net.output]
    depends = [name for name in inner if ancestors(net, net.output, name)][:3]
    wrt = (["input"] if ancestors(net, net.output, "input") else []) + depends
    wide = net.gradient(x, target, wrt=wrt, params=True, dtype="float64")
    narrow = net.gradient(x, target, wrt=wrt, params=True)
    assert np.array_equal(narrow.value, value)
    check_single(narrow, wide, 2e-4)
    arrays = [*narrow.arrays.values()]
    assert not any(np.shares_memory(a, b) for k, a in enumerate(arrays) for b in arrays[:k])
    alone = net.gradient(x[1:], target[1:], wrt=wrt)
    for name in wrt:
        assert np.array_equal(alone[name], narrow[name][1:])
        assert np.array_equal(net.gradient(x, target, wrt=name)[name], narrow[name])


def ancestors(net: Network, output: str, name: str) -> bool:
    """Whether ``output`` depends on ``name``."""
    needed = {output}
    for node in reversed(net.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return name in needed


def test_the_everyday_case() -> None:
    net = tiny_network()
    x = inputs_of(net)
    before = x.copy()
    r = net.gradient(x, [1, 3], wrt=["input", "block", "stem"])
    assert {name: a.shape for name, a in r.arrays.items()} == {"input": x.shape, "block": (2, 6, 7, 6), "stem": (2, 6, 7, 6)}
    assert np.array_equal(x, before)
    one_hot = np.zeros((2, 4))
    one_hot[[0, 1], [1, 3]] = 1
    assert np.array_equal(net.gradient(x, one_hot)["input"], r["input"])
    assert np.array_equal(net.gradient(x, lambda y: one_hot)["input"], r["input"])
    assert np.array_equal(net.gradient(x[:1], 1)["input"], r["input"][:1])
    pooled = net.gradient(x, np.ones((2, 6, 1, 1), np.float32), of="pool", wrt="block")["block"]
    assert np.allclose(pooled, 1 / 42)
    assert 0 < r.peak_bytes < 100_000


def test_peak_is_what_the_walk_holds() -> None:
    nodes = [Node("a", "relu"), *(Node(f"r{i}", "sigmoid", "a" if i == 0 else f"r{i - 1}") for i in range(6))]
    net = Network(nodes, {}, input_shape=(1000,))
    x = inputs_of(net)
    r = net.gradient(x, np.ones((2, 1000)))
    assert 7 * 8000 <= r.peak_bytes <= 11 * 8000                       # seven kept results, and a gradient or two


def test_messages() -> None:
    net = tiny_network()
    x = inputs_of(net)
    with pytest.raises(ValueError, match="target is missing"):
        net.gradient(x)
    with pytest.raises(ValueError, match=r"target=4 is out of range: the value has classes 0 to 3"):
        net.gradient(x, 4)
    with pytest.raises(ValueError, match=r"target=-1 is out of range"):
        net.gradient(x, [0, -1])
    with pytest.raises(ValueError, match="3 class numbers for 2 samples"):
        net.gradient(x, [0, 1, 2])
    with pytest.raises(ValueError, match=r"target has shape \(2, 3\), the value that is differentiated has \(2, 4\)"):
        net.gradient(x, np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"what target returned has shape"):
        net.gradient(x, lambda y: y[0])
    with pytest.raises(ValueError, match="target holds NaN"):
        net.gradient(x, np.full((2, 4), np.nan))
    with pytest.raises(TypeError, match="must be whole class numbers or real numbers"):
        net.gradient(x, np.array(["a", "b"]))
    with pytest.raises(ValueError, match=r"class number, but the value has shape \(2, 6, 7, 6\)"):
        net.gradient(x, 0, of="block")
    with pytest.raises(LayerNotFoundError, match="blok"):
        net.gradient(x, 0, wrt="blok")
    with pytest.raises(ValueError, match="'conv2' does not depend on it"):
        net.gradient(x, np.ones((2, 6, 7, 6)), of="conv2", wrt="fc")
    with pytest.raises(ValueError, match="wrt is empty"):
        net.gradient(x, 0, wrt=())
    with pytest.raises(ValueError, match="dtype='float16'"):
        net.gradient(x, 0, dtype="float16")
    with pytest.raises(DataError, match="NaN"):
        net.gradient(np.full_like(x, np.nan), 0)
    with pytest.raises(TypeError, match="float32"):
        net.gradient(x.astype(np.float64), 0)


def test_an_operation_without_an_adjoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "step", Op("step", numpy=lambda call, xs: np.heaviside(xs[0], 0).astype(xs[0].dtype)))
    net = Network([Node("a", "relu"), Node("hard", "step", "a"), Node("y", "sigmoid", "hard")], {}, input_shape=(5,))
    x = inputs_of(net)
    with pytest.raises(UnsupportedOperationError, match=r"node 'hard': operation 'step' has no adjoint"):
        net.gradient(x, 1)
    assert net.gradient(x, 1, wrt="hard")["hard"].shape == x.shape      # behind it: nothing to pass


def test_an_operation_of_ones_own() -> None:
    name = "cube of the gradient tests"
    register_op(
        Op(
            name,
            numpy=lambda call, xs: xs[0] ** 3,
            adjoint=lambda call, xs, out, grad, needed, n_threads: [3 * xs[0] ** 2 * grad],
            keeps=frozenset({"inputs"}),
        )
    )
    try:
        net = Network([Node("y", name)], {}, input_shape=(5,))
        x = inputs_of(net)
        assert np.allclose(net.gradient(x, np.ones((2, 5)))["input"], 3 * x**2)
    finally:
        del OPS[name]


def test_a_wrong_adjoint_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        OPS, "odd", Op("odd", numpy=lambda call, xs: xs[0], adjoint=lambda call, xs, out, grad, needed, n: [grad[:, :1]])
    )
    net = Network([Node("y", "odd")], {}, input_shape=(5,))
    with pytest.raises(ValueError, match=r"node 'y': the adjoint of 'odd' gave float32 of shape \(2, 1\)"):
        net.gradient(inputs_of(net), 1)


def test_inputs_of_the_image_are_those_of_the_graph() -> None:
    assert tiny_network().input_shape == IMAGE


# ---------------------------------------------------------------- softmax, normalisations, attention against their twins


def adjoint_of(name: str, xs: list[np.ndarray], grad: np.ndarray, params: dict[str, np.ndarray], **attrs: object) -> tuple[list, dict]:
    """Input and parameter gradients of a table entry, the same for every thread count, inputs untouched."""
    op, found = OPS[name], []
    call = Call(attributes(op, attrs, "y"), params)
    out = op.numpy(call, xs)
    before = [x.copy() for x in (*xs, grad)]
    for n in (1, 2, 3, 8):
        by_inputs = op.adjoint(call, xs, out, grad, [True] * len(xs), n)
        found.append((by_inputs, {} if op.parameter is None or not params else op.parameter(call, xs, out, grad, n)))
    for others in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(others[0], found[0][0], strict=True))
        assert all(np.array_equal(others[1][key], value) for key, value in found[0][1].items())
    assert all(np.array_equal(a, b) for a, b in zip(before, (*xs, grad), strict=True))
    return found[0]


def near(got: np.ndarray, want: np.ndarray) -> None:
    assert got.dtype == np.float32 or got.dtype == np.float64
    limit = 1e-12 if got.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(got, want, rtol=0, atol=limit * np.abs(want).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 5, 33])
def test_adjoints_of_rows_equal_their_twins(dtype: type, width: int) -> None:
    rng = np.random.default_rng(width)
    x, grad = (rng.standard_normal((2, 7, width)).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(width).astype(dtype) for _ in range(2))
    near(adjoint_of("softmax", [x], grad, {})[0][0], twin.softmax(plain.softmax(x), grad))
    for name, params in (("layer_norm", {"weight": weight, "bias": bias}), ("rms_norm", {"weight": weight}), ("layer_norm", {})):
        (got,), by_params = adjoint_of(name, [x], grad, params, eps=1e-3)
        wide = x.astype(np.float64), grad.astype(np.float64), params.get("weight")
        want = twin.norm_rows(*wide, eps=1e-3, centred=name == "layer_norm")
        np.testing.assert_allclose(got, want[0], rtol=0, atol=(1e-12 if dtype == np.float64 else 1e-5) * np.abs(grad).max())
        for role, value in zip(("weight", "bias"), want[1:], strict=True):
            if role in params and np.abs(value).max() > 0:
                near(by_params[role], value)
    channels = rng.standard_normal((2, 6, width)).astype(dtype)
    factors, slopes = rng.standard_normal(6).astype(dtype), rng.standard_normal((2, 6, width)).astype(dtype)
    (got,), _ = adjoint_of("group_norm", [channels], slopes, {"weight": factors, "bias": factors}, groups=3, eps=1e-3)
    near(got, twin.group_norm(channels.astype(np.float64), slopes, 3, factors, eps=1e-3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_adjoint_of_attention_equals_its_twin(dtype: type, causal: bool, biased: bool) -> None:
    rng = np.random.default_rng(3)
    q, k, v, grad = (rng.standard_normal((2, 3, n, d)).astype(dtype) for n, d in ((6, 4), (9, 4), (9, 5), (6, 5)))
    params = {"bias": rng.standard_normal((3, 6, 9)).astype(dtype)} if biased else {}
    got, by_params = adjoint_of("attention", [q, k, v], grad, params, causal=causal, scale=0.4)
    want = twin.attention(q, k, v, grad, params.get("bias"), scale=0.4, causal=causal)
    for a, b in zip(got, want, strict=False):
        near(a, b)
    if biased:
        near(by_params["bias"], want[3].sum(axis=0))


def test_twins_agree_with_finite_differences() -> None:
    """The twins themselves: along a direction, against central differences of the plain forms."""
    rng = np.random.default_rng(4)
    x, s, direction, weight = (rng.standard_normal((3, 5)) for _ in range(4))
    forms = {
        "softmax": (plain.softmax, twin.softmax(plain.softmax(x), s)),
        "norm": (lambda at: transformer.norm_rows(at, weight[0], None, eps=0.1), twin.norm_rows(x, s, weight[0], eps=0.1)[0]),
        "rms": (
            lambda at: transformer.norm_rows(at, None, None, eps=0.1, centred=False),
            twin.norm_rows(x, s, eps=0.1, centred=False)[0],
        ),
        "attention": (
            lambda at: transformer.attention(at, x, x, scale=0.5),
            twin.attention(x, x, x, s, scale=0.5)[0],
        ),
    }
    for name, (forward, gradient) in forms.items():
        along = difference(lambda at, forward=forward: float((forward(at) * s).sum()), x, direction)
        assert abs(along - float((gradient * direction).sum())) < 1e-7, name
