"""Relevance through a language model: token by token, with the rules for transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import semanticlens as sl
from semanticlens.nn import Node

IDS = np.array([[1, 403, 407, 261, 378]])


def last_logit(out: np.ndarray) -> np.ndarray:
    """Relevance starts from the likeliest next token."""
    start = np.zeros_like(out)
    best = out[0, -1].argmax()
    start[0, -1, best] = out[0, -1, best]
    return start


@pytest.fixture(scope="module")
def net(data_dir: Path) -> sl.Network:
    path = data_dir / "models" / "stories260K.bin"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return sl.load(path).net


@pytest.mark.parametrize("composite", ["attn_lrp", "cp_lrp"])
def test_both_precisions_agree(net: sl.Network, composite: str) -> None:
    single, double = (
        sl.attribute(net, IDS, last_logit, composite=composite, record=["embed_tokens"], dtype=dtype)["embed_tokens"]
        for dtype in ("float32", "float64")
    )
    assert single.shape == (1, 5, net.layers["embed_tokens"].shape[-1])
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * np.abs(double).max())


def test_tokens_share_the_logit(net: sl.Network) -> None:
    """CP-LRP conserves: no layer has a bias, attention passes by its values; token ids themselves get none."""
    result = sl.attribute(net, IDS, last_logit, composite="cp_lrp", record=["embed_tokens"], dtype="float64")
    assert abs(result["embed_tokens"].sum() - result.start.sum()) < 1e-5 * abs(result.start.sum())
    assert not result.input.any()
    ledger = result.ledger()
    assert abs(ledger.balance) < 1e-9 * ledger.largest
    assert abs(ledger.total("stopped") - result.start.sum()) < 1e-5 * abs(result.start.sum())


# ---------------------------------------------------------------- without data


@pytest.mark.parametrize("bend", ["silu", "gelu", "sigmoid"])
@pytest.mark.parametrize("first", [True, False])
def test_the_bent_factor_of_a_product_is_its_gate(bend: str, first: bool) -> None:
    """In CP-LRP relevance goes by the other factor, wherever the gate stands; AttnLRP gives half to each."""
    rng = np.random.default_rng(0)
    nodes = [
        Node("gate", "dense", "input", {"weight": "g"}),
        Node("bend", bend, "gate"),
        Node("up", "dense", "input", {"weight": "u"}),
        Node("product", "mul", ("bend", "up") if first else ("up", "bend")),
    ]
    params = {key: rng.standard_normal((4, 3)).astype(np.float32) for key in "gu"}
    net = sl.Network(nodes, params, input_shape=(3,))
    x = rng.standard_normal((2, 3)).astype(np.float32)
    start = np.ones((2, 4), np.float32)
    got = sl.attribute(net, x, start, composite="cp_lrp", record=["bend", "up"])
    np.testing.assert_allclose(got["up"], start)
    assert not got["bend"].any()
    halves = sl.attribute(net, x, start, composite="attn_lrp", record=["bend", "up"])
    np.testing.assert_allclose(halves["up"], start / 2)
    np.testing.assert_allclose(halves["bend"], start / 2)


@pytest.mark.parametrize("composite", ["attn_lrp", "cp_lrp", "epsilon"])
def test_position_embeddings_take_their_share(composite: str) -> None:
    rng = np.random.default_rng(0)
    params = {"words": rng.standard_normal((9, 4)).astype(np.float32), "places": rng.standard_normal((6, 4)).astype(np.float32)}
    nodes = [
        Node("words", "embedding", "input", {"weight": "words"}),
        Node("sum", "positions", "words", {"weight": "places"}, {"offset": 2}),
    ]
    net = sl.Network(nodes, params, input_shape=(3,))
    ids = np.array([[1, 5, 7]])
    start = rng.standard_normal((1, 3, 4)).astype(np.float32)
    got = sl.attribute(net, ids, start, composite=composite, record=["words"])
    word, place = params["words"][ids], params["places"][2:5]
    np.testing.assert_allclose(got["words"], word / (word + place) * start, rtol=1e-3, atol=1e-5)
    entry = next(entry for entry in got.ledger().entries if entry.node == "sum")
    assert entry.bias == pytest.approx(float((place / (word + place) * start).sum()), rel=1e-3)
    assert abs(got.ledger().balance) < 1e-6 * got.ledger().largest
