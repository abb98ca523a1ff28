"""Heat maps, sheets, panels, graphs and what attributions show in a notebook: colours at known values, sizes, errors, and no state."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import semanticlens as sl
from semanticlens.attribution import Attribution, Ledger
from semanticlens.attribution.ledger import Entry
from semanticlens.demo import pictures
from semanticlens.demo.explore import load_network
from semanticlens.plot import attribution as plot
from semanticlens.plot._seen import facts, pictures_of

RED, BLUE, WHITE, BLACK = [255, 0, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]
HOSTILE = '<script>alert(1)</script>"&'


class Balanced(HTMLParser):
    """Complains about tags that do not match; keeps every attribute that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked_html(text: str) -> Balanced:
    found = Balanced(text)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert all(source.startswith("data:image/") for source in found.sources)
    assert not re.search(r"https?:|@import|url\((?!data:)", text)
    return found


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return pictures.generate(3, 5).pixels


@pytest.fixture(scope="module")
def r(images: np.ndarray) -> Attribution:
    net = load_network()
    x = np.stack([net.preprocess(image) for image in images])
    return sl.attribute(net, x, target=net(x).argmax(axis=1), record=["relu4"])


# ---- colours -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cmap", "expected"),
    [
        ("bwr", [BLUE, [128, 128, 255], WHITE, [255, 128, 128], RED]),
        ("seismic", [[0, 0, 76], BLUE, WHITE, RED, [128, 0, 0]]),
        ("coldnhot", [[0, 255, 255], BLUE, BLACK, RED, [255, 255, 0]]),
        ("hot", [BLACK, BLACK, BLACK, [255, 128, 0], WHITE]),
        ("reds", [WHITE, WHITE, WHITE, [255, 128, 128], RED]),
        ("grey", [BLACK, BLACK, BLACK, [128, 128, 128], WHITE]),
        (("#102030", "#ffffff", "#405060"), [[16, 32, 48], [136, 144, 152], WHITE, [160, 168, 176], [64, 80, 96]]),
    ],
)
def test_colours_at_known_values(cmap: Any, expected: list[list[int]]) -> None:
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    before = values.copy()
    found = plot.heat_colours(values, percentile=100, cmap=cmap)
    assert found.dtype == np.uint8
    assert found.tolist() == expected
    assert plot.heat_colours(values, cmap=cmap, limit=2.0).tolist() == expected
    assert (values == before).all()


def test_one_side_of_a_diverging_map() -> None:
    assert plot.heat_colours([-1.0, 0.0, 2.0], 100, "bwr", symmetric=False).tolist() == [WHITE, WHITE, RED]
    with pytest.raises(ValueError, match="symmetric=True, but 0 is at the beginning of cmap='hot'"):
        plot.heat_colours([1.0], cmap="hot", symmetric=True)


def test_clipping_by_percentile() -> None:
    values = np.arange(1, 102, dtype=np.float32)          # percentiles of 1 ... 101 are whole numbers
    assert plot.heat_limit(values, 50) == 51
    assert plot.heat_limit(-values, 50) == 51
    assert plot.heat_limit(values - 51, 100, two_sided=False) == 50
    found = plot.heat_colours(values, 50)
    assert found[50:].tolist() == [RED] * 51
    assert found[49].tolist() == [255, 5, 5]              # 255 (1 - 50 / 51)
    spike = np.zeros(1000)
    spike[3] = -4.0                                       # the percentile of almost nothing is 0: the largest takes its place
    assert plot.heat_limit(spike) == 4
    assert plot.heat_colours(spike)[3].tolist() == BLUE


def test_zero_and_extreme_sizes() -> None:
    assert plot.heat_colours(np.zeros((2, 3))).tolist() == [[WHITE] * 3] * 2
    assert plot.heat_limit(np.zeros(4)) == 0
    tiny = np.array([5e-324, -5e-324, 0.0])
    assert plot.heat_colours(tiny, 100).tolist() == [RED, BLUE, WHITE]
    assert plot.heat_colours(np.array([1e308, -1e308]), 100).tolist() == [RED, BLUE]
    assert plot.heat_colours([7.0], limit=1e-320).tolist() == [RED]
    assert plot.heat_colours(np.empty((0, 4))).shape == (0, 4, 3)
    assert plot.heat_colours([1.0, -9.0], np.int64(100), limit=np.float32(2)).tolist() == [[255, 128, 128], BLUE]
    assert plot.sheet(np.ones((1, 8, 8)), scale=np.float32(2)).about == "1 x 1 maps"
    assert plot.heat_colours([True, False], 100).tolist() == [RED, WHITE]


@given(hnp.arrays(np.float64, (5, 4), elements=st.floats(-1e6, 1e6)), st.floats(1, 100))
@settings(max_examples=60, deadline=None)
def test_colours_are_symmetric_and_in_order(values: np.ndarray, percentile: float) -> None:
    here, there = plot.heat_colours(values, percentile), plot.heat_colours(-values, percentile)
    assert (here == there[..., ::-1]).all()               # blue for red: the same scale for both signs
    order = np.argsort(values.ravel(), kind="stable")
    warmth = here.astype(int)[..., 0] - here[..., 2]
    assert (np.diff(warmth.ravel()[order]) >= 0).all()
    assert (here[values == 0] == 255).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({'r': [[0.0, np.nan], [np.inf, 1]]}, ValueError, r"r holds 2 NaN or infinite values, the first at \(0, 1\)"),
        ({'r': ["a"]}, TypeError, "r must hold real numbers"),
        ({'r': [1j]}, TypeError, "r must hold real numbers"),
        ({'r': [1.0], 'percentile': 0}, ValueError, "percentile=0: must be above 0"),
        ({'r': [1.0], 'percentile': 101}, ValueError, "percentile=101"),
        ({'r': [1.0], 'percentile': np.nan}, ValueError, "percentile=nan"),
        ({'r': [1.0], 'cmap': "viridis"}, ValueError, "cmap='viridis': must be one of bwr, seismic"),
        ({'r': [1.0], 'cmap': ("#fff", "#000000")}, ValueError, "must be written '#rrggbb'"),
        ({'r': [1.0], 'cmap': ("#0000ff",)}, ValueError, "at least 2"),
        ({'r': [1.0], 'cmap': ("#00gg00", "#000000")}, ValueError, "must be written '#rrggbb'"),
        ({'r': [1.0], 'limit': -1.0}, ValueError, "limit=-1.0"),
        ({'r': [1.0], 'limit': np.inf}, ValueError, "limit=inf"),
    ],
)
def test_bad_arguments_of_colours(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot.heat_colours(**arguments)


# ---- overlays ----------------------------------------------------------------------------------------------------------------------------


def test_overlay_at_known_values() -> None:
    under = np.full((1, 3, 3), 100, np.uint8)
    values = np.array([[-1.0, 0.0, 1.0]])
    kept = np.asarray(plot.overlay(under, values, alpha=1, grey=False, percentile=100))
    assert kept.tolist() == [[BLUE, [100] * 3, RED]]
    everywhere = np.asarray(plot.overlay(under, values, alpha=1, fade=False, percentile=100))
    assert everywhere.tolist() == [[BLUE, WHITE, RED]]
    half = np.asarray(plot.overlay(under, values, alpha=0.5, fade=False, grey=False, percentile=100))
    assert half.tolist() == [[[50, 50, 178], [178] * 3, [178, 50, 50]]]
    pale = np.asarray(plot.overlay(under, np.zeros((1, 3))))
    assert pale.tolist() == [[[154] * 3] * 3]              # 0.65 * 100 + 0.35 * 255 = 154.25
    one_side = np.asarray(plot.overlay(under, values, alpha=1, grey=False, percentile=100, cmap="reds"))
    assert one_side.tolist() == [[[100] * 3, [100] * 3, RED]]


def test_overlay_of_another_size(images: np.ndarray) -> None:
    coarse = np.zeros((8, 8))
    coarse[0, 0] = 3.0
    laid = plot.overlay(Image.fromarray(images[0]), coarse, grey=False)
    assert laid.size == (64, 64)
    changed = (np.asarray(laid).astype(int) - images[0]).any(axis=2)
    assert changed[:4, :4].all()
    assert not changed[16:, 16:].any()
    for wrong, message in (
        ({'picture': images[0].astype(np.float32)}, "must be a PIL image or a uint8 array"),
        ({'picture': images[0].transpose(2, 0, 1)}, "has shape"),
        ({'r': np.zeros((1, 8, 8))}, "a map"),
        ({'alpha': 1.5}, "alpha=1.5"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            plot.overlay(**{"picture": images[0], "r": coarse, **wrong})


# ---- sheets ------------------------------------------------------------------------------------------------------------------------------


def test_a_sheet_holds_its_maps_where_they_belong() -> None:
    """Without titles the layout is a matter of arithmetic: margin 20, cells of 64, gap 8."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 64, 64))
    drawn = plot.sheet([a, b], cell=64, pixels=1, scale="all", bar=False)
    assert drawn.image.size == (20 + 64 + 8 + 64 + 20, 20 + 3 * 64 + 2 * 8 + 20)
    limit = plot.heat_limit(np.stack([a, b]))
    pixels = np.asarray(drawn.image)
    for j, column in enumerate((a, b)):
        for i, values in enumerate(column):
            y, x = 20 + i * 72, 20 + j * 72
            inner = pixels[y + 1 : y + 63, x + 1 : x + 63]  # inside of the frame
            assert (inner == plot.heat_colours(values, limit=limit)[1:63, 1:63]).all()


@pytest.mark.parametrize("scale", ["each", "row", "column", "all", 2.5])
def test_scales(scale: Any) -> None:
    maps = np.zeros((2, 2, 30, 30))
    maps[0, 0], maps[0, 1], maps[1, 0], maps[1, 1] = 1.0, 2.0, 4.0, 8.0   # [column, sample]
    drawn = np.asarray(plot.sheet(list(maps), cell=30, pixels=1, scale=scale, bar=False).image)
    below = 16 if scale == "each" else 0
    found = [[drawn[20 + i * (38 + below) + 15, 20 + j * 38 + 15].tolist() for j in range(2)] for i in range(2)]
    limits = {"each": [[1, 4], [2, 8]], "row": [[4, 4], [8, 8]], "column": [[2, 8], [2, 8]], "all": [[8, 8], [8, 8]]}
    top = limits.get(scale, [[2.5, 2.5], [2.5, 2.5]])
    assert found == [[plot.heat_colours(maps[j, i, 0, 0], limit=float(top[i][j])).tolist() for j in range(2)] for i in range(2)]


def test_sheets_of_many_kinds(r: Attribution, images: np.ndarray) -> None:
    whole = plot.sheet({"LRP": r, "other": r.heatmap()}, pictures=list(images), rows=["a", "b", HOSTILE], title="Título 标题", over=True)
    assert whole.about == "3 x 2 maps"
    assert whole.scale == 2
    text = plot.sheet(np.ones((2, 7)), cell=200, columns=["words"], cmap="hot")
    assert text.image.height < whole.image.height
    wide = plot.sheet(np.ones((1, 10, 40)), cell=40, pixels=1, scale=1.0, bar=False)
    assert wide.image.size == (80, 50)                    # 40 x 10 in the margins
    again = plot.sheet({"LRP": r, "other": r.heatmap()}, pictures=list(images), rows=["a", "b", HOSTILE], title="Título 标题", over=True)
    assert again.image.tobytes() == whole.image.tobytes()


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        (np.zeros((2, 3, 8, 8)), {}, r"has shape \(2, 3, 8, 8\): maps are .* sum relevance over channels first"),
        (np.zeros(4), {}, "has shape"),
        ([], {}, "maps is empty"),
        ({"a": np.full((1, 2, 2), np.nan)}, {}, "a holds 4 NaN"),
        ([np.zeros((2, 4, 4)), np.zeros((3, 4, 4))], {}, r"maps\[1\] has 3 samples, the first column has 2"),
        (np.zeros((2, 4, 4)), {"rows": ["a"]}, "rows has 1 entries for 2 rows"),
        (np.zeros((2, 4, 4)), {"columns": ["a", "b"]}, "columns has 2 titles for 1"),
        ({"a": np.zeros((2, 4, 4))}, {"columns": ["b"]}, "a mapping has its own names"),
        (np.zeros((2, 4, 4)), {"over": True}, "pass pictures="),
        (np.zeros((2, 4, 4)), {"scale": "both"}, "scale='both': must be one of each, row"),
        (np.zeros((2, 4, 4)), {"scale": 0.0}, "scale=0.0"),
        (np.zeros((2, 4, 4)), {"cell": 3}, "cell=3"),
        (np.zeros((2, 0, 4)), {}, "has shape"),
    ],
)
def test_bad_sheets(maps: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot.sheet(maps, **options)


def test_drawings_are_saved_and_shown(tmp_path: Path) -> None:
    drawn = plot.sheet(np.ones((1, 8, 8)))
    for suffix in ("png", "jpg", "webp"):
        with Image.open(drawn.save(tmp_path / f"a.{suffix}")) as image:
            assert image.size == drawn.image.size
    with pytest.raises(ValueError, match=r"cannot tell a picture format from 'a.gif'"):
        drawn.save(tmp_path / "a.gif")
    data, meta = drawn._repr_mimebundle_()
    assert Image.open(io.BytesIO(data["image/png"])).size == drawn.image.size
    assert meta["image/png"]["width"] == drawn.image.width // 2
    both = plot.stack([drawn, drawn])
    assert both.image.size == (drawn.image.width, 2 * drawn.image.height)
    with pytest.raises(ValueError, match="drawings is empty"):
        plot.stack([])
    with pytest.raises(ValueError, match="different pixels"):
        plot.stack([drawn, plot.sheet(np.ones((1, 8, 8)), pixels=1)])


# ---- panels and graphs -------------------------------------------------------------------------------------------------------------------


def test_panels(images: np.ndarray) -> None:
    maps = np.random.default_rng(1).standard_normal((4, 64, 64))
    parts = [plot.Part(m, f"relu4 {k}", 0.5 - k, "a label that has to be cut " * 4, list(images) * 4) for k, m in enumerate(maps)]
    full = plot.panel(maps.sum(axis=0), parts, picture=images[0], title="why", cell=60, pixels=1)
    assert full.image.width == 20 + 6 * 68 - 8 + 20
    bare = plot.panel(maps[0], [], cell=60, pixels=1)
    assert bare.image.width == 100
    assert bare.image.height < full.image.height
    few = plot.panel(maps.sum(axis=0), parts, picture=images[0], title="why", n_examples=3, cell=60, pixels=1)
    assert few.image.height == full.image.height - 21     # one row of examples: 18 and the space of 3
    assert plot.panel(maps[0], parts, picture=images[0], over=True, scale="all").about == "4 conditional maps"
    for wrong, message in (
        ({'whole': maps}, r"whole has shape \(4, 64, 64\)"),
        ({'parts': [plot.Part(maps[0] * np.nan)]}, r"parts\[0\].heat holds 4096 NaN"),
        ({'parts': [plot.Part(maps[0], examples=[maps[0]])]}, r"parts\[0\].examples\[0\] must be a PIL image"),
        ({'over': True}, "pass picture="),
        ({'scale': "row"}, "scale='row'"),
        ({'cell': 10}, "cell=10"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            plot.panel(**{"whole": maps[0], "parts": [], **wrong})


NODES = [("c", 1, 4.0), ("b", 2, 3.0, None, "edge"), ("b", 5, -1.0), ("a", 0, 2.0), ("a", 9, 0.5)]
EDGES = [(0, 1, 3.0), (0, 2, -1.0), (("b", 2), ("a", 0), 2.0), (2, 4, -0.5)]


def test_graphs_of_all_forms(images: np.ndarray) -> None:
    plain = plot.graph(NODES, EDGES)
    assert plain.about == "graph of 5 nodes and 4 edges"
    objects = SimpleNamespace(
        nodes=[SimpleNamespace(layer=n[0], channel=n[1], score=n[2], thumbnail=None, label=n[4] if len(n) > 4 else None) for n in NODES],
        edges=[SimpleNamespace(source=NODES[0][:2], target=("b", 2), weight=3.0), *EDGES[1:]],
    )
    assert plot.graph(objects).image.tobytes() == plain.image.tobytes()
    mappings = [{"layer": n[0], "channel": n[1], "score": n[2], **({"label": n[4]} if len(n) > 4 else {})} for n in NODES]
    assert plot.graph(mappings, [{"from": 0, "to": 1, "weight": 3.0}, *EDGES[1:]]).image.tobytes() == plain.image.tobytes()
    family = [SimpleNamespace(parent=("c", 1), child=("b", 2), weight=3.0), *EDGES[1:]]
    assert plot.graph(NODES, family).image.tobytes() == plain.image.tobytes()
    beside = plot.graph(NODES, EDGES, pictures={("c", 1): images[0]}, labels={("c", 1): "star"})
    assert beside.image.tobytes() == plot.graph([(*NODES[0], images[0], "star"), *NODES[1:]], EDGES).image.tobytes()
    shown = plot.graph([(*NODES[0], images[0], "star"), *NODES[1:]], EDGES, title="graph", names={"a": "features.0"})
    assert shown.image.tobytes() != plain.image.tobytes()
    assert plot.graph([("a", 3, 0.0)], []).about == "graph of 1 nodes and 0 edges"
    for pixels in (1, 3):
        drawn = plot.graph(NODES, EDGES, pixels=pixels)
        assert abs(drawn.image.width / pixels - plain.image.width / 2) < 1


def test_edges_have_the_colour_of_their_sign() -> None:
    def most(sign: float) -> np.ndarray:
        pixels = np.asarray(plot.graph([("b", 0, 1.0), ("a", 0, 1.0)], [(0, 1, sign)], pixels=1).image).astype(int)
        middle = pixels[60:140, 160:180]                  # between the two columns
        return middle.reshape(-1, 3)[np.argmin(middle.sum(axis=2))]

    assert most(1.0)[0] > most(1.0)[2] + 50
    assert most(-1.0)[2] > most(-1.0)[0] + 50


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ([], [], "nodes is empty"),
        (NODES, None, "edges is missing"),
        ([("a", 1)], [], r"nodes\[0\] has 2 entries"),
        ([{"layer": "a", "score": 1.0}], [], r"nodes\[0\] lacks its layer, channel or score"),
        ([*NODES, ("c", 1, 0.0)], [], r"nodes\[5\]: 'c' 1 occurs twice"),
        ([("a", 1, np.nan)], [], r"the score of nodes\[0\] is nan"),
        (NODES, [(0, 1, np.inf)], r"the weight of edges\[0\] is inf"),
        (NODES, [(0, ("z", 1), 1.0)], r"edges\[0\] names \('z', 1\)"),
        (NODES, [(0, 17, 1.0)], r"edges\[0\] names 17"),
        (NODES, [(0, 1)], r"edges\[0\] has 2 entries"),
        (NODES, [(1, 2, 1.0)], "two channels of layer 'b'"),
        (NODES, [*EDGES, (3, 0, 1.0)], "go in a circle"),
        ([("a", 1, 1.0, np.zeros((3, 3)))], [], r"the picture of nodes\[0\] must be"),
    ],
)
def test_bad_graphs(nodes: Any, edges: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        plot.graph(nodes, edges)


# ---- results -----------------------------------------------------------------------------------------------------------------------------


def test_a_result_is_drawn_and_saved(r: Attribution, images: np.ndarray, tmp_path: Path) -> None:
    assert repr(r) == "Attribution('epsilon_plus_flat', input (3, 3, 64, 64), recorded relu4)"
    assert r.plot().about == "3 x 2 maps"
    assert r.plot(name="relu4", samples=[2, -1], over=True, cmap="hot").about == "2 x 1 maps"
    with Image.open(r.save(tmp_path / "r.png", samples=0)) as image:
        assert image.size == r.plot(samples=0).image.size
    with np.load(r.save(tmp_path / "r.npz"), allow_pickle=False) as kept:
        assert (kept["input"] == r.input).all()
        assert (kept["relevance:relu4"] == r["relu4"]).all()
        assert json.loads(str(kept["about"]))["composite"] == "epsilon_plus_flat"
    shown = pictures_of(r, [0, 1, 2])
    assert shown is not None
    assert all((np.asarray(a) == b).all() for a, b in zip(shown, images, strict=True))   # preprocessing undone
    with pytest.raises(TypeError, match="options are for pictures"):
        r.save(tmp_path / "r.npz", over=True)
    with pytest.raises(ValueError, match="samples: 3 is not one of the 3"):
        r.plot(samples=3)
    with pytest.raises(ValueError, match="samples is empty"):
        r.plot(samples=[])
    with pytest.raises(KeyError, match="was not recorded"):
        r.plot(name="relu1")


def test_what_is_known_of_samples(r: Attribution) -> None:
    known = facts(r, 0)
    k = int(r.output[0].argmax())
    assert (known.target, known.label) == (k, load_network().labels[k])
    assert known.output == pytest.approx(float(r.output[0, k]))
    assert known.started == pytest.approx(known.output)
    assert known.arrived == pytest.approx(float(r.input[0].sum()), rel=1e-4)
    assert known.line.startswith(known.label)
    start = np.array([[-0.5, 1.0, -0.5], [0.0, -2.0, 0.0], [0.3, 0.7, 0.0]])
    other = SimpleNamespace(start=start, output=start * 2, input=np.ones((3, 1, 2, 2)))
    assert [facts(other, i).target for i in range(3)] == [1, 1, None]          # contrastive, a negative logit, a mixture
    assert facts(other, 2).line == "sum 1.000"
    unscaled = SimpleNamespace(x=np.array([[[[0.0, 5.0], [10.0, 10.0]]]]), net=None)
    assert np.asarray(pictures_of(unscaled, [0])[0])[..., 0].tolist() == [[0, 128], [255, 255]]
    assert pictures_of(SimpleNamespace(x=np.zeros((1, 4, 2, 2)), net=None), [0]) is None
    assert pictures_of(SimpleNamespace(), [0]) is None


def test_a_result_shows_itself(r: Attribution) -> None:
    text = r._repr_html_()
    found = checked_html(text)
    assert found.tags.count("img") == 6                   # a picture and a map each
    known = facts(r, 1)
    assert known.line in text
    assert "ZPlus" in text
    assert "relu4" in text
    assert "prefers" not in text                          # colours are inherited: no scheme is assumed
    assert len(text) < 200_000


def test_hostile_names_and_lost_numbers_in_html(r: Attribution) -> None:
    from dataclasses import replace

    composite = replace(r.composite, name=HOSTILE)
    broken = replace(r, composite=composite, net=SimpleNamespace(labels=[HOSTILE] * 8, preprocess=None))
    checked_html(broken._repr_html_())
    lost = replace(r, input=np.full_like(r.input, np.nan))
    text = lost._repr_html_()
    checked_html(text)
    assert "r.ledger() says where they arise" in text
    flat = replace(r, input=r.input.reshape(3, -1))
    assert checked_html(flat._repr_html_()).tags.count("img") == 0
    words = replace(r, input=r.input.reshape(3, 64, -1))
    assert checked_html(words._repr_html_()).tags.count("img") >= 3
    unknown = replace(r, x=None, net=None)
    assert checked_html(unknown._repr_html_()).tags.count("img") == 3
    with pytest.raises(ValueError, match="knows none"):
        unknown.plot(over=True)


def test_a_ledger_shows_itself(r: Attribution) -> None:
    found = r.ledger()
    text = found._repr_html_()
    checked_html(text)
    assert "conv2" in text
    assert "sl-plus" in text
    made = Ledger([Entry(HOSTILE, "dense", HOSTILE, 10.0, 6.0, bias=5.0, degenerate=-1.0, magnitude=12.0, degenerate_rows=3),
                   Entry("moved", "flatten", "Pass()", 6.0, 6.0, magnitude=6.0),
                   Entry("lost", "dense", "Zero()", np.nan, 1.0)], started=10.0, arrived=6.0)  # fmt: skip
    text = made._repr_html_()
    checked_html(text)
    assert text.count("<tr>") == 1 + 3                    # head, two nodes, the whole; "moved" kept nothing
    assert 'class="sl-plus" style="width:50.0%"' in text
    assert 'class="sl-minus" style="width:10.0%"' in text
    checked_html(Ledger()._repr_html_())


def test_tokens() -> None:
    text = plot.tokens([1.0, -2.0, 0.0], [HOSTILE, " was", "\n"], titles=["<i>"])
    checked_html(text)
    assert text._repr_html_() == text
    assert "rgba(214,48,40,0.300)" in text
    assert "rgba(52,116,200,0.600)" in text
    assert "rgba(52,116,200,0.000)" in text
    two = plot.tokens([[1.0, 9.0], [4.0, 0.0]], [["a"], ["b", "c"]], scale="all")     # the 9 is padding
    assert "rgba(214,48,40,0.150)" in two
    assert "9.000" not in two
    for values, words, options, message in (
        ([1.0], ["a", "b"], {}, r"words\[0\] has 2 tokens for 1 values"),
        ([[1.0]], [["a"], ["b"]], {}, "do not fit 2 texts"),
        ([np.nan], ["a"], {}, "values holds 1 NaN"),
        ([1.0], ["a"], {"titles": ["a", "b"]}, "titles has 2"),
        ([1.0], ["a"], {"scale": "row"}, "scale='row'"),
    ):
        with pytest.raises(ValueError, match=message):
            plot.tokens(values, words, **options)


# ---- axes --------------------------------------------------------------------------------------------------------------------------------


def test_axes_without_pyplot() -> None:
    pytest.importorskip("matplotlib")
    script = """
import sys, numpy as np, semanticlens as sl
from semanticlens.demo import pictures
from semanticlens.demo.explore import load_network
from semanticlens.plot import attribution as plot
net = load_network()
x = np.stack([net.preprocess(p) for p in pictures.generate(2, 5).pixels])
r = sl.attribute(net, x, target=3)
r.plot(), r._repr_html_(), r.ledger()._repr_html_()
assert "matplotlib" not in sys.modules
from matplotlib.figure import Figure
from matplotlib import rcParams
before = rcParams.copy()
figure = Figure()
axes = figure.subplots(1, 2)
assert r.plot(axes, samples=[0, 1], scale="all", bar=True) is axes
one = Figure().subplots()
assert r.plot(one, over=True, cmap="hot") is one
image = axes[0].get_images()[0]
assert image.get_clim()[0] == -image.get_clim()[1] == axes[1].get_images()[0].get_clim()[0]
v = np.array([-1.0, 0.0, 0.5, 2.0]) * image.get_clim()[1]
assert abs(image.to_rgba(v, bytes=True)[:, :3].astype(int) - plot.heat_colours(v, limit=image.get_clim()[1])).max() <= 1
assert len(figure.axes) == 4 and axes[0].get_title()
drawn = plot.graph([("a", 1, 1.0)], [])
assert drawn.on(one) is one
figure.savefig(__import__("io").BytesIO())
assert "matplotlib.pyplot" not in sys.modules and rcParams.copy() == before
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=Path(__file__).resolve().parents[1])


def test_bad_axes(r: Attribution) -> None:
    with pytest.raises(TypeError, match="ax must be axes of matplotlib"):
        r.plot("here")
    figure = pytest.importorskip("matplotlib.figure").Figure()
    with pytest.raises(ValueError, match="ax holds 2 axes for 3 samples"):
        r.plot(figure.subplots(1, 2))
    with pytest.raises(TypeError, match="title: not for axes"):
        r.plot(figure.subplots(), title="x")
    with pytest.raises(TypeError, match="ax must be axes of matplotlib"):
        plot.sheet(np.ones((1, 8, 8))).on(figure)
