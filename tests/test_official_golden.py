"""Equal to the published package (0.2.1) where that is right: numbers made by tests/golden/make_official_golden.py."""

from pathlib import Path

import numpy as np
import pytest

from semanticlens.encoders import Arrays
from semanticlens.lens import scores
from semanticlens.lens.probe import probe, text_queries

TEMPLATES, QUERIES = ["a {}", "a photo of a {}", "{} texture"], ["dog", "striped", "red"]


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "official_scores.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def encoder(golden):
    return Arrays(texts=(golden["texts"].tolist(), golden["text_vectors"]))


def test_clarity(golden):
    np.testing.assert_allclose(scores.clarity(golden["clarity_v"]), golden["clarity"], atol=1e-6)


def test_redundancy(golden):
    assert scores.redundancy(golden["redundancy_v"])[0].mean() == pytest.approx(float(golden["redundancy"]), abs=1e-6)
    np.testing.assert_allclose(scores.example_redundancy(golden["clarity_v"]), golden["example_redundancy"], atol=1e-6)


@pytest.mark.parametrize("exact", [False, True])
def test_polysemanticity_on_clear_clusters(golden, exact):
    found = scores.polysemanticity(golden["polysemanticity_v"], exact=exact)
    sizes = np.stack([(found.labels == c).sum(1) for c in (0, 1)])
    assert (sizes.min(0) < 2).sum() == 6  # the small-cluster rule is among the cases
    np.testing.assert_allclose(found.score, golden["polysemanticity"], atol=1e-6)


def test_similarity(golden):
    np.testing.assert_allclose(scores.similarity(golden["similarity_a"], golden["similarity_b"]), golden["similarity"], atol=1e-6)


def test_probing(golden, encoder):
    concepts = golden["concepts"]
    np.testing.assert_allclose(probe(text_queries(encoder, QUERIES), concepts), golden["probe_plain"], atol=1e-6)
    np.testing.assert_allclose(probe(text_queries(encoder, QUERIES, TEMPLATES[1:2]), concepts), golden["probe_one_template"], atol=1e-6)
    np.testing.assert_allclose(probe(text_queries(encoder, QUERIES[:1], TEMPLATES), concepts), golden["probe_one_query"], atol=1e-6)


def test_probing_where_the_published_code_mixes_queries_up(golden, encoder):
    ours = probe(text_queries(encoder, QUERIES, TEMPLATES), golden["concepts"])
    one_by_one = np.concatenate([probe(text_queries(encoder, [query], TEMPLATES), golden["concepts"]) for query in QUERIES])
    np.testing.assert_array_equal(ours, one_by_one)
    assert np.abs(ours - golden["probe_mixed_up"]).max() > 0.05
