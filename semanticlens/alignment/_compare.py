"""What :mod:`semanticlens.alignment.measures` computes: the measures as functions of an order of Y's rows.

Each function here prepares both sides once and returns the value for any order, which is what permutation tests need.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, NumericalError
from semanticlens._kernels import measures as kernels
from semanticlens.alignment.clustering import _whole, as_points

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Order = NDArray[np.intp] | None
Value = Callable[[Order], float]  # the measure with the rows of Y in this order

BINS = 1 << 20
TIED = 1e-8  # share of triples of pairs that may share a bin before the bins are made finer


def pair(X: ArrayLike, Y: ArrayLike, least: int = 3) -> tuple[F64, F64]:
    x, y = as_points(X, "X"), as_points(Y, "Y")
    if len(x) != len(y):
        raise DataError(f"Y has {len(y)} rows, but X has {len(x)}: both must describe the same samples in the same order")
    if len(x) < least:
        raise DataError(f"X and Y have {len(x)} rows: this measure needs at least {least}")
    return x, y


def largest(x: F64) -> float:
    """The largest absolute entry, without a copy of x."""
    return max(float(x.max()), -float(x.min()))


def squares(x: F64) -> F64:
    """(n,) squared norms of the rows, without a copy of x."""
    norms: F64 = np.einsum("ij,ij->i", x, x)
    return norms


def centred(x: F64, name: str) -> F64:
    """Without column means, largest entry 1."""
    shifted: F64 = x - x.mean(axis=0)
    most = largest(shifted)
    if not most > 1e-15 * largest(x):
        raise DataError(f"{name} has equal rows only: there is nothing to compare")
    shifted /= most
    return shifted


def moved_rows(x: NDArray[Any], order: Order) -> NDArray[Any]:
    return x if order is None else np.ascontiguousarray(x[order])


def choice(value: Any, name: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, known))}")


@dataclass(frozen=True, slots=True)
class Gram:
    """What HSIC needs of the inner products of centred rows: the rows themselves, or the products where they are fewer."""

    rows: F64
    own: F64  # (n,) squared norms
    gram: F64 | None

    @classmethod
    def of(cls, x: F64, by_rows: bool, n_threads: int | None) -> Gram:
        across = np.ascontiguousarray(x.T)
        return cls(x, squares(x), kernels.cross(across, across, n_threads=n_threads) if by_rows else None)

    def moved(self, order: Order) -> Gram:
        if order is None:
            return self
        gram = None if self.gram is None else self.gram[np.ix_(order, order)]
        return Gram(moved_rows(self.rows, order), self.own[order], gram)


def hsic_linear(a: Gram, b: Gram, debiased: bool, n_threads: int | None) -> float:
    """HSIC up to its factor.  Columns are centred, so that a row of products sums to 0 and, without its diagonal, to minus that."""
    n = len(a.own)
    if a.gram is not None and b.gram is not None:
        together = float((a.gram * b.gram).sum())
    else:
        together = float(np.square(kernels.cross(a.rows, b.rows, n_threads=n_threads)).sum())
    if not debiased:
        return together
    both = float(a.own @ b.own)
    return _above_rounding(together - both + float(a.own.sum()) * float(b.own.sum()) / ((n - 1) * (n - 2)) - 2 * both / (n - 2), together)


def _above_rounding(value: float, terms: float) -> float:
    """``value``, a difference of terms of this size, or 0 where it is rounding alone."""
    return value if abs(value) > 1e-13 * terms else 0.0


def normalised(together: float, x: float, y: float) -> float:
    if not (x > 0 and y > 0):
        side = "X" if not x > 0 else "Y"
        raise NumericalError(
            f"the HSIC of {side} with itself is {min(x, y):.3g}, not above 0: too few samples for this noise, or no variance"
        )
    return together / math.sqrt(x * y)


def linear_cka(X: ArrayLike, Y: ArrayLike, debiased: bool, n_threads: int | None) -> Value:
    x, y = pair(X, Y, 4 if debiased else 2)
    by_rows = len(x) < min(x.shape[1], y.shape[1])
    a, b = (Gram.of(centred(v, name), by_rows, n_threads) for v, name in ((x, "X"), (y, "Y")))
    own = [hsic_linear(side, side, debiased, n_threads) for side in (a, b)]
    return lambda order: normalised(hsic_linear(a, b.moved(order), debiased, n_threads), *own)


def within_one(x: F64, name: str) -> tuple[F32, float]:
    """Rows around the middle of most of them (an outlier must not cost the others their digits) over the longest one, and its length."""
    shifted = x - np.median(x, axis=0)
    most = largest(shifted)
    if not most > 1e-15 * largest(x):
        raise DataError(f"{name} has equal rows only: there is nothing to compare")
    shifted /= most
    length = math.sqrt(float(squares(shifted).max()))
    shifted /= length
    return shifted.astype(np.float32), most * length


def median(x: F32, name: str, n_threads: int | None) -> float:
    """Median distance of rows no longer than 1."""
    high, target = 4.0, len(x) * (len(x) - 1) / 4
    for _ in range(8):
        upto = np.cumsum(kernels.pair_counts(x, (0.0, high), BINS, distance=True, n_threads=n_threads))
        at = int(np.searchsorted(upto, target))
        before = int(upto[at - 1]) if at else 0
        inside = int(upto[at]) - before
        if at > BINS >> 3 or (at > BINS >> 6 and inside > 1000):
            return math.sqrt((at + (target - before) / inside) * high / BINS)
        high = 4.0 * (at + 1) * high / BINS
    raise DataError(f"the median distance of {name}'s rows is 0 or nearly so: give the bandwidth as a number")


def bandwidths(bandwidth: Any) -> tuple[float | None, float | None]:
    if isinstance(bandwidth, str):
        choice(bandwidth, "bandwidth", ("median",))
        return None, None
    both = tuple(float(b) for b in bandwidth) if np.ndim(bandwidth) else (float(bandwidth),) * 2
    if len(both) != 2 or not all(math.isfinite(b) and b > 0 for b in both):
        raise ValueError(f"bandwidth={bandwidth!r} must be 'median', a positive number, or two of them")
    return both[0], both[1]


def gauss_cka(X: ArrayLike, Y: ArrayLike, debiased: bool, bandwidth: Any, n_threads: int | None) -> Value:
    widths = bandwidths(bandwidth)
    rows: list[F32] = []
    rates: list[float] = []
    for v, name, width in zip(pair(X, Y, 4 if debiased else 2), ("X", "Y"), widths, strict=True):
        scaled, longest = within_one(v, name)
        rows.append(scaled)
        rates.append(1 / (2 * (median(scaled, name, n_threads) if width is None else width / longest) ** 2))

    def value(order: Order) -> float:
        sums, of_x, of_y = kernels.pair_gauss(rows[0], rates[0], moved_rows(rows[1], order), rates[1], n_threads=n_threads)
        sides = ((of_x, of_y), (of_x, of_x), (of_y, of_y))
        return normalised(*(hsic_sums(float(s), a, b, debiased) for s, (a, b) in zip(sums, sides, strict=True)))

    return value


def hsic_sums(pairs: float, a: F64, b: F64, debiased: bool) -> float:
    """HSIC up to its factor from the sum over pairs of products and the row sums, both without the diagonal, which is 1."""
    n = len(a)
    if debiased:
        return _above_rounding(2 * pairs + float(a.sum()) * float(b.sum()) / ((n - 1) * (n - 2)) - 2 * float(a @ b) / (n - 2), pairs)
    mean_a, mean_b = float(a.mean()), float(b.mean())
    return 2 * pairs + n - (mean_a + 1) * (mean_b + 1) - 2 / n * float((a - mean_a) @ (b - mean_b))


@dataclass(frozen=True, slots=True)
class Ranked:
    """Ranks of all row products by bins: between -1/2 and 1/2, pairs of one bin share theirs."""

    rows: F32
    limits: tuple[float, float]
    score: F32
    square: float  # sum over pairs of score^2


def ranked(rows: F64, name: str, n_threads: int | None) -> Ranked:
    small = rows.astype(np.float32)
    low, high = -1.0, 1.0
    for _ in range(4):
        count = kernels.pair_counts(small, (low, high), BINS, n_threads=n_threads).astype(np.float64)
        total, used = count.sum(), np.flatnonzero(count)
        width = (high - low) / BINS
        inner = (low + (used[0] - 1) * width, low + (used[-1] + 2) * width)
        if (count**3).sum() <= TIED * total**3 or inner[1] - inner[0] > 0.5 * (high - low) or width < 1e-12:
            break
        low, high = inner
    score = ((np.cumsum(count) - count / 2) / total - 0.5).astype(np.float32)
    square = float((count * np.square(score, dtype=np.float64)).sum())
    if not square > 0:
        raise DataError(f"all pairs of rows of {name} are equally similar: there is no order to compare")
    return Ranked(small, (low, high), score, square)


def unit_rows(x: F64, name: str, centre: bool) -> F64:
    shifted = x - x.mean(axis=1, keepdims=True) if centre else x
    most = np.maximum(shifted.max(axis=1), -shifted.min(axis=1))
    before = np.maximum(x.max(axis=1), -x.min(axis=1)) if centre else most
    flat = np.flatnonzero(~(most > 1e-14 * before))
    if flat.size:
        what = "constant: its correlation with others" if centre else "zero: its direction"
        raise DataError(f"{name}: row {flat[0]} is {what} is undefined, as for {flat.size - 1} others; remove these samples")
    unit: F64 = shifted / most[:, None]
    unit /= np.sqrt(squares(unit))[:, None]
    return unit


def rsa(X: ArrayLike, Y: ArrayLike, inner: str, outer: str, n_threads: int | None) -> Value:
    choice(inner, "inner", ("correlation", "cosine"))
    choice(outer, "outer", ("spearman", "pearson"))
    x, y = (unit_rows(v, name, inner == "correlation") for v, name in zip(pair(X, Y), ("X", "Y"), strict=True))
    if outer == "pearson":
        return rsa_pearson(x, y, n_threads)
    a, b = ranked(x, "X", n_threads), ranked(y, "Y", n_threads)

    def value(order: Order) -> float:
        moved = moved_rows(b.rows, order)
        together = kernels.pair_scores(a.rows, a.limits, a.score, moved, b.limits, b.score, n_threads=n_threads)
        return together / math.sqrt(a.square * b.square)

    return value


def rsa_pearson(x: F64, y: F64, n_threads: int | None) -> Value:
    """By features: the products of unit rows sum to |sum of rows|^2, their products to |X^T Y|^2."""
    n = len(x)
    pairs = n * (n - 1)
    sums = [float(np.square(v.sum(axis=0)).sum()) - n for v in (x, y)]

    def moment(u: F64, v: F64, a: float, b: float) -> float:
        return float(np.square(kernels.cross(u, v, n_threads=n_threads)).sum()) - n - a * b / pairs

    own = [moment(v, v, s, s) for v, s in zip((x, y), sums, strict=True)]
    for name, spread in zip(("X", "Y"), own, strict=True):
        if not spread > 1e-12 * pairs:
            raise DataError(f"all pairs of rows of {name} are equally similar: there is nothing to correlate")
    return lambda order: moment(x, moved_rows(y, order), *sums) / math.sqrt(own[0] * own[1])


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Sparse rows: place i * n + j of every neighbour j of i, ascending, and its product."""

    n: int
    place: I64
    product: F64

    @classmethod
    def of(cls, x: F64, k: int, n_threads: int | None) -> Neighbours:
        index, product = kernels.near_rows(x, k, n_threads=n_threads)
        place = (np.arange(len(x), dtype=np.int64)[:, None] * len(x) + index).ravel()
        by_place = np.argsort(place)
        return cls(len(x), place[by_place], product.ravel()[by_place])

    def moved(self, order: Order) -> Neighbours:
        if order is None:
            return self
        now = np.argsort(order)  # where each row goes
        place = now[self.place // self.n] * self.n + now[self.place % self.n]
        by_place = np.argsort(place)
        return Neighbours(self.n, place[by_place], self.product[by_place])


def neighbours(X: ArrayLike, Y: ArrayLike, k: int, metric: str, n_threads: int | None, least: int) -> tuple[Neighbours, Neighbours]:
    k = _whole(k, "k", 1)
    choice(metric, "metric", ("cosine", "dot"))
    x, y = pair(X, Y, least)
    if k > len(x) - 1:
        raise ValueError(f"k={k} must be at most the {len(x) - 1} other rows")
    if metric == "cosine":
        x, y = unit_rows(x, "X", False), unit_rows(y, "Y", False)
    else:
        x, y = (v / max(float(np.abs(v).max()), np.finfo(np.float64).tiny) for v in (x, y))
    return Neighbours.of(x, k, n_threads), Neighbours.of(y, k, n_threads)


def mutual_knn(X: ArrayLike, Y: ArrayLike, k: int, metric: str, n_threads: int | None) -> Value:
    a, b = neighbours(X, Y, k, metric, n_threads, 2)
    return lambda order: len(np.intersect1d(a.place, b.moved(order).place, assume_unique=True)) / len(a.place)


def sparse_hsic(n: int, a: tuple[I64, F64], b: tuple[I64, F64]) -> float:
    """Debiased HSIC, up to its factor, of two sparse matrices without diagonals.

    sum(K * L^T) + sum(K) sum(L) / ((n - 1) (n - 2)) - 2 sum(K L) / (n - 2)
    """
    turned = (b[0] % n) * n + b[0] // n
    by_place = np.argsort(turned)
    _, at_a, at_b = np.intersect1d(a[0], turned[by_place], assume_unique=True, return_indices=True)
    crossed = float(a[1][at_a] @ b[1][by_place][at_b])
    columns = np.bincount(a[0] % n, a[1], n)
    rows = np.bincount(b[0] // n, b[1], n)
    return crossed + float(a[1].sum()) * float(b[1].sum()) / ((n - 1) * (n - 2)) - 2 * float(columns @ rows) / (n - 2)


def cknna(X: ArrayLike, Y: ArrayLike, k: int, metric: str, n_threads: int | None) -> Value:
    a, b = neighbours(X, Y, k, metric, n_threads, 4)
    own = [sparse_hsic(s.n, (s.place, s.product), (s.place, s.product)) for s in (a, b)]

    def value(order: Order) -> float:
        c = b.moved(order)
        both, at_a, at_c = np.intersect1d(a.place, c.place, assume_unique=True, return_indices=True)
        return normalised(sparse_hsic(a.n, (both, a.product[at_a]), (both, c.product[at_c])), *own)

    return value


def procrustes(X: ArrayLike, Y: ArrayLike, n_threads: int | None) -> Value:
    x, y = (centred(v, name) for v, name in zip(pair(X, Y, 2), ("X", "Y"), strict=True))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    if len(x) < min(x.shape[1], y.shape[1]):  # the same singular values from fewer columns
        x, y = (np.ascontiguousarray(np.linalg.qr(v.T)[1].T) for v in (x, y))

    def value(order: Order) -> float:
        nuclear = float(np.linalg.svd(kernels.cross(x, moved_rows(y, order), n_threads=n_threads), compute_uv=False).sum())
        return math.sqrt(max(0.0, 2 - 2 * nuclear))

    return value


def leading(x: F64, name: str, share: float, components: int | None) -> F64:
    u, s, _ = np.linalg.svd(centred(x, name), full_matrices=False)
    rank = int((s > s[0] * 1e-10).sum())
    if components is None:
        part = np.cumsum(s**2) / np.sum(s**2)
        components = int(np.searchsorted(part, share - 1e-12)) + 1
    elif components > rank:
        raise DataError(f"components={components}, but {name} has only {rank} directions with variance")
    return np.ascontiguousarray(u[:, : min(components, rank)])


def svcca(X: ArrayLike, Y: ArrayLike, share: float, components: int | None, n_threads: int | None) -> Value:
    if not 0 < share <= 1:
        raise ValueError(f"share={share} must lie in (0, 1]")
    if components is not None:
        components = _whole(components, "components", 1)
    x, y = (leading(v, name, share, components) for v, name in zip(pair(X, Y, 2), ("X", "Y"), strict=True))

    def value(order: Order) -> float:
        correlations = np.linalg.svd(kernels.cross(x, moved_rows(y, order), n_threads=n_threads), compute_uv=False)
        return float(np.minimum(correlations, 1.0).mean())

    return value


def label_numbers(labels: ArrayLike, name: str) -> I64:
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) < 2:
        raise DataError(f"{name} must be a list of labels of at least two samples, not of shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{name} has NaN or infinite labels: give noise a label of its own, such as -1")
    return np.unique(array, return_inverse=True)[1].astype(np.int64).reshape(-1)


def rand(x: ArrayLike, y: ArrayLike, adjusted: bool) -> Value:
    a, b = label_numbers(x, "x"), label_numbers(y, "y")
    if len(a) != len(b):
        raise DataError(f"y has {len(b)} labels, but x has {len(a)}: both must describe the same samples in the same order")
    total = len(a) * (len(a) - 1) // 2

    def pairs(labels: I64) -> int:
        count = np.unique(labels, return_counts=True)[1].astype(object)
        return int((count * (count - 1) // 2).sum())

    of_a, of_b = pairs(a), pairs(b)

    def value(order: Order) -> float:
        both = pairs(a * (int(b.max()) + 1) + moved_rows(b, order))
        if not adjusted:
            return (total + 2 * both - of_a - of_b) / total
        expected = of_a * of_b / total
        most = (of_a + of_b) / 2
        return 1.0 if both == of_a == of_b else (both - expected) / (most - expected)

    return value
