"""Gradients in segments, through edits, and within the memory that is allowed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from network_cases import random_network, tiny_network
from test_edit import batch, draw, picture_net, token_net
from test_gradient import ancestors, difference
from test_operations import CASES

import semanticlens as sl
from semanticlens import edit
from semanticlens.nn import Network, Node, segments
from semanticlens.nn.memory import VARIABLE, allowed

RNG = np.random.default_rng


# ---- segments -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_segments_change_no_bit(seed: int) -> None:
    net, x = random_network(seed), batch(2, seed)
    target = RNG(seed).standard_normal((2, *net.output_shape))  # type: ignore[arg-type]
    inner = [item.name for item in net.layers if item.name != net.output and ancestors(net, net.output, item.name)]
    wrt = (["input"] if ancestors(net, net.output, "input") else []) + inner[:: max(1, len(inner) // 3)]
    for dtype in ("float32", "float64"):
        points = x.astype(dtype)
        plain = net.gradient(points, target, wrt, params=True, dtype=dtype)
        for number, n_threads in ((2, 1), (3, 3), (5, 2), (100, 1), ("auto", 2)):
            got = net.gradient(points, target, wrt, params=True, dtype=dtype, segments=number, n_threads=n_threads)
            assert np.array_equal(got.value, plain.value)
            assert all(np.array_equal(got[name], plain[name]) for name in wrt)
            assert got.params.keys() == plain.params.keys()
            assert all(np.array_equal(got.params[key], plain.params[key]) for key in plain.params)
            assert 1 <= got.segments <= 100


def chain(length: int) -> Network:
    nodes = [Node(f"r{i}", "sigmoid", "input" if i == 0 else f"r{i - 1}") for i in range(length)]
    return Network(nodes, {}, input_shape=(1000,))


def test_segments_hold_less() -> None:
    net, x = chain(100), draw(2, 1000)
    one = net.gradient(x, np.ones((2, 1000)))
    ten, auto = (net.gradient(x, np.ones((2, 1000)), segments=number) for number in (10, "auto"))
    assert (one.segments, ten.segments) == (1, 10)
    assert one.peak_bytes >= 100 * 8000
    assert 19 * 8000 <= ten.peak_bytes <= 26 * 8000  # nine values between, ten within, a gradient or two
    assert auto.peak_bytes <= ten.peak_bytes
    assert np.array_equal(one["input"], auto["input"])


def test_a_cut_is_made_where_little_passes() -> None:
    nodes = [
        Node("a", "sigmoid"),
        Node("b", "max_pool2d", "a", attrs={"kernel": (4, 4), "stride": (4, 4)}),
        Node("c", "sigmoid", "b"),
        *(Node(f"d{i}", "sigmoid", "c" if i == 0 else f"d{i - 1}") for i in range(15)),
    ]
    net = Network(nodes, {}, input_shape=(1, 8, 8))
    forward = segments.Single(net, net._graph, frozenset(n.name for n in nodes), frozenset(), (1, 8, 8), 1)
    shapes = {"input": (1, 1, 8, 8), **{item.node.name: (1, *item.shape) for item in net._graph}}
    cut = segments.split(forward.links, frozenset(n.name for n in nodes), shapes, 2)
    assert cut.held == {"b"}
    assert cut.values == 4 + 16 * 4


@pytest.mark.parametrize("number", [0, -1, 1.5, "many", True])
def test_bad_numbers_of_segments(number: Any) -> None:
    net = tiny_network()
    with pytest.raises(ValueError, match=re.escape(f"segments={number!r}: must be a whole number of at least 1, or 'auto'")):
        net.gradient(batch(1, 0), 0, segments=number)


# ---- edits ----------------------------------------------------------------------------------------------------------------------

VECTOR = draw(4, seed=3)
PICTURE_EDITS = {
    "scale": [edit.scale("b", 0.5)],
    "scale a component": [edit.scale("b", 0.0, component=2)],
    "scale positions": [edit.scale("b", -2.0, component=[1, 3], position=[(0, 0), (5, 4)])],
    "scale along": [edit.scale("b", 3.0, direction=VECTOR)],
    "add": [edit.add("b", VECTOR)],
    "add components": [edit.add("b", 1.5, component=[0, -1])],
    "add along": [edit.add("b", 2.0, direction=VECTOR, position=(2, 2))],
    "set": [edit.set("b", 3.0, position=(1, 2))],
    "set along": [edit.set("b", 0.25, direction=VECTOR)],
    "ablate": [edit.ablate("b", component=1)],
    "ablate to mean": [edit.ablate("b", to="mean", component=[1, 2])],
    "ablate to mean at places": [edit.ablate("b", to="mean", component=1, position=[(0, 1), (3, 3)])],
    "ablate to mean everywhere": [edit.ablate("b", to="mean")],
    "ablate to means": [edit.ablate("b", component=[1, 3], to=VECTOR)],
    "replace": [edit.replace("b", draw(4, 6, 5, seed=4), component=2)],
    "replace all": [edit.replace("b", draw(4, 6, 5, seed=4))],
    "ablate along": [edit.ablate("b", direction=VECTOR, to=0.5)],
    "ablate along to the mean": [edit.ablate("b", direction=VECTOR, to="mean")],
    "ablate along to the mean at places": [edit.ablate("b", direction=VECTOR, to="mean", position=[(0, 1), (4, 4)])],
    "ablate components along to the mean": [
        edit.ablate("b", direction=VECTOR[:2], to="mean", component=[2, 0], position=[(0, 1), (4, 4)])
    ],
    "replace along": [edit.replace("b", draw(4, 6, 5, seed=4), direction=VECTOR)],
    "project": [edit.project("b", 5 * VECTOR)],
    "another axis": [edit.project("b", draw(5, seed=8), axis=3)],
    "of the input": [edit.project("input", draw(3, seed=5)), edit.scale("input", 2.0, component=1)],
    "composed": [edit.scale("b", 2.0, component=1), edit.project("b", VECTOR), edit.add("d", 1.0), edit.ablate("b", component=0)],
    "of the output": [edit.scale("g", 2.0, component=3)],
}
TOKEN_EDITS = {
    "tokens": [edit.ablate("c", token=[0, -1]), edit.scale("c", 3.0, token=2, component=[3, 4])],
    "mean": [edit.ablate("c", to="mean", token=[1, 2])],
    "direction": [edit.project("d", np.eye(8)[3] + 1, token=1), edit.add("c", 1.0, direction=np.ones(8))],
    "tokens along": [edit.ablate("c", direction=np.arange(8), to="mean", token=[1, 3])],
    "vectors along": [edit.ablate("g", direction=np.arange(8), to="mean"), edit.replace("g", draw(8, seed=2), direction=np.ones(8))],
    "vectors": [edit.ablate("g", to="mean"), edit.scale("g", 2.0)],
}
EDITS = [("picture", name) for name in PICTURE_EDITS] + [("token", name) for name in TOKEN_EDITS]


def edited_case(kind: str, name: str) -> tuple[Network, np.ndarray, list[edit.Edit]]:
    if kind == "picture":
        return picture_net(), draw(2, 3, 6, 5), PICTURE_EDITS[name]
    return token_net(), draw(2, 5, 8), TOKEN_EDITS[name]


@pytest.mark.parametrize(("kind", "name"), EDITS)
def test_gradients_through_edits_against_finite_differences(kind: str, name: str) -> None:
    net, x, changes = edited_case(kind, name)
    wide = x.astype(np.float64)
    inner = "a" if kind == "picture" else "b"
    target = RNG(0).standard_normal((len(x), *net.output_shape))  # type: ignore[arg-type]
    run = lambda at: float((net.run(at, edits=changes, dtype="float64")["output"] * target).sum())  # noqa: E731
    got = net.gradient(wide, target, ["input", inner], edits=changes, dtype="float64")
    assert np.array_equal(got.value, net.run(wide, edits=changes, dtype="float64")["output"])
    for seed in range(4):
        direction = RNG(seed).standard_normal(x.shape)
        assert float((got["input"] * direction).sum()) == pytest.approx(difference(run, wide, direction), rel=1e-5, abs=1e-7)
    narrow = net.gradient(x, target, ["input", inner], edits=changes)
    assert np.array_equal(narrow.value, net.run(x, edits=changes)["output"])
    for key in ("input", inner):
        assert np.abs(narrow[key] - got[key]).max() <= 2e-5 * max(1.0, np.abs(got[key]).max())
        for number in (2, "auto"):
            again = net.gradient(x, target, key, edits=changes, segments=number, n_threads=3)
            assert np.array_equal(again[key], narrow[key])
    other = net.edited(*changes).gradient(x, target, ["input", inner])
    assert all(np.array_equal(other[key], narrow[key]) for key in ("input", inner))


def test_what_is_put_in_is_constant() -> None:
    net, x = picture_net(), draw(2, 3, 6, 5)
    target = np.ones((2, 4))
    for change in (edit.set("b", 1.0), edit.ablate("b"), edit.replace("b", draw(4, 6, 5))):
        got = net.gradient(x, target, ["a", "b"], edits=change)
        assert np.allclose(got["a"], 1 / 30)  # what passes beside b, the whole of it
        assert not np.array_equal(got["b"], got["a"])  # by the edited value: what putting more in would do
    with pytest.raises(ValueError, match="the edit at 'c' changes nothing"):
        net.gradient(x, np.ones((2, 4, 6, 5)), of="d", edits=edit.scale("c", 2.0))
    with pytest.raises(sl.DataError, match="component 9 does not exist among 4"):
        net.gradient(x, target, edits=edit.scale("b", 2.0, component=9))


def in_torch(change: edit.Edit, h: Any) -> Any:
    """The edit, written as one would in torch."""
    import torch

    axis = change.axis or (1 if h.ndim in (2, 4) else h.ndim - 1)
    h = h.movedim(axis, -1)
    mask = torch.ones_like(h[0], dtype=torch.bool)
    if change.tokens is not None:
        mask &= torch.zeros_like(mask).index_fill(-2, torch.tensor([t % h.shape[-2] for t in change.tokens]), True)
    if change.positions is not None:
        places = torch.zeros_like(mask)
        for row, column in change.positions:
            places[row, column] = True
        mask &= places
    if change.components is not None:
        mask &= torch.zeros_like(mask).index_fill(-1, torch.tensor([c % h.shape[-1] for c in change.components]), True)
    value = None if change.value is None else torch.tensor(change.value, dtype=h.dtype)
    if change.direction is not None:
        unit = torch.zeros(h.shape[-1], dtype=h.dtype)
        unit[slice(None) if change.components is None else list(change.components)] = torch.tensor(change.direction, dtype=h.dtype)
        along = (h @ unit)[..., None]
        if change.kind == "replace":
            to = (value.movedim(axis - 1, -1) @ unit)[..., None]
        elif change.kind == "ablate" and value is None:
            to = along.mean(dim=tuple(range(1, h.ndim - 1)), keepdim=True) if h.ndim > 2 else along
        else:
            to = {"scale": change.factor * along, "add": along + (0 if value is None else value)}.get(
                change.kind, torch.zeros_like(along) if value is None else value
            )
        new = h - along * unit + to * unit
    elif change.kind == "scale":
        new = h * change.factor
    elif change.kind == "add":
        new = h + value
    elif change.kind == "ablate" and value is None:
        new = h.mean(dim=tuple(range(1, h.ndim - 1)), keepdim=True).expand_as(h) if h.ndim > 2 else h
    elif change.kind == "replace":
        new = value.movedim(axis - 1, -1).expand_as(h)
    else:
        new = value.expand_as(h) if value.ndim == 0 or value.shape[-1] == h.shape[-1] else h.new_zeros(h.shape) + value[..., :1]
    return torch.where(mask, new, h).movedim(-1, axis)


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "name"), EDITS)
def test_gradients_through_edits_equal_torch(kind: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    net, x, changes = edited_case(kind, name)
    p = {key: torch.tensor(array.astype(np.float64)) for key, array in net.params.items()}
    start = torch.tensor(x.astype(np.float64), requires_grad=True)

    def at(node: str, value: Any) -> Any:
        for change in changes:
            value = in_torch(change, value) if change.node == node else value
        return value

    h = at("input", start)
    if kind == "picture":
        a = at("a", f.conv2d(h, p["w"], padding=1))
        inner = a
        a.retain_grad()
        b = at("b", a.relu())
        c = at("c", f.conv2d(b, p["v"]))
        d = at("d", a + b)
        out = at("g", at("e", d.mean((2, 3))) + at("f", c.mean((2, 3))))
    else:
        inner = b = at("b", f.linear(at("a", f.layer_norm(h, (8,))), p["w"]))
        b.retain_grad()
        d = at("d", at("c", f.gelu(b)) + h)
        out = at("g", at("e", d[:, 0]) + at("f", d.mean(1)))
    target = RNG(0).standard_normal(out.shape)
    (out * torch.tensor(target)).sum().backward()
    key = "a" if kind == "picture" else "b"
    got = net.gradient(x.astype(np.float64), target, ["input", key], edits=changes, dtype="float64")
    for ours, theirs in ((got["input"], start.grad.numpy()), (got[key], inner.grad.numpy())):
        assert np.abs(ours - theirs).max() <= 1e-9 * max(np.abs(theirs).max(), 1e-3)
    np.testing.assert_allclose(got.value, out.detach().numpy(), rtol=1e-9, atol=1e-12)


# ---- memory ---------------------------------------------------------------------------------------------------------------------


def test_what_needs_more_memory_than_allowed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = chain(50), draw(4, 1000)
    target = np.ones((4, 1000))
    monkeypatch.setenv(VARIABLE, "150000")
    assert allowed() == (150000, f"environment variable {VARIABLE}")
    assert np.isfinite(net(x)).all()  # three values at a time
    with pytest.raises(sl.MemoryLimitError, match=r"this gradient needs 8\d\d,000 bytes of memory .*150,000 are allowed.*segments='auto'"):
        net.gradient(x, target)
    monkeypatch.setenv(VARIABLE, "400000")
    less = net.gradient(x, target, segments="auto")
    monkeypatch.delenv(VARIABLE)
    assert np.array_equal(less["input"], net.gradient(x, target)["input"])
    monkeypatch.setenv(VARIABLE, "20000")
    for dtype in ("float32", "float64"):
        with pytest.raises(sl.MemoryLimitError, match=r"this run.* needs [\d,]+ bytes of memory for its values, 20,000 are allowed"):
            net.run(x, dtype=dtype)
        with pytest.raises(sl.MemoryLimitError, match=r"bytes"):
            net.gradient(x.astype(dtype), target, dtype=dtype)
    with pytest.raises(MemoryError):
        net.run_from("r3", x)
    monkeypatch.setenv(VARIABLE, "much")
    with pytest.raises(ValueError, match=f"environment variable {VARIABLE}='much' must be a whole number of bytes"):
        net(x)


def test_huge_shapes_of_a_hostile_graph_cost_nothing() -> None:
    import tracemalloc

    nodes = [
        Node("a", "expand", attrs={"shape": (1, 1 << 16, 1 << 14)}),
        Node("b", "expand", "a", attrs={"shape": (2, 1 << 16, 1 << 14)}),
        Node("c", "sigmoid", "b"),
        Node("d", "mean", "c", attrs={"axes": (2, 3)}),
    ]
    net = Network(nodes, {}, input_shape=(1, 1, 1))
    x = np.ones((64, 1, 1, 1), np.float32)
    tracemalloc.start()
    try:
        for call in (
            lambda: net(x),
            lambda: net.run(x, dtype="float64"),
            lambda: net.gradient(x, np.ones((64, 2))),
            lambda: net.gradient(x, np.ones((64, 2)), segments="auto"),
            lambda: net.gradient(x.astype(np.float64), np.ones((64, 2)), dtype="float64"),
            lambda: net.run_from("input", x),
        ):
            with pytest.raises(sl.MemoryLimitError, match=r"needs \d{3},\d{3},\d{3},\d{3}|needs \d,\d{3},\d{3},\d{3},\d{3}"):
                call()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seed", range(20))
def test_the_counted_need_of_a_run_bounds_what_it_allocates(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte less than counted is refused; what is counted covers what NumPy is asked for."""
    import tracemalloc

    from semanticlens.nn.plan import Scratch

    net, x = random_network(seed), batch(8, seed)
    names = [*net.layers.names][:: 3]
    net.run(x, names)
    plan = next(p for p in net._plans.values() if set(p.records) == {net.resolve(name) for name in names})
    monkeypatch.setenv(VARIABLE, str(4 * 8 * plan.peak - 1))
    with pytest.raises(sl.MemoryLimitError):
        net.run(x, names)
    monkeypatch.setenv(VARIABLE, str(4 * 8 * plan.peak))
    net._scratch = Scratch()
    tracemalloc.start()
    try:
        net.run(x, names)
        assert tracemalloc.get_traced_memory()[1] <= 1.25 * 4 * 8 * plan.peak + (64 << 10)
    finally:
        tracemalloc.stop()


def test_every_operation_in_segments() -> None:
    for name, nets in CASES.items():
        for net in nets:
            if net.takes_ids or len(net.nodes) < 2:
                continue
            x = RNG(0).standard_normal((2, *net.input_shape)).astype(np.float32)  # type: ignore[arg-type]
            target = RNG(1).standard_normal((2, *net.output_shape))  # type: ignore[arg-type]
            assert np.array_equal(net.gradient(x, target)["input"], net.gradient(x, target, segments=2)["input"]), name


def test_the_page_is_made_of_the_results() -> None:
    import gradient_table

    assert (gradient_table.DOCS / "gradients.md").read_text(encoding="utf-8") == gradient_table.page()
