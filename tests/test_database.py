"""ConceptDB: building, keeping, searching, labelling, scoring, refusing."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import semanticlens as sl
from semanticlens._reference import lens as twin
from semanticlens.encoders import Arrays, Callable
from semanticlens.lens import embed

N, D = 60, 12
RNG = np.random.default_rng(0)
VECTORS = (RNG.standard_normal((N, D)) + 0.2).astype(np.float32)
WORDS = ["dog", "striped", "red", "a dog", "a striped", "a red", "a ", "dog texture", "striped texture", "red texture", " texture", ""]
TEXTS = dict(zip(WORDS, (RNG.standard_normal((len(WORDS), D)) + 0.2).astype(np.float32), strict=True))
TEMPLATES = ["a {}", "{} texture"]
LABELS = np.arange(N) % 3


def pictures(n=N, seed=5):
    return np.random.default_rng(seed).integers(0, 255, (n, 40, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def images():
    return sl.data.ImageArray(pictures(), labels=LABELS, class_names=["cat", "dog", "ox"], name="toys")


def batches(acts, size=16):
    """What a pipeline that runs its network elsewhere streams in."""
    n = len(next(iter(acts.values())))
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n)), {name: a[start : start + size] for name, a in acts.items()}


@pytest.fixture(scope="module")
def activations():
    rng = np.random.default_rng(1)
    first = rng.standard_normal((N, 9)).astype(np.float32)
    first[:, 4] = -np.abs(first[:, 4]) - 1  # never above 0: dead
    return {"conv.1": first, "conv.2": rng.random((N, 5)).astype(np.float32)}


@pytest.fixture(scope="module")
def examples(activations, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sl.collect(batches(activations), images, top=6, labels=LABELS)


@pytest.fixture(scope="module")
def encoder():
    return Arrays(images=VECTORS, texts=TEXTS, name="toy clip")


@pytest.fixture(scope="module")
def db(examples, images, encoder):
    return sl.ConceptDB.build(examples, images, encoder)


# ---------------------------------------------------------------- building


def test_contents(db, examples, encoder):
    assert db.layers == ("conv.1", "conv.2")
    assert list(db) == ["conv.1", "conv.2"]
    for name, layer in db.items():
        assert np.array_equal(layer.ids, examples[name].ids)
        assert np.array_equal(layer.example_scores, examples[name].scores)
        expected = VECTORS[layer.ids].astype(float).mean(1)
        expected[layer.dead] = np.nan
        np.testing.assert_allclose(layer.vectors, expected, rtol=1e-5, atol=1e-6)
        assert layer.class_affinity.shape == (len(layer), 3)
    used = np.unique(np.concatenate([layer.ids.ravel() for layer in db.values()]))
    assert np.array_equal(db.sample_ids, used)
    assert np.array_equal(db.embeddings, VECTORS[used])
    assert db["conv.1"].dead.tolist() == [k == 4 for k in range(9)]
    assert db.class_names == ("cat", "dog", "ox")
    assert db.encoder is encoder
    assert db["conv.1"].examples(2).tolist() == examples["conv.1"].ids[2].tolist()


def test_record_says_what_made_it(db, images, encoder):
    assert db.record["encoder"] == {"name": "toy clip", "dim": D, "fingerprint": encoder.fingerprint}
    assert db.record["data"]["fingerprint"] == images.fingerprint
    assert db.record["data"]["name"] == "toys"
    assert db.record["version"] == sl.__version__
    assert db.record["examples"]["parameters"]["top"] == 6
    assert [layer["name"] for layer in db.record["layers"]] == ["conv.1", "conv.2"]
    json.dumps(db.record, allow_nan=False)


def test_every_picture_is_encoded_once(examples, images):
    seen = []

    def encode(batch):
        seen.extend(np.asarray(p).tobytes() for p in batch)
        return np.stack([np.asarray(p, np.float32).mean((0, 1)) for p in batch])

    db = sl.ConceptDB.build(examples, images, Callable(images=encode, dim=3, name="mean colour"), batch_size=7)
    assert len(seen) == len(set(seen)) == len(db.sample_ids) <= N
    np.testing.assert_allclose(db.embeddings, pictures()[db.sample_ids].mean((1, 2)), rtol=1e-5)


def test_thumbnails(db, images, examples, encoder):
    some = int(db.sample_ids[3])
    small = db.thumbnail(some)
    assert small.size == (30, 40)  # smaller than 96 already
    assert np.corrcoef(np.asarray(small).ravel(), pictures()[some].ravel())[0, 1] > 0.6
    assert db.thumbnail(10**6) is None
    assert db.thumbnail(-1) is None
    tiny = sl.ConceptDB.build(examples, images, encoder, thumbnails=10)
    assert max(tiny.thumbnail(some).size) == 10
    none = sl.ConceptDB.build(examples, images, encoder, thumbnails=0)
    assert none.thumbnail(some) is None
    without = sl.ConceptDB.build(examples, None, encoder)  # precomputed vectors need no pictures
    assert without.thumbnail(some) is None
    assert np.array_equal(without["conv.1"].vectors, db["conv.1"].vectors, equal_nan=True)


def test_options_of_the_concept_vectors(examples, images, encoder, db):
    unit = sl.ConceptDB.build(examples, images, encoder, normalize_examples=True)["conv.2"]
    rows = VECTORS[unit.ids]
    np.testing.assert_allclose(unit.vectors, (rows / np.linalg.norm(rows, axis=2, keepdims=True)).mean(1), rtol=1e-5, atol=1e-6)
    weighted = sl.ConceptDB.build(examples, images, encoder, weighting="scores")["conv.2"]
    w = weighted.example_scores[:, :, None]
    np.testing.assert_allclose(weighted.vectors, (w * rows).sum(1) / w.sum(1), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="weighting='other'"):
        sl.ConceptDB.build(examples, images, encoder, weighting="other")


def test_unusable_embeddings_warn_once_and_are_left_out(examples, images):
    vectors = VECTORS.copy()
    used = np.unique(examples["conv.2"].ids)
    vectors[used[:2]] = [[np.nan], [0]]
    with pytest.warns(sl._errors.SkippedDataWarning, match=r"2 of .* pictures have no usable vector in encoder 'holes'") as caught:
        db = sl.ConceptDB.build(examples, images, Arrays(images=vectors, name="holes"))
    assert len(caught) == 1
    for k, row in enumerate(db["conv.2"].ids):
        np.testing.assert_allclose(db["conv.2"].vectors[k], vectors[[i for i in row if i not in used[:2]]].mean(0), rtol=1e-5, atol=1e-6)


def test_no_finite_embedding_at_all_is_an_error(examples, images):
    with pytest.raises(sl.DataError, match=r"the vectors of all \d+ pictures in encoder 'holes' hold NaN"):
        sl.ConceptDB.build(examples, images, Arrays(images=np.full_like(VECTORS, np.nan), name="holes"))


# ---------------------------------------------------------------- keeping


def test_round_trip_is_byte_identical(db, tmp_path, encoder, images):
    db.save(tmp_path / "a.sldb")
    db.save(tmp_path / "b.sldb")
    loaded = sl.ConceptDB.load(tmp_path / "a.sldb", encoder=encoder, images=images)
    loaded.save(tmp_path / "c.sldb")
    content = (tmp_path / "a.sldb").read_bytes()
    assert content == (tmp_path / "b.sldb").read_bytes() == (tmp_path / "c.sldb").read_bytes()
    assert loaded.record == json.loads(json.dumps(db.record))
    assert loaded.images is images
    for name in db:
        for field, value in db[name].arrays().items():
            assert np.array_equal(loaded[name].arrays()[field], value, equal_nan=value.dtype.kind == "f")
    assert loaded.search("dog").to_dict() == db.search("dog").to_dict()
    assert loaded.scores().to_dict() == db.scores().to_dict()
    assert loaded.thumbnail(int(db.sample_ids[0])).tobytes() == db.thumbnail(int(db.sample_ids[0])).tobytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_works_without_encoder_and_pictures(db, tmp_path):
    db.save(tmp_path / "a.sldb")
    shutil.move(tmp_path / "a.sldb", tmp_path / "moved.sldb")
    alone = sl.ConceptDB.load(tmp_path / "moved.sldb")
    assert alone.encoder is None
    assert alone.search(TEXTS["dog"]).to_dict()["hits"][0]["score"] == db.search("dog")[0].score
    assert alone.label({"dog": TEXTS["dog"]})["conv.2", 0].candidates[0][0] == "dog"
    with pytest.raises(sl.DataError, match=r"needs the encoder .*ConceptDB.load\(path, encoder=...\)"):
        alone.search("dog")
    with pytest.raises(sl.DataError, match="needs the encoder"):
        alone.search(Image.new("RGB", (4, 4)))
    fingerprint = alone.record["encoder"]["fingerprint"]
    alone.attach(Arrays(texts=TEXTS, fingerprint=fingerprint))
    assert alone.search("dog").to_dict() == db.search("dog").to_dict()


def test_another_encoder_is_refused_with_both_names(db, examples, images, tmp_path):
    other = Arrays(images=VECTORS + 1, texts=TEXTS, name="second clip")
    db.save(tmp_path / "a.sldb")
    message = "'second clip'.*'toy clip'|'toy clip'.*'second clip'"
    theirs = sl.ConceptDB.build(examples, images, other)
    for refused in (
        lambda: sl.ConceptDB.load(tmp_path / "a.sldb", encoder=other),
        lambda: db.attach(other),
        lambda: db.merge(theirs),
        lambda: db.similarity(theirs),
        lambda: db.extend(examples, images, encoder=other),
    ):
        with pytest.raises(sl.MismatchError, match=message):
            refused()
    same_name = Arrays(images=VECTORS + 1, texts=TEXTS, name="toy clip")  # names are not trusted
    with pytest.raises(sl.MismatchError, match="not the one the database was made with"):
        db.attach(same_name)


def test_another_data_set_is_refused(db, examples, encoder, tmp_path):
    others = sl.data.ImageArray(pictures(seed=6), name="others")
    with pytest.raises(sl.MismatchError, match=r"'toys'.*'others'"):
        sl.ConceptDB.build(examples, others, encoder)
    with pytest.raises(sl.MismatchError, match=r"'others' is not the one .* 'toys'"):
        db.attach(images=others)


def test_extending_and_merging(activations, images, encoder, db, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [sl.collect(batches({name: a}), images, top=6, labels=LABELS) for name, a in activations.items()]
    first = sl.ConceptDB.build(parts[0], images, encoder)
    both = first.extend(parts[1])
    merged = first.merge(sl.ConceptDB.build(parts[1], images, encoder))
    for made in (both, merged):
        assert made.layers == db.layers
        assert np.array_equal(made.sample_ids, db.sample_ids)
        assert np.array_equal(made.embeddings, db.embeddings)
        assert made.search("dog").to_dict() == db.search("dog").to_dict()
        some = int(db.sample_ids[-1])
        assert made.thumbnail(some).tobytes() == db.thumbnail(some).tobytes()
        made.save(tmp_path / "m.sldb")
        assert sl.ConceptDB.load(tmp_path / "m.sldb").layers == db.layers
    with pytest.raises(sl.MismatchError, match=r"'conv.1' is in both"):
        first.merge(first)
    with pytest.raises(sl.MismatchError, match="different settings"):
        first.merge(sl.ConceptDB.build(parts[1], images, encoder, thumbnails=0))


def damaged(path, target, edit):
    data = bytearray(path.read_bytes())
    edit(data)
    target.write_bytes(data)
    return target


def test_damaged_files_are_refused(db, tmp_path):
    good = tmp_path / "good.sldb"
    db.save(good)
    size = good.stat().st_size
    rng = np.random.default_rng(0)
    for cut in [0, 5, 100, size // 2, size - 1]:
        with pytest.raises(sl.ModelFileError):
            sl.ConceptDB.load(damaged(good, tmp_path / "cut.sldb", lambda d, cut=cut: d.__delitem__(slice(cut, None))))
    for at in rng.integers(0, size, 60):

        def flip(d, at=int(at)):
            d[at] ^= 1 << int(rng.integers(8))

        bad = damaged(good, tmp_path / "bad.sldb", flip)
        try:
            loaded = sl.ConceptDB.load(bad)
        except sl.ModelFileError:
            continue
        assert loaded.record == json.loads(json.dumps(db.record))  # only padding of the header may change unnoticed
    with pytest.raises(FileNotFoundError):
        sl.ConceptDB.load(tmp_path / "none.sldb")


def rewritten(db, path, *, record=None, **arrays):
    """A file with a right hash and wrong content, as only malice or a bug would make it."""
    from semanticlens.io import read_tensors, write_tensors
    from semanticlens.lens import store

    db.save(path)
    file = read_tensors(path)
    content = {**{k: np.array(v) for k, v in file.items()}, **arrays}
    content = {k: v for k, v in content.items() if v is not None}
    text = json.dumps({**db.record, **(record or {})})
    write_tensors(path, content, {"format": store.FORMAT, "schema": store.SCHEMA, "record": text, "sha256": store._digest(content, text)})
    return path


def test_inconsistent_files_are_refused(db, tmp_path):
    ids = np.array(db["conv.1"].ids)
    wrong = ids.copy()
    wrong[0, 0] = 10**9
    cases = [
        ({"layer.0.ids": wrong}, "an example id is not among the samples"),
        ({"layer.0.ids": ids.astype(np.int32)}, "int32 with 2 dimensions instead of int64"),
        ({"layer.0.counts": np.full(9, 99)}, "counts outside 0..6"),
        ({"layer.0.vectors": np.zeros((9, 3), np.float32)}, "vectors has shape"),
        ({"layer.0.dead": None}, "'layer.0.dead' is missing"),
        ({"embeddings": np.zeros((3, D), np.float32)}, "embeddings have shape"),
        ({"sample_ids": np.array(db.sample_ids)[::-1].copy()}, "not ascending"),
        ({"thumbnail_offsets": np.zeros(len(db.sample_ids) + 1, np.int64)}, "thumbnail offsets"),
        ({"layer.7.ids": ids}, "unknown arrays"),
        ({"layer.0.class_affinity": np.zeros((2, 3), np.float32)}, "class_affinity has 2 rows"),
        ({"record": {"layers": [{"name": "x"}, {"name": "x"}]}}, "layer names"),
        ({"record": {"encoder": {}}}, "name"),
        ({"record": {"layers": 3}}, "not a consistent concept database"),
    ]
    for change, message in cases:
        with pytest.raises(sl.ModelFileError, match=message):
            sl.ConceptDB.load(rewritten(db, tmp_path / "x.sldb", **change))
    from semanticlens.io import write_tensors

    write_tensors(tmp_path / "x.sldb", {}, {"format": "semanticlens-network"})
    with pytest.raises(sl.ModelFileError, match="not a concept database"):
        sl.ConceptDB.load(tmp_path / "x.sldb")
    write_tensors(tmp_path / "x.sldb", {}, {"format": "semanticlens-concepts", "schema": "99", "record": "{}"})
    with pytest.raises(sl.ModelFileError, match="schema '99'; this version reads '1'"):
        sl.ConceptDB.load(tmp_path / "x.sldb")


@pytest.mark.parametrize("stop_at", [1, 2, 5])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_build_resumes_to_the_same_bytes(examples, images, tmp_path, monkeypatch, stop_at, error):
    monkeypatch.setattr(embed, "CHECKPOINT_SECONDS", 0.0)
    calls = []

    def encode(batch, fail=True):
        calls.append(len(batch))
        if fail and len(calls) == stop_at:
            raise error("stopped")
        return np.stack([np.asarray(p, np.float32).mean((0, 1)) for p in batch])

    def build(fail, checkpoint=None):
        encoder = Callable(images=lambda batch: encode(batch, fail), dim=3, name="mean colour")
        return sl.ConceptDB.build(examples, images, encoder, batch_size=5, checkpoint=checkpoint)

    state = tmp_path / "state"
    with pytest.raises(error, match="stopped"):
        build(True, state)
    assert state.exists() == (stop_at > 1)
    calls.clear()
    resumed = build(False, state)
    assert sum(calls) == len(resumed.sample_ids) - 5 * (stop_at - 1)
    assert not state.exists()
    resumed.save(tmp_path / "a")
    build(False).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def stopping(after, name):
    left = iter(range(after))

    def encode(batch):
        if next(left, None) is None:
            raise RuntimeError("stop")
        return np.ones((len(batch), 3))

    return Callable(images=encode, dim=3, name=name)


def test_a_checkpoint_of_another_run_is_refused(examples, images, db, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "CHECKPOINT_SECONDS", 0.0)
    state = tmp_path / "state"
    db.save(state)
    with pytest.raises(sl.MismatchError, match="not a checkpoint"):
        sl.ConceptDB.build(examples, images, stopping(9, "one"), checkpoint=state)
    state.unlink()
    with pytest.raises(RuntimeError, match="stop"):
        sl.ConceptDB.build(examples, images, stopping(2, "one"), batch_size=5, checkpoint=state)
    with pytest.raises(sl.MismatchError, match="checkpoint of another run"):
        sl.ConceptDB.build(examples, images, stopping(99, "two"), batch_size=5, checkpoint=state)


KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
import semanticlens as sl
from semanticlens.encoders import Callable
from semanticlens.lens import embed
import test_database as t

embed.CHECKPOINT_SECONDS = 0.0
folder = sys.argv[2]

def encode(batch):
    time.sleep(0.004)
    return np.stack([np.asarray(p, np.float32).mean((0, 1)) for p in batch])

def build(name, checkpoint):
    images = sl.data.ImageArray(t.pictures(), name="toys")
    encoder = Callable(images=encode, dim=3, name="mean colour")
    sl.ConceptDB.build(t.fake_examples(m=10, K=20), images, encoder, batch_size=2, checkpoint=checkpoint).save(f"{folder}/{name}")

rng, killed = random.Random(0), 0
for attempt in range(20):
    child = os.fork()
    if child == 0:
        build("a", f"{folder}/state")
        os._exit(0)
    time.sleep(rng.uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
build("a", f"{folder}/state")
build("b", None)
print(killed)
"""


def test_killed_at_twenty_moments_and_the_same_bytes(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) >= 10  # later attempts may have finished before the blow
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert not (tmp_path / "state").exists()


# ---------------------------------------------------------------- asking


def by_hand(db, query):
    found = []
    for name in db:
        for k, vector in enumerate(db[name].vectors.astype(float)):
            if not db[name].dead[k]:
                found.append((-(query @ vector) / np.linalg.norm(query) / np.linalg.norm(vector), db.layers.index(name), k))
    return [(db.layers[i], k, -s) for s, i, k in sorted(found)]


def test_search_ranks_all_layers_together(db):
    expected = by_hand(db, TEXTS["dog"].astype(float))
    hits = db.search("dog", top=50)
    assert len(hits) == 13  # 14 components, one dead
    assert [(h.layer, h.component) for h in hits] == [(layer, k) for layer, k, _ in expected]
    np.testing.assert_allclose([h.score for h in hits], [s for _, _, s in expected], atol=1e-6)
    assert [h.rank for h in hits] == list(range(1, 14))
    assert [h.component for h in db.search("dog", top=2)] == [k for _, k, _ in expected[:2]]
    assert {h.layer for h in db.search("dog", layers="conv.2")} == {"conv.2"}
    assert all(h.score > 0.1 for h in db.search("dog", threshold=0.1))
    best = hits[0]
    assert np.array_equal(best.ids, db[best.layer].ids[best.component])
    assert best.classes[0][1] == np.nanmax(db[best.layer].class_affinity[best.component])
    assert hits.scores["conv.1"].shape == (1, 9)
    assert np.isnan(hits.scores["conv.1"][0, 4])


def test_many_queries_and_many_templates(db):
    """Defect 1 of the published package: the vectors of different queries are mixed up."""
    queries = ["dog", "striped", "red"]
    for null in ("auto", "none", "vector", "score"):
        together = db.search(queries, top=20, templates=TEMPLATES, null=null)
        for query in queries:
            alone = db.search(query, top=20, templates=TEMPLATES, null=null)
            assert [h.to_dict() for h in together.of(query)] == [h.to_dict() for h in alone]
    expected = np.mean([TEXTS["a red"].astype(float) - TEXTS["a "], TEXTS["red texture"].astype(float) - TEXTS[" texture"]], axis=0)
    found = db.search(queries, top=20, templates=TEMPLATES)
    assert found.null == "vector"
    np.testing.assert_allclose([h.score for h in found.of("red")], [s for _, _, s in by_hand(db, expected)], atol=1e-6)


def test_null_modes(db):
    vectors = db["conv.2"].vectors

    def cosine(query):
        return twin.cosine(np.atleast_2d(query).astype(np.float32), vectors)[0]

    def scores(**options):
        return db.search("dog", layers="conv.2", **options).scores["conv.2"][0]

    mean = np.mean([TEXTS["a dog"], TEXTS["dog texture"]], axis=0)
    np.testing.assert_allclose(scores(), cosine(TEXTS["dog"]), atol=1e-6)
    np.testing.assert_allclose(scores(null="vector"), cosine(TEXTS["dog"] - TEXTS[""]), atol=1e-6)
    np.testing.assert_allclose(scores(null="score"), cosine(TEXTS["dog"]) - cosine(TEXTS[""]), atol=1e-6)
    np.testing.assert_allclose(scores(templates=TEMPLATES, null="none"), cosine(mean), atol=1e-6)
    np.testing.assert_allclose(scores(templates=TEMPLATES, null="score"), cosine(mean) - cosine(TEXTS[""]), atol=1e-6)
    assert db.search("dog").null == "none"
    plain, shifted = (db.label(["dog", "striped", "red"], top=3, null=null, threshold=-9) for null in ("none", "score"))
    for name in db:
        assert np.array_equal(plain[name].indices, shifted[name].indices)  # a constant per component


def test_queries_of_every_kind(db, images):
    matrix = np.stack([TEXTS["dog"], TEXTS["red"]])
    found = db.search(matrix, top=3)
    assert found.queries == ("vector 0", "vector 1")
    assert [h.component for h in found.of("vector 1")] == [h.component for h in db.search("red", top=3)]
    assert db.search({"my dog": TEXTS["dog"]}, top=1).queries == ("my dog",)
    assert db.search(TEXTS["dog"].tolist(), top=1)[0].component == db.search("dog", top=1)[0].component
    seeing = Callable(images=lambda batch: np.stack([np.asarray(p, np.float32)[:3, :4].ravel()[:D] for p in batch]), dim=D, name="pixels")
    own = sl.ConceptDB.build({name: db[name] for name in ()}, images, seeing)
    assert own.search(images[0]).hits == ()
    result = sl.ConceptDB.build(fake_examples(), images, seeing).search([images[0], images[1]], top=2)
    assert result.queries == ("2 images",)
    assert len(result) == 2


def fake_examples(m=4, K=6):
    rng = np.random.default_rng(9)

    class Layer:
        ids = np.stack([rng.choice(N, m, replace=False) for _ in range(K)])
        scores = np.sort(rng.random((K, m)).astype(np.float32))[:, ::-1]
        counts = np.full(K, m)

    return {"any": Layer()}


def test_ties_go_to_the_earlier_layer_and_the_lower_component(images, encoder):
    class Layer:
        ids = np.array([[1, 2], [3, 4], [1, 2]])
        scores = np.ones((3, 2), np.float32)
        counts = np.array([2, 2, 2])

    db = sl.ConceptDB.build({"b": Layer(), "a": Layer()}, images, encoder)
    hits = [(h.layer, h.component) for h in db.search(VECTORS[1] + VECTORS[2], top=4)]
    assert hits == [("b", 0), ("b", 2), ("a", 0), ("a", 2)]
    assert [(h.layer, h.component) for h in db.neighbours("b", 0, top=3)] == [("b", 2), ("a", 0), ("a", 2)]


def test_labels(db, tmp_path):
    vocabulary = ["dog", "striped", "red"]
    labels = db.label(vocabulary, top=2, threshold=0.1)
    for name in db:
        layer = labels[name]
        expected = twin.cosine(db[name].vectors, np.stack([TEXTS[w] for w in vocabulary]))
        assert layer.indices.shape == layer.scores.shape == (len(db[name]), 2)
        for k in range(len(layer)):
            label = labels[name, k]
            if db[name].dead[k]:
                assert label.unlabelled
                assert label.candidates == ()
                assert np.isnan(label.score)
                continue
            order = np.argsort(-expected[k])[:2]
            assert [n for n, _ in label.candidates] == [vocabulary[j] for j in order]
            assert label.unlabelled == (expected[k].max() < 0.1)
            assert label.name == (None if label.unlabelled else vocabulary[order[0]])
            assert str(label) == layer.best[k] == (label.name or "unlabelled")
    assert labels["conv.1"].names[4].tolist() == [None, None]
    labels.save(tmp_path / "labels.json")
    assert json.loads((tmp_path / "labels.json").read_text()) == json.loads(json.dumps(labels.to_dict()))
    pair = db.label((vocabulary, np.stack([TEXTS[w] for w in vocabulary])), top=2, threshold=0.1)
    assert pair.to_dict() == labels.to_dict()
    assert db.label(vocabulary, top=9)["conv.1"].indices.shape == (9, 3)
    assert db.label(["dog", "dog"])["conv.1"].vocabulary == ("dog",)


def test_scores(db):
    scores = db.scores()
    assert scores is db.scores()
    for name in db:
        layer, own = scores[name], db[name]
        live = ~own.dead
        v = VECTORS[own.ids]
        np.testing.assert_allclose(layer.clarity[live], twin.clarity(v)[0][live], rtol=1e-6)
        np.testing.assert_allclose(layer.polysemanticity[live], twin.polysemanticity(v)[0][live], rtol=1e-6)
        np.testing.assert_allclose(layer.redundancy, twin.redundancy(own.vectors)[0], atol=1e-6)
        for values in (layer.clarity, layer.polysemanticity, layer.redundancy):
            assert np.isnan(values[own.dead]).all()
        assert layer.means["clarity"] == pytest.approx(np.nanmean(layer.clarity))
    exact = db.scores(exact=True, layers="conv.2")
    assert list(exact) == ["conv.2"]
    assert exact.parameters["exact"] is True
    json.dumps(scores.to_dict(), allow_nan=False)


def test_neighbours_and_similarity(db, examples, images, encoder):
    found = db.neighbours("conv.2", 1, top=4, layers="conv.2")
    assert len(found) == 4
    assert 1 not in [h.component for h in found]
    assert found[0].score == pytest.approx(db.scores()["conv.2"].redundancy[1], abs=1e-6)
    assert found[0].component == db.scores()["conv.2"].nearest[1]
    with pytest.raises(sl.DataError, match=r"component 4 .* has no concept vector"):
        db.neighbours("conv.1", 4)
    other = sl.ConceptDB.build(examples, images, encoder, normalize_examples=True)
    there, back = db.similarity(db)["conv.1", "conv.1"]
    assert there == back == pytest.approx(1, abs=1e-6)
    assert set(db.similarity(other, layer="conv.1")) == {("conv.1", "conv.1"), ("conv.1", "conv.2")}


def test_printing(db):
    assert "13" not in repr(db.search("dog", top=1))
    assert repr(db).startswith("ConceptDB: ")
    assert "toy clip" in repr(db)
    assert "unlabelled" in repr(db.label(["dog"], threshold=2))
    assert "clarity" in repr(db.scores())
    assert repr(db["conv.1"]).startswith("LayerConcepts('conv.1', 9 components (1 dead)")
    assert "Hit(1. 'dog'" in repr(db.search("dog")[0])
    assert repr(db.search("dog", threshold=2)) == "no component scores above the threshold"


def test_notebook_forms_are_escaped(examples, images):
    pytest.importorskip("semanticlens.plot.html")
    hostile = "<script>alert(1)</script>"
    db = sl.ConceptDB.build(examples, images, Arrays(images=VECTORS, texts={hostile: TEXTS["dog"]}, name=hostile))
    for shown in (db, db.search(hostile), db.label([hostile]), db.scores()):
        text = shown._repr_html_()
        assert "<script>alert" not in text
    assert "&lt;script&gt;" in db.search(hostile)._repr_html_()
    assert "data:image/" in db.search(hostile)._repr_html_()


# ---------------------------------------------------------------- what the published package gets wrong


def test_negative_activations_get_real_examples(images, encoder):
    """Defect 3: a component that is always negative kept id -1, which embedded the last picture."""
    acts = -np.random.default_rng(2).random((N, 2)).astype(np.float32) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sl.collect(batches({"x": acts}), images, top=5)
    assert np.array_equal(found["x"].ids, np.argsort(-acts, axis=0, kind="stable")[:5].T)
    db = sl.ConceptDB.build(found, images, encoder)
    assert db["x"].dead.all()
    assert np.isnan(db["x"].vectors).all()
    assert len(db.search("dog")) == 0


def test_fewer_pictures_than_places(encoder):
    """Defect 4: empty places embedded the last picture."""
    few = sl.data.ImageArray(pictures(3), name="few")
    acts = np.array([[1, 5], [3, 4], [2, 6]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sl.collect(batches({"x": acts}), few, top=5)
    db = sl.ConceptDB.build(found, few, Arrays(images=VECTORS[:3], texts=TEXTS))
    assert db["x"].counts.tolist() == [3, 3]
    np.testing.assert_allclose(db["x"].vectors, np.repeat(VECTORS[:3].mean(0, keepdims=True), 2, axis=0), rtol=1e-5, atol=1e-6)
    assert db["x"].examples(1).tolist() == [2, 0, 1]
    np.testing.assert_allclose(db.scores()["x"].clarity, twin.clarity(VECTORS[None, :3])[0][0], rtol=1e-6)


def test_close_scores_and_nan():
    """Defect 5: stored as bfloat16, 1.000 to 1.003 tie; NaN ranked first."""
    acts = np.array([[1.0], [1.001], [1.002], [1.003], [np.nan]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sl.collect(batches({"x": acts}), top=2)
    assert found["x"].ids.tolist() == [[3, 2]]


def test_collecting_twice(activations):
    """Defect 6: a second run went on counting ids where the first had stopped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = (sl.collect(batches(activations), top=6) for _ in range(2))
    assert all(np.array_equal(first[name].ids, second[name].ids) for name in first)
    assert max(int(second[name].ids.max()) for name in second) < N


def test_results_are_keyed_by_content_not_by_name(examples, images):
    """Defect 8: encoders of one name, but other checkpoints, shared a stored database."""
    one, two = (sl.ConceptDB.build(examples, images, Arrays(images=v, name="clip")) for v in (VECTORS, 2 * VECTORS))
    assert one.record["encoder"]["name"] == two.record["encoder"]["name"]
    with pytest.raises(sl.MismatchError):
        one.merge(two)


def test_edge_values(images, encoder):
    """Defect 9: one example, zero vectors, one component."""

    class Layer:
        ids = np.array([[7]])
        scores = np.ones((1, 1), np.float32)
        counts = np.array([1])

    layer = sl.ConceptDB.build({"x": Layer()}, images, encoder).scores()["x"]
    assert np.isnan([layer.clarity[0], layer.polysemanticity[0], layer.redundancy[0]]).all()
    assert layer.nearest.tolist() == [-1]
    with pytest.warns(sl._errors.SkippedDataWarning):
        zero = sl.ConceptDB.build({"x": Layer()}, images, Arrays(images=np.zeros((N, 3), np.float32)))
    assert np.isnan(zero["x"].vectors).all()


def test_no_layers(images, encoder):
    db = sl.ConceptDB.build({}, images, encoder)
    assert db.layers == ()
    assert len(db.search("dog")) == len(db.label(["dog"])) == len(db.scores()) == 0


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda db: db["conv.9"], sl.LayerNotFoundError, "layer 'conv.9' is not in the database; nearest: conv"),
        (lambda db: db.search("dog", layers=["conv.1", "x"]), sl.LayerNotFoundError, "'x'"),
        (lambda db: db.label(["dog"])["conv.9"], sl.LayerNotFoundError, "the labels"),
        (lambda db: db.scores()["conv.9"], sl.LayerNotFoundError, "the scores"),
        (lambda db: db.search("dogs"), sl.DataError, "no vector for the text 'dogs'; nearest .*'dog'"),
        (lambda db: db.search("dog", top=0), ValueError, "top=0"),
        (lambda db: db.search("dog", null="maybe"), ValueError, "null='maybe' must be one of"),
        (lambda db: db.search("dog", templates="photo"), sl.DataError, "'photo' must be a text with the place holder"),
        (lambda db: db.search("dog", templates=[]), sl.DataError, "templates is empty"),
        (lambda db: db.search("dog", threshold=float("nan")), ValueError, "NaN"),
        (lambda db: db.search("", null="vector"), sl.NumericalError, "does not differ from the empty text"),
        (lambda db: db.search([]), sl.DataError, "query is empty"),
        (lambda db: db.search(["dog", 3]), TypeError, "a query must be a text, not int"),
        (lambda db: db.search(np.zeros((2, 3), np.float32)), sl.DataError, "length 3, but the database's have 12"),
        (lambda db: db.search(np.zeros(D, np.float32)), sl.NumericalError, "'vector 0' is NaN, infinite or of length 0"),
        (lambda db: db.search(np.full(D, np.nan, np.float32)), sl.NumericalError, "vector 0"),
        (lambda db: db.search(np.ones(D)), TypeError, "query must be float32"),
        (lambda db: db.search(np.ones((1, 1, D), np.float32)), sl.DataError, r"must have shape \(d,\) or \(Q, d\)"),
        (lambda db: db.search(np.ones(D, np.float32), templates="a {}"), sl.DataError, "apply to text queries only"),
        (lambda db: db.search(object()), TypeError, "must be text"),
        (lambda db: db.search(Image.new("RGB", (4, 4))), sl.DataError, "cannot encode a picture"),
        (lambda db: db.search("dog").of("cat"), KeyError, "'cat' was not a query"),
        (lambda db: db.label("dog"), TypeError, "is one text"),
        (lambda db: db.label([]), sl.DataError, "vocabulary is empty"),
        (lambda db: db.label(["dog"], threshold=None), ValueError, "threshold=None"),
        (lambda db: db.label((["a", "a"], np.ones((2, D), np.float32))), sl.DataError, "twice"),
        (lambda db: db.label((["a"], np.ones((2, D), np.float32))), sl.DataError, "1 names, but 2 vectors"),
        (lambda db: db.label(["dog"])["conv.1", 99], IndexError, "out of range"),
        (lambda db: db.neighbours("conv.1", 99), IndexError, "out of range"),
    ],
)
def test_bad_questions_are_named(db, call, error, message):
    with pytest.raises(error, match=message):
        call(db)


def test_bad_sources_are_named(examples, images, encoder):
    class Layer:
        ids = np.array([[1, 2]])
        scores = np.ones((1, 3), np.float32)
        counts = np.array([2])

    class Empty:
        ids = np.empty((2, 0), np.int64)
        scores = np.empty((2, 0), np.float32)
        counts = np.array([0, 0])

    class Far:
        ids = np.array([[1, 200]])
        scores = np.ones((1, 2), np.float32)
        counts = np.array([2])

    build = sl.ConceptDB.build
    seeing = Callable(images=lambda batch: np.ones((len(batch), 3)), dim=3, name="sees")
    for call, error, message in [
        (lambda: build(examples, images), TypeError, "encoder=None is not an encoder"),
        (lambda: build(examples, images, "demo"), TypeError, "is a text"),
        (lambda: build(examples, None, seeing), sl.DataError, "has to see the pictures"),
        (
            lambda: build(examples, images, Arrays(images=VECTORS[:50])),
            sl.MismatchError,
            "vectors for 50 pictures, but the data set has 60",
        ),
        (lambda: build({"x": Layer()}, images, encoder), sl.DataError, r"ids and scores must be \(K, m\)"),
        (lambda: build({"x": Empty()}, images, encoder), sl.DataError, "no examples per component"),
        (lambda: build({"x": Far()}, images, encoder), sl.MismatchError, "name picture 200, but there are only 60"),
        (lambda: build(examples, images, encoder, batch_size=0), ValueError, "batch_size=0"),
        (lambda: build(examples, images, encoder, thumbnails=-1), ValueError, "thumbnails=-1"),
        (lambda: build(examples, images, Callable(images=lambda b: np.ones((1, 3)), dim=3, name="short")), sl.DataError, "must return"),
        (lambda: build(fake_examples(), [1] * N, seeing), sl.DataError, r"images\[\d+\] is int, not a PIL picture"),
    ]:
        with pytest.raises(error, match=message):
            call()
