"""Texts for tokenisers: plain, in many scripts, with what breaks programs; from a seed."""

from __future__ import annotations

import random
import unicodedata

_ODD = ("", " ", "  ", "\n", "a", "▁", "<s>", "</s>", "<unk>", "<|endoftext|>", "hello world", " hello", "hello ", "Hello  World",
        "x" * 5000, "a b " * 1500, "'" * 300, "<0x41>", "I'm we'll don't they've IT'S", "ΑΣ ΣΑΣ", "1234567890123", "   leading",
        "trailing   ", "tabs\tand\nnewlines\r\n\r\n  x", "&amp;lt; &eacute;", "a_b __c__", "it'ſ")  # fmt: skip
_POOLS = ("abcdefghijklmnopqrstuvwxyz", "ABCXYZ", " \t\n\r\u00a0\u3000\u2003\u200b\u2028", "0123456789½²٣Ⅷ", "éüñçÅßøŁİıſΣςσ",
          "中文日本語ひらカタ한국어", "😀👩‍👧🏳️🇩🇪👍🏽", "\u0301\u0308\u0327\u20dd", "\x00\x01\x07\x1b\x1c\x1f\x7f\x85\xad",
          "'\"!?.,;:-_()[]{}<>@#$%^&*|\\/~`", "▁▁ ", "ﬁﬂ①㌀Å℃ªｶﾞ", "العربيةעבריתไทยहिन्दी", "\ufffd\ufeff\u202e")  # fmt: skip
_SYLLABLES = (
    *("ba", "be", "bi", "da", "do", "du", "ka", "ke", "ki", "la", "le", "lo", "ma", "me", "mi", "na", "ne", "no"),
    *("pa", "ra", "re", "ro", "sa", "se", "si", "ta", "te", "ti", "tion", "ing", "ed", "er", "s", "th", "ch"),
)


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randrange(1, 5)))


def _any(rng: random.Random) -> str:
    """A character that was in Unicode 3.2 already: libraries differ in the version they know."""
    while True:
        char = chr(rng.randrange(0x20, 0x2FA20 if rng.random() < 0.3 else 0x3000))
        if unicodedata.ucd_3_2_0.category(char) not in ("Cn", "Cs") and (
            unicodedata.ucd_3_2_0.category(char) == unicodedata.category(char)
        ):
            return char


def texts(count: int, seed: int = 0) -> list[str]:
    """Odd ones first, then drawn ones."""
    rng, result = random.Random(seed), list(_ODD)
    while len(result) < count:
        kind = rng.random()
        if kind < 0.35:
            result.append(" ".join(_word(rng) for _ in range(rng.randrange(1, 14))))
        elif kind < 0.75:
            result.append("".join(rng.choice(rng.choice(_POOLS)) for _ in range(rng.randrange(1, 40))))
        elif kind < 0.9:
            parts = [
                _word(rng) if rng.random() < 0.6 else "".join(rng.choice(rng.choice(_POOLS)) for _ in range(rng.randrange(1, 5)))
                for _ in range(rng.randrange(1, 12))
            ]
            result.append("".join(part + (" " if rng.random() < 0.6 else "") for part in parts))
        else:
            result.append("".join(_any(rng) for _ in range(rng.randrange(1, 20))))
    return result


def corpus(count: int = 3000, seed: int = 1) -> list[str]:
    """Lines to train a tokeniser on: words of many lengths, and some of everything else."""
    rng = random.Random(seed)
    words = [_word(rng) for _ in range(800)]
    lines = [" ".join(rng.choice(words) for _ in range(12)) for _ in range(count)]
    return [line for line in [*lines, *texts(400, seed)[len(_ODD) :]] if line.strip() and "\x00" not in line]
