"""The generated pictures, the built-in encoder, and the demo as a user runs it."""

import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from semanticlens import encoders
from semanticlens._errors import DataError, ModelFileError
from semanticlens.demo import artefact, captions, evaluate, pictures
from semanticlens.encoders import demo as demo_encoder
from semanticlens.io import read_tensors, write_tensors

# ---------------------------------------------------------------------------------------------------------------- pictures


def test_pictures_are_the_same_bytes_everywhere():
    made = pictures.generate(40, 5)
    digest = hashlib.sha256(made.pixels.tobytes() + "\n".join(made.captions).encode()).hexdigest()
    assert digest == "aa313f3ed8f52464536ce21338c80e7f15e6d4770eb281bafddfd460caf5e9fd"


def test_random_numbers_are_splitmix64():
    draws = pictures.Draws()
    assert [draws.bits() for _ in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]    # published for seed 0
    grain = pictures.Draws(3).grain(50, 40)
    assert grain.min() >= -1
    assert grain.max() < 1
    assert abs(grain.mean()) < 0.05


def test_a_picture_depends_on_its_truth_seed_and_index_only():
    made = pictures.generate(12, 7)
    again = pictures.from_truths(made.truths, 7)
    assert np.array_equal(made.pixels, again.pixels)
    assert made.captions == again.captions
    assert np.array_equal(pictures.draw(made.truths[3], 7, 3), made.pixels[3])
    assert not np.array_equal(pictures.draw(made.truths[3], 7, 4), made.pixels[3])
    assert len({p.tobytes() for p in made.pixels}) == 12


def test_attributes_are_independent_and_complete():
    made = pictures.generate(1200, 9)
    for name, values in captions.ATTRIBUTES.items():
        share = np.bincount(made.codes(name), minlength=len(values)) / len(made)
        expected = np.array([0.4, 0.2, 0.2, 0.2]) if name == "overlay" else np.full(len(values), 1 / len(values))
        assert np.abs(share - expected).max() < 0.06, name
    assert abs(np.corrcoef(made.is_value("shape", "moon"), made.is_value("overlay", "corner mark"))[0, 1]) < 0.1


@pytest.mark.parametrize("combinations", ["seen", "held-out"])
def test_held_out_combinations_stay_apart(combinations):
    made = pictures.generate(60, 11, combinations)
    assert {pictures.is_held_out(truth) for truth in made.truths} == {combinations == "held-out"}


def test_every_value_is_seen_in_training_with_others():
    shape, colour, texture = (len(captions.ATTRIBUTES[name]) for name in ("shape", "colour", "texture"))
    held = pictures.held_out_pair(*np.meshgrid(np.arange(shape), np.arange(colour), np.arange(texture), indexing="ij"))
    assert held.all(axis=2).sum() == 8
    assert held.all(axis=1).sum() == 4
    for axes in ((1, 2), (0, 2), (0, 1)):
        assert (~held).any(axis=axes).all()


def test_an_overlay_changes_its_own_pixels_only():
    plain = pictures.with_overlay(pictures.generate(20, 13), "none")
    marked = pictures.with_overlay(plain, "corner mark")
    changed = (plain.pixels != marked.pixels).any(axis=3)
    assert 0.02 < changed.mean() < 0.06
    for mask in changed:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert np.ptp(rows) < 13
        assert np.ptp(columns) < 18
        assert (rows.max() < 16 or rows.min() > 47)
        assert (columns.max() < 20 or columns.min() > 43)


def test_captions_are_true():
    """A wording belongs to one value only, and a caption mentions no wording of a value that the picture does not have."""
    owner = {text: (name, value) for name, values in captions.WORDINGS.items() for value, texts in values.items() for text in texts}
    assert len(owner) == sum(len(texts) for values in captions.WORDINGS.values() for texts in values.values())
    for i in range(400):
        truth = pictures.sample_truth(pictures.Draws(15, i))
        draws = pictures.Draws(16, i)
        names = captions.mentioned(truth, draws)
        text = captions.caption(truth, draws, names)
        for name in names:
            assert any(wording in text for wording in captions.WORDINGS[name][truth[name]]), (text, truth)
        words = set(re.findall("[a-z]+", text))
        for colour in captions.ATTRIBUTES["shape"] + captions.ATTRIBUTES["colour"]:
            name = "shape" if colour in captions.ATTRIBUTES["shape"] else "colour"
            assert colour not in words or truth[name] == colour, (text, truth)


def test_planted_artefact_sits_on_one_class():
    made = pictures.generate(400, 17, change=artefact.plant)
    mark, moon = made.is_value("overlay", artefact.ARTEFACT), made.is_value("shape", artefact.CLASS)
    assert not mark[~moon].any()
    assert 0.75 < mark[moon].mean() < 1.0


@pytest.mark.parametrize(("call", "message"), [
    (lambda: pictures.generate(-1, 0), "n must not be negative, but is -1"),
    (lambda: pictures.generate(1, 0, "new"), "combinations must be"),
    (lambda: pictures.draw({"shape": "cube"}, 0), r"truth\['shape'\] is 'cube'; known are circle"),
    (lambda: pictures.generate(1, 0).is_value("shape", "cube"), "no picture has shape = 'cube'"),
])
def test_bad_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("scores", "positive", "expected"), [
    ([0, 1, 2, 3], [0, 0, 1, 1], 1.0), ([3, 2, 1, 0], [0, 0, 1, 1], 0.0), ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
    ([0, 2, 1, 2], [0, 0, 1, 1], 0.625),
])
def test_auroc_counts_pairs(scores, positive, expected):
    assert evaluate.auroc(np.array(scores, dtype=np.float32), np.array(positive, dtype=bool)) == expected


def test_auroc_without_pairs_is_undefined():
    assert np.isnan(evaluate.auroc(np.arange(3.0), np.ones(3, dtype=bool)))


# ----------------------------------------------------------------------------------------------------------------- encoder


@pytest.fixture(scope="module")
def encoder():
    return encoders.load("demo")


def test_encoder_knows_combinations_it_never_saw(encoder):
    report = evaluate.encoder_accuracies(encoder, pictures.generate(600, 900, "held-out"))
    floors = {"shape": 0.95, "colour": 0.97, "texture": 0.82, "size": 0.97, "place": 0.97, "background": 0.97, "overlay": 0.97,
              "shape x colour": 0.95}
    assert {name for name, floor in floors.items() if report.accuracy[name] < floor} == set(), report
    assert report.mark_auroc > 0.99


def test_vectors_have_unit_length_and_do_not_depend_on_threads(encoder):
    images = [Image.fromarray(p) for p in pictures.generate(70, 21).pixels]
    one = demo_encoder.load(n_threads=1).encode_images(images)
    assert one.shape == (70, encoder.dim)
    assert one.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1.0, rtol=1e-6)
    for n_threads in (2, 3, 8):
        assert np.array_equal(demo_encoder.load(n_threads=n_threads).encode_images(images), one)
    np.testing.assert_allclose(encoder.encode_images(images[66:]), one[66:], atol=1e-6)
    texts = list(captions.vocabulary())
    assert np.array_equal(demo_encoder.load(n_threads=3).encode_texts(texts), demo_encoder.load(n_threads=1).encode_texts(texts))


def test_any_picture_can_be_encoded(encoder):
    small = Image.fromarray(pictures.generate(1, 23).pixels[0])
    odd = [small.resize((640, 200)), small.convert("L"), small.convert("RGBA"), small.resize((1, 1))]
    vectors = encoder.encode_images([small, *odd])
    assert np.isfinite(vectors).all()
    assert vectors[0] @ vectors[1] > 0.8
    assert encoder.encode_images([]).shape == (0, 64)
    assert encoder.encode_texts([]).shape == (0, 64)


@pytest.mark.parametrize("same", [("striped", "Striped"), ("red circle", "circle, RED!"), ("star", "stars"), ("cross", "crosses"),
                                  ("polka dot", "polka-dot"), ("striped", "stripe"), ("small box", "small boxes")])
def test_spelling_does_not_matter(encoder, same):
    a, b = encoder.encode_texts(list(same))
    if same[1] != "stripe":
        assert np.array_equal(a, b)
    assert a @ b > 0.9


def test_unknown_words(encoder):
    with pytest.raises(DataError, match=r"knows no word of 'sircle': 'sircle' \(nearest: circle"):
        encoder.encode_texts(["sircle"])
    with pytest.raises(DataError, match="it has no words"):
        encoder.encode_texts(["?!"])
    with pytest.warns(demo_encoder.UnknownWordWarning, match=r"left out words it does not know: 'zebra' \("):
        vectors = encoder.encode_texts(["striped zebra", "striped"])
    assert np.array_equal(vectors[0], vectors[1])
    assert np.isfinite(encoder.encode_texts([""])).all()
    with pytest.raises(TypeError, match=r"pass \['red'\]"):
        encoder.encode_texts("red")
    with pytest.raises(DataError, match="picture"):
        encoder.encode_images(["red.png"])


def test_a_damaged_or_foreign_file_is_refused(encoder, tmp_path):
    from importlib.resources import files

    asset = files("semanticlens") / "demo" / "assets" / "encoder.safetensors"
    content = bytearray(asset.read_bytes())
    assert len(content) <= 1_000_000
    content[-1000] ^= 1
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged"):
        demo_encoder.DemoEncoder(broken)
    write_tensors(tmp_path / "other.safetensors", {"x": np.zeros(2, np.float32)}, {"format": "other"})
    with pytest.raises(ModelFileError, match="not a demo encoder of version 1"):
        demo_encoder.DemoEncoder(tmp_path / "other.safetensors")
    assert {a.dtype for a in read_tensors(str(asset)).values()} == {np.dtype(np.float16)}


# -------------------------------------------------------------------------------------------------------------------- demo

RUN = """
import json, resource, sys
from semanticlens import demo
result = demo.run(sys.argv[1], progress=False, json=True, n_threads=2)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss), file=sys.stderr)
assert "torch" not in sys.modules and "matplotlib" not in sys.modules
sys.exit(result.exit_code)
"""


class _Outside(HTMLParser):
    """Collects every address a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        addresses = [value for name, value in attrs if name in ("src", "href", "data", "action") and value]
        self.found += [value for value in addresses if not value.startswith(("data:", "#"))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    page = folder / "demo.html"
    done = subprocess.run([sys.executable, "-W", "error", "-c", RUN, str(page)], capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout), int(done.stderr.strip().splitlines()[-1]), page


def test_demo_finds_the_planted_artefact(finished):
    result, _, _ = finished
    assert result["passed"]
    assert all(check["passed"] and check["value"] >= check["floor"] for check in result["checks"])
    assert (result["artefact"]["description"], result["artefact"]["class"]) == ("corner mark", "moon")
    assert result["artefact"]["label"] == "corner mark"
    clear = result["clear_components"]
    assert len(clear) >= 5
    assert np.mean([c["label"] in [name for name, _ in c["truths"]] for c in clear]) >= 0.8
    effect = result["intervention"]
    assert effect["called_the_class_with"] > effect["called_the_class_without"] + 0.1
    assert result["artefact"]["component"] in [f["component"] for f in effect["followers"] if f["paired_auroc"] >= 0.95]


def test_demo_is_quick_and_small(finished):
    result, kilobytes, _ = finished
    assert result["seconds"] < 90                     # 30 s on two quiet cores; benchmarks measure it
    assert kilobytes < 1_000_000


def test_the_report_stands_alone(finished):
    page = finished[2].read_text(encoding="utf-8")
    outside = _Outside()
    outside.feed(page)
    assert outside.found == []
    assert "@import" not in page
    assert "url(http" not in page
    assert "corner mark" in page
    assert page.count("data:image/") > 50


def test_what_explores_does_not_know_the_truth():
    from importlib.resources import files

    text = (files("semanticlens") / "demo" / "explore.py").read_text(encoding="utf-8")
    assert "artefact import" not in text
    assert "demo.pictures" not in text
    assert "demo.check" not in text
    assert "import artefact" not in text


def test_the_text_is_readable(tmp_path, capsys):
    from semanticlens import demo

    result = demo.run(tmp_path / "d.html", n_pictures=400, seed=3, progress=False)
    text = capsys.readouterr().out
    assert text.count("\n") < 140
    assert max(map(len, text.splitlines())) < 200
    for part in ("SEARCH", "LABELS AND SCORES", "LABELS ARE NOT CAUSES", "corner mark", str(tmp_path)):
        assert part in text
    assert "check" in repr(result)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"n_pictures": 10}, ValueError, "n_pictures=10: at least 400"), ({"seed": -1}, ValueError, "seed=-1"),
    ({"out": "missing/folder/x.html"}, FileNotFoundError, "cannot write the report"),
])
def test_bad_arguments_are_named_before_any_work(arguments, error, message, tmp_path, monkeypatch):
    from semanticlens import demo

    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        demo.run(**{"out": "x.html", "progress": False, **arguments})
