"""Polysemanticity against scikit-learn's k-means, which the published package calls."""

import warnings

import numpy as np
import pytest

from semanticlens.lens import scores

pytestmark = pytest.mark.peers


def kmeans(v, **options):
    cluster = pytest.importorskip("sklearn.cluster")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [cluster.KMeans(n_clusters=2, random_state=123, **options).fit(own) for own in v]


def groups(n_components, m, d, seed=0):
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((n_components, m, d)) * 0.2
    for k in range(n_components):
        centres = rng.standard_normal((2, d)) + 0.5
        v[k] += centres[rng.permutation(np.arange(m) < rng.integers(2, m - 1)).astype(int)]
    return v.astype(np.float32)


def test_same_clusters_where_there_are_clusters():
    v = groups(60, 20, 32)
    ours, theirs = scores.polysemanticity(v), kmeans(v, n_init=10)
    for k, model in enumerate(theirs):
        same = np.array_equal(ours.labels[k], model.labels_)
        assert same or np.array_equal(ours.labels[k], 1 - model.labels_)
        assert ours.inertia[k] == pytest.approx(model.inertia_, rel=1e-5)
    labels = np.stack([model.labels_ for model in theirs])
    np.testing.assert_allclose(scores.polysemanticity(v, labels=labels).score, ours.score, atol=1e-12)


def test_one_broad_group_is_split_no_worse():
    """The split depends on the start there: over many components ours is no worse, and the exact mode is never above either."""
    v = np.random.default_rng(1).standard_normal((80, 14, 16)).astype(np.float32)
    ours, exact = scores.polysemanticity(v).inertia, scores.polysemanticity(v, exact=True).inertia
    theirs = np.array([model.inertia_ for model in kmeans(v, n_init=10)])
    assert (exact <= ours * (1 + 1e-9)).all()
    assert (exact <= theirs * (1 + 1e-5)).all()
    assert ours.mean() <= theirs.mean() * 1.005
