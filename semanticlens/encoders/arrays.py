"""Encoder made of vectors computed elsewhere: the normal research case, with CLIP run once on another machine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import as_float32
from semanticlens.io import sha256_of_arrays

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Arrays"]

Texts = Mapping[str, ArrayLike] | tuple[Sequence[str], ArrayLike]


class Arrays:
    """Precomputed vectors as an encoder.

    Parameters
    ----------
    images : array_like of shape (N, d), float32 or float16, optional
        Row i is the vector of picture i of the data set; a memory map is fine.  A row with a NaN, an infinity or of
        length 0 says that the picture has no vector: statistics leave it out, and building a database warns with
        their number.
    texts : mapping of str to vector, or (names, matrix (L, d)), optional
        The texts that can be asked for.  With templates, the filled-in templates; for null correction, also the empty text "".
        Every vector must be finite and not of length 0.
    name : str
        What to call it in messages and records: best the model and its checkpoint.
    fingerprint : str, optional
        By default the SHA-256 of ``images`` (of ``texts`` if there are no images).  Texts do not change it when
        there are images, so that words can be added later.  Pass ``db.record["encoder"]["fingerprint"]`` to search
        an existing database with text vectors alone: you then vouch for their coming from the same model.

    Raises
    ------
    DataError
        Neither images nor texts; shapes that do not fit; unusable text vectors.
    TypeError
        float64 arrays: narrowing is left to the caller.
    """

    def __init__(
        self, images: ArrayLike | None = None, texts: Texts | None = None, *, name: str = "arrays", fingerprint: str | None = None
    ) -> None:
        if images is None and texts is None:
            raise DataError("Arrays needs images=(N, d), texts={text: vector}, or both")
        self._images = None if images is None else as_float32(images, "images", 2)
        self._index, self._texts = _text_table(texts)
        widths = [a.shape[1] for a in (self._images, self._texts) if a is not None]
        if len(set(widths)) > 1:
            raise DataError(
                f"images have {widths[0]} dimensions, but texts have {widths[1]}: they must come from the two towers of one model"
            )
        if widths[0] == 0:
            raise DataError("vectors must have at least one dimension")
        self.name, self.dim = str(name), widths[0]
        self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the image vectors (of the text vectors if there are none), or what was passed."""
        if self._fingerprint is None:
            key, vectors = ("texts", self._texts) if self._images is None else ("images", self._images)
            self._fingerprint = sha256_of_arrays({} if vectors is None else {key: vectors})
        return self._fingerprint

    @property
    def n_images(self) -> int | None:
        """Pictures there are vectors for; None without images."""
        return None if self._images is None else len(self._images)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts there are vectors for."""
        return tuple(self._index)

    def image_vectors(self, ids: ArrayLike) -> NDArray[np.float32]:
        """Vectors of the pictures at these data set positions, (n, d)."""
        positions = np.asarray(ids, dtype=np.int64)
        if self._images is None:
            raise DataError(f"encoder {self.name!r} has no image vectors: make it with Arrays(images=..., texts=...)")
        if positions.size and (positions.min() < 0 or positions.max() >= len(self._images)):
            wrong = int(positions[(positions < 0) | (positions >= len(self._images))][0])
            raise DataError(
                f"there is no vector for picture {wrong}: encoder {self.name!r} has {len(self._images)} image vectors; "
                "row i must belong to position i of the data set"
            )
        return np.ascontiguousarray(self._images[positions])

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Refuses: a picture's vector cannot be looked up by its pixels."""
        raise DataError(f"encoder {self.name!r} holds precomputed vectors and cannot encode a picture: search with its vector instead")

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of these texts, (n, d); DataError with the nearest known texts if one is unknown."""
        if self._texts is None:
            raise DataError(
                f"encoder {self.name!r} has no text vectors: make it with Arrays(images=..., texts=...), or search with vectors"
            )
        unknown = [text for text in texts if text not in self._index]
        if unknown:
            raise DataError(self._unknown(unknown))
        return np.ascontiguousarray(self._texts[[self._index[text] for text in texts]])

    def _unknown(self, unknown: list[str]) -> str:
        first = unknown[0]
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        if not first:
            return (
                f"encoder {self.name!r} has no vector for the empty text ''{more}, which null correction subtracts: "
                'add it to texts, or use null="none"'
            )
        near = difflib.get_close_matches(first, list(self._index), n=5, cutoff=0.5) or list(self._index)[:5]
        return (
            f"encoder {self.name!r} has no vector for the text {first!r}{more}; nearest of its {len(self._index)} texts: "
            f"{', '.join(repr(text) for text in near)}"
        )

    def __repr__(self) -> str:
        images = "no images" if self._images is None else f"{len(self._images)} images"
        return f"Arrays({self.name!r}, {images}, {len(self._index)} texts, {self.dim} dimensions)"


def _text_table(texts: Any) -> tuple[dict[str, int], NDArray[np.float32] | None]:
    if texts is None:
        return {}, None
    if isinstance(texts, Mapping):
        names = [str(name) for name in texts]
        rows = [as_float32(vector, f"texts[{name!r}]", 1) for name, vector in texts.items()]
        wrong = [name for name, row in zip(names, rows, strict=True) if row.shape != rows[0].shape]
        if wrong:
            raise DataError(
                f"texts[{wrong[0]!r}] has {rows[names.index(wrong[0])].size} numbers, but texts[{names[0]!r}] has {rows[0].size}"
            )
        matrix = np.stack(rows) if rows else np.empty((0, 0), np.float32)
    elif isinstance(texts, tuple) and len(texts) == 2:
        names = [str(name) for name in texts[0]]
        matrix = as_float32(texts[1], "texts[1]", 2)
    else:
        raise TypeError(f"texts must be a mapping of text to vector or a pair (names, matrix), not {type(texts).__name__}")
    if not names:
        raise DataError("texts is empty: leave it out if there are no text vectors")
    if len(names) != len(matrix):
        raise DataError(f"texts has {len(names)} names, but {len(matrix)} vectors")
    index = {name: i for i, name in enumerate(names)}
    if len(index) != len(names):
        twice = next(name for i, name in enumerate(names) if index[name] != i)
        raise DataError(f"texts has the name {twice!r} twice")
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1) | (matrix == 0).all(axis=1))
    if bad.size:
        raise DataError(f"the vector of text {names[bad[0]]!r} is NaN, infinite or of length 0 ({bad.size} such texts)")
    return index, matrix
