"""A network of token ids with the tokeniser that makes them, and its file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError, ModelFileError, SemanticLensError
from semanticlens.nn.language import files
from semanticlens.nn.language.tokenizers import Tokenizer
from semanticlens.nn.load import bundle
from semanticlens.nn.network import Network

if TYPE_CHECKING:
    from semanticlens.io import TensorFile

__all__ = ["TOKENIZER", "TextModel", "read_model"]

F32 = NDArray[np.float32]
TOKENIZER = "language.tokenizer"  # the name of the tokeniser's bytes among a bundle's arrays
_MAX_TEXT = 1 << 16


class TextModel:
    """A network of token ids with its tokeniser: what ``sl.load`` gives for the folder of a BERT-like model.

    Parameters
    ----------
    net : Network
        Token ids (T,) -> values of every token (T, D).
    tokenizer : Tokenizer, optional
        Left out, only token ids can be used.
    context : int
        Most tokens.
    """

    kind = "text"

    def __init__(self, net: Network, tokenizer: Tokenizer | None, *, context: int) -> None:
        self.net, self.tokenizer, self.context = net, tokenizer, context

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.net!r}, context of {self.context} tokens)"

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self._tokens().encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        return self._tokens().decode([int(i) for i in ids])

    def _tokens(self) -> Tokenizer:
        if self.tokenizer is None:
            raise DataError("this model came without a tokeniser: pass token ids, or put its tokeniser file beside the weights")
        return self.tokenizer

    def run(self, prompt: str | Sequence[int] | NDArray[Any], record: Iterable[str] = ("output",), **options: Any) -> dict[str, Any]:
        """Recorded values of one text, as ``net.run`` gives them for a batch of one; ``options`` are its further arguments."""
        return dict(self.net.run(np.asarray([self._ids(prompt)]), list(record), **options))

    def _ids(self, prompt: str | Sequence[int] | NDArray[Any]) -> list[int]:
        ids = self.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]
        if not 1 <= len(ids) <= self.context:
            raise DataError(f"the prompt has {len(ids)} tokens; 1 to {self.context} fit")
        return ids

    def _settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "context": self.context}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write network and tokeniser as one bundle, atomically; ``sl.load`` reads it back with the same outputs, bit by bit.

        Raises
        ------
        UnsupportedOperationError
            If the tokeniser is none of this package's.
        """
        settings, extra = self._settings(), {}
        if self.tokenizer is not None:
            settings["tokenizer"], content = files.pack(self.tokenizer)
            extra[TOKENIZER] = np.frombuffer(content, np.uint8)
        text = json.dumps(settings, separators=(",", ":"), sort_keys=True)
        bundle.write_bundle(self.net, path, language=text, extra=extra)


def read_model(tensors: TensorFile, path: Path, *, verify: bool, allow_nonfinite: bool) -> Any:
    """The model of a bundle whose metadata has an entry "language".

    Raises
    ------
    ModelFileError
        If the bundle is damaged or contradicts itself; the message names the file.
    """
    from semanticlens.nn.language.generate import LanguageModel

    net = bundle.read_bundle(path, verify=verify, allow_nonfinite=allow_nonfinite)
    try:
        settings = _parsed(tensors.metadata["language"])
        tokenizer = None
        if "tokenizer" in settings:
            if TOKENIZER not in tensors or tensors[TOKENIZER].dtype != np.uint8:
                raise ModelFileError(f"the array {TOKENIZER!r} is missing; save the model again")
            tokenizer = files.unpack(settings["tokenizer"], tensors[TOKENIZER].tobytes())
        if not net.takes_ids or len(net.output_shape) != 2:
            raise ModelFileError("its network does not give values for every token of a text")
    except SemanticLensError as error:
        error.args = (f"{path}: {error.args[0]}",)
        raise
    if settings["kind"] == TextModel.kind:
        return TextModel(net, tokenizer, context=settings["context"])
    return LanguageModel(net, tokenizer, context=settings["context"], end=settings["end"])


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > _MAX_TEXT:
        raise ModelFileError(f"the language entry is {len(text):,} characters long; at most {_MAX_TEXT:,} are read")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the language entry is not valid JSON: {str(error)[:80]}") from None
    kinds = {"text": {"kind", "context"}, "causal": {"kind", "context", "end"}}
    kind = found.get("kind") if isinstance(found, dict) else None
    if not isinstance(kind, str) or kind not in kinds or set(found) - {"tokenizer"} != kinds[kind]:
        raise ModelFileError(f"the language entry must hold a kind, a context, an end and a tokenizer, not {text[:80]}")
    ends = found.get("end")
    context = found["context"]
    for number in (context, *(ends if isinstance(ends, list) else ())):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 24:
            raise ModelFileError(f"the language entry holds the number {str(number)[:40]}")
    if context < 1 or not (ends is None or isinstance(ends, list)):
        raise ModelFileError(f"the language entry must hold a context of at least 1 and a list of ends, not {text[:80]}")
    return dict(found)
