"""Layers with parameters, pooling, attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semanticlens.nn.aten.registry import operation
from semanticlens.nn.traced import Refused, Traced

if TYPE_CHECKING:
    from semanticlens.nn.export import Translator


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return [int(item) for item in (values * 2 if len(values) == 1 else values)]


def _four(value: Any) -> list[int]:
    vertical, horizontal = _pair(value)
    return [vertical, horizontal, vertical, horizontal]


@operation("conv2d", "convolution")
def _conv2d(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    if a.get("transposed"):
        raise Refused("a transposed convolution")
    source = t.picture(a["input"])
    kernel, dilation = a["weight"].meta["val"].shape[2:], _pair(a["dilation"])
    if a["padding"] == "same":
        total = [d * (int(k) - 1) for k, d in zip(kernel, dilation, strict=True)]
        padding = [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]
    else:
        padding = [0, 0, 0, 0] if a["padding"] == "valid" else _four(a["padding"])
    return t.emit(
        fx,
        "conv2d",
        [source],
        {"weight": a["weight"], "bias": a["bias"]},
        stride=_pair(a["stride"]),
        padding=padding,
        dilation=dilation,
        groups=int(a["groups"]),
    )


def dense(t: Translator, fx: Any, source: Any, weight: Any, bias: Any) -> Traced:
    """A product with a constant matrix along the last axis."""
    layout = t.traced(source)
    if layout.axis == len(t.shape(source)) - 1:
        raise Refused("along the batch")
    return t.emit(fx, "dense", [layout], {"weight": weight, "bias": bias})


@operation("linear")
def _linear(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    return dense(t, fx, a["input"], a["weight"], a["bias"])


@operation("addmm", "mm", "matmul", "bmm")
def _addmm(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    if a.get("beta", 1) != 1 or a.get("alpha", 1) != 1:
        raise Refused("factors other than 1")
    left, right = (a["mat1"], a["mat2"]) if "mat1" in a else (a["self"], a["mat2"] if "mat2" in a else a["other"])
    bias = a["self"] if "mat1" in a else None
    weight = t.constant(right)
    if weight is not None and weight.ndim == 2:
        return dense(t, fx, left, weight.t(), bias)
    if weight is not None or t.constant(left) is not None or bias is not None:
        raise Refused("a product with a constant that is no matrix on the right")
    layouts = t.aligned(fx, [left, right])
    if layouts[0].axis >= len(t.shape(fx)) - 2:
        raise Refused("a product along the batch")
    return t.emit(fx, "matmul", layouts)


@operation("scaled_dot_product_attention")
def _attention(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    if a.get("dropout_p", 0.0):
        raise Refused("dropout that is on in evaluation")
    shape = t.shape(a["query"])
    if t.shape(a["key"])[:-2] != shape[:-2]:
        raise Refused("queries and keys with different numbers of heads")
    inputs = [t.traced(a[name]) for name in ("query", "key", "value")]
    if not all(inputs[0].same(other) for other in inputs) or inputs[0].axis >= len(shape) - 2:
        raise Refused("queries, keys and values whose batch lies in different places")
    params, mask = {}, a.get("attn_mask")
    if mask is not None:
        constant = t.constant(mask)
        if constant is None:
            inputs.append(t.aligned(fx, [a["query"], mask])[1])
        else:
            if constant.dtype == t.torch.bool:
                constant = t.torch.where(constant, 0.0, -1e30)
            constant = constant.float().clamp(min=-1e30)  # parameters are finite; exp of both is 0
            scores = (*shape[:-1], t.shape(a["key"])[-2])
            params["bias"] = t.own_constant(constant.expand(*constant.shape[:-2], *scores[-2:]), inputs[0], len(shape))
    scale = a.get("scale")
    attrs: dict[str, Any] = {} if scale is None else {"scale": float(scale)}
    return t.emit(fx, "attention", inputs, params, causal=bool(a.get("is_causal", False)), **attrs)


@operation("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    if a.get("training") or a.get("running_mean") is None or a.get("running_var") is None:
        raise Refused("batch normalisation with the statistics of the batch; track running statistics")
    return t.emit(
        fx,
        "batch_norm",
        [t.plain(a["input"])],
        {"mean": a["running_mean"], "var": a["running_var"], "weight": a["weight"], "bias": a["bias"]},
        eps=float(a.get("eps", a.get("epsilon", 1e-5))),
    )


@operation("layer_norm", "native_layer_norm", "rms_norm")
def _layer_norm(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    kind = "rms_norm" if "rms" in fx.target._schema.name else "layer_norm"
    source = t.traced(a["input"])
    if len(a["normalized_shape"]) != 1 or source.axis == len(t.shape(a["input"])) - 1:
        raise Refused(f"over the last {len(a['normalized_shape'])} axes; only over the last axis is supported")
    params = {"weight": a.get("weight"), "bias": a.get("bias")}
    eps = a["eps"] if a["eps"] is not None else t.torch.finfo(t.torch.float32).eps
    return t.emit(fx, kind, [source], params, eps=float(eps))


@operation("group_norm")
def _group_norm(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    params = {"weight": a["weight"], "bias": a["bias"]}
    return t.emit(fx, "group_norm", [t.plain(a["input"])], params, groups=int(a["num_groups"]), eps=float(a["eps"]))


@operation("embedding")
def _embedding(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    return t.emit(fx, "embedding", [t.plain(a["indices"])], {"weight": a["weight"]})


@operation("softmax", "_softmax")
def _softmax(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    shape, source = t.shape(a["self"]), t.traced(a["self"])
    own = len(source.dims(shape))
    axis = source.place(int(a["dim"]) % len(shape), len(shape))
    if axis == own:
        return t.emit(fx, "softmax", [source])
    swap = list(range(1, own + 1))
    swap[axis - 1], swap[-1] = own, axis
    turned = t.emit(fx, "permute", [source], suffix="turned", axes=swap)
    return t.emit(fx, "permute", [t.emit(fx, "softmax", [turned], suffix="weights")], axes=swap)


@operation("max_pool2d", "max_pool2d_with_indices")
def _max_pool2d(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    return t.emit(
        fx,
        "max_pool2d",
        [t.picture(a["self"])],
        kernel=_pair(a["kernel_size"]),
        stride=_pair(a["stride"] or a["kernel_size"]),
        padding=_four(a["padding"]),
        dilation=_pair(a["dilation"]),
        ceil_mode=bool(a["ceil_mode"]),
    )


@operation("avg_pool2d")
def _avg_pool2d(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    if a["divisor_override"] is not None:
        raise Refused("divisor_override")
    return t.emit(
        fx,
        "avg_pool2d",
        [t.picture(a["self"])],
        kernel=_pair(a["kernel_size"]),
        stride=_pair(a["stride"] or a["kernel_size"]),
        padding=_four(a["padding"]),
        ceil_mode=bool(a["ceil_mode"]),
        count_include_pad=bool(a["count_include_pad"]),
    )


@operation("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_avg_pool2d(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    return t.emit(fx, "adaptive_avg_pool2d", [t.picture(a["self"])], size=list(t.shape(fx)[2:]))


@operation("mean", "sum", "amax")
def _reduce(t: Translator, fx: Any, a: dict[str, Any]) -> Traced:
    kind = fx.target._schema.name.removeprefix("aten::").replace("amax", "max")
    shape, source = t.shape(a["self"]), t.traced(a["self"])
    axes = sorted(int(axis) % len(shape) for axis in (a.get("dim") or []))
    if not axes or source.axis in axes or a.get("dtype") is not None:
        raise Refused(f"a {kind} over the batch or in another dtype")
    own = [source.place(axis, len(shape)) for axis in axes]
    keep = bool(a["keepdim"])
    result = t.emit(fx, kind, [source], axes=own, keepdims=keep)
    return result if keep else t.moved(result, source.axis - sum(axis < source.axis for axis in axes))
