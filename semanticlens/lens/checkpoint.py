"""The state of an unfinished run in one file, written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from semanticlens._errors import MismatchError, ModelFileError
from semanticlens.io import write_tensors
from semanticlens.lens.examples import digest, dump_record, read_recorded

FORMAT = "semanticlens-checkpoint"
SCHEMA = "1"


def write(
    path: str | os.PathLike[str],
    made_of: Mapping[str, Any],
    state: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Replace the checkpoint at ``path``.

    Raises
    ------
    OSError
        If it cannot be written; the one before it, if any, is intact.
    """
    record = dump_record({"made_of": made_of, "state": state})
    try:
        write_tensors(
            path, arrays, {"format": FORMAT, "schema": SCHEMA, "record": record, "sha256": digest(record, arrays)}
        )
    except OSError as error:
        raise OSError(
            error.errno,
            f"the checkpoint could not be written ({error.strerror or error}); one written earlier is intact",
            str(path),
        ) from None


def read(
    path: str | os.PathLike[str], made_of: Mapping[str, Any]
) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]] | None:
    """State and arrays of the checkpoint at ``path``; None if there is none.  Files left by a killed writer are removed.

    Raises
    ------
    MismatchError
        If it belongs to a run over something else, saying what differs.
    ModelFileError
        If it is not a checkpoint, or damaged.
    """
    path = Path(os.path.realpath(path))  # as atomic_write does
    if path.parent.is_dir():
        for stale in path.parent.glob(f".{glob.escape(path.name[:200])}.*.tmp"):
            with contextlib.suppress(OSError):
                stale.unlink()
    if not path.exists():
        return None
    record, arrays = read_recorded(path, FORMAT, SCHEMA, "a checkpoint")
    try:
        then, state = record["made_of"], record["state"]
    except KeyError as error:
        raise ModelFileError(f"{path}: its record lacks {error}") from None
    differences = list(_differences("", then, made_of))
    if differences:
        raise MismatchError(
            f"checkpoint {path} is of another run: "
            + "; ".join(differences)
            + ". Delete it, or give this run a file of its own"
        )
    return state, arrays


def _differences(where: str, then: Any, now: Any) -> list[str]:
    if isinstance(then, dict) and isinstance(now, Mapping):
        found = []
        for key in sorted({*then, *now}):
            found += _differences(f"{where}.{key}" if where else key, then.get(key), now.get(key))
        return found
    return [] if then == now else [f"{where} was {_short(then)}, now {_short(now)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
