"""Linear assignment: the one-to-one matching of least total cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def assign(cost: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match rows to columns so that the sum of matched costs is least (Hungarian method, shortest augmenting paths).

    Parameters
    ----------
    cost : array-like of shape (n, m), float
        Finite; min(n, m) pairs are matched.

    Returns
    -------
    rows, columns : ndarray of shape (min(n, m),), int64
        Rows ascending. Equal inputs give equal matchings; among equal totals which one is not specified.

    Notes
    -----
    O(min(n, m)^2 max(n, m)), each step one vector operation: a second for 500 x 500. Kept here because the package
    does not depend on SciPy.
    """
    matrix = np.asarray(cost, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"cost must have 2 dimensions, not {matrix.ndim}")
    if not np.isfinite(matrix).all():
        raise ValueError("cost must be finite")
    if matrix.shape[0] > matrix.shape[1]:
        columns, rows = assign(matrix.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    n, m = matrix.shape
    row_price, column_price = np.zeros(n), np.zeros(m)
    row_of = np.full(m, -1, np.int64)  # the row a column is matched to
    for start in range(n):
        reached, came_from = np.full(m, np.inf), np.full(m, -1, np.int64)
        done = np.zeros(m, bool)
        row, column = start, -1
        base = 0.0
        while True:  # Dijkstra over reduced costs until a free column is reached
            slack = base + matrix[row] - row_price[row] - column_price
            better = ~done & (slack < reached)
            reached[better], came_from[better] = slack[better], column
            column = int(np.argmin(np.where(done, np.inf, reached)))
            base, done[column] = float(reached[column]), True
            if row_of[column] < 0:
                break
            row = int(row_of[column])
        settled = np.flatnonzero(done)
        row_price[start] += base
        inner = settled[row_of[settled] >= 0]
        row_price[row_of[inner]] += base - reached[inner]
        column_price[settled] -= base - reached[settled]
        while column >= 0:  # flip the path
            before = int(came_from[column])
            row_of[column] = row_of[before] if before >= 0 else start
            column = before
    matched = np.flatnonzero(row_of >= 0)
    order = np.argsort(row_of[matched])
    return row_of[matched][order], matched[order].astype(np.int64)
