"""Dictionaries of directions as concepts: non-negative matrix factorisation and a sparse autoencoder, both trained in NumPy, by seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens._progress import track
from semanticlens.alignment.baselines import spread_seeds
from semanticlens.alignment.estimator import F32, F64, Discovery, Real, argmax_labels, shares, whole


class NMF(Discovery):
    """Non-negative matrix factorisation X = W H with rows of H of length 1; proximity is the share of a row's weights W.

    Parameters
    ----------
    n_concepts : int
        At most min(n, F).
    max_iter, tol
        Ends after ``max_iter`` rounds, or when a round lowers the squared error by less than ``tol`` of the first one.
    seed : int

    Attributes
    ----------
    components_ : ndarray of shape (K, F), float64
    weights_ : ndarray of shape (n, K), float64
    error_ : float
        Frobenius norm of X - W H, as a share of that of X.
    memberships_, labels_, exemplars_, n_features_in_
        See :class:`Discovery`.

    Notes
    -----
    Hierarchical alternating least squares (Cichocki and Phan 2009), started from rows of X far from each other.
    """

    def __init__(self, n_concepts: int = 50, max_iter: int = 200, tol: float = 1e-5, seed: int = 0) -> None:
        self.n_concepts = n_concepts
        self.max_iter = max_iter
        self.tol = tol
        self.seed = seed

    def fit(self, X: ArrayLike, y: Any = None) -> NMF:
        """Find components; X must not be negative."""
        rows = self._positive(self._start(X))
        k = min(whole(self.n_concepts, "n_concepts", 1), *rows.shape)
        rng = np.random.default_rng(self.seed)
        seeds = spread_seeds(rows, k, rng)
        parts = rows[seeds] + 1e-3 * rows.mean() * rng.random((len(seeds), rows.shape[1]))
        weights = np.maximum(rows @ parts.T, 0) / np.maximum((parts**2).sum(axis=1), 1e-300) / k
        size = float((rows**2).sum())
        before = first = np.inf
        for _ in range(whole(self.max_iter, "max_iter", 1)):
            _sweep(weights, rows @ parts.T, parts @ parts.T)
            transposed = parts.T.copy()
            _sweep(transposed, rows.T @ weights, weights.T @ weights)
            parts = transposed.T
            error = size - 2 * float((weights * (rows @ parts.T)).sum()) + float(((weights.T @ weights) * (parts @ parts.T)).sum())
            first = min(first, error) if np.isfinite(first) else error
            if before - error <= self.tol * first:
                break
            before = error
        length = np.linalg.norm(parts, axis=1)
        live = length > 0
        self.components_, self.weights_ = parts[live] / length[live, None], weights[:, live] * length[live]
        self.error_ = float(np.linalg.norm(rows - self.weights_ @ self.components_) / np.sqrt(size))
        memberships = shares(self.weights_)
        self._finish(memberships, argmax_labels(memberships))
        return self

    def transform(self, X: ArrayLike) -> F32:
        """Proximities of new rows: weights by least squares with the components held."""
        rows = self._positive(self._new(X))
        gram, target = self.components_ @ self.components_.T, rows @ self.components_.T
        weights = np.maximum(target, 0) / len(self.components_)
        for _ in range(self.max_iter):
            before = weights.copy()
            _sweep(weights, target, gram)
            if np.abs(weights - before).max() <= 1e-6 * max(float(weights.max()), 1e-300):
                break
        return shares(weights)

    def _positive(self, rows: Real) -> F64:
        if rows.min() < 0:
            row = int(np.flatnonzero(rows.min(axis=1) < 0)[0])
            raise DataError(f"X: row {row} is negative (down to {rows.min():.3g}), which NMF cannot factorise: take a layer "
                            f"behind a ReLU, or pass "
                            "numpy.maximum(X, 0) if that is meant")  # fmt: skip
        return rows.astype(np.float64)


def _sweep(weights: F64, target: NDArray[Any], gram: NDArray[Any]) -> None:
    """One round of coordinate-wise non-negative least squares: each column in turn, given the others; in place."""
    for k in range(weights.shape[1]):
        if gram[k, k] > 0:
            weights[:, k] = np.maximum(weights[:, k] + (target[:, k] - weights @ gram[:, k]) / gram[k, k], 0)


class TopKSAE(Discovery):
    """Sparse autoencoder that keeps the ``active`` largest activations of a row; proximity is the share of a row's activations.

    z = top_k(relu(E (x - b) + c)) and x' = D z + b with columns of D of length 1; the mean squared error is lowered by
    Adam.  Latents that fired for no row of an epoch are restarted towards the rows that are explained worst.

    Parameters
    ----------
    n_concepts : int
        Latents.
    active : int
        Of them, at most this many per row.
    epochs, batch_size, learning_rate
        Training; rows are scaled to a mean squared length of 1 around their mean first.
    seed : int
        Of the start and of the order of the rows.
    progress : bool

    Attributes
    ----------
    encoder_, decoder_ : ndarray of shape (F, K) and (K, F), float32
    bias_ : ndarray of shape (K,), float32
    mean_, scale_ : ndarray of shape (F,), float64; float
    losses_ : tuple of float
        Unexplained share of the variance, per epoch.
    memberships_, labels_, exemplars_, n_features_in_
        See :class:`Discovery`.

    Notes
    -----
    Top-k activation: Makhzani and Frey 2013; Gao et al. 2024.
    """

    def __init__(
        self,
        n_concepts: int = 128,
        active: int = 8,
        epochs: int = 60,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        self.n_concepts = n_concepts
        self.active = active
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed
        self.progress = progress

    def fit(self, X: ArrayLike, y: Any = None) -> TopKSAE:
        """Train."""
        rows = self._start(X)
        k, active = whole(self.n_concepts, "n_concepts", 1), whole(self.active, "active", 1)
        if active > k:
            raise ValueError(f"active={active} must be at most n_concepts={k}")
        self.mean_ = rows.mean(axis=0, dtype=np.float64)
        self.scale_ = float(np.sqrt(((rows - self.mean_) ** 2).sum(axis=1, dtype=np.float64).mean()))
        x = self._scaled(rows)
        rng = np.random.default_rng(self.seed)
        decoder = _unit(rng.standard_normal((k, x.shape[1])).astype(np.float32))
        self.decoder_, self.encoder_, self.bias_ = decoder, decoder.T.copy(), np.zeros(k, np.float32)
        step, losses = _Adam(self.learning_rate), []
        for _ in track(range(whole(self.epochs, "epochs", 1)), progress=self.progress, what="training", unit="epoch"):
            fired, lost = np.zeros(k, bool), 0.0
            order = rng.permutation(len(x))
            for start in range(0, len(x), whole(self.batch_size, "batch_size", 1)):
                lost += self._train(x[order[start : start + self.batch_size]], step, fired)
            losses.append(lost / len(x))
            self._restart(x, ~fired, step)
        self.losses_ = tuple(losses)
        memberships = shares(self._activations(x))
        self._finish(memberships, argmax_labels(memberships))
        return self

    def transform(self, X: ArrayLike) -> F32:
        """Proximities of new rows."""
        return shares(self._activations(self._scaled(self._new(X))))

    def _scaled(self, rows: Real) -> F32:
        return np.asarray(((rows - self.mean_) / self.scale_).astype(np.float32))

    def _activations(self, x: F32) -> F32:
        z = np.maximum(x @ self.encoder_ + self.bias_, 0)
        if self.active < z.shape[1]:
            least = np.partition(z, -self.active, axis=1)[:, -self.active, None]
            z[z < least] = 0
        return np.asarray(z)

    def _train(self, x: F32, step: _Adam, fired: NDArray[np.bool_]) -> float:
        """One batch; returns its squared error."""
        z = self._activations(x)
        fired |= (z > 0).any(axis=0)
        residual = z @ self.decoder_ - x
        out = (2.0 / len(x)) * residual
        back = np.where(z > 0, out @ self.decoder_.T, 0).astype(np.float32)
        gradient = z.T @ out
        gradient -= (gradient * self.decoder_).sum(axis=1, keepdims=True) * self.decoder_  # along the sphere
        step({"encoder": (self.encoder_, x.T @ back), "bias": (self.bias_, back.sum(axis=0)), "decoder": (self.decoder_, gradient)})
        self.decoder_[:] = _unit(self.decoder_)
        return float((residual.astype(np.float64) ** 2).sum())

    def _restart(self, x: F32, dead: NDArray[np.bool_], step: _Adam) -> None:
        which = np.flatnonzero(dead)
        if not which.size:
            return
        residual = x - self._activations(x) @ self.decoder_
        worst = np.argsort(-(residual**2).sum(axis=1), kind="stable")[: len(which)]
        which = which[: len(worst)]
        directions = _unit(residual[worst])
        self.decoder_[which], self.encoder_[:, which], self.bias_[which] = directions, directions.T, 0
        step.forget({"encoder": (slice(None), which), "bias": (which,), "decoder": (which,)})


class _Adam:
    """Adam (Kingma and Ba 2015), in place."""

    def __init__(self, rate: float) -> None:
        if not rate > 0:
            raise ValueError(f"learning_rate={rate!r} must be above 0")
        self.rate, self.t = rate, 0
        self.moments: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}

    def __call__(self, updates: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> None:
        self.t += 1
        for name, (value, gradient) in updates.items():
            first, second = self.moments.setdefault(name, (np.zeros_like(value), np.zeros_like(value)))
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient**2 - second)
            value -= (self.rate / (1 - 0.9**self.t) * first / (np.sqrt(second / (1 - 0.999**self.t)) + 1e-8)).astype(value.dtype)

    def forget(self, places: dict[str, Any]) -> None:
        """Start the moments of restarted latents at 0."""
        for name, place in places.items():
            for moment in self.moments[name]:
                moment[place] = 0


def _unit(rows: F32) -> F32:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0))
