"""What a CLIP encoder is made of, from the files users have: OpenCLIP's checkpoints and Hugging Face's folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semanticlens._errors import ModelFileError, SemanticLensError, UnsupportedOperationError
from semanticlens.nn.fold import fold_batch_norm
from semanticlens.nn.language.bpe import ClipTokenizer
from semanticlens.nn.language.clip import State, image_tower, text_tower
from semanticlens.nn.language.clip_resnet import resnet_tower
from semanticlens.nn.language.files import read_json
from semanticlens.nn.language.hugging_face import hf_image_tower, hf_text_tower
from semanticlens.nn.language.padded import PaddedTokenizer, clip_files, siglip_pieces
from semanticlens.nn.language.sentencepiece import SentencePiece
from semanticlens.nn.language.siglip import siglip_image_tower, siglip_text_tower
from semanticlens.nn.language.tokenizer_json import JsonTokenizer
from semanticlens.nn.load.model_folder import folder_state
from semanticlens.nn.load.state_dict import load_state_dict
from semanticlens.nn.network import Network
from semanticlens.nn.preprocess import Preprocess

__all__ = ["Parts", "open_parts"]

ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")
_OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # as Pillow numbers them
_FILES = ("bpe_simple_vocab_16e6.txt.gz", "spiece.model", "tokenizer.json", "vocab.json")

Tokenizer = ClipTokenizer | PaddedTokenizer


@dataclass(frozen=True)
class Parts:
    """Towers, tokeniser and preprocessing.

    Attributes
    ----------
    image, text : Network
    tokenizer : ClipTokenizer or PaddedTokenizer, optional
        None where no vocabulary was found.
    preprocess : Preprocess
    name : str
    """

    image: Network
    text: Network
    tokenizer: Tokenizer | None
    preprocess: Preprocess
    name: str


def open_parts(path: Path, vocabulary: Path | None, activation: str | None, fold: bool) -> Parts:
    """Read everything that lies at a path.

    Raises
    ------
    FileNotFoundError, ModelFileError, UnsupportedOperationError
        If something is missing, damaged or not known; the message names the file.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is not known; known are {', '.join(ACTIVATIONS)}")
    state, weights = _state(path)
    scheme = _scheme(state)
    try:
        image, text = _towers(state, scheme, weights, activation)
        siglip = scheme.endswith("siglip")
        made = _preprocess(weights, scheme, image, siglip)
    except SemanticLensError as error:
        error.args = (f"{weights}: {error.args[0]}",)
        raise
    tokenizer = _tokenizer(weights, vocabulary, siglip, scheme, int(text.input_shape[0] or 77), _vocab(state))
    return Parts(fold_batch_norm(image) if fold else image, text, tokenizer, made, path.name if path.is_dir() else path.stem)


def _state(path: Path) -> tuple[State, Path]:
    if not path.is_dir():
        return load_state_dict(path), path
    for name in _OPEN_CLIP:
        if (path / name).is_file():
            return load_state_dict(path / name), path / name
    return folder_state(path)


def _scheme(state: State) -> str:
    """Whose names the parameters have, and of which kind the network is."""
    if any(key.startswith("vision_model.") for key in state):
        return "hugging_face siglip" if "vision_model.head.probe" in state else "hugging_face clip"
    if any(key.startswith("visual.trunk.") for key in state):
        return "open_clip siglip"
    return "open_clip resnet" if "visual.attnpool.positional_embedding" in state else "open_clip vit"


def _vocab(state: State) -> int:
    names = ("token_embedding.weight", "text.token_embedding.weight", "text_model.embeddings.token_embedding.weight")
    return next(len(state[name]) for name in names if name in state)


def _towers(state: State, scheme: str, weights: Path, activation: str | None) -> tuple[Network, Network]:
    if scheme.startswith("hugging_face"):
        config = dict(read_json(weights.with_name("config.json")))
        if not config:
            raise ModelFileError("there is no config.json beside these weights, which names their activations and heads")
        if activation is not None:
            raise ValueError("activation and quick_gelu are for OpenCLIP's files; config.json says it here")
        return hf_image_tower(state, config), hf_text_tower(state, config)
    if activation is None:
        found = _open_clip(weights, "model_cfg").get("quick_gelu")
        activation = "quick_gelu" if found is True else "gelu"
    if scheme == "open_clip siglip":
        known = {key: value for key, value in state.items() if not key.startswith("logit_")}
        extra = sorted(key for key in known if not key.startswith(("visual.", "text.")))
        if extra:
            raise ModelFileError(f"parameters are left over that neither tower has: {', '.join(extra[:6])}")
        return siglip_image_tower(state, activation=activation), siglip_text_tower(state, activation=activation)
    text = text_tower(state, activation=activation)
    return resnet_tower(state) if scheme.endswith("resnet") else image_tower(state, activation=activation), text


def _open_clip(weights: Path, part: str) -> Mapping[str, Any]:
    """A part of ``open_clip_config.json``, where there is one beside the weights."""
    found = read_json(weights.with_name("open_clip_config.json")).get(part) or {}
    if not isinstance(found, dict):
        raise ModelFileError(f"open_clip_config.json: {part} must be an object, not {str(found)[:40]}")
    return found


def _preprocess(weights: Path, scheme: str, image: Network, siglip: bool) -> Preprocess:
    """As the model was trained: SigLIP's pictures are stretched, CLIP's are cropped."""
    size = int(image.input_shape[1] or 224)
    if scheme.startswith("hugging_face"):
        found: Mapping[str, Any] = read_json(weights.with_name("preprocessor_config.json"))
        mean, std, how = found.get("image_mean"), found.get("image_std"), _FILTERS.get(found.get("resample", 3))
        resize = "stretch" if siglip else "crop"
    else:
        found = _open_clip(weights, "preprocess_cfg")
        mean, std, how = found.get("mean"), found.get("std"), found.get("interpolation", "bicubic")
        given = found.get("resize_mode", "squash" if siglip else "shortest")
        if given not in ("squash", "shortest"):
            raise UnsupportedOperationError(f"resize_mode={str(given)[:40]!r} is not known here; known are squash and shortest")
        resize = "stretch" if given == "squash" else "crop"
    default = (_HALF, _HALF) if siglip else (_MEAN, _STD)
    return Preprocess.from_dict(
        {
            "size": [size, size],
            "resize": resize,
            **({} if resize == "stretch" else {"short": size}),
            "interpolation": how,
            "mean": list(mean if mean is not None else default[0]),
            "std": list(std if std is not None else default[1]),
        }
    )


def _tokenizer(weights: Path, given: Path | None, siglip: bool, scheme: str, context: int, vocab: int) -> Tokenizer | None:
    names = _FILES[1:3] if siglip else (_FILES[0], _FILES[2], _FILES[3])
    path = given or next((weights.with_name(name) for name in names if weights.with_name(name).is_file()), None)
    if path is None:
        return None
    clean = scheme.split()[0]
    if path.name.endswith(".json"):
        made: Tokenizer = _from_json(path, context)
    elif path.name.endswith(".model"):
        model = SentencePiece(path)
        end = model.model.end
        if end < 0:
            raise ModelFileError(f"{path}: the model has no token that ends a text")
        pieces = siglip_pieces(model, clean)
        made = PaddedTokenizer(pieces, model.tokens, model.decode, context=context, after=[end], pad=end)
    else:
        made = ClipTokenizer(path, context=context)
    if len(made.tokens) > vocab:
        raise ModelFileError(f"{path}: {len(made.tokens)} tokens, but the text tower knows {vocab}; it belongs to another model")
    return made


def _from_json(path: Path, context: int) -> PaddedTokenizer:
    """From ``tokenizer.json``, or from ``vocab.json`` and the merges beside it."""
    if path.name == "vocab.json":
        merges = path.with_name("merges.txt")
        if not merges.is_file():
            raise ModelFileError(f"{path}: there is no merges.txt beside it")
        inner = clip_files(path.read_bytes(), merges.read_bytes())
    else:
        inner = JsonTokenizer(path)
    before, after = inner.frame
    if not after:
        raise ModelFileError(f"{path}: its post_processor puts no mark behind a text, where the vector is read")
    return PaddedTokenizer(
        inner.pieces, inner.tokens, inner.decode, context=context, before=before, after=after, pad=after[-1]
    )
