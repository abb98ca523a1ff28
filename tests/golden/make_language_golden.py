"""Makes language.npz: outputs of torch's models with weights drawn by name, and ids from the tokenisers' own libraries.

    python tests/golden/make_language_golden.py        # needs transformers, open_clip_torch, tokenizers, sentencepiece

The weights are not kept: `drawn` gives them again from their names and shapes.
"""

from __future__ import annotations

import io
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


def drawn(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter from its name."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    values = rng.standard_normal(shape)
    if key.endswith("running_var"):
        return (0.5 + np.abs(values)).astype(np.float32)
    if len(shape) == 1 and key.endswith("weight"):
        return (1 + 0.2 * values).astype(np.float32)
    scale = 0.3 if len(shape) < 2 else 1.0 / np.sqrt(np.prod(shape[1:]))
    return np.asarray(scale * values, np.float32).reshape(shape)


def pictures(side: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((2, 3, side, side)).astype(np.float32)


def ids(vocab: int, count: int) -> np.ndarray:
    return np.random.default_rng(6).integers(3, vocab - 2, (2, count))


def filled(model: Any) -> dict[str, tuple[int, ...]]:
    """Fill a torch model, give the shapes of what was filled."""
    import torch

    state = {key: value for key, value in model.state_dict().items() if not key.endswith(("num_batches_tracked", "position_ids"))}
    with torch.no_grad():
        for key, value in state.items():
            value.copy_(torch.from_numpy(drawn(key, tuple(value.shape))))
    return {key: tuple(value.shape) for key, value in state.items()}


def models() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import open_clip
    import torch
    import transformers
    from test_clip_peers import SMALL, SMALL_TEXT
    from test_language_peers import IDS, LLAMA, LLAMA3, SHAPE

    results: dict[str, np.ndarray] = {}
    said: dict[str, Any] = {}
    gpt = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    for name, config, model in (
        ("gpt2", transformers.GPT2Config(**gpt, **IDS), transformers.GPT2LMHeadModel),
        (
            "llama",
            transformers.LlamaConfig(**{**LLAMA, "num_hidden_layers": 2}, rope_parameters=LLAMA3, **IDS),
            transformers.LlamaForCausalLM,
        ),
        ("bert", transformers.BertConfig(**{**SHAPE, "num_hidden_layers": 2}, max_position_embeddings=64, **IDS), transformers.BertModel),
    ):
        net = model(config).eval()
        shapes = filled(net)
        if config.tie_word_embeddings and "lm_head.weight" in shapes:
            del shapes["lm_head.weight"]
            filled_again = drawn("transformer.wte.weight", shapes["transformer.wte.weight"])
            with torch.no_grad():
                net.transformer.wte.weight.copy_(torch.from_numpy(filled_again))
        said[name] = {"config": config.to_dict(), "shapes": shapes}
        with torch.no_grad():
            out = net(torch.from_numpy(ids(300, 40)))
        results[name] = (out.logits if name != "bert" else out.last_hidden_state)[:, ::8, ::4].numpy()
    part = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 48}
    text = {**part, "vocab_size": 200, "max_position_embeddings": 16, "eos_token_id": 199, "bos_token_id": 198, "pad_token_id": 1}
    pair = {"text_config": text, "vision_config": {**part, "image_size": 32, "patch_size": 8}}
    for name, config, model in (
        ("clip", transformers.CLIPConfig(**pair, projection_dim=24), transformers.CLIPModel),
        ("siglip", transformers.SiglipConfig(**pair), transformers.SiglipModel),
    ):
        net = model(config).eval()
        said[name] = {"config": config.to_dict(), "shapes": filled(net)}
        tokens = ids(200, 16)
        tokens[:, 9] = 199
        with torch.no_grad():
            found = net(input_ids=torch.from_numpy(tokens), pixel_values=torch.from_numpy(pictures(32)))
            vision, texts = (
                net.vision_model(torch.from_numpy(pictures(32))).pooler_output,
                net.text_model(torch.from_numpy(tokens)).pooler_output,
            )
            if name == "clip":
                vision, texts = net.visual_projection(vision), net.text_projection(texts)
        del found
        results[f"{name} pictures"], results[f"{name} texts"] = vision.numpy(), texts.numpy()
    for name in ("RN50", "ViT-B-32"):
        net = open_clip.model.CLIP(24, open_clip.model.CLIPVisionCfg(**SMALL[name]), open_clip.model.CLIPTextCfg(**SMALL_TEXT)).eval()
        said[name] = {"shapes": filled(net)}
        tokens = ids(600, 12)
        tokens[:, 7] = 599
        with torch.no_grad():
            results[f"{name} pictures"] = net.encode_image(torch.from_numpy(pictures(64))).numpy()
            results[f"{name} texts"] = net.encode_text(torch.from_numpy(tokens)).numpy()
    return results, said


def tokenizers() -> dict[str, Any]:
    """Small tokenisers with the ids their own libraries give."""
    import sentencepiece
    from test_language_peers import byte_pairs, others
    from texts import corpus, texts

    given = [text for text in texts(160, 3) if len(text) < 200]
    result: dict[str, Any] = {"texts": given}
    for kind in ("GPT-2", "Llama 3", "llama 2", "BERT", "unigram"):
        t = byte_pairs(kind) if kind in ("GPT-2", "Llama 3", "llama 2") else others(kind)
        result[kind] = {"file": t.to_str(), "ids": [t.encode(text).ids for text in given]}
    for kind in ("unigram", "bpe"):
        content = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus(600)), model_writer=content, model_type=kind, vocab_size=500, hard_vocab_limit=False,
            minloglevel=2, num_threads=1, byte_fallback=True, normalization_rule_name="identity", character_coverage=0.98
        )  # fmt: skip
        processor = sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())
        result[f"sentencepiece {kind}"] = {"file": content.getvalue().hex(), "ids": [processor.encode(text) for text in given]}
    return result


if __name__ == "__main__":
    arrays, said = models()
    blob = zlib.compress(json.dumps({"models": said, "tokenizers": tokenizers()}, default=str).encode(), 9)
    np.savez_compressed(HERE / "language.npz", said=np.frombuffer(blob, np.uint8), **arrays)
    print((HERE / "language.npz").stat().st_size)
