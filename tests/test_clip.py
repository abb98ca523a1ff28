"""CLIP: towers, tokeniser, encoder; a small network in every run, OpenCLIP under the marker ``peers``."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import semanticlens as sl
from semanticlens.io import write_tensors
from semanticlens.nn.language.bpe import ClipTokenizer
from semanticlens.nn.language.clip import image_tower, text_tower

MERGES = ["a b", "ab c</w>", "d e", "1 2</w>", "t h", "th e</w>"]


def vocabulary(folder: Path, lines: list[str] | None = None) -> Path:
    path = folder / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["#version", *(MERGES if lines is None else lines)]).encode()))
    return path


def small_state(vocab: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    state = {
        "visual.conv1.weight": draw(64, 3, 4, 4),
        "visual.class_embedding": draw(64),
        "visual.positional_embedding": draw(10, 64),
        "visual.proj": draw(64, 12),
        "text_projection": draw(64, 12),
        "positional_embedding": draw(9, 64),
        "token_embedding.weight": draw(vocab, 64),
        "logit_scale": np.ones(1, np.float32),
    }
    for name in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        state |= {f"{name}.weight": 1 + draw(64), f"{name}.bias": draw(64)}
    for tower in ("visual.", ""):
        for i in range(2):
            at = f"{tower}transformer.resblocks.{i}"
            for name, shape in (
                ("attn.in_proj_", (192, 64)),
                ("attn.out_proj.", (64, 64)),
                ("mlp.c_fc.", (96, 64)),
                ("mlp.c_proj.", (64, 96)),
            ):
                state |= {f"{at}.{name}weight": draw(*shape), f"{at}.{name}bias": draw(shape[0])}
            for name in ("ln_1", "ln_2"):
                state |= {f"{at}.{name}.weight": 1 + draw(64), f"{at}.{name}.bias": draw(64)}
    return state


def test_tokenizer(tmp_path: Path) -> None:
    tokens = ClipTokenizer(vocabulary(tmp_path), context=9)
    begin, end = tokens.ids["<|startoftext|>"], tokens.ids["<|endoftext|>"]
    shown = [tokens.tokens[i] for i in tokens.pieces("ABC the  12 it's &amp; é!?")]
    assert shown == [
        "abc</w>",
        "the</w>",
        "1</w>",
        "2</w>",
        "i",
        "t</w>",
        "'",
        "s</w>",
        "&</w>",
        "Ã",
        "©</w>",
        "!",
        "?</w>",
    ]
    assert tokens.encode("abc") == [begin, tokens.ids["abc</w>"], end, 0, 0, 0, 0, 0, 0]
    long = tokens.encode("abc " * 20)
    assert len(long) == 9
    assert long[-1] == end
    assert tokens.decode(tokens.encode("the abc é")) == "the abc é"
    assert max(long) == end
    with pytest.raises(sl.ModelFileError, match="line 3 must hold the two parts"):
        ClipTokenizer(vocabulary(tmp_path, ["a b", "abc"]))
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(sl.ModelFileError, match="not a vocabulary of CLIP"):
        ClipTokenizer(tmp_path / "broken.gz")


def test_encoder(tmp_path: Path) -> None:
    vocab = len(ClipTokenizer(vocabulary(tmp_path)).tokens)
    write_tensors(tmp_path / "clip.safetensors", small_state(vocab), {})
    clip = sl.encoders.CLIP(tmp_path / "clip.safetensors")
    assert isinstance(clip, sl.encoders.Encoder)
    assert clip.dim == 12
    pictures = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (20 + i, 30, 3), np.uint8)) for i in range(3)]
    images, texts = clip.encode_images(pictures), clip.encode_texts(["the abc", "abc", "a"])
    assert images.shape == texts.shape == (3, 12)
    assert np.array_equal(clip.encode_images(pictures[1:2])[0], images[1])
    assert np.array_equal(clip.encode_texts(["abc"])[0], texts[1])
    x = np.stack([clip.preprocess(picture) for picture in pictures])
    np.testing.assert_allclose(images, clip.image_tower.run(x, dtype="float64")["output"], rtol=1e-3, atol=1e-5)
    quick = sl.encoders.CLIP(tmp_path / "clip.safetensors", quick_gelu=True)
    assert quick.fingerprint != clip.fingerprint
    assert not np.allclose(quick.encode_images(pictures), images)
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").unlink()
    with pytest.raises(sl.DataError, match="clip has no vocabulary"):
        sl.encoders.CLIP(tmp_path / "clip.safetensors").encode_texts(["a"])
    state = small_state(vocab)
    del state["visual.proj"]
    with pytest.raises(sl.ModelFileError, match="parameter 'proj' is missing"):
        image_tower(state)
    with pytest.raises(sl.ModelFileError, match=r"left over .* extra"):
        text_tower({**small_state(vocab), "extra": np.zeros(3, np.float32)})


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32-quickgelu"])
def test_equals_openclip(name: str, tmp_path: Path) -> None:
    open_clip: Any = pytest.importorskip("open_clip")
    import torch

    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
            elif "positional" in key or "embedding" in key:
                value.add_(0.02 * torch.randn_like(value))
    state = {key: value.detach().numpy() for key, value in model.state_dict().items()}
    write_tensors(
        tmp_path / "clip.safetensors",
        {key: np.ascontiguousarray(value, np.float32) for key, value in state.items()},
        {},
    )
    words = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    clip = sl.encoders.CLIP(tmp_path / "clip.safetensors", words, quick_gelu=name.endswith("quickgelu"))
    texts = [
        "a photo of a dog",
        "It's 1234 o'clock — naïve café, 中文 ok!?",
        "x" * 400,
        "",
        "the end's near &lt;b&gt;",
        "word " * 100,
    ]
    theirs = open_clip.get_tokenizer(name)(texts)
    assert clip.tokenizer is not None
    assert [clip.tokenizer.encode(text) for text in texts] == theirs.tolist()
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        images, vectors = model.encode_image(x).numpy(), model.encode_text(theirs).numpy()
    for got, want in ((clip.image_tower(x.numpy()), images), (clip.encode_texts(texts), vectors)):
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
