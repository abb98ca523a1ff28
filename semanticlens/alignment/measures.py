"""Measures that compare two representations as a whole: the usual ones, to be read beside the concept-based index.

X (n, p) and Y (n, q) describe the same n samples in the same order.  Centring, norms and sums are double throughout; what
grows with n^2 is streamed, so that no n x n matrix exists, and results are the same for every thread count.

=====================  =======================  ==============================================
function               equal representations    not changed by
=====================  =======================  ==============================================
:func:`cka`            1                        rotation, one scale for all
:func:`rsa`            1                        order of columns, shift and scale of a row
:func:`mutual_knn`     1                        rotation, scale of a row
:func:`cknna`          1                        rotation, scale of a row
:func:`procrustes`     0, a metric              rotation, one scale for all
:func:`svcca`          1                        any invertible linear map of what is kept
:func:`rand_index`     1                        names of the classes
=====================  =======================  ==============================================

None of these has a meaningful zero by itself: read it against :func:`permutation_test`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens._progress import track
from semanticlens.alignment import _compare as compare
from semanticlens.alignment.clustering import _whole, as_points


def median_distance(X: ArrayLike, *, n_threads: int | None = None) -> float:
    """Median Euclidean distance of two different rows, to about 1e-5 of itself, without storing the distances.

    Of an even number of pairs, the lower middle one.

    Raises
    ------
    DataError
        If it is 0, because half of all pairs of rows are equal.
    """
    x = as_points(X, "X")
    if len(x) < 2:
        raise DataError("X has 1 row: distances need at least 2")
    rows, longest = compare.within_one(x, "X")
    return compare.median(rows, "X", n_threads) * longest


def cka(
    X: ArrayLike, Y: ArrayLike, *, kernel: str = "linear", debiased: bool = False, bandwidth: Any = "median", n_threads: int | None = None
) -> float:
    """Centred kernel alignment, HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al., 2019).

    Parameters
    ----------
    X, Y : array-like of shape (n, p) and (n, q), real
    kernel : {"linear", "rbf"}
        Inner products, or exp(-|x_i - x_j|^2 / (2 bandwidth^2)).
    debiased : bool
        With the unbiased estimate of HSIC (Song et al., 2012; Nguyen et al., 2021).  The biased one tends to 1 for any two representations
        as features outnumber samples; this one is near 0 for unrelated ones, and may be negative.
    bandwidth : "median", float, or two floats
        For "rbf"; "median" is each side's :func:`median_distance`.
    n_threads : int, optional

    Returns
    -------
    float
        No epsilon in the denominator: 1 for X with itself.

    Raises
    ------
    DataError
        Different numbers of rows, fewer than 2 (debiased: 4), NaN or inf, or equal rows only.
    NumericalError
        Where the debiased HSIC of a side with itself is not positive.

    Notes
    -----
    Linear: O(n p q) by features, or O(n^2 (p + q)) where samples are fewer, in double.  rbf: O(n^2 (p + q)), products in float32 (absolute
    error of the result about 1e-6), O(n (p + q)) memory, twice for bandwidth="median".
    """
    compare.choice(kernel, "kernel", ("linear", "rbf"))
    if kernel == "linear":
        return compare.linear_cka(X, Y, debiased, n_threads)(None)
    return compare.gauss_cka(X, Y, debiased, bandwidth, n_threads)(None)


def rsa(
    X: ArrayLike, Y: ArrayLike, *, inner: str = "correlation", outer: str = "spearman", n_threads: int | None = None
) -> float:
    """Representational similarity analysis: correlation of the two lists of row similarities (Kriegeskorte et al., 2008).

    Parameters
    ----------
    X, Y : array-like of shape (n, p) and (n, q), real
    inner : {"correlation", "cosine"}
        Similarity of two rows.
    outer : {"spearman", "pearson"}
        Correlation of the lists over pairs i < j.
    n_threads : int, optional

    Returns
    -------
    float

    Raises
    ------
    DataError
        As :func:`cka`; a constant (for "cosine", zero) row; all similarities equal.

    Notes
    -----
    Spearman: the list is never stored.  Ranks come from 2^20 bins of the similarities, made finer where pairs crowd; pairs in
    one bin share a rank, which moves the result by about 1e-8.  O(n^2 (p + q)), each product formed twice.  Pearson: O(n p q)
    by features, exact.
    """
    return compare.rsa(X, Y, inner, outer, n_threads)(None)


def mutual_knn(X: ArrayLike, Y: ArrayLike, *, k: int = 10, metric: str = "cosine", n_threads: int | None = None) -> float:
    """Mean share of common neighbours, |N_k(x_i) & N_k(y_i)| / k (Huh et al., 2024).

    Parameters
    ----------
    X, Y : array-like of shape (n, p) and (n, q), real
    k : int
        Neighbours of each sample, itself not among them; equal similarities by the lower row.
    metric : {"cosine", "dot"}
        Inner product of rows, of length 1 for "cosine".
    n_threads : int, optional

    Returns
    -------
    float
        In [0, 1]; k / (n - 1) is expected by chance.

    Notes
    -----
    The neighbours are those of the double products: float32 products only choose candidates.  O(n^2 (p + q)), O(n (p + q + k)) memory.
    """
    return compare.mutual_knn(X, Y, k, metric, n_threads)(None)


def cknna(X: ArrayLike, Y: ArrayLike, *, k: int = 10, metric: str = "cosine", n_threads: int | None = None) -> float:
    """CKA of nearest neighbours: the debiased HSIC of the products of mutual neighbours, normalised like CKA (Huh et al., 2024).

    Parameters
    ----------
    X, Y, k, metric, n_threads
        As for :func:`mutual_knn`; at least 4 samples.

    Returns
    -------
    float

    Notes
    -----
    The masked matrices are not symmetric; their first term is sum(K * L^T), as published.  No epsilon in the denominator
    (published: 1e-6).  Costs what :func:`mutual_knn` does.
    """
    return compare.cknna(X, Y, k, metric, n_threads)(None)


def procrustes(X: ArrayLike, Y: ArrayLike, *, n_threads: int | None = None) -> float:
    """Distance that is left after the best rotation, both sides centred and scaled to Frobenius norm 1 (Ding et al., 2021; a metric).

    Parameters
    ----------
    X, Y : array-like of shape (n, p) and (n, q), real
    n_threads : int, optional

    Returns
    -------
    float
        sqrt(2 - 2 |X^T Y|_*), in [0, sqrt 2]; of equal representations about 1e-8, the square root of rounding.
    """
    return compare.procrustes(X, Y, n_threads)(None)


def svcca(
    X: ArrayLike, Y: ArrayLike, *, share: float = 0.99, components: int | None = None, n_threads: int | None = None
) -> float:
    """Mean canonical correlation of the leading principal components of both sides (Raghu et al., 2017).

    Parameters
    ----------
    X, Y : array-like of shape (n, p) and (n, q), real
        Centred here, not standardised.
    share : float
        Each side keeps the fewest components that hold this share of its variance.
    components : int, optional
        Keep this many instead.
    n_threads : int, optional

    Returns
    -------
    float
        The mean over min(kept of X, kept of Y) correlations.  Published variants differ in all three choices: name them with the number.
    """
    return compare.svcca(X, Y, share, components, n_threads)(None)


def rand_index(x: ArrayLike, y: ArrayLike) -> float:
    """Share of pairs of samples that two labellings treat alike (Rand, 1971); -1 for noise is a class like any other.

    Parameters
    ----------
    x, y : array-like of shape (n,), any labels
    """
    return compare.rand(x, y, False)(None)


def adjusted_rand_index(x: ArrayLike, y: ArrayLike) -> float:
    """The Rand index, 0 by chance and 1 for equal partitions (Hubert and Arabie, 1985)."""
    return compare.rand(x, y, True)(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PermutationTest:
    """A measure beside its values for shuffled samples.

    Attributes
    ----------
    measure : str
    value : float
    p_value : float
        (1 + number of shuffles at least as alike) / (1 + number of shuffles).
    null : ndarray of shape (n_permutations,), float64
    """

    measure: str
    value: float
    p_value: float
    null: NDArray[np.float64] = field(repr=False)

    @property
    def adjusted(self) -> float:
        """(value - mean of null) / (best possible - mean of null): 0 by chance, 1 for full agreement."""
        best = 0.0 if self.measure in DISTANCES else 1.0
        mean = float(self.null.mean())
        return (self.value - mean) / (best - mean)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"measure": self.measure, "value": self.value, "p_value": self.p_value, "adjusted": self.adjusted,
                "null_mean": float(self.null.mean()), "null_std": float(self.null.std()), "n_permutations": len(self.null)}


DISTANCES = ("procrustes",)

DEFAULTS: dict[str, tuple[Callable[..., compare.Value], dict[str, Any]]] = {
    "cka": (
        lambda X, Y, kernel, debiased, bandwidth, n_threads: compare.linear_cka(X, Y, debiased, n_threads)
        if kernel == "linear" else compare.gauss_cka(X, Y, debiased, bandwidth, n_threads),
        {"kernel": "linear", "debiased": False, "bandwidth": "median"},
    ),
    "rsa": (compare.rsa, {"inner": "correlation", "outer": "spearman"}),
    "mutual_knn": (compare.mutual_knn, {"k": 10, "metric": "cosine"}),
    "cknna": (compare.cknna, {"k": 10, "metric": "cosine"}),
    "procrustes": (compare.procrustes, {}),
    "svcca": (compare.svcca, {"share": 0.99, "components": None}),
}


def permutation_test(
    measure: str, X: ArrayLike, Y: ArrayLike, *, n_permutations: int = 199, seed: int = 0, progress: bool = False,
    n_threads: int | None = None, **options: Any,
) -> PermutationTest:
    """How often are samples in random order as alike as in the right one?

    Parameters
    ----------
    measure : {"cka", "rsa", "mutual_knn", "cknna", "procrustes", "svcca"}
    X, Y : array-like of shape (n, p) and (n, q), real
    n_permutations : int
        Rows of Y are shuffled this often; the smallest possible p-value is 1 / (1 + n_permutations).
    seed : int
    progress : bool
    n_threads : int, optional
    **options
        Of the measure.

    Returns
    -------
    PermutationTest

    Notes
    -----
    What does not depend on the order (neighbours, ranks, norms, components) is computed once.
    """
    compare.choice(measure, "measure", tuple(DEFAULTS))
    count = _whole(n_permutations, "n_permutations", 1)
    prepare, defaults = DEFAULTS[measure]
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise ValueError(f"{measure} has no option {unknown[0]!r}; it has {', '.join(defaults) or 'none'}")
    if measure == "cka":
        compare.choice(options.get("kernel", "linear"), "kernel", ("linear", "rbf"))
    value = prepare(X, Y, **{**defaults, **options}, n_threads=n_threads)
    found = value(None)
    rng = np.random.default_rng(seed)
    n = len(np.asarray(Y))
    null = np.array([value(rng.permutation(n)) for _ in track(range(count), progress=progress, what="permutations", unit="shuffle")])
    alike = null <= found if measure in DISTANCES else null >= found
    return PermutationTest(measure=measure, value=found, p_value=(1 + int(alike.sum())) / (1 + count), null=null)
