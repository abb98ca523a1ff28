"""Models of texts without torch: golden outputs and ids, folders, bundles with tokenisers, hostile files, stretched positions."""

from __future__ import annotations

import importlib.util
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_language import small_llama, tokenizer_bytes

import semanticlens as sl
from semanticlens.io import read_tensors, write_tensors
from semanticlens.nn.language import JsonTokenizer, LanguageModel, Llama2cTokenizer, SentencePiece, TextModel, WordPiece, files
from semanticlens.nn.language.bpe import ClipTokenizer
from semanticlens.nn.language.padded import PaddedTokenizer
from semanticlens.nn.language.rope import rope

HERE = Path(__file__).resolve().parent
_SPEC = importlib.util.spec_from_file_location("make_language_golden", HERE / "golden" / "make_language_golden.py")
assert _SPEC is not None
golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden)  # type: ignore[union-attr]
FILE = np.load(HERE / "golden" / "language.npz")
SAID = json.loads(zlib.decompress(FILE["said"].tobytes()))


def state(name: str) -> dict[str, np.ndarray]:
    return {key: golden.drawn(key, tuple(shape)) for key, shape in SAID["models"][name]["shapes"].items()}


def folder(name: str, at: Path) -> Path:
    write_tensors(at / "model.safetensors", state(name), {})
    if "config" in SAID["models"][name]:
        (at / "config.json").write_text(json.dumps(SAID["models"][name]["config"]))
    return at


def near(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_language_models_give_the_golden_outputs(name: str, tmp_path: Path) -> None:
    model = sl.load(folder(name, tmp_path))
    assert isinstance(model, TextModel)
    assert isinstance(model, LanguageModel) == (name != "bert")
    near(model.net(golden.ids(300, 40))[:, ::8, ::4], FILE[name])
    assert isinstance(sl.load(tmp_path / "model.safetensors"), sl.Network if name == "bert" else LanguageModel)


@pytest.mark.parametrize("name", ["clip", "siglip", "RN50", "ViT-B-32"])
def test_towers_give_the_golden_vectors(name: str, tmp_path: Path) -> None:
    hugging_face = name in ("clip", "siglip")
    path = folder(name, tmp_path)
    clip = sl.encoders.CLIP(path if hugging_face else path / "model.safetensors")
    tokens = golden.ids(200, 16) if hugging_face else golden.ids(600, 12)
    tokens[:, 9 if hugging_face else 7] = 199 if hugging_face else 599
    x = golden.pictures(32 if hugging_face else 64)
    near(clip.image_tower(x), FILE[f"{name} pictures"])
    near(clip.text_tower(tokens), FILE[f"{name} texts"])
    assert np.array_equal(clip.image_tower(x, n_threads=1), clip.image_tower(x, n_threads=3))
    assert clip.preprocess.resize == ("stretch" if name == "siglip" else "crop")


@pytest.mark.parametrize("kind", [kind for kind in SAID["tokenizers"] if kind != "texts"])
def test_tokenizers_give_the_golden_ids(kind: str) -> None:
    known = SAID["tokenizers"][kind]
    if kind.startswith("sentencepiece"):
        pieces = SentencePiece(bytes.fromhex(known["file"])).pieces
    else:
        pieces = JsonTokenizer(known["file"].encode()).encode
    assert [pieces(text) for text in SAID["tokenizers"]["texts"]] == known["ids"]


def tokenizer(kind: str) -> Any:
    if kind == "json":
        return JsonTokenizer(SAID["tokenizers"]["GPT-2"]["file"].encode())
    if kind == "sentencepiece":
        return SentencePiece(bytes.fromhex(SAID["tokenizers"]["sentencepiece bpe"]["file"]), begin=True)
    if kind == "wordpiece":
        return WordPiece(["[UNK]", "[CLS]", "[SEP]", "o", "##n", "##ce"], lower=False)
    if kind == "llama2c":
        return Llama2cTokenizer(tokenizer_bytes([(-1.0, b" "), (-2.0, b"a")]), 261)
    return None


@pytest.mark.parametrize("kind", ["json", "sentencepiece", "wordpiece", "llama2c", "none"])
def test_saved_models_are_the_same_bit_by_bit(kind: str, tmp_path: Path) -> None:
    model = LanguageModel(small_llama(), tokenizer(kind), context=30, end=[2, 7])
    path, again = tmp_path / "model.safetensors", tmp_path / "again.safetensors"
    model.save(path)
    loaded = sl.load(path)
    assert type(loaded) is LanguageModel
    assert (loaded.context, loaded.ends) == (30, frozenset((2, 7)))
    assert loaded.net.fingerprint == model.net.fingerprint
    ids = np.random.default_rng(0).integers(0, 270, (2, 20))
    assert np.array_equal(loaded.net(ids), model.net(ids))
    assert loaded.generate_ids([1, 5], max_new_tokens=9) == model.generate_ids([1, 5], max_new_tokens=9)
    if model.tokenizer is not None:
        for text in ("once", "a  b\n", "", "日本 é"):
            assert loaded.encode(text) == model.encode(text)
            assert loaded.decode(model.encode(text)) == model.decode(model.encode(text))
    loaded.save(again)
    assert path.read_bytes() == again.read_bytes()
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["again.safetensors", "model.safetensors"]


def test_saving_fails_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = LanguageModel(small_llama(), tokenizer("json"), context=30)
    model.save(path)
    before = path.read_bytes()

    class Own:
        def encode(self, text: str) -> list[int]:
            return [1]

        def decode(self, ids: Any) -> str:
            return ""

    with pytest.raises(sl.UnsupportedOperationError, match="the class Own cannot be saved"):
        LanguageModel(small_llama(), Own(), context=30).save(path)
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        model.save(tmp_path / "nowhere" / "model.safetensors")
    assert path.read_bytes() == before


def test_damaged_bundles_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    LanguageModel(small_llama(), tokenizer("json"), context=30, end=2).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for end in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(sl.ModelFileError, match=r"model\.safetensors"):
            sl.load(path)
    for place in rng.integers(8, len(whole), 40):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        with pytest.raises(sl.ModelFileError, match=r"model\.safetensors"):
            sl.load(path)
    path.write_bytes(whole)
    tensors = read_tensors(path)
    for change, message in [
        ({"kind": "other"}, "must hold a kind"),
        ({"context": 0}, "context of at least 1"),
        ({"context": True}, "holds the number True"),
        ({"end": "x"}, "a list of ends"),
        ({"end": [-1]}, "holds the number -1"),
        ({"tokenizer": {"kind": "pickle"}}, "the kind 'pickle'"),
        ({"tokenizer": {"kind": "json"}}, "must hold kind, marks"),
        ({"tokenizer": {"kind": "sentencepiece", "begin": True, "end": True}}, "not a SentencePiece model"),
        ({"more": 1}, "must hold a kind"),
    ]:
        text = json.dumps({**json.loads(tensors.metadata["language"]), **change})
        write_tensors(tmp_path / "changed.safetensors", dict(tensors), {**tensors.metadata, "language": text})
        with pytest.raises(sl.ModelFileError, match="SHA-256"):
            sl.load(tmp_path / "changed.safetensors")
        with pytest.raises(sl.ModelFileError, match=message):
            sl.load(tmp_path / "changed.safetensors", verify=False)


def test_every_tokenizer_is_packed() -> None:
    for kind in ("json", "sentencepiece", "wordpiece", "llama2c"):
        settings, content = files.pack(tokenizer(kind))
        assert files.pack(files.unpack(settings, content)) == (settings, content)
    for settings in (None, {}, {"kind": 3}, {"kind": "llama2c", "size": True}, {"kind": "wordpiece", "lower": True, "x": 1}):
        with pytest.raises(sl.ModelFileError, match="tokeniser"):
            files.unpack(settings, b"")
    with pytest.raises(sl.ModelFileError, match="must be a list of texts"):
        files.unpack({"kind": "wordpiece", "lower": True}, b"[1]")


# ---------------------------------------------------------------- tokenizer.json

LEAST: dict[str, Any] = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": None}, sl.ModelFileError, "model must be an object with a type"),
        ({"model": {"type": "Markov"}}, sl.UnsupportedOperationError, "model of the type 'Markov'"),
        ({"model": {**LEAST["model"], "merges": ["a c"]}}, sl.ModelFileError, r"model\.merges: entry 0 joins 'a' and 'c'"),
        ({"model": {**LEAST["model"], "merges": [["a"]]}}, sl.ModelFileError, r"model\.merges: entry 0 must be a pair"),
        ({"model": {**LEAST["model"], "vocab": {"a": -1}}}, sl.ModelFileError, r"model\.vocab: the token 'a' has the id -1"),
        ({"model": {**LEAST["model"], "vocab": {"a": 0, "b": 0}}}, sl.ModelFileError, "an id belongs to two tokens"),
        ({"model": {**LEAST["model"], "dropout": 0.1}}, sl.UnsupportedOperationError, r"model\.dropout=0\.1"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, sl.ModelFileError, r"model\.unk_id"),
        ({"normalizer": {"type": "Nmt"}}, sl.UnsupportedOperationError, "normalizer of the type 'Nmt'"),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}}},
            sl.UnsupportedOperationError,
            r"pre_tokenizer\.pattern: .*not among",
        ),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"String": "x"}, "behavior": "Contiguous"}},
            sl.UnsupportedOperationError,
            "behavior",
        ),
        (
            {"post_processor": {"type": "BertProcessing", "sep": ["x", 9], "cls": ["y", 1]}},
            sl.ModelFileError,
            "the id 9 belongs to no token",
        ),
        ({"decoder": {"type": "CTC"}}, sl.UnsupportedOperationError, "decoder of the type 'CTC'"),
        ({"added_tokens": [{"id": 7, "content": "a"}]}, sl.ModelFileError, "has the id 7 here and 0 in the vocabulary"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"}}, sl.ModelFileError, "base64"),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAAAAAA"}},
            sl.ModelFileError,
            "claims a trie of 0 bytes",
        ),
    ],
)
def test_tokenizer_files_that_are_refused(change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**LEAST, **change}))
    with pytest.raises(error, match=message) as raised:
        JsonTokenizer(path)
    assert "tokenizer.json" in str(raised.value)


def test_a_nested_file_is_an_error(tmp_path: Path) -> None:
    deep: Any = None
    for _ in range(8):
        deep = {"type": "Sequence", "normalizers": [deep or {"type": "NFC"}]}
    with pytest.raises(sl.ModelFileError, match="nested too deeply"):
        JsonTokenizer(json.dumps({**LEAST, "normalizer": deep}).encode())
    for raw in (b"", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(sl.ModelFileError):
            JsonTokenizer(raw)


def test_long_words_take_no_square_of_time(tmp_path: Path) -> None:
    (tmp_path / "bpe.txt").write_text("#version\na a\naa aa\n")
    clip = ClipTokenizer(tmp_path / "bpe.txt")
    assert clip.pieces("a" * 40_001) == [clip.ids["aaaa"]] * 10_000 + [clip.ids["a</w>"]]
    llama = tokenizer("llama2c")
    assert llama.encode("a" * 40_000) == [1, 259] + [260] * 40_000
    vocab = {"a" * n: n - 1 for n in (1, 2, 4, 8)}
    merges = ["a a", "aa aa", "aaaa aaaa"]
    ours = JsonTokenizer(json.dumps({"model": {"type": "BPE", "vocab": vocab, "merges": merges}}).encode())
    assert ours.encode("a" * 100_003) == [7] * 12_500 + [1, 0]
    assert ours.decode(ours.encode("aaaaa")) == "aaaa a"
    with pytest.raises(sl.DataError, match="a text of 2,000,000 characters"):
        ours.encode("a" * 2_000_000)
    with pytest.raises(TypeError, match="a text must be a str"):
        ours.encode(b"a")  # type: ignore[arg-type]


# ---------------------------------------------------------------- SentencePiece


def varint(value: int) -> bytes:
    result = b""
    while value > 127:
        result, value = result + bytes([value & 127 | 128]), value >> 7
    return result + bytes([value])


def message(*fields: tuple[int, Any]) -> bytes:
    """A protocol buffer: texts and messages as bytes, scores as float, the rest as numbers."""
    result = b""
    for number, value in fields:
        if isinstance(value, float):
            result += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, bytes):
            result += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            result += varint(number << 3) + varint(value)
    return result


UNK = (1, message((1, b"<unk>"), (2, 0.0), (3, 2)))
PIECES = [UNK, (1, message((1, "▁a".encode()), (2, -1.0))), (1, message((1, b"a"), (2, -2.0)))]


@pytest.mark.parametrize(
    ("content", "error", "what"),
    [
        (b"", sl.ModelFileError, "holds no pieces"),
        (b"\xff" * 20, sl.ModelFileError, "more than ten bytes"),
        (message(*PIECES)[:-3], sl.ModelFileError, "claims|ends inside"),
        (message(PIECES[1]), sl.ModelFileError, "0 pieces are of the type 'unknown'"),
        (message(*PIECES, PIECES[1]), sl.ModelFileError, "a piece occurs twice"),
        (message(*PIECES, (1, message((1, b"\xff"), (2, 0.0)))), sl.ModelFileError, "piece 3 is no UTF-8"),
        (message(*PIECES, (1, message((1, b"x"), (2, float("nan"))))), sl.ModelFileError, "score nan"),
        (message(*PIECES, (1, message((1, b"x"), (3, 9)))), sl.ModelFileError, "the type 9"),
        (message(*PIECES, (1, message((1, b"x" * 600)))), sl.ModelFileError, "600 bytes; at most 512"),
        (message(*PIECES, (2, message((3, 3)))), sl.UnsupportedOperationError, r"trainer_spec\.model_type=3"),
        (message(*PIECES, (2, message((24, 1)))), sl.UnsupportedOperationError, "treat_whitespace_as_suffix"),
        (message(*PIECES, (2, message((35, 1)))), sl.ModelFileError, "not 256 pieces"),
        (message(*PIECES, (2, message((41, 7)))), sl.ModelFileError, "begin_id=7 is none of the 3 pieces"),
        (message(*PIECES, (3, message((5, 0)))), sl.UnsupportedOperationError, "escape_whitespaces"),
        (message(*PIECES, (3, message((2, b"abcdefgh")))), sl.ModelFileError, "claims a trie"),
        (message(*PIECES, (3, 5)), sl.ModelFileError, "wire type 0 instead of 2"),
    ],
)
def test_sentencepiece_files_that_are_refused(content: bytes, error: type[Exception], what: str, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(error, match=what) as raised:
        SentencePiece(tmp_path / "spiece.model")
    assert "spiece.model" in str(raised.value)


def test_a_small_sentencepiece_model() -> None:
    ours = SentencePiece(message(*PIECES, (2, message((41, (1 << 64) - 1), (42, 1)))), begin=True, end=True)
    assert ours.encode("a aa") == [1, 1, 2, 1]  # no begin in this model
    assert ours.pieces("xyz  a") == [0, 1]
    assert ours.decode([1, 2, 0]) == "aa \u2047 "
    assert ours.encode("") == [1]
    with pytest.raises(sl.ModelFileError, match="the id 3 is none of the 3 pieces"):
        ours.decode([3])


# ---------------------------------------------------------------- folders and positions


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    with pytest.raises(sl.ModelFileError, match=r"a folder without config\.json"):
        sl.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(sl.ModelFileError, match=r"open it with sl\.encoders\.CLIP\(folder\)"):
        sl.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(sl.ModelFileError, match="model_type 'mamba'"):
        sl.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_head": 4}))
    with pytest.raises(sl.ModelFileError, match=r"there is no model\.safetensors"):
        sl.load(tmp_path)
    for places, what in [
        ({"x": "../a.safetensors"}, "is not the name"),
        ({"x": "a.safetensors"}, "is not there"),
        ([], "must name a file"),
    ]:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        with pytest.raises(sl.ModelFileError, match=what):
            sl.load(tmp_path)
    folder("gpt2", tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    assert sl.load(tmp_path).encode("aa") == [0, 0]
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(sl.ModelFileError, match="not valid JSON"):
        sl.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
            sl.UnsupportedOperationError,
            r"rope_parameters\.rope_type='dynamic'",
        ),
        (
            {"rope_scaling": {"type": "longrope"}, "rope_parameters": None},
            sl.UnsupportedOperationError,
            r"rope_scaling\.rope_type='longrope'",
        ),
        ({"rope_parameters": {"rope_type": "linear"}}, sl.ModelFileError, "'factor' is missing"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "extra": 1}},
            sl.UnsupportedOperationError,
            r"rope_parameters\.extra='1'",
        ),
        ({"rope_parameters": {"rope_type": "linear", "factor": -1}}, sl.ModelFileError, "'factor' must be a positive number"),
        ({"rope_parameters": [1]}, sl.ModelFileError, "rope_parameters must be an object"),
        ({"sliding_window": 4096}, sl.UnsupportedOperationError, "sliding_window='4096'"),
        ({"layer_types": ["sliding_attention"]}, sl.UnsupportedOperationError, "layer_types"),
        ({"hidden_act": "gelu"}, sl.UnsupportedOperationError, "the activation 'gelu' of a llama-like model"),
        ({"head_dim": 7}, sl.ModelFileError, "heads of 7 features cannot be rotated"),
        ({"eos_token_id": "x"}, sl.ModelFileError, "'eos_token_id' must be an id"),
        ({"tie_word_embeddings": 3}, sl.ModelFileError, "'tie_word_embeddings' must be true or false"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], error: type[Exception], what: str, tmp_path: Path) -> None:
    folder("llama", tmp_path)
    config = SAID["models"]["llama"]["config"]
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(error, match=what):
        sl.load(tmp_path)


def test_an_output_matrix_that_is_missing(tmp_path: Path) -> None:
    values = state("llama")
    del values["lm_head.weight"]
    write_tensors(tmp_path / "model.safetensors", values, {})
    config = SAID["models"]["llama"]["config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(sl.ModelFileError, match=r"lm_head\.weight' is missing, and tie_word_embeddings does not"):
        sl.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert sl.load(tmp_path).logits([3, 4]).shape == (2, 300)


def test_stretched_frequencies() -> None:
    plain = rope({"rope_theta": 100.0}, 8, "here")
    assert plain == (100.0, None, 1.0)
    _, linear, _ = rope({"rope_scaling": {"type": "linear", "factor": 4}, "rope_theta": 100.0}, 8, "here")
    assert linear == tuple(100.0 ** (-i / 4) / 4 for i in range(4))
    given = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}
    _, mixed, factor = rope({"rope_scaling": given, "rope_theta": 100.0}, 8, "here")
    assert mixed is not None
    assert (mixed[0], factor) == (1.0, 1.0)  # a short wave stays
    assert mixed[3] < 100.0 ** (-3 / 4)
    yarn = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32}
    assert rope({"rope_scaling": yarn}, 8, "here")[2] == 0.1 * np.log(4) + 1
    node = sl.nn.Node("r", "rotary", ("input",), {}, {"frequencies": (1.0, 0.5), "magnitude": 2.0})
    net = sl.Network([node], {}, input_shape=(3, 4))
    x = np.random.default_rng(0).standard_normal((1, 3, 4)).astype(np.float32)
    want = np.empty((3, 4))
    for t in range(3):
        for i, turn in enumerate((1.0, 0.5)):
            a, b = x[0, t, i], x[0, t, i + 2]
            want[t, i], want[t, i + 2] = a * np.cos(t * turn) - b * np.sin(t * turn), a * np.sin(t * turn) + b * np.cos(t * turn)
    np.testing.assert_allclose(net(x)[0], 2 * want, rtol=1e-5, atol=1e-6)
    with pytest.raises(sl.ModelFileError, match="2 frequencies for 3 pairs"):
        sl.Network([node], {}, input_shape=(3, 6))
    with pytest.raises(sl.ModelFileError, match="frequencies"):
        sl.Network([sl.nn.Node("r", "rotary", ("input",), {}, {"frequencies": [float("nan")] * 2})], {}, input_shape=(3, 4))


def test_texts_for_towers() -> None:
    padded = PaddedTokenizer(
        lambda text: [ord(c) for c in text], ["x"], lambda ids: "".join(map(chr, ids)), context=6, before=[1], after=[2], pad=9
    )
    assert padded.encode("ab") == [1, 97, 98, 2, 9, 9]
    assert padded.encode("abcdefgh") == [1, 97, 98, 99, 100, 2]
    assert padded.decode(padded.encode("ab")) == "ab"


def test_clip_folders_that_do_not_fit(tmp_path: Path) -> None:
    path = folder("clip", tmp_path)
    config = SAID["models"]["clip"]["config"]
    for change, error, what in [
        ({"model_type": "blip"}, sl.UnsupportedOperationError, "model_type='blip'"),
        ({"text_config": {**config["text_config"], "eos_token_id": 5}}, sl.UnsupportedOperationError, r"text_config\.eos_token_id=5"),
        (
            {"vision_config": {**config["vision_config"], "hidden_act": "mish"}},
            sl.UnsupportedOperationError,
            r"vision_config\.hidden_act='mish'",
        ),
        ({"vision_config": {**config["vision_config"], "num_attention_heads": 5}}, sl.ModelFileError, "cannot be split into 5 heads"),
        ({"vision_config": 3}, sl.ModelFileError, "vision_config must be an object"),
    ]:
        (path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(error, match=what) as raised:
            sl.encoders.CLIP(path)
        assert "model.safetensors" in str(raised.value)
    (path / "config.json").unlink()
    with pytest.raises(sl.ModelFileError, match=r"there is no config\.json"):
        sl.encoders.CLIP(path)
    values = state("RN50")
    values["visual.attnpool.positional_embedding"] = values["visual.attnpool.positional_embedding"][:-1]
    write_tensors(tmp_path / "rn.safetensors", values, {})
    with pytest.raises(sl.ModelFileError, match="which is no square"):
        sl.encoders.CLIP(tmp_path / "rn.safetensors")
    with pytest.raises(ValueError, match="activation='swish' is not known"):
        sl.encoders.CLIP(tmp_path / "rn.safetensors", activation="swish")
    with pytest.raises(ValueError, match="say the same"):
        sl.encoders.CLIP(tmp_path / "rn.safetensors", activation="gelu", quick_gelu=True)
