"""Language models as folders hold them: ``config.json`` beside the weights says what the shapes do not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens.nn.language.architectures import Config, bert, gpt2, llama

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["ARCHITECTURES", "build", "read_config"]

ARCHITECTURES = {"bert": bert, "gpt2": gpt2, "llama": llama}
_MAX_CONFIG = 1 << 20
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}
# what would change the computation in a way that the graphs here do not know: name -> harmless values
_REFUSED: dict[str, tuple[Any, ...]] = {
    "rope_scaling": (None,),
    "position_embedding_type": (None, "absolute"),
    "scale_attn_weights": (None, True),
    "scale_attn_by_inverse_layer_idx": (None, False),
    "is_decoder": (None, False),
    "sliding_window": (None,),
    "mlp_bias": (None, False),
    "partial_rotary_factor": (None, 1.0),
}


def read_config(weights: Path) -> dict[str, Any] | None:
    """The ``config.json`` in the weights' folder, where it is of a language model known here; None otherwise."""
    path = weights.with_name("config.json")
    if not path.is_file() or path.stat().st_size > _MAX_CONFIG:
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not valid JSON: {str(error)[:120]}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    return config if isinstance(kind, str) and kind in ARCHITECTURES else None


def context(config: Mapping[str, Any], where: str) -> int:
    """How many tokens the model was made for."""
    return int(_number(config, ("max_position_embeddings", "n_positions"), 2048, where))


def _number(config: Mapping[str, Any], names: tuple[str, ...], default: Any, where: str) -> Any:
    for name in names:
        value = config.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
                raise ModelFileError(f"{where}: {name!r} must be a positive number, not {str(value)[:40]}")
            return value
    if default is None:
        raise ModelFileError(f"{where}: {names[0]!r} is missing")
    return default


def build(state: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Network:
    """The network of a configuration."""
    kind = str(config["model_type"])
    for name, harmless in _REFUSED.items():
        if config.get(name) not in harmless and not (name == "rope_scaling" and _plain_rope(config[name])):
            raise UnsupportedOperationError(
                f"{where}: {name}={str(config[name])[:80]!r} of model_type {kind!r} is not known here"
            )
    given = config.get("hidden_act", config.get("activation_function", "silu" if kind == "llama" else "gelu"))
    if not isinstance(given, str) or given not in _ACTIVATIONS:
        raise UnsupportedOperationError(f"{where}: the activation {str(given)[:40]!r} is not known here")
    if kind == "llama" and given != "silu":
        raise UnsupportedOperationError(f"{where}: the activation {given!r} of a llama-like model is not known here")
    heads = int(_number(config, ("num_attention_heads", "n_head"), None, where))
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, dict) or not _plain_rope(rope):
        raise UnsupportedOperationError(f"{where}: rope_parameters={str(rope)[:80]!r} are not known here")
    made = Config(
        heads,
        int(_number(config, ("num_key_value_heads",), heads, where)),
        eps=float(_number(config, ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"), 1e-5, where)),
        rope_base=float(_number({**config, **rope}, ("rope_theta",), 10000.0, where)),
        activation=_ACTIVATIONS[given],
    )
    return ARCHITECTURES[kind](state, made)


def _plain_rope(rope: Any) -> bool:
    return isinstance(rope, dict) and rope.get("rope_type", rope.get("type", "default")) == "default"
