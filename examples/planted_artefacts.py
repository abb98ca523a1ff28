"""Find, check, take out: networks with a planted artefact, and networks without one.

    pip install ".[torch]" && python examples/planted_artefacts.py --work WORK

Trains small classifiers of the generated pictures' shapes in which one class carries an artefact (90 % of its training pictures have
it, no other picture has), one network for each kind and seed: a frame (edge of the picture), stripes (texture of the object itself), a
translucent spot painted over a random place, a ruler (one edge), beside the network that ships with the package (corner mark).  Stripes
and spots of the first settings were hardly leaned on; they stay as networks in which nothing is to be found, and both come again where the
object is hidden more often, the spot larger.  Then, as
a user would: concept database over pictures as confounded as training, audit with pairs of pictures without and with the thing, repair by
ablation and by projection of what the audit names, proof on fresh pictures, and beside it the same network trained further on pictures in
which the thing is independent of the class.  With --clean N also N networks without any artefact, audited for every thing and class: the
false alarms.

What counts was fixed before any network was trained: a component is named where it separates 75 % of the pairs and at least half a unit
of log odds passes through it to the class, by more than two standard errors; it is truly of the artefact where it separates 90 % of fresh
pairs.  Every network of every seed is reported.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import train_demo_network
from train_demo_network import PREPROCESS, Classifier, to_network, train

import semanticlens as sl
from semanticlens import lens
from semanticlens.data import ImageArray
from semanticlens.demo.artefact import plant as plant_mark
from semanticlens.demo.captions import ATTRIBUTES, label
from semanticlens.demo.evaluate import auroc
from semanticlens.demo.explore import load_network
from semanticlens.demo.pictures import SIZE, Draws, PictureSet, Truth, generate
from semanticlens.nn.network import Network

SHAPES = ATTRIBUTES["shape"]
LAYERS, TOP = ["relu3", "relu4"], 20
NAMED, TRULY = 0.5, 0.9                               # log odds that pass; share of fresh pairs
SHARE = 0.9
SEEDS = {"train": 50, "look": 60, "pairs": 70, "fresh": 80, "again": 90}


@dataclass(frozen=True)
class Kind:
    """A thing that can be in a picture: which class carries it, and how it comes and goes."""

    name: str
    tied: str
    attribute: str | None = None                      # of the pictures; None: painted over them
    value: str = ""
    without: str = "none"
    hidden: float = 0.4                               # share of training pictures with something painted over the object
    spot: tuple[float, float] = (7.0, 1 / 3)          # radius and opacity

    def pictures(self, n: int, seed: int, how: str) -> PictureSet:
        """``how``: "planted" as in training, "independent" of the class, "without" or "with" in all."""

        def change(truth: Truth, draws: Draws) -> None:
            if self.attribute is None:
                return
            has = {"with": True, "without": False, "independent": draws.uniform() < 0.5}.get(how, self._planted(truth, draws))
            others = [v for v in ATTRIBUTES[self.attribute] if v != self.value]
            other = self.without if how in ("with", "without") else draws.choice(others)
            truth[self.attribute] = self.value if has else other

        made = generate(n, seed, change=change)
        return made if self.attribute is not None else self._painted(made, how)

    def _planted(self, truth: Truth, draws: Draws) -> bool:
        return truth["shape"] == self.tied and draws.uniform() < SHARE

    def _painted(self, made: PictureSet, how: str) -> PictureSet:
        pixels = made.pixels.copy()
        for i, truth in enumerate(made.truths):
            draws = Draws(made.seed, i, 9)
            has = {"with": True, "without": False, "independent": draws.uniform() < 0.5}.get(how, self._planted(truth, draws))
            if has:
                _spot(pixels[i], draws, *self.spot)
        return PictureSet(pixels, made.truths, made.captions, made.seed)


def _spot(pixels: np.ndarray, draws: Draws, radius: float, opacity: float) -> None:
    """A translucent white disc, anywhere."""
    x, y = draws.uniform(8, SIZE - 8), draws.uniform(8, SIZE - 8)
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    cover = opacity * np.clip(radius - np.hypot(rows - y, columns - x), 0, 1)[..., None]
    pixels[:] = np.rint(pixels * (1 - cover) + 255 * cover)


KINDS = (
    Kind("corner mark", "moon", "overlay", "corner mark"),
    Kind("frame", "square", "overlay", "frame"),
    Kind("stripes", "heart", "texture", "striped", "plain"),
    Kind("translucent spot", "ring"),
    Kind("ruler", "star", "overlay", "ruler"),
    Kind("stripes, objects hidden", "heart", "texture", "striped", "plain", hidden=0.7),
    Kind("large spot, objects hidden", "ring", hidden=0.7, spot=(11.0, 0.5)),
)
PROMPTS = [label("overlay", "corner mark"), label("overlay", "frame"), label("overlay", "ruler"), label("texture", "striped")]


def dataset(pictures: PictureSet) -> ImageArray:
    return ImageArray(pictures.pixels, labels=pictures.codes("shape"), class_names=SHAPES)


def trained(work: Path, kind: Kind | None, seed: int, n: int, epochs: int) -> tuple[Network, Path]:
    """A network and where its torch weights are; from ``work`` if it was trained before."""
    name = f"{'clean' if kind is None else kind.name.replace(' ', '_').replace(',', '')}-{seed}"
    weights, bundle = work / f"{name}.pt", work / f"{name}.safetensors"
    if not bundle.exists():
        made = generate(n, SEEDS["train"] + 1000 * seed) if kind is None else kind.pictures(n, SEEDS["train"] + 1000 * seed, "planted")
        train_demo_network.ERASED = 0.4 if kind is None else kind.hidden
        net = train(made, seed, epochs)
        torch.save(net.state_dict(), weights)
        to_network(net).save(bundle)
    return sl.load(bundle), weights


def trained_further(weights: Path, kind: Kind, seed: int, n: int, epochs: int, rate: float = 1e-3) -> Network:
    """The same network after a few epochs on pictures in which the thing says nothing about the class."""
    net = Classifier()
    net.load_state_dict(torch.load(weights))
    pictures = kind.pictures(n, SEEDS["again"] + 1000 * seed, "independent")
    target, rng = torch.from_numpy(pictures.codes("shape")), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.train().parameters(), rate, weight_decay=1e-3)
    for _ in range(epochs):
        order = torch.randperm(len(pictures), generator=rng)
        for i in range(0, len(order) - 127, 128):
            rows = order[i : i + 128]
            logits, _ = net(torch.from_numpy(np.stack([PREPROCESS(p) for p in pictures.pixels[rows.numpy()]])))
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, target[rows]).backward()
            optimiser.step()
    return to_network(net.eval())


def pooled(net: Network, pictures: PictureSet, layer: str) -> np.ndarray:
    x = np.stack([PREPROCESS(p) for p in pictures.pixels])
    return np.concatenate([net.run(x[i : i + 100], record=[layer])[layer].max(axis=(2, 3)) for i in range(0, len(x), 100)])


def database(net: Network, pictures: PictureSet) -> sl.ConceptDB:
    images = dataset(pictures)
    examples = sl.collect(net, images, LAYERS, top=TOP, pool="max")
    return sl.ConceptDB.build(examples, images, sl.encoders.load("demo"), thumbnails=48).attach(network=net)


def named(net: Network, db: sl.ConceptDB, kind: Kind, tied: str, seed: int, n_pairs: int) -> lens.Audit:
    """The audit of one class for one thing."""
    pair = [dataset(kind.pictures(n_pairs, SEEDS["pairs"] + 1000 * seed, how)) for how in ("without", "with")]
    return lens.audit(db, classes=[tied], valid=[tied], spurious=PROMPTS, threshold=0.3, null="none", measure=64, pairs=tuple(pair))


def spurious(audit: lens.Audit) -> list[lens.Finding]:
    return [f for f in audit.findings() if f.answers and f.through >= NAMED]


def study(work: Path, kind: Kind, seed: int, args: argparse.Namespace) -> dict:
    """One network from training to proof."""
    if kind.name == "corner mark" and seed == 0:
        net, weights = load_network(), None
    else:
        net, weights = trained(work, kind, seed, args.pictures, args.epochs)
    look = generate(args.look, SEEDS["look"] + seed, change=plant_mark) if weights is None else kind.pictures(
        args.look, SEEDS["look"] + 1000 * seed, "planted")
    db = database(net, look)
    audit = named(net, db, kind, kind.tied, seed, args.pairs)
    found = spurious(audit)
    fresh = {how: kind.pictures(args.fresh, SEEDS["fresh"] + 1000 * seed, how) for how in ("without", "with")}
    groups = {f"{how} {kind.name}": dataset(p) for how, p in fresh.items()}
    values = {layer: {how: pooled(net, p, layer) for how, p in fresh.items()} for layer in LAYERS}
    truth = {(layer, k): auroc(np.r_[v["with"][:, k], v["without"][:, k]], np.r_[np.ones(args.fresh, bool), np.zeros(args.fresh, bool)])
             for layer, v in values.items() for k in range(v["with"].shape[1])}
    paired = {(layer, k): float(((v["with"][:, k] > v["without"][:, k]) + 0.5 * (v["with"][:, k] == v["without"][:, k])).mean())
              for layer, v in values.items() for k in range(v["with"].shape[1])}
    row = {"kind": kind.name, "tied": kind.tied, "seed": seed, "named": [_finding(f, truth, paired) for f in found],
           "by label alone": [[f.layer, f.component] for f in audit.findings(category="spurious")][:5],
           "truly": sorted([layer, k] for (layer, k), share in paired.items() if share >= TRULY), "repairs": {}}
    if found:
        for how, repaired in repairs(net, found, kind, seed, args):
            row["repairs"][how] = proof(repaired.before_after(groups), kind, repaired.drift(db))
    if weights is not None:
        again = trained_further(weights, kind, seed, args.pictures // 2, 3)
        both = lens.Repair(network=again, original=net, components=(), how="ablate")
        row["repairs"]["training further"] = proof(both.before_after(groups), kind, None)
    return row


def repairs(net: Network, found: list[lens.Finding], kind: Kind, seed: int, args: argparse.Namespace) -> Iterator[tuple[str, lens.Repair]]:
    chosen = [(f.layer, f.component) for f in found]
    last_only = [one for one in chosen if one[0] == LAYERS[-1]]
    if last_only:
        yield "ablation", lens.repair(net, last_only)
    yield "ablation in both layers", lens.repair(net, chosen)
    pair = tuple(dataset(kind.pictures(args.pairs, SEEDS["pairs"] + 1000 * seed, how)) for how in ("without", "with"))
    last = [(layer, k) for layer in LAYERS[-1:] for k in range(net.layers[layer].shape[0])]
    yield "projection", lens.repair(net, last, how="project", pairs=pair)


def _finding(f: lens.Finding, truth: dict, paired: dict) -> dict:
    return {"layer": f.layer, "component": f.component, "label": f.prompt, "category": f.category, "through": round(f.through, 3),
            "separates fresh pairs": round(paired[f.layer, f.component], 3), "auroc": round(truth[f.layer, f.component], 3)}


def proof(found: lens.BeforeAfter, kind: Kind, drift: lens.Drift | None) -> dict:
    without, with_it = found.groups
    return {"pulled": [round(v, 4) for v in found.pulled(with_it, kind.tied)],
            "pulled without": [round(v, 4) for v in found.pulled(without, kind.tied)],
            "lowered": round(found.lowered(with_it, kind.tied), 4),
            "others": [round(v, 4) for v in found.accuracy(without, without=[kind.tied])],
            "others with": [round(v, 4) for v in found.accuracy(with_it, without=[kind.tied])],
            "tied without": [round(v, 4) for v in found.recall(without, kind.tied)],
            "drift": None if drift is None else {layer: _rounded(drift.median(layer)) for layer in drift.layers}}


def _rounded(value: float) -> float | None:
    return None if value != value else round(value, 5)


def clean(work: Path, seed: int, args: argparse.Namespace) -> dict:
    """A network without an artefact: every thing and class that the audit names all the same."""
    net, _ = trained(work, None, seed, args.pictures, args.epochs)
    db = database(net, generate(args.look, SEEDS["look"] + 1000 * seed))
    alarms = []
    for kind in KINDS[:5]:
        pair = [dataset(kind.pictures(args.pairs, SEEDS["pairs"] + 1000 * seed, how)) for how in ("without", "with")]
        prompts = {"valid": list(SHAPES), "spurious": PROMPTS, "threshold": 0.3, "null": "none"}
        audit = lens.audit(db, classes=list(SHAPES), **prompts, measure=20, pairs=tuple(pair))
        same = lens.Repair(network=net, original=net, components=(), how="ablate")
        proofs = same.before_after(dict(zip("ab", pair, strict=True)))
        for f in spurious(audit):
            tied = SHAPES[f.target]
            alarms.append({"thing": kind.name, "class": tied, "layer": f.layer, "component": f.component, "through": round(f.through, 3),
                           "pulled": [round(proofs.pulled(g, tied)[0], 4) for g in "ab"]})
    return {"seed": seed, "alarms": alarms, "tests": 5 * len(SHAPES)}


def resumed(path: Path, key: str, make: Callable[[], dict]) -> dict:
    """What was made before under this key, or now."""
    known = json.loads(path.read_text()) if path.exists() else {}
    if key not in known:
        start = time.process_time()
        known[key] = make() | {"seconds": 0.0}
        known[key]["seconds"] = round(time.process_time() - start, 1)
        path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    print(key, json.dumps(known[key], ensure_ascii=False), flush=True)
    return known[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for networks and results; what is there is not made again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--clean", type=int, default=0, help="networks without an artefact")
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--look", type=int, default=1200, help="pictures of the concept database")
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--fresh", type=int, default=800)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="components that were never above 0")
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    out = args.work / "planted_artefacts.json"
    for seed in args.seeds:
        for kind in KINDS:
            resumed(out, f"{kind.name}, seed {seed}", lambda kind=kind, seed=seed: study(args.work, kind, seed, args))
    for seed in range(args.clean):
        resumed(out, f"clean, seed {seed}", lambda seed=seed: clean(args.work, seed, args))


if __name__ == "__main__":
    main()
