"""Networks of the coverage table, with seeded random weights whose normalisation statistics are not trivial, and how they are compared."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

TORCHVISION = (
    *(
        "alexnet",
        "vgg11",
        "vgg16",
        "vgg16_bn",
        "resnet18",
        "resnet50",
        "wide_resnet50_2",
        "resnext50_32x4d",
        "squeezenet1_1",
    ),
    *("densenet121", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "regnet_y_400mf"),
    *("shufflenet_v2_x1_0", "googlenet", "vit_b_16", "swin_t"),
)
TIMM = (
    *("pvt_v2_b0", "maxvit_nano_rw_256", "mobilevitv2_050", "efficientvit_b0", "deit_small_patch16_224"),
    *("vit_base_patch16_224.augreg_in21k_ft_in1k", "vit_base_patch16_224.dino", "vit_base_patch16_224.mae"),
    "vit_base_patch16_clip_224.openai",
)
NAMES = (*TORCHVISION, *(f"timm/{name}" for name in TIMM))
TABLE = Path(__file__).parents[1] / "docs" / "coverage.json"


def module(name: str) -> tuple[Any, Any]:
    """The module and an input."""
    import torch

    torch.manual_seed(0)
    if name.startswith("timm/"):
        import timm

        net = timm.create_model(name[5:], pretrained=False)
        size = int(net.pretrained_cfg["input_size"][-1])
    else:
        import torchvision

        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        net, size = getattr(torchvision.models, name)(weights=None, **options), 224
    shake(net)
    return net.eval(), torch.randn(2, 3, size, size)


def shake(net: Any) -> None:
    """Give every normalisation, bias and scale values that matter, and keep the values of deep networks in range."""
    import torch

    for part in net.modules():
        if hasattr(part, "running_mean") and part.running_mean is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        for key, value in net.named_parameters():
            if value.ndim == 1 and key.endswith("weight"):
                value.uniform_(0.5, 1.5)
            elif value.ndim == 1 or "pos" in key or "cls" in key or "layer_scale" in key or "gamma" in key:
                value.normal_(0, 0.1)


def relative(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / max(float(np.abs(want).max()), 1e-30))


def hooked(net: Any, x: Any) -> dict[str, np.ndarray]:
    """The output of every module that is called once and gives one tensor.

    For inputs in double nothing may leave it: timm's linear attention turns its values to float32, which is undone here.
    """
    import torch

    outputs: dict[str, list[Any]] = {}

    def keep(path: str) -> Any:
        return lambda _part, _inputs, out: outputs.setdefault(path, []).append(
            out.detach().clone().numpy() if torch.is_tensor(out) else None
        )

    hooks = [part.register_forward_hook(keep(path)) for path, part in net.named_modules()]
    stay = {"float": lambda tensor: tensor} if x.dtype == torch.float64 else {}
    with torch.no_grad(), mock.patch.multiple(torch.Tensor, **stay) if stay else contextlib.nullcontext():
        net(x)
    for hook in hooks:
        hook.remove()
    return {path: values[0] for path, values in outputs.items() if len(values) == 1 and values[0] is not None}


def compare(
    ours: Any, outputs: dict[str, np.ndarray], x: np.ndarray, n_threads: int = 2, dtype: str = "float32"
) -> tuple[float, int, str]:
    """Largest relative error over the output and every layer both know, their number, and the worst one's name.

    A layer whose batch holds windows too is compared in torch's form: the same numbers, one axis less.
    """
    names = [path for path in outputs if path and path in ours.layers]
    got = ours.run(x, ["output", *names], n_threads=n_threads, dtype=dtype)
    errors = {}
    for name in ["output", *names]:
        want = outputs["" if name == "output" else name]
        assert got[name].size == want.size, (name, got[name].shape, want.shape)
        errors[name] = relative(got[name].reshape(want.shape), want)
    worst = max(errors, key=lambda name: errors[name])
    return errors[worst], len(errors), worst


def onnx_values(path: Path, x: np.ndarray, names: list[str]) -> list[np.ndarray]:
    """What onnxruntime gives for the output and for results inside, without rewriting the graph."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 2, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([model.graph.output[0].name, *names], {session.get_inputs()[0].name: x})


def compare_onnx(path: Path, x: np.ndarray, every: int = 1) -> tuple[float, int, str]:
    """Largest relative error of an ONNX file's network against onnxruntime, as :func:`compare`."""
    import semanticlens as sl

    ours = sl.load(path, fold=False)
    names = sorted({node: alias for alias, node in sorted(ours.aliases.items()) if node != ours.output}.values())[
        ::every
    ]
    want = onnx_values(path, x, names)
    got = ours.run(x, ["output", *names], n_threads=2)
    errors = {
        name: relative(value.reshape(ref.shape), ref) for (name, value), ref in zip(got.items(), want, strict=True)
    }
    worst = max(errors, key=lambda name: errors[name])
    return errors[worst], len(errors), worst


def note(name: str, door: str, error: float, layers: int, section: str = "pictures") -> None:
    """Write one figure of the documentation's table, where the test run is asked to.

    Parameters
    ----------
    name : str
        The network: a row.
    door : str
        A key of `coverage_table.COLUMNS`.
    error : float
        Largest relative error.
    layers : int
        How many values (layers, parameters, ...) were compared.
    section : str
        A key of `coverage_table.SECTIONS`: the table the row stands in.
    """
    if os.environ.get("SEMANTICLENS_WRITE_COVERAGE") != "1":
        return
    rows = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    row = rows.setdefault(name, {})
    row[door] = {"error": float(f"{error:.1e}"), "layers": layers}
    if section != "pictures":
        row["section"] = section
    TABLE.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
