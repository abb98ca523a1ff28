"""NLMCD and maps on UMAP's own embedding.

    pytest -m peers tests/test_peers_umap.py        with umap-learn installed
"""

import numpy as np
import pytest
from test_lens_map import planted

from semanticlens import lens
from semanticlens.alignment import NLMCD, atlas, measures

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def umap():
    return pytest.importorskip("umap")


def curves(n: int = 600, k: int = 5, d: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Points along k bent lines, and the line each is on: not spheres, so k-means would cut them."""
    rng = np.random.default_rng(2)
    which, t = rng.integers(0, k, n), rng.uniform(-1, 1, (n, 1))
    ends, bend, centre = rng.normal(0, 2, (k, d)), rng.normal(0, 2, (k, d)), rng.normal(0, 3, (k, d))
    x = centre[which] + t * ends[which] + (t**2 - 0.5) * bend[which] + 0.05 * rng.standard_normal((n, d))
    return x.astype(np.float32), which


@pytest.mark.filterwarnings("ignore")  # what umap and numba warn of is theirs
def test_nlmcd_finds_planted_curves_on_umap_and_places_new_rows(umap) -> None:
    x, truth = curves()
    found = NLMCD("umap", n_components=4, n_neighbors=15, min_cluster_size=40, min_samples=10, seed=3).fit(x[:500])
    inside = found.labels_ >= 0
    assert inside.mean() > 0.8
    assert measures.adjusted_rand_index(found.labels_[inside], truth[:500][inside]) > 0.8
    again = NLMCD("umap", n_components=4, n_neighbors=15, min_cluster_size=40, min_samples=10, seed=3).fit(x[:500])
    np.testing.assert_array_equal(found.memberships_, again.memberships_)
    fresh = found.transform(x[500:])
    assert fresh.shape == (100, found.n_concepts_)
    assert fresh.sum(axis=1).max() <= 1 + 1e-6
    sure = fresh.sum(axis=1) > 0.1
    assert sure.mean() > 0.5
    assert measures.adjusted_rand_index(fresh.argmax(axis=1)[sure], truth[500:][sure]) > 0.8


@pytest.mark.filterwarnings("ignore")
def test_umap_of_the_authors_is_what_runs(umap) -> None:
    x, _ = curves(300)
    found = NLMCD("umap", n_components=3, n_neighbors=12, min_dist=0.02, min_cluster_size=30, min_samples=8, seed=1).fit(x)
    theirs = umap.UMAP(n_components=3, n_neighbors=12, min_dist=0.02, random_state=1, n_jobs=1).fit_transform(x)
    given = NLMCD(theirs, min_cluster_size=30, min_samples=8).fit(x)
    np.testing.assert_array_equal(found.memberships_, given.memberships_)


@pytest.mark.filterwarnings("ignore")
def test_atlas_laid_out_by_umap(umap) -> None:
    proximities = np.random.default_rng(5).dirichlet(np.full(31, 0.2), 900)[:, :30].astype(np.float32)
    laid = atlas(proximities, layout="umap", seed=2)
    assert laid.places.shape == (30, 2)
    assert np.isfinite(laid.places).all()
    np.testing.assert_array_equal(laid.places, atlas(proximities, layout="umap", seed=2).places)


@pytest.mark.filterwarnings("ignore")
def test_maps_by_umap_keep_planted_groups_together(umap) -> None:
    db, truth, names = planted()
    m = lens.map(db, labels=names, method="umap")
    near = np.array([[m.row(*key) for key in m.near(*m[i], top=5)] for i in range(len(m))])
    assert (truth[near] == truth[:, None]).mean() > 0.99
    np.testing.assert_array_equal(m.positions, lens.map(db, method="umap", n_threads=1).positions)
    assert len(lens.map(planted(groups=2, each=3)[0], method="umap")) == 5
