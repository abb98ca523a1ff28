"""Where the published formulas or their packages are not followed: the right value of each, beside the other one."""

import numpy as np
import pytest

from semanticlens import DataError
from semanticlens._kernels import hdbscan as kernels
from semanticlens._reference import alignment as twin
from semanticlens._reference import measures as measure_twin
from semanticlens.alignment import HDBSCAN, CondensedTree, align, crisp, soft_membership
from semanticlens.alignment import measures as m

UPPER = """.721 .713 .707 .709 .706 .686 .667 .661 .635 .634 .766 .767 .760 .739 .705 .694 .688 .667 .665
.785 .762 .738 .702 .686 .680 .661 .658 .785 .747 .713 .696 .691 .671 .668 .784 .735 .713 .700
.682 .680 .756 .721 .709 .691 .688 .738 .724 .709 .707 .749 .741 .733 .760 .752 .778"""


def test_the_published_matrix_has_its_sanity_score():
    """Eleven blocks of a masked autoencoder, decoded from the published heat map: all but block 2 are closest to a neighbour."""
    concepts = pytest.importorskip("semanticlens.alignment.concepts", reason="the sanity score comes with the comparison of networks")
    published = np.eye(11)
    published[np.triu_indices(11, 1)] = np.array(UPPER.split(), dtype=float)
    published = np.maximum(published, published.T)
    assert concepts.sanity_score(published) == pytest.approx(10 / 11)
    assert concepts.sanity_score(published, k=2) == 1


def test_the_chance_level_keeps_the_sum_of_each_bin():
    """All distances inside few bins, off their middles: counts alone err by up to half a bin, sums make it exact."""
    rng = np.random.default_rng(0)
    levels = np.array([0.1, 0.5 + 0.4 / 4096, 0.9 - 0.3 / 4096])
    P = (np.eye(3) * levels)[rng.integers(0, 3, 90)].astype(np.float32)
    Q = (np.eye(3) * levels[::-1] * 0.7)[rng.integers(0, 3, 90)].astype(np.float32)
    exact = twin.null_discordance(P, Q)
    centres = [(np.floor(np.minimum(twin.pair_distances(v) * 4096, 4095)) + 0.5) / 4096 for v in (P, Q)]
    by_counts = np.abs(centres[0][:, None] - centres[1][None]).mean()
    assert abs(by_counts - exact) > 1e-5
    assert 1 - align(P, Q).ndc_null == pytest.approx(exact, abs=1e-8)


def test_a_selected_cluster_that_splits_at_once_keeps_its_node():
    """hdbscan takes the smallest node with a labelled point, here a child of the selected one, and its exemplars alone."""
    parent = [16, 16] + [17, 17] + [19] * 6 + [20] * 6 + [18] * 4
    child = [17, 18, 19, 20, *range(16)]
    lam = [1.0, 1.0, 2.0, 2.0] + [2.2] * 12 + [1.5] * 4
    tree = CondensedTree.of([parent, child, lam, [12, 4, 6, 6] + [1] * 16])
    clusters = tree.clusters("eom")
    assert clusters.selected.tolist() == [1, 2]
    assert (clusters.labels[:12] == clusters.labels[0]).all()
    assert clusters.exemplars[0].tolist() == list(range(12))
    x = np.concatenate([np.linspace(0, 1, 6), np.linspace(2, 3, 6), np.linspace(9, 10, 4)])[:, None]
    P = soft_membership(clusters, x, dtype=np.float64)
    np.testing.assert_allclose(P[:12, 1], 0, atol=1e-150)  # every point of both children is an exemplar, at distance 0
    assert (P[:12, 0] > 0.9).all()


def test_duplicates_have_memberships():
    """More coinciding points than min_samples: lambda is inf, and hdbscan's rows are NaN."""
    rng = np.random.default_rng(1)
    x = np.concatenate([np.repeat(rng.normal(0, 0.1, (10, 2)), 24, axis=0), rng.normal(3, 0.1, (200, 2))])
    fit = HDBSCAN(20, 4).fit(x)
    assert np.isinf(fit.condensed_tree_.lambda_).any()
    for variant in ("new_point", "all_points"):
        P = soft_membership(fit, x, variant, dtype=np.float64)
        assert np.isfinite(P).all()
        assert ((P.sum(axis=1) > 0) | (fit.labels_ < 0)).all()


def test_row_order_moves_ties_but_not_the_tree():
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, (300, 3))
    low, high, weight, _ = kernels.spanning_tree(x, 10)
    assert (np.diff(weight) == 0).mean() > 0.03       # edges share core distances: ties are normal
    order = rng.permutation(300)
    again = kernels.spanning_tree(x[order], 10)
    np.testing.assert_array_equal(again[2], weight)
    for h in np.quantile(weight, [0.3, 0.6, 0.9]):
        parts = []
        for a, b in ((low, high), (order[again[0]], order[again[1]])):
            label = np.arange(300)
            for i, j in zip(a[weight <= h], b[weight <= h], strict=True):
                label[label == label[j]] = label[i]
            parts.append(label)
        assert m.rand_index(*parts) == 1


def test_cknna_is_of_matrices_that_are_not_symmetric():
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((80, 4))
    x, y = shared + 0.3 * rng.standard_normal((80, 4)), shared + 0.3 * rng.standard_normal((80, 4))
    assert m.cknna(x, y, k=6) == pytest.approx(measure_twin.cknna(x, y, 6), abs=1e-12)
    assert m.cknna(x, x, k=6) == pytest.approx(1, abs=1e-14)  # the published 1e-6 in the denominator is not there
    assert m.cka(x, x, debiased=True) == pytest.approx(1, abs=1e-14)

    def symmetric(k, q):
        n = len(k)
        k, q = k - np.diag(np.diag(k)), q - np.diag(np.diag(q))
        return (k * q).sum() + k.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 * (k @ q).sum() / (n - 2)

    masks, grams = [], []
    for v in (x, y):
        u = v / np.linalg.norm(v, axis=1, keepdims=True)
        grams.append(u @ u.T)
        masks.append(np.zeros((80, 80)))
        np.put_along_axis(masks[-1], measure_twin.neighbours(v, 6), 1.0, axis=1)
    both = masks[0] * masks[1]
    other = symmetric(grams[0] * both, grams[1] * both)
    other /= np.sqrt(np.prod([symmetric(g * k, g * k) for g, k in zip(grams, masks, strict=True)]))
    assert abs(other - m.cknna(x, y, k=6)) > 0.01


def test_noise_is_a_class_of_its_own():
    P = np.array([[0.6, 0.1], [0.2, 0.7], [0.0, 0.0], [0.4, 0.4], [0.0, 0.0]])
    np.testing.assert_array_equal(crisp(P), np.eye(3)[[0, 1, 2, 0, 2]])
    np.testing.assert_array_equal(crisp(P), crisp(np.array([0, 1, -1, 0, -1])))
    Q = np.array([[0.5, 0.1], [0.2, 0.7], [0.0, 0.0], [0.4, 0.1], [0.5, 0.1]])
    labels = [np.where(v.max(axis=1) > 0, v.argmax(axis=1), -1) for v in (P, Q)]
    assert align(crisp(P), crisp(Q)).ndc == pytest.approx(m.rand_index(*labels), abs=1e-12)
    published = align(np.eye(2)[P.argmax(axis=1)], np.eye(2)[Q.argmax(axis=1)]).ndc
    assert published != align(crisp(P), crisp(Q)).ndc
    assert crisp(np.zeros((3, 0))).tolist() == [[1.0]] * 3
    for bad in (np.array([0, -2]), np.array([0.5, 1.0]), np.array([1])):
        with pytest.raises(DataError, match="labels of at least two samples"):
            crisp(bad)
