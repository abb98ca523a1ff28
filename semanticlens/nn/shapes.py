"""Shape rules: what each operation gives for which inputs, parameters and attributes.

Shapes are without the batch; a size is None where the network accepts any.  A rule raises ``ValueError`` with the
reason where things do not fit; the caller names the node.  Everything is Python integers, so nothing can overflow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Dim = int | None
Shape = tuple[Dim, ...]
Attrs = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


def _image(shape: Shape, what: str = "its input") -> Shape:
    if len(shape) != 3:
        raise ValueError(f"{what} must be (channels, height, width), not of shape {shape}")
    return shape


def _same(dim: Dim, want: int, what: str) -> None:
    if dim is not None and dim != want:
        raise ValueError(f"{what}: {dim} arrive, {want} are expected")


def _axes(shape: Shape) -> Shape:
    if not shape:
        raise ValueError("its input must have at least one axis besides the batch")
    return shape


def _span(kernel: int, dilation: int) -> int:
    return (kernel - 1) * dilation + 1


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME: the output has ceil(size / stride) places, an odd cell of padding goes behind."""
    total = max((-(-size // stride) - 1) * stride + _span(kernel, dilation) - size, 0)
    return total // 2, total - total // 2


def _window_shape(
    attrs: Attrs, kernel: Sequence[int], sizes: Sequence[Dim], ceil_mode: bool = False
) -> tuple[Dim, ...]:
    """Places of a sliding window along height and width; torch's rule for ceil mode."""
    result: list[Dim] = []
    for axis, size in enumerate(sizes):
        k, s, d = kernel[axis], attrs["stride"][axis], attrs["dilation"][axis]
        if size is None:
            result.append(None)
            continue
        before, after = _same_padding(size, k, s, d) if attrs["padding"] == "same" else attrs["padding"][axis::2]
        span = size + before + after - _span(k, d)
        if span < 0:
            raise ValueError(
                f"a {('height', 'width')[axis]} of {size} (+ {before + after} padding) is smaller than its "
                f"window of {_span(k, d)}"
            )
        n = -(-span // s) + 1 if ceil_mode else span // s + 1
        if ceil_mode and (n - 1) * s >= size + before:
            n -= 1
        result.append(n)
    return tuple(result)


def conv2d_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Channels by the weight, places by stride, padding and dilation."""
    channels, *sizes = _image(inputs[0])
    weight = params["weight"]
    if len(weight) != 4:
        raise ValueError(
            f"its weight must be (outputs, inputs / groups, kernel height, kernel width), not of shape {weight}"
        )
    if min(weight) < 1:
        raise ValueError(f"its weight has an empty shape {weight}")
    if weight[0] % attrs["groups"]:
        raise ValueError(f"{weight[0]} outputs cannot be split into {attrs['groups']} groups")
    _same(channels, weight[1] * attrs["groups"], f"input channels (weight {weight}, groups {attrs['groups']})")
    if "bias" in params and params["bias"] != weight[:1]:
        raise ValueError(f"its bias must have shape {weight[:1]}, not {params['bias']}")
    return (weight[0], *_window_shape(attrs, weight[2:], sizes))


def resolve_conv2d(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Attrs:
    """The "same" padding as numbers."""
    return _resolve_padding(attrs, params["weight"][2:], inputs)


def resolve_pool2d(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Attrs:
    """The "same" padding as numbers."""
    return _resolve_padding(attrs, attrs["kernel"], inputs)


def _resolve_padding(attrs: Attrs, kernel: Sequence[int], inputs: Sequence[Shape]) -> Attrs:
    if attrs["padding"] != "same":
        return attrs
    sizes = [dim or 0 for dim in inputs[0][1:]]
    pads = [_same_padding(*of) for of in zip(sizes, kernel, attrs["stride"], attrs["dilation"], strict=True)]
    return {**attrs, "padding": (pads[0][0], pads[1][0], pads[0][1], pads[1][1])}


def pool2d_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Places of the window; each must hold a pixel."""
    channels, *sizes = _image(inputs[0])
    kernel = attrs["kernel"]
    if attrs["padding"] != "same":
        for axis in (0, 1):
            if max(attrs["padding"][axis::2]) >= _span(kernel[axis], attrs["dilation"][axis]):
                raise ValueError(
                    f"padding {list(attrs['padding'])} must be smaller than the window {list(kernel)}, or "
                    "windows hold no pixel"
                )
    return (channels, *_window_shape(attrs, kernel, sizes, attrs["ceil_mode"]))


def dense_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """The last axis becomes the outputs."""
    weight = params["weight"]
    if len(weight) != 2 or min(weight) < 1:
        raise ValueError(f"its weight must be (outputs, inputs), not of shape {weight}")
    _same(_axes(inputs[0])[-1], weight[1], f"input features (weight {weight})")
    if "bias" in params and params["bias"] != weight[:1]:
        raise ValueError(f"its bias must have shape {weight[:1]}, not {params['bias']}")
    return (*inputs[0][:-1], weight[0])


def batch_norm_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged; one value per channel and parameter."""
    channels = params["mean"]
    if len(channels) != 1:
        raise ValueError(f"its mean must be a vector, not of shape {channels}")
    for role, shape in params.items():
        if shape != channels:
            raise ValueError(f"its {role} must have shape {channels} as its mean, not {shape}")
    _same(_axes(inputs[0])[0], channels[0], "input channels")
    return inputs[0]


def unary_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged."""
    return inputs[0]


def adaptive_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Channels and the given size."""
    return (_image(inputs[0])[0], *attrs["size"])


def _axis(axis: int, rank: int) -> int:
    """An axis counted with the batch, as a position that is not negative; the batch itself is refused."""
    result = axis + rank + 1 if axis < 0 else axis
    if not 1 <= result <= rank:
        raise ValueError(f"axis {axis} does not exist beside the batch in a value of {rank + 1} dimensions")
    return result


def resolve_mean(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Attrs:
    """Axes as sorted positions."""
    axes = sorted({_axis(axis, len(inputs[0])) for axis in attrs["axes"]})
    return {**attrs, "axes": tuple(axes)}


def mean_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Without the axes, or with 1 in their place."""
    axes = resolve_mean(attrs, params, inputs)["axes"]
    dims = [
        (1 if position in axes else dim)
        for position, dim in enumerate(inputs[0], 1)
        if attrs["keepdims"] or position not in axes
    ]
    return tuple(dims)


def broadcast_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Two shapes of one rank, equal or 1 along each axis."""
    a, b = inputs
    if len(a) != len(b) or any(1 not in (p, q) and None not in (p, q) and p != q for p, q in zip(a, b, strict=True)):
        raise ValueError(f"its inputs must have shapes that are equal or 1 along each axis, not {a} and {b}")
    return tuple(q if p == 1 or (p is None and q != 1) else p for p, q in zip(a, b, strict=True))


add_shape = mul_shape = broadcast_shape


def _param_broadcast(name: str, shape: Sequence[int], value: Shape) -> None:
    """A parameter that is spread over a value: its axes are the value's last, each equal or 1."""
    if len(shape) > len(value) or any(
        p not in (1, v) and v is not None for p, v in zip(reversed(shape), reversed(value), strict=False)
    ):
        raise ValueError(f"its {name} of shape {tuple(shape)} cannot be spread over its input of shape {value}")


def scale_shift_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged; each parameter is spread over the value."""
    if not params and attrs["factor"] == 1.0 and attrs["term"] == 0.0:
        raise ValueError("it has neither a scale nor a shift")
    for name, shape in params.items():
        _param_broadcast(name, shape, inputs[0])
        if any(v is None and p != 1 for p, v in zip(reversed(shape), reversed(inputs[0]), strict=False)):
            raise ValueError(f"its {name} of shape {shape} needs an input of known size, not {inputs[0]}")
    return inputs[0]


def clamp_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged."""
    if attrs["low"] > attrs["high"]:
        raise ValueError(f"its lower limit {attrs['low']} is above its upper limit {attrs['high']}")
    return inputs[0]


def lrn_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged; channels first."""
    if len(inputs[0]) < 2:
        raise ValueError(f"its input must be (channels, places ...), not of shape {inputs[0]}")
    return inputs[0]


def resolve_concat(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Attrs:
    """The axis as a position."""
    return {**attrs, "axis": _axis(attrs["axis"], len(inputs[0]))}


def concat_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Sizes along the axis add up."""
    axis = _axis(attrs["axis"], len(inputs[0])) - 1
    result = list(inputs[0])
    for shape in inputs[1:]:
        if len(shape) != len(result) or any(
            p is not None and q is not None and p != q and i != axis
            for i, (p, q) in enumerate(zip(result, shape, strict=True))
        ):
            raise ValueError(f"its inputs must agree in all but axis {axis + 1}, not {', '.join(map(str, inputs))}")
    parts = [shape[axis] for shape in inputs]
    result[axis] = None if None in parts else sum(part for part in parts if part is not None)
    return tuple(result)


def _size(dims: Sequence[Dim]) -> Dim:
    return None if None in dims else math.prod(dim for dim in dims if dim is not None)


def flatten_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Axes from start on become one."""
    start = _axis(attrs["start"], len(inputs[0])) - 1
    return (*inputs[0][:start], _size(inputs[0][start:]))


def reshape_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """The given shape; one size may be -1."""
    shape, size = list(attrs["shape"]), _size(inputs[0])
    holes = [i for i, dim in enumerate(shape) if dim == -1]
    if len(holes) > 1 or 0 in shape:
        raise ValueError(f"shape {shape} must have sizes of at least 1, one of them may be -1")
    known = math.prod(dim for dim in shape if dim != -1)
    if size is None:
        return tuple(None if dim == -1 else dim for dim in shape)
    if size % known if holes else size != known:
        raise ValueError(f"{size} values (shape {inputs[0]}) do not fill the shape {shape}")
    return tuple(size // known if dim == -1 else dim for dim in shape)


def slice2d_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Every stride-th row and column."""
    channels, *sizes = _image(inputs[0])
    return (
        channels,
        *(None if size is None else -(-size // stride) for size, stride in zip(sizes, attrs["stride"], strict=True)),
    )


def pad_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Grown on each side."""
    top, left, bottom, right = attrs["padding"]
    extra = (sum(attrs["channels"]), top + bottom, left + right)
    return tuple(None if dim is None else dim + more for dim, more in zip(_image(inputs[0]), extra, strict=True))


def row_norm_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged; one value per feature and parameter."""
    features = _axes(inputs[0])[-1]
    for role, shape in params.items():
        if len(shape) != 1:
            raise ValueError(f"its {role} must be a vector, not of shape {shape}")
        _same(features, shape[0], f"features ({role} {shape})")
    return inputs[0]


def group_norm_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged; one value per channel and parameter."""
    channels = _axes(inputs[0])[0]
    if channels is not None and channels % attrs["groups"]:
        raise ValueError(f"{channels} channels cannot be split into {attrs['groups']} groups")
    for role, shape in params.items():
        if len(shape) != 1:
            raise ValueError(f"its {role} must be a vector, not of shape {shape}")
        _same(channels, shape[0], f"input channels ({role} {shape})")
    return inputs[0]


def shuffle_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged; the channels come in groups."""
    channels = _image(inputs[0])[0]
    if channels is not None and channels % attrs["groups"]:
        raise ValueError(f"{channels} channels cannot be split into {attrs['groups']} groups")
    return inputs[0]


def permute_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Axes in the new order; the batch stays first."""
    axes = attrs["axes"]
    if sorted(axes) != list(range(1, len(inputs[0]) + 1)):
        raise ValueError(f"axes {list(axes)} must be 1 to {len(inputs[0])} in some order")
    return tuple(inputs[0][axis - 1] for axis in axes)


def resolve_axis(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Attrs:
    """The axis as a position."""
    return {**attrs, "axis": _axis(attrs["axis"], len(inputs[0]))}


def slice_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """A part of one axis; start and stop as in Python."""
    axis = _axis(attrs["axis"], len(inputs[0])) - 1
    size = inputs[0][axis]
    part = None if size is None else len(range(size)[attrs["start"] : attrs["stop"] : attrs["step"]])
    if part == 0:
        raise ValueError(f"nothing is left of {size} places from {attrs['start']} to {attrs['stop']}")
    return (*inputs[0][:axis], part, *inputs[0][axis + 1 :])


def select_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """One place of an axis, which vanishes."""
    axis, index = _axis(attrs["axis"], len(inputs[0])) - 1, attrs["index"]
    size = inputs[0][axis]
    if size is not None and not -size <= index < size:
        raise ValueError(f"place {index} does not exist among {size}")
    return (*inputs[0][:axis], *inputs[0][axis + 1 :])


def repeat_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Each place of an axis several times."""
    axis = _axis(attrs["axis"], len(inputs[0])) - 1
    size = inputs[0][axis]
    return (*inputs[0][:axis], None if size is None else size * attrs["times"], *inputs[0][axis + 1 :])


def expand_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """The given shape, which the value is spread over."""
    shape = attrs["shape"]
    if len(shape) != len(inputs[0]) or any(p not in (None, 1, q) for p, q in zip(inputs[0], shape, strict=True)):
        raise ValueError(f"a value of shape {inputs[0]} cannot be spread over {shape}")
    return tuple(shape)


def roll_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged."""
    shifts, axes = attrs["shifts"], attrs["axes"]
    if len(shifts) != len(axes) or max(axes) > len(inputs[0]):
        raise ValueError(f"shifts {list(shifts)} and axes {list(axes)} do not fit a value of shape {inputs[0]}")
    return inputs[0]


def pad_axes_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Grown on each side of each axis."""
    before, after = attrs["before"], attrs["after"]
    if not len(before) == len(after) == len(inputs[0]):
        raise ValueError(f"before and after must have {len(inputs[0])} sizes, not {len(before)} and {len(after)}")
    return tuple(
        None if dim is None else dim + b + a for dim, b, a in zip(inputs[0], before, after, strict=True)
    )


def constant_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """The parameter's shape."""
    if not params["value"]:
        raise ValueError("its value must have at least one axis")
    return params["value"]


def _common(a: Dim, b: Dim, what: str) -> None:
    if None not in (a, b) and a != b:
        raise ValueError(f"{what} must agree, {a} meet {b}")


def matmul_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """(..., M, K) and (..., K, N), or transposed; leading axes equal or 1."""
    a, b = inputs
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"its inputs must have the same two or more axes, not {a} and {b}")
    rows, inner = (a[-1], a[-2]) if attrs["transpose_a"] else (a[-2], a[-1])
    other, columns = (b[-1], b[-2]) if attrs["transpose_b"] else (b[-2], b[-1])
    _common(inner, other, f"the inner sizes of {a} and {b}")
    lead = broadcast_shape(attrs, {}, [a[:-2], b[:-2]])
    return (*lead, rows, columns)


def attention_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Queries (..., T, D), keys (..., S, D), values (..., S, E), and a bias spread over (..., T, S)."""
    q, k, v = inputs[:3]
    if not len(q) == len(k) == len(v) or len(q) < 2:
        raise ValueError(f"queries, keys and values must have the same two or more axes, not {q}, {k} and {v}")
    for other in (k, v):
        for p, n in zip(q[:-2], other[:-2], strict=True):
            _common(p, n, f"the leading axes of {q} and {other}")
    _common(q[-1], k[-1], "the features of queries and keys")
    _common(k[-2], v[-2], "the numbers of keys and values")
    if attrs["causal"] and None not in (q[-2], k[-2]) and q[-2] > k[-2]:  # type: ignore[operator]
        raise ValueError(f"causal attention needs as many keys as queries, {k[-2]} keys meet {q[-2]} queries")
    scores = (*q[:-2], q[-2], k[-2])
    if "bias" in params:
        _param_broadcast("bias", params["bias"], scores)
        if params["bias"][-2:] != scores[-2:]:
            raise ValueError(f"its bias of shape {params['bias']} must end in (queries, keys) = {scores[-2:]}")
    if len(inputs) > 3:
        broadcast_shape(attrs, {}, [scores, inputs[3]])
    return (*q[:-1], v[-1])


def embedding_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """A row of the weight for each whole number."""
    if len(params["weight"]) != 2 or min(params["weight"]) < 1:
        raise ValueError(f"its weight must be (numbers, features), not of shape {params['weight']}")
    return (*inputs[0], params["weight"][1])


def positions_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged: (T, D) with T up to the rows of the weight."""
    weight = params["weight"]
    if len(weight) != 2 or len(inputs[0]) != 2:
        raise ValueError(f"its weight (places, features) and input (tokens, features) have shapes {weight} and {inputs[0]}")
    _same(inputs[0][1], weight[1], f"features (weight {weight})")
    if inputs[0][0] is not None and inputs[0][0] + attrs["offset"] > weight[0]:
        raise ValueError(f"{inputs[0][0]} tokens arrive, it knows {weight[0] - attrs['offset']} places")
    return inputs[0]


def rotary_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Unchanged: (..., T, D) with an even D."""
    if len(inputs[0]) < 2 or (inputs[0][-1] or 0) % 2:
        raise ValueError(f"its input must be (..., tokens, features) with an even number of features, not {inputs[0]}")
    given = attrs["frequencies"]
    if given is not None and inputs[0][-1] is not None and len(given) != inputs[0][-1] // 2:
        raise ValueError(f"it has {len(given)} frequencies for {inputs[0][-1] // 2} pairs of features")
    return inputs[0]


def pick_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """The token that the ids point to."""
    x, ids = inputs
    if len(x) != 2 or len(ids) != 1:
        raise ValueError(f"its inputs must be (tokens, features) and (tokens,), not {x} and {ids}")
    _common(x[0], ids[0], "the numbers of tokens")
    return x[1:]
