"""The ledger: nothing is lost between nodes, every loss has a column, and results that cannot pass relevance on are counted."""

from __future__ import annotations

import numpy as np
import pytest
from attribution_cases import draw, everywhere, relevance, resnet_like
from test_operations import CASES

import semanticlens as sl
from semanticlens import rules
from semanticlens.attribution import Composite
from semanticlens.attribution.composites import PRESETS
from semanticlens.attribution.composites import Entry as Line
from semanticlens.nn import Network, Node

KEPT = ("bias", "stabiliser", "degenerate", "stopped", "other")
CONSERVING = tuple(
    name
    for name in PRESETS
    if name not in ("gradient", "guided_backprop", "deconvnet", "beta_smooth", "excitation_backprop")
)


def composite_of(name: str) -> Composite:
    return Composite.epsilon_gamma_box(-6, 6) if name == "epsilon_gamma_box" else PRESETS[name]()


def cancelling(seed: int = 0, noise: float = 1e-3) -> Network:
    """The residual network, its first branch trained to undo what it is added to: the sum is small, its terms are not."""
    net = resnet_like(seed)
    params = {key: value.copy() for key, value in net.params.items()}
    rng = np.random.default_rng(seed)
    identity = np.zeros((6, 6, 3, 3), np.float32)
    identity[np.arange(6), np.arange(6), 1, 1] = 1
    params |= {"b1.conv1.w": identity, "b1.conv1.b": np.zeros(6, np.float32)}
    params |= {"b1.conv2.w": -identity + noise * draw(rng, 6, 6, 3, 3), "b1.conv2.b": np.zeros(6, np.float32)}
    return Network(net.nodes, params, input_shape=net.input_shape)


@pytest.mark.parametrize("name", [*PRESETS, "epsilon_gamma_box"])
@pytest.mark.parametrize("kind", ["resnet_like", "cancelling"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_whole_balances(name: str, kind: str, dtype: str) -> None:
    """To 1e-6 of the largest sum of ``|R|`` of a node, also where relevance explodes."""
    net = {"resnet_like": resnet_like, "cancelling": cancelling}[kind]()
    x = np.random.default_rng(1).standard_normal((3, 3, 12, 12)).astype(dtype)
    found = sl.attribute(net, x, [0, 1, 2], composite=composite_of(name), dtype=dtype)
    ledger = found.ledger()
    missing = {node.name for node in net.nodes} - {entry.node for entry in ledger.entries}
    assert (
        not missing if dtype == "float64" else all("relu" in node for node in missing)
    )  # merged into what is before them
    assert abs(ledger.balance) <= 1e-6 * ledger.largest
    assert ledger.started == pytest.approx(found.start.sum(dtype=np.float64), rel=1e-6)
    assert ledger.arrived == pytest.approx(found.input.sum(dtype=np.float64), rel=1e-6, abs=1e-6 * ledger.largest)
    for entry in ledger.entries:
        assert entry.arrived == pytest.approx(
            entry.passed + sum(getattr(entry, column) for column in KEPT), rel=1e-9, abs=1e-12
        )


@pytest.mark.parametrize("name", [*CONSERVING, "epsilon_gamma_box"])
@pytest.mark.parametrize("kind", ["resnet_like", "cancelling"])
def test_rules_that_conserve_leave_nothing_unexplained(name: str, kind: str) -> None:
    """What bias, stabiliser, dropped results and stops do not account for is rounding."""
    net = {"resnet_like": resnet_like, "cancelling": cancelling}[kind]()
    x = np.random.default_rng(1).standard_normal((3, 3, 12, 12))
    for dtype, limit in (("float64", 1e-12), ("float32", 1e-4)):
        ledger = sl.attribute(net, x.astype(dtype), [0, 1, 2], composite=composite_of(name), dtype=dtype).ledger()
        for entry in ledger.entries:
            assert abs(entry.other) <= limit * max(entry.magnitude, abs(entry.passed)), entry


def test_plain_epsilon_explodes_where_branches_cancel_and_the_ledger_says_where() -> None:
    net = cancelling(noise=1e-4)
    x = np.random.default_rng(1).standard_normal((3, 3, 12, 12)).astype(np.float32)
    found = sl.attribute(net, x, 0, composite="epsilon")
    ledger = found.ledger()
    sizes = {entry.node: entry.magnitude for entry in ledger.entries}
    assert sizes["b1.conv2"] > 100 * sizes["b1.sum"]  # the sum's relevance, divided among terms that cancel
    assert abs(ledger.balance) <= 1e-6 * ledger.largest
    calm = sl.attribute(net, x, 0, composite=Composite.epsilon().with_rule("b1.sum", rules.Norm(0.1)))
    held = {entry.node: entry for entry in calm.ledger().entries}
    assert held["b1.conv2"].magnitude < 0.02 * sizes["b1.conv2"]
    assert held["b1.sum"].stabiliser != 0


@pytest.mark.parametrize("name", CASES)
def test_every_operation_is_booked(name: str) -> None:
    """With the rules of two presets, the gradient where they have none."""
    tested = 0
    for preset in ("epsilon", "cp_lrp"):
        base = PRESETS[preset]()
        composite = Composite(preset, (*base.entries, Line(rules.Gradient(), said="the rest")))
        for net in CASES[name]:
            if net.takes_ids:
                continue
            x = np.random.default_rng(1).standard_normal((2, *net.input_shape))
            ledger = sl.attribute(net, x, lambda value: value, composite=composite, dtype="float64").ledger()
            assert abs(ledger.balance) <= 1e-12 * ledger.largest
            for entry in ledger.entries:
                assert entry.rule in ("Gradient()", "Softmax()") or abs(entry.other) <= 1e-9 * max(
                    entry.magnitude, abs(entry.passed)
                ), entry
            tested += 1
    assert tested or all(net.takes_ids for net in CASES[name])


def test_each_loss_is_in_its_column() -> None:
    """One dense layer, x = (1, 2): z = 3 + 1 (bias), so a quarter is the bias's, and eps = 1 takes a fifth of what is left to share."""
    net = Network(
        [Node("d", "dense", params={"weight": "w", "bias": "b"})],
        {"w": np.ones((1, 2), np.float32), "b": np.ones(1, np.float32)},
        input_shape=(2,),
    )
    x = np.array([[1.0, 2.0]])
    entry = (
        sl.attribute(net, x, np.array([[8.0]]), composite=everywhere(rules.Epsilon(0.0)), dtype="float64")
        .ledger()
        .entries[0]
    )
    assert (entry.arrived, entry.passed, entry.bias, entry.stabiliser) == (8, 6, 2, 0)
    entry = (
        sl.attribute(net, x, np.array([[10.0]]), composite=everywhere(rules.Epsilon(1.0)), dtype="float64")
        .ledger()
        .entries[0]
    )
    assert (entry.arrived, entry.passed, entry.bias, entry.stabiliser) == (10, 6, 2, 2)
    entry = (
        sl.attribute(
            net, x, np.array([[8.0]]), composite=everywhere(rules.Epsilon(0.0, zero_bias=True)), dtype="float64"
        )
        .ledger()
        .entries[0]
    )
    assert (entry.arrived, entry.passed, entry.bias, entry.stabiliser) == (8, 8, 0, 0)
    entry = (
        sl.attribute(net, x, np.array([[8.0]]), composite=everywhere(rules.Stop()), dtype="float64").ledger().entries[0]
    )
    assert (entry.arrived, entry.passed, entry.stopped) == (8, 0, 8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_that_are_exactly_zero_are_counted(dtype: str) -> None:
    """Rows of weights that cancel on this input: without a stabiliser their relevance is dropped, and so it is by Gamma with any."""
    weight = np.array([[1, -1], [1, 1], [2, -2]], np.float32)
    net = Network([Node("d", "dense", params={"weight": "w"})], {"w": weight}, input_shape=(2,))
    x, r = np.ones((1, 2), dtype), np.array([[3.0, 1.0, 4.0]], dtype)
    for rule in (rules.Epsilon(0.0), rules.Gamma(), rules.Gamma(0.25, 0.0), rules.Norm(0.0)):
        entry = sl.attribute(net, x, r, composite=everywhere(rule), dtype=dtype).ledger().entries[0]
        assert entry.degenerate_rows == 2, rule
        assert entry.degenerate == 7
        assert entry.passed == pytest.approx(1, abs=1e-5)
    entry = sl.attribute(net, x, r, composite=everywhere(rules.Epsilon(1e-6)), dtype=dtype).ledger().entries[0]
    assert entry.degenerate_rows == 0
    assert entry.stabiliser == pytest.approx(7, abs=1e-5)  # R / eps times terms that cancel: nothing arrives
    plus = np.array([[-1, -1], [1, 1], [-2, -1]], np.float32)
    net = Network([Node("d", "dense", params={"weight": "w"})], {"w": plus}, input_shape=(2,))
    entry = sl.attribute(net, x, r, composite=everywhere(rules.ZPlus(0.0)), dtype=dtype).ledger().entries[0]
    assert (entry.degenerate_rows, entry.degenerate, entry.passed) == (2, 7, 1)


def test_constants_and_padding_keep_what_they_contribute() -> None:
    nodes = [
        Node("c", "constant", params={"value": "v"}),
        Node("sum", "add", ("input", "c")),
        Node("token", "concat", ("c2", "sum"), attrs={"axis": 1}),
        Node("padded", "pad_axes", "token", attrs={"before": [0, 1], "after": [0, 0], "value": 2.0}),
    ]
    nodes.insert(1, Node("c2", "constant", params={"value": "t"}))
    net = Network(nodes, {"v": np.full((2, 3), 3, np.float32), "t": np.full((1, 3), 7, np.float32)}, input_shape=(2, 3))
    found = sl.attribute(
        net,
        np.ones((1, 2, 3)),
        lambda value: value,
        composite=Composite.epsilon(0.0).with_rule(type="sum", rule=rules.Norm(0.0)),
        dtype="float64",
    )
    stopped = {entry.node: entry.stopped for entry in found.ledger().entries}
    assert stopped == {"padded": 6.0, "token": 21.0, "sum": 18.0}
    assert found.input.sum() == 6.0
    found = sl.attribute(net, np.ones((1, 2, 3)), lambda value: value, composite="epsilon", record="c", dtype="float64")
    assert found["c"].sum() == pytest.approx(18)  # asked for, it is recorded


def test_the_ledger_of_batches_is_the_ledger_of_the_whole() -> None:
    net = resnet_like()
    x = np.random.default_rng(1).standard_normal((5, 3, 12, 12))
    whole, parts = (sl.attribute(net, x, 2, dtype="float64", batch_size=size).ledger() for size in (None, 2))
    assert [entry.node for entry in whole.entries] == [entry.node for entry in parts.entries]
    for a, b in zip(whole.rows(), parts.rows(), strict=True):
        for key, value in a.items():
            assert b[key] == (pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value)


def test_the_ledger_changes_nothing() -> None:
    net = resnet_like()
    x = np.random.default_rng(1).standard_normal((2, 3, 12, 12)).astype(np.float32)
    first = sl.attribute(net, x, 1)
    first.ledger()
    assert np.array_equal(sl.attribute(net, x, 1).input, first.input)
    assert np.array_equal(relevance(net, Composite.epsilon_plus_flat(), x, first.start), first.input)


def test_as_text_and_as_rows() -> None:
    ledger = sl.attribute(resnet_like(), np.ones((1, 3, 12, 12), np.float32), 1).ledger()
    lines = str(ledger).splitlines()
    assert lines[0].split() == [
        "node",
        "rule",
        "arrived",
        "passed",
        "bias",
        "stabiliser",
        "degenerate",
        "stopped",
        "other",
        "rows",
    ]
    assert lines[1].startswith("fc ")
    assert lines[-1].startswith("total")
    assert len(lines) == 2 + len(ledger.entries)
    assert set(ledger.rows()[0]) == {"node", "op", "rule", "arrived", "passed", *KEPT, "masked", "degenerate_rows", "magnitude"}
