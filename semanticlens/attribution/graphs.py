"""Attribution graphs: from a channel backwards, the channels of earlier layers that its relevance comes from."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import ConceptWarning, MissingExtraError
from semanticlens._kernels import resolve_threads
from semanticlens.attribution.attribute import Prepared, prepare
from semanticlens.attribution.composites import Composite
from semanticlens.attribution.condition import propagate
from semanticlens.attribution.masks import ancestors, channel_axis
from semanticlens.attribution.rules import LINEAR
from semanticlens.nn.backward import Target
from semanticlens.nn.graph import INPUT, Checked
from semanticlens.nn.inputs import check_input

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["Graph", "GraphEdge", "GraphNode", "channel_scores", "graph"]

Array = NDArray[Any]
EPS = 1e-10  # of the normalisation, as in Concept Relevance Propagation


@dataclass(frozen=True)
class GraphNode:
    """A channel of a layer; ``score`` is its share of what passes the root, ``depth`` its distance from there."""

    layer: str
    channel: int
    score: float
    depth: int

    @property
    def key(self) -> tuple[str, int]:
        """What edges name it by."""
        return self.layer, self.channel


@dataclass(frozen=True)
class GraphEdge:
    """How much of what passes ``parent`` (and the root) comes from ``child``: a share of the child's layer, with its sign."""

    parent: tuple[str, int]
    child: tuple[str, int]
    weight: float


@dataclass(frozen=True)
class Graph:
    """What :func:`graph` returns.

    Attributes
    ----------
    root : tuple of (str, int)
    nodes : tuple of GraphNode
        The root first, then by depth, in each by layer and score.
    edges : tuple of GraphEdge
    inputs : mapping of str to tuple of str
        Layer -> the chosen layers right before it.
    """

    root: tuple[str, int]
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    inputs: Mapping[str, tuple[str, ...]]

    def children(self, layer: str, channel: int) -> list[tuple[GraphNode, float]]:
        """The nodes that a node's relevance comes from, with the weight of the edge, largest first in each layer."""
        by_key = {node.key: node for node in self.nodes}
        if (layer, channel) not in by_key:
            raise KeyError(f"({layer!r}, {channel}) is not in the graph")
        return [(by_key[edge.child], edge.weight) for edge in self.edges if edge.parent == (layer, channel)]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {
            "root": list(self.root),
            "nodes": [{"layer": n.layer, "channel": n.channel, "score": n.score, "depth": n.depth} for n in self.nodes],
            "edges": [{"parent": list(e.parent), "child": list(e.child), "weight": e.weight} for e in self.edges],
        }

    def to_networkx(self) -> Any:
        """A ``networkx.DiGraph`` with edges from parent to child; nodes carry ``score`` and ``depth``, edges ``weight``.

        Raises
        ------
        MissingExtraError
            Without the extra "graphs".
        """
        try:
            import networkx
        except ImportError:
            raise MissingExtraError("networkx", "graphs", "Graph.to_networkx") from None
        made = networkx.DiGraph(root=self.root)
        for node in self.nodes:
            made.add_node(node.key, layer=node.layer, channel=node.channel, score=node.score, depth=node.depth)
        for edge in self.edges:
            made.add_edge(edge.parent, edge.child, weight=edge.weight)
        return made

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the graph, as a picture or on axes; options are those of :func:`semanticlens.plot.attribution.graph`."""
        from semanticlens.plot import attribution

        drawing = attribution.graph(self, **options)
        return drawing if ax is None else drawing.on(ax)

    def __repr__(self) -> str:
        lines = [f"Graph of {self.root[0]!r} channel {self.root[1]}: {len(self.nodes)} nodes, {len(self.edges)} edges"]
        lines += [f"{'  ' * n.depth}{n.layer} {n.channel}: {n.score:+.4f}" for n in self.nodes]
        return "\n".join(lines)


def graph(
    net: Network,
    x: ArrayLike,
    root: tuple[str, int],
    target: Target | None = None,
    *,
    width: Sequence[int] = (4, 2),
    layers: Iterable[str] | None = None,
    composite: str | Composite = "epsilon_plus_flat",
    abs_norm: bool = True,
    start: str = "value",
    n_threads: int | None = None,
    progress: bool = False,
) -> Graph:
    """The channels that the relevance of one channel comes from, layer by layer.

    Parameters
    ----------
    net : Network
    x : array_like (1, ...) or (...)
        One sample.
    root : (layer, channel)
    target : Target, optional
        As in :func:`semanticlens.attribute`; left out, relevance starts at the root's layer with its activation.
    width : sequence of int
        How many children a node gets in each layer right before it, at each depth.
    layers : iterable of str, optional
        Layers that may hold children; convolutions and dense layers if left out. Right before a layer are those of them that
        reach it without passing another.
    composite : str or Composite
    abs_norm : bool
        Divide the scores of a layer's channels by the sum of their magnitudes.
    start : str
        As in :func:`semanticlens.attribute`.
    n_threads : int, optional
    progress : bool

    Returns
    -------
    Graph

    Raises
    ------
    ValueError, TypeError
        For more than one sample, a root or layer that does not fit, no layer before the root, a width below 1.

    Notes
    -----
    The score of a channel is its relevance, summed over positions, under the conditions of the root and of the parent; relevance that
    passes beside either is left out. Largest signed scores are taken, equal ones by the smaller channel.
    Source: attribution graphs of Concept Relevance Propagation (Achtibat et al. 2023).
    """
    batch = _one_sample(net, x)
    ready = prepare(net, batch.shape[1:], composite)
    widths = _widths(width)
    try:
        layer, channel = root
    except (TypeError, ValueError):
        raise TypeError(f"root={root!r}: must be (layer, channel)") from None
    names = _layers(ready, layer, layers)
    inputs = _inputs(ready, names)
    if not inputs[layer]:
        raise ValueError(f"root={root!r}: none of the layers comes before {layer!r}")
    maker = _Maker(ready, batch, target, (layer, channel), names, inputs, abs_norm, start, resolve_threads(n_threads), progress)
    return maker.make(widths)


@dataclass
class _Maker:
    ready: Prepared
    x: Array
    target: Target | None
    root: tuple[str, int]
    names: Mapping[str, str]  # layer, as it was called -> value
    inputs: Mapping[str, tuple[str, ...]]
    abs_norm: bool
    start: str
    n_threads: int
    progress: bool

    def make(self, widths: Sequence[int]) -> Graph:
        shares = self.scores([{}], [layer for layer in self.names if layer != self.root[0]])
        own = self.scores([{}], [self.root[0]], root=False)[self.root[0]][0, self.root[1]]
        if own == 0:
            warnings.warn(
                f"channel {self.root[1]} of {self.root[0]!r} has no relevance here: all scores of the graph are 0, its children the "
                "first channels; choose a channel that has some (attribute(record=...) says which)",
                ConceptWarning,
                stacklevel=4,
            )
        nodes = {self.root: GraphNode(*self.root, float(own), 0)}
        edges: list[GraphEdge] = []
        frontier = [self.root]
        for depth, width in enumerate(widths, 1):
            found: list[tuple[str, int]] = []
            for layer in dict.fromkeys(parent[0] for parent in frontier):
                parents = [parent for parent in frontier if parent[0] == layer]
                if not self.inputs[layer]:
                    continue
                at: list[dict[str, list[int]]] = [{layer: [k]} if (layer, k) != self.root else {} for _, k in parents]
                scores = self.scores(at, self.inputs[layer])
                for i, parent in enumerate(parents):
                    for child in self.inputs[layer]:
                        best = np.argsort(-scores[child][i], kind="stable")[:width]
                        edges += [GraphEdge(parent, (child, int(k)), float(scores[child][i, k])) for k in best]
                        found += [(child, int(k)) for k in best]
            frontier = [key for key in dict.fromkeys(found) if key not in nodes]
            for layer, k in frontier:
                nodes[layer, k] = GraphNode(layer, k, float(shares[layer][0, k]), depth)
        return Graph(self.root, tuple(nodes.values()), tuple(edges), self.inputs)

    def scores(self, conditions: Sequence[Mapping[str, list[int]]], layers: Iterable[str], root: bool = True) -> dict[str, Array]:
        """(conditions, K) for each layer; all of them under the root's as well."""
        layers = list(layers)
        given = [{**({self.root[0]: [self.root[1]]} if root else {}), **one} for one in conditions]
        job = propagate(
            self.ready,
            self.x,
            self.target,
            given,
            layers,
            exclude_parallel=True,
            of="output" if self.target is not None else self.root[0],
            start=self.start,
            n_threads=self.n_threads,
            progress=self.progress,
        )
        by_name = {item.node.name: item for item in self.ready.graph}
        return {
            layer: channel_scores(job.found[self.names[layer]], channel_axis(by_name, self.names[layer]), self.abs_norm) for layer in layers
        }


def channel_scores(r: Array, axis: int, abs_norm: bool, what: str = "sum") -> Array:
    """Relevance (B, ...) to (B, K) float64: the sum or maximum over positions, perhaps divided by the sum of magnitudes of a row."""
    moved = np.moveaxis(r, 1 + axis, 1).reshape(len(r), r.shape[1 + axis], -1)
    pooled: Array = moved.sum(axis=2, dtype=np.float64) if what == "sum" else moved.max(axis=2).astype(np.float64)
    if abs_norm:
        pooled = pooled / (np.abs(pooled).sum(axis=1, keepdims=True) + EPS)
    return pooled


def _one_sample(net: Network, x: ArrayLike) -> Array:
    given = np.asarray(x)
    batch = check_input(net, given[None] if given.ndim == len(net.input_shape) else given)
    if len(batch) != 1:
        raise ValueError(f"x holds {len(batch)} samples; a graph is made for one: pass x[i]")
    return batch


def _widths(width: Any) -> list[int]:
    given: list[Any] = [width] if isinstance(width, int) else list(width)
    if not given or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in given):
        raise ValueError(f"width={width!r}: must be whole numbers of at least 1, one for each depth")
    return [int(n) for n in given]


def _layers(ready: Prepared, root: str, layers: Iterable[str] | None) -> dict[str, str]:
    """Layer -> value, in the network's order; the root among them."""
    if isinstance(layers, str):
        raise TypeError(f"layers={layers!r}: must be names of layers, not one text")
    end = ready.value(root)
    order = {item.node.name: i for i, item in enumerate(ready.graph)}
    before = ancestors(ready.graph)[end]
    if layers is None:
        names = {item.node.name: item.node.name for item in ready.graph if item.op.name in LINEAR and item.node.name in before}
    else:
        names = {name: ready.value(name) for name in layers}
        for name, value in names.items():
            if value == INPUT or value not in before | {end}:
                raise ValueError(f"layers: {name!r} is no layer that {root!r} depends on")
        names = {name: value for name, value in names.items() if value != end}
    return dict(sorted((names | {root: end}).items(), key=lambda pair: order[pair[1]]))


def _inputs(ready: Prepared, names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Layer -> the layers that reach it without passing another of them."""
    called = {value: name for name, value in names.items()}
    reached: dict[str, dict[str, None]] = {INPUT: {}}
    found = {}
    for item in ready.graph:
        before = _joined(item, reached, called)
        reached[item.node.name] = before
        if item.node.name in called:
            found[called[item.node.name]] = tuple(before)
    return found


def _joined(item: Checked, reached: Mapping[str, dict[str, None]], called: Mapping[str, str]) -> dict[str, None]:
    before: dict[str, None] = {}
    for source in item.node.inputs:
        before.update({called[source]: None} if source in called else reached[source])
    return before
