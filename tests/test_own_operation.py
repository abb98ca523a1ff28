"""An operation written outside the package, as docs/howto/network.md says: one entry, in NumPy, that runs through every door."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import semanticlens as sl
from semanticlens.nn import OPS, Attr, Node, Op, attrs, register_op

X = np.random.default_rng(0).standard_normal((3, 4, 5))
W = np.random.default_rng(1).standard_normal(4).astype(np.float32)


def softsign(call, xs):
    """w x / (c + |x|), one w per channel."""
    w, c = call.params["weight"].reshape(-1, 1), call.attrs["corner"]
    return xs[0] * w / (c + np.abs(xs[0]))


def softsign_adjoint(call, xs, out, grad, needed, n_threads):
    w, c = call.params["weight"].reshape(-1, 1), call.attrs["corner"]
    return [grad * w * c / (c + np.abs(xs[0])) ** 2]


def softsign_parameter(call, xs, out, grad, n_threads):
    return {"weight": (grad * xs[0] / (call.attrs["corner"] + np.abs(xs[0]))).sum(axis=(0, 2))}


def softsign_shape(given, params, inputs):
    if len(inputs[0]) != 2 or params["weight"] != inputs[0][:1]:
        raise ValueError(f"its weight of shape {params['weight']} needs one value per channel of {inputs[0]}")
    return inputs[0]


ENTRY = Op(
    "test_softsign",
    numpy=softsign,
    shape=softsign_shape,
    params=("weight",),
    attrs={"corner": Attr(attrs.number(0.0), 1.0)},
    adjoint=softsign_adjoint,
    parameter=softsign_parameter,
    keeps=frozenset({"inputs"}),
)


@pytest.fixture
def entry() -> Iterator[Op]:
    register_op(ENTRY)
    yield ENTRY
    del OPS[ENTRY.name]


def network(**given: object) -> sl.Network:
    nodes = [Node("t", "tanh"), Node("s", "test_softsign", "t", {"weight": "w"}, given), Node("m", "mean", "s", attrs={"axes": (2,)})]
    return sl.Network(nodes, {"w": W}, input_shape=(4, 5))


@pytest.mark.usefixtures("entry")
def test_it_runs_in_both_precisions_from_a_file_with_edits(tmp_path: Path) -> None:
    net = network(corner=0.5)
    inner = np.tanh(X)
    want = W[:, None] * inner / (0.5 + np.abs(inner))
    np.testing.assert_allclose(net.run(X.astype(np.float32), ["s"])["s"], want, rtol=1e-5)
    np.testing.assert_allclose(net.run(X, ["s"], dtype="float64")["s"], want, rtol=1e-15)
    net.save(tmp_path / "net.safetensors")
    again = sl.load(tmp_path / "net.safetensors")
    assert again.fingerprint == net.fingerprint
    assert again.nodes[1].attrs["corner"] == 0.5
    got = again.run(X.astype(np.float32), ["m"], edits=[sl.edit.scale("s", 0.0, component=2)])["m"]
    want[:, :, 2] = 0.0                               # of (places, features) the component is a feature
    np.testing.assert_allclose(got, want.mean(2), rtol=0, atol=1e-6)
    assert "test_softsign" in str(net.summary())


@pytest.mark.usefixtures("entry")
def test_it_is_differentiated() -> None:
    net, step = network(corner=0.5), 1e-6
    target = np.random.default_rng(2).standard_normal((3, 4))

    def number(x: np.ndarray) -> float:
        return float((net.run(x, dtype="float64")["output"] * target).sum())

    g = net.gradient(X, target, wrt=["input", "s"], params=True, dtype="float64")
    direction = np.random.default_rng(3).standard_normal(X.shape)
    along = (number(X + step * direction) - number(X - step * direction)) / (2 * step)
    assert float((g["input"] * direction).sum()) == pytest.approx(along, rel=1e-8)
    inner = np.tanh(X)
    want = (np.repeat(target[:, :, None], 5, 2) / 5 * inner / (0.5 + np.abs(inner))).sum((0, 2))
    np.testing.assert_allclose(g.params["w"], want, rtol=1e-12)
    single = net.gradient(X.astype(np.float32), target.astype(np.float32), params=True)
    np.testing.assert_allclose(single["input"], g["input"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(single.params["w"], g.params["w"], rtol=1e-5)


@pytest.mark.usefixtures("entry")
def test_what_is_wrong_names_node_and_attribute() -> None:
    with pytest.raises(sl.UnsupportedOperationError, match=r"node 's' \(test_softsign\): attribute 'edge' is not known; known are corner"):
        network(edge=1.0)
    with pytest.raises(sl.ModelFileError, match=r"node 's' \(test_softsign\): attribute 'corner' .*-1"):
        network(corner=-1.0)
    with pytest.raises(sl.ModelFileError, match=r"node 's' \(test_softsign\): its weight of shape \(4,\)"):
        sl.Network([Node("s", "test_softsign", params={"weight": "w"})], {"w": W}, input_shape=(5, 5))
    with pytest.raises(sl.ModelFileError, match=r"node 's' \(test_softsign\): parameter 'weight' is missing"):
        sl.Network([Node("s", "test_softsign")], {}, input_shape=(4, 5))
    with pytest.raises(ValueError, match="exists; pass replace=True"):
        register_op(ENTRY)


def test_without_an_adjoint_the_walk_back_names_the_node() -> None:
    register_op(Op("test_cube", numpy=lambda call, xs: xs[0] ** 3))
    try:
        net = sl.Network([Node("c", "test_cube"), Node("m", "mean", "c", attrs={"axes": (2,)})], {}, input_shape=(4, 5))
        with pytest.raises(sl.UnsupportedOperationError, match=r"'c'.*test_cube"):
            net.gradient(X.astype(np.float32), 1)
    finally:
        del OPS["test_cube"]


@pytest.mark.parametrize(
    ("adjoint", "message"),
    [
        (lambda call, xs, out, grad, needed, n_threads: [grad[:, :1]], r"'c'.*test_wrong.*\(3, 1, 5\)"),
        (lambda call, xs, out, grad, needed, n_threads: [], r"'c'.*test_wrong.*0 arrays for 1 inputs"),
    ],
)
def test_a_wrong_adjoint_is_an_error_that_names_the_node(adjoint: object, message: str) -> None:
    register_op(Op("test_wrong", numpy=lambda call, xs: xs[0] + 1, adjoint=adjoint))
    try:
        net = sl.Network([Node("c", "test_wrong"), Node("m", "mean", "c", attrs={"axes": (2,)})], {}, input_shape=(4, 5))
        with pytest.raises(ValueError, match=message):
            net.gradient(X.astype(np.float32), 1)
    finally:
        del OPS["test_wrong"]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda xs, grad: {"weight": grad}, r"'s'.*test_softsign.*'weight' has shape \(3, 4, 5\), not \(4,\)"),
        (lambda xs, grad: {"bias": grad}, r"'s'.*test_softsign.*'bias'.*no such parameter"),
    ],
)
def test_a_wrong_parameter_gradient_is_an_error_that_names_the_node(found: object, message: str) -> None:
    register_op(replace(ENTRY, parameter=lambda call, xs, out, grad, n_threads: found(xs, grad)))
    try:
        with pytest.raises(ValueError, match=message):
            network().gradient(X.astype(np.float32), 1, params=True)
    finally:
        del OPS[ENTRY.name]
