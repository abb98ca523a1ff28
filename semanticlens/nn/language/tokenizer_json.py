"""Tokenisers as the ``tokenizers`` package saves them (``tokenizer.json``), and GPT-2's two files.

A text is cut at the added tokens, each rest normalised, cut into words, each word cut into pieces by the model; marks
come before and after.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semanticlens._errors import ModelFileError, SemanticLensError
from semanticlens.nn.language import json_models, json_pipeline
from semanticlens.nn.language.json_pipeline import entry, flag, text
from semanticlens.nn.language.patterns import is_space
from semanticlens.nn.language.tokenizers import checked_text

__all__ = ["JsonTokenizer", "gpt2_files"]

MAX_ADDED = 1 << 13  # each is looked for at every place of a text
_END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class _Added:
    """A token that is looked for in the text itself."""

    content: str
    number: int
    special: bool
    normalized: bool
    left: bool
    right: bool
    alone: bool


class JsonTokenizer:
    """A tokeniser from ``tokenizer.json``: byte pairs (also of bytes, also with bytes for unknown characters), word pieces, unigrams.

    What the file says of padding and truncation is not followed.  Classes of characters (letters, numbers) are those of
    Python's Unicode version; characters that a newer or older version moved between classes may be cut otherwise.

    Parameters
    ----------
    source : path-like or bytes
        The file, or what is in it.
    marks : bool
        Whether :meth:`encode` puts the marks of the file's post-processor before and after.

    Raises
    ------
    ModelFileError
        If the file is damaged or contradicts itself; the message names the entry.
    UnsupportedOperationError
        If it holds a step that is not known here; the message names the entry and the step.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, *, marks: bool = True) -> None:
        self.source = source if isinstance(source, bytes) else _read(Path(source))
        where = "the tokeniser" if isinstance(source, bytes) else str(source)
        self.marks = marks
        try:
            self._build(json_models.parsed(self.source))
        except SemanticLensError as error:
            error.args = (f"{where}: {error.args[0]}",)
            raise

    def _build(self, whole: dict[str, Any]) -> None:
        self._normalize = json_pipeline.normalizer(whole.get("normalizer"))
        self._cut = json_pipeline.cutter(whole.get("pre_tokenizer"))
        self._before, self._after = json_pipeline.marks(whole.get("post_processor"))
        self._decode = json_pipeline.decoder(whole.get("decoder"))
        self._words, vocab = json_models.model(entry(whole.get("model"), "model"))
        added = [_added(one, i, vocab) for i, one in enumerate(_list(whole.get("added_tokens") or [], "added_tokens"))]
        self.ids: dict[str, int] = {**vocab, **{one.content: one.number for one in added}}
        self._tokens = {number: token for token, number in self.ids.items()}
        self.special = frozenset(one.number for one in added if one.special)
        self._raw = _finder([one for one in added if not one.normalized], lambda given: given)
        self._later = _finder([one for one in added if one.normalized], self._normalize)
        for number in (*self._before, *self._after):
            if number not in self._tokens:
                raise ModelFileError(f"post_processor: the id {number} belongs to no token")

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """The marks that come before and after a text."""
        return list(self._before), list(self._after)

    @property
    def tokens(self) -> list[str]:
        """Tokens by id; empty texts where no token has an id."""
        return [self._tokens.get(i, "") for i in range(max(self._tokens) + 1)]

    def encode(self, given: str) -> list[int]:
        """Ids, with the file's marks where they are asked for."""
        ids = self.pieces(given)
        return [*self._before, *ids, *self._after] if self.marks else ids

    def pieces(self, given: str) -> list[int]:
        """Ids of a text without marks."""
        result: list[int] = []
        first = True
        for part, token in _parts(self._raw, checked_text(given)):
            if token is not None:
                result.append(token.number)
            else:
                for piece, later in _parts(self._later, self._normalize(part)):
                    if later is not None:
                        result.append(later.number)
                    elif piece:
                        result += [number for word in self._cut(piece, first) if word for number in self._words(word)]
                    first = False
            first = False
        return result

    def decode(self, ids: Sequence[int]) -> str:
        """The text; special tokens are left out."""
        tokens = []
        for number in ids:
            if number not in self._tokens:
                raise ModelFileError(f"the id {number} belongs to no token")
            if number not in self.special:
                tokens.append(self._tokens[number])
        return "".join(self._decode(tokens))


def _read(path: Path) -> bytes:
    if path.stat().st_size > json_models.MAX_FILE:
        raise ModelFileError(f"{path}: a tokeniser of more than {json_models.MAX_FILE:,} bytes")
    return path.read_bytes()


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_ADDED:
        raise ModelFileError(f"{what} must be a list of at most {MAX_ADDED:,} entries")
    return value


def _added(value: Any, index: int, vocab: dict[str, int]) -> _Added:
    what = f"added_tokens.{index}"
    if not isinstance(value, dict):
        raise ModelFileError(f"{what} must be an object, not {str(value)[:60]!r}")
    content, number = text(value.get("content"), f"{what}.content"), value.get("id")
    if not content or isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < json_models.MAX_ID:
        raise ModelFileError(f"{what} has the content {content[:40]!r} and the id {str(number)[:40]}")
    if vocab.get(content, number) != number:
        raise ModelFileError(f"{what}: {content[:40]!r} has the id {number} here and {vocab[content]} in the vocabulary")
    special = flag(value, "special", False, what)
    return _Added(
        content,
        number,
        special,
        flag(value, "normalized", not special, what),
        flag(value, "lstrip", False, what),
        flag(value, "rstrip", False, what),
        flag(value, "single_word", False, what),
    )


Finder = tuple["re.Pattern[str]", dict[str, _Added]]


def _finder(tokens: Sequence[_Added], shown: json_pipeline.Normalize) -> Finder | None:
    """Finds the leftmost token, the longest of those that start there."""
    table: dict[str, _Added] = {}
    for one in tokens:
        content = shown(one.content)
        if content:
            table.setdefault(content, one)
    if not table:
        return None
    return re.compile("|".join(re.escape(content) for content in sorted(table, key=len, reverse=True))), table


def _parts(finder: Finder | None, given: str) -> Iterator[tuple[str, _Added | None]]:
    """The text between added tokens, and these."""
    place = 0
    for match in finder[0].finditer(given) if finder is not None else ():
        token = finder[1][match.group()]  # type: ignore[index]
        start, stop = match.span()
        if start < place or (token.alone and (_wordy(given, start - 1) or _wordy(given, stop))):
            continue
        while token.left and start > place and is_space(given[start - 1]):
            start -= 1
        while token.right and stop < len(given) and is_space(given[stop]):
            stop += 1
        if start > place:
            yield given[place:start], None
        yield given[start:stop], token
        place = stop
    if place < len(given):
        yield given[place:], None


def _wordy(given: str, place: int) -> bool:
    return 0 <= place < len(given) and (given[place].isalnum() or given[place] == "_")


def gpt2_files(vocab: bytes, merges: bytes) -> bytes:
    """``vocab.json`` and ``merges.txt`` of GPT-2 as one ``tokenizer.json``.

    Raises
    ------
    ModelFileError
        If they are not such files.
    """
    made = json_models.from_merges(vocab, merges)
    words = made["model"]["vocab"]
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    made["added_tokens"] = [{"id": words[_END_OF_TEXT], "content": _END_OF_TEXT, "special": True}] if _END_OF_TEXT in words else []
    return json_models.packed({**made, "pre_tokenizer": level, "decoder": level})
