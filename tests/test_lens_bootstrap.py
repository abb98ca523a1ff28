"""Intervals of scores: the kernel against its twin, threads, coverage, and what a database gives."""

from __future__ import annotations

import numpy as np
import pytest
from small_database import WORDS, database
from small_database import vectors as word_vectors

from semanticlens._errors import DataError
from semanticlens._kernels import lens as kernels
from semanticlens._reference import bootstrap as twin

K, M, D = 5, 13, 37


def case(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((K * M, D)).astype(np.float32) + 0.4
    ids = rng.permutation(K * M).reshape(K, M)
    targets = rng.standard_normal((7, D)).astype(np.float32)
    return table, ids, rng.integers(0, 2, (K, M)).astype(np.int32), targets, rng.integers(0, 7, (K, 3))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_kernel_is_its_twin(weighted: bool, normalize: bool) -> None:
    table, ids, clusters, targets, chosen = case()
    weights = np.random.default_rng(1).random((K, M)).astype(np.float32) if weighted else None
    options = {"normalize": normalize, "resamples": 60, "level": 0.9, "seed": 5}
    out, wins = kernels.bootstrap(table, ids, None, weights, clusters, targets, chosen, steps=0, **options)
    expected, shares = twin.bootstrap(table, ids, clusters, targets, chosen, weights=weights, **options)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)
    same = [len(set(row)) == len(row) for row in chosen.tolist()]
    np.testing.assert_array_equal(wins[same], shares[same])


def test_same_bits_for_every_thread_count_and_cut() -> None:
    table, ids, clusters, targets, chosen = case()
    before = table.copy()
    first = kernels.bootstrap(table, ids, None, None, clusters, targets, chosen, resamples=50, n_threads=1)
    for threads in (2, 3, 8):
        again = kernels.bootstrap(table, ids, None, None, clusters, targets, chosen, resamples=50, n_threads=threads)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    np.testing.assert_array_equal(table, before)
    other = kernels.bootstrap(table, ids, None, None, clusters, targets, chosen, resamples=50, seed=1)
    assert not np.array_equal(first[0][:, :, 1], other[0][:, :, 1])


def test_values_are_the_scores_and_means_are_means() -> None:
    table, ids, _, targets, chosen = case()
    score, labels, _ = kernels.polysemanticity(table, ids)
    numbers = np.random.default_rng(3).random((K, 2, M))
    numbers[0, 0, 3] = np.nan
    out, _ = kernels.bootstrap(table, ids, None, None, labels, targets, chosen, numbers, resamples=200)
    np.testing.assert_allclose(out[:, 0, 0], kernels.clarity(table, ids)[0], atol=1e-12)
    np.testing.assert_allclose(out[:, 1, 0], score, atol=1e-12)
    np.testing.assert_allclose(out[:, 5:, 0], np.nanmean(numbers, axis=2), atol=1e-12)
    assert np.all(out[:, :, 1] <= out[:, :, 2])
    np.testing.assert_allclose(out[:, 5:, 4], numbers[1:].std() / np.sqrt(M), rtol=0.6)


def test_three_examples_have_no_interval() -> None:
    table, ids, clusters, targets, chosen = case()
    out, wins = kernels.bootstrap(table, ids, np.array([0, 1, 3, 4, M]), None, clusters, targets, chosen, resamples=50)
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[2, 0, 0])
    assert np.isnan(out[:3, :, 1:]).all()
    assert np.isnan(wins[:3]).all()
    assert np.isfinite(out[3:, 0]).all()
    np.testing.assert_allclose(wins[3:].sum(axis=1), 1)


def test_clarity_intervals_cover() -> None:
    """400 components with examples from one distribution, whose clarity is known: 95 % intervals hold it in most of them."""
    rng = np.random.default_rng(0)
    n, m, d = 400, 30, 64
    table = (rng.standard_normal((n * m, d)) + 0.7).astype(np.float32)
    ids = np.arange(n * m).reshape(n, m)
    out, _ = kernels.bootstrap(table, ids, resamples=500)
    truth = float(kernels.clarity(table, np.arange(n * m).reshape(1, -1))[0][0])
    covered = ((out[:, 0, 1] <= truth) & (truth <= out[:, 0, 2])).mean()
    print(f"coverage {covered:.3f} of 0.95")
    assert 0.87 <= covered <= 0.99
    assert abs((out[:, 0, 3] - out[:, 0, 0]).mean()) < 0.003  # resampling does not shift clarity


def test_database() -> None:
    db, found = database(), word_vectors()
    plain, around = db.scores(), db.scores(intervals=True)
    for layer in db:
        own = around[layer].intervals
        np.testing.assert_allclose(own.clarity.value, plain[layer].clarity, atol=1e-9)
        np.testing.assert_allclose(own.redundancy.value, plain[layer].redundancy, atol=1e-6)
        assert np.isnan(own.clarity.lower[3])  # dead
    ready = db.intervals(n=200, vocabulary=(list(WORDS), found["texts"]), values={"conv1": {"role": np.ones((5, 9))}})
    assert ready["conv1"].values["role"].lower[0] == pytest.approx(1)
    assert ready["conv1"].label_share[:3].min() > 0.9
    labels = db.label((list(WORDS), found["texts"]))
    np.testing.assert_array_equal(ready["conv1"].label_index, labels["conv1"].indices[:, 0])
    np.testing.assert_allclose(ready["conv1"].label.value[:3], labels["conv1"].scores[:3, 0], atol=1e-6)
    assert "median half width" in repr(ready)
    assert ready.to_dict()["layers"]["conv1"]["labels"][0] == "red"
    assert "<table" in ready._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, "level=1.0 must be"),
        ({"n": 1}, "n=1 must be"),
        ({"n": 10}, "pass at least 40"),
        ({"seed": -1}, "seed=-1"),
        ({"values": {"conv1": {"role": np.ones(3)}}}, r"values\['role'\] has shape \(3,\)"),
    ],
)
def test_bad_input(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        database().intervals(**options)
