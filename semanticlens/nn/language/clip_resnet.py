"""CLIP's residual image tower with attention pooling (RN50 and its kind), from OpenCLIP's parameters by name."""

from __future__ import annotations

import math

from semanticlens._errors import ModelFileError
from semanticlens.nn.language.architectures import _Graph, _layers, _width
from semanticlens.nn.language.clip import State, finished, need, sized
from semanticlens.nn.network import Network

__all__ = ["resnet_tower"]


def _conv(g: _Graph, name: str, x: str, norm: str, act: str | None) -> str:
    """A convolution that keeps the size, its normalisation and, where named, a rectifier."""
    pad = sized(g.state, f"{name}.weight", 4)[-1] // 2
    stride = (2, 2) if name == "conv1" else (1, 1)
    x = g.node(name, "conv2d", x, {"weight": f"{name}.weight"}, stride=stride, padding=(pad,) * 4)
    roles = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    x = g.node(norm, "batch_norm", x, {role: f"{norm}.{key}" for role, key in roles.items()}, eps=1e-5)
    return x if act is None else g.node(act, "relu", x)


def _pool(g: _Graph, name: str, x: str) -> str:
    return g.node(name, "avg_pool2d", x, kernel=(2, 2), stride=(2, 2))


def _bottleneck(g: _Graph, at: str, x: str, stride: int) -> str:
    """Three convolutions; a stride is a mean over windows before the last, and before the shortcut's convolution."""
    h = _conv(g, f"{at}.conv1", x, f"{at}.bn1", f"{at}.act1")
    h = _conv(g, f"{at}.conv2", h, f"{at}.bn2", f"{at}.act2")
    if stride > 1:
        h = _pool(g, f"{at}.avgpool", h)
    h = _conv(g, f"{at}.conv3", h, f"{at}.bn3", None)
    if f"{at}.downsample.0.weight" in g.state:
        x = _pool(g, f"{at}.downsample.-1", x) if stride > 1 else x
        x = _conv(g, f"{at}.downsample.0", x, f"{at}.downsample.1", None)
    return g.node(at, "relu", g.node(f"{at}.sum", "add", (h, x)))


def _attention_pool(g: _Graph, x: str, places: int, dim: int, heads: int) -> str:
    """The mean of all places asks all places and itself."""
    at = "attnpool"
    x = g.node(f"{at}.patches", "permute", g.node(f"{at}.flat", "reshape", x, shape=(dim, places)), axes=(2, 1))
    mean = g.node(f"{at}.mean", "mean", x, axes=(1,), keepdims=True)
    x = g.node(f"{at}.tokens", "concat", (mean, x), axis=1)
    x = g.node(f"{at}.placed", "scale_shift", x, {"shift": f"{at}.positional_embedding"})
    first, width = g.node(f"{at}.first", "slice", x, axis=1, start=0, stop=1), _width(dim, heads)
    parts = [
        g.heads(f"{at}.{part}", g.linear(f"{at}.{part}_proj", first if part == "q" else x), heads, width) for part in "qkv"
    ]
    h = g.joined(at, g.node(f"{at}.attention", "attention", tuple(parts)), dim)
    return g.node(at, "select", g.linear(f"{at}.c_proj", h), axis=1, index=0)


def resnet_tower(state: State, *, heads: int | None = None, name: str = "image tower") -> Network:
    """Pictures (3, H, W) -> vectors; heads of 64 features where not given.

    Nodes are called as OpenCLIP's modules: ``layer3.5`` is the stream behind that block, ``attnpool`` the output.
    """
    g = _Graph({key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")})
    need(g.state, "attnpool.positional_embedding", "attnpool.c_proj.weight", "conv1.weight", "conv3.weight")
    places, dim = sized(g.state, "attnpool.positional_embedding", 2)
    side = math.isqrt(places - 1)
    if side * side != places - 1:
        raise ModelFileError(f"the positional embedding has {places - 1} places beside the mean, which is no square")
    x = "input"
    for i in "123":
        x = _conv(g, f"conv{i}", x, f"bn{i}", f"act{i}")
    x = _pool(g, "avgpool", x)
    for stage in range(1, 5):
        for n in range(_layers(g.state, f"layer{stage}.")):
            x = _bottleneck(g, f"layer{stage}.{n}", x, 2 if stage > 1 and n == 0 else 1)
    x = _attention_pool(g, x, places - 1, dim, heads or max(dim // 64, 1))
    return finished(g, x, name, (3, 32 * side, 32 * side))
