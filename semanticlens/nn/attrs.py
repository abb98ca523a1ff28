"""Checks for the attributes of operations: each takes whatever a file can hold and gives it one form, or says what it
should have been."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], Any]

LIMIT = 1 << 24  # no sane kernel, stride, padding or size is larger; products of a few stay far below 2**63
FLOAT32_MAX = 3.4e38
MAX_RANK = 8  # dimensions of a value, the batch not counted


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def integer(low: int, high: int = LIMIT) -> Check:
    """A whole number in [low, high]."""

    def check(value: Any) -> int:
        if not _is_int(value) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {_show(value)}")
        return int(value)

    return check


def integers(count: int | None, low: int, high: int = LIMIT) -> Check:
    """``count`` whole numbers (any number up to :data:`MAX_RANK` for None), each in [low, high], as a tuple."""
    what = f"{count} whole numbers" if count is not None else f"a list of 1 to {MAX_RANK} whole numbers"

    def check(value: Any) -> tuple[int, ...]:
        if (
            not isinstance(value, (list, tuple))
            or (len(value) != count if count is not None else not 1 <= len(value) <= MAX_RANK)
            or not all(_is_int(item) and low <= item <= high for item in value)
        ):
            raise ValueError(f"must be {what} from {low} to {high}, not {_show(value)}")
        return tuple(int(item) for item in value)

    return check


def numbers(low: float = -math.inf, most: int = 4096) -> Check:
    """1 to ``most`` numbers as :func:`number` takes them, as a tuple; or None."""
    each = number(low)

    def check(value: Any) -> tuple[float, ...] | None:
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= most:
            raise ValueError(f"must be a list of 1 to {most} numbers, not {_show(value)}")
        return tuple(each(item) for item in value)

    return check


def padding(value: Any) -> tuple[int, ...] | str:
    """[top, left, bottom, right], or "same": TensorFlow's rule, which depends on the input's size."""
    if isinstance(value, str) and value == "same":
        return "same"
    try:
        result: tuple[int, ...] = integers(4, 0)(value)
    except ValueError:
        raise ValueError(
            f'must be [top, left, bottom, right], each from 0 to {LIMIT}, or "same", not {_show(value)}'
        ) from None
    return result


def flag(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_show(value)}")
    return value


def number(low: float = -math.inf) -> Check:
    """A finite number of at least ``low`` that float32 can hold."""

    def check(value: Any) -> float:
        # comparing an int of any size with a float is exact, so a huge one is refused before float() could overflow
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not max(low, -FLOAT32_MAX) <= value <= FLOAT32_MAX
        ):
            raise ValueError(
                f"must be a number within float32's range{'' if low == -math.inf else f', at least {low}'}, not "
                f"{_show(value)}"
            )
        return float(value)

    return check
