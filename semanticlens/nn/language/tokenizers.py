"""From texts to token ids and back."""

from __future__ import annotations

import os
import struct
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from semanticlens._errors import DataError, ModelFileError
from semanticlens.nn.language.merges import merge

__all__ = ["Llama2cTokenizer", "Tokenizer", "WordPiece"]

MAX_TOKENS = 1 << 20
MAX_TEXT = 1 << 20  # characters of one text


@runtime_checkable
class Tokenizer(Protocol):
    """What a language model asks of a tokeniser."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the marks of its beginning."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""


def checked_text(text: str) -> str:
    """A text of a length that is read."""
    if not isinstance(text, str):
        raise TypeError(f"a text must be a str, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise DataError(f"a text of {len(text):,} characters; at most {MAX_TEXT:,} are read")
    return text


class WordPiece:
    """BERT's tokeniser: words are cut greedily into the longest pieces of a vocabulary.

    Text is cleaned of control characters, spaced around Chinese characters and punctuation, lower-cased and stripped of
    accents (where ``lower``).  Later pieces of a word begin with "##".

    Parameters
    ----------
    vocab : path-like or sequence of str
        One token per line, or the tokens; must hold [UNK], [CLS] and [SEP].
    lower : bool
    """

    LONGEST = 100  # characters of a word; longer ones are unknown

    def __init__(self, vocab: str | os.PathLike[str] | Sequence[str], *, lower: bool = True) -> None:
        self.tokens = _read_lines(Path(vocab)) if isinstance(vocab, (str, os.PathLike)) else list(vocab)
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        self.lower = lower
        missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in self.ids]
        if missing:
            raise ModelFileError(f"the vocabulary of {len(self.tokens)} tokens lacks {missing[0]}")

    def words(self, text: str) -> list[str]:
        """Words and punctuation marks."""
        text = "".join(" " if char.isspace() else char for char in checked_text(text) if not is_control(char))
        if self.lower:
            lowered = "".join(char.lower() for char in text)  # letter by letter: no letter depends on its neighbours
            text = "".join(c for c in unicodedata.normalize("NFD", lowered) if unicodedata.category(c) != "Mn")
        return "".join(f" {char} " if is_punctuation(char) or is_chinese(char) else char for char in text).split()

    def pieces(self, word: str) -> list[int]:
        """Ids of the longest pieces from the left; the unknown token where a part has none."""
        if len(word) > self.LONGEST:
            return [self.ids["[UNK]"]]
        result, start = [], 0
        while start < len(word):
            for stop in range(len(word), start, -1):
                piece = self.ids.get(("##" if start else "") + word[start:stop])
                if piece is not None:
                    break
            else:
                return [self.ids["[UNK]"]]
            result.append(piece)
            start = stop
        return result

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """[CLS] pieces [SEP], cut to ``limit`` ids."""
        ids = [piece for word in self.words(text) for piece in self.pieces(word)]
        return [self.ids["[CLS]"], *(ids if limit is None else ids[: max(limit - 2, 0)]), self.ids["[SEP]"]]

    def decode(self, ids: Sequence[int]) -> str:
        """Pieces joined into words; marks are left out."""
        tokens = [self.tokens[i] for i in ids]
        return " ".join(t for t in tokens if t not in ("[CLS]", "[SEP]", "[PAD]")).replace(" ##", "")


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes()
        lines = text.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ModelFileError(
            f"{path}: a vocabulary must be UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    if lines and not lines[-1]:
        lines.pop()
    if not 1 <= len(lines) <= MAX_TOKENS:
        raise ModelFileError(f"{path}: {len(lines)} tokens; 1 to {MAX_TOKENS} are expected")
    return [line.rstrip("\r") for line in lines]


def is_control(char: str) -> bool:
    """Whether BERT leaves a character out."""
    return char not in "\t\n\r" and (unicodedata.category(char).startswith("C") or char == "\ufffd")


def is_punctuation(char: str) -> bool:
    """Whether BERT takes a character for a word of its own."""
    code = ord(char)
    ascii_mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return ascii_mark or unicodedata.category(char).startswith("P")


_CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


def is_chinese(char: str) -> bool:
    """Whether a character lies in the blocks of Chinese ones."""
    return any(low <= ord(char) <= high for low, high in _CHINESE)


class Llama2cTokenizer:
    """The tokeniser of llama2.c files: byte pairs merged by their scores.

    The file holds an int32 (the longest token), then per token a float32 score, an int32 length and its bytes, all
    little-endian.  Ids 1 and 2 begin and end a text; ids 3 to 258 are single bytes, written ``<0x41>``.

    Parameters
    ----------
    source : path-like or bytes
        The file, or what is in it.
    size : int
        Tokens to read: the model's vocabulary.
    """

    BEGIN, END = 1, 2

    def __init__(self, source: str | os.PathLike[str] | bytes, size: int) -> None:
        where = "the tokeniser" if isinstance(source, bytes) else str(source)
        self.source = source if isinstance(source, bytes) else Path(source).read_bytes()
        self.tokens, self.scores = self._read(self.source, where, size)
        self.ids: dict[bytes, int] = {}
        for number, token in enumerate(self.tokens):
            self.ids.setdefault(token, number)

    @staticmethod
    def _read(data: bytes, path: str, size: int) -> tuple[list[bytes], list[float]]:
        if not 259 <= size <= MAX_TOKENS:
            raise ModelFileError(f"{path}: a vocabulary of {size} tokens; 259 to {MAX_TOKENS} are expected")
        place = 4
        tokens, scores = [], []
        for number in range(size):
            if place + 8 > len(data):
                raise ModelFileError(f"{path}: the file ends in token {number} of {size}")
            score, length = struct.unpack_from("<fi", data, place)
            place += 8
            if not 0 <= length <= 4096 or place + length > len(data) or score != score:
                raise ModelFileError(f"{path}: token {number} has the length {length} and the score {score}")
            tokens.append(data[place : place + length])
            scores.append(score)
            place += length
        return tokens, scores

    def encode(self, text: str) -> list[int]:
        """The beginning mark, then pieces of " " + text."""
        ids = [self.BEGIN]
        if checked_text(text):
            ids.append(self.ids.get(b" ", 3 + 32))
        for char in text:
            piece = char.encode("utf-8")
            ids += [self.ids[piece]] if piece in self.ids else [3 + byte for byte in piece]
        return self._merged(ids)

    def _merged(self, ids: list[int]) -> list[int]:
        """The neighbours whose union has the highest score become one, until no union is a token."""

        def rank(a: int, b: int) -> tuple[float, int] | None:
            union = self.ids.get(self.tokens[a] + self.tokens[b])
            return None if union is None else (-self.scores[union], union)

        return merge(ids, rank)

    def decode(self, ids: Sequence[int]) -> str:
        """The text; the space that encoding put after the beginning is left out, bytes that are no UTF-8 become �."""
        parts, before = [], None
        for number in ids:
            if number == self.END:
                break
            if number != self.BEGIN:
                piece = self.tokens[number]
                if before == self.BEGIN:
                    piece = piece.removeprefix(b" ")
                parts.append(_raw(piece))
            before = number
        return b"".join(parts).decode("utf-8", errors="replace")


def _raw(piece: bytes) -> bytes:
    """A byte token is the byte it names."""
    if len(piece) == 6 and piece.startswith(b"<0x") and piece.endswith(b">"):
        try:
            return bytes([int(piece[3:5], 16)])
        except ValueError:
            return piece
    return piece
