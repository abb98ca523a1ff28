"""SentencePiece models (``.model`` files): a small reader of their protocol buffer, and both kinds of segmentation.

The message is ModelProto of the SentencePiece project: pieces (1) with text (1), score (2) and type (3); the trainer's
settings (2), of which the kind of model (3), the side of spaces (24), bytes for unknown characters (35) and the ids of
unknown, begin, end and padding (40 to 43) matter; the normaliser's (3): a map of characters (2), a leading space (3),
removal of doubled spaces (4) and the mark for spaces (5).  Kudo, Subword Regularization, ACL 2018 (unigram); Sennrich et
al., Neural Machine Translation of Rare Words with Subword Units, ACL 2016 (byte pairs).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens.nn.language.charsmap import CharsMap
from semanticlens.nn.language.merges import merge
from semanticlens.nn.language.tokenizers import MAX_TOKENS, checked_text

__all__ = ["SentencePiece", "Unigram", "read_model"]

MAX_FILE = 128 << 20
MAX_PIECE = 512  # bytes of one piece
_HEAD = 16  # characters of a piece by which most that do not fit are told apart
SPACE = "\u2581"
NORMAL, UNKNOWN, CONTROL, DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_KINDS = {1: "unigram", 2: "bpe"}


@dataclass(frozen=True)
class Model:
    """What the file says."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    kind: str = "unigram"
    byte_fallback: bool = False
    unknown: int = 0
    begin: int = 1
    end: int = 2
    pad: int = -1
    charsmap: bytes = b""
    dummy_prefix: bool = True
    remove_spaces: bool = True
    escape_spaces: bool = True
    unknown_text: str = " \u2047 "


# ---------------------------------------------------------------- the protocol buffer


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ModelFileError("it ends inside a number")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, place
    raise ModelFileError("a number of more than ten bytes")


def _fields(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field, wire type, value or start, stop) of a message; sub-messages and texts as their place in the file."""
    while place < end:
        key, place = _varint(data, place, end)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ModelFileError("a field of number 0")
        if wire == 0:
            value, place = _varint(data, place, end)
            yield number, wire, value, place
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if place + size > end:
                raise ModelFileError(f"it ends inside field {number}")
            yield number, wire, place, place + size
            place += size
        elif wire == 2:
            size, place = _varint(data, place, end)
            if size > end - place:
                raise ModelFileError(f"field {number} claims {size:,} bytes, {end - place:,} are left")
            yield number, wire, place, place + size
            place += size
        else:
            raise ModelFileError(f"field {number} has the wire type {wire}, which this format does not use")


def _want(number: int, wire: int, expected: int) -> None:
    if wire != expected:
        raise ModelFileError(f"field {number} has the wire type {wire} instead of {expected}")


def _signed(value: int) -> int:
    """An int32, which negative numbers fill up to 64 bits."""
    value = value - (1 << 64) if value >= 1 << 63 else value
    if not -(1 << 31) <= value < 1 << 31:
        raise ModelFileError(f"the number {value} does not fit into 32 bits")
    return value


def _piece(data: bytes, start: int, stop: int, index: int) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, wire, value, end in _fields(data, start, stop):
        if number == 1:
            _want(number, wire, 2)
            if end - value > MAX_PIECE:
                raise ModelFileError(f"piece {index} of {end - value:,} bytes; at most {MAX_PIECE:,} are read")
            try:
                text = data[value:end].decode("utf-8")
            except UnicodeDecodeError:
                raise ModelFileError(f"piece {index} is no UTF-8") from None
        elif number == 2:
            _want(number, wire, 5)
            score = struct.unpack_from("<f", data, value)[0]
        elif number == 3:
            _want(number, wire, 0)
            kind = value
    if not text or not math.isfinite(score) or not NORMAL <= kind <= BYTE:
        raise ModelFileError(f"piece {index} is {text[:20]!r} with the score {score} and the type {kind}")
    return text, score, kind


def _settings(data: bytes, start: int, stop: int, wanted: dict[int, tuple[str, int]]) -> dict[str, int | bytes]:
    """Settings by name: wanted maps a field to its name and wire type."""
    result: dict[str, int | bytes] = {}
    for number, wire, value, end in _fields(data, start, stop):
        if number in wanted:
            name, expected = wanted[number]
            _want(number, wire, expected)
            result[name] = data[value:end] if expected == 2 else _signed(value)
    return result


_TRAINER = {
    3: ("kind", 0),
    24: ("suffix", 0),
    35: ("byte_fallback", 0),
    40: ("unknown", 0),
    41: ("begin", 0),
    42: ("end", 0),
    43: ("pad", 0),
    44: ("unknown_text", 2),
}
_NORMALIZER = {2: ("charsmap", 2), 3: ("dummy_prefix", 0), 4: ("remove_spaces", 0), 5: ("escape_spaces", 0)}


def read_model(data: bytes) -> Model:
    """The message of a ``.model`` file.  Whatever the bytes, the result is a Model or an error that says what is wrong.

    Raises
    ------
    ModelFileError
        If the bytes are no such message, or its pieces contradict each other.
    UnsupportedOperationError
        If the model is of a kind that is not known here (words, characters, spaces behind words).
    """
    if len(data) > MAX_FILE:
        raise ModelFileError(f"a model of {len(data):,} bytes; at most {MAX_FILE:,} are read")
    pieces: list[tuple[str, float, int]] = []
    found: dict[str, int | bytes] = {}
    for number, wire, value, end in _fields(data, 0, len(data)):
        if number in (1, 2, 3):
            _want(number, wire, 2)
        if number == 1:
            if len(pieces) == MAX_TOKENS:
                raise ModelFileError(f"more than {MAX_TOKENS:,} pieces")
            pieces.append(_piece(data, value, end, len(pieces)))
        elif number in (2, 3):
            found.update(_settings(data, value, end, _TRAINER if number == 2 else _NORMALIZER))
    if not pieces:
        raise ModelFileError("it holds no pieces; it is empty or not a SentencePiece model")
    return _checked(pieces, found)


def _checked(pieces: list[tuple[str, float, int]], found: dict[str, int | bytes]) -> Model:
    texts, scores, types = zip(*pieces, strict=True)
    if len(set(texts)) != len(texts):
        raise ModelFileError("a piece occurs twice")
    kind = found.pop("kind", 1)
    if kind not in _KINDS:
        raise UnsupportedOperationError(f"trainer_spec.model_type={kind!r} is not known here; known are unigram (1) and bpe (2)")
    if found.pop("suffix", 0):
        raise UnsupportedOperationError("trainer_spec.treat_whitespace_as_suffix is not known here")
    if not found.get("escape_spaces", 1):
        raise UnsupportedOperationError("normalizer_spec.escape_whitespaces=false is not known here")
    unknown = [i for i, one in enumerate(types) if one == UNKNOWN]
    if len(unknown) != 1:
        raise ModelFileError(f"{len(unknown)} pieces are of the type 'unknown'; there must be one")
    for piece, one in zip(texts, types, strict=True):
        if one == BYTE and _byte_of(piece) is None:
            raise ModelFileError(f"the piece {piece[:20]!r} is of the type 'byte' and names none")
    if found.get("byte_fallback") and sum(one == BYTE for one in types) != 256:
        raise ModelFileError("bytes stand in for unknown characters, but there are not 256 pieces for them")
    settings: dict[str, object] = {}
    for name, usual in (("begin", 1), ("end", 2), ("pad", -1)):
        if name not in found:
            settings[name] = usual if usual < len(texts) else -1
        else:
            settings[name] = number = int(found[name])
            if not -1 <= number < len(texts):
                raise ModelFileError(f"{name}_id={number} is none of the {len(texts)} pieces")
    for name in ("byte_fallback", "dummy_prefix", "remove_spaces", "escape_spaces"):
        if name in found:
            settings[name] = bool(found[name])
    if "unknown_text" in found:
        settings["unknown_text"] = bytes(found["unknown_text"]).decode("utf-8", errors="replace")
    settings["charsmap"] = found.get("charsmap", b"")
    return Model(texts, scores, types, _KINDS[int(kind)], unknown=unknown[0], **settings)  # type: ignore[arg-type]


def _byte_of(piece: str) -> int | None:
    """The byte that ``<0x41>`` names."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        try:
            return int(piece[3:5], 16)
        except ValueError:
            return None
    return None


# ---------------------------------------------------------------- segmentation


class Unigram:
    """The segmentation of highest probability: the sum of the scores of its pieces.

    Parameters
    ----------
    pieces, scores : sequences
        Those that may be used, with their ids in ``ids``.
    unknown : int
        The id of characters that no piece begins with; each costs 10 more than the least likely piece.
    defined : set of int
        Ids whose pieces win over any other.
    single : bool
        Whether sums are rounded to float32, which decides between segmentations of nearly equal scores.
    """

    def __init__(
        self,
        pieces: dict[str, int],
        scores: Sequence[float],
        unknown: int,
        defined: frozenset[int] = frozenset(),
        *,
        single: bool = True,
    ) -> None:
        self._round: Callable[[float], float] = _single if single else float
        self.pieces, self.scores, self.unknown, self.defined = pieces, scores, unknown, defined
        used = [scores[i] for i in pieces.values() if i not in defined] or [0.0]
        self.low, self.high = self._round(min(used) - 10.0), max(0.0, *used)  # that project's highest score is never below 0
        self.longest = max(map(len, pieces), default=0)
        self.prefixes = {piece[:n] for piece in pieces for n in range(1, min(len(piece), _HEAD) + 1)}

    def __call__(self, text: str) -> list[tuple[str, int]]:
        """Pieces and their ids; unknown characters one by one."""
        count = len(text)
        best = [0.0] * (count + 1)
        came: list[tuple[int, int] | None] = [None] * (count + 1)
        for start in range(count):
            here, alone = best[start], False
            for stop in range(start + 1, min(start + self.longest, count) + 1):
                piece = text[start:stop]
                if stop - start <= _HEAD and piece not in self.prefixes:
                    break
                number = self.pieces.get(piece)
                if number is None:
                    continue
                score = self.scores[number]
                if number in self.defined:
                    score = self._round(len(piece.encode()) * self.high - 0.1)
                candidate = self._round(score + here)
                if came[stop] is None or candidate > best[stop]:
                    best[stop], came[stop] = candidate, (start, number)
                alone = alone or stop == start + 1
            if not alone:
                candidate = self._round(self.low + here)
                if came[start + 1] is None or candidate > best[start + 1]:
                    best[start + 1], came[start + 1] = candidate, (start, self.unknown)
        result, stop = [], count
        while stop:
            step = came[stop]
            assert step is not None  # every place is reached: a character alone is a piece or unknown
            result.append((text[step[0] : stop], step[1]))
            stop = step[0]
        return result[::-1]


_SLOT = struct.Struct("<f")


def _single(value: float) -> float:
    """Rounded to float32."""
    try:
        result: float = _SLOT.unpack(_SLOT.pack(value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return result


class SentencePiece:
    """A tokeniser from a ``.model`` file.

    Parameters
    ----------
    source : path-like or bytes
        The file, or what is in it.
    begin, end : bool
        Whether :meth:`encode` puts the model's marks before and after.

    Raises
    ------
    ModelFileError, UnsupportedOperationError
        If the file is damaged or of an unknown kind.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, *, begin: bool = False, end: bool = False) -> None:
        where = "the model" if isinstance(source, bytes) else str(source)
        self.source = source if isinstance(source, bytes) else Path(source).read_bytes()
        try:
            self.model = model = read_model(self.source)
            self._map = CharsMap(model.charsmap) if model.charsmap else None
        except (ModelFileError, UnsupportedOperationError) as error:
            error.args = (f"{where}: not a SentencePiece model that can be read: {error.args[0]}",)
            raise
        self.begin, self.end = begin and model.begin >= 0, end and model.end >= 0
        self.tokens = list(model.pieces)
        self.ids = {piece: number for number, piece in enumerate(model.pieces)}
        usable = (NORMAL, DEFINED, UNUSED)
        self._usable = {piece: i for i, piece in enumerate(model.pieces) if model.types[i] in usable}
        self._defined = {piece for i, piece in enumerate(model.pieces) if model.types[i] == DEFINED}
        self._longest = max(map(len, self._defined), default=0)
        self._bytes = {_byte_of(p): i for i, p in enumerate(model.pieces) if model.types[i] == BYTE}
        known = {piece: i for piece, i in self._usable.items() if model.types[i] != UNUSED}
        defined = frozenset(self._usable[piece] for piece in self._defined)
        self._unigram = Unigram(known, model.scores, model.unknown, defined) if model.kind == "unigram" else None

    def encode(self, text: str) -> list[int]:
        """Ids, with the marks that were asked for."""
        ids = self.pieces(text)
        return [*([self.model.begin] if self.begin else []), *ids, *([self.model.end] if self.end else [])]

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without marks: unknown characters as bytes, where the model has them, runs of them as one id otherwise."""
        clean = self.normalize(checked_text(text).encode("utf-8", "replace").decode("utf-8"))
        result: list[int] = []
        before = False
        for piece, number in self._unigram(clean) if self._unigram is not None else self._merged(clean):
            unknown = number == self.model.unknown
            if unknown and self.model.byte_fallback:
                result += [self._bytes[byte] for byte in piece.encode()]
            elif not (unknown and before):
                result.append(number)
            before = unknown
        return result

    def normalize(self, text: str) -> str:
        """The text as it is cut: characters mapped, spaces collapsed and marked."""
        model, place = self.model, 0
        parts: list[str] = []
        if model.remove_spaces:
            while place < len(text):
                mapped, stop = self._prefix(text, place)
                if mapped != " ":
                    break
                place = stop
        if place == len(text):
            return ""
        space = model.remove_spaces
        while place < len(text):
            mapped, place = self._prefix(text, place)
            if space:
                mapped = mapped.lstrip(" ")
            if mapped:
                parts.append(mapped)
                space = model.remove_spaces and mapped.endswith(" ")
        whole = "".join(parts).replace(" ", SPACE)
        if model.dummy_prefix:
            whole = SPACE + whole
        return whole.rstrip(SPACE) if model.remove_spaces else whole

    def _prefix(self, text: str, place: int) -> tuple[str, int]:
        """What the next characters become, and where the ones behind them start."""
        defined = self._defined_at(text, place)
        if defined:
            return defined, place + len(defined)
        if self._map is not None:
            return self._map.longest(text, place)
        return text[place], place + 1

    def _defined_at(self, text: str, place: int) -> str:
        for size in range(min(self._longest, len(text) - place), 0, -1):
            if text[place : place + size] in self._defined:
                return text[place : place + size]
        return ""

    def _merged(self, text: str) -> list[tuple[str, int]]:
        """Byte pairs; a piece that is marked as unused falls back into the two it was made of."""
        parts: list[tuple[str, bool]] = []
        place = 0
        while place < len(text):
            defined = self._defined_at(text, place)
            parts.append((defined or text[place], bool(defined)))
            place += len(defined) or 1
        made: dict[str, tuple[str, str]] = {}

        def rank(a: tuple[str, bool], b: tuple[str, bool]) -> tuple[float, tuple[str, bool]] | None:
            number = None if a[1] or b[1] else self._usable.get(a[0] + b[0])
            if number is None:
                return None
            if self.model.types[number] == UNUSED:
                made[a[0] + b[0]] = a[0], b[0]
            return -self.model.scores[number], (a[0] + b[0], False)

        result: list[tuple[str, int]] = []
        waiting = [piece for piece, _ in merge(parts, rank)][::-1]
        while waiting:
            piece = waiting.pop()
            number = self._usable.get(piece, self.model.unknown)
            if self.model.types[number] == UNUSED and piece in made:
                waiting += made[piece][::-1]
            else:
                result.append((piece, number))
        return result

    def decode(self, ids: Sequence[int]) -> str:
        """The text: marks left out, bytes joined (those that are no UTF-8 become �), the leading space removed."""
        model, result, pending, marked = self.model, "", b"", False
        for number in [*ids, None]:
            if number is not None and not 0 <= number < len(self.tokens):
                raise ModelFileError(f"the id {number} is none of the {len(self.tokens)} pieces")
            if number is not None and model.types[number] == BYTE:
                pending += bytes([_byte_of(self.tokens[number]) or 0])
                continue
            result, pending = result + _text_of(pending), b""
            if number is None:
                break
            first = not marked and not result
            marked = False
            if model.types[number] == CONTROL:
                continue
            if model.types[number] == UNKNOWN:
                result += model.unknown_text
                continue
            piece = self.tokens[number]
            if first and (model.dummy_prefix or model.remove_spaces) and piece.startswith(SPACE):
                piece, marked = piece[1:], not model.remove_spaces
            result += piece.replace(SPACE, " ")
        return result


def _text_of(raw: bytes) -> str:
    """UTF-8, with one � for each byte that is none."""
    result, place = "", 0
    while place < len(raw):
        for size in (1, 2, 3, 4):
            try:
                result += raw[place : place + size].decode("utf-8")
            except UnicodeDecodeError:
                continue
            place += size
            break
        else:
            result, place = result + "\ufffd", place + 1
    return result
