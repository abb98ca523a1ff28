"""A concept database as it is made, kept in a file and read: examples, concept vectors, small pictures and the record of their making."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, LayerNotFoundError, MismatchError, ModelFileError
from semanticlens._kernels import build_info, resolve_threads
from semanticlens._version import __version__
from semanticlens.encoders.protocol import Encoder, check_encoder
from semanticlens.lens import embed
from semanticlens.lens.boxes import Parts, cut, distinct
from semanticlens.lens.concepts import LayerConcepts
from semanticlens.lens.parts import (
    check_source,
    data_record,
    example_rows,
    form_concepts,
    layer_record,
    merge_samples,
    name_of,
    print_of,
    warn_unusable,
)
from semanticlens.lens.results import Scores, text_table
from semanticlens.lens.store import read_database, write_database

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import Self

__all__ = ["StoredConcepts", "whole"]


class StoredConcepts(Mapping[str, LayerConcepts]):
    """Layers by name, with what they were made from; :class:`~semanticlens.lens.database.ConceptDB` adds the questions."""

    def __init__(self, layers: Mapping[str, LayerConcepts], arrays: Mapping[str, NDArray[Any]], record: Mapping[str, Any]) -> None:
        self._layers, self._arrays, self.record = dict(layers), dict(arrays), dict(record)
        self._encoder: Encoder | None = None
        self.images: Any = None
        self.network: Any = None
        self._scores: Scores | None = None

    # ------------------------------------------------------------------ making, keeping
    @classmethod
    def build(
        cls,
        examples: Mapping[str, Any],
        images: Any = None,
        encoder: Encoder | None = None,
        *,
        normalize_examples: bool = False,
        weighting: str = "mean",
        thumbnails: int = 96,
        batch_size: int = 64,
        progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        n_threads: int | None = None,
    ) -> Self:
        """Encode the concept examples and form the concept vectors.

        Parameters
        ----------
        examples : ConceptExamples
            From :func:`semanticlens.collect`; or any mapping of layer to an object with ``ids``, ``scores``, ``counts``.
        images : data set, optional
            The data set the examples were collected on.  May be left out if the encoder has precomputed vectors;
            there are no thumbnails then.
        encoder : Encoder
            Only the pictures that occur in ``examples`` are encoded, each once; of examples with crops, the crops.
        normalize_examples : bool
            Average unit vectors instead of raw embeddings.
        weighting : {"mean", "scores"}
            Weigh examples equally, as published, or by their activations (negative ones count 0).
        thumbnails : int
            Longer side in pixels of the copies kept for cards and reports; 0 keeps none.
        batch_size : int
            Pictures per call of the encoder.
        progress : bool
        checkpoint : path, optional
            Where to save the state of the embedding pass every few seconds and on interruption; a rerun goes on from
            there and gives the same bytes. Removed at the end.
        n_threads : int, optional

        Raises
        ------
        MismatchError
            The examples were collected on another data set, or the encoder has vectors for another number of pictures.
        DataError
            Unusable input; the message says which.
        """
        encoder = check_encoder(encoder)
        layers = {str(name): layer for name, layer in examples.items()}
        thumbnails = whole(thumbnails, "thumbnails", 0) if images is not None else 0
        batch_size, threads = whole(batch_size, "batch_size", 1), resolve_threads(n_threads)
        if weighting not in ("mean", "scores"):
            raise ValueError(f"weighting={weighting!r} must be 'mean' or 'scores'")
        source = dict(getattr(examples, "record", {}))
        check_source(layers, images, encoder, source)
        wanted = [layer.ids[layer.ids >= 0].ravel() for layer in layers.values()]
        ids = np.unique(np.concatenate(wanted)) if wanted else np.empty(0, np.int64)
        path = None if checkpoint is None else Path(checkpoint)
        cropped = any(getattr(layer, "boxes", None) is not None for layer in layers.values())
        options: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "checkpoint": path}
        if cropped:
            of, boxes, rows = distinct(layers)
            done = embed.embed(np.arange(len(of)), Parts(images, of, boxes), encoder, thumbnails=0, **options)
            small = embed.small_copies(ids, images, thumbnails, progress=progress) if thumbnails else {}
        else:
            done = embed.embed(ids, images, encoder, thumbnails=thumbnails, **options)
            rows, small = {name: example_rows(ids, layer.ids) for name, layer in layers.items()}, done.thumbnails() if thumbnails else {}
        warn_unusable(done.vectors, encoder)
        arrays: dict[str, NDArray[Any]] = {"embeddings": done.vectors, "sample_ids": ids, **small}
        concepts = {
            name: form_concepts(name, layer, rows[name], done.vectors, normalize_examples, weighting, threads)
            for name, layer in layers.items()
        }
        record = {
            "schema": 1,
            "version": __version__,
            "tier": build_info()["tier"],
            "encoder": {"name": encoder.name, "dim": int(encoder.dim), "fingerprint": encoder.fingerprint},
            "data": data_record(images, source),
            "network": source.get("network"),
            "examples": source,
            "build": {
                "normalize_examples": bool(normalize_examples),
                "weighting": weighting,
                "thumbnails": thumbnails,
                "thumbnail_format": embed.FORMAT if thumbnails else None,
                **({"crops": True} if cropped else {}),
            },
            "layers": [layer_record(name, layer) for name, layer in layers.items()],
        }
        db = cls(concepts, arrays, record).attach(encoder, images)
        if path is not None:
            path.unlink(missing_ok=True)
        return db

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, atomically: readers see the old one or the new one.  The same database always gives the same bytes."""
        write_database(path, self._arrays, self._layers, self.record)

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: Encoder | None = None, images: Any = None, *, verify: bool = True) -> Self:
        """Open a file by memory map.

        Parameters
        ----------
        path : path
        encoder : Encoder, optional
            For text and picture queries; must be the one the database was made with.  A built-in encoder is attached
            by itself when it is needed.
        images : data set, optional
            For full-size pictures.
        verify : bool
            Compare the content with its SHA-256, which reads the whole file once.

        Raises
        ------
        ModelFileError
            No concept database, or a damaged one.
        MismatchError
            Another encoder or data set than the database was made with.
        """
        arrays, layers, record = read_database(path, verify=verify)
        return cls(layers, arrays, record).attach(encoder, images)

    def attach(self, encoder: Encoder | None = None, images: Any = None, network: Any = None) -> Self:
        """Give the database its encoder, its pictures and its network back; returns the database itself."""
        if network is not None:
            self.check_network(network)
            self.network = network
        if encoder is not None:
            given, own = check_encoder(encoder), self.record["encoder"]
            if given.fingerprint != own["fingerprint"] or given.dim != own["dim"]:
                raise MismatchError(
                    f"encoder {given.name!r} ({given.fingerprint[:12]}) is not the one the database was made with, {own['name']!r} "
                    f"({own['fingerprint'][:12]}): their vectors cannot be compared"
                )
            self._encoder = given
        if images is not None:
            made, here = (self.record.get("data") or {}).get("fingerprint"), getattr(images, "fingerprint", None)
            if made is not None and here is not None and made != here:
                raise MismatchError(
                    f"data set {getattr(images, 'name', '?')!r} is not the one the database was made with, {name_of(self.record['data'])!r}"
                )
            self.images = images
        return self

    def check_network(self, network: Any) -> None:
        """Raise MismatchError unless a network is the one that the database was made from."""
        made = self.record.get("network")
        if print_of(made) is not None and network.fingerprint != print_of(made):
            raise MismatchError(
                f"network {network.name!r} ({network.fingerprint[:12]}) is not the one the database was made from, {name_of(made)!r} "
                f"({str(print_of(made))[:12]})"
            )

    def merge(self, other: Self) -> Self:
        """A database with the layers of both; they must share encoder and data set, and no layer."""
        self._check_comparable(other)
        for key in ("network", "data"):
            mine, theirs = print_of(self.record.get(key)), print_of(other.record.get(key))
            if mine is not None and theirs is not None and mine != theirs:
                raise MismatchError(
                    f"the databases were made from different {key}: {name_of(self.record[key])!r} and {name_of(other.record[key])!r}"
                )
        both = set(self) & set(other)
        if both:
            raise MismatchError(f"layer {sorted(both)[0]!r} is in both databases")
        if self.record["build"] != other.record["build"]:
            raise MismatchError(f"the databases were built with different settings: {self.record['build']} and {other.record['build']}")
        record = {**self.record, "layers": [*self.record["layers"], *other.record["layers"]]}
        parts, shift = bool(self.record["build"].get("crops")), len(self.embeddings)
        theirs_moved = {
            name: replace(own, rows=np.where(own.rows < 0, -1, own.rows + shift)) if own.rows is not None else own
            for name, own in other._layers.items()
        }
        db = type(self)({**self._layers, **theirs_moved}, merge_samples(self._arrays, other._arrays, parts=parts), record)
        db._encoder, db.images = self._encoder or other._encoder, self.images if self.images is not None else other.images
        db.network = self.network if self.network is not None else other.network
        return db

    def extend(self, examples: Mapping[str, Any], images: Any = None, encoder: Encoder | None = None, **options: Any) -> Self:
        """A database with further layers collected on the same data: :meth:`build` with this one's encoder and settings, :meth:`merge`."""
        made = self.record["build"]
        if encoder is not None:
            self.attach(encoder)
        images = self.images if images is None else images
        new = self.build(
            examples,
            images,
            self._needed_encoder("extending the database"),
            normalize_examples=made["normalize_examples"],
            weighting=made["weighting"],
            thumbnails=made["thumbnails"],
            **options,
        )
        return self.merge(new)

    # ------------------------------------------------------------------ looking
    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self._layers)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """(U, d) float32: vectors of every picture that is some component's example; of every different crop, where there are crops."""
        return self._arrays["embeddings"]

    @property
    def sample_ids(self) -> NDArray[np.int64]:
        """(U,) int64: data set positions of the pictures that are some component's example, ascending."""
        return self._arrays["sample_ids"]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the data set's classes, if it has them."""
        names = (self.record.get("data") or {}).get("class_names")
        return None if names is None else tuple(names)

    @property
    def encoder(self) -> Encoder | None:
        """The attached encoder; a built-in one is attached by itself if it is what the database was made with."""
        if self._encoder is None and self.record["encoder"]["name"] == "demo":
            from semanticlens import encoders

            built_in = encoders.load("demo")
            if built_in.fingerprint == self.record["encoder"]["fingerprint"]:
                self._encoder = built_in
        return self._encoder

    def __getitem__(self, layer: str) -> LayerConcepts:
        if layer not in self._layers:
            raise LayerNotFoundError(str(layer), self._layers, "the database")
        return self._layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def rows(self, layer: str) -> NDArray[np.int64]:
        """(K, m) rows of :attr:`embeddings` for a layer's examples; -1 for an empty place."""
        own = self[layer]
        return example_rows(self.sample_ids, own.ids) if own.rows is None else own.rows

    def example(self, layer: str, component: int, rank: int = 0, *, small: bool = False) -> Image.Image | None:
        """A component's example as the encoder saw it: the picture, or the crop of it; None where neither pictures nor copies are there.

        From the attached pictures in their own resolution, else from the database's small copy; with ``small`` a whole picture is the copy
        wherever there is one.

        Raises
        ------
        IndexError
            If there is no such component or example.
        """
        own = self[layer]
        if not 0 <= component < len(own) or not 0 <= rank < own.ids.shape[1] or own.ids[component, rank] < 0:
            raise IndexError(f"layer {layer!r} has no component {component} with an example {rank}")
        return self.picture(int(own.ids[component, rank]), None if own.boxes is None else own.boxes[component, rank], small=small)

    def picture(self, sample_id: int, box: ArrayLike | None = None, *, small: bool = False) -> Image.Image | None:
        """A picture, or the part of it in a box (left, top, right, bottom as shares), for showing: see :meth:`example`."""
        found = self.thumbnail(sample_id) if small and box is None else None
        if found is None:
            found = self.images[sample_id] if self.images is not None else self.thumbnail(sample_id)
        return found if found is None or box is None else cut(found, box)

    def thumbnail(self, sample_id: int) -> Image.Image | None:
        """The small copy of a picture; None if it is no component's example, or no copies were kept."""
        from PIL import Image

        place = int(np.searchsorted(self.sample_ids, sample_id))
        if "thumbnails" not in self._arrays or place == len(self.sample_ids) or self.sample_ids[place] != sample_id:
            return None
        begin, end = self._arrays["thumbnail_offsets"][place : place + 2]
        try:
            with Image.open(io.BytesIO(self._arrays["thumbnails"][begin:end].tobytes())) as picture:
                rgb: Image.Image = picture.convert("RGB")
        except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error, ...
            raise ModelFileError(
                f"the database's copy of picture {sample_id} cannot be read ({type(error).__name__}: {error}); "
                "the file was damaged, make or copy it again"
            ) from None
        return rgb

    def _rows_of_table(self) -> list[list[object]]:
        return [[name, len(c), int(c.dead.sum()), c.ids.shape[1], int(c.counts.sum())] for name, c in self._layers.items()]

    def __repr__(self) -> str:
        encoder = self.record["encoder"]
        head = f"ConceptDB: {len(self.sample_ids)} pictures, encoder {encoder['name']!r} ({encoder['dim']} dimensions)"
        return head + "\n" + text_table(["layer", "components", "dead", "examples", "filled"], self._rows_of_table())

    def _repr_html_(self) -> str:
        from semanticlens.plot import html

        caption = f"Concept database: {len(self.sample_ids)} pictures, encoder {self.record['encoder']['name']}"
        return str(html.table(["layer", "components", "dead", "examples", "filled"], self._rows_of_table(), caption=caption))

    # ------------------------------------------------------------------ checks
    def _chosen(self, layers: str | Sequence[str] | None) -> tuple[str, ...]:
        names = self.layers if layers is None else ((layers,) if isinstance(layers, str) else tuple(layers))
        for name in names:
            self[name]
        return tuple(dict.fromkeys(names))

    def _needed_encoder(self, purpose: str) -> Encoder:
        if self.encoder is None:
            raise DataError(f"{purpose} needs the encoder {self.record['encoder']['name']!r} it was made with: db.attach(encoder)")
        return self.encoder

    def _check_comparable(self, other: Self) -> None:
        mine, theirs = self.record["encoder"], other.record["encoder"]
        if mine["fingerprint"] != theirs["fingerprint"]:
            raise MismatchError(
                f"the databases were made with different encoders, {mine['name']!r} ({mine['fingerprint'][:12]}) and {theirs['name']!r} "
                f"({theirs['fingerprint'][:12]}): their vectors cannot be compared"
            )


def whole(value: Any, name: str, least: int) -> int:
    """A whole number of at least ``least``, or ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    return int(value)
