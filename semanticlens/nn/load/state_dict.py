"""Parameters by name, from the files that hold them without a network: .pth, .pt, .npz and .safetensors."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError
from semanticlens.io.tensors import read_tensors
from semanticlens.nn.load.unpickle import StoredTensor, read_checkpoint
from semanticlens.nn.load.zip_members import Members, ZipRefused, open_zip

CHECKPOINTS = (".pth", ".pt", ".th", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params_ema", "params")
PREFIXES = ("module.", "_orig_mod.")                  # DataParallel; torch.compile
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read the parameters of a network, by the names its training framework gave them.

    Parameters
    ----------
    path : path-like
        ``.pth``, ``.pt``, ``.th``, ``.bin`` or ``.ckpt`` (written by ``torch.save``), ``.npz`` or ``.safetensors``.

    Returns
    -------
    dict of str to ndarray
        Names in the order of the file, arrays in its types (bfloat16 becomes float32); read-only views of the file where the format allows.
        A dictionary inside ``{"state_dict": ...}`` or the like is unwrapped, a prefix ``module.`` or ``_orig_mod.`` common to all
        names is removed, and counters named ``num_batches_tracked``, which no forward pass uses, are left out.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is damaged, hostile, or holds something else than arrays; nothing in it was executed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        raw: Mapping[str, Any] = read_tensors(path)
    elif suffix == ".npz":
        raw = read_npz(path)
    elif suffix in CHECKPOINTS:
        raw = _unwrapped(path, read_checkpoint(path))
    else:
        raise ModelFileError(f"{path}: unknown suffix {suffix!r}; parameters are read from {', '.join(CHECKPOINTS)}, .npz and .safetensors")
    return _named(path, raw)


def _unwrapped(path: Path, content: Any) -> Mapping[str, Any]:
    """The dictionary of tensors inside a checkpoint."""
    for _ in range(3):
        if not isinstance(content, dict):
            break
        inner = [key for key in WRAPPERS if isinstance(content.get(key), dict)]
        if not inner:
            break
        content = content[inner[0]]
    if not isinstance(content, dict) or not content:
        raise ModelFileError(f"{path} holds no dictionary of tensors, but {_described(content)}; save model.state_dict()")
    wrong = [str(key)[:60] for key, value in content.items() if not isinstance(key, str) or not isinstance(value, StoredTensor)]
    if wrong:
        raise ModelFileError(f"{path}: {len(wrong)} entries of its state dict are no tensors: {', '.join(wrong[:8])}; "
                             "save model.state_dict() alone, or under the key 'state_dict'")
    return content


def _described(content: Any) -> str:
    if isinstance(content, dict):
        return "an empty dictionary"
    return "a single tensor" if isinstance(content, StoredTensor) else f"a {type(content).__name__}"


def _named(path: Path, raw: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Strip prefixes, drop counters, open tensors."""
    names = {name: name for name in raw if name.rsplit(".", 1)[-1] != "num_batches_tracked"}
    while names:
        prefix = next((p for p in PREFIXES if all(short.startswith(p) for short in names.values())), None)
        if prefix is None:
            break
        names = {name: short[len(prefix) :] for name, short in names.items()}
    if not names:
        raise ModelFileError(f"{path} holds no parameters")
    return {short: _opened(raw[name]) for name, short in names.items()}


def _opened(value: Any) -> NDArray[Any]:
    return value.array() if isinstance(value, StoredTensor) else np.asarray(value)


def read_npz(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read an ``.npz`` file of plain numbers: every header is checked against its member's size before anything is allocated.

    Raises
    ------
    ModelFileError
        If the archive is damaged or hostile, or an array is not of booleans, integers or floating point numbers.
    """
    path = Path(path)
    if path.is_dir() or path.stat().st_size < 22:
        raise ModelFileError(f"{path} is {'a folder' if path.is_dir() else 'too short'}, not an .npz archive; it may be empty or truncated")
    try:
        members = open_zip(path, np.memmap(path, np.uint8, "r").view(np.ndarray))
        return {name.removesuffix(".npy"): _read_npy(members, name) for name in members.names}
    except ZipRefused as error:
        raise ModelFileError(f"{path}: {error}") from None


def _read_npy(members: Members, name: str) -> NDArray[Any]:
    if not name.endswith(".npy"):
        raise ZipRefused(f"member {name!r} is not an array (.npy)")
    content = members.read(name)
    stream = io.BytesIO(bytes(content[:20_000]))      # a header is at most 10,000 characters long
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"format version {version} is not one of plain numbers")
        shape, fortran, dtype = _HEADERS[version](stream)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise ZipRefused(f"array {name!r} has a damaged header: {str(error)[:200]}") from None
    if dtype.kind not in "biuf" or dtype.hasobject or dtype.itemsize > 8:
        raise ZipRefused(f"array {name!r} is of type {dtype}, which is not a plain number")
    count = 1
    for n in shape:
        if not 0 <= n < 1 << 48 or len(shape) > 32:
            raise ZipRefused(f"array {name!r} has an impossible shape")
        count *= n
    body = content[stream.tell() :]
    if body.nbytes != count * dtype.itemsize:
        raise ZipRefused(f"array {name!r} of shape {shape} needs {count * dtype.itemsize:,} bytes and has {body.nbytes:,}")
    flat = body.view(dtype) if count else np.empty(0, dtype)
    if dtype.kind == "b" and count and body.max() > 1:
        raise ZipRefused(f"array {name!r} holds truth values other than 0 and 1")
    array = flat.reshape(shape, order="F" if fortran else "C")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
