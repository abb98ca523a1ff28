"""Which layers of real networks share concepts, and which way of finding concepts can be trusted?

    python examples/alignment_real_networks.py --data DIR --out OUT

DIR is the data folder (SEMANTICLENS_DATA): CIFAR-10 ResNets with 32 x 32 pictures, four ImageNet-size networks with 1000 photos, and a
small vision transformer with digits.
Per group of networks: features of the same places at every layer, concepts by NLMCD and each baseline (with as many concepts as NLMCD
found), the alignment of all layers, the sanity score (share of layers whose most alike other layer is a neighbour), and a report
of two networks.

Writes to OUT: features (reused when the script is run again), one HTML report per pair, result.json; with --figure FILE.png (needs
matplotlib) heat maps and scores; with --table FILE.json the numbers that are committed under examples/results.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _vit_mnist import LAYERS, digits, network

import semanticlens as sl
from semanticlens import alignment
from semanticlens._errors import ConceptWarning

MOBILENET_V2 = [*(f"n{i:02d}_dwconv" for i in (4, 11, 18, 25, 33, 40, 48, 55)), "n61_conv"]
GROUPS: dict[str, Any] = {
    "cifar": {
        "images": "no-licence/cifar10_jpeg_test2000.zip", "labels": "folders",
        "networks": {
            "ResNet-20": ("cifar10_resnet20.npz", [f"layer{s}.{b}" for s in (1, 2, 3) for b in (0, 1, 2)]),
            "ResNet-32": ("cifar10_resnet32.npz", [f"layer{s}.{b}" for s in (1, 2, 3) for b in (0, 2, 4)]),
            "ResNet-56": ("cifar10_resnet56.npz", [f"layer{s}.{b}" for s in (1, 2, 3) for b in (0, 4, 8)]),
        },
        "reports": [("ResNet-20", "ResNet-56")],
    },
    "photos": {
        "images": "no-licence/imagenet_sample_224.zip", "labels": "none",
        "networks": {
            "MobileNetV2": ("mobilenet_v2_1.0_224_imagenet.npz", MOBILENET_V2),
            "MobileNetV2 birds": ("mobilenet_v2_1.0_224_inat_bird.npz", MOBILENET_V2),
            "SqueezeNet": ("squeezenet_v1.0_imagenet.npz", [f"fire{i}" for i in range(2, 10)]),
            "MobileNetV1": ("mobilenet_v1_0.25_128_imagenet.npz",
                            [f"n{i:02d}_conv" for i in (2, 6, 8, 10, 12, 16, 20, 24, 26)]),
        },
        "reports": [("MobileNetV2", "MobileNetV2 birds"), ("MobileNetV2", "SqueezeNet")],
    },
    "digits": {"images": "no-licence", "labels": "none", "networks": {"ViT4MNIST": ("vit_mnist.npz", LAYERS)}, "reports": []},
}  # fmt: skip


def pictures(group: Mapping[str, Any], data: Path, limit: int | None) -> Any:
    if group["images"] == "no-licence":
        return digits(data / "no-licence", min(limit or 2000, 2000))
    images = sl.data.ImageArchive(data / group["images"], labels=group["labels"])
    if limit is not None and limit < len(images):
        images = images.subset(np.linspace(0, len(images) - 1, limit).round().astype(int))
    return images


def load_features(group: Mapping[str, Any], data: Path, cache: Path, limit: int | None) -> tuple[Any, dict[str, alignment.Features]]:
    images = pictures(group, data, limit)
    found = {}
    for name, (file, layers) in group["networks"].items():
        path = cache / f"{Path(file).stem}_{len(images)}.safetensors"
        if not path.is_file():
            start = time.perf_counter()
            net = network(data / "models" / file) if file.startswith("vit") else sl.load(data / "models" / file)
            alignment.features(net, images, layers, pool=0.5, progress=True).save(path)
            print(f"{name}: features of {len(images)} pictures in {time.perf_counter() - start:.0f} s", flush=True)
        found[name] = alignment.Features.load(path)
    return images, found


def methods(n: int, embed: str) -> dict[str, Any]:
    """Name -> function of the number of concepts NLMCD found at a layer."""
    size, samples = max(5, min(50, n // 100)), max(3, min(20, n // 250))
    return {
        "NLMCD": lambda k: alignment.NLMCD(embed, n_components=10, min_cluster_size=size, min_samples=samples),
        "k-means": lambda k: alignment.KMeans(k),
        "PCA": lambda k: alignment.PCA(),
        "MCD": lambda k: alignment.MCD(k),
        "NMF": lambda k: alignment.NMF(k),  # of the positive part, where features can be negative
        "TopK-SAE": lambda k: alignment.TopKSAE(k, min(4, k)),
    }


def score_group(name: str, found: dict[str, alignment.Features], embed: str) -> dict[str, Any]:
    """Sanity scores of every method and network, and the alignment of all layers by each method."""
    places = [(net, layer) for net, f in found.items() for layer in f]
    n = len(next(iter(found.values())).sample_ids)
    counts: list[int] = []
    result: dict[str, Any] = {"layers": [list(p) for p in places], "n": n, "methods": {}}
    for method, make in methods(n, embed).items():
        start = time.perf_counter()
        fitted = []
        for i, (net, layer) in enumerate(places):
            rows = np.asarray(found[net][layer])
            estimator = make(counts[i] if counts else 0).fit(np.maximum(rows, 0) if method == "NMF" else rows)
            fitted.append(estimator)
        if method == "NLMCD":
            counts = [max(2, e.n_concepts_) for e in fitted]
            result["quality"] = [e.quality_.to_dict() for e in fitted]
        table = alignment.matrix([e.memberships_ for e in fitted], names=[f"{net}, {layer}" for net, layer in places])
        result["methods"][method] = {
            "aci": np.round(table.aci, 5).tolist(), "ndc": np.round(table.ndc, 5).tolist(), "concepts": [e.n_concepts_ for e in fitted],
            "sanity": {net: {what: score(getattr(table, what), places, net) for what in ("ndc", "aci")} for net in found},
            "seconds": round(time.perf_counter() - start, 1),
        }  # fmt: skip
        print(f"{name}, {method}: {result['methods'][method]['sanity']}, {result['methods'][method]['seconds']} s", flush=True)
    values = np.array([[alignment.measures.cka(found[a][x], found[b][y], debiased=True) for b, y in places] for a, x in places])
    result["methods"]["linear CKA, debiased"] = {
        "cka": np.round(values, 5).tolist(), "sanity": {net: {"cka": score(values, places, net)} for net in found}
    }  # fmt: skip
    return result


def short(result: dict[str, Any]) -> dict[str, Any]:
    """Without the matrices of the baselines."""
    groups = {}
    for name, group in result["groups"].items():
        methods = {}
        for method, found in group["methods"].items():
            methods[method] = {k: v for k, v in found.items() if method == "NLMCD" or k not in ("aci", "ndc", "cka")}
        groups[name] = {**group, "methods": methods}
    return {**result, "groups": groups}


def score(values: np.ndarray, places: list[tuple[str, str]], net: str) -> float:
    own = [i for i, (name, _) in enumerate(places) if name == net]
    return alignment.sanity_score(values[np.ix_(own, own)])


def figure(result: dict[str, Any], path: Path) -> None:
    """Heat maps of NLMCD by group, and the sanity scores of all methods."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = list(result["groups"])
    widths = [max(3.2, 6.6 * min(1.0, len(result["groups"][name]["layers"]) / 20)) for name in groups] + [4.6]
    drawn, axes = plt.subplots(1, len(widths), figsize=(sum(widths), 6.4), width_ratios=widths, layout="constrained")
    for axis, name in zip(axes, groups, strict=False):
        heat_map(axis, drawn, result["groups"][name])
    axis, names = axes[-1], list(result["groups"][groups[0]]["methods"])
    width = 0.8 / len(groups)
    for g, group in enumerate(groups):
        means = []
        for method in names:
            scores = result["groups"][group]["methods"][method]["sanity"].values()
            means.append(np.mean([s.get("aci", s.get("cka")) for s in scores]))
        axis.barh(np.arange(len(names)) + g * width, means, width * 0.92, label=group, color=("#275d91", "#b0562b", "#8a8f98")[g % 3])
    axis.set_yticks(np.arange(len(names)) + width * (len(groups) - 1) / 2, names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_title("Sanity score, mean of the networks", fontsize=11)
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    drawn.suptitle("Adjusted index of all layers by NLMCD; dot: most alike other layer", x=0.01, ha="left", fontsize=12)
    drawn.savefig(path, dpi=110)


def heat_map(axis: Any, drawn: Any, group: dict[str, Any]) -> None:
    values = np.array(group["methods"]["NLMCD"]["aci"])
    np.fill_diagonal(values, np.nan)
    nets = [net for net, _ in group["layers"]]
    image = axis.imshow(values, cmap="Blues", vmin=0, vmax=np.nanquantile(values, 0.98))
    edges = [i for i in range(1, len(nets)) if nets[i] != nets[i - 1]]
    for edge in edges:
        axis.axhline(edge - 0.5, color="white", lw=3)
        axis.axvline(edge - 0.5, color="white", lw=3)
    for i, j in enumerate(np.nanargmax(values, axis=1)):
        axis.plot(j, i, ".", color="#b0562b", ms=5)
    middles = [np.mean([i for i, net in enumerate(nets) if net == name]) for name in dict.fromkeys(nets)]
    axis.set_xticks(middles, list(dict.fromkeys(nets)), fontsize=9)
    axis.set_yticks(range(len(nets)), [layer for _, layer in group["layers"]], fontsize=6.5)
    axis.tick_params(length=0)
    axis.set_title(f"n = {group['n']}", fontsize=11)
    for spine in axis.spines.values():
        spine.set_visible(False)
    drawn.colorbar(image, ax=axis, shrink=0.6, pad=0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SEMANTICLENS_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, default=Path("alignment_real_networks"))
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--embed", default="neighbours", help="of NLMCD: neighbours, or umap (extra align)")
    parser.add_argument("--limit", type=int, help="pictures per group, evenly spread")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    if not args.data.is_dir():
        raise SystemExit(f"there is no data folder {args.data}: give it by --data or SEMANTICLENS_DATA")
    args.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", ConceptWarning)  # layers without concepts are part of the result
    result: dict[str, Any] = {"embed": args.embed, "version": sl.__version__, "groups": {}}
    for name in args.groups:
        images, found = load_features(GROUPS[name], args.data, args.out, args.limit)
        result["groups"][name] = score_group(name, found, args.embed)
        for a, b in GROUPS[name]["reports"]:
            compared = alignment.compare(found[a], found[b], images, names=(a, b))
            path = compared.report(args.out / f"{a} and {b}.html".replace(" ", "_"))
            print(f"{path}: {compared}", flush=True)
    for path in (args.out / "result.json", args.table):
        if path is not None:
            path.write_text(json.dumps(result if path != args.table else short(result), separators=(",", ":")) + "\n")
    if args.figure is not None:
        figure(result, args.figure)


if __name__ == "__main__":
    main()
