"""Tokenisers beside weights, and inside bundles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens.nn.language.sentencepiece import SentencePiece
from semanticlens.nn.language.tokenizer_json import JsonTokenizer, gpt2_files
from semanticlens.nn.language.tokenizers import Llama2cTokenizer, Tokenizer, WordPiece

__all__ = ["beside", "pack", "read_json", "unpack"]

_MAX_CONFIG = 4 << 20


def read_json(path: Path) -> dict[str, Any]:
    """A small settings file; empty where there is none.

    Raises
    ------
    ModelFileError
        If it is no object of JSON.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAX_CONFIG:
        raise ModelFileError(f"{path}: settings of more than {_MAX_CONFIG:,} bytes")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not valid JSON: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path}: must hold an object, not {type(found).__name__}")
    return found


def _flag(settings: Mapping[str, Any], name: str, default: bool, where: Path) -> bool:
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise ModelFileError(f"{where}: {name!r} must be true or false, not {str(value)[:40]!r}")
    return value


def beside(folder: Path, kind: str) -> Tokenizer | None:
    """The tokeniser of a folder with a model of ``model_type`` kind; None where there is no file of one.

    Looked for in this order: ``tokenizer.json``; ``vocab.json`` with ``merges.txt`` (GPT-2's form); ``tokenizer.model``
    (SentencePiece, with marks as ``tokenizer_config.json`` says); ``vocab.txt`` (BERT's).
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return JsonTokenizer(path)
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if vocab.is_file() and merges.is_file():
        if kind == "gpt2":
            return JsonTokenizer(gpt2_files(vocab.read_bytes(), merges.read_bytes()))
        raise UnsupportedOperationError(
            f"{folder}: vocab.json and merges.txt of model_type {kind!r} do not say how texts are cut; put its tokenizer.json beside"
        )
    settings = folder / "tokenizer_config.json"
    path = folder / "tokenizer.model"
    if path.is_file():
        found = read_json(settings)
        return SentencePiece(
            path, begin=_flag(found, "add_bos_token", True, settings), end=_flag(found, "add_eos_token", False, settings)
        )
    path = folder / "vocab.txt"
    if path.is_file():
        return WordPiece(path, lower=_flag(read_json(settings), "do_lower_case", True, settings))
    return None


def pack(tokenizer: Tokenizer) -> tuple[dict[str, Any], bytes]:
    """A tokeniser as settings and bytes, from which :func:`unpack` makes the same one.

    Raises
    ------
    UnsupportedOperationError
        If it is none of this package's.
    """
    if isinstance(tokenizer, JsonTokenizer):
        return {"kind": "json", "marks": tokenizer.marks}, tokenizer.source
    if isinstance(tokenizer, SentencePiece):
        return {"kind": "sentencepiece", "begin": tokenizer.begin, "end": tokenizer.end}, tokenizer.source
    if isinstance(tokenizer, WordPiece):
        return {"kind": "wordpiece", "lower": tokenizer.lower}, json.dumps(tokenizer.tokens, ensure_ascii=False).encode()
    if isinstance(tokenizer, Llama2cTokenizer):
        return {"kind": "llama2c", "size": len(tokenizer.tokens)}, tokenizer.source
    raise UnsupportedOperationError(
        f"a tokeniser of the class {type(tokenizer).__name__} cannot be saved; save the network with model.net.save(path)"
    )


def unpack(settings: Any, content: bytes) -> Tokenizer:
    """The inverse of :func:`pack`; ``ModelFileError`` for anything else."""
    if not isinstance(settings, dict):
        raise ModelFileError(f"the tokeniser's settings must be an object, not {str(settings)[:40]!r}")
    wanted: dict[Any, dict[str, type]] = {
        "json": {"marks": bool},
        "sentencepiece": {"begin": bool, "end": bool},
        "wordpiece": {"lower": bool},
        "llama2c": {"size": int},
    }
    kind = settings.get("kind")
    names = wanted.get(kind) if isinstance(kind, str) else None
    if names is None:
        raise ModelFileError(f"the tokeniser is of the kind {str(kind)[:40]!r}; known are {', '.join(wanted)}")
    if set(settings) != {"kind", *names} or any(type(settings[name]) is not one for name, one in names.items()):
        raise ModelFileError(f"the tokeniser's settings must hold {', '.join(('kind', *names))}, not {str(settings)[:80]}")
    if kind == "json":
        return JsonTokenizer(content, marks=settings["marks"])
    if kind == "sentencepiece":
        return SentencePiece(content, begin=settings["begin"], end=settings["end"])
    if kind == "llama2c":
        return Llama2cTokenizer(content, settings["size"])
    try:
        tokens = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the tokeniser's vocabulary is not valid JSON: {str(error)[:80]}") from None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ModelFileError("the tokeniser's vocabulary must be a list of texts")
    return WordPiece(tokens, lower=settings["lower"])
