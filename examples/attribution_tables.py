"""Which relevance maps show what a network looks at? Pixel flipping and localisation for seven methods on two networks.

    python examples/attribution_tables.py --data DIR --out OUT

DIR is the data folder (SEMANTICLENS_DATA): SqueezeNet, MobileNetV2 and 1000 photos, one per ImageNet class.

The photos have no boxes or masks, so localisation is measured on mosaics: two by two photos of different classes, each at the size
the networks were trained on, and the relevance of each of the four classes should lie in the quadrant that shows it. That says whether
a map tells classes and places apart, not how closely it follows an outline.

Pixel flipping takes the photos themselves. In both cases only photos that the network classifies right are taken, evenly spread.

Writes to OUT two contact sheets per network (the photos are not ours to publish, so the sheets are not committed); with --table
FILE.json the numbers, after each network; with --page FILE.md the page that is committed as docs/attribution_tables.md. It takes a
quarter of an hour per network; with --resume, networks are left alone that FILE.json holds for the same settings and methods.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import semanticlens as sl
from semanticlens.attribution import Composite, gradient_x_input, integrated_gradients, metrics

Array = NDArray[Any]
NETWORKS = {"SqueezeNet": "squeezenet_v1.0_imagenet.npz", "MobileNetV2": "mobilenet_v2_1.0_224_imagenet.npz"}
CONTROL = "random (control)"
METHODS = ["epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat", "excitation_backprop", "gradient x input",
           "integrated gradients", "guided backprop (norm)", CONTROL]  # fmt: skip
FILLS = ("mean", "blur")
COLUMNS = {"pixel_flipping": ("abpc", "aopc", "aopc_least"), "localisation": ("mass", "rank", "pointing")}


def methods(net: sl.Network, n_threads: int | None) -> dict[str, Callable[..., Any]]:
    """Name -> function of network, inputs and classes; the same on both networks."""
    low, high = (np.reshape((pixel * net.preprocess.scale - np.array(net.preprocess.mean)) / np.array(net.preprocess.std), (1, -1, 1, 1))
                 for pixel in (0.0, 255.0))  # fmt: skip
    guided = metrics.map_function("guided_backprop", n_threads)

    def guided_norm(net: sl.Network, x: Array, targets: Array) -> Array:
        return np.sqrt((np.asarray(guided(net, x, targets), dtype=np.float64) ** 2).sum(axis=1))

    def random(net: sl.Network, x: Array, targets: Array) -> Array:
        return np.stack([np.random.default_rng([int(t), x.shape[-1]]).random(x.shape[2:]) for t in targets])

    lrp = ("epsilon_plus_flat", Composite.epsilon_gamma_box(low, high), "epsilon_alpha2_beta1_flat", "excitation_backprop")
    made = [metrics.map_function(composite, n_threads) for composite in lrp]
    gradients = (partial(gradient_x_input, n_threads=n_threads), partial(integrated_gradients, steps=16, n_threads=n_threads))
    return dict(zip(METHODS, (*made, *gradients, guided_norm, random), strict=True))


def classified_right(net: sl.Network, photos: Any, offset: int, number: int, skip: int = 0) -> tuple[Array, Array, list[str]]:
    """Inputs, classes and file names of photos that the network classifies right, evenly spread over the classes."""
    order = np.linspace(0, len(photos) - 1, 3 * number).round().astype(int) if 3 * number < len(photos) else np.arange(len(photos))
    kept = []
    for start in range(0, len(order), 20):
        ids = np.roll(order, -skip)[start : start + 20]
        x = np.stack([net.preprocess(photos[i]) for i in ids])
        kept += [(x[k], int(i)) for k, i in enumerate(ids) if net(x[k : k + 1]).argmax() == i + offset]
        if len(kept) >= number:
            break
    kept = kept[:number]
    if len(kept) < number:
        raise SystemExit(f"only {len(kept)} of {len(order)} photos are classified right; ask for fewer with --photos or --mosaics")
    return np.stack([x for x, _ in kept]), np.array([i + offset for _, i in kept]), [photos.names[i] for _, i in kept]


def localise(net: sl.Network, x: Array, classes: Array, makers: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The grid pointing game: the network runs on mosaics of twice the side."""
    wide = net.with_input_size(2 * x.shape[2], 2 * x.shape[3])
    mosaics, masks, _ = metrics.mosaic(x, seed=args.seed)
    inputs = np.repeat(mosaics, 4, axis=0)
    return {
        name: metrics.evaluate(wide, inputs, maker, targets=classes, masks=masks, metrics=("localisation", "sparseness"),
                               batch_size=4, n_threads=args.threads)
        for name, maker in makers.items()
    }  # fmt: skip


def flip(net: sl.Network, x: Array, classes: Array, makers: Mapping[str, Any], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Fill -> method -> evaluation; maps are made once."""
    maps = {name: np.concatenate([np.asarray(maker(net, x[i : i + 8], classes[i : i + 8])) for i in range(0, len(x), 8)])
            for name, maker in makers.items()}  # fmt: skip
    settings = {fill: metrics.PixelFlipping(region=args.region, steps=args.steps, fill=fill, score="probability") for fill in FILLS}
    return {fill: {name: metrics.evaluate(net, x, made, targets=classes, metrics=metric, n_threads=args.threads)
                   for name, made in maps.items()}
            for fill, metric in settings.items()}  # fmt: skip


# pictures

def shown(net: sl.Network, x: Array) -> Image.Image:
    """A network input as a picture again."""
    p = net.preprocess
    pixels = (x * np.reshape(p.std, (-1, 1, 1)) + np.reshape(p.mean, (-1, 1, 1))) / p.scale
    pixels = pixels[::-1] if p.mode == "BGR" else pixels
    return Image.fromarray(pixels.transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8))


def name_of(file: str) -> str:
    """``n01440764_tench.JPEG`` -> ``tench``."""
    return Path(file).stem.partition("_")[2].replace("_", " ") or Path(file).stem


def draw(path: Path, found: Mapping[str, Any], pictures: list[Image.Image], rows: list[str], title: str) -> None:
    """A contact sheet: one row per picture, one column per method, each map in a scale of its own."""
    maps = {name: e.maps[: len(rows)] for name, e in found.items()}
    sl.plot.attribution.sheet(maps, pictures=pictures, rows=rows, title=title, cell=150, pixels=1).save(path)


# results

def record(found: Mapping[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    return {name: {column: {"mean": e.mean(column), "error": e.standard_error(column), "n": e.count(column)} for column in columns}
            for name, e in found.items()}  # fmt: skip


def markdown(rows: Mapping[str, Any], columns: tuple[str, ...], heads: Mapping[str, str]) -> str:
    """Means and standard errors; the best of each column, the control apart, is bold."""
    real = [name for name in rows if name != CONTROL]
    best = {c: (min if c == "aopc_least" else max)(real, key=lambda name, c=c: rows[name][c]["mean"]) for c in columns if c != "gini"}
    lines = ["| method | " + " | ".join(heads[c] for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[c]['mean']:.3f} ± {row[c]['error']:.3f}" for c in columns]
        marked = (f"**{cell}**" if best.get(c) == name else cell for c, cell in zip(columns, cells, strict=True))
        lines.append(f"| {name} | {' | '.join(marked)} |")
    return "\n".join(lines)


HEADS = {"abpc": "area between (large)", "aopc": "most relevant first (large)", "aopc_least": "least relevant first (small)",
         "mass": "mass inside", "rank": "rank accuracy", "pointing": "pointing", "gini": "sparseness (Gini)"}  # fmt: skip


def page(result: Mapping[str, Any]) -> str:
    """The committed page."""
    s = result["settings"]
    text = [f"""# Tables of relevance maps

Written by `python examples/attribution_tables.py --data DIR --out OUT --table examples/results/attribution_tables.json --page
docs/attribution_tables.md`; the same command draws a contact sheet of the photos with all maps into OUT. The photos are not ours to
publish, so the sheets are not in this repository. Standard errors are over photos.

**Pixel flipping** on {s['photos']} photos that the network classifies right: squares of {s['region']} pixels in {s['steps']} steps, the
probability of the photo's class; filled with the photo's mean colour, or with the photo blurred. Area over the curve, most relevant first
(large is good) and least relevant first (small is good), and the area between both curves: formulas in `metrics.PixelFlipping`.

**Localisation** on mosaics: the photos have no boxes or masks, so {s['mosaics']} mosaics of two by two photos of different classes (all
classified right alone) stand in, at twice the side; the relevance of each of the four classes should lie in its quadrant, which is a
quarter of the mosaic: mass, rank accuracy and pointing of a map that knows nothing are 0.25 in the mean (`metrics.Localisation`, positive
relevance). It tells whether maps tell classes and places apart, not how closely they follow outlines.

Maps are summed over channels, the norm over channels for guided backprop. The control is a random map. The best of each column
but sparseness is bold, whether or not the distance is larger than the errors.
"""]  # fmt: skip
    for name, found in result["networks"].items():
        text.append(f"## {name}\n")
        for fill in FILLS:
            text.append(f"Pixel flipping, fill: {fill}\n\n{markdown(found['pixel_flipping'][fill], COLUMNS['pixel_flipping'], HEADS)}\n")
        columns = (*COLUMNS["localisation"], "gini")
        text.append(f"Localisation in mosaics\n\n{markdown(found['localisation'], columns, HEADS)}\n")
    return "\n".join(text)


def one_network(name: str, data: Path, photos: Any, args: argparse.Namespace) -> dict[str, Any]:
    net = sl.load(data / "models" / NETWORKS[name])
    makers, start = methods(net, args.threads), time.perf_counter()
    offset = net.output_shape[0] - 1000  # a class "background" comes first in some
    x, classes, names = classified_right(net, photos, offset, args.photos)
    print(f"{name}: {len(x)} photos read, {time.perf_counter() - start:.0f} s", flush=True)
    flipped = flip(net, x, classes, makers, args)
    print(f"{name}: pixels flipped, {time.perf_counter() - start:.0f} s", flush=True)
    tiles, tile_classes, tile_names = classified_right(net, photos, offset, 4 * args.mosaics)
    order = np.random.default_rng(args.seed).permutation(len(tiles))  # neighbours in the list are alike: mosaics mix them
    localised = localise(net, tiles[order], tile_classes[order], makers, args)
    args.out.mkdir(parents=True, exist_ok=True)
    count = min(args.shown, len(x))
    draw(args.out / f"{name}.png", flipped[FILLS[0]], [shown(net, one) for one in x[:count]], [name_of(n) for n in names[:count]], name)
    mosaics = metrics.mosaic(tiles[order], seed=args.seed)[0]
    rows = [name_of(tile_names[i]) for i in order[: 2 * 4]]
    draw(args.out / f"{name}_mosaics.png", localised, [shown(net, mosaics[i // 4]) for i in range(len(rows))], rows, f"{name}, mosaics")
    result = {
        "pixel_flipping": {fill: record(found, COLUMNS["pixel_flipping"]) for fill, found in flipped.items()},
        "localisation": record(localised, (*COLUMNS["localisation"], "gini")),
    }
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    for fill, found in flipped.items():
        print(f"\npixel flipping, fill {fill}\n{metrics.table(found, COLUMNS['pixel_flipping'])}")
    print(f"\nlocalisation in mosaics\n{metrics.table(localised, (*COLUMNS['localisation'], 'gini'))}\n", flush=True)
    return result


def kept(table: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Networks of an earlier run, if its settings and methods were these."""
    if not table.is_file():
        return {}
    before = json.loads(table.read_text(encoding="utf-8"))
    if before["settings"] != settings:
        raise SystemExit(f"{table} was made with {before['settings']}, not {settings}: run without --resume, or with its settings")
    return {name: found for name, found in before["networks"].items() if list(found["localisation"]) == METHODS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SEMANTICLENS_DATA", "../shared/data")), help="the data folder")
    parser.add_argument("--out", type=Path, required=True, help="where contact sheets go")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--photos", type=int, default=16, help="photos for pixel flipping")
    parser.add_argument("--mosaics", type=int, default=8, help="mosaics of four photos for localisation")
    parser.add_argument("--region", type=int, default=16, help="side of the squares that are flipped")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--shown", type=int, default=8, help="rows of the contact sheet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--table", type=Path, help="write the numbers here (JSON)")
    parser.add_argument("--page", type=Path, help="write the page here (Markdown)")
    parser.add_argument("--resume", action="store_true", help="keep the networks that --table holds for these settings")
    args = parser.parse_args()
    if args.resume and not args.table:
        parser.error("--resume needs --table, the file to go on with")
    archive = args.data / "no-licence" / "imagenet_sample_224.zip"
    if not archive.is_file():
        raise SystemExit(f"{archive} is missing: pass the data folder with --data, or set SEMANTICLENS_DATA")
    photos = sl.data.ImageArchive(archive)
    settings = {key: getattr(args, key) for key in ("photos", "mosaics", "region", "steps", "seed")}
    result: dict[str, Any] = {"settings": settings, "networks": kept(args.table, settings) if args.resume else {}}
    for name in args.networks:
        if name in result["networks"]:
            print(f"{name}: kept, from {args.table}", flush=True)
            continue
        result["networks"][name] = one_network(name, args.data, photos, args)
        if args.table:
            args.table.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.page:
        args.page.write_text(page(result), encoding="utf-8")


if __name__ == "__main__":
    main()
