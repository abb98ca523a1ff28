"""PyTorch checkpoints (.pth, .pt) read without PyTorch, and without executing anything they contain.

Both formats of ``torch.save`` are read: the zip archive (since 1.6) and the older stream of pickles followed by raw storages. The pickle
runs on `PickleMachine`, whose calls are the functions below: tensors become `StoredTensor`, a checked description of where the values
lie in the file. Nothing is copied; ``StoredTensor.array()`` is a view of the memory-mapped file.

Refused, with the file and the reason in the message: any class or function other than tensors, storages, parameters, OrderedDict and plain
scalars; compressed, overlapping, duplicate or missing archive members; damaged checksums; big-endian files; tensors that reach outside
their storage, have negative strides or overlap themselves.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError
from semanticlens.nn.load.pickle_machine import Function, PickleMachine, PickleRefused
from semanticlens.nn.load.zip_members import ZipRefused, open_stored_zip

MAX_NDIM = 32
MAX_PICKLE = 1 << 24
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


@dataclass(frozen=True, slots=True)
class ElementType:
    """An element type: its name, and how its values lie in the file (``"<u2"`` for bfloat16, which NumPy lacks)."""

    name: str
    code: str

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        return np.dtype(self.code).itemsize


_STORAGE_TYPES = {"DoubleStorage": ("float64", "<f8"), "FloatStorage": ("float32", "<f4"), "HalfStorage": ("float16", "<f2"),
                  "BFloat16Storage": ("bfloat16", "<u2"), "LongStorage": ("int64", "<i8"), "IntStorage": ("int32", "<i4"),
                  "ShortStorage": ("int16", "<i2"), "CharStorage": ("int8", "i1"), "ByteStorage": ("uint8", "u1"),
                  "BoolStorage": ("bool", "?")}
_TYPES = {name: ElementType(name, code) for name, code in
          [*_STORAGE_TYPES.values(), ("uint16", "<u2"), ("uint32", "<u4"), ("uint64", "<u8")]}
_UNTYPED = ElementType("untyped", "u1")


@dataclass(slots=True)
class Storage:
    """A run of values in the file; ``raw`` is set once its place is known."""

    key: str
    kind: ElementType
    numel: int
    raw: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a checkpoint: a checked window of a storage."""

    storage: Storage
    kind: ElementType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> NDArray[Any]:
        """The values: a read-only view of the file (bfloat16: a float32 copy)."""
        raw = self.storage.raw
        if raw is None:
            raise RuntimeError(f"storage {self.storage.key!r} has not been placed")  # pragma: no cover - a programming error
        size = self.kind.itemsize
        if not math.prod(self.shape):
            flat = np.empty(0, self.kind.code)
            return flat.reshape(self.shape)
        flat = raw[self.offset * size :][: raw.nbytes // size * size - self.offset * size].view(self.kind.code)
        if self.kind.code == "?" and flat.view(np.uint8).max() > 1:
            flat = flat.view(np.uint8) != 0           # other bytes than 0 and 1 are no valid NumPy booleans
        view = np.lib.stride_tricks.as_strided(flat, self.shape, [step * size for step in self.strides], writeable=False)
        if self.kind.name == "bfloat16":              # the upper half of a float32
            return (view.astype(np.uint32) << 16).view(np.float32)
        return view


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The contents of a checkpoint: plain containers and scalars with `StoredTensor` in the place of tensors.

    Parameters
    ----------
    path : path-like
        A file written by ``torch.save``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is damaged, holds anything but data, or is of another format. Nothing in it was executed.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a checkpoint")
    if path.stat().st_size < 16:
        raise ModelFileError(f"{path}: {path.stat().st_size} bytes are too few for a checkpoint; it is empty or truncated")
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)
    try:
        return _read_zip(path, data) if bytes(data[:4]) == b"PK\x03\x04" else _read_legacy(data)
    except (PickleRefused, ZipRefused) as error:
        raise ModelFileError(f"{path}: {error}") from None


def _read_zip(path: Path, data: NDArray[np.uint8]) -> Any:
    members = open_stored_zip(path, data)
    roots = {name.split("/", 1)[0] for name in members.names}
    pickles = [name for name in members.names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1 or len(pickles) != 1:
        raise PickleRefused("not a checkpoint of torch.save: a zip archive without exactly one folder with a data.pkl in it")
    root = pickles[0][: -len("data.pkl")]
    if root + "constants.pkl" in members.names:
        raise PickleRefused("a TorchScript archive, which holds code; save the state dict instead: torch.save(model.state_dict(), path)")
    if root + "byteorder" in members.names and bytes(members.read(root + "byteorder")) != b"little":
        raise PickleRefused("the checkpoint was written on a big-endian machine; re-save it on a little-endian one")
    pickle = members.read(pickles[0])
    if pickle.nbytes > MAX_PICKLE:
        raise PickleRefused(f"its pickle has {pickle.nbytes:,} bytes; more than {MAX_PICKLE:,} are not a state dict")

    def place(storage: Storage) -> None:
        name = f"{root}data/{storage.key}"
        if name not in members.names:
            raise PickleRefused(f"storage {storage.key!r} is not in the archive")
        storage.raw = members.read(name)
        if storage.raw.nbytes != storage.numel * storage.kind.itemsize:
            raise PickleRefused(f"storage {storage.key!r} has {storage.raw.nbytes:,} bytes where {storage.numel:,} values "
                                f"of {storage.kind.name} are declared")

    return _machine(pickle.data, _Storages(place)).load()


def _read_legacy(data: NDArray[np.uint8]) -> Any:
    buffer = data.data
    position = 0

    def pickle(storages: _Storages | None = None) -> Any:
        nonlocal position
        machine = _machine(buffer[position:], storages) if storages else PickleMachine(buffer[position:])
        result = machine.load()
        position += machine.position
        return result

    try:
        magic = pickle()
    except PickleRefused:
        magic = None
    if type(magic) is not int or magic != LEGACY_MAGIC:
        raise PickleRefused("not a checkpoint: neither a zip archive nor a stream that starts with torch's magic number; it may be damaged")
    if pickle() != LEGACY_PROTOCOL:
        raise PickleRefused(f"a checkpoint of another protocol than {LEGACY_PROTOCOL}")
    system = pickle()
    if type(system) is not dict or system.get("little_endian") is not True:
        raise PickleRefused("the checkpoint was written on a big-endian machine; re-save it on a little-endian one")
    storages = _Storages(None)
    result = pickle(storages)
    keys = pickle()
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages.known):
        raise PickleRefused("the list of storages does not match those the tensors use")
    for key in keys:
        position = _place_legacy(storages.known[key], data, position)
    if position != data.size:
        raise PickleRefused(f"{data.size - position:,} bytes follow the last storage and belong to nothing")
    return result


def _place_legacy(storage: Storage, data: NDArray[np.uint8], position: int) -> int:
    """Set ``storage.raw``; gives the position behind it."""
    size = storage.numel * storage.kind.itemsize
    if position + 8 + size > data.size:
        raise PickleRefused(f"truncated in storage {storage.key!r}, which needs {size:,} bytes")
    declared = int.from_bytes(bytes(data[position : position + 8]), "little")
    if declared != storage.numel:
        raise PickleRefused(f"storage {storage.key!r} claims {declared:,} values, its tensors {storage.numel:,}")
    storage.raw = data[position + 8 : position + 8 + size]
    return position + 8 + size


class _Storages:
    """The storages that persistent ids refer to, each checked once."""

    def __init__(self, place: Callable[[Storage], None] | None) -> None:
        self.known: dict[str, Storage] = {}
        self._place = place

    def __call__(self, machine: PickleMachine, reference: Any) -> Storage:
        if type(reference) is not tuple or len(reference) not in (5, 6) or reference[0] != "storage":
            kind = reference[0] if type(reference) is tuple and reference and type(reference[0]) is str else type(reference).__name__
            raise PickleRefused(f"a persistent id refers to {kind[:40]!r}, not to a storage; save the state dict, not the module")
        kind, key, location, numel = reference[1:5]
        if not isinstance(kind, ElementType) or type(key) is not str or type(location) is not str or type(numel) is not int:
            raise PickleRefused("a persistent id of a storage is malformed")
        if not key.isascii() or not all(c.isalnum() or c in "_-" for c in key) or not 0 <= numel < 1 << 48:
            raise PickleRefused(f"a persistent id names the storage {key[:60]!a} of {numel} values, which no checkpoint has")
        if len(reference) == 6 and reference[5] is not None:
            raise PickleRefused(f"storage {key!r} is a view of another one, a form last written before PyTorch 0.4")
        storage = self.known.get(key)
        if storage is None:
            storage = Storage(key, kind, numel)
            if self._place:
                self._place(storage)
            self.known[key] = storage
        elif (storage.kind, storage.numel) != (kind, numel):
            raise PickleRefused(f"storage {key!r} is declared twice, with different types or sizes")
        return storage


def _machine(pickle: memoryview, storages: _Storages) -> PickleMachine:
    return PickleMachine(pickle, calls=_CALLS, constants=_CONSTANTS, persistent=storages)


# what the functions named in a checkpoint do here

def _tensor(machine: PickleMachine, storage: Any, offset: Any, shape: Any, strides: Any, kind: ElementType | None = None) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise PickleRefused("a tensor is built on something that is not a storage")
    kind = kind or storage.kind
    if kind is _UNTYPED or (storage.kind is not _UNTYPED and kind is not storage.kind):
        raise PickleRefused(f"a tensor of type {kind.name} is built on storage {storage.key!r} of type {storage.kind.name}")
    if not (type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides) <= MAX_NDIM and type(offset) is int
            and all(type(n) is int for n in (*shape, *strides))):
        raise PickleRefused(f"a tensor on storage {storage.key!r} has a malformed shape, stride or offset")
    machine.spend(len(shape))
    where = f"a tensor of shape {shape}, strides {strides}, offset {offset} on storage {storage.key!r}"
    if offset < 0 or min(shape, default=0) < 0 or min(strides, default=0) < 0 or max((*shape, *strides, offset)) >= 1 << 48:
        raise PickleRefused(f"{where} has a negative or huge number")
    values = storage.numel * storage.kind.itemsize // kind.itemsize
    if math.prod(shape):
        reach = 0                                     # the largest index of the dimensions with smaller strides
        for step, n in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n > 1):
            if step <= reach:
                raise PickleRefused(f"{where} overlaps itself; re-save it as a contiguous tensor")
            reach += step * (n - 1)
        if offset + reach >= values:
            raise PickleRefused(f"{where} reaches outside its {values:,} values")
    return StoredTensor(storage, kind, offset, shape, strides)


def _rebuild_v2(machine: PickleMachine, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    return _tensor(machine, storage, offset, shape, strides)


def _rebuild_v3(machine: PickleMachine, storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, kind: Any,
                *_: Any) -> StoredTensor:
    if not isinstance(kind, ElementType):
        raise PickleRefused("a tensor is built with something that is not an element type")
    return _tensor(machine, storage, offset, shape, strides, kind)


def _parameter(machine: PickleMachine, data: Any, *_: Any) -> StoredTensor:
    if not isinstance(data, StoredTensor):
        raise PickleRefused("a parameter is built on something that is not a tensor")
    return data


def _ordered(machine: PickleMachine, pairs: Any = ()) -> dict[Any, Any]:
    if type(pairs) not in (list, tuple):
        raise PickleRefused("an OrderedDict is built from something that is not a list of pairs")
    machine.spend(2 * len(pairs))
    if not all(type(pair) in (list, tuple) and len(pair) == 2 and type(pair[0]) in (str, int) for pair in pairs):
        raise PickleRefused("an OrderedDict is built from something that is not a list of pairs")
    return dict(pairs)


def _size(machine: PickleMachine, sizes: Any = ()) -> tuple[int, ...]:
    if type(sizes) not in (tuple, list) or len(sizes) > MAX_NDIM or not all(type(n) is int for n in sizes):
        raise PickleRefused("a torch.Size is built from something that is not a list of numbers")
    return tuple(sizes)


def _device(machine: PickleMachine, name: Any, index: Any = None) -> str:
    if type(name) is not str or len(name) > 40:
        raise PickleRefused("a torch.device is built from something that is not a name")
    return name


def _encode(machine: PickleMachine, text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes, as pickle protocol 2 writes them."""
    if type(text) is not str or encoding != "latin1":
        raise PickleRefused("the pickle encodes something that is not a text in latin1")
    machine.spend(len(text) // 64)
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise PickleRefused("the pickle encodes a text that is not latin1") from None


class _NumpyType:
    """A NumPy number type; its state holds the byte order."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|"):
            raise PickleRefused("a NumPy type of the pickle is not a little-endian number")


def _numpy_type(machine: PickleMachine, code: Any, *_: Any) -> _NumpyType:
    if type(code) is not str or code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        raise PickleRefused("a NumPy type of the pickle is not a plain number")
    return _NumpyType(code)


def _numpy_scalar(machine: PickleMachine, kind: Any, data: Any) -> int | float | bool:
    if not isinstance(kind, _NumpyType) or type(data) is not bytes or len(data) != np.dtype("<" + kind.code).itemsize:
        raise PickleRefused("a NumPy number of the pickle is malformed")
    value: int | float | bool = np.frombuffer(data, "<" + kind.code)[0].item()
    return value


_CALLS: dict[str, Function] = {
    "torch._utils._rebuild_tensor": Function(_rebuild_v2, 4, 4),
    "torch._utils._rebuild_tensor_v2": Function(_rebuild_v2, 6, 7),
    "torch._utils._rebuild_tensor_v3": Function(_rebuild_v3, 7, 8),
    "torch._utils._rebuild_parameter": Function(_parameter, 3, 3),
    "torch._utils._rebuild_parameter_with_state": Function(_parameter, 4, 4),
    "collections.OrderedDict": Function(_ordered, 0, 1),
    "torch.Size": Function(_size, 0, 1),
    "torch.device": Function(_device, 1, 2),
    "_codecs.encode": Function(_encode, 1, 2),
    "numpy.dtype": Function(_numpy_type, 1, 3),
    "numpy.core.multiarray.scalar": Function(_numpy_scalar, 2, 2),
    "numpy._core.multiarray.scalar": Function(_numpy_scalar, 2, 2),
}
_CONSTANTS: dict[str, Any] = {
    **{f"torch.{name}": _TYPES[kind] for name, (kind, _) in _STORAGE_TYPES.items()},
    **{f"torch.{name}": kind for name, kind in _TYPES.items()},
    "torch.storage.UntypedStorage": _UNTYPED,
    "torch.UntypedStorage": _UNTYPED,
}

__all__ = ["ElementType", "Storage", "StoredTensor", "read_checkpoint"]
