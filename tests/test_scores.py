"""Clarity, polysemanticity, concept vectors: twins, exact values, invariances, edges, threads, tiers, bad input."""

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import semanticlens as sl
from semanticlens import _core
from semanticlens._reference import lens as twin
from semanticlens.lens import scores

SHAPES = [(0, 3, 5), (1, 1, 1), (2, 2, 1), (3, 5, 7), (5, 30, 64), (7, 31, 97), (2, 20, 512), (3, 65, 33), (4, 8, 16), (2, 17, 15)]


def examples(shape, seed=0, shift=0.3):
    return (np.random.default_rng(seed).standard_normal(shape) + shift).astype(np.float32)


def inputs(shape, seed=0):
    """Examples, ids into a shuffled table with unused rows, counts, weights; some rows unusable."""
    rng = np.random.default_rng(seed)
    v = examples(shape, seed)
    K, m, d = shape
    if v.size:
        v[rng.random((K, m)) < 0.1] = 0.0
        v[rng.random((K, m)) < 0.05, 0] = np.nan
    table = np.concatenate([examples((3, d), seed + 1), v.reshape(K * m, d)])
    order = rng.permutation(len(table))
    place = np.argsort(order)
    ids = (place[3:].reshape(K, m)).astype(np.int64)
    return v, table[order], ids, rng.integers(0, m + 1, K), rng.random((K, m)).astype(np.float32)


# ---------------------------------------------------------------- twins


@pytest.mark.parametrize("shape", SHAPES)
def test_clarity_and_vectors_equal_their_twins(shape):
    v, table, ids, counts, weights = inputs(shape)
    for c in (None, counts):
        for w in (None, weights):
            expected, used = twin.clarity(v, None, c, w)
            for result in (_core.clarity(v, None, c, w), _core.clarity(table, ids, c, w)):
                np.testing.assert_allclose(result[0], expected, rtol=1e-9, atol=1e-9)
                assert np.array_equal(result[1], used)
            for normalize in (False, True):
                expected, used = twin.concept_vectors(v, None, c, w, normalize=normalize)
                for result in (
                    _core.concept_vectors(v, None, c, w, normalize=normalize),
                    _core.concept_vectors(table, ids, c, w, normalize=normalize),
                ):
                    np.testing.assert_allclose(result[0], expected, rtol=2e-7, atol=1e-7)
                    assert np.array_equal(result[1], used)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[2] < 500])
@pytest.mark.parametrize("h", [2, 3, 5])
def test_polysemanticity_equals_its_twin(shape, h):
    v, table, ids, counts, _ = inputs(shape)
    for c in (None, counts):
        expected = twin.polysemanticity(v, None, c, n_clusters=h, n_init=4)
        for result in (
            _core.polysemanticity(v, None, c, n_clusters=h, n_init=4),
            _core.polysemanticity(table, ids, c, n_clusters=h, n_init=4),
        ):
            assert np.array_equal(result[1], expected[1])
            np.testing.assert_allclose(result[0], expected[0], rtol=1e-8, atol=1e-8)
            np.testing.assert_allclose(result[2], expected[2], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("m", [2, 3, 5, 8, 11])
def test_exact_mode_tries_every_split(m):
    v = examples((4, m, 6), seed=m)
    expected, found = twin.polysemanticity(v, exact=True), _core.polysemanticity(v, exact=True)
    assert np.array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9, atol=1e-9)
    searched = _core.polysemanticity(v, n_init=50)[2]
    assert (found[2] <= searched * (1 + 1e-9)).all()


def test_exact_mode_at_its_limit():
    v = examples((1, 20, 4))
    found, searched = _core.polysemanticity(v, exact=True), _core.polysemanticity(v, n_init=200)
    assert found[2][0] <= searched[2][0] * (1 + 1e-9)
    with pytest.raises(ValueError, match="at most 20"):
        _core.polysemanticity(examples((1, 21, 4)), exact=True)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9),
        elements=st.one_of(
            st.floats(-4, 4, width=32), st.sampled_from([0.0, 1.0, np.float32(np.nan), np.float32(np.inf), np.float32(1e-30)])
        ),
    )
)
def test_any_numbers(v):
    clarity, used = _core.clarity(v)
    expected, expected_used = twin.clarity(v)
    assert np.array_equal(used, expected_used)
    np.testing.assert_allclose(clarity, expected, rtol=1e-6, atol=1e-6)
    low = -1 / np.maximum(used - 1, 1)
    assert ((clarity >= low - 1e-9) & (clarity <= 1) | np.isnan(clarity)).all()
    score, labels, inertia = _core.polysemanticity(v)
    assert (((score >= 0) & (score <= 2)) | np.isnan(score)).all()
    assert ((labels >= 0).sum(1) == np.where(used >= 2, used, 0)).all()
    assert ((inertia >= 0) | np.isnan(inertia)).all()


# ---------------------------------------------------------------- exact values


@pytest.mark.parametrize("m", [2, 3, 7, 20])
def test_copies_of_one_vector(m):
    v = np.repeat(examples((1, 1, 9)), m, axis=1)
    assert scores.clarity(v)[0] == pytest.approx(1, abs=1e-12)
    assert scores.polysemanticity(v).score[0] == 0.0
    np.testing.assert_array_equal(scores.concept_vectors(v)[0], v[0, 0])
    query = examples((1, 9), seed=4)
    assert scores.similarity(query, scores.concept_vectors(v)) == pytest.approx(scores.similarity(query, v[:, 0]), abs=1e-6)


@pytest.mark.parametrize("m", [2, 5, 16])
def test_orthonormal_examples(m):
    v = np.eye(m, dtype=np.float32)[None]
    vector = scores.concept_vectors(v)
    assert scores.clarity(v)[0] == pytest.approx(0, abs=1e-12)
    assert np.linalg.norm(vector) == pytest.approx(1 / np.sqrt(m), rel=1e-6)
    assert scores.similarity(vector, v[0]) == pytest.approx(np.full((1, m), 1 / np.sqrt(m)), rel=1e-6)


@pytest.mark.parametrize("m", [2, 4, 10])
def test_pairs_that_cancel(m):
    row = examples((1, 6))
    v = np.concatenate([row, -row] * (m // 2))[None]
    assert scores.clarity(v)[0] == pytest.approx(-1 / (m - 1), abs=1e-12)
    vector = scores.concept_vectors(v)
    assert (vector == 0).all()
    assert np.isnan(scores.similarity(row, vector)).all()  # no direction: undefined, not 0


def test_two_tight_groups():
    u, w = np.eye(2, 8, dtype=np.float32)
    for a, b, expected in [(u, w, 1.0), (u, -u, 2.0), (u, u + w, 1 - np.sqrt(0.5)), (u, 3 * w, 1.0)]:
        v = np.stack([a, b, b, a, b])[None]
        assert scores.polysemanticity(v).score[0] == pytest.approx(expected, abs=1e-7)
        assert scores.polysemanticity(v, exact=True).score[0] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("m", [4, 15])
def test_one_outlier_is_not_a_second_meaning(m):
    v = np.tile(np.array([1, 0, 0], np.float32), (1, m, 1))
    v[0, m - 1] = [0, 5, 0]
    mean = v[0].mean(0)
    s = min(10, m)
    expected = 1 - np.mean([mean @ x / np.linalg.norm(mean) / np.linalg.norm(x) for x in v[0, :s]])
    assert scores.polysemanticity(v).score[0] == pytest.approx(expected, abs=1e-6)
    assert scores.polysemanticity(v, exact=True).score[0] == pytest.approx(expected, abs=1e-6)


def test_scaling_and_rotation():
    v = examples((4, 9, 33))
    factors = np.exp(examples((4, 9, 1), seed=1)).astype(np.float32)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((33, 33)))[0].astype(np.float32)
    np.testing.assert_allclose(scores.clarity(v * factors), scores.clarity(v), rtol=1e-6)
    np.testing.assert_allclose(scores.clarity(v @ rotation), scores.clarity(v), rtol=1e-5)
    np.testing.assert_allclose(scores.polysemanticity(v @ rotation * 3).score, scores.polysemanticity(v).score, rtol=1e-4)
    np.testing.assert_allclose(scores.clarity(v * 1e-20), scores.clarity(v), rtol=1e-5)  # the published code fails below 1e-12
    np.testing.assert_allclose(scores.clarity(v * 1e20), scores.clarity(v), rtol=1e-5)


def test_weights_and_the_matrix_form():
    """With all activations of a data set as weights, clarity is one matrix product (monosemanticity of Pach et al. 2025)."""
    v, w = examples((6, 12, 10)), np.random.default_rng(3).random((6, 12)).astype(np.float32)
    unit = v / np.linalg.norm(v, axis=2, keepdims=True)
    cosine = unit @ unit.transpose(0, 2, 1)
    pairs = w[:, :, None] * w[:, None, :] * (1 - np.eye(12))
    np.testing.assert_allclose(scores.clarity(v, weights=w), (pairs * cosine).sum((1, 2)) / pairs.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(scores.clarity(v, weights=np.ones_like(w)), scores.clarity(v), rtol=1e-12)
    one = np.zeros_like(w)
    one[:, 0] = 1
    assert np.isnan(scores.clarity(v, weights=one)).all()
    np.testing.assert_allclose(scores.concept_vectors(v, weights=w), (w[:, :, None] * v).sum(1) / w.sum(1)[:, None], rtol=1e-5, atol=1e-6)
    assert np.isnan(scores.concept_vectors(v, weights=np.zeros_like(w))).all()


# ---------------------------------------------------------------- edges


def test_unusable_examples_are_left_out():
    v = examples((1, 6, 8))
    v[0, 1] = 0.0
    v[0, 3, 2] = np.nan
    v[0, 4, 0] = np.inf
    kept = v[:, [0, 2, 5]]
    for function in (scores.clarity, scores.concept_vectors, lambda x: scores.polysemanticity(x).score):
        np.testing.assert_array_equal(function(v), function(kept))
    assert scores.polysemanticity(v).labels[0, [1, 3, 4]].tolist() == [-1, -1, -1]


def test_too_few_examples():
    v = examples((2, 5, 8))
    assert np.isnan(scores.clarity(v, counts=[0, 1])).all()
    assert np.isnan(scores.polysemanticity(v, counts=[0, 1]).score).all()
    assert np.isnan(scores.polysemanticity(v, counts=[2, 3], n_clusters=4).score).all()
    vectors = scores.concept_vectors(v, counts=[0, 1])
    assert np.isnan(vectors[0]).all()
    assert np.array_equal(vectors[1], v[1, 0])
    assert np.isnan(scores.clarity(v[:, :1])).all()  # m = 1; the published code gives NaN or an infinity
    assert np.isnan(scores.clarity(np.zeros((1, 4, 3), np.float32))).all()


def test_empty_places_are_masked_and_never_the_last_picture():
    table = examples((10, 4))
    ids = np.array([[2, 5, -1], [0, -1, -1]])
    np.testing.assert_array_equal(scores.clarity(table, ids=ids), [scores.clarity(table[[2, 5]][None])[0], np.nan])
    np.testing.assert_array_equal(scores.concept_vectors(table, ids=ids)[1], table[0])


def test_labels_can_be_passed_in():
    v = examples((3, 8, 5))
    labels = np.random.default_rng(0).integers(0, 2, (3, 8)).astype(np.int32)
    labels[:, :4] = [0, 0, 1, 1]
    found = scores.polysemanticity(v, labels=labels)
    for k in range(3):
        centres = np.stack([v[k, labels[k] == c].mean(0) for c in (0, 1)]).astype(np.float64)
        assert found.score[k] == pytest.approx(1 - centres[0] @ centres[1] / np.prod(np.linalg.norm(centres, axis=1)), rel=1e-6)
    assert np.array_equal(found.labels, labels)
    own = scores.polysemanticity(v)
    assert np.array_equal(scores.polysemanticity(v, labels=own.labels).score, own.score)


def test_a_component_depends_on_its_own_examples_only():
    v = examples((9, 12, 20))
    whole = scores.polysemanticity(v)
    order = np.random.default_rng(0).permutation(9)
    assert np.array_equal(scores.polysemanticity(v[order]).score, whole.score[order])
    assert np.array_equal(scores.polysemanticity(v[3:4]).score, whole.score[3:4])


def test_more_restarts_are_never_worse_and_the_seed_counts():
    v = examples((30, 25, 16), shift=0.0)
    inertia = [scores.polysemanticity(v, n_init=n).inertia for n in (1, 3, 10, 30)]
    for few, many in itertools.pairwise(inertia):
        assert (many <= few * (1 + 1e-12)).all()
    assert not np.array_equal(scores.polysemanticity(v, n_init=1).labels, scores.polysemanticity(v, n_init=1, seed=7).labels)


def test_duplicates_fewer_than_clusters():
    v = np.repeat(np.eye(2, 3, dtype=np.float32), 3, axis=0)[None]  # two different rows, three clusters
    expected = twin.polysemanticity(v, n_clusters=3)
    found = _core.polysemanticity(v, n_clusters=3)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-9)
    assert found[2][0] == pytest.approx(0, abs=1e-12)


# ---------------------------------------------------------------- threads, tiers, inputs


def everything(n_threads):
    v, table, ids, counts, weights = inputs((37, 19, 65))
    results = [
        *_core.clarity(v, None, counts, weights, n_threads=n_threads),
        *_core.concept_vectors(table, ids, n_threads=n_threads),
        *_core.polysemanticity(v, n_threads=n_threads),
        *_core.polysemanticity(v[:, :9], exact=True, n_threads=n_threads),
    ]
    return [np.ascontiguousarray(r).tobytes() for r in results]


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_bitwise_equal_for_every_thread_count(n_threads):
    assert everything(n_threads) == everything(1)


@pytest.mark.parametrize("tier", sl.build_info()["supported"])
def test_bitwise_equal_in_every_tier(tier):
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]); import test_scores; "
        "print(hashlib.sha256(b''.join(test_scores.everything(2))).hexdigest())"
    )
    folder = os.path.dirname(os.path.abspath(__file__))
    run = subprocess.run(
        [sys.executable, "-c", code, folder], env={**os.environ, "SEMANTICLENS_TIER": tier}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == hashlib.sha256(b"".join(everything(2))).hexdigest()


def test_a_forked_child_computes_the_same():
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
import test_scores
expected = test_scores.everything(2)                  # the parent's threads exist now
child = os.fork()
if child == 0:
    os._exit(0 if test_scores.everything(2) == expected else 1)
print(os.waitpid(child, 0)[1])
"""
    folder = os.path.dirname(os.path.abspath(__file__))
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code, folder], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "0"


def test_inputs_are_untouched_and_may_be_read_only_or_strided():
    v, table, ids, counts, weights = inputs((5, 9, 16))
    before = [a.copy() for a in (v, table, ids, counts, weights)]
    for a in (v, table, ids, counts, weights):
        a.flags.writeable = False
    for n in (1, 2):
        _core.clarity(v, None, counts, weights, n_threads=n)
        _core.concept_vectors(table, ids, counts, n_threads=n)
        _core.polysemanticity(table, ids, counts, n_threads=n)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip((v, table, ids, counts, weights), before, strict=True))
    wide = examples((5, 9, 32))
    assert np.array_equal(scores.clarity(wide[:, :, ::2]), scores.clarity(np.ascontiguousarray(wide[:, :, ::2])))
    assert np.array_equal(scores.clarity(np.asfortranarray(wide)), scores.clarity(wide))
    assert np.array_equal(_core.clarity(wide.astype(">f4"))[0], scores.clarity(wide))


ZERO = np.zeros((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: scores.clarity(ZERO[0]), ValueError, "examples must have 3 dimensions, not 2"),
        (lambda: scores.clarity(ZERO.astype(np.float64)), TypeError, "examples must be float32, not float64"),
        (lambda: scores.clarity(ZERO, counts=[1]), sl.DataError, "counts must be 2 numbers from 0 to 3"),
        (lambda: scores.clarity(ZERO, counts=[1, 9]), sl.DataError, "counts must be 2 numbers from 0 to 3"),
        (lambda: scores.clarity(ZERO, counts=[0.5, 1]), TypeError, "counts must be whole numbers"),
        (lambda: scores.clarity(ZERO[0], ids=[[0, 3]]), sl.DataError, "ids must lie between -1 .* and 2"),
        (lambda: scores.clarity(ZERO[0], ids=[[0, -2]]), sl.DataError, "ids must lie between"),
        (lambda: scores.clarity(ZERO, weights=np.ones((2, 4), np.float32)), sl.DataError, r"weights have shape \(2, 4\)"),
        (lambda: scores.clarity(ZERO, weights=-np.ones((2, 3), np.float32)), sl.DataError, "not negative"),
        (lambda: scores.clarity(np.zeros((2, 0, 4), np.float32)), sl.DataError, "m = 0"),
        (lambda: scores.clarity(ZERO, n_threads=0), ValueError, "n_threads=0"),
        (lambda: scores.polysemanticity(ZERO, n_clusters=1), sl.DataError, "n_clusters=1 must be a whole number of at least 2"),
        (lambda: scores.polysemanticity(ZERO, n_init=0), sl.DataError, "n_init=0"),
        (lambda: scores.polysemanticity(ZERO, seed=-1), sl.DataError, "seed=-1"),
        (lambda: scores.polysemanticity(ZERO, labels=np.zeros((2, 2), int)), sl.DataError, "labels have shape"),
        (lambda: scores.polysemanticity(ZERO, labels=np.full((2, 3), 2)), sl.DataError, "labels go up to 2"),
        (lambda: scores.polysemanticity(np.zeros((1, 21, 2), np.float32), exact=True), sl.DataError, "at most 20"),
        (lambda: scores.polysemanticity(ZERO, exact=True, n_clusters=3), sl.DataError, "every split into 2 groups"),
        (lambda: _core.clarity(ZERO, None, [1, 9]), ValueError, r"counts in \[0, m\]"),
        (lambda: _core.clarity(ZERO, None, [1]), ValueError, "counts has 1 entries along axis 0, but examples has 2"),
        (lambda: _core.clarity(ZERO, n_threads=0), ValueError, "n_threads must be at least 1"),
        (lambda: _core.polysemanticity(ZERO, n_clusters=1), ValueError, "n_clusters at least 2"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
