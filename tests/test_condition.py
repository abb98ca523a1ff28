"""Conditional relevance, attribution graphs and roles: closed forms, sums, order, chunks, threads, bad input."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import semanticlens as sl
from semanticlens import attribution
from semanticlens._errors import ConceptWarning
from semanticlens.attribution import Composite, attribute, condition
from semanticlens.attribution.graphs import channel_scores
from semanticlens.attribution.masks import channel_axis
from semanticlens.nn import Network, Node

K = 6
RULES = [
    "epsilon",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    Composite.epsilon_gamma_box(-4.0, 4.0),
]


def two_branches():
    params = {"a": [[1, 2], [0, 1]], "b": [[2, 3], [0, 0]], "c": [[1, 4, 5, 0]]}
    nodes = [
        Node("layer1", "dense", ("input",), {"weight": "a"}),
        Node("layer2", "dense", ("input",), {"weight": "b"}),
        Node("both", "concat", ("layer1", "layer2")),
        Node("layer3", "dense", ("both",), {"weight": "c"}),
    ]
    return Network(nodes, {key: np.array(value, np.float32) for key, value in params.items()}, input_shape=(2,))


def residual(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    pad = {"padding": (1, 1, 1, 1)}
    nodes = [
        Node("c1", "conv2d", ("input",), {"weight": "w1", "bias": "b1"}, pad),
        Node("r1", "relu", ("c1",)),
        Node("c2", "conv2d", ("r1",), {"weight": "w2"}, pad),
        Node("r2", "relu", ("c2",)),
        Node("sum", "add", ("r2", "r1")),
        Node("pool", "max_pool2d", ("sum",), attrs={"kernel": (2, 2), "stride": (2, 2)}),
        Node("c3", "conv2d", ("pool",), {"weight": "w3"}, pad),
        Node("r3", "relu", ("c3",)),
        Node("flat", "flatten", ("r3",)),
        Node("out", "dense", ("flat",), {"weight": "w4", "bias": "b4"}),
    ]
    params = {
        "w1": draw(K, 3, 3, 3),
        "b1": draw(K),
        "w2": draw(K, K, 3, 3),
        "w3": draw(K, K, 3, 3),
        "w4": draw(5, K * 16),
        "b4": draw(5),
    }
    return Network(nodes, params, input_shape=(3, 8, 8), name="residual")


@pytest.fixture(scope="module")
def net():
    return residual()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)


# ------------------------------------------------------------ by hand

CASES = [
    ({"layer1": [0], "layer2": []}, False, [-1, 2], [5, 0]),
    ({"layer1": [0]}, True, [-1, 2], [0, 0]),
    ({"layer1": [0], "layer2": [0]}, False, [-11, 17], [5, 0]),
    ({}, False, [-11, 21], [5, 0]),
    ({"layer1": [], "layer2": []}, False, [0, 0], [5, 0]),
]


@pytest.mark.filterwarnings("ignore:no relevance reaches:semanticlens._errors.ConceptWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("at", "exclude", "heat", "second"), CASES)
def test_closed_form(at, exclude, heat, second, dtype):
    """R(layer1) is [1, 4] whatever is conditioned: it is what arrives, before the layer's own mask (zennit-crp records [2, 0])."""
    x = np.array([[-1, 1]], np.float32)
    options = {"composite": Composite.epsilon(0.0), "record": ["layer1", "layer2"], "dtype": dtype}
    alone = condition(two_branches(), x, 0, at=at, exclude_parallel=exclude, **options)
    beside = condition(two_branches(), x, 0, at=[{"layer2": [0]}, at, {}], exclude_parallel=exclude, **options)
    for result, row in ((alone, 0), (beside, 1)):
        np.testing.assert_array_equal(result.input[row], heat)
        np.testing.assert_array_equal(result["layer1"][row], [1, 4])
        np.testing.assert_array_equal(result["layer2"][row], second)
        assert result.dead[row] == (heat == [0, 0])


def test_classes_as_conditions():
    """The output is a layer as others: its channels are the classes."""
    net, x = two_branches(), np.array([[-1, 1]], np.float32)
    result = condition(net, x, at={"output": [0]}, composite=Composite.epsilon(0.0))
    np.testing.assert_array_equal(result.input, [[-11, 21]])


# ------------------------------------------------------------ sums, order, chunks


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("composite", RULES, ids=str)
def test_single_channels_sum_to_the_whole(net, x, composite, dtype, most):
    whole = attribute(net, x, 2, composite=composite, dtype=dtype, record=["c3"])
    each = condition(net, x, 2, each={"c3": range(K)}, composite=composite, dtype=dtype, record=["c3"])
    total = each.input.reshape(2, K, 3, 8, 8).sum(axis=1)
    assert np.abs(total - whole.input).max() <= most * np.abs(whole.input).max()
    np.testing.assert_array_equal(each["c3"].reshape(2, K, *each["c3"].shape[1:]), np.stack([whole["c3"]] * K, 1))
    np.testing.assert_array_equal(each.sample, np.repeat([0, 1], K))
    np.testing.assert_array_equal(each.row, np.tile(np.arange(K), 2))
    # beside a skip connection, the rows without the other branch sum to what passes the layer
    apart = condition(net, x, 2, each={"c2": range(K)}, composite=composite, dtype=dtype, exclude_parallel=True)
    through = condition(net, x, 2, at={"c2": range(K)}, composite=composite, dtype=dtype, exclude_parallel=True)
    total = apart.input.reshape(2, K, 3, 8, 8).sum(axis=1)
    assert np.abs(total - through.input).max() <= most * np.abs(through.input).max()
    assert np.abs(through.input - whole.input).max() > 1e-3 * np.abs(whole.input).max()


@pytest.mark.parametrize("composite", RULES, ids=str)
def test_rows_chunks_and_threads(net, x, composite):
    """Each row is what its condition gives alone, whatever the chunks; every bit of it for any number of threads."""
    before = x.copy()
    given = [{"c3": [1]}, {"c2": [0, 3], "c3": [2]}, {}, {"c2": [4]}, {"c3": [4]}, {"r1": [1]}]
    options = {"composite": composite, "record": ["c1", "r2", "c3"]}
    result = condition(net, x, [2, 4], at=given, **options)
    assert result.input.shape == (12, 3, 8, 8)
    assert result.conditions == tuple(given)
    for sample, target in enumerate([2, 4]):
        for i, at in enumerate(given):
            alone = condition(net, x[sample : sample + 1], target, at=at, **options)
            for name in ("input", "c1", "r2", "c3"):
                mine = result.input if name == "input" else result[name]
                one = alone.input if name == "input" else alone[name]
                np.testing.assert_allclose(mine[6 * sample + i], one[0], rtol=0, atol=1e-6 * np.abs(one).max())
    for chunk, n_threads in ((1, 1), (2, 2), (4, 3), (6, 8), (100, 1)):
        again = condition(net, x, [2, 4], at=given, chunk=chunk, n_threads=n_threads, **options)
        np.testing.assert_allclose(again.input, result.input, rtol=0, atol=1e-6 * np.abs(result.input).max())
    for n_threads in (1, 2, 3, 8):
        np.testing.assert_array_equal(condition(net, x, [2, 4], at=given, n_threads=n_threads, **options).input, result.input)
    np.testing.assert_array_equal(x, before)


@pytest.mark.filterwarnings("ignore:no relevance reaches:semanticlens._errors.ConceptWarning")
def test_paired(net, x):
    """Different layers for different samples; rows stay in order."""
    given = [{"c3": [1]}, {"c2": {0: (3, 4)}}]
    result = condition(net, x, [2, 4], at=given, paired=True, exclude_parallel=True, record="c1")
    for i in range(2):
        alone = condition(net, x[i : i + 1], [2, 4][i], at=given[i], exclude_parallel=True, record="c1")
        np.testing.assert_array_equal(result.input[i], alone.input[0])
        np.testing.assert_array_equal(result["c1"][i], alone["c1"][0])
    np.testing.assert_array_equal(result.row, [0, 1])


@pytest.mark.filterwarnings("ignore:no relevance reaches:semanticlens._errors.ConceptWarning")
def test_positions(net, x):
    """Flat and two-dimensional positions are one; all positions of a channel are the channel."""
    by_pair = condition(net, x, 2, at={"c2": {3: (2, 5), 1: None}}, exclude_parallel=True)
    by_number = condition(net, x, 2, at={"c2": {3: 21, 1: None}}, exclude_parallel=True)
    np.testing.assert_array_equal(by_pair.input, by_number.input)
    several = condition(net, x, 2, at=[{"c2": {3: [(2, 5), 7]}}, {"c2": {3: range(64)}}, {"c2": [3]}], exclude_parallel=True)
    rows = several.input.reshape(2, 3, 3, 8, 8)
    np.testing.assert_array_equal(rows[:, 1], rows[:, 2])
    parts = condition(net, x, 2, each={"c2": {3: (2, 5)}}, exclude_parallel=True).input
    parts = parts + condition(net, x, 2, each={"c2": {3: 7}}, exclude_parallel=True).input
    np.testing.assert_allclose(rows[:, 0], parts, rtol=0, atol=1e-6 * np.abs(parts).max())
    changed = np.abs(parts).sum(axis=(0, 1)) > 0  # two 5 x 5 receptive fields around (2, 5) and (0, 7)
    assert changed.sum() <= 25 + 9
    assert not changed[5:].any()


def test_layers_hold_together_along_a_path(net, x):
    """{c3, c2} is the part of {c3} that passes c2's channels: summed over those it is all that passes c2."""
    both = condition(net, x, 2, at={"c3": [1, 2]}, each={"c2": range(K)}, exclude_parallel=True, dtype="float64")
    one = condition(net, x, 2, at={"c3": [1, 2], "c2": range(K)}, exclude_parallel=True, dtype="float64")
    np.testing.assert_allclose(both.input.reshape(2, K, 3, 8, 8).sum(1), one.input, atol=1e-12 * np.abs(one.input).max())
    assert both.conditions[1] == {"c3": [1, 2], "c2": [1]}


def test_starting_inside(net, x):
    """From an inner layer: its activation, anything given, or the relevance it has for a class."""
    values = net.run(x, record=["c2"])["c2"]
    own = condition(net, x, of="c2", at={"c2": [3]}, record="c2")
    np.testing.assert_array_equal(own["c2"], values)
    np.testing.assert_array_equal(own.output, values)
    given = condition(net, x, 2 * values, of="c2", at={"c2": [3]})
    np.testing.assert_allclose(given.input, 2 * own.input, rtol=0, atol=1e-6 * np.abs(given.input).max())
    true = condition(net, x, 2, of="c2", start="relevance", at={"c2": [3]}, record=["c3", "c2"])
    same = condition(net, x, 2, at={"c2": [3]}, exclude_parallel=True, record=["c3", "c2"])
    np.testing.assert_array_equal(true.input, same.input)
    np.testing.assert_array_equal(true["c2"], attribute(net, x, 2, record="c2")["c2"])


def test_products_are_shared(net, x):
    """100 conditions: one walk down to the layer, denominators once, then one adjoint per layer and chunk, none for the dead."""
    one = x[:1]
    result = condition(net, one, 2, each={"c3": range(K)}, composite="epsilon_plus", chunk=3)
    live = int((~result.dead).sum())
    assert live > 0
    chunks = -(-live // 3)
    # out; then c3, c2 and c1 (whose input has both signs: two products each way) once per chunk, denominators once
    assert (result.products.forward, result.products.adjoint) == (4, 1 + 4 * chunks)


def test_dead_conditions_are_reported(net, x):
    with pytest.warns(ConceptWarning, match=r"under conditions? 0 \(c3 no channel\).*\.dead"):
        result = condition(net, x, 2, at=[{"c3": []}, {"c3": [1]}, {"c3": range(K)}])
    np.testing.assert_array_equal(result.dead.reshape(2, 3)[:, 0], True)
    assert not result.dead.reshape(2, 3)[:, 2].any()
    assert not result.input[result.dead].any()
    assert f"{int(result.dead.sum())} dead" in repr(result)


def test_edits_are_part_of_the_network(net, x):
    edited = net.edited(sl.edit.ablate("c3", component=1))
    result = condition(edited, x, 2, each={"c3": range(K)}, record="c3")
    assert result.dead.reshape(2, K)[:, 1].all()
    whole = attribute(edited, x, 2).input
    np.testing.assert_allclose(result.input.reshape(2, K, 3, 8, 8).sum(1), whole, atol=1e-6 * np.abs(whole).max())


def test_interruption_and_progress(net, x, capsys, monkeypatch):
    calls = []

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    original = attribution.conditioned.Job._walk
    monkeypatch.setattr(attribution.conditioned.Job, "_walk", stop)
    with pytest.raises(KeyboardInterrupt):
        condition(net, x, 2, each={"c3": range(K)}, chunk=1)
    monkeypatch.undo()
    condition(net, x, 2, each={"c3": range(K)}, progress=True)
    assert "12/12" in capsys.readouterr().err


BAD = [
    ({"at": {"c3": [K]}}, ValueError, r"\['c3'\]: channel 6 is out of range, the layer has 6 \(0 to 5\)"),
    ({"at": {"c3": [-1]}}, ValueError, "channel -1 is out of range"),
    ({"at": [{"c3": [0]}, {"c2": [99]}]}, ValueError, r"condition 1\['c2'\]: channel 99 is out of range"),
    ({"at": {"c3": [0.5]}}, TypeError, "must be a whole number, not 0.5"),
    ({"at": {"c3": [True]}}, TypeError, "must be a whole number, not True"),
    ({"at": {"c3": "12"}}, TypeError, "must be channels, or a mapping"),
    ({"at": {"nope": [0]}}, sl.LayerNotFoundError, "layer 'nope' is not in the network"),
    ({"at": {"input": [0]}}, ValueError, "'input' is no layer with channels"),
    ({"at": {"c3": {0: (4, 0)}}}, ValueError, r"position \(4, 0\) is out of range, the layer has 4 x 4 positions"),
    ({"at": {"c3": {0: 16}}}, ValueError, "position 16 is out of range"),
    ({"at": {"c3": {0: "x"}}}, TypeError, "a position must be a whole number, not 'x'"),
    ({}, ValueError, "there is no condition: pass at="),
    ({"at": 3}, TypeError, "at=3: must map layers to channels"),
    ({"at": [3]}, TypeError, "must map layers to channels"),
    ({"at": [{"c3": [0]}], "each": {"c2": [0]}}, ValueError, "each goes with one mapping in at"),
    ({"at": {"c3": [0]}, "each": {"c3": [0]}}, ValueError, "layer 'c3' is in at and in each"),
    ({"each": {"c3": []}}, ValueError, "each names no channel"),
    ({"each": [1]}, TypeError, r"each=\[1\]: must map layers"),
    ({"at": {"c3": [0]}, "paired": True}, ValueError, "takes one condition for each of the 2 samples, and there are 1"),
    ({"at": [{}, {}], "chunk": 0}, ValueError, "chunk=0: must be a whole number of at least 1"),
    ({"at": {"c3": [0]}, "target": None}, ValueError, "target is missing"),
    ({"at": {"c3": [0]}, "target": 5}, ValueError, "target=5 is out of range: the value has classes 0 to 4"),
    ({"at": {"c3": [0]}, "of": "c2"}, ValueError, "'c2' does not depend on 'c3'"),
    ({"at": {"c3": [0]}, "of": "c2", "target": None, "start": "one"}, ValueError, "start='one' takes a target"),
    ({"at": {"c3": [0]}, "start": "relevance"}, ValueError, "takes an inner layer in of"),
    ({"at": {"c3": [0]}, "start": "none"}, ValueError, "start='none': must be one of value, one, contrastive, relevance"),
    ({"at": {"c3": [0]}, "dtype": "float16"}, ValueError, "dtype='float16'"),
    ({"at": {"c3": [0]}, "composite": "none"}, ValueError, "composite 'none' is not known"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_input(net, x, options, error, message):
    with pytest.raises(error, match=message):
        condition(net, x, **{"target": 2, **options})


def test_layers_beside_each_other_are_refused():
    x = np.array([[-1, 1]], np.float32)
    with pytest.raises(ValueError, match="no path passes all of 'layer1', 'layer2'"):
        condition(two_branches(), x, 0, at={"layer1": [0], "layer2": [0]}, exclude_parallel=True)
    broken = Network(two_branches().nodes, {k: v * np.float32(1e30) for k, v in two_branches().params.items()}, input_shape=(2,))
    with pytest.raises(sl.NumericalError, match="holds NaN or infinity"):
        condition(broken, x * np.float32(1e9), 0, at={"layer1": [0]})


def test_unrecorded_names(net, x):
    result = condition(net, x, 2, at={"c3": [0]})
    with pytest.raises(KeyError, match="'c2' was not recorded"):
        result["c2"]
    assert result.heatmap().shape == (2, 8, 8)


def test_channels_of_tokens():
    """Which axis counts channels: pictures (C, H, W), tokens (T, K), also behind reshapes and permutations."""
    rng = np.random.default_rng(0)
    nodes = [
        Node("patches", "conv2d", ("input",), {"weight": "w"}, {"stride": (4, 4)}),
        Node("flat", "reshape", ("patches",), attrs={"shape": (5, 4)}),
        Node("tokens", "permute", ("flat",), attrs={"axes": (2, 1)}),
        Node("norm", "layer_norm", ("tokens",), {"weight": "g", "bias": "b"}),
        Node("more", "dense", ("norm",), {"weight": "v"}),
        Node("bend", "gelu", ("more",)),
        Node("mean", "mean", ("bend",), attrs={"axes": (1,), "keepdims": False}),
        Node("out", "dense", ("mean",), {"weight": "u"}),
    ]
    params = {
        "w": rng.standard_normal((5, 3, 4, 4)),
        "g": np.ones(5),
        "b": np.zeros(5),
        "v": rng.standard_normal((7, 5)),
        "u": rng.standard_normal((2, 7)),
    }
    net = Network(nodes, {key: value.astype(np.float32) for key, value in params.items()}, input_shape=(3, 8, 8))
    graph = {item.node.name: item for item in net._graph}
    axes = {name: channel_axis(graph, name) for name in graph}
    assert axes == {"patches": 0, "flat": 0, "tokens": 1, "norm": 1, "more": 1, "bend": 1, "mean": 0, "out": 0}
    x = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    rows = condition(net, x, 1, each={"tokens": {2: 0}}, composite="attn_lrp", dtype="float64", record="tokens")
    assert rows["tokens"].shape == (1, 4, 5)
    heat = np.abs(rows.heatmap()[0]) > 0  # token 0 is the upper left patch
    assert heat[:4, :4].any()
    assert not heat[4:].any()
    assert not heat[:, 4:].any()
    every = condition(net, x, 1, each={"tokens": range(5)}, composite="attn_lrp", dtype="float64").input.sum(axis=0)
    whole = attribute(net, x, 1, composite="attn_lrp", dtype="float64").input[0]
    np.testing.assert_allclose(every, whole, atol=1e-12 * np.abs(whole).max())


@pytest.mark.peers
def test_a_vision_transformer():
    """Behind a block all relevance passes its features: they sum to the whole. Features are found at every layer."""
    torch = pytest.importorskip("torch")
    vision = pytest.importorskip("torchvision.models.vision_transformer")
    torch.manual_seed(0)
    module = vision.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=32, num_classes=5
    ).eval()
    torch.nn.init.normal_(module.heads.head.weight, std=0.2)
    x = torch.randn(1, 3, 32, 32)
    net = sl.nn.export.from_torch(module, x)
    graph = {item.node.name: item for item in net._graph}
    for name, item in graph.items():
        if item.shape in ((17, 24), (16, 24), (17, 32), (24, 16), (24, 4, 4)):
            assert item.shape[channel_axis(graph, name)] in (24, 32), name
    layer = "encoder.layers.encoder_layer_0.add_1"
    options = {"composite": "attn_lrp", "dtype": "float64"}
    whole = attribute(net, x.numpy(), 2, record=layer, **options)
    each = condition(net, x.numpy(), 2, each={layer: range(24)}, record=layer, **options)
    assert np.abs(each.input.sum(axis=0) - whole.input[0]).max() <= 1e-12 * np.abs(whole.input).max()
    np.testing.assert_array_equal(each[layer][3], whole[layer][0])
    spot = condition(net, x.numpy(), 2, at={layer: {3: 5}}, **options)  # one token of one feature
    part = condition(net, x.numpy(), 2, each={layer: {3: 5, 4: None}}, **options)
    np.testing.assert_allclose(spot.input[0], part.input[0], atol=1e-12 * np.abs(spot.input).max())


# ------------------------------------------------------------ graphs


def test_graph_is_made_of_conditions(net, x):
    graph = attribution.graph(net, x[0], ("c3", 2), 1, width=(3, 2))
    assert graph.inputs == {"c1": (), "c2": ("c1",), "c3": ("c2", "c1")}
    root = condition(net, x[:1], 1, at={"c3": [2]}, exclude_parallel=True, record=["c1", "c2", "c3"])
    first = channel_scores(root["c2"], 0, True)[0]
    best = [int(k) for k in np.argsort(-first, kind="stable")[:3]]
    assert [(node.channel, weight) for node, weight in graph.children("c3", 2) if node.layer == "c2"] == [
        (k, pytest.approx(first[k], abs=1e-6)) for k in best
    ]
    below = condition(net, x[:1], 1, at={"c3": [2], "c2": [best[0]]}, exclude_parallel=True, record=["c1"])
    second = channel_scores(below["c1"], 0, True)[0]
    got = [(node.channel, weight) for node, weight in graph.children("c2", best[0])]
    assert got == [(int(k), pytest.approx(second[k], abs=1e-6)) for k in np.argsort(-second, kind="stable")[:2]]
    assert graph.nodes[0].score == pytest.approx(channel_scores(root["c3"], 0, True)[0, 2])
    assert {edge.child for edge in graph.edges} | {graph.root} == {node.key for node in graph.nodes}
    assert json.loads(json.dumps(graph.to_dict()))["root"] == ["c3", 2]
    assert repr(graph).startswith("Graph of 'c3' channel 2: ")


def test_graph_from_the_activation_and_some_layers(net, x):
    graph = attribution.graph(net, x[:1], ("c3", 2), width=2, layers=["c1"])
    assert {node.layer for node in graph.nodes} == {"c3", "c1"}
    assert len(graph.edges) == 2


def test_a_graph_without_relevance_says_so(net, x):
    without = net.edited(sl.edit.ablate("c3", component=2))
    with pytest.warns(ConceptWarning, match="channel 2 of 'c3' has no relevance here"):
        graph = attribution.graph(without, x[0], ("c3", 2), 1)
    assert not any(edge.weight for edge in graph.edges)


def test_graph_without_networkx(net, x, monkeypatch):
    graph = attribution.graph(net, x[0], ("c3", 2), 1)
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(sl.MissingExtraError, match=r"semanticlens-native\[graphs\]"):
        graph.to_networkx()


def test_graph_in_networkx(net, x):
    pytest.importorskip("networkx")
    graph = attribution.graph(net, x[0], ("c3", 2), 1)
    made = graph.to_networkx()
    assert set(made.nodes) == {node.key for node in graph.nodes}
    assert all(made.edges[edge.parent, edge.child]["weight"] == edge.weight for edge in graph.edges)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"root": ("c3", 9)}, ValueError, "channel 9 is out of range"),
        ({"root": "c"}, TypeError, r"root='c': must be \(layer, channel\)"),
        ({"root": ("c1", 0)}, ValueError, "none of the layers comes before 'c1'"),
        ({"width": (2, 0)}, ValueError, r"width=\(2, 0\): must be whole numbers of at least 1"),
        ({"layers": "c1"}, TypeError, "layers='c1': must be names"),
        ({"layers": ["out"]}, ValueError, "layers: 'out' is no layer that 'c3' depends on"),
    ],
)
def test_bad_graphs(net, x, options, error, message):
    with pytest.raises(error, match=message):
        attribution.graph(net, x[0], **{"root": ("c3", 2), "target": 1, **options})
    with pytest.raises(ValueError, match="x holds 2 samples; a graph is made for one"):
        attribution.graph(net, x, ("c3", 2), 1)


# ------------------------------------------------------------ roles


@pytest.mark.parametrize(("pool", "abs_norm"), [("sum", True), ("sum", False), ("max", True)])
def test_roles_by_hand(net, pool, abs_norm):
    images = np.random.default_rng(3).standard_normal((9, 3, 8, 8)).astype(np.float32)
    targets = np.array([0, 1, 1, 4, -1, 0, 1, 4, 4])
    result = attribution.roles(net, images, layers=["c2", "c3"], targets=targets, pool=pool, abs_norm=abs_norm, batch_size=4)
    assert result.n_samples == 8
    for layer in ("c2", "c3"):
        scores = np.full((9, K), np.nan)
        for i in np.flatnonzero(targets >= 0):
            r = attribute(net, images[i : i + 1], int(targets[i]), record=layer)[layer]
            space = r.reshape(K, -1).astype(np.float64)
            scores[i] = space.sum(axis=1) if pool == "sum" else space.max(axis=1)
            if abs_norm:
                scores[i] /= np.abs(scores[i]).sum() + 1e-10
        role = result[layer]
        np.testing.assert_array_equal(role.counts, [2, 3, 0, 0, 3])
        for y in range(5):
            of = scores[targets == y]
            if not len(of):
                assert np.isnan(role.mean[y]).all()
                assert np.isnan(role.max[y]).all()
                continue
            np.testing.assert_allclose(role.mean[y], of.mean(axis=0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(role.magnitude[y], np.abs(of).mean(axis=0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(role.max[y], of.max(axis=0), rtol=1e-5, atol=1e-6)
        assert role.top(1, 2)[0] == (int(np.argmax(role.mean[1])), pytest.approx(role.mean[1].max()))
    other = attribution.roles(net, images, layers="c3", targets=targets, pool=pool, abs_norm=abs_norm, batch_size=1)
    np.testing.assert_allclose(other["c3"].mean, result["c3"].mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": None}, ValueError, "targets is missing"),
        ({"targets": [0, 9]}, sl.DataError, "targets go up to 9, but the network has classes 0 to 4"),
        ({"targets": [0]}, sl.DataError, r"targets must be whole numbers of shape \(2,\)"),
        ({"targets": [-1, -1]}, sl.DataError, "no sample has a class"),
        ({"targets": [0, -2]}, sl.DataError, "go down to -2"),
        ({"layers": []}, ValueError, "layers is empty"),
        ({"layers": ["nope"]}, sl.LayerNotFoundError, "layer 'nope'"),
        ({"pool": "mean"}, ValueError, "pool='mean': must be 'sum' or 'max'"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"transform": abs}, ValueError, "transform is for pictures"),
    ],
)
def test_bad_roles(net, x, options, error, message):
    with pytest.raises(error, match=message):
        attribution.roles(net, x, **{"layers": ["c3"], "targets": [0, 1], **options})
