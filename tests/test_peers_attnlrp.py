"""AttnLRP and CP-LRP on a vision transformer against their gradient form, written out in torch.

In the gradient form relevance is the value times a modified gradient: activations keep ``f(x) / x`` as a constant,
normalisations their scale, and a product of two values passes half of its gradient to each (AttnLRP), or all to the
values (CP-LRP).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semanticlens.attribution import Composite, attribute, rules

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


# ---------------------------------------------------------------- lxt itself


@contextlib.contextmanager
def patched(pytest_patch: pytest.MonkeyPatch, patch_map: dict[Any, Any], module: Any, *more: tuple[Any, str]) -> Iterator[None]:
    """lxt's patches, which it puts on classes and modules for good, taken off again at the end."""
    from lxt.efficient import monkey_patch

    with pytest_patch.context() as keep, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = ("forward", "original_forward", "eager_attention_forward", "ALL_ATTENTION_FUNCTIONS")
        for target, name in [*((target, name) for target in patch_map for name in names), *more]:
            if name in vars(target):
                value = vars(target)[name]  # put back at the end; its table of attentions it changes in place
                keep.setattr(target, name, dict(value.items()) if name == "ALL_ATTENTION_FUNCTIONS" else value)
        monkey_patch(module, patch_map)
        yield


def lxt_of_a_transformer(method: str) -> dict[Any, Any]:
    """Its map for torchvision's transformer. AttnLRP there is not in it: queries and keys get a quarter, values half."""
    from functools import partial

    from lxt.efficient.models.vit_torch import cp_LRP
    from lxt.efficient.patches import patch_method
    from lxt.efficient.rules import divide_gradient
    from torch import nn

    def attend(self: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        parts = (divide_gradient(query, 4), divide_gradient(key, 4), divide_gradient(value, 2))
        return self.original_forward(*parts, *args, **kwargs)

    changed = {nn.MultiheadAttention: partial(patch_method, attend, keep_original=True)} if method == "attn_lrp" else {}
    return {**cp_LRP, **changed}


def by_lxt(module: Any, x: Any, hot: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    import torch
    from torch import nn
    from torchvision.models import vision_transformer
    from zennit import rules as theirs
    from zennit.composites import LayerMapComposite
    from zennit.core import BasicHook

    hooks = ((BasicHook, "forward"), (BasicHook, "backward"))
    with patched(monkeypatch, lxt_of_a_transformer(method), vision_transformer, *hooks), contextlib.ExitStack() as stack:
        if method == "cp_lrp gamma":
            from lxt.efficient import monkey_patch_zennit

            monkey_patch_zennit()
            composite = LayerMapComposite([(nn.Conv2d, theirs.Gamma(0.25)), (nn.Linear, theirs.Gamma(0.05))])
            composite.register(module)
            stack.callback(composite.remove)
        given = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(module(given), given, hot)
        return (given * grad).detach().numpy()


def ours(method: str) -> Composite:
    """The same rules. In torch attention applies its weights itself, so that no rule of zennit meets these two layers."""
    if method != "cp_lrp gamma":
        return getattr(Composite, method)()
    return Composite.cp_lrp(gamma=0.05, conv_gamma=0.25).with_rule("*self_attention.linear*", rule=rules.Epsilon(1e-9))


METHODS = ("attn_lrp", "cp_lrp", "cp_lrp gamma")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", ["small", pytest.param("vit_b_16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
def test_lxt_on_a_vision_transformer(method: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    pytest.importorskip("lxt.efficient", exc_type=ImportError)
    from semanticlens.nn import export

    torch.manual_seed(0)
    module = small() if size == "small" else torchvision.models.vit_b_16(weights=None).eval()
    if size != "small":
        torch.nn.init.normal_(module.heads.head.weight, std=0.05)
    x = torch.randn(2, 3, *(24, 24) if size == "small" else (224, 224))
    net = export.from_torch(module, x)
    hot = torch.zeros(2, net.output_shape[-1])
    hot[[0, 1], [0, 3]] = 1
    got = attribute(net, x.numpy(), [0, 3], composite=ours(method))
    want = by_lxt(module.double(), x.double(), hot.double(), method, monkeypatch)
    assert np.linalg.norm(got.input - want) <= 1e-4 * np.linalg.norm(want)
    if size == "small":
        wide = attribute(net, x.numpy().astype(np.float64), [0, 3], composite=ours(method), dtype="float64")
        assert np.linalg.norm(wide.input - want) <= 1e-6 * np.linalg.norm(want)


TEXTS = {
    "llama": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "num_hidden_layers": 2},
    ),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "activation_function": "gelu"}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("name", TEXTS)
def test_lxt_on_language_models(name: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("lxt.efficient", exc_type=ImportError)
    if transformers.__version__ != "4.52.4":
        pytest.skip("lxt.efficient patches transformers 4.52.4")
    import importlib

    import semanticlens as sl

    config, model, sizes = TEXTS[name]
    torch.manual_seed(0)
    made = getattr(transformers, config)(vocab_size=40, **sizes, attn_implementation="eager")
    module = getattr(transformers, model)(made).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn_like(p) * 0.3 if p.ndim > 1 else torch.randn_like(p) * 0.1 + 0.7)
    module.save_pretrained(tmp_path)
    net = sl.load(tmp_path).net
    ids = torch.randint(0, 40, (1, 7))

    def last(out: np.ndarray) -> np.ndarray:
        start = np.zeros_like(out)
        start[0, -1, 5] = out[0, -1, 5]  # a gradient of 1 is relevance of the value
        return start

    embedding = next(node.name for node in net.nodes if node.op == "embedding")
    options = {"composite": method, "record": [embedding]}
    got, wide = (attribute(net, ids.numpy(), last, **options, dtype=dtype)[embedding] for dtype in ("float32", "float64"))
    modeling = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    maps = importlib.import_module(f"lxt.efficient.models.{name}")
    with patched(monkeypatch, maps.attnLRP if method == "attn_lrp" else maps.cp_LRP, modeling):
        module = module.double()
        embedded = module.get_input_embeddings()(ids).detach().requires_grad_()
        module(inputs_embeds=embedded).logits[0, -1, 5].backward()
        want = (embedded * embedded.grad).detach().numpy()
    assert np.linalg.norm(wide - want) <= 1e-6 * np.linalg.norm(want)
    assert np.linalg.norm(got - want) <= 1e-4 * np.linalg.norm(want)


# ---------------------------------------------------------------- timm, CLIP, BERT-like: the gradient form put under torch's functions


@contextlib.contextmanager
def modified(pytest_patch: pytest.MonkeyPatch, through: str) -> Iterator[None]:
    """The gradients of AttnLRP ("all") or CP-LRP ("values") in whatever calls torch's normalisation, activations and attention."""
    import torch
    from torch.nn import functional

    half = (lambda t: t / 2 + (t / 2).detach()) if through == "all" else (lambda t: t)
    plain_gelu, plain_tanh = functional.gelu, torch.tanh

    def bent(x: Any, y: Any) -> Any:
        return x * torch.where(x == 0, torch.zeros_like(x), y / torch.where(x == 0, torch.ones_like(x), x)).detach()

    def layer_norm(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
        centred = x - x.mean(-1, keepdim=True)
        y = centred / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + eps).detach()
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    def attend(
        q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None, **_: Any
    ) -> Any:
        if through == "values":
            q, k = q.detach(), k.detach()
        scores = half(q @ k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return half(torch.softmax(scores, -1) @ v)

    with pytest_patch.context() as keep:
        keep.setattr(functional, "layer_norm", layer_norm)
        keep.setattr(functional, "gelu", lambda x, approximate="none": bent(x, plain_gelu(x, approximate=approximate)))
        keep.setattr(functional, "scaled_dot_product_attention", attend)
        keep.setattr(torch.nn.Tanh, "forward", lambda self, x: bent(x, plain_tanh(x)))
        yield


def drawn(module: Any) -> Any:
    """Every parameter of a module matters."""
    import torch

    with torch.no_grad():
        for name, p in module.named_parameters():
            scale = "norm" in name.lower() and name.endswith("weight")
            p.copy_(torch.randn_like(p) * (0.3 if p.ndim > 1 else 0.1) + float(scale))
    return module.eval()


def agree(net: Any, x: np.ndarray, start: Any, method: str, want: np.ndarray, record: str | None = None) -> None:
    for dtype, limit in (("float64", 1e-6), ("float32", 1e-4)):
        given = x.astype(dtype) if x.dtype.kind == "f" else x
        found = attribute(net, given, start, composite=method, dtype=dtype, record=[] if record is None else [record])
        got = found.input if record is None else found[record]
        assert np.linalg.norm(got - want) <= limit * np.linalg.norm(want), (method, dtype)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_small_patch16_224"])
def test_timm(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from semanticlens.nn import export

    torch.manual_seed(0)
    module = drawn(timm.create_model(name, img_size=32, patch_size=8, depth=2, num_classes=7))
    x = torch.randn(2, 3, 32, 32)
    net = export.from_torch(module, x)
    with modified(monkeypatch, "all" if method == "attn_lrp" else "values"):
        given = x.double().requires_grad_()
        module.double()(given)[[0, 1], [3, 5]].sum().backward()
    agree(net, x.numpy(), [3, 5], method, (given * given.grad).detach().numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_clip_towers(tower: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is the cosine with a vector of the other tower; lengths count as constants."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    import json

    import semanticlens as sl

    torch.manual_seed(0)
    shape = {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 80, "hidden_act": "gelu"}
    text = {**shape, "vocab_size": 200, "max_position_embeddings": 16, "eos_token_id": 199, "bos_token_id": 198, "pad_token_id": 1}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**shape, "image_size": 48, "patch_size": 12}, projection_dim=24, attn_implementation="sdpa"
    )
    with modified(monkeypatch, "all" if method == "attn_lrp" else "values"):
        model = drawn(transformers.CLIPModel(config))
        model.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
        clip = sl.encoders.CLIP(tmp_path)
        direction = torch.randn(24).double()
        model = model.double()
        if tower == "image":
            x = torch.randn(2, 3, 48, 48)
            given = x.double().requires_grad_()
            e = model.get_image_features(pixel_values=given)
        else:
            x = torch.randint(0, 198, (2, 16))
            x[:, 9] = 199
            embedding = model.text_model.embeddings.token_embedding
            given = embedding(x).detach().requires_grad_()
            monkeypatch.setattr(embedding, "forward", lambda ids: given)
            torch.set_default_dtype(torch.float64)  # its mask is filled with the least double
            try:
                e = model.get_text_features(input_ids=x)
            finally:
                torch.set_default_dtype(torch.float32)
        cosine = (e * direction).sum(1) / (e.norm(dim=1) * direction.norm()).detach()
        cosine.sum().backward()
    want, t = (given * given.grad).detach().numpy(), direction.numpy() / direction.norm().item()

    def start(out: np.ndarray) -> np.ndarray:
        return (out * t / np.linalg.norm(out, axis=1, keepdims=True)).astype(out.dtype)

    net = clip.image_tower if tower == "image" else clip.text_tower
    words = None if tower == "image" else next(node.name for node in net.nodes if node.op == "embedding")
    agree(net, x.numpy(), start, method, want, words)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["attn_lrp", "cp_lrp"])
def test_bert(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    import semanticlens as sl

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48, "max_position_embeddings": 16}
    with modified(monkeypatch, "all" if method == "attn_lrp" else "values"):
        config = transformers.BertConfig(vocab_size=40, **shape, attn_implementation="sdpa")
        model = drawn(transformers.BertModel(config, add_pooling_layer=False))
        model.save_pretrained(tmp_path)
        net = sl.load(tmp_path)
        net = getattr(net, "net", net)
        ids = torch.randint(1, 40, (1, 7))
        embedding = model.double().embeddings.word_embeddings
        given = embedding(ids).detach().requires_grad_()
        monkeypatch.setattr(embedding, "forward", lambda _: given)
        model(input_ids=ids).last_hidden_state[0, 2, 5].backward()

    def start(out: np.ndarray) -> np.ndarray:
        first = np.zeros_like(out)
        first[0, 2, 5] = out[0, 2, 5]
        return first

    words = next(node.name for node in net.nodes if node.op == "embedding")
    agree(net, ids.numpy(), start, method, (given * given.grad).detach().numpy(), words)
