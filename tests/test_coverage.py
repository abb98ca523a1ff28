"""Every network of the coverage table through the doors it has, against torch: output and every layer."""

from __future__ import annotations

import warnings
from pathlib import Path

import coverage_table
import pytest
from coverage_cases import NAMES, compare, compare_onnx, hooked, module, note

LIMIT = 1e-4


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_export_from_torch_equals_torch(name: str) -> None:
    pytest.importorskip("torchvision")
    if name.startswith("timm/"):
        pytest.importorskip("timm")
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


def test_the_page_is_what_the_results_give() -> None:
    assert (coverage_table.DOCS / "coverage.md").read_text(encoding="utf-8") == coverage_table.page()
