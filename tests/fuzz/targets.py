"""What is fuzzed: one function per parser of bytes from outside.

A target takes any bytes and returns None.  It lets only the errors pass silently that the parser's contract names; anything else (another
exception, a crash, a hang, too much memory) is a finding.  The targets need no fuzzer: tests/test_fuzz.py runs them over the committed
corpus and over seeded mutations of it, tests/fuzz/run.py lets atheris search.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from semanticlens._errors import ModelFileError

FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
MAX_BYTES = 64 << 20                                  # no result made of a few kilobytes may be larger


@contextmanager
def file_of(content: bytes, suffix: str = "") -> Iterator[Path]:
    """The bytes as a file in memory."""
    with tempfile.NamedTemporaryFile(dir=FOLDER, suffix=suffix) as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def tensors(content: bytes) -> None:
    """io.read_tensors: every array lies inside the file."""
    from semanticlens.io import read_tensors

    with file_of(content) as path:
        try:
            file = read_tensors(path)
        except ModelFileError:
            return
        assert sum(file._arrays[name].nbytes for name in file) <= len(content)
        for array in file.values():
            np.asarray(array).tobytes()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tensors": tensors,
}
