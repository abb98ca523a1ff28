"""Pictures in a folder, in a zip archive, or in an array."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from semanticlens._errors import DataError
from semanticlens.data.dataset import Pictures
from semanticlens.data.decode import EXTENSIONS, REMEDY, decode

MAX_FILE_BYTES = 1 << 29  # one picture file larger than this (512 MiB) is refused unread
_UNREADABLE = bytes(32)


class _Files(Pictures):
    """Encoded pictures that :meth:`_read` fetches one by one."""

    def _read(self, index: int) -> bytes:
        raise NotImplementedError

    def _where(self, index: int) -> str:
        return f"{self._name}/{self._names[index]}"

    def _image(self, index: int) -> Image.Image:
        content = self._read(index)
        if index not in self._digests:
            self._digests[index] = hashlib.sha256(content).digest()
        return decode(content, self._where(index))

    def _digest(self, index: int) -> bytes:
        try:
            return hashlib.sha256(self._read(index)).digest()
        except DataError:
            return _UNREADABLE


class ImageFolder(_Files):
    """All pictures below a folder, in the order of their relative paths; decoded when asked for.

    Parameters
    ----------
    path : path-like
        Searched recursively for files with a picture's extension; names that start with a dot are left out, linked folders not followed.
    labels : {"none", "folders"}
        "folders": the class of a picture is the first folder on its way from ``path``.
    name : str, optional
        Default: the folder's name.

    Raises
    ------
    DataError
        No such folder, no picture in it, or a picture outside any class folder.
    """

    def __init__(
        self, path: str | os.PathLike[str], labels: Literal["none", "folders"] = "none", *, name: str | None = None
    ) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(
                f"{self.path} is not a folder; give the folder that holds the pictures"
                + (" (a zip archive is read by ImageArchive)" if self.path.suffix.lower() == ".zip" else "")
            )
        names = _picture_names(self.path)
        if not names:
            raise DataError(
                f"there is no picture in {self.path}: looked for {', '.join(sorted(EXTENSIONS))}, in all folders below it"
            )
        numbers, classes = _folder_labels(names, labels, str(self.path))
        super().__init__(name or self.path.resolve().name, names, numbers, classes)

    def _where(self, index: int) -> str:
        return str(self.path / self._names[index])

    def _read(self, index: int) -> bytes:
        file = self.path / self._names[index]
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{file}: not a regular file; {REMEDY}")
            if status.st_size > MAX_FILE_BYTES:
                raise DataError(
                    f"{file}: {status.st_size:,} bytes are more than a picture may have ({MAX_FILE_BYTES:,}); {REMEDY}"
                )
            return file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error}); {REMEDY}") from None


class ImageArchive(_Files):
    """All pictures in a zip archive, in the order of their names; nothing is ever extracted to disk.

    Parameters
    ----------
    path : path-like
    labels : {"none", "folders"}
        As for :class:`ImageFolder`.
    name : str, optional
        Default: the file's name.

    Raises
    ------
    DataError
        Not a zip file, damaged, encrypted, without pictures, with a name twice, or with an entry that claims more than 512 MiB.
    """

    def __init__(
        self, path: str | os.PathLike[str], labels: Literal["none", "folders"] = "none", *, name: str | None = None
    ) -> None:
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError) as error:
            raise DataError(f"{self.path}: not a zip archive, or damaged ({error})") from None
        try:
            self._entries = self._pictures()
            names = list(self._entries)
            numbers, classes = _folder_labels(names, labels, str(self.path))
            super().__init__(name or self.path.name, names, numbers, classes)
        except BaseException:
            self._zip.close()
            raise

    def _pictures(self) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        for entry in self._zip.infolist():
            if entry.filename.endswith("/") or not _is_picture_name(entry.filename):  # is_dir() fails on an empty name
                continue
            if entry.filename in found:
                raise DataError(f"{self.path}: the name {entry.filename!r} occurs twice; make the archive anew")
            if entry.flag_bits & 1:
                raise DataError(f"{self.path}: {entry.filename!r} is encrypted; give an archive without a password")
            if entry.file_size > MAX_FILE_BYTES:
                raise DataError(
                    f"{self.path}: {entry.filename!r} claims {entry.file_size:,} bytes, more than a picture may have ({MAX_FILE_BYTES:,})"
                )
            found[entry.filename] = entry
        if not found:
            raise DataError(f"there is no picture in {self.path}: looked for {', '.join(sorted(EXTENSIONS))}")
        return dict(sorted(found.items()))

    def _read(self, index: int) -> bytes:
        entry = self._entries[self._names[index]]
        try:
            with self._zip.open(entry) as file:  # reads share one handle under zipfile's own lock
                content = file.read(MAX_FILE_BYTES + 1)
        except (
            Exception
        ) as error:  # BadZipFile, zlib.error, NotImplementedError, EOFError, OSError: all mean the same here
            raise DataError(
                f"{self._where(index)}: the entry is damaged ({type(error).__name__}: {error}); {REMEDY}"
            ) from None
        if len(content) != entry.file_size:
            raise DataError(
                f"{self._where(index)}: the entry has {len(content):,} bytes but claims {entry.file_size:,}; {REMEDY}"
            )
        return content

    def close(self) -> None:
        """Close the file; pictures cannot be read any more."""
        self._zip.close()

    def __enter__(self) -> ImageArchive:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ImageArray(Pictures):
    """Pictures in memory.

    Parameters
    ----------
    images : array of shape (n, H, W, 3) or (n, H, W), uint8
        Borrowed, not copied.
    labels : array of shape (n,), int, optional
        Classes, -1 for none.
    class_names : sequence of str, optional
    name : str
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: ArrayLike | None = None,
        *,
        class_names: Sequence[str] | None = None,
        name: str = "array",
    ) -> None:
        array: NDArray[Any] = np.asarray(images)
        if array.dtype != np.uint8:
            raise DataError(f"images must be uint8 (0 to 255), not {array.dtype}")
        if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3):
            raise DataError(
                f"images must have the shape (n, H, W, 3) or (n, H, W), not {array.shape}"
                + (
                    "; move the colour axis last: images.transpose(0, 2, 3, 1)"
                    if array.ndim == 4 and array.shape[1] == 3
                    else ""
                )
            )
        if 0 in array.shape:
            raise DataError(f"images has the shape {array.shape}: there is no pixel in it")
        super().__init__(name, [str(i) for i in range(len(array))], labels, class_names)
        self._array = array

    def _image(self, index: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self._array[index])).convert("RGB")

    def _digest(self, index: int) -> bytes:
        picture = np.ascontiguousarray(self._array[index])
        return hashlib.sha256(f"{picture.shape}".encode() + picture.tobytes()).digest()


def _is_picture_name(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in EXTENSIONS and not any(
        part.startswith((".", "__MACOSX")) for part in path.parts if part not in (".", "..")
    )


def _picture_names(root: Path) -> list[str]:
    names = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        relative = Path(folder).relative_to(root)
        names += [(relative / file).as_posix() for file in files if _is_picture_name(file)]
    return sorted(names)


def _folder_labels(names: Sequence[str], how: str, where: str) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    if how == "none":
        return None, None
    if how != "folders":
        raise ValueError(f"labels={how!r}: must be 'none' or 'folders'")
    parts = [PurePosixPath(name).parts for name in names]
    for name, part in zip(names, parts, strict=True):
        if len(part) < 2:
            raise DataError(
                f"labels='folders', but {name} lies directly in {where}: put every picture into the folder of its class"
            )
    classes = sorted({part[0] for part in parts})
    number = {name: y for y, name in enumerate(classes)}
    return np.array([number[part[0]] for part in parts], np.int64), classes
