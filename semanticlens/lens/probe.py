"""Which components answer to a text, a picture or a vector?

For texts q_1..q_Q and templates tau_1..tau_T (texts with a ``{}``), with F the text tower, theta_k the concept
vectors and ``cos`` the score:

=========  ================================================================================
null       score of query j and component k
=========  ================================================================================
"none"     ``cos(theta_k, q_j)``, ``q_j`` the mean over templates of ``F(tau_t(q_j))``
"vector"   ``cos(theta_k, q_j)``, ``q_j`` the mean over templates of ``F(tau_t(q_j)) - F(tau_t(""))``
"score"    ``cos(theta_k, q_j) - cos(theta_k, F(""))``, ``q_j`` as for "none"
=========  ================================================================================

"vector" with templates is what SemanticLens does (its code, `lens.py`); "score" is the correction of its follow-up
(arXiv 2505.20229).  "score" leaves the order of labels of one component as it is and changes the order of components
for one query; "vector" changes both.  ``null="auto"`` is "vector" where templates are given and "none" otherwise,
again as in the published code; "vector" without templates uses the template "{}".

The published code mixes up vectors of different queries when there are several queries and several templates; here every query has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError, NumericalError
from semanticlens._kernels import as_float32
from semanticlens._kernels import lens as kernels
from semanticlens.encoders.protocol import Encoder, check_vectors

__all__ = ["Queries", "fill_templates", "make_queries", "probe", "text_queries"]

F32 = NDArray[np.float32]
NULLS = ("auto", "none", "vector", "score")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Queries:
    """Query vectors ready to be compared with concept vectors.

    Attributes
    ----------
    names : tuple of str
    vectors : ndarray of shape (Q, d), float32
    null_vector : ndarray of shape (1, d) or None
        Whose cosine is subtracted from every score (``null="score"``).
    null : {"none", "vector", "score"}
    templates : tuple of str or None
    """

    names: tuple[str, ...]
    vectors: F32
    null_vector: F32 | None = None
    null: str = "none"
    templates: tuple[str, ...] | None = None


def fill_templates(texts: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """``result[j][t]`` is template t filled with text j."""
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise DataError(f"template {template!r} must be a text with the place holder {{}}, for example 'a photo of a {{}}'")
    return [[template.replace("{}", text) for template in templates] for text in texts]


def _encode(encoder: Encoder, texts: list[list[str]]) -> NDArray[np.float64]:
    """(len(texts), T, d): every different text is encoded once."""
    unique = list(dict.fromkeys(text for group in texts for text in group))
    rows = check_vectors(encoder.encode_texts(unique), len(unique), encoder.dim, f"encode_texts of encoder {encoder.name!r}")
    place = {text: i for i, text in enumerate(unique)}
    return rows.astype(np.float64)[[[place[text] for text in group] for group in texts]]


def text_queries(encoder: Encoder | None, texts: Sequence[str], templates: Sequence[str] | None = None, null: str = "auto") -> Queries:
    """Query vectors of texts, with templates and null correction (see the module's table).

    Parameters
    ----------
    encoder : Encoder
    texts : sequence of str
    templates : sequence of str, optional
        Texts with ``{}`` in the place of the query; a single text is one template.
    null : {"auto", "none", "vector", "score"}

    Raises
    ------
    DataError
        No texts, a template without ``{}``, a text that the encoder does not know, an unusable vector.
    """
    chosen = _null(null, templates)
    if encoder is None:
        raise DataError(
            "a text query needs the encoder the database was made with: ConceptDB.load(path, encoder=...), db.attach(encoder), "
            "or search with vectors"
        )
    if not texts:
        raise DataError("there are no texts to encode")
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"a query must be a text, not {type(text).__name__}: {text!r:.80}")
    given = None if templates is None else ((templates,) if isinstance(templates, str) else tuple(templates))
    if given is not None and not given:
        raise DataError("templates is empty: leave it out, or pass texts such as 'a photo of a {}'")
    used = given or ("{}",)
    vectors = _encode(encoder, fill_templates(texts, used))
    if chosen == "vector":
        vectors = vectors - _encode(encoder, fill_templates([""], used))
    mean = vectors.mean(axis=1).astype(np.float32)
    null_vector = _encode(encoder, [[""]])[0].astype(np.float32) if chosen == "score" else None
    _check_usable(mean, texts, chosen)
    if null_vector is not None:
        _check_usable(null_vector, ["(the empty text)"], "none")
    return Queries(names=tuple(texts), vectors=mean, null_vector=null_vector, null=chosen, templates=given)


def _null(null: str, templates: Sequence[str] | None) -> str:
    if null not in NULLS:
        raise ValueError(f"null={null!r} must be one of {', '.join(repr(name) for name in NULLS)}")
    return ("none" if templates is None else "vector") if null == "auto" else null


def _check_usable(vectors: F32, names: Sequence[str], null: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | (vectors == 0).all(axis=1))
    if bad.size:
        why = " after the null vector is subtracted: it does not differ from the empty text" if null == "vector" else ""
        raise NumericalError(
            f"the vector of query {names[bad[0]]!r} is NaN, infinite or of length 0{why}; it has no direction to search in"
        )


def make_queries(query: Any, encoder: Encoder | None, dim: int, templates: Sequence[str] | None = None, null: str = "auto") -> Queries:
    """Query vectors of whatever ``query`` is: text(s), picture(s), vector(s).

    A text or list of texts: one query each.  A picture, or a list of pictures: one query, the mean of the raw
    embeddings.  A vector (d,) or matrix (Q, d) or mapping of name to vector: one query per vector.
    """
    if isinstance(query, str):
        return text_queries(encoder, [query], templates, null)
    if isinstance(query, (list, tuple)) and query and isinstance(query[0], str):
        return text_queries(encoder, query, templates, null)
    if templates is not None or null not in ("auto", "none"):
        _null(null, templates)
        raise DataError("templates and null correction apply to text queries only; this query is not a text")
    if _is_image(query) or (isinstance(query, (list, tuple)) and query and all(map(_is_image, query))):
        return _image_query([query] if _is_image(query) else list(query), encoder)
    names: tuple[str, ...] | None = None
    if isinstance(query, Mapping):
        names = tuple(map(str, query))
        query = np.stack([as_float32(v, f"query[{n!r}]", 1) for n, v in query.items()]) if query else np.empty((0, dim), np.float32)
    vectors = _query_matrix(query)
    if vectors.shape[1] != dim:
        raise DataError(
            f"query vectors have length {vectors.shape[1]}, but the database's have {dim}: they must come from the same encoder"
        )
    if len(vectors) == 0:
        raise DataError("there are no query vectors")
    names = names or tuple(f"vector {i}" for i in range(len(vectors)))
    _check_usable(vectors, names, "none")
    return Queries(names=names, vectors=vectors)


def _query_matrix(query: Any) -> F32:
    values = query.detach().cpu() if hasattr(query, "detach") else query
    if isinstance(values, (list, tuple)) and not values:
        raise DataError("the query is empty: pass texts, pictures or vectors")
    try:
        array = as_float32(values, "query")
    except (TypeError, ValueError) as error:
        if isinstance(values, np.ndarray):
            raise
        raise TypeError(f"a query must be text(s), PIL picture(s) or vector(s), not {type(query).__name__}") from error
    if array.ndim not in (1, 2):
        raise DataError(f"query vectors must have shape (d,) or (Q, d), not {array.shape}")
    return np.ascontiguousarray(np.atleast_2d(array))


def _is_image(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def _image_query(pictures: list[Any], encoder: Encoder | None) -> Queries:
    if encoder is None:
        raise DataError(
            "a picture query needs the encoder the database was made with: ConceptDB.load(path, encoder=...) or db.attach(encoder)"
        )
    rows = check_vectors(
        encoder.encode_images([p.convert("RGB") for p in pictures]),
        len(pictures),
        encoder.dim,
        f"encode_images of encoder {encoder.name!r}",
    )
    name = "image" if len(pictures) == 1 else f"{len(pictures)} images"
    mean = rows.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
    _check_usable(mean, [name], "none")
    return Queries(names=(name,), vectors=mean)


def probe(queries: Queries, vectors: F32, *, n_threads: int | None = None) -> F32:
    """Scores of every query for every concept vector, always (Q, K); NaN for components without a vector."""
    scores = kernels.cosine(queries.vectors, vectors, n_threads=n_threads)
    if queries.null_vector is not None:
        scores = scores - kernels.cosine(queries.null_vector, vectors, n_threads=n_threads)
    return scores
