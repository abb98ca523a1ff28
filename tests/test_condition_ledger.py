"""The ledger of conditional walks: what masks remove is booked, and the whole balances for every row."""

from __future__ import annotations

import numpy as np
import pytest
from test_condition import RULES, K, residual, two_branches

from semanticlens._errors import ConceptWarning
from semanticlens.attribution import attribute, condition

KEPT = ("bias", "stabiliser", "degenerate", "stopped", "masked", "other")
CASES = {
    "one layer": {"at": {"c3": [1, 4]}},
    "two layers": {"at": {"c3": [0, 1, 2, 3], "c1": [2, 5]}},
    "each": {"each": {"c3": range(K)}},
    "each under another": {"at": {"c1": [0, 1, 2]}, "each": {"c3": [0, 1, 2, 3]}},
    "beside the skip connection": {"at": [{"c2": [0, 2]}, {"c2": [1]}]},
    "without it": {"at": [{"c2": [0, 2]}, {"c2": [1]}], "exclude_parallel": True},
    "on both sides": {"at": [{"c3": [1, 3], "c2": [2]}, {"c3": [4]}], "exclude_parallel": True},
    "positions": {"at": {"c3": {1: (2, 2), 3: [0, 5, (3, 3)], 4: None}}},
    "a merged activation": {"each": {"r2": [0, 1, 3]}, "exclude_parallel": True},
    "one each": {"at": [{"c3": [1, 3]}, {"c2": [4]}], "paired": True, "exclude_parallel": True},
    "from inside": {"of": "c3", "start": "relevance", "at": {"c3": [1, 3]}},
}


def draw():
    return np.random.default_rng(1).standard_normal((2, 3, 8, 8))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("composite", RULES, ids=lambda c: getattr(c, "name", c))
@pytest.mark.parametrize("case", CASES)
def test_every_row_balances(case, composite, dtype):
    found = condition(residual(), draw().astype(dtype), [1, 2], composite=composite, dtype=dtype, **CASES[case])
    for row in range(len(found)):
        ledger = found.ledger(row)
        assert abs(ledger.balance) <= 1e-6 * ledger.largest
        assert ledger.started == pytest.approx(_started(found, row, CASES[case]), rel=1e-6)
        assert ledger.arrived == pytest.approx(found.input[row].sum(dtype=np.float64), rel=1e-5, abs=1e-5 * ledger.largest)
        assert ledger.total("masked") != 0
        for entry in ledger.entries:
            assert abs(entry.other) <= (1e-12 if dtype == "float64" else 1e-4) * max(entry.magnitude, abs(entry.passed)), entry
            assert entry.arrived == pytest.approx(entry.passed + sum(getattr(entry, c) for c in KEPT), rel=1e-9, abs=1e-12)


def _started(found, row, case):
    """Relevance that was put in: of the output, also where the walk only counts from an inner layer on."""
    start = found.start[found.sample[row]].sum(dtype=np.float64)
    return start if "start" not in case else found.output[found.sample[row]][[1, 2][found.sample[row]]]


def test_rows_add_up_to_conditions_and_these_to_the_whole():
    found = condition(residual(), draw(), [1, 2], each={"c3": range(K)}, dtype="float64")
    rows = [found.ledger(i) for i in range(len(found))]
    per = [found.ledger(condition=i) for i in range(K)]
    whole = found.ledger()
    for name in ("started", "arrived", "magnitude"):
        for i in range(K):
            assert getattr(per[i], name) == pytest.approx(getattr(rows[i], name) + getattr(rows[K + i], name), rel=1e-12)
        assert getattr(whole, name) == pytest.approx(sum(getattr(ledger, name) for ledger in per), rel=1e-12)
    for column in KEPT[:-1]:
        assert whole.total(column) == pytest.approx(sum(ledger.total(column) for ledger in rows), rel=1e-9, abs=1e-12)
    assert len({entry.node for entry in whole.entries}) == len(whole.entries)
    start = float(found.start.sum())
    assert whole.started == pytest.approx(K * start, rel=1e-12)  # the walk that rows share counts once for each of them
    by_node = {entry.node: entry for entry in whole.entries}
    assert by_node["out"].arrived == pytest.approx(K * start, rel=1e-12)
    # each row's mask takes what the others keep: K - 1 of K times the relevance of the layer
    r = attribute(residual(), draw(), [1, 2], record="c3", dtype="float64")["c3"]
    assert by_node["c3"].masked == pytest.approx((K - 1) * r.sum(), rel=1e-9)


def test_what_a_mask_removes_is_booked_at_its_layer():
    found = condition(residual(), draw(), [1, 2], at={"c3": [1, 4]}, record="c3", dtype="float64")
    entries = {entry.node: entry for entry in found.ledger().entries}
    r = found["c3"].sum(axis=(0, 2, 3))
    assert entries["c3"].masked == pytest.approx(r.sum() - r[[1, 4]].sum(), rel=1e-12)
    assert [name for name, entry in entries.items() if entry.masked] == ["c3"]


def test_positions_are_booked_too():
    r = attribute(residual(), draw()[:1], 1, record="c3", dtype="float64")["c3"]
    _, k, *place = np.unravel_index(np.abs(r).argmax(), r.shape)
    found = condition(residual(), draw()[:1], 1, at={"c3": {int(k): tuple(map(int, place))}}, record="c3", dtype="float64")
    kept = r[(0, k, *place)]
    entry = next(e for e in found.ledger(0).entries if e.node == "c3")
    assert entry.masked == pytest.approx(r.sum() - kept, rel=1e-12)
    assert entry.passed + entry.bias + entry.stabiliser + entry.degenerate == pytest.approx(kept, rel=1e-9)


def test_what_comes_beside_the_layer_is_masked_without_parallel_paths():
    """By hand: of 3 at layer3 the branches get 2 and 1 parts; layer1 is the condition, so layer2's part is masked."""
    x = np.array([[1.0, 1.0]])
    beside = condition(two_branches(), x, 0, at={"layer1": [0, 1]}, composite="epsilon", dtype="float64")
    assert beside.ledger().total("masked") == 0
    cut = condition(
        two_branches(), x, 0, at={"layer1": [0, 1]}, composite="epsilon", dtype="float64", exclude_parallel=True,
        record="layer1",
    )  # fmt: skip
    ledger = cut.ledger(0)
    entries = {entry.node: entry for entry in ledger.entries}
    assert entries["layer2"].masked == pytest.approx(cut.start.sum() - cut["layer1"].sum(), rel=1e-6)
    assert entries["layer2"].masked == entries["layer2"].arrived != 0
    assert "masked" in str(ledger)
    assert "masked" in ledger._repr_html_()
    assert "masked" not in str(beside.ledger())  # no column of zeros


def test_a_condition_that_removes_all_shows_where():
    with pytest.warns(ConceptWarning, match=r"condition 0 \(c3 no channel\)"):
        found = condition(residual(), draw(), [1, 2], at={"c3": []}, dtype="float64")
    ledger = found.ledger()
    entries = {entry.node: entry for entry in ledger.entries}
    assert ledger.arrived == 0
    assert entries["c3"].masked == entries["c3"].arrived
    assert abs(ledger.balance) <= 1e-12 * ledger.largest


def test_targets_of_every_kind_and_chunks():
    x, net = draw(), residual()
    weights = np.random.default_rng(2).standard_normal((2, 5))
    for target in (3, [1, 2], weights, lambda value: 2 * value):
        found = condition(net, x, target, each={"c3": range(K)}, dtype="float64")
        again = condition(net, x, target, each={"c3": range(K)}, dtype="float64", chunk=2)
        for row in (0, K + 2):
            ledger = found.ledger(row)
            assert ledger.started == pytest.approx(found.start[found.sample[row]].sum(), rel=1e-12)
            assert ledger.rows() == again.ledger(row).rows()
        assert again.ledger().balance == pytest.approx(0, abs=1e-9)
    inner = condition(net, x, of="c3", at={"c2": [1]}, dtype="float64")
    assert inner.ledger(1).started == pytest.approx(inner.output[1].sum(), rel=1e-12)
    np.testing.assert_allclose(inner.whole(), attribute(net, x, lambda v: v, of="c3", dtype="float64").input, rtol=1e-12)
    classes = condition(net, x, at=[{"output": [1]}, {"output": [2]}], dtype="float64")
    assert classes.ledger(1).total("masked") != 0


def test_bad_choices():
    found = condition(residual(), draw().astype(np.float32), 1, at={"c3": [1]})
    with pytest.raises(IndexError, match="row=2: there are 2"):
        found.ledger(2)
    with pytest.raises(IndexError, match="condition=1: there are 1"):
        found.ledger(condition=1)
    with pytest.raises(ValueError, match="choose one of them"):
        found.ledger(0, condition=0)
    with pytest.raises(TypeError, match=r"row=0\.5: must be a whole number"):
        found.ledger(0.5)
