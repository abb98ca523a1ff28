"""Encoder made of two functions of the caller."""

from __future__ import annotations

import hashlib
from collections.abc import Callable as Function
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens.encoders.protocol import check_vectors

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Callable"]


class Callable:
    """Any pair of functions as an encoder, for example the towers of an OpenCLIP model that runs in the user's own environment.

    Parameters
    ----------
    images, texts : callable, optional
        Take a list of PIL pictures (of str), return (n, dim) numbers (array or torch tensor).
    dim : int
        Length of the vectors; every result is checked against it.
    name : str
        Identifies what the functions compute: name the model and its checkpoint.
    fingerprint : str, optional
        By default made from ``name`` and ``dim``, because the content of a function cannot be hashed: two models
        under one name would then pass for one. Pass a hash of the weights where that matters.
    """

    def __init__(
        self,
        images: Function[[Sequence[Image.Image]], ArrayLike] | None = None,
        texts: Function[[Sequence[str]], ArrayLike] | None = None,
        *,
        dim: int,
        name: str,
        fingerprint: str | None = None,
    ) -> None:
        for argument, function in (("images", images), ("texts", texts)):
            if function is not None and not callable(function):
                raise TypeError(f"{argument} must be a function, not {type(function).__name__}; for arrays use encoders.Arrays")
        if images is None and texts is None:
            raise DataError("Callable needs a function for images, for texts, or both")
        if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
            raise DataError(f"dim={dim!r} must be a whole number of at least 1")
        if not name:
            raise DataError("name must not be empty: it is how this encoder is told from others")
        self._image_function, self._text_function = images, texts
        self.name, self.dim = str(name), int(dim)
        self.fingerprint = fingerprint or hashlib.sha256(f"callable:{self.name}:{self.dim}".encode()).hexdigest()

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(n, dim) float32, from the ``images`` function."""
        if self._image_function is None:
            raise DataError(f"encoder {self.name!r} has no function for images")
        return check_vectors(self._image_function(images), len(images), self.dim, f"the images function of encoder {self.name!r}")

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32, from the ``texts`` function."""
        if self._text_function is None:
            raise DataError(f"encoder {self.name!r} has no function for texts: search with vectors")
        return check_vectors(self._text_function(texts), len(texts), self.dim, f"the texts function of encoder {self.name!r}")

    def __repr__(self) -> str:
        towers = [what for what, f in (("images", self._image_function), ("texts", self._text_function)) if f is not None]
        return f"Callable({self.name!r}, {' and '.join(towers)}, {self.dim} dimensions)"
