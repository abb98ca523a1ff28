"""Checkpoints of llama2.c: seven int32 and the parameters as float32, with the tokeniser in a file beside.

Header: dim, hidden, layers, heads, heads of keys, vocabulary (negative: the output matrix is its own), context.  Then
the embedding, and per kind of parameter all layers: norms before attention, wq, wk, wv, wo, norms before the
feed-forward part, w1, w2, w3; the last norm, two tables that are not used, and the output matrix where it is its own.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError
from semanticlens.nn.language.architectures import Config, llama
from semanticlens.nn.language.tokenizers import Llama2cTokenizer

if TYPE_CHECKING:
    from semanticlens.nn.language.generate import LanguageModel

__all__ = ["is_llama2c", "read_llama2c"]

_HEADER = struct.Struct("<7i")


def _sizes(header: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    dim, hidden, layers, heads, kv_heads, vocab, context = header
    own, vocab = vocab < 0, abs(vocab)
    kv = dim // heads * kv_heads
    parts: list[tuple[str, tuple[int, ...]]] = [
        ("embed_tokens", (vocab, dim)),
        ("input_layernorm", (layers, dim)),
        ("self_attn.q_proj", (layers, dim, dim)),
        ("self_attn.k_proj", (layers, kv, dim)),
        ("self_attn.v_proj", (layers, kv, dim)),
        ("self_attn.o_proj", (layers, dim, dim)),
        ("post_attention_layernorm", (layers, dim)),
        ("mlp.gate_proj", (layers, hidden, dim)),
        ("mlp.down_proj", (layers, dim, hidden)),
        ("mlp.up_proj", (layers, hidden, dim)),
        ("norm", (dim,)),
        ("", (context, dim // heads)),
    ]
    return [*parts, ("lm_head", (vocab, dim))] if own else parts


def _header(path: Path) -> tuple[int, ...] | None:
    """The header, if it explains the size of the file."""
    with open(path, "rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return None
    header = _HEADER.unpack(head)
    dim, hidden, layers, heads, kv_heads, vocab, context = header
    if min(dim, hidden, layers, heads, kv_heads, context) < 1 or vocab == 0 or max(map(abs, header)) > 1 << 24:
        return None
    if dim % heads or heads % kv_heads or dim // heads % 2 or layers > 1000:
        return None
    count = sum(_product(shape) for _, shape in _sizes(header))
    return header if path.stat().st_size == _HEADER.size + 4 * count else None


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def is_llama2c(path: Path) -> bool:
    """Whether the first seven numbers of a file explain its size."""
    return path.is_file() and _header(path) is not None


def read_llama2c(path: Path) -> LanguageModel:
    """Read the model; its tokeniser is ``<stem>_tokenizer.bin`` or ``tokenizer.bin`` in the same folder, where there is one."""
    from semanticlens.nn.language.generate import LanguageModel

    header = _header(path)
    if header is None:
        raise ModelFileError(f"{path}: not a checkpoint of llama2.c; its first seven numbers do not explain its size")
    data = np.memmap(path, "<f4", "r", offset=_HEADER.size)
    state: dict[str, NDArray[Any]] = {}
    place = 0
    for name, shape in _sizes(header):
        values = data[place : place + _product(shape)].reshape(shape)
        place += _product(shape)
        if not name:
            continue
        if len(shape) == 1 or name in ("embed_tokens", "lm_head"):
            state[f"{name}.weight"] = values
        else:
            state.update({f"layers.{i}.{name}.weight": layer for i, layer in enumerate(values)})
    _, _, _, heads, kv_heads, vocab, context = header
    net = llama(state, Config(heads, kv_heads, interleaved=True), name=path.stem)
    beside = [path.with_name(f"{path.stem}_tokenizer.bin"), path.with_name("tokenizer.bin")]
    found = next((file for file in beside if file.is_file()), None)
    tokenizer = None if found is None else Llama2cTokenizer(found, abs(vocab))
    return LanguageModel(net, tokenizer, context=context, end=Llama2cTokenizer.BEGIN)
