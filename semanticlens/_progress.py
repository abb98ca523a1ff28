"""One way to show progress: tqdm where it is asked for, a silent passthrough elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], *, progress: bool, total: int | None = None, what: str = "", unit: str = "it",
          initial: int = 0) -> Iterator[T]:
    """Iterate over ``items``, with a progress bar (terminal or notebook) if ``progress``."""
    if not progress:
        yield from items
        return
    from tqdm.auto import tqdm

    with tqdm(items, total=total, desc=what, unit=unit, initial=initial, dynamic_ncols=True) as bar:
        yield from bar
