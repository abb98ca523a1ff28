"""Texts as towers of CLIP and SigLIP take them: cleaned, cut to the context, padded to it."""

from __future__ import annotations

import html
import string
from collections.abc import Callable, Sequence

from semanticlens._errors import ModelFileError
from semanticlens.nn.language import json_models
from semanticlens.nn.language.sentencepiece import SPACE, SentencePiece
from semanticlens.nn.language.tokenizer_json import JsonTokenizer
from semanticlens.nn.language.tokenizers import checked_text

__all__ = ["PaddedTokenizer", "clip_files", "siglip_pieces"]

_NO_MARKS = str.maketrans("", "", string.punctuation)
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class PaddedTokenizer:
    """Ids of a fixed number.

    Parameters
    ----------
    pieces : callable str -> list of int
        Ids without marks.
    tokens : sequence of str
    context : int
        Ids per text; of longer texts the beginning is kept, and the marks.
    before, after : sequence of int
        The marks.
    pad : int
        What follows behind the last mark.
    decode : callable
    """

    def __init__(
        self,
        pieces: Callable[[str], list[int]],
        tokens: Sequence[str],
        decode: Callable[[Sequence[int]], str],
        *,
        context: int,
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        pad: int,
    ) -> None:
        self.pieces, self.tokens, self._decode = pieces, list(tokens), decode
        self.context, self.before, self.after, self.pad = context, list(before), list(after), pad

    def encode(self, text: str) -> list[int]:
        """``context`` ids."""
        room = max(self.context - len(self.before) - len(self.after), 0)
        ids = [*self.before, *self.pieces(text)[:room], *self.after][: self.context]
        return ids + [self.pad] * (self.context - len(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without marks and padding."""
        marks = {*self.before, *self.after, self.pad}
        return self._decode([number for number in ids if number not in marks])


def siglip_pieces(model: SentencePiece, clean: str) -> Callable[[str], list[int]]:
    """How SigLIP's texts become pieces: lower-cased and without ASCII's punctuation.

    ``clean`` is "open_clip" (marks such as ``&amp;`` resolved, underscores become spaces) or "hugging_face" (underscores
    vanish; the mark for spaces is put before the text by hand).
    """

    def open_clip(text: str) -> list[int]:
        text = html.unescape(html.unescape(checked_text(text))).strip().replace("_", " ").translate(_NO_MARKS).lower()
        return model.pieces(" ".join(text.split()))

    unknown = model.tokens[model.model.unknown]
    skipped = len(model.pieces(unknown))

    def hugging_face(text: str) -> list[int]:
        text = (SPACE + checked_text(text).replace(SPACE, " ")).lower().translate(_NO_MARKS)
        return model.pieces(unknown + " ".join(text.split()))[skipped:]

    return open_clip if clean == "open_clip" else hugging_face


def clip_files(vocab: bytes, merges: bytes) -> JsonTokenizer:
    """CLIP's ``vocab.json`` and ``merges.txt`` of Hugging Face.

    Raises
    ------
    ModelFileError
        If they are not such files.
    """
    made = json_models.from_merges(vocab, merges)
    words = made["model"]["vocab"]
    if "<|startoftext|>" not in words or "<|endoftext|>" not in words:
        raise ModelFileError("vocab.json lacks <|startoftext|> or <|endoftext|>, so it is not CLIP's")
    begin, end = ["<|startoftext|>", words["<|startoftext|>"]], ["<|endoftext|>", words["<|endoftext|>"]]
    steps = [{"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}, {"type": "Lowercase"}]
    words_of = {"type": "Split", "pattern": {"Regex": _CLIP_WORDS}, "behavior": "Removed", "invert": True}
    level = {"type": "ByteLevel", "add_prefix_space": False}
    made["normalizer"] = {"type": "Sequence", "normalizers": steps}
    made["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [words_of, level]}
    made["post_processor"] = {"type": "RobertaProcessing", "cls": begin, "sep": end}
    made["decoder"] = {"type": "ByteLevel"}
    made["model"].update({"end_of_word_suffix": "</w>", "unk_token": "<|endoftext|>"})
    made["added_tokens"] = [{"id": number, "content": token, "special": True} for token, number in (begin, end)]
    return JsonTokenizer(json_models.packed(made))
