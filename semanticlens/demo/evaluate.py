"""What can be measured when the truth of the pictures is known: accuracies of an encoder, and which attribute a component answers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semanticlens.demo.captions import ATTRIBUTES, WORDINGS, label
from semanticlens.demo.pictures import PictureSet
from semanticlens.lens.descriptions import average_ranks

if TYPE_CHECKING:
    from semanticlens.encoders.protocol import Encoder


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties counting one half; NaN if there is no pair.

    Parameters
    ----------
    scores : ndarray of shape (N,)
        Finite.
    positive : ndarray of shape (N,), bool

    Notes
    -----
    The Mann-Whitney statistic: (sum of the positives' mid-ranks - p (p + 1) / 2) / (p n).
    """
    return float(aurocs(np.asarray(scores)[:, None], np.asarray(positive)[:, None])[0, 0])


def aurocs(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """:func:`auroc` of every column of ``scores`` (N, K) against every column of ``positive`` (N, L); shape (K, L)."""
    n_positive = positive.sum(axis=0)
    result = np.empty((scores.shape[1], positive.shape[1]))
    for k, column in enumerate(scores.T):
        sums = average_ranks(column) @ positive
        with np.errstate(invalid="ignore", divide="ignore"):
            result[k] = (sums - n_positive * (n_positive + 1) / 2.0) / (n_positive * (len(column) - n_positive))
    return result


@dataclass(frozen=True)
class EncoderAccuracies:
    """Zero-shot accuracies of an image-text encoder.

    Attributes
    ----------
    accuracy : dict of str to float
        Attribute name, or "shape x colour", to the share of pictures whose nearest text is the true one.
    choices : dict of str to int
        Among how many texts.
    mark_auroc : float
        How well the similarity to "corner mark" separates the pictures that have one.
    """

    accuracy: Mapping[str, float]
    choices: Mapping[str, int]
    mark_auroc: float

    def table(self, title: str) -> str:
        """A few lines of text."""
        rows = [f"  {name:<16} {value:8.1%}   chance {1 / self.choices[name]:.1%}" for name, value in self.accuracy.items()]
        return "\n".join([title, *rows, f"  corner mark      AUROC {self.mark_auroc:.4f}"])


def encoder_accuracies(encoder: Encoder, pictures: PictureSet) -> EncoderAccuracies:
    """Zero-shot accuracies over generated pictures: the plain name of each value is the text.

    The attribute "overlay" is scored over the pictures that have one, because its absence has no name.
    """
    images = encoder.encode_images([Image.fromarray(pixels) for pixels in pictures.pixels])
    accuracy, choices = {}, {}
    for name, wordings in WORDINGS.items():
        values = [value for value, texts in wordings.items() if texts]
        truth = [values.index(t[name]) if t[name] in values else -1 for t in pictures.truths]
        accuracy[name], choices[name] = _nearest_is(encoder, images, [label(name, v) for v in values], truth), len(values)
    pairs = [(shape, colour) for shape in ATTRIBUTES["shape"] for colour in ATTRIBUTES["colour"]]
    texts = [f"a {label('colour', colour)} {label('shape', shape)}" for shape, colour in pairs]
    accuracy["shape x colour"] = _nearest_is(encoder, images, texts, [pairs.index((t["shape"], t["colour"])) for t in pictures.truths])
    choices["shape x colour"] = len(pairs)
    mark = encoder.encode_texts([label("overlay", "corner mark")])[0]
    return EncoderAccuracies(accuracy, choices, auroc(images @ mark, pictures.is_value("overlay", "corner mark")))


def _nearest_is(encoder: Encoder, images: NDArray[np.float32], texts: Sequence[str], truth: Sequence[int]) -> float:
    """Share of the images, of those with a truth >= 0, whose nearest text is the true one."""
    answer, expected = (images @ encoder.encode_texts(texts).T).argmax(axis=1), np.asarray(truth)
    return float((answer == expected)[expected >= 0].mean())


def truth_table(pictures: PictureSet) -> tuple[list[tuple[str, str]], NDArray[np.bool_]]:
    """All nameable (attribute, value) pairs and which pictures have them, shape (N, L)."""
    pairs = [(name, value) for name, wordings in WORDINGS.items() for value, texts in wordings.items() if texts]
    return pairs, np.stack([pictures.is_value(name, value) for name, value in pairs], axis=1)
