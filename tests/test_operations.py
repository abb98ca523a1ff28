"""Every operation of the table: the kernel against the plain form in float64, for every thread count, inputs untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import semanticlens as sl
from semanticlens.nn import Network, Node
from semanticlens.nn.ops import ACTIVATIONS, OPS, Op, register_op

RNG = np.random.default_rng


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return RNG(seed).standard_normal(shape).astype(np.float32)


def build(shape: tuple[int, ...], *nodes: Node, **params: np.ndarray) -> Network:
    return Network(nodes, params, input_shape=shape)


def unary(op: str, shape: tuple[int, ...] = (3, 6, 5), /, **attrs: Any) -> Network:
    return build(shape, Node("y", op, attrs=attrs))


def positive(op: str, /, **attrs: Any) -> Network:
    return build((3, 6, 5), Node("p", "exp"), Node("y", op, "p", attrs=attrs))


IMAGE, TOKENS = (4, 7, 6), (9, 8)
HEADS = [
    Node("r", "reshape", attrs={"shape": (9, 2, 4)}),
    Node("q", "permute", "r", attrs={"axes": (2, 1, 3)}),
    Node("k", "tanh", "q"),
    Node("v", "sigmoid", "q"),
]
CASES: dict[str, list[Network]] = {
    "conv2d": [
        build(
            IMAGE,
            Node("y", "conv2d", params={"weight": "w", "bias": "b"}, attrs={"groups": 2, "padding": "same"}),
            w=draw(6, 2, 3, 3),
            b=draw(6),
        )
    ],
    "dense": [build(TOKENS, Node("y", "dense", params={"weight": "w", "bias": "b"}), w=draw(5, 8), b=draw(5))],
    "batch_norm": [
        build(
            IMAGE,
            Node("y", "batch_norm", params={"mean": "m", "var": "v", "bias": "m"}),
            m=draw(4),
            v=draw(4) ** 2 + 0.1,
        )
    ],
    "layer_norm": [
        build(TOKENS, Node("y", "layer_norm", params={"weight": "w", "bias": "b"}), w=draw(8), b=draw(8)),
        unary("layer_norm", eps=1e-3),
    ],
    "rms_norm": [build(TOKENS, Node("y", "rms_norm", params={"weight": "w"}), w=draw(8)), unary("rms_norm")],
    "group_norm": [
        build(
            IMAGE,
            Node("y", "group_norm", params={"weight": "w", "bias": "b"}, attrs={"groups": 2}),
            w=draw(4),
            b=draw(4),
        ),
        unary("group_norm", groups=3),
    ],
    **{kind: [unary(kind)] for kind in ACTIVATIONS},
    **{kind: [unary(kind)] for kind in ("softmax", "identity", "exp", "abs", "neg", "erf", "softplus", "flatten")},
    **{kind: [positive(kind)] for kind in ("log", "sqrt", "reciprocal")},
    "power": [positive("power", exponent=-0.5), unary("power", exponent=2.0)],
    "clamp": [unary("clamp", low=-0.5, high=1), unary("clamp", high=0.25)],
    "leaky_relu": [unary("leaky_relu", slope=0.2)],
    "elu": [unary("elu", alpha=1.5)],
    "local_response_norm": [
        unary("local_response_norm", (7, 3, 2), size=3, alpha=0.3, beta=0.6, bias=1.5),
        unary("local_response_norm", size=2),
    ],
    "scale_shift": [
        build(IMAGE, Node("y", "scale_shift", params={"scale": "s", "shift": "t"}), s=draw(4, 1, 1), t=draw(7, 6)),
        build(IMAGE, Node("y", "scale_shift", params={"shift": "t"}), t=draw(1)),
        build(IMAGE, Node("y", "scale_shift", params={"scale": "s"}, attrs={"factor": 0.3, "term": 0.1}), s=draw(4, 1, 1)),
        unary("scale_shift", factor=1 / 3),
    ],
    "max_pool2d": [unary("max_pool2d", kernel=(3, 2), stride=(2, 1), padding=(1, 0, 1, 0), ceil_mode=True)],
    "avg_pool2d": [unary("avg_pool2d", kernel=(3, 2), stride=(2, 1), padding=(1, 0, 1, 0), count_include_pad=False)],
    "adaptive_avg_pool2d": [unary("adaptive_avg_pool2d", size=(2, 3))],
    **{kind: [unary(kind, axes=(2, 3)), unary(kind, axes=(1, -1), keepdims=True)] for kind in ("mean", "sum", "max")},
    **{
        kind: [
            build(IMAGE, Node("a", "sigmoid"), Node("y", kind, ("input", "a"))),
            build(
                IMAGE,
                Node("a", "sigmoid"),
                Node("m", "mean", "a", attrs={"axes": (1, 3), "keepdims": True}),
                Node("y", kind, ("m", "a")),
            ),
        ]
        for kind in ("add", "mul", "sub", "div")
    },
    "concat": [build(IMAGE, Node("a", "relu"), Node("y", "concat", ("a", "input", "a"), attrs={"axis": 2}))],
    "reshape": [unary("reshape", shape=(2, -1, 5))],
    "slice2d": [unary("slice2d", stride=(2, 3))],
    "pad": [unary("pad", padding=(1, 2, 0, 3), channels=(0, 1), value=0.5)],
    "pad_axes": [unary("pad_axes", before=(0, 1, 2), after=(2, 0, 1), value=-1.0)],
    "permute": [unary("permute", axes=(3, 1, 2))],
    "slice": [unary("slice", axis=2, start=1, stop=-1, step=2), unary("slice", axis=-1, stop=2)],
    "select": [unary("select", axis=2, index=-1), unary("select", axis=1, index=0)],
    "expand": [build((3, 1, 5), Node("y", "expand", attrs={"shape": (3, 4, 5)}))],
    "repeat": [unary("repeat", axis=1, times=2), unary("repeat", axis=-1, times=3)],
    "channel_shuffle": [unary("channel_shuffle", (6, 4, 5), groups=3), unary("channel_shuffle", groups=1)],
    "roll": [unary("roll", shifts=(1, -2), axes=(2, 3))],
    "constant": [
        build(
            TOKENS,
            Node("c", "constant", params={"value": "v"}),
            Node("y", "concat", ("c", "input"), attrs={"axis": 1}),
            v=draw(1, 8),
        )
    ],
    "matmul": [
        build(TOKENS, *HEADS, Node("y", "matmul", ("q", "k"), attrs={"transpose_b": True})),
        build(
            TOKENS,
            *HEADS,
            Node("m", "max", "q", attrs={"axes": (1,), "keepdims": True}),
            Node("y", "matmul", ("m", "v"), attrs={"transpose_a": True}),
        ),
    ],
    "attention": [
        build(TOKENS, *HEADS, Node("y", "attention", ("q", "k", "v"))),
        build(TOKENS, *HEADS, Node("y", "attention", ("q", "k", "v"), attrs={"causal": True, "scale": 0.3})),
        build(TOKENS, *HEADS, Node("y", "attention", ("q", "k", "v"), params={"bias": "b"}), b=draw(2, 9, 9)),
        build(TOKENS, *HEADS, Node("y", "attention", ("q", "k", "v"), params={"bias": "b"}), b=draw(9, 9)),
        build(
            TOKENS,
            *HEADS,
            Node("s", "matmul", ("q", "k"), attrs={"transpose_b": True}),
            Node("m", "mean", "s", attrs={"axes": (1,), "keepdims": True}),
            Node("y", "attention", ("q", "k", "v", "m")),
        ),
    ],
    "positions": [build(TOKENS, Node("y", "positions", params={"weight": "w"}, attrs={"offset": 2}), w=draw(11, 8))],
    "rotary": [unary("rotary", TOKENS), unary("rotary", TOKENS, interleaved=True, base=100.0, offset=3)],
    "embedding": [build((9,), Node("y", "embedding", params={"weight": "w"}), w=draw(50, 6))],
    "pick_largest": [
        build(
            (9,),
            Node("e", "embedding", params={"weight": "w"}),
            Node("y", "pick_largest", ("e", "input")),
            w=draw(50, 6),
        )
    ],
}


def test_numbers_of_a_graph_keep_double_precision() -> None:
    """1/3 as an attribute is 1/3 in a float64 run, not its float32 neighbour; the bundle keeps it."""
    net = unary("scale_shift", factor=1 / 3, term=0.1)
    x = RNG(0).standard_normal((2, 3, 6, 5))
    np.testing.assert_allclose(net.run(x, dtype="float64")["output"], x / 3 + 0.1, rtol=1e-15, atol=1e-16)


def test_there_is_a_case_for_every_operation() -> None:
    assert set(CASES) == set(OPS)
    assert all(op.numpy is not None for op in OPS.values())


@pytest.mark.parametrize("name", sorted(CASES))
def test_kernel_equals_plain_form(name: str) -> None:
    for net in CASES[name]:
        x = RNG(1).integers(0, 50, (3, 9)) if net.takes_ids else draw(3, *net.input_shape, seed=5)  # type: ignore[arg-type]
        before = x.copy()
        names = ["y"] if net.takes_ids else ["input", "y"]
        got = net.run(x, names, n_threads=1)["y"]
        want = net.run(x, names, dtype="float64")["y"]
        assert np.array_equal(x, before)
        assert want.dtype == np.float64
        assert got.shape == want.shape == (3, *net.output_shape)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)
        for threads in (2, 3, 8):
            assert np.array_equal(net.run(x, n_threads=threads)["output"], got)
        alone = net.run(x[1:2])["output"]
        assert np.array_equal(alone, got[1:2])


BAD = [
    (lambda: unary("permute", axes=(1, 1, 2)), r"node 'y' \(permute\): axes \[1, 1, 2\] must be 1 to 3 in some order"),
    (lambda: unary("slice", axis=1, start=5), r"node 'y' \(slice\): nothing is left of 3 places"),
    (lambda: unary("select", axis=1, index=3), r"node 'y' \(select\): place 3 does not exist among 3"),
    (lambda: unary("expand", shape=(3, 7, 5)), "cannot be spread over"),
    (lambda: unary("roll", shifts=(1,), axes=(4,)), "do not fit a value"),
    (lambda: unary("pad_axes", before=(1,), after=(1,)), "must have 3 sizes"),
    (lambda: unary("clamp", low=2.0, high=1.0), "lower limit 2.0 is above"),
    (lambda: unary("group_norm", groups=2), "3 channels cannot be split into 2 groups"),
    (lambda: unary("rotary", (4, 3)), "even number of features"),
    (lambda: unary("scale_shift"), "neither a scale nor a shift"),
    (
        lambda: build(IMAGE, Node("y", "scale_shift", params={"scale": "s"}), s=draw(5, 1)),
        "cannot be spread over its input",
    ),
    (
        lambda: build(IMAGE, Node("y", "layer_norm", params={"weight": "w"}), w=draw(7)),
        r"features \(weight \(7,\)\): 6 arrive, 7 are expected",
    ),
    (lambda: build(TOKENS, Node("y", "matmul", ("input", "input"))), "the inner sizes of"),
    (lambda: build(TOKENS, *HEADS, Node("y", "attention", ("q", "k", "r"))), "leading axes"),
    (
        lambda: build(TOKENS, *HEADS, Node("y", "attention", ("q", "k", "v"), params={"bias": "b"}), b=draw(2, 9, 8)),
        "cannot be spread",
    ),
    (
        lambda: build(TOKENS, Node("y", "positions", params={"weight": "w"}), w=draw(5, 8)),
        "9 tokens arrive, it knows 5 places",
    ),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_wrong_graphs_name_node_and_reason(number: int) -> None:
    make, message = BAD[number]
    with pytest.raises(sl.ModelFileError, match=message):
        make()


def test_ids_are_checked() -> None:
    net = CASES["embedding"][0]
    assert net.takes_ids
    with pytest.raises(TypeError, match="whole numbers such as token ids, not float32"):
        net(np.zeros((1, 9), np.float32))
    with pytest.raises(sl.DataError, match="token ids must be whole numbers from 0 to 49; one is 50"):
        net(np.full((1, 9), 50))
    with pytest.raises(sl.DataError, match="ids must lie between 0"):
        net(np.full((1, 9), -1))
    with pytest.raises(sl.DataError, match=r"x has shape \(1, 8\)"):
        net(np.full((1, 8), 1))


def test_float64() -> None:
    net = unary("exp")
    x = RNG(0).standard_normal((2, 3, 6, 5))
    assert np.array_equal(net.run(x, dtype="float64")["output"], np.exp(x))
    with pytest.raises(ValueError, match="dtype='float16': must be"):
        net.run(x, dtype="float16")
    with pytest.raises(TypeError, match="must be float64 or float32"):
        net.run(x.astype(int), dtype="float64")


def test_an_operation_without_a_plain_form(forget_ops: None) -> None:
    register_op(Op("only_fast", lambda call, xs, out, n_threads: np.negative(xs[0], out=out)))
    with pytest.raises(sl.UnsupportedOperationError, match="node 'y': operation 'only_fast' has no plain form"):
        unary("only_fast").run(draw(1, 3, 6, 5), dtype="float64")
    register_op(Op("only_plain", numpy=lambda call, xs: np.negative(xs[0])))
    assert np.array_equal(unary("only_plain")(draw(1, 3, 6, 5)), -draw(1, 3, 6, 5))
    with pytest.raises(ValueError, match=r"needs forward= or numpy="):
        Op("nothing")
    with pytest.raises(ValueError, match="must hold only 'inputs' and 'output'"):
        Op("wrong", numpy=lambda call, xs: xs[0], keeps=frozenset({"all"}))
