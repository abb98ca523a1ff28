"""Which way of naming components is right? Five labellers on generated pictures whose whole truth is known.

    python examples/descriptions_truth.py --networks WORK --table examples/results/descriptions_truth.json --page docs/descriptions.md

WORK holds clean-*.safetensors, networks of examples/planted_artefacts.py --work WORK --clean 20; without it the shipped network alone.

Components of the last convolution are named from 1200 pictures by: semantic labels (cosine of the concept vector with each text; plain,
and with the empty text taken off as a vector), CLIP-Dissect's soft WPMI (k = 100 and 20), INVERT with single concepts (which is given the
truth of these pictures, so it is no fair competitor but an upper mark), and at random.  Names are then scored on 1200 other pictures: do
activations separate the pictures that show what the name says (AUC, MAD), are they near the component's largest (DMA), does the name's
similarity to every picture predict them (simulation)?  And is the name right: one of the values that the component separates with
AUROC >= 0.9?
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import semanticlens as sl
from semanticlens import data, encoders, lens
from semanticlens.demo.captions import vocabulary
from semanticlens.demo.evaluate import aurocs
from semanticlens.demo.explore import load_network, run_network
from semanticlens.demo.pictures import PictureSet, generate

LAYER, TOP, N, CLEAR = "relu4", 20, 1200, 0.9
NAMES = list(vocabulary())
METHODS = ("semantic label", "semantic label, null vector", "soft WPMI, k = 100", "soft WPMI, k = 20", "INVERT (given the truth)", "random")
SCORES = ("auc", "mad", "dma", "simulation")


def shows(pictures: PictureSet) -> np.ndarray:
    """(N, L): does a picture show what a text says?"""
    return np.stack([pictures.is_value(*vocabulary()[name]) for name in NAMES], axis=1)


def names_of(db: sl.ConceptDB, encoder: encoders.Encoder, pictures: PictureSet, acts: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Every method's name for every component, as places in ``NAMES``; -1 for none."""
    texts = encoder.encode_texts(NAMES)
    images = encoder.encode_images(pictures.pixels)
    sims = (images / np.linalg.norm(images, axis=1, keepdims=True)) @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    live = ~db[LAYER].dead

    def chosen(scores: np.ndarray) -> np.ndarray:
        return np.where(live, np.nan_to_num(scores, nan=-np.inf).argmax(axis=1), -1)

    found = [db.label(NAMES, top=1, threshold=-1, null=null)[LAYER].indices[:, 0] for null in ("none", "vector")]
    found += [chosen(lens.soft_wpmi(acts, sims, top=k)) for k in (100, 20)]
    formulas = lens.invert(acts, shows(pictures), NAMES, max_fraction=1.0, negation=False)
    found.append(np.array([-1 if f is None else NAMES.index(f.text) for f in formulas]))
    found.append(np.where(live, np.random.default_rng(seed).integers(0, len(NAMES), len(live)), -1))
    return dict(zip(METHODS, found, strict=True))


def study(net: sl.Network, seed: int) -> dict:
    encoder = encoders.load("demo")
    probe, test = (generate(N, start + seed) for start in (7_000_000, 8_000_000))
    images = data.ImageArray(probe.pixels, labels=probe.codes("shape"))
    db = sl.ConceptDB.build(sl.collect(net, images, [LAYER], top=TOP, pool="max"), images, encoder, thumbnails=0)
    _, acts = run_network(net, probe.pixels, n_threads=1)
    _, fresh = run_network(net, test.pixels, n_threads=1)
    truth, sims = shows(test), _similar(encoder, test)
    clear = aurocs(fresh, truth) >= CLEAR
    result = {}
    for method, labels in names_of(db, encoder, probe, acts, seed).items():
        scored = lens.evaluate_descriptions(fresh, truth, labels, sims, largest=acts.max(axis=0))
        known = clear.any(axis=1) & (labels >= 0)
        result[method] = {name: getattr(scored, name).tolist() for name in SCORES}
        result[method]["right"] = clear[np.arange(len(labels)), labels][known].astype(float).tolist()
    return result


def _similar(encoder: encoders.Encoder, pictures: PictureSet) -> np.ndarray:
    a, b = encoder.encode_images(pictures.pixels), encoder.encode_texts(NAMES)
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def pooled(studies: list[dict]) -> dict:
    """Means over the components of all networks, with bootstrap intervals over networks and components."""
    rng, found = np.random.default_rng(0), {}
    for method in METHODS:
        found[method] = {}
        for name in (*SCORES, "right"):
            parts = [np.array([v for v in one[method][name] if v is not None and v == v]) for one in studies]
            parts = [part for part in parts if len(part)]
            means = []
            for _ in range(2000):
                chosen = [parts[i] for i in rng.integers(0, len(parts), len(parts))]
                means.append(np.concatenate([part[rng.integers(0, len(part), len(part))] for part in chosen]).mean())
            low, high = np.quantile(means, [0.025, 0.975])
            own = np.concatenate(parts)
            values = {"mean": float(own.mean()), "low": float(low), "high": float(high)}
            found[method][name] = {key: round(value, 4) for key, value in values.items()} | {"n": len(own)}
    return found


def page(found: dict, count: int) -> str:
    heads = {"right": "right name", "auc": "AUC", "mad": "MAD", "dma": "DMA", "simulation": "simulation"}
    rows = ["| " + " | ".join(["named by", *heads.values()]) + " |", "|" + "---|" * (len(heads) + 1)]
    for method, own in found.items():
        cells = [f"{own[k]['mean']:.3f} ({own[k]['low']:.3f} to {own[k]['high']:.3f})" for k in heads]
        rows.append("| " + " | ".join([method, *cells]) + " |")
    n, live = (found[METHODS[0]][key]["n"] for key in ("right", "auc"))
    return f"""# Which way of naming components is right?

Written by `python examples/descriptions_truth.py --networks WORK`, whose first lines say what is done. {count} networks ({live} live
components, {n} with a clear meaning), {len(NAMES)} texts. Means with 95 % bootstrap intervals over networks and their components.
*Right name*: of those that separate some attribute's value with AUROC of at least {CLEAR}, the share whose name is such a value.

{chr(10).join(rows)}

- INVERT is given which picture shows what, and maximises the AUC: it is the upper mark of that column. Where such truth exists, it is
  the better namer.
- Semantic labels need no truth of these pictures and come near it, below it in AUC and right names by more than the intervals. But their
  encoder was trained on such pictures and captions, and the simulation correlation is measured with the same encoder: both favour them.
  Taking the empty text off changes nothing here.
- Soft WPMI is worse on these pictures with either number of examples. Its scale of 10 was chosen for CLIP's cosines over pictures of one
  thing; here every picture shows seven attributes at once, of which the softmax over texts lets one win. This is no statement about photos.
- A score far above the random row does not make a name right: soft WPMI has an AUC of 0.6 with 4 right names in 10.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=Path, help="a folder with clean-*.safetensors")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    networks = [load_network()]
    if args.networks is not None:
        networks += [sl.load(path) for path in sorted(args.networks.glob("clean-*.safetensors"))]
    studies = []
    for seed, net in enumerate(networks):
        studies.append(study(net, seed))
        print(seed, {m: round(float(np.mean(studies[-1][m]["right"])), 3) for m in METHODS}, flush=True)
    found = pooled(studies)
    args.table.write_text(json.dumps({"networks": len(networks), "methods": found}, indent=1, ensure_ascii=False) + "\n")
    if args.page is not None:
        args.page.write_text(page(found, len(networks)))


if __name__ == "__main__":
    main()
