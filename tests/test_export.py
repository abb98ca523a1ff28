"""Export from torch: the golden file in every run; torch itself and torchvision's networks under the marker ``peers``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import semanticlens as sl
from semanticlens.nn import OPS, fold_batch_norm
from semanticlens.nn.aten import OPERATIONS
from semanticlens.nn.export import from_torch

GOLDEN = Path(__file__).parent / "golden" / "torch_export.npz"


def relative(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


def golden_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_torch_golden", GOLDEN.with_name("make_torch_golden.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


# ---------------------------------------------------------------- without torch


@pytest.mark.parametrize("fold", [False, True])
def test_golden_file(tmp_path: Path, fold: bool) -> None:
    golden = np.load(GOLDEN)
    (tmp_path / "small.safetensors").write_bytes(golden["bundle"].tobytes())
    net = sl.load(tmp_path / "small.safetensors", fold=fold)
    names = [key.removeprefix("value:") for key in golden.files if key.startswith("value:")]
    assert len(names) == 10
    if fold:
        assert {"stem.0"} == {name for name in names if name in net.folded}
        names.remove("stem.0")
    got = net.run(golden["x"], [*names, "output"])
    assert relative(got["output"], golden["output"]) < 1e-5
    for name in names:
        assert relative(got[name], golden[f"value:{name}"]) < 1e-5, name
    assert net.labels == tuple("abcdef")
    assert net.preprocess is not None
    assert any(node.op == "batch_norm" for node in net.nodes)  # x - mean, / 0.25 stay, whatever is folded


def test_translations_and_table_name_the_same_operations() -> None:
    in_table = {name for op in OPS.values() for name in op.aten}
    assert set(OPERATIONS) - in_table == {"masked_fill", "where", "stack", "unflatten", "tensor_split"}  # made of others
    assert in_table - set(OPERATIONS) == {"native_group_norm"}  # decomposed no further than group_norm


def test_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        sl.MissingExtraError,
        match=r"export from torch needs the package 'torch', .* pip install 'semanticlens-native\[torch\]'",
    ):
        from_torch(None, None)


# ---------------------------------------------------------------- with torch


@pytest.mark.peers
def test_golden_file_is_what_its_script_makes(torch: Any) -> None:
    golden, script = np.load(GOLDEN), golden_module()
    module, x = script.module(), script.example()
    net = from_torch(module, x[:1])
    assert np.allclose(x.numpy(), golden["x"])
    want = script.values(module, x)
    assert relative(want["output"], golden["output"]) < 1e-4
    names = [name for name in want if name in net.layers]
    assert {"stem", "stem.0", "block", "relu", "relu_1", "squeeze.up", "mixed"} <= set(names)
    got = net.run(x.numpy(), names)
    for name in names:
        assert relative(got[name], want[name]) < 1e-5, name


NETWORKS = ["squeezenet1_1", "mobilenet_v2", "resnet50", "efficientnet_b0", "vgg16"]


@pytest.mark.peers
@pytest.mark.parametrize("name", NETWORKS)
def test_torchvision_networks(torch: Any, tmp_path: Path, name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(3)
    module = getattr(models, name)(weights=None)
    x = torch.rand(2, 3, 224, 224) * 4 - 2
    if any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules()):
        with torch.no_grad():
            module.train()(torch.rand(4, 3, 224, 224) * 4 - 2)
    module.eval()
    net = from_torch(module, x[:1])
    with torch.no_grad():
        want = module(x).numpy()
    assert relative(net(x.numpy()), want) < 1e-4
    del module
    net.save(tmp_path / "net.safetensors")
    back = sl.load(tmp_path / "net.safetensors")
    assert not any(node.op == "batch_norm" for node in back.nodes)
    assert relative(back(x.numpy()), want) < 1e-4
    assert net.n_params >= 1_200_000


@pytest.mark.peers
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_aliases_are_module_outputs(torch: Any, name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(4)
    module, x = getattr(models, name)(weights=None).eval(), torch.rand(1, 3, 96, 96)
    net = from_torch(module, x)
    want: dict[str, list[np.ndarray]] = {}

    def keep(path: str) -> Any:
        return lambda _m, _i, out: want.setdefault(path, []).append(out.detach().clone().numpy())

    for path, part in module.named_modules():
        part.register_forward_hook(keep(path))
    with torch.no_grad():
        module(x)
    paths = [path for path, outputs in want.items() if path in net.layers and len(outputs) == 1]
    got = net.run(x.numpy(), paths)
    assert all(relative(got[path], want[path][0]) < 1e-4 for path in paths)
    blocks = {
        "resnet18": ["layer1", "layer3.1", "layer4.0.downsample", "fc"],
        "mobilenet_v2": ["features.18", "features.17", "features.3.conv"],
        "squeezenet1_1": ["features.12", "features.0", "classifier"],
    }[name]
    assert set(blocks) <= set(paths)
    if name == "resnet18":
        assert {"layer1.0.relu", "layer1.0.relu_1", "layer1.0.add"} <= set(net.layers.names)
        assert dict(net.aliases)["layer1.0"] == "layer1.0.relu_1"


def nets(torch: Any) -> Any:
    """Small modules, by name."""
    nn, F = torch.nn, torch.nn.functional

    class Module(nn.Module):
        def __init__(self, function: Any, **parts: Any) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)
            self.function = function

        def forward(self, *x: Any) -> Any:
            return self.function(self, *x)

    return nn, F, Module


def export(torch: Any, module: Any, shape: tuple[int, ...] = (1, 3, 8, 8)) -> tuple[Any, float]:
    x = torch.rand(2, *shape[1:])
    net = from_torch(module, x[: shape[0]])
    with torch.no_grad():
        return net, relative(net(x.numpy()), module(x).numpy())


@pytest.mark.peers
def test_the_module_is_left_as_it_was(torch: Any) -> None:
    nn, _, _ = nets(torch)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())
    module.train()
    module[1].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    net = from_torch(module, torch.rand(2, 3, 8, 8))
    assert [part.training for part in module] == [True, False, True, True]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    net_weight = net.params["0.weight"].copy()
    with torch.no_grad():
        module[0].weight.zero_()
    assert np.array_equal(net.params["0.weight"], net_weight)
    with pytest.raises(sl.UnsupportedOperationError):
        from_torch(nn.Sequential(module, nn.Flatten(0)), torch.rand(2, 3, 8, 8))
    assert [part.training for part in module] == [True, False, True, True]


@pytest.mark.peers
def test_in_place_operations_keep_their_meaning(torch: Any) -> None:
    nn, F, Module = nets(torch)

    def forward(self: Any, x: Any) -> Any:
        y = self.conv(x)
        flat = y.flatten(1)
        F.relu_(y)  # changes flat as well
        z = y * 2
        z.add_(y)
        return flat + z.flatten(1)

    net, difference = export(torch, Module(forward, conv=nn.Conv2d(3, 4, 3)))
    assert difference < 1e-6
    assert "conv" in net.layers


@pytest.mark.peers
def test_factors_keep_double_precision(torch: Any) -> None:
    """Numbers in the code of a module, and channels that are shuffled."""
    _, _, Module = nets(torch)
    x = torch.rand(2, 6, 4, 5, dtype=torch.float64)

    def forward(_self: Any, x: Any) -> Any:
        return (0.3 / (torch.channel_shuffle(x, 3) * 0.1 + 7**0.5)).flatten(2) * 0.7 - 0.2

    net = from_torch(Module(forward), x[:1].float())
    got = net.run(x.numpy(), dtype="float64")["output"]
    assert relative(got, forward(None, x).numpy()) < 1e-14
    assert relative(net(x.float().numpy()), forward(None, x).numpy()) < 1e-6


@pytest.mark.peers
def test_shared_parameters_and_constants(torch: Any) -> None:
    nn, F, Module = nets(torch)
    conv = nn.Conv2d(3, 3, 3, padding=1)
    net, difference = export(
        torch, Module(lambda s, x: F.conv2d(s.conv(s.conv(x)), s.conv.weight * 0.5 + s.conv.weight.flip(3)), conv=conv)
    )
    assert difference < 1e-6
    assert set(net.params) == {"conv.weight", "conv.bias", "conv2d.weight"}
    assert {"conv", "conv_1", "conv2d"} == set(net.layers.names)


@pytest.mark.peers
@pytest.mark.parametrize("case", range(26))
def test_small_forms(torch: Any, case: int) -> None:
    _, F, Module = nets(torch)
    forms = [
        lambda s, x: (x - 0.5) / 0.25 * 3 + 1,
        lambda s, x: 2 * x + (1 + x),
        lambda s, x: x.mean((2, 3), keepdim=True) * x,
        lambda s, x: x.mean(dim=1, keepdim=True),
        lambda s, x: torch.softmax(x.flatten(1), -1),
        lambda s, x: x.clamp(0, 6) + x.clamp(min=0) + F.hardtanh(x, 0, 6),
        lambda s, x: F.avg_pool2d(x, 2) + F.max_pool2d(x, 2) + F.adaptive_avg_pool2d(x, 4),
        lambda s, x: x.reshape(x.shape[0], 12, 4, 4).contiguous().detach() + 1.0,
        lambda s, x: F.conv2d(x, s.w, None, padding="same") + F.conv2d(x, s.w, padding="valid").mean((2, 3), True) * x,
        lambda s, x: x.flatten(1) @ s.v + torch.addmm(s.b, x.flatten(1), s.v),
        lambda s, x: F.batch_norm(x, s.m, s.m + 1, None, None, False, 0.1, 1e-3),
        lambda s, x: (F.pad(x, (1, 2, 3, 0), value=0.5)[:, :, ::2] * s.m.reshape(1, 3, 1, 1)).squeeze(-1),
        lambda s, x: x[:, 1:, 2:-1:2] + x.clamp(0.2, 0.7)[:, :2, :5:2],
        lambda s, x: x / (x + 1) - 1 / (x + 1) + (2 - x) * torch.rsqrt(x + 1),
        lambda s, x: torch.softmax(x, 1) * torch.arange(8.0) + torch.arange(8.0)[:, None],
        lambda s, x: torch.cat([torch.stack(x.unbind(1)[:2], 2).flatten(1), torch.cat(x.chunk(2, 2), 1).split(4, 1)[0].flatten(1)], 1),
        lambda s, x: torch.cat([s.m.reshape(1, 3, 1, 1).expand(x.shape[0], 3, 8, 1), x], 3).roll((1, 3), (2, 3)),
        lambda s, x: x.permute(2, 0, 1, 3).reshape(8 * x.shape[0], 24).relu().view(8, x.shape[0], 3, 8).permute(1, 2, 0, 3),
        lambda s, x: x.unflatten(2, (2, 4)).transpose(1, 2).reshape(x.shape[0] * 2, 3, 4, 8).exp().reshape(x.shape[0], 2, -1),
        lambda s, x: F.scaled_dot_product_attention(x, x * 2, x + 1, is_causal=True),
        lambda s, x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(8, 8).tril().bool(), scale=0.3),
        lambda s, x: F.scaled_dot_product_attention(x, x, x, attn_mask=x.mean(1, keepdim=True)),
        lambda s, x: F.gelu(x) + F.gelu(x, approximate="tanh") + F.leaky_relu(x - 0.5, 0.2) + F.elu(x - 0.5) + F.softplus(x),
        lambda s, x: torch.matmul(x, x.transpose(-1, -2)).masked_fill(torch.eye(8).bool(), -3.0).amax(-1),
        lambda s, x: F.layer_norm(x, (8,), None, None) + F.group_norm(x, 3) + F.rms_norm(x, (8,)),
        lambda s, x: torch.where(torch.eye(8).bool(), x, 0.5) * x.mean((2, 3))[:, :, None, None].expand(-1, -1, 8, 8) + x[:, 0, None],
    ]
    buffers = {"w": torch.rand(3, 3, 4, 3), "v": torch.rand(192, 5), "b": torch.rand(5), "m": torch.rand(3)}
    module = Module(forms[case])
    for name, tensor in buffers.items():
        module.register_buffer(name, tensor)
    assert export(torch, module)[1] < 1e-6


@pytest.mark.peers
def test_what_cannot_be_exported_says_why(torch: Any) -> None:
    nn, F, Module = nets(torch)
    x = torch.rand(2, 3, 8, 8)
    cases = [
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Mish())),
            x,
            r"node 'mish' \(module '1.0'\): torch operation 'aten.mish.default' has no counterpart",
        ),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 3)), x, r"module '0'.*(transposed|conv_transpose2d)"),
        (Module(lambda s, x: (x, x + 1)), x, "must give one tensor"),
        (Module(lambda s, x: x), x, "must give one tensor|gives its input back"),
        (Module(lambda s, x: x.flatten(0)), x, "does not keep the batch of 13"),
        (Module(lambda s, x: x.flatten(0, 1)), x, "does not keep the batch of 13"),
        (Module(lambda s, x: x.reshape(3, -1, 8, 8)), x, "tears the batch of 13 apart"),
        (Module(lambda s, x: x[:2]), x, "along the batch"),
        (Module(lambda s, x: x.sum((2, 3)).select(1, 0)), x, "has no features"),
        (Module(lambda s, x: x if x.sum() > 0 else -x), x, "torch.export cannot trace this module"),
        (Module(lambda s, x: torch.add(x, x, alpha=3)), x, "of two values with a factor"),
        (Module(lambda s, x: torch.softmax(x, 0)), x, "along the batch"),
        (Module(lambda s, x: x.roll(1)), x, "over all values at once|roll"),
        (Module(lambda s, x: x ** x), x, "an exponent that is no number"),
        (Module(lambda s, x: F.pad(x, (1, 1, 1, 1), mode="reflect")), x, "padding"),
        (Module(lambda s, x: F.batch_norm(x, None, None, training=True)), x, "statistics of the batch|batch_norm"),
    ]
    for module, example, text in cases:
        with pytest.raises(sl.UnsupportedOperationError, match=text):
            from_torch(module, example)


@pytest.mark.peers
def test_a_network_that_depends_on_the_batch_is_caught(torch: Any) -> None:
    """Traced with one sample, a view can mistake channels for the batch; running it beside the module shows that."""
    _, _, Module = nets(torch)
    with pytest.raises((sl.NumericalError, sl.UnsupportedOperationError)):
        from_torch(Module(lambda s, x: x * float(x.shape[0])), torch.rand(1, 3, 4, 4))


@pytest.mark.peers
def test_wrong_arguments(torch: Any) -> None:
    nn, _, _ = nets(torch)
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, not function"):
        from_torch(nets, torch.rand(1, 3))
    for example in (torch.rand(3), torch.ones(1, 3, 4, 4, dtype=torch.uint8), torch.rand(0, 3, 4, 4)):
        with pytest.raises(sl.DataError, match="example must be a floating-point batch"):
            from_torch(nn.Identity(), example)


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes_become_float32(torch: Any, dtype: str) -> None:
    nn, _, _ = nets(torch)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).to(getattr(torch, dtype))
    x = torch.rand(2, 3, 8, 8, dtype=getattr(torch, dtype))
    net = from_torch(module, (x,), name="other", labels=list("abcde"))
    assert all(array.dtype == np.float32 for array in net.params.values())
    with torch.no_grad():
        assert relative(net(x.float().numpy()), module.float()(x.float()).numpy()) < 1e-5
    assert fold_batch_norm(net) is net
