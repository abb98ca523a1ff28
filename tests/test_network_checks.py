"""What networks refuse, and how they say it: bad graphs, bad input, bad arguments."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from network_cases import IMAGE, tiny_network, values

import semanticlens as sl
from semanticlens.nn import Network, Node, fold_batch_norm


def batch(count: int = 3) -> np.ndarray:
    return values(np.random.default_rng(1), count, *IMAGE)


# ---------------------------------------------------------------- bad graphs


def build(
    *nodes: Node, params: dict[str, np.ndarray] | None = None, shape: tuple[int | None, ...] = IMAGE, **options
) -> Network:
    return Network(nodes, params or {}, input_shape=shape, **options)


W = np.ones((4, 3, 3, 3), np.float32)
CONV = {"weight": "w"}
BAD_GRAPHS = [
    (lambda: build(), sl.ModelFileError, "must have 1 to 10000 nodes, not 0"),
    (
        lambda: build(Node("a", "nelu")),
        sl.UnsupportedOperationError,
        "node 'a': operation 'nelu' is not known here; known are .*conv2d.*register_op",
    ),
    (
        lambda: build(Node("a", "relu", attrs={"slope": 1})),
        sl.UnsupportedOperationError,
        "node 'a' .*attribute 'slope' is not known; known are none",
    ),
    (lambda: build(Node("a", "relu"), Node("a", "relu")), sl.ModelFileError, "node name 'a' occurs twice"),
    (lambda: build(Node("input", "relu")), sl.ModelFileError, "node name 'input' is reserved"),
    (lambda: build(Node("output", "relu")), sl.ModelFileError, "node name 'output' is reserved"),
    (lambda: build(Node("", "relu")), sl.ModelFileError, "the name of node 0 must be a printable text"),
    (lambda: build(Node("a\n", "relu")), sl.ModelFileError, "the name of node 0 must be a printable text"),
    (
        lambda: build(Node("a", "relu", "b"), Node("b", "relu", "a")),
        sl.ModelFileError,
        "node 'a' .*its input 'b' is not the name of an earlier node",
    ),
    (lambda: build(Node("a", "add", ("input",))), sl.ModelFileError, "node 'a' .add. has 1 inputs, it takes 2"),
    (lambda: build(Node("a", "conv2d")), sl.ModelFileError, "node 'a' .conv2d.: parameter 'weight' is missing"),
    (
        lambda: build(Node("a", "relu", params={"slope": "w"}), params={"w": W}),
        sl.ModelFileError,
        "node 'a' .relu.: parameter 'slope' is not known",
    ),
    (
        lambda: build(Node("a", "conv2d", params=CONV)),
        sl.ModelFileError,
        "its weight 'w' is not among the network's parameters",
    ),
    (lambda: build(Node("a", "relu"), params={"w": W}), sl.ModelFileError, "parameter 'w' is used by no node"),
    (
        lambda: build(Node("a", "conv2d", params=CONV), params={"w": W.astype(float)}),
        sl.ModelFileError,
        "parameter 'w' must be float32, not float64",
    ),
    (
        lambda: build(Node("a", "conv2d", params=CONV), params={"w": W[:, :2]}),
        sl.ModelFileError,
        "input channels .*: 3 arrive, 2 are expected",
    ),
    (
        lambda: build(Node("a", "conv2d", params=CONV), params={"w": W[0]}),
        sl.ModelFileError,
        "its weight must be .outputs, inputs / groups",
    ),
    (
        lambda: build(Node("a", "conv2d", params=CONV, attrs={"stride": [0, 1]}), params={"w": W}),
        sl.ModelFileError,
        "attribute 'stride' must be 2 whole numbers from 1",
    ),
    (
        lambda: build(Node("a", "conv2d", params=CONV, attrs={"stride": [True, 1]}), params={"w": W}),
        sl.ModelFileError,
        "attribute 'stride'",
    ),
    (
        lambda: build(Node("a", "conv2d", params=CONV, attrs={"padding": "valid"}), params={"w": W}),
        sl.ModelFileError,
        "attribute 'padding' must be .top, left",
    ),
    (
        lambda: build(Node("a", "conv2d", params=CONV, attrs={"groups": 3}), params={"w": W}),
        sl.ModelFileError,
        "4 outputs cannot be split into 3 groups",
    ),
    (
        lambda: build(Node("a", "conv2d", params={**CONV, "bias": "b"}), params={"w": W, "b": np.ones(3, np.float32)}),
        sl.ModelFileError,
        "its bias must have shape .4,.",
    ),
    (
        lambda: build(Node("a", "conv2d", params=CONV), params={"w": np.ones((4, 3, 20, 1), np.float32)}),
        sl.ModelFileError,
        "height of 13 .* is smaller than its window of 20",
    ),
    (
        lambda: build(Node("a", "max_pool2d", attrs={"kernel": [2, 2]})),
        sl.ModelFileError,
        "attribute 'stride' is missing",
    ),
    (
        lambda: build(Node("a", "max_pool2d", attrs={"kernel": [2, 2], "stride": [1, 1], "padding": [2, 0, 0, 0]})),
        sl.ModelFileError,
        "must be smaller than the window",
    ),
    (
        lambda: build(Node("a", "flatten"), Node("b", "flatten", "a", attrs={"start": 2})),
        sl.ModelFileError,
        "axis 2 does not exist",
    ),
    (
        lambda: build(Node("a", "flatten", attrs={"start": 0})),
        sl.ModelFileError,
        "axis 0 does not exist beside the batch",
    ),
    (
        lambda: build(Node("a", "reshape", attrs={"shape": [5, -1]})),
        sl.ModelFileError,
        "429 values .* do not fill the shape",
    ),
    (lambda: build(Node("a", "reshape", attrs={"shape": [-1, -1]})), sl.ModelFileError, "one of them may be -1"),
    (
        lambda: build(Node("f", "flatten"), Node("a", "add", ("f", "input"))),
        sl.ModelFileError,
        "its inputs must have shapes that are equal or 1",
    ),
    (
        lambda: build(Node("f", "flatten"), Node("a", "mul", ("f", "input"))),
        sl.ModelFileError,
        "its inputs must have shapes that are equal or 1",
    ),
    (
        lambda: build(Node("f", "flatten"), Node("a", "concat", ("f", "input"))),
        sl.ModelFileError,
        "must agree in all but axis 1",
    ),
    (
        lambda: build(Node("f", "flatten"), Node("a", "max_pool2d", "f", attrs={"kernel": [2, 2], "stride": [1, 1]})),
        sl.ModelFileError,
        "must be .channels, height, width",
    ),
    (
        lambda: build(Node("a", "mean", attrs={"axes": [0]})),
        sl.ModelFileError,
        "axis 0 does not exist beside the batch",
    ),
    (
        lambda: build(Node("a", "pad", attrs={"padding": [1 << 24] * 4})),
        sl.ModelFileError,
        "node 'a' .pad. would give a value of shape .* too large",
    ),
    (
        lambda: build(Node("a", "pad", attrs={"value": 1e39})),
        sl.ModelFileError,
        "attribute 'value' must be a number within float32's range",
    ),
    (lambda: build(Node("a", "pad", attrs={"value": float("nan")})), sl.ModelFileError, "attribute 'value'"),
    (lambda: build(Node("a", "relu"), shape=(3, 0, 5)), sl.ModelFileError, "the input shape must be"),
    (
        lambda: build(Node("a", "relu"), shape=(1 << 24, 1 << 24, 1 << 24)),
        sl.ModelFileError,
        "would give a value of shape .* too large",
    ),
    (lambda: build(Node("a", "relu"), output="b"), sl.ModelFileError, "the output 'b' is not the name of a node"),
    (
        lambda: build(Node("a", "relu"), aliases={"x": "b"}),
        sl.ModelFileError,
        "alias 'x' stands for 'b', which is not a node",
    ),
    (
        lambda: build(Node("a", "relu"), Node("b", "relu", "a"), aliases={"a": "b"}),
        sl.ModelFileError,
        "alias 'a' is already the name of something else",
    ),
    (lambda: build(Node("a", "relu"), aliases={"input": "a"}), sl.ModelFileError, "alias 'input' is already the name"),
    (lambda: tiny_network(labels=["a"]), sl.ModelFileError, "1 labels are given, the output 'fc' has 4 classes"),
    (
        lambda: tiny_network(preprocess=sl.nn.Preprocess(size=(8, 8))),
        sl.ModelFileError,
        r"preprocess gives inputs of shape \(3, 8, 8\), the network takes \(3, 13, 11\)",
    ),
    (
        lambda: tiny_network(params={"fc.bias": np.array([0, np.nan, 0, np.inf], np.float32)}),
        sl.NumericalError,
        "parameter 'fc.bias' .bias of node 'fc'. holds 2 values that are NaN or infinite of 4.*allow_nonfinite=True",
    ),
    (
        lambda: tiny_network(params={"bn1.var": np.full(6, -1, np.float32)}),
        sl.NumericalError,
        "node 'bn1' .batch_norm.: its variance . eps must be positive",
    ),
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
    (
        lambda x: x.astype(np.uint8),
        TypeError,
        r"x must be float32, not uint8: pass pictures through net.preprocess, which gives RGB 13 x 11",
    ),
    (lambda x: [["a"]], TypeError, "pass numbers"),
    (
        lambda x: x[0],
        sl.DataError,
        r"x has shape \(3, 13, 11\), .* takes \(batch, 3, 13, 11\); for one sample pass x\[None\]",
    ),
    (
        lambda x: x[:, :2],
        sl.DataError,
        r"expected 3 channels, got 2; net.preprocess gives \(3, 13, 11\) from a picture",
    ),
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
