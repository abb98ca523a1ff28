"""How alike are two representations, judged by which samples they hold together?  The generalized Rand index and its chance level.

For rows P[i] of proximities to concepts, m_P(i, j) is half the L1 distance of two rows. The discordance d(P, Q) is the mean of
|m_P - m_Q| over pairs; NDC = 1 - d (Huellermeier et al., IEEE TFS 20(3), 2012; eqs. 2-3 of Vielhaben et al., arXiv
2412.06639). For one-hot rows
NDC is the Rand index, and the adjusted value below is the adjusted Rand index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import alignment as kernels

Noise = Literal["implicit", "explicit"]
Mode = Literal["exact", "pairs"]
ROW_SUM_SLACK = 1e-4  # what rounding may add to a row sum of 1
NEGATIVE_SLACK = 1e-6
NULL_TILES = ((4000, 1), (10_000, 4))  # up to so many rows the null's distributions come from every so-manyth tile; above, from every 16th
MODES = ("exact", "pairs")
MOST_DRAWS = 1 << 32


def proximities(values: ArrayLike, *, name: str = "P", noise: Noise = "implicit") -> NDArray[np.float32]:
    """Check a matrix of concept proximities and bring it into the kernels' form.

    Parameters
    ----------
    values : array-like of shape (n, K), float
        Proximity of each sample to each concept: finite, at least 0, row sums at most 1.
    name : str
        How messages call it.
    noise : {"implicit", "explicit"}
        What the missing mass 1 - sum of a row means. "implicit" (published): nothing, so two pure-noise samples are
        maximally alike. "explicit":
        one more column holds it.

    Returns
    -------
    ndarray of shape (n, K) or (n, K + 1), float32

    Raises
    ------
    DataError
        If the matrix is empty, not finite, negative, or a row sums to more than 1; the message names the first such
        row.
    """
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[0] < 2:
        raise DataError(f"{name} must be a matrix (samples, concepts) of at least two samples, not of shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold numbers, not {array.dtype}")
    if noise not in ("implicit", "explicit"):
        raise ValueError(f"noise={noise!r}: must be 'implicit' or 'explicit'")
    array = np.ascontiguousarray(array, dtype=np.float32)
    sums = array.sum(axis=1, dtype=np.float64)
    for bad, what in (
        (~np.isfinite(sums), "is not finite"),
        (array.min(axis=1, initial=0.0) < -NEGATIVE_SLACK, "has a negative proximity"),
        (sums > 1 + ROW_SUM_SLACK, "sums to more than 1"),
    ):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{name}: row {row} {what} (sum {sums[row]:.6g}), as do {int(bad.sum()) - 1} others; "
                "proximities are finite, >= 0 and sum to at most 1 in a row: scale or clip them first"
            )
    if array.min(initial=0.0) < 0:
        array = np.maximum(array, 0.0)
    if noise == "explicit":
        array = np.concatenate([array, np.maximum(1.0 - sums, 0.0).astype(np.float32)[:, None]], axis=1)
    return array


def crisp(P: ArrayLike) -> NDArray[np.float32]:
    """Proximities as classes: one 1 a row, at the largest entry (the first of equal ones), and noise as a class of its own.

    Parameters
    ----------
    P : array-like of shape (n, K), float, or (n,), int
        Proximities, or labels with -1 for noise.

    Returns
    -------
    ndarray of shape (n, K + 1), float32
        The last column holds the rows without any proximity. The published code puts these into the first concept, where they
        make unrelated noise look like its members.

    Raises
    ------
    DataError
        As :func:`proximities`; labels below -1 or not whole.
    """
    array = np.asarray(P)
    if array.ndim == 1:
        if array.dtype.kind not in "iu" or len(array) < 2 or int(array.min()) < -1:
            raise DataError("P must be a matrix of proximities, or whole labels of at least two samples, -1 for noise")
        k, labels = int(array.max()) + 1, array.astype(np.int64)
    else:
        soft = proximities(array)
        k = soft.shape[1]
        labels = np.where(soft.max(axis=1, initial=0.0) > 0, soft.argmax(axis=1) if k else -1, -1)
    out = np.zeros((len(labels), k + 1), np.float32)
    out[np.arange(len(labels)), labels] = 1.0         # -1 is the last column
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Agreement of two representations.

    Attributes
    ----------
    d : float
        Discordance, 0 for full agreement; a pseudo-metric.
    ndc : float
        1 - d, the generalized Rand index. Unrelated concept sets are far above 0: read it beside ``ndc_null``.
    ndc_null : float
        Expectation of ``ndc`` when the samples of one side are permuted at random.
    aci : float
        Adjusted index, 1 - d / d_null: 0 by chance, 1 for full agreement.
    stderr : float
        Jackknife standard error of ``d`` over the samples (mode "exact"), or of the sampled mean (mode "pairs").
    n : int
        Samples.
    noise : str
    n_pairs : int
        Pairs that entered ``d``.
    mode : str
        "exact" or "pairs".
    bound : float
        ``d`` differs from that of all pairs by more than this with a probability of at most 5 % (Hoeffding's inequality, which
        assumes nothing about the data); 0 for "exact".
    """

    d: float
    ndc: float
    ndc_null: float
    aci: float
    stderr: float
    n: int
    noise: str
    n_pairs: int
    mode: str = "exact"
    bound: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def null_discordance(
    count_p: NDArray[np.int64], sum_p: NDArray[np.float64], count_q: NDArray[np.int64], sum_q: NDArray[np.float64]
) -> float:
    """E|X - Y| of two binned distributions: exact for pairs in different bins, the distance of the bins' means within one."""

    def below(values: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([[0], np.cumsum(values)[:-1]])

    p, q = count_p.astype(np.float64), count_q.astype(np.float64)
    apart = (sum_p * below(q) - p * below(sum_q)) + (sum_q * below(p) - q * below(sum_p))
    together = np.abs(sum_p * q - sum_q * p)
    return float((apart + together).sum() / (p.sum() * q.sum()))


def _jackknife(d: float, rows: NDArray[np.float64]) -> float:
    n = len(rows)
    if n < 3:
        return math.nan
    total = d * n * (n - 1) / 2
    left_out = (total - rows * (n - 1)) / ((n - 1) * (n - 2) / 2)
    return float(math.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))


def same_rows(matrices: Sequence[NDArray[np.float32]], names: Sequence[str]) -> int:
    """Number of rows of all matrices, or a DataError that names the one that differs."""
    n = len(matrices[0])
    for name, matrix in zip(names, matrices, strict=True):
        if len(matrix) != n:
            raise DataError(f"{name} has {len(matrix)} rows, but {names[0]} has {n}: all must describe the same samples in the same order")
    return n


def align(
    P: ArrayLike,
    Q: ArrayLike,
    *,
    noise: Noise = "implicit",
    mode: Mode = "exact",
    n_pairs: int = 1_000_000,
    seed: int = 0,
    progress: bool = False,
    n_threads: int | None = None,
) -> Alignment:
    """Compare two representations by their concept proximities.

    Parameters
    ----------
    P, Q : array-like of shape (n, Kp) and (n, Kq), float
        Proximities of the same samples, in the same order; see :func:`proximities`.
    noise : {"implicit", "explicit"}
    mode : {"exact", "pairs"}
        All pairs of samples, or ``n_pairs`` drawn at random with replacement.
    n_pairs, seed : int
        For mode "pairs".
    progress : bool
    n_threads : int, optional

    Returns
    -------
    Alignment

    Notes
    -----
    "exact": all n (n - 1) / 2 pairs are visited and none is stored: O(n^2 (Kp + Kq)) time, O(n (Kp + Kq)) memory. The
    expectation under permutation is exact up to the width of one of 4096 bins within which values are taken together (under
    1e-7); above 4 000 samples its distributions come from every 4th tile of pairs,
    scattered over all rows (1e-4 was seen at 8 000), above 10 000 from every 16th.

    "pairs": ``stderr`` is the standard deviation of the drawn values over the root of their number; it says how far ``d`` is
    from that of all pairs of these samples, not how far the samples are from the population ("exact" says that). Drawing
    pairs is worth far more than thinning rows: a million pairs err by about 2e-4, 2000 rows, as many pairs, by 4e-3.

    Results are the same for every thread count.
    """
    pair = matrix([P, Q], names=("P", "Q"), noise=noise, mode=mode, n_pairs=n_pairs, seed=seed, progress=progress, n_threads=n_threads)
    return pair[0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentMatrix:
    """Agreement of every pair of R representations.

    Attributes
    ----------
    names : tuple of str
    d, ndc, ndc_null, aci, stderr : ndarray of shape (R, R), float64
        As in :class:`Alignment`; symmetric; on the diagonal d = 0, ndc = aci = 1.
    n : int
    noise, mode : str
    n_pairs : int
        Pairs that entered each entry.
    bound : float
        As in :class:`Alignment`.
    """

    names: tuple[str, ...]
    d: NDArray[np.float64]
    ndc: NDArray[np.float64]
    ndc_null: NDArray[np.float64]
    aci: NDArray[np.float64]
    stderr: NDArray[np.float64]
    n: int
    noise: str
    n_pairs: int
    mode: str = "exact"
    bound: float = 0.0

    def __getitem__(self, pair: tuple[int, int]) -> Alignment:
        i, j = pair
        return Alignment(
            d=float(self.d[i, j]),
            ndc=float(self.ndc[i, j]),
            ndc_null=float(self.ndc_null[i, j]),
            aci=float(self.aci[i, j]),
            stderr=float(self.stderr[i, j]),
            n=self.n,
            noise=self.noise,
            n_pairs=self.n_pairs,
            mode=self.mode,
            bound=self.bound,
        )

    def __repr__(self) -> str:
        """The adjusted index of every pair, as a table."""
        wide = max(6, *(len(name) for name in self.names)) if self.names else 6
        rows = [" ".join([" " * wide, *(name.rjust(wide) for name in self.names)])]
        for name, values in zip(self.names, self.aci, strict=True):
            rows.append(" ".join([name.ljust(wide), *(f"{v:.3f}".rjust(wide) for v in values)]))
        return f"AlignmentMatrix: adjusted index, {self.n} samples, noise {self.noise!r}, {self.mode}\n" + "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers, for JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("d", "ndc", "ndc_null", "aci", "stderr")}
        return {"names": list(self.names), **arrays, "n": self.n, "noise": self.noise, "n_pairs": self.n_pairs, "mode": self.mode,
                "bound": self.bound}


def _draws(mode: str, n_pairs: int, seed: int, n: int) -> int:
    """Pairs to draw, 0 for all of them once."""
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} must be one of {', '.join(map(repr, MODES))}")
    if mode == "exact":
        return 0
    for name, value, least, most in (("n_pairs", n_pairs, 2, MOST_DRAWS), ("seed", seed, 0, 2**64 - 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
            raise ValueError(f"{name}={value!r} must be a whole number from {least} to {most}")
    if n_pairs >= n * (n - 1) // 2:
        raise ValueError(f"n_pairs={n_pairs} is no fewer than the {n * (n - 1) // 2} pairs there are: use mode='exact', which is cheaper")
    return int(n_pairs)


def _null(count: NDArray[np.int64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, R) expectations of d under permutation, from the binned pair distances."""
    R = len(count)
    null = np.zeros((R, R))
    for r in range(R):
        for s in range(r, R):
            null[r, s] = null[s, r] = null_discordance(count[r], total[r], count[s], total[s])
    return null


def _named(
    representations: Sequence[ArrayLike] | Mapping[str, ArrayLike], names: Sequence[str] | None, noise: Noise
) -> tuple[tuple[str, ...], list[NDArray[np.float32]]]:
    if isinstance(representations, Mapping):
        names, values = tuple(map(str, representations)), list(representations.values())
    else:
        values = list(representations)
        names = tuple(map(str, names)) if names is not None else tuple(f"P{r + 1}" for r in range(len(values)))
    if not values or len(names) != len(values):
        raise ValueError(f"{len(values)} representations with {len(names)} names: give at least one, and a name for each")
    return names, [proximities(v, name=name, noise=noise) for v, name in zip(values, names, strict=True)]


def matrix(
    representations: Sequence[ArrayLike] | Mapping[str, ArrayLike],
    *,
    names: Sequence[str] | None = None,
    noise: Noise = "implicit",
    mode: Mode = "exact",
    n_pairs: int = 1_000_000,
    seed: int = 0,
    progress: bool = False,
    n_threads: int | None = None,
) -> AlignmentMatrix:
    """Compare every pair of representations in one pass over the pairs of samples.

    Parameters
    ----------
    representations : sequence or mapping of array-like (n, K_r)
        As for :func:`align`; a mapping brings the names.
    names : sequence of str, optional
    noise, mode, n_pairs, seed, progress, n_threads
        As for :func:`align`; the same random pairs serve all representations.

    Returns
    -------
    AlignmentMatrix

    Notes
    -----
    Each representation's pair distances are computed once, not once per partner: the cost is n^2 sum_r K_r, against
    n^2 sum_{r,s} (K_r + K_s) pair by pair.
    """
    names, matrices = _named(representations, names, noise)
    n = same_rows(matrices, names)
    draws = _draws(mode, n_pairs, seed, n)
    if draws:
        difference, square, count, total = kernels.rand_draw(matrices, draws, int(seed), progress=progress, n_threads=n_threads)
        stderr = np.sqrt(np.maximum(square - difference**2, 0.0) / (draws - 1))
    else:
        every = next((every for most, every in NULL_TILES if n <= most), 16)
        difference, _, rows, count, total = kernels.rand_pass(
            matrices, with_rows=True, bin_every=every, progress=progress, n_threads=n_threads
        )
        assert rows is not None
        stderr = np.zeros_like(difference)
        for r, s, differences in zip(*np.triu_indices(len(matrices), 1), rows, strict=True):
            stderr[r, s] = stderr[s, r] = _jackknife(float(difference[r, s]), differences)
    null = _null(count, total)
    with np.errstate(invalid="ignore", divide="ignore"):
        aci = np.where(difference == 0.0, 1.0, 1.0 - difference / null)
    return AlignmentMatrix(
        names=names, d=difference, ndc=1.0 - difference, ndc_null=1.0 - null, aci=aci, stderr=stderr, n=n, noise=noise,
        n_pairs=draws or n * (n - 1) // 2, mode=mode, bound=math.sqrt(math.log(2 / 0.05) / (2 * draws)) if draws else 0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The discordance of two representations as a sum over their concepts.

    Attributes
    ----------
    p, q : ndarray of shape (Kp,) and (Kq,), float64
        What each concept adds to d = p.sum() + q.sum(). Of the pairs that P holds further apart than Q, a concept of P adds its
        share of the distance and one of Q takes its share away; of the other pairs the reverse. A negative part belongs to a
        concept that explains more agreement than disagreement.
    d : float
    n : int
    noise : str
        With "explicit", the last entry of either side is that of noise.
    """

    p: NDArray[np.float64]
    q: NDArray[np.float64]
    d: float
    n: int
    noise: str

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers, for JSON."""
        return {"p": self.p.tolist(), "q": self.q.tolist(), "d": self.d, "n": self.n, "noise": self.noise}


def attribute(
    P: ArrayLike, Q: ArrayLike, *, noise: Noise = "implicit", progress: bool = False, n_threads: int | None = None
) -> Attribution:
    """Which concepts make two representations disagree?  Additive parts of d.

    Parameters
    ----------
    P, Q, noise, progress, n_threads
        As for :func:`align`.

    Returns
    -------
    Attribution

    Notes
    -----
    With s = sign(m_P - m_Q) of a pair, d = sum_a c_a - sum_b c_b, c_a = mean over pairs of s |P[i,a] - P[j,a]| / 2 and c_b
    likewise: |x - y| = sign(x - y) (x - y), and m is a sum over concepts. O(n^2 (Kp + Kq)), about three times :func:`align`.
    """
    p, q = proximities(P, name="P", noise=noise), proximities(Q, name="Q", noise=noise)
    n = same_rows([p, q], ["P", "Q"])
    of_p, of_q = kernels.rand_parts(p, q, progress=progress, n_threads=n_threads)
    return Attribution(p=of_p, q=-of_q, d=float(of_p.sum() - of_q.sum()), n=n, noise=noise)
