"""How much memory a run may take: what would need more is refused before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from semanticlens._errors import MemoryLimitError

__all__ = ["VARIABLE", "allowed", "check_bytes"]

VARIABLE = "SEMANTICLENS_MAX_MEMORY"
SMALL = 64 << 20  # bytes that are not worth a look at what the machine has left
_CGROUP = Path("/sys/fs/cgroup")


def allowed() -> tuple[int, str]:
    """Bytes that a run may take, and what says so.

    The environment variable SEMANTICLENS_MAX_MEMORY (a whole number of bytes); else what the system says is available
    without swapping, no more than what the control group leaves this process.

    Raises
    ------
    ValueError
        If the variable holds something else.
    """
    text = os.environ.get(VARIABLE)
    if text is not None:
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise ValueError(f"environment variable {VARIABLE}={text!r} must be a whole number of bytes")
        return int(text), f"environment variable {VARIABLE}"
    free = _available()
    group = _group()
    return (free, "what the machine has available") if group is None or free <= group else (group, "what the control group allows")


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 62  # a system that does not say: the allocation itself will


def _group() -> int | None:
    """What the control group (version 2) leaves; None where it sets no limit."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = (_CGROUP / "memory.current").read_text(encoding="ascii").strip()
        return max(0, int(limit) - int(used)) if limit != "max" else None
    except (OSError, ValueError):
        return None


def check_bytes(need: int, what: str, remedy: str = "pass a smaller batch or smaller inputs") -> None:
    """Refuse what needs more than is allowed.

    Parameters
    ----------
    need : int
        Bytes of values that are held at a time; parameters are there already.
    what, remedy : str
        For the message.

    Raises
    ------
    MemoryLimitError
    """
    if need <= SMALL and VARIABLE not in os.environ:
        return
    limit, source = allowed()
    if need > limit:
        raise MemoryLimitError(
            f"{what} needs {need:,} bytes of memory for its values, {limit:,} are allowed ({source}): {remedy}, or set {VARIABLE} "
            "if more is there"
        )
