"""The embedding pass: every picture that some component shows is encoded once, and a small copy of it is kept."""

from __future__ import annotations

import hashlib
import io
import itertools
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from semanticlens._errors import DataError, MismatchError
from semanticlens._progress import track
from semanticlens.encoders.protocol import Encoder, check_vectors
from semanticlens.io import read_tensors, write_tensors

__all__ = ["Embedded", "embed", "small_copies", "thumbnail_bytes"]

CHECKPOINT_SECONDS = 10.0
FORMAT = "WEBP" if features.check("webp") else "JPEG"  # noted in the database's record; Pillow recognises either
CHECKPOINT_FORMAT = "semanticlens-embedding-checkpoint"


class Embedded:
    """Embeddings and thumbnails of the pictures done so far, in the order of the ids.

    Attributes
    ----------
    vectors : ndarray of shape (U, d), float32
    blobs : list of bytes
        Encoded thumbnails; empty if none are kept.
    done : int
    """

    def __init__(self, n: int, dim: int) -> None:
        self.vectors = np.full((n, dim), np.nan, np.float32)
        self.blobs: list[bytes] = []
        self.done = 0

    def thumbnails(self) -> dict[str, NDArray[Any]]:
        """The blobs as one array of bytes and the places where each begins and ends."""
        offsets = np.cumsum([0, *map(len, self.blobs)], dtype=np.int64)
        return {"thumbnails": np.frombuffer(b"".join(self.blobs), np.uint8), "thumbnail_offsets": offsets}

    def save(self, path: Path, key: str) -> None:
        """Write a checkpoint, atomically."""
        arrays = {"vectors": self.vectors[: self.done], **self.thumbnails()}
        write_tensors(path, arrays, {"format": CHECKPOINT_FORMAT, "key": key, "done": str(self.done)})

    def restore(self, path: Path, key: str) -> None:
        """Go on from a checkpoint; refuse one of another run."""
        file = read_tensors(path)
        if file.metadata.get("format") != CHECKPOINT_FORMAT:
            raise MismatchError(f"{path} is not a checkpoint of an embedding pass: choose another path, or delete the file")
        if file.metadata.get("key") != key:
            raise MismatchError(
                f"{path} is the checkpoint of another run (other pictures, encoder or settings): choose another path, or delete the file"
            )
        self.done = int(file.metadata["done"])
        self.vectors[: self.done] = file["vectors"]
        blob, offsets = file["thumbnails"].tobytes(), file["thumbnail_offsets"]
        self.blobs = [blob[a:b] for a, b in itertools.pairwise(offsets.tolist())]


def thumbnail_bytes(picture: Image.Image, side: int) -> bytes:
    """``picture`` shrunk to fit ``side`` x ``side``, encoded."""
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, FORMAT, quality=85)
    return buffer.getvalue()


def embed(
    ids: NDArray[np.int64], images: Any, encoder: Encoder, *, thumbnails: int, batch_size: int, progress: bool, checkpoint: Path | None
) -> Embedded:
    """Encode the pictures ``ids`` (sorted, unique) and shrink them.

    The pass can be interrupted at any time: with ``checkpoint``, a rerun goes on where the last checkpoint was and gives the same bytes.
    """
    ready = hasattr(encoder, "image_vectors")
    state = Embedded(len(ids), encoder.dim)
    if ready:
        state.vectors[:] = check_vectors(encoder.image_vectors(ids), len(ids), encoder.dim, f"image_vectors of encoder {encoder.name!r}")  # type: ignore[attr-defined]
        if not thumbnails:
            return state
    key = _key(ids, images, encoder, thumbnails)
    if checkpoint is not None and checkpoint.exists():
        state.restore(checkpoint, key)
    last = time.monotonic()
    starts = range(state.done, len(ids), batch_size)
    try:
        batches = _decoded(ids, images, thumbnails, starts, batch_size)
        for start, (pictures, blobs) in zip(
            starts, track(batches, progress=progress, total=len(starts), what="embed pictures", unit="batch"), strict=True
        ):
            stop = min(start + batch_size, len(ids))
            if not ready:
                state.vectors[start:stop] = check_vectors(
                    encoder.encode_images(pictures), stop - start, encoder.dim, f"encode_images of encoder {encoder.name!r}"
                )
            state.blobs += blobs
            state.done = stop
            if checkpoint is not None and time.monotonic() - last >= CHECKPOINT_SECONDS:
                state.save(checkpoint, key)
                last = time.monotonic()
    except BaseException:
        if checkpoint is not None and state.done:
            state.save(checkpoint, key)
        raise
    return state


def small_copies(ids: NDArray[np.int64], images: Any, side: int, *, progress: bool) -> dict[str, NDArray[Any]]:
    """Thumbnails of the pictures ``ids``, as :meth:`Embedded.thumbnails` gives them."""
    state, starts = Embedded(len(ids), 0), range(0, len(ids), 64)
    for _, blobs in track(_decoded(ids, images, side, starts, 64), progress=progress, total=len(starts), what="small copies", unit="batch"):
        state.blobs += blobs
    return state.thumbnails()


def _key(ids: NDArray[np.int64], images: Any, encoder: Encoder, thumbnails: int) -> str:
    text = f"{encoder.fingerprint}:{getattr(images, 'fingerprint', None)}:{thumbnails}:{FORMAT}:{len(ids)}:".encode()
    return hashlib.sha256(text + np.ascontiguousarray(ids, "<i8").tobytes()).hexdigest()


def _decoded(
    ids: NDArray[np.int64], images: Any, thumbnails: int, starts: range, batch_size: int
) -> Iterator[tuple[list[Image.Image], list[bytes]]]:
    """Batches of pictures and thumbnails, decoded by two threads one batch ahead of use."""

    def one(position: int) -> tuple[Image.Image, bytes | None]:
        picture = images[position]
        if not isinstance(picture, Image.Image):
            raise DataError(f"images[{position}] is {type(picture).__name__}, not a PIL picture")
        picture = picture.convert("RGB")
        return picture, thumbnail_bytes(picture, thumbnails) if thumbnails else None

    with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
        queue: deque[list[Future[tuple[Image.Image, bytes | None]]]] = deque()
        try:
            for start in starts:
                queue.append([pool.submit(one, int(i)) for i in ids[start : start + batch_size]])
                if len(queue) > 1:
                    yield _collect(queue.popleft())
            while queue:
                yield _collect(queue.popleft())
        finally:
            for future in (f for batch in queue for f in batch):
                future.cancel()


def _collect(futures: list[Future[tuple[Image.Image, bytes | None]]]) -> tuple[list[Image.Image], list[bytes]]:
    results = [future.result() for future in futures]
    return [picture for picture, _ in results], [blob for _, blob in results if blob is not None]
