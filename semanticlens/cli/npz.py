"""NumPy's .npz files as the commands read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError

__all__ = ["read_npz"]


def read_npz(path: Path, wanted: Sequence[str] | None = None, *, remedy: str = "write it with numpy.savez") -> dict[str, NDArray[Any]]:
    """The arrays of a file, all or the wanted ones that are there.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    DataError
        If it is no .npz file, damaged, or holds something else under a wanted name; ends with ``remedy``.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:  # np.load(path) leaves a damaged file open
            found = {name: file[name] for name in (file.files if wanted is None else wanted) if name in file.files}
    except Exception as error:  # zipfile, zlib and NumPy's header parser raise a dozen kinds; MemoryError: a shape that cannot be
        raise DataError(f"{path} is not a readable .npz file ({type(error).__name__}: {error}): {remedy}") from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # NumPy hands a member that is no .npy file over as bytes
            raise DataError(f"{path}: {name} is not an array: {remedy}")
    return found
