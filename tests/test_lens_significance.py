"""Significance of labels: p-values, the false discovery rate under the null, and power on the demo network."""

from __future__ import annotations

import numpy as np
import pytest

from semanticlens._errors import DataError
from semanticlens.encoders import Arrays
from semanticlens.lens.database import ConceptDB
from semanticlens.lens.significance import benjamini_hochberg, null_examples, p_values

N, D, M, WORDS = 600, 24, 12, 80


def test_p_values_and_adjustment() -> None:
    null = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    found = p_values(np.array([0.5, 0.4, 0.05, np.nan], np.float32), null)
    np.testing.assert_allclose(found, [0.2, 0.4, 1.0, np.nan])
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.01, 0.04, 0.03, np.nan])), [0.03, 0.04, 0.04, np.nan])
    with pytest.raises(DataError, match="numbers from 0 to 1"):
        benjamini_hochberg(np.array([1.5]))


def test_random_components() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 30, (40, 8))
    rows[:, 0] = 7  # picture 7 is everywhere
    rows[5, 3] = -1
    counts = np.full(40, 8)
    counts[6] = 0
    places = null_examples(rows, counts, 8, 0, 2000, 1)
    pictures = rows.ravel()[places]
    assert (pictures >= 0).all()
    assert not (places // 8 == 6).any()
    assert all(len(set(row)) == 8 for row in pictures.tolist())
    assert np.mean((pictures == 7).any(axis=1)) > 0.6  # drawn as often as it occurs
    np.testing.assert_array_equal(null_examples(rows, counts, 8, 500, 10, 1), places[500:510])
    with pytest.raises(DataError, match="too few to draw random components of 25"):
        null_examples(rows, counts, 25, 0, 10, 1)


class Layer:
    """Examples as ConceptDB.build takes them."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids, self.counts = ids, np.full(len(ids), ids.shape[1])
        self.scores = np.ones(ids.shape, np.float32)


def simulated(rng: np.random.Generator, components: int, planted: int) -> tuple[ConceptDB, tuple[list[str], np.ndarray]]:
    """Components of random pictures; the first `planted` have pictures of one word each."""
    texts = rng.standard_normal((WORDS, D)).astype(np.float32)
    word = np.arange(N) % 20
    pictures = (texts[word] * 1.2 + rng.standard_normal((N, D)) + 0.5).astype(np.float32)
    ids = np.stack([rng.choice(np.flatnonzero(word == k) if k < planted else N, M, replace=False) for k in range(components)])
    db = ConceptDB.build({"layer": Layer(ids)}, None, Arrays(images=pictures))
    return db, ([str(j) for j in range(WORDS)], texts)


def test_false_discovery_rate_under_the_null() -> None:
    """No component means anything: the share of runs with any discovery is the rate, within Monte-Carlo error."""
    rng, runs = np.random.default_rng(0), 200
    any_found, p = 0, []
    for run in range(runs):
        db, vocabulary = simulated(rng, 40, 0)
        found = db.label(vocabulary, threshold=-1.0, fdr=0.2, draws=1000, seed=run)["layer"]
        any_found += int(not found.unlabelled.all())
        p.append(found.p_values)
    rate, small = any_found / runs, float((np.concatenate(p) <= 0.05).mean())
    print(f"false discovery rate {rate:.3f} of 0.2; share of p <= 0.05: {small:.4f}")
    assert rate <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / runs)
    assert 0.03 < small < 0.06


def test_rate_and_power_with_planted_labels() -> None:
    rng, runs, planted = np.random.default_rng(1), 60, 10
    false, power = [], []
    for run in range(runs):
        db, vocabulary = simulated(rng, 60, planted)
        found = db.label(vocabulary, threshold=-1.0, fdr=0.1, draws=2000, seed=run)["layer"]
        given = ~found.unlabelled
        false.append(given[planted:].sum() / max(given.sum(), 1))
        power.append(float((given[:planted] & (found.indices[:planted, 0] == np.arange(planted))).mean()))
    rate, error = float(np.mean(false)), float(np.std(false) / np.sqrt(runs))
    print(f"false discovery rate {rate:.3f} of 0.1 (error {error:.3f}), power {np.mean(power):.3f}")
    assert rate <= 0.1 + 3 * error
    assert np.mean(power) > 0.95


def test_threads_seed_and_record() -> None:
    db, vocabulary = simulated(np.random.default_rng(3), 30, 10)
    first = db.label(vocabulary, fdr=0.1, draws=500, n_threads=1)
    again = db.label(vocabulary, fdr=0.1, draws=500, n_threads=3)
    np.testing.assert_array_equal(first["layer"].p_values, again["layer"].p_values)
    assert not np.array_equal(first["layer"].p_values, db.label(vocabulary, fdr=0.1, draws=500, seed=1)["layer"].p_values)
    one = first["layer", 0].to_dict()
    assert one["name"] == "0"
    assert 0 < one["p"] <= one["q"] <= 0.1
    assert first.to_dict()["fdr"] == 0.1
    assert "p" not in db.label(vocabulary)["layer", 0].to_dict()


@pytest.mark.parametrize(
    ("options", "message"), [({"fdr": 1.0}, "fdr=1.0"), ({"fdr": 0.1, "draws": 5}, "draws=5"), ({"fdr": 0.1, "seed": -1}, "seed=-1")]
)
def test_bad_input(options: dict[str, object], message: str) -> None:
    db, vocabulary = simulated(np.random.default_rng(3), 30, 10)
    with pytest.raises(DataError, match=message):
        db.label(vocabulary, **options)


def test_power_on_the_demo_network() -> None:
    """Components of the shipped network whose pooled activation tells one attribute get labels; random components hardly ever do."""
    from semanticlens import encoders
    from semanticlens.demo import pictures
    from semanticlens.demo.captions import vocabulary
    from semanticlens.demo.evaluate import aurocs, truth_table
    from semanticlens.demo.explore import LAYER, explore, run_network

    seen, fresh = pictures.generate(400, seed=5), pictures.generate(400, seed=6)
    found = explore(seen.pixels, n_threads=2, progress=False)
    words = list(vocabulary())
    own = found.db.label(words, fdr=0.05, draws=2000, threshold=-1.0)[LAYER]
    clear = aurocs(run_network(found.net, fresh.pixels, n_threads=2)[1], truth_table(fresh)[1]).max(axis=1) >= 0.95
    clear &= ~np.isnan(own.p_values)
    power, wider = (float((own.q_values[clear] <= rate).mean()) for rate in (0.05, 0.1))
    rows = found.examples[LAYER].ids
    chance = [np.random.default_rng(k).choice(np.unique(rows), rows.shape[1], replace=False) for k in range(200)]
    db = ConceptDB.build({"layer": Layer(np.stack(chance))}, found.images, encoders.load("demo"), thumbnails=0)
    false = int((~db.label(words, fdr=0.05, draws=2000, threshold=-1.0)["layer"].unlabelled).sum())
    print(f"{int(clear.sum())} clear components, {power:.3f} labelled at fdr 0.05, {wider:.3f} at 0.1; of 200 random components {false}")
    assert clear.sum() >= 10
    assert power >= 0.4  # 26 components, many for one theme: random ones of this layer are near "on a black background" too
    assert wider >= 0.9
    assert false <= 4
