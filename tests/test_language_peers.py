"""Language models and tokenisers against transformers, tokenizers and sentencepiece: every layer, every id."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coverage_cases import note, relative, shake
from texts import corpus, texts

import semanticlens as sl
from semanticlens.io import write_tensors
from semanticlens.nn.language import JsonTokenizer, SentencePiece
from semanticlens.nn.language.generate import Steps

pytestmark = pytest.mark.peers
LIMIT = 1e-4
SHAPE = {"vocab_size": 300, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}
LLAMA = {**SHAPE, "num_key_value_heads": 2, "max_position_embeddings": 128}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GPT-2-like": ("GPT2Config", "GPT2LMHeadModel", {"vocab_size": 300, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 128}),
    "GPT-2-like, own output matrix": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": 300, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 128, "tie_word_embeddings": False},
    ),
    "llama-like": ("LlamaConfig", "LlamaForCausalLM", LLAMA),
    "llama-like, tied, one head of keys, biases": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {**LLAMA, "num_key_value_heads": 1, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama-like, wide heads": ("LlamaConfig", "LlamaForCausalLM", {**LLAMA, "head_dim": 20}),
    "llama-like, rope linear": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 2e4}},
    ),
    "llama-like, rope llama3": ("LlamaConfig", "LlamaForCausalLM", {**LLAMA, "rope_parameters": LLAMA3}),
    "llama-like, rope yarn": ("LlamaConfig", "LlamaForCausalLM", {**LLAMA, "rope_parameters": YARN}),
    "llama-like, rope yarn, own factor": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {**LLAMA, "rope_parameters": {**YARN, "attention_factor": 0.9, "beta_fast": 16.0, "beta_slow": 2.0}},
    ),
    "Mistral-like": ("MistralConfig", "MistralForCausalLM", {**LLAMA, "sliding_window": None}),
    "Qwen2-like": ("Qwen2Config", "Qwen2ForCausalLM", LLAMA),
    "BERT-like": ("BertConfig", "BertModel", {**SHAPE, "max_position_embeddings": 128}),
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def made(name: str) -> Any:
    """A seeded model whose every parameter matters."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    config, model, options = MODELS[name]
    whole = getattr(transformers, model)(getattr(transformers, config)(**options, **IDS, attn_implementation="eager"))
    shake(whole)
    return whole.eval()


def layers(net: Any, ids: Any) -> dict[str, np.ndarray]:
    """What every module gives that is called once."""
    import torch

    outputs: dict[str, list[Any]] = {}

    def keep(path: str) -> Any:
        def hook(_part: Any, _inputs: Any, out: Any) -> None:
            out = out[0] if isinstance(out, tuple) else out
            outputs.setdefault(path, []).append(out.detach().numpy().copy() if torch.is_tensor(out) else None)

        return hook

    hooks = [part.register_forward_hook(keep(path)) for path, part in net.named_modules() if path]
    with torch.no_grad():
        result = net(ids)
    for hook in hooks:
        hook.remove()
    logits = result.logits if hasattr(result, "logits") else result.last_hidden_state
    found = {path: values[0] for path, values in outputs.items() if len(values) == 1 and values[0] is not None}
    return {**found, "": logits.numpy()}


@pytest.mark.parametrize("name", MODELS)
def test_models_equal_transformers(name: str, tmp_path: Path) -> None:
    model = made(name)
    import torch

    model.save_pretrained(tmp_path)  # as users have them: config.json with what is no default, shared parameters once
    loaded = sl.load(tmp_path)
    ids = torch.randint(0, 300, (2, 100))
    theirs = layers(model, ids)
    prefixes = ("model.", "transformer.", "bert.")
    short = {path.removeprefix(next((p for p in prefixes if path.startswith(p)), "")): value for path, value in theirs.items()}
    # "embeddings" and blocks of BERT are what their modules give; modules of attention give the result of their last layer
    names = [path for path in short if path in loaded.net.layers and not path.endswith(("attn", "self", "attention"))]
    got = loaded.net.run(ids.numpy(), ["output", *names], n_threads=2)
    errors = {name: relative(got[name].reshape(short[name].shape), short[name]) for name in names}
    errors["output"] = relative(got["output"], theirs[""])
    assert max(errors.values()) <= LIMIT, sorted(errors.items(), key=lambda one: -one[1])[:5]
    assert len(errors) > 15
    note(f"transformers/{name}", "state", max(errors.values()), len(errors), "language")
    if not name.startswith("BERT"):
        steps = Steps(loaded.net)
        parts = [steps.step(ids.numpy()[:, a:b]) for a, b in ((0, 60), (60, 61), (61, 62), (62, 100))]
        assert relative(np.concatenate(parts, axis=1), theirs[""]) <= LIMIT
        greedy = model.generate(ids[:1, :5], max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)[0].tolist()
        loaded.ends = frozenset()
        assert loaded.generate_ids(ids[0, :5].tolist(), max_new_tokens=12) == greedy


@pytest.mark.parametrize("name", ["GPT-2-like", "BERT-like"])
def test_float64_equals_torch(name: str, tmp_path: Path) -> None:
    """Where torch's own model computes everything in double (its rotary angles are float32, so llama is checked otherwise)."""
    model = made(name)
    import torch

    model.save_pretrained(tmp_path)
    ids = torch.randint(0, 300, (1, 20))
    with torch.no_grad():
        result = model.double()(ids)
    want = (result.logits if hasattr(result, "logits") else result.last_hidden_state).numpy()
    got = sl.load(tmp_path).net.run(ids.numpy(), dtype="float64")["output"]
    assert relative(got, want) <= 1e-10


def test_float64_llama_equals_torch(tmp_path: Path) -> None:
    """With what torch's model computes in float32 whatever it is given (rotary table, RMS norm, softmax) put into double."""
    import math

    model = made("llama-like, rope llama3")
    import torch

    model.save_pretrained(tmp_path)
    net = sl.load(tmp_path).net
    turns = next(node for node in net.nodes if node.op == "rotary").attrs["frequencies"]
    assert math.isclose(max(turns), 1.0)
    model = model.double()

    def table(x: Any, position_ids: Any) -> Any:
        angles = position_ids[..., None].double() * torch.tensor(turns, dtype=torch.float64)
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()

    model.model.rotary_emb.forward = table
    model.set_attn_implementation("sdpa")
    for part in model.modules():
        if type(part).__name__ == "LlamaRMSNorm":
            part.forward = lambda x, w=part: w.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + w.variance_epsilon)
    ids = torch.randint(0, 300, (1, 40))
    with torch.no_grad():
        want = model(ids).logits.numpy()
    assert relative(net.run(ids.numpy(), dtype="float64")["output"], want) <= 1e-10


# ---------------------------------------------------------------- tokenisers

LLAMA3_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")  # fmt: skip


def byte_pairs(kind: str) -> Any:
    tk = pytest.importorskip("tokenizers")
    pre, special = tk.pre_tokenizers, ["<|endoftext|>"]
    if kind == "llama 2":
        return _fallback()
    t = tk.Tokenizer(tk.models.BPE())
    t.decoder = tk.decoders.ByteLevel()
    level = pre.ByteLevel(add_prefix_space=kind == "GPT-2 with a space")
    if kind.startswith(("Llama", "Qwen")):
        words = LLAMA3_WORDS if kind.startswith("Llama") else LLAMA3_WORDS.replace("{1,3}", "")
        level = pre.Sequence([pre.Split(tk.Regex(words), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    if kind.startswith("Qwen"):
        t.normalizer = tk.normalizers.NFC()
    t.pre_tokenizer = level
    alphabet = pre.ByteLevel.alphabet()
    t.train_from_iterator(
        corpus(), tk.trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    )
    if kind.startswith("Llama"):
        t.add_special_tokens(["<|begin|>"])
        t.add_tokens([tk.AddedToken("hello", lstrip=True), tk.AddedToken("the", single_word=True), tk.AddedToken("ba", rstrip=True)])
        one = tk.processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", t.token_to_id("<|begin|>"))])
        t.post_processor = tk.processors.Sequence([tk.processors.ByteLevel(), one])
        whole = json.loads(t.to_str())
        whole["model"]["ignore_merges"] = kind.endswith("whole words")
        t = tk.Tokenizer.from_str(json.dumps(whole))
    return t


def _fallback() -> Any:
    """Byte pairs of characters, bytes for unknown ones, a mark for spaces."""
    tk = pytest.importorskip("tokenizers")
    marks = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = tk.Tokenizer(tk.models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = tk.pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        corpus(), tk.trainers.BpeTrainer(vocab_size=900, special_tokens=marks, show_progress=False, limit_alphabet=120)
    )
    whole = json.loads(trained.to_str())
    whole["model"].update(fuse_unk=True, byte_fallback=True)
    whole["added_tokens"] = whole["added_tokens"][:3]
    t = tk.Tokenizer.from_str(json.dumps(whole))
    t.pre_tokenizer = tk.pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    d = tk.decoders
    t.decoder = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse(), d.Strip(content=" ", left=1)])
    t.post_processor = tk.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


def others(kind: str) -> Any:
    tk = pytest.importorskip("tokenizers")
    n, p = tk.normalizers, tk.pre_tokenizers
    if kind.startswith("BERT"):
        t = tk.Tokenizer(tk.models.WordPiece(unk_token="[UNK]"))
        t.normalizer, t.pre_tokenizer = n.BertNormalizer(lowercase=not kind.endswith("cased")), p.BertPreTokenizer()
        t.decoder = tk.decoders.WordPiece()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        t.train_from_iterator(corpus(), tk.trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False))
        t.post_processor = tk.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        return t
    t = tk.Tokenizer(tk.models.Unigram())
    t.normalizer, t.pre_tokenizer, t.decoder = n.NFKC(), p.Metaspace(), tk.decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    t.train_from_iterator(
        corpus(), tk.trainers.UnigramTrainer(vocab_size=700, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    t.post_processor = tk.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    if kind != "unigram":
        t.pre_tokenizer = p.Sequence([p.WhitespaceSplit(), p.Punctuation(kind), p.Split("a", kind), p.Digits(True), p.Metaspace()])
        t.normalizer = n.Sequence([n.NFD(), n.StripAccents(), n.Lowercase(), n.Strip()])
    return t


KINDS = ("GPT-2", "GPT-2 with a space", "Llama 3", "Llama 3 whole words", "Qwen 2", "llama 2", "BERT", "BERT cased", "unigram",
         "isolated", "merged_with_previous", "merged_with_next", "removed")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizer_json(kind: str) -> None:
    """3000 texts, ids and text back."""
    theirs = byte_pairs(kind) if kind in KINDS[:6] else others(kind)
    ours = JsonTokenizer(theirs.to_str().encode())
    given = texts(3000)
    want = [theirs.encode(text).ids for text in given]
    wrong = [text for text, ids in zip(given, want, strict=True) if ours.encode(text) != ids]
    assert not wrong, (len(wrong), wrong[:3])
    back = [text for text, ids in zip(given, want, strict=True) if ours.decode(ids) != theirs.decode(ids)]
    assert not back, (len(back), back[:3])


def test_gpt2_files(tmp_path: Path) -> None:
    """vocab.json and merges.txt beside weights, through ``sl.load`` of the folder."""
    transformers = pytest.importorskip("transformers")
    t = byte_pairs("GPT-2")
    whole = json.loads(t.to_str())["model"]
    model = made("GPT-2-like")
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(whole["vocab"]), encoding="utf-8")
    merges = [" ".join(pair) for pair in whole["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    theirs = transformers.GPT2Tokenizer(whole["vocab"], [tuple(pair) for pair in whole["merges"]])
    loaded = sl.load(tmp_path)
    given = texts(2000)
    assert [loaded.encode(text) for text in given] == [theirs(text)["input_ids"] for text in given]


def test_word_pieces() -> None:
    """vocab.txt, as the tokenizers package cuts it."""
    from semanticlens.nn.language import WordPiece

    for lower in (True, False):
        theirs = others("BERT" if lower else "BERT cased")
        tokens = sorted(theirs.get_vocab(), key=theirs.get_vocab().__getitem__)
        ours = WordPiece(tokens, lower=lower)
        given = texts(3000)
        wrong = [text for text in given if ours.encode(text) != theirs.encode(text).ids]
        assert not wrong, (len(wrong), wrong[:3])


SPM = {
    "plain": {},
    "bytes": {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "split_digits": True},
    "symbols": {"normalization_rule_name": "nmt_nfkc_cf", "user_defined_symbols": ["<sep>", "hello", "日本"]},
    "no prefix": {"add_dummy_prefix": False, "byte_fallback": True},
    "across words": {"split_by_whitespace": False},
}


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("options", SPM)
def test_sentencepiece(kind: str, options: str) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=content, model_type=kind, vocab_size=800, hard_vocab_limit=False,
        minloglevel=2, num_threads=1, **SPM[options]
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())
    ours = SentencePiece(content.getvalue())
    given = texts(3000)
    want = [theirs.encode(text) for text in given]
    wrong = [text for text, ids in zip(given, want, strict=True) if ours.pieces(text) != ids]
    assert not wrong, (len(wrong), wrong[:3])
    assert [ours.decode(ids) for ids in want] == [theirs.decode(ids) for ids in want]


def test_llama_folder_with_sentencepiece(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=content, model_type="bpe", vocab_size=300 + 256, hard_vocab_limit=False,
        minloglevel=2, num_threads=1, byte_fallback=True, normalization_rule_name="identity", character_coverage=0.98
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(content.getvalue())
    model = made("llama-like")
    model.save_pretrained(tmp_path)
    loaded = sl.load(tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())
    for text in texts(300):
        assert loaded.encode(text) == [theirs.bos_id(), *theirs.encode(text)]


def test_shards(tmp_path: Path) -> None:
    """A folder whose weights lie in several files."""
    model = made("llama-like")
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    ids = np.arange(20)[None]
    assert np.array_equal(sl.load(tmp_path / "parts").net(ids), sl.load(tmp_path / "whole").net(ids))


def test_bert_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "cafe", ",", "!", "中", *(f"w{i}" for i in range(289))]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    model = made("BERT-like")
    model.save_pretrained(tmp_path)
    loaded = sl.load(tmp_path)
    theirs = transformers.BertTokenizer({token: i for i, token in enumerate(tokens)})
    ids = theirs("Unaffable café, 中 w17!")["input_ids"]
    assert loaded.encode("Unaffable café, 中 w17!") == ids
    with torch.no_grad():
        want = model(torch.tensor([ids])).last_hidden_state.numpy()
    assert relative(loaded.run("Unaffable café, 中 w17!")["output"], want) <= LIMIT


def test_written_here_read_there(tmp_path: Path) -> None:
    """The bundle is a safetensors file whose arrays the library reads."""
    safetensors = pytest.importorskip("safetensors.numpy")
    model = made("GPT-2-like")
    model.save_pretrained(tmp_path)
    loaded = sl.load(tmp_path)
    loaded.save(tmp_path / "bundle.safetensors")
    arrays = safetensors.load_file(tmp_path / "bundle.safetensors")
    assert set(arrays) == set(loaded.net.params)
    write_tensors(tmp_path / "again.safetensors", arrays, {})
