"""Generalized Rand index: twin, Rand index, invariances, triangle inequality, chance level, error, threads, messages."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens import DataError, _core
from semanticlens._reference import alignment as twin
from semanticlens.alignment import align, attribute, matrix, proximities


def soft(n, k, seed=0, alpha=0.2):
    return np.random.default_rng(seed).dirichlet(np.full(k + 1, alpha), n)[:, :k].astype(np.float32)


def one_hot(labels, k):
    return np.eye(k)[labels]


SHAPES = [(2, 1, 1), (3, 2, 5), (15, 3, 3), (16, 1, 2), (17, 4, 1), (63, 2, 7), (64, 5, 5), (65, 3, 7), (257, 6, 9), (700, 11, 3)]


@pytest.mark.parametrize(("n", "kp", "kq"), SHAPES)
def test_equals_the_twin(n, kp, kq):
    P, Q = soft(n, kp), soft(n, kq, seed=1)
    a = align(P, Q)
    assert a.d == pytest.approx(twin.discordance(P, Q), abs=1e-7)
    assert a.ndc == 1 - a.d
    assert 1 - a.ndc_null == pytest.approx(twin.null_discordance(P, Q), abs=2e-7)
    assert a.n_pairs == n * (n - 1) // 2


def pair_counts(x, y):
    """Pairs together in both, in x, in y, in all: what the Rand indices are made of."""
    table = np.zeros((x.max() + 1, y.max() + 1))
    np.add.at(table, (x, y), 1)

    def pairs(v):
        return (v * (v - 1) / 2).sum()

    return pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), pairs(np.array([len(x)]))


@pytest.mark.parametrize("seed", range(4))
def test_one_hot_gives_the_rand_and_the_adjusted_rand_index(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(50, 1500))
    x = rng.integers(0, 7, n)
    y = np.where(rng.random(n) < 0.6, x, rng.integers(0, 5, n))
    both, in_x, in_y, total = pair_counts(x, y)
    expected = in_x * in_y / total
    a = align(one_hot(x, 7), one_hot(y, 7))
    assert a.ndc == pytest.approx((total + 2 * both - in_x - in_y) / total, abs=1e-12)
    assert a.aci == pytest.approx((both - expected) / ((in_x + in_y) / 2 - expected), abs=1e-12)


def test_a_representation_agrees_with_itself_whatever_the_order_of_its_concepts():
    P = soft(200, 9)
    shuffled = P[:, np.random.default_rng(0).permutation(9)]
    padded = np.concatenate([P, np.zeros((200, 3), np.float32)], axis=1)
    assert align(P, P).d == 0.0
    assert align(P, P).aci == 1.0
    assert align(P, shuffled).d == pytest.approx(0.0, abs=1e-7)
    assert align(P, padded).d == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60))
def test_triangle_inequality_and_symmetry(seed, n):
    reps = [soft(n, k, seed + k, alpha=0.5) for k in (2, 3, 5)]
    m = matrix(reps)
    assert np.array_equal(m.d, m.d.T)
    for i, j, k in itertools.permutations(range(3), 3):
        assert m.d[i, k] <= m.d[i, j] + m.d[j, k] + 1e-6


def test_the_chance_level_is_the_mean_over_all_permutations():
    P, Q = soft(6, 3, alpha=0.5), soft(6, 2, seed=1, alpha=0.5)
    every = np.mean([twin.discordance(P, Q[list(order)]) for order in itertools.permutations(range(6))])
    assert 1 - align(P, Q).ndc_null == pytest.approx(every, abs=2e-7)


def test_unrelated_representations_are_near_zero_when_adjusted_though_not_when_raw():
    P, Q = soft(1500, 12), soft(1500, 12, seed=1)
    a = align(P, Q)
    assert a.ndc > 0.5
    assert abs(a.aci) < 0.01


def test_the_jackknife_error_is_that_of_leaving_samples_out():
    P, Q = soft(40, 3), soft(40, 4, seed=1)
    n = len(P)
    left_out = np.array([twin.discordance(np.delete(P, i, 0), np.delete(Q, i, 0)) for i in range(n)])
    expected = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    assert align(P, Q).stderr == pytest.approx(expected, rel=1e-4)


def test_noise_can_be_a_concept_of_its_own():
    P = np.array([[0.0], [0.0], [1.0]])
    Q = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    implicit, explicit = align(P, Q), align(P, Q, noise="explicit")
    assert implicit.d == pytest.approx((abs(0 - 0.5) + abs(0.5 - 0.5) + abs(0.5 - 1.0)) / 3)
    assert explicit.d == pytest.approx((1.0 + 0.0 + 0.0) / 3)


def test_matrix_equals_the_pairs_one_by_one():
    reps = {"a": soft(130, 3), "b": soft(130, 8, seed=1), "c": soft(130, 1, seed=2), "d": soft(130, 20, seed=3)}
    m = matrix(reps)
    assert m.names == ("a", "b", "c", "d")
    for i, j in itertools.combinations(range(4), 2):
        a = align(list(reps.values())[i], list(reps.values())[j])
        assert m[i, j] == a
    assert np.array_equal(np.diag(m.d), np.zeros(4))
    assert np.array_equal(np.diag(m.aci), np.ones(4))


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_bitwise_equal_for_every_thread_count(n_threads):
    reps = [soft(900, 5), soft(900, 13, seed=1), soft(900, 2, seed=2)]
    one, many = matrix(reps, n_threads=1), matrix(reps, n_threads=n_threads)
    for name in ("d", "ndc_null", "aci", "stderr"):
        assert np.array_equal(getattr(one, name), getattr(many, name)), name


def test_inputs_are_untouched():
    P = soft(50, 4)
    before = P.copy()
    align(P, P * np.float32(0.5))
    assert np.array_equal(P, before)


@pytest.mark.parametrize(
    ("P", "Q", "message"),
    [
        (np.zeros((3, 2)), np.zeros((4, 2)), "Q has 4 rows, but P has 3"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "at least two samples"),
        (np.zeros(5), np.zeros((5, 1)), "P must be a matrix"),
        (np.array([[0.2], [np.nan]]), np.zeros((2, 1)), "P: row 1 is not finite"),
        (np.array([[0.2], [-0.1]]), np.zeros((2, 1)), "P: row 1 has a negative proximity"),
        (np.zeros((2, 2)), np.array([[0.2, 0.3], [0.9, 0.4]]), "Q: row 1 sums to more than 1"),
    ],
)
def test_bad_input_is_named(P, Q, message):
    with pytest.raises(DataError, match=message):
        align(P, Q)


def test_rounding_of_memberships_is_forgiven():
    values = proximities(np.array([[1.00005, -1e-7], [0.5, 0.5]]))
    assert values.min() == 0.0


def test_no_concepts_at_all():
    a = align(np.zeros((5, 0)), np.zeros((5, 0)))
    assert a.d == 0.0
    assert a.aci == 1.0


def test_random_pairs_are_the_twins():
    n, seed, draws = 137, 2**63 + 11, 3000
    P, Q = soft(n, 5), soft(n, 21, seed=1)
    i, j = np.array([twin.draw(seed, t, n) for t in range(draws)]).T
    assert (i != j).all()
    assert len(set(i)) == len(set(j)) == n
    apart = [0.5 * np.abs(p[i].astype(float) - p[j]).sum(axis=1) for p in (P, Q)]
    difference = np.abs(apart[0] - apart[1])
    a = align(P, Q, mode="pairs", n_pairs=draws, seed=seed)
    assert a.d == pytest.approx(difference.mean(), abs=1e-7)
    assert a.stderr == pytest.approx(difference.std(ddof=1) / np.sqrt(draws), rel=1e-5)
    x, y = (np.sort(v) for v in apart)
    assert 1 - a.ndc_null == pytest.approx(np.abs(x[:, None] - y[None]).mean(), abs=2e-7)
    assert (a.mode, a.n_pairs) == ("pairs", draws)
    assert a.bound == pytest.approx(np.sqrt(np.log(40) / 6000))
    for n_threads in (1, 2, 3, 8):
        assert align(P, Q, mode="pairs", n_pairs=draws, seed=seed, n_threads=n_threads) == a


def test_errors_of_random_pairs_are_honest():
    """Over 200 seeds, the truth lies within 1.96 standard errors about 95 times in 100, and always within the bound."""
    P, Q = soft(300, 6), soft(300, 9, seed=1)
    truth = align(P, Q).d
    drawn = [align(P, Q, mode="pairs", n_pairs=2000, seed=s) for s in range(200)]
    inside = np.mean([abs(a.d - truth) <= 1.96 * a.stderr for a in drawn])
    assert 0.9 <= inside <= 0.99
    assert np.mean([a.d for a in drawn]) == pytest.approx(truth, abs=4 * drawn[0].stderr / np.sqrt(200))
    assert np.mean([abs(a.d - truth) <= a.bound for a in drawn]) >= 0.95
    assert align(P, Q).bound == 0.0


def test_random_pairs_of_many_representations():
    reps = [soft(90, k, seed=k) for k in (2, 7, 17)]
    m = matrix(reps, mode="pairs", n_pairs=500, seed=4)
    for i, j in itertools.combinations(range(3), 2):
        assert m[i, j] == align(reps[i], reps[j], mode="pairs", n_pairs=500, seed=4)
    assert m.to_dict()["mode"] == "pairs"


@pytest.mark.parametrize(("n", "kp", "kq"), SHAPES[1:])
def test_parts_of_concepts_add_up(n, kp, kq):
    P, Q = soft(n, kp), soft(n, kq, seed=1)
    parts = attribute(P, Q, n_threads=1)
    of_p, of_q = twin.parts(P, Q)
    np.testing.assert_allclose(parts.p, of_p, atol=1e-7)
    np.testing.assert_allclose(parts.q, -of_q, atol=1e-7)
    assert parts.d == pytest.approx(align(P, Q).d, abs=1e-7)
    assert parts.d == pytest.approx(parts.p.sum() + parts.q.sum(), abs=1e-12)
    for n_threads in (2, 3, 8):
        again = attribute(P, Q, n_threads=n_threads)
        assert again.p.tobytes() + again.q.tobytes() == parts.p.tobytes() + parts.q.tobytes()


def test_a_concept_only_one_side_has_gets_the_blame():
    P = soft(400, 5)
    Q = np.concatenate([P[:, :4], np.zeros((400, 1), np.float32)], axis=1)
    parts = attribute(P, Q)
    np.testing.assert_allclose((parts.p + parts.q)[:4], 0, atol=1e-7)  # what both have cancels
    assert parts.p[4] == pytest.approx(parts.d, abs=1e-7)
    assert attribute(P, Q, noise="explicit").p.shape == (6,)
    assert attribute(P, P).d == 0.0
    assert attribute(P, P).to_dict()["n"] == 400


def test_parts_of_no_concepts():
    assert attribute(soft(30, 0), soft(30, 2)).p.shape == (0,)


@pytest.mark.parametrize(("options", "message"), [
    ({"mode": "rows"}, "mode='rows' must be one of 'exact', 'pairs'"), ({"mode": "pairs", "n_pairs": 1}, "n_pairs=1"),
    ({"mode": "pairs", "n_pairs": 45}, "no fewer than the 45 pairs"), ({"mode": "pairs", "n_pairs": 9, "seed": -1}, "seed=-1"),
    ({"mode": "pairs", "n_pairs": 2.5}, "n_pairs=2.5"), ({"noise": "loud"}, "noise='loud'"),
])
def test_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        align(soft(10, 2), soft(10, 3), **options)


def test_kernels_check_their_arguments():
    p = soft(10, 2)
    sums, count = np.zeros((1, 2), np.int64), np.zeros((2, 4096), np.int64)
    for call in (
        lambda: _core.rand_parts(p, p[:5], np.zeros(4, np.int64), 0, 1), lambda: _core.rand_parts(p, p, np.zeros(3, np.int64), 0, 1),
        lambda: _core.rand_parts(p, p, np.zeros(4, np.int64), 0, 2), lambda: _core.rand_draw([p, p], sums, count, count, 0, 2, 1),
        lambda: _core.rand_draw([p, p, p], sums, count, count, 0, 0, 1),
        lambda: _core.rand_draw([p[:1], p[:1]], sums, count, count, 0, 0, 1),
    ):
        with pytest.raises(ValueError):               # each has its own message; here it matters that none is accepted
            call()
