"""Composites: which node gets which rule, and why; what is asked first; what is an error."""

from __future__ import annotations

import numpy as np
import pytest
from attribution_cases import everywhere, resnet_like

import semanticlens as sl
from semanticlens import rules
from semanticlens._errors import LayerNotFoundError
from semanticlens.attribution import Composite
from semanticlens.attribution.composites import GROUPS, PRESETS, preset
from semanticlens.nn import Network, Node
from semanticlens.nn.fold import fold_batch_norm
from semanticlens.nn.ops import OPS

FLAT, BOX = rules.Flat(), rules.ZBox(-1.0, 1.0)


def chosen(composite: Composite, net: Network | None = None) -> dict[str, rules.Rule]:
    return {name: given.rule for name, given in composite.assign(net or resnet_like()).items()}


def where(composite: Composite, rule: rules.Rule, net: Network | None = None) -> list[str]:
    return [name for name, given in chosen(composite, net).items() if given is rule]


def order(names: list[str]) -> list[str]:
    return [node.name for node in resnet_like().nodes if node.name in names]


CONVS = ["conv0", "b1.conv1", "b1.conv2", "b2.conv1", "b2.conv2", "b2.short"]


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        ({"type": "conv"}, CONVS),
        ({"type": "conv2d"}, CONVS),
        ({"type": ("dense", "conv")}, [*CONVS, "fc"]),
        ({"type": "linear", "first": True}, ["conv0"]),
        ({"type": "linear", "last": True}, ["fc"]),
        ({"type": "conv", "nth": 1}, ["b1.conv1"]),
        ({"type": "conv", "nth": -2}, ["b2.conv2"]),
        ({"type": "conv", "after": "b1.sum"}, ["b2.conv1", "b2.conv2", "b2.short"]),
        ({"type": "conv", "before": "b1.sum"}, ["conv0", "b1.conv1", "b1.conv2"]),
        ({"type": "conv", "after": "conv0", "before": "b2.conv2"}, ["b1.conv1", "b1.conv2", "b2.conv1"]),
        ({"type": "conv", "after": "b1.sum", "first": True}, ["b2.conv1"]),
        ({"type": "conv", "before": "b2.sum", "last": True}, ["b2.short"]),
        ({"name": "fc"}, ["fc"]),
        ({"name": "b1.conv?"}, ["b1.conv1", "b1.conv2"]),
        ({"name": "*.conv*", "nth": 2}, ["b2.conv1"]),
        ({"name": "b2.*", "type": "conv"}, ["b2.conv1", "b2.conv2", "b2.short"]),
        ({"name": "*", "type": "linear"}, [*CONVS, "fc"]),
    ],
)
def test_lines_fit_what_they_say(conditions: dict, names: list[str]) -> None:
    assert order(where(Composite.epsilon().with_rule(rule=FLAT, **conditions), FLAT)) == order(names)


def test_an_alias_is_the_node_it_stands_for() -> None:
    net = resnet_like()
    named = Network(net.nodes, net.params, input_shape=net.input_shape, aliases={"features.0": "conv0", "head": "fc"})
    assert where(Composite.epsilon().with_rule("features.0", FLAT), FLAT, named) == ["conv0"]
    assert where(
        Composite.epsilon().with_rule(type="linear", after="features.0", last=True, rule=FLAT), FLAT, named
    ) == ["fc"]


def test_the_line_that_was_added_last_is_asked_first() -> None:
    composite = (
        Composite.epsilon_plus_flat()
        .with_rule(type="conv", rule=rules.Gamma())
        .with_rule("conv0", BOX)
        .with_rule("b1.*", rule=rules.Stop())
    )
    got = chosen(composite)
    assert got["conv0"] is BOX  # not Flat, which the preset has for the first linear layer
    assert isinstance(got["b1.conv1"], rules.Stop)
    assert isinstance(got["b2.conv1"], rules.Gamma)
    assert isinstance(got["fc"], rules.Epsilon)


def test_a_composite_is_not_changed_by_what_is_made_of_it() -> None:
    first = Composite.epsilon()
    before = first.entries
    first.with_rule(type="conv", rule=FLAT)
    assert first.entries is before
    assert not where(first, FLAT)


def test_first_is_the_first_that_runs() -> None:
    """Other toolkits take the first that was registered as a module; here it is the one nearest to the input."""
    params = {"a": np.ones((2, 2), np.float32), "b": np.ones((2, 2), np.float32)}
    nodes = [
        Node("runs_first", "dense", "input", {"weight": "b"}),
        Node("runs_second", "dense", "runs_first", {"weight": "a"}),
    ]
    got = chosen(Composite.epsilon_plus_flat(), Network(nodes, params, input_shape=(2,)))
    assert isinstance(got["runs_first"], rules.Flat)
    assert isinstance(got["runs_second"], rules.Epsilon)


PRESET_RULES = {
    "epsilon": ("Epsilon", "Epsilon", "Epsilon"),
    "epsilon_plus": ("ZPlus", "ZPlus", "Epsilon"),
    "epsilon_plus_flat": ("Flat", "ZPlus", "Epsilon"),
    "epsilon_alpha2_beta1": ("AlphaBeta", "AlphaBeta", "Epsilon"),
    "epsilon_alpha2_beta1_flat": ("Flat", "AlphaBeta", "Epsilon"),
    "excitation_backprop": ("ZPlus", "ZPlus", "ZPlus"),
    "gradient": ("Gradient", "Gradient", "Gradient"),
    "guided_backprop": ("Gradient", "Gradient", "Gradient"),
    "deconvnet": ("Gradient", "Gradient", "Gradient"),
    "beta_smooth": ("Gradient", "Gradient", "Gradient"),
    "attn_lrp": ("Epsilon", "Epsilon", "Epsilon"),
    "cp_lrp": ("Epsilon", "Epsilon", "Epsilon"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    """First convolution, other convolutions, dense layer; and what surrounds them."""
    got = {node: type(rule).__name__ for node, rule in chosen(preset(name)).items()}
    first, others, dense = PRESET_RULES[name]
    assert got["conv0"] == first
    assert {got[conv] for conv in CONVS[1:]} == {others}
    assert got["fc"] == dense
    pure = name in ("gradient", "guided_backprop", "deconvnet", "beta_smooth")
    assert got["b1.sum"] == got["mean"] == ("Gradient" if pure else "Norm")
    assert got["pool"] == "Gradient"
    own = {"guided_backprop": "GuidedBackprop", "deconvnet": "Deconvnet", "beta_smooth": "BetaSmooth"}
    assert got["relu0"] == own.get(name, "Gradient" if pure or name == "excitation_backprop" else "Pass")
    assert got["bn"] == ("Gradient" if pure or name == "excitation_backprop" else "Norm")


def test_gamma_box() -> None:
    got = chosen(Composite.epsilon_gamma_box(-1, 1, gamma=0.5))
    assert isinstance(got["conv0"], rules.ZBox)
    assert {got[conv] for conv in CONVS[1:]} == {rules.Gamma(0.5)}
    assert isinstance(got["fc"], rules.Epsilon)


def test_the_table_says_which_rule_and_why() -> None:
    lines = Composite.epsilon_plus_flat().with_rule("b1.*", rules.Stop()).table(resnet_like()).splitlines()
    assert lines[0].split() == ["node", "operation", "rule", "because", "of"]
    assert len(lines) == 1 + len(resnet_like().nodes)
    assert lines[1].split() == ["conv0", "conv2d", "Flat(stabiliser=1e-06,", "zero_bias=False)", "first", "linear"]
    assert "with_rule(name='b1.*')" in next(line for line in lines if line.startswith("b1.conv1"))


def test_every_group_holds_operations_there_are() -> None:
    assert not {op for group in GROUPS.values() for op in group} - set(OPS) - {"edit"}


def test_every_operation_is_decided_by_the_lrp_presets_or_named_here() -> None:
    """What changes values without being linear or an activation has no rule: those nodes are an error until someone decides."""
    for name in ("epsilon", "epsilon_plus", "epsilon_gamma_box"):
        composite = Composite.epsilon_gamma_box(-1, 1) if name == "epsilon_gamma_box" else preset(name)
        decided = {op for entry in composite.entries for op in entry.type or ()}
        assert set(OPS) - decided == {
            "abs",
            "attention",
            "erf",
            "exp",
            "log",
            "matmul",
            "power",
            "reciprocal",
            "softmax",
            "sqrt",
        }


# ---------------------------------------------------------------- errors


def test_a_node_nobody_decided_about_is_an_error() -> None:
    net = Network([Node("e", "exp"), Node("y", "mean", "e", attrs={"axes": [1, 2, 3]})], {}, input_shape=(3, 4, 4))
    with pytest.raises(
        ValueError, match=r"composite 'epsilon' has no rule for 1 nodes: 'e' \(exp\); decide with .with_rule"
    ):
        Composite.epsilon().table(net)
    assert "Gradient()" in Composite.epsilon().with_rule(type="exp", rule=rules.Gradient()).table(net)


@pytest.mark.parametrize(
    "conditions",
    [
        {"name": "b9.*"},
        {"type": "attention"},
        {"type": "conv", "after": "fc"},
        {"type": "conv", "nth": 6},
        {"type": "conv", "nth": -7},
    ],
)
def test_a_line_that_fits_nothing_is_an_error(conditions: dict) -> None:
    composite = Composite.epsilon().with_rule(rule=FLAT, **conditions)
    with pytest.raises(ValueError, match="fits no node of the network"):
        sl.attribute(resnet_like(), np.ones((1, 3, 12, 12), np.float32), 0, composite=composite)


def test_a_line_for_a_layer_that_was_folded_away_says_where_it_went() -> None:
    nodes = [
        Node("conv", "conv2d", params={"weight": "w"}),
        Node("bn", "batch_norm", "conv", {"mean": "m", "var": "v"}),
    ]
    net = Network(
        nodes,
        {"w": np.ones((1, 1, 1, 1), np.float32), "m": np.zeros(1, np.float32), "v": np.ones(1, np.float32)},
        input_shape=(1, 2, 2),
    )
    with pytest.raises(ValueError, match="'conv' was folded into 'bn'"):
        Composite.epsilon().with_rule("conv", FLAT).table(fold_batch_norm(net))


def test_a_rule_that_is_not_defined_for_an_operation_is_an_error() -> None:
    with pytest.raises(
        ValueError,
        match=r"node 'b1.relu1': rule Flat is not defined for operation 'relu', only for .*conv2d, dense \(line: with_rule",
    ):
        Composite.epsilon().with_rule("b1.relu1", FLAT).table(resnet_like())
    for rule in (rules.ZPlus(), rules.AlphaBeta(), rules.Gamma(), rules.PlainGamma(), BOX, rules.WSquare(), FLAT):
        with pytest.raises(ValueError, match="is not defined for operation 'max_pool2d'"):
            Composite.epsilon().with_rule("pool", rule).table(resnet_like())


def test_unknown_names() -> None:
    with pytest.raises(LayerNotFoundError, match="'nowhere' is not in the network"):
        Composite.epsilon().with_rule(after="nowhere", rule=FLAT).table(resnet_like())
    with pytest.raises(ValueError, match="composite 'epsilon_minus' is not known; known are epsilon, epsilon_plus,"):
        preset("epsilon_minus")
    with pytest.raises(ValueError, match=r"needs bounds: pass Composite.epsilon_gamma_box\(low, high\)"):
        preset("epsilon_gamma_box")
    with pytest.raises(TypeError, match="composite=3: must be a Composite or the name of one"):
        preset(3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "fc"}, TypeError, "rule=None: must be a rule"),
        ({"rule": rules.Flat}, TypeError, "must be a rule, such as semanticlens.rules.Epsilon"),
        (
            {"rule": FLAT, "type": "convolution"},
            ValueError,
            "type='convolution' is neither an operation nor a group; groups are conv",
        ),
        ({"rule": FLAT, "type": 3}, TypeError, "type=3: must be an operation or a group"),
        ({"rule": FLAT, "first": True, "nth": 1}, ValueError, "exclude each other"),
        ({"rule": FLAT, "nth": 1.0}, TypeError, "nth=1.0: must be a whole number"),
        ({"rule": FLAT, "name": 3}, TypeError, "name=3: must be a text"),
        ({"rule": FLAT, "after": 3}, TypeError, "after=3: must be a text"),
    ],
)
def test_lines_that_make_no_sense(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Composite.epsilon().with_rule(**options)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rules.Epsilon(-1), ValueError, "eps=-1.0: must be a finite number of at least 0"),
        (lambda: rules.Epsilon("1"), TypeError, "epsilon must be a number or a Stabiliser, not str"),
        (lambda: rules.ZPlus(None), TypeError, "stabiliser must be a number or a Stabiliser, not NoneType"),
        (lambda: rules.Stabiliser(np.inf), ValueError, "eps=inf"),
        (lambda: rules.Stabiliser(True), ValueError, "eps=True"),
        (lambda: rules.Gamma(-0.1), ValueError, "gamma=-0.1: must be a finite number of at least 0"),
        (lambda: rules.PlainGamma(np.nan), ValueError, "gamma=nan"),
        (lambda: rules.AlphaBeta(2, 2), ValueError, "alpha - beta must be 1"),
        (lambda: rules.AlphaBeta(0.5, -0.5), ValueError, "both must be at least 0"),
        (lambda: rules.AlphaBeta("2", 1), ValueError, "alpha='2'"),
        (lambda: rules.ZBox(1, 1), ValueError, "low=1 must be below high=1 everywhere"),
        (lambda: rules.ZBox(np.array([0, 2]), np.array([1, 1])), ValueError, "must be below"),
        (
            lambda: rules.ZBox(np.zeros(3), np.ones(4)),
            ValueError,
            r"low of shape \(3,\) and high of shape \(4,\) do not go together",
        ),
        (lambda: rules.ZBox(0, np.nan), ValueError, "high holds NaN or infinite values"),
        (lambda: rules.ZBox("a", 1), TypeError, "low='a': must be a number or an array of numbers"),
        (lambda: rules.BetaSmooth(0), ValueError, "beta=0: must be a finite number above 0"),
        (lambda: rules.Product("gate"), ValueError, "to='gate': must be 'signal' or 'both'"),
        (lambda: rules.Attention("keys"), ValueError, "through='keys': must be 'all'"),
    ],
)
def test_rules_with_numbers_that_make_no_sense(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_rules_are_values() -> None:
    assert rules.Gamma(0.25) == rules.Gamma()
    assert hash(rules.Gamma(0.25)) == hash(rules.Gamma())
    assert rules.Epsilon(np.float32(0.5)).st.eps == 0.5
    assert str(rules.AlphaBeta(2, 1)) == "AlphaBeta(stabiliser=1e-06, zero_bias=False, alpha=2, beta=1)"
    assert str(rules.Epsilon(rules.Stabiliser(0.1, clip=True))) == "Epsilon(epsilon=0.1, clip, zero_bias=False)"
    with pytest.raises(AttributeError):
        rules.Gamma().gamma = 1.0
    assert rules.Zero() == rules.Epsilon(0.0)
    assert everywhere(FLAT).entries[0].rule is FLAT
