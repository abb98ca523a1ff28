"""The map of characters inside SentencePiece models: a trie as a double array, and the texts its leaves point to.

Four bytes for the size of the trie, the trie as 32-bit units, then texts that end with a zero byte.  A unit's lower bits
hold its label, bit 8 says that a leaf hangs below it, and its offset is bits 10 to 31, shifted by 8 where bit 9 is set
(Yata's darts-clone).
"""

from __future__ import annotations

import struct

from semanticlens._errors import ModelFileError

__all__ = ["CharsMap"]

MAX_MAP = 16 << 20


class CharsMap:
    """Replaces the longest known run of characters at a place.

    Parameters
    ----------
    data : bytes
        As a model holds it.

    Raises
    ------
    ModelFileError
        If its sizes contradict each other.  What its units point to is checked while they are followed.
    """

    def __init__(self, data: bytes) -> None:
        if not 8 <= len(data) <= MAX_MAP:
            raise ModelFileError(f"a map of characters of {len(data):,} bytes; 8 to {MAX_MAP:,} are read")
        size = struct.unpack_from("<I", data)[0]
        if size % 4 or not 4 <= size <= len(data) - 4:
            raise ModelFileError(f"the map of characters claims a trie of {size:,} bytes and has {len(data):,}")
        self._units = memoryview(data[4 : 4 + size]).cast("I") if _LITTLE else struct.unpack(f"<{size // 4}I", data[4 : 4 + size])
        self._texts = data[4 + size :]

    def longest(self, text: str, place: int) -> tuple[str, int]:
        """What the longest known run from ``place`` becomes, and where the text goes on; a character itself where none is known."""
        units, count = self._units, len(self._units)
        node = _offset(units[0])
        found: tuple[str, int] | None = None
        stop = place
        while stop < len(text):
            for byte in text[stop].encode("utf-8"):
                node ^= byte
                if node >= count or units[node] & 0x800000FF != byte:
                    return found or (text[place], place + 1)
                unit = units[node]
                node ^= _offset(unit)
            stop += 1
            if unit >> 8 & 1 and node < count:
                found = self._text(units[node] & 0x7FFFFFFF), stop
        return found or (text[place], place + 1)

    def _text(self, start: int) -> str:
        end = self._texts.find(b"\0", start)
        if start > len(self._texts) or end < 0:
            raise ModelFileError(f"the map of characters points to byte {start:,} of {len(self._texts):,} bytes of texts")
        return self._texts[start:end].decode("utf-8", errors="replace")


_LITTLE = struct.pack("=I", 1) == struct.pack("<I", 1)


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)
