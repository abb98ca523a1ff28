"""Edits of values at nodes, resuming from a node, patching."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from network_cases import IMAGE, evaluate, random_network
from network_cases import values as random_values

import semanticlens as sl
from semanticlens import edit
from semanticlens.nn import Network, Node

RNG = np.random.default_rng


def batch(count: int, seed: int) -> np.ndarray:
    return random_values(RNG(seed), count, *IMAGE)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return RNG(seed).standard_normal(shape).astype(np.float32)


def picture_net() -> Network:
    nodes = [
        Node("a", "conv2d", params={"weight": "w"}, attrs={"padding": (1, 1, 1, 1)}),
        Node("b", "relu", "a"),
        Node("c", "conv2d", "b", {"weight": "v"}),
        Node("d", "add", ("a", "b")),
        Node("e", "mean", "d", attrs={"axes": (2, 3)}),
        Node("f", "mean", "c", attrs={"axes": (2, 3)}),
        Node("g", "add", ("e", "f")),
    ]
    return Network(nodes, {"w": draw(4, 3, 3, 3), "v": draw(4, 4, 1, 1, seed=1)}, input_shape=(3, 6, 5))


def token_net() -> Network:
    nodes = [
        Node("a", "layer_norm"),
        Node("b", "dense", "a", {"weight": "w"}),
        Node("c", "gelu", "b"),
        Node("d", "add", ("c", "input")),
        Node("e", "select", "d", attrs={"axis": 1, "index": 0}),
        Node("f", "mean", "d", attrs={"axes": (1,)}),
        Node("g", "add", ("e", "f")),
    ]
    return Network(nodes, {"w": draw(8, 8)}, input_shape=(5, 8))


def downstream(net: Network, x: np.ndarray, node: str, value: np.ndarray) -> np.ndarray:
    """The output where a node has this value, computed apart from the code under test: the graph without what is before it."""
    return net.run_from(node, value, given={n: net.run(x, n)[n] for n in net.frontier(node)})["output"]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_each_edit_is_its_formula(n_threads: int) -> None:
    net, x = picture_net(), draw(2, 3, 6, 5)
    before = net.run(x, "b")["b"]
    vector, value = draw(4, seed=3), draw(2, 4, 6, 5, seed=4)
    unit = vector / np.linalg.norm(vector)
    along = np.einsum("bchw,c->bhw", before, unit)[:, None]
    spread = unit[:, None, None]
    cases: list[tuple[edit.Edit, Any, Any]] = [
        (edit.scale("b", 0.5), slice(None), before * 0.5),
        (edit.scale("b", 0.0, component=2), (slice(None), 2), 0.0),
        (edit.add("b", 1.5, component=[0, -1]), (slice(None), [0, 3]), before[:, [0, 3]] + 1.5),
        (edit.add("b", vector), slice(None), before + vector[:, None, None]),
        (edit.set("b", 3.0, position=(1, 2)), (slice(None), slice(None), 1, 2), 3.0),
        (edit.set("b", [1, 2], component=[3, 1], position=[(0, 0), (5, 4)]), None, None),
        (edit.ablate("b", component=1), (slice(None), 1), 0.0),
        (edit.ablate("b", component=1, to="mean"), (slice(None), 1), before[:, 1].mean((1, 2), keepdims=True)),
        (edit.ablate("b", component=[1, 3], to=vector), (slice(None), [1, 3]), vector[[1, 3]][:, None, None]),
        (edit.replace("b", value), slice(None), value),
        (edit.replace("b", value[0], component=2), (slice(None), 2), value[0, 2]),
        (edit.project("b", 5 * vector), slice(None), before - along * spread),
        (edit.scale("b", 3.0, direction=vector), slice(None), before + 2 * along * spread),
        (edit.add("b", 2.0, direction=vector), slice(None), before + 2 * spread),
        (edit.set("b", 0.25, direction=vector), slice(None), before + (0.25 - along) * spread),
    ]
    for change, where, new in cases:
        want = before.copy()
        if where is None:
            for row, column in ((0, 0), (5, 4)):
                want[:, 3, row, column], want[:, 1, row, column] = 1, 2
        else:
            want[where] = new
        got = net.run(x, ["b", "output", "a"], edits=[change], n_threads=n_threads)
        np.testing.assert_allclose(got["b"], want, rtol=1e-5, atol=1e-6)
        assert np.array_equal(got["a"], net.run(x, "a")["a"])
        assert np.array_equal(got["output"], downstream(net, x, "b", got["b"]))
        double = net.run(x, ["b", "output"], edits=change, dtype="float64")
        np.testing.assert_allclose(got["output"], double["output"], rtol=1e-4, atol=1e-5)


def test_tokens() -> None:
    net, x = token_net(), draw(3, 5, 8)
    before = net.run(x, "c")["c"]
    got = net.run(x, "c", edits=[edit.ablate("c", token=[0, -1]), edit.add("c", 1.0, token=2, component=[3, 4])])["c"]
    want = before.copy()
    want[:, [0, 4]] = 0
    want[:, 2, 3:5] += 1
    assert np.array_equal(got, want)
    got = net.run(x, "d", edits=[edit.project("d", np.eye(8)[3], token=1)])["d"]
    assert np.abs(got[:, 1, 3]).max() < 1e-6
    assert np.abs(got[:, 2, 3]).min() > 1e-6


def test_edits_compose_in_order_and_leave_the_input_alone() -> None:
    net, x = token_net(), draw(2, 5, 8)
    copy = x.copy()
    one, two = edit.scale("c", 2.0), edit.add("c", 1.0)
    c = net.run(x, "c")["c"]
    assert np.array_equal(net.run(x, "c", edits=[one, two])["c"], c * 2 + 1)
    assert np.array_equal(net.run(x, "c", edits=[two, one])["c"], (c + 1) * 2)
    got = net.run(x, ["input", "d"], edits=[edit.scale("input", 3.0)])
    assert np.array_equal(x, copy)
    np.testing.assert_allclose(got["d"], net.run(3 * x, "d")["d"], rtol=1e-5)
    assert np.array_equal(got["input"], 3 * x)
    assert np.array_equal(net.run(x)["output"], net.run(x, edits=[])["output"])


@pytest.mark.parametrize("seed", range(30))
def test_an_edit_that_changes_nothing_changes_no_bit_anywhere(seed: int) -> None:
    """Random graphs: edited nodes are not merged and live in memory of their own; everything else stays."""
    net, x = random_network(seed), batch(2, seed=seed)
    plain = evaluate(net, x)
    rng = RNG(seed)
    names = list(net.layers.names)
    for _ in range(3):
        some = list(rng.choice(names, size=int(rng.integers(1, 4)), replace=False))
        got = net.run(x, names, edits=[edit.scale(name, 1.0) for name in some])
        for name in names:
            np.testing.assert_allclose(got[name], plain[name], rtol=1e-3, atol=1e-4)
        record = str(rng.choice(some))
        doubled = net.run(x, [record, names[-1]], edits=[edit.scale(record, 2.0)])
        assert np.array_equal(doubled[record], 2 * net.run(x, record)[record])


@pytest.mark.parametrize("seed", range(0, 40, 2))
def test_resuming_gives_the_bits_of_the_whole_run(seed: int) -> None:
    net, x = random_network(seed), batch(2, seed=seed)
    names = ["input", *net.layers.names]
    values = net.run(x, names)
    for name in names[:: max(1, len(names) // 6)]:
        before = {key: value.copy() for key, value in values.items()}
        given = {other: values[other] for other in net.frontier(name)}
        got = net.run_from(name, values[name], ["output", name], given=given)
        np.testing.assert_allclose(got["output"], values[net.output], rtol=1e-5, atol=1e-6)
        assert np.array_equal(got[name], values[name])
        assert all(np.array_equal(values[key], before[key]) for key in before)


def test_resuming_says_what_is_missing() -> None:
    net, x = picture_net(), draw(2, 3, 6, 5)
    b = net.run(x, ["a", "b"])
    assert net.frontier("b") == ("a",)
    assert net.frontier("input") == ()
    assert net.frontier("b", record="c") == ()
    with pytest.raises(sl.DataError, match=r"a branch passes by 'b': the values of 'a' are needed as well"):
        net.run_from("b", b["b"])
    assert np.array_equal(net.run_from("b", b["b"], given={"a": b["a"]})["output"], net(x))
    with pytest.raises(sl.DataError, match=r"the value of 'b' has shape \(2, 4, 6\); \(batch, 4, 6, 5\) is needed"):
        net.run_from("b", b["b"][..., 0], "c")
    with pytest.raises(TypeError, match="must be float32, not float64"):
        net.run_from("b", b["b"].astype(np.float64), "c")
    with pytest.raises(sl.DataError, match="different batches"):
        net.run_from("b", b["b"][:1], given={"a": b["a"]})
    with pytest.raises(ValueError, match="the edit at 'a' changes nothing"):
        net.run_from("b", b["b"], "c", edits=[edit.scale("a", 0.0)])


def test_resuming_a_network_of_any_size() -> None:
    net = Network(
        [
            Node("e", "embedding", params={"weight": "w"}),
            Node("n", "layer_norm", "e"),
            Node("m", "mean", "n", attrs={"axes": (1,)}),
        ],
        {"w": draw(20, 8)},
        input_shape=(None,),
    )
    for length in (3, 7):
        ids = RNG(0).integers(0, 20, (2, length))
        e = net.run(ids, ["e", "output"])
        assert np.array_equal(net.run_from("e", e["e"])["output"], e["output"])


def test_patching() -> None:
    net, x, other = token_net(), draw(2, 5, 8), draw(2, 5, 8, seed=9)
    sites = ["c", edit.ablate("c", token=1), edit.ablate("d", component=[0, 3]), "input"]
    got = net.patch(x, other, sites)
    assert got.shape == (4, 2, 8)
    c, d = net.run(other, "c")["c"], net.run(other, "d")["d"]
    for number, change in enumerate(
        [
            edit.replace("c", c),
            edit.replace("c", c, token=1),
            edit.replace("d", d, component=[0, 3]),
            edit.replace("input", other),
        ]
    ):
        np.testing.assert_allclose(got[number], net.run(x, edits=[change])["output"], rtol=1e-5, atol=1e-6)
    assert np.array_equal(net.patch(x, other[:1], ["c"])[0], net.run(x, edits=[edit.replace("c", c[:1])])["output"])
    unit = draw(8, seed=9)
    along = net.patch(x, other, [edit.project("c", unit)])[0]
    assert np.array_equal(along, net.run(x, edits=[edit.replace("c", net.run(other, "c")["c"], direction=unit)])["output"])
    assert not np.array_equal(along, net.patch(x, other, ["c"])[0])
    with pytest.raises(ValueError, match="sites is empty"):
        net.patch(x, other, [])


@pytest.mark.parametrize("part", [{"component": [1, -3]}, {"token": [2, -3]}])
def test_what_is_named_twice_is_refused(part: dict[str, Any]) -> None:
    net, x = token_net(), draw(1, 5, 8)
    name = next(iter(part))
    with pytest.raises(ValueError, match="names one twice"):
        edit.scale("c", 2.0, **{name: [1, 1]})
    if name == "component":
        part = {"component": [5, -3]}
    with pytest.raises(sl.DataError, match=r"name one of \d twice"):
        net.run(x, edits=edit.scale("c", 2.0, **part))


def test_an_edited_network_is_another_network() -> None:
    net, x = token_net(), draw(2, 5, 8)
    change = edit.project("c", draw(8, seed=5))
    other = net.edited(change)
    assert np.array_equal(other(x), net.run(x, edits=[change])["output"])
    assert not np.array_equal(other(x), net(x))
    assert other.fingerprint != net.fingerprint
    assert net.edited(edit.project("c", draw(8, seed=5))).fingerprint == other.fingerprint
    assert net.edited(edit.project("c", draw(8, seed=6))).fingerprint != other.fingerprint
    assert np.array_equal(pickle.loads(pickle.dumps(other))(x), other(x))
    assert np.array_equal(
        other.edited(edit.scale("d", 2.0))(x), net.run(x, edits=[change, edit.scale("d", 2.0)])["output"]
    )
    with pytest.raises(ValueError, match="holds a network, not edits"):
        other.save("nowhere.safetensors")
    c = other.run(x, ["c", "output"])
    assert np.array_equal(other.run_from("c", c["c"], given={"input": x})["output"], c["output"])
    record = change.to_dict()
    assert record["node"] == "c"
    assert record["direction"]["shape"] == [8]


def test_wrong_edits_name_argument_and_value() -> None:
    net, x = picture_net(), draw(1, 3, 6, 5)
    run = [
        (
            edit.scale("b", 0.0, component=4),
            r"scale at 'b': component 4 does not exist among 4 \(its value has shape \(4, 6, 5\)\)",
        ),
        (edit.scale("b", 0.0, position=(6, 0)), "position, row 6 does not exist among 6"),
        (edit.scale("g", 0.0, token=0), "token is given, the value has no tokens"),
        (edit.scale("g", 0.0, position=(0, 0)), "position is given, the value is no picture"),
        (edit.project("b", np.ones(5)), "the direction has 5 components, 4 are needed"),
        (edit.add("b", np.ones(3)), r"a value of shape \(3,\) does not fit"),
        (edit.replace("b", np.ones((3, 4, 6, 5))), "values have shape"),
        (edit.scale("b", 1.0, axis=7), "axis=7 does not exist"),
    ]
    for change, message in run:
        with pytest.raises(sl.DataError, match=message):
            net.run(x, edits=[change])
    make: list[tuple[Any, Any, str]] = [
        (lambda: edit.scale("b", np.nan), ValueError, "factor=nan"),
        (lambda: edit.scale("b", 1.0, component="x"), ValueError, "component='x': must be"),
        (lambda: edit.scale("b", 1.0, position=3), ValueError, "position=3"),
        (lambda: edit.scale("b", 1.0, position=(0, 1), token=2), ValueError, "not both"),
        (lambda: edit.project("b", np.zeros(4)), ValueError, "a vector that is not zero"),
        (lambda: edit.add("b", [np.inf]), ValueError, "value holds NaN or infinite"),
        (lambda: edit.ablate("b", to="median"), ValueError, "to='median'"),
        (lambda: edit.set("b", [1.0, 2.0], direction=np.ones(4)), ValueError, "the value is one number"),
        (lambda: net.run(x, edits=["b"]), TypeError, r"edits\[0\] must be an Edit"),
        (lambda: net.run(x, edits=edit.scale("nope", 1.0)), sl.LayerNotFoundError, "nope"),
        (
            lambda: net.run(x, "b", edits=edit.scale("c", 1.0)),
            ValueError,
            "the edit at 'c' changes nothing: none of b depends on it",
        ),
    ]
    for call, error, message in make:
        with pytest.raises(error, match=message):
            call()
