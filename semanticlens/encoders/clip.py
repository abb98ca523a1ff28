"""CLIP on our own engine: both towers and the tokeniser, from local files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens.nn.language.bpe import ClipTokenizer
from semanticlens.nn.language.clip import image_tower, text_tower
from semanticlens.nn.load.state_dict import load_state_dict
from semanticlens.nn.preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["CLIP"]

_BATCH = 32


class CLIP:
    """Pictures and texts to vectors of one space, for OpenCLIP checkpoints with a vision transformer (ViT-B-32 and its kind).

    Parameters
    ----------
    weights : path-like
        The checkpoint (``.safetensors``, ``.pt``, ``.bin``), in OpenCLIP's names.
    vocabulary : path-like, optional
        ``bpe_simple_vocab_16e6.txt.gz``; the one beside the weights if left out.  Without any, only pictures are encoded.
    quick_gelu : bool
        Whether the network was trained with ``x sigmoid(1.702 x)``, as OpenAI's weights were; the weights do not say.
    n_threads : int, optional

    Attributes
    ----------
    image_tower, text_tower : Network
        For recording, edits and gradients inside the towers.
    preprocess : Preprocess

    Raises
    ------
    ModelFileError
        If the parameters are not those of such a network.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str],
        vocabulary: str | os.PathLike[str] | None = None,
        *,
        quick_gelu: bool = False,
        n_threads: int | None = None,
    ) -> None:
        path = Path(weights)
        state = load_state_dict(path)
        activation = "quick_gelu" if quick_gelu else "gelu"
        self.image_tower = image_tower(state, activation=activation)
        self.text_tower = text_tower(state, activation=activation)
        beside = path.with_name("bpe_simple_vocab_16e6.txt.gz")
        found = Path(vocabulary) if vocabulary is not None else beside if beside.is_file() else None
        context = int(self.text_tower.input_shape[0] or 77)
        self.tokenizer = None if found is None else ClipTokenizer(found, context=context)
        size = int(self.image_tower.input_shape[1] or 224)
        self.preprocess = Preprocess(
            size=(size, size),
            short=size,
            interpolation="bicubic",
            mean=(0.48145466, 0.4578275, 0.40821073),
            std=(0.26862954, 0.26130258, 0.27577711),
        )
        self.name, self._n_threads = path.stem, n_threads

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self.image_tower.output_shape[0] or 0)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of towers, vocabulary and preprocessing."""
        words = "" if self.tokenizer is None else "\n".join(self.tokenizer.tokens)
        parts = [self.image_tower.fingerprint, self.text_tower.fingerprint, words, str(self.preprocess.to_dict())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(n, dim) float32, one row per picture; not normalised."""
        result = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), _BATCH):
            batch = np.stack([self.preprocess(image) for image in images[start : start + _BATCH]])
            result[start : start + len(batch)] = self.image_tower(batch, n_threads=self._n_threads)
        return result

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32, one row per text; not normalised.  Texts longer than the context are cut.

        Raises
        ------
        DataError
            If there is no vocabulary.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts, not one text")
        if self.tokenizer is None:
            raise DataError(
                f"{self.name} has no vocabulary: pass vocabulary=, or put bpe_simple_vocab_16e6.txt.gz beside the weights"
            )
        result = np.empty((len(texts), self.dim), np.float32)
        ids = np.asarray([self.tokenizer.encode(text) for text in texts], np.int64)
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            result[start : start + len(part)] = self.text_tower(part, n_threads=self._n_threads)
        return result
