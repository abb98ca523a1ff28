"""A sentence encoder of the BERT family on our own engine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError, ModelFileError
from semanticlens.nn.language.tokenizers import WordPiece
from semanticlens.nn.load import load
from semanticlens.nn.network import Network

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Sentences"]


class Sentences:
    """Texts to vectors: the mean of the token states, of unit length (MiniLM and other sentence-transformers of this form).

    Parameters
    ----------
    folder : path-like
        Holds ``model.safetensors``, ``config.json`` (model_type "bert") and ``vocab.txt``.
    limit : int
        Most tokens of a text; longer ones are cut.
    n_threads : int, optional

    Raises
    ------
    FileNotFoundError, ModelFileError
        If a file is missing or of another kind of model.
    """

    def __init__(self, folder: str | os.PathLike[str], *, limit: int = 256, n_threads: int | None = None) -> None:
        path = Path(folder)
        net = load(path / "model.safetensors")
        if not isinstance(net, Network) or not net.takes_ids or len(net.output_shape) != 2:
            raise ModelFileError(f"{path}: not a text encoder that gives a vector per token")
        self.net, self.limit, self._n_threads = net, limit, n_threads
        self.tokenizer = WordPiece(path / "vocab.txt")
        self.name = path.name

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self.net.output_shape[-1] or 0)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of network, vocabulary and limit."""
        text = "\n".join([self.net.fingerprint, str(self.limit), *self.tokenizer.tokens])
        return hashlib.sha256(text.encode()).hexdigest()

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Refused: there is no tower for pictures."""
        raise DataError(f"{self.name} encodes texts only")

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32, of unit length.

        Texts of equal length are run together, so no padding is ever computed and no result depends on its neighbours.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts, not one text")
        groups: dict[int, list[int]] = {}
        ids = [self.tokenizer.encode(text, self.limit) for text in texts]
        for number, tokens in enumerate(ids):
            groups.setdefault(len(tokens), []).append(number)
        result = np.empty((len(ids), self.dim), np.float32)
        for members in groups.values():
            for start in range(0, len(members), 32):
                part = members[start : start + 32]
                states: NDArray[Any] = self.net(np.asarray([ids[i] for i in part]), n_threads=self._n_threads)
                means = states.mean(axis=1, dtype=np.float64)
                result[part] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return result
