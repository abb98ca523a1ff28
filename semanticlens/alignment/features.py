"""Feature vectors of the same places in the same pictures, at any layer of any network.

A concept of a layer is found among feature vectors: one per token or place in a feature map.  To compare layers and networks,
row i must mean the same place of the same picture everywhere, whatever the size of the grid there: places are drawn once per picture as
relative coordinates (by seed and sample id alone) and looked up in every layer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, LayerNotFoundError, ModelFileError
from semanticlens._kernels import build_info
from semanticlens._progress import track
from semanticlens._version import __version__
from semanticlens.data.batches import Transform
from semanticlens.data.dataset import Dataset
from semanticlens.io import read_tensors, write_tensors
from semanticlens.lens.sources import NetworkSource, RunsLayers

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
TOKENS = ("patches", "class", "mean")
PLACES = ("centre", "uniform")
SPREAD = 0.1  # standard deviation of "centre", as a share of the grid's side (the published 11 / 10 cells of 11)
SPECIAL = 8  # at most this many tokens besides the square grid of patches
FORMAT = "semanticlens-features"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features(Mapping[str, F32]):
    """Feature vectors of some layers, row by row of the same places: a mapping of layer name to (n, F) float32.

    Attributes
    ----------
    arrays : dict of str to ndarray of shape (n, F), float32
    sample_ids : ndarray of shape (n,), int64
        Position of each row's picture in the data set.
    places : ndarray of shape (n, 2), float64
        Where in the picture, as shares of height and width in [0, 1); NaN for whole pictures.
    record : dict
        Network, data set and parameters.
    skipped : tuple of (int, str)
        Pictures left out, with the reason.
    """

    arrays: dict[str, F32]
    sample_ids: I64
    places: F64
    record: dict[str, Any]
    skipped: tuple[tuple[int, str], ...] = ()

    def __getitem__(self, layer: str) -> F32:
        if layer not in self.arrays:
            raise LayerNotFoundError(layer, self.arrays, "the features")
        return self.arrays[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self.arrays)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one safetensors file, atomically."""
        arrays: dict[str, NDArray[Any]] = {f"layers/{name}": np.ascontiguousarray(array) for name, array in self.arrays.items()}
        arrays |= {"sample_ids": self.sample_ids, "places": self.places}
        record = {"record": self.record, "layers": list(self.arrays), "skipped": [list(pair) for pair in self.skipped]}
        write_tensors(path, arrays, {"format": FORMAT, "record": json.dumps(record)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Features:
        """Read what :meth:`save` wrote; arrays are memory-mapped."""
        file = read_tensors(path)
        if file.metadata.get("format") != FORMAT:
            raise ModelFileError(f"{path} does not hold features: write them with Features.save")
        try:
            found = json.loads(file.metadata["record"])
            arrays = {name: file[f"layers/{name}"] for name in found["layers"]}
            return cls(arrays=arrays, sample_ids=file["sample_ids"], places=file["places"], record=found["record"],
                       skipped=tuple((int(i), str(why)) for i, why in found["skipped"]))  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path}: its record does not describe its arrays ({type(error).__name__}: {error})") from None

    def __repr__(self) -> str:
        layers = ", ".join(f"{name} {array.shape[1]}" for name, array in self.arrays.items())
        return f"Features({len(self.sample_ids):,} rows of {len(np.unique(self.sample_ids)):,} pictures; {layers})"


def draw_places(ids: ArrayLike, per_image: int = 1, *, seed: int = 0, where: str = "centre") -> F64:
    """Relative places (row, column) in pictures, which depend on ``seed`` and each picture's id and on nothing else.

    Parameters
    ----------
    ids : array-like of shape (B,), int
        Positions in the data set.
    per_image : int
        Places per picture, drawn without regard to each other.
    seed : int
    where : {"centre", "uniform"}
        "centre": normal around the middle with a standard deviation of a tenth of the side (as published; there, however, one
        place is drawn for all pictures).

    Returns
    -------
    ndarray of shape (B, per_image, 2), float64
        In [0, 1).
    """
    if where not in PLACES:
        raise ValueError(f"where={where!r}: must be one of {', '.join(map(repr, PLACES))}")
    positions = np.asarray(ids, dtype=np.int64)
    found = np.empty((len(positions), per_image, 2))
    for row, own in zip(found, positions, strict=True):
        generator = np.random.default_rng([seed, int(own)])
        row[:] = generator.random((per_image, 2)) if where == "uniform" else 0.5 + SPREAD * generator.standard_normal((per_image, 2))
    return np.clip(found, 0.0, np.nextafter(1.0, 0.0))


@dataclass(frozen=True, slots=True)
class _Sampler:
    """How activations of a batch become rows."""

    tokens: str
    pool: int | float
    per_image: int

    def rows(self, layer: str, values: Any, places: F64) -> F32:
        x = np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
        if x.dtype != np.float32 or x.ndim not in (2, 3, 4) or 0 in x.shape or len(x) != len(places):
            raise DataError(f"activations of layer {layer!r} are {x.dtype} of shape {x.shape}: must be float32 of shape (B, F), (B, T, F) "
                            f"or (B, F, H, W) with B = {len(places)}")  # fmt: skip
        if x.ndim == 2:
            return self._whole(layer, x)
        if self.tokens == "mean":
            grid = x.reshape(*x.shape[:2], -1) if x.ndim == 4 else x.transpose(0, 2, 1)
            return self._whole(layer, grid.mean(axis=2, dtype=np.float64).astype(np.float32))
        if self.tokens == "class":
            if x.ndim == 4:
                raise DataError(f"layer {layer!r} gives feature maps {x.shape[1:]}, which have no class token: tokens='patches' or 'mean'")
            return self._whole(layer, np.ascontiguousarray(x[:, 0]))
        return self._patches(x if x.ndim == 4 else _grid(layer, x), places)

    def _whole(self, layer: str, rows: F32) -> F32:
        if self.per_image != 1:
            raise DataError(
                f"layer {layer!r} gives one vector per picture with tokens={self.tokens!r}: per_image={self.per_image} must be 1"
            )
        return rows

    def _patches(self, maps: NDArray[Any], places: F64) -> F32:
        height, width = (self._window(side) for side in maps.shape[2:])
        starts = [(places[..., axis] * (maps.shape[2 + axis] - size + 1)).astype(int) for axis, size in enumerate((height, width))]
        rows = np.empty((len(maps), self.per_image, maps.shape[1]), np.float32)
        for b in range(len(maps)):
            for k in range(self.per_image):
                top, left = starts[0][b, k], starts[1][b, k]
                rows[b, k] = maps[b, :, top : top + height, left : left + width].mean(axis=(1, 2), dtype=np.float64)
        return rows.reshape(-1, maps.shape[1])

    def _window(self, side: int) -> int:
        size = self.pool if isinstance(self.pool, int) else round(self.pool * side)
        return max(1, min(size, side))


def _grid(layer: str, x: NDArray[Any]) -> NDArray[Any]:
    """Tokens (B, T, F) as maps (B, F, g, g): the last g * g of them, those before are class and register tokens."""
    side = int(np.sqrt(x.shape[1] + 0.5))
    if side < 2 or x.shape[1] - side * side > SPECIAL:
        raise DataError(f"layer {layer!r} has {x.shape[1]} tokens, which are not a square grid of patches with up to {SPECIAL} "
                        f"special tokens "
                        "before it: tokens='mean' or 'class'")  # fmt: skip
    return np.asarray(x[:, -side * side :].transpose(0, 2, 1).reshape(len(x), x.shape[2], side, side))


def features(
    net: RunsLayers | Iterable[tuple[ArrayLike, Mapping[str, ArrayLike]]],
    images: Dataset | None = None,
    layers: Sequence[str] | str | None = None,
    *,
    tokens: str = "patches",
    pool: int | float = 1,
    per_image: int = 1,
    seed: int = 0,
    where: str = "centre",
    batch_size: int = 32,
    transform: Transform | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    n_threads: int | None = None,
    progress: bool = False,
) -> Features:
    """Run a network over pictures and keep, per picture and layer, the feature vectors of ``per_image`` places.

    Parameters
    ----------
    net : Network, or iterable of (ids, {layer: activations})
        Activations of a network that runs elsewhere will do, as for :func:`semanticlens.collect`.
    images : Dataset
        For an iterable not needed.
    layers : list of str
        Names or aliases; for an iterable, None takes all.
    tokens : {"patches", "class", "mean"}
        "patches": places of a feature map (B, F, H, W), or patch tokens of (B, T, F), the class token and registers left out.
        "class": the first token. "mean": the mean over all positions. Layers of shape (B, F) come as they are.
    pool : int or float
        Side of the square window that is averaged around a place: in cells (int; the published setting for 14 x 14 tokens is 4), or as
        a share of the grid's side (float up to 1), which compares layers of different size fairly. Stride 1, no padding.
    per_image : int
        Places per picture.
    seed : int
        Of the places; see :func:`draw_places`.
    where : {"centre", "uniform"}
    batch_size : int
    transform : callable, optional
        Picture -> network input, instead of ``net.preprocess``.
    on_error : {"raise", "skip"}
        For pictures that cannot be used; those left out are listed in the result.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Features
        Rows in the order of the data set, ``per_image`` of each picture in a row; nothing but the sampled rows is kept.

    Raises
    ------
    DataError
        No pictures, activations of a wrong shape or type, NaN or inf in them, a layer without the tokens asked for.
    LayerNotFoundError
    """
    if tokens not in TOKENS:
        raise ValueError(f"tokens={tokens!r}: must be one of {', '.join(map(repr, TOKENS))}")
    if isinstance(pool, bool) or not (pool >= 1 if isinstance(pool, int) else 0 < pool <= 1):
        raise ValueError(f"pool={pool!r}: must be a whole number of cells of at least 1, or a share of the side, 0 < pool <= 1.0")
    if isinstance(per_image, bool) or not isinstance(per_image, (int, np.integer)) or per_image < 1:
        raise ValueError(f"per_image={per_image!r}: must be a whole number of at least 1")
    draw_places([], seed=seed, where=where)
    sampler = _Sampler(tokens, pool, int(per_image))
    names = [layers] if isinstance(layers, str) else None if layers is None else list(layers)
    given: Any = net
    source, total = given, None
    if hasattr(net, "run"):
        if images is None:
            raise ValueError("images=None: give the data set to run the network on")
        source = NetworkSource(given, images, names if names is not None else None, batch_size=batch_size,  # type: ignore[arg-type]
                               transform=transform, on_error=on_error, n_threads=n_threads)  # fmt: skip
        names, total = source.layers, -(-len(source) // batch_size)
    ids, places, parts = _gather(track(source, progress=progress, total=total, what="features", unit="batch"), names, sampler, seed, where)
    order = np.argsort(ids, kind="stable")
    if len(np.unique(ids)) != len(ids):
        raise DataError("a sample id comes twice: ids must be distinct")
    rows = (order[:, None] * per_image + np.arange(per_image)).reshape(-1)
    spots = places[order].reshape(-1, 2)
    record = {
        "network": {"name": getattr(given, "name", "(activations)"), "fingerprint": getattr(given, "fingerprint", None)},
        "data": None if images is None else {"name": images.name, "fingerprint": images.fingerprint, "length": len(images)},
        "parameters": {"tokens": tokens, "pool": pool, "per_image": int(per_image), "seed": seed, "where": where},
        "version": __version__, "tier": build_info()["tier"],
    }
    skipped = tuple((int(s.id), s.reason) for s in source.skipped) if isinstance(source, NetworkSource) else ()
    return Features(
        arrays={name: part[rows] for name, part in parts.items()},
        sample_ids=np.repeat(ids[order], per_image), places=spots if tokens == "patches" else np.full_like(spots, np.nan),
        record=record, skipped=skipped,
    )  # fmt: skip


def _gather(
    batches: Iterable[tuple[Any, Mapping[str, Any]]], names: list[str] | None, sampler: _Sampler, seed: int, where: str
) -> tuple[I64, F64, dict[str, F32]]:
    """Ids (n,), places (n, per_image, 2) and rows (n * per_image, F) of all batches, in the order they came."""
    all_ids: list[I64] = []
    all_places: list[F64] = []
    parts: dict[str, list[F32]] = {}
    for batch_ids, activations in batches:
        ids = np.asarray(batch_ids, dtype=np.int64).reshape(-1)
        places = draw_places(ids, sampler.per_image, seed=seed, where=where)
        wanted = list(activations) if names is None else names
        for name in wanted:
            if name not in activations:
                raise LayerNotFoundError(name, activations, "the batch of activations")
            rows = sampler.rows(name, activations[name], places)
            if not np.isfinite(rows).all():
                bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]) // sampler.per_image
                raise DataError(
                    f"layer {name!r} has NaN or infinite activations for picture {ids[bad]}: look at the weights or leave it out"
                )
            known = parts.setdefault(name, [])
            if known and known[0].shape[1] != rows.shape[1]:
                raise DataError(f"layer {name!r} has {rows.shape[1]} features, but {known[0].shape[1]} in the batches before")
            known.append(rows)
        all_ids.append(ids)
        all_places.append(places)
    if not all_ids or not parts:
        raise DataError("there are no activations: the source gave no batch, or no layer")
    joined = {name: np.concatenate(rows) for name, rows in parts.items()}
    n = sum(map(len, all_ids)) * sampler.per_image
    for name, part in joined.items():
        if len(part) != n:
            raise DataError(f"layer {name!r} is missing in some batches: all must hold the same layers")
    return np.concatenate(all_ids), np.concatenate(all_places), joined
