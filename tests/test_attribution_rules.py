"""The rules of relevance propagation: closed forms, the slow matrix form on every linear layer, and what must hold for all."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from attribution_cases import BATCH, FORMS, condition_of, everywhere, of_twin, relevance, resnet_like, single
from hypothesis import given, settings
from hypothesis import strategies as st

import semanticlens as sl
from semanticlens import rules
from semanticlens.attribution import linear
from semanticlens.attribution.attribute import prepare
from semanticlens.attribution.composites import PRESETS, Composite
from semanticlens.attribution.walk import Walk, run_forward
from semanticlens.nn import Network, Node

Stabiliser = rules.Stabiliser
EXACT, SINGLE = 1e-9, 1e-5
RULES: dict[str, rules.Rule] = {
    "epsilon": rules.Epsilon(),
    "epsilon 0.1": rules.Epsilon(0.1),
    "epsilon without bias": rules.Epsilon(0.1, zero_bias=True),
    "norm": rules.Norm(),
    "z plus": rules.ZPlus(),
    "z plus without bias": rules.ZPlus(zero_bias=True),
    "excitation": rules.ExcitationBackprop(),
    "alpha 2 beta 1": rules.AlphaBeta(2, 1),
    "alpha 1 beta 0": rules.AlphaBeta(1, 0),
    "alpha 3 beta 2": rules.AlphaBeta(3, 2, 0.1, zero_bias=True),
    "gamma": rules.Gamma(),
    "gamma 2": rules.Gamma(2.0, 0.1),
    "gamma without bias": rules.Gamma(0.5, zero_bias=True),
    "plain gamma": rules.PlainGamma(),
    "plain gamma without bias": rules.PlainGamma(1.5, zero_bias=True),
    "box": rules.ZBox(-5.0, 4.0),
    "box per channel": rules.ZBox(-5.0, 4.0, 0.1),
    "w square": rules.WSquare(),
    "w square without bias": rules.WSquare(zero_bias=True),
    "flat": rules.Flat(),
    "clipped": rules.ZPlus(Stabiliser(0.5, clip=True)),
    "clipped epsilon": rules.Epsilon(Stabiliser(0.5, clip=True)),
    "clipped gamma": rules.Gamma(0.25, Stabiliser(0.5, clip=True)),
    "scaled": rules.ZPlus(Stabiliser(0.25, norm_scale=True)),
    "scaled gamma": rules.Gamma(0.25, Stabiliser(0.25, norm_scale=True)),
    "scaled epsilon": rules.Epsilon(Stabiliser(0.25, norm_scale=True)),
    "scaled and clipped": rules.AlphaBeta(2, 1, Stabiliser(0.25, clip=True, norm_scale=True)),
}
INPUTS = ("signed", "not negative")


def case(form: str, bias: bool, kind: str, rule: str) -> tuple[Network, rules.Rule, np.ndarray, np.ndarray]:
    """A layer, the rule, an input and the relevance of the result."""
    net = single(form, bias)
    rng = np.random.default_rng([len(form), len(kind)])
    x = rng.standard_normal((BATCH, *net.input_shape)).astype(np.float32)
    if kind != "signed":
        x = np.maximum(x, 0)
    r = rng.standard_normal((BATCH, *net.output_shape)).astype(np.float32)
    chosen = RULES[rule]
    if rule == "box per channel":
        low = np.linspace(-6, -4, net.input_shape[0]).reshape(1, -1, *[1] * (x.ndim - 2))
        chosen = rules.ZBox(low, -low + 1, 0.1)
    return net, chosen, x, r


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_on_every_layer_is_the_matrix_form(form: str, rule: str) -> None:
    for bias in (True, False):
        for kind in INPUTS:
            net, chosen, x, r = case(form, bias, kind, rule)
            if isinstance(chosen, rules.PlainGamma) and kind == "signed":
                with pytest.raises(ValueError, match="not negative"):
                    relevance(net, chosen, x, r)
                continue
            r = value_like(net, x, r)
            want = of_twin(net, chosen, x, r)
            got = relevance(net, chosen, x.astype(np.float64), r.astype(np.float64), dtype="float64")
            np.testing.assert_allclose(
                got, want, rtol=EXACT, atol=EXACT * np.abs(want).max(), err_msg=f"bias {bias}, {kind}"
            )


def value_like(net: Network, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Relevance that shrinks with the value, as behind a product with it: quotients then stay in range and errors mean something."""
    z = net.run(x.astype(np.float64), dtype="float64")["output"]
    return (r * z).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_float32_is_float64(form: str, rule: str) -> None:
    """Where a denominator is at least a fiftieth of its terms: below that float32 has lost digits before any rule divides."""
    for kind in INPUTS:
        net, chosen, x, r = case(form, True, kind, rule)
        if isinstance(chosen, rules.PlainGamma) and kind == "signed":
            continue
        r = value_like(net, x, r) * (condition_of(net, chosen, x) >= 0.02).astype(np.float32)
        assert np.count_nonzero(r) >= r.size / 3
        want = relevance(net, chosen, x.astype(np.float64), r.astype(np.float64), dtype="float64")
        got = relevance(net, chosen, x, r, n_threads=1)
        assert got.dtype == np.float32
        assert np.abs(got - want).max() <= SINGLE * np.abs(want).max(), kind


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", ["padded", "grouped, strided", "depthwise", "dense"])
def test_threads_and_inputs(form: str, rule: str) -> None:
    net, chosen, x, r = case(form, True, "not negative", rule)
    before = x.tobytes(), r.tobytes(), {key: value.tobytes() for key, value in net.params.items()}
    first = relevance(net, chosen, x, r, n_threads=1)
    for n_threads in (1, 2, 3, 8):
        assert relevance(net, chosen, x, r, n_threads=n_threads).tobytes() == first.tobytes()
    assert before == (x.tobytes(), r.tobytes(), {key: value.tobytes() for key, value in net.params.items()})


def test_threads_on_a_network_that_is_large_enough_for_them() -> None:
    net = resnet_like(size=48)
    x = np.random.default_rng(0).standard_normal((3, 3, 48, 48)).astype(np.float32)
    for composite in (*PRESETS, Composite.epsilon_gamma_box(-5.0, 5.0)):
        first = sl.attribute(net, x, 1, composite=composite, record="b1.sum", n_threads=1)
        for n_threads in (2, 3, 8):
            again = sl.attribute(net, x, 1, composite=composite, record="b1.sum", n_threads=n_threads)
            assert np.array_equal(again.input, first.input)
            assert np.array_equal(again["b1.sum"], first["b1.sum"])


# ---------------------------------------------------------------- several rows of relevance for each sample


def rows_of(
    net: Network, composite: Composite, x: np.ndarray, r: np.ndarray, names: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Walks with several rows per sample, put in by a hook at the output as conditions are."""
    route = prepare(net, x.shape[1:], composite).route(net.output, ("input", *names), frozenset({net.output}))
    values = run_forward(net, route, x, 2)
    walk = Walk(net, values, route.asked, 2, hooks={net.output: lambda given: r})
    walk.back({net.output: np.ones_like(values.arrays[net.output])})
    return walk.found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", ["padded", "depthwise", "dense"])
def test_rows_of_one_sample_are_walks_of_their_own(form: str, rule: str) -> None:
    net, chosen, x, _ = case(form, True, "not negative", rule)
    r = np.random.default_rng(1).standard_normal((3 * BATCH, *net.output_shape)).astype(np.float32)
    for dtype in (np.float32, np.float64):
        got = rows_of(net, everywhere(chosen), x.astype(dtype), r.astype(dtype))["input"]
        for row in range(3):
            own = relevance(net, chosen, x.astype(dtype), r[row::3].astype(dtype), dtype=np.dtype(dtype).name)
            limit = (1e-6 if dtype == np.float32 else 1e-13) * np.abs(own).max()
            assert np.abs(got[row::3] - own).max() <= limit


@pytest.mark.parametrize("name", [*PRESETS, "epsilon_gamma_box"])
def test_rows_through_a_network(name: str) -> None:
    net = resnet_like()
    composite = Composite.epsilon_gamma_box(-5.0, 5.0) if name == "epsilon_gamma_box" else PRESETS[name]()
    x = np.random.default_rng(3).standard_normal((2, 3, 12, 12))
    r = np.random.default_rng(4).standard_normal((8, 5))
    got = rows_of(net, composite, x, r, ("b1.sum", "b2.short"))
    for row in range(4):
        own = sl.attribute(net, x, r[row::4], composite=composite, record=["b1.sum", "b2.short"], dtype="float64")
        for key, value in {"input": own.input, **own.arrays}.items():
            np.testing.assert_allclose(got[key][row::4], value, rtol=1e-9, atol=1e-12 * np.abs(value).max())


# ---------------------------------------------------------------- how many products


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("rule", RULES)
def test_products_are_what_the_table_says(kind: str, rule: str) -> None:
    """An engine that computed a product more would be slower than it says; one fewer would be another rule."""
    for form in ("3 x 3", "dense"):
        net, chosen, x, r = case(form, True, kind, rule)
        if isinstance(chosen, rules.PlainGamma) and kind == "signed":
            continue
        net = Network(net.nodes, net.params, input_shape=net.input_shape)  # that has not run yet
        composite = everywhere(chosen)
        first = sl.attribute(net, x, r, composite=composite).products
        second = sl.attribute(net, x, r, composite=composite).products
        cost = linear.COST[type(chosen)][kind == "signed"]
        if isinstance(chosen, rules.Gamma) and (chosen.gamma > 1 or chosen.stabiliser.norm_scale):
            cost = (4, 8)[kind == "signed"]  # by halves: see linear._gamma
        if isinstance(chosen, rules.AlphaBeta) and chosen.beta == 0:
            cost //= 2  # ZPlus by another name
        if isinstance(chosen, rules.Epsilon) and chosen.zero_bias:
            cost += 1  # the denominator is not the layer's result
        assert first.forward + first.adjoint == cost
        fixed = isinstance(
            chosen, (rules.WSquare, rules.Flat)
        )  # their denominators depend on the layer alone and are kept
        assert second.forward + second.adjoint == cost - fixed


# ---------------------------------------------------------------- closed forms


def chain(*layers: Any, shape: tuple[int, ...] = (3,)) -> Network:
    """Dense layers without bias (arrays) and operations (names) one after another."""
    nodes, params, last = [], {}, "input"
    for i, layer in enumerate(layers):
        if isinstance(layer, str):
            nodes.append(Node(f"n{i}", layer, last))
        else:
            params[f"w{i}"] = np.array(layer, np.float32)
            nodes.append(Node(f"n{i}", "dense", last, {"weight": f"w{i}"}))
        last = f"n{i}"
    return Network(nodes, params, input_shape=shape)


X123 = np.array([[1.0, 2.0, 3.0]])
ZERO = rules.Epsilon(0.0)


def exact(net: Network, composite: Composite, x: np.ndarray, target: Any = 0) -> sl.attribution.Attribution:
    return sl.attribute(net, x, target, composite=composite, dtype="float64")


def test_closed_form_1_epsilon() -> None:
    net = chain(np.full((3, 3), 2), "relu", np.full((1, 3), 3))
    found = exact(net, everywhere(dense=ZERO, relu=rules.Pass()), X123)
    assert found.output[0, 0] == 108
    np.testing.assert_allclose(found.input, [[18, 36, 54]], rtol=1e-14)


def test_closed_form_2_gamma_alpha1_beta0_identity() -> None:
    first = np.full((3, 3), 2.0)
    first[0, 0] = -2
    net = chain(first, "relu", np.full((1, 3), 3))
    base = everywhere(relu=rules.Pass())
    gamma = base.with_rule("n0", rules.PlainGamma(1.0, 0.0)).with_rule("n2", rules.PlainGamma(0.25, 0.0))
    found = exact(net, gamma, X123)
    assert found.output[0, 0] == 96
    np.testing.assert_allclose(found.input, [[28 / 3, 104 / 3, 52]], rtol=1e-14)
    plus = base.with_rule(type="dense", rule=rules.AlphaBeta(1, 0, 0.0))
    np.testing.assert_allclose(exact(net, plus, X123).input, [[12, 33.6, 50.4]], rtol=1e-14)
    passed = base.with_rule("n0", rules.Pass()).with_rule("n2", ZERO)
    np.testing.assert_allclose(exact(net, passed, X123).input, [[24, 36, 36]], rtol=1e-14)


def test_closed_form_3_tanh_passes() -> None:
    net = chain(np.full((3, 3), 0.1), "tanh", np.full((1, 3), 0.1))
    found = exact(net, everywhere(dense=ZERO, tanh=rules.Pass()), X123)
    np.testing.assert_allclose(found.input, [[0.0269, 0.0537, 0.0806]], atol=5e-5)
    np.testing.assert_allclose(found.input, X123 / 6 * 0.3 * np.tanh(0.6), rtol=1e-6)  # 0.1 is a float32 in the network


def test_closed_form_4_residual_sum() -> None:
    nodes = [Node("five", "dense", "input", {"weight": "w"}), Node("y", "add", ("five", "input"))]
    net = Network(nodes, {"w": np.full((2, 2), 5, np.float32)}, input_shape=(2,))
    found = exact(net, everywhere(dense=ZERO, add=rules.Norm(0.0)), np.array([[2.0, 3.0]]), 1)
    assert found.output[0, 1] == 28
    np.testing.assert_allclose(found.input, [[10, 18]], rtol=1e-14)


def test_closed_form_5_maximum() -> None:
    net = Network([Node("y", "max_pool2d", attrs={"kernel": [2, 2], "stride": [2, 2]})], {}, input_shape=(1, 2, 2))
    for rule in (rules.Gradient(), rules.SignalTakesAll()):
        found = exact(net, everywhere(rule), np.array([[[[1.0, 2.0], [5.0, 6.0]]]]), np.full((1, 1, 1, 1), 6.0))
        assert found.input.tolist() == [[[[0, 0], [0, 6]]]]
        zeros = exact(net, everywhere(rule), np.zeros((1, 1, 2, 2)), np.ones((1, 1, 1, 1)))
        assert zeros.input.tolist() == [[[[1, 0], [0, 0]]]]  # the first of equals, in rows


# ---------------------------------------------------------------- stabilisers


def test_stabilisers_have_the_values_they_should() -> None:
    from semanticlens.attribution.products import stabilised_quotient

    z = np.array([[0.0, -0.0, 2.0, -2.0]])
    root = 2**0.5
    for st_, want in (
        (Stabiliser(1.0), [1, 1, 3, -3]),
        (Stabiliser(1.0, norm_scale=True), [root, root, 2 + root, -2 - root]),
        (Stabiliser(1.0, clip=True, norm_scale=True), [root, root, 2, -2]),
        (Stabiliser(1.0, clip=True), [1, 1, 2, -2]),
        (Stabiliser(3.0, clip=True), [3, 3, 3, -3]),
    ):
        for dtype, limit in ((np.float64, 1e-15), (np.float32, 1e-7)):
            s = stabilised_quotient(np.ones((1, 4), dtype), z.astype(dtype), st_, 1)
            np.testing.assert_allclose(1 / s[0], want, rtol=2 * limit)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_all_zero_sample_gets_no_relevance_from_a_scaled_stabiliser(dtype: str) -> None:
    """The scale is 0 there and so is the denominator: relevance is dropped and booked, not NaN."""
    net = single("dense", False)
    x = np.zeros((2, 16), dtype)
    x[1] = 1
    r = np.ones((2, 15), dtype)
    found = sl.attribute(net, x, r, composite=everywhere(rules.Epsilon(Stabiliser(0.1, norm_scale=True))), dtype=dtype)
    assert not found.input[0].any()
    assert np.isfinite(found.input[1]).all()
    assert found.input[1].any()
    ledger = found.ledger()
    assert ledger.entries[0].degenerate_rows == 15
    assert ledger.entries[0].degenerate == 15


@pytest.mark.parametrize("eps", [0.0, 1e-60])
def test_denominators_that_are_zero_drop_relevance_whatever_the_precision(eps: float) -> None:
    """An eps that float32 rounds to 0 is 0."""
    net = Network(
        [Node("y", "dense", params={"weight": "w"})], {"w": np.array([[1, -1], [1, 1]], np.float32)}, input_shape=(2,)
    )
    x, r = np.array([[1, 1]], np.float32), np.ones((1, 2), np.float32)
    for rule in (rules.Epsilon(eps), rules.AlphaBeta(2, 1, eps), rules.ZPlus(eps), rules.ZBox(-1.0, 2.0, eps)):
        assert np.isfinite(relevance(net, rule, x, r)).all(), rule
    assert relevance(net, rules.Epsilon(eps), x, r).tolist() == [[0.5, 0.5]]


# ---------------------------------------------------------------- properties


def unbiased(name: str) -> rules.Rule:
    """A rule without stabiliser and bias."""
    return {
        "Epsilon": rules.Epsilon(0.0, zero_bias=True),
        "ZPlus": rules.ZPlus(0.0, zero_bias=True),
        "AlphaBeta": rules.AlphaBeta(2, 1, 0.0, zero_bias=True),
        "Gamma": rules.Gamma(0.25, 0.0, zero_bias=True),
        "PlainGamma": rules.PlainGamma(0.25, 0.0, zero_bias=True),
        "ZBox": rules.ZBox(-1.0, 5.0, 0.0),
        "WSquare": rules.WSquare(0.0, zero_bias=True),
        "Flat": rules.Flat(0.0),
    }[name]


NAMES = ("Epsilon", "ZPlus", "AlphaBeta", "Gamma", "PlainGamma", "ZBox", "WSquare", "Flat")
forms = st.sampled_from(sorted(set(FORMS) - {"2 x 2, one channel", "3 x 3, one channel"}))


@st.composite
def layers(draw: Any) -> tuple[Network, np.ndarray, np.ndarray]:
    """A layer without bias, an input that is not negative, relevance with the sign and size of the result."""
    seed = draw(st.integers(0, 10_000))
    net = single(draw(forms), False, seed)
    rng = np.random.default_rng(seed)
    x = np.abs(rng.standard_normal((2, *net.input_shape)))
    return net, x, net.run(x, dtype="float64")["output"] * rng.uniform(0.5, 1.5, (2, *net.output_shape))


@settings(max_examples=40)
@given(layers(), st.sampled_from(NAMES))
def test_property_1_conservation(layer: tuple[Network, np.ndarray, np.ndarray], name: str) -> None:
    """Sum of Rin = sum of R where the denominators are not 0: for ZPlus the positive part, for AlphaBeta both."""
    net, x, r = layer
    if name in ("AlphaBeta", "ZPlus"):
        w = net.params["w"]
        parts = [
            Network(net.nodes, {"w": part}, input_shape=net.input_shape).run(x, dtype="float64")["output"]
            for part in (np.maximum(w, 0), np.minimum(w, 0))
        ]
        r = np.where((parts[0] > 0) & ((parts[1] < 0) | (name == "ZPlus")), r, 0.0)
    got = relevance(net, unbiased(name), x, r, dtype="float64")
    assert abs(got.sum() - r.sum()) <= 1e-9 * max(np.abs(r).sum(), np.abs(got).sum())


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.lists(st.integers(2, 9), min_size=2, max_size=5))
def test_property_2_epsilon_without_bias_is_input_times_gradient(seed: int, widths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    layers_: list[Any] = []
    for n, m in pairwise(widths):
        layers_ += [rng.standard_normal((m, n)), "relu"]
    net = chain(*layers_[:-1], shape=(widths[0],))
    x = rng.standard_normal((2, widths[0]))
    found = exact(net, everywhere(dense=ZERO, relu=rules.Pass()), x)
    gradient = net.gradient(x, 0, dtype="float64")["input"]
    np.testing.assert_allclose(found.input, x * gradient, rtol=1e-9, atol=1e-12 * np.abs(x * gradient).max())


@settings(max_examples=25)
@given(layers(), st.sampled_from(NAMES), st.floats(-3, 3))
def test_property_3_linear_in_relevance(
    layer: tuple[Network, np.ndarray, np.ndarray], name: str, factor: float
) -> None:
    net, x, r = layer
    other = np.random.default_rng(0).standard_normal(r.shape)
    parts = [relevance(net, unbiased(name), x, part, dtype="float64") for part in (r, other, r + factor * other)]
    limit = 1e-9 * sum(np.abs(part).max() for part in parts)
    np.testing.assert_allclose(parts[2], parts[0] + factor * parts[1], rtol=1e-9, atol=limit)


@settings(max_examples=15)
@given(layers())
def test_property_4_z_plus_is_alpha_1_beta_0(layer: tuple[Network, np.ndarray, np.ndarray]) -> None:
    net, x, r = layer
    for sign in (x, x - 1):
        for dtype in (np.float64, np.float32):
            arrays = sign.astype(dtype), r.astype(dtype)
            both = rules.ZPlus(), rules.AlphaBeta(1, 0)
            results = [relevance(net, rule, *arrays, dtype=np.dtype(dtype).name) for rule in both]
            assert np.array_equal(*results)


@settings(max_examples=15)
@given(layers())
def test_property_5_gamma_lies_between_epsilon_and_z_plus(layer: tuple[Network, np.ndarray, np.ndarray]) -> None:
    net, x, r = layer
    r = np.where(r > 0, r, 0.0)  # results above 0
    run = {"dtype": "float64"}
    small = relevance(net, rules.Gamma(1e-10, 0.0), x, r, **run)
    large = relevance(net, rules.Gamma(1e10, 0.0), x, r, **run)
    epsilon, plus = relevance(net, rules.Epsilon(0.0), x, r, **run), relevance(net, rules.ZPlus(0.0), x, r, **run)
    assert np.abs(small - epsilon).max() <= 1e-6 * np.abs(epsilon).max()
    assert np.abs(large - plus).max() <= 1e-6 * np.abs(plus).max()


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_property_6_merged_batch_normalisation_leaves_outputs_unchanged(seed: int) -> None:
    from semanticlens.nn.fold import fold_batch_norm

    rng = np.random.default_rng(seed)
    params = {key: rng.standard_normal(4) for key in ("m", "g", "b")} | {
        "w": rng.standard_normal((4, 3, 3, 3)),
        "v": rng.uniform(0.5, 2, 4),
    }
    nodes = [
        Node("c", "conv2d", params={"weight": "w"}),
        Node("n", "batch_norm", "c", {"mean": "m", "var": "v", "weight": "g", "bias": "b"}),
        Node("y", "relu", "n"),
    ]
    net = Network(nodes, {key: value.astype(np.float32) for key, value in params.items()}, input_shape=(3, 6, 6))
    x = rng.standard_normal((2, 3, 6, 6))
    folded = fold_batch_norm(net)
    assert len(folded.nodes) == 2
    a, b = (n.run(x, dtype="float64")["output"] for n in (net, folded))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


# ---------------------------------------------------------------- random networks


@st.composite
def networks(draw: Any) -> tuple[Network, np.ndarray]:
    """Chains of convolutions without bias, ReLUs, residual sums, pools and concatenations on inputs that are not negative; a dense head."""
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    nodes: list[Node] = []
    params: dict[str, np.ndarray] = {}
    channels, size, last = 2, 8, "input"

    def put(op: str, *inputs: str, weight: np.ndarray | None = None, **attrs: Any) -> str:
        name = f"n{len(nodes)}"
        if weight is not None:
            params[name] = weight.astype(np.float32)
        nodes.append(Node(name, op, inputs, {"weight": name} if weight is not None else {}, attrs))
        return name

    def conv(source: str, outputs: int) -> str:
        kernel = int(rng.integers(1, 4))
        before, behind = (kernel - 1) // 2, kernel - 1 - (kernel - 1) // 2
        weight = (
            rng.standard_normal((outputs, channels, kernel, kernel)) + 0.3
        )  # results near 0 would only test the stabiliser
        return put("relu", put("conv2d", source, weight=weight, padding=[before, before, behind, behind]))

    for step in draw(st.lists(st.sampled_from(["conv", "residual", "concat", "max", "mean"]), min_size=2, max_size=6)):
        if step == "conv":
            outputs = int(rng.integers(2, 5))
            last, channels = conv(last, outputs), outputs
        elif step == "residual":
            last = put("add", conv(last, channels), last)
        elif step == "concat" and channels < 12:
            outputs = int(rng.integers(1, 4))
            last, channels = put("concat", last, conv(last, outputs), axis=1), channels + outputs
        elif step in ("max", "mean") and size > 2:
            last, size = (
                put(f"{'max' if step == 'max' else 'avg'}_pool2d", last, kernel=[2, 2], stride=[2, 2]),
                size // 2,
            )
    put("dense", put("flatten", last), weight=rng.standard_normal((3, channels * size * size)) + 0.3)
    return Network(nodes, params, input_shape=(2, 8, 8)), rng.uniform(0.05, 1, (2, 2, 8, 8))


def first_and_rest(first: rules.Rule, rest: rules.Rule) -> Composite:
    """Rules without stabiliser: one for the first linear layer, one for the other convolutions, Epsilon for dense layers."""
    return Composite.epsilon(0.0).with_rule(type="conv", rule=rest).with_rule(type="linear", first=True, rule=first)


CONSERVING = {
    "epsilon": Composite.epsilon(0.0),
    "z plus": first_and_rest(rules.ZPlus(0.0), rules.ZPlus(0.0)),
    "flat first": first_and_rest(rules.Flat(0.0), rules.Gamma(0.25, 0.0)),
    "box first": first_and_rest(rules.ZBox(-0.5, 2.0, 0.0), ZERO),
    "w square first": first_and_rest(rules.WSquare(0.0), ZERO),
}


@settings(max_examples=25)
@given(networks(), st.sampled_from(sorted(CONSERVING)))
def test_random_networks_conserve_relevance(network: tuple[Network, np.ndarray], name: str) -> None:
    net, x = network
    composite = CONSERVING[name]
    for op, kind in (("add", "sum"), ("avg_pool2d", "pool")):
        if any(node.op == op for node in net.nodes):
            composite = composite.with_rule(type=kind, rule=rules.Norm(0.0))
    found = sl.attribute(net, x, 1, composite=composite, dtype="float64")
    ledger = found.ledger()
    lost = ledger.total("degenerate") + ledger.total("stabiliser")  # Gamma and Flat drop what reaches a result of 0
    got, want = found.input.sum(), found.output[:, 1].sum()
    assert abs(got + lost - want) <= 1e-9 * max(np.abs(found.input).sum(), ledger.largest)
    assert not ledger.total("degenerate_rows") or name == "flat first"
    single_ = sl.attribute(net, x.astype(np.float32), 1, composite=composite)
    assert np.linalg.norm(single_.input - found.input) <= 1e-4 * np.linalg.norm(found.input)
