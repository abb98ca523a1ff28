"""Twins of the measures, in double, by forming the n x n matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def centred(x: Array) -> Array:
    """x without its column means."""
    x = np.asarray(x, dtype=np.float64)
    return x - x.mean(axis=0)


def hsic(k: Array, q: Array) -> float:
    """tr(K H L H), the biased estimate up to its factor."""
    h = np.eye(len(k)) - 1 / len(k)
    return float(np.trace(k @ h @ q @ h))


def hsic_debiased(k: Array, q: Array) -> float:
    """Song et al. (2012), up to its factor; the diagonals do not enter."""
    n = len(k)
    k, q = k - np.diag(np.diag(k)), q - np.diag(np.diag(q))
    return float((k * q.T).sum() + k.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 * (k @ q).sum() / (n - 2))


def ratio(of: Callable[[Array, Array], float], k: Array, q: Array) -> float:
    """of(K, L) / sqrt(of(K, K) of(L, L))."""
    return of(k, q) / float(np.sqrt(of(k, k) * of(q, q)))


def cka(x: Array, y: Array, debiased: bool = False) -> float:
    """Linear kernels."""
    x, y = centred(x), centred(y)
    return ratio(hsic_debiased if debiased else hsic, x @ x.T, y @ y.T)


def squared_distances(x: Array) -> Array:
    """(n, n)."""
    x = np.asarray(x, dtype=np.float64)
    return ((x[:, None] - x[None]) ** 2).sum(axis=-1)


def bandwidth(x: Array) -> float:
    """Median distance of two different rows."""
    return float(np.sqrt(np.median(squared_distances(x)[np.triu_indices(len(x), 1)])))


def cka_gauss(x: Array, y: Array, widths: tuple[float, float], debiased: bool = False) -> float:
    """Kernels exp(-|x_i - x_j|^2 / (2 width^2))."""
    k, q = (np.exp(-squared_distances(v) / (2 * w**2)) for v, w in zip((x, y), widths, strict=True))
    return ratio(hsic_debiased if debiased else hsic, k, q)


def ranks(v: Array) -> Array:
    """Mean ranks."""
    _, back, count = np.unique(v, return_inverse=True, return_counts=True)
    after = np.cumsum(count)
    return (after - (count - 1) / 2)[back]


def rsa(x: Array, y: Array, inner: str = "correlation", outer: str = "spearman") -> float:
    """Correlation of the two lists of row similarities."""
    lists = []
    for v in (x, y):
        v = np.asarray(v, dtype=np.float64)
        v = v - v.mean(axis=1, keepdims=True) if inner == "correlation" else v
        v = v / np.linalg.norm(v, axis=1, keepdims=True)
        s = (v @ v.T)[np.triu_indices(len(v), 1)]
        lists.append(ranks(s) if outer == "spearman" else s)
    return float(np.corrcoef(lists[0], lists[1])[0, 1])


def neighbours(x: Array, k: int, metric: str = "cosine") -> Array:
    """(n, k) other rows with the largest products, equal ones by the lower index."""
    x = np.asarray(x, dtype=np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x
    products = x @ x.T
    np.fill_diagonal(products, -np.inf)
    return np.argsort(-products, axis=1, kind="stable")[:, :k]


def mutual_knn(x: Array, y: Array, k: int = 10, metric: str = "cosine") -> float:
    """Mean share of common neighbours."""
    a, b = neighbours(x, k, metric), neighbours(y, k, metric)
    return float(np.mean([len(set(i) & set(j)) / k for i, j in zip(a.tolist(), b.tolist(), strict=True)]))


def cknna(x: Array, y: Array, k: int = 10, metric: str = "cosine") -> float:
    """Debiased HSIC of the products of mutual neighbours, normalised like CKA."""
    grams, masks = [], []
    for v in (x, y):
        v = np.asarray(v, dtype=np.float64)
        v = v / np.linalg.norm(v, axis=1, keepdims=True) if metric == "cosine" else v
        grams.append(v @ v.T)
        masks.append(np.zeros((len(v), len(v))))
        np.put_along_axis(masks[-1], neighbours(v, k, metric), 1.0, axis=1)
    both = masks[0] * masks[1]
    top = hsic_debiased(grams[0] * both, grams[1] * both)
    return top / float(np.sqrt(np.prod([hsic_debiased(g * m, g * m) for g, m in zip(grams, masks, strict=True)])))


def procrustes(x: Array, y: Array) -> float:
    """Distance after the best rotation, both sides centred and of Frobenius norm 1."""
    x, y = (v / np.linalg.norm(v) for v in (centred(x), centred(y)))
    return float(np.sqrt(max(0.0, 2 - 2 * np.linalg.svd(x.T @ y, compute_uv=False).sum())))


def svcca(x: Array, y: Array, components: int) -> float:
    """Mean canonical correlation of the leading components."""
    u, v = (np.linalg.svd(centred(w), full_matrices=False)[0][:, :components] for w in (x, y))
    return float(np.linalg.svd(u.T @ v, compute_uv=False).mean())
