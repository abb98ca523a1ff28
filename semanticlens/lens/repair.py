"""Repair: components taken out of a network for good, and the proof of what that changed.

Three ways, all after training and without a gradient: a component is put to 0 (``"ablate"``), to its mean over pictures (``"mean"``), or
the direction that separates pictures with a thing from the same pictures without it is projected out of a layer,
``x - <x - mu, d> d`` (``"project"``), with mu the mean over the pictures without. The repaired network is a network like any other, with
the change as a node of its graph: it can be saved, explained and searched.

What this cannot do: teach. A component can carry an artefact and a class at once, and a class can have been learned from the artefact
alone; the recall of the class over pictures without the artefact tells (``before_after``), and only training on such pictures mends it.
The direction of these findings is that of SemanticLens (Nature Machine Intelligence 2025, figure 4d).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, MismatchError
from semanticlens._kernels import resolve_threads
from semanticlens._progress import track
from semanticlens.data.batches import Transform, network_inputs
from semanticlens.data.dataset import Dataset
from semanticlens.lens.effects import check_components, layer_means, logits_node, sample_labels, steps_of
from semanticlens.lens.proof import BeforeAfter, Drift, drift
from semanticlens.nn import edit

if TYPE_CHECKING:
    from semanticlens.lens.database import ConceptDB
    from semanticlens.nn.network import Network

__all__ = ["Repair", "repair"]

F64 = NDArray[np.float64]
Component = tuple[str, int]
HOW = ("ablate", "mean", "project")
Group = tuple[Any, ArrayLike] | Dataset


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Repair:
    """A repaired network, beside the one it was made from.

    Attributes
    ----------
    network : Network
        Repaired; :meth:`~semanticlens.nn.Network.save` keeps it.
    original : Network
    components : tuple of (layer, int)
    how : {"ablate", "mean", "project"}
    means : dict of str to ndarray (K,), float64
        By layer; of all pictures for "mean", of those without for "project".
    directions : dict of str to ndarray (K,), float64
        By layer, of unit length; for "project".
    """

    network: Network
    original: Network
    components: tuple[Component, ...]
    how: str
    means: Mapping[str, F64] = field(default_factory=dict, repr=False)
    directions: Mapping[str, F64] = field(default_factory=dict, repr=False)
    _images: Any = field(default=None, repr=False)
    _labels: Any = field(default=None, repr=False)
    _transform: Transform | None = field(default=None, repr=False)

    def before_after(
        self,
        groups: Mapping[str, Group] | None = None,
        *,
        batch_size: int = 32,
        n_threads: int | None = None,
        progress: bool = False,
    ) -> BeforeAfter:
        """Answers of both networks, group by group.

        Parameters
        ----------
        groups : mapping of str to Dataset or (images, labels), optional
            For example pictures without the artefact, with it, and with it moved. The pictures given to :func:`repair`, if left out.
        batch_size, n_threads, progress
            As for :func:`repair`.

        Raises
        ------
        DataError
            No groups and no pictures; a group that is empty or has no labels.
        """
        if groups is None:
            if self._images is None:
                raise DataError(
                    "before_after needs pictures: pass groups={name: (images, labels)}, or images= to repair"
                )
            groups = {"all": (self._images, self._labels)}
        if not groups:
            raise DataError("groups is empty: name at least one group of pictures")
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "n_threads": resolve_threads(n_threads),
            "progress": progress,
        }
        return _before_after((self.original, self.network), groups, self._transform, **options)

    def drift(self, db: ConceptDB, *, examples: Any = None, **options: Any) -> Drift:
        """How far every component of a database of the original network moved: see :class:`~semanticlens.lens.proof.Drift`.

        Parameters
        ----------
        db : ConceptDB
            With its pictures and encoder attached.
        examples : ConceptExamples, optional
            Of the repaired network, where they cannot be collected as ``db`` says it was made (by relevance, or with crops).
        **options
            Of :func:`semanticlens.collect`, such as ``batch_size``, ``n_threads``, ``progress``.
        """
        db.check_network(self.original)
        return drift(self.network, db, self.components, examples=examples, transform=self._transform, **options)

    def report(
        self, path: Any, *, before_after: BeforeAfter | None = None, drift: Drift | None = None, **options: Any
    ) -> Any:
        """One self-contained HTML page; see :func:`semanticlens.plot.repair.report`."""
        from semanticlens.plot.repair import report

        return report(self, path, before_after=before_after, drift=drift, **options)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, ready for JSON."""
        return {
            "how": self.how,
            "components": [[layer, k] for layer, k in self.components],
            "original": {"name": self.original.name, "fingerprint": self.original.fingerprint},
            "repaired": {"name": self.network.name, "fingerprint": self.network.fingerprint},
            "means": {layer: m.tolist() for layer, m in self.means.items()},
            "directions": {layer: d.tolist() for layer, d in self.directions.items()},
        }

    def __repr__(self) -> str:
        shown = ", ".join(f"{layer}:{k}" for layer, k in self.components[:6])
        more = f" and {len(self.components) - 6} more" if len(self.components) > 6 else ""
        return f"Repair({self.how}: {shown}{more} of {self.original.name!r}; see before_after() and drift(db))"


def repair(
    net: Network,
    components: Iterable[Component],
    *,
    how: str = "ablate",
    images: Dataset | ArrayLike | None = None,
    labels: ArrayLike | None = None,
    pairs: tuple[Dataset | ArrayLike, Dataset | ArrayLike] | None = None,
    transform: Transform | None = None,
    batch_size: int = 32,
    n_threads: int | None = None,
    progress: bool = False,
) -> Repair:
    """Take components out of a network.

    Parameters
    ----------
    net : Network
    components : iterable of (layer, int)
    how : {"ablate", "mean", "project"}
        Put 0 in their place; or their mean over ``images`` and all places; or, in each layer, project out the direction in which the
        layer's mean differs between the two sides of ``pairs``, as far as these components span it.
    images : Dataset, or array_like (n, ...) float32, optional
        For the means, and what :meth:`Repair.before_after` looks at if no groups are given.
    labels : array_like (n,) of int, optional
        Classes of ``images``; those of the data set if left out.
    pairs : (without, with_it), optional
        The same pictures in the same order, without and with what the network should not use; for "project".
    transform : callable, optional
        Picture -> network input, instead of ``net.preprocess``.
    batch_size : int
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Repair

    Raises
    ------
    DataError
        Components that are not there, no pictures where they are needed, pairs between which the components do not differ.
    ValueError
        An unknown ``how``, or a layer whose edit cannot become a node (see :meth:`semanticlens.nn.Network.baked`).
    """
    if how not in HOW:
        raise ValueError(f"how={how!r}: must be one of {', '.join(map(repr, HOW))}")
    chosen = check_components(net, components)
    given = transform if transform is not None else net.preprocess
    threads = resolve_threads(n_threads)
    means: dict[str, F64] = {}
    directions: dict[str, F64] = {}
    if how == "mean":
        if images is None:
            raise DataError("how='mean' puts the mean over pictures in the place of a component: pass images=")
        means = layer_means(net, images, chosen, given, batch_size, threads, progress)
    elif how == "project":
        if pairs is None:
            raise DataError(
                "how='project' needs pairs=(without, with_it): the same pictures without and with what should not be used"
            )
        means, directions = _directions(net, chosen, pairs, given, batch_size, threads, progress)
    changed = net.edited(*_edits(chosen, how, means, directions)).baked()
    changed.name = f"{net.name}, repaired"
    return Repair(
        network=changed,
        original=net,
        components=tuple(chosen),
        how=how,
        means=means,
        directions=directions,
        _images=images,
        _labels=labels,
        _transform=transform,
    )


def _edits(
    chosen: Sequence[Component], how: str, means: Mapping[str, F64], directions: Mapping[str, F64]
) -> list[edit.Edit]:
    if how == "project":
        return [edit.ablate(layer, direction=d, to=float(means[layer] @ d)) for layer, d in directions.items()]
    own: dict[str, list[int]] = {}
    for layer, k in chosen:
        own.setdefault(layer, []).append(k)
    return [edit.ablate(layer, component=ks, to=means[layer] if how == "mean" else "zero") for layer, ks in own.items()]


def _directions(
    net: Network,
    chosen: Sequence[Component],
    pairs: tuple[Any, Any],
    given: Transform | None,
    batch_size: int,
    n_threads: int,
    progress: bool,
) -> tuple[dict[str, F64], dict[str, F64]]:
    """Means over the pictures without, and unit directions towards those with it, of the chosen components of each layer."""
    if len(pairs) != 2 or len(pairs[0]) != len(pairs[1]) or not len(pairs[0]):
        raise DataError(
            f"pairs: {len(pairs[0])} and {len(pairs[1])} pictures are no pairs; as many on both sides are needed, at least one"
        )
    without, with_it = (layer_means(net, side, chosen, given, batch_size, n_threads, progress) for side in pairs)
    directions = {}
    for layer, mean in without.items():
        own = np.zeros(len(mean))
        ks = [k for name, k in chosen if name == layer]
        own[ks] = (with_it[layer] - mean)[ks]
        length = float(np.linalg.norm(own))
        if not length > 0:
            raise DataError(
                f"pairs: the components of {layer!r} are the same on both sides, so there is no direction to project out"
            )
        directions[layer] = own / length
    return without, directions


def _before_after(
    networks: tuple[Network, Network],
    groups: Mapping[str, Group],
    transform: Transform | None,
    *,
    batch_size: int,
    n_threads: int,
    progress: bool,
) -> BeforeAfter:
    net = networks[0]
    n_classes = net.output_shape[-1]
    if n_classes is None or len(net.output_shape) != 1:
        raise DataError(
            f"network {net.name!r} gives {net.output_shape} for each picture: before and after are for classifiers"
        )
    tables = np.zeros((2, len(groups), n_classes, n_classes), np.int64)
    flips = np.zeros((len(groups), 2), np.int64)
    given = transform if transform is not None else net.preprocess
    for g, (name, group) in enumerate(groups.items()):
        images, labels = _group(name, group, n_classes)
        inputs = network_inputs(images, given, batch_size=batch_size)
        for ids, x in track(
            inputs, progress=progress, total=steps_of(images, batch_size), what=f"before/after: {name}", unit="batch"
        ):
            truth, known = labels[ids], labels[ids] >= 0
            calls = [
                one.run(x, record=[logits_node(one)], n_threads=n_threads)[logits_node(one)].argmax(axis=1)
                for one in networks
            ]
            for table, called in zip(tables[:, g], calls, strict=True):
                np.add.at(table, (truth[known], called[known]), 1)
            right = [(called == truth)[known] for called in calls]
            flips[g] += (right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum()
    return BeforeAfter(groups=tuple(groups), before=tables[0], after=tables[1], flips=flips, class_names=net.labels)


def _group(name: str, group: Group, n_classes: int) -> tuple[Any, NDArray[np.int64]]:
    images, labels = group if isinstance(group, tuple) and len(group) == 2 else (group, None)
    if not len(images):
        raise DataError(f"group {name!r} has no pictures")
    found = sample_labels(images, labels)
    if not (found >= 0).any():
        raise DataError(f"group {name!r} has no labels: pass (images, labels)")
    if found.max() >= n_classes:
        raise MismatchError(
            f"group {name!r} has label {int(found.max())}, and the network has classes 0 to {n_classes - 1}"
        )
    return images, found
