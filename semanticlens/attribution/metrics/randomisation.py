"""Sanity check: does a map change when what the network learned is taken out of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from semanticlens.attribution.metrics.case import Case, Curve, Part, check_same, summed
from semanticlens.attribution.metrics.similarity import WINDOW, spearman, ssim

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["Randomisation", "learned_nodes", "randomised"]

Array = NDArray[Any]
WAYS = ("normal", "permute")
ALWAYS_PERMUTED = frozenset({"batch_norm"})  # a variance must stay positive
COLUMNS = ("rank_correlation", "rank_correlation_absolute", "ssim")


@dataclass(frozen=True)
class Randomisation:
    """Draw the parameters anew, from the output down to the input, and compare the map with the original one at each stage.

    The cascade of Adebayo et al. (2018): a stage keeps what earlier stages have drawn. Maps are summed over
    channels and the class stays. Per sample, means over the stages (small is good: the map depends on what was learned):

    - ``rank_correlation``: Spearman's, of the signed maps; ``rank_correlation_absolute``: of their absolute values.
    - ``ssim``: structural similarity of ``(M / max |M| + 1) / 2``: in [0, 1], so that means are not negative (where they are, the
      measure calls a map and its negative alike). Windows in which both maps are nearly 0 count as alike.

    The curves follow the stages. A stage at which a map is the same everywhere (as where a drawn ReLU is silent) has no rank
    correlation, NaN in the curve, and is left out of that sample's mean. Needs a method that makes maps.

    Attributes
    ----------
    stages : int or None
        At how many depths maps are made, evenly spread, the last with every parameter drawn; None after every node.
    draw : {"normal", "permute"}
        From a normal distribution of each parameter's own mean and standard deviation, or its values in another order.
        Batch normalisations are always permuted.

    References
    ----------
    Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity checks for saliency maps. NeurIPS, 2018.
    """

    stages: int | None = 6
    draw: str = "normal"
    name: ClassVar[str] = "randomisation"

    def __post_init__(self) -> None:
        if self.stages is not None and (
            isinstance(self.stages, bool) or not isinstance(self.stages, int) or self.stages < 1
        ):
            raise ValueError(f"stages={self.stages!r}: must be a whole number of at least 1, or None for every node")
        _check_way(self.draw)

    def prepare(self, case: Case) -> int:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        case.need_method(self.name)
        if min(case.x.shape[2:]) < WINDOW:
            raise ValueError(f"metric 'randomisation' needs pictures of at least {WINDOW} x {WINDOW} pixels")
        return (1 + len(self._depths(case.net))) * case.n_batches(len(case))

    def run(self, case: Case, tick: Callable[[], None]) -> Part:
        """See :class:`semanticlens.attribution.metrics.case.Metric`."""
        nodes, depths = learned_nodes(case.net), self._depths(case.net)
        original = self._maps(case, case.net, tick)
        check_same(case, original, self.name)
        heat = summed(original)
        found: dict[str, list[Array]] = {name: [] for name in COLUMNS}
        for depth in depths:
            made = summed(self._maps(case, randomised(case.net, nodes[:depth], case.seed, self.draw), tick))
            found["rank_correlation"].append(spearman(heat, made))
            found["rank_correlation_absolute"].append(spearman(np.abs(heat), np.abs(made)))
            found["ssim"].append(ssim(_scaled(heat), _scaled(made)))
        names = tuple(nodes[depth - 1] for depth in depths)
        x = np.array(depths) / len(nodes)
        curves = {
            name: Curve(x, np.stack(rows, axis=1), "share of layers drawn anew", name.replace("_", " "), names)
            for name, rows in found.items()
        }
        return Part({name: _mean(curve.y) for name, curve in curves.items()}, curves)

    def _depths(self, net: Network) -> list[int]:
        n = len(learned_nodes(net))
        stages = n if self.stages is None else min(self.stages, n)
        return [round((i + 1) / stages * n) for i in range(stages)]

    @staticmethod
    def _maps(case: Case, net: Network, tick: Callable[[], None]) -> Array:
        parts = []
        for part in case.batches(len(case)):
            parts.append(case.draw_maps(net, case.x[part], case.targets[part]))
            tick()
        return np.concatenate(parts)


def learned_nodes(net: Network) -> list[str]:
    """Nodes with parameters, from the output to the input.

    Raises
    ------
    ValueError
        If there is none.
    """
    names = [node.name for node in reversed(net.nodes) if node.params]
    if not names:
        raise ValueError(f"the network {net.name!r} has no parameters: there is nothing to draw anew")
    return names


def randomised(net: Network, nodes: Iterable[str], seed: int = 0, draw: str = "normal") -> Network:
    """The network with the parameters of some nodes drawn anew.

    Parameters
    ----------
    net : Network
        Not changed. Its edits stay.
    nodes : iterable of str
    seed : int
        What a parameter becomes depends on it, on the parameter and on nothing else: further nodes leave it as it is.
    draw : {"normal", "permute"}
        See :class:`Randomisation`.

    Returns
    -------
    Network
        Parameters of other nodes are shared, not copied.
    """
    from semanticlens.nn.network import Network

    _check_way(draw)
    order = {name: i for i, name in enumerate(net.params)}
    by_name = {node.name: node for node in net.nodes}
    params = dict(net.params)
    for name in nodes:
        node = by_name[net.resolve(name)]
        way = "permute" if node.op in ALWAYS_PERMUTED else draw
        for key in node.params.values():
            params[key] = _drawn(net.params[key], np.random.default_rng([seed, 3, order[key]]), way)
    other = Network(
        net.nodes,
        params,
        input_shape=net.input_shape,
        output=net.output,
        name=net.name,
        aliases=net.aliases,
        preprocess=net.preprocess,
        labels=net.labels,
        folded=net.folded,
        allow_nonfinite=net._allow_nonfinite,
    )
    return other.edited(*net.edits) if net.edits else other


def _drawn(values: Array, rng: np.random.Generator, way: str) -> Array:
    if way == "permute":
        return np.asarray(rng.permutation(values.ravel()).reshape(values.shape))
    mean, spread = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    return np.asarray(rng.normal(mean, spread, values.shape), dtype=np.float32)


def _check_way(draw: str) -> None:
    if draw not in WAYS:
        raise ValueError(f"draw={draw!r}: must be one of {', '.join(WAYS)}")


def _scaled(heat: Array) -> Array:
    """In [0, 1], 0 at one half."""
    largest = np.abs(heat).max(axis=(1, 2), keepdims=True)
    return np.asarray((heat / np.where(largest > 0, largest, 1) + 1) / 2)


def _mean(rows: Array) -> Array:
    """(B,): mean over the stages that have a value; NaN where none has."""
    kept = np.isfinite(rows)
    count = kept.sum(axis=1)
    return np.asarray(np.where(kept, rows, 0).sum(axis=1) / np.where(count > 0, count, np.nan))
