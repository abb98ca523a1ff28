"""Cosine matrices, redundancy, the few closest texts: twins, exact values, ties, threads, memory, bad input."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import semanticlens as sl
from semanticlens import _core
from semanticlens._reference import lens as twin
from semanticlens.lens import scores


def rows(n, d, seed=0, shift=0.2):
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


SIZES = [(0, 0, 3), (1, 1, 1), (3, 2, 5), (16, 16, 16), (5, 7, 5), (241, 257, 33), (500, 3, 330)]


@pytest.mark.parametrize(("q", "k", "d"), SIZES)
def test_cosine_equals_its_twin(q, k, d):
    a, b = rows(q, d), rows(k, d, seed=1)
    if q > 2:
        a[1], b[0] = 0, np.nan
    found = _core.cosine(a, b)
    assert found.shape == (q, k)
    np.testing.assert_allclose(found, twin.cosine(a, b), atol=1e-6)


def test_the_shape_never_depends_on_coincidences():
    """The published function returns Q numbers for Q = K, and multiplies without transposing for K = d."""
    for q, k, d in [(4, 4, 9), (6, 9, 9), (9, 9, 9), (1, 1, 5), (5, 5, 5)]:
        a, b = rows(q, d), rows(k, d, seed=1)
        expected = np.array([[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b.astype(float)] for x in a.astype(float)])
        assert scores.similarity(a, b) == pytest.approx(expected, abs=1e-6)


def test_similarity_is_invariant():
    a, b = rows(20, 12), rows(30, 12, seed=1)
    scale = np.exp(rows(30, 1, seed=2))
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((12, 12)))[0].astype(np.float32)
    np.testing.assert_allclose(scores.similarity(a, b * scale), scores.similarity(a, b), atol=1e-6)
    np.testing.assert_allclose(scores.similarity(a @ rotation, b @ rotation), scores.similarity(a, b), atol=2e-6)
    np.testing.assert_allclose(scores.redundancy(b * scale)[0], scores.redundancy(b)[0], atol=1e-6)
    assert (np.abs(np.diag(scores.similarity(a)) - 1) < 1e-6).all()
    assert scores.similarity(a).max() <= 1


@pytest.mark.parametrize(("n", "d"), [(0, 4), (1, 4), (2, 3), (7, 5), (239, 8), (240, 8), (241, 8), (720, 9), (1000, 37)])
def test_redundancy_equals_its_twin(n, d):
    x = rows(n, d)
    if n > 6:
        x[2], x[4] = np.nan, 0
    value, nearest = _core.redundancy(x)
    expected, expected_nearest = twin.redundancy(x)
    np.testing.assert_allclose(value, expected, atol=1e-6)
    unit = twin.unit_rows(x)
    for i in np.flatnonzero(nearest != expected_nearest):  # only where float32 cannot tell the two apart
        assert unit[i] @ unit[nearest[i]] == pytest.approx(expected[i], abs=3e-7)


def test_redundancy_of_known_sets():
    for k in (2, 5, 300):
        eye = np.eye(k, dtype=np.float32)
        assert (scores.redundancy(eye)[0] == 0).all()
        twice = np.concatenate([eye, np.zeros((k, 1), np.float32)], axis=1)
        twice[k - 1] = 2 * twice[0]
        assert scores.redundancy(twice)[0].mean() == pytest.approx(2 / k, abs=1e-12)
    assert np.isnan(scores.redundancy(rows(1, 4))[0]).all()  # the published score is -1
    assert np.isnan(scores.redundancy(np.full((3, 4), np.nan, np.float32))[0]).all()


def test_one_dead_row_spoils_nothing():
    """In the published function one NaN row makes the score of the whole layer NaN."""
    x = rows(300, 16)
    x[17] = np.nan
    value, nearest = scores.redundancy(x)
    rest = np.delete(np.arange(300), 17)
    assert np.isnan(value[17])
    assert nearest[17] == -1
    np.testing.assert_array_equal(value[rest], scores.redundancy(x[rest])[0])
    assert 17 not in nearest


def test_ties_go_to_the_lowest_index():
    x = rows(600, 24)
    for copy in (599, 480, 241, 240, 239, 100):
        x[copy] = x[3]
    nearest = scores.redundancy(x)[1]
    assert nearest[3] == 100
    assert (nearest[[100, 239, 240, 241, 480, 599]] == 3).all()
    texts = rows(1300, 24, seed=5)
    texts[1299] = texts[700] = texts[11] = x[3]
    index, score = _core.top_labels(x[[3, 5]], texts, 4)
    assert index[0, :3].tolist() == [11, 700, 1299]
    assert score[0, 0] == score[0, 2] > score[0, 3]


@pytest.mark.parametrize(
    ("k", "texts", "d", "n"), [(0, 5, 3, 2), (3, 5, 3, 5), (3, 2, 4, 6), (121, 500, 17, 1), (240, 1000, 33, 7), (5, 481, 64, 481)]
)
def test_labels_equal_their_twin(k, texts, d, n):
    x, t = rows(k, d), rows(texts, d, seed=1)
    if k > 2:
        x[1] = np.nan
    if texts > 4:
        t[3] = 0
    index, score = _core.top_labels(x, t, n)
    expected_index, expected_score = twin.top_labels(x, t, n)
    np.testing.assert_allclose(score, expected_score, atol=1e-6)
    assert (index != expected_index).mean() < 0.01 if index.size else index.shape == expected_index.shape
    np.testing.assert_array_equal(index < 0, np.isnan(score))


def test_labels_of_the_published_example():
    """Section 12.12 of the specification (NeuroLens' own test)."""
    vectors = scores.concept_vectors(np.array([[[1, 0], [1, 0]], [[0, 1], [1, 1]]], np.float32), normalize=False)
    index, score = _core.top_labels(vectors, np.array([[1, 0], [0, 1], [np.sqrt(0.5), np.sqrt(0.5)]], np.float32), 2)
    assert index.tolist() == [[0, 2], [2, 1]]
    assert score == pytest.approx(np.array([[1, 0.70711], [0.94868, 0.89443]]), abs=1e-5)


def test_a_label_score_is_the_search_score():
    x, t = rows(50, 40), rows(700, 40, seed=1)
    index, score = _core.top_labels(x, t, 5)
    assert np.array_equal(np.take_along_axis(_core.cosine(x, t), index, axis=1), score)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31))
def test_few_values_many_ties(k, texts, d, n, seed):
    rng = np.random.default_rng(seed)
    x, t = rng.integers(-1, 2, (k, d)).astype(np.float32), rng.integers(-1, 2, (texts, d)).astype(np.float32)
    index, _ = _core.top_labels(x, t, n)
    full = _core.cosine(x, t)
    order = np.argsort(np.where(np.isnan(full), np.inf, -full), axis=1, kind="stable")[:, :n]
    for i in range(k):
        valid = [j for j in order[i] if not np.isnan(full[i, j])]
        assert index[i, : len(valid)].tolist() == valid
        assert (index[i, len(valid) :] == -1).all()
    value, nearest = _core.redundancy(x)
    own = _core.cosine(x, x)
    np.fill_diagonal(own, np.nan)
    for i in range(k):
        if np.isnan(own[i]).all():
            assert nearest[i] == -1
        else:
            assert nearest[i] == np.nanargmax(own[i])
            assert value[i] == pytest.approx(np.nanmax(own[i]), abs=1e-6)


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_bitwise_equal_for_every_thread_count(n_threads):
    x, t = rows(1100, 45), rows(900, 45, seed=1)
    x[500:540] = x[:40]
    for call in (
        lambda n: _core.redundancy(x, n_threads=n),
        lambda n: _core.top_labels(x, t, 6, n_threads=n),
        lambda n: (_core.cosine(x, t, n_threads=n),),
    ):
        assert [a.tobytes() for a in call(n_threads)] == [a.tobytes() for a in call(1)]


def test_set_similarity():
    a, b = rows(30, 8), rows(50, 8, seed=1)
    assert scores.set_similarity(a, a) == pytest.approx(1, abs=1e-6)
    assert scores.set_similarity(a, np.concatenate([b, a])) == pytest.approx(1, abs=1e-6)
    assert scores.set_similarity(a, b) != pytest.approx(scores.set_similarity(b, a), abs=1e-3)
    a[0] = np.nan
    assert scores.set_similarity(a, a) == pytest.approx(1, abs=1e-6)
    assert np.isnan(scores.set_similarity(a, np.full((2, 8), np.nan, np.float32)))


def test_redundancy_of_examples():
    v = rows(60, 10).reshape(6, 10, 10)
    expected = [twin.redundancy(own)[0].mean() for own in v]
    np.testing.assert_allclose(scores.example_redundancy(v), expected, atol=1e-6)
    assert np.isnan(scores.example_redundancy(v[:, :1])).all()


def test_memory_of_redundancy_has_no_square_matrix():
    """12 000 rows: the square matrix alone would take 576 MB."""
    code = """
import re, numpy as np
from semanticlens import _core
x = np.random.default_rng(0).standard_normal((12000, 16), dtype=np.float32)
def peak():                                           # not ru_maxrss, which a child inherits from its parent
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
before = peak()
_core.redundancy(x, n_threads=2)
print((peak() - before) / 1024)
"""
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 40


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this platform")
def test_a_long_call_can_be_interrupted():
    x = rows(20000, 128)

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        start = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            _core.redundancy(x)  # seconds, if it is left alone
        assert time.perf_counter() - start < 1.5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: scores.similarity(rows(3, 4), rows(3, 5)), sl.DataError, "a has vectors of length 4, but b of length 5"),
        (lambda: scores.similarity(rows(3, 4).astype(float)), TypeError, "a must be float32"),
        (lambda: scores.redundancy(np.zeros((2, 2, 2), np.float32)), ValueError, "vectors must have 2 dimensions, not 3"),
        (lambda: scores.set_similarity(rows(3, 4), rows(3, 5)), sl.DataError, "not from one space"),
        (lambda: _core.top_labels(rows(3, 4), rows(3, 4), 0), ValueError, "n=0: must be at least 1"),
        (lambda: _core.top_labels(rows(3, 4), rows(3, 5), 1), ValueError, "vectors has 4 entries along axis 1, but texts has 5"),
        (lambda: _core.cosine(rows(3, 4), rows(3, 4), n_threads=0), ValueError, "n_threads must be at least 1"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
