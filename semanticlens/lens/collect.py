"""Collect concept examples: one pass over the data for any number of layers, checkpointed, resumable, mergeable."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import ConceptWarning, DataError, LayerNotFoundError, SkippedDataWarning
from semanticlens.data.batches import Transform
from semanticlens.data.dataset import Dataset
from semanticlens.lens.crops import check_options as check_crops
from semanticlens.lens.crops import with_crops
from semanticlens.lens.examples import ConceptExamples
from semanticlens.lens.pooling import Pooling, pooling
from semanticlens.lens.relevance import RelevanceSource
from semanticlens.lens.run import Plan, Run
from semanticlens.lens.sources import ActivationSource, NetworkSource, RunsLayers, check_layers
from semanticlens.nn.network import Network

Pools = str | Pooling | Mapping[str, str | Pooling]


def collect(
    source: RunsLayers | ActivationSource | Iterable[tuple[ArrayLike, Mapping[str, ArrayLike]]],
    images: Dataset | None = None,
    layers: Sequence[str] | str | None = None,
    *,
    top: int = 20,
    pool: Pools = "auto",
    batch_size: int = 32,
    labels: ArrayLike | Literal[False] | None = None,
    class_top: int = 10,
    positive_only: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    transform: Transform | None = None,
    shard: tuple[int, int] | None = None,
    score: Literal["activation", "relevance"] = "activation",
    targets: ArrayLike | None = None,
    composite: Any = "epsilon_plus_flat",
    crops: bool | Mapping[str, Any] = False,
    record: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    n_threads: int | None = None,
    progress: bool = False,
) -> ConceptExamples:
    """For every component of ``layers``, the ``top`` samples with the largest pooled activations.

    Parameters
    ----------
    source : Network, or iterable of (ids, {layer: activations})
        A network, run over ``images``; or batches from anywhere (see
        :class:`~semanticlens.lens.sources.ActivationSource`): activations of a network that runs elsewhere give the
        same result.
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
    score : {"activation", "relevance"}
        What is pooled: the layer's output, or its relevance for a class of each picture (relevance maximisation). The result
        then also holds the position of each example's largest relevance, and pool="auto" is the sum; "sum+abs_norm" divides by
        the sum of magnitudes.
    targets : array (n,) of int, optional
        For relevance: the class that is explained, by id; left out, its label.
    composite : str or Composite
        For relevance and crops: see :func:`semanticlens.attribute`.
    crops : bool or mapping
        Also find the part of each example that its component looks at (``boxes``), which :meth:`ConceptDB.build` then encodes in the place
        of the whole picture. A mapping: options of :func:`semanticlens.lens.crops`, such as ``{"kernel": 11}`` for small pictures.
    record : mapping, optional
        For an iterable: ``{"network": {"name": ..., "fingerprint": ...}, "data": {...}}``, what the activations come from.
    checkpoint : path, optional
        State of the run, written every ``checkpoint_every`` seconds (0: after every batch), when interrupted, on an
        error and at the end. The same call with the same file continues and ends in the same bytes; an iterable is
        then gone through again, passing over samples already counted. Delete the file when the result is safe.
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
    Scores are float32; equal scores are ordered by the smaller id; NaN never becomes an example, is
    counted, and warned about once; -inf counts as no score.  The result does not depend on how samples are cut into
    batches or shards, or on the number of threads, as far as the activations do not.

    Definition: SemanticLens (Nature Machine Intelligence 2025), "concept examples"; class statistics: Concept
    Relevance Propagation.
    """
    if top < 1 or class_top < 1:
        raise ValueError(f"top={top}, class_top={class_top}: both must be at least 1")
    explained = _explained(score, targets, labels, images, source)
    cropping = _cropping(crops, composite, source, transform)
    given: Any = source  # a network or batches: told apart by what it can do, not by its class
    batches: Any = source
    if hasattr(source, "run"):
        batches = _over_pictures(
            given, images, layers, batch_size, transform, shard, on_error, n_threads, explained, composite
        )
        names: list[str] | None = batches.layers
    elif transform is not None or shard is not None:
        raise ValueError("transform and shard are for a network; batches of activations come as they are")
    else:
        names = [layers] if isinstance(layers, str) else None if layers is None else list(layers)
    classes, class_names = _targets(labels, images)
    pools, n_classes = _pools(pool, names), 0 if class_names is None else len(class_names)
    if explained is not None:
        pools = {name: _summed(p) for name, p in pools.items()} if isinstance(pools, Mapping) else _summed(pools)
    plan = Plan(
        None if names is None else tuple(names),
        top,
        pools,
        classes,
        n_classes,
        class_top,
        positive_only,
        explained is not None,
    )
    made_of = _made_of(plan, batches, images, class_names, record)
    run = Run(plan, batches, made_of, checkpoint, checkpoint_every, n_threads)
    run.go(progress)
    result = run.result(images)
    if cropping is not None and images is not None:
        kept: dict[str, Any] = {"checkpoint": checkpoint, "n_threads": n_threads, "progress": progress, "transform": transform}
        result = with_crops(given, images, result, **cropping, **kept)
    _warn(result, top)
    return result


def _over_pictures(
    network: RunsLayers,
    images: Dataset | None,
    layers: Sequence[str] | str | None,
    batch_size: int,
    transform: Transform | None,
    shard: tuple[int, int] | None,
    on_error: Literal["raise", "skip"],
    n_threads: int | None,
    explained: NDArray[np.int64] | None,
    composite: Any,
) -> NetworkSource:
    if images is None:
        raise ValueError("images=None: give the data set to run the network on")
    start, stop = _shard(shard, len(images))
    kind: Any = NetworkSource if explained is None else partial(RelevanceSource, targets=explained, composite=composite)
    made: NetworkSource = kind(
        network,
        images,
        check_layers(network, layers),
        batch_size=batch_size,
        transform=transform,
        start=start,
        stop=stop,
        on_error=on_error,
        n_threads=n_threads,
    )
    return made


def _explained(
    score: str, targets: ArrayLike | None, labels: Any, images: Dataset | None, source: Any
) -> NDArray[np.int64] | None:
    """The class of each picture whose relevance is asked for; None for activations."""
    if score not in ("activation", "relevance"):
        raise ValueError(f"score={score!r}: must be 'activation' or 'relevance'")
    if score == "activation":
        if targets is not None:
            raise ValueError("targets is for score='relevance'; class statistics take labels")
        return None
    if not hasattr(source, "run") or images is None:
        raise ValueError("score='relevance' walks back through a network: give a network and images, not activations")
    given = targets if targets is not None else labels if labels is not None and labels is not False else images.labels
    if given is None:
        raise ValueError("score='relevance' needs the class to explain: pass targets=, one per picture (the data set has no labels)")
    found: NDArray[Any] = np.asarray(given)
    if found.shape != (len(images),) or found.dtype.kind not in "iu":
        raise DataError(
            f"targets must be whole numbers of shape ({len(images)},), one per picture, not {found.dtype} of shape {found.shape}"
        )
    return found.astype(np.int64)


def _cropping(crops: bool | Mapping[str, Any], composite: Any, source: Any, transform: Transform | None) -> dict[str, Any] | None:
    """Options of the crops, checked before the long run; None without crops."""
    if crops is False:
        return None
    if crops is not True and not isinstance(crops, Mapping):
        raise ValueError(f"crops={crops!r}: must be True, False or a mapping of options, for example {{'kernel': 11}}")
    options = {"composite": composite, **({} if crops is True else crops)}
    unknown = set(options) - {"composite", "whole_map", "kernel", "threshold"}
    if unknown:
        raise ValueError(f"crops has no option {sorted(unknown)[0]!r}: composite, whole_map, kernel and threshold")
    if not isinstance(source, Network):
        raise ValueError("crops walk back through a network: give a semanticlens.Network and images, not activations")
    check_crops(source, options.get("kernel", 51), options.get("threshold", 0.01), transform)
    return options


def _summed(pool: Pooling) -> Pooling:
    """What "auto" means for relevance: sums are what it conserves."""
    return dataclasses.replace(pool, kind="sum") if pool.kind == "auto" else pool


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
        raise ValueError(
            f"shard={shard}: must be (start, stop) with 0 <= start < stop <= {n}, the length of the data set"
        )
    return start, stop


def _targets(
    labels: ArrayLike | Literal[False] | None, images: Dataset | None
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
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
        raise DataError(
            f"labels must lie between -1 (no class) and {'the number of classes' if names is None else len(names) - 1}; "
            f"found {int(array.min(initial=0))} to {highest}"
        )
    return array.astype(np.int64), names if names is not None else tuple(f"class {y}" for y in range(highest + 1))


def _made_of(
    plan: Plan,
    source: Any,
    images: Dataset | None,
    class_names: tuple[str, ...] | None,
    record: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the result depends on, JSON-able; the data set stays an object until its fingerprint is due."""
    given = dict(record or {})
    unknown = set(given) - {"network", "data"}
    if unknown:
        raise ValueError(f"record={sorted(given)}: may have the keys 'network' and 'data' only")
    network: Any = {"name": "(activations)", "fingerprint": None, **given.get("network", {})}
    data: Any = (
        {"name": "(activations)", "fingerprint": None, "length": None, **given.get("data", {})}
        if images is None
        else images
    )
    parameters: dict[str, Any] = {
        "top": plan.top,
        "class_top": plan.class_top if plan.targets is not None else None,
        "positive_only": plan.positive_only,
        "pool": plan.pools.name
        if isinstance(plan.pools, Pooling)
        else {name: p.name for name, p in plan.pools.items()},
    }
    shard = None
    if isinstance(source, NetworkSource):
        network = {"name": source.network.name, "fingerprint": source.network.fingerprint}
        edits = [edit.to_dict() for edit in getattr(source.network, "edits", ())]
        network |= {"edits": edits} if edits else {}
        parameters["transform"] = _describe_transform(source.transform)
        parameters["batch_size"] = source.batch_size
        if isinstance(source, RelevanceSource):
            parameters["score"] = source.describe()
        shard = [source.start, source.stop]
    labels = None if plan.targets is None else hashlib.sha256(plan.targets.astype("<i8").tobytes()).hexdigest()
    return {
        "network": network,
        "data": data,
        "parameters": parameters,
        "labels": labels,
        "class_names": None if class_names is None else list(class_names),
        "layers": None if plan.layers is None else list(plan.layers),
        "shard": shard,
    }


def _describe_transform(transform: Any) -> Any:
    if hasattr(transform, "to_dict"):
        return transform.to_dict()
    return getattr(transform, "__qualname__", type(transform).__qualname__)


def _warn(result: ConceptExamples, top: int) -> None:
    """Once per kind, over all layers."""
    nan = {name: int(e.nan_counts.sum()) for name, e in result.items() if e.nan_counts.any()}
    if nan:
        warnings.warn(
            "NaN activations were left out: "
            + ", ".join(f"{count:,} in layer {name!r}" for name, count in nan.items())
            + "; look for NaN in the network's weights or the input",
            SkippedDataWarning,
            stacklevel=3,
        )
    if result.skipped:
        first = result.skipped[0]
        warnings.warn(
            f"{len(result.skipped)} pictures were left out, see .skipped; the first: {first['reason']}",
            SkippedDataWarning,
            stacklevel=3,
        )
    if result and result.n_samples < top:
        warnings.warn(
            f"only {result.n_samples} samples for top={top}: the lists end with id -1", ConceptWarning, stacklevel=3
        )
    dead = {name: int(e.dead.sum()) for name, e in result.items() if e.dead.any()}
    if dead:
        warnings.warn(
            "components that were never above 0: "
            + ", ".join(f"{count:,} of {len(result[name]):,} in layer {name!r}" for name, count in dead.items())
            + " (see .dead); their examples mean nothing",
            ConceptWarning,
            stacklevel=3,
        )


__all__ = ["collect"]
