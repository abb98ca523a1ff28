"""Scores of descriptions and other labellers: closed forms, brute force, planted truth, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from semanticlens import lens
from semanticlens._errors import DataError
from semanticlens.lens.descriptions import average_ranks, evaluate_descriptions, simulation_correlation
from semanticlens.lens.labellers import invert, soft_wpmi

RNG = np.random.default_rng(0)
SHOWS = RNG.uniform(size=(60, 4)) < 0.3
ACTS = np.round(RNG.uniform(0, 1, (60, 5)), 1)  # rounded: ties
LABELS = np.array([0, 3, -1, 2, 2])


def test_scores_by_hand():
    found = evaluate_descriptions(ACTS, SHOWS, LABELS, largest=np.full(5, 2.0))
    for k, label in enumerate(LABELS):
        if label < 0:
            assert np.isnan([found.auc[k], found.mad[k], found.dma[k]]).all()
            continue
        x, b = ACTS[SHOWS[:, label], k], ACTS[~SHOWS[:, label], k]
        assert found.auc[k] == pytest.approx(((b[:, None] < x) + 0.5 * (b[:, None] == x)).mean(), abs=1e-12)
        assert found.mad[k] == pytest.approx((x.mean() - b.mean()) / b.std(ddof=1))
        assert found.dma[k] == pytest.approx(x.mean() / 2)
        assert found.pictures[k] == SHOWS[:, label].sum()
    assert np.isnan(found.simulation).all()
    assert len(found) == 5
    assert "auc" in repr(found)
    assert "Descriptions of 5 components" in found._repr_html_()
    assert found.to_dict()["components"][2]["auc"] is None


def test_simulation_is_pearsons():
    sims = RNG.standard_normal((60, 4))
    found = simulation_correlation(ACTS, sims, LABELS)
    for k, label in enumerate(LABELS):
        expected = np.nan if label < 0 else np.corrcoef(ACTS[:, k], sims[:, label])[0, 1]
        assert found[k] == pytest.approx(expected, nan_ok=True)
    flat = ACTS.copy()
    flat[:, 0] = 0.3
    assert np.isnan(simulation_correlation(flat, sims, LABELS)[0])


def test_edges():
    everywhere = np.ones((60, 4), bool)
    assert np.isnan(evaluate_descriptions(ACTS, everywhere, LABELS).auc).all()
    assert np.isnan(evaluate_descriptions(ACTS, ~everywhere, LABELS).mad).all()
    dead = np.zeros((60, 5))
    found = evaluate_descriptions(dead, SHOWS, LABELS)
    assert found.auc[0] == 0.5
    assert found.mad[0] == 0
    assert np.isnan(found.dma[0])
    one = evaluate_descriptions(ACTS[:2], np.array([[True], [False]]), np.zeros(5, int))
    assert set(one.auc) <= {0.0, 0.5, 1.0}
    assert (one.mad == 0).all()
    mean, low, high = evaluate_descriptions(ACTS, SHOWS, LABELS).means()["auc"]
    assert low <= mean <= high
    same = evaluate_descriptions(ACTS, SHOWS, LABELS)
    assert same.means()["mad"] == evaluate_descriptions(ACTS, SHOWS, LABELS).means()["mad"]


def test_ranks():
    np.testing.assert_array_equal(average_ranks([3, 1, 3, 2]), [3.5, 1, 3.5, 2])


def test_soft_wpmi_by_its_formula():
    sims = RNG.uniform(-0.2, 0.5, (60, 7))
    got = soft_wpmi(ACTS, sims, top=20, scale=8.0, lam=0.6)
    p = np.exp(8 * sims) / np.exp(8 * sims).sum(axis=1, keepdims=True)
    log_p = np.zeros((5, 7))
    for k in range(5):
        for i, n in enumerate(np.argsort(-ACTS[:, k], kind="stable")[:20]):
            log_p[k] += np.log(1 + (0.998 - i / 20 * 0.028) * (p[n] - 1) + 1e-7)
    prior = np.log(np.exp(log_p).sum(axis=0)) - np.log(5)
    np.testing.assert_allclose(got, log_p - 0.6 * prior, rtol=1e-9)
    dead = ACTS.copy()
    dead[:, 1] = 0
    assert np.isnan(soft_wpmi(dead, sims)[1]).all()
    assert np.isfinite(soft_wpmi(dead, sims)[0]).all(), "fewer pictures than top"


def test_planted_names_are_found():
    truth = np.array([2, 0, 3, 1])
    acts = SHOWS[:, truth] + 0.2 * RNG.uniform(size=(60, 4))
    sims = 0.3 * SHOWS + 0.05 * RNG.standard_normal(SHOWS.shape)
    np.testing.assert_array_equal(soft_wpmi(acts, sims, top=12).argmax(axis=1), truth)
    found = invert(acts, SHOWS, ["a", "b", "c", "d"])
    assert [str(f) for f in found] == [["a", "b", "c", "d"][t] for t in truth]
    assert all(f.auc == 1 and f.p_value < 1e-6 for f in found)
    good = evaluate_descriptions(acts, SHOWS, truth, sims)
    bad = evaluate_descriptions(acts, SHOWS, (truth + 1) % 4, sims)
    assert (good.auc == 1).all()
    for name in ("auc", "mad", "dma", "simulation"):
        assert good.means()[name][1] > bad.means()[name][2]


def test_formulas():
    both = SHOWS[:, 0] & ~SHOWS[:, 1]
    acts = np.c_[
        both + 0.1 * RNG.uniform(size=60), (SHOWS[:, 2] | SHOWS[:, 3]) + 0.1 * RNG.uniform(size=60), np.ones(60)
    ]
    names = ["a", "b", "c", "d"]
    found = invert(acts, SHOWS, names, length=2, max_fraction=0.9)
    assert str(found[0]) in ("a AND NOT b", "NOT b AND a")
    assert str(found[1]) in ("c OR d", "d OR c")
    assert found[0].auc == found[1].auc == 1
    assert found[2] is None
    np.testing.assert_array_equal(found[0].holds, both)
    short = invert(acts, SHOWS, names)[0]
    assert short.auc <= found[0].auc
    x, b = acts[short.holds, 0], acts[~short.holds, 0]
    assert short.auc == pytest.approx(((b[:, None] < x) + 0.5 * (b[:, None] == x)).mean())
    alike = invert(acts, SHOWS, ["car", "scar", "c", "d"], length=2, max_fraction=0.9)
    assert str(alike[0]) in ("car AND NOT scar", "NOT scar AND car"), "a name may be part of another"
    plain = invert(-acts, SHOWS, names, negation=False)[0]
    assert "NOT" not in plain.text
    assert "NOT" in invert(-acts, SHOWS, names, max_fraction=1.0)[0].text
    assert invert(acts, SHOWS, names, min_fraction=0.95, max_fraction=0.99)[0] is None


def test_p_values_are_those_of_the_rank_sum():
    stats = pytest.importorskip("scipy.stats")
    found = invert(ACTS, SHOWS, list("abcd"))
    for k, f in enumerate(found):
        x, b = ACTS[f.holds, k], ACTS[~f.holds, k]
        expected = stats.mannwhitneyu(x, b, use_continuity=False, method="asymptotic").pvalue
        assert f.p_value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate_descriptions(ACTS, SHOWS[:5], LABELS), r"activations \(60, 5\), shows \(5, 4\)"),
        (lambda: evaluate_descriptions(ACTS, SHOWS.astype(int), LABELS), "shows must be of bool"),
        (lambda: evaluate_descriptions(ACTS[:0], SHOWS[:0], LABELS), "has no pictures"),
        (lambda: evaluate_descriptions(ACTS * np.nan, SHOWS, LABELS), "NaN or infinite"),
        (lambda: evaluate_descriptions(ACTS, SHOWS, LABELS + 9), "labels must lie between -1"),
        (lambda: evaluate_descriptions(ACTS, SHOWS, LABELS, largest=[1.0]), "one finite value for each of the 5"),
        (lambda: evaluate_descriptions(ACTS, SHOWS, LABELS).means(2), "level=2"),
        (lambda: simulation_correlation(ACTS, SHOWS[:3], LABELS), "must be"),
        (lambda: soft_wpmi(ACTS, SHOWS * 1.0, top=0), "top=0"),
        (lambda: soft_wpmi(ACTS, np.full((60, 2), np.nan)), "similarities hold NaN"),
        (lambda: invert(ACTS, SHOWS * 1.0, list("abcd")), "concepts must be of bool"),
        (lambda: invert(ACTS, SHOWS, list("abc")), "names has 3 entries, 3 of them different, for 4"),
        (lambda: invert(ACTS, SHOWS, list("abcd"), length=0), "length=0"),
        (lambda: invert(ACTS, SHOWS, list("abcd"), length=1.5), "length=1.5"),
        (lambda: invert(ACTS, SHOWS, list("abca")), "3 of them different"),
        (lambda: simulation_correlation(ACTS, SHOWS * np.nan, LABELS), "similarities hold NaN"),
        (lambda: simulation_correlation(ACTS, SHOWS * 1.0, LABELS * 1.0), "whole numbers"),
        (lambda: evaluate_descriptions(ACTS, SHOWS, LABELS, largest=[np.nan] * 5), "one finite value"),
        (lambda: evaluate_descriptions(ACTS, SHOWS, LABELS, resamples=0), "resamples=0"),
        (lambda: soft_wpmi(ACTS, np.ones((60, 0))), "no texts"),
        (lambda: soft_wpmi(ACTS, SHOWS * 1.0, shares=(2, 1.5)), "shares"),
        (lambda: invert(ACTS, SHOWS, list("abcd"), min_fraction=0.6), "min_fraction=0.6"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((DataError, ValueError), match=message):
        call()


def test_they_are_part_of_lens():
    assert lens.evaluate_descriptions is evaluate_descriptions
    assert lens.invert is invert
    assert lens.soft_wpmi is soft_wpmi
