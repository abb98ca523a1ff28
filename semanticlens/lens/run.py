"""One pass over a source of activations: counts whole batches, keeps a checkpoint, ends in the result."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
import types
import warnings
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ConceptWarning, DataError, LayerNotFoundError, ModelFileError
from semanticlens._kernels import build_info
from semanticlens._kernels import collect as kernels
from semanticlens._progress import track
from semanticlens._version import __version__
from semanticlens.data.dataset import Dataset
from semanticlens.lens import checkpoint as checkpoints
from semanticlens.lens.examples import ConceptExamples, LayerExamples
from semanticlens.lens.idset import IdSet
from semanticlens.lens.pooling import Pooling
from semanticlens.lens.relevance import carried, places_of
from semanticlens.lens.sources import NetworkSource


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to keep of the activations."""

    layers: tuple[str, ...] | None
    top: int
    pools: Mapping[str, Pooling] | Pooling
    targets: NDArray[np.int64] | None
    n_classes: int
    class_top: int
    positive_only: bool
    places: bool = False  # keep where in the map each example has its largest value

    def pool_of(self, layer: str) -> Pooling:
        """The pooling of a layer."""
        return self.pools if isinstance(self.pools, Pooling) else self.pools[layer]


class LayerState:
    """The running state of one layer."""

    def __init__(self, plan: Plan, layer: str, n_components: int) -> None:
        self.pool, self.n_components = plan.pool_of(layer), n_components
        self.best = kernels.TopM(n_components, plan.top, positive_only=plan.positive_only)
        self.places = np.full((n_components, plan.top), -1, np.int64) if plan.places else None
        self.classes = (
            None
            if plan.targets is None
            else kernels.ClassTop(plan.n_classes, n_components, plan.class_top, positive_only=plan.positive_only)
        )

    def update(
        self, values: NDArray[np.float32], ids: NDArray[np.int64], places: NDArray[np.int64] | None, n_threads: int | None
    ) -> None:
        """Offer the scores (B, K) of some samples, and where each component has its largest value."""
        if self.places is None or places is None:
            self.best.update(values, ids, n_threads=n_threads)
            return
        before = (self.best.ids.copy(), self.places)
        self.best.update(values, ids, n_threads=n_threads)
        offered = np.broadcast_to(ids, (values.shape[1], len(ids)))
        self.places = carried(self.best.ids, [before, (offered, places.T)])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps of it."""
        arrays: dict[str, NDArray[Any]] = {
            "scores": self.best.scores,
            "ids": self.best.ids,
            "nan_counts": self.best.nan_counts,
        }
        if self.classes is not None:
            arrays["class_scores"] = self.classes.scores
        if self.places is not None:
            arrays["places"] = self.places
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what :meth:`arrays` gave; for a new state."""
        self.best.merge(arrays["scores"], arrays["ids"], arrays["nan_counts"])
        if self.classes is not None:
            self.classes.scores[...] = arrays["class_scores"]
        if self.places is not None:
            self.places = np.array(arrays["places"])


class Run:
    """One pass: takes batches, keeps the state whole between them, writes and reads checkpoints."""

    def __init__(
        self,
        plan: Plan,
        source: Any,
        made_of: dict[str, Any],
        checkpoint: str | os.PathLike[str] | None,
        every: float,
        n_threads: int | None,
    ) -> None:
        self.plan, self.source, self.made_of, self.n_threads = plan, source, made_of, n_threads
        self.checkpoint, self.every = checkpoint, every
        self.layers: dict[str, LayerState] = {}
        self.seen = IdSet()  # in the state
        self.resumed = IdSet()  # of those, the ones from a checkpoint
        self.offered = IdSet()  # by the source in this run
        self.skipped: list[dict[str, Any]] = []
        self.position = source.start if isinstance(source, NetworkSource) else 0
        self.finished = False
        self.whole = True  # no batch is half counted
        self.unwritable = False  # a checkpoint could not be written

    def go(self, progress: bool) -> None:
        """Go through the source, or through what a checkpoint leaves of it."""
        if self.checkpoint is not None:
            self.made_of["data"] = describe_data(self.made_of["data"])
            self._resume()
        if self.finished or self.plan.layers == ():
            return
        if isinstance(self.source, NetworkSource):
            batches, total, done = (
                self.source.batches_from(self.position),
                len(self.source),
                self.position - self.source.start,
            )
        else:
            batches, total, done = iter(self.source), None, 0
        try:
            for _ in track(
                self._take_all(batches), progress=progress, total=total, what="collect", unit="img", initial=done
            ):
                pass
        except BaseException:
            self._save_what_there_is()
            raise
        finally:
            if isinstance(batches, Generator):
                batches.close()
        if isinstance(self.source, NetworkSource):
            self.position = self.source.stop
        if not self.seen and not self._skipped():
            raise DataError("the source gave no batches: there are no samples to collect from")
        if not self.seen:
            raise DataError(
                f"none of the {len(self._skipped())} pictures could be used; the first: {self._skipped()[0]['reason']}"
            )
        self.finished = True
        self._save_what_there_is()

    def _take_all(self, batches: Iterator[Any]) -> Iterator[None]:
        """Take every batch; yields once per sample, for the progress bar."""
        saved = time.monotonic()
        for batch in batches:
            size = self._take(batch)
            if self.checkpoint is not None and time.monotonic() - saved >= self.every:
                self._save()
                saved = time.monotonic()
            yield from (None for _ in range(size))

    def _take(self, batch: Any) -> int:
        """Check and pool one batch, then count it: all layers or none."""
        ids, activations = _unpack(batch)
        for repeated in ids[self.offered.contains(ids)]:
            raise DataError(f"sample id {repeated} comes twice: ids must be distinct over the whole run")
        names = self.plan.layers if self.plan.layers is not None else tuple(self.layers) or tuple(activations)
        fresh = ~self.resumed.contains(ids)
        pooled = {name: self._pooled(name, ids, activations) for name in names} if fresh.any() else {}
        places = {name: places_of(np.asarray(activations[name]))[fresh] for name in pooled if self.plan.places}
        targets = self._targets(ids[fresh])
        for name, values in pooled.items():
            if name not in self.layers:
                self.layers[name] = LayerState(self.plan, name, values.shape[1])
        with _interrupt_deferred():
            self.whole = False
            if pooled:
                for name, values in pooled.items():
                    layer, chosen = self.layers[name], values if fresh.all() else values[fresh]
                    layer.update(chosen, ids[fresh], places.get(name), self.n_threads)
                    if layer.classes is not None and targets is not None:
                        layer.classes.update(chosen, targets, n_threads=self.n_threads)
                self.seen.add(ids[fresh])
            self.offered.add(ids)
            if isinstance(self.source, NetworkSource):
                start, size = self.source.start, self.source.batch_size
                self.position = min(self.source.stop, start + ((int(ids[-1]) - start) // size + 1) * size)
            self.whole = True
        return len(ids)

    def _pooled(self, name: str, ids: NDArray[np.int64], activations: Mapping[str, Any]) -> NDArray[np.float32]:
        if name not in activations:
            raise LayerNotFoundError(name, activations, "the batch of activations")
        values = self.plan.pool_of(name)(_as_array(activations[name]), layer=name, n_threads=self.n_threads)
        if len(values) != len(ids):
            raise DataError(
                f"activations of layer {name!r} are for {len(values)} samples, but the batch has {len(ids)} ids"
            )
        if name in self.layers and values.shape[1] != self.layers[name].n_components:
            raise DataError(
                f"activations of layer {name!r} have {values.shape[1]} components, but {self.layers[name].n_components} in "
                f"the batches before"
            )
        return values

    def _targets(self, ids: NDArray[np.int64]) -> NDArray[np.int64] | None:
        if self.plan.targets is None:
            return None
        highest = int(ids.max(initial=-1))
        if highest >= len(self.plan.targets):
            raise DataError(f"sample id {highest} has no label: labels has {len(self.plan.targets)} entries")
        return self.plan.targets[ids]

    def _skipped(self) -> list[dict[str, Any]]:
        new = self.source.skipped if isinstance(self.source, NetworkSource) else []
        return self.skipped + [{"id": s.id, "reason": s.reason} for s in new if s.id < self.position]

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        arrays = {
            f"{name}/{key}": array for name, layer in self.layers.items() for key, array in layer.arrays().items()
        }
        state = {
            "position": self.position,
            "finished": self.finished,
            "samples": self.seen.intervals,
            "skipped": self._skipped(),
            "layers": [[name, layer.n_components] for name, layer in self.layers.items()],
        }
        try:
            checkpoints.write(self.checkpoint, self.made_of, state, arrays)
        except OSError:
            self.unwritable = True
            raise

    def _save_what_there_is(self) -> None:
        """At the end, or on the way out of an error: the result, or the error, matters more than a checkpoint that cannot be written."""
        if not self.seen or self.unwritable or not self.whole:
            return
        try:
            self._save()
        except OSError as error:
            warnings.warn(str(error), ConceptWarning, stacklevel=4)

    def _resume(self) -> None:
        assert self.checkpoint is not None
        found = checkpoints.read(self.checkpoint, self.made_of)
        if found is None:
            return
        state, arrays = found
        try:
            for name, n_components in state["layers"]:
                self.layers[name] = LayerState(self.plan, name, n_components)
                self.layers[name].restore({key: arrays[f"{name}/{key}"] for key in self.layers[name].arrays()})
            self.seen, self.resumed = IdSet(state["samples"]), IdSet(state["samples"])
            self.skipped, self.position, self.finished = (
                list(state["skipped"]),
                int(state["position"]),
                bool(state["finished"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"{self.checkpoint}: the checkpoint's record does not describe its arrays ({type(error).__name__}: {error}); delete it"
            ) from None

    def result(self, images: Dataset | None) -> ConceptExamples:
        """What was collected; the data set's fingerprint is cheap now that all of it was read."""
        n = len(self.seen)
        layers = {}
        for name in self.plan.layers if self.plan.layers is not None else tuple(self.layers):
            state = self.layers[name]
            best = state.best
            layers[name] = LayerExamples(
                name,
                best.ids.copy(),
                best.scores.copy(),
                best.counts.copy(),
                best.nan_counts.copy(),
                n,
                state.pool.name,
                None if state.classes is None else state.classes.scores.copy(),
                None if state.places is None else state.places.copy(),
            )
        record = {
            **self.made_of,
            "data": describe_data(self.made_of["data"]),
            "layers": list(layers),
            "samples": self.seen.intervals,
            "skipped": sorted(self._skipped(), key=lambda entry: int(entry["id"])),
            "version": __version__,
            "tier": build_info()["tier"],
        }
        record["parameters"] = {**record["parameters"], "pool": {name: layer.pool for name, layer in layers.items()}}
        del record["shard"]
        return ConceptExamples(layers, record)


def _unpack(batch: Any) -> tuple[NDArray[np.int64], Mapping[str, Any]]:
    try:
        ids_in, activations = batch
    except (TypeError, ValueError):
        raise DataError(f"a batch must be a pair (ids, {{layer: activations}}), not {type(batch).__name__}") from None
    if not isinstance(activations, Mapping):
        raise DataError(
            f"a batch must be a pair (ids, {{layer: activations}}); its second part is {type(activations).__name__}"
        )
    ids = np.asarray(_as_array(ids_in))
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.size == 0:
        raise DataError(
            f"the ids of a batch must be whole numbers (B,), at least one, not {ids.dtype} of shape {ids.shape}"
        )
    ids = ids.astype(np.int64)
    if ids.min() < 0:
        raise DataError(f"sample id {ids.min()} is negative; ids are positions in the data set")
    unique, counts = np.unique(ids, return_counts=True)
    if unique.size != ids.size:
        raise DataError(f"sample id {unique[counts > 1][0]} comes twice in one batch: ids must be distinct")
    return ids, activations


def _as_array(values: Any) -> Any:
    """Torch tensors, also on another device, by what they can do; torch is not imported."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") and hasattr(values, "cpu") else values


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is done, so that no batch is half counted; their handlers run then."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not held:
        yield
        return
    came: list[int] = []
    frames: list[types.FrameType | None] = []

    def remember(number: int, frame: types.FrameType | None) -> None:
        came.append(number)
        frames.append(frame)

    for number in held:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    for sent, frame in zip(came, frames, strict=True):
        held[signal.Signals(sent)](sent, frame)


def describe_data(data: Any) -> dict[str, Any]:
    """What a record says of a data set; a dict is such a description already."""
    return data if isinstance(data, dict) else {"name": data.name, "fingerprint": data.fingerprint, "length": len(data)}
