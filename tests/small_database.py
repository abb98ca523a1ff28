"""A small concept database made by the real code: two layers, one of them with a hostile name, few pictures, precomputed vectors."""

from __future__ import annotations

import numpy as np
import pytest

from semanticlens import data
from semanticlens._errors import ConceptWarning
from semanticlens.encoders import Arrays
from semanticlens.lens.collect import collect
from semanticlens.lens.database import ConceptDB

HOSTILE = "<script>alert('x')</script>\"&"
LONG = "a label that is far too long to be shown whole in any place where there is little room"
WORDS = ("red", "green", "blue", HOSTILE, "полосатый", "条纹", LONG)
LAYERS = ("conv1", HOSTILE)
N, DIM, COMPONENTS = 30, 6, (5, 8)


def pictures(n: int = N, size: int = 24) -> np.ndarray:
    """Plain pictures, red, green and blue in turn, each a little different."""
    images = np.zeros((n, size, size, 3), np.uint8)
    for i in range(n):
        images[i, ..., i % 3] = 120 + 4 * (i % 30)
        images[i, : i % size, :2, :] = 255
    return images


def vectors() -> dict[str, np.ndarray]:
    """One vector per picture, near that of its colour; and the words'."""
    rng = np.random.default_rng(1)
    texts = np.eye(len(WORDS), DIM, dtype=np.float32) + 0.3
    images = texts[np.arange(N) % 3] + 0.1 * rng.standard_normal((N, DIM)).astype(np.float32)
    return {"images": images, "texts": texts, "names": np.array(WORDS)}


def encoder() -> Arrays:
    found = vectors()
    return Arrays(images=found["images"], texts=(list(WORDS), found["texts"]), name=f"vectors {HOSTILE}")


def database(thumbnails: int = 24) -> ConceptDB:
    """Component 0 of each layer likes red, 1 green, 2 blue; 3 is dead; component 4 of the first layer has two examples."""
    rng = np.random.default_rng(2)
    ids = np.arange(N)
    acts = {}
    for name, k in zip(LAYERS, COMPONENTS, strict=True):
        values = rng.uniform(0.1, 0.2, (N, k)).astype(np.float32)
        for c in range(3):
            values[ids % 3 == c, c] += 1 + 0.01 * ids[ids % 3 == c]
        values[:, 3] = 0
        acts[name] = values
    acts["conv1"][2:, 4] = 0
    images = data.ImageArray(pictures(), labels=ids % 3, class_names=["ruby", HOSTILE, "sea"], name=f"set {HOSTILE}")
    record = {"network": {"name": f"net {HOSTILE}", "fingerprint": "ab" * 32}}
    with pytest.warns(ConceptWarning, match="never above 0: 1 of 5 in layer 'conv1'"):
        examples = collect([(ids, acts)], images, top=9, positive_only=True, record=record)
    return ConceptDB.build(examples, images, encoder(), thumbnails=thumbnails)
