"""Density clustering: neighbours, spanning tree, condensed tree and selection against their definitions and stored results of hdbscan."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens import DataError
from semanticlens._kernels import _core
from semanticlens._kernels import hdbscan as kernels
from semanticlens._reference import hdbscan as twin
from semanticlens.alignment import HDBSCAN, CondensedTree

GOLDEN = np.load(Path(__file__).parent / "golden/hdbscan.npz")
NAMES = GOLDEN["names"].tolist()


def points(kind, n, d, seed):
    rng = np.random.default_rng(seed)
    if kind == "grid":
        return rng.integers(0, 5, (n, d)).astype(float)
    if kind == "copies":
        return rng.standard_normal((max(n // 9, 1), d))[rng.integers(0, max(n // 9, 1), n)]
    if kind == "equal":
        return np.full((n, d), 0.25)
    return rng.standard_normal((n, d)).astype(np.float32).astype(float)


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


CASES = st.tuples(st.sampled_from(["normal", "grid", "copies", "equal"]), st.integers(2, 90), st.sampled_from([1, 2, 3, 9, 20]),
                  st.integers(0, 10_000))


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(0, 12), st.sampled_from([1, 2, 8]))
def test_neighbours_and_spanning_tree_are_exact(case, samples, n_threads):
    """Edge for edge, ties included: the order (weight, low, high) leaves one tree."""
    x = points(*case)
    samples = min(samples, len(x) - 1)
    same(kernels.spanning_tree(x, samples, n_threads=n_threads), twin.spanning_tree(x, samples))
    index, squared = _core.nearest(x, x[::2] + 0.25, samples + 1, n_threads=n_threads)
    same((index, squared), twin.nearest(x, x[::2] + 0.25, samples + 1))


@pytest.mark.parametrize(("n", "d", "samples"), [(700, 2, 20), (700, 50, 5), (600, 3, 150)])
def test_spanning_tree_of_more_points(n, d, samples):
    x = points("normal", n, d, n)
    found = [kernels.spanning_tree(x, samples, n_threads=t) for t in (1, 2, 3, 8)]
    same(found[0], twin.spanning_tree(x, samples))
    for other in found[1:]:
        same(found[0], other)


@settings(max_examples=40, deadline=None)
@given(CASES, st.integers(1, 5), st.sampled_from([2, 3, 5, 10, 200]), st.sampled_from(["leaf", "eom"]),
       st.sampled_from([0.0, 0.3, 1.0, 5.0]))
def test_tree_and_selection(case, samples, size, selection, epsilon):
    x = points(*case)
    low, high, weight, _ = kernels.spanning_tree(x, min(samples, len(x) - 1))
    merges = _core.single_linkage(low, high)
    same(merges, twin.single_linkage(low, high))
    tree = twin.condense(merges[0], merges[1], weight, merges[2], size)
    same(kernels.condense(low, high, weight, size), tree)
    if selection == "eom" and case[0] != "normal":
        return  # equal stabilities, and inf - inf in the twin
    chosen = twin.select(tree, selection, epsilon)
    clusters = CondensedTree.of(tree).clusters(selection, epsilon)
    assert (clusters.selected + len(x)).tolist() == chosen
    same((clusters.labels, clusters.probabilities), twin.labels(tree, chosen))
    same(clusters.exemplars, twin.exemplars(tree, chosen))
    for c in range(clusters.height.shape[0]):
        np.testing.assert_array_equal(clusters.height[c], [twin.merge_height(tree, c + len(x), s) for s in chosen])


@pytest.mark.parametrize("name", NAMES)
def test_equals_hdbscan(name):
    """From hdbscan's dendrogram: condensed tree row for row, labels, probabilities.  From the points: the tree, up to ties."""
    g = {key.split("/")[1]: GOLDEN[key] for key in GOLDEN.files if key.startswith(f"{name}/")}
    size, samples, eom, epsilon = g["parameters"]
    left, right, height, merged = g["linkage"].T
    whole = [np.ascontiguousarray(v, dtype=np.int64) for v in (left, right, merged)]
    rows = kernels.condense_linkage(whole[0], whole[1], np.ascontiguousarray(height), whole[2], int(size))
    same(rows, (g["parent"], g["child"], g["lambda_val"], g["child_size"]))
    selection = "eom" if eom else "leaf"
    clusters = CondensedTree.of(rows).clusters(selection, float(epsilon))
    np.testing.assert_array_equal(clusters.labels, g["labels"])
    np.testing.assert_allclose(clusters.probabilities, g["probabilities"], rtol=1e-15, atol=0)
    fit = HDBSCAN(int(size), int(samples), selection, float(epsilon)).fit(g["x"])
    np.testing.assert_allclose(fit.spanning_tree_[2], g["weights"], rtol=1e-12, atol=1e-15)
    for h in np.quantile(g["weights"], [0.3, 0.6, 0.9, 0.97]) * (1 + 1e-9):  # what hangs together below h does not depend on ties
        ours, theirs = np.arange(len(g["x"])), np.arange(2 * len(g["x"]) - 1)
        for low, high, weight in zip(*fit.spanning_tree_, strict=True):
            if weight <= h:
                ours[ours == ours[high]] = ours[low]
        for t in np.flatnonzero(height <= h):
            theirs[np.isin(theirs, [theirs[whole[0][t]], theirs[whole[1][t]]])] = len(g["x"]) + t
        pairs = set(zip(ours.tolist(), theirs[: len(ours)].tolist(), strict=True))
        assert len(pairs) == len(set(ours.tolist())) == len({b for _, b in pairs})


def test_known_clusters():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.1, (100, 2)), rng.normal(3, 0.1, (80, 2)), [[1.5, 1.5]]])
    fit = HDBSCAN(30, 5).fit(x)
    first = fit.labels_[0]
    assert (fit.labels_[:100] == first).all()
    assert (fit.labels_[100:180] == 1 - first).all()
    assert fit.probabilities_[180] < 0.2  # it leaves its cluster at once
    assert fit.probabilities_.max() == 1
    for k, rows in enumerate(fit.exemplars_):
        assert (fit.labels_[rows] == k).all()
        assert (fit.probabilities_[rows] == 1).all()


def test_structured_trees_are_taken():
    x = points("normal", 80, 2, 1)
    tree = HDBSCAN(5, 3).fit(x).condensed_tree_
    table = np.zeros(len(tree.parent), [("parent", int), ("child", int), ("lambda_val", float), ("child_size", int)])
    for name, column in zip(table.dtype.names, tree.columns, strict=True):
        table[name] = column

    class Foreign:
        def to_numpy(self):
            return table

    class Fitted:
        condensed_tree_ = Foreign()

    for form in (table, Foreign(), Fitted(), tree.columns, tree):
        same(CondensedTree.of(form).columns, tree.columns)
    shuffled = CondensedTree.of(table[np.random.default_rng(0).permutation(len(table))])
    np.testing.assert_array_equal(shuffled.clusters().labels, tree.clusters().labels)


@pytest.mark.parametrize("n", [2, 3, 20])
def test_fewer_points_than_a_cluster_needs(n):
    fit = HDBSCAN(50).fit(points("normal", n, 3, 0))
    assert (fit.labels_ == -1).all()
    assert (fit.probabilities_ == 0).all()
    assert fit.exemplars_ == ()
    assert fit.condensed_tree_.n == n


def test_all_points_equal():
    for selection in ("leaf", "eom"):
        fit = HDBSCAN(5, 3, selection).fit(points("equal", 64, 2, 0))
        assert np.isinf(fit.condensed_tree_.lambda_).all()
        assert set(fit.labels_) <= set(range(-1, 64))
        assert np.isfinite(fit.probabilities_).all()


def test_estimator_habits():
    model = HDBSCAN(min_cluster_size=7)
    assert model.get_params() == {"min_cluster_size": 7, "min_samples": 20, "selection": "leaf", "epsilon": 0.0, "n_threads": None}
    assert model.set_params(min_samples=None, selection="eom") is model
    assert repr(model) == "HDBSCAN(min_cluster_size=7, min_samples=None, selection='eom', epsilon=0.0, n_threads=None)"
    x = points("normal", 60, 2, 0)
    before = x.copy()
    np.testing.assert_array_equal(model.fit_predict(x), HDBSCAN(7, 7, "eom").fit(x.astype(np.float32)).labels_)
    np.testing.assert_array_equal(x, before)
    assert model.n_features_in_ == 2
    with pytest.raises(ValueError, match="no parameter 'metric'"):
        model.set_params(metric="cosine")


@pytest.mark.parametrize(("change", "message"), [
    ({"min_cluster_size": 1}, "min_cluster_size=1 must be a whole number of at least 2"),
    ({"min_samples": 0}, "min_samples=0"), ({"min_samples": 2.5}, "min_samples=2.5"),
    ({"selection": "flat"}, "selection='flat' must be one of 'leaf', 'eom'"), ({"epsilon": -1.0}, "epsilon=-1.0"),
    ({"epsilon": float("nan")}, "epsilon=nan"), ({"n_threads": 0}, "n_threads=0"),
])
def test_bad_parameters(change, message):
    with pytest.raises(ValueError, match=message):
        HDBSCAN(**change).fit(np.zeros((5, 2)))


def test_bad_points():
    x = np.zeros((5, 2))
    x[3, 1] = np.nan
    with pytest.raises(DataError, match="X has NaN or infinite values in 1 rows, the first is row 3"):
        HDBSCAN().fit(x)
    for shape in [(0, 2), (5, 0), (5,), (1, 2)]:
        with pytest.raises(DataError, match=r"X has (shape|1 row)"):
            HDBSCAN().fit(np.zeros(shape))
    with pytest.raises(TypeError, match="X must hold real numbers"):
        HDBSCAN().fit(np.array([["a"]]))
    with pytest.raises(ArithmeticError, match="finite"):
        _core.spanning_tree(x, 1)
    with pytest.raises(ArithmeticError, match="NaN"):
        _core.nearest(np.zeros((5, 2)), x, 1)
    with pytest.raises(ValueError, match="k=6"):
        _core.nearest(np.zeros((5, 2)), np.zeros((5, 2)), 6)
    with pytest.raises(ValueError, match="min_samples must lie"):
        _core.spanning_tree(np.zeros((5, 2)), 5)


@pytest.mark.parametrize("rows", [
    [[2, 2], [0, 0], [1.0, 1.0], [1, 1]], [[2, 2], [0, 5], [1.0, 1.0], [1, 1]], [[2, 2], [0, 1], [1.0, np.nan], [1, 1]],
    [[2, 2], [0, 1], [1.0, -1.0], [1, 1]], [[2], [0], [1.0], [1]], [[2, 4, 2], [0, 1, 3], [1.0, 1.0, 1.0], [1, 1, 1]], [[], [], [], []],
])
def test_bad_trees(rows):
    with pytest.raises(DataError, match="condensed tree"):
        CondensedTree.of(rows)
    with pytest.raises(TypeError, match="tree must be a CondensedTree, or the four arrays"):
        CondensedTree.of(rows[:3])


def test_bad_merges():
    with pytest.raises(ValueError, match="edges of a tree"):
        _core.single_linkage(np.array([0, 0]), np.array([1, 1]))
    with pytest.raises(ValueError, match="edges of a tree"):
        _core.single_linkage(np.array([0, 0]), np.array([1, 3]))
    good = [np.array([0, 3]), np.array([1, 2]), np.array([1.0, 2.0]), np.array([2, 3])]
    assert len(_core.condense(*good, 2)[0]) == 3
    for at, value in [(0, [0, 0]), (0, [0, 4]), (0, [-1, 3]), (2, [1.0, np.nan]), (3, [2, 2])]:
        bad = list(good)
        bad[at] = np.array(value)
        with pytest.raises(ValueError, match="dendrogram"):
            _core.condense(*bad, 2)
    nodes = CondensedTree.of([[2, 2], [0, 1], [1.0, 1.0], [1, 1]])._nodes
    with pytest.raises(ValueError, match="inconsistent"):
        _core.tree_select((np.array([1]), *nodes[1:]), 0, 0.0)
    with pytest.raises(ValueError, match="six arrays"):
        _core.tree_select(nodes[:5], 0, 0.0)
