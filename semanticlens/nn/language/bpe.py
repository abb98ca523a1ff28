"""CLIP's tokeniser: lower-cased text, cut into letters, numbers and marks, then byte pairs merged by rank."""

from __future__ import annotations

import gzip
import html
import os
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from semanticlens._errors import DataError, ModelFileError
from semanticlens.nn.language.merges import byte_letters, merge
from semanticlens.nn.language.tokenizers import MAX_TEXT

__all__ = ["ClipTokenizer"]

_ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_WRITTEN = {"<start_of_text>": _BEGIN, "<end_of_text>": _END}  # as OpenCLIP finds them in a text
_MERGES = 49152 - 256 - 2  # of the vocabulary file, which holds more lines than are used
_MAX_FILE = 64 << 20


class ClipTokenizer:
    """Token ids as OpenCLIP makes them for CLIP, padded with zeros to the context.

    Unlike theirs it does not repair wrongly decoded text (the package ftfy does there).

    Parameters
    ----------
    path : path-like
        ``bpe_simple_vocab_16e6.txt.gz``, or its text.
    context : int
        Ids per text.
    """

    def __init__(self, path: str | os.PathLike[str], *, context: int = 77) -> None:
        self.context = context
        merges = _read(Path(path))
        self._byte = byte_letters()
        letters = list(self._byte.values())
        order = [self._byte[b] for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
        order += [char for char in letters if char not in set(order)]
        tokens = [*order, *(char + "</w>" for char in order), *("".join(pair) for pair in merges), _BEGIN, _END]
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.tokens = tokens
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._cache: dict[str, list[int]] = {}
        self._from_char = {char: byte for byte, char in self._byte.items()}

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without the marks of beginning and end."""
        if not isinstance(text, str):
            raise TypeError(f"a text must be a str, not {type(text).__name__}")
        if len(text) > MAX_TEXT:
            raise DataError(f"a text of {len(text):,} characters; at most {MAX_TEXT:,} are read")
        clean = " ".join(html.unescape(html.unescape(text)).split()).lower()
        return [number for word in _words(clean) for number in self._word(word)]

    def encode(self, text: str) -> list[int]:
        """Beginning, pieces, end, zeros: ``context`` ids; longer texts are cut, the end stays."""
        ids = [self.ids[_BEGIN], *self.pieces(text), self.ids[_END]]
        if len(ids) > self.context:
            ids = [*ids[: self.context - 1], self.ids[_END]]
        return ids + [0] * (self.context - len(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids up to the end."""
        parts = []
        for number in ids:
            if self.tokens[number] == _END:
                break
            if self.tokens[number] != _BEGIN:
                parts.append(self.tokens[number])
        joined = "".join(parts).replace("</w>", " ").rstrip(" ")
        return b"".join(bytes([self._from_char[c]]) if c in self._from_char else c.encode() for c in joined).decode(
            "utf-8", errors="replace"
        )

    def _word(self, word: str) -> list[int]:
        if word in _WRITTEN:
            return [self.ids[_WRITTEN[word]]]
        if word not in self._cache:
            if len(self._cache) > 100_000:
                self._cache.clear()
            parts = [self._byte[byte] for byte in word.encode("utf-8")]
            parts[-1] += "</w>"
            parts = merge(parts, self._rank)
            self._cache[word] = [self.ids[part] for part in parts]
        return self._cache[word]

    def _rank(self, a: str, b: str) -> tuple[float, str] | None:
        rank = self._ranks.get((a, b))
        return None if rank is None else (rank, a + b)


def _words(text: str) -> Iterator[str]:
    """Endings such as 's, runs of letters, single numbers, runs of other marks."""
    place = 0
    while place < len(text):
        char = text[place]
        special = next((mark for mark in _WRITTEN if text.startswith(mark, place)), None)
        ending = next((end for end in _ENDINGS if text.startswith(end, place)), None)
        ending = ending or ("'s" if text.startswith("'ſ", place) else None)  # the long s, whose capital is S too
        if char.isspace():
            place += 1
            continue
        kind = _kind(char)
        stop = place + 1
        if special or ending:
            stop = place + len(special or ending or "")
        elif kind != "N":
            while stop < len(text) and not text[stop].isspace() and _kind(text[stop]) == kind:
                stop += 1
        yield text[place:stop]
        place = stop


def _kind(char: str) -> str:
    kind = unicodedata.category(char)[0]
    return kind if kind in "LN" else "other"


def _read(path: Path) -> list[tuple[str, str]]:
    raw = path.read_bytes()
    try:
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                raw = file.read(_MAX_FILE + 1)
        if len(raw) > _MAX_FILE:
            raise ModelFileError(f"{path}: a vocabulary of more than {_MAX_FILE:,} bytes")
        lines = raw.decode("utf-8").rstrip("\n").split("\n")[1 : _MERGES + 1]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: not a vocabulary of CLIP: {str(error)[:100]}") from None
    merges = [tuple(line.split()) for line in lines]
    if not merges or any(len(pair) != 2 for pair in merges):
        bad = next((number for number, pair in enumerate(merges, 2) if len(pair) != 2), 1)
        raise ModelFileError(f"{path}: line {bad} must hold the two parts of a merge")
    return [(first, second) for first, second in merges]
