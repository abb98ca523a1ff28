"""The towers of CLIP with a vision transformer, from OpenCLIP's parameters by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError
from semanticlens.nn.language.architectures import _Graph, _layers, _width
from semanticlens.nn.network import Network

__all__ = ["State", "block", "finished", "image_tower", "need", "reshaped", "sized", "text_tower"]

State = Mapping[str, NDArray[Any]]


def block(g: _Graph, at: str, x: str, heads: int, activation: str, causal: bool, eps: float = 1e-5) -> str:
    """A pre-norm block: attention and a feed-forward part, each added to the stream."""
    (dim,) = sized(g.state, f"{at}.ln_1.weight", 1)

    def norm(name: str, x: str) -> str:
        return g.node(name, "layer_norm", x, {"weight": f"{name}.weight", "bias": f"{name}.bias"}, eps=eps)

    fused = g.dense(f"{at}.attn.in_proj", norm(f"{at}.ln_1", x), f"{at}.attn.in_proj_weight", f"{at}.attn.in_proj_bias")
    qkv = []
    for n, part in enumerate("qkv"):
        piece = g.node(f"{at}.attn.{part}", "slice", fused, axis=2, start=n * dim, stop=(n + 1) * dim)
        qkv.append(g.heads(f"{at}.attn.{part}", piece, heads, _width(dim, heads)))
    h = g.joined(f"{at}.attn", g.node(f"{at}.attn.attention", "attention", tuple(qkv), causal=causal), dim)
    h = g.dense(f"{at}.attn", h, f"{at}.attn.out_proj.weight", f"{at}.attn.out_proj.bias")
    x = g.node(f"{at}.middle", "add", (x, h))
    h = g.dense(f"{at}.mlp.c_fc", norm(f"{at}.ln_2", x), f"{at}.mlp.c_fc.weight", f"{at}.mlp.c_fc.bias")
    h = g.node(f"{at}.mlp.gelu", activation, h)
    return g.node(at, "add", (x, g.dense(f"{at}.mlp", h, f"{at}.mlp.c_proj.weight", f"{at}.mlp.c_proj.bias")))


def need(state: State, *keys: str) -> None:
    """Stop where a parameter is missing."""
    for key in keys:
        if key not in state:
            raise ModelFileError(
                f"parameter {key!r} is missing; CLIP and SigLIP are read in OpenCLIP's and in Hugging Face's names"
            )


def sized(state: State, key: str, rank: int) -> tuple[int, ...]:
    """The sizes of a parameter that must have this many axes."""
    need(state, key)
    shape = tuple(int(n) for n in np.shape(state[key]))
    if len(shape) != rank or 0 in shape:
        raise ModelFileError(f"parameter {key!r} has the shape {shape}; {rank} axes are expected")
    return shape


def reshaped(state: State, key: str, *shape: int) -> NDArray[Any]:
    """A parameter in another shape."""
    need(state, key)
    if np.size(state[key]) != math.prod(shape):
        raise ModelFileError(f"parameter {key!r} has the shape {np.shape(state[key])}, which is not {shape}")
    return np.asarray(state[key]).reshape(shape)


def image_tower(
    state: State, *, activation: str = "gelu", heads: int | None = None, name: str = "image tower"
) -> Network:
    """Pictures (3, H, W) -> vectors; heads of 64 features where not given.

    Nodes are called as OpenCLIP's modules: ``transformer.resblocks.3`` is the stream behind block 3, tokens first.
    """
    g = _Graph({key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")})
    need(g.state, "conv1.weight", "class_embedding", "positional_embedding", "proj", "ln_pre.weight", "ln_post.weight")
    dim, _, patch, _ = sized(g.state, "conv1.weight", 4)
    places = sized(g.state, "positional_embedding", 2)[0] - 1
    side = math.isqrt(places)
    if side * side != places:
        raise ModelFileError(f"the positional embedding has {places} places beside the class token, which is no square")
    x = g.node("conv1", "conv2d", "input", {"weight": "conv1.weight"}, stride=(patch, patch))
    x = g.node("patches", "permute", g.node("conv1.flat", "reshape", x, shape=(dim, places)), axes=(2, 1))
    cls = g.own("class_embedding", reshaped(g.state, "class_embedding", 1, dim))
    x = g.node("tokens", "concat", (g.node("class_token", "constant", x, {"value": cls}), x), axis=1)
    x = g.node("embedding", "scale_shift", x, {"shift": "positional_embedding"})
    x = g.node("ln_pre", "layer_norm", x, {"weight": "ln_pre.weight", "bias": "ln_pre.bias"})
    for i in range(_layers(g.state, "transformer.resblocks.")):
        x = block(g, f"transformer.resblocks.{i}", x, heads or max(dim // 64, 1), activation, causal=False)
    x = g.node("class", "select", x, axis=1, index=0)
    x = g.node("ln_post", "layer_norm", x, {"weight": "ln_post.weight", "bias": "ln_post.bias"})
    x = g.dense("proj", x, g.own("proj", np.asarray(g.state["proj"]).T))
    return finished(g, x, name, (3, side * patch, side * patch))


def text_tower(
    state: State, *, activation: str = "gelu", heads: int | None = None, name: str = "text tower"
) -> Network:
    """Token ids (context,) -> vectors, taken at the end mark, which has the largest id."""
    g = _Graph({key: value for key, value in state.items() if not key.startswith(("visual.", "logit_"))})
    need(g.state, "token_embedding.weight", "positional_embedding", "ln_final.weight", "text_projection")
    context, dim = sized(g.state, "positional_embedding", 2)
    x = g.node("token_embedding", "embedding", "input", {"weight": "token_embedding.weight"})
    x = g.node("embedding", "positions", x, {"weight": "positional_embedding"})
    for i in range(_layers(g.state, "transformer.resblocks.")):
        x = block(g, f"transformer.resblocks.{i}", x, heads or max(dim // 64, 1), activation, causal=True)
    x = g.node("ln_final", "layer_norm", x, {"weight": "ln_final.weight", "bias": "ln_final.bias"})
    x = g.node("end", "pick_largest", (x, "input"))
    x = g.dense("text_projection", x, g.own("text_projection", np.asarray(g.state["text_projection"]).T))
    return finished(g, x, name, (context,))


def finished(g: _Graph, output: str, name: str, shape: tuple[int, ...]) -> Network:
    """The network, if every parameter has found its place."""
    extra = sorted(set(g.state) - set(g.params) - {"attn_mask"})
    if extra:
        raise ModelFileError(f"parameters are left over that the {name} does not have: {', '.join(extra[:6])}")
    return Network(g.nodes, g.params, input_shape=shape, output=output, name=name)
