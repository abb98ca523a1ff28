"""Gradients of whole networks against torch's automatic differentiation.

A ReLU or a maximum whose inputs lie within a rounding of its corner may fall to different sides in two correct float32 runs, and then the gradients
of that sample differ by far more than a rounding.  So every sample is judged by itself: at least half of them must agree to 1e-4 of the largest
value, and none may be further off than such a flip explains.  In float64 no flip occurs, and everything agrees to 1e-9.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from coverage_cases import NAMES, module

LIMIT, FLIPPED = 1e-4, 0.25


def prepared(name: str, size: int | None = None, batch: int = 2):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    from semanticlens.nn import export

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, x = module(name)
        for part in net.modules():                                     # heads that begin as zeros have no gradient
            if isinstance(part, torch.nn.Linear) and not part.weight.any():
                torch.nn.init.normal_(part.weight, 0, 0.05)
        x = torch.randn(batch, 3, *x.shape[2:]) if size is None else torch.randn(batch, 3, size, size)
        return net, x, export.from_torch(net, x[:1], name=name)


def of_torch(net, x):
    """Gradient of class 3 of the first sample, 7 of the second, ... by the input and, summed, by the parameters."""
    import torch

    x = x.clone().requires_grad_(True)
    y = net(x)
    classes = [(3 + 4 * i) % y.shape[1] for i in range(len(x))]
    net.zero_grad()
    y[torch.arange(len(x)), torch.tensor(classes)].sum().backward()
    return classes, x.grad.numpy(), {key: p.grad.numpy() for key, p in net.named_parameters() if p.grad is not None}


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_input_gradient_equals_torch(name: str) -> None:
    net, x, ours = prepared(name, batch=4)
    classes, expected, _ = of_torch(net, x)
    got = ours.gradient(x.numpy(), classes)["input"]
    errors = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(got, expected, strict=True)]
    assert sorted(errors)[1] <= LIMIT, errors
    assert max(errors) <= FLIPPED, errors


@pytest.mark.peers
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_float64_equals_torch(name: str) -> None:
    net, x, ours = prepared(name, size=64)
    classes, expected, params = of_torch(net.double(), x.double())
    got = ours.gradient(x.double().numpy(), classes, params=True, dtype="float64")
    assert np.abs(got["input"] - expected).max() <= 1e-9 * np.abs(expected).max()
    shared = {key for key in got.params if key in params and params[key].shape == got.params[key].shape}
    assert len(shared) == len(params)
    for key in shared:
        assert np.abs(got.params[key] - params[key]).max() <= 1e-9 * max(np.abs(params[key]).max(), 1e-12), key
    assert np.abs(got.value - net(x.double()).detach().numpy()).max() <= 1e-10 * np.abs(got.value).max()


@pytest.mark.peers
@pytest.mark.parametrize("name", ["mobilenet_v2", "timm/deit_small_patch16_224"])
def test_parameter_gradients_equal_torch(name: str) -> None:
    net, x, ours = prepared(name)
    classes, _, params = of_torch(net, x)
    got = ours.gradient(x.numpy(), classes, wrt=(), params=True).params
    shared = {key for key in got if key in params and params[key].shape == got[key].shape}
    assert len(shared) >= 0.95 * len(params)
    for key in shared:
        assert np.abs(got[key] - params[key]).max() <= LIMIT * max(np.abs(params[key]).max(), 1e-6), key
