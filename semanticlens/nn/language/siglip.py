"""SigLIP's towers, from OpenCLIP's parameters by name (whose image tower is timm's).  Zhai et al., ICCV 2023."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from semanticlens._errors import ModelFileError
from semanticlens.nn.language.architectures import _Graph, _layers, _width
from semanticlens.nn.language.clip import State, block, finished, need, reshaped, sized
from semanticlens.nn.network import Network

__all__ = ["attention_pool", "patches", "siglip_image_tower", "siglip_text_tower"]

EPS = 1e-6
_HEADS = {1152: 16, 1536: 16}  # widths whose heads are not of 64 features


def heads_of(dim: int) -> int:
    """Heads of a tower of this width."""
    return _HEADS.get(dim, max(dim // 64, 1))


def patches(g: _Graph, conv: str, places: str) -> tuple[str, int, tuple[int, int, int]]:
    """Patches with their places: the node, its width and the shape of the pictures."""
    need(g.state, places)
    dim, channels, patch, _ = sized(g.state, f"{conv}.weight", 4)
    where = reshaped(g.state, places, np.size(g.state[places]) // dim, dim)
    side = math.isqrt(len(where))
    if side * side != len(where):
        raise ModelFileError(f"the positional embedding has {len(where)} places, which is no square")
    weights = {"weight": f"{conv}.weight", **({"bias": f"{conv}.bias"} if f"{conv}.bias" in g.state else {})}
    x = g.node(conv, "conv2d", "input", weights, stride=(patch, patch))
    x = g.node("patches", "permute", g.node(f"{conv}.flat", "reshape", x, shape=(dim, len(where))), axes=(2, 1))
    return g.node("embedding", "scale_shift", x, {"shift": g.own(places, where)}), dim, (channels, side * patch, side * patch)


def attention_pool(g: _Graph, at: str, x: str, dim: int, heads: int, names: Mapping[str, str], activation: str, eps: float) -> str:
    """One learned query looks at all tokens; a feed-forward part is added to what it found."""
    need(g.state, names["probe"], *(f"{names[part]}.weight" for part in ("q", "k", "v", "out", "norm", "fc1", "fc2")))
    probe = g.own(names["probe"], reshaped(g.state, names["probe"], 1, dim))
    width = _width(dim, heads)
    sources = {"q": g.node(f"{at}.probe", "constant", x, {"value": probe}), "k": x, "v": x}
    parts = [g.heads(f"{at}.pool.{part}", g.linear(names[part], source), heads, width) for part, source in sources.items()]
    h = g.linear(names["out"], g.joined(f"{at}.pool", g.node(f"{at}.pool.attention", "attention", tuple(parts)), dim))
    norm = names["norm"]
    y = g.node(norm, "layer_norm", h, {"weight": f"{norm}.weight", "bias": f"{norm}.bias"}, eps=eps)
    y = g.node(f"{at}.act", activation, g.linear(names["fc1"], y))
    return g.node(at, "select", g.node(f"{at}.sum", "add", (h, g.linear(names["fc2"], y))), axis=1, index=0)


def _split(g: _Graph, at: str, names: tuple[str, ...], count: int) -> None:
    """A fused layer as its parts, each with a name of its own."""
    for role in ("weight", "bias"):
        if f"{at}.{role}" in g.state:
            whole = np.asarray(g.state[f"{at}.{role}"])
            if whole.ndim < 1 or len(whole) != len(names) * count:
                raise ModelFileError(f"parameter '{at}.{role}' has the shape {whole.shape} instead of {len(names) * count} rows")
            rest = {key: value for key, value in g.state.items() if key != f"{at}.{role}"}
            g.state = {**rest, **{f"{n}.{role}": whole[i * count : (i + 1) * count] for i, n in enumerate(names)}}


def siglip_image_tower(state: State, *, activation: str = "gelu", heads: int | None = None, name: str = "image tower") -> Network:
    """Pictures (3, H, W) -> vectors.  Nodes are called as OpenCLIP's modules: ``trunk.blocks.3`` is the stream behind block 3."""
    g = _Graph({key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")})
    x, dim, shape = patches(g, "trunk.patch_embed.proj", "trunk.pos_embed")
    heads = heads or heads_of(dim)

    def norm(at: str, x: str) -> str:
        return g.node(at, "layer_norm", x, {"weight": f"{at}.weight", "bias": f"{at}.bias"}, eps=EPS)

    for i in range(_layers(g.state, "trunk.blocks.")):
        at = f"trunk.blocks.{i}"
        fused = g.linear(f"{at}.attn.qkv", norm(f"{at}.norm1", x))
        parts = []
        for n, part in enumerate("qkv"):
            piece = g.node(f"{at}.attn.{part}", "slice", fused, axis=2, start=n * dim, stop=(n + 1) * dim)
            parts.append(g.heads(f"{at}.attn.{part}", piece, heads, _width(dim, heads)))
        h = g.joined(f"{at}.attn", g.node(f"{at}.attn.attention", "attention", tuple(parts)), dim)
        x = g.node(f"{at}.middle", "add", (x, g.linear(f"{at}.attn.proj", h)))
        h = g.node(f"{at}.mlp.act", activation, g.linear(f"{at}.mlp.fc1", norm(f"{at}.norm2", x)))
        x = g.node(at, "add", (x, g.linear(f"{at}.mlp.fc2", h)))
    x, pool = norm("trunk.norm", x), "trunk.attn_pool"
    _split(g, f"{pool}.kv", (f"{pool}.k", f"{pool}.v"), dim)
    names = {"probe": f"{pool}.latent", "q": f"{pool}.q", "k": f"{pool}.k", "v": f"{pool}.v", "out": f"{pool}.proj",
             "norm": f"{pool}.norm", "fc1": f"{pool}.mlp.fc1", "fc2": f"{pool}.mlp.fc2"}  # fmt: skip
    return finished(g, attention_pool(g, pool, x, dim, heads, names, activation, EPS), name, shape)


def siglip_text_tower(state: State, *, activation: str = "gelu", heads: int | None = None, name: str = "text tower") -> Network:
    """Token ids (context,) -> vectors, taken at the last token; all tokens look at all, padding too."""
    g = _Graph({key.removeprefix("text."): value for key, value in state.items() if key.startswith("text.")})
    need(g.state, "token_embedding.weight", "positional_embedding", "ln_final.weight", "text_projection.weight")
    context, dim = sized(g.state, "positional_embedding", 2)
    x = g.node("token_embedding", "embedding", "input", {"weight": "token_embedding.weight"})
    x = g.node("embedding", "positions", x, {"weight": "positional_embedding"})
    for i in range(_layers(g.state, "transformer.resblocks.")):
        x = block(g, f"transformer.resblocks.{i}", x, heads or heads_of(dim), activation, causal=False, eps=EPS)
    x = g.node("ln_final", "layer_norm", x, {"weight": "ln_final.weight", "bias": "ln_final.bias"}, eps=EPS)
    x = g.linear("text_projection", g.node("last", "select", x, axis=1, index=context - 1))
    return finished(g, x, name, (context,))
