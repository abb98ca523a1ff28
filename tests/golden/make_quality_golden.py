"""Write what test_discovery.py compares: ``python tests/golden/make_quality_golden.py`` (needs hdbscan 0.8.44 and scikit-dimension)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skdim
from hdbscan.validity import validity_index


def main() -> None:
    rng, found = np.random.default_rng(0), {}
    for s, (n, d, k) in enumerate([(150, 3, 4), (240, 10, 5), (120, 2, 3)]):
        truth = rng.integers(0, k, n)
        points = 4 * rng.standard_normal((k, d))[truth] + rng.standard_normal((n, d))
        labels = np.where(rng.random(n) < 0.1, -1, truth)
        found[f"points{s}"], found[f"labels{s}"] = points, labels
        found[f"validity{s}"] = validity_index(points, labels, per_cluster_scores=True)[1]
        two_nn = skdim.id.TwoNN(discard_fraction=0.5)
        found[f"dimension{s}"] = np.array([two_nn.fit_transform(points[labels == j]) for j in range(k)])
    np.savez_compressed(Path(__file__).parent / "quality.npz", **found)


if __name__ == "__main__":
    main()
