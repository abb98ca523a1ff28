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
from semanticlens.nn.plan import compile_plan

SEEDS = range(40)


def batch(count: int = 3, shape: tuple[int, ...] = IMAGE, seed: int = 1) -> np.ndarray:
    return values(np.random.default_rng(seed), count, *shape)


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-4) -> bool:
    return a.shape == b.shape and a.dtype == np.float32 and np.abs(a - b).max() <= tolerance * max(1.0, float(np.abs(b).max()))


@pytest.fixture
def forget_ops():
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


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
def test_merging_reuse_and_records_change_no_bit(seed: int) -> None:
    net, x = random_network(seed), batch(2, seed=seed)
    names = net.layers.names
    plain = compile_plan(net._graph, frozenset(names), IMAGE, net.params, net._prepare, fuse=False).execute(x, 1)
    assert np.array_equal(net(x), plain[net.output])
    rng = np.random.default_rng(seed)
    for _ in range(6):
        some = list(rng.choice(names, size=int(rng.integers(1, 5)), replace=False))
        for name, got in net.run(x, some).items():
            assert np.array_equal(got, plain[name]), (some, name)


def test_the_random_graphs_use_every_operation() -> None:
    used = {node.op for seed in SEEDS for node in random_network(seed).nodes}
    assert used == set(OPS)


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


@pytest.mark.parametrize(("residual", "limit"), [(False, 2), (True, 3)])
def test_memory_is_given_back(monkeypatch: pytest.MonkeyPatch, residual: bool, limit: int) -> None:
    """Live values never exceed what the graph needs at once, however long it is: counted in values of 1 MB."""
    from semanticlens._kernels import nn as kernels

    def conv2d(x, weight, bias=None, *, activation="none", addend=None, packed=None, out=None, **_):
        out = np.empty_like(x) if out is None else out
        np.multiply(x, weight[0, 0, 0, 0], out=out)
        return out

    monkeypatch.setattr(kernels, "conv2d", conv2d)    # scratch memory of kernels is another matter
    monkeypatch.setattr(kernels, "activate", lambda x, kind, *, out=None, n_threads=None: np.maximum(x, 0, out=out))
    monkeypatch.setattr(kernels, "add", lambda a, b, *, activation="none", out=None, n_threads=None: np.add(a, b, out=out))
    net, x = chain(12, residual), batch(1, (4, 256, 256))
    net.run(x)
    tracemalloc.start()
    try:
        net.run(x)
        peak = tracemalloc.get_traced_memory()[1] / x.nbytes
        net.run(x, ["relu2", "relu5"])
        recorded = tracemalloc.get_traced_memory()[1] / x.nbytes
    finally:
        tracemalloc.stop()
    assert peak <= limit + 0.1
    assert recorded <= limit + 2.1


def test_only_what_is_needed_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny_network()
    steps = net._plan(frozenset(["relu1"]), IMAGE).steps
    assert [step.name for step in steps] == ["conv1", "relu1"]
    assert [step.name for step in net._plan(frozenset(["fc"]), IMAGE).steps] == ["conv1", "relu1", "relu2", "pool", "flatten", "fc"]
    assert [step.name for step in fold_batch_norm(net)._plan(frozenset(["fc"]), IMAGE).steps] == ["relu1", "relu2", "pool", "flatten", "fc"]


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
        with pytest.raises(sl.LayerNotFoundError, match="folded into it and its values exist only as 'bn1'; load the network with fold=False"):
            folded.run(batch(), name)
    assert folded.fingerprint != net.fingerprint


def test_a_convolution_that_is_read_elsewhere_is_not_folded() -> None:
    net = tiny_network()
    both = Network([*net.nodes[:7], Node("more", "add", ("conv1", "relu2")), Node("p", "mean", "more", attrs={"axes": [2, 3]})],
                   {key: value for key, value in net.params.items() if not key.startswith("fc")}, input_shape=IMAGE)
    assert fold_batch_norm(both) is both
    as_output = Network(net.nodes[:2], {key: value for key, value in net.params.items() if key.startswith(("conv1", "bn1"))}, input_shape=IMAGE, output="conv1")
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
    net = Network([Node("flat", "flatten"), Node("fc", "dense", "flat", {"weight": "w"})], {"w": values(r, 2, 48)}, input_shape=(3, 4, 4))
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

    register_op(Op("tanh", scaled_tanh, lambda attrs, params, shapes: shapes[0], params=("gain",), attrs={"factor": Attr(attrs.number(0.0), 2.0)}))
    net = Network([Node("t", "tanh", params={"gain": "g"}, attrs={"factor": 3}), Node("r", "relu", "t")], {"g": np.ones(3, np.float32)}, input_shape=IMAGE)
    x = batch()
    assert np.allclose(net(x), np.maximum(3 * np.tanh(x), 0), atol=1e-6)
    with pytest.raises(ValueError, match="'tanh' exists; pass replace=True"):
        register_op(OPS["tanh"])
    with pytest.raises(sl.UnsupportedOperationError, match=r"node 't' \(tanh\): attribute 'faktor' is not known; known are factor"):
        Network([Node("t", "tanh", params={"gain": "g"}, attrs={"faktor": 3})], {"g": np.ones(3, np.float32)}, input_shape=IMAGE)


def test_an_operation_that_gives_its_input_back_is_kept_apart(forget_ops: None) -> None:
    register_op(Op("same", lambda call, xs, out, n_threads: xs[0], lambda attrs, params, shapes: shapes[0], takes_out=False))
    net = Network([Node("a", "same"), Node("b", "relu", "a")], {}, input_shape=IMAGE)
    x = batch()
    got = net.run(x, ["a", "b"])
    assert np.array_equal(got["a"], x)
    assert not np.shares_memory(got["a"], x)
    assert np.array_equal(got["b"], np.maximum(x, 0))


def test_an_operation_that_breaks_its_promise(forget_ops: None) -> None:
    register_op(Op("odd", lambda call, xs, out, n_threads: xs[0][:, :1], lambda attrs, params, shapes: shapes[0], takes_out=False))
    net = Network([Node("a", "odd")], {}, input_shape=IMAGE)
    with pytest.raises(sl.NumericalError, match=r"node 'a': its operation returned float32 of shape \(3, 1, 13, 11\), its shape rule promised"):
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


# ---------------------------------------------------------------- bad graphs

def build(*nodes: Node, params: dict[str, np.ndarray] | None = None, shape: tuple[int | None, ...] = IMAGE, **options) -> Network:
    return Network(nodes, params or {}, input_shape=shape, **options)


W = np.ones((4, 3, 3, 3), np.float32)
CONV = {"weight": "w"}
BAD_GRAPHS = [
    (lambda: build(), sl.ModelFileError, "must have 1 to 100000 nodes, not 0"),
    (lambda: build(Node("a", "gelu")), sl.UnsupportedOperationError, "node 'a': operation 'gelu' is not known here; known are .*conv2d.*register_op"),
    (lambda: build(Node("a", "relu", attrs={"slope": 1})), sl.UnsupportedOperationError, "node 'a' .*attribute 'slope' is not known; known are none"),
    (lambda: build(Node("a", "relu"), Node("a", "relu")), sl.ModelFileError, "node name 'a' occurs twice"),
    (lambda: build(Node("input", "relu")), sl.ModelFileError, "node name 'input' is reserved"),
    (lambda: build(Node("output", "relu")), sl.ModelFileError, "node name 'output' is reserved"),
    (lambda: build(Node("", "relu")), sl.ModelFileError, "the name of node 0 must be a printable text"),
    (lambda: build(Node("a\n", "relu")), sl.ModelFileError, "the name of node 0 must be a printable text"),
    (lambda: build(Node("a", "relu", "b"), Node("b", "relu", "a")), sl.ModelFileError, "node 'a' .*its input 'b' is not the name of an earlier node"),
    (lambda: build(Node("a", "add", ("input",))), sl.ModelFileError, "node 'a' .add. has 1 inputs, it takes 2"),
    (lambda: build(Node("a", "conv2d")), sl.ModelFileError, "node 'a' .conv2d.: parameter 'weight' is missing"),
    (lambda: build(Node("a", "relu", params={"slope": "w"}), params={"w": W}), sl.ModelFileError, "node 'a' .relu.: parameter 'slope' is not known"),
    (lambda: build(Node("a", "conv2d", params=CONV)), sl.ModelFileError, "its weight 'w' is not among the network's parameters"),
    (lambda: build(Node("a", "relu"), params={"w": W}), sl.ModelFileError, "parameter 'w' is used by no node"),
    (lambda: build(Node("a", "conv2d", params=CONV), params={"w": W.astype(float)}), sl.ModelFileError, "parameter 'w' must be float32, not float64"),
    (lambda: build(Node("a", "conv2d", params=CONV), params={"w": W[:, :2]}), sl.ModelFileError, "input channels .*: 3 arrive, 2 are expected"),
    (lambda: build(Node("a", "conv2d", params=CONV), params={"w": W[0]}), sl.ModelFileError, "its weight must be .outputs, inputs / groups"),
    (lambda: build(Node("a", "conv2d", params=CONV, attrs={"stride": [0, 1]}), params={"w": W}), sl.ModelFileError, "attribute 'stride' must be 2 whole numbers from 1"),
    (lambda: build(Node("a", "conv2d", params=CONV, attrs={"stride": [True, 1]}), params={"w": W}), sl.ModelFileError, "attribute 'stride'"),
    (lambda: build(Node("a", "conv2d", params=CONV, attrs={"padding": "valid"}), params={"w": W}), sl.ModelFileError, "attribute 'padding' must be .top, left"),
    (lambda: build(Node("a", "conv2d", params=CONV, attrs={"groups": 3}), params={"w": W}), sl.ModelFileError, "4 outputs cannot be split into 3 groups"),
    (lambda: build(Node("a", "conv2d", params={**CONV, "bias": "b"}), params={"w": W, "b": np.ones(3, np.float32)}), sl.ModelFileError, "its bias must have shape .4,."),
    (lambda: build(Node("a", "conv2d", params=CONV), params={"w": np.ones((4, 3, 20, 1), np.float32)}), sl.ModelFileError, "height of 13 .* is smaller than its window of 20"),
    (lambda: build(Node("a", "max_pool2d", attrs={"kernel": [2, 2]})), sl.ModelFileError, "attribute 'stride' is missing"),
    (lambda: build(Node("a", "max_pool2d", attrs={"kernel": [2, 2], "stride": [1, 1], "padding": [2, 0, 0, 0]})), sl.ModelFileError, "must be smaller than the window"),
    (lambda: build(Node("a", "flatten"), Node("b", "flatten", "a", attrs={"start": 2})), sl.ModelFileError, "axis 2 does not exist"),
    (lambda: build(Node("a", "flatten", attrs={"start": 0})), sl.ModelFileError, "axis 0 does not exist beside the batch"),
    (lambda: build(Node("a", "reshape", attrs={"shape": [5, -1]})), sl.ModelFileError, "429 values .* do not fill the shape"),
    (lambda: build(Node("a", "reshape", attrs={"shape": [-1, -1]})), sl.ModelFileError, "one of them may be -1"),
    (lambda: build(Node("f", "flatten"), Node("a", "add", ("f", "input"))), sl.ModelFileError, "its inputs must have equal shapes"),
    (lambda: build(Node("f", "flatten"), Node("a", "mul", ("f", "input"))), sl.ModelFileError, "or one of them the form .channels, 1, 1."),
    (lambda: build(Node("f", "flatten"), Node("a", "concat", ("f", "input"))), sl.ModelFileError, "must agree in all but axis 1"),
    (lambda: build(Node("f", "flatten"), Node("a", "max_pool2d", "f", attrs={"kernel": [2, 2], "stride": [1, 1]})), sl.ModelFileError, "must be .channels, height, width"),
    (lambda: build(Node("a", "mean", attrs={"axes": [0]})), sl.ModelFileError, "axis 0 does not exist beside the batch"),
    (lambda: build(Node("a", "pad", attrs={"padding": [1 << 24] * 4})), sl.ModelFileError, "node 'a' .pad. would give a value of shape .* too large"),
    (lambda: build(Node("a", "pad", attrs={"value": 1e39})), sl.ModelFileError, "attribute 'value' must be a number within float32's range"),
    (lambda: build(Node("a", "pad", attrs={"value": float("nan")})), sl.ModelFileError, "attribute 'value'"),
    (lambda: build(Node("a", "relu"), shape=(3, 0, 5)), sl.ModelFileError, "the input shape must be"),
    (lambda: build(Node("a", "relu"), shape=(1 << 24, 1 << 24, 1 << 24)), sl.ModelFileError, "would give a value of shape .* too large"),
    (lambda: build(Node("a", "relu"), output="b"), sl.ModelFileError, "the output 'b' is not the name of a node"),
    (lambda: build(Node("a", "relu"), aliases={"x": "b"}), sl.ModelFileError, "alias 'x' stands for 'b', which is not a node"),
    (lambda: build(Node("a", "relu"), Node("b", "relu", "a"), aliases={"a": "b"}), sl.ModelFileError, "alias 'a' is already the name of something else"),
    (lambda: build(Node("a", "relu"), aliases={"input": "a"}), sl.ModelFileError, "alias 'input' is already the name"),
    (lambda: tiny_network(labels=["a"]), sl.ModelFileError, "1 labels are given, the output 'fc' has 4 classes"),
    (lambda: tiny_network(preprocess=sl.nn.Preprocess(size=(8, 8))), sl.ModelFileError, r"preprocess gives inputs of shape \(3, 8, 8\), the network takes \(3, 13, 11\)"),
    (lambda: tiny_network(params={"fc.bias": np.array([0, np.nan, 0, np.inf], np.float32)}), sl.NumericalError,
     "parameter 'fc.bias' .bias of node 'fc'. holds 2 values that are NaN or infinite of 4.*allow_nonfinite=True"),
    (lambda: tiny_network(params={"bn1.var": np.full(6, -1, np.float32)}), sl.NumericalError, "node 'bn1' .batch_norm.: its variance . eps must be positive"),
]


@pytest.mark.parametrize("case", BAD_GRAPHS, ids=[case[2][:40] for case in BAD_GRAPHS])
def test_bad_graphs_say_what_is_wrong(case) -> None:
    make, error, text = case
    with pytest.raises(error, match=text):
        make()


def test_nonfinite_parameters_on_request() -> None:
    net = tiny_network(params={"fc.bias": np.full(4, np.nan, np.float32)}, allow_nonfinite=True)
    assert np.isnan(net(batch())).all()
    assert np.isnan(fold_batch_norm(net)(batch())).all()


def test_sizes_are_checked_before_memory_is_taken() -> None:
    tracemalloc.start()
    try:
        for shape in ((1 << 24, 1 << 24, 3), (3, 40000, 40000)):
            with pytest.raises(sl.ModelFileError, match="too large"):
                build(Node("a", "relu"), shape=shape)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- bad input

def with_nan(x: np.ndarray, value: float = np.nan) -> np.ndarray:
    x = x.copy()
    x[1, 2, 3, 4] = value
    return x


BAD_INPUT = [
    (lambda x: x.astype(np.float64), TypeError, r"x must be float32, not float64: convert with x.astype\(np.float32\)"),
    (lambda x: x.astype(np.uint8), TypeError, r"x must be float32, not uint8: pass pictures through net.preprocess, which gives RGB 13 x 11"),
    (lambda x: [["a"]], TypeError, "pass numbers"),
    (lambda x: x[0], sl.DataError, r"x has shape \(3, 13, 11\), .* takes \(batch, 3, 13, 11\); for one sample pass x\[None\]"),
    (lambda x: x[:, :2], sl.DataError, r"expected 3 channels, got 2; net.preprocess gives \(3, 13, 11\) from a picture"),
    (lambda x: x.transpose(0, 2, 3, 1), sl.DataError, "expected 3 channels, got 13 .channels are last here"),
    (lambda x: x[:, :, 1:], sl.DataError, "expected 13 x 11 pixels, got 12 x 11 .net.with_input_size"),
    (lambda x: x.reshape(3, -1), sl.DataError, r"x has shape \(3, 429\)"),
    (lambda x: x[:0], sl.DataError, "the batch is empty"),
    (with_nan, sl.DataError, "sample 1 of the batch holds NaN or infinite values .1 of 3 samples do."),
    (lambda x: with_nan(x, -np.inf), sl.DataError, "sample 1 of the batch holds NaN"),
]


@pytest.mark.parametrize("case", BAD_INPUT, ids=[case[2][:40] for case in BAD_INPUT])
def test_bad_input_says_what_is_wrong(case) -> None:
    make, error, text = case
    with pytest.raises(error, match=text):
        tiny_network()(make(batch()))


def test_other_arguments() -> None:
    net, x = tiny_network(), batch()
    with pytest.raises(ValueError, match="record is empty"):
        net.run(x, [])
    with pytest.raises(ValueError, match="n_threads=0"):
        net(x, n_threads=0)
    with pytest.raises(TypeError, match="the name of a layer must be a text, not int"):
        net.run(x, [3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="preprocess must be a Preprocess"):
        tiny_network(preprocess={"size": [1, 1]})
