"""What a user would do with a network and pictures of their own: collect, build, search, label, score.  Nothing here knows the truth."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semanticlens import data, encoders
from semanticlens._progress import track
from semanticlens.demo.captions import vocabulary
from semanticlens.lens.collect import collect
from semanticlens.lens.database import ConceptDB
from semanticlens.lens.examples import ConceptExamples
from semanticlens.lens.results import Hit, Labels, Scores, SearchResult
from semanticlens.nn.load import load
from semanticlens.nn.network import Network

LAYER = "relu4"                                       # the last convolution; the network takes the maximum over space next, and so do we
POOL = "max"
TOP = 20
QUERIES = ("ring", "a star", "triangular shape", "on a black background", "striped")
DISTRACTIONS = ("corner mark", "frame", "ruler")      # what can be in such pictures and should not matter for a shape
THRESHOLD = 0.35                                      # cosine below which a component stays without a label
BATCH = 64


@dataclass(frozen=True)
class Suspicion:
    """The component that answers best to the description of something that should not matter.

    Attributes
    ----------
    description : str
    hit : Hit
        The first hit of the search.
    label : str
        The component's own label.
    classes : tuple of (str, float)
        The classes, as the network itself answers, whose pictures activate the component most.
    """

    description: str
    hit: Hit
    label: str
    classes: tuple[tuple[str, float], ...]

    @property
    def confirmed(self) -> bool:
        """Whether search and label agree: the component found by the description is also called by it."""
        return self.label == self.description


@dataclass(frozen=True)
class Exploration:
    """All that was found without knowing the truth."""

    net: Network
    images: data.ImageArray
    examples: ConceptExamples
    db: ConceptDB
    queries: SearchResult
    labels: Labels
    scores: Scores
    suspicions: tuple[Suspicion, ...]

    @property
    def artefact(self) -> Suspicion:
        """The suspicion to follow up first: search and label agree, then the highest score."""
        return max(self.suspicions, key=lambda s: (s.confirmed, s.hit.score))


def load_network() -> Network:
    """The network that comes with the package."""
    with importlib.resources.as_file(importlib.resources.files("semanticlens") / "demo" / "assets" / "network.safetensors") as asset:
        net: Network = load(asset)
        return net


def run_network(net: Network, pixels: NDArray[np.uint8], *, n_threads: int | None, progress: bool = False,
                what: str = "") -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The network's answers (N,) and the pooled activations (N, K) of the explored layer."""
    preprocess = net.preprocess
    if preprocess is None:
        raise ValueError(f"the network {net.name!r} has no preprocess: it cannot be shown pictures")
    answers, pooled = [], []
    for start in track(range(0, len(pixels), BATCH), progress=progress, what=what, unit="batch"):
        x = np.stack([preprocess(picture) for picture in pixels[start : start + BATCH]])
        values = net.run(x, record=["output", LAYER], n_threads=n_threads)
        answers.append(values["output"].argmax(axis=1))
        pooled.append(values[LAYER].max(axis=(2, 3)))
    return np.concatenate(answers).astype(np.int64), np.concatenate(pooled)


def explore(pixels: NDArray[np.uint8], *, n_threads: int | None, progress: bool) -> Exploration:
    """Go the whole way over pictures, shape (N, 64, 64, 3)."""
    net = load_network()
    answers, _ = run_network(net, pixels, n_threads=n_threads, progress=progress, what="classify")
    images = data.ImageArray(pixels, labels=answers, class_names=net.labels, name="generated pictures")
    examples = collect(net, images, layers=[LAYER], top=TOP, pool=POOL, batch_size=BATCH, n_threads=n_threads, progress=progress)
    db = ConceptDB.build(examples, images, encoders.load("demo"), progress=progress, n_threads=n_threads)
    labels = db.label(list(vocabulary()), top=3, threshold=THRESHOLD, n_threads=n_threads)
    suspicions = []
    for hit in db.search(list(DISTRACTIONS), top=1, n_threads=n_threads):
        suspicions.append(Suspicion(hit.query, hit, str(labels[hit.layer, hit.component]), hit.classes))
    queries = db.search([*QUERIES, *DISTRACTIONS], top=4, n_threads=n_threads)
    return Exploration(net, images, examples, db, queries, labels, db.scores(n_threads=n_threads), tuple(suspicions))
