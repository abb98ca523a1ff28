"""Train the built-in image-text encoder of ``semanticlens.encoders.load("demo")`` and write its weights.

    pip install ".[torch]" && python examples/train_demo_encoder.py

Two towers meet in 64 dimensions: a four-layer CNN over 64 x 64 pictures, and a bag of words with one hidden layer.  They are trained
contrastively (InfoNCE, both directions) on generated pictures and captions.  Left out of the sums, instead of counting as wrong: captions
of other pictures that happen to be true of this one, and those that would make it a held-out combination.  Pictures of 12 pairs of shape
and colour or texture (``pictures.held_out_pair``) are never shown.  At the end the means of both towers over training material are stored,
to be taken off.  The accuracies printed are measured with the stored float16 weights by the encoder that users get.

About ten minutes on one core.  The same versions and machine give the same weights; elsewhere they differ in the last digits.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from semanticlens.demo.captions import ATTRIBUTES, WORDINGS, caption, mentioned
from semanticlens.demo.evaluate import encoder_accuracies
from semanticlens.demo.pictures import SIZE, Draws, PictureSet, generate, held_out_pair
from semanticlens.encoders.demo import DemoEncoder, centre, tokenize, write_encoder
from semanticlens.nn.preprocess import Preprocess

CHANNELS = (24, 48, 96, 128)
KERNELS = (5, 3, 3, 3)
DIM, WORD_DIM, HIDDEN = 64, 64, 128
N_CENTRE = 4000                                       # training pictures and captions whose mean vectors are taken off
OFFSET, SCALE = 127.5, 1.0 / 64.0
TRAIN_SEED, TEST_SEED = 1, 2
ASSET = Path(__file__).parents[1] / "semanticlens" / "demo" / "assets" / "encoder.safetensors"


class ImageTower(nn.Module):
    """Four strided convolutions, each with batch normalisation and ReLU, and one dense layer over what is left: 128 channels of 4 x 4."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *CHANNELS)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, 2, k // 2, bias=False)
                                   for i, o, k in zip(widths, CHANNELS, KERNELS, strict=False))
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in CHANNELS)
        self.dense = nn.Linear(CHANNELS[-1] * 16, DIM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = functional.relu(norm(conv(x)))
        return self.dense(x.flatten(1))


class TextTower(nn.Module):
    """The mean of word vectors through one hidden layer."""

    def __init__(self, n_words: int) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.randn(n_words, WORD_DIM) * 0.5)
        self.hidden, self.dense = nn.Linear(WORD_DIM, HIDDEN), nn.Linear(HIDDEN, DIM)

    def forward(self, bags: torch.Tensor) -> torch.Tensor:
        return self.dense(functional.relu(self.hidden(bags @ self.words)))


def all_words() -> tuple[str, ...]:
    """Every word a caption can contain, sorted."""
    draws = Draws(0, 0, 9)
    found: set[str] = set()
    for i in range(20000):
        truth = {name: draws.choice(values) for name, values in ATTRIBUTES.items()}
        found.update(tokenize(caption(truth, Draws(0, i, 10))))
    for values in WORDINGS.values():
        for wordings in values.values():
            found.update(word for wording in wordings for word in tokenize(wording))
    return tuple(sorted(found))


def bags_of(captions: list[str], index: dict[str, int]) -> torch.Tensor:
    """Row i: share of each word among the words of caption i."""
    bags = np.zeros((len(captions), len(index)), dtype=np.float32)
    for row, text in zip(bags, captions, strict=True):
        words = tokenize(text)
        for word in words:
            row[index[word]] += 1.0 / len(words)
    return torch.from_numpy(bags)


def caption_batch(truths: list[dict[str, str]], codes: np.ndarray, keys: list[tuple[int, int]]) -> tuple[list[str], torch.Tensor]:
    """A fresh caption for each picture, and which pairs (picture, caption) the loss must not count as wrong, shape (pictures, captions).

    Those whose caption is true of the picture; and those where the picture, changed to fit the caption, would be a held-out combination:
    nothing is known about these, and calling them wrong would teach "no circle is purple" from every picture of a circle.
    """
    names = list(ATTRIBUTES)
    texts, wanted = [], np.full(codes.shape, -1)
    for i, (truth, key) in enumerate(zip(truths, keys, strict=True)):
        draws = Draws(TRAIN_SEED, *key, 5)
        chosen = mentioned(truth, draws)
        texts.append(caption(truth, draws, chosen))
        for name in chosen:
            wanted[i, names.index(name)] = codes[i, names.index(name)]
    changed = np.where(wanted[None] == -1, codes[:, None], wanted[None])
    true = (changed == codes[:, None]).all(axis=2)
    unknown = held_out_pair(*(changed[:, :, names.index(name)] for name in ("shape", "colour", "texture")))
    return texts, torch.from_numpy(true | unknown)


def contrastive_loss(images: torch.Tensor, texts: torch.Tensor, not_wrong: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE over the own caption and those that are wrong."""
    logits = log_scale.exp() * functional.normalize(images) @ functional.normalize(texts).T
    logits = logits.masked_fill(not_wrong & ~torch.eye(len(not_wrong), dtype=torch.bool), -1e9)
    target = torch.arange(len(not_wrong))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def augment(pixels: np.ndarray, rng: torch.Generator) -> torch.Tensor:
    """Normalised pictures with a little random gain, offset and noise, as other decoders and scalers would bring."""
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - OFFSET) * SCALE
    gain = 1.0 + 0.08 * torch.randn(len(x), 1, 1, 1, generator=rng)
    x = x * gain + 0.08 * torch.randn(len(x), 3, 1, 1, generator=rng) + 0.04 * torch.randn(x.shape, generator=rng)
    return x.contiguous(memory_format=torch.channels_last)


def train(pictures: PictureSet, words: tuple[str, ...], epochs: int, batch: int, rate: float) -> tuple[ImageTower, TextTower]:
    """Both towers, in evaluation mode."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    image_tower = ImageTower().to(memory_format=torch.channels_last)
    text_tower, log_scale = TextTower(len(words)), nn.Parameter(torch.tensor(2.3))
    index = {word: i for i, word in enumerate(words)}
    codes = np.stack([pictures.codes(name) for name in ATTRIBUTES], axis=1)
    steps = epochs * (len(pictures) // batch)
    parameters = [*image_tower.parameters(), *text_tower.parameters(), log_scale]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.15)
    start = time.perf_counter()
    for epoch in range(epochs):
        order, total = torch.randperm(len(pictures), generator=rng).numpy(), 0.0
        for i in range(0, len(order) - batch + 1, batch):
            rows = order[i : i + batch]
            texts, not_wrong = caption_batch([pictures.truths[r] for r in rows], codes[rows], [(int(r), epoch) for r in rows])
            image_vectors = image_tower(augment(pictures.pixels[rows], rng))
            loss = contrastive_loss(image_vectors, text_tower(bags_of(texts, index)), not_wrong, log_scale)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                log_scale.clamp_(max=float(np.log(50.0)))
            total += float(loss.detach())
        print(f"epoch {epoch + 1:2d}/{epochs}  loss {total / (len(order) // batch):.4f}  scale {float(log_scale.detach().exp()):.1f}  "
              f"{time.perf_counter() - start:.0f} s", flush=True)
    return image_tower.eval(), text_tower.eval()


def dense_node(name: str, before: str, layer: nn.Linear, params: dict[str, np.ndarray], tower: str) -> dict[str, object]:
    """A dense layer as a graph node; its arrays go into ``params``."""
    keys = {"weight": f"{tower}.{name}.weight", "bias": f"{tower}.{name}.bias"}
    params[keys["weight"]], params[keys["bias"]] = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return {"name": name, "op": "dense", "inputs": [before], "params": keys, "attrs": {}}


def relu_node(name: str, before: str) -> dict[str, object]:
    return {"name": name, "op": "relu", "inputs": [before], "params": {}, "attrs": {}}


def image_nodes(tower: ImageTower, params: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """The image tower as graph nodes, batch normalisation folded into the convolutions."""
    nodes, before = [], "input"
    for i, (conv, norm) in enumerate(zip(tower.convs, tower.norms, strict=True), 1):
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        keys = {"weight": f"image.conv{i}.weight", "bias": f"image.conv{i}.bias"}
        params[keys["weight"]] = (conv.weight * factor[:, None, None, None]).detach().contiguous().numpy()
        params[keys["bias"]] = (norm.bias - norm.running_mean * factor).detach().numpy()
        attrs = {"stride": [2, 2], "padding": [conv.padding[0]] * 4, "dilation": [1, 1], "groups": 1}
        nodes.append({"name": f"conv{i}", "op": "conv2d", "inputs": [before], "params": keys, "attrs": attrs})
        nodes.append(relu_node(f"relu{i}", f"conv{i}"))
        before = f"relu{i}"
    nodes.append({"name": "flatten", "op": "flatten", "inputs": [before], "params": {}, "attrs": {"start": 1}})
    return [*nodes, dense_node("dense", "flatten", tower.dense, params, "image")]


def text_nodes(tower: TextTower, params: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """The text tower as graph nodes; its input is the bag of words."""
    params["text.words"] = tower.words.detach().numpy().T.copy()
    return [{"name": "words", "op": "dense", "inputs": ["input"], "params": {"weight": "text.words"}, "attrs": {}},
            dense_node("hidden", "words", tower.hidden, params, "text"), relu_node("relu", "hidden"),
            dense_node("dense", "relu", tower.dense, params, "text")]


def save(path: Path, image_tower: ImageTower, text_tower: TextTower, words: tuple[str, ...]) -> None:
    """Write both towers."""
    params: dict[str, np.ndarray] = {"image.mean": np.zeros(DIM, np.float32), "text.mean": np.zeros(DIM, np.float32)}
    preprocess = Preprocess(size=(SIZE, SIZE), resize="stretch", scale=SCALE, mean=(OFFSET * SCALE,) * 3, std=(1.0,) * 3)
    content = {"dim": DIM, "preprocess": preprocess.to_dict(), "words": words,
               "image": image_nodes(image_tower, params), "text": text_nodes(text_tower, params)}
    write_encoder(path, content, params)
    print(f"wrote {path} ({path.stat().st_size:,} bytes)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ASSET)
    parser.add_argument("--pictures", type=int, default=24000)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    pictures = generate(args.pictures, TRAIN_SEED, "seen")
    words = all_words()
    print(f"{len(pictures)} pictures in {time.perf_counter() - start:.0f} s; {len(words)} words", flush=True)
    image_tower, text_tower = train(pictures, words, args.epochs, args.batch, args.rate)
    save(args.out, image_tower, text_tower, words)
    centre(args.out, [Image.fromarray(pixels) for pixels in pictures.pixels[:N_CENTRE]], pictures.captions[:N_CENTRE])
    encoder = DemoEncoder(args.out)
    for combinations in ("seen", "held-out"):
        print(encoder_accuracies(encoder, generate(2000, TEST_SEED, combinations)).table(f"2000 pictures of {combinations} combinations"))


if __name__ == "__main__":
    main()
