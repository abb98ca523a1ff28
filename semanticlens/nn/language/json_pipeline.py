"""The steps of a ``tokenizer.json``: normalisers, cutters, marks and decoders, each made from its entry in the file.

An entry that is not known is an error that names it; none is left out silently.  What the file says of padding and
truncation is not followed: a text is always given whole.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from semanticlens._errors import ModelFileError, UnsupportedOperationError
from semanticlens.nn.language.charsmap import CharsMap
from semanticlens.nn.language.merges import byte_letters
from semanticlens.nn.language.patterns import GPT2, compiled, is_space
from semanticlens.nn.language.tokenizers import is_chinese, is_control, is_punctuation

__all__ = ["Cut", "Decode", "Entry", "Normalize", "cutter", "decoder", "entry", "marks", "normalizer"]

Entry = Mapping[str, Any]
Normalize = Callable[[str], str]
Cut = Callable[[str, bool], "list[str]"]  # the text, and whether it is the beginning of the whole
Decode = Callable[["list[str]"], "list[str]"]
MAX_STEPS = 64
_LETTERS = byte_letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}


def entry(value: Any, what: str) -> Entry:
    """An object of the file that has a type."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ModelFileError(f"{what} must be an object with a type, not {str(value)[:60]!r}")
    return value


def text(value: Any, what: str) -> str:
    """A text of a length that makes sense here."""
    if not isinstance(value, str) or len(value) > 4096:
        raise ModelFileError(f"{what} must be a text of at most 4096 characters, not {str(value)[:60]!r}")
    return value


def flag(item: Entry, name: str, default: bool, what: str) -> bool:
    """A truth value of an entry."""
    value = item.get(name, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ModelFileError(f"{what}.{name} must be true or false, not {str(value)[:60]!r}")
    return value


def _steps(item: Entry, name: str, what: str) -> list[Any]:
    steps = item.get(name)
    if not isinstance(steps, list) or len(steps) > MAX_STEPS:
        raise ModelFileError(f"{what}.{name} must be a list of at most {MAX_STEPS} entries")
    return steps


def _unknown(item: Entry, what: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(f"{what} of the type {item['type'][:60]!r} is not known here")


def _pattern(item: Entry, what: str) -> re.Pattern[str]:
    """The text or the known regular expression that an entry looks for."""
    pattern = item.get("pattern")
    if not isinstance(pattern, dict) or len(pattern) != 1:
        raise ModelFileError(f"{what}.pattern must hold a String or a Regex, not {str(pattern)[:60]!r}")
    if "String" in pattern:
        wanted = text(pattern["String"], f"{what}.pattern")
        if not wanted:
            raise ModelFileError(f"{what}.pattern is empty")
        return re.compile(re.escape(wanted))
    return compiled(text(pattern.get("Regex"), f"{what}.pattern"), f"{what}.pattern")


# ---------------------------------------------------------------- normalisers


def normalizer(value: Any, what: str = "normalizer", depth: int = 0) -> Normalize:
    """What is done with a text before it is cut."""
    if value is None:
        return lambda given: given
    item = entry(value, what)
    kind = item["type"]
    if kind == "Sequence":
        if depth > 4:
            raise ModelFileError(f"{what} is nested too deeply")
        steps = [normalizer(one, f"{what}.{i}", depth + 1) for i, one in enumerate(_steps(item, "normalizers", what))]
        return lambda given: _through(steps, given)
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return lambda given: unicodedata.normalize(kind, given)
    if kind == "Lowercase":
        return _lower
    if kind == "StripAccents":
        return lambda given: "".join(c for c in given if unicodedata.category(c)[0] != "M")
    if kind == "Prepend":
        first = text(item.get("prepend"), f"{what}.prepend")
        return lambda given: first + given if given else given
    if kind == "Replace":
        pattern, content = _pattern(item, what), text(item.get("content"), f"{what}.content")
        return lambda given: pattern.sub(lambda _: content, given)
    if kind == "Strip":
        left, right = flag(item, "strip_left", True, what), flag(item, "strip_right", True, what)
        return lambda given: _stripped(given, left, right)
    if kind == "BertNormalizer":
        return _bert(item, what)
    if kind == "Precompiled":
        return _precompiled(item, what)
    raise _unknown(item, what)


def _through(steps: Sequence[Normalize], given: str) -> str:
    for step in steps:
        given = step(given)
    return given


def _lower(given: str) -> str:
    """Letter by letter, so that no letter depends on its neighbours."""
    return "".join(char.lower() for char in given)


def _stripped(given: str, left: bool, right: bool) -> str:
    start, stop = 0, len(given)
    while left and start < stop and is_space(given[start]):
        start += 1
    while right and stop > start and is_space(given[stop - 1]):
        stop -= 1
    return given[start:stop]


def _bert(item: Entry, what: str) -> Normalize:
    clean, chinese = flag(item, "clean_text", True, what), flag(item, "handle_chinese_chars", True, what)
    lower = flag(item, "lowercase", True, what)
    accents = flag(item, "strip_accents", lower, what)

    def run(given: str) -> str:
        if clean:
            given = "".join(" " if is_space(char) else char for char in given if not is_control(char))
        if chinese:
            given = "".join(f" {char} " if is_chinese(char) else char for char in given)
        if accents:
            given = "".join(c for c in unicodedata.normalize("NFD", given) if unicodedata.category(c) != "Mn")
        return _lower(given) if lower else given

    return run


def _precompiled(item: Entry, what: str) -> Normalize:
    raw = item.get("precompiled_charsmap")
    if not isinstance(raw, str):
        raise ModelFileError(f"{what}.precompiled_charsmap must be a text")
    try:
        data = base64.b64decode(raw, validate=True)
    except ValueError:
        raise ModelFileError(f"{what}.precompiled_charsmap is not written in base64") from None
    if not data:
        return lambda given: given
    table = CharsMap(data)

    def run(given: str) -> str:
        parts, place = [], 0
        while place < len(given):
            part, place = table.longest(given, place)
            parts.append(part)
        return "".join(parts)

    return run


# ---------------------------------------------------------------- cutters


def cutter(value: Any, what: str = "pre_tokenizer", depth: int = 0) -> Cut:
    """How a text is cut into words."""
    if value is None:
        return lambda given, first: [given]
    item = entry(value, what)
    kind = item["type"]
    if kind == "Sequence":
        if depth > 4:
            raise ModelFileError(f"{what} is nested too deeply")
        steps = [cutter(one, f"{what}.{i}", depth + 1) for i, one in enumerate(_steps(item, "pretokenizers", what))]
        return lambda given, first: _cut_through(steps, given, first)
    if kind == "ByteLevel":
        return _byte_level(item, what)
    if kind == "Metaspace":
        return _metaspace(item, what)
    if kind == "Split":
        pattern, invert = _pattern(item, what), flag(item, "invert", False, what)
        behaviour = _behaviour(item, what)
        return lambda given, first: _split(pattern, given, behaviour, invert)
    if kind == "Digits":
        alone = flag(item, "individual_digits", False, what)
        return lambda given, first: _digits(given, alone)
    if kind == "Punctuation":
        behaviour = _behaviour(item, what)
        return lambda given, first: _marked(given, behaviour, is_punctuation)
    if kind == "WhitespaceSplit":
        return lambda given, first: _marked(given, "Removed", is_space)
    if kind == "BertPreTokenizer":
        return lambda given, first: [
            part for word in _marked(given, "Removed", is_space) for part in _marked(word, "Isolated", is_punctuation)
        ]
    raise _unknown(item, what)


_BEHAVIOURS = ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext")


def _behaviour(item: Entry, what: str) -> str:
    given = item.get("behavior", "Isolated")
    if given not in _BEHAVIOURS:
        raise UnsupportedOperationError(f"{what}.behavior={str(given)[:60]!r} is not known here; known are {', '.join(_BEHAVIOURS)}")
    return str(given)


def _cut_through(steps: Sequence[Cut], given: str, first: bool) -> list[str]:
    parts = [given]
    for step in steps:
        parts = [new for n, part in enumerate(parts) for new in (step(part, first and n == 0) if part else [""])]
    return parts


def _pieces(pattern: re.Pattern[str], given: str) -> Iterator[tuple[str, bool]]:
    """Matches, and what lies between them."""
    place = 0
    for match in pattern.finditer(given):
        if match.start() > place:
            yield given[place : match.start()], False
        if match.end() > match.start():
            yield match.group(), True
        place = match.end()
    if place < len(given):
        yield given[place:], False


def _split(pattern: re.Pattern[str], given: str, behaviour: str, invert: bool) -> list[str]:
    return _arranged([(part, hit != invert) for part, hit in _pieces(pattern, given)], behaviour)


def _arranged(parts: Sequence[tuple[str, bool]], behaviour: str) -> list[str]:
    """Delimiters (hits) kept alone, left out (an empty text shows where one was), or joined to a neighbour that is none."""
    if behaviour == "Isolated":
        return [part for part, _ in parts]
    if behaviour == "Removed":
        return ["" if hit else part for part, hit in parts]
    backwards = behaviour == "MergedWithNext"
    result: list[str] = []
    before = True
    for part, hit in reversed(parts) if backwards else parts:
        if hit and not before:
            result[-1] = part + result[-1] if backwards else result[-1] + part
        else:
            result.append(part)
        before = hit
    return result[::-1] if backwards else result


def _marked(given: str, behaviour: str, mark: Callable[[str], bool]) -> list[str]:
    parts: list[tuple[str, bool]] = []
    for char in given:
        hit = mark(char)
        if parts and not hit and not parts[-1][1]:
            parts[-1] = parts[-1][0] + char, False
        else:
            parts.append((char, hit))
    return _arranged(parts, behaviour)


def _digits(given: str, alone: bool) -> list[str]:
    parts: list[str] = []
    before: bool | None = None
    for char in given:
        digit = unicodedata.category(char)[0] == "N"
        if digit == before and not (digit and alone):
            parts[-1] += char
        else:
            parts.append(char)
        before = digit
    return parts


def _byte_level(item: Entry, what: str) -> Cut:
    space, words = flag(item, "add_prefix_space", True, what), flag(item, "use_regex", True, what)

    def run(given: str, first: bool) -> list[str]:
        if space and not given.startswith(" "):
            given = " " + given
        parts = [part for part, _ in _pieces(compiled(GPT2), given)] if words else [given]
        return ["".join(_LETTERS[byte] for byte in part.encode("utf-8", "replace")) for part in parts]

    return run


def metaspace(item: Entry, what: str) -> tuple[str, str]:
    """The mark for spaces, and when one is put before a text: "always", "first" or "never"."""
    mark = text(item.get("replacement", "\u2581"), f"{what}.replacement")
    if len(mark) != 1:
        raise ModelFileError(f"{what}.replacement must be one character, not {mark[:20]!r}")
    scheme = item.get("prepend_scheme", "always" if flag(item, "add_prefix_space", True, what) else "never")
    if scheme not in ("always", "first", "never"):
        raise UnsupportedOperationError(f"{what}.prepend_scheme={str(scheme)[:60]!r} is not known here")
    return mark, str(scheme)


def _metaspace(item: Entry, what: str) -> Cut:
    mark, scheme = metaspace(item, what)
    apart = flag(item, "split", True, what)
    between = re.compile(re.escape(mark))

    def run(given: str, first: bool) -> list[str]:
        given = given.replace(" ", mark)
        if not given.startswith(mark) and (scheme == "always" or (scheme == "first" and first)):
            given = mark + given
        return _split(between, given, "MergedWithNext", False) if apart else [given]

    return run


# ---------------------------------------------------------------- marks before and after a text


def marks(value: Any, what: str = "post_processor", depth: int = 0) -> tuple[list[int], list[int]]:
    """Ids before and after a text."""
    if value is None:
        return [], []
    item = entry(value, what)
    kind = item["type"]
    if kind == "ByteLevel":
        return [], []
    if kind == "Sequence":
        if depth > 4:
            raise ModelFileError(f"{what} is nested too deeply")
        before: list[int] = []
        after: list[int] = []
        for i, one in enumerate(_steps(item, "processors", what)):
            left, right = marks(one, f"{what}.{i}", depth + 1)
            before, after = left + before, after + right
        return before, after
    if kind in ("BertProcessing", "RobertaProcessing"):
        return [_mark_id(item.get("cls"), f"{what}.cls")], [_mark_id(item.get("sep"), f"{what}.sep")]
    if kind == "TemplateProcessing":
        return _template(item, what)
    raise _unknown(item, what)


def _mark_id(value: Any, what: str) -> int:
    if not isinstance(value, list) or len(value) != 2:
        raise ModelFileError(f"{what} must be a token and its id, not {str(value)[:60]!r}")
    return _id(value[1], what)


def _id(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 24:
        raise ModelFileError(f"{what} must be an id, not {str(value)[:60]!r}")
    return int(value)


def _template(item: Entry, what: str) -> tuple[list[int], list[int]]:
    known = item.get("special_tokens")
    if not isinstance(known, dict):
        raise ModelFileError(f"{what}.special_tokens must be an object")
    sides: tuple[list[int], list[int]] = [], []
    side = 0
    for one in _steps(item, "single", what):
        if not isinstance(one, dict) or len(one) != 1:
            raise ModelFileError(f"{what}.single holds {str(one)[:60]!r}")
        if "Sequence" in one:
            side += 1
            continue
        inner = one.get("SpecialToken")
        name = inner.get("id") if isinstance(inner, dict) else None
        found = known.get(name) if isinstance(name, str) else None
        ids = found.get("ids") if isinstance(found, dict) else None
        if not isinstance(ids, list) or len(ids) > MAX_STEPS:
            raise ModelFileError(f"{what}.single names {str(name)[:60]!r}, which special_tokens does not explain")
        sides[min(side, 1)].extend(_id(number, f"{what}.special_tokens") for number in ids)
    if side != 1:
        raise ModelFileError(f"{what}.single must hold the text once, not {side} times")
    return sides


# ---------------------------------------------------------------- decoders


def decoder(value: Any, what: str = "decoder", depth: int = 0) -> Decode:
    """How tokens become text: a list of parts, to be joined."""
    if value is None:
        return lambda tokens: [" ".join(tokens)]
    item = entry(value, what)
    kind = item["type"]
    if kind == "Sequence":
        if depth > 4:
            raise ModelFileError(f"{what} is nested too deeply")
        steps = [decoder(one, f"{what}.{i}", depth + 1) for i, one in enumerate(_steps(item, "decoders", what))]
        return lambda tokens: _decode_through(steps, tokens)
    if kind == "ByteLevel":
        return lambda tokens: [_from_letters(tokens)]
    if kind == "Fuse":
        return lambda tokens: ["".join(tokens)]
    if kind == "ByteFallback":
        return _byte_fallback
    if kind == "Replace":
        pattern, content = _pattern(item, what), text(item.get("content"), f"{what}.content")
        return lambda tokens: [pattern.sub(lambda _: content, token) for token in tokens]
    if kind == "Strip":
        return _strip_decoder(item, what)
    if kind == "Metaspace":
        mark, scheme = metaspace(item, what)
        return lambda tokens: [
            token.replace(mark, "" if i == 0 and scheme != "never" else " ") for i, token in enumerate(tokens)
        ]
    if kind == "BPEDecoder":
        suffix = text(item.get("suffix", "</w>"), f"{what}.suffix")
        return lambda tokens: [
            token.replace(suffix, " " if i < len(tokens) - 1 else "") for i, token in enumerate(tokens)
        ]
    if kind == "WordPiece":
        return _word_pieces(text(item.get("prefix", "##"), f"{what}.prefix"), flag(item, "cleanup", True, what))
    raise _unknown(item, what)


def _decode_through(steps: Sequence[Decode], tokens: list[str]) -> list[str]:
    for step in steps:
        tokens = step(tokens)
    return tokens


def _from_letters(tokens: Sequence[str]) -> str:
    raw = bytearray()
    for token in tokens:
        if all(char in _BYTES for char in token):
            raw += bytes(_BYTES[char] for char in token)
        else:
            raw += token.encode("utf-8")
    return raw.decode("utf-8", errors="replace")


def _byte_fallback(tokens: list[str]) -> list[str]:
    result: list[str] = []
    pending = bytearray()
    for token in [*tokens, None]:
        byte = re.fullmatch("<0x([0-9A-Fa-f]{2})>", token) if token is not None else None
        if byte:
            pending.append(int(byte[1], 16))
            continue
        if pending:
            try:
                result.append(pending.decode("utf-8"))
            except UnicodeDecodeError:
                result += ["\ufffd"] * len(pending)
            pending = bytearray()
        if token is not None:
            result.append(token)
    return result


def _strip_decoder(item: Entry, what: str) -> Decode:
    char = text(item.get("content", " "), f"{what}.content")
    counts = [item.get(name, 0) for name in ("start", "stop")]
    if len(char) != 1 or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 20 for n in counts):
        raise ModelFileError(f"{what} must name one character and two numbers")
    start, stop = counts

    def run(tokens: list[str]) -> list[str]:
        result = []
        for token in tokens:
            left = len(token) - len(token.lstrip(char))
            token = token[min(left, start) :]
            right = len(token) - len(token.rstrip(char))
            result.append(token[: len(token) - min(right, stop)])
        return result

    return run


_CLEAN = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" do not", " don't"),
          (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip


def _word_pieces(prefix: str, cleanup: bool) -> Decode:
    def run(tokens: list[str]) -> list[str]:
        result = []
        for i, token in enumerate(tokens):
            part = token if i == 0 else token[len(prefix) :] if token.startswith(prefix) else " " + token
            if cleanup:
                for old, new in _CLEAN:
                    part = part.replace(old, new)
            result.append(part)
        return result

    return run
