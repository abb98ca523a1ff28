"""Edits as nodes: the same values, in a network that can be saved."""

from __future__ import annotations

import numpy as np
import pytest

import semanticlens as sl
from semanticlens import edit
from semanticlens.nn import Network, Node

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3, 9, 9)).astype(np.float32)
MEANS = RNG.standard_normal(6).astype(np.float32)


def network() -> Network:
    """A convolution, its ReLU, a sequence of 25 tokens, a dense layer."""
    nodes = [
        Node("conv", "conv2d", ("input",), {"weight": "w", "bias": "b"}, {"stride": (2, 2), "padding": (1, 1, 1, 1)}),
        Node("bend", "relu", ("conv",)),
        Node("flat", "reshape", ("bend",), {}, {"shape": (6, 25)}),
        Node("tokens", "permute", ("flat",), {}, {"axes": (2, 1)}),
        Node("mixed", "dense", ("tokens",), {"weight": "m"}),
        Node("pooled", "mean", ("mixed",), {}, {"axes": [1], "keepdims": False}),
        Node("head", "dense", ("pooled",), {"weight": "h", "bias": "c"}),
    ]
    shapes = {"w": (6, 3, 3, 3), "b": (6,), "m": (6, 6), "h": (4, 6), "c": (4,)}
    params = {key: RNG.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    return Network(
        nodes, params, input_shape=(3, 9, 9), name="small", aliases={"features.1": "bend"}, labels=list("abcd")
    )


NET = network()
CASES = {
    "zero": [edit.ablate("bend", component=[1, 4])],
    "last from the end": [edit.ablate("mixed", component=-1)],
    "means": [edit.ablate("bend", component=[0, 5], to=MEANS)],
    "one number": [edit.ablate("bend", component=[0, 5], to=0.5)],
    "set": [edit.set("pooled", [1.0, -2.0], component=[2, 3])],
    "scale and add": [edit.scale("conv", 0.25, component=2), edit.add("conv", MEANS)],
    "alias": [edit.scale("features.1", -1.0)],
    "project": [edit.project("bend", MEANS)],
    "project tokens": [edit.project("mixed", MEANS), edit.ablate("mixed", component=0)],
    "along a direction to a number": [edit.ablate("bend", to=0.3, direction=MEANS)],
    "along a direction of some": [edit.scale("bend", 2.0, component=[1, 2], direction=[1.0, 2.0])],
    "several nodes, one twice": [
        edit.ablate("conv", component=0),
        edit.project("pooled", MEANS),
        edit.add("conv", 1.0),
        edit.project("conv", MEANS),
    ],
    "output": [edit.add("head", 3.0, component=1)],
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_edits(name, tmp_path):
    edited = NET.edited(*CASES[name])
    made = edited.baked()
    assert made.edits == ()
    assert made.fingerprint not in (NET.fingerprint, edited.fingerprint)
    names = ["conv", "bend", "mixed", "pooled", "head", "features.1"]
    expected, got = edited.run(X, record=names), made.run(X, record=names)
    for layer in names:
        np.testing.assert_allclose(got[layer], expected[layer], rtol=2e-5, atol=2e-5)
    made.save(tmp_path / "made.safetensors")
    again = sl.load(tmp_path / "made.safetensors")
    assert again.fingerprint == made.fingerprint
    assert again(X).tobytes() == made(X).tobytes()


def test_what_was_there_stays_readable():
    made = NET.edited(edit.ablate("bend", component=1)).baked()
    np.testing.assert_array_equal(
        made.run(X, record=["bend.unedited"])["bend.unedited"], NET.run(X, record=["bend"])["bend"]
    )
    assert made.labels == NET.labels
    assert NET.baked() is NET
    twice = made.edited(edit.ablate("bend", component=2)).baked()
    assert not twice.run(X, record=["bend"])["bend"][:, 1:3].any()
    gradient = made.gradient(X, target=1)
    edited = NET.edited(edit.ablate("bend", component=1)).gradient(X, target=1)
    np.testing.assert_allclose(gradient["input"], edited["input"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (edit.ablate("mixed", token=3), "single tokens or positions"),
        (edit.ablate("bend", position=(1, 1)), "single tokens or positions"),
        (edit.replace("pooled", np.ones((4, 6), np.float32)), "belongs to one picture"),
        (edit.ablate("bend", to="mean"), "mean of each sample"),
        (edit.add("mixed", np.ones((25, 6), np.float32)), "differs from place to place"),
        (edit.scale("bend", 2.0, component=0, axis=2), "axis=2 is not the axis of components"),
        (edit.scale("input", 2.0), "an edit of 'input' cannot become a node"),
    ],
)
def test_edits_that_are_no_affine_map(one, message):
    with pytest.raises(ValueError, match=message):
        NET.edited(one).baked()


def test_saving_edits_names_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"save net\.baked\(\)"):
        NET.edited(edit.ablate("bend")).save(tmp_path / "x")
