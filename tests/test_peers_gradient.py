"""Gradients of whole networks against torch's automatic differentiation; see gradient_cases for what is compared, and why so."""

from __future__ import annotations

import numpy as np
import pytest
from coverage_cases import NAMES
from gradient_cases import compare, note, of_torch, prepared

EXACT, LIMIT = 1e-9, 1e-4
SMALL = ("resnet18", "mobilenet_v2", "squeezenet1_1")


def check(errors: dict[str, float | int]) -> None:
    assert errors["double"] <= EXACT, errors
    assert errors["values"] <= LIMIT, errors
    assert errors["linear"] <= LIMIT, errors
    assert errors["flips"] > 0 or errors["single"] <= LIMIT, errors


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_input_gradient_equals_torch(name: str) -> None:
    pytest.importorskip("torchvision")
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    errors = compare(name)
    note(name, errors)
    check(errors)


@pytest.mark.peers
@pytest.mark.parametrize("name", SMALL)
def test_small_pictures(name: str) -> None:
    pytest.importorskip("torchvision")
    check(compare(name, size=64))


@pytest.mark.peers
@pytest.mark.parametrize("name", SMALL)
def test_parameter_gradients_in_float64_equal_torch(name: str) -> None:
    pytest.importorskip("torchvision")
    net, x, ours = prepared(name, size=64, batch=2)
    classes, expected, params = of_torch(net.double(), x.double())
    got = ours.gradient(x.double().numpy(), classes, params=True, dtype="float64")
    assert np.abs(got["input"] - expected).max() <= EXACT * np.abs(expected).max()
    shared = {key for key in got.params if key in params and params[key].shape == got.params[key].shape}
    assert len(shared) == len(params)
    for key in shared:
        assert np.abs(got.params[key] - params[key]).max() <= EXACT * max(np.abs(params[key]).max(), 1e-12), key
    assert np.abs(got.value - net(x.double()).detach().numpy()).max() <= 1e-10 * np.abs(got.value).max()


@pytest.mark.peers
@pytest.mark.parametrize("name", ["mobilenet_v2", "timm/deit_small_patch16_224"])
def test_parameter_gradients_equal_torch(name: str) -> None:
    pytest.importorskip("torchvision")
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    net, x, ours = prepared(name, batch=2)
    classes, _, params = of_torch(net, x)
    got = ours.gradient(x.numpy(), classes, wrt=(), params=True).params
    shared = {key for key in got if key in params and params[key].shape == got[key].shape}
    assert len(shared) >= 0.95 * len(params)
    for key in shared:
        assert np.abs(got[key] - params[key]).max() <= LIMIT * max(np.abs(params[key]).max(), 1e-6), key
