"""AttnLRP and CP-LRP on a vision transformer against their gradient form, written out in torch.

In the gradient form relevance is the value times a modified gradient: activations keep ``f(x) / x`` as a constant,
normalisations their scale, and a product of two values passes half of its gradient to each (AttnLRP), or all to the
values (CP-LRP).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from semanticlens.attribution import Composite, attribute

pytestmark = pytest.mark.peers


def small() -> Any:
    import torch
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(image_size=24, patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=48, num_classes=7).eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(torch.randn_like(p) * (0.3 if p.ndim > 1 else 0.1) + (1.0 if "ln" in name and name.endswith("weight") else 0.0))
    return net


def twin(net: Any, x: Any, through: str) -> Any:
    """The same forward run, with the gradients of the two methods."""
    import torch

    half = (lambda t: t / 2 + (t / 2).detach()) if through == "all" else (lambda t: t)

    def norm(layer: Any, t: Any) -> Any:
        centred = t - t.mean(-1, keepdim=True)
        scale = torch.sqrt(t.var(-1, unbiased=False, keepdim=True) + layer.eps).detach()
        return centred / scale * layer.weight + layer.bias

    def attend(layer: Any, t: Any) -> Any:
        b, n, d = t.shape
        h = layer.num_heads
        q, k, v = ((t @ w.T + c).reshape(b, n, h, d // h).transpose(1, 2) for w, c in zip(
            layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True))
        if through == "values":
            q, k = q.detach(), k.detach()
        p = torch.softmax(half(q @ k.transpose(-1, -2)) / (d // h) ** 0.5, -1)
        o = half(p @ v).transpose(1, 2).reshape(b, n, d)
        return layer.out_proj(o)

    t = net._process_input(x)
    t = torch.cat([net.class_token.expand(len(x), -1, -1), t], 1) + net.encoder.pos_embedding
    for block in net.encoder.layers:
        t = t + attend(block.self_attention, norm(block.ln_1, t))
        z = block.mlp[0](norm(block.ln_2, t))
        t = t + block.mlp[3](z * (torch.nn.functional.gelu(z) / z).detach())
    return net.heads(norm(net.encoder.ln, t)[:, 0])


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-6), ("float32", 1e-4)])
@pytest.mark.parametrize("name", ["attn_lrp", "cp_lrp"])
def test_vision_transformer(name: str, dtype: str, limit: float) -> None:
    torch = pytest.importorskip("torch")  # not when tests are collected: others look that torch is not imported
    pytest.importorskip("torchvision")
    from semanticlens.nn import export

    module = small()
    x = torch.randn(3, 3, 24, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = export.from_torch(module, x)
    got = attribute(net, x.numpy(), [0, 3, 5], composite=getattr(Composite, name)(), dtype=dtype)
    module, given = module.double(), x.double().requires_grad_()
    out = twin(module, given, "all" if name == "attn_lrp" else "values")
    assert np.abs(got.output - out.detach().numpy()).max() < 1e-5 * np.abs(out.detach().numpy()).max()
    out[[0, 1, 2], [0, 3, 5]].sum().backward()
    want = (given * given.grad).detach().numpy()
    assert np.linalg.norm(got.input - want) <= limit * np.linalg.norm(want)
