"""Every network of the coverage table through the doors it has, against torch: output and every layer."""

from __future__ import annotations

import warnings
from pathlib import Path

import coverage_table
import numpy as np
import pytest
from coverage_cases import NAMES, compare, compare_onnx, hooked, module, note

LIMIT, LIMIT64 = 1e-4, 1e-10


def needs(name: str) -> None:
    """Skip where the library that the network comes from is not installed."""
    pytest.importorskip("torchvision")
    if name.startswith("timm/"):
        pytest.importorskip("timm")


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_export_from_torch_equals_torch(name: str) -> None:
    needs(name)
    from semanticlens.nn import export

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, x = module(name)
        outputs = hooked(net, x)
        ours = export.from_torch(net, x[:1], name=name)
    error, layers, worst = compare(ours, outputs, x.numpy())
    note(name, "export", error, layers)
    assert error <= LIMIT, worst
    assert layers > 5


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_float64_equals_torch(name: str) -> None:
    """The same float32 parameters, every node in double on both sides; one sample, because the plain forms are slow."""
    needs(name)
    from semanticlens.nn import export

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, x = module(name)
        ours = export.from_torch(net, x[:1], name=name)
        outputs = hooked(net.double(), x[:1].double())
    assert all(value.dtype == np.float64 for value in outputs.values())
    error, layers, worst = compare(ours, outputs, x[:1].double().numpy(), dtype="float64")
    note(name, "float64", error, layers)
    assert error <= LIMIT64, worst
    assert layers > 5


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_onnx_equals_onnxruntime(name: str, tmp_path: Path) -> None:
    for package in ("onnxruntime", "torchvision", *(("timm",) if name.startswith("timm/") else ())):
        pytest.importorskip(package)
    import torch

    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, x = module(name)
        free = {"x": {0: "batch"}}
        torch.onnx.export(net, (x[:1],), path, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=free)
    error, values, worst = compare_onnx(path, x.numpy())
    note(name, "onnx", error, values)
    assert error <= LIMIT, worst
    assert values > 5


STATE = {
    **{name: name for name in ("vgg11", "vgg16", "vgg16_bn", "resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d")},
    **{name: name for name in ("squeezenet1_1", "mobilenet_v2", "vit_b_16", "alexnet", "densenet121", "mobilenet_v3_large")},
    **{name: name for name in ("efficientnet_b0", "convnext_tiny", "regnet_y_400mf", "shufflenet_v2_x1_0", "googlenet", "swin_t")},
    "timm/deit_small_patch16_224": "vit_small_patch16_224",
    "timm/vit_base_patch16_224.augreg_in21k_ft_in1k": "vit_base_patch16_224",
    "timm/vit_base_patch16_224.dino": "vit_base_patch16_224_features",
    "timm/vit_base_patch16_224.mae": "vit_base_patch16_224_features",
    "timm/vit_base_patch16_clip_224.openai": "vit_base_patch16_clip_224",
    **{f"timm/{name}": name for name in ("pvt_v2_b0", "mobilevitv2_050", "efficientvit_b0", "maxvit_nano_rw_256")},
}


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", STATE)
def test_state_dict_equals_torch(name: str, tmp_path: Path) -> None:
    needs(name)
    import torch

    import semanticlens as sl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, x = module(name)
        outputs = hooked(net, x)
        torch.save(net.state_dict(), tmp_path / "weights.pth")
    ours = sl.load(tmp_path / "weights.pth", arch=STATE[name], fold=False)
    error, layers, worst = compare(ours, outputs, x.numpy())
    note(name, "state", error, layers)
    assert error <= LIMIT, worst
    assert layers > 5


def test_the_page_is_what_the_results_give() -> None:
    assert (coverage_table.DOCS / "coverage.md").read_text(encoding="utf-8") == coverage_table.page()
