"""The built-in image-text encoder: small enough to ship, trained on generated pictures only.

How often the text nearest to a picture, among the plain names of an attribute's values, is right; with the stored float16 weights, on 2000
pictures that show held-out combinations only (8 of 64 pairs of shape and colour and 4 of 32 pairs of shape and texture were never shown in
training), and on 2000 other new pictures:

    attribute         choices   held-out   other
    shape                   8     98.2 %   99.5 %
    colour                  8     99.9 %  100.0 %
    texture                 4     88.9 %   92.4 %
    size                    2    100.0 %  100.0 %
    place                   5    100.0 %  100.0 %
    background              6    100.0 %  100.0 %
    overlay                 3    100.0 %  100.0 %
    shape and colour       64     98.0 %   99.2 %

"corner mark" separates the pictures that have one from all others (AUROC 1.0000 to four digits).  ``examples/train_demo_encoder.py`` trains
it and prints these figures.

What it does not know: anything else.  It has seen drawn pictures with exactly one object; photographs, several objects, other shapes and
colours give vectors without meaning.  Of a text it sees the bag of words: "red circle on white" and "white circle on red" are the same, and
"not red" is red.  It knows 142 words.  Small striped and checkered objects are what it confuses most.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError, ModelFileError
from semanticlens.io import read_tensors, sha256_of_arrays, write_tensors
from semanticlens.nn.network import Network, Node
from semanticlens.nn.preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["DemoEncoder", "UnknownWordWarning", "centre", "load", "tokenize", "write_encoder"]

FORMAT, VERSION = "semanticlens-demo-encoder", "1"
_WORD = re.compile(r"[^\W_]+")
_BATCH = 64                                           # pictures or texts per forward pass


class UnknownWordWarning(UserWarning):
    """Some words of a text are not in the encoder's vocabulary and were left out."""


def tokenize(text: str) -> list[str]:
    """Lower-case words; spaces, hyphens and punctuation separate them."""
    return _WORD.findall(text.casefold())


def load(path: str | os.PathLike[str] | None = None, *, n_threads: int | None = None) -> DemoEncoder:
    """The encoder that comes with the package, or one written by ``examples/train_demo_encoder.py``."""
    if path is not None:
        return DemoEncoder(path, n_threads=n_threads)
    with importlib.resources.as_file(importlib.resources.files("semanticlens") / "demo" / "assets" / "encoder.safetensors") as asset:
        return DemoEncoder(asset, n_threads=n_threads)


class DemoEncoder:
    """Two small towers that meet in one space; see the module's text for what they know.

    Parameters
    ----------
    path : path-like
        A file made by :func:`write_encoder`.
    n_threads : int, optional

    Attributes
    ----------
    name : str
    dim : int
        64.
    fingerprint : str
        SHA-256 of the graphs, the vocabulary and the weights.
    words : tuple of str
        The vocabulary.

    Raises
    ------
    ModelFileError
        If the file is damaged or not of this format.
    """

    name = "demo"

    def __init__(self, path: str | os.PathLike[str], *, n_threads: int | None = None) -> None:
        file = read_tensors(path)
        if file.metadata.get("format") != FORMAT or file.metadata.get("version") != VERSION:
            raise ModelFileError(f"{path} is not a demo encoder of version {VERSION} (its format is {file.metadata.get('format')!r}, "
                                 f"version {file.metadata.get('version')!r}): write it with examples/train_demo_encoder.py")
        graph = file.metadata.get("graph", "")
        if file.metadata.get("sha256") != _digest(graph, file):
            raise ModelFileError(f"{path} is damaged: its content does not fit its SHA-256; get the file again")
        content = json.loads(graph)
        self.words: tuple[str, ...] = tuple(content["words"])
        self.preprocess, self.dim = Preprocess.from_dict(content["preprocess"]), int(content["dim"])
        self.fingerprint = file.metadata["sha256"]
        self.n_threads = n_threads
        self._index = {word: i for i, word in enumerate(self.words)}
        params = {name: np.asarray(array, dtype=np.float32) for name, array in file.items()}
        self._image_mean, self._text_mean = params["image.mean"], params["text.mean"]
        self.image_tower = _tower("image", content["image"], params, self.preprocess.output_shape)
        self.text_tower = _tower("text", content["text"], params, (len(self.words),))

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Unit vectors of pictures of any size, shape (n, 64).

        A picture is made RGB and stretched to 64 x 64: what is in its corners stays in view.

        Raises
        ------
        DataError
            If something is not a picture or has no pixels.
        """
        result = np.empty((len(images), self.dim), dtype=np.float32)
        for start in range(0, len(images), _BATCH):
            batch = np.stack([self.preprocess(image) for image in images[start : start + _BATCH]])
            result[start : start + len(batch)] = self._run(self.image_tower, batch, self._image_mean)
        return result

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts, shape (n, 64); the order of the words does not matter, and ``""`` is the empty bag of words.

        Raises
        ------
        DataError
            If a text has words, but none that the encoder knows; the message offers the nearest ones.

        Warns
        -----
        UnknownWordWarning
            If some words are unknown: they are left out.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a sequence of texts, not one text: pass [{texts!r}]")
        result = np.empty((len(texts), self.dim), dtype=np.float32)
        unknown: list[str] = []
        for start in range(0, len(texts), _BATCH):
            batch = np.stack([self._bag(text, unknown) for text in texts[start : start + _BATCH]])
            result[start : start + len(batch)] = self._run(self.text_tower, batch, self._text_mean)
        if unknown:
            warnings.warn(f"the demo encoder left out words it does not know: {self._suggest(unknown)}", UnknownWordWarning, stacklevel=2)
        return result

    def _run(self, tower: Network, x: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors, minus their training mean, made unit vectors again.

        Contrastive training leaves pictures and texts in two separate cones; without their means, both are spread around the origin, and a
        cosine of 0 says "neither more nor less than any picture".
        """
        raw = tower.run(x, record=["output"], n_threads=self.n_threads)["output"].astype(np.float64)
        result: NDArray[np.float32] = _unit(_unit(raw) - mean).astype(np.float32)
        return result

    def _bag(self, text: str, unknown: list[str]) -> NDArray[np.float32]:
        """Share of each known word in a text; unknown ones are appended to ``unknown``."""
        tokens = tokenize(text)
        found = [self._find(token) for token in tokens]
        known = [i for i in found if i is not None]
        missing = [token for token, i in zip(tokens, found, strict=True) if i is None]
        if not known and text.strip():
            raise DataError(f"the demo encoder knows no word of {text!r}: {self._suggest(missing) or 'it has no words'}. It knows the "
                            f"{len(self.words)} words in .words, about drawn shapes; for other texts use encoders.Arrays with CLIP vectors")
        unknown += missing
        bag = np.zeros(len(self.words), dtype=np.float32)
        for i in known:
            bag[i] += np.float32(1.0 / len(known))
        return bag

    def _find(self, token: str) -> int | None:
        """Position of a word, or of its singular or its usual other forms."""
        forms = [token]
        if token.endswith("s"):
            forms += [token[:-1]] + ([token[:-2]] if token.endswith("es") else []) + ([token[:-3] + "y"] if token.endswith("ies") else [])
        forms += [token + "s", token + "d", token + "ed"]
        return next((self._index[form] for form in forms if form in self._index), None)

    def _suggest(self, tokens: Sequence[str]) -> str:
        lines = []
        for token in dict.fromkeys(tokens):
            near = difflib.get_close_matches(token, self.words, n=3, cutoff=0.5)
            lines.append(f"{token!r} (nearest: {', '.join(near)})" if near else f"{token!r} (nothing near)")
        return ", ".join(lines)

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        return f"DemoEncoder({len(self.words)} words, {height} x {width} pixels, {self.dim} dimensions, {self.fingerprint[:12]})"


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = rows / np.maximum(np.sqrt(np.sum(rows * rows, axis=1, keepdims=True)), 1e-12)
    return result


def _digest(graph: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    return hashlib.sha256(f"{graph}\n{sha256_of_arrays(arrays)}".encode()).hexdigest()


def _tower(name: str, nodes: Sequence[Mapping[str, Any]], params: Mapping[str, NDArray[np.float32]],
           input_shape: tuple[int, ...]) -> Network:
    made = [Node(n["name"], n["op"], tuple(n["inputs"]), n["params"], n["attrs"]) for n in nodes]
    own = {key: params[key] for node in made for key in node.params.values()}
    return Network(made, own, input_shape=input_shape, output=made[-1].name, name=f"demo {name} tower")


def centre(path: str | os.PathLike[str], images: Sequence[Image.Image], texts: Sequence[str]) -> None:
    """Set the means of an encoder file to those of its vectors of these pictures and texts."""
    file = read_tensors(path)
    params = {name: np.array(array) for name, array in file.items()}
    for name in ("image.mean", "text.mean"):
        params[name][:] = 0
    write_encoder(path, json.loads(file.metadata["graph"]), params)
    encoder = DemoEncoder(path)
    params["image.mean"], params["text.mean"] = encoder.encode_images(images).mean(axis=0), encoder.encode_texts(texts).mean(axis=0)
    write_encoder(path, json.loads(file.metadata["graph"]), params)


def write_encoder(path: str | os.PathLike[str], content: Mapping[str, Any], params: Mapping[str, NDArray[Any]]) -> None:
    """Write an encoder with its weights in float16.

    Parameters
    ----------
    path : path-like
    content : mapping
        ``dim``, ``preprocess`` (``Preprocess.to_dict()``), ``words``, and the nodes of the two towers, ``image`` and ``text``, in the form
        of a network bundle.
    params : mapping of str to ndarray
        The arrays that the nodes name, and ``image.mean`` and ``text.mean``, the means of unit vectors that are taken off.
    """
    half = {name: np.asarray(array, dtype=np.float16) for name, array in params.items()}
    if not all(np.isfinite(array).all() for array in half.values()):
        raise DataError("the weights do not fit float16: some are NaN or too large")
    graph = json.dumps(content, separators=(",", ":"), sort_keys=True)
    write_tensors(path, half, {"format": FORMAT, "version": VERSION, "graph": graph, "sha256": _digest(graph, half)})
