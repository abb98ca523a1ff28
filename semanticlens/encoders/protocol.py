"""What an encoder is: two towers into one space, a name, and a fingerprint of what computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Encoder", "check_encoder", "check_vectors"]

_MEMBERS = ("name", "dim", "fingerprint", "encode_images", "encode_texts")


@runtime_checkable
class Encoder(Protocol):
    """Maps pictures and texts into one space of ``dim`` dimensions.

    Any object with these five members is an encoder; there is nothing to inherit from. An encoder whose picture
    vectors are computed beforehand may offer ``image_vectors(ids) -> (n, dim)`` in addition, which
    :meth:`semanticlens.ConceptDB.build` then prefers to ``encode_images``.
    """

    @property
    def name(self) -> str:
        """What to call it in messages and records, for example "ViT-B-32/openai"."""
        ...

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    @property
    def fingerprint(self) -> str:
        """Text that differs wherever the vectors would differ, for example a SHA-256 of the weights."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(n, dim) float32, one row per picture; not normalised."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32, one row per text; not normalised."""
        ...


def check_encoder(encoder: Any) -> Encoder:
    """``encoder`` itself, or TypeError naming the members it lacks."""
    if isinstance(encoder, str):
        raise TypeError(f"encoder={encoder!r} is a text: pass the encoder itself, for example semanticlens.encoders.load({encoder!r})")
    if isinstance(encoder, type):
        raise TypeError(f"encoder={encoder.__name__} is a class: pass an instance of it")
    missing = [name for name in _MEMBERS if not hasattr(encoder, name)]
    if missing:
        raise TypeError(
            f"encoder={encoder!r:.80} is not an encoder: it lacks {', '.join(missing)}; see semanticlens.encoders.Encoder, "
            "and encoders.Callable to wrap functions"
        )
    return encoder  # type: ignore[no-any-return]


def check_vectors(values: ArrayLike, n: int, dim: int, what: str) -> NDArray[np.float32]:
    """``values`` as (n, dim) float32, or DataError saying what came instead; ``what`` names who returned it."""
    detached = values.detach().cpu() if hasattr(values, "detach") else values  # a torch tensor, without importing torch
    array = np.asarray(detached)
    if array.shape != (n, dim) or array.dtype.kind != "f":
        raise DataError(f"{what} must return floating-point numbers of shape ({n}, {dim}), not {array.dtype} of shape {array.shape}")
    return np.ascontiguousarray(array, dtype=np.float32)
