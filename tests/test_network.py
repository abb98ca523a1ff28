"""The network: values against a plain evaluation, whatever is merged, recorded, reused or run in parallel; checks of graphs and inputs."""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
from network_cases import IMAGE, evaluate, random_network, tiny_network, values

import semanticlens as sl
from semanticlens.nn import OPS, Attr, Network, Node, Op, attrs, fold_batch_norm, register_op
from semanticlens.nn.plan import Scratch, compile_plan

SEEDS = range(40)


def batch(count: int = 3, shape: tuple[int, ...] = IMAGE, seed: int = 1) -> np.ndarray:
    return values(np.random.default_rng(seed), count, *shape)


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-4) -> bool:
    return (
        a.shape == b.shape
        and a.dtype == np.float32
        and np.abs(a - b).max() <= tolerance * max(1.0, float(np.abs(b).max()))
    )


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("seed", SEEDS)
def test_every_value_of_random_graphs(seed: int) -> None:
    net, x = random_network(seed), batch(seed=seed)
    before = x.copy()
    want = evaluate(net, x)
    names = ["input", *net.layers.names]
    got = net.run(x, names)
    for name in names:
        assert close(got[name], want[name]), name
    assert np.array_equal(x, before)
    assert not any(np.shares_memory(got[name], x) for name in names)
    assert not any(np.shares_memory(got[a], got[b]) for a, b in itertools.combinations(names, 2))


@pytest.mark.parametrize("seed", SEEDS)
def test_records_stay_when_the_network_runs_again(seed: int) -> None:
    """Small records are computed in memory that the network keeps: the caller's must be copies, whatever merges or writes in place."""
    net, x = random_network(seed), batch(1, seed=seed)
    for names in ([net.output], [*net.layers.names], net.layers.names[seed % 3 :: 3]):
        first = net.run(x, names)
        kept = {name: value.copy() for name, value in first.items()}
        other = net.run(batch(1, seed=seed + 100), names)
        again = net.run(x, names)
        for name in names:
            assert np.array_equal(first[name], kept[name]), name
            assert np.array_equal(again[name], kept[name]), name
            assert not np.shares_memory(first[name], other[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_merging_reuse_and_records_change_no_bit(seed: int) -> None:
    net, x = random_network(seed), batch(2, seed=seed)
    names = net.layers.names
    plain = compile_plan(net._graph, frozenset(names), IMAGE, net.params, net._prepare, fuse=False).execute(
        (x,), 1, Scratch()
    )
    assert np.array_equal(net(x), plain[net.output])
    rng = np.random.default_rng(seed)
    for _ in range(6):
        some = list(rng.choice(names, size=int(rng.integers(1, 5)), replace=False))
        for name, got in net.run(x, some).items():
            assert np.array_equal(got, plain[name]), (some, name)


def test_the_random_graphs_use_every_operation() -> None:
    used = {node.op for seed in SEEDS for node in random_network(seed).nodes}
    assert used <= set(OPS)
    assert len(used) == 22  # the others: test_operations.py


@pytest.mark.parametrize("seed", range(0, 40, 5))
def test_the_same_bits_for_every_thread_count(seed: int) -> None:
    net, x = random_network(seed), batch(5, seed=seed)
    names = net.layers.names
    want = net.run(x, names, n_threads=1)
    for n_threads in (2, 3, 8):
        got = net.run(x, names, n_threads=n_threads)
        assert all(np.array_equal(got[name], want[name]) for name in names)


def test_threads_share_a_network() -> None:
    net, x = tiny_network(), batch(4)
    want = net.run(x, net.layers.names, n_threads=1)
    fresh, failures = tiny_network(), []

    def work(k: int) -> None:
        names = [net.layers.names[(k + i) % len(net.nodes)] for i in range(3)]
        for _ in range(20):
            got = fresh.run(x, names, n_threads=1)
            failures.extend(name for name in names if not np.array_equal(got[name], want[name]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_samples_do_not_depend_on_their_batch() -> None:
    net, x = tiny_network(), batch(5)
    whole = net(x)
    assert all(close(net(x[i : i + 1])[0], whole[i], 1e-6) for i in range(5))


def test_views_strides_and_other_arrays_are_accepted() -> None:
    net, x = tiny_network(), batch(4)
    wide = np.repeat(x, 2, axis=3)[..., ::2]
    assert not wide.flags.c_contiguous
    assert np.array_equal(net(wide), net(x))
    frozen = x.copy()
    frozen.flags.writeable = False
    assert np.array_equal(net(frozen), net(x))


def test_networks_of_vectors_and_of_tokens() -> None:
    r = np.random.default_rng(0)
    params = {
        "w": values(r, 6, 7),
        "b": values(r, 6),
        "mean": values(r, 6),
        "var": np.ones(6, np.float32),
        "w2": values(r, 3, 6),
    }
    dense = Node("dense", "dense", "input", {"weight": "w", "bias": "b"})
    norm = Node("norm", "batch_norm", "dense", {"mean": "mean", "var": "var"})
    vectors = Network(
        [dense, norm, Node("relu", "relu", "norm"), Node("fc", "dense", "relu", {"weight": "w2"})],
        params,
        input_shape=(7,),
    )
    x = values(r, 20, 7)
    want = np.maximum((x @ params["w"].T + params["b"] - params["mean"]) / np.sqrt(1 + 1e-5), 0) @ params["w2"].T
    for count in (1, 7, 8, 20):
        assert close(vectors(x[:count]), want[:count], 1e-5)
        assert close(fold_batch_norm(vectors)(x[:count]), want[:count], 1e-5)
    del params["mean"], params["var"]
    tokens = Network(
        [
            dense,
            Node("relu", "relu", "dense"),
            Node("fc", "dense", "relu", {"weight": "w2"}),
            Node("all", "mean", "fc", attrs={"axes": [1]}),
        ],
        params,
        input_shape=(5, 7),
    )
    x = values(r, 4, 5, 7)
    assert tokens.output_shape == (3,)
    assert close(tokens(x), (np.maximum(x @ params["w"].T + params["b"], 0) @ params["w2"].T).mean(1), 1e-5)


# ---------------------------------------------------------------- memory


def chain(length: int, residual: bool) -> Network:
    """Convolutions with values of 1 MB per sample."""
    r = np.random.default_rng(0)
    nodes, params, before = [], {}, "input"
    for i in range(length):
        params[f"w{i}"] = values(r, 4, 4, 1, 1)
        nodes.append(Node(f"conv{i}", "conv2d", before, {"weight": f"w{i}"}))
        nodes.append(Node(f"relu{i}", "relu", f"conv{i}"))
        if residual:
            nodes.append(Node(f"add{i}", "add", (f"relu{i}", before)))
        before = nodes[-1].name
    return Network(nodes, params, input_shape=(4, 256, 256))


@pytest.fixture
def no_scratch_in_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that allocate nothing, so that what is counted is the executor's."""
    from semanticlens._kernels import nn as kernels

    def conv2d(x, weight, bias=None, *, activation="none", addend=None, packed=None, out=None, **_):
        return np.multiply(x, weight[0, 0, 0, 0], out=out)

    monkeypatch.setattr(kernels, "conv2d", conv2d)
    monkeypatch.setattr(kernels, "activate", lambda x, kind, *, out=None, n_threads=None: np.maximum(x, 0, out=out))
    monkeypatch.setattr(
        kernels, "add", lambda a, b, *, activation="none", out=None, n_threads=None: np.add(a, b, out=out)
    )


@pytest.mark.parametrize(("residual", "alive"), [(False, 2), (True, 3)])
def test_memory_is_used_again(no_scratch_in_kernels: None, residual: bool, alive: int) -> None:
    """However long the chain is, it takes what is alive at once and the records; in units of one value."""
    x = batch(1, (4, 256, 256))
    packed = 0.3 if sl.build_info()["tier"].startswith("amx") else 0.0   # weights packed for tiles take at least 6 kB a layer
    peaks = []
    for length in (4, 40):
        net = chain(length, residual)
        tracemalloc.start()
        try:
            net.run(x)
            first = tracemalloc.get_traced_memory()[1] / x.nbytes
            assert first <= alive + 1.2 + packed
            peaks.append(first)
            got = net.run(x, ["relu2", "relu3"])
            assert tracemalloc.get_traced_memory()[1] / x.nbytes <= 2 * alive + 2.2 + packed
            assert tracemalloc.get_traced_memory()[0] / x.nbytes <= alive + 2.2 + packed
            del net, got
            assert tracemalloc.get_traced_memory()[0] / x.nbytes <= 0.2
        finally:
            tracemalloc.stop()
    assert peaks[1] <= peaks[0] + 0.2 + packed  # 36 layers more: 3 kB each of plan, none of values


def test_large_working_memory_is_not_kept(no_scratch_in_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from semanticlens.nn import plan

    monkeypatch.setattr(plan, "KEPT_BYTES", 0)
    net, x = chain(4, True), batch(1, (4, 256, 256))
    tracemalloc.start()
    try:
        net.run(x)
        assert tracemalloc.get_traced_memory()[0] / x.nbytes <= 0.2
    finally:
        tracemalloc.stop()


def test_an_error_in_the_middle_leaves_nothing_behind(forget_ops: None) -> None:
    register_op(Op("fail", lambda call, xs, out, n_threads: 1 / 0, lambda attrs, params, shapes: shapes[0]))
    net = Network([Node("a", "sigmoid"), Node("b", "fail", "a"), Node("c", "relu", "a")], {}, input_shape=IMAGE)
    want = net.run(batch(), "c")["c"].copy()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            net.run(batch(), "b")
    assert np.array_equal(net.run(batch(), "c")["c"], want)


def test_only_what_is_needed_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny_network()
    steps = net._plan(frozenset(["relu1"]), IMAGE).steps
    assert [step.name for step in steps] == ["conv1", "relu1"]
    assert [step.name for step in net._plan(frozenset(["fc"]), IMAGE).steps] == [
        "conv1",
        "relu1",
        "relu2",
        "pool",
        "flatten",
        "fc",
    ]
    assert [step.name for step in fold_batch_norm(net)._plan(frozenset(["fc"]), IMAGE).steps] == [
        "relu1",
        "relu2",
        "pool",
        "flatten",
        "fc",
    ]


def test_results_may_be_written_over() -> None:
    net, x = tiny_network(), batch(2)
    first = net.run(x, ["relu1", "relu2", "flatten", "pool", "output"])
    kept = {name: array.copy() for name, array in first.items()}
    for array in first.values():
        array.fill(np.nan)
    again = net.run(x, list(kept))
    assert all(np.array_equal(again[name], kept[name]) for name in kept)


def test_two_names_of_a_node_and_the_order_of_records() -> None:
    net, x = tiny_network(), batch(2)
    got = net.run(x, ["output", "block", "relu2", "stem"])
    assert list(got) == ["output", "block", "relu2", "stem"]
    assert got["block"] is got["relu2"]
    assert np.array_equal(got["output"], net(x))
    assert list(net.run(x, "block")) == ["block"]


# ---------------------------------------------------------------- folding


@pytest.mark.parametrize("seed", SEEDS)
def test_folding_keeps_the_function(seed: int) -> None:
    net, x = random_network(seed), batch(seed=seed)
    folded = fold_batch_norm(net)
    assert close(folded(x), net(x))
    names = folded.layers.names
    want, got = net.run(x, names), folded.run(x, names)
    assert all(close(got[name], want[name]) for name in names)
    assert fold_batch_norm(folded) is folded


def test_folded_names_say_so() -> None:
    net = tiny_network(aliases={"block": "relu2", "first": "conv1"})
    folded = fold_batch_norm(net)
    assert dict(folded.folded) == {"conv1": "bn1", "first": "bn1"}
    assert "conv1" not in folded.layers
    for name in ("conv1", "first"):
        with pytest.raises(
            sl.LayerNotFoundError,
            match="folded into it and its values exist only as 'bn1'; load the network with fold=False",
        ):
            folded.run(batch(), name)
    assert folded.fingerprint != net.fingerprint


def test_a_convolution_that_is_read_elsewhere_is_not_folded() -> None:
    net = tiny_network()
    both = Network(
        [*net.nodes[:7], Node("more", "add", ("conv1", "relu2")), Node("p", "mean", "more", attrs={"axes": [2, 3]})],
        {key: value for key, value in net.params.items() if not key.startswith("fc")},
        input_shape=IMAGE,
    )
    assert fold_batch_norm(both) is both
    as_output = Network(
        net.nodes[:2],
        {key: value for key, value in net.params.items() if key.startswith(("conv1", "bn1"))},
        input_shape=IMAGE,
        output="conv1",
    )
    assert fold_batch_norm(as_output) is as_output


# ---------------------------------------------------------------- sizes


def test_other_sizes() -> None:
    net = tiny_network()
    small = net.with_input_size(9, 8)
    x = batch(2, (3, 9, 8))
    assert small.preprocess is not None
    assert small.preprocess.size == (9, 8)
    assert close(small(x), evaluate(small, x)["fc"])
    free = net.with_input_size(None, None)
    assert free.layers["relu1"].shape == (6, None, None)
    assert "(3, ?, ?)" in repr(free)
    assert np.array_equal(free(x), small(x))
    assert np.array_equal(free(batch()), net(batch()))
    with pytest.raises(sl.DataError, match="expected 13 x 11 pixels, got 9 x 8"):
        net(x)


def test_a_size_that_a_layer_forbids_names_the_layer() -> None:
    r = np.random.default_rng(0)
    net = Network(
        [Node("flat", "flatten"), Node("fc", "dense", "flat", {"weight": "w"})],
        {"w": values(r, 2, 48)},
        input_shape=(3, 4, 4),
    )
    with pytest.raises(sl.ModelFileError, match=r"node 'fc' \(dense\): input features .*: 75 arrive, 48 are expected"):
        net.with_input_size(5, 5)
    free = net.with_input_size(None, None)
    with pytest.raises(sl.ModelFileError, match="node 'fc'"):
        free(batch(1, (3, 5, 5)))


# ---------------------------------------------------------------- what users see


def test_layers_table() -> None:
    net = tiny_network()
    assert len(net.layers) == 9
    assert net.layers[0].name == "conv1"
    assert net.layers["block"].name == "relu2"
    assert net.layers["fc"].n_params == 28
    assert "stem" in net.layers
    assert "nothing" not in net.layers
    assert net.layers[1:3].names == ("bn1", "relu1")
    text = repr(net.layers)
    assert "relu2    relu  " in text
    assert text.splitlines()[0].split() == ["name", "op", "shape", "parameters", "also"]
    assert repr(net) == "Network('tiny': (3, 13, 11) -> (4,), 9 nodes, 544 parameters, 4 labels)"
    strange = tiny_network(name="<b>", aliases={"<script>": "relu2"})
    assert "<script>" not in strange._repr_html_()
    assert "&lt;script&gt;" in strange._repr_html_()


def test_unknown_layers_offer_the_nearest() -> None:
    with pytest.raises(sl.LayerNotFoundError, match="'relu3' is not in the network; nearest: relu"):
        tiny_network().run(batch(), ["relu3"])
    with pytest.raises(sl.LayerNotFoundError):
        tiny_network().layers["relu3"]


def test_fingerprint_is_of_the_function() -> None:
    net = tiny_network()
    assert net.fingerprint == tiny_network(name="other", aliases={}, labels=None).fingerprint
    assert len(net.fingerprint) == 64
    other = tiny_network(params={"fc.bias": np.zeros(4, np.float32)})
    assert net.fingerprint != other.fingerprint
    assert net.fingerprint != tiny_network(preprocess=None).fingerprint


def test_copies_and_pickles() -> None:
    net, x = tiny_network(), batch()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert np.array_equal(other(x), net(x))
        assert other.fingerprint == net.fingerprint
        assert other.labels == net.labels


def test_stream() -> None:
    net = tiny_network()
    batches = [(np.arange(3 * i, 3 * i + 3), batch(seed=i)) for i in range(4)]
    seen = list(net.stream(iter(batches), ["block", "output"]))
    assert [ids.tolist() for ids, _ in seen] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert all(np.array_equal(got["output"], net(x)) for (_, got), (_, x) in zip(seen, batches, strict=True))


# ---------------------------------------------------------------- own operations


def test_an_operation_in_numpy(forget_ops: None) -> None:
    def scaled_tanh(call, xs, out, n_threads):
        return np.multiply(np.tanh(xs[0]), call.params["gain"][:, None, None] * call.attrs["factor"], out=out)

    register_op(
        Op(
            "gained",
            scaled_tanh,
            lambda attrs, params, shapes: shapes[0],
            params=("gain",),
            attrs={"factor": Attr(attrs.number(0.0), 2.0)},
        )
    )
    net = Network(
        [Node("t", "gained", params={"gain": "g"}, attrs={"factor": 3}), Node("r", "relu", "t")],
        {"g": np.ones(3, np.float32)},
        input_shape=IMAGE,
    )
    x = batch()
    assert np.allclose(net(x), np.maximum(3 * np.tanh(x), 0), atol=1e-6)
    with pytest.raises(ValueError, match="'gained' exists; pass replace=True"):
        register_op(OPS["gained"])
    with pytest.raises(
        sl.UnsupportedOperationError, match=r"node 't' \(gained\): attribute 'faktor' is not known; known are factor"
    ):
        Network(
            [Node("t", "gained", params={"gain": "g"}, attrs={"faktor": 3})],
            {"g": np.ones(3, np.float32)},
            input_shape=IMAGE,
        )


def test_an_operation_that_gives_its_input_back_is_kept_apart(forget_ops: None) -> None:
    register_op(
        Op("same", lambda call, xs, out, n_threads: xs[0], lambda attrs, params, shapes: shapes[0], takes_out=False)
    )
    net = Network([Node("a", "same"), Node("b", "relu", "a")], {}, input_shape=IMAGE)
    x = batch()
    got = net.run(x, ["a", "b"])
    assert np.array_equal(got["a"], x)
    assert not np.shares_memory(got["a"], x)
    assert np.array_equal(got["b"], np.maximum(x, 0))


def test_an_operation_that_breaks_its_promise(forget_ops: None) -> None:
    register_op(
        Op(
            "odd",
            lambda call, xs, out, n_threads: xs[0][:, :1],
            lambda attrs, params, shapes: shapes[0],
            takes_out=False,
        )
    )
    net = Network([Node("a", "odd")], {}, input_shape=IMAGE)
    with pytest.raises(
        sl.NumericalError,
        match=r"node 'a': its operation returned float32 of shape \(3, 1, 13, 11\), its shape rule promised",
    ):
        net(batch())


def test_interruption_between_nodes(forget_ops: None) -> None:
    stop = [True]

    def interrupted(call, xs, out, n_threads):
        if stop[0]:
            raise KeyboardInterrupt
        return xs[0] * 2

    register_op(Op("stop", interrupted, lambda attrs, params, shapes: shapes[0], takes_out=False))
    net = Network([Node("a", "relu"), Node("b", "stop", "a"), Node("c", "relu", "b")], {}, input_shape=IMAGE)
    with pytest.raises(KeyboardInterrupt):
        net(batch())
    stop[0] = False
    assert np.array_equal(net(batch()), 2 * np.maximum(batch(), 0))


def test_a_broadcast_addition_stays_apart() -> None:
    """A convolution takes a residual of its own shape only into its call."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3, 3, 3), np.float32)
    nodes = [
        Node("conv", "conv2d", ("input",), {"weight": "w"}, {"padding": (1, 1, 1, 1)}),
        Node("mean", "mean", ("input",), {}, {"axes": (1, 2, 3), "keepdims": True}),
        Node("sum", "add", ("conv", "mean")),
    ]
    net = Network(nodes, {"w": weight}, input_shape=(3, 6, 6))
    x = rng.standard_normal((2, 3, 6, 6), np.float32)
    parts = net.run(x, record=("conv", "mean"))
    np.testing.assert_allclose(net(x), parts["conv"] + parts["mean"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "params"),
    [
        ("dense", {"weight": (4, 3)}),
        ("batch_norm", dict.fromkeys(("mean", "var", "weight", "bias"), (3,))),
        ("layer_norm", {"weight": (3,)}),
        ("group_norm", {"weight": (3,)}),
    ],
)
def test_samples_without_axes_are_refused(op: str, params: dict[str, tuple[int, ...]]) -> None:
    """A node that takes features never sees a sample that is a single number."""
    nodes = [
        Node("sum", "sum", ("input",), {}, {"axes": (1,), "keepdims": False}),
        Node("last", op, ("sum",), {role: role for role in params}, {"groups": 1} if op == "group_norm" else {}),
    ]
    arrays = {role: np.ones(shape, np.float32) for role, shape in params.items()}
    with pytest.raises(sl.ModelFileError, match=r"'last'.*at least one axis"):
        Network(nodes, arrays, input_shape=(3,))


def test_normalisation_beyond_float32_is_not_finite() -> None:
    """Its factor overflows when the plan is made: values that are not finite, as float32 gives them, and no warning."""
    arrays = {"mean": [1e30], "var": [1e-20], "weight": [1e30], "bias": [0.0]}
    net = Network(
        [Node("norm", "batch_norm", ("input",), {role: role for role in arrays}, {"eps": 0.0})],
        {role: np.asarray(value, np.float32) for role, value in arrays.items()},
        input_shape=(1, 2, 2),
    )
    assert not np.isfinite(net(np.ones((1, 1, 2, 2), np.float32))).any()
