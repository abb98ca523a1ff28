"""What attribute() does with bad input, and what it promises about good input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attribution_cases import draw, everywhere, resnet_like

import semanticlens as sl
from semanticlens import rules
from semanticlens._errors import (
    DataError,
    LayerNotFoundError,
    MemoryLimitError,
    NumericalError,
    UnsupportedOperationError,
)
from semanticlens.attribution import Composite
from semanticlens.attribution.composites import PRESETS
from semanticlens.nn import Network, Node

X = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
NAN = X.copy()
NAN[1, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": None}, ValueError, "target is missing: pass a class number"),
        ({"target": 5}, ValueError, "target=5 is out of range: the value has classes 0 to 4"),
        ({"target": -1}, ValueError, "target=-1 is out of range"),
        ({"target": [0, 7]}, ValueError, "target=7 is out of range"),
        ({"target": [0, 1, 2]}, ValueError, "target has 3 class numbers for 2 samples"),
        ({"target": 1.5}, ValueError, r"target has shape \(\), the value that is differentiated has \(2, 5\)"),
        ({"target": "cat"}, TypeError, "target must be whole class numbers or real numbers"),
        ({"target": np.zeros((2, 4), np.float32)}, ValueError, r"target has shape \(2, 4\)"),
        ({"target": np.full((2, 5), np.nan, np.float32)}, ValueError, "target holds NaN"),
        ({"target": lambda value: value[:1]}, ValueError, r"what target returned has shape \(1, 5\)"),
        ({"composite": "eps"}, ValueError, "composite 'eps' is not known"),
        ({"composite": 3}, TypeError, "composite=3"),
        ({"record": "nowhere"}, LayerNotFoundError, "'nowhere' is not in the network"),
        ({"record": 3}, TypeError, "record=3: must be a name or several of them"),
        ({"record": [3]}, TypeError, "the name of a layer must be a text, not int"),
        ({"of": "nowhere"}, LayerNotFoundError, "'nowhere'"),
        ({"of": "b1.sum"}, ValueError, r"target is a class number, but the value has shape \(2, 6, 6, 6\)"),
        ({"of": "b1.sum", "target": lambda v: v, "record": "fc"}, ValueError, "'b1.sum' does not depend on 'fc'"),
        ({"start": "logit"}, ValueError, "start='logit': must be one of value, one, contrastive"),
        ({"dtype": "float16"}, ValueError, "dtype='float16': must be 'float32' or 'float64'"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"batch_size": 1.0}, ValueError, "batch_size=1.0"),
        ({"n_threads": 0}, ValueError, "n_threads=0"),
        ({"x": X[0]}, DataError, r"for one sample pass x\[None\]"),
        ({"x": X[:, :2]}, DataError, "expected 3 channels, got 2"),
        ({"x": X[:0]}, DataError, "the batch is empty"),
        ({"x": X.astype(np.float64)}, TypeError, "x must be float32, not float64"),
        ({"x": X.astype(np.int64), "dtype": "float64"}, TypeError, "x must be float64 or float32"),
        ({"x": NAN}, DataError, "sample 1 of the batch holds NaN"),
        (
            {"composite": everywhere(conv2d=rules.Epsilon())},
            ValueError,
            "composite 'test' has no rule for 12 nodes: 'relu0'",
        ),
        (
            {"composite": Composite.epsilon().with_rule("b1.sum", rules.Pass())},
            ValueError,
            "node 'b1.sum': Pass hands relevance on as it is",
        ),
        (
            {"composite": Composite.epsilon().with_rule("mean", rules.Pass())},
            ValueError,
            "node 'mean': Pass .* 1 inputs of shapes",
        ),
        (
            {"composite": Composite.epsilon().with_rule("conv0", rules.PlainGamma())},
            ValueError,
            "node 'conv0': PlainGamma .* use Gamma",
        ),
        (
            {"composite": Composite.epsilon_gamma_box(np.zeros((1, 4, 1, 1)), np.ones((1, 4, 1, 1)))},
            ValueError,
            r"node 'conv0': low of shape \(1, 4, 1, 1\) .* do not broadcast to the input's \(2, 3, 12, 12\)",
        ),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"x": X, "target": 0, **options}
    with pytest.raises(error, match=message):
        sl.attribute(resnet_like(), **given)


def test_asking_for_what_was_not_recorded() -> None:
    found = sl.attribute(resnet_like(), X, 0, record=["fc", "b1.sum"])
    with pytest.raises(KeyError, match="'conv0' was not recorded"):
        found["conv0"]
    with pytest.raises(ValueError, match=r"the relevance of 'fc' has shape \(2, 5\): there is nothing to sum over"):
        found.heatmap("fc")
    assert found.heatmap().shape == (2, 12, 12)
    np.testing.assert_allclose(found.heatmap("b1.sum"), found["b1.sum"].sum(axis=1))


# ---------------------------------------------------------------- values that cannot be explained


def dense_chain(*weights: np.ndarray, between: str = "relu") -> Network:
    nodes, params, last = [], {}, "input"
    for i, weight in enumerate(weights):
        params[f"w{i}"] = weight.astype(np.float32)
        nodes.append(Node(f"d{i}", "dense", last, {"weight": f"w{i}"}))
        last = f"d{i}"
        if i < len(weights) - 1:
            nodes.append(Node(f"a{i}", between, last))
            last = f"a{i}"
    return Network(nodes, params, input_shape=(weights[0].shape[1],))


def test_values_that_overflow_name_the_first_node() -> None:
    net = dense_chain(np.full((3, 4), 1e30), np.full((3, 3), 1e30), np.ones((2, 3)))
    with pytest.raises(NumericalError, match=r"the value of '(d1|a1)' holds NaN or infinity"):
        sl.attribute(net, np.ones((1, 4), np.float32), 0)


def test_parameters_that_are_not_finite() -> None:
    weight = np.ones((2, 3), np.float32)
    weight[0, 0] = np.nan
    net = Network([Node("d", "dense", params={"weight": "w"})], {"w": weight}, input_shape=(3,), allow_nonfinite=True)
    with pytest.raises(NumericalError, match="the value of 'd' holds NaN or infinity"):
        sl.attribute(net, np.ones((1, 3), np.float32), 1)


def test_an_infinity_that_a_relu_hid_is_found_by_its_relevance() -> None:
    """3e38 twice with -9 is minus infinity, which the ReLU makes 0; relevance stays finite unless a rule multiplies by it."""
    net = dense_chain(np.full((2, 4), 0.75e38), np.array([[-9.0, -9.0], [1e-38, 1e-38]]), np.ones((2, 2)))
    x = np.ones((1, 4), np.float32)
    assert np.isfinite(net(x)).all()
    found = sl.attribute(net, x, 0, composite="epsilon")
    np.testing.assert_allclose(found.input.sum(), found.output[0, 0], rtol=1e-5)
    with pytest.raises(
        NumericalError,
        match=r"node 'a1': rule Norm.* makes relevance NaN or infinite, where at most 6 arrived: give it a larger",
    ):
        sl.attribute(net, x, 0, composite=Composite.epsilon().with_rule("a1", rules.Norm()))


def test_relevance_that_overflows_names_node_and_rule() -> None:
    """4 - 4 + 2^-21 divided by without a stabiliser, with relevance near the largest float."""
    weight = np.array([[1.0, -1.0 + 2**-21], [1.0, 1.0]], np.float32)
    net = Network([Node("d", "dense", params={"weight": "w"})], {"w": weight}, input_shape=(2,))
    with pytest.raises(
        NumericalError, match=r"node 'd': rule Epsilon\(epsilon=0, zero_bias=False\) makes relevance NaN or infinite"
    ):
        sl.attribute(
            net,
            np.ones((1, 2), np.float32),
            np.array([[3e38, 0]], np.float32),
            composite=everywhere(rules.Epsilon(0.0)),
        )


def test_memory_is_asked_for_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMANTICLENS_MAX_MEMORY", "100000")
    with pytest.raises(MemoryLimitError, match="this attribution"):
        sl.attribute(resnet_like(), np.zeros((64, 3, 12, 12), np.float32), 0)


def test_an_operation_without_an_adjoint_is_named(forget_ops: None) -> None:
    from semanticlens.nn.ops import Op, register_op

    register_op(Op("square", numpy=lambda call, xs: xs[0] * xs[0], shape=lambda attrs, params, inputs: inputs[0]))
    net = Network([Node("s", "square"), Node("y", "mean", "s", attrs={"axes": [1]})], {}, input_shape=(4, 2))
    with pytest.raises(ValueError, match=r"has no rule for 1 nodes: 's' \(square\)"):
        sl.attribute(net, np.ones((1, 4, 2), np.float32), 0)
    composite = Composite.epsilon().with_rule("s", rules.Gradient())
    with pytest.raises(UnsupportedOperationError, match="node 's': operation 'square' has no adjoint"):
        sl.attribute(net, np.ones((1, 4, 2), np.float32), 0, composite=composite)


# ---------------------------------------------------------------- promises


@pytest.mark.parametrize("name", [*PRESETS, "epsilon_gamma_box"])
def test_batches_change_nothing(name: str) -> None:
    net = resnet_like()
    x = np.random.default_rng(2).standard_normal((5, 3, 12, 12)).astype(np.float32)
    composite = Composite.epsilon_gamma_box(-5, 5) if name == "epsilon_gamma_box" else name
    whole = sl.attribute(net, x, [0, 1, 2, 3, 4], composite=composite, record="b2.sum")
    parts = sl.attribute(net, x, [0, 1, 2, 3, 4], composite=composite, record="b2.sum", batch_size=2)
    for a, b in ((whole.input, parts.input), (whole["b2.sum"], parts["b2.sum"]), (whole.output, parts.output)):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


def test_starts() -> None:
    net = resnet_like()
    value, one, against = (sl.attribute(net, X, [1, 4], start=start) for start in ("value", "one", "contrastive"))
    rows = np.arange(2), [1, 4]
    assert np.array_equal(value.start[rows], value.output[rows])
    assert value.start.sum() == value.output[rows].sum()
    assert one.start.tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert against.start.tolist() == [[-0.25, 1, -0.25, -0.25, -0.25], [-0.25, -0.25, -0.25, -0.25, 1]]
    given = sl.attribute(net, X, one.start)
    assert np.array_equal(given.input, one.input)
    made = sl.attribute(net, X, lambda y: one.start)
    assert np.array_equal(made.input, one.input)


def test_relevance_may_start_inside() -> None:
    """From an inner value: the same as in the network that ends there."""
    net = resnet_like()
    nodes = net.nodes[: [node.name for node in net.nodes].index("b1.sum") + 1]
    cut = Network(
        nodes, {key: net.params[key] for node in nodes for key in node.params.values()}, input_shape=net.input_shape
    )
    found = sl.attribute(net, X, lambda v: v, of="b1.sum", record="conv0", composite="epsilon_alpha2_beta1")
    alone = sl.attribute(cut, X, lambda v: v, record="conv0", composite="epsilon_alpha2_beta1")
    assert np.array_equal(found.input, alone.input)
    assert np.array_equal(found["conv0"], alone["conv0"])


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_recorded_does_not_change_the_rest(name: str) -> None:
    net = resnet_like()
    every = [node.name for node in net.nodes]
    some, all_ = sl.attribute(net, X, 1, composite=name), sl.attribute(net, X, 1, composite=name, record=every)
    assert np.abs(some.input - all_.input).max() <= 1e-5 * np.abs(some.input).max()
    double = sl.attribute(net, X, 1, composite=name, record=every, dtype="float64")
    for node in every:
        assert np.abs(all_[node] - double[node]).max() <= 1e-4 * max(np.abs(double[node]).max(), 1e-6), node


def test_an_edited_network_is_explained_as_it_runs() -> None:
    net = resnet_like()
    edited = net.edited(sl.edit.scale("b1.conv1", component=2, factor=0.0))
    found = sl.attribute(edited, X, 0, composite="epsilon_plus", record="b1.conv1")
    assert np.abs(found.output - edited(X)).max() <= 1e-6
    whole = sl.attribute(net, X, 0, composite="epsilon_plus", record="b1.conv1")
    assert whole["b1.conv1"][:, 2].any()
    assert not np.array_equal(found.input, whole.input)


# ---------------------------------------------------------------- mended: regressions


def test_local_response_normalisation_does_not_hide_what_a_relu_cut_off() -> None:
    """Relevance that passes a normalisation may lie where the value is 0: the layer's own result is then what divides it."""
    rng = np.random.default_rng(0)
    params = {"a": draw(rng, 4, 3, 3, 3), "b": draw(rng, 2, 4, 3, 3)}
    nodes = [
        Node("conv", "conv2d", params={"weight": "a"}),
        Node("relu", "relu", "conv"),
        Node("lrn", "local_response_norm", "relu", attrs={"size": 3}),
        Node("flat", "conv2d", "lrn", {"weight": "b"}),
    ]
    net = Network(nodes, params, input_shape=(3, 7, 7))
    x = rng.standard_normal((2, 3, 7, 7))
    composite = everywhere(
        relu=rules.Pass(), local_response_norm=rules.ConstantScale(), conv2d=rules.Epsilon(0.1)
    ).with_rule("flat", rules.Flat())
    found = sl.attribute(net, x, lambda y: y, composite=composite, dtype="float64", record="conv")
    first = Network(nodes[:1], {"a": params["a"]}, input_shape=(3, 7, 7))
    own = sl.attribute(first, x, found["conv"], composite=everywhere(rules.Epsilon(0.1)), dtype="float64")
    assert (net.run(x, ["conv"], dtype="float64")["conv"][found["conv"] != 0] < 0).any()
    np.testing.assert_allclose(found.input, own.input, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("op", ["mul", "div"])
def test_a_value_that_is_repeated_gets_the_sum_of_its_copies(op: str) -> None:
    nodes = [
        Node("mean", "mean", attrs={"axes": [2, 3], "keepdims": True}),
        Node("gate", "sigmoid"),
        Node("y", op, ("mean", "gate")),
    ]
    net = Network(nodes, {}, input_shape=(2, 3, 3))
    x = np.random.default_rng(0).uniform(0.5, 1, (1, 2, 3, 3)).astype(np.float32)
    found = sl.attribute(net, x, lambda y: y, record="mean")
    assert found["mean"].shape == (1, 2, 1, 1)
    if op == "div":
        np.testing.assert_allclose(found["mean"].sum(), found.output.sum(), rtol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_a_constant_factor_takes_no_relevance(first: bool) -> None:
    nodes = [
        Node("c", "constant", params={"value": "v"}),
        Node("y", "mul", ("c", "input") if first else ("input", "c")),
    ]
    net = Network(nodes, {"v": np.array([2, 3, 4], np.float32)}, input_shape=(3,))
    for rule in (rules.Product("signal"), rules.Product("both")):
        found = sl.attribute(
            net,
            np.array([[1.0, 2.0, 3.0]], np.float32),
            lambda y: y,
            composite=everywhere(mul=rule, constant=rules.Stop()),
        )
        assert found.input.tolist() == found.output.tolist()


@pytest.mark.parametrize("rule", [rules.Pass(), rules.Stop(), rules.Gradient()])
def test_rules_that_need_no_product_work_at_linear_layers(rule: rules.Rule) -> None:
    net = Network(
        [Node("d", "dense", params={"weight": "w"})], {"w": np.diag([1, 2, 3]).astype(np.float32)}, input_shape=(3,)
    )
    found = sl.attribute(
        net, np.ones((1, 3), np.float32), np.array([[1, 1, 1]], np.float32), composite=everywhere(rule)
    )
    assert (
        found.input.tolist() == {"Pass": [[1, 1, 1]], "Stop": [[0, 0, 0]], "Gradient": [[1, 2, 3]]}[type(rule).__name__]
    )


def test_what_is_kept_of_one_network_or_composite_does_not_serve_another() -> None:
    """Assignments and routes are kept from run to run: an edited copy, another composite and another size get their own."""
    net = resnet_like()
    first = sl.attribute(net, X, 1)
    edited = net.edited(sl.edit.scale("b1.conv1", component=2, factor=0.0))
    assert np.abs(sl.attribute(edited, X, 1).output - edited(X)).max() <= 1e-6
    assert not np.array_equal(sl.attribute(edited, X, 1).input, first.input)
    for step in range(12):  # more than are kept
        composite = Composite.epsilon(10.0 ** -(step % 6))
        fresh = sl.attribute(resnet_like(), X, 1, composite=composite)
        assert sl.attribute(net, X, 1, composite=composite).input.tobytes() == fresh.input.tobytes()
    for names in (["b1.conv1"], ["b1.conv2", "b1.conv1"], [], ["fc"]):
        got = sl.attribute(net, X, 1, record=names)
        assert got.input.tobytes() == first.input.tobytes()
        assert list(got.arrays) == names
    of = sl.attribute(net, X, np.ones_like, of="b2.sum")
    assert of.input.tobytes() == sl.attribute(resnet_like(), X, np.ones_like, of="b2.sum").input.tobytes()
    assert sl.attribute(net, X, 1).input.tobytes() == first.input.tobytes()
