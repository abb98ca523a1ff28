"""Soft membership: against the formulas written out, and against stored results of the hdbscan package."""

from pathlib import Path

import numpy as np
import pytest

from semanticlens import DataError, MismatchError
from semanticlens._kernels import hdbscan as kernels
from semanticlens._reference import hdbscan as twin
from semanticlens.alignment import HDBSCAN, CondensedTree, align, new_membership, soft_membership

GOLDEN = np.load(Path(__file__).parent / "golden/hdbscan.npz")
SOFT = [name for name in GOLDEN["names"].tolist() if f"{name}/new_point" in GOLDEN]
FORMS = ("new_point", "all_points")


def golden(name):
    return {key.split("/")[1]: GOLDEN[key] for key in GOLDEN.files if key.startswith(f"{name}/")}


def stored(name):
    g = golden(name)
    tree = CondensedTree.of([g["parent"], g["child"], g["lambda_val"], g["child_size"]])
    _, samples, eom, epsilon = g["parameters"]
    return g, tree, {"selection": "eom" if eom else "leaf", "epsilon": float(epsilon), "dtype": np.float64}, int(samples)


def blobs(n=250, d=2, k=5, seed=0, spread=0.12):
    rng = np.random.default_rng(seed)
    return rng.uniform(-2, 2, (k, d))[rng.integers(0, k, n)] + spread * rng.standard_normal((n, d)) * rng.gamma(2, 0.5, (n, 1))


@pytest.mark.parametrize("name", SOFT)
def test_equals_hdbscan_on_its_own_tree(name):
    g, tree, options, samples = stored(name)
    np.testing.assert_allclose(soft_membership(tree, g["x"], "all_points", **options)[::4], g["all_points"], rtol=0, atol=1e-12)
    mine = soft_membership(tree, g["x"], **options)[::4]
    first = np.array([(g["x"][: i + 1] == row).all(1).argmax() == i for i, row in enumerate(g["x"])])[::4]
    # hdbscan places a duplicate at the first of its kind
    np.testing.assert_allclose(mine[first], g["new_point"][first], rtol=0, atol=1e-12)
    new = new_membership(tree, g["x"], g["new"], min_samples=samples, **options)
    np.testing.assert_allclose(new, g["new_membership"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", FORMS)
@pytest.mark.parametrize(("selection", "seed", "repeat"), [("leaf", 0, 1), ("eom", 1, 1), ("leaf", 2, 9)])
def test_equals_the_formulas(variant, selection, seed, repeat):
    x = np.repeat(blobs(240 // repeat, 3, seed=seed), repeat, axis=0)  # 9 copies: lambda is inf
    fit = HDBSCAN(8, 4, selection).fit(x)
    tree = fit.condensed_tree_.columns
    chosen = (fit.clusters_.selected + len(x)).tolist()
    assert len(chosen) >= 2
    assert np.isinf(tree[2]).any() == (repeat > 4)
    place = fit.condensed_tree_._nodes
    wanted = twin.membership(tree, chosen, x, x, place[4] + len(x), place[5], variant)
    mine = soft_membership(fit, x, variant, dtype=np.float64)
    np.testing.assert_allclose(mine, wanted, rtol=0, atol=1e-12)
    assert np.isfinite(mine).all()
    assert mine.sum(axis=1).max() <= 1 + 1e-12
    np.testing.assert_allclose(soft_membership(fit, x, variant), wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("variant", FORMS)
def test_exemplars_are_at_distance_zero(variant):
    """Far from the origin, where distances by expanding the square would lose all digits."""
    x = (blobs(d=10) + 300).astype(np.float32)
    fit = HDBSCAN(10, 5).fit(x)
    mine = soft_membership(fit, x, variant, dtype=np.float64)
    for k, rows in enumerate(fit.exemplars_):
        assert len(rows)
        assert (np.delete(mine[rows], k, axis=1) < 1e-150).all()
        assert (mine[rows, k] > 0).all()


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_thread_counts_give_the_same_bits(n_threads):
    x = blobs(n=700)
    fit = HDBSCAN(8, 4).fit(x)
    for variant in FORMS:
        one = soft_membership(fit, x, variant, n_threads=1)
        assert one.tobytes() == soft_membership(fit, x, variant, n_threads=n_threads).tobytes()
    one = new_membership(fit, x, x[:50] + 0.01, min_samples=4, n_threads=1)
    assert one.tobytes() == new_membership(fit, x, x[:50] + 0.01, min_samples=4, n_threads=n_threads).tobytes()


@pytest.mark.parametrize("variant", FORMS)
def test_no_concept_and_one(variant):
    x = blobs(60, k=1)
    assert soft_membership(HDBSCAN(40, 5).fit(x), x, variant).shape == (60, 0)
    assert new_membership(HDBSCAN(40, 5).fit(x), x, x[:3], variant=variant).shape == (3, 0)
    tree = CondensedTree.of([[4, 4, 5, 5, 4], [5, 0, 1, 2, 3], [1.0, 0.5, 2.0, 2.0, 0.7], [2, 1, 1, 1, 1]])  # one cluster of two points
    P = soft_membership(tree, np.array([[0.0], [1.0], [1.5], [3.0]]), variant, dtype=np.float64)
    assert P.shape == (4, 1)
    np.testing.assert_allclose(P[:, 0], [0.25, 1.0, 1.0, 0.35], atol=1e-7)


def test_a_training_point_is_a_new_point_too():
    x = blobs()
    fit = HDBSCAN(8, 4).fit(x)
    np.testing.assert_array_equal(new_membership(fit, x, x, min_samples=4), soft_membership(fit, x))


def test_memberships_align():
    x = blobs()
    P = soft_membership(HDBSCAN(8, 4).fit(x), x)
    assert align(P, P).d == 0


def test_messages():
    x = blobs()
    fit = HDBSCAN(8, 4).fit(x)
    with pytest.raises(MismatchError, match="249 rows, but the tree has 250 points"):
        soft_membership(fit, x[1:])
    with pytest.raises(ValueError, match="variant='both' must be one of 'new_point', 'all_points'"):
        soft_membership(fit, x, "both")
    with pytest.raises(ValueError, match="dtype=float16"):
        soft_membership(fit, x, dtype=np.float16)
    with pytest.raises(DataError, match="points has 3 columns, but the tree's points have 2"):
        new_membership(fit, x, np.zeros((1, 3)))
    with pytest.raises(DataError, match="NaN or infinite values in 1 rows, the first is row 3"):
        soft_membership(fit, np.where(np.arange(250)[:, None] == 3, np.nan, x))


def test_kernel_checks_its_arguments():
    z, one = np.zeros((2, 1)), np.ones(1)
    good = [z, np.zeros(2, np.int64), np.ones(2), z[:1], np.array([0, 1]), np.full((1, 1), np.nan), one, one]

    def call(at, value):
        changed = list(good)
        changed[at] = value
        return kernels._core.membership(*changed)

    assert kernels._core.membership(*good).shape == (2, 1)
    for at, value in [(1, np.array([0, 1])), (1, np.array([0, -1])), (2, -np.ones(2)), (4, np.array([0, 2])), (4, np.array([0, 0])),
                      (4, np.array([0])), (5, np.zeros((2, 1))), (7, np.ones(2)), (3, np.zeros((1, 2)))]:
        with pytest.raises(ValueError):               # each has its own message; here it matters that none is accepted
            call(at, value)
