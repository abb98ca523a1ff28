"""Collect concept examples: one pass over the data for any number of layers, checkpointed, resumable, mergeable."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import signal
import threading
import time
import types
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import ConceptWarning, DataError, LayerNotFoundError, SkippedDataWarning
from semanticlens._kernels import collect as kernels
from semanticlens._progress import track
from semanticlens._version import __version__
from semanticlens.data.batches import Transform
from semanticlens.data.dataset import Dataset
from semanticlens.lens import checkpoint as checkpoints
from semanticlens.lens.examples import ConceptExamples, LayerExamples
from semanticlens.lens.idset import IdSet
from semanticlens.lens.pooling import Pooling, pooling
from semanticlens.lens.sources import ActivationSource, NetworkSource, RunsLayers, check_layers

Pools = str | Pooling | Mapping[str, str | Pooling]


def collect(source: RunsLayers | ActivationSource | Iterable[tuple[ArrayLike, Mapping[str, ArrayLike]]], images: Dataset | None = None,
            layers: Sequence[str] | str | None = None, *, top: int = 20, pool: Pools = "auto", batch_size: int = 32,
            labels: ArrayLike | Literal[False] | None = None, class_top: int = 10, positive_only: bool = False,
            on_error: Literal["raise", "skip"] = "raise", transform: Transform | None = None, shard: tuple[int, int] | None = None,
            record: Mapping[str, Any] | None = None, checkpoint: str | os.PathLike[str] | None = None, checkpoint_every: float = 60.0,
            n_threads: int | None = None, progress: bool = False) -> ConceptExamples:
    """For every component of ``layers``, the ``top`` samples with the largest pooled activations.

    Parameters
    ----------
    source : Network, or iterable of (ids, {layer: activations})
        A network, run over ``images``; or batches from anywhere (see :class:`~semanticlens.lens.sources.ActivationSource`): activations of a network
        that runs elsewhere give the same result.
    images : Dataset
        The pictures; for an iterable optional, and then only for labels and record.
    layers : sequence of str
        For a network required; for an iterable None means all layers of its first batch.
    top : int
        Concept examples per component (m).
    pool : str, Pooling, or mapping of layer to these
        How (B, K, H, W) or (B, T, K) becomes (B, K); see :class:`~semanticlens.lens.pooling.Pooling`.
    batch_size : int
        Pictures per forward pass.
    labels : array (n,), int, or False, optional
        Class of each sample by id, -1 for none, for the class statistics; None takes those of ``images``, if it has any; False makes none.
    class_top : int
        Scores kept per class and component; their mean is the class affinity.
    positive_only : bool
        Leave out scores at or below 0: behind a ReLU, components that never fire then have no examples instead of arbitrary ones.
    on_error : {"raise", "skip"}
        For pictures that cannot be used; the result's ``skipped`` lists those left out.
    transform : callable, optional
        Picture -> network input, instead of ``network.preprocess``.
    shard : (start, stop), optional
        Go through this part of ``images`` only; results of disjoint parts are combined by :meth:`ConceptExamples.merge`.
    record : mapping, optional
        For an iterable: ``{"network": {"name": ..., "fingerprint": ...}, "data": {...}}``, what the activations come from.
    checkpoint : path, optional
        State of the run, written every ``checkpoint_every`` seconds (0: after every batch), when interrupted, on an error and at the end. The same call
        with the same file continues and ends in the same bytes; an iterable is then gone through again, passing over samples already counted.
        Delete the file when the result is safe.
    n_threads : int, optional
    progress : bool
        Show a bar.

    Returns
    -------
    ConceptExamples

    Raises
    ------
    DataError
        No pictures, unusable pictures, activations of a wrong shape or type, an id that is negative or comes twice.
    LayerNotFoundError
        A layer that the source does not have.
    MismatchError
        A checkpoint of another network, data set or of other parameters.

    Notes
    -----
    Scores are float32; equal scores are ordered by the smaller id; NaN never becomes an example, is counted, and warned about once; -inf counts as no
    score.  The result does not depend on how samples are cut into batches or shards, or on the number of threads, as far as the activations do not.
    Definition: SemanticLens (Nature Machine Intelligence 2025), "concept examples"; class statistics: Concept Relevance Propagation.
    """
    if top < 1 or class_top < 1:
        raise ValueError(f"top={top}, class_top={class_top}: both must be at least 1")
    is_network = hasattr(source, "run")
    if is_network and images is None:
        raise ValueError("images=None: give the data set to run the network on")
    if not is_network and (transform is not None or shard is not None):
        raise ValueError("transform and shard are for a network; batches of activations come as they are")
    names = check_layers(source, layers) if is_network else [layers] if isinstance(layers, str) else None if layers is None else list(layers)  # type: ignore[arg-type]
    targets, class_names = _targets(labels, images)
    plan = _Plan(None if names is None else tuple(names), top, _pools(pool, names), targets, 0 if class_names is None else len(class_names), class_top,
                 positive_only)
    if is_network:
        start, stop = _shard(shard, len(images))      # type: ignore[arg-type]
        batches: Any = NetworkSource(source, images, names or [], batch_size=batch_size, transform=transform, start=start, stop=stop,  # type: ignore[arg-type]
                                     on_error=on_error, n_threads=n_threads)
    else:
        batches = source
    made_of = _made_of(plan, batches, images, class_names, record)
    run = _Run(plan, batches, made_of, checkpoint, checkpoint_every, n_threads)
    run.go(progress)
    result = run.result(images)
    _warn(result, top)
    return result


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What to keep of the activations."""

    layers: tuple[str, ...] | None
    top: int
    pools: Mapping[str, Pooling] | Pooling
    targets: NDArray[np.int64] | None
    n_classes: int
    class_top: int
    positive_only: bool

    def pool_of(self, layer: str) -> Pooling:
        return self.pools if isinstance(self.pools, Pooling) else self.pools[layer]


class _Layer:
    """The running state of one layer."""

    def __init__(self, plan: _Plan, layer: str, n_components: int) -> None:
        self.pool, self.n_components = plan.pool_of(layer), n_components
        self.best = kernels.TopM(n_components, plan.top, positive_only=plan.positive_only)
        self.classes = None if plan.targets is None else kernels.ClassTop(plan.n_classes, n_components, plan.class_top, positive_only=plan.positive_only)

    def arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {"scores": self.best.scores, "ids": self.best.ids, "nan_counts": self.best.nan_counts}
        if self.classes is not None:
            arrays["class_scores"] = self.classes.scores
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.best.merge(arrays["scores"], arrays["ids"], arrays["nan_counts"])
        if self.classes is not None:
            self.classes.scores[...] = arrays["class_scores"]


class _Run:
    """One pass: takes batches, keeps the state whole between them, writes and reads checkpoints."""

    def __init__(self, plan: _Plan, source: Any, made_of: dict[str, Any], checkpoint: str | os.PathLike[str] | None, every: float,
                 n_threads: int | None) -> None:
        self.plan, self.source, self.made_of, self.n_threads = plan, source, made_of, n_threads
        self.checkpoint, self.every = checkpoint, every
        self.layers: dict[str, _Layer] = {}
        self.seen = IdSet()                           # in the state
        self.resumed = IdSet()                        # of those, the ones from a checkpoint
        self.offered = IdSet()                        # by the source in this run
        self.skipped: list[dict[str, Any]] = []
        self.position = source.start if isinstance(source, NetworkSource) else 0
        self.finished = False

    def go(self, progress: bool) -> None:
        """Go through the source, or through what a checkpoint leaves of it."""
        if self.checkpoint is not None:
            self.made_of["data"] = _describe_data(self.made_of["data"])
            self._resume()
        if self.finished or self.plan.layers == ():
            return
        if isinstance(self.source, NetworkSource):
            batches, total, done = self.source.batches_from(self.position), len(self.source), self.position - self.source.start
        else:
            batches, total, done = iter(self.source), None, 0
        try:
            for _ in track(self._take_all(batches), progress=progress, total=total, what="collect", unit="img", initial=done):
                pass
        except BaseException:
            self._save_what_there_is()
            raise
        finally:
            if isinstance(batches, Generator):
                batches.close()
        if not self.seen and not self._skipped():
            raise DataError("the source gave no batches: there are no samples to collect from")
        if not self.seen:
            raise DataError(f"none of the {len(self._skipped())} pictures could be used; the first: {self._skipped()[0]['reason']}")
        self.finished = True
        if isinstance(self.source, NetworkSource):
            self.position = self.source.stop
        self._save()

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
        targets = self._targets(ids[fresh])
        for name, values in pooled.items():
            if name not in self.layers:
                self.layers[name] = _Layer(self.plan, name, values.shape[1])
        with _interrupt_deferred():
            if pooled:
                for name, values in pooled.items():
                    layer, chosen = self.layers[name], values if fresh.all() else values[fresh]
                    layer.best.update(chosen, ids[fresh], n_threads=self.n_threads)
                    if layer.classes is not None and targets is not None:
                        layer.classes.update(chosen, targets, n_threads=self.n_threads)
                self.seen.add(ids[fresh])
            self.offered.add(ids)
            if isinstance(self.source, NetworkSource):
                start, size = self.source.start, self.source.batch_size
                self.position = min(self.source.stop, start + ((int(ids[-1]) - start) // size + 1) * size)
        return len(ids)

    def _pooled(self, name: str, ids: NDArray[np.int64], activations: Mapping[str, Any]) -> NDArray[np.float32]:
        if name not in activations:
            raise LayerNotFoundError(name, activations, "the batch of activations")
        values = self.plan.pool_of(name)(_as_array(activations[name]), layer=name, n_threads=self.n_threads)
        if len(values) != len(ids):
            raise DataError(f"activations of layer {name!r} are for {len(values)} samples, but the batch has {len(ids)} ids")
        if name in self.layers and values.shape[1] != self.layers[name].n_components:
            raise DataError(f"activations of layer {name!r} have {values.shape[1]} components, but {self.layers[name].n_components} in the batches before")
        return values

    def _targets(self, ids: NDArray[np.int64]) -> NDArray[np.int64] | None:
        if self.plan.targets is None:
            return None
        if ids.size and int(ids.max()) >= len(self.plan.targets):
            raise DataError(f"sample id {ids.max()} has no label: labels has {len(self.plan.targets)} entries")
        return self.plan.targets[ids]

    def _skipped(self) -> list[dict[str, Any]]:
        new = [{"id": s.id, "reason": s.reason} for s in self.source.skipped] if isinstance(self.source, NetworkSource) else []
        return self.skipped + [entry for entry in new if self.finished or entry["id"] < self.position]

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        arrays = {f"{name}/{key}": array for name, layer in self.layers.items() for key, array in layer.arrays().items()}
        state = {"position": self.position, "finished": self.finished, "samples": self.seen.intervals, "skipped": self._skipped(),
                 "layers": {name: layer.n_components for name, layer in self.layers.items()}}
        checkpoints.write(self.checkpoint, self.made_of, state, arrays)

    def _save_what_there_is(self) -> None:
        """On the way out of an error: the error matters more than a checkpoint that cannot be written."""
        if not self.seen:
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
        for name, n_components in state["layers"].items():
            self.layers[name] = _Layer(self.plan, name, n_components)
            prefix = f"{name}/"
            self.layers[name].restore({key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)})
        self.seen, self.resumed = IdSet(state["samples"]), IdSet(state["samples"])
        self.skipped, self.position, self.finished = state["skipped"], state["position"], state["finished"]

    def result(self, images: Dataset | None) -> ConceptExamples:
        """What was collected; the data set's fingerprint is cheap now that all of it was read."""
        n = len(self.seen)
        layers = {}
        for name in self.plan.layers if self.plan.layers is not None else tuple(self.layers):
            state = self.layers[name]
            best = state.best
            layers[name] = LayerExamples(name, best.ids.copy(), best.scores.copy(), best.counts.copy(), best.nan_counts.copy(), n, state.pool.name,
                                         None if state.classes is None else state.classes.scores.copy())
        record = {**self.made_of, "data": _describe_data(self.made_of["data"]), "layers": list(layers), "samples": self.seen.intervals,
                  "skipped": sorted(self._skipped(), key=lambda entry: int(entry["id"])), "version": __version__}
        record["parameters"] = {**record["parameters"], "pool": {name: layer.pool for name, layer in layers.items()}}
        del record["shard"]
        return ConceptExamples(layers, record)


def _unpack(batch: Any) -> tuple[NDArray[np.int64], Mapping[str, Any]]:
    try:
        ids_in, activations = batch
    except (TypeError, ValueError):
        raise DataError(f"a batch must be a pair (ids, {{layer: activations}}), not {type(batch).__name__}") from None
    if not isinstance(activations, Mapping):
        raise DataError(f"a batch must be a pair (ids, {{layer: activations}}); its second part is {type(activations).__name__}")
    ids = np.asarray(_as_array(ids_in))
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.size == 0:
        raise DataError(f"the ids of a batch must be whole numbers (B,), at least one, not {ids.dtype} of shape {ids.shape}")
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
    """Hold Ctrl-C back until the block is done, so that no batch is half counted."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed = False

    def remember(_signal: int, _frame: types.FrameType | None) -> None:
        nonlocal pressed
        pressed = True

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def _pools(pool: Pools, names: Sequence[str] | None) -> Mapping[str, Pooling] | Pooling:
    if not isinstance(pool, Mapping):
        return pooling(pool)
    if names is None:
        raise ValueError("pool by layer needs layers=: name them")
    for name in pool:
        if name not in names:
            raise LayerNotFoundError(name, names, "layers=")
    return {name: pooling(pool.get(name, "auto")) for name in names}


def _shard(shard: tuple[int, int] | None, n: int) -> tuple[int, int]:
    start, stop = (0, n) if shard is None else shard
    if n and not 0 <= start < stop <= n:
        raise ValueError(f"shard={shard}: must be (start, stop) with 0 <= start < stop <= {n}, the length of the data set")
    return start, stop


def _targets(labels: ArrayLike | Literal[False] | None, images: Dataset | None) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    if labels is False:
        return None, None
    names = None if images is None else images.class_names
    if labels is None:
        found = None if images is None else images.labels
        if found is None:
            return None, None
        array: NDArray[Any] = np.asarray(found)
    else:
        array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (images is not None and len(array) != len(images)):
        expected = "(n,)" if images is None else f"({len(images)},), one per picture"
        raise DataError(f"labels must be whole numbers of shape {expected}, not {array.dtype} of shape {array.shape}")
    highest = int(array.max(initial=-1))
    if array.min(initial=0) < -1 or highest < 0 or (names is not None and highest >= len(names)):
        raise DataError(f"labels must lie between -1 (no class) and {'the number of classes' if names is None else len(names) - 1}; "
                        f"found {int(array.min(initial=0))} to {highest}")
    return array.astype(np.int64), names if names is not None else tuple(f"class {y}" for y in range(highest + 1))


def _made_of(plan: _Plan, source: Any, images: Dataset | None, class_names: tuple[str, ...] | None, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the result depends on, JSON-able; the data set stays an object until its fingerprint is due."""
    given = dict(record or {})
    unknown = set(given) - {"network", "data"}
    if unknown:
        raise ValueError(f"record={sorted(given)}: may have the keys 'network' and 'data' only")
    network: Any = {"name": "(activations)", "fingerprint": None, **given.get("network", {})}
    data: Any = {"name": "(activations)", "fingerprint": None, "length": None, **given.get("data", {})} if images is None else images
    parameters: dict[str, Any] = {"top": plan.top, "class_top": plan.class_top if plan.targets is not None else None, "positive_only": plan.positive_only,
                                  "pool": plan.pools.name if isinstance(plan.pools, Pooling) else {name: p.name for name, p in plan.pools.items()}}
    shard = None
    if isinstance(source, NetworkSource):
        network = {"name": source.network.name, "fingerprint": source.network.fingerprint}
        parameters["transform"] = _describe_transform(source.transform)
        parameters["batch_size"] = source.batch_size
        shard = [source.start, source.stop]
    labels = None if plan.targets is None else hashlib.sha256(plan.targets.astype("<i8").tobytes()).hexdigest()
    return {"network": network, "data": data, "parameters": parameters, "labels": labels, "class_names": None if class_names is None else list(class_names),
            "layers": None if plan.layers is None else list(plan.layers), "shard": shard}


def _describe_data(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {"name": data.name, "fingerprint": data.fingerprint, "length": len(data)}


def _describe_transform(transform: Any) -> Any:
    if hasattr(transform, "to_dict"):
        return transform.to_dict()
    return getattr(transform, "__qualname__", type(transform).__qualname__)


def _warn(result: ConceptExamples, top: int) -> None:
    """Once per kind, over all layers."""
    nan = {name: int(e.nan_counts.sum()) for name, e in result.items() if e.nan_counts.any()}
    if nan:
        warnings.warn("NaN activations were left out: " + ", ".join(f"{count:,} in layer {name!r}" for name, count in nan.items()) +
                      "; look for NaN in the network's weights or the input", SkippedDataWarning, stacklevel=3)
    if result.skipped:
        first = result.skipped[0]
        warnings.warn(f"{len(result.skipped)} pictures were left out, see .skipped; the first: {first['reason']}", SkippedDataWarning, stacklevel=3)
    if result and result.n_samples < top:
        warnings.warn(f"only {result.n_samples} samples for top={top}: the lists end with id -1", ConceptWarning, stacklevel=3)
    dead = {name: int(e.dead.sum()) for name, e in result.items() if e.dead.any()}
    if dead:
        warnings.warn("components that were never above 0: " + ", ".join(f"{count:,} of {len(result[name]):,} in layer {name!r}" for name, count in dead.items()) +
                      " (see .dead); their examples mean nothing", ConceptWarning, stacklevel=3)


__all__ = ["collect"]
