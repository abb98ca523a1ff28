"""Rotary frequencies that were stretched after training, from the entries ``rope_scaling`` or ``rope_parameters``.

Linear: Chen et al., Extending Context Window of Large Language Models via Positional Interpolation, 2023.  YaRN: Peng et
al., ICLR 2024.  Llama 3: its technical report, 2024, and the reference code beside its weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from semanticlens._errors import ModelFileError, UnsupportedOperationError

__all__ = ["rope"]

KNOWN = ("default", "linear", "llama3", "yarn")
_ALLOWED = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        *("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
        *("original_max_position_embeddings", "truncate"),
    ),
}
_SHARED = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


def rope(config: Mapping[str, Any], width: int, where: str) -> tuple[float, tuple[float, ...] | None, float]:
    """Base, frequencies (None: those of the base) and the factor on cosines and sines, for heads of ``width`` features.

    Raises
    ------
    UnsupportedOperationError
        If the scaling is of a kind, or has an entry, that is not known here; the message names the key.
    ModelFileError
        If an entry is missing or no positive number.
    """
    key = "rope_parameters" if config.get("rope_parameters") is not None else "rope_scaling"
    given = config.get(key)
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ModelFileError(f"{where}: {key} must be an object, not {str(given)[:60]!r}")
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in KNOWN:
        raise UnsupportedOperationError(
            f"{where}: {key}.rope_type={str(kind)[:60]!r} is not known here; known are {', '.join(KNOWN)}"
        )
    for name, value in given.items():
        if name not in _ALLOWED[kind] and name not in _SHARED and value is not None and kind != "default":
            raise UnsupportedOperationError(f"{where}: {key}.{name[:60]}={str(value)[:60]!r} is not known here with rope_type={kind!r}")
    if given.get("partial_rotary_factor") not in (None, 1, 1.0):
        part = str(given["partial_rotary_factor"])[:60]
        raise UnsupportedOperationError(f"{where}: {key}.partial_rotary_factor={part!r} is not known here")
    read = _Reader({**config, **given}, where)
    base = read("rope_theta", 10000.0)
    if kind == "default":
        return base, None, 1.0
    plain = [base ** (-2 * i / width) for i in range(width // 2)]
    factor = read("factor")
    if kind == "linear":
        return base, tuple(one / factor for one in plain), 1.0
    if kind == "llama3":
        return base, _llama3(plain, factor, read), 1.0
    return base, _yarn(plain, factor, base, width, given, read), _attention_factor(factor, read)


class _Reader:
    """Positive numbers of the configuration."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def __call__(self, name: str, default: float | None = None) -> float:
        value = self.config.get(name)
        if value is None:
            if default is None:
                raise ModelFileError(f"{self.where}: {name!r} is missing, which its rope_type needs")
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-9 < value < 1e12:
            raise ModelFileError(f"{self.where}: {name!r} must be a positive number, not {str(value)[:40]}")
        return float(value)


def _llama3(plain: list[float], factor: float, read: _Reader) -> tuple[float, ...]:
    """Long waves are stretched, short ones are not, those between in part."""
    low, high = read("low_freq_factor"), read("high_freq_factor")
    trained = read("original_max_position_embeddings")
    if high <= low:
        raise ModelFileError(f"{read.where}: 'high_freq_factor' ({high}) must be larger than 'low_freq_factor' ({low})")
    result = []
    for one in plain:
        wave = 2 * math.pi / one
        if wave > trained / low:
            result.append(one / factor)
        elif wave < trained / high:
            result.append(one)
        else:
            part = (trained / wave - low) / (high - low)
            result.append((1 - part) * one / factor + part * one)
    return tuple(result)


def _yarn(plain: list[float], factor: float, base: float, width: int, given: Mapping[str, Any], read: _Reader) -> tuple[float, ...]:
    """Features that turn often within the trained context keep their frequency, those that turn rarely are stretched."""
    trained = read("original_max_position_embeddings", read("max_position_embeddings", 2048.0))
    truncate = given.get("truncate", True)
    if not isinstance(truncate, bool):
        raise ModelFileError(f"{read.where}: 'truncate' must be true or false, not {str(truncate)[:40]}")
    if base <= 1:
        raise ModelFileError(f"{read.where}: 'rope_theta' must be above 1, not {base}")

    def place(turns: float) -> float:
        return width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = place(read("beta_fast", 32.0)), place(read("beta_slow", 1.0))
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001
    result = []
    for i, one in enumerate(plain):
        stretched = min(max((i - low) / (high - low), 0.0), 1.0)
        result.append(one / factor * stretched + one * (1 - stretched))
    return tuple(result)


def _attention_factor(factor: float, read: _Reader) -> float:
    def scaled(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    if read.config.get("attention_factor") is not None:
        return read("attention_factor")
    if read.config.get("mscale") and read.config.get("mscale_all_dim"):
        return scaled(read("mscale")) / scaled(read("mscale_all_dim"))
    return scaled(1.0)
