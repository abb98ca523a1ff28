"""Language models as graphs: llama-like, GPT-2-like and BERT-like, from their parameters by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError
from semanticlens.nn.graph import Node
from semanticlens.nn.network import Network

__all__ = ["Config", "bert", "gpt2", "llama"]

State = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Config:
    """What the shapes of the parameters do not say.

    Attributes
    ----------
    n_heads, n_kv_heads : int
        Heads of queries, and of keys and values; these are repeated where they are fewer.
    eps : float
        Of the normalisations.
    rope_base : float
    interleaved : bool
        Whether rotary pairs are neighbours (llama2.c) or the halves of a head (Hugging Face).
    activation : str
    width : int, optional
        Features of a head, where they are not those of the stream divided by the heads.
    frequencies : tuple of float, optional
        Rotary frequencies where they are not those of the base.
    magnitude : float
        Factor on the cosines and sines of the rotation.
    tied : bool, optional
        Whether the output matrix is the embedding; None where it is if there is no other.
    """

    n_heads: int
    n_kv_heads: int
    eps: float = 1e-5
    rope_base: float = 10000.0
    interleaved: bool = False
    activation: str = "gelu"
    width: int | None = None
    frequencies: tuple[float, ...] | None = None
    magnitude: float = 1.0
    tied: bool | None = None

    def turns(self) -> dict[str, Any]:
        """Attributes of the rotations that are not their defaults."""
        attrs: dict[str, Any] = {"base": self.rope_base, "interleaved": self.interleaved}
        if self.frequencies is not None:
            attrs["frequencies"] = self.frequencies
        if self.magnitude != 1.0:
            attrs["magnitude"] = self.magnitude
        return attrs


class _Graph:
    """Collects nodes and the parameters they take from a state dict."""

    def __init__(self, state: State) -> None:
        self.state, self.nodes = state, []  # type: ignore[var-annotated]
        self.params: dict[str, NDArray[Any]] = {}

    def node(
        self, name: str, op: str, inputs: str | tuple[str, ...], params: Mapping[str, str] | None = None, **attrs: Any
    ) -> str:
        for key in (params or {}).values():
            if key not in self.state:
                raise ModelFileError(f"parameter {key!r} is missing")
            self.params[key] = np.require(self.state[key], np.float32, ["C", "A"])
        self.nodes.append(Node(name, op, (inputs,) if isinstance(inputs, str) else inputs, params or {}, attrs))
        return name

    def own(self, key: str, value: NDArray[Any]) -> str:
        """A parameter that is made of one in the state dict."""
        self.state = {**self.state, key: np.ascontiguousarray(value, dtype=np.float32)}
        return key

    def dense(self, name: str, x: str, weight: str, bias: str | None = None) -> str:
        return self.node(name, "dense", x, {"weight": weight, **({"bias": bias} if bias else {})})

    def linear(self, at: str, x: str) -> str:
        """A dense layer by the name of its module, with a bias where there is one."""
        return self.dense(at, x, f"{at}.weight", f"{at}.bias" if f"{at}.bias" in self.state else None)

    def head(self, embedding: str, tied: bool | None) -> str:
        """The name of the output matrix."""
        if "lm_head.weight" in self.state:
            return "lm_head.weight"
        if tied is False:
            raise ModelFileError("parameter 'lm_head.weight' is missing, and tie_word_embeddings does not put the embedding in its place")
        return embedding

    def heads(self, name: str, x: str, count: int, width: int) -> str:
        """(T, count * width) -> (count, T, width)."""
        split = self.node(f"{name}.split", "reshape", x, shape=(-1, count, width))
        return self.node(f"{name}.heads", "permute", split, axes=(2, 1, 3))

    def joined(self, name: str, x: str, width: int) -> str:
        """(count, T, width / count) -> (T, width)."""
        turned = self.node(f"{name}.turned", "permute", x, axes=(2, 1, 3))
        return self.node(f"{name}.joined", "reshape", turned, shape=(-1, width))

    def network(self, name: str, output: str, leftover: tuple[str, ...] = ()) -> Network:
        extra = [key for key in self.state if key not in self.params and not key.endswith(leftover)]
        if extra:
            raise ModelFileError(f"parameters are left over that {name} does not have: {', '.join(sorted(extra)[:6])}")
        return Network(self.nodes, self.params, input_shape=(None,), output=output, name=name)


def _layers(state: State, prefix: str) -> int:
    numbers = {key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)}
    count = len(numbers)
    if not count or numbers != {str(i) for i in range(count)}:
        raise ModelFileError(f"there are no consecutive layers {prefix}0, {prefix}1, ... among the parameters")
    return count


def _width(dim: int, heads: int) -> int:
    if heads < 1 or dim % heads:
        raise ModelFileError(f"{dim} features cannot be split into {heads} heads")
    return dim // heads


def llama(state: State, config: Config, name: str = "llama") -> Network:
    """RMS norm, rotary positions, attention, SwiGLU: names as in Hugging Face's LlamaForCausalLM.

    Each block adds ``o(attention)`` and ``down(silu(gate(h)) * up(h))`` to the stream, both behind an RMS norm.  Nodes:
    ``layers.3`` is the stream behind block 3, ``layers.3.self_attn.attention`` (heads, T, width).
    """
    g = _Graph({key.removeprefix("model."): value for key, value in state.items()})
    x = g.node("embed_tokens", "embedding", "input", {"weight": "embed_tokens.weight"})
    dim = int(g.params["embed_tokens.weight"].shape[1])
    for i in range(_layers(g.state, "layers.")):
        at = f"layers.{i}"
        h = g.node(f"{at}.input_layernorm", "rms_norm", x, {"weight": f"{at}.input_layernorm.weight"}, eps=config.eps)
        h = _llama_attention(g, f"{at}.self_attn", h, dim, config)
        x = g.node(f"{at}.middle", "add", (x, h))
        norm = f"{at}.post_attention_layernorm"
        h = g.node(norm, "rms_norm", x, {"weight": f"{norm}.weight"}, eps=config.eps)
        gate = g.node(f"{at}.mlp.act", "silu", g.linear(f"{at}.mlp.gate_proj", h))
        hidden = g.node(f"{at}.mlp.hidden", "mul", (gate, g.linear(f"{at}.mlp.up_proj", h)))
        x = g.node(at, "add", (x, g.linear(f"{at}.mlp.down_proj", hidden)))
    x = g.node("norm", "rms_norm", x, {"weight": "norm.weight"}, eps=config.eps)
    head = g.head("embed_tokens.weight", config.tied)
    return g.network(name, g.dense("logits", x, head), ("rotary_emb.inv_freq",))


def _llama_attention(g: _Graph, at: str, h: str, dim: int, config: Config) -> str:
    width, values = config.width or _width(dim, config.n_heads), []
    for part, count in (("q", config.n_heads), ("k", config.n_kv_heads), ("v", config.n_kv_heads)):
        x = g.heads(f"{at}.{part}", g.linear(f"{at}.{part}_proj", h), count, width)
        if part != "v":
            x = g.node(f"{at}.{part}.rotary", "rotary", x, **config.turns())
        if count != config.n_heads:
            if config.n_heads % count:
                raise ModelFileError(f"{count} heads of keys cannot be shared by {config.n_heads} heads of queries")
            x = g.node(f"{at}.{part}.repeated", "repeat", x, axis=1, times=config.n_heads // count)
        values.append(x)
    x = g.node(f"{at}.attention", "attention", tuple(values), causal=True)
    return g.linear(f"{at}.o_proj", g.joined(at, x, config.n_heads * width))


def gpt2(state: State, config: Config, name: str = "gpt2") -> Network:
    """Layer norm, learned positions, fused queries, keys and values: names as in Hugging Face's GPT2LMHeadModel.

    Its weights (inputs, outputs) are transposed on the way.
    """
    g = _Graph({key.removeprefix("transformer."): value for key, value in state.items()})
    x = g.node("wte", "embedding", "input", {"weight": "wte.weight"})
    x = g.node("embedding", "positions", x, {"weight": "wpe.weight"})
    dim = int(g.params["wte.weight"].shape[1])
    width = _width(dim, config.n_heads)

    def norm(at: str, x: str) -> str:
        return g.node(at, "layer_norm", x, {"weight": f"{at}.weight", "bias": f"{at}.bias"}, eps=config.eps)

    def turned(at: str, x: str) -> str:
        g.state = {**g.state, f"{at}.weight": np.asarray(g.state[f"{at}.weight"]).T}
        return g.dense(at, x, f"{at}.weight", f"{at}.bias")

    for i in range(_layers(g.state, "h.")):
        at = f"h.{i}"
        fused = turned(f"{at}.attn.c_attn", norm(f"{at}.ln_1", x))
        qkv = []
        for n, part in enumerate("qkv"):
            piece = g.node(f"{at}.attn.{part}", "slice", fused, axis=2, start=n * dim, stop=(n + 1) * dim)
            qkv.append(g.heads(f"{at}.attn.{part}", piece, config.n_heads, width))
        h = g.node(f"{at}.attn.attention", "attention", tuple(qkv), causal=True)
        x = g.node(f"{at}.middle", "add", (x, turned(f"{at}.attn.c_proj", g.joined(f"{at}.attn", h, dim))))
        h = g.node(f"{at}.mlp.act", config.activation, turned(f"{at}.mlp.c_fc", norm(f"{at}.ln_2", x)))
        x = g.node(at, "add", (x, turned(f"{at}.mlp.c_proj", h)))
    head = g.head("wte.weight", config.tied)
    return g.network(name, g.dense("logits", norm("ln_f", x), head), (".attn.bias", ".attn.masked_bias"))


def bert(state: State, config: Config, name: str = "bert") -> Network:
    """Post-norm encoder of one text per row: names as in Hugging Face's BertModel; the output is the last hidden state (T, D).

    All tokens count (no padding) and are of type 0.
    """
    g = _Graph({key.removeprefix("bert."): value for key, value in state.items()})
    e = "embeddings"
    for key in ("position_embeddings", "token_type_embeddings"):
        if f"{e}.{key}.weight" not in g.state:
            raise ModelFileError(f"parameter '{e}.{key}.weight' is missing")
    first = np.asarray(g.state[f"{e}.token_type_embeddings.weight"])[:1].reshape(-1)
    x = g.node(f"{e}.word_embeddings", "embedding", "input", {"weight": f"{e}.word_embeddings.weight"})
    x = g.node(f"{e}.typed", "scale_shift", x, {"shift": g.own(f"{e}.type", first)})
    x = g.node(f"{e}.sum", "positions", x, {"weight": f"{e}.position_embeddings.weight"})
    dim = int(g.params[f"{e}.word_embeddings.weight"].shape[1])
    width = _width(dim, config.n_heads)

    def norm(at: str, x: str, name: str) -> str:
        return g.node(name, "layer_norm", x, {"weight": f"{at}.weight", "bias": f"{at}.bias"}, eps=config.eps)

    def dense(at: str, x: str) -> str:
        return g.dense(at, x, f"{at}.weight", f"{at}.bias")

    x = norm(f"{e}.LayerNorm", x, e)
    for i in range(_layers(g.state, "encoder.layer.")):
        at = f"encoder.layer.{i}"
        own = f"{at}.attention.self"
        qkv = [
            g.heads(f"{own}.{part}", dense(f"{own}.{part}", x), config.n_heads, width)
            for part in ("query", "key", "value")
        ]
        h = g.joined(own, g.node(f"{own}.attention", "attention", tuple(qkv)), dim)
        h = g.node(f"{at}.attention.sum", "add", (x, dense(f"{at}.attention.output.dense", h)))
        x = norm(f"{at}.attention.output.LayerNorm", h, f"{at}.attention.output")
        h = g.node(f"{at}.intermediate", config.activation, dense(f"{at}.intermediate.dense", x))
        h = g.node(f"{at}.sum", "add", (x, dense(f"{at}.output.dense", h)))
        x = norm(f"{at}.output.LayerNorm", h, at)
    leftover = (
        "position_ids",
        "pooler.dense.weight",
        "pooler.dense.bias",
        "token_type_embeddings.weight",
    )
    return g.network(name, x, leftover)
