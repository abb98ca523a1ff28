"""Relevance through a language model: token by token, with the rules for transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import semanticlens as sl

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
