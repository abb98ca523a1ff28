"""How near would components come whose examples are drawn at random?

A random component has as many examples as one of the side's own, chosen at random, drawn from the examples of all of them in its layer, a
picture as often as it occurs there, no picture twice; its vector is formed as theirs are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import lens as kernels
from semanticlens.lens.intervals import example_weights
from semanticlens.lens.sides import F64, Side
from semanticlens.lens.significance import null_examples

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB

__all__ = ["at_random", "random_vectors"]


def random_vectors(
    db: ConceptDB, layer: str, usable: NDArray[np.bool_], n: int, seed: tuple[int, ...], threads: int
) -> NDArray[np.float32]:
    """(n, d): vectors of random components of a layer, of which ``usable`` (K,) take part; rows without a direction are NaN."""
    rows, own = db.rows(layer), db[layer]
    counts = np.where(usable, own.live_counts(), 0)
    filled = rows[(np.arange(rows.shape[1]) < counts[:, None]) & (rows >= 0)]
    if len(np.unique(filled)) < 2 * counts.max():
        raise DataError(
            f"random={n}: layer {layer!r} has {len(np.unique(filled))} different pictures as examples, too few to draw random components "
            f"of {int(counts.max())} from: collect fewer examples or more components, or pass random=0"
        )
    rng = np.random.default_rng(list(seed))
    sizes = rng.choice(counts[counts > 0], n)
    weights, normalize = example_weights(db, layer), bool(db.record["build"]["normalize_examples"])
    vectors = np.full((n, db.embeddings.shape[1]), np.nan, np.float32)
    for size in np.unique(sizes):  # examples stand one per place, so a group of one size is drawn at once
        here = np.flatnonzero(sizes == size)
        places = null_examples(rows, counts, int(size), 0, len(here), int(rng.integers(2**31)))
        drawn = np.ascontiguousarray(rows.ravel()[places])
        heavy = None if weights is None else np.ascontiguousarray(weights.ravel()[places])
        vectors[here] = kernels.concept_vectors(
            db.embeddings, drawn, None, heavy, normalize=normalize, n_threads=threads
        )[0]
    return vectors


def at_random(
    db: ConceptDB,
    side: Side,
    others: NDArray[np.float32],
    n: int,
    seed: tuple[int, ...],
    centre: F64 | None,
    threads: int,
) -> F64:
    """Cosines of n random components of a side, less the ``centre`` (d,), to the nearest of the ``others`` (K, d), ascending."""
    used = np.bincount(side.layer[side.usable], minlength=len(side.layers))
    share = np.random.default_rng([*seed, 0]).multinomial(n, used / used.sum())  # layers by their components
    best: list[F64] = []
    for i, layer in enumerate(side.layers):
        if share[i]:
            own = side.usable[side.layer == i]
            vectors = random_vectors(db, layer, own, int(share[i]), (*seed, 1, i), threads)
            if centre is not None:
                vectors = (vectors - centre).astype(np.float32)
            found = kernels.top_labels(vectors, others, 1, n_threads=threads)[1][:, 0].astype(np.float64)
            best.append(np.clip(found[~np.isnan(found)], -1, 1))
    values = np.sort(np.concatenate(best))
    if not len(values):
        raise DataError(f"random={n}: no random component of {side.name!r} has a direction; pass random=0")
    return values
