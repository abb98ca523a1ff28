"""The concept database: what every component of a network stands for, in the space of an encoder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import resolve_threads
from semanticlens.lens import scores
from semanticlens.lens.concepts import LayerConcepts
from semanticlens.lens.label import label_vectors, vocabulary_queries
from semanticlens.lens.probe import Queries, make_queries, probe
from semanticlens.lens.results import Hit, Labels, LayerScores, Scores, SearchResult
from semanticlens.lens.stored import StoredConcepts, whole

if TYPE_CHECKING:
    from semanticlens.attribution.roles import Roles
    from semanticlens.lens.intervals import Intervals
    from semanticlens.lens.related import RelatedData

__all__ = ["ConceptDB", "LayerConcepts"]

CLASSES_SHOWN = 5


class ConceptDB(StoredConcepts):
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
        top, names, threads = whole(top, "top", 1), self._chosen(layers), resolve_threads(n_threads)
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
        pictures = partial(self.example, small=True) if "thumbnails" in self._arrays else None
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
        top, names, threads = whole(top, "top", 1), self._chosen(layers), resolve_threads(n_threads)
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
        options: dict[str, Any] = {"queries": queries, "top": whole(top, "top", 1), "values": values, "n_threads": n_threads}
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
        return self._result(queries, table, whole(top, "top", 1), None)

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


def _level(threshold: Any) -> float | None:
    if threshold is None:
        return None
    value = float(threshold)
    if value != value:
        raise ValueError("threshold must not be NaN")
    return value
