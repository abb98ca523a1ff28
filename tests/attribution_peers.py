"""Networks for the comparison with zennit: batch normalisation folded by hand, sums and pools as modules, so that a rule can meet them.

zennit sees modules only: an addition or a pooling that a forward function computes gets the plain gradient there, and its merging of batch
normalisation is inexact (releases up to 0.5.1 leave eps in the emptied layer) or goes by the order of registration.  Both are taken
out of the comparison here, and are compared on their own in test_peers_lrp.
"""

from __future__ import annotations

import json
import os
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from coverage_cases import shake

from semanticlens.attribution import Composite
from semanticlens.attribution.composites import preset
from semanticlens.attribution.rules import Pass

TABLE = Path(__file__).parents[1] / "docs" / "attribution_agreement.json"
NETWORKS = ("vgg16", "vgg16_bn", "resnet18", "resnet50", "mobilenet_v2", "squeezenet1_1", "densenet121")
LRP = (
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "excitation_backprop",
)
GRADIENTS = ("gradient", "guided_backprop", "deconvnet", "beta_smooth")
LOW, HIGH = -4.0, 4.5
TARGETS = [3, 5]
# For float32 against float64 a maximum or a ReLU within a rounding of its corner would count as an error of both: inputs where none is.
SEEDS = {"vgg16": 1}


def torchvision_module(name: str, size: int = 64) -> tuple[Any, Any]:
    """The network as torchvision has it, and an input within the bounds of the box rule."""
    import torch
    import torchvision

    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None).eval()
    shake(net)
    torch.manual_seed(SEEDS.get(name, 0))
    return net.eval(), torch.randn(2, 3, size, size).clamp(LOW + 0.25, HIGH - 0.25)


def prepared(name: str, size: int = 64) -> tuple[Any, Any, Any]:
    """The network with each batch normalisation that follows a convolution folded into it, for zennit with every sum and pool a module.

    Returns
    -------
    tuple
        The module for zennit, an input, our network.
    """
    import torch
    from torch import nn
    from zennit.layer import Sum

    net, x = torchvision_module(name, size)
    before = net(x).detach()

    class Added(nn.Module):
        def __init__(self, branch: Any) -> None:
            super().__init__()
            self.branch, self.sum = branch, Sum()

        def forward(self, value: Any) -> Any:
            return self.sum(torch.stack([value, self.branch(value)], dim=-1))

    fold(net)
    ours = exported(net, x, name)
    if name.startswith("mobilenet"):
        blocks = [Added(part.conv) if getattr(part, "use_res_connect", False) else part for part in net.features]
        net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.classifier)
    if name.startswith("densenet"):
        net = nn.Sequential(net.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.classifier)
    net.eval()
    for part in net.modules():  # zennit's BetaSmooth reads an input that is overwritten
        if hasattr(part, "inplace"):
            part.inplace = False
    assert (net(x) - before).abs().max() <= 1e-4 * before.abs().max()
    return net, x, ours


def fold(net: Any) -> None:
    """Put each batch normalisation whose input is a convolution's result into that convolution, in double."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for part in net.modules():
        names = list(part._modules)
        for first, second in pairwise(names):
            conv, norm = part._modules[first], part._modules[second]
            if type(part).__name__ == "_DenseLayer" and (first, second) != ("conv1", "norm2"):
                continue
            if type(part).__name__ in ("BasicBlock", "Bottleneck") and second != f"bn{first[-1]}":
                continue
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part._modules[first] = fuse_conv_bn_eval(conv.double(), norm.double()).float()
                part._modules[second] = nn.Identity()


def canonizers(name: str) -> list[Any]:
    """What makes sums of torchvision's residual networks modules; batch normalisation is folded already."""
    from zennit import torchvision as of_torchvision

    if not name.startswith("resnet"):
        return []
    return [of_torchvision.ResNetBasicBlockCanonizer(), of_torchvision.ResNetBottleneckCanonizer()]


def composites(key: str, name: str, dtype: Any) -> tuple[Any, Composite]:
    """zennit's composite and ours."""
    import torch
    from zennit import composites as theirs
    from zennit import rules

    canon = canonizers(name)
    unfolded: Any = {"type": "batch_norm", "rule": Pass()}  # where it cannot be folded zennit passes it
    if key == "epsilon_gamma_box":
        low, high = (torch.tensor(value, dtype=dtype) for value in (LOW, HIGH))
        box = Composite.epsilon_gamma_box(LOW, HIGH)
        box = box.with_rule(**unfolded) if name.startswith("densenet") else box
        return theirs.EpsilonGammaBox(low=low, high=high, canonizers=canon), box
    ours = preset(key)
    if key in GRADIENTS:
        made = {
            "guided_backprop": rules.ReLUGuidedBackprop(),
            "deconvnet": rules.ReLUDeconvNet(),
            "beta_smooth": rules.ReLUBetaSmooth(),
        }
        if key == "gradient":
            return None, ours
        return theirs.LayerMapComposite([((torch.nn.ReLU, torch.nn.ReLU6), made[key])], canonizers=canon), ours
    kinds = {
        "epsilon_plus": theirs.EpsilonPlus,
        "epsilon_plus_flat": theirs.EpsilonPlusFlat,
        "epsilon_alpha2_beta1": theirs.EpsilonAlpha2Beta1,
        "epsilon_alpha2_beta1_flat": theirs.EpsilonAlpha2Beta1Flat,
        "excitation_backprop": theirs.ExcitationBackprop,
    }
    if name.startswith("densenet") and key != "excitation_backprop":
        ours = ours.with_rule(**unfolded)
    return kinds[key](canonizers=canon), ours


def of_zennit(net: Any, x: Any, composite: Any, start: str) -> tuple[np.ndarray, np.ndarray]:
    """Output and relevance of the input, in the precision of ``x``."""
    import torch
    from zennit.attribution import Gradient

    with Gradient(model=net, composite=composite) as attributor:

        def first(y: Any) -> Any:
            rows = torch.eye(y.shape[1], dtype=y.dtype)[TARGETS]
            return rows * (y.detach() if start == "value" else 1)

        y, r = attributor(x.clone().requires_grad_(), first)
    return y.detach().numpy(), r.detach().numpy()


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """Relative L2 over the batch."""
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want.astype(np.float64)))


def note(network: str, composite: str, **figures: float) -> None:
    """Write figures of the documentation's table, where the test run is asked to."""
    if os.environ.get("SEMANTICLENS_WRITE_COVERAGE") != "1":
        return
    rows = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    rows.setdefault(network, {})[composite] = {key: float(f"{value:.1e}") for key, value in figures.items()}
    TABLE.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def exported(net: Any, x: Any, name: str) -> Any:
    """Ours, in float32."""
    from semanticlens.nn import export
    from semanticlens.nn.fold import fold_batch_norm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fold_batch_norm(export.from_torch(net, x[:1], name=name))
