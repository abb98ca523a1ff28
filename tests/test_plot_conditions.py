"""Conditional relevance as pictures: which rows are shown, what stands beside them, axes, the notebook, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from test_condition import K, residual

from semanticlens.attribution import condition


@pytest.fixture(scope="module")
def many():
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    return condition(residual(), x, [1, 2], each={"c3": range(K)}, record="c2")


def test_one_column_per_condition(many):
    widths = [many.plot(samples=0, conditions=range(n)).image.width for n in (2, 3, 4)]
    assert widths[2] - widths[1] == widths[1] - widths[0] > 0
    one, two = many.plot(samples=0), many.plot()
    assert two.image.height == 2 * one.image.height
    laid, bare = many.plot(over=True).image, many.plot(over=False).image
    assert laid.size == bare.size
    assert laid.tobytes() != bare.tobytes()
    assert many.plot(name="c2", labels=["what"] * K, scale="all").image.width == two.image.width


def test_of_many_conditions_the_largest(many):
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    several = condition(residual(), x, 1, at=[{"c3": range(n)} for n in range(1, K + 1)] * 2)
    size = np.abs(several.input.reshape(2 * K, -1).sum(1, dtype=np.float64))
    best = np.argsort(-size, kind="stable")[:8].tolist()
    assert several.plot().image.tobytes() == _titled(several, best)
    assert "8 of 12 conditions" in several._repr_html_()


def _titled(several, chosen):
    return several.plot(conditions=chosen).image.tobytes()


def test_on_axes(many):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots(2, 2)
    assert many.plot(axes, conditions=[1, 3]) is axes
    assert [a.get_title() for a in axes.ravel()] == ["c3 1", "c3 3"] * 2
    with pytest.raises(ValueError, match="ax holds 4 axes for 2 rows"):
        many.plot(axes, samples=0, conditions=[1, 3])


def test_in_a_notebook(many):
    page = many._repr_html_()
    assert "6 conditions on 2 samples" in page
    assert page.count("<figure>") == 2 * (K + 1)
    assert f"{int(many.dead.sum())} of them dead" in page


def test_bad_input(many):
    with pytest.raises(IndexError, match="conditions: 9 is not one of the 6 conditions"):
        many.plot(conditions=[9])
    with pytest.raises(ValueError, match="samples is empty"):
        many.plot(samples=[])
    with pytest.raises(ValueError, match="labels has 1 entries for 6 conditions"):
        many.plot(labels=["one"])
