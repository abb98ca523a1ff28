"""Architectures for bare state dicts: recognised by names and shapes, built to the function their frameworks compute."""

from __future__ import annotations

import collections
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from zoo_states import CASES, GOLDEN, picked, picture, random_state

import semanticlens as sl
from semanticlens import ModelFileError, UnsupportedOperationError
from semanticlens.io import write_tensors
from semanticlens.nn import zoo
from semanticlens.nn.zoo.builder import IMAGENET_MEAN

SMALL = ("cifar_resnet20", "efficientnet_lite0", "mobilenet_v2", "resnet18", "squeezenet1_0", "squeezenet1_0_deep_compression",
         "squeezenet1_1")


def zeros(arch: str) -> dict[str, np.ndarray]:
    """Right names and shapes without the memory."""
    return {key: np.broadcast_to(np.float32(0), [5 if n == zoo.ANY else n for n in shape]) for key, shape in zoo._expected(arch).items()}


def test_names():
    families = {"VGG": 8, "ResNet": 10, "MobileNetV2": 1, "SqueezeNet": 3, "EfficientNet-Lite": 3, "ViT": 24 + 4 + 4,
                "AlexNet": 1, "DenseNet": 4, "MobileNetV3": 2, "EfficientNet": 8, "ConvNeXt": 4, "RegNet": 14, "ShuffleNetV2": 4,
                "GoogLeNet": 1, "Swin": 3, "PVT v2": 5, "MobileViT v2": 7, "EfficientViT": 4, "MaxViT": 4}
    found = collections.Counter(zoo._ARCHITECTURES[name].family for name in zoo.names() if name != "quantised")
    assert {family: found[family] for family in families} == families
    assert {"vgg16", "vgg19_bn", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "mobilenet_v2", "quantised"} <= set(zoo.names())


def test_no_two_architectures_have_the_same_parameters():
    tables = [tuple(sorted(zoo._expected(name).items())) for name, arch in zoo._ARCHITECTURES.items() if arch.detected]
    assert len(set(tables)) == len(tables)
    both = ["vit_base_patch16_clip_224", "vit_base_patch16_clip_quickgelu_224"]
    assert zoo._expected(both[0]) == zoo._expected(both[1])
    state = zeros(both[0])
    assert zoo.detect(state) is None
    assert zoo.fitting(state) == both


@pytest.mark.parametrize("arch", SMALL)
def test_detected_built_and_run(arch):
    state = random_state(arch)
    assert zoo.detect(state) == arch
    net = zoo.build(arch, state)
    assert net.name == arch
    assert net.output_shape == (5,)
    assert net.preprocess is not None
    assert net.preprocess.output_shape == net.input_shape
    small = net.with_input_size(64, 64)
    x = np.random.default_rng(1).normal(size=(2, 3, 64, 64)).astype(np.float32)
    y = small(x)
    assert y.shape == (2, 5)
    assert np.isfinite(y).all()
    assert np.ptp(y) > 0
    folded = sl.nn.fold_batch_norm(small)
    np.testing.assert_allclose(folded(x), y, rtol=1e-3, atol=1e-3 * np.abs(y).max())


@pytest.mark.parametrize(("arch", "millions"), [
    ("vgg16", 138.357544), ("vgg11_bn", 132.868840), ("resnet50", 25.557032), ("resnet152", 60.192808), ("resnext50_32x4d", 25.028904),
    ("wide_resnet101_2", 126.886696), ("mobilenet_v2", 3.504872), ("squeezenet1_1", 1.235496), ("cifar_resnet56", 0.85),
    ("efficientnet_lite1", 5.416680)])
def test_published_numbers_of_parameters(arch, millions):
    counts = [math.prod(10 if arch.startswith("cifar") and n == zoo.ANY else 1000 if n == zoo.ANY else n for n in shape)
              for key, shape in zoo._expected(arch).items() if "running" not in key]
    assert sum(counts) / 1e6 == pytest.approx(millions, abs=5e-3 if "cifar" in arch else 1e-9)


def test_layer_names_are_module_paths():
    net = zoo.build("mobilenet_v2", random_state("mobilenet_v2"))
    for name in ("features.0", "features.0.0", "features.3", "features.17", "features.18", "features.18.2", "classifier"):
        assert name in net.layers
    x = np.zeros((1, 3, 32, 32), np.float32)
    out = net.with_input_size(32, 32).run(x, record=["features.18", "features.17"])
    assert out["features.18"].shape == (1, 1280, 1, 1)
    assert out["features.17"].shape == (1, 320, 1, 1)
    net = zoo.build("resnet18", random_state("resnet18"))
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1.0", "layer2.0.downsample", "layer4", "layer4.1.conv2", "avgpool", "fc"):
        assert name in net.layers


@pytest.mark.parametrize("arch", CASES)
def test_equals_torch_by_golden_values(arch):
    """torch's values of nine layers and the output, for seeded weights; see golden/make_zoo_golden.py."""
    state = random_state(arch)
    assert zoo.detect(state) in (arch, None)
    assert arch in zoo.fitting(state)
    net = zoo.build(arch, state)
    size = CASES[arch]
    net = net if size in net.input_shape else net.with_input_size(size, size)
    with np.load(GOLDEN) as golden:
        wanted = {key.partition("/")[2]: golden[key] for key in golden.files if key.startswith(f"{arch}/")}
    assert len(wanted) == 10
    got = net.run(picture(size), record=list(wanted))
    for name, value in got.items():
        reference, largest = wanted[name][:-1], wanted[name][-1]
        np.testing.assert_allclose(picked(value), reference, rtol=0, atol=1e-5 * largest, err_msg=f"{arch}: {name}")
    assert np.ptp(got["output"]) > 0


@pytest.mark.parametrize("arch", ["densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_gradient_in_both_precisions(arch):
    """The walk back, down to pictures of one place: float32 and float64 agree but for pixels behind a ReLU's corner."""
    net = zoo.build(arch, random_state(arch)).with_input_size(48, 48)
    x = picture(48)
    single = net.gradient(x, 1)["input"]
    double = net.gradient(x.astype(np.float64), 1, dtype="float64")["input"]
    assert np.median(np.abs(single - double)) <= 1e-4 * np.abs(double).max()


def test_names_of_older_files_and_heads_of_training():
    state = random_state("densenet121")
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert zoo.detect(old) == "densenet121"
    assert zoo.build("densenet121", old).fingerprint == zoo.build("densenet121", state).fingerprint
    state = random_state("googlenet")
    heads = {**state, "aux1.fc1.weight": np.zeros((2, 2), np.float32)}
    assert zoo.detect(heads) == "googlenet"
    assert zoo.build("googlenet", heads).fingerprint == zoo.build("googlenet", state).fingerprint
    with pytest.raises(ModelFileError, match=r"left over: aux3\.fc1"):
        zoo.build("googlenet", {**state, "aux3.fc1": np.zeros(2, np.float32)})


def test_a_buffer_must_hold_what_the_graph_is_written_for():
    state = random_state("swin_t")
    key = "features.3.1.attn.relative_position_index"
    with pytest.raises(ModelFileError, match=rf"{re.escape(key)} holds other values"):
        zoo.build("swin_t", {**state, key: state[key][::-1]})
    with pytest.raises(ModelFileError, match=rf"missing: {re.escape(key)}"):
        zoo.build("swin_t", {name: value for name, value in state.items() if name != key})


def test_maxvit_of_another_size_is_told_by_its_tables():
    """Windows are 1/32 of the picture, so that weights for 224 and 256 differ in nothing but the tables of biases."""
    state = zeros("maxvit_tiny_rw_224")
    assert zoo.detect(state) == "maxvit_tiny_rw_224"
    key = "stages.0.blocks.0.attn_block.attn.rel_pos.relative_position_bias_table"
    shapes = re.escape(f"{key} (169, 2) instead of (225, 2)")
    with pytest.raises(ModelFileError, match=rf"not those of maxvit_tiny_rw_256: 22 of another shape: {shapes}"):
        zoo.build("maxvit_tiny_rw_256", state)
    with pytest.raises(ModelFileError, match=rf"1 missing: {re.escape(key)}$"):
        zoo.build("maxvit_tiny_rw_224", {name: value for name, value in state.items() if name != key})


@pytest.mark.parametrize("arch", CASES)
def test_errors_name_the_key(arch):
    state = zeros(arch)
    key = list(state)[len(state) // 2]
    with pytest.raises(ModelFileError, match=rf"1 missing: {re.escape(key)}$"):
        zoo.build(arch, {name: value for name, value in state.items() if name != key})
    with pytest.raises(ModelFileError, match=r"1 left over: more\.weight"):
        zoo.build(arch, {**state, "more.weight": np.zeros(1, np.float32)})
    with pytest.raises(ModelFileError, match=rf"1 of another shape: {re.escape(key)} \(1, 1, 1, 1, 1\) instead of"):
        zoo.build(arch, {**state, key: np.zeros((1,) * 5, np.float32)})


def test_weights_that_do_not_tell_activations_apart(tmp_path):
    small = zoo.Architecture("small_a", "example", lambda b: b.dense("fc", "input", 3, zoo.ANY), (3,), detected=False)
    zoo.register(small)
    zoo.register(replace(small, name="small_b"))
    try:
        np.savez(tmp_path / "x.npz", **{"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.ones(2, np.float32)})
        with pytest.raises(ModelFileError, match=r"do not tell small_a and small_b apart.*arch="):
            sl.load(tmp_path / "x.npz")
        assert sl.load(tmp_path / "x.npz", arch="small_b").name == "small_b"
    finally:
        for name in ("small_a", "small_b"):
            del zoo._ARCHITECTURES[name]
        zoo._expected.cache_clear()


def test_option_a_shortcut_is_slice_and_zero_channels():
    """By hand: with the branch silenced (second normalisation 0), a reducing block is relu of the sliced, padded input."""
    state = random_state("cifar_resnet20", 10)
    for part in ("weight", "bias"):
        state[f"layer2.0.bn2.{part}"][:] = 0
    net = zoo.build("cifar_resnet20", state)
    out = net.run(np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32), record=["layer1", "layer2.0"])
    expected = np.zeros((1, 32, 16, 16), np.float32)
    expected[:, 8:24] = out["layer1"][:, :, ::2, ::2]
    np.testing.assert_array_equal(out["layer2.0"], np.maximum(expected, 0))


def test_load_finds_architecture(tmp_path):
    state = random_state("cifar_resnet20", 10)
    counters = {"bn1.num_batches_tracked": np.array(3)}
    np.savez(tmp_path / "a.npz", **{f"module.{key}": array for key, array in {**state, **counters}.items()})
    write_tensors(tmp_path / "b.safetensors", state)
    nets = [sl.load(tmp_path / "a.npz"), sl.load(tmp_path / "b.safetensors", arch="cifar_resnet20")]
    assert nets[0].fingerprint == nets[1].fingerprint
    assert nets[0].labels is not None
    assert nets[0].labels[0] == "airplane"
    assert nets[0].preprocess is not None
    assert nets[0].preprocess.mean == IMAGENET_MEAN


def test_labels_of_1000_classes_beside_the_weights(tmp_path):
    names = ["background", *(f"class {i}" for i in range(1000))]
    (tmp_path / "imagenet_labels.txt").write_text("\n".join(names), encoding="utf-8")
    path = tmp_path / "x.npz"
    assert zoo.build("squeezenet1_1", random_state("squeezenet1_1", 1000), path=path).labels == tuple(names[1:])
    assert zoo.build("squeezenet1_1", random_state("squeezenet1_1", 7), path=path).labels is None


def test_half_and_double_precision_become_float32():
    state = random_state("cifar_resnet20", 10)
    for kind in (np.float16, np.float64):
        net = zoo.build("cifar_resnet20", {key: array.astype(kind) for key, array in state.items()})
        assert all(array.dtype == np.float32 for array in net.params.values())


def test_wrong_state_dicts(tmp_path):
    state = random_state("cifar_resnet20", 10)
    reduced = {key: array for key, array in state.items() if key not in ("conv1.weight", "bn1.bias")}
    with pytest.raises(ModelFileError, match=r"x\.pth.*2 missing: conv1\.weight, bn1\.bias"):
        zoo.build("cifar_resnet20", reduced, path="x.pth")
    with pytest.raises(ModelFileError, match=r"1 left over: head\.weight"):
        zoo.build("cifar_resnet20", {**state, "head.weight": np.zeros(3, np.float32)})
    with pytest.raises(ModelFileError, match=r"1 of another shape: linear\.weight \(10, 65\) instead of \(classes, 64\)"):
        zoo.build("cifar_resnet20", {**state, "linear.weight": np.zeros((10, 65), np.float32)})
    with pytest.raises(ModelFileError, match="missing"):
        zoo.build("cifar_resnet32", state)
    with pytest.raises(ModelFileError, match=r"conv1\.weight holds int8"):
        zoo.build("cifar_resnet20", {**state, "conv1.weight": state["conv1.weight"].astype(np.int8)})
    with pytest.raises(ModelFileError, match=r"nearest.*resnet50"):
        zoo.build("resnet51", state)
    with pytest.raises(sl.NumericalError, match=r"conv1\.weight"):
        zoo.build("cifar_resnet20", {**state, "conv1.weight": np.full((16, 3, 3, 3), np.nan, np.float32)})
    assert zoo.detect(reduced) is None
    assert zoo.detect({}) is None
    np.savez(tmp_path / "x.npz", **reduced)
    with pytest.raises(ModelFileError, match=r"x\.npz.*none of the known architectures"):
        sl.load(tmp_path / "x.npz")


def test_own_architecture():
    def tiny(b: zoo.Builder) -> None:
        x = b.op("relu", "relu", b.conv("conv", "input", 3, 8, 3, bias=True))
        b.dense("fc", b.global_pool("pool", x), 8, zoo.ANY)

    zoo.register(zoo.Architecture("tiny", "example", tiny, (3, 32, 32)))
    try:
        assert zoo.detect(random_state("tiny")) == "tiny"
        with pytest.raises(ValueError, match="exists"):
            zoo.register(zoo.Architecture("tiny", "example", tiny, (3, 32, 32)))
    finally:
        del zoo._ARCHITECTURES["tiny"]
        zoo._expected.cache_clear()


# quantised npz + json

def quantised(folder):
    """A small network in the quantised form: stem, depthwise, linear convolution with a sum, head; gives path, arrays and graph."""
    rng = np.random.default_rng(0)
    arrays, nodes = {}, []

    def add(name, op, inputs, shape=None, **more):
        nodes.append({"name": name, "op": op, "inputs": inputs, **({"weight_shape": list(shape)} if shape else {}), **more})
        if shape:
            arrays.update({f"{name}.q": rng.integers(0, 255, shape, np.uint8), f"{name}.zp": np.array(128, np.int32),
                           f"{name}.scale": np.float32([0.01]) if name == "a" else rng.uniform(0.005, 0.01, shape[0]).astype(np.float32),
                           f"{name}.bias": rng.normal(size=shape[0]).astype(np.float32)})

    add("a", "conv", ["input"], (4, 3, 3, 3), stride=2, pad="same", groups=1, act="relu6")
    add("b", "dwconv", ["a"], (4, 1, 3, 3), stride=1, pad=1, groups=4, act="relu")
    add("c", "conv", ["b"], (4, 4, 1, 1), act="none")
    add("d", "add", ["a", "c"])
    add("e", "gap", ["d"])
    add("f", "conv", ["e"], (3, 4, 1, 1), act="none")
    graph = {"nodes": nodes, "output": "f", "input": "NCHW float32, RGB, x/127.5-1", "resolution": 9, "classes": 3,
             "labels": ["x", "y", "z"]}
    np.savez(folder / "net.npz", **arrays)
    (folder / "net.json").write_text(json.dumps(graph), encoding="utf-8")
    return folder / "net.npz", arrays, graph


def test_quantised_network(tmp_path):
    from semanticlens._reference import nn as reference

    path, arrays, _ = quantised(tmp_path)
    net = sl.load(path)
    assert net.labels == ("x", "y", "z")
    assert net.name == "net"

    def weight(name):
        scale = np.broadcast_to(arrays[f"{name}.scale"], (len(arrays[f"{name}.q"]),)).reshape(-1, 1, 1, 1)
        return (arrays[f"{name}.q"].astype(np.float32) - 128) * scale, arrays[f"{name}.bias"]

    x = net.preprocess(np.random.default_rng(3).integers(0, 255, (9, 9, 3), np.uint8))[None]
    assert x.min() >= -1
    assert x.max() <= 1
    a = reference.conv2d(x, *weight("a"), stride=(2, 2), padding=(1, 1, 1, 1), activation="relu6")          # SAME: 9 -> 5
    b = reference.conv2d(a, *weight("b"), padding=(1, 1, 1, 1), groups=4, activation="relu")
    d = a + reference.conv2d(b, *weight("c"))
    w, bias = weight("f")
    record = net.run(x, record=["a", "d", "output", "a.pre"])
    np.testing.assert_allclose(record["a"], a, atol=1e-5)
    np.testing.assert_allclose(record["d"], d, atol=1e-4)
    np.testing.assert_allclose(record["output"], d.mean((2, 3)) @ w[:, :, 0, 0].T + bias, atol=1e-4)
    np.testing.assert_array_equal(record["a"], np.clip(record["a.pre"], 0, 6))
    assert record["a.pre"].min() < 0


def test_bad_quantised_networks(tmp_path):
    path, arrays, graph = quantised(tmp_path)
    nodes = graph["nodes"]

    def refused(message, kind=ModelFileError, **changes):
        (tmp_path / "net.json").write_text(json.dumps({**graph, **changes}), encoding="utf-8")
        with pytest.raises(kind, match=message):
            sl.load(path)

    refused("swish", UnsupportedOperationError, nodes=[{**nodes[0], "act": "swish"}, *nodes[1:]])
    refused("'lstm'", UnsupportedOperationError, nodes=[{**nodes[0], "op": "lstm"}, *nodes[1:]])
    refused("earlier node", nodes=nodes[1:])
    refused("belong to no node", nodes=nodes[:5], output="e", classes=4)
    refused(r"missing arrays: g\.q", nodes=[*nodes, {**nodes[0], "name": "g"}])
    refused("malformed", nodes=[{"name": "a"}])
    refused("malformed", nodes=[*nodes, 3])
    refused("stride", nodes=[{**nodes[0], "stride": "2"}, *nodes[1:]])
    refused("4 classes", classes=4)
    refused("not understood", input="BGR")
    refused("resolution", resolution=10, preprocess=sl.nn.Preprocess(size=(9, 9)).to_dict())
    refused("output", output="nowhere")
    (tmp_path / "net.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"net\.json is not valid JSON"):
        sl.load(path)
    (tmp_path / "net.json").unlink()
    with pytest.raises(ModelFileError, match=r"expected in .*net\.json, which is missing"):
        sl.load(path)
    with pytest.raises(ModelFileError, match="path"):
        zoo.build("quantised", arrays)
    quantised(tmp_path)
    np.savez(path, **{**arrays, "c.scale": np.float32([1, 2])})
    with pytest.raises(ModelFileError, match=r"'c'.*do not fit"):
        sl.load(path)
    np.savez(path, **{**arrays, "c.q": arrays["c.q"].astype(np.float32)})
    with pytest.raises(ModelFileError, match=r"'c'.*small integers"):
        sl.load(path)


# against torchvision

PEERS = ["vgg11", "vgg13_bn", "vgg16", "vgg19", "resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2", "resnext50_32x4d",
         "mobilenet_v2", "squeezenet1_0", "squeezenet1_1"]
LARGE = ["vgg11_bn", "vgg13", "vgg16_bn", "vgg19_bn", "resnet152", "wide_resnet101_2", "resnext101_32x8d", "resnext101_64x4d"]


@pytest.mark.peers
@pytest.mark.parametrize("arch", PEERS)
def test_equals_torchvision(arch, tmp_path):
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(3)
    model = getattr(models, arch)(weights=None, num_classes=20).eval()
    for module in model.modules():                    # statistics as after training, not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pth")
    size = 64 if arch.startswith("vgg") else 96
    x = torch.randn(2, 3, size, size)
    net = sl.load(tmp_path / "model.pth")
    assert net.name == arch
    taps = {}
    layer = {"v": "features", "r": "layer3", "w": "layer3", "m": "features.14", "s": "features.7"}[arch[0]]
    model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: taps.update(value=output))
    with torch.no_grad():
        expected = model(x).numpy()
    got = net.with_input_size(size, size).run(x.numpy(), record=[layer, "output"])
    for value, reference in ((got["output"], expected), (got[layer], taps["value"].numpy())):
        np.testing.assert_allclose(value, reference, rtol=0, atol=1e-4 * max(1, np.abs(reference).max()))


@pytest.mark.peers
@pytest.mark.parametrize("arch", LARGE)
def test_large_torchvision_models_are_recognised(arch):
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = getattr(models, arch)(weights=None)
    shapes = {key: np.broadcast_to(np.float32(0), tuple(value.shape)) for key, value in model.state_dict().items()
              if "num_batches" not in key}
    assert zoo.detect(shapes) == arch
