"""Make hdbscan.npz: trees, labels and memberships of the hdbscan package on small data sets.

    python tests/golden/make_hdbscan_golden.py        with hdbscan 0.8.44 and scikit-learn installed

The spanning trees are exact (``approx_min_span_tree=False``).  Where hdbscan's edges and ours differ, it is in ties; the
tests therefore start from hdbscan's own dendrograms and compare the trees themselves by weight.
"""

from pathlib import Path

import hdbscan
import numpy as np
from hdbscan import prediction

HERE = Path(__file__).resolve().parent
NEW = 12  # new points per data set


def blobs(n, d, k, seed, spread=0.15):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-2, 2, (k, d))
    return centre[rng.integers(0, k, n)] + spread * rng.standard_normal((n, d)) * rng.gamma(2, 0.5, (n, 1))


# name: points, min_cluster_size, min_samples, selection, epsilon
CASES = {
    "blobs_2d": (blobs(300, 2, 5, 1), 12, 5, "leaf", 0.0),
    "blobs_2d_eom": (blobs(300, 2, 5, 2), 10, 8, "eom", 0.0),
    "line": (blobs(200, 1, 4, 3, 0.05), 8, 4, "leaf", 0.0),
    "many": (blobs(400, 3, 14, 4, 0.1), 6, 3, "leaf", 0.0),
    "many_epsilon": (blobs(400, 3, 14, 5, 0.1), 5, 3, "leaf", 0.35),
    "eom_epsilon": (blobs(300, 2, 9, 6), 5, 3, "eom", 0.2),
    "wide": (blobs(200, 30, 4, 7), 12, 6, "leaf", 0.0),
    "few_duplicates": (np.repeat(blobs(100, 2, 4, 8), 2, axis=0), 8, 4, "leaf", 0.0),
    "noise": (np.random.default_rng(9).uniform(0, 1, (60, 4)), 40, 5, "leaf", 0.0),
}


def main():
    out = {"version": np.array(hdbscan.__version__ if hasattr(hdbscan, "__version__") else "0.8.44"), "names": np.array(list(CASES))}
    for name, (points, size, samples, selection, epsilon) in CASES.items():
        x = points.astype(np.float32)
        fit = hdbscan.HDBSCAN(
            min_cluster_size=size, min_samples=samples, cluster_selection_method=selection, cluster_selection_epsilon=epsilon,
            approx_min_span_tree=False, gen_min_span_tree=True, prediction_data=True,
        ).fit(x.astype(np.float64))
        tree = fit.condensed_tree_._raw_tree
        part = {
            "x": x, "parameters": np.array([size, samples, selection == "eom", epsilon]), "labels": fit.labels_.astype(np.int16),
            "probabilities": fit.probabilities_, "linkage": fit._single_linkage_tree,
            "weights": np.sort(fit.minimum_spanning_tree_._mst[:, 2]),
            **{f: tree[f].astype(np.float64 if f == "lambda_val" else np.int32) for f in tree.dtype.names},
        }
        if fit.labels_.max() >= 1:
            new = np.random.default_rng(0).uniform(x.min(0), x.max(0), (NEW, x.shape[1])).astype(np.float32)
            part |= {"all_points": prediction.all_points_membership_vectors(fit)[::4], "new": new}
            part["new_point"] = prediction.membership_vector(fit, x[::4].astype(np.float64))
            part["new_membership"] = prediction.membership_vector(fit, new.astype(np.float64))
        out |= {f"{name}/{key}": value for key, value in part.items()}
    np.savez_compressed(HERE / "hdbscan.npz", **out)
    for name in CASES:
        print(name, out[f"{name}/labels"].max() + 1, "clusters", (out[f"{name}/labels"] < 0).mean(), "noise")
    print((HERE / "hdbscan.npz").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
