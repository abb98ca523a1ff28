"""What architectures are written with: nodes on one side, the parameters they expect on the other.

An architecture is a function that calls a `Builder`, which collects the nodes and, by name and shape, the parameters they need. Bare state
dicts are recognised by the one and become networks through the other: there is one description of each architecture, so the two agree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semanticlens._errors import ModelFileError
from semanticlens.nn.network import Network, Node
from semanticlens.nn.preprocess import Preprocess

State = Mapping[str, NDArray[Any]]
F32 = NDArray[np.float32]
ANY = -1                                              # a size that the state dict decides: the number of classes

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def torchvision_preprocess(
    size: int = 224, short: int = 256, interpolation: Literal["bilinear", "bicubic"] = "bilinear"
) -> Preprocess:
    """What torchvision's first ImageNet weights were evaluated with."""
    return Preprocess(size=(size, size), resize="crop", short=short, interpolation=interpolation, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@dataclass(frozen=True)
class Architecture:
    """An entry of the zoo.

    Attributes
    ----------
    name : str
    family : str
        What a person calls it.
    define : callable (Builder) -> None
        Describes nodes and parameters.
    input_shape : (C, H, W)
    preprocess : Preprocess, optional
    labels : tuple of str, optional
        Class names, used where the state dict has as many classes.
    renames : tuple of (pattern, replacement)
        Regular expressions for names that older files of the same network use.
    ignored : tuple of str
        Prefixes of parameters that only training uses.
    detected : bool
        Whether names and shapes alone decide for this architecture; where they do not (two networks that differ in an activation only),
        ``arch=`` must name it.
    """

    name: str
    family: str
    define: Callable[[Builder], None]
    input_shape: tuple[int, int, int]
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    renames: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    detected: bool = True

    def renamed(self, state: State) -> State:
        """The state dict with this architecture's own names, and without what only training uses."""
        if not self.renames and not self.ignored:
            return state
        result: dict[str, NDArray[Any]] = {}
        for key, value in state.items():
            own = key
            for pattern, replacement in self.renames:
                own = re.sub(pattern, replacement, own)
            if not key.startswith(self.ignored):
                result[key if own in state else own] = value
        return result

    def expected(self) -> dict[str, tuple[int, ...]]:
        """Parameter names -> shapes, with `ANY` for sizes that depend on the number of classes."""
        builder = Builder()
        self.define(builder)
        return builder.expected

    def build(self, state: State, path: str | os.PathLike[str] | None = None, labels: Sequence[str] | None = None) -> Network:
        """The network with the parameters of ``state``.

        Raises
        ------
        ModelFileError
            If names are missing or left over, or shapes differ; the message lists them.
        """
        builder = Builder()
        self.define(builder)
        where, state = f"{path}: " if path is not None else "", self.renamed(state)
        problems = differences(builder.expected, state)
        if problems:
            raise ModelFileError(f"{where}these parameters are not those of {self.name}: {'; '.join(problems)}")
        params = builder.parameters(state, where)
        classes = state[builder.class_key].shape[0] if builder.class_key else None
        names = next((known for known in (self.labels, labels) if known is not None and len(known) == classes), None)
        return Network(builder.nodes, params, input_shape=self.input_shape, name=self.name, aliases=builder.aliases,
                       preprocess=self.preprocess, labels=names)


class Builder:
    """Collects nodes, and the shapes of the parameters they need. Each method adds a node and returns its name."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.expected: dict[str, tuple[int, ...]] = {}
        self.aliases: dict[str, str] = {}
        self.views: dict[str, tuple[int, ...]] = {}
        self.derived: dict[str, tuple[str, Callable[[F32], F32]]] = {}
        self.constants: dict[str, F32] = {}
        self.buffers: dict[str, NDArray[Any]] = {}
        self.class_key = ""

    def op(self, name: str, op: str, inputs: str | Sequence[str], params: Mapping[str, str] | None = None, **attrs: Any) -> str:
        """Any operation."""
        sources = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        self.nodes.append(Node(name, op, sources, params or {}, attrs))
        return name

    def _expect(self, key: str, *shape: int) -> str:
        self.expected[key] = shape
        if shape[0] == ANY:
            self.class_key = key
        return key

    def expect(self, key: str, *shape: int) -> str:
        """A parameter by name and shape."""
        return self._expect(key, *shape)

    def view(self, key: str, shape: tuple[int, ...], ours: tuple[int, ...]) -> str:
        """A parameter whose values are taken in another shape."""
        self.views[key] = ours
        return self._expect(key, *shape)

    def derive(self, key: str, source: str, shape: tuple[int, ...], function: Callable[[F32], F32]) -> str:
        """A parameter ``key`` of the network that is computed from the state dict's ``source``."""
        self._expect(source, *shape)
        self.derived[key] = (source, function)
        return key

    def constant(self, key: str, value: NDArray[Any]) -> str:
        """A parameter that the architecture knows."""
        self.constants[key] = np.ascontiguousarray(value, dtype=np.float32)
        return key

    def buffer(self, key: str, value: NDArray[Any]) -> None:
        """An entry of the state dict that must hold these values, because the graph is written for them."""
        self.buffers[key] = value
        self._expect(key, *value.shape)

    def parameters(self, state: State, where: str = "") -> dict[str, F32]:
        """The network's parameters from a state dict without `differences`."""
        for key, value in self.buffers.items():
            if not np.array_equal(state[key], value):
                raise ModelFileError(f"{where}{key} holds other values than this architecture's; it is another network")
        found = {key: as_float32(key, state[key], where) for key in self.expected if key not in self.buffers}
        found.update({key: found[key].reshape(shape) for key, shape in self.views.items()})
        made = {key: np.ascontiguousarray(function(found[source])) for key, (source, function) in self.derived.items()}
        for source in {source for source, _ in self.derived.values()}:
            del found[source]
        return {**found, **made, **self.constants}

    def layer_norm(self, name: str, x: str, features: int, eps: float = 1e-5) -> str:
        """A layer norm with parameters ``name.weight`` and ``name.bias``."""
        params = {role: self._expect(f"{name}.{role}", features) for role in ("weight", "bias")}
        return self.op(name, "layer_norm", x, params, eps=eps)

    def conv(self, name: str, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int | str | None = None,
             groups: int = 1, bias: bool = False) -> str:
        """A convolution with parameters ``name.weight`` (and ``name.bias``); padding None keeps the size at stride 1."""
        params = {"weight": self._expect(f"{name}.weight", outputs, inputs // groups, kernel, kernel)}
        if bias:
            params["bias"] = self._expect(f"{name}.bias", outputs)
        pad = kernel // 2 if padding is None else padding
        return self.op(name, "conv2d", x, params, stride=(stride, stride), groups=groups,
                       padding=pad if isinstance(pad, str) else (pad, pad, pad, pad))

    def norm(self, name: str, x: str, channels: int, eps: float = 1e-5, key: str | None = None) -> str:
        """A batch normalisation with parameters ``key.weight``, ``.bias``, ``.running_mean``, ``.running_var`` (key: the name)."""
        roles = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        return self.op(name, "batch_norm", x, {role: self._expect(f"{key or name}.{of}", channels) for role, of in roles.items()}, eps=eps)

    def dense(self, name: str, x: str, inputs: int, outputs: int, bias: bool = True) -> str:
        """A dense layer with parameters ``name.weight`` (and ``name.bias``)."""
        params = {"weight": self._expect(f"{name}.weight", outputs, inputs)}
        if bias:
            params["bias"] = self._expect(f"{name}.bias", outputs)
        return self.op(name, "dense", x, params)

    def max_pool(self, name: str, x: str, kernel: int, stride: int, padding: int = 0, ceil_mode: bool = False) -> str:
        """Maxima over windows."""
        return self.op(name, "max_pool2d", x, kernel=(kernel, kernel), stride=(stride, stride), padding=(padding,) * 4,
                       ceil_mode=ceil_mode)

    def global_pool(self, name: str, x: str) -> str:
        """Means over all places: (B, C, H, W) -> (B, C)."""
        return self.op(name, "mean", x, axes=(2, 3), keepdims=False)

    def alias(self, **names: str) -> None:
        """Further names for nodes."""
        self.aliases.update(names)


def differences(expected: Mapping[str, tuple[int, ...]], state: State, limit: int = 6) -> list[str]:
    """How a state dict differs from what an architecture expects, in words; empty if it does not."""
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    wrong = [f"{key} {tuple(state[key].shape)} instead of {shown(shape)}" for key, shape in expected.items()
             if key in state and not fits(tuple(state[key].shape), shape)]
    return [f"{len(keys)} {what}: {', '.join(keys[:limit])}{', ...' if len(keys) > limit else ''}"
            for what, keys in (("missing", missing), ("left over", extra), ("of another shape", wrong)) if keys]


def fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether a shape is the expected one; `ANY` stands for any size of at least 1."""
    return len(shape) == len(expected) and all(n == want or (want == ANY and n > 0) for n, want in zip(shape, expected, strict=True))


def shown(shape: tuple[int, ...]) -> str:
    """A shape for people, "classes" for `ANY`."""
    return f"({', '.join('classes' if n == ANY else str(n) for n in shape)}{',' if len(shape) == 1 else ''})"


def as_float32(key: str, array: NDArray[Any], where: str = "") -> NDArray[np.float32]:
    """A floating point parameter in the engine's type."""
    if array.dtype.kind != "f":
        raise ModelFileError(f"{where}parameter {key} holds {array.dtype}, not floating point numbers; a quantised network needs its graph "
                             "(see semanticlens.nn.zoo.quantised)")
    return np.require(array, np.float32, ["C", "A"])
