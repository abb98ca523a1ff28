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
    _same(inputs[0][-1], weight[1], f"input features (weight {weight})")
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
    _same(inputs[0][0], channels[0], "input channels")
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


def add_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Two equal shapes."""
    a, b = inputs
    if len(a) != len(b) or any(p is not None and q is not None and p != q for p, q in zip(a, b, strict=True)):
        raise ValueError(f"its inputs must have equal shapes, not {a} and {b}")
    return tuple(q if p is None else p for p, q in zip(a, b, strict=True))


def mul_shape(attrs: Attrs, params: Shapes, inputs: Sequence[Shape]) -> Shape:
    """Two equal shapes, or channel factors (C, 1, 1) and (C, H, W)."""
    a, b = inputs
    for full, scale in ((a, b), (b, a)):
        if (
            len(full) == len(scale) == 3
            and scale[1:] == (1, 1)
            and (None in (full[0], scale[0]) or full[0] == scale[0])
        ):
            return full
    try:
        return add_shape(attrs, params, inputs)
    except ValueError:
        raise ValueError(
            f"its inputs must have equal shapes, or one of them the form (channels, 1, 1), not {a} and {b}"
        ) from None


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
