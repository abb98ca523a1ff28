"""The concept database: what every component of a network stands for, in the space of an encoder."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError, LayerNotFoundError, MismatchError, ModelFileError
from semanticlens._kernels import build_info, resolve_threads
from semanticlens._version import __version__
from semanticlens.encoders.protocol import Encoder, check_encoder
from semanticlens.lens import embed, scores
from semanticlens.lens.concepts import LayerConcepts
from semanticlens.lens.label import label_vectors, vocabulary_queries
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
from semanticlens.lens.probe import Queries, make_queries, probe
from semanticlens.lens.results import Hit, Labels, LayerScores, Scores, SearchResult, text_table
from semanticlens.lens.store import read_database, write_database

if TYPE_CHECKING:
    from PIL import Image

    from semanticlens.attribution.roles import Roles
    from semanticlens.lens.intervals import Intervals
    from semanticlens.lens.related import RelatedData

__all__ = ["ConceptDB", "LayerConcepts"]

CLASSES_SHOWN = 5


class ConceptDB(Mapping[str, LayerConcepts]):
    """Searchable concepts of one or more layers: ``db[layer]`` is a :class:`LayerConcepts`.

    Made by :meth:`build` or :meth:`load`.  Everything but text and picture queries works from the file alone.

    Attributes
    ----------
    record : dict
        What made the database: hashes of network, data and encoder, parameters, version.
    images : data set or None
        The pictures in full size, if attached.
    network : Network or None
        The network it was made from, if attached: for roles, effects and audits.
    """

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
    ) -> ConceptDB:
        """Encode the concept examples and form the concept vectors.

        Parameters
        ----------
        examples : ConceptExamples
            From :func:`semanticlens.collect`; or any mapping of layer to an object with ``ids``, ``scores``, ``counts``.
        images : data set, optional
            The data set the examples were collected on.  May be left out if the encoder has precomputed vectors;
            there are no thumbnails then.
        encoder : Encoder
            Only the pictures that occur in ``examples`` are encoded, each once.
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
        thumbnails = _whole(thumbnails, "thumbnails", 0) if images is not None else 0
        batch_size, threads = _whole(batch_size, "batch_size", 1), resolve_threads(n_threads)
        if weighting not in ("mean", "scores"):
            raise ValueError(f"weighting={weighting!r} must be 'mean' or 'scores'")
        source = dict(getattr(examples, "record", {}))
        check_source(layers, images, encoder, source)
        wanted = [layer.ids[layer.ids >= 0].ravel() for layer in layers.values()]
        ids = np.unique(np.concatenate(wanted)) if wanted else np.empty(0, np.int64)
        path = None if checkpoint is None else Path(checkpoint)
        done = embed.embed(ids, images, encoder, thumbnails=thumbnails, batch_size=batch_size, progress=progress, checkpoint=path)
        warn_unusable(done.vectors, encoder)
        arrays: dict[str, NDArray[Any]] = {"embeddings": done.vectors, "sample_ids": ids}
        if thumbnails:
            arrays.update(done.thumbnails())
        concepts = {
            name: form_concepts(name, layer, ids, done.vectors, normalize_examples, weighting, threads) for name, layer in layers.items()
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
    def load(cls, path: str | os.PathLike[str], encoder: Encoder | None = None, images: Any = None, *, verify: bool = True) -> ConceptDB:
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

    def attach(self, encoder: Encoder | None = None, images: Any = None, network: Any = None) -> ConceptDB:
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

    def merge(self, other: ConceptDB) -> ConceptDB:
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
        db = ConceptDB({**self._layers, **other._layers}, merge_samples(self._arrays, other._arrays), record)
        db._encoder, db.images = self._encoder or other._encoder, self.images if self.images is not None else other.images
        db.network = self.network if self.network is not None else other.network
        return db

    def extend(self, examples: Mapping[str, Any], images: Any = None, encoder: Encoder | None = None, **options: Any) -> ConceptDB:
        """A database with further layers collected on the same data: :meth:`build` with this one's encoder and settings, :meth:`merge`."""
        made = self.record["build"]
        if encoder is not None:
            self.attach(encoder)
        images = self.images if images is None else images
        new = ConceptDB.build(
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
        """(U, d) float32: vectors of every picture that is some component's example."""
        return self._arrays["embeddings"]

    @property
    def sample_ids(self) -> NDArray[np.int64]:
        """(U,) int64: data set positions of these pictures, ascending."""
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
        return example_rows(self.sample_ids, self[layer].ids)

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

    # ------------------------------------------------------------------ asking
    def search(
        self,
        query: Any,
        top: int = 10,
        *,
        layers: str | Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        null: str = "auto",
        threshold: float | None = None,
        n_threads: int | None = None,
    ) -> SearchResult:
        """Components that answer best to a query.

        Parameters
        ----------
        query : str, list of str, picture(s), vector(s), or mapping of name to vector
            Every text and every vector is a query of its own; a list of pictures is one query, their mean.
        top : int
            Most hits per query, over all layers together.
        layers : str or list of str, optional
        templates : str or list of str, optional
            Texts with ``{}``, for example "a photo of a {}"; their vectors are averaged per query.
        null : {"auto", "none", "vector", "score"}
            Correction by the empty text, see :mod:`semanticlens.lens.probe`; "auto" is "vector" with templates, else "none".
        threshold : float, optional
            Only scores above it.
        n_threads : int, optional

        Returns
        -------
        SearchResult
            Ties go to the earlier layer, then the lower component. Dead components are never hits.
        """
        top, names, threads = _whole(top, "top", 1), self._chosen(layers), resolve_threads(n_threads)
        queries = make_queries(query, self.encoder, self.record["encoder"]["dim"], templates, null)
        table = {name: probe(queries, self[name].vectors, n_threads=threads) for name in names}
        return self._result(queries, table, top, _level(threshold))

    def _result(self, queries: Queries, table: dict[str, NDArray[np.float32]], top: int, threshold: float | None) -> SearchResult:
        names = list(table)
        starts = np.cumsum([0, *(len(self[name]) for name in names)])
        joined = np.concatenate([table[name] for name in names], axis=1) if names else np.empty((len(queries.names), 0), np.float32)
        hits: list[Hit] = []
        for j, query in enumerate(queries.names):
            row = joined[j]
            order = np.argsort(np.where(np.isnan(row), np.inf, -row), kind="stable")[:top]
            order = order[~np.isnan(row[order])]
            if threshold is not None:
                order = order[row[order] > threshold]
            for rank, place in enumerate(order, start=1):
                at = int(np.searchsorted(starts, place, side="right")) - 1
                hits.append(self._hit(rank, query, names[at], int(place - starts[at]), float(row[place])))
        pictures = self.thumbnail if "thumbnails" in self._arrays else None
        return SearchResult(
            hits=tuple(hits),
            queries=queries.names,
            templates=queries.templates,
            null=queries.null,
            threshold=threshold,
            scores=table,
            _pictures=pictures,
        )

    def _hit(self, rank: int, query: str, layer: str, component: int, score: float) -> Hit:
        own = self[layer]
        ids = own.examples(component)
        return Hit(
            rank=rank,
            query=query,
            layer=layer,
            component=component,
            score=score,
            ids=ids,
            example_scores=np.asarray(own.example_scores[component, : len(ids)]),
            classes=self.classes(layer, component),
        )

    def classes(self, layer: str, component: int) -> tuple[tuple[str, float], ...]:
        """The classes whose pictures activate a component most: (name, mean top activation), best first; empty without labels."""
        affinity = self[layer].class_affinity
        if affinity is None:
            return ()
        row = affinity[component]
        order = [int(y) for y in np.argsort(np.where(np.isfinite(row), -row, np.inf), kind="stable")[:CLASSES_SHOWN] if np.isfinite(row[y])]
        names = self.class_names
        return tuple((str(y) if names is None or y >= len(names) else names[y], float(row[y])) for y in order)

    def label(
        self,
        vocabulary: Any,
        top: int = 5,
        *,
        threshold: float = 0.0,
        layers: str | Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        null: str = "auto",
        fdr: float | None = None,
        draws: int = 10_000,
        seed: int = 0,
        n_threads: int | None = None,
    ) -> Labels:
        """Name every component by the texts closest to its concept vector.

        Parameters
        ----------
        vocabulary : list of str, mapping of str to vector, or (names, matrix)
            With vectors no encoder is needed.
        top : int
            Candidates kept per component.
        threshold : float
            Below it the component is "unlabelled".
        fdr : float, optional
            Also "unlabelled" is what is no better than chance: the expected share of chance labels among those given stays
            at or below ``fdr`` in each layer, see :mod:`semanticlens.lens.significance`.
        draws, seed : int
            Random components behind the p-values, and their seed.
        layers, templates, null, n_threads
            As for :meth:`search`.

        Returns
        -------
        Labels
        """
        top, names, threads = _whole(top, "top", 1), self._chosen(layers), resolve_threads(n_threads)
        needs_text = not isinstance(vocabulary, (Mapping, tuple))
        queries = vocabulary_queries(
            vocabulary, self.encoder if needs_text else self._encoder, self.record["encoder"]["dim"], templates, null
        )
        level = _level(threshold)
        if level is None:
            raise ValueError("threshold=None: pass a number, for example 0.2; -1 labels every component")
        found = {name: label_vectors(name, self[name].vectors, queries, top=top, threshold=level, n_threads=threads) for name in names}
        if fdr is not None:
            from semanticlens.lens.significance import significant_labels

            options: dict[str, Any] = {"fdr": fdr, "draws": draws, "seed": seed, "n_threads": threads}
            found = {name: significant_labels(self, own, queries, **options) for name, own in found.items()}
        return Labels(
            layers=found, vocabulary=queries.names, templates=queries.templates, null=queries.null, threshold=level, fdr=fdr
        )

    def intervals(
        self,
        level: float = 0.95,
        n: int = 1000,
        seed: int = 0,
        *,
        layers: str | Sequence[str] | None = None,
        vocabulary: Any = None,
        top: int = 5,
        templates: str | Sequence[str] | None = None,
        null: str = "auto",
        values: Mapping[str, Mapping[str, Any]] | None = None,
        n_threads: int | None = None,
    ) -> Intervals:
        """Intervals of all scores by bootstrap over the examples, see :mod:`semanticlens.lens.intervals`.

        Parameters
        ----------
        level : float
            Share of the resamples' deviations inside the interval.
        n, seed : int
            Resamples per component; component k of every layer has draws of its own.
        vocabulary, top, templates, null
            As for :meth:`label`: also intervals of the best label's score, and the share of resamples in which it stays best of ``top``.
        values : mapping of layer to mapping of name to (K, m) array, optional
            Numbers per example; intervals of their means.  Not finite: no number.
        """
        from semanticlens.lens.intervals import database_intervals

        queries = None
        if vocabulary is not None:
            encoder = self._encoder if isinstance(vocabulary, (Mapping, tuple)) else self.encoder
            queries = vocabulary_queries(vocabulary, encoder, self.record["encoder"]["dim"], templates, null)
        options: dict[str, Any] = {"queries": queries, "top": _whole(top, "top", 1), "values": values, "n_threads": n_threads}
        return database_intervals(self, self._chosen(layers), level=level, n=n, seed=seed, **options)

    def scores(
        self,
        *,
        layers: str | Sequence[str] | None = None,
        n_init: int = 10,
        seed: int = 123,
        exact: bool = False,
        intervals: bool = False,
        n_threads: int | None = None,
    ) -> Scores:
        """Clarity, polysemanticity and redundancy of every component, see :mod:`semanticlens.lens.scores`; NaN for dead components.

        With ``intervals`` every layer's ``intervals`` holds what :meth:`intervals` gives by default.
        """
        if intervals:
            plain, around = self.scores(layers=layers, n_init=n_init, seed=seed, exact=exact, n_threads=n_threads), self.intervals(
                layers=layers, n_threads=n_threads
            )
            return replace(plain, layers={name: replace(own, intervals=around[name]) for name, own in plain.items()})
        default = layers is None and (n_init, seed, exact) == (10, 123, False)
        if default and self._scores is not None:
            return self._scores
        threads, table = resolve_threads(n_threads), {}
        for name in self._chosen(layers):
            own = self[name]
            rows, counts = self.rows(name), own.live_counts()
            values, nearest = scores.redundancy(own.vectors, n_threads=threads)
            table[name] = LayerScores(
                layer=name,
                clarity=scores.clarity(self.embeddings, ids=rows, counts=counts, n_threads=threads),
                redundancy=values,
                nearest=nearest,
                polysemanticity=scores.polysemanticity(
                    self.embeddings, ids=rows, counts=counts, n_init=n_init, seed=seed, exact=exact, n_threads=threads
                ).score,
            )
        result = Scores(layers=table, parameters={"n_init": n_init, "seed": seed, "exact": exact})
        if default:
            self._scores = result
        return result

    def unexpected(
        self,
        *,
        valid: str | Sequence[str],
        spurious: str | Sequence[str],
        threshold: float,
        layers: str | Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        null: str = "score",
    ) -> SearchResult:
        """Components that none of these prompts describes: the closest one's score is below ``threshold``; least described first.

        With relevance by class and effects: :func:`semanticlens.lens.audit`. Parameters as there.
        """
        from semanticlens.lens.related import unexpected

        options: dict[str, Any] = {"layers": layers, "templates": templates, "null": null}
        return unexpected(self, valid=valid, spurious=spurious, threshold=threshold, **options)

    def roles(self, targets: Any = None, *, network: Any = None, images: Any = None, **options: Any) -> Roles:
        """R_k(y) of every component for every class: :func:`semanticlens.attribution.roles` of the database's layers.

        ``network`` and ``images`` are those attached, unless given; options are passed on.
        """
        from semanticlens.attribution.roles import roles

        if network is not None:
            self.check_network(network)
        net, pictures = self.network if network is None else network, self.images if images is None else images
        if net is None or pictures is None:
            raise DataError("roles need the network and labelled pictures: db.attach(network=..., images=...), or pass both")
        return roles(net, pictures, targets=targets, **{"layers": self.layers, **options})

    def related_data(self, component: tuple[str, int]) -> RelatedData:
        """The pictures behind a component (layer, number): examples, scores and, where pictures are attached, classes and names."""
        from semanticlens.lens.related import related_data

        return related_data(self, component)

    def neighbours(self, layer: str, component: int, top: int = 10, *, layers: str | Sequence[str] | None = None) -> SearchResult:
        """The components most similar to one, itself left out."""
        own = self[layer]
        k = range(len(own))[component]
        if not np.isfinite(own.vectors[k]).all():
            raise DataError(
                f"component {k} of layer {layer!r} has no concept vector (it is dead, or none of its examples could be encoded)"
            )
        queries = Queries(names=(f"{layer}:{k}",), vectors=np.ascontiguousarray(own.vectors[k : k + 1]))
        table = {name: probe(queries, self[name].vectors) for name in self._chosen(layers)}
        if layer in table:
            table[layer][0, k] = np.nan
        return self._result(queries, table, _whole(top, "top", 1), None)

    def similarity(
        self, other: ConceptDB, layer: str | None = None, other_layer: str | None = None
    ) -> dict[tuple[str, str], tuple[float, float]]:
        """How much of each layer's concepts the other database has, ``{(layer, other_layer): (there, back)}``.

        See :func:`semanticlens.lens.scores.set_similarity`.
        """
        self._check_comparable(other)
        return {
            (a, b): (scores.set_similarity(self[a].vectors, other[b].vectors), scores.set_similarity(other[b].vectors, self[a].vectors))
            for a in self._chosen(layer)
            for b in other._chosen(other_layer)
        }

    # ------------------------------------------------------------------ showing
    def card(self, layer: str, component: int, **options: Any) -> Any:
        """One component as a picture: examples, label, scores; see :func:`semanticlens.plot.card.card`."""
        from semanticlens.plot.card import card

        return card(self, layer, component, **options)

    def report(self, path: str | os.PathLike[str], **options: Any) -> Any:
        """One self-contained HTML page; see :func:`semanticlens.plot.report.report`."""
        from semanticlens.plot.report import report

        return report(self, path, **options)

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

    def _check_comparable(self, other: ConceptDB) -> None:
        mine, theirs = self.record["encoder"], other.record["encoder"]
        if mine["fingerprint"] != theirs["fingerprint"]:
            raise MismatchError(
                f"the databases were made with different encoders, {mine['name']!r} ({mine['fingerprint'][:12]}) and {theirs['name']!r} "
                f"({theirs['fingerprint'][:12]}): their vectors cannot be compared"
            )


def _whole(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    return int(value)


def _level(threshold: Any) -> float | None:
    if threshold is None:
        return None
    value = float(threshold)
    if value != value:
        raise ValueError("threshold must not be NaN")
    return value
