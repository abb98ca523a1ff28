"""ONNX files: small graphs of every operation against the format's own evaluator, errors, the onnx package's test networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coverage_cases import compare_onnx, relative

import semanticlens as sl
from semanticlens.nn.ops import OPS, Op, register_op

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed (extra onnx)")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

LATER = ("resnet50", "shufflenet", "squeezenet", "vgg19", "zfnet512")


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model(
    nodes: list[Any],
    shape: tuple[Any, ...],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    **more: Any,
) -> Any:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", more.get("kind", TensorProto.FLOAT), shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def check(tmp_path: Path, made: Any, x: np.ndarray) -> sl.Network:
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    net = sl.load(path, fold=False)
    want = ReferenceEvaluator(made).run(None, {"x": x})[0]
    got = net.run(x)["output"]
    assert got.shape == want.shape
    assert relative(got, want) < 2e-5
    return net


node = helper.make_node
I64 = np.int64
SINGLE: list[tuple[str, dict[str, Any], list[np.ndarray]]] = [
    *((kind, {}, []) for kind in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Erf", "Exp", "Abs", "Neg")),
    ("HardSigmoid", {}, []),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, []),
    ("LeakyRelu", {"alpha": 0.3}, []),
    ("Elu", {"alpha": 0.7}, []),
    ("Clip", {}, [np.float32(0), np.float32(6)]),
    ("Clip", {}, [np.float32(-0.5), np.float32(0.25)]),
    ("Softmax", {"axis": -1}, []),
    ("Softmax", {"axis": 1}, []),
    ("Conv", {"pads": [1, 1, 1, 1], "strides": [2, 1]}, [draw(6, 4, 3, 3), draw(6)]),
    ("Conv", {"auto_pad": "SAME_UPPER", "group": 2, "strides": [2, 2]}, [draw(6, 2, 3, 3)]),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}, []),
    ("AveragePool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 0], "count_include_pad": 1}, []),
    ("GlobalAveragePool", {}, []),
    ("GlobalMaxPool", {}, []),
    ("BatchNormalization", {"epsilon": 1e-3}, [draw(4), draw(4), draw(4), draw(4) ** 2 + 0.5]),
    ("LayerNormalization", {"epsilon": 1e-3}, [draw(5), draw(5)]),
    ("InstanceNormalization", {}, [draw(4), draw(4)]),
    ("MatMul", {}, [draw(5, 7)]),
    *((kind, {}, [draw(6, 1) + 3]) for kind in ("Add", "Sub", "Mul", "Div")),
    ("Pow", {}, [np.float32(2)]),
    ("ReduceMean", {"keepdims": 0}, [np.array([2, -1], I64)]),
    ("ReduceSum", {}, [np.array([1], I64)]),
    ("ReduceMax", {}, [np.array([1, 3], I64)]),
    ("Reshape", {}, [np.array([0, -1, 5], I64)]),
    ("Flatten", {}, []),
    ("Unsqueeze", {}, [np.array([2], I64)]),
    ("Transpose", {"perm": [0, 3, 1, 2]}, []),
    ("Slice", {}, [np.array([1, 0], I64), np.array([4, -1], I64), np.array([1, 3], I64), np.array([2, 1], I64)]),
    ("Gather", {"axis": 2}, [np.array(3, I64)]),
    ("Pad", {}, [np.array([0, 0, 1, 2, 0, 1, 0, 3], I64), np.float32(0.5)]),
    ("Where", {}, []),
]


@pytest.mark.parametrize("number", range(len(SINGLE)))
@pytest.mark.parametrize("batch", ["n", 1])
def test_single_operations(number: int, batch: Any, tmp_path: Path) -> None:
    kind, attrs, constants = SINGLE[number]
    names = [f"c{i}" for i in range(len(constants))]
    inputs = ["x", *names]
    table = dict(zip(names, constants, strict=True))
    if kind == "Where":
        inputs, table = ["m", "x", "c"], {"m": np.eye(6, 5, dtype=bool), "c": np.float32(-2)}
    check(
        tmp_path,
        model([node(kind, inputs, ["y"], **attrs)], (batch, 4, 6, 5), table),
        draw(2 if batch == "n" else 1, 4, 6, 5),
    )


def test_attention_as_exporters_write_it(tmp_path: Path) -> None:
    """Shapes computed from the input, queries, keys and values stacked in front of the batch."""
    constants = {
        "w": draw(8, 24),
        "one": np.array([1], I64),
        "nine": np.array([9, 3, 2, 4], I64),
        "zero": np.array(0, I64),
        "i0": np.array(0, I64),
        "i1": np.array(1, I64),
        "i2": np.array(2, I64),
        "back": np.array([9, 8], I64),
        "s": np.float32(0.5),
    }
    nodes = [
        node("MatMul", ["x", "w"], ["qkv"]),
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["b"], axis=0),
        node("Unsqueeze", ["b", "i0v"], ["b1"]),
        node("Concat", ["b1", "nine"], ["to"], axis=0),
        node("Reshape", ["qkv", "to"], ["split"]),
        node("Transpose", ["split"], ["stacked"], perm=[2, 0, 3, 1, 4]),
        *(node("Gather", ["stacked", f"i{i}"], [name], axis=0) for i, name in enumerate("qkv")),
        node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["scores"]),
        node("Mul", ["scores", "s"], ["scaled"]),
        node("Softmax", ["scaled"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v"], ["heads"]),
        node("Transpose", ["heads"], ["turned"], perm=[0, 2, 1, 3]),
        node("Concat", ["b1", "back"], ["to2"], axis=0),
        node("Reshape", ["turned", "to2"], ["joined"]),
        node("Split", ["joined"], ["left", "right"], axis=2, num_outputs=2),
        node("Concat", ["right", "left"], ["swapped"], axis=-1),
        node("Add", ["swapped", "x"], ["y"]),
    ]
    constants["nine"] = np.array([9, 3, 2, 4], I64)
    constants["i0v"] = np.array([0], I64)
    constants.pop("one")
    net = check(tmp_path, model(nodes, ("n", 9, 8), constants), draw(3, 9, 8))
    assert "weights" in net.layers
    assert net.run(draw(2, 9, 8), "weights")["weights"].shape == (2, 2, 9, 9)


def test_chains(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMean", ["x", "axes"], ["m"]),
        node("Identity", ["m"], ["m2"]),
        node("Expand", ["m2", "to"], ["e"]),
        node("Sum", ["e", "x", "m"], ["s"]),
        node("Squeeze", ["m", "axes"], ["q"]),
        node("Gather", ["s", "one"], ["g"], axis=1),
        node("Dropout", ["g"], ["d"]),
        node("Reciprocal", ["d"], ["r"]),
        node("Div", ["four", "r"], ["f"]),
        node("Sub", ["four", "f"], ["u"]),
        node("Flatten", ["u"], ["a"]),
        node("Gemm", ["a", "w", "b"], ["h"], transB=1),
        node("Concat", ["h", "q"], ["y"], axis=1),
    ]
    constants = {
        "axes": np.array([2, 3], I64),
        "to": np.array([1, 4, 6, 5], I64),
        "one": np.array([1], I64),
        "four": np.float32(4),
        "w": draw(3, 30),
        "b": draw(3),
    }
    check(tmp_path, model(nodes, ("n", 4, 6, 5), constants), draw(2, 4, 6, 5))


def test_tokens_and_class_token(tmp_path: Path) -> None:
    table, cls = draw(20, 6), draw(1, 1, 6, seed=1)
    nodes = [
        node("Gather", ["t", "x"], ["e"]),
        node("Shape", ["e"], ["shape"]),
        node("Gather", ["shape", "zero"], ["b"]),
        node("Unsqueeze", ["b", "zeros"], ["b1"]),
        node("Concat", ["b1", "rest"], ["to"], axis=0),
        node("Expand", ["cls", "to"], ["many"]),
        node("Concat", ["many", "e"], ["y"], axis=1),
    ]
    constants = {
        "t": table,
        "cls": cls,
        "zero": np.array(0, I64),
        "zeros": np.array([0], I64),
        "rest": np.array([-1, -1], I64),
    }
    constants["rest"] = np.array([1, 6], I64)
    ids = np.random.default_rng(0).integers(0, 20, (3, 5))
    net = check(tmp_path, model(nodes, ("n", 5), constants, kind=TensorProto.INT64), ids)
    assert net.takes_ids


def refused(tmp_path: Path, made: Any, error: type[Exception], message: str, **options: Any) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString() if hasattr(made, "SerializeToString") else made)
    with pytest.raises(error, match=message):
        sl.load(path, **options)


def test_what_is_not_known_names_node_and_attribute(tmp_path: Path) -> None:
    unsupported, broken = sl.UnsupportedOperationError, sl.ModelFileError
    x = ("n", 4, 6, 5)
    one = [node("Relu", ["x"], ["y"], name="act")]
    cases: list[tuple[Any, type[Exception], str]] = [
        (
            model([node("Mish", ["x"], ["y"], name="act")], x),
            unsupported,
            r"model.onnx: node 'act' \(Mish\): the operation is not known",
        ),
        (
            model([node("Elu", ["x"], ["y"], beta=2.0)], x),
            unsupported,
            r"node 'Elu_0' \(Elu\): attribute 'beta' is not known here",
        ),
        (
            model([node("Softmax", ["x"], ["y"], axis=0)], x),
            unsupported,
            r"node 'Softmax_0' \(Softmax\): along the batch",
        ),
        (
            model([node("Softmax", ["x"], ["y"], axis=1)], x, opset=11),
            unsupported,
            "attribute 'axis' is 1: before opset 13",
        ),
        (
            model([node("Pad", ["x", "p"], ["y"], mode="reflect")], x, {"p": np.zeros(8, I64)}),
            unsupported,
            "attribute 'mode' is 'reflect'",
        ),
        (model(one, x, opset=99), unsupported, "opset 99: 7 to 26 are known"),
        (model(one, ("n", 4, "h", 5)), unsupported, r"leaves sizes open \(\(4, 0, 5\), 0 for any\): pass input_shape="),
        (model(one, (4, 3)), unsupported, "the batch is fixed to 4"),
        (
            model([node("Reshape", ["x", "s"], ["y"])], x, {"s": np.array([3, -1], I64)}),
            unsupported,
            "tears the batch of 13 apart|from",
        ),
        (model([node("Conv", ["x", "w"], ["y"])], x, {"w": draw(6, 3, 3, 3)}), broken, "input channels"),
        (model([node("Add", ["x", "z"], ["y"])], x), broken, "its input 'z' is not the result of an earlier node"),
        (
            model(
                [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])],
                x,
                {"s": np.array([1 << 40], I64)},
            ),
            broken,
            "would make a constant of 1.1e.12 values",
        ),
        (b"nonsense", broken, "not an ONNX file|nodes; 1 to"),
        (b"", broken, "0 nodes; 1 to"),
    ]
    for made, error, message in cases:
        refused(tmp_path, made, error, message)
    custom = model([node("Relu", ["x"], ["y"], domain="my.ops")], x)
    custom.opset_import.append(helper.make_opsetid("my.ops", 1))
    refused(tmp_path, custom, unsupported, "the operations of 'my.ops' are not known")
    refused(
        tmp_path,
        model(one, ("n", 4, "h", 5)),
        ValueError,
        "input_shape=.3, 6, 5.: the file says",
        input_shape=(3, 6, 5),
    )
    (tmp_path / "model.onnx").write_bytes(model(one, ("n", 4, "h", 5)).SerializeToString())
    assert sl.load(tmp_path / "model.onnx", input_shape=(4, 7, 5)).input_shape == (4, 7, 5)


def test_a_registered_operation_is_read(tmp_path: Path, forget_ops: None) -> None:
    register_op(
        Op("mish", numpy=lambda call, xs: xs[0] * np.tanh(np.logaddexp(xs[0], 0).astype(xs[0].dtype)), onnx=("Mish",))
    )
    check(tmp_path, model([node("Mish", ["x"], ["y"])], ("n", 4, 6, 5)), draw(2, 4, 6, 5))


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(sl.MissingExtraError, match=r"reading ONNX files needs the package 'onnx'"):
        sl.load(tmp_path / "model.onnx")


def test_the_table_names_what_is_read() -> None:
    from semanticlens.nn.load.onnx_moves import OPERATIONS

    in_table = {name for op in OPS.values() for name in op.onnx}
    made_of_others = {"Cast", "Dropout", "Where"}
    assert set(OPERATIONS) - in_table == made_of_others
    assert in_table - set(OPERATIONS) == {"Attention", "Constant"}  # not read from files yet; constants are computed


@pytest.mark.peers
@pytest.mark.parametrize(
    "name",
    [
        "bvlc_alexnet",
        "densenet121",
        "inception_v1",
        "inception_v2",
        "resnet50",
        "shufflenet",
        "squeezenet",
        "vgg19",
        "zfnet512",
    ],
)
def test_networks_of_the_onnx_package(name: str) -> None:
    """Real graph shapes of 2017 and 2018 (opset 9), with constant weights."""
    pytest.importorskip("onnxruntime")
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} is not in this onnx package")
    error, values, worst = compare_onnx(path, draw(1, 3, 224, 224))
    assert error <= 1e-4, worst
    assert values > 10
