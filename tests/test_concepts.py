"""Relations of concepts, truth, robustness, sanity score, graph, atlas, names: on concepts that are known."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from small_database import WORDS, database, pictures

from semanticlens import DataError, MismatchError, MissingExtraError, data
from semanticlens.alignment import (
    NLMCD,
    KMeans,
    align,
    atlas,
    concept_distances,
    concept_graph,
    describe,
    ground_truth,
    one_hot,
    relations,
    robustness,
    same_samples,
    sanity_score,
)
from semanticlens.alignment.atlas import scaled, tsne
from semanticlens.alignment.concepts import hard_labels
from semanticlens.plot import atlas as drawing

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

# The alignment of the 11 blocks of a published comparison (upper triangle by row), decoded from its heat map.
PUBLISHED = """.721 .713 .707 .709 .706 .686 .667 .661 .635 .634 .766 .767 .760 .739 .705 .694 .688 .667 .665 .785 .762 .738 .702
.686 .680 .661 .658
.785 .747 .713 .696 .691 .671 .668 .784 .735 .713 .700 .682 .680 .756 .721 .709 .691 .688 .738 .724 .709 .707 .749 .741 .733 .760
.752 .778"""


def crisp(labels: np.ndarray) -> np.ndarray:
    return (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float32)


def soft(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(k + 1, 0.2), n)[:, :k].astype(np.float32)


# ---- relations


def found(P, Q, **options):
    return [(r.kind, r.p, r.q) for r in relations(P, Q, **options)]


def test_shared_split_merged_and_alone() -> None:
    a = np.repeat(np.arange(8), 40)
    b = a.copy()
    b[(a == 1) & (np.arange(320) % 2 == 0)] = 8  # 1 is split into 1 and 8
    b[a == 3] = 2  # 2 and 3 are one
    b[a == 5] = -1  # 5 is unknown to B
    a[a == 6], b = -1, np.where(a == 6, 3, b)  # 3 of B is unknown to A
    b[b > 5] -= 1
    assert set(found(crisp(a), crisp(b))) == {
        ("shared", (0,), (0,)), ("shared", (4,), (4,)), ("shared", (7,), (6,)), ("split", (1,), (1, 7)), ("merged", (2, 3), (2,)),
        ("only P", (5,), ()), ("only P", (6,), ()), ("only Q", (), (3,)), ("only Q", (), (5,)),
    }  # fmt: skip
    one = next(r for r in relations(crisp(a), crisp(b)) if r.kind == "split")
    assert one.relative == 0
    assert one.to_dict() == {"kind": "split", "p": [1], "q": [1, 7], "relative": 0.0}


def test_every_concept_is_in_one_relation() -> None:
    for seed in range(6):
        P, Q = soft(120, 7, seed), soft(120, 5, seed + 100)
        sides = list(zip(*[(r.p, r.q) for r in relations(P, Q)], strict=True))
        assert sorted(itertools.chain(*sides[0])) == list(range(7))
        assert sorted(itertools.chain(*sides[1])) == list(range(5))


def test_relations_turn_with_the_sides() -> None:
    P, Q = soft(200, 6), soft(200, 4, 1)
    Q[:, 0] = P[:, :2].sum(axis=1)
    Q[:, 1:] *= (1 - Q[:, :1]) / np.maximum(Q[:, 1:].sum(axis=1, keepdims=True), 1e-9)
    turned = {"split": "merged", "merged": "split", "only P": "only Q", "only Q": "only P", "shared": "shared"}
    here = {(r.kind, r.p, r.q, round(r.relative, 9)) for r in relations(P, Q)}
    there = {(turned[r.kind], r.q, r.p, round(r.relative, 9)) for r in relations(Q, P)}
    assert here == there
    assert ("merged", (0, 1), (0,)) in {r[:3] for r in here}


def test_a_concept_and_its_complement_are_not_shared() -> None:
    half = np.repeat([1.0, 0.0], 50).astype(np.float32)[:, None]
    assert concept_distances(half, 1 - half).relative[0, 0] == 0  # the same partition of the samples
    assert found(half, 1 - half) == [("only P", (0,), ()), ("only Q", (), (0,))]


def test_without_concepts_all_others_are_alone() -> None:
    P = crisp(np.repeat([0, 1], 10))
    assert found(P, np.zeros((20, 0))) == [("only P", (0,), ()), ("only P", (1,), ())]
    assert found(np.zeros((20, 0)), np.zeros((20, 0))) == []
    with pytest.raises(ValueError, match="three ascending numbers"):
        relations(P, P, cuts=(0.5, 0.2, 0.9))
    with pytest.raises(ValueError, match="inside=1"):
        relations(P, P, inside=1)
    with pytest.raises(DataError, match="Q has 19 rows, but P has 20"):
        relations(P, P[1:])


def planted_example(monkeypatch):
    if not EXAMPLES.is_dir():
        pytest.skip("the examples are not beside the tests")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("alignment_planted")


@pytest.mark.parametrize("seed", range(3))
def test_planted_relations_are_recovered_from_features(seed, monkeypatch) -> None:
    example = planted_example(monkeypatch)
    planted = example.planted(seed)
    assert example.reported(planted, example.compare(planted)) == planted.relations


def test_the_index_falls_with_planted_disagreement_and_cka_does_not_notice(monkeypatch) -> None:
    example = planted_example(monkeypatch)
    rows = [example.measured(share) for share in (0.0, 0.15, 0.3, 0.45, 0.6)]
    falls = [b["aci"] - a["aci"] for a, b in itertools.pairwise(rows)]
    assert max(falls) < -0.02
    assert rows[0]["aci"] - rows[-1]["aci"] > 0.4
    assert max(row["cka"] for row in rows) - min(row["cka"] for row in rows) < 0.01


def test_distances_as_a_picture() -> None:
    a = np.arange(120) % 6
    drawn = concept_distances(crisp(a), crisp((a + 1) % 6)).plot(size=320)
    assert drawn.mode == "RGB"
    assert drawn.size == (2 * 54 + 6 * 35, 2 * 54 + 6 * 35)
    centres = [drawn.getpixel((54 + 35 * i + 4, 54 + 35 * i + 4)) for i in range(6)]
    assert set(centres) == {(39, 93, 145)}  # matched concepts lie on the diagonal
    assert drawn.getpixel((54 + 39, 54 + 4)) > (200, 200, 200)
    one_more = concept_distances(crisp(a), crisp(np.arange(120) % 4))
    assert one_more.plot(relative=False, size=300).height > one_more.plot(relative=False, size=300).width
    with pytest.raises(ValueError, match="nothing to draw"):
        concept_distances(crisp(a), np.zeros((120, 0))).plot()
    with pytest.raises(ValueError, match="size=5"):
        concept_distances(crisp(a), crisp(a)).plot(size=5)


# ---- sanity score, truth, robustness


def published() -> np.ndarray:
    table = np.eye(11)
    table[np.triu_indices(11, 1)] = [float(v) for v in PUBLISHED.split()]
    return np.maximum(table, table.T)


def test_the_published_matrix_scores_ten_of_eleven() -> None:
    assert sanity_score(published()) == pytest.approx(10 / 11)
    assert sanity_score(published(), k=2) == 1.0
    before = published()
    sanity_score(before)
    assert np.array_equal(before, published())


def test_sanity_score_of_known_tables() -> None:
    near = -np.abs(np.arange(6)[:, None] - np.arange(6)).astype(float)
    assert sanity_score(near) == 1.0
    assert sanity_score(-near) == 0.0
    with pytest.raises(DataError, match="square"):
        sanity_score(np.ones((2, 3)))
    with pytest.raises(DataError, match="finite"):
        sanity_score(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="k=0"):
        sanity_score(near, k=0)


def test_ground_truth() -> None:
    classes = np.array([3, 3, 7, 7, -1, 3])
    assert np.array_equal(one_hot(classes), [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [1, 0]])
    assert ground_truth(one_hot(classes), classes).aci == 1.0
    assert ground_truth(soft(6, 2), classes).d == align(soft(6, 2), one_hot(classes)).d
    for bad in (classes[:5], classes.astype(float), classes[:, None]):
        with pytest.raises(DataError, match="6 whole numbers"):
            ground_truth(one_hot(classes), bad)


def test_robustness() -> None:
    rng = np.random.default_rng(0)
    rows = 6 * rng.standard_normal((4, 5))[np.arange(200) % 4] + 0.3 * rng.standard_normal((200, 5))
    exact = robustness(NLMCD("none", min_cluster_size=15, min_samples=4), rows, runs=2)
    assert exact.aci == 1.0
    assert exact.n_concepts == (4, 4)
    part = robustness(NLMCD("none", min_cluster_size=15, min_samples=4), rows, runs=3, share=0.8)
    assert 0.5 < part.aci < 1.0
    assert robustness(KMeans(4, n_init=2), rows, runs=2).aci > 0.99
    noise = rng.standard_normal((200, 5))
    assert robustness(KMeans(20, n_init=1, max_iter=1), noise, runs=2).aci < 0.9
    with pytest.raises(ValueError, match="runs=1"):
        robustness(KMeans(4), rows, runs=1)


# ---- the order of samples


def test_same_samples() -> None:
    ids = np.array([4, 2, 9, 2])
    same_samples(ids, ids.copy())
    with pytest.raises(
        MismatchError, match=r"B has the samples of A in another order \(2 rows differ; the first difference is row 0: 4 and 2"
    ):
        same_samples(ids, np.array([2, 4, 9, 2]))
    with pytest.raises(MismatchError, match=r"describe different samples \(1 rows differ"):
        same_samples(ids, np.array([4, 2, 8, 2]), ("A", "B"))
    with pytest.raises(MismatchError, match="B has 3 samples, but A has 4"):
        same_samples(ids, ids[:3])


# ---- descriptions


def test_examples_are_one_row_per_picture_and_members_first() -> None:
    P = np.array([[0.9, 0], [0.8, 0.1], [0.95, 0], [0, 0.9], [0.1, 0]], np.float32)
    ids = np.array([7, 7, 3, 3, 5])
    got = describe(P, sample_ids=ids, targets=[0, 0, 1, 1, -1], class_names=["cat", "dog"])
    assert [c.size for c in got] == [3, 1]
    assert [i for i, _ in got[0].examples] == [3, 7]
    assert got[0].examples[1][1] == pytest.approx(0.9)
    assert got[0].classes == (("cat", 2 / 3), ("dog", 1 / 3))
    assert got[1].classes == (("dog", 1.0),)
    assert got[0].label is None
    assert hard_labels(P).tolist() == [0, 0, 0, 1, -1]
    assert [i for i, _ in describe(P, np.array([-1, -1, -1, 1, -1]), sample_ids=ids)[0].examples] == [3, 7, 5]  # no member: all rows
    with pytest.raises(DataError, match="one entry for each of the 5 rows"):
        describe(P, sample_ids=[1, 2])


def test_concepts_get_names_from_a_database() -> None:
    db = database()
    colour = np.arange(30) % 3
    got = describe(crisp(colour), colour, db=db, vocabulary=list(WORDS[:3]))
    assert [c.label for c in got] == ["red", "green", "blue"]
    assert min(c.score for c in got) > 0.5
    assert [c.label for c in describe(crisp(colour), colour, db=db, vocabulary=list(WORDS[:3]), threshold=1.1)] == [None] * 3
    far = describe(crisp(colour), colour, sample_ids=np.arange(30) + 1000, db=db, vocabulary=list(WORDS[:3]))
    assert [c.label for c in far] == [None] * 3  # pictures the database has no vectors of
    with pytest.raises(ValueError, match="names need both"):
        describe(crisp(colour), db=db)


# ---- the graph


def test_graph_counts() -> None:
    first = np.array([0, 0, 0, 1, 1, -1])
    second = np.array([0, 0, 1, 1, 1, 1])
    got = concept_graph({"a": first, "b": second})
    assert [(e.source, e.target, e.count, round(e.share, 3)) for e in got.edges] == [(0, 0, 2, 1.0), (1, 1, 2, 0.667), (0, 1, 1, 0.333)]
    assert [s.tolist() for s in got.sizes] == [[3, 2], [2, 4]]
    assert len(concept_graph({"a": first, "b": second}, threshold=0.5).edges) == 2
    assert concept_graph({"a": crisp(first), "b": crisp(second)}).edges == got.edges
    assert concept_graph({"a": 0.6 * crisp(first), "b": crisp(second)}, soft=0.7).edges == ()
    assert got.to_dict()["layers"] == ["a", "b"]
    with pytest.raises(DataError, match="two layers of the same samples"):
        concept_graph({"a": first, "b": second[:4]})
    with pytest.raises(ValueError, match="threshold=1"):
        concept_graph({"a": first, "b": second}, threshold=1)


# ---- the atlas


def groups_of_concepts() -> np.ndarray:
    """12 concepts in three groups: those of a group have samples in common."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(3), 100)
    P = np.zeros((300, 12))
    for i, g in enumerate(group):
        P[i, 4 * g + rng.choice(4, 2, replace=False)] = 0.45
    return P.astype(np.float32)


@pytest.mark.parametrize("layout", ["tsne", "mds"])
def test_alike_concepts_lie_together(layout) -> None:
    got = atlas(groups_of_concepts(), layout=layout, groups=3)
    assert got.places.shape == (12, 2)
    assert got.places.min() >= 0
    assert got.places.max() <= 1
    assert sorted(np.bincount(got.groups).tolist()) == [4, 4, 4]
    assert len({tuple(got.groups[i : i + 4]) for i in (0, 4, 8)}) == 3
    assert np.array_equal(atlas(groups_of_concepts(), layout=layout, groups=3).places, got.places)


def test_scaling_gives_back_points_of_a_plane() -> None:
    points = np.random.default_rng(0).standard_normal((9, 2))
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    got = scaled(distance)
    assert np.linalg.norm(got[:, None] - got, axis=2) == pytest.approx(distance, abs=1e-9)
    assert np.isfinite(tsne(np.zeros((6, 6)), np.zeros((6, 2)))).all()


def test_picture_and_page(tmp_path) -> None:
    images = data.ImageArray(pictures(300), labels=np.repeat(np.arange(3), 100), class_names=["a", "<b>", "c"])
    got = atlas(groups_of_concepts(), groups=3, images=images)
    assert set(got.group_names) == {"a", "<b>", "c"}
    assert got.picture(size=400).size == (400, 400)
    page = got.page(tmp_path / "atlas.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>c" not in page.replace("<b>concept", "")
    assert page.count('<li id="concept-') == 12
    assert 'src="http' not in page
    assert atlas(groups_of_concepts()).picture().mode == "RGB"
    with pytest.raises(ValueError, match="size=10"):
        got.picture(size=10)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        got.page(tmp_path / "no" / "atlas.html")
    close = drawing._spread(np.full((5, 2), 0.5), 0.05)
    gaps = [np.abs(close[i] - close[j]).max() for i, j in itertools.combinations(range(5), 2)]
    assert min(gaps) > 0.04


def test_atlas_messages(monkeypatch) -> None:
    import sys

    P = groups_of_concepts()
    with pytest.raises(DataError, match="at least two concepts"):
        atlas(P[:, :1])
    with pytest.raises(ValueError, match="layout='circle'"):
        atlas(P, layout="circle")
    with pytest.raises(DataError, match="must be \\(12, 2\\)"):
        atlas(P, layout=np.zeros((3, 2)))
    assert atlas(P, layout=np.random.default_rng(0).random((12, 2))).places.shape == (12, 2)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"\[align\]"):
        atlas(P, layout="umap")
