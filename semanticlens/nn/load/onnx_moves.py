"""ONNX operations that move values without computing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from semanticlens.nn.load.onnx import Reader
from semanticlens.nn.load.onnx_operations import OPERATIONS, operation
from semanticlens.nn.traced import Refused, Traced

__all__ = ["OPERATIONS"]


def _reshaped(r: Reader, node: Any, after: Sequence[int]) -> None:
    layout, shape = r.value(node.input[0])
    after = tuple(int(n) for n in after)
    if math.prod(after) != math.prod(shape):
        raise Refused(f"from {shape} to {after}")
    result = layout.reshaped(shape, after, r.batch)
    own, new = layout.dims(shape), result.dims(after)
    if own == new:
        r.set(node, result, after)
    elif not new:
        raise Refused(f"a result of shape {after} without features")
    else:
        r.emit(node, "reshape", [layout], after, layout=result, shape=list(new))


@operation("Reshape", allowzero=0)
def _reshape(r: Reader, node: Any, a: dict[str, Any]) -> None:
    _, shape = r.value(node.input[0])
    sizes = r.whole(node, 1, "shape") or []
    if a["allowzero"] and 0 in sizes:
        raise Refused("attribute 'allowzero' with a size of 0")
    after = [shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    known = math.prod(n for n in after if n != -1)
    _reshaped(r, node, [math.prod(shape) // max(known, 1) if n == -1 else n for n in after])


@operation("Flatten", axis=1)
def _flatten(r: Reader, node: Any, a: dict[str, Any]) -> None:
    _, shape = r.value(node.input[0])
    axis = int(a["axis"]) % (len(shape) + 1) if int(a["axis"]) < 0 else int(a["axis"])
    _reshaped(r, node, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@operation("Squeeze", axes=None)
def _squeeze(r: Reader, node: Any, a: dict[str, Any]) -> None:
    _, shape = r.value(node.input[0])
    axes = a["axes"] if a["axes"] is not None else r.whole(node, 1, "axes")
    gone = {int(n) % len(shape) for n in axes} if axes is not None else {i for i, n in enumerate(shape) if n == 1 and i}
    _reshaped(r, node, [n for i, n in enumerate(shape) if i not in gone])


@operation("Unsqueeze", axes=None)
def _unsqueeze(r: Reader, node: Any, a: dict[str, Any]) -> None:
    _, shape = r.value(node.input[0])
    axes = a["axes"] if a["axes"] is not None else r.whole(node, 1, "axes") or []
    new, rank = list(shape), len(shape) + len(axes)
    for axis in sorted(int(n) % rank for n in axes):
        new.insert(axis, 1)
    _reshaped(r, node, new)


@operation("Transpose", perm=None)
def _transpose(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.value(node.input[0])
    order = [int(n) for n in a["perm"]] if a["perm"] is not None else list(range(len(shape)))[::-1]
    if sorted(order) != list(range(len(shape))):
        raise Refused(f"attribute 'perm' is {order}")
    result, axes = layout.permuted(order)
    after = [shape[i] for i in order]
    if axes == tuple(range(1, len(axes) + 1)):
        r.set(node, result, after)
    else:
        r.emit(node, "permute", [layout], after, layout=result, axes=list(axes))


@operation("Concat", axis=0)
def _concat(r: Reader, node: Any, a: dict[str, Any]) -> None:
    like, first = next(r.value(name) for name in node.input if r.constant(name) is None)
    axis, inputs, total = int(a["axis"]) % len(first), [], 0
    for number, name in enumerate(node.input):
        constant = r.constant(name)
        if constant is None:
            layout, shape = r.value(name)
            if not layout.same(like):
                raise Refused("of values whose batch lies in different places")
        else:
            shape = constant.shape
            value = r.spread(constant, like, len(first), whole=True)
            layout = r.emit(node, "constant", [like], shape, {"value": value}, suffix=f"constant_{number}", output=None)
        inputs.append(layout)
        total += shape[axis]
    r.emit(node, "concat", inputs, (*first[:axis], total, *first[axis + 1 :]), axis=like.place(axis, len(first)))


@operation("Slice", starts=None, ends=None, axes=None)
def _slice(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.value(node.input[0])
    starts = a["starts"] if a["starts"] is not None else r.whole(node, 1, "starts") or []
    ends = a["ends"] if a["ends"] is not None else r.whole(node, 2, "ends") or []
    axes = a["axes"] if a["axes"] is not None else r.whole(node, 3, "axes")
    steps = r.whole(node, 4, "steps") or [1] * len(starts)
    axes = list(range(len(starts))) if axes is None else [int(n) % len(shape) for n in axes]
    cuts = [
        (axis, slice(start, end, step).indices(shape[axis]))
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    ]
    cuts = [(axis, cut) for axis, cut in cuts if cut != (0, shape[axis], 1)]
    if not cuts:
        r.set(node, layout, shape)
    for number, (axis, (start, stop, step)) in enumerate(cuts):
        shape = (*shape[:axis], len(range(start, stop, step)), *shape[axis + 1 :])
        last = number == len(cuts) - 1
        given: dict[str, Any] = {"axis": layout.place(axis, len(shape)), "start": start, "stop": stop, "step": step}
        layout = r.emit(
            node, "slice", [layout], shape, suffix="" if last else f"axis_{axis}", output=0 if last else None, **given
        )


@operation("Split", axis=0, split=None, num_outputs=None)
def _split(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.value(node.input[0])
    axis = int(a["axis"]) % len(shape)
    sizes = a["split"] if a["split"] is not None else r.whole(node, 1, "split")
    if sizes is None:
        each = -(-shape[axis] // len(node.output))
        sizes = [min(each, shape[axis] - i * each) for i in range(len(node.output))]
    start = 0
    for number, size in enumerate(sizes):
        part = (*shape[:axis], int(size), *shape[axis + 1 :])
        given: dict[str, Any] = {"axis": layout.place(axis, len(shape)), "start": start, "stop": start + int(size)}
        r.emit(node, "slice", [layout], part, suffix=str(number), output=number, **given)
        start += int(size)


@operation("Gather", axis=0)
def _gather(r: Reader, node: Any, a: dict[str, Any]) -> None:
    table = r.constant(node.input[0])
    if table is not None:
        layout, shape = r.plain(node.input[1])
        if a["axis"] or table.ndim != 2:
            raise Refused("attribute 'axis' must be 0 and the table a matrix")
        r.emit(node, "embedding", [layout], (*shape, table.shape[1]), {"weight": table})
        return
    layout, shape = r.value(node.input[0])
    index = r.constant(node.input[1])
    axis = int(a["axis"]) % len(shape)
    if index is None or index.size != 1 or index.ndim > 1:
        raise Refused("the indices must be a single constant")
    place, number = layout.place(axis, len(shape)), int(index.reshape(-1)[0])
    rest = (*shape[:axis], *shape[axis + 1 :])
    moved = Traced(layout.node, layout.axis - (axis < layout.axis), layout.outer, layout.inner)
    if index.ndim:
        number %= shape[axis]
        r.emit(
            node, "slice", [layout], (*shape[:axis], 1, *shape[axis + 1 :]), axis=place, start=number, stop=number + 1
        )
    elif not moved.dims(rest):
        raise Refused("the result has no features beside the batch")
    else:
        r.emit(node, "select", [layout], rest, layout=moved, axis=place, index=number)


@operation("Expand")
def _expand(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.value(node.input[0])
    after = np.broadcast_shapes(shape, tuple(r.whole(node, 1, "shape") or ()))
    if len(after) != len(shape) or after[layout.axis] != shape[layout.axis]:
        raise Refused(f"from {shape} to {after}")
    if after == shape:
        r.set(node, layout, shape)
    else:
        r.emit(node, "expand", [layout], after, shape=list(layout.dims(after)))


@operation("Pad", mode="constant", pads=None, value=0.0)
def _pad(r: Reader, node: Any, a: dict[str, Any]) -> None:
    layout, shape = r.value(node.input[0])
    sides = a["pads"] if a["pads"] is not None else r.whole(node, 1, "pads") or []
    number = float(a["value"])
    if len(node.input) > 2 and node.input[2]:
        number = float(r.constants[node.input[2]].reshape(-1)[0])
    if (
        a["mode"] != "constant"
        or len(sides) != 2 * len(shape)
        or min(sides) < 0
        or (len(node.input) > 3 and node.input[3])
    ):
        raise Refused(
            f"attribute 'mode' is {a['mode']!r}, pads are {list(sides)}: only padding by constants is supported"
        )
    pairs = list(zip(sides[: len(shape)], sides[len(shape) :], strict=True))
    if pairs[layout.axis] != (0, 0):
        raise Refused("along the batch")
    own = len(layout.dims(shape))
    before, after = [0] * own, [0] * own
    for axis, (low, high) in enumerate(pairs):
        if axis != layout.axis:
            before[layout.place(axis, len(shape)) - 1] = low
            after[layout.place(axis, len(shape)) - 1] = high
    grown = [n + low + high for n, (low, high) in zip(shape, pairs, strict=True)]
    if tuple(grown) == shape:
        r.set(node, layout, shape)
    else:
        r.emit(node, "pad_axes", [layout], grown, before=before, after=after, value=number)
