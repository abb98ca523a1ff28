"""Concept-pair distances, matching and universality."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens import DataError
from semanticlens._reference import alignment as twin
from semanticlens.alignment import align, concept_distances, matrix
from semanticlens.alignment.assignment import assign


def soft(n, k, seed=0, alpha=0.2, floor=0.0):
    p = np.random.default_rng(seed).dirichlet(np.full(k + 1, alpha), n)[:, :k].astype(np.float32)
    p[p < floor] = 0.0
    return p


def by_pairs(P, Q):
    return np.array([[twin.concept_distance(p, q) for q in Q.T] for p in P.T])


@pytest.mark.parametrize(
    ("n", "kp", "kq", "alpha", "floor"),
    [
        (2, 1, 1, 1.0, 0.0),
        (3, 2, 2, 0.5, 0.0),
        (25, 3, 4, 0.5, 0.0),
        (33, 2, 5, 0.05, 1e-3),
        (300, 4, 6, 0.3, 0.0),
        (900, 3, 5, 0.02, 1e-3),
    ],
)
def test_equals_the_definition(n, kp, kq, alpha, floor):
    P, Q = soft(n, kp, 0, alpha, floor), soft(n, kq, 1, alpha, floor)
    c = concept_distances(P, Q)
    np.testing.assert_allclose(c.distance, by_pairs(P, Q), atol=5e-8)
    np.testing.assert_allclose(c.lone_p, [twin.concept_distance(p, 0 * p) for p in P.T], rtol=1e-12)
    np.testing.assert_allclose(c.lone_q, [twin.concept_distance(q, 0 * q) for q in Q.T], rtol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.01, 0.5, 1.0])
def test_both_routes_agree_with_sorting(share):
    """From columns that are zero nearly everywhere to dense ones: the route changes, the number does not."""
    rng = np.random.default_rng(3)
    P, Q = (np.where(rng.random((5000, k)) < share, rng.random((5000, k)) / k, 0).astype(np.float32) for k in (3, 4))
    c = concept_distances(P, Q)
    np.testing.assert_allclose(c.distance, twin.concept_distances_by_sorting(P.T, Q.T), atol=5e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 120), st.sampled_from([1, 2, 3, 7, 1000]))
def test_ties_and_constant_columns(seed, n, levels):
    rng = np.random.default_rng(seed)
    P, Q = (rng.integers(0, levels + 1, (n, 1)).astype(np.float32) / (levels + 1) for _ in range(2))
    assert concept_distances(P, Q).distance[0, 0] == pytest.approx(twin.concept_distance(P[:, 0], Q[:, 0]), abs=5e-8)


def test_values_that_crowd_at_many_scales():
    scales = (0.5 ** np.arange(0, 120, 2)).astype(np.float32)
    P = np.concatenate([scales * np.float32(1 + i * 1e-4) for i in range(40)])[:, None] / 2
    Q = P[::-1].copy()
    assert concept_distances(P, Q).distance[0, 0] == pytest.approx(twin.concept_distance(P[:, 0], Q[:, 0]), abs=5e-8)


def test_bounds_the_index():
    """d(P, Q) is at most the matched distances plus those of the concepts left alone (spec: section 3)."""
    P, Q = soft(200, 5), soft(200, 7, seed=1)
    c = concept_distances(P, Q)
    m = c.match()
    bound = sum(x.distance for x in m.matches) + c.lone_p[list(m.alone_p)].sum() + c.lone_q[list(m.alone_q)].sum()
    assert align(P, Q).d <= bound + 1e-6
    assert len(m.matches) == 5
    assert len(m.alone_q) == 2


def test_self_distances_are_zero_on_the_diagonal_and_symmetric():
    P = soft(300, 6)
    c = concept_distances(P, P)
    np.testing.assert_allclose(np.diag(c.distance), 0.0, atol=1e-12)
    np.testing.assert_allclose(c.distance, c.distance.T, atol=1e-12)
    assert [(m.a, m.b) for m in c.match().matches] == [(m.a, m.a) for m in c.match().matches]


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_bitwise_equal_for_every_thread_count(n_threads):
    P, Q = soft(2000, 6), soft(2000, 9, seed=1)
    assert np.array_equal(concept_distances(P, Q, n_threads=n_threads).distance, concept_distances(P, Q, n_threads=1).distance)


def test_universality_follows_the_cuts():
    P = soft(400, 4)
    Q = np.concatenate([P[:, [2, 0]], soft(400, 1, seed=9) * 0.5], axis=1)
    Q /= max(1.0, Q.sum(1).max())
    kinds_p, kinds_q = concept_distances(P, P[:, [2, 0]]).universality([0.0001, 0.2, 0.5])
    assert kinds_p.count("universal") == 2
    assert kinds_q == ("universal", "universal")
    assert {kinds_p[0], kinds_p[2]} == {"universal"}
    assert {kinds_p[1], kinds_p[3]} == {"unique"}
    with pytest.raises(ValueError, match="ascending"):
        concept_distances(P, Q).universality([0.3, 0.2, 0.5])


def test_unequal_rows_are_named():
    with pytest.raises(DataError, match="Q has 3 rows, but P has 2"):
        concept_distances(np.zeros((2, 1)), np.zeros((3, 1)))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 7), (7, 4), (6, 6)])
def test_assignment_is_optimal(shape):
    import itertools

    rng = np.random.default_rng(0)
    for cost in (rng.random(shape), rng.integers(0, 3, shape).astype(float)):
        rows, columns = assign(cost)
        small, wide = (cost, cost.shape) if shape[0] <= shape[1] else (cost.T, cost.T.shape)
        best = min(sum(small[i, c[i]] for i in range(wide[0])) for c in itertools.permutations(range(wide[1]), wide[0]))
        assert cost[rows, columns].sum() == pytest.approx(best)
        assert len(set(rows)) == len(set(columns)) == min(shape)


def test_assignment_refuses_nan():
    with pytest.raises(ValueError, match="finite"):
        assign([[np.nan]])


@pytest.mark.parametrize("kind", ["skewed", "even", "few levels", "equal columns"])
@pytest.mark.parametrize("share", [0.08, 0.3])
def test_mostly_zero_columns_agree_with_sorting(share, kind):
    """Columns that are zero in most rows go by what their cells hold; crowded cells, ties and equal columns included."""
    rng = np.random.default_rng(8)
    n = 7001

    def columns(k):
        x = rng.random((n, k)) ** (8 if kind == "skewed" else 1)
        x = np.ceil(x * 5) / 5 if kind == "few levels" else x
        return np.where(rng.random((n, k)) < share, x / k, 0).astype(np.float32)

    P = columns(3)
    Q = P[:, ::-1].copy() if kind == "equal columns" else columns(4)
    c = concept_distances(P, Q)
    np.testing.assert_allclose(c.distance, twin.concept_distances_by_sorting(P.T, Q.T), atol=1e-8)
    for threads in (2, 3, 8):
        assert np.array_equal(c.distance, concept_distances(P, Q, n_threads=threads).distance)
    if kind == "equal columns":
        assert np.all(np.abs(c.distance[[0, 1, 2], [2, 1, 0]]) < 1e-9)


def test_results_print_as_tables() -> None:
    rng = np.random.default_rng(0)
    p, q = np.eye(4)[rng.integers(0, 4, 60)], np.eye(3)[rng.integers(0, 3, 60)]
    text = repr(concept_distances(p, q).match())
    assert text.startswith("Matching: 3 pairs, 1 of P and 0 of Q alone\n")
    assert len(text.splitlines()) == 5
    table = repr(matrix([p, q], names=["first", "second"]))
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["first", "second"]
    assert "1.000" in table
