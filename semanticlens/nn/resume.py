"""Runs that begin in the middle of a network, and patching, which is many of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens.nn.edit import Edit, by_node
from semanticlens.nn.graph import INPUT, Checked, all_finite, check_reached
from semanticlens.nn.inputs import check_input
from semanticlens.nn.ops import Shape, output_shape

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["missing", "patch", "resume"]

F32 = NDArray[np.float32]


def missing(net: Network, given: Iterable[str], records: frozenset[str]) -> tuple[str, ...]:
    """Nodes before those given, or beside them, that the way from them to the records reads."""
    known = set(given)
    after = set(known)
    for item in net._graph:
        if item.node.name not in known and any(name in after for name in item.node.inputs):
            after.add(item.node.name)
    needed, result = set(records), set()
    for item in reversed(net._graph):
        name = item.node.name
        if name not in needed or name in known:
            continue
        if name in after:
            needed.update(item.node.inputs)
        else:
            result.add(name)
    if INPUT in needed - known:
        result.add(INPUT)
    order = {INPUT: -1, **{item.node.name: i for i, item in enumerate(net._graph)}}
    return tuple(sorted(result, key=lambda name: order[name]))


def resume(
    net: Network, given: Mapping[str, ArrayLike], targets: Mapping[str, str], edits: Iterable[Edit], n_threads: int
) -> dict[str, F32]:
    """See :meth:`Network.run_from`; ``targets`` maps the names asked for to nodes."""
    records = frozenset(targets.values())
    known = {net.resolve(name): value for name, value in given.items()}
    lacking = missing(net, known, records)
    if lacking:
        raise DataError(
            f"a branch passes by {', '.join(map(repr, known))}: the values of {', '.join(map(repr, lacking))} are needed as "
            "well; record them in the run before and pass them with given="
        )
    values = {name: _check_value(net, name, value) for name, value in known.items()}
    sizes = {name: len(value) for name, value in values.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the values given are of different batches: {sizes}")
    order = [name for name in (INPUT, *(item.node.name for item in net._graph)) if name in values]
    standing = [edit for edit in net.edits if net.resolve(edit.node) in _reach(net, order) - set(order)]
    changed = by_node((*standing, *((edits,) if isinstance(edits, Edit) else edits)), net.resolve)
    if changed:
        check_reached(net._graph, changed, records, order)
    shapes = {name: values[name].shape[1:] for name in order}
    plan = net._plan(records, (), sources=shapes, edited=frozenset(changed), graph=_sized(net, shapes))
    result = plan.execute([values[name] for name in order], n_threads, net._scratch, changed)
    return {name: result[target] for name, target in targets.items()}


def _reach(net: Network, given: Iterable[str]) -> set[str]:
    """The given nodes and all that come after them."""
    after = set(given)
    for item in net._graph:
        if any(name in after for name in item.node.inputs):
            after.add(item.node.name)
    return after


def _sized(net: Network, given: Mapping[str, tuple[int, ...]]) -> list[Checked]:
    """The nodes whose values follow from those given, with the shapes that follow."""
    shapes: dict[str, Shape] = dict(given)
    result = []
    for item in net._graph:
        node = item.node
        if node.name not in shapes and all(name in shapes for name in node.inputs):
            params = {role: net.params[key].shape for role, key in node.params.items()}
            shapes[node.name] = output_shape(item.op, item.attrs, params, [shapes[name] for name in node.inputs], node.name)
        if node.name in shapes:
            result.append(replace(item, shape=shapes[node.name]))
    return result


def _check_value(net: Network, name: str, value: ArrayLike) -> F32:
    if name == INPUT:
        return check_input(net, value)
    array = np.asarray(value)
    if array.dtype != np.float32:
        raise TypeError(
            f"the value of {name!r} must be float32, not {array.dtype}: convert it with .astype(np.float32)"
        )
    want = net._by_name[name].shape
    if array.ndim != len(want) + 1 or any(
        dim not in (None, got) for dim, got in zip(want, array.shape[1:], strict=True)
    ):
        raise DataError(
            f"the value of {name!r} has shape {array.shape}; (batch, {', '.join(map(str, want))}) is needed"
        )
    if array.size == 0 or not all_finite(array):
        raise DataError(f"the value of {name!r} is empty or holds NaN or infinite values")
    return np.ascontiguousarray(array)


def patch(
    net: Network, x: ArrayLike, source: ArrayLike, sites: Iterable[Edit | str], record: str, n_threads: int | None
) -> F32:
    """See :meth:`Network.patch`: one run of each input, then a run from each site."""
    places = [site if isinstance(site, Edit) else Edit(site, "replace") for site in sites]
    if not places:
        raise ValueError("sites is empty: name at least one node")
    nodes = [net.resolve(place.node) for place in places]
    beside = {node: net.frontier(node, record) for node in set(nodes)}
    check_reached(net._graph, dict.fromkeys(nodes), frozenset((net.resolve(record),)), (INPUT,))
    taken = net.run(source, sorted(set(nodes)), n_threads=n_threads)
    kept = net.run(x, sorted({*nodes, *(name for names in beside.values() for name in names)}), n_threads=n_threads)
    results: list[Any] = []
    for place, node in zip(places, nodes, strict=True):
        change = replace(place, kind="replace", node=node, value=taken[node])
        given = {name: kept[name] for name in beside[node] if name != INPUT}
        if INPUT in beside[node]:
            given[INPUT] = np.asarray(x)
        value = change.apply(kept[node])
        results.append(net.run_from(node, value, record, given=given, n_threads=n_threads)[record])
    return np.stack(results)
