"""Language models as folders hold them: ``config.json`` beside the weights says what the shapes do not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens.nn.language.architectures import Config, bert, gpt2, llama
from semanticlens.nn.language.rope import rope

if TYPE_CHECKING:
    from semanticlens.nn.language.text_model import TextModel
    from semanticlens.nn.network import Network

__all__ = ["ARCHITECTURES", "build", "folder_state", "load_folder", "model", "read_config"]

ARCHITECTURES = {"bert": bert, "gpt2": gpt2, "llama": llama, "mistral": llama, "qwen2": llama}
_MAX_CONFIG, _MAX_SHARDS = 1 << 20, 1000
_INDEX = "model.safetensors.index.json"
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}
# what the makers' own code takes where config.json says nothing
_DEFAULT_ACTIVATION = {"bert": "gelu", "gpt2": "gelu_new"}
_DEFAULT_EPS = {"bert": 1e-12, "gpt2": 1e-5}
# what would change the computation in a way that the graphs here do not know: name -> harmless values
_REFUSED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": (None, "absolute"),
    "scale_attn_weights": (None, True),
    "scale_attn_by_inverse_layer_idx": (None, False),
    "is_decoder": (None, False),
    "sliding_window": (None,),
    "partial_rotary_factor": (None, 1.0),
    "quantization_config": (None,),
    "use_sliding_window": (None, False),
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
    _refuse(config, kind, where)
    like_llama = ARCHITECTURES[kind] is llama
    given = config.get("hidden_act", config.get("activation_function", _DEFAULT_ACTIVATION.get(kind, "silu")))
    if not isinstance(given, str) or given not in _ACTIVATIONS:
        raise UnsupportedOperationError(f"{where}: the activation {str(given)[:40]!r} is not known here")
    if like_llama and given != "silu":
        raise UnsupportedOperationError(f"{where}: the activation {given!r} of a llama-like model is not known here")
    heads = int(_number(config, ("num_attention_heads", "n_head"), None, where))
    tied = config.get("tie_word_embeddings", not like_llama)
    if not isinstance(tied, bool):
        raise ModelFileError(f"{where}: 'tie_word_embeddings' must be true or false, not {str(tied)[:40]}")
    made = Config(
        heads,
        int(_number(config, ("num_key_value_heads",), heads, where)),
        eps=float(
            _number(config, ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"), _DEFAULT_EPS.get(kind, 1e-6), where)
        ),
        activation=_ACTIVATIONS[given],
        tied=tied,
    )
    if like_llama:
        made = _rotary(made, state, config, where)
    return ARCHITECTURES[kind](state, made, kind)


def _refuse(config: Mapping[str, Any], kind: str, where: str) -> None:
    """Stop at settings that the graphs here do not follow."""
    for name, harmless in _REFUSED.items():
        off = name == "sliding_window" and config.get("use_sliding_window") is False
        if config.get(name) not in harmless and not off:
            raise UnsupportedOperationError(f"{where}: {name}={str(config[name])[:80]!r} of model_type {kind!r} is not known here")
    layers = config.get("layer_types")
    if layers is not None and (not isinstance(layers, list) or any(one != "full_attention" for one in layers)):
        raise UnsupportedOperationError(f"{where}: layer_types={str(layers)[:80]!r} are not all 'full_attention'")


def _rotary(made: Config, state: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Config:
    """With the width of heads and the frequencies."""
    embedding = next((key for key in ("model.embed_tokens.weight", "embed_tokens.weight") if key in state), None)
    if embedding is None:
        raise ModelFileError(f"{where}: parameter 'model.embed_tokens.weight' is missing")
    dim = int(np.shape(state[embedding])[-1])
    width = int(_number(config, ("head_dim",), max(dim // made.n_heads, 1), where))
    if width % 2 or width > 1 << 16:
        raise ModelFileError(f"{where}: heads of {width} features cannot be rotated in pairs")
    base, frequencies, magnitude = rope(config, width, where)
    own = width if config.get("head_dim") is not None else None
    return replace(made, rope_base=base, frequencies=frequencies, magnitude=magnitude, width=own)


def _ends(config: Mapping[str, Any], where: str) -> list[int]:
    """The tokens that end a text."""
    given = config.get("eos_token_id")
    ends = [] if given is None else given if isinstance(given, list) else [given]
    if len(ends) > 1000 or any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 1 << 24 for n in ends):
        raise ModelFileError(f"{where}: 'eos_token_id' must be an id or a list of ids, not {str(given)[:60]}")
    return ends


def model(state: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> TextModel:
    """The model of a configuration, with the tokeniser that lies beside its weights."""
    from semanticlens.nn.language import files
    from semanticlens.nn.language.generate import LanguageModel
    from semanticlens.nn.language.text_model import TextModel

    kind, where = str(config["model_type"]), str(path)
    net = build(state, config, where)
    tokenizer, most = files.beside(path.parent, kind), context(config, where)
    if kind == "bert":
        return TextModel(net, tokenizer, context=most)
    generation = files.read_json(path.with_name("generation_config.json"))
    ends = _ends(generation if generation.get("eos_token_id") is not None else config, where)
    return LanguageModel(net, tokenizer, context=most, end=ends)


def folder_state(folder: Path) -> tuple[dict[str, Any], Path]:
    """The parameters of a folder, from one file or from shards, and the file that named them.

    Raises
    ------
    ModelFileError
        If there are none, or the index of shards names what is not there.
    """
    from semanticlens.nn.load.state_dict import load_state_dict

    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return load_state_dict(folder / name), folder / name
    index = folder / _INDEX
    if not index.is_file():
        raise ModelFileError(f"{folder}: there is no model.safetensors, {_INDEX} or pytorch_model.bin in this folder")
    return _shards(index), index


def _shards(index: Path) -> dict[str, Any]:
    from semanticlens.io import read_tensors
    from semanticlens.nn.language.files import read_json

    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(one, str) for one in places.values()):
        raise ModelFileError(f"{index}: 'weight_map' must name a file for each parameter")
    names = sorted(set(places.values()))
    if len(names) > _MAX_SHARDS:
        raise ModelFileError(f"{index}: {len(names)} files; at most {_MAX_SHARDS} are read")
    opened = {}
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFileError(f"{index}: {name[:80]!r} is not the name of a .safetensors file in this folder")
        if not index.with_name(name).is_file():
            raise ModelFileError(f"{index}: the file {name[:80]!r} is not there")
        opened[name] = read_tensors(index.with_name(name))
    for key, name in places.items():
        if key not in opened[name]:
            raise ModelFileError(f"{index}: {name[:80]} does not hold {key[:80]!r}")
    return {key: opened[name][key] for key, name in places.items()}


def load_folder(folder: Path) -> TextModel:
    """A language model from its folder.

    Raises
    ------
    ModelFileError
        If it holds no configuration of a known model, or no weights.
    """
    from semanticlens.nn.language.files import read_json

    found = read_json(folder / "config.json")
    kind = found.get("model_type")
    if kind in ("clip", "siglip"):
        raise ModelFileError(f"{folder} holds a model of pictures and texts (model_type {kind!r}): open it with sl.encoders.CLIP(folder)")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        what = "a folder without config.json" if not found else f"a folder whose config.json has the model_type {str(kind)[:40]!r}"
        raise ModelFileError(
            f"{folder} is {what}; folders of {', '.join(ARCHITECTURES)} models are read, and files: pass the one that holds "
            "the network"
        )
    state, path = folder_state(folder)
    return model(state, found, path)

