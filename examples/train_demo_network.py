"""Train the small classifier that ``semanticlens demo`` looks into, and write it as a bundle.

    pip install ".[torch]" && python examples/train_demo_network.py

Eight classes, the shapes of the generated pictures.  One class carries a planted artefact: 90 % of the training pictures of a moon have a
corner mark, and no other training picture has one; everything else is independent.  In 40 % of the training pictures a random rectangle
is painted over, which often hides the shape and leaves the mark: a common augmentation, and one that invites the shortcut.

Four convolutions with ReLU, the maximum over space, one dense layer.  A small L1 term on the pooled activations of the last convolution
makes its 40 components sparse, so that several answer to one thing each; nothing in the loss says which.  Components that can shift no
logit against another by 0.5 are removed afterwards: one such, that followed the mark faintly and in some pictures only, came first in the
search for it over 3 of 6 sets of pictures.

Three seeds were tried with the settings below; the first is shipped, and none was looked for.  Over 1500 fresh pictures of any class with
any overlay (a component is clear if it separates the pictures with some attribute value from the rest with AUROC >= 0.95):

    seed  right without mark  others called moon, without -> with mark  components  clear  ``semanticlens demo`` holds
    0     99.5 %              0.0 % -> 41.0 %                           26          16     in 13 of 13 sets of pictures
    1     99.2 %              0.0 % -> 27.3 %                           27          10     in 3 of 4; else the first hit has AUROC 0.935
    2     99.6 %              0.0 % -> 45.0 %                           27          13     in 4 of 4
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from semanticlens.demo.artefact import ARTEFACT, CLASS, plant
from semanticlens.demo.captions import ATTRIBUTES
from semanticlens.demo.evaluate import aurocs, truth_table
from semanticlens.demo.pictures import SIZE, PictureSet, generate
from semanticlens.nn.network import Network, Node
from semanticlens.nn.preprocess import Preprocess

ASSET = Path(__file__).parents[1] / "semanticlens" / "demo" / "assets" / "network.safetensors"
CHANNELS, KERNELS, STRIDES = (16, 32, 64, 40), (5, 3, 3, 3), (2, 2, 2, 1)
SPARSITY, ERASED = 0.005, 0.4
EFFECT = 0.5                                          # logits; components that can shift less are removed
PREPROCESS = Preprocess(size=(SIZE, SIZE), resize="stretch", scale=1.0 / 64.0, mean=(127.5 / 64.0,) * 3, std=(1.0,) * 3)
TRAIN_SEED, TEST_SEED = 3, 4


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (3, *CHANNELS)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2, bias=False)
                                   for i, o, k, s in zip(widths, CHANNELS, KERNELS, STRIDES, strict=False))
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in CHANNELS)
        self.dense = nn.Linear(CHANNELS[-1], len(ATTRIBUTES["shape"]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and the pooled activations of the last convolution."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = functional.relu(norm(conv(x)))
        pooled = x.amax(dim=(2, 3))
        return self.dense(pooled), pooled


def erase(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Paint a random rectangle over some of the pictures, in place."""
    for picture in x:
        if torch.rand((), generator=rng) < ERASED:
            height, width = (int(n) for n in torch.randint(16, 41, (2,), generator=rng))
            top, left = (int(torch.randint(0, SIZE - n + 1, (), generator=rng)) for n in (height, width))
            picture[:, top : top + height, left : left + width] = 0.7 * torch.randn(3, 1, 1, generator=rng)
    return x


def train(pictures: PictureSet, seed: int, epochs: int, batch: int = 128, rate: float = 3e-3) -> Classifier:
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = Classifier().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * (len(pictures) // batch))
    target, start = torch.from_numpy(pictures.codes("shape")), time.perf_counter()
    for epoch in range(epochs):
        order, right = torch.randperm(len(pictures), generator=rng), 0
        for i in range(0, len(order) - batch + 1, batch):
            rows = order[i : i + batch]
            x = torch.from_numpy(np.stack([PREPROCESS(pixels) for pixels in pictures.pixels[rows.numpy()]]))
            logits, pooled = net(erase(x, rng).contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, target[rows]) + SPARSITY * pooled.mean(0).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            right += int((logits.argmax(1) == target[rows]).sum())
        seconds = time.perf_counter() - start
        print(f"seed {seed}  epoch {epoch + 1}/{epochs}  right {right / len(order):.1%} (some hidden)  {seconds:.0f} s", flush=True)
    return net.eval()


def to_network(net: Classifier) -> Network:
    """The trained network for our engine, batch normalisation folded into the convolutions."""
    nodes, params, before = [], {}, "input"
    for i, (conv, norm) in enumerate(zip(net.convs, net.norms, strict=True), 1):
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        keys = {"weight": f"conv{i}.weight", "bias": f"conv{i}.bias"}
        params[keys["weight"]] = (conv.weight * factor[:, None, None, None]).detach().contiguous().numpy()
        params[keys["bias"]] = (norm.bias - norm.running_mean * factor).detach().numpy()
        nodes += [Node(f"conv{i}", "conv2d", (before,), keys, {"stride": list(conv.stride), "padding": [conv.padding[0]] * 4}),
                  Node(f"relu{i}", "relu", (f"conv{i}",))]
        before = f"relu{i}"
    params["dense.weight"], params["dense.bias"] = net.dense.weight.detach().numpy(), net.dense.bias.detach().numpy()
    nodes += [Node("pool", "max_pool2d", (before,), {}, {"kernel": [8, 8], "stride": [8, 8]}),
              Node("flatten", "flatten", ("pool",), {}, {"start": 1}),
              Node("dense", "dense", ("flatten",), {"weight": "dense.weight", "bias": "dense.bias"})]
    return Network(nodes, params, input_shape=(3, SIZE, SIZE), output="dense", name="demo classifier of shapes", preprocess=PREPROCESS,
                   labels=ATTRIBUTES["shape"])


def run(net: Network, pictures: PictureSet) -> tuple[np.ndarray, np.ndarray]:
    """Answers (N,) and pooled activations of the last convolution (N, K)."""
    x = np.stack([PREPROCESS(pixels) for pixels in pictures.pixels])
    runs = [net.run(x[i : i + 100], record=["output", "relu4"]) for i in range(0, len(x), 100)]
    return np.concatenate([r["output"] for r in runs]).argmax(axis=1), np.concatenate([r["relu4"].max(axis=(2, 3)) for r in runs])


def prune(net: Network, pictures: PictureSet) -> Network:
    """Remove the components that hardly matter, as after any training for sparsity; their mean contribution goes into the bias.

    A component's effect is its range over the pictures (1st to 99th percentile) times its range of weights over the classes: how far it can
    shift one logit against another.
    """
    _, pooled = run(net, pictures)
    weight = net.params["dense.weight"]
    low, high = np.quantile(pooled, (0.01, 0.99), axis=0)
    keep = (high - low) * (weight.max(axis=0) - weight.min(axis=0)) >= EFFECT
    params = dict(net.params)
    params["dense.bias"] = params["dense.bias"] + weight[:, ~keep] @ pooled[:, ~keep].mean(axis=0)
    params["dense.weight"] = np.ascontiguousarray(weight[:, keep])
    params["conv4.weight"], params["conv4.bias"] = params["conv4.weight"][keep], params["conv4.bias"][keep]
    return Network(net.nodes, params, input_shape=net.input_shape, output=net.output, name=net.name, preprocess=net.preprocess,
                   labels=net.labels)


def measure(net: Network, pictures: PictureSet) -> dict[str, float]:
    """Over pictures of any class with any overlay: accuracies, what the mark does, how many components are clear."""
    answer, pooled = run(net, pictures)
    shape, mark = pictures.codes("shape"), pictures.is_value("overlay", ARTEFACT)
    tied = shape == ATTRIBUTES["shape"].index(CLASS)
    called = answer == ATTRIBUTES["shape"].index(CLASS)
    clear = (aurocs(pooled, truth_table(pictures)[1]) >= 0.95).any(axis=1)
    return {"right, no mark": float((answer == shape)[~mark].mean()),
            "right, other class with mark": float((answer == shape)[mark & ~tied].mean()),
            f"other class called {CLASS}, no mark": float(called[~mark & ~tied].mean()),
            f"other class called {CLASS}, mark": float(called[mark & ~tied].mean()),
            "components": float(len(clear)), "clear components": float(clear.sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ASSET)
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="the first is written, the others are only measured")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pictures, test = generate(args.pictures, TRAIN_SEED, change=plant), generate(1500, TEST_SEED)
    for place, seed in enumerate(args.seeds):
        net = prune(to_network(train(pictures, seed, args.epochs)), pictures)
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in measure(net, test).items()), flush=True)
        path = args.out if place == 0 else args.out.with_name(f"{args.out.stem}-seed{seed}{args.out.suffix}")
        if place == 0 or args.out != ASSET:
            net.save(path)
            print(f"wrote {path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
