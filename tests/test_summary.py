"""What a network costs."""

from __future__ import annotations

import numpy as np
import pytest

from semanticlens.nn import Network, Node


def test_counts_by_hand() -> None:
    params = {"w": np.ones((4, 3, 3, 3), np.float32), "v": np.ones((2, 4), np.float32), "b": np.ones(2, np.float32)}
    nodes = [
        Node("c", "conv2d", params={"weight": "w"}),
        Node("r", "relu", "c"),
        Node("m", "mean", "r", attrs={"axes": (2, 3)}),
        Node("i", "identity", "m"),
        Node("d", "dense", "i", {"weight": "v", "bias": "b"}),
    ]
    summary = Network(nodes, params, input_shape=(3, 8, 7), name="small").summary()
    assert [row.flops for row in summary.rows] == [2 * 4 * 6 * 5 * 27, 120, 4, 0, 16]
    assert [row.n_params for row in summary.rows] == [108, 0, 0, 0, 10]
    assert summary.n_params == 118
    assert summary.flops == 6620
    lines = repr(summary).splitlines()
    assert lines[1].split() == ["name", "op", "shape", "parameters", "flops"]
    assert lines[3].split() == ["c", "conv2d", "(4,", "6,", "5)", "108", "6,480"]
    assert lines[-1].split() == ["total", "118", "6,620"]
    assert "6,620" in summary._repr_html_()


def test_free_sizes() -> None:
    nodes = [Node("e", "embedding", params={"weight": "w"}), Node("a", "attention", ("e", "e", "e"))]
    net = Network(nodes, {"w": np.ones((9, 4), np.float32)}, input_shape=(None,))
    assert net.summary().flops is None
    assert "?" in repr(net.summary())
    assert net.summary((5,)).rows[1].flops == 2 * 2 * 5 * 5 * 4
    with pytest.raises(ValueError, match=r"input_shape=\(5, 2\)"):
        net.summary((5, 2))
