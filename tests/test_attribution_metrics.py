"""Metrics of relevance maps: planted truth, closed forms, invariances, seeds, threads, bad input, and the door for Quantus."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

import semanticlens as sl
from semanticlens.attribution import evaluate, metrics, quantus
from semanticlens.nn import Network, Node

SIDE, REGION = 12, 4
BOX = (slice(4, 8), slice(0, 8))                      # two of the nine regions


def planted(bias: float = 0.0) -> Network:
    """Class 0 is the sum over a box of both channels, class 1 a tenth of the sum over the rest."""
    weight = np.zeros((2, 2, SIDE, SIDE), np.float32)
    weight[(0, slice(None), *BOX)] = 1
    weight[1] = 0.1 * (1 - weight[0])
    nodes = [Node("flat", "flatten"), Node("out", "dense", "flat", params={"weight": "w", "bias": "b"})]
    return Network(nodes, {"w": weight.reshape(2, -1), "b": np.full(2, bias, np.float32)}, input_shape=(2, SIDE, SIDE))


def convolutional(seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.4, shape).astype(np.float32)

    nodes = [Node("c1", "conv2d", params={"weight": "w1", "bias": "b1"}, attrs={"padding": (1, 1, 1, 1)}), Node("r1", "relu", "c1"),
             Node("c2", "conv2d", "r1", params={"weight": "w2"}), Node("r2", "relu", "c2"), Node("p", "mean", "r2", attrs={"axes": (2, 3)}),
             Node("out", "dense", "p", params={"weight": "w3"})]
    params = {"w1": draw(6, 2, 3, 3), "b1": draw(6), "w2": draw(8, 6, 3, 3), "w3": draw(3, 8)}
    return Network(nodes, params, input_shape=(2, SIDE, SIDE))


def pictures(n: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 1, (n, 2, SIDE, SIDE)).astype(np.float32)


def gradient_x_input(net: Network, x: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return x * net.gradient(x, targets)["input"]


def inside() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[BOX] = True
    return mask


# ---- pixel flipping

def by_hand(net: Network, x: np.ndarray, heat: np.ndarray, target: int, gone: list[int]) -> float:
    """The output with some 4 x 4 regions set to 0, written with loops."""
    x = x.copy()
    for region in gone:
        row, column = divmod(region, SIDE // REGION)
        x[:, row * REGION:(row + 1) * REGION, column * REGION:(column + 1) * REGION] = 0
    return float(net(x[None])[0, target])


def test_flipping_curves_are_exact() -> None:
    net, x = planted(), pictures()
    e = evaluate(net, x, gradient_x_input, targets=0, metrics=metrics.PixelFlipping(region=REGION, steps=9, fill=0.0))
    for i in range(len(x)):
        heat = (x[i] * (net.params["w"][0].reshape(x[i].shape))).sum(axis=0)
        sums = [heat[r * 4:r * 4 + 4, c * 4:c * 4 + 4].sum() for r in range(3) for c in range(3)]
        order = sorted(range(9), key=lambda k: -sums[k])
        for name, rows in (("most", order), ("least", order[::-1])):
            want = [by_hand(net, x[i], heat, 0, rows[:k]) for k in range(10)]
            curve = e.curves[f"{name} relevant first"]
            np.testing.assert_allclose(curve.y[i], want, rtol=1e-5, atol=1e-5)
            suffix = "" if name == "most" else "_least"
            assert e[f"aopc{suffix}"][i] == pytest.approx(np.mean([want[0] - v for v in want]), rel=1e-5)
            assert e[f"auc{suffix}"][i] == pytest.approx((sum(want) - (want[0] + want[-1]) / 2) / 9, rel=1e-5)
        most = e.curves["most relevant first"].y[i]
        assert (np.abs(most[2:]) < 1e-4).all()          # the planted box is two regions: gone after two steps
        assert (e.curves["least relevant first"].y[i][:8] == pytest.approx(most[0], rel=1e-5))
    np.testing.assert_allclose(e["abpc"], e["aopc"] - e["aopc_least"])
    assert e["abpc"] == pytest.approx((e["auc_least"] - e["auc"]) * 9 / 10, rel=1e-5)      # the ends of both curves are the same


@pytest.mark.parametrize(("share", "runs"), [(1.0, 2 * 5 - 1), (0.5, 2 * 4)])
def test_what_both_orders_share_is_run_once(share: float, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, seen = planted(), pictures(4), []
    call = Network.__call__

    def counted(self: Network, x: Any, **options: Any) -> Any:
        seen.append(len(x))
        return call(self, x, **options)

    monkeypatch.setattr(Network, "__call__", counted)
    metric = metrics.PixelFlipping(region=REGION, steps=5, share=share)
    steps = {1.0: 5, 0.5: 4}[share]                     # never more steps than regions: half of nine is four
    e = evaluate(net, x, np.ones((4, SIDE, SIDE)), metrics=metric, batch_size=7)
    assert e.curves["most relevant first"].y.shape == (4, steps + 1)
    assert sum(seen) == 4 + 4 * runs
    assert max(seen) == 7


def test_flipping_needs_only_the_order() -> None:
    net, x = convolutional(), pictures()
    heat = np.random.default_rng(0).normal(size=(3, SIDE, SIDE))
    metric = metrics.PixelFlipping(region=1, steps=6)
    plain, scaled, cubed = (evaluate(net, x, given, metrics=metric) for given in (heat, 7 * heat, heat**3))
    for name in plain.scores:
        assert np.array_equal(plain[name], scaled[name])
        assert np.array_equal(plain[name], cubed[name])
    turned = evaluate(net, x, -heat, metrics=metric)
    np.testing.assert_allclose(turned["abpc"], -plain["abpc"], atol=1e-7)


def test_flipping_of_a_better_map_scores_better() -> None:
    net, x = planted(), pictures()
    good, bad = inside()[None].repeat(3, 0).astype(float), (~inside())[None].repeat(3, 0).astype(float)
    scores = [evaluate(net, x, given, targets=0, metrics=metrics.PixelFlipping(region=REGION, fill=0.0))["abpc"] for given in (good, bad)]
    assert (scores[0] > 0).all()
    assert (scores[1] < 0).all()


def test_regions_have_one_size_where_the_side_is_no_multiple() -> None:
    """A strip left over at the border would always be the least relevant, and harmless: even a map of chance would score."""
    for side, region, parts in ((12, 4, 3), (12, 5, 2), (13, 4, 3), (227, 16, 14), (5, 4, 1)):
        net = Network([Node("p", "mean", attrs={"axes": (2, 3)})], {}, input_shape=(1, side, side))
        x = np.ones((1, 1, side, side), np.float32)
        case = metrics.case.make_case(net, x, x, None, None, None, batch_size=1, seed=0, n_threads=1)
        regions = metrics.PixelFlipping(region=region)._regions(case)
        sizes = np.bincount(regions[0])
        assert (regions.max() + 1, len(sizes)) == (parts**2, parts)
        assert sizes.max() - sizes.min() <= 1
        heat = metrics.flipping.region_means(np.ones((1, side, side)), regions)
        assert np.array_equal(heat, np.ones((1, parts**2)))


@pytest.mark.parametrize("fill", ["mean", "blur", "noise", 0.25, (0.1, 0.2)])
def test_fills(fill: Any) -> None:
    net, x = planted(), pictures()
    e = evaluate(net, x, gradient_x_input, targets=0, metrics=metrics.PixelFlipping(region=REGION, steps=9, fill=fill))
    last = e.curves["most relevant first"].y[:, -1]     # everything replaced
    if fill == "mean":
        assert last == pytest.approx(32 * x.mean(axis=(2, 3)).sum(axis=1), rel=1e-5)
    elif fill == "blur":
        assert last == pytest.approx(net(metrics.fill.blurred(x, 0.05 * SIDE))[:, 0], rel=1e-5)
    elif fill == "noise":
        assert (last > 0).all()
        assert not np.allclose(last, x[(slice(None), slice(None), *BOX)].sum(axis=(1, 2, 3)), rtol=1e-3)
    else:
        assert last == pytest.approx(np.full(3, 32 * np.sum(np.broadcast_to(fill, 2))), rel=1e-5)


def test_blur_keeps_what_is_level_and_conserves_inside() -> None:
    level = np.full((1, 1, 16, 16), 3, np.float32)
    np.testing.assert_allclose(metrics.fill.blurred(level, 2.0), 3, rtol=1e-6)
    point = np.zeros((1, 1, 31, 31), np.float32)
    point[0, 0, 15, 15] = 1
    soft = metrics.fill.blurred(point, 2.0)[0, 0]
    assert soft.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(soft, soft.T, rtol=1e-5, atol=1e-9)
    assert soft[15, 15] == pytest.approx(1 / (2 * np.pi * 4), rel=0.01)


def test_probabilities() -> None:
    net, x = planted(), pictures()
    e = evaluate(net, x, gradient_x_input, targets=0, metrics=metrics.PixelFlipping(region=REGION, score="probability"))
    z = net(x).astype(np.float64)
    assert e.curves["most relevant first"].y[:, 0] == pytest.approx(1 / (1 + np.exp(z[:, 1] - z[:, 0])))


# ---- localisation

def test_planted_relevance_is_found_where_it_is() -> None:
    net, x = planted(), pictures()
    masks = np.stack([inside()] * 3)
    here = evaluate(net, x, gradient_x_input, targets=0, masks=masks, metrics="localisation")
    there = evaluate(net, x, gradient_x_input, targets=0, masks=~masks, metrics="localisation")
    for name in ("mass", "rank", "pointing"):
        assert np.array_equal(here[name], np.ones(3))
        if name != "rank":
            assert np.array_equal(there[name], np.zeros(3))
    assert here["area"] == pytest.approx(32 / 144)
    # 112 pixels outside: the best 112 hold all 32 of the box, and 80 of those whose relevance is 0
    assert there["rank"] == pytest.approx(80 / 112)


def test_localisation_by_hand() -> None:
    net = planted()
    heat = np.zeros((1, SIDE, SIDE))
    heat[0, 0, :4] = (4, 3, -2, 1)
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, 0, 1:3] = True
    e = evaluate(net, pictures(1), heat, masks=mask, metrics="localisation")
    assert (e["mass"][0], e["rank"][0], e["pointing"][0]) == (3 / 8, 1 / 2, 0)
    e = evaluate(net, pictures(1), heat, masks=mask, metrics=metrics.Localisation(pool="absolute", tolerance=1))
    assert (e["mass"][0], e["rank"][0], e["pointing"][0]) == (5 / 10, 1 / 2, 1)
    both = np.stack([heat[0], -heat[0]])[None]          # channels cancel
    e = evaluate(net, pictures(1), both, masks=mask, metrics=metrics.Localisation(pool="norm"))
    assert e["mass"][0] == pytest.approx(5 / 10)
    e = evaluate(net, pictures(1), both, masks=mask, metrics="localisation")
    assert all(np.isnan(e[name][0]) for name in ("mass", "rank", "pointing"))
    assert (e.count("mass"), e.count("area")) == (0, 1)


def test_boxes_and_mosaics() -> None:
    masks = metrics.boxes_to_masks([(1, 2, 4, 3), [(0, 0, 1, 1), (5, 5, 6, 6)]], 6, 8)
    assert (masks[0].sum(), masks[1].sum()) == (3, 2)
    assert masks[0, 2, 1:4].all()
    tiles = np.arange(8 * 2 * 3 * 5, dtype=np.float32).reshape(8, 2, 3, 5)
    mosaics, places, quadrants = metrics.mosaic(tiles, seed=3)
    assert mosaics.shape == (2, 2, 6, 10)
    for i, tile in enumerate(tiles):
        assert np.array_equal(mosaics[i // 4][:, places[i]].reshape(tile.shape), tile)
    assert [sorted(quadrants[j:j + 4]) for j in (0, 4)] == [[0, 1, 2, 3]] * 2


# ---- sparseness, completeness

def test_gini() -> None:
    rows = np.array([[1.0, 1, 1, 1], [0, 0, 0, 5], [1, 2, 3, 4], [0, 0, 0, 0]])
    assert metrics.gini(rows) == pytest.approx([0, 0.75, 0.25, np.nan], nan_ok=True)
    values = np.random.default_rng(0).random((4, 50))
    mean_difference = np.abs(values[:, :, None] - values[:, None]).mean(axis=(1, 2))      # the other form of the index
    np.testing.assert_allclose(metrics.gini(values), mean_difference / (2 * values.mean(axis=1)))
    np.testing.assert_allclose(metrics.gini(3 * values), metrics.gini(values))


def test_completeness() -> None:
    x = pictures()
    exact = evaluate(planted(), x, gradient_x_input, targets=0, metrics="completeness")
    assert (exact["completeness_error"] < 1e-6).all()
    net = planted(bias=2.0)
    lost = evaluate(net, x, gradient_x_input, targets=0, metrics="completeness")
    assert lost["completeness_error"] == pytest.approx(2 / net(x)[:, 0], rel=1e-5)
    based = evaluate(net, x, gradient_x_input, targets=0, metrics=metrics.Completeness(baseline=0.0))
    assert (based["completeness_error"] < 1e-6).all()


# ---- sensitivity, randomisation

def test_sensitivity_of_linear_maps() -> None:
    net, x = planted(), pictures()
    still = evaluate(net, x, lambda net, x, t: net.gradient(x, t)["input"], targets=0, metrics="sensitivity")
    assert np.array_equal(still["max_sensitivity"], np.zeros(3))
    one, two = (evaluate(net, x, gradient_x_input, targets=0, metrics=metrics.Sensitivity(noise=noise))["max_sensitivity"]
                for noise in (0.01, 0.02))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-3)
    spread = 0.02 * (x.max(axis=(1, 2, 3)) - x.min(axis=(1, 2, 3)))
    bound = np.sqrt(32) * 2 * spread / np.linalg.norm(x[(slice(None), slice(None), *BOX)].sum(axis=1).reshape(3, -1), axis=1)
    assert (two <= bound).all()
    assert (two > 0.2 * bound).all()
    more = evaluate(net, x, gradient_x_input, targets=0, metrics=metrics.Sensitivity(draws=16))["max_sensitivity"]
    assert (more >= two).all()                          # the first draws are the same


def test_randomisation_tells_maps_of_the_network_from_maps_of_the_picture() -> None:
    net, x = convolutional(), pictures()
    metric = metrics.Randomisation(stages=None)
    blind = evaluate(net, x, lambda net, x, t: x.sum(axis=1), metrics=metric)
    for name in ("rank_correlation", "rank_correlation_absolute", "ssim"):
        assert blind[name] == pytest.approx(np.ones(3))
    seeing = evaluate(net, x, "gradient", metrics=metric)
    assert (np.abs(seeing["rank_correlation"]) < 0.9).all()
    curve = seeing.curves["ssim"]
    assert curve.names == ("out", "c2", "c1")           # from the output down
    assert np.array_equal(curve.x, np.arange(1, 4) / 3)
    assert evaluate(net, x, "gradient", metrics=metrics.Randomisation(stages=2)).curves["ssim"].names == ("c2", "c1")


@pytest.mark.parametrize("draw", ["normal", "permute"])
def test_networks_with_drawn_parameters(draw: str) -> None:
    net = convolutional()
    one, two = metrics.randomised(net, ["out"], 5, draw), metrics.randomised(net, ["out", "c1"], 5, draw)
    assert np.array_equal(one.params["w3"], two.params["w3"])       # the cascade keeps what was drawn
    assert np.shares_memory(one.params["w1"], net.params["w1"])
    assert not np.array_equal(two.params["w1"], net.params["w1"])
    assert not np.array_equal(metrics.randomised(net, ["out"], 6, draw).params["w3"], one.params["w3"])
    if draw == "permute":
        assert np.array_equal(np.sort(one.params["w3"].ravel()), np.sort(net.params["w3"].ravel()))
    edited = metrics.randomised(net.edited(sl.edit.ablate("r1", component=0)), ["out"])
    assert len(edited.edits) == 1
    bare = Network([Node("flat", "flatten")], {}, input_shape=(2, SIDE, SIDE))
    with pytest.raises(ValueError, match="no parameters"):
        evaluate(bare, pictures(), lambda net, x, t: x, metrics="randomisation")


def test_similarities() -> None:
    a = np.random.default_rng(0).random((2, 9, 11))
    assert metrics.spearman(a, a**3) == pytest.approx([1, 1])
    assert metrics.spearman(a, 1 - a) == pytest.approx([-1, -1])
    assert metrics.spearman(np.array([[1.0, 2, 2, 4]]), np.array([[1.0, 3, 2, 4]])) == pytest.approx([4.5 / np.sqrt(4.5 * 5)])
    assert np.isnan(metrics.spearman(np.ones((1, 5)), a[:1, 0, :5])).all()
    assert metrics.ssim(a, a) == pytest.approx([1, 1])
    assert (metrics.ssim(a, 1 - a) < 0).all()
    half = np.full((1, 8, 8), 0.5)
    c1 = 0.01**2                                        # level pictures: only the means differ
    assert metrics.ssim(half, half / 2) == pytest.approx([(2 * 0.5 * 0.25 + c1) / (0.25 + 0.0625 + c1)])


# ---- the whole call

EVERYTHING = (metrics.PixelFlipping(region=3, steps=4, fill="noise"), "localisation", "sparseness", metrics.Sensitivity(draws=2),
              metrics.Randomisation(stages=2), "completeness")


def whole(n_threads: int = 1, seed: int = 0, batch_size: int = 4, n: int = 3) -> metrics.Evaluation:
    masks = np.stack([inside()] * n)
    return evaluate(convolutional(), pictures(3)[:n], "epsilon_plus_flat", targets=1, masks=masks, metrics=EVERYTHING, n_threads=n_threads,
                    seed=seed, batch_size=batch_size)


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_threads_do_not_matter(n_threads: int) -> None:
    one, many = whole(), whole(n_threads)
    assert len(one.scores) == 15
    for name in one.scores:
        assert np.array_equal(one[name], many[name], equal_nan=True), name


def test_seeds_batches_and_company() -> None:
    one, again, other = whole(), whole(), whole(seed=1)
    for name in one.scores:
        assert np.array_equal(one[name], again[name], equal_nan=True)
    for name in ("aopc", "abpc", "max_sensitivity", "ssim"):
        assert not np.array_equal(one[name], other[name])
    for changed in (whole(batch_size=1), whole(batch_size=50), whole(n=2)):
        for name in one.scores:
            np.testing.assert_allclose(changed[name], one[name][:len(changed[name])], rtol=1e-4, atol=1e-5)


def test_inputs_stay_as_they_are() -> None:
    net, x, masks = convolutional(), pictures(), np.stack([inside()] * 3)
    heat = np.asarray(sl.attribute(net, x, 1, composite="epsilon_plus_flat").input)
    copies = [x.copy(), heat.copy(), masks.copy(), {key: np.array(value) for key, value in net.params.items()}]
    for array in (x, heat, masks):
        array.flags.writeable = False
    evaluate(net, x, heat, targets=1, masks=masks, method="epsilon_plus_flat", metrics=EVERYTHING)
    assert all(np.array_equal(a, b) for a, b in zip(copies[:3], (x, heat, masks), strict=True))
    assert all(np.array_equal(net.params[key], value) for key, value in copies[3].items())


def test_an_attribution_brings_classes_and_method() -> None:
    net, x = convolutional(), pictures()
    r = sl.attribute(net, x, [0, 2, 1], composite="epsilon")
    e = evaluate(net, x, r)
    assert e.targets.tolist() == [0, 2, 1]
    assert [m.name for m in e.metrics] == ["pixel_flipping", "sparseness", "sensitivity", "randomisation", "completeness"]
    direct = evaluate(net, x, "epsilon", targets=[0, 2, 1])
    assert all(np.array_equal(e[name], direct[name], equal_nan=True) for name in direct.scores)
    with pytest.raises(ValueError, match="pass method="):
        evaluate(net, x, sl.attribute(net, x, 1, start="one"))
    with pytest.raises(ValueError, match="pass targets="):
        evaluate(net, x, sl.attribute(net, x, lambda y: np.ones_like(y)))
    assert evaluate(net, x, r.input, metrics="sparseness").targets.tolist() == net(x).argmax(axis=1).tolist()


def test_reading_a_result() -> None:
    e = whole()
    lines = str(e).splitlines()
    assert re.split(r"\s{2,}", lines[0]) == ["score", "mean", "error", "n", "better"]
    assert len(lines) == 1 + len(e.scores)
    assert e.mean("gini") == pytest.approx(e["gini"].mean())
    assert e.standard_error("gini") == pytest.approx(e["gini"].std(ddof=1) / np.sqrt(3))
    assert json.loads(json.dumps(e.to_dict()))["scores"]["gini"]["n"] == 3
    assert repr(e).startswith("Evaluation(3 samples; aopc, ")
    assert np.array_equal(e.curves["most relevant first"].mean(), e.curves["most relevant first"].y.mean(axis=0))
    with pytest.raises(KeyError, match="'nonsense' was not scored"):
        e["nonsense"]
    both = metrics.table({"a": e, "b": e}, ["abpc", "gini"], markdown=True).splitlines()
    assert both[0] == "| method | abpc | gini |"
    assert len(both) == 4
    assert len(metrics.table({"a": e}).splitlines()[0].split()) == 1 + len(e.scores)
    with pytest.raises(ValueError, match="empty"):
        metrics.table({})


def test_progress_and_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    net, x = convolutional(), pictures()
    evaluate(net, x, "gradient", metrics=("pixel_flipping", "sparseness"), progress=True)
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("maps", "pixel_flipping", "sparseness", "100%"))
    calls: list[int] = []

    def stopped(net: Network, x: np.ndarray, targets: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return np.ones(x.shape)

    with pytest.raises(KeyboardInterrupt):
        evaluate(net, x, stopped, metrics="sensitivity", progress=True, batch_size=2)


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_metrics_announce_as_many_batches_as_they_take(batch_size: int) -> None:
    masks = np.stack([inside()] * 3)
    case = metrics.case.make_case(convolutional(), pictures(), "gradient", None, None, masks, batch_size=batch_size, seed=0, n_threads=1)
    for metric in (*(make() for make in metrics.METRICS.values()), metrics.Completeness(baseline="mean"), EVERYTHING[0]):
        ticks: list[int] = []
        announced = metric.prepare(case)
        metric.run(case, lambda ticks=ticks: ticks.append(1))
        assert len(ticks) == announced, metric


HEAT = np.random.default_rng(2).normal(size=(3, SIDE, SIDE))
NAN = np.where(HEAT > 1, np.nan, HEAT)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"maps": HEAT[:2]}, sl.DataError, r"maps: .* shape \(2, 12, 12\); must hold real numbers in shape \(3, 12, 12\)"),
    ({"maps": NAN}, sl.DataError, "maps holds NaN"),
    ({"maps": HEAT.astype(complex)}, sl.DataError, "real numbers"),
    ({"maps": "nonsense"}, ValueError, "composite 'nonsense' is not known"),
    ({"maps": lambda net, x, t: x[:1]}, sl.DataError, "maps"),
    ({"maps": "gradient", "method": "epsilon"}, ValueError, "pass one of them"),
    ({"images": pictures().astype(np.float64)}, TypeError, "x must be float32"),
    ({"images": pictures()[0]}, sl.DataError, "x has shape"),
    ({"targets": 3}, sl.DataError, "between 3 and 3; the network has classes 0 to 2"),
    ({"targets": -1}, sl.DataError, "between -1"),
    ({"targets": [0, 1]}, sl.DataError, "3 classes"),
    ({"targets": 1.0}, sl.DataError, "whole numbers"),
    ({"metrics": "nonsense"}, ValueError, "metric 'nonsense' is not known; known are pixel_flipping"),
    ({"metrics": ()}, ValueError, "at least one"),
    ({"metrics": ("sparseness", metrics.Sparseness())}, ValueError, "each once"),
    ({"metrics": metrics.Sparseness}, TypeError, r"pass Sparseness\(\)"),
    ({"metrics": [metrics.Sparseness]}, TypeError, "neither a name nor a metric"),
    ({"metrics": [3]}, TypeError, "neither a name nor a metric"),
    ({"metrics": "localisation"}, ValueError, "needs masks="),
    ({"metrics": "sensitivity"}, ValueError, "'sensitivity' makes maps of its own: pass method="),
    ({"metrics": ("sparseness", "randomisation")}, ValueError, "'randomisation' makes maps of its own"),
    ({"metrics": "sensitivity", "method": 3}, TypeError, "method=3"),
    ({"metrics": "sensitivity", "method": "gradient"}, sl.MismatchError, "other maps than those given"),
    ({"metrics": "randomisation", "method": "gradient"}, sl.MismatchError, "other maps than those given"),
    ({"masks": HEAT}, sl.DataError, "True inside"),
    ({"masks": np.full((3, SIDE, SIDE), 2)}, sl.DataError, "True inside"),
    ({"masks": np.zeros((3, SIDE, SIDE), bool)}, sl.DataError, "the mask of sample 0 is empty"),
    ({"batch_size": 0}, ValueError, "batch_size=0"),
    ({"seed": -1}, ValueError, "seed=-1"),
    ({"metrics": metrics.PixelFlipping(region=13)}, ValueError, "region=13"),
    ({"metrics": metrics.PixelFlipping(fill="magic")}, ValueError, "fill='magic': must be one of mean, blur, noise"),
    ({"metrics": metrics.PixelFlipping(fill=(1.0, 2.0, 3.0))}, ValueError, "one per channel"),
    ({"metrics": metrics.Completeness(baseline="magic")}, ValueError, "fill='magic'"),
]


@pytest.mark.parametrize(("changed", "error", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"images": pictures(), "maps": HEAT, "targets": None, "metrics": None, **changed}
    with pytest.raises(error, match=message):
        evaluate(convolutional(), arguments.pop("images"), arguments.pop("maps"), **arguments)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: metrics.PixelFlipping(region=0), "region=0"), (lambda: metrics.PixelFlipping(steps=1.5), "steps=1.5"),
    (lambda: metrics.PixelFlipping(share=0), "share=0"), (lambda: metrics.PixelFlipping(orders=("up",)), "orders="),
    (lambda: metrics.PixelFlipping(score="loss"), "score='loss'"), (lambda: metrics.Localisation(pool="sum"), "pool='sum'"),
    (lambda: metrics.Localisation(tolerance=-1), "tolerance=-1"), (lambda: metrics.Sensitivity(noise=0), "noise=0"),
    (lambda: metrics.Sensitivity(draws=0), "draws=0"), (lambda: metrics.Randomisation(stages=0), "stages=0"),
    (lambda: metrics.Randomisation(draw="zeros"), "draw='zeros'"), (lambda: metrics.mosaic(np.zeros((3, 1, 2, 2))), "multiple of 4"),
    (lambda: metrics.boxes_to_masks([(0, 0, 0, 1)], 4, 4), "empty or outside"),
    (lambda: metrics.boxes_to_masks([(0, 0, 5, 1)], 4, 4), "empty or outside"),
    (lambda: metrics.boxes_to_masks([(0.5, 0, 1, 1)], 4, 4), "whole numbers"),
])
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_outputs_that_are_no_class_scores() -> None:
    net = Network([Node("r", "relu")], {}, input_shape=(2, SIDE, SIDE))
    with pytest.raises(sl.DataError, match="one row of class scores"):
        evaluate(net, pictures(), HEAT)


# ---- Quantus

def test_explain_in_the_form_quantus_calls_it() -> None:
    net, x = convolutional(), pictures()
    maps = quantus.explain(model=net, inputs=x.astype(np.float64), targets=[0, 1, 2], method="epsilon", device="cpu")
    want = sl.attribute(net, x, [0, 1, 2], composite="epsilon").input.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(maps, want, rtol=1e-5, atol=1e-7)
    assert quantus.explain(net, x, [0, 1, 2], channels=True, batch_size=2).shape == x.shape
    for bad, error, message in (({"model": 3}, TypeError, "must be a Network"), ({"targets": [0]}, sl.DataError, "one class per input"),
                                ({"gc_layer": "c1"}, TypeError, "gc_layer"), ({"batch_size": 0}, ValueError, "batch_size=0")):
        with pytest.raises(error, match=message):
            quantus.explain(**{"model": net, "inputs": x, "targets": [0, 1, 2], **bad})


def test_modules_need_their_base_class() -> None:
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        quantus.module(convolutional(), object)


@pytest.mark.peers
def test_a_network_as_a_torch_module() -> None:
    import copy

    torch = pytest.importorskip("torch")
    net, x = convolutional(), pictures()
    module = quantus.module(net, torch.nn.Module)
    assert not module.training
    np.testing.assert_array_equal(module(torch.from_numpy(x)).numpy(), net(x))
    names = [name for name, part in module.named_modules() if hasattr(part, "reset_parameters")]
    assert names == ["c1", "c2", "out"]
    state, other = module.state_dict(), copy.deepcopy(module)
    other.get_submodule("out").reset_parameters()
    changed = other(torch.from_numpy(x)).numpy()
    assert not np.array_equal(changed, net(x))
    np.testing.assert_array_equal(module(torch.from_numpy(x)).numpy(), net(x))        # the copy has its own parameters
    later = other.state_dict()
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(torch.from_numpy(x)).numpy(), net(x))
    other.load_state_dict(later)
    np.testing.assert_array_equal(other(torch.from_numpy(x)).numpy(), changed)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_quantus_calls_us_and_agrees() -> None:
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("quantus")
    net, x, targets = convolutional(), pictures(), np.array([0, 1, 2])
    module = quantus.module(net, torch.nn.Module)
    options = {"model": module, "x_batch": x, "y_batch": targets, "device": "cpu", "channel_first": True}
    asked = {"explain_func": quantus.explain, "explain_func_kwargs": {"method": "gradient"}}
    quiet = {"disable_warnings": True, "display_progressbar": False}
    maps, masks = quantus.explain(net, x, targets, method="gradient"), np.stack([inside()] * 3)[:, None]
    heat = maps[:, 0]
    ours = evaluate(net, x, heat, targets=targets, masks=masks[:, 0], metrics=("sparseness", metrics.Localisation(pool="absolute")))
    found = theirs.Sparseness(**quiet)(**options, a_batch=None, **asked)
    np.testing.assert_allclose(found, ours["gini"], atol=1e-4)
    plain = {"abs": True, "normalise": False, **quiet}
    found = theirs.RelevanceMassAccuracy(**plain)(**options, a_batch=maps.copy(), s_batch=masks)
    np.testing.assert_allclose(found, ours["mass"], rtol=1e-5)
    found = theirs.RelevanceRankAccuracy(**plain)(**options, a_batch=maps.copy(), s_batch=masks)
    np.testing.assert_allclose(found, ours["rank"], rtol=1e-5)
    found = theirs.PointingGame(**plain)(**options, a_batch=maps.copy(), s_batch=masks)
    np.testing.assert_array_equal(np.ravel(found).astype(float), ours["pointing"])
    found = theirs.MaxSensitivity(nr_samples=3, lower_bound=0.02, abs=False, normalise=False, **quiet)(**options, a_batch=None, **asked)
    assert np.isfinite(found).all()
    found = theirs.MPRT(similarity_func=theirs.similarity_func.correlation_spearman, abs=False, normalise=False, **quiet)(
        **options, a_batch=None, **asked)
    assert set(found) >= {"c1", "c2", "out"}


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_flipping_curves_equal_quantus() -> None:
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("quantus")
    weight = np.random.default_rng(0).normal(size=(3, SIDE * SIDE)).astype(np.float32)
    nodes = [Node("flat", "flatten"), Node("out", "dense", "flat", params={"weight": "w"})]
    net = Network(nodes, {"w": weight}, input_shape=(1, SIDE, SIDE))
    x, targets = pictures()[:, :1].copy(), np.array([0, 1, 2])
    maps = quantus.explain(net, x, targets, method=gradient_x_input)
    metric = metrics.PixelFlipping(region=1, steps=9, orders="most", fill=0.0, score="probability")
    ours = evaluate(net, x, maps, targets=targets, metrics=metric).curves["most relevant first"].y
    judge = theirs.PixelFlipping(features_in_step=SIDE * SIDE // 9, perturb_baseline=0.0, normalise=False, disable_warnings=True)
    found = judge(model=quantus.module(net, torch.nn.Module), x_batch=x, y_batch=targets, a_batch=maps, device="cpu", channel_first=True)
    np.testing.assert_allclose(found, ours[:, 1:], rtol=1e-4)


@pytest.mark.peers
def test_similarities_equal_the_usual_packages() -> None:
    stats, pictures_of = pytest.importorskip("scipy.stats"), pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 20, 23)).round(2)
    want = [stats.spearmanr(p.ravel(), q.ravel())[0] for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(metrics.spearman(a, b), want, rtol=1e-12)
    want = [pictures_of.structural_similarity(p, q, data_range=1.0) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(metrics.ssim(a, b), want, rtol=1e-10)
