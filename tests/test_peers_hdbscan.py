"""Against the hdbscan package on many random data sets, and the points where the published code is not followed.

    pytest -m peers tests/test_peers_hdbscan.py        with hdbscan 0.8.44 and scikit-learn installed

hdbscan runs with its exact spanning tree.  Trees, labels, strengths and memberships are compared on one dendrogram, hdbscan's or
ours, where nothing is ambiguous; spanning trees are compared weight by weight, and by what hangs together below a height: edges of
equal weight leave the rest free (5 to 12 % of neighbouring weights are equal, because edges share a core distance).
"""

import numpy as np
import pytest

from semanticlens._kernels import hdbscan as kernels
from semanticlens.alignment import HDBSCAN, CondensedTree, align, new_membership, soft_membership
from semanticlens.alignment.measures import adjusted_rand_index, rand_index

pytestmark = pytest.mark.peers
SETS = range(36)


def data(seed):
    """Points and parameters: another shape, size, dimension, density and number of clusters for every seed."""
    rng = np.random.default_rng(1000 + seed)
    n, d, k = int(rng.integers(80, 900)), int(rng.choice([1, 2, 3, 5, 10, 30])), int(rng.integers(2, 15))
    centre = rng.uniform(-2, 2, (k, d))
    which = rng.choice(k, n, p=rng.dirichlet(np.full(k, 2.0)))
    shape = ("blobs", "filaments", "rings", "uniform")[seed % 4]
    if shape == "blobs":
        x = centre[which] + 0.15 * rng.standard_normal((n, d)) * rng.gamma(2, 0.5, (n, 1))
    elif shape == "filaments":
        along = rng.standard_normal((k, d))
        x = centre[which] + rng.uniform(-1, 1, (n, 1)) * along[which] + 0.05 * rng.standard_normal((n, d))
    elif shape == "rings":
        turn = rng.uniform(0, 2 * np.pi, n)
        x = 0.05 * rng.standard_normal((n, d)) + centre[which]
        x[:, 0] += np.cos(turn)
        x[:, -1] += np.sin(turn)
    else:
        x = rng.uniform(-1, 1, (n, d))
    size, samples = int(rng.integers(4, 20)), int(rng.integers(1, 12))
    return x, size, samples, ("leaf", "eom")[seed // 4 % 2]


def fitted(seed, **more):
    hdbscan = pytest.importorskip("hdbscan")
    x, size, samples, selection = data(seed)
    model = hdbscan.HDBSCAN(
        min_cluster_size=size, min_samples=samples, cluster_selection_method=selection, approx_min_span_tree=False,
        gen_min_span_tree=True, **more,
    )
    return x, size, samples, selection, model.fit(x)


def ours(model, size):
    left, right, height, merged = model._single_linkage_tree.T
    whole = [np.ascontiguousarray(v, dtype=np.int64) for v in (left, right, merged)]
    return kernels.condense_linkage(whole[0], whole[1], np.ascontiguousarray(height), whole[2], size)


def together(edges, h):
    """Components of the edges no longer than h."""
    sparse = pytest.importorskip("scipy.sparse")
    low, high, weight = edges
    kept, n = weight <= h, len(weight) + 1
    graph = sparse.coo_array((np.ones(kept.sum()), (low[kept].astype(int), high[kept].astype(int))), shape=(n, n))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


@pytest.mark.parametrize("seed", SETS)
def test_tree_and_labels_are_hdbscans(seed):
    x, size, samples, selection, model = fitted(seed)
    rows = ours(model, size)
    theirs = model.condensed_tree_._raw_tree
    for column, name in zip(rows, ("parent", "child", "lambda_val", "child_size"), strict=True):
        np.testing.assert_array_equal(column, theirs[name])
    clusters = CondensedTree.of(rows).clusters(selection)
    np.testing.assert_array_equal(clusters.labels, model.labels_)
    np.testing.assert_allclose(clusters.probabilities, model.probabilities_, rtol=1e-15, atol=0)
    fit = HDBSCAN(size, samples, selection).fit(x)
    weights = np.sort(model.minimum_spanning_tree_._mst[:, 2])
    np.testing.assert_allclose(fit.spanning_tree_[2], weights, rtol=1e-12, atol=1e-15)
    gaps = np.flatnonzero(np.diff(weights) > 1e-9 * weights[1:])
    for h in weights[gaps[:: max(1, len(gaps) // 8)]] * (1 + 1e-10):  # what hangs together below h does not depend on ties
        assert rand_index(together(fit.spanning_tree_, h), together(model.minimum_spanning_tree_._mst.T, h)) == 1


@pytest.mark.parametrize("seed", SETS)
def test_labels_are_hdbscans_on_our_spanning_tree(seed):
    """A minimum spanning tree is unique up to ties: on the one of ours, hdbscan's tree code finds our labels."""
    hdbscan = pytest.importorskip("hdbscan")
    x, size, samples, selection = data(seed)
    fit = HDBSCAN(size, samples, selection).fit(x)
    linkage = hdbscan._hdbscan_linkage.label(np.column_stack(fit.spanning_tree_).astype(float))
    labels, strength, _, tree, _ = hdbscan.hdbscan_._tree_to_labels(x, linkage, size, selection)
    np.testing.assert_array_equal(fit.labels_, labels)
    np.testing.assert_allclose(fit.probabilities_, strength, rtol=1e-15, atol=0)
    for column, name in zip(fit.condensed_tree_.columns, ("parent", "child", "lambda_val", "child_size"), strict=True):
        np.testing.assert_array_equal(column, tree[name])


@pytest.mark.parametrize("seed", [s for s in SETS if s // 4 % 2 == 0])
def test_memberships_are_hdbscans(seed):
    prediction = pytest.importorskip("hdbscan.prediction")
    x, _, samples, selection, model = fitted(seed, prediction_data=True)
    if model.labels_.max() < 1:
        pytest.skip("hdbscan raises KeyError for K = 0 and K = 1")
    tree = CondensedTree.of(model)
    options = {"selection": selection, "dtype": np.float64}
    theirs = prediction.all_points_membership_vectors(model)
    np.testing.assert_allclose(soft_membership(tree, x, "all_points", **options), theirs, rtol=0, atol=1e-12)
    some = np.arange(0, len(x), 7)
    np.testing.assert_allclose(soft_membership(tree, x, **options)[some], prediction.membership_vector(model, x[some]), rtol=0, atol=1e-12)
    new = np.random.default_rng(seed).uniform(x.min(0), x.max(0), (20, x.shape[1]))
    mine = new_membership(tree, x, new, min_samples=samples, **options)
    np.testing.assert_allclose(mine, prediction.membership_vector(model, new), rtol=0, atol=1e-12)


def test_min_samples_counts_other_points():
    """scikit-learn counts the point itself: its min_samples is ours plus one."""
    cluster = pytest.importorskip("sklearn.cluster")
    agreement = {-1: [], 0: [], 1: []}
    for seed in (0, 1, 4, 5, 8, 9):
        x, size, samples, selection = data(seed)
        samples += 1
        fit = HDBSCAN(size, samples, selection).fit(x)
        for extra, found in agreement.items():
            labels = cluster.HDBSCAN(
                min_cluster_size=size, min_samples=samples + extra, cluster_selection_method=selection, algorithm="brute", copy=True
            ).fit(x).labels_
            found.append(adjusted_rand_index(fit.labels_, labels))
    assert np.mean(agreement[1]) > 0.9                # ties
    assert np.mean(agreement[1]) > max(np.mean(agreement[0]), np.mean(agreement[-1]))


def test_one_hot_gives_scikit_learns_indices():
    metrics = pytest.importorskip("sklearn.metrics")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 6, 400)
        y = np.where(rng.random(400) < 0.5, x, rng.integers(0, 9, 400))
        a = align(np.eye(6)[x], np.eye(9)[y])
        assert a.ndc == pytest.approx(metrics.rand_score(x, y), abs=1e-12)
        assert a.aci == pytest.approx(metrics.adjusted_rand_score(x, y), abs=1e-12)
