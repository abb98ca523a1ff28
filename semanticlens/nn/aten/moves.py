"""What moves values without computing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semanticlens.nn.aten.registry import Parts, operation
from semanticlens.nn.traced import Refused, Traced

if TYPE_CHECKING:
    from semanticlens.nn.export import Translator


@operation("cat")
def _cat(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    rank = len(t.shape(fx))
    axis, sources = int(a.get("dim", 0)) % rank, list(a["tensors"])
    like = next(t.traced(source) for source in sources if t.constant(source) is None)
    inputs = []
    for number, source in enumerate(sources):
        constant = t.constant(source)
        if constant is None:
            if not t.traced(source).same(like):
                raise Refused("of values whose batch lies in different places")
            inputs.append(t.traced(source))
        else:
            value = t.own_constant(constant, like, rank, whole=True)
            inputs.append(t.emit(fx, "constant", [like], {"value": value}, suffix=f"constant_{number}"))
    return t.emit(fx, "concat", inputs, axis=like.place(axis, rank))


@operation("stack")
def _stack(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    rank = len(t.shape(fx))
    axis = int(a.get("dim", 0)) % rank
    inputs = []
    for number, source in enumerate(a["tensors"]):
        layout = t.traced(source)
        shape = list(t.shape(source))
        shape.insert(axis, 1)
        layout = Traced(layout.node, layout.axis + (axis <= layout.axis), layout.outer, layout.inner)
        node = t.emit(fx, "reshape", [layout], suffix=f"part_{number}", shape=list(layout.dims(shape)))
        inputs.append(node)
    return t.emit(fx, "concat", inputs, axis=inputs[0].place(axis, rank))


@operation("flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "unflatten")
def _reshape(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    before, after = t.shape(a["self"]), t.shape(fx)
    source = t.traced(a["self"])
    result = source.reshaped(before, after, t.batch)
    own, new = source.dims(before), result.dims(after)
    if own == new:
        return result
    if not new:
        raise Refused(f"a result of shape {after} without features")
    if source.plain and result.plain and len(new) <= len(own) and new[:-1] == own[: len(new) - 1]:
        return t.emit(fx, "flatten", [source], start=len(new))
    return t.emit(fx, "reshape", [source], layout=result, shape=list(new))


@operation("permute", "transpose", "t")
def _permute(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    rank = len(t.shape(a["self"]))
    if "dims" in a:
        order = [int(axis) % rank for axis in a["dims"]]
    else:
        order = list(range(rank))
        first, second = int(a.get("dim0", 0)) % rank, int(a.get("dim1", 1)) % rank
        order[first], order[second] = order[second], order[first]
    source = t.traced(a["self"])
    result, axes = source.permuted(order)
    if axes == tuple(range(1, len(axes) + 1)):
        return result
    return t.emit(fx, "permute", [source], layout=result, axes=list(axes))


@operation("slice", "narrow")
def _slice(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    source, shape = a["self"], t.shape(a["self"])
    if shape == t.shape(fx):
        return t.traced(source)
    axis, size = int(a["dim"]) % len(shape), shape[int(a["dim"])]
    start = int(a.get("start") or 0)
    stop = start + int(a["length"]) if "length" in a else a.get("end")
    start, stop, step = slice(start, stop, int(a.get("step", 1))).indices(size)
    layout = t.traced(source)
    if layout.plain and len(shape) == 4 and axis in (2, 3) and start == 0 and stop == size:
        return t.emit(fx, "slice2d", [layout], stride=[step, 1] if axis == 2 else [1, step])
    return t.emit(fx, "slice", [layout], axis=layout.place(axis, len(shape)), start=start, stop=stop, step=step)


@operation("select")
def _select(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    return select(t, fx, a["self"], int(a["dim"]), int(a["index"]))


def select(t: Translator, fx: Any, source: Any, axis: int, index: int, suffix: str = "") -> Traced:
    """One place of an axis."""
    shape, layout = t.shape(source), t.traced(source)
    axis %= len(shape)
    if len(shape) < 3:
        raise Refused("the result has no features beside the batch")
    result = t.emit(fx, "select", [layout], suffix=suffix, axis=layout.place(axis, len(shape)), index=index)
    return t.moved(result, layout.axis - (axis < layout.axis))


@operation("split", "split_with_sizes", "chunk", "tensor_split", "unbind")
def _split(t: Translator, fx: Any, a: dict[str, Any]) -> Parts:
    axis = int(a.get("dim", 0)) % len(t.shape(a["self"]))
    if fx.target._schema.name.endswith("unbind"):
        return Parts(a["self"], axis, [(i, i + 1) for i in range(t.shape(a["self"])[axis])], True)
    bounds, start = [], 0
    for part in fx.meta["val"]:
        bounds.append((start, start + int(part.shape[axis])))
        start = bounds[-1][1]
    return Parts(a["self"], axis, bounds, False)


def part(t: Translator, fx: Any, parts: Parts, index: int) -> Traced:
    """One of several results."""
    start, stop = parts.bounds[index]
    if parts.places:
        return select(t, fx, parts.source, parts.axis, start)
    shape, layout = t.shape(parts.source), t.traced(parts.source)
    if stop - start == shape[parts.axis]:
        return layout
    return t.emit(fx, "slice", [layout], axis=layout.place(parts.axis, len(shape)), start=start, stop=stop)


@operation("expand")
def _expand(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    before, after = t.shape(a["self"]), t.shape(fx)
    if before == after:
        return t.traced(a["self"])
    source = t.widened(fx, a["self"], len(after))
    if source.dims(after) == source.dims([1] * (len(after) - len(before)) + list(before)):
        return source
    return t.emit(fx, "expand", [source], shape=list(source.dims(after)))


@operation("roll")
def _roll(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    shape, source = t.shape(a["self"]), t.traced(a["self"])
    axes = [source.place(int(axis) % len(shape), len(shape)) for axis in a.get("dims") or []]
    if not axes:
        raise Refused("over all values at once")
    return t.emit(fx, "roll", [source], shifts=[int(n) for n in a["shifts"]], axes=axes)


@operation("pad", "constant_pad_nd")
def _pad(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    shape, source = t.shape(a["self"]), t.traced(a["self"])
    if shape == t.shape(fx):
        return source
    sides = [int(n) for n in a["pad"]]
    if a.get("mode", "constant") != "constant" or min(sides) < 0:
        raise Refused("only padding by constants is supported")
    amount = float(a.get("value") or 0.0)
    pairs = [(0, 0)] * (len(shape) - len(sides) // 2) + list(zip(sides[-2::-2], sides[::-2], strict=True))
    if source.plain and len(shape) == 4 and pairs[0] == (0, 0):
        (top, bottom), (left, right) = pairs[2:]
        padding = [top, left, bottom, right]
        return t.emit(fx, "pad", [source], padding=padding, channels=list(pairs[1]), value=amount)
    if pairs[source.axis] != (0, 0):
        raise Refused("along the batch")
    own = len(source.dims(shape))
    before, after = [0] * own, [0] * own
    for axis, (low, high) in enumerate(pairs):
        if axis != source.axis:
            place = source.place(axis, len(shape)) - 1
            before[place], after[place] = low, high
    return t.emit(fx, "pad_axes", [source], before=before, after=after, value=amount)


@operation("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    return t.emit(fx, "channel_shuffle", [t.picture(a["self"])], groups=int(a["groups"]))
