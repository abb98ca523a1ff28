"""Beside the published package 0.2.1, live: equal where it is right, and the right value, with the reason, where it is not.

Both packages have one import name, so the published one runs in an environment of its own: SEMANTICLENS_OFFICIAL names its interpreter.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from semanticlens._errors import ConceptWarning, SkippedDataWarning
from semanticlens.encoders import Arrays
from semanticlens.lens import collect, scores
from semanticlens.lens.probe import probe, text_queries

pytestmark = pytest.mark.peers

OFFICIAL = os.environ.get("SEMANTICLENS_OFFICIAL", "")
QUERIES, TEMPLATES = ["dog", "striped", "red"], ["a {}", "a photo of a {}", "{} texture"]
RNG = np.random.default_rng(7)


def cases() -> dict[str, np.ndarray]:
    v = (RNG.standard_normal((6, 8, 16)) + 0.4).astype(np.float32)
    made = {"plain": v, "one": v[:, :1], "vectors": v[:, 0], "single": v[:1, 0], "identical": np.repeat(v[:, :1], 8, axis=1)}
    made["zero_row"], made["nan_row"], made["nan_vector"] = v.copy(), v.copy(), v[:, 0].copy()
    made["zero_row"][:, 2], made["nan_row"][1, 3], made["nan_vector"][2] = 0, np.nan, np.nan
    made["all_zero"], made["tiny"] = np.zeros_like(v), v * np.float32(1e-14)
    groups = np.where(np.arange(8) % 2, 3.0, -3.0)[:, None] * RNG.standard_normal((6, 1, 16))
    made["clear"] = (groups + 1.5 * RNG.standard_normal((6, 1, 16)) + 0.05 * v).astype(np.float32)
    made["as_many_a"], made["as_many_b"] = (RNG.standard_normal((4, 16)).astype(np.float32) for _ in range(2))
    made["square_a"], made["square_b"] = RNG.standard_normal((3, 16)).astype(np.float32), RNG.standard_normal((16, 16)).astype(np.float32)
    acts = RNG.uniform(0.5, 1.5, (12, 4)).astype(np.float32)
    made["acts_few"], made["acts_negative"], made["acts_nan"] = acts[:3], -acts, acts.copy()
    made["acts_nan"][5, 1] = np.nan
    made["acts_close"] = (1 + 1e-4 * np.arange(12)[:, None] * np.ones(4)).astype(np.float32)
    texts = [template.format(query) for template in ("{}", *TEMPLATES) for query in ("", *QUERIES)]
    made |= {"texts": np.array(texts), "text_vectors": (RNG.standard_normal((len(texts), 16)) + 0.4).astype(np.float32)}
    return made | {"concepts": v.mean(axis=1), "queries": np.array(QUERIES), "templates": np.array(TEMPLATES)}


@pytest.fixture(scope="module")
def given() -> dict[str, np.ndarray]:
    return cases()


@pytest.fixture(scope="module")
def theirs(given: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    if not OFFICIAL:
        pytest.skip("SEMANTICLENS_OFFICIAL is not set: the interpreter of an environment with semanticlens==0.2.1")
    folder = tmp_path_factory.mktemp("official")
    np.savez(folder / "in.npz", **given)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    script = Path(__file__).with_name("official_cases.py")
    done = subprocess.run([OFFICIAL, "-P", str(script), str(folder / "in.npz"), str(folder / "out.npz")], env=env, capture_output=True,
                          text=True, cwd=folder, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as file:
        return dict(file)


def encoder(given: dict[str, np.ndarray]) -> Arrays:
    return Arrays(texts=(given["texts"].tolist(), given["text_vectors"]))


def top(acts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = collect([(np.arange(len(acts)), {"a": acts})], top=5)["a"]
    return found.ids, found.scores


def test_what_it_gets_right(given, theirs):
    np.testing.assert_allclose(scores.clarity(given["plain"]), theirs["clarity_plain"], atol=1e-6)
    np.testing.assert_allclose(scores.clarity(given["identical"]), theirs["clarity_identical"], atol=1e-6)
    np.testing.assert_allclose(scores.polysemanticity(given["clear"]).score, theirs["polysemanticity_clear"], atol=1e-5)
    assert scores.redundancy(given["vectors"])[0].mean() == pytest.approx(float(theirs["redundancy_vectors"]), abs=1e-6)
    concepts = given["concepts"]
    np.testing.assert_allclose(probe(text_queries(encoder(given), QUERIES), concepts), theirs["probe_plain"], atol=1e-6)
    ours = probe(text_queries(encoder(given), QUERIES, TEMPLATES[:1]), concepts)
    np.testing.assert_allclose(ours, theirs["probe_one_template"], atol=1e-6)


def test_several_queries_and_templates_are_not_mixed_up(given, theirs):
    """It makes the texts template by template and reads them query by query: vectors of different queries are averaged."""
    ours = probe(text_queries(encoder(given), QUERIES, TEMPLATES), given["concepts"])
    alone = [probe(text_queries(encoder(given), [query], TEMPLATES), given["concepts"])[0] for query in QUERIES]
    np.testing.assert_array_equal(ours, alone)
    assert np.abs(ours - theirs["probe_several"]).max() > 0.05


def test_similarity_is_of_all_pairs_whatever_the_shapes(given, theirs):
    """With as many queries as components it gives one number per row; where the width is the number of components it does not transpose."""
    for name in ("as_many", "square"):
        a, b = given[f"{name}_a"].astype(np.float64), given[f"{name}_b"].astype(np.float64)
        right = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
        np.testing.assert_allclose(scores.similarity(given[f"{name}_a"], given[f"{name}_b"]), right, atol=1e-6)
        assert theirs[f"similarity_{name}"].shape != right.shape or np.abs(theirs[f"similarity_{name}"] - right).max() > 0.05


def test_clarity_at_the_edges(given, theirs):
    """One example has no pairs; a vector of length 0 has no direction and is left out; a small scale changes nothing."""
    assert np.isnan(scores.clarity(given["one"])).all()
    assert not np.isfinite(theirs["clarity_one"]).any()
    ours = scores.clarity(given["zero_row"])
    np.testing.assert_allclose(ours, scores.clarity(np.delete(given["zero_row"], 2, axis=1)), atol=1e-6)
    assert np.abs(ours - theirs["clarity_zero_row"]).min() > 1e-3, "it counts cosines of 0"
    assert np.isnan(scores.clarity(given["all_zero"])).all()
    np.testing.assert_allclose(theirs["clarity_all_zero"], -1 / 7, atol=1e-6)
    np.testing.assert_allclose(scores.clarity(given["tiny"]), scores.clarity(given["plain"]), atol=1e-5)
    assert np.abs(theirs["clarity_tiny"] - theirs["clarity_plain"]).max() > 0.1, "its norms are clipped at 1e-12"


def test_nan_stays_where_it_is(given, theirs):
    """One vector with NaN costs that example; there it costs the mean over the layer, or the whole call."""
    ours = scores.polysemanticity(given["nan_row"]).score
    assert np.isfinite(ours).all()
    assert str(theirs["polysemanticity_nan_row"]).startswith("raised")
    values = scores.redundancy(given["nan_vector"])[0]
    assert np.isnan(values[2])
    assert np.isfinite(np.delete(values, 2)).all()
    assert np.isnan(theirs["redundancy_nan_vector"])


def test_one_component_is_redundant_with_nothing(given, theirs):
    assert np.isnan(scores.redundancy(given["single"])[0]).all()
    assert float(theirs["redundancy_single"]) == pytest.approx(-1)


def test_identical_examples_have_one_meaning(given, theirs):
    np.testing.assert_array_equal(scores.polysemanticity(given["identical"]).score, 0)
    assert np.abs(theirs["polysemanticity_identical"]).max() < 1e-5


def test_the_largest_activations_are_the_largest(given, theirs):
    """It starts from 0 with id -1: negative activations never count; in bfloat16 close ones are equal; NaN comes first and stays."""
    with pytest.warns(ConceptWarning):
        ids, values = top(given["acts_negative"])
    np.testing.assert_array_equal(ids, np.argsort(-given["acts_negative"], axis=0, kind="stable")[:5].T)
    assert (theirs["ids_negative"] == -1).all()
    with pytest.warns(SkippedDataWarning):
        ids, values = top(given["acts_nan"])
    assert 5 not in ids[1]
    assert np.isfinite(values).all()
    assert theirs["ids_nan"][1, 0] == 5
    ids, values = top(given["acts_close"])
    np.testing.assert_array_equal(ids, np.arange(11, 6, -1)[None].repeat(4, 0))
    assert len(np.unique(theirs["scores_close"])) == 1
    with pytest.warns(ConceptWarning):
        ids, values = top(given["acts_few"])
    assert (ids[:, 3:] == -1).all()
    assert (values[:, 3:] == -np.inf).all()
    assert (theirs["scores_few"][:, 3:] == 0).all(), "there an example that is not there has the score 0, and id -1 embeds the last picture"
