"""Effects of components: against what a network written out by hand does, and on the demo network, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from semanticlens import data, edit
from semanticlens._errors import DataError, LayerNotFoundError
from semanticlens.lens.effects import answers, effects, log_odds
from semanticlens.nn import Network, Node

RNG = np.random.default_rng(0)
X = RNG.standard_normal((11, 3, 6, 6)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, -1, 2, 1])


def network(last: str | None = None) -> Network:
    nodes = [
        Node("conv", "conv2d", ("input",), {"weight": "w"}),
        Node("bend", "relu", ("conv",)),
        Node("more", "conv2d", ("bend",), {"weight": "v"}),
        Node("sum", "add", ("bend", "more")),
        Node("mean", "mean", ("sum",), attrs={"axes": [2, 3], "keepdims": False}),
        Node("head", "dense", ("mean",), {"weight": "fc", "bias": "b"}),
    ]
    if last is not None:
        nodes.append(Node("answer", last, ("head",)))
    params = {"w": draw(5, 3, 3, 3), "v": draw(5, 5, 1, 1), "fc": 3 * draw(3, 5), "b": draw(3)}
    return Network(nodes, params, input_shape=(3, 6, 6))


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def odds_by_hand(z: np.ndarray) -> np.ndarray:
    z = z.astype(np.longdouble)
    return np.array([[row[y] - np.log(np.exp(np.delete(row, y)).sum()) for y in range(len(row))] for row in z], np.float64)


def test_log_odds() -> None:
    z = RNG.standard_normal((7, 4)) * 5
    assert np.abs(log_odds(z) - odds_by_hand(z)).max() < 1e-12
    assert np.abs(log_odds(z + 100) - log_odds(z)).max() < 1e-11  # what is added to all does not count
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert np.abs(log_odds(np.log(p)) - np.log(p / (1 - p))).max() < 1e-9
    assert log_odds([[800.0, 0.0, 0.0]])[0] == pytest.approx([800 - np.log(2), -800, -800])
    assert log_odds([[2.0, 2.0]])[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("how", ["zero", "mean"])
@pytest.mark.parametrize("layer", ["bend", "more", "mean"])
def test_effects_are_what_whole_runs_give(layer: str, how: str) -> None:
    net, labels = network(), LABELS
    got = effects(net, X, [(layer, 3), (layer, 0)], targets=LABELS, classes=[2, 0], how=how, batch_size=4)
    values = net.run(X, record=layer)[layer]
    to = values.mean(axis=(0, 2, 3) if values.ndim == 4 else 0) if how == "mean" else "zero"
    for row, k in enumerate((3, 0)):
        without = net.run(X, edits=[edit.ablate(layer, component=k, to=to)])["output"]
        change = odds_by_hand(net(X)) - odds_by_hand(without)
        for column, y in enumerate((2, 0)):
            for mask, mean, error in ((labels == y, got.own, got.own_error), (labels != y, got.others, got.others_error)):
                part = change[mask, y]
                assert mean[row, column] == pytest.approx(part.mean(), abs=2e-5)
                assert error[row, column] == pytest.approx(part.std(ddof=1) / np.sqrt(len(part)), abs=2e-5)
    assert got.counts.tolist() == [3, 3]
    assert (got.n, got.how, got.of(layer, 0)) == (11, how, 1)
    assert got.to_dict()["components"][0]["component"] == 3
    assert layer in repr(got)


def test_a_softmax_at_the_end_changes_nothing() -> None:
    plain, soft = (effects(network(last), X, [("bend", 1)], targets=LABELS) for last in (None, "softmax"))
    assert np.abs(plain.own - soft.own).max() < 1e-4


def test_batches_and_threads_change_nothing_but_the_last_digits() -> None:
    one = effects(network(), X, [("bend", 1), ("more", 2)], targets=LABELS)
    for options in ({"batch_size": 1}, {"batch_size": 5}, {"n_threads": 2}):
        other = effects(network(), X, [("bend", 1), ("more", 2)], targets=LABELS, **options)
        assert np.abs(one.own - other.own).max() < 1e-5
        assert np.array_equal(one.counts, other.counts)
    same = effects(network(), X, [("bend", 1), ("more", 2)], targets=LABELS, n_threads=3)
    assert same.own.tobytes() == one.own.tobytes()


def test_pairs() -> None:
    """A component that reads what was added, one that does not; the part that passes is what patching it back takes away."""
    net = network()
    other = X.copy()
    other[:, 1] += 2.0
    got = answers(net, X, other, [("bend", k) for k in range(5)], classes=[1], batch_size=3)
    first, second = net.run(X, record=["bend", "output"]), net.run(other, record=["bend", "output"])
    total = odds_by_hand(second["output"]) - odds_by_hand(first["output"])
    assert got.total == pytest.approx(total[:, 1].mean(), abs=1e-5)
    for k in range(5):
        a, b = (v["bend"][:, k].max(axis=(1, 2)) for v in (first, second))
        assert got.separation[k] == pytest.approx(((b > a) + 0.5 * (b == a)).mean())
        assert got.change[k] == pytest.approx((b - a).mean(), abs=1e-5)
        mixed = second["bend"].copy()
        mixed[:, k] = first["bend"][:, k]
        drop = odds_by_hand(second["output"]) - odds_by_hand(net.run_from("bend", mixed)["output"])
        assert got.through[k, 0] == pytest.approx(drop[:, 1].mean(), abs=1e-5)
        assert got.through_error[k, 0] == pytest.approx(drop[:, 1].std(ddof=1) / 11**0.5, abs=1e-5)
    assert (got.n, got.classes) == (11, (1,))
    assert "through" in repr(got)
    assert answers(net, X, X, [("bend", 0)]).separation.tolist() == [0.5]
    assert not answers(net, X, X, [("bend", 0)]).through.any()


def test_pictures_of_a_data_set() -> None:
    pixels = RNG.integers(0, 256, (6, 6, 6, 3), dtype=np.uint8)
    images = data.ImageArray(pixels, labels=[0, 1, 2, 0, 1, 2], class_names=["cat", "dog", "eel"])

    def transform(picture):
        return np.ascontiguousarray(np.asarray(picture, np.float32).transpose(2, 0, 1) / 255)

    got = effects(network(), images, [("bend", 1)], transform=transform)
    want = effects(network(), pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255, [("bend", 1)], targets=images.labels)
    assert np.abs(got.own - want.own).max() < 1e-6
    assert [got.name(i) for i in range(3)] == ["cat", "dog", "eel"]
    with pytest.raises(ValueError, match="give transform="):
        effects(network(), images, [("bend", 1)])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"components": []}, DataError, "components is empty"),
        ({"components": [("nope", 1)]}, LayerNotFoundError, "nope"),
        ({"components": [("bend", 5)]}, DataError, "'bend' has components 0 to 4, not 5"),
        ({"components": [("bend", -1)]}, DataError, "components 0 to 4, not -1"),
        ({"components": ["bend"]}, TypeError, "must be a pair"),
        ({"components": [("bend", 1.0)]}, TypeError, "must be a pair"),
        ({"classes": [3]}, DataError, "classes 0 to 2"),
        ({"classes": []}, DataError, "name at least one"),
        ({"how": "half"}, ValueError, "how='half'"),
        ({"targets": LABELS[:4]}, DataError, r"shape \(11,\)"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"images": X[:0], "targets": LABELS[:0]}, DataError, "there are no pictures"),
    ],
)
def test_bad_input(options: dict, error: type[Exception], message: str) -> None:
    given = {"images": X, "components": [("bend", 1)], "targets": LABELS, **options}
    with pytest.raises(error, match=message):
        effects(network(), given.pop("images"), given.pop("components"), **given)


def test_bad_pairs() -> None:
    with pytest.raises(DataError, match="pairs are needed"):
        answers(network(), X, X[:4], [("bend", 0)])
    with pytest.raises(KeyError, match="was not measured"):
        effects(network(), X, [("bend", 1)]).of("bend", 2)


def test_one_output_is_no_choice() -> None:
    nodes = [Node("mean", "mean", ("input",), attrs={"axes": [2, 3], "keepdims": False}), Node("fc", "dense", ("mean",), {"weight": "w"})]
    with pytest.raises(DataError, match="at least two classes"):
        effects(Network(nodes, {"w": draw(1, 3)}, input_shape=(3, 6, 6)), X, [("mean", 0)])


def test_the_demo_network_answers_to_its_planted_mark() -> None:
    """Components that answer to the mark in pairs of pictures are those through which it pulls other shapes to the tied class."""
    from semanticlens.demo.artefact import ARTEFACT, CLASS
    from semanticlens.demo.explore import LAYER, load_network
    from semanticlens.demo.pictures import generate, with_overlay

    net = load_network()
    tied = net.labels.index(CLASS)
    pictures = generate(40, seed=987)
    bare, marked = (data.ImageArray(with_overlay(pictures, overlay).pixels) for overlay in ("none", ARTEFACT))
    components = [(LAYER, k) for k in range(net.layers[LAYER].shape[0])]
    got = answers(net, bare, marked, components, classes=[tied])
    answering, through = got.separation > 0.95, got.through[:, 0]
    assert got.total[0] > 1
    assert 1 <= answering.sum() < len(components) / 2
    assert through.argmax() in np.flatnonzero(answering)
    assert through[answering].sum() > 0.7 * got.total[0]
    assert np.abs(through[got.separation < 0.55]).max(initial=0) < 0.1 * got.total[0]
    loss = effects(net, marked, [components[through.argmax()]], targets=np.full(40, tied), classes=[tied])
    assert loss.own[0, 0] > 5 * loss.own_error[0, 0] > 0
