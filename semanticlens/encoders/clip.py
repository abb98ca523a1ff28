"""CLIP and SigLIP on our own engine: both towers and the tokeniser, from local files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens.encoders.clip_files import open_parts

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["CLIP"]

_BATCH = 32


class CLIP:
    """Pictures and texts to vectors of one space: CLIP and SigLIP with both towers and the tokeniser.

    Read are OpenCLIP's checkpoints (vision transformers such as ViT-B-32, residual networks such as RN50, SigLIP) and
    Hugging Face's folders of ``CLIPModel`` and ``SiglipModel``.

    Parameters
    ----------
    weights : path-like
        OpenCLIP's checkpoint (``.safetensors``, ``.pt``, ``.bin``), or a folder with one, or Hugging Face's folder with
        ``config.json`` and the weights.
    vocabulary : path-like, optional
        ``bpe_simple_vocab_16e6.txt.gz``, ``vocab.json`` with ``merges.txt`` beside it, or ``tokenizer.json`` for CLIP;
        ``spiece.model`` or ``tokenizer.json`` for SigLIP.  The one beside the weights if left out; without any, only
        pictures are encoded.
    quick_gelu : bool, optional
        Whether a network of OpenCLIP was trained with ``x sigmoid(1.702 x)``, as OpenAI's weights were; left out,
        ``open_clip_config.json`` beside the weights says it, and without that it was not.
    activation : {"gelu", "gelu_tanh", "quick_gelu"}, optional
        The same by name, for OpenCLIP's files (larger SigLIP networks were trained with "gelu_tanh").
    fold : bool
        Fold batch normalisations into the layers before them; False keeps every node for recording.
    n_threads : int, optional

    Attributes
    ----------
    image_tower, text_tower : Network
        For recording, edits and gradients inside the towers.
    tokenizer : ClipTokenizer, PaddedTokenizer or None
    preprocess : Preprocess

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the parameters are not those of such a network.
    UnsupportedOperationError
        If a configuration asks for what is not known here; the message names the entry.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str],
        vocabulary: str | os.PathLike[str] | None = None,
        *,
        quick_gelu: bool | None = None,
        activation: str | None = None,
        fold: bool = True,
        n_threads: int | None = None,
    ) -> None:
        if quick_gelu is not None:
            if activation is not None:
                raise ValueError("quick_gelu and activation say the same; pass one of them")
            activation = "quick_gelu" if quick_gelu else "gelu"
        parts = open_parts(Path(weights), None if vocabulary is None else Path(vocabulary), activation, fold)
        self.image_tower, self.text_tower, self.tokenizer = parts.image, parts.text, parts.tokenizer
        self.preprocess, self.name, self._n_threads = parts.preprocess, parts.name, n_threads

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
                f"{self.name} has no vocabulary: pass vocabulary=, or put its tokeniser's file beside the weights"
            )
        result = np.empty((len(texts), self.dim), np.float32)
        ids = np.asarray([self.tokenizer.encode(text) for text in texts], np.int64)
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            result[start : start + len(part)] = self.text_tower(part, n_threads=self._n_threads)
        return result
