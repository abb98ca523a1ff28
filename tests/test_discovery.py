"""Finding concepts: scikit-learn's habits, each method on data whose concepts are known, quality measures against peers, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semanticlens import DataError, MismatchError, MissingExtraError
from semanticlens._errors import ConceptWarning
from semanticlens.alignment import MCD, NLMCD, NMF, PCA, KMeans, TopKSAE, align, ground_truth, proximities
from semanticlens.alignment import quality as measures
from semanticlens.alignment.baselines import spread_seeds
from semanticlens.alignment.neighbours import Neighbours, curve, fuzzy_graph, strengths

GOLDEN = np.load(Path(__file__).parent / "golden/quality.npz")
FAST = {"epochs": 12}


def blobs(n: int = 300, k: int = 5, dim: int = 8, seed: int = 0, noise: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % k
    rows = 5 * rng.standard_normal((k, dim))[truth] + 0.4 * rng.standard_normal((n, dim))
    rows[:noise], truth[:noise] = 12 * rng.standard_normal((noise, dim)), -1
    return rows.astype(np.float32), truth


def methods() -> list:
    return [
        NLMCD("none", min_cluster_size=20, min_samples=5), NLMCD("pca", n_components=4, min_cluster_size=20, min_samples=5),
        NLMCD("neighbours", n_components=3, n_neighbors=12, min_cluster_size=20, min_samples=5), KMeans(5), PCA(4), MCD(5), NMF(5),
        TopKSAE(8, 2, **FAST),
    ]  # fmt: skip


def rows_for(estimator, **options):
    rows, truth = blobs(**options)
    return (np.abs(rows) if isinstance(estimator, NMF) else rows), truth


@pytest.mark.parametrize("estimator", methods(), ids=repr)
def test_habits(estimator) -> None:
    rows, _ = rows_for(estimator)
    before = rows.copy()
    params = estimator.get_params()
    assert estimator.set_params(**params) is estimator
    twin = estimator.clone()
    assert twin is not estimator
    assert twin.get_params().keys() == params.keys()
    with pytest.raises(AttributeError, match="not fitted"):
        _ = twin.n_concepts_
    found = estimator.fit_transform(rows)
    assert found is estimator.memberships_
    assert np.array_equal(rows, before)
    assert found.dtype == np.float32
    assert found.shape == (len(rows), estimator.n_concepts_)
    assert estimator.labels_.dtype == np.int64
    assert estimator.labels_.shape == (len(rows),)
    assert estimator.n_features_in_ == 8
    assert len(estimator.exemplars_) == estimator.n_concepts_
    proximities(found)  # finite, at least 0, row sums at most 1
    assert np.array_equal(twin.fit(rows).memberships_, found)
    assert np.array_equal(estimator.transform(rows[:7]).shape, (7, estimator.n_concepts_))
    with pytest.raises(ValueError, match="has no parameter 'nonsense'"):
        estimator.set_params(nonsense=1)
    with pytest.raises(MismatchError, match="has 5 features, but 8"):
        estimator.transform(rows[:, :5])


@pytest.mark.parametrize("estimator", methods(), ids=repr)
def test_bad_input(estimator) -> None:
    rows, _ = rows_for(estimator)
    for bad, error, message in (
        (np.where(np.arange(300)[:, None] == 4, np.nan, rows), DataError, "1 rows, the first is row 4"),
        (rows[:1], DataError, "at least 2 are needed"),
        (rows[0], DataError, "must be \\(samples, features\\)"),
        (np.ones((30, 4)), DataError, "constant features"),
        (np.array([["a", "b"]]), TypeError, "real numbers"),
    ):
        with pytest.raises(error, match=message):
            estimator.clone().fit(bad)


@pytest.mark.parametrize("estimator", methods(), ids=repr)
def test_two_rows_and_constant_columns(estimator) -> None:
    tiny = np.array([[0.0, 1.0], [1.0, 0.0]])
    if isinstance(estimator, NLMCD):
        with pytest.warns(ConceptWarning, match="all 2 rows are noise"):
            assert estimator.clone().fit(tiny).n_concepts_ == 0
    else:
        assert estimator.clone().fit(tiny).memberships_.shape[0] == 2
    rows, _ = rows_for(estimator)
    with_constant = np.concatenate([rows, np.full((len(rows), 1), 3, np.float32)], axis=1)
    assert estimator.clone().fit(with_constant).n_concepts_ >= 1


@pytest.mark.parametrize("embed", ["none", "pca", "neighbours"])
def test_nlmcd_finds_dense_regions_and_leaves_noise_out(embed) -> None:
    rows, truth = blobs(400, noise=0 if embed == "neighbours" else 60)  # which draws scattered rows together
    found = NLMCD(embed, n_components=4, n_neighbors=25, min_cluster_size=20, min_samples=5, selection="eom", n_threads=1).fit(rows)
    assert found.n_concepts_ == 5
    members = truth >= 0
    own = found.labels_ >= 0
    pairs = set(zip(truth[members & own].tolist(), found.labels_[members & own].tolist(), strict=True))
    assert len(pairs) == 5
    assert (found.labels_[members] >= 0).mean() > 0.9
    if embed != "neighbours":
        assert (found.labels_[~members] < 0).mean() > 0.9
    assert all((found.labels_[rows_] == k).all() for k, rows_ in enumerate(found.exemplars_))
    other = found.clone(n_threads=2).fit(rows)
    assert other.memberships_.tobytes() == found.memberships_.tobytes()
    assert np.abs(found.transform(rows) - found.memberships_).max() < 1e-6
    assert (found.predict(rows)[own] == found.labels_[own]).mean() > 0.9


def test_embeddings_of_the_user() -> None:
    rows, _ = blobs()
    plain = NLMCD("none", min_cluster_size=20, min_samples=5).fit(rows)
    given = NLMCD(rows, min_cluster_size=20, min_samples=5).fit(np.zeros_like(rows) + np.arange(len(rows))[:, None])
    function = NLMCD(lambda x: x.astype(np.float64), min_cluster_size=20, min_samples=5).fit(rows)
    assert np.array_equal(given.memberships_, plain.memberships_)
    assert np.array_equal(function.memberships_, plain.memberships_)
    assert np.array_equal(given.transform(rows[:9], embedding=rows[:9]), plain.transform(rows[:9]))
    with pytest.raises(DataError, match="says nothing about new rows"):
        given.transform(rows)
    with pytest.raises(DataError, match="has shape \\(10, 8\\), but X has 300 rows"):
        NLMCD(rows[:10]).fit(rows)
    with pytest.raises(ValueError, match="embed='tsne'"):
        NLMCD("tsne").fit(rows)
    assert repr(NLMCD(rows)) == "NLMCD(embed=array of shape (300, 8))"
    assert repr(NLMCD("none", min_samples=3)) == "NLMCD(embed='none', min_samples=3)"


def test_umap_is_an_extra(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"semanticlens-native\[align\]"):
        NLMCD("umap").fit(blobs()[0])


def test_all_noise_and_one_concept_can_be_aligned() -> None:
    rng = np.random.default_rng(0)
    scattered = rng.uniform(-1, 1, (80, 6))
    with pytest.warns(ConceptWarning, match="no concept was found: all 80 rows are noise; lower min_cluster_size=40"):
        nothing = NLMCD("none", min_cluster_size=40, min_samples=20).fit(scattered)
    assert nothing.memberships_.shape == (80, 0)
    assert (nothing.labels_ == -1).all()
    assert nothing.transform(scattered[:3]).shape == (3, 0)
    assert nothing.predict(scattered[:3]).tolist() == [-1, -1, -1]
    assert nothing.quality_.n_concepts == 0
    assert nothing.quality_.noise == 1.0
    one = np.full((80, 1), 0.5, np.float32)
    one[::2] = 0
    found = align(nothing.memberships_, one)
    assert found.d == pytest.approx(0.25 * 40 * 40 / (80 * 79 / 2))
    assert found.aci == pytest.approx(0.0, abs=1e-12)
    assert align(nothing.memberships_, nothing.memberships_).aci == 1.0
    assert align(one, one).aci == 1.0


# ---- baselines


def test_kmeans_finds_the_balls() -> None:
    rows, truth = blobs()
    found = KMeans(5, n_threads=1).fit(rows)
    assert ground_truth(np.eye(5)[found.labels_], truth).aci == pytest.approx(1.0)
    assert found.inertia_ == pytest.approx(
        sum(((rows[found.labels_ == k] - found.cluster_centers_[k]) ** 2).sum() for k in range(5)), rel=1e-5
    )
    assert (found.memberships_.argmax(axis=1) == found.labels_).all()
    assert found.memberships_.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    d = np.linalg.norm(rows[:3, None] - found.cluster_centers_[None], axis=2)
    weight = 1 / (d + 1e-6)
    assert found.memberships_[:3] == pytest.approx(weight / weight.sum(axis=1, keepdims=True), rel=1e-4)
    assert found.clone(n_threads=2).fit(rows).memberships_.tobytes() == found.memberships_.tobytes()
    assert KMeans(9).fit(np.repeat(np.eye(3), 5, axis=0)).n_concepts_ == 3  # only three different rows
    assert len(spread_seeds(rows.astype(np.float64), 7, np.random.default_rng(0))) == 7


def test_pca_and_mcd_are_cosines() -> None:
    rows, _ = blobs()
    pca = PCA(3).fit(rows)
    assert pca.components_ @ pca.components_.T == pytest.approx(np.eye(3), abs=1e-10)
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)[:3] ** 2 / (len(rows) - 1)
    assert pca.explained_variance_ == pytest.approx(values, rel=1e-4)
    cosine = np.maximum(rows @ pca.components_.T / np.linalg.norm(rows, axis=1, keepdims=True), 0)
    assert pca.memberships_ == pytest.approx(cosine / np.maximum(cosine.sum(axis=1, keepdims=True), 1e-300), abs=1e-5)
    wide = PCA().fit(rows[:4])
    assert wide.n_concepts_ == 3  # four rows span three directions
    mcd = MCD(5).fit(rows)
    cosine = np.stack([(rows @ basis.T / np.linalg.norm(rows, axis=1, keepdims=True)).max(axis=1) for basis in mcd.bases_], axis=1)
    cosine = np.maximum(cosine, 0)
    assert mcd.memberships_ == pytest.approx(cosine / cosine.sum(axis=1, keepdims=True), abs=1e-5)
    assert all(basis @ basis.T == pytest.approx(np.eye(len(basis)), abs=1e-8) for basis in mcd.bases_)


def test_a_row_without_positive_cosine_is_zero_and_not_nan() -> None:
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.1], [0.0, 0.0], [-3.0, -0.2]])
    found = PCA(1).fit(rows)
    assert np.isfinite(found.memberships_).all()
    assert found.memberships_[3, 0] == 0
    assert found.labels_[3] == -1


def test_nmf_recovers_a_product_of_its_own_kind() -> None:
    rng = np.random.default_rng(0)
    parts = np.zeros((3, 12))
    parts[0, :4], parts[1, 4:8], parts[2, 8:] = rng.random((3, 4)) + 0.5
    weights = rng.random((200, 3)) * (rng.random((200, 3)) < 0.5)
    weights[weights.sum(axis=1) == 0, 0] = 1
    found = NMF(3, max_iter=500, tol=1e-9).fit(weights @ parts)
    assert found.error_ < 0.01
    cosine = found.components_ @ (parts / np.linalg.norm(parts, axis=1, keepdims=True)).T
    assert sorted(cosine.argmax(axis=1).tolist()) == [0, 1, 2]
    assert cosine.max(axis=1).min() > 0.999
    assert np.abs(found.transform(weights @ parts) - found.memberships_).max() < 0.02
    with pytest.raises(DataError, match=r"row 1 is negative .*behind a ReLU"):
        NMF(2).fit(np.array([[1.0, 2.0], [1.0, -2.0]]))


def test_topk_sae_learns_the_directions_it_was_shown() -> None:
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((12, 6)))[0].T
    which = rng.integers(0, 6, 1500)
    rows = (directions[which] * (1 + rng.random((1500, 1))) + 0.02 * rng.standard_normal((1500, 12))).astype(np.float32)
    found = TopKSAE(6, 1, epochs=60, seed=1).fit(rows)
    assert found.losses_[-1] < 0.05 < found.losses_[0]
    assert ground_truth(np.eye(6)[np.maximum(found.labels_, 0)], which).aci > 0.95
    assert ((found.memberships_ > 0).sum(axis=1) <= 1).all()
    with pytest.raises(ValueError, match="active=9 must be at most n_concepts=4"):
        TopKSAE(4, 9).fit(rows)


# ---- the neighbour embedding


def test_the_curve_is_the_known_one() -> None:
    assert curve(0.01) == pytest.approx((1.896, 0.801), abs=1e-3)
    assert curve(0.1) == pytest.approx((1.577, 0.895), abs=1e-3)


def test_neighbourhood_graph() -> None:
    distance = np.sort(np.random.default_rng(0).random((50, 15)), axis=1)
    found = strengths(distance)
    assert found[:, 0] == pytest.approx(1)
    assert found.sum(axis=1) == pytest.approx(np.log2(15), abs=1e-6)
    head, tail, weight = fuzzy_graph(np.array([[1, 2], [0, 2], [1, 0]]), np.array([[1.0, 0.5], [1.0, 0.25], [1.0, 0.5]]))
    table = np.zeros((3, 3))
    table[head, tail] = weight
    assert np.array_equal(table, table.T)
    assert table[0, 2] == pytest.approx(0.5 + 0.5 - 0.25)
    assert table[1, 2] == pytest.approx(0.25 + 1 - 0.25)


def test_neighbour_embedding_keeps_groups_apart_and_repeats() -> None:
    rows, truth = blobs(200, 4)
    one, two = (Neighbours(2, 10, n_threads=t).fit_transform(rows) for t in (1, 2))
    assert one.tobytes() == two.tobytes()
    centres = np.stack([one[truth == k].mean(axis=0) for k in range(4)])
    inside = max(np.linalg.norm(one[truth == k] - centres[k], axis=1).max() for k in range(4))
    apart = min(np.linalg.norm(centres[i] - centres[j]) for i in range(4) for j in range(i))
    assert apart > inside
    assert not np.array_equal(Neighbours(2, 10, seed=1).fit_transform(rows), one)


# ---- quality


@pytest.mark.parametrize("case", range(3))
def test_quality_equals_the_peers(case) -> None:
    points, labels = GOLDEN[f"points{case}"], GOLDEN[f"labels{case}"]
    mean, scores = measures.dbcv(points, labels)
    assert scores == pytest.approx(GOLDEN[f"validity{case}"], abs=1e-12)
    assert mean == pytest.approx(scores.mean())
    assert [measures.two_nn(points[labels == k]) for k in range(labels.max() + 1)] == pytest.approx(GOLDEN[f"dimension{case}"], abs=1e-10)


def test_dbcv_in_many_dimensions_does_not_overflow() -> None:
    rng = np.random.default_rng(0)
    rows = 1e-3 * rng.standard_normal((60, 300))
    rows[30:] += 1
    rows[5] = rows[6]
    assert 0.5 < measures.dbcv(rows, np.repeat([0, 1], 30))[0] <= 1


def test_quality_of_clear_and_of_random_groups() -> None:
    rows, truth = blobs(400, 4)
    clear = measures.measure(rows, truth)
    random = measures.measure(rows, np.random.default_rng(0).permutation(truth))
    assert clear.separability == 1.0
    assert clear.separability_auc == 1.0
    assert random.separability < 0.4
    assert abs(random.separability_auc - 0.5) < 0.1
    assert clear.dbcv > 0.5 > random.dbcv
    assert clear.embedding_rmse == 0
    assert measures.embedding_rmse(rows, rows[:, :1]) > 1
    assert measures.embedding_rmse(np.eye(2), 2 * np.eye(2)) == pytest.approx(np.sqrt(2 * 2 / 4))


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension_of_a_flat_sheet(dimension) -> None:
    rng = np.random.default_rng(dimension)
    sheet = rng.random((1500, dimension)) @ rng.standard_normal((dimension, 12))
    assert measures.two_nn(sheet) == pytest.approx(dimension, rel=0.15)


def test_quality_where_it_is_undefined() -> None:
    rows, _ = blobs(30)
    for labels in (np.full(30, -1), np.zeros(30, int), np.arange(30)):
        found = measures.measure(rows, labels)
        assert found.noise == (labels < 0).mean()
        assert None in found.to_dict().values()
    assert np.isnan(measures.two_nn(np.ones((10, 3))))


def test_linear_separability_is_that_of_the_support_vector_machine() -> None:
    """The Newton solution fulfils the optimality condition w = 2 C sum over rows inside the margin of y (1 - y w.x) x."""
    rows, truth = blobs(200, 2, seed=3)
    x = np.concatenate([rows / 10, np.ones((200, 1))], axis=1).astype(np.float64)
    sign = np.where(truth == 0, 1.0, -1.0)
    w = measures._svm(x, sign)
    gap = np.maximum(0, 1 - sign * (x @ w))
    assert w == pytest.approx(2 * (x.T @ (sign * gap)), abs=1e-6)


@pytest.mark.peers
def test_scikit_learn_can_clone_and_chain() -> None:
    from sklearn.base import clone
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, _ = blobs()
    for estimator in methods()[:-2]:
        copy = clone(estimator)
        assert copy.get_params().keys() == estimator.get_params().keys()
        chained = make_pipeline(StandardScaler(), copy).fit_transform(rows)
        assert chained.shape[0] == len(rows)
