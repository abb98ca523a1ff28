"""The towers of CLIP and SigLIP, from Hugging Face's parameters by name and ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens.nn.language.architectures import _Graph, _layers, _width
from semanticlens.nn.language.clip import State, finished, need, reshaped, sized
from semanticlens.nn.language.siglip import attention_pool, patches
from semanticlens.nn.network import Network

__all__ = ["KINDS", "hf_image_tower", "hf_text_tower"]

KINDS = ("clip", "siglip")
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
# what the maker's code takes where config.json says nothing: heads of the image tower, of the text tower, activation, eps
_DEFAULTS: dict[str, tuple[int, int, str, float]] = {"clip": (12, 8, "quick_gelu", 1e-5), "siglip": (12, 12, "gelu_pytorch_tanh", 1e-6)}


class _Tower:
    """One tower's settings, and the layers they describe."""

    def __init__(self, state: State, config: Mapping[str, Any], part: str, keep: tuple[str, ...]) -> None:
        kind = config.get("model_type")
        if kind not in KINDS:
            raise UnsupportedOperationError(f"model_type={str(kind)[:40]!r} is not known here; known are {', '.join(KINDS)}")
        self.kind = str(kind)
        self.own = config.get(f"{part}_config") or {}
        if not isinstance(self.own, dict):
            raise ModelFileError(f"{part}_config must be an object, not {str(self.own)[:40]}")
        heads, text_heads, activation, eps = _DEFAULTS[self.kind]
        self.heads = self._whole("num_attention_heads", text_heads if part == "text" else heads)
        given = self.own.get("hidden_act", activation)
        if not isinstance(given, str) or given not in _ACTIVATIONS:
            raise UnsupportedOperationError(f"{part}_config.hidden_act={str(given)[:40]!r} is not known here")
        self.activation = _ACTIVATIONS[given]
        found = self.own.get("layer_norm_eps", eps)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 < found < 1:
            raise ModelFileError(f"{part}_config.layer_norm_eps must be between 0 and 1, not {str(found)[:40]}")
        self.eps = float(found)
        self.g = _Graph({key: value for key, value in state.items() if key.startswith(keep) and not key.endswith("position_ids")})

    def _whole(self, name: str, default: int) -> int:
        value = self.own.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 24:
            raise ModelFileError(f"{name} must be a positive whole number, not {str(value)[:40]}")
        return int(value)

    def norm(self, at: str, x: str) -> str:
        return self.g.node(at, "layer_norm", x, {"weight": f"{at}.weight", "bias": f"{at}.bias"}, eps=self.eps)

    def layer(self, at: str, x: str, dim: int, causal: bool) -> str:
        """A pre-norm block."""
        g, own = self.g, f"{at}.self_attn"
        need(g.state, f"{at}.layer_norm1.weight", f"{own}.q_proj.weight", f"{at}.mlp.fc1.weight")
        h = self.norm(f"{at}.layer_norm1", x)
        parts = [g.heads(f"{own}.{p}", g.linear(f"{own}.{p}_proj", h), self.heads, _width(dim, self.heads)) for p in "qkv"]
        h = g.joined(own, g.node(f"{own}.attention", "attention", tuple(parts), causal=causal), dim)
        x = g.node(f"{at}.middle", "add", (x, g.linear(f"{own}.out_proj", h)))
        h = g.node(f"{at}.mlp.activation_fn", self.activation, g.linear(f"{at}.mlp.fc1", self.norm(f"{at}.layer_norm2", x)))
        return g.node(at, "add", (x, g.linear(f"{at}.mlp.fc2", h)))

    def layers(self, prefix: str, x: str, dim: int, causal: bool) -> str:
        for i in range(_layers(self.g.state, prefix)):
            x = self.layer(f"{prefix}{i}", x, dim, causal)
        return x


def hf_image_tower(state: State, config: Mapping[str, Any], name: str = "image tower") -> Network:
    """Pictures (3, H, W) -> vectors, as ``get_image_features`` gives them.

    Nodes are called as Hugging Face's modules: ``vision_model.encoder.layers.3`` is the stream behind layer 3.
    """
    t = _Tower(state, config, "vision", ("vision_model.", "visual_projection."))
    g, e, at = t.g, "vision_model.embeddings", "vision_model"
    if t.kind == "siglip":
        x, dim, shape = patches(g, f"{e}.patch_embedding", f"{e}.position_embedding.weight")
        x = t.norm(f"{at}.post_layernorm", t.layers(f"{at}.encoder.layers.", x, dim, causal=False))
        return finished(g, _siglip_head(t, x, dim), name, shape)
    need(g.state, f"{e}.patch_embedding.weight", f"{e}.class_embedding", f"{e}.position_embedding.weight", "visual_projection.weight")
    dim, channels, patch, _ = sized(g.state, f"{e}.patch_embedding.weight", 4)
    places = sized(g.state, f"{e}.position_embedding.weight", 2)[0] - 1
    side = math.isqrt(places)
    if side * side != places:
        raise ModelFileError(f"the positional embedding has {places} places beside the class token, which is no square")
    x = g.node(f"{e}.patch_embedding", "conv2d", "input", {"weight": f"{e}.patch_embedding.weight"}, stride=(patch, patch))
    x = g.node("patches", "permute", g.node("patches.flat", "reshape", x, shape=(dim, places)), axes=(2, 1))
    cls = g.own(f"{e}.class_embedding", reshaped(g.state, f"{e}.class_embedding", 1, dim))
    x = g.node("tokens", "concat", (g.node("class_token", "constant", x, {"value": cls}), x), axis=1)
    x = t.norm(f"{at}.pre_layrnorm", g.node(e, "scale_shift", x, {"shift": f"{e}.position_embedding.weight"}))
    x = t.layers(f"{at}.encoder.layers.", x, dim, causal=False)
    x = t.norm(f"{at}.post_layernorm", g.node("class", "select", x, axis=1, index=0))
    return finished(g, g.linear("visual_projection", x), name, (channels, side * patch, side * patch))


def _siglip_head(t: _Tower, x: str, dim: int) -> str:
    """The query's projections out of the fused ones of torch's attention module."""
    g, at = t.g, "vision_model.head"
    own = f"{at}.attention"
    rows = sized(g.state, f"{own}.in_proj_weight", 2)[0], sized(g.state, f"{own}.in_proj_bias", 1)[0]
    if rows != (3 * dim, 3 * dim):
        raise ModelFileError(f"parameter '{own}.in_proj_weight' or its bias has not {3 * dim} rows")
    fused = {role: np.asarray(g.state[f"{own}.in_proj_{role}"]) for role in ("weight", "bias")}
    g.state = {key: value for key, value in g.state.items() if not key.startswith(f"{own}.in_proj_")}
    for n, part in enumerate("qkv"):
        for role, values in fused.items():
            g.own(f"{own}.{part}_proj.{role}", values[n * dim : (n + 1) * dim])
    names = {"probe": f"{at}.probe", **{part: f"{own}.{part}_proj" for part in "qkv"}, "out": f"{own}.out_proj",
             "norm": f"{at}.layernorm", "fc1": f"{at}.mlp.fc1", "fc2": f"{at}.mlp.fc2"}  # fmt: skip
    return attention_pool(g, at, x, dim, t.heads, names, t.activation, t.eps)


def hf_text_tower(state: State, config: Mapping[str, Any], name: str = "text tower") -> Network:
    """Token ids (context,) -> vectors, as ``get_text_features`` gives them for ids padded to the context."""
    t = _Tower(state, config, "text", ("text_model.", "text_projection."))
    g, e = t.g, "text_model.embeddings"
    need(g.state, f"{e}.token_embedding.weight", f"{e}.position_embedding.weight", "text_model.final_layer_norm.weight")
    context, dim = sized(g.state, f"{e}.position_embedding.weight", 2)
    vocab = sized(g.state, f"{e}.token_embedding.weight", 2)[0]
    x = g.node(f"{e}.token_embedding", "embedding", "input", {"weight": f"{e}.token_embedding.weight"})
    x = g.node(e, "positions", x, {"weight": f"{e}.position_embedding.weight"})
    x = t.layers("text_model.encoder.layers.", x, dim, causal=t.kind == "clip")
    x = t.norm("text_model.final_layer_norm", x)
    if t.kind == "siglip":
        return finished(g, g.linear("text_model.head", g.node("last", "select", x, axis=1, index=context - 1)), name, (context,))
    end = t.own.get("eos_token_id", 49407)
    if end not in (2, vocab - 1):  # 2 stands in old files and means the largest id as well
        raise UnsupportedOperationError(f"text_config.eos_token_id={str(end)[:40]} that is not the last of {vocab} is not known here")
    need(g.state, "text_projection.weight")
    return finished(g, g.linear("text_projection", g.node("end", "pick_largest", (x, "input"))), name, (context,))
