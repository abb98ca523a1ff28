"""The models of a ``tokenizer.json``: from a word to the ids of its pieces."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens.nn.language.json_pipeline import Entry, flag, text
from semanticlens.nn.language.merges import merge
from semanticlens.nn.language.sentencepiece import Unigram
from semanticlens.nn.language.tokenizers import MAX_TOKENS

__all__ = ["MAX_FILE", "MAX_ID", "Words", "from_merges", "model", "packed", "parsed", "vocabulary"]

Words = Callable[[str], "list[int]"]
MAX_ID, MAX_FILE = 1 << 24, 256 << 20
_KEPT = 100_000  # words whose pieces are remembered
_SHORT = 64  # characters of a word that is remembered


def model(item: Entry) -> tuple[Words, dict[str, int]]:
    """How words become ids, and the vocabulary.

    Raises
    ------
    ModelFileError
        If the entry contradicts itself.
    UnsupportedOperationError
        If it is of a type that is not known here; the message names it.
    """
    kind = item["type"]
    if kind == "BPE":
        return _bpe(item)
    if kind == "WordPiece":
        return _word_pieces(item)
    if kind == "Unigram":
        return _unigram(item)
    raise UnsupportedOperationError(f"model of the type {kind[:60]!r} is not known here; known are BPE, WordPiece, Unigram")


def vocabulary(value: Any, what: str = "model.vocab") -> dict[str, int]:
    """Tokens with their ids, each id once."""
    if not isinstance(value, dict) or not 1 <= len(value) <= MAX_TOKENS:
        raise ModelFileError(f"{what} must be an object of 1 to {MAX_TOKENS:,} tokens")
    for token, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MAX_ID:
            raise ModelFileError(f"{what}: the token {token[:40]!r} has the id {str(number)[:40]}")
    if len(set(value.values())) != len(value):
        raise ModelFileError(f"{what}: an id belongs to two tokens")
    return value


def _pairs(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list) or len(value) > MAX_TOKENS:
        raise ModelFileError(f"model.merges must be a list of at most {MAX_TOKENS:,} pairs")
    result = []
    for number, one in enumerate(value):
        parts = one.split(" ") if isinstance(one, str) else one
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise ModelFileError(f"model.merges: entry {number} must be a pair of tokens, not {str(one)[:60]!r}")
        result.append((parts[0], parts[1]))
    return result


def _known_id(name: Any, vocab: dict[str, int], what: str) -> int | None:
    if name is None:
        return None
    number = vocab.get(text(name, what))
    if number is None:
        raise ModelFileError(f"{what} is {name[:40]!r}, which is not in the vocabulary")
    return number


def _bpe(item: Entry) -> tuple[Words, dict[str, int]]:
    vocab = vocabulary(item.get("vocab"))
    if item.get("dropout"):
        raise UnsupportedOperationError(f"model.dropout={str(item['dropout'])[:40]} draws lots, which is not known here")
    prefix = text(item.get("continuing_subword_prefix") or "", "model.continuing_subword_prefix")
    suffix = text(item.get("end_of_word_suffix") or "", "model.end_of_word_suffix")
    unknown = vocab.get(item["unk_token"]) if isinstance(item.get("unk_token"), str) else None
    fuse, whole = flag(item, "fuse_unk", False, "model"), flag(item, "ignore_merges", False, "model")
    fallback = flag(item, "byte_fallback", False, "model")
    ranks: dict[tuple[int, int], tuple[float, int]] = {}
    for rank, (a, b) in enumerate(_pairs(item.get("merges"))):
        union = vocab.get(a + b.removeprefix(prefix) if prefix else a + b)
        if a not in vocab or b not in vocab or union is None:
            raise ModelFileError(f"model.merges: entry {rank} joins {a[:30]!r} and {b[:30]!r}, which are not all in the vocabulary")
        ranks.setdefault((vocab[a], vocab[b]), (rank, union))
    codes = [vocab.get(f"<0x{byte:02X}>") for byte in range(256)] if fallback else []

    def letters(word: str) -> list[int]:
        ids: list[int] = []
        before = False
        for i, char in enumerate(word):
            piece = (prefix if i else "") + char + (suffix if i == len(word) - 1 else "")
            number = vocab.get(piece)
            if number is not None:
                ids.append(number)
                before = False
                continue
            as_bytes = [codes[byte] for byte in piece.encode("utf-8", "replace")] if fallback else [None]
            if None not in as_bytes:
                ids += as_bytes  # type: ignore[arg-type]
            elif unknown is not None and not (fuse and before):
                ids.append(unknown)
                before = True
        return ids

    def pieces(word: str) -> list[int]:
        if whole and word in vocab:
            return [vocab[word]]
        return merge(letters(word), lambda a, b: ranks.get((a, b)))

    return _remembered(pieces), vocab


def _remembered(pieces: Words) -> Words:
    kept: dict[str, list[int]] = {}

    def run(word: str) -> list[int]:
        found = kept.get(word)
        if found is None:
            found = pieces(word)
            if len(word) <= _SHORT:
                if len(kept) >= _KEPT:
                    kept.clear()
                kept[word] = found
        return found

    return run


def _word_pieces(item: Entry) -> tuple[Words, dict[str, int]]:
    vocab = vocabulary(item.get("vocab"))
    prefix = text(item.get("continuing_subword_prefix", "##"), "model.continuing_subword_prefix")
    unknown = _known_id(item.get("unk_token", "[UNK]"), vocab, "model.unk_token")
    most = item.get("max_input_chars_per_word", 100)
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 10_000:
        raise ModelFileError(f"model.max_input_chars_per_word must be from 1 to 10,000, not {str(most)[:40]}")
    given_up = [] if unknown is None else [unknown]

    def pieces(word: str) -> list[int]:
        if len(word) > most:
            return given_up
        result, start = [], 0
        while start < len(word):
            for stop in range(len(word), start, -1):
                number = vocab.get((prefix if start else "") + word[start:stop])
                if number is not None:
                    break
            else:
                return given_up
            result.append(number)
            start = stop
        return result

    return _remembered(pieces), vocab


def _unigram(item: Entry) -> tuple[Words, dict[str, int]]:
    rows = item.get("vocab")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_TOKENS:
        raise ModelFileError(f"model.vocab must be a list of 1 to {MAX_TOKENS:,} pieces with their scores")
    vocab: dict[str, int] = {}
    scores: list[float] = []
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], str) or len(row[0]) > 4096:
            raise ModelFileError(f"model.vocab: entry {number} must be a piece and its score, not {str(row)[:60]!r}")
        if isinstance(row[1], bool) or not isinstance(row[1], (int, float)) or not math.isfinite(row[1]) or abs(row[1]) > 1e30:
            raise ModelFileError(f"model.vocab: piece {number} has the score {str(row[1])[:40]}")
        vocab.setdefault(row[0], number)
        scores.append(float(row[1]))
    unknown = item.get("unk_id")
    if isinstance(unknown, bool) or not isinstance(unknown, int) or not 0 <= unknown < len(rows):
        raise ModelFileError(f"model.unk_id must be the id of one of the {len(rows)} pieces, not {str(unknown)[:40]}")
    fallback = flag(item, "byte_fallback", False, "model")
    codes = [vocab.get(f"<0x{byte:02X}>") for byte in range(256)] if fallback else [None]
    best = Unigram({piece: i for piece, i in vocab.items() if piece}, scores, unknown, single=False)

    def pieces(word: str) -> list[int]:
        result: list[int] = []
        before = False
        for piece, number in best(word):
            if number != unknown:
                result.append(number)
            elif None not in codes:
                result += [codes[byte] for byte in piece.encode("utf-8", "replace")]  # type: ignore[misc]
            elif not before:
                result.append(number)
            before = number == unknown
        return result

    return _remembered(pieces), vocab


def parsed(source: bytes) -> dict[str, Any]:
    """The object of a file."""
    if len(source) > MAX_FILE:
        raise ModelFileError(f"a tokeniser of more than {MAX_FILE:,} bytes")
    try:
        whole = json.loads(source.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"not valid JSON: {str(error)[:120]}") from None
    if not isinstance(whole, dict):
        raise ModelFileError(f"a tokeniser must be an object, not {type(whole).__name__}")
    return whole


def from_merges(vocab: bytes, merges: bytes) -> dict[str, Any]:
    """The beginnings of a ``tokenizer.json`` from ``vocab.json`` and ``merges.txt``."""
    words = vocabulary(parsed(vocab), "vocab.json")
    try:
        lines = merges.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ModelFileError(f"merges.txt must be UTF-8 text ({error.reason} at byte {error.start})") from None
    pairs = [line.rstrip("\r") for i, line in enumerate(lines) if line.strip() and not (i == 0 and line.startswith("#version"))]
    return {"model": {"type": "BPE", "vocab": words, "merges": pairs}}


def packed(made: dict[str, Any]) -> bytes:
    """A ``tokenizer.json`` as it is saved."""
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()
