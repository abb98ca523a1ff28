"""Measures of whole representations: against their formulas with all matrices formed, invariances, threads, shuffles, messages."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens import DataError, NumericalError, _core
from semanticlens._reference import measures as twin
from semanticlens.alignment import measures as m

SHAPES = [(5, 3, 2), (12, 40, 30), (64, 9, 70), (250, 50, 20)]
CKAS = [(k, d) for k in ("linear", "rbf") for d in (False, True)]


def related(n, p, q, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, 6))
    x = shared @ rng.standard_normal((6, p)) + noise * rng.standard_normal((n, p)) + 3
    return x, np.tanh(shared @ rng.standard_normal((6, q))) + noise * rng.standard_normal((n, q))


def lower_median(x):
    distances = np.sort(np.sqrt(twin.squared_distances(x)[np.triu_indices(len(x), 1)]))
    return distances[(len(distances) - 1) // 2]


@pytest.mark.parametrize(("n", "p", "q"), SHAPES)
def test_equal_their_formulas(n, p, q):
    x, y = related(n, p, q)
    for debiased in (False, True):
        assert m.cka(x, y, debiased=debiased) == pytest.approx(twin.cka(x, y, debiased), abs=1e-12)
        widths = (lower_median(x), lower_median(y))
        expected = twin.cka_gauss(x, y, widths, debiased)
        assert m.cka(x, y, kernel="rbf", bandwidth=widths, debiased=debiased) == pytest.approx(expected, abs=1e-6)
        assert m.cka(x, y, kernel="rbf", debiased=debiased) == pytest.approx(expected, abs=1e-5)
    assert m.median_distance(x) == pytest.approx(widths[0], rel=1e-5)
    for inner, outer in itertools.product(("correlation", "cosine"), ("spearman", "pearson")):
        if min(p, q) > 2 or inner == "cosine":        # two columns correlate by +-1 only
            limit = 1e-11 if outer == "pearson" else 2e-6
            assert m.rsa(x, y, inner=inner, outer=outer) == pytest.approx(twin.rsa(x, y, inner, outer), abs=limit)
    for k, metric in itertools.product((1, 3, min(10, n - 1), n - 1), ("cosine", "dot")):
        assert m.mutual_knn(x, y, k=k, metric=metric) == pytest.approx(twin.mutual_knn(x, y, k, metric), abs=1e-12)
        if k > 2:
            assert m.cknna(x, y, k=k, metric=metric) == pytest.approx(twin.cknna(x, y, k, metric), abs=1e-10)
    assert m.procrustes(x, y) == pytest.approx(twin.procrustes(x, y), abs=1e-8)
    assert m.svcca(x, y, components=2) == pytest.approx(twin.svcca(x, y, 2), abs=1e-10)


def test_thread_counts_give_the_same_bits():
    x, y = related(420, 40, 300)

    def all_of(t):
        return [
            *(m.cka(x, y, kernel=k, debiased=d, bandwidth=9.0, n_threads=t) for k, d in CKAS), m.median_distance(x, n_threads=t),
            *(m.rsa(x, y, outer=o, n_threads=t) for o in ("spearman", "pearson")), m.mutual_knn(x, y, n_threads=t),
            m.cknna(x, y, n_threads=t), m.procrustes(x, y, n_threads=t), m.svcca(x, y, n_threads=t),
        ]

    x32 = x.astype(np.float32)
    one = all_of(1)
    for n_threads in (2, 3, 8):
        assert all_of(n_threads) == one
        for f in (lambda t: _core.cross(x, y, n_threads=t), lambda t: _core.cross(y, y, n_threads=t),
                  lambda t: _core.near_rows(x32.astype(float), x32, 12, n_threads=t)[1]):
            assert f(1).tobytes() == f(n_threads).tobytes()


def test_of_a_representation_with_itself_and_turned():
    x, _ = related(150, 12, 3)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 12)))[0]
    for y in (x, 0.5 * x @ turn):
        for kernel, debiased in CKAS:
            assert m.cka(x, y, kernel=kernel, debiased=debiased) == pytest.approx(1, abs=1e-5)
        assert m.rsa(x, y, inner="cosine") == pytest.approx(1, abs=1e-5)
        assert m.mutual_knn(x, y) == 1
        assert m.cknna(x, y) == pytest.approx(1, abs=1e-12)
        assert m.procrustes(x, y) == pytest.approx(0, abs=1e-7)
        assert m.svcca(x, y) == pytest.approx(1, abs=1e-12)
    assert m.rsa(x, 2 * x[:, ::-1] + 5) == pytest.approx(1, abs=1e-6)
    assert m.svcca(x, x @ np.random.default_rng(2).standard_normal((12, 12)), share=1.0) == pytest.approx(1, abs=1e-10)


def test_more_features_than_samples_fool_the_biased_estimate_only():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 2000)), rng.standard_normal((60, 2000))
    assert m.cka(x, y) > 0.9
    assert abs(m.cka(x, y, debiased=True)) < 0.05


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 1000), st.sampled_from([1, 2, 5]))
def test_neighbours_are_exact_whatever_ties(n, d, seed, levels):
    """Few different values: products tie everywhere, and float32 cannot decide."""
    x = np.random.default_rng(seed).integers(-levels, levels + 1, (n, d)).astype(float)
    k = max(1, (n - 1) // 2)
    index, value, _ = _core.near_rows(x, x.astype(np.float32), k)
    np.testing.assert_array_equal(index, twin.neighbours(x, k, "dot"))
    np.testing.assert_array_equal(value, np.take_along_axis(x @ x.T, index, 1))


def test_neighbours_closer_than_float32_resolves():
    rng = np.random.default_rng(3)
    u = np.repeat(rng.standard_normal((10, 30)), 40, axis=0) + 1e-10 * rng.standard_normal((400, 30))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    index, _, searched = _core.near_rows(u, u.astype(np.float32), 10)
    assert searched == 400
    products = u @ u.T
    np.fill_diagonal(products, -np.inf)
    got = np.take_along_axis(products, index, 1)
    np.testing.assert_allclose(got, -np.sort(-products, axis=1)[:, :10], rtol=0, atol=1e-15)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_similarities_that_crowd_are_still_ranked(scale):
    """A large common mean puts all cosines within 1e-6 of 1: the bins follow them there."""
    x, y = related(120, 20, 15)
    far = scale * (x + 3000)
    assert m.rsa(far, y, inner="cosine") == pytest.approx(twin.rsa(x + 3000, y, "cosine"), abs=0.05)
    near = scale * (x + 30)
    assert m.rsa(near, y, inner="cosine") == pytest.approx(twin.rsa(x + 30, y, "cosine"), abs=1e-4)
    assert m.cka(far, y) == pytest.approx(twin.cka(x, y), abs=1e-8)
    assert m.cka(far, y, kernel="rbf") == pytest.approx(m.cka(x, y, kernel="rbf"), abs=1e-5)


def test_an_outlier_does_not_spoil_the_median():
    x, _ = related(200, 5, 3)
    x[7] *= 1e6
    assert m.median_distance(x) == pytest.approx(lower_median(x), rel=1e-5)


LABELS = st.integers(2, 40).flatmap(lambda n: st.tuples(*(st.lists(st.integers(-1, 4), min_size=n, max_size=n) for _ in range(2))))


@settings(max_examples=60, deadline=None)
@given(LABELS)
def test_rand_indices_count_pairs(both):
    a, b = (np.array(v) for v in both)
    i, j = np.triu_indices(len(a), 1)
    in_a, in_b = a[i] == a[j], b[i] == b[j]
    assert m.rand_index(a, b) == pytest.approx((in_a == in_b).mean(), abs=1e-15)
    assert m.rand_index(a.astype(str), b) == m.rand_index(a, b)
    expected, most = in_a.sum() * in_b.sum() / len(i), (in_a.sum() + in_b.sum()) / 2
    adjusted = 1.0 if (in_a == in_b).all() else ((in_a & in_b).sum() - expected) / (most - expected)
    assert m.adjusted_rand_index(a, b) == pytest.approx(adjusted, abs=1e-12)


@pytest.mark.parametrize("name", ["cka", "rsa", "mutual_knn", "cknna", "procrustes", "svcca"])
def test_shuffles_equal_shuffled_input(name):
    x, y = related(60, 7, 9)
    t = m.permutation_test(name, x, y, n_permutations=19, seed=3)
    rng = np.random.default_rng(3)
    again = [getattr(m, name)(x, y[rng.permutation(60)]) for _ in range(19)]
    np.testing.assert_allclose(t.null, again, atol=1e-9)
    assert t.value == getattr(m, name)(x, y)
    assert t.p_value == 0.05
    assert 0 < t.adjusted < 1
    assert t.to_dict()["n_permutations"] == 19


@pytest.mark.parametrize("options", [{"kernel": "rbf"}, {"debiased": True}, {"kernel": "rbf", "bandwidth": (1.0, 2.0), "debiased": True}])
def test_shuffles_of_options(options):
    x, y = related(50, 60, 70)
    t = m.permutation_test("cka", x, y, n_permutations=3, **options)
    order = np.random.default_rng(0).permutation(50)
    assert t.null[0] == pytest.approx(m.cka(x, y[order], **options), abs=1e-9)


def test_unrelated_representations_are_not_significant():
    rng = np.random.default_rng(5)
    p = [m.permutation_test("mutual_knn", rng.standard_normal((80, 5)), rng.standard_normal((80, 5)), n_permutations=99).p_value
         for _ in range(20)]
    assert np.mean(np.array(p) <= 0.2) < 0.5
    assert min(p) >= 0.01


def test_inputs_are_untouched_and_any_layout_serves():
    x, y = related(40, 6, 5)
    before = x.copy()
    wanted = m.cka(x, y, debiased=True)
    assert m.cka(np.asfortranarray(x), y[::-1][::-1], debiased=True) == wanted
    m.cknna(x, y)
    m.procrustes(x, y)
    np.testing.assert_array_equal(x, before)
    assert m.mutual_knn(x.astype(np.float32), y) == m.mutual_knn(x.astype(np.float32).astype(float), y)


X = np.arange(12.0).reshape(6, 2) ** 1.5


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: m.cka(X, X[:5]), DataError, "Y has 5 rows, but X has 6"),
    (lambda: m.cka(X[:3], X[:3], debiased=True), DataError, "3 rows: this measure needs at least 4"),
    (lambda: m.cka(X, np.ones((6, 2))), DataError, "Y has equal rows only"),
    (lambda: m.cka(X, np.full((6, 2), 0.1)), DataError, "Y has equal rows only"),
    (lambda: m.cka(np.where(np.arange(12).reshape(6, 2) == 5, np.nan, X), X), DataError, "X has NaN .* first is row 2"),
    (lambda: m.cka(X, X, kernel="poly"), ValueError, "kernel='poly' must be one of 'linear', 'rbf'"),
    (lambda: m.cka(X, X, kernel="rbf", bandwidth=-1), ValueError, "bandwidth=-1 must be 'median', a positive number"),
    (lambda: m.cka(X, X, kernel="rbf", bandwidth="mean"), ValueError, "bandwidth='mean'"),
    (lambda: m.cka(np.eye(6)[:, :1], X, kernel="rbf"), DataError, "median distance of X's rows is 0"),
    (lambda: m.rsa(np.ones((6, 2)), X), DataError, "X: row 0 is constant"),
    (lambda: m.rsa(X, np.where(np.arange(6)[:, None] == 4, 0, X + 1), inner="cosine"), DataError, "Y: row 4 is zero"),
    (lambda: m.rsa(X, X, inner="euclid"), ValueError, "inner='euclid'"),
    (lambda: m.rsa(X, np.tile([1.0, 2.0], (6, 1))), DataError, "all pairs of rows of X are equally similar"),
    (lambda: m.mutual_knn(X, X, k=6), ValueError, "k=6 must be at most the 5 other rows"),
    (lambda: m.mutual_knn(X, X, k=0), ValueError, "k=0"),
    (lambda: m.cknna(X, X, metric="l2"), ValueError, "metric='l2'"),
    (lambda: m.svcca(X, X, share=0), ValueError, "share=0"),
    (lambda: m.svcca(X, X, components=3), DataError, "components=3, but X has only 2"),
    (lambda: m.rand_index([1, 2], [1]), DataError, "y has 1 labels|y must be a list"),
    (lambda: m.rand_index([1, 2, 3], [1, 2]), DataError, "y has 2 labels, but x has 3"),
    (lambda: m.rand_index([1, np.nan], [1, 2]), DataError, "x has NaN or infinite labels"),
    (lambda: m.permutation_test("rand", X, X), ValueError, "measure='rand' must be one of"),
    (lambda: m.permutation_test("rsa", X, X, k=3), ValueError, "rsa has no option 'k'; it has inner, outer"),
    (lambda: m.permutation_test("cka", X, X, n_permutations=0), ValueError, "n_permutations=0"),
])
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_too_much_noise_for_the_debiased_estimate_is_said():
    x = np.eye(6)
    with pytest.raises(NumericalError, match="HSIC of X with itself"):
        m.cka(x, x, debiased=True)


def test_kernels_check_their_arguments():
    x = np.zeros((3, 2), np.float32)
    score = np.zeros(4, np.float32)
    for call in (
        lambda: _core.cross(np.zeros((3, 1)), np.zeros((4, 1))), lambda: _core.cross(np.zeros((3, 1)), np.zeros((3, 1)), n_threads=0),
        lambda: _core.pair_counts(x, 0.0, 1.0, 0), lambda: _core.pair_counts(x, 1.0, 1.0, 4), lambda: _core.pair_counts(x, 0.0, np.nan, 4),
        lambda: _core.pair_counts(x[:1], 0.0, 1.0, 4), lambda: _core.pair_counts(x[:, :0], 0.0, 1.0, 4),
        lambda: _core.pair_scores(x, (0.0, 1.0), score, x[:2], (0.0, 1.0), score),
        lambda: _core.pair_scores(x, (0.0, 1.0), score[:0], x, (0.0, 1.0), score),
        lambda: _core.pair_gauss(x, -1.0, x, 1.0), lambda: _core.pair_gauss(x, 1.0, x[:2], 1.0),
        lambda: _core.near_rows(x.astype(float), x, 3), lambda: _core.near_rows(x.astype(float), x[:, :1], 1),
    ):
        with pytest.raises(ValueError):               # each has its own message; here it matters that none is accepted
            call()
    with pytest.raises(ArithmeticError, match="finite"):
        _core.pair_counts(np.full((3, 2), np.inf, np.float32), 0.0, 1.0, 4)
    with pytest.raises(TypeError, match="x must be an array"):
        _core.pair_counts(np.zeros((3, 2)), 0.0, 1.0, 4)


def test_values_whose_products_overflow_stay_within_bounds():
    x = np.full((30, 4), 3e38, np.float32) * np.array([[1], [-1]] * 15, np.float32)
    assert _core.pair_counts(x, -1.0, 1.0, 8).sum() == 435
    assert _core.pair_counts(x, -1.0, 1.0, 8, distance=True).sum() == 435


@pytest.mark.peers
def test_equal_scipy_scikit_learn_and_torch():
    scipy_stats = pytest.importorskip("scipy.stats")
    metrics = pytest.importorskip("sklearn.metrics")
    torch = pytest.importorskip("torch")
    x, y = related(700, 90, 64)
    a, b = (np.corrcoef(v)[np.triu_indices(700, 1)] for v in (x, y))
    assert m.rsa(x, y) == pytest.approx(scipy_stats.spearmanr(a, b).statistic, abs=1e-6)
    rng = np.random.default_rng(0)
    one, two = rng.integers(-1, 6, 500), rng.integers(0, 4, 500)
    two[:300] = one[:300]
    assert m.adjusted_rand_index(one, two) == pytest.approx(metrics.adjusted_rand_score(one, two), abs=1e-12)
    assert m.rand_index(one, two) == pytest.approx(metrics.rand_score(one, two), abs=1e-12)

    def hsic(k, q):
        n = len(k)
        k, q = k.clone().fill_diagonal_(0), q.clone().fill_diagonal_(0)
        return (k * q.T).sum() + k.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 * (k @ q).sum() / (n - 2)

    units = [torch.nn.functional.normalize(torch.from_numpy(v), dim=1) for v in (x, y)]
    grams = [u @ u.T for u in units]
    masks = [torch.zeros_like(g).scatter_(1, g.clone().fill_diagonal_(-2).topk(10, 1).indices, 1) for g in grams]
    top = hsic(grams[0] * masks[0] * masks[1], grams[1] * masks[0] * masks[1])
    own = [hsic(g * k, g * k) for g, k in zip(grams, masks, strict=True)]
    assert m.cknna(x, y) == pytest.approx(float(top / (own[0] * own[1]).sqrt()), abs=1e-10)
    assert m.mutual_knn(x, y) == pytest.approx(float((masks[0] * masks[1]).sum()) / 7000, abs=1e-12)
