r"""The regular expressions by which tokenisers cut texts into words, as Python's ``re`` can run them.

Files of tokenisers name classes such as ``\p{L}``, which ``re`` does not know, and could name an expression that takes
exponential time; so only the expressions below are run, with their classes written out from Python's tables of characters.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from semanticlens._errors import UnsupportedOperationError

__all__ = ["GPT2", "compiled", "is_space"]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LATER = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_KNOWN = (
    GPT2,
    _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _LATER,  # Llama 3
    _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _LATER,  # Qwen 2
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",  # CLIP
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"\s+",
    r" {2,}",
    r"\p{N}",
    r"\p{N}{1,3}",
)
_LAST = 0x40000  # no letter and no number lies behind the first four planes
_SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


def is_space(char: str) -> bool:
    """Whether Unicode calls a character white space; Python says so of four separators of ASCII too."""
    return char.isspace() and not "\x1c" <= char <= "\x1f"


@cache
def compiled(pattern: str, where: str = "the tokeniser") -> re.Pattern[str]:
    """One of the known expressions, ready to run."""
    if pattern not in _KNOWN:
        raise UnsupportedOperationError(
            f"{where}: the regular expression {pattern[:120]!r} is not among those of known tokenisers, and others are "
            "not run"
        )
    text = pattern.replace("[^\\s\\p{L}\\p{N}]", f"[^{_SPACES}{_class('L')}{_class('N')}]")
    text = text.replace("[^\\r\\n\\p{L}\\p{N}]", f"[^\r\n{_class('L')}{_class('N')}]")
    for kind in "LN":
        inside = _class(kind)
        text = text.replace(f"[\\p{{{kind}}}]", f"[{inside}]").replace(f"\\p{{{kind}}}", f"[{inside}]")
    return re.compile(text.replace("\\s", f"[{_SPACES}]").replace("\\S", f"[^{_SPACES}]"))


@cache
def _class(kind: str) -> str:
    """The characters of a general category, as the inside of brackets."""
    ranges: list[list[int]] = []
    for code in range(_LAST):
        if unicodedata.category(chr(code))[0] == kind:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(_letter(low) if low == high else f"{_letter(low)}-{_letter(high)}" for low, high in ranges)


def _letter(code: int) -> str:
    return f"\\U{code:08x}"
