"""The safetensors container, read by memory map.

The format (8-byte little-endian header length, JSON header, data) is that of the ``safetensors`` package, which also reads what is
written here. Reading is done here rather than by that package because its NumPy front end copies every tensor: weights of a few hundred
megabytes are to stay in the page cache. Every number of the header is checked against the file before an array is made, and making one
allocates nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError
from semanticlens.io.files import atomic_write

MAX_HEADER = 100_000_000                              # bytes; the limit of the safetensors package
MAX_NDIM = 32                                         # NumPy 1's limit

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
           "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?", "BF16": "<u2"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items() if name != "BF16"}


class TensorFile(Mapping[str, NDArray[Any]]):
    """Read-only arrays over a memory-mapped safetensors file.

    Attributes
    ----------
    path : Path
    metadata : dict of str to str
        The header's ``__metadata__``.
    """

    def __init__(self, path: Path, metadata: dict[str, str], arrays: dict[str, NDArray[Any]], bfloat16: frozenset[str],
                 data: NDArray[np.uint8]) -> None:
        self.path, self.metadata = path, metadata
        self._arrays, self._bfloat16, self.data = arrays, bfloat16, data

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._arrays[name]
        if name in self._bfloat16:                    # the upper half of a float32
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"TensorFile({str(self.path)!r}, {len(self)} arrays, {self.data.nbytes:,} bytes)"


def read_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Open a safetensors file by memory map.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is empty, truncated, or its header does not describe its data exactly.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a safetensors file")
    size = path.stat().st_size
    if size < 8:
        raise ModelFileError(f"{path}: {size} bytes are too few for a safetensors file; it is empty or truncated")
    data: NDArray[np.uint8] = np.asarray(np.memmap(path, np.uint8, "r"))   # a plain array: slices of the subclass are slow
    length = int(data[:8].view("<u8")[0])
    if length > min(MAX_HEADER, size - 8):
        raise ModelFileError(f"{path}: not a safetensors file, or truncated (its header claims {length:,} bytes, the file has {size:,})")
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:     # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ModelFileError(f"{path}: the safetensors header is not valid JSON: {error}") from None
    body = data[8 + length :]
    try:
        metadata, arrays, bfloat16 = _views(header, body)
    except _Malformed as error:
        raise ModelFileError(f"{path}: {error}") from None
    return TensorFile(path, metadata, arrays, bfloat16, body)


class _Malformed(ValueError):
    """What is wrong with a header; the caller adds the file's name."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _views(header: Any, body: NDArray[np.uint8]) -> tuple[dict[str, str], dict[str, NDArray[Any]], frozenset[str]]:
    if not isinstance(header, dict):
        raise _Malformed("the safetensors header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _Malformed("the header's __metadata__ is not a map of texts")
    arrays: dict[str, NDArray[Any]] = {}
    spans = []
    for name, entry in header.items():
        code, shape, begin, end = _entry(name, entry)
        dtype = np.dtype(_DTYPES[code])
        if end - begin != math.prod(shape) * dtype.itemsize or end > body.size:
            raise _Malformed(f"tensor {name!r} ({code}, shape {shape}) does not fit its bytes {begin}:{end} of {body.size:,}; "
                             f"the file may be truncated")
        spans.append((begin, end, name))
        raw = body[begin:end]
        arrays[name] = raw.view(dtype).reshape(shape)
    spans.sort()
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise _Malformed(f"tensors {first!r} and {second!r} overlap")
    if sum(end - begin for begin, end, _ in spans) != body.size:
        raise _Malformed("the file holds bytes that belong to no tensor")
    return metadata, arrays, frozenset(n for n, e in header.items() if e["dtype"] == "BF16")


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Malformed(f"tensor {name!r}: its header entry must have exactly dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise _Malformed(f"tensor {name!r} has dtype {code!r}; known are {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > MAX_NDIM or not all(_is_index(n) for n in shape) or not _is_index(
            8 * math.prod(max(n, 1) for n in shape)):     # an empty array has strides too, which must fit
        raise _Malformed(f"tensor {name!r} has a malformed shape {str(shape)[:80]}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_index(n) for n in offsets) or offsets[0] > offsets[1]:
        raise _Malformed(f"tensor {name!r} has malformed data_offsets {str(offsets)[:80]}")
    return code, tuple(shape), offsets[0], offsets[1]


def write_tensors(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically: the same arrays and metadata always give the same bytes.

    Parameters
    ----------
    path : path-like
    arrays : mapping of str to ndarray
        Stored widest dtype first, then in the order of the names, so that each is aligned to its items.
    metadata : mapping of str to str, optional

    Raises
    ------
    TypeError
        If an array's dtype has no place in the format, or metadata holds something else than texts.
    """
    header: dict[str, Any] = {}
    if "__metadata__" in arrays:
        raise ValueError("an array cannot be named '__metadata__': the format reserves that name")
    if metadata is not None:
        if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
            raise TypeError("metadata must map texts to texts; write other values as JSON text")
        header["__metadata__"] = dict(sorted(metadata.items()))
    blocks, offset = [], 0
    # widest dtypes first keeps every array aligned to its item without gaps, which the format forbids
    for name in sorted(arrays, key=lambda n: (-arrays[n].dtype.itemsize, n)):
        array = np.asarray(arrays[name])
        if array.dtype.newbyteorder("<") not in _NAMES:
            raise TypeError(f"array {name!r} has dtype {array.dtype}, which a safetensors file cannot hold")
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
        header[name] = {"dtype": _NAMES[little.dtype], "shape": list(array.shape), "data_offsets": [offset, offset + little.nbytes]}
        offset += little.nbytes
        blocks.append(little)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(len(text) + 8) % 64)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for block in blocks:
            file.write(block.reshape(-1).view(np.uint8).data)
