"""Streaming selection: exact semantics, against sorting everything; batch splits, threads, merges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticlens import _core
from semanticlens._kernels.collect import ClassTop, TopM
from semanticlens._reference import collect as twin

INF = np.float32(np.inf)


def stream(values, ids, m, cuts=(), *, positive_only=False, n_threads=1):
    best = TopM(values.shape[1], m, positive_only=positive_only)
    for rows in np.split(np.arange(len(values)), sorted(cuts)):
        best.update(np.ascontiguousarray(values[rows]), ids[rows], n_threads=n_threads)
    return best


def assert_result(best, scores, ids, nan_counts):
    np.testing.assert_array_equal(best.ids, ids)
    np.testing.assert_array_equal(best.scores, scores)
    np.testing.assert_array_equal(best.nan_counts, nan_counts)
    np.testing.assert_array_equal(best.counts, (ids >= 0).sum(axis=1))
    assert np.array_equal(best.ids >= 0, best.scores > -INF)


def random_values(n, k, seed=0, levels=None):
    """Normal values, with NaN, infinities, zeros of both signs; ``levels`` forces ties."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, k)).astype(np.float32)
    if levels:
        values = np.round(values * levels).astype(np.float32) / np.float32(levels)
    for special in (np.nan, INF, -INF, 0.0, -0.0):
        values[rng.random((n, k)) < 0.03] = special
    return values, rng.permutation(n * 3)[:n].astype(np.int64)


def test_example_of_the_specification():
    values = np.array([[0.1], [0.2], [0.9], [0.8]], np.float32)
    best = stream(values, np.arange(4), 5)
    assert best.ids.tolist() == [[2, 3, 1, 0, -1]]
    np.testing.assert_array_equal(best.scores, np.array([[0.9, 0.8, 0.2, 0.1, -np.inf]], np.float32))
    assert best.counts.tolist() == [4]


def test_nothing_offered():
    best = TopM(3, 2)
    assert_result(best, np.full((3, 2), -INF), np.full((3, 2), -1), np.zeros(3))
    best.update(np.empty((0, 3), np.float32), np.empty(0, np.int64))
    assert_result(best, np.full((3, 2), -INF), np.full((3, 2), -1), np.zeros(3))
    assert TopM(0, 2).scores.shape == (0, 2)


def test_all_negative_values_are_kept():
    best = stream(np.array([[-3.0], [-1.0], [-2.0]], np.float32), np.arange(3), 2)
    assert best.ids.tolist() == [[1, 2]]
    assert best.scores.tolist() == [[-1.0, -2.0]]


def test_positive_only_leaves_out_zero_and_below():
    values = np.array([[0.0, 1.0], [-1.0, 0.0], [2.0, -0.0], [np.nan, 3.0]], np.float32)
    best = stream(values, np.arange(4), 3, positive_only=True)
    assert best.ids.tolist() == [[2, -1, -1], [3, 0, -1]]
    assert best.counts.tolist() == [1, 2]
    assert best.nan_counts.tolist() == [1, 0]


def test_nan_never_enters_and_minus_infinity_is_no_score():
    values = np.array([[np.nan], [-np.inf], [5.0], [np.nan], [np.inf]], np.float32)
    best = stream(values, np.arange(5), 4)
    assert best.ids.tolist() == [[4, 2, -1, -1]]
    assert best.counts.tolist() == [2]
    assert best.nan_counts.tolist() == [2]


@pytest.mark.parametrize("order", [np.arange(300), np.arange(300)[::-1], np.random.default_rng(0).permutation(300)])
def test_ties_go_to_the_smaller_id_in_any_order(order):
    values = np.zeros((300, 2), np.float32)
    values[:, 1] = np.where(np.arange(300) % 2, 0.0, -0.0)  # equal too
    best = stream(values[order], order.astype(np.int64), 7, cuts=(40, 41, 200))
    assert best.ids.tolist() == [list(range(7))] * 2


@pytest.mark.parametrize(("k", "m"), [(1, 1), (3, 1), (31, 5), (32, 20), (33, 64), (65, 100), (1030, 3)])
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("positive_only", [False, True])
def test_equals_sorting_everything(k, m, levels, positive_only):
    values, ids = random_values(257, k, seed=k + m, levels=levels)
    expected = twin.top_m(values, ids, m, positive_only=positive_only)
    assert_result(stream(values, ids, m, positive_only=positive_only), *expected)
    assert_result(stream(values, ids, m, cuts=range(1, 257), positive_only=positive_only), *expected)
    ascending = np.argsort(ids)
    assert_result(stream(values[ascending], ids[ascending], m, cuts=(5, 100), positive_only=positive_only), *expected)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_stream_equals_the_oracle(data):
    n, k, m = data.draw(st.integers(0, 150)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 80))
    pool = st.sampled_from(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1.0000001, 3.4e38, -3.4028235e38, 1e-45, -1e-45]
    )
    seed = data.draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    choices = np.array(data.draw(st.lists(pool, min_size=1, max_size=6)), np.float32)
    values = rng.choice(choices, (n, k))
    ids = rng.permutation(2 * n + 1)[:n].astype(np.int64)
    cuts = data.draw(st.lists(st.integers(0, n), max_size=6))
    positive_only = data.draw(st.booleans())
    expected = twin.top_m(values, ids, m, positive_only=positive_only)
    assert_result(stream(values, ids, m, cuts, positive_only=positive_only), *expected)

    parts = [
        stream(values[rows], ids[rows], m, positive_only=positive_only)
        for rows in np.split(rng.permutation(n), sorted(cuts))
    ]
    for order in (parts, parts[::-1]):  # merges in any order
        merged = TopM(k, m, positive_only=positive_only)
        for part in order:
            merged.merge(part.scores, part.ids, part.nan_counts)
        assert_result(merged, *expected)


def test_reading_in_between_changes_nothing():
    values, ids = random_values(200, 9, seed=1)
    best = TopM(9, 30)
    for row in range(200):
        best.update(values[row : row + 1], ids[row : row + 1])
        best.flush()
    assert_result(best, *twin.top_m(values, ids, 30))


def test_merge_twin():
    values, ids = random_values(120, 8, seed=2, levels=2)
    a, b = twin.top_m(values[:50], ids[:50], 12), twin.top_m(values[50:], ids[50:], 12)
    best = TopM(8, 12)
    best.merge(*a)
    best.merge(*b)
    scores, kept = twin.merge(a[0], a[1], b[0], b[1])
    assert_result(best, scores, kept, np.isnan(values).sum(0))


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_bitwise_equal_for_every_thread_count(n_threads):
    values, ids = random_values(600, 2100, seed=4, levels=50)
    one, many = stream(values, ids, 17, cuts=(300,)), stream(values, ids, 17, cuts=(300,), n_threads=n_threads)
    assert one.scores.tobytes() == many.scores.tobytes()
    assert one.ids.tobytes() == many.ids.tobytes()
    assert one.nan_counts.tobytes() == many.nan_counts.tobytes()
    merged = TopM(2100, 17)
    merged.merge(one.scores, one.ids, one.nan_counts, n_threads=n_threads)
    assert merged.scores.tobytes() == one.scores.tobytes()


def test_inputs_are_untouched():
    values, ids = random_values(70, 6)
    values.flags.writeable = ids.flags.writeable = False
    kept = values.tobytes(), ids.tobytes()
    stream(values, ids, 4)
    assert (values.tobytes(), ids.tobytes()) == kept


def test_large_ids():
    ids = np.array([2**62, 2**40, 2**62 - 1], np.int64)
    best = stream(np.ones((3, 1), np.float32), ids, 2)
    assert best.ids.tolist() == [[2**40, 2**62 - 1]]


@pytest.mark.parametrize(("y", "k", "c"), [(1, 1, 1), (3, 7, 2), (5, 130, 10), (2, 2100, 3)])
@pytest.mark.parametrize("positive_only", [False, True])
def test_class_lists_equal_sorting_everything(y, k, c, positive_only):
    values, _ = random_values(300, k, seed=y * k + c)
    targets = np.random.default_rng(1).integers(-1, y, 300)
    expected = twin.class_top(values, targets, y, c, positive_only=positive_only)
    for n_threads, cuts in [(1, ()), (2, (7, 100)), (3, (299,)), (8, ())]:
        top = ClassTop(y, k, c, positive_only=positive_only)
        for rows in np.split(np.arange(300), cuts):
            top.update(values[rows], targets[rows], n_threads=n_threads)
        np.testing.assert_array_equal(top.scores, expected)


def state(k=2, m=3, **changes):
    best = TopM(k, m)
    parts = list(best._state)
    for index, part in changes.items():
        parts[int(index[1:])] = part
    return tuple(parts)


X = np.zeros((4, 2), np.float32)
IDS = np.arange(4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TopM(3, 0), ValueError, "m=0: m must be at least 1"),
        (lambda: TopM(-1, 1), ValueError, "n_components=-1"),
        (lambda: ClassTop(2, 3, 0), ValueError, "c=0: must be at least 1"),
        (lambda: TopM(2, 3).update(X, IDS[:3]), ValueError, "ids has 3 entries along axis 0, but values has 4"),
        (lambda: TopM(3, 3).update(X, IDS), ValueError, "values has 2 entries along axis 1, but state: scores has 3"),
        (lambda: TopM(2, 3).update(X.astype(np.float64), IDS), TypeError, "float64"),
        (lambda: TopM(2, 3).update(X[0], IDS), ValueError, "values must have 2 dimensions, not 1"),
        (lambda: TopM(2, 3).update(X, IDS - 1), ValueError, "ids must not be negative"),
        (lambda: TopM(2, 3).update(X, IDS, n_threads=0), ValueError, "n_threads=0"),
        (
            lambda: TopM(2, 3).merge(X, IDS[:, None], IDS),
            ValueError,
            "scores has 4 entries along axis 0, but state: scores has 2",
        ),
        (lambda: ClassTop(2, 2, 1).update(X, np.array([0, 1, 2, 0])), ValueError, "targets must lie between -1"),
        (lambda: ClassTop(2, 2, 1).update(X, np.array([0, 1, -2, 0])), ValueError, "targets must lie between -1"),
        (
            lambda: ClassTop(2, 2, 1).update(X, IDS[:2]),
            ValueError,
            "targets has 2 entries along axis 0, but values has 4",
        ),
        (lambda: _core.topm_update(state()[:7], X, IDS), TypeError, "state must be a tuple of 8 arrays"),
        (lambda: _core.topm_update(list(state()), X, IDS), TypeError, "state must be a tuple of 8 arrays"),
        (
            lambda: _core.topm_update(state(_1=np.zeros((2, 4), np.int64)), X, IDS),
            ValueError,
            "state: ids has 4 entries along axis 1",
        ),
        (lambda: _core.topm_update(state(_2=np.zeros(3, np.int64)), X, IDS), ValueError, "state: counts has 3 entries"),
        (
            lambda: _core.topm_update(state(_2=np.array([0, 4])), X, IDS),
            ValueError,
            "the state one that topm_init made",
        ),
        (
            lambda: _core.topm_update(state(_7=np.array([0, 64], np.int32)), X, IDS),
            ValueError,
            "the state one that topm_init made",
        ),
        (
            lambda: _core.topm_flush(state(_7=np.array([0, -1], np.int32))),
            ValueError,
            "the state one that topm_init made",
        ),
        (
            lambda: _core.topm_update(state(_6=np.zeros((2, 63, 2), np.int64)), X, IDS),
            ValueError,
            "pending must have the shape",
        ),
        (lambda: _core.topm_update(state(_4=np.zeros(2)), X, IDS), TypeError, "state: limits must be a writable"),
        (lambda: _core.topm_init((*(s := state())[:3], s[2], *s[4:])), ValueError, "are the same memory"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_refused_call_changes_nothing():
    values, ids = random_values(50, 4)
    best = stream(values, ids, 5)
    before = best.scores.copy(), best.nan_counts.copy()
    with pytest.raises(ValueError, match="negative"):
        best.update(np.full((2, 4), 9.0, np.float32), np.array([1000, -1]))
    np.testing.assert_array_equal(best.scores, before[0])
    np.testing.assert_array_equal(best.nan_counts, before[1])
