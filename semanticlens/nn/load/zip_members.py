"""Members of a zip archive: stored ones as views of the memory-mapped file, compressed ones with a bound on what they may claim.

The central directory comes from ``zipfile``; what it claims is checked against the file before it is believed: one member per name, no
absolute or climbing names, no encryption, no two members over the same bytes, sizes within the file.
"""

from __future__ import annotations

import itertools
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_MEMBERS = 200_000
MAX_RATIO = 64                                        # unpacked bytes per byte of the file, beyond the first FREE ones
FREE = 1 << 28


class ZipRefused(ValueError):
    """Why an archive was refused; whoever knows the file's name adds it."""


class Members:
    """The members of a checked archive.

    Attributes
    ----------
    names : dict of str to zipfile.ZipInfo
    """

    def __init__(self, data: NDArray[np.uint8], names: dict[str, zipfile.ZipInfo], starts: dict[str, int]) -> None:
        self._data, self.names, self._starts = data, names, starts

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a member, its checksum verified: a view for a stored member, unpacked otherwise."""
        info, start = self.names[name], self._starts[name]
        packed = self._data[start : start + info.compress_size]
        if info.compress_type == zipfile.ZIP_DEFLATED:
            unpacker = zlib.decompressobj(-15)
            try:
                raw = unpacker.decompress(packed.data, info.file_size + 1)
            except zlib.error as error:
                raise ZipRefused(f"member {name!r} is damaged: {error}") from None
            content: NDArray[np.uint8] = np.frombuffer(raw, np.uint8)
        else:
            content = packed
        if content.nbytes != info.file_size:
            raise ZipRefused(f"member {name!r} does not have the {info.file_size:,} bytes it claims; the file is damaged")
        if zlib.crc32(content.data) != info.CRC:
            raise ZipRefused(f"member {name!r} is damaged: its checksum does not fit; copy or download the file again "
                             "(or, if it was written with set_crc32_options(False), save it with checksums)")
        return content


def open_stored_zip(path: Path, data: NDArray[np.uint8]) -> Members:
    """An archive whose members are stored, as ``torch.save`` writes them; a compressed one is refused."""
    members = open_zip(path, data)
    for name, info in members.names.items():
        if info.compress_type != zipfile.ZIP_STORED:
            raise ZipRefused(f"member {name!r} is compressed, which torch.save never does; re-save the checkpoint with torch.save")
    return members


def open_zip(path: Path, data: NDArray[np.uint8]) -> Members:
    """Check the central directory and every local header of an archive.

    Parameters
    ----------
    path : Path
        The file, for ``zipfile``.
    data : ndarray of shape (n,), uint8
        The same file by memory map.

    Raises
    ------
    ZipRefused
        If anything does not fit; the message says what.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError, struct.error, OverflowError) as error:
        raise ZipRefused(f"not a readable zip archive, or truncated: {error}") from None
    if not infos or len(infos) > MAX_MEMBERS:
        raise ZipRefused(f"an archive of {len(infos):,} members")
    names: dict[str, zipfile.ZipInfo] = {}
    starts: dict[str, int] = {}
    spans: list[tuple[int, int, str]] = []
    for info in infos:
        name = _checked_name(info)
        if name in names:
            raise ZipRefused(f"member {name!r} occurs twice")
        names[name] = info
        starts[name] = _start(info, data)
        spans.append((info.header_offset, starts[name] + info.compress_size, name))
    spans.sort()
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise ZipRefused(f"members {first!r} and {second!r} overlap")
    total = sum(info.file_size for info in infos)
    if total > FREE + MAX_RATIO * data.size:
        raise ZipRefused(f"its {data.size:,} bytes claim to unpack to {total:,}; refused as a decompression bomb")
    return Members(data, names, starts)


def _checked_name(info: zipfile.ZipInfo) -> str:
    name = info.orig_filename
    shown = ascii(name[:80])
    if info.flag_bits & 0x1:
        raise ZipRefused(f"member {shown} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ZipRefused(f"member {shown} uses the compression method {info.compress_type}")
    if not name or name.startswith("/") or "\\" in name or "\0" in name or ":" in name or ".." in name.split("/"):
        raise ZipRefused(f"member {shown} has a name that points outside the archive")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise ZipRefused(f"member {shown} is stored, but claims two different sizes")
    return name


def _start(info: zipfile.ZipInfo, data: NDArray[np.uint8]) -> int:
    """Where a member's bytes begin, from its local header."""
    header = bytes(data[info.header_offset : info.header_offset + 30]) if 0 <= info.header_offset < data.size else b""
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ZipRefused(f"member {info.filename!r} has no header where the directory says; the file is damaged")
    length, extra = struct.unpack("<HH", header[26:30])
    at = info.header_offset + 30
    local = bytes(data[at : at + length])
    if local != info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437", "replace"):
        raise ZipRefused(f"member {info.filename!r} has another name in its own header")
    start = int(at + length + extra)
    if start + info.compress_size > data.size:
        raise ZipRefused(f"member {info.filename!r} reaches beyond the end of the file, which may be truncated")
    return start
