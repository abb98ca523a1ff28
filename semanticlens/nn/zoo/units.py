"""Parts that several families share, with the names of torchvision's modules."""

from __future__ import annotations

from semanticlens.nn.zoo.builder import Builder


def rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, not more than a tenth below ``channels``."""
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


def unit(b: Builder, name: str, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1,
         act: str | None = "relu", eps: float = 1e-5) -> str:
    """Convolution ``name.0``, batch normalisation ``name.1`` and, where there is one, activation ``name.2``."""
    y = b.norm(f"{name}.1", b.conv(f"{name}.0", x, inputs, outputs, kernel, stride, groups=groups), outputs, eps)
    if act is not None:
        y = b.op(f"{name}.2", act, y)
    b.alias(**{name: y})
    return y


def squeeze_excite(b: Builder, name: str, x: str, channels: int, inner: int, act: str, gate: str) -> str:
    """Channels scaled by what two 1x1 convolutions make of their means (Hu et al., CVPR 2018)."""
    y = b.op(f"{name}.avgpool", "adaptive_avg_pool2d", x, size=(1, 1))
    y = b.op(f"{name}.activation", act, b.conv(f"{name}.fc1", y, channels, inner, 1, bias=True))
    y = b.op(f"{name}.scale_activation", gate, b.conv(f"{name}.fc2", y, inner, channels, 1, bias=True))
    return b.op(name, "mul", (x, y))


def pooled(b: Builder, x: str, name: str = "avgpool") -> str:
    """Means over all places, recorded as (C, 1, 1), then flat."""
    return b.op("flatten", "flatten", b.op(name, "adaptive_avg_pool2d", x, size=(1, 1)), start=1)
