"""What a data set of pictures is to this package, and the content hash that all of them share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from semanticlens._errors import DataError


@runtime_checkable
class Dataset(Protocol):
    """A finite, ordered set of pictures.  Sample ids everywhere in the package are positions in it."""

    @property
    def name(self) -> str:
        """What to call it in records and messages."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of its pictures, as hexadecimal text."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of each picture (-1 for none), shape (n,), or None."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, or None."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Image.Image: ...


class Pictures:
    """Base of the data sets here: names, labels, subsets and the fingerprint over what :meth:`_read` returns.

    The digest of a picture is taken when its bytes are first read, so that a data set that has been gone through once knows its fingerprint
    without reading anything again.
    """

    def __init__(
        self, name: str, names: Sequence[str], labels: ArrayLike | None, class_names: Sequence[str] | None
    ) -> None:
        self._name = name
        self._names = list(names)
        self._labels, self._class_names = _checked_labels(labels, class_names, len(self._names))
        self._digests: dict[int, bytes] = {}
        self._fingerprint: str | None = None

    @property
    def name(self) -> str:
        """What to call it in records and messages."""
        return self._name

    @property
    def names(self) -> list[str]:
        """Name of each picture, in order."""
        return list(self._names)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of each picture, int64 (n,), -1 for none; or None."""
        return self._labels

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, or None."""
        return self._class_names

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of all pictures; computed once."""
        if self._fingerprint is None:
            missing = [i for i in range(len(self)) if i not in self._digests]
            if missing:
                with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                    for i, digest in zip(missing, pool.map(self._digest, missing), strict=True):
                        self._digests[i] = digest
            total = hashlib.sha256(b"semanticlens pictures 1\n")
            for i, name in enumerate(self._names):
                total.update(hashlib.sha256(os.fsencode(name)).digest() + self._digests[i])
            self._fingerprint = total.hexdigest()
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Image.Image:
        index = self._position(index)
        return self._image(index)

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        classes = "" if self._class_names is None else f", {len(self._class_names)} classes"
        return f"{type(self).__name__}({self._name!r}, {len(self):,} pictures{classes})"

    def subset(self, indices: Sequence[int] | NDArray[np.integer], name: str | None = None) -> Subset:
        """The pictures at ``indices`` (each at most once), in that order, as a data set of its own with ids from 0."""
        return Subset(self, indices, name)

    def _position(self, index: int) -> int:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"{self._name} has {n:,} pictures; there is none at {index}")
        return int(index) % n

    def _image(self, index: int) -> Image.Image:
        """The picture at a valid index, RGB."""
        raise NotImplementedError

    def _digest(self, index: int) -> bytes:
        """SHA-256 of the picture's content; of zeros (32 bytes) where it cannot be read."""
        raise NotImplementedError


class Subset(Pictures):
    """Some pictures of another data set, in a given order."""

    def __init__(self, parent: Pictures, indices: Sequence[int] | NDArray[np.integer], name: str | None = None) -> None:
        chosen = np.asarray(indices)
        if chosen.size == 0:
            raise DataError(f"subset of {parent.name}: indices is empty")
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise DataError(
                f"subset of {parent.name}: indices must be a list of whole numbers, not {chosen.dtype} of shape {chosen.shape}"
            )
        positions = [parent._position(int(i)) for i in chosen]
        if len(set(positions)) != len(positions):
            raise DataError(f"subset of {parent.name}: an index occurs twice")
        labels = None if parent.labels is None else parent.labels[positions]
        super().__init__(
            name or f"{parent.name} ({len(positions)} of {len(parent)})",
            [parent._names[i] for i in positions],
            labels,
            parent.class_names,
        )
        self._parent, self._positions = parent, positions

    def _image(self, index: int) -> Image.Image:
        return self._parent._image(self._positions[index])

    def _digest(self, index: int) -> bytes:
        position = self._positions[index]
        known = self._parent._digests.get(position)
        return self._parent._digest(position) if known is None else known


def _checked_labels(
    labels: ArrayLike | None, class_names: Sequence[str] | None, n: int
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    names = None if class_names is None else tuple(str(name) for name in class_names)
    if labels is None:
        if names is not None:
            raise DataError("class_names without labels: say which picture belongs to which class")
        return None, None
    array = np.array(labels)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise DataError(f"labels must be {n} whole numbers, one per picture, not {array.dtype} of shape {array.shape}")
    array = array.astype(np.int64)
    highest = int(array.max(initial=-1))
    if array.min(initial=0) < -1 or (names is not None and highest >= len(names)):
        limit = "any class number" if names is None else f"{len(names) - 1}, the last of class_names"
        raise DataError(f"labels must lie between -1 (no class) and {limit}; found {int(array.min())} to {highest}")
    if names is None:
        names = tuple(f"class {y}" for y in range(highest + 1))
    array.flags.writeable = False
    return array, names
