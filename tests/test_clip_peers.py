"""CLIP and SigLIP in both naming schemes against open_clip and transformers: both towers, every layer, tokenisers."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coverage_cases import note, relative, shake
from texts import corpus, texts

import semanticlens as sl
from semanticlens.io import write_tensors

pytestmark = pytest.mark.peers
LIMIT = 1e-4
SMALL_TEXT = {"context_length": 12, "vocab_size": 600, "width": 64, "heads": 1, "layers": 2}
SMALL = {
    "RN50": {"layers": (1, 2, 1, 2), "width": 4, "image_size": 64},
    "ViT-B-32": {"layers": 2, "width": 64, "patch_size": 16, "image_size": 64},
}


def layers(net: Any, call: Callable[[], Any]) -> dict[str, np.ndarray]:
    """The output of every module that is called once, and of the call itself ("")."""
    import torch

    outputs: dict[str, list[Any]] = {}

    def keep(path: str) -> Any:
        def hook(_part: Any, _inputs: Any, out: Any) -> None:
            out = out[0] if isinstance(out, tuple) else out
            outputs.setdefault(path, []).append(out.detach().clone().numpy() if torch.is_tensor(out) else None)

        return hook

    hooks = [part.register_forward_hook(keep(path)) for path, part in net.named_modules() if path]
    with torch.no_grad():
        result = call()
    for hook in hooks:
        hook.remove()
    found = {path: values[0] for path, values in outputs.items() if len(values) == 1 and values[0] is not None}
    return {**found, "": result.numpy()}


def compare(ours: sl.Network, theirs: dict[str, np.ndarray], x: np.ndarray) -> tuple[float, int]:
    names = [path for path in theirs if path and path in ours.layers and not path.endswith("attn")]
    got = ours.run(x, ["output", *names], n_threads=2)
    errors = {"": relative(got["output"], theirs[""])}
    for name in names:
        if name == "ln_post" and theirs[name].ndim == 3:  # there of all tokens, here of the class token, which alone is used
            theirs[name] = theirs[name][:, 0]
        assert got[name].size == theirs[name].size, (name, got[name].shape, theirs[name].shape)
        errors[name] = relative(got[name].reshape(theirs[name].shape), theirs[name])
    assert max(errors.values()) <= LIMIT, sorted(errors.items(), key=lambda one: -one[1])[:5]
    return max(errors.values()), len(errors)


def saved(model: Any, path: Path) -> Path:
    state = {key: np.ascontiguousarray(value.detach().numpy(), np.float32) for key, value in model.state_dict().items()}
    write_tensors(path, {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}, {})
    return path


def open_clip_model(name: str) -> Any:
    """A small member of a family, or the whole of it; seeded."""
    open_clip = pytest.importorskip("open_clip")
    import torch

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith("small "):
            vision = open_clip.model.CLIPVisionCfg(**SMALL[name[6:]])
            model = open_clip.model.CLIP(24, vision, open_clip.model.CLIPTextCfg(**SMALL_TEXT))
        else:
            model = open_clip.create_model(name)
    shake(model)
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        "small RN50",
        "small ViT-B-32",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("RN50", "RN50-quickgelu", "ViT-B-32", "ViT-B-16-SigLIP")),
    ],
)
def test_open_clip_towers(name: str, tmp_path: Path) -> None:
    model = open_clip_model(name)
    import torch

    path = saved(model, tmp_path / "model.safetensors")
    clip = sl.encoders.CLIP(path, fold=False, quick_gelu=True if "quickgelu" in name else None)
    siglip = "SigLIP" in name
    x = torch.randn(2, *clip.image_tower.input_shape)
    error, count = compare(clip.image_tower, layers(model.visual, lambda: model.encode_image(x)), x.numpy())
    context, vocab = clip.text_tower.input_shape[0], clip.text_tower.params["token_embedding.weight"].shape[0]
    ids = torch.randint(1, vocab - 1, (3, context))
    if not siglip:
        ids[:, context // 2] = vocab - 1  # the end, of the largest id
    of = model.text if siglip else model
    text_error, text_count = compare(clip.text_tower, layers(of, lambda: model.encode_text(ids)), ids.numpy())
    assert count > 10
    assert text_count > 5
    if not name.startswith("small"):
        note(f"open_clip/{name}, pictures", "state", error, count, "clip")
        note(f"open_clip/{name}, texts", "state", text_error, text_count, "clip")
    folded = sl.encoders.CLIP(path, quick_gelu=True if "quickgelu" in name else None)
    assert relative(folded.image_tower(x.numpy()), model.encode_image(x).detach().numpy()) <= LIMIT


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("act", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
def test_hugging_face_towers(kind: str, act: str, tmp_path: Path) -> None:
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    shape = {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 80, "hidden_act": act}
    text = {**shape, "vocab_size": 200, "max_position_embeddings": 16, "eos_token_id": 199, "bos_token_id": 198, "pad_token_id": 1}
    vision = {**shape, "image_size": 48, "patch_size": 12}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        model = transformers.CLIPModel(config)
    else:
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        model = transformers.SiglipModel(config)
    shake(model)
    model.eval()
    saved(model, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    clip = sl.encoders.CLIP(tmp_path)
    x, ids = torch.randn(2, 3, 48, 48), torch.randint(0, 198, (3, 16))
    ids[:, 9] = 199

    def features(of: str, **inputs: Any) -> Any:
        out = getattr(model, f"get_{of}_features")(**inputs)
        return out if torch.is_tensor(out) else out.pooler_output

    error, count = compare(clip.image_tower, layers(model, lambda: features("image", pixel_values=x)), x.numpy())
    text_error, text_count = compare(clip.text_tower, layers(model, lambda: features("text", input_ids=ids)), ids.numpy())
    assert min(count, text_count) > 10
    if act == ("quick_gelu" if kind == "clip" else "gelu_pytorch_tanh"):
        note(f"transformers/{type(model).__name__}, pictures", "state", error, count, "clip")
        note(f"transformers/{type(model).__name__}, texts", "state", text_error, text_count, "clip")


def test_open_clip_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of texts; open_clip's repair of wrongly decoded text, which is not followed, is switched off."""
    open_clip = pytest.importorskip("open_clip")
    monkeypatch.setattr(open_clip.tokenizer.ftfy, "fix_text", lambda text: text)
    from semanticlens.nn.language.bpe import ClipTokenizer

    theirs = open_clip.get_tokenizer("RN50")
    ours = ClipTokenizer(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz")
    given = texts(4000)
    wrong = [text for text, ids in zip(given, theirs(given).tolist(), strict=True) if ours.encode(text) != ids]
    assert not wrong, (len(wrong), wrong[:3])


def siglip_model(folder: Path) -> Path:
    """A SentencePiece model as SigLIP's: no begin, the end with id 1."""
    sentencepiece = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=content, vocab_size=600, hard_vocab_limit=False, minloglevel=2, num_threads=1,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc"
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(content.getvalue())
    return folder / "spiece.model"


def test_siglip_tokenizers(tmp_path: Path) -> None:
    transformers, sentencepiece = pytest.importorskip("transformers"), pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    open_clip = pytest.importorskip("open_clip")
    from semanticlens.nn.language.padded import siglip_pieces
    from semanticlens.nn.language.sentencepiece import SentencePiece

    path = siglip_model(tmp_path)
    model, processor = SentencePiece(path), sentencepiece.SentencePieceProcessor(model_file=str(path))
    given = texts(3000)
    hugging_face, opened = siglip_pieces(model, "hugging_face"), siglip_pieces(model, "open_clip")
    theirs = transformers.SiglipTokenizer(str(path))
    clean = [
        open_clip.tokenizer.canonicalize_text(open_clip.tokenizer.html.unescape(open_clip.tokenizer.html.unescape(t)).strip())
        for t in given
    ]
    wrong = [t for t, c in zip(given, clean, strict=True) if opened(t) != processor.encode(c)]
    assert not wrong, (len(wrong), wrong[:3])
    marked = [t for t in given if not any(mark in t for mark in ("<unk>", "</s>", "<pad>"))]  # these are cut out there
    wrong = [t for t in marked if [*hugging_face(t), 1] != theirs(t)["input_ids"]]
    assert not wrong, (len(wrong), wrong[:3])


def test_hugging_face_clip_tokenizer(tmp_path: Path) -> None:
    """vocab.json and merges.txt, and tokenizer.json, give transformers' ids."""
    open_clip, transformers = pytest.importorskip("open_clip"), pytest.importorskip("transformers")
    from semanticlens.encoders.clip_files import _from_json
    from semanticlens.nn.language.bpe import ClipTokenizer

    whole = ClipTokenizer(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz")
    merges = ["#version: 0.2", *(" ".join(pair) for pair in whole._ranks)]
    (tmp_path / "vocab.json").write_text(json.dumps(whole.ids), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    theirs = transformers.CLIPTokenizer(whole.ids, [tuple(line.split()) for line in merges[1:]])
    theirs.save_pretrained(tmp_path / "saved")
    given = texts(3000)
    want = theirs(given, padding="max_length", truncation=True, max_length=77)["input_ids"]
    for path in (tmp_path / "vocab.json", tmp_path / "saved" / "tokenizer.json"):
        ours = _from_json(path, 77)
        wrong = [text for text, ids in zip(given, want, strict=True) if ours.encode(text) != ids]
        assert not wrong, (len(wrong), wrong[:3])
