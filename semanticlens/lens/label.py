"""What should a component be called?  The texts of a vocabulary that lie closest to its concept vector.

``label(k) = argmax_j S[j, k]`` with the scores S of :mod:`semanticlens.lens.probe`; "unlabelled" where the best
score is below the threshold.  The matrix S is never formed: texts stream past the components, which keep their best
few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import lens as kernels
from semanticlens.encoders.protocol import Encoder
from semanticlens.lens.probe import Queries, make_queries
from semanticlens.lens.results import LayerLabels

__all__ = ["label_vectors", "vocabulary_queries"]


def vocabulary_queries(vocabulary: Any, encoder: Encoder | None, dim: int, templates: Sequence[str] | None, null: str) -> Queries:
    """A vocabulary (texts; mapping of text to vector; pair (names, matrix)) as queries, each name once."""
    if isinstance(vocabulary, str):
        raise TypeError(f"vocabulary={vocabulary!r:.60} is one text: pass a list of texts")
    if isinstance(vocabulary, tuple) and len(vocabulary) == 2 and getattr(vocabulary[1], "ndim", 0) == 2:
        names, matrix = list(vocabulary[0]), vocabulary[1]
        if len(names) != len(matrix):
            raise DataError(f"the vocabulary has {len(names)} names, but {len(matrix)} vectors")
        vocabulary = dict(zip(names, matrix, strict=True))
        if len(vocabulary) != len(names):
            raise DataError("the vocabulary names a text twice")
    if not isinstance(vocabulary, Mapping):
        vocabulary = list(dict.fromkeys(vocabulary))
    if not vocabulary:
        raise DataError("the vocabulary is empty")
    return make_queries(vocabulary, encoder, dim, templates, null)


def label_vectors(
    layer: str, vectors: NDArray[np.float32], queries: Queries, *, top: int, threshold: float, n_threads: int | None = None
) -> LayerLabels:
    """The ``top`` best texts of each concept vector."""
    indices, scores = kernels.top_labels(vectors, queries.vectors, min(top, len(queries.names)), n_threads=n_threads)
    if queries.null_vector is not None:  # a constant per component: it moves the scores, not their order
        scores = scores - kernels.cosine(queries.null_vector, vectors, n_threads=n_threads).T
    with np.errstate(invalid="ignore"):
        unlabelled = ~(scores[:, 0] >= threshold)
    return LayerLabels(layer=layer, indices=indices, scores=scores, unlabelled=unlabelled, vocabulary=queries.names)
