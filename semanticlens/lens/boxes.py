"""Parts of pictures: boxes as shares of width and height, cut out, counted and encoded one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

__all__ = ["Parts", "check_boxes", "cut", "distinct"]


def check_boxes(boxes: ArrayLike, ids: ArrayLike, what: str) -> None:
    """Raise ValueError unless boxes (K, m, 4) lie inside their pictures, hold something, and are there exactly where ids (K, m) are."""
    b, there = np.asarray(boxes), np.asarray(ids) >= 0
    if b.shape != (*there.shape, 4):
        raise ValueError(f"{what} has the shape {b.shape} instead of {(*there.shape, 4)}")
    own = b[there]
    if not ((own >= 0).all() and (own <= 1).all() and (own[:, :2] < own[:, 2:]).all()):
        raise ValueError(f"{what} holds boxes that are empty or outside of the picture")
    if not np.isnan(b[~there]).all():
        raise ValueError(f"{what} holds boxes of examples that are not there")


def cut(picture: Image.Image, box: ArrayLike) -> Image.Image:
    """The part of a picture inside a box (left, top, right, bottom), shares of its width and height; at least one pixel."""
    left, top, right, bottom = (float(v) for v in np.asarray(box))
    width, height = picture.size
    x, y = min(round(left * width), width - 1), min(round(top * height), height - 1)
    return picture.crop((x, y, max(x + 1, round(right * width)), max(y + 1, round(bottom * height))))


def distinct(layers: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, NDArray[np.int64]]]:
    """The parts that the examples of all layers show, each once: ids (U,), boxes (U, 4); per layer which of them (K, m), -1 for none."""
    shown = [(name, np.asarray(layer.ids), np.asarray(layer.boxes, np.float32)) for name, layer in layers.items()]
    keys = [np.column_stack([ids[ids >= 0].astype(np.float64), boxes[ids >= 0]]) for _, ids, boxes in shown]
    unique, back = (
        np.unique(np.concatenate(keys), axis=0, return_inverse=True)
        if keys
        else (np.empty((0, 5)), np.empty(0, np.int64))
    )
    back, start, rows = back.ravel(), 0, {}
    for name, ids, _ in shown:
        own = np.full(ids.shape, -1, np.int64)
        n = int((ids >= 0).sum())
        own[ids >= 0] = back[start : start + n]
        rows[name], start = own, start + n
    return unique[:, 0].astype(np.int64), unique[:, 1:].astype(np.float32), rows


class Parts:
    """Parts of a data set's pictures as a data set of their own: item i is box i of picture ids[i], in the picture's own resolution."""

    def __init__(self, images: Any, ids: NDArray[np.int64], boxes: NDArray[np.float32]) -> None:
        self.ids, self.boxes = ids, boxes
        self.name = f"parts of {getattr(images, 'name', 'pictures')}"
        made = hashlib.sha256(np.ascontiguousarray(ids, "<i8").tobytes() + np.ascontiguousarray(boxes, "<f4").tobytes())
        self.fingerprint = f"{getattr(images, 'fingerprint', None)}:{made.hexdigest()}"
        self._whole = lru_cache(maxsize=4)(
            lambda i: images[i].convert("RGB")
        )  # parts of one picture follow one another

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Image.Image:
        return cut(self._whole(int(self.ids[index])), self.boxes[index])
