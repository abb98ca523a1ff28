"""Cards, reports and the HTML of results: what they show, that they are whole and small, and that everything from outside is escaped."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_database import HOSTILE, LAYERS, WORDS, database

from semanticlens import LayerNotFoundError
from semanticlens.lens.database import ConceptDB
from semanticlens.lens.results import Labels
from semanticlens.plot import _facts, _style, html
from semanticlens.plot._type import Pen, clean
from semanticlens.plot.card import card
from semanticlens.plot.report import report

VOID = {"meta", "br", "img", "input", "hr", "link"}
WHEN = datetime.datetime(2030, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)


class Outline(HTMLParser):
    """Every start tag with its attributes; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def db() -> ConceptDB:
    return database()


@pytest.fixture(scope="module")
def labels(db: ConceptDB) -> Labels:
    return db.label(list(WORDS), threshold=0.3)


def _card_bytes(*args: object, **options: object) -> bytes:
    return card(*args, **options).image.tobytes()  # type: ignore[arg-type]


# ---------------------------------------------------------------------- html


@pytest.mark.parametrize("text", [HOSTILE, "a'b\"c", "<img src=x onerror=alert(1)>", "&lt;", "\x00\x1b[31m", "\ud800", "\ufffe"])
def test_escape_leaves_no_markup_and_encodes(text: str) -> None:
    safe = html.escape(text)
    assert not set("<>\"'") & set(safe)
    safe.encode("utf-8")
    assert "\x00" not in safe
    assert "\x1b" not in safe
    assert html.escape(safe) == safe, "an Html is not escaped twice"


def test_numbers_are_for_people() -> None:
    cases = {0.12345: "0.123", -0.00001: "0.000", 12800: "12\u202f800", -1.5: "−1.500", 123456.0: "1.23e+05", float("-inf"): "−∞"}
    for value, text in cases.items():
        assert html.number(value) == text
    assert html.number(None) == html.number(float("nan")) == "–"
    assert html.number(np.float32(0.5), 1, signed=True) == "+0.5"


def test_table_escapes_aligns_and_limits() -> None:
    text = html.table(["name", HOSTILE], [[HOSTILE, 1.0], ["b", None], ["c", 3]], caption=HOSTILE, limit=2)
    assert HOSTILE not in text
    assert text.count("<td class=\"sl-num\">") == 2, "the numeric column, and only it, is to the right"
    assert "1 more rows are not shown" in text
    assert text.count("<style>") == 1
    Outline(text)
    assert "<style>" not in html.table(["a"], [[1]], style=False)
    assert "<b>" in html.table(["a"], [[html.Html("<b>x</b>")]])
    with pytest.raises(ValueError, match="row 1 of the table has 1 cells, but there are 2 headers"):
        html.table(["a", "b"], [[1, 2], [3]])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_image_uri_takes_every_mode(mode: str) -> None:
    source = Image.new("L", (40, 20), 100).convert(mode) if mode != "I;16" else Image.new("I;16", (40, 20), 1000)
    before = source.tobytes()
    uri = html.image_uri(source, size=16)
    assert re.fullmatch(r"data:image/(webp|jpeg);base64,[A-Za-z0-9+/=]+", uri)
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as picture:
        assert picture.size == (16, 8)
    assert source.tobytes() == before
    assert source.size == (40, 20)


def test_image_uri_lays_transparency_on_white_and_refuses_other_formats() -> None:
    uri = html.image_uri(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), format="png")
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as picture:
        assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    with pytest.raises(ValueError, match="format='gif'"):
        html.image_uri(Image.new("RGB", (4, 4)), format="gif")


def test_histogram_counts_every_finite_value_once() -> None:
    text = html.histogram([0.0, 0.1, 0.9, 1.0, 5.0, np.nan, np.inf], low=0, high=1, bins=2, label="clarity")
    Outline(text)
    assert "clarity: 5 values from 0.000 to 5.000, mean 1.400" in text
    heights = [float(v) for v in re.findall(r"v-([0-9.]+)", text)]
    assert heights == pytest.approx([28 * 2 / 3, 28], abs=0.06), "two values below the middle, three from it on"
    assert "svg" not in html.histogram([np.nan], low=0, high=1)
    with pytest.raises(ValueError, match="low < high"):
        html.histogram([1.0], low=1, high=1)


def test_strip_and_bar() -> None:
    text = html.strip([Image.new("RGB", (8, 8)), None, Image.new("RGB", (8, 8))], ["a", "left out", HOSTILE])
    Outline(text)
    assert text.count("<img") == 2
    assert "left out" not in text
    assert HOSTILE not in text
    assert "width:50%" in html.bar(0.5)
    assert "width:100%" in html.bar(7.0)
    assert html.bar(float("nan")) == "–"


def test_page_is_closed_to_the_outside() -> None:
    text = html.page(HOSTILE, "<p>x</p>", style=".a{color:red}", script="var a = 1;", description=HOSTILE)
    outline = Outline(text)
    policy = next(m["content"] for m in outline.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    digest = base64.b64encode(hashlib.sha256(b"var a = 1;").digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert HOSTILE not in text
    assert "script-src 'none'" in html.page("t", "")
    for name in ("style", "script"):
        with pytest.raises(ValueError, match=f"{name} must not contain '</{name}'"):
            html.page("t", "", **{name: f"</{name.upper()}><b>"})


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * c for c in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_has_contrast(scheme: int) -> None:
    blocks = re.findall(r":root\{(.*?)\}", _style.TOKENS, flags=re.S)
    tokens = dict(re.findall(r"--([a-z-]+):(#[0-9a-f]+)", blocks[scheme]))
    for ground in ("bg", "panel"):
        for ink in ("ink", "muted", "accent", "warm", "warn"):
            light, dark = sorted((_luminance(tokens[ground]), _luminance(tokens[ink])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {ground}"


# ---------------------------------------------------------------------- facts


def test_component_facts(db: ConceptDB, labels: Labels) -> None:
    red = _facts.component(db, "conv1", 0, labels, db.scores())
    assert red.label == "red"
    assert red.candidates[0][1] == pytest.approx(labels["conv1", 0].score)
    assert red.classes[0][0] == "ruby"
    assert [e.sample % 3 for e in red.examples] == [0] * 9
    assert red.strength == red.examples[0][1] == max(e.score for e in red.examples)
    dead = _facts.component(db, "conv1", 3, labels, db.scores())
    assert dead.dead
    assert dead.examples == ()
    assert dead.classes == ()
    assert dead.label is None
    assert len(_facts.component(db, "conv1", 4).examples) == 2
    with pytest.raises(LayerNotFoundError, match="nearest: conv1"):
        _facts.component(db, "conv2", 0)
    with pytest.raises(IndexError, match="component 5 is not in layer 'conv1', which has components 0 to 4"):
        _facts.component(db, "conv1", 5)
    with pytest.raises(IndexError):
        _facts.component(db, "conv1", -1)


# ---------------------------------------------------------------------- cards


def test_card_is_drawn_twice_its_size(db: ConceptDB, labels: Labels) -> None:
    drawn = card(db, "conv1", 0, labels=labels)
    assert drawn.image.mode == "RGB"
    once = card(db, "conv1", 0, labels=labels, scale=1)
    assert abs(drawn.image.width - 2 * once.image.width) <= 2
    assert abs(drawn.image.height - 2 * once.image.height) <= 2
    assert drawn.image.tobytes() == _card_bytes(db, "conv1", 0, labels=labels), "the same call draws the same"
    png = drawn._repr_png_()
    with Image.open(io.BytesIO(png)) as again:
        assert again.convert("RGB").tobytes() == drawn.image.tobytes()
    data, how = drawn._repr_mimebundle_()
    assert data["image/png"] == png
    assert how["image/png"]["width"] == drawn.image.width // 2
    assert "conv1" in repr(drawn)


def test_card_shows_the_examples(db: ConceptDB) -> None:
    pixels = np.asarray(card(db, "conv1", 2).image, dtype=int)
    blue = (pixels[..., 2] > 110) & (pixels[..., :2].max(axis=2) < 40)
    assert blue.sum() > 9 * 150**2, "nine blue pictures of at least 150 pixels a side"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_card_saves(db: ConceptDB, tmp_path: Path, suffix: str) -> None:
    drawn = card(db, LAYERS[1], 1)
    path = drawn.save(tmp_path / f"card{suffix}")
    with Image.open(path) as again:
        assert again.size == drawn.image.size
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_card_save_refuses(db: ConceptDB, tmp_path: Path) -> None:
    drawn = card(db, "conv1", 0)
    with pytest.raises(ValueError, match=r"'card.bmp': end the name in .png, .jpg"):
        drawn.save(tmp_path / "card.bmp")
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        drawn.save(tmp_path / "none" / "card.png")
    assert list(tmp_path.iterdir()) == []


def test_card_of_every_component_differs_where_the_facts_do(db: ConceptDB, labels: Labels) -> None:
    plain = _card_bytes(db, "conv1", 0, scores=False)
    assert plain != _card_bytes(db, "conv1", 0)
    assert plain != _card_bytes(db, "conv1", 0, scores=False, labels=labels)
    assert plain != _card_bytes(db, "conv1", 1, scores=False)
    for layer in db.layers:                           # dead, few examples, long and foreign labels, every layer name
        for k in range(len(db[layer])):
            card(db, layer, k, labels=labels)
    dead, few = card(db, "conv1", 3).image, card(db, "conv1", 4).image
    assert dead.height < few.height < card(db, "conv1", 0).image.height
    assert card(db, "conv1", 0, n_examples=0).image.height < few.height


def test_card_prefers_the_attached_pictures_and_does_without_any(db: ConceptDB) -> None:
    assert db.images is not None
    attached = _card_bytes(db, "conv1", 0)
    coarse, bare = database(thumbnails=3), database(thumbnails=0)
    assert _card_bytes(coarse, "conv1", 0) == attached, "the pictures themselves, not the copies of 3 pixels"
    coarse.images = bare.images = None
    copies, nothing = _card_bytes(coarse, "conv1", 0), _card_bytes(bare, "conv1", 0)
    assert len({attached, copies, nothing}) == 3


def test_card_arguments(db: ConceptDB) -> None:
    for name, value in (("columns", 3), ("n_examples", -1), ("scale", 0)):
        with pytest.raises(ValueError, match=f"{name}={value}: must be at least"):
            card(db, "conv1", 0, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="is not a font that can be opened"):
        card(db, "conv1", 0, font="/nowhere/font.ttf")


@settings(max_examples=40)
@given(st.text(max_size=60), st.floats(20, 300))
def test_text_fits_its_room(text: str, room: float) -> None:
    pen = Pen(Image.new("RGB", (1, 1)), 2)
    line = clean(text)
    assert "\n" not in line
    assert pen.width(pen.fit(line, 12, room), 12) <= room + 0.5
    lines = pen.wrap(line, 12, room, 2)
    assert len(lines) <= 2
    assert all(pen.width(part, 12) <= room + 0.5 for part in lines)
    if lines and "…" not in lines[-1] and "…" not in line:
        assert "".join("".join(lines).split()) == "".join(line.split()), "nothing is lost where nothing was cut"


# ---------------------------------------------------------------------- reports


@pytest.fixture(scope="module")
def full(db: ConceptDB, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "r.html"
    found = db.search([HOSTILE, "red"], top=3)
    assert report(db, path, queries=found, labels=labels, title=HOSTILE, note=HOSTILE, date=WHEN) == path
    return path.read_text(encoding="utf-8")


def test_report_is_one_whole_page(full: str) -> None:
    outline = Outline(full)
    assert [tag for tag, _ in outline.tags if tag in ("h1", "main", "nav", "footer")] == ["h1", "nav", "main", "footer"]
    assert outline.tags[0] == ("html", {"lang": "en"})
    assert any(m.get("name") == "viewport" for m in outline.named("meta"))
    assert "prefers-color-scheme:dark" in full
    assert "@media print" in full
    assert "2030-01-02" in full
    for word in ("ab" * 6, "ruby", "clarity", "They are not causes"):
        assert word in full


def test_report_asks_nothing_of_the_outside(full: str) -> None:
    outline = Outline(full)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", full))
    for tag, attrs in outline.tags:
        assert tag not in ("link", "iframe", "object", "embed", "form", "base")
        for name, value in attrs.items():
            assert not name.startswith("on"), "no handlers in the markup"
            assert name != "href" or (value or "").startswith("#")
            assert name != "src"


def test_report_escapes_everything(full: str) -> None:
    assert HOSTILE not in full
    assert "<script>alert" not in full
    assert len(Outline(full).named("script")) == 1
    assert full.count("&lt;script&gt;alert") > 20, "it is there, as text"


def test_report_links_lead_somewhere(full: str, db: ConceptDB) -> None:
    outline = Outline(full)
    ids = [attrs["id"] for _, attrs in outline.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    targets = {(attrs["href"] or "")[1:] for attrs in outline.named("a")}
    assert targets <= set(ids)
    tiles = [attrs for attrs in outline.named("li") if "tile" in (attrs.get("class") or "").split()]
    assert len(tiles) == sum(len(db[layer]) for layer in db.layers)
    assert {f"c-{i}-{k}" for i, layer in enumerate(db.layers) for k in range(len(db[layer]))} == {t["id"] for t in tiles}


def test_report_embeds_each_picture_once(full: str, db: ConceptDB) -> None:
    shown = {int(i) for layer in db.layers for i in db[layer].ids[~db[layer].dead].ravel() if i >= 0}
    assert full.count("data:image/") == len(shown)
    rules = set(re.findall(r"\.(p\d+)\{background-image", full))
    used = {(attrs["class"] or "").split()[1] for attrs in Outline(full).named("i") if (attrs.get("class") or "").startswith("t p")}
    assert rules == used
    assert len(rules) == len(shown)
    assert len(full) < 300_000


def test_report_tiles_carry_what_the_script_sorts_by(full: str, db: ConceptDB, labels: Labels) -> None:
    tiles = {attrs["id"]: attrs for attrs in Outline(full).named("li") if attrs.get("id")}
    own, scores = tiles["c-0-0"], db.scores()["conv1"]
    assert float(own["data-c"] or "nan") == pytest.approx(scores.clarity[0], rel=1e-3)
    assert float(own["data-p"] or "nan") == pytest.approx(scores.polysemanticity[0], abs=1e-3)
    assert float(own["data-r"] or "nan") == pytest.approx(scores.redundancy[0], rel=1e-3)
    assert float(own["data-s"] or "nan") == pytest.approx(labels["conv1", 0].score, rel=1e-3)
    assert float(own["data-a"] or "nan") == pytest.approx(db["conv1"].example_scores[0, 0], rel=1e-3)
    assert "data-n" in own
    dead = tiles["c-0-3"]
    assert "dead" in (dead["class"] or "")
    assert not {"data-c", "data-a", "data-n"} & set(dead)


def test_report_without_anything_asked(db: ConceptDB, tmp_path: Path) -> None:
    path = report(db, tmp_path / "r.html", scores=False)
    text = path.read_text(encoding="utf-8")
    Outline(text)
    assert 'id="search"' not in text
    assert "data-c=" not in text
    assert 'value="c"' not in text, "no order by what is not there"
    bare = database(thumbnails=0)
    bare.images = None
    text = report(bare, tmp_path / "b.html", queries="red").read_text(encoding="utf-8")
    assert "data:image/" not in text
    assert "Searched for “red”" in text


def test_report_keeps_the_most_telling(db: ConceptDB, tmp_path: Path) -> None:
    found = db.search("red", top=1)
    text = report(db, tmp_path / "r.html", queries=found, max_components=3).read_text(encoding="utf-8")
    ids = {attrs["id"] for attrs in Outline(text).named("li") if attrs.get("id")}
    clearest = {
        f"c-{i}-{k}": value for i, layer in enumerate(db.layers) for k, value in enumerate(db.scores()[layer].clarity) if np.isfinite(value)
    }
    hit = f"c-{db.layers.index(found[0].layer)}-{found[0].component}"
    rest = sorted((key for key in clearest if key != hit), key=lambda key: -clearest[key])[:2]
    assert ids == {hit, *rest}
    assert "The 3 clearest of 13 components and those found above." in text
    targets = {(attrs["href"] or "")[1:] for attrs in Outline(text).named("a")}
    assert all(t in ids for t in targets if t.startswith("c-"))


def test_report_is_written_whole_or_not_at_all(db: ConceptDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    report(db, path, date=WHEN)
    before = path.read_bytes()
    assert report(db, path, date=WHEN).read_bytes() == before, "the same input gives the same page"

    def fail(self: ConceptDB, sample: int) -> None:
        raise OSError("disk gone")

    with monkeypatch.context() as patch:
        patch.setattr(ConceptDB, "thumbnail", fail)
        with pytest.raises(OSError, match="disk gone"):
            report(db, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        report(db, tmp_path / "none" / "r.html")
    for name in ("max_components", "n_examples"):
        with pytest.raises(ValueError, match=f"{name}=-1"):
            report(db, path, **{name: -1})  # type: ignore[arg-type]


# ---------------------------------------------------------------------- what notebooks show


def test_results_render_in_notebooks(db: ConceptDB, labels: Labels) -> None:
    for thing in (db, db.search([HOSTILE, "red"]), labels, db.scores()):
        text = thing._repr_html_()
        Outline(text)
        assert "sl-table" in text
        assert HOSTILE not in text


def test_database_methods_lead_here(db: ConceptDB, tmp_path: Path) -> None:
    assert db.card("conv1", 0).image.tobytes() == _card_bytes(db, "conv1", 0)
    assert "Concepts in" in db.report(tmp_path / "r.html").read_text(encoding="utf-8")
