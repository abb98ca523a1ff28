"""Architectures for bare state dicts: the graph comes from here, the parameters from the file.

``semanticlens.load(path)`` finds the architecture by the names and shapes of the parameters; ``arch=`` names one. Nodes are called what the
modules of the training framework are called, so ``record=["layer4.1", "features.18"]`` means the same as a hook there; a block's name is
its output.

A further architecture is a function on a `Builder`::

    def tiny(b):
        x = b.op("relu", "relu", b.conv("conv", "input", 3, 8, 3, bias=True))
        b.dense("fc", b.global_pool("pool", x), 8, ANY)

    zoo.register(zoo.Architecture("tiny", "example", tiny, (3, 32, 32)))
"""

from __future__ import annotations

import difflib
import os
from functools import cache
from pathlib import Path

from semanticlens._errors import ModelFileError
from semanticlens.nn.network import Network
from semanticlens.nn.zoo import (
    alexnet,
    cifar_resnet,
    convnext,
    densenet,
    efficientnet,
    efficientnet_lite,
    efficientvit,
    googlenet,
    maxvit,
    mobilenet,
    mobilenet_v3,
    mobilevit_v2,
    pvt,
    quantised,
    regnet,
    resnet,
    shufflenet,
    squeezenet,
    swin,
    vgg,
    vit,
)
from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, State, differences

__all__ = ["ANY", "Architecture", "Builder", "build", "detect", "names", "register"]

_FAMILIES = (vgg, resnet, mobilenet, squeezenet, cifar_resnet, efficientnet_lite, vit, alexnet, densenet, mobilenet_v3, efficientnet,
             convnext, regnet, shufflenet, googlenet, swin, pvt, mobilevit_v2, efficientvit, maxvit)
_ARCHITECTURES: dict[str, Architecture] = {arch.name: arch for family in _FAMILIES for arch in family.ARCHITECTURES}


def names() -> tuple[str, ...]:
    """All architectures, sorted; "quantised" is the form of :mod:`semanticlens.nn.zoo.quantised`, whose graph lies beside the weights."""
    return tuple(sorted([*_ARCHITECTURES, quantised.NAME]))


def register(architecture: Architecture, *, replace: bool = False) -> None:
    """Add an architecture for this process.

    Raises
    ------
    ValueError
        If the name is taken and ``replace`` is not set.
    """
    if architecture.name in names() and not replace:
        raise ValueError(f"architecture {architecture.name!r} exists; pass replace=True to put another in its place")
    _ARCHITECTURES[architecture.name] = architecture
    _expected.cache_clear()


@cache
def _expected(name: str) -> dict[str, tuple[int, ...]]:
    return _ARCHITECTURES[name].expected()


def detect(state: State) -> str | None:
    """The architecture whose parameters have exactly these names and shapes (any number of classes), or None.

    Parameters
    ----------
    state : mapping of str to ndarray
        As `load_state_dict` gives it.
    """
    if quantised.looks_quantised(state):
        return quantised.NAME
    found = [name for name in fitting(state) if _ARCHITECTURES[name].detected]
    return found[0] if found else None


def fitting(state: State) -> list[str]:
    """All architectures whose parameters have these names and shapes, also those that ``arch=`` must name."""
    found = []
    for name, architecture in _ARCHITECTURES.items():
        expected, own = _expected(name), architecture.renamed(state)
        if len(expected) == len(own) and not differences(expected, own):
            found.append(name)
    return found


def build(arch: str, state: State, *, path: str | os.PathLike[str] | None = None) -> Network:
    """A network of a known architecture.

    Parameters
    ----------
    arch : str
        One of :func:`names`.
    state : mapping of str to ndarray
        As `load_state_dict` gives it: floating point parameters of any width, used as float32.
    path : path-like, optional
        Where they came from: for messages, for the graph of quantised weights, and for class names (``imagenet_labels.txt`` beside
        1000-class weights, with or without a first line "background").

    Raises
    ------
    ModelFileError
        If the architecture is not known, or parameters are missing, left over or of another shape; the message lists them.
    """
    if arch == quantised.NAME:
        if path is None:
            raise ModelFileError("quantised weights need path=..., because their graph lies in a .json file beside them")
        return quantised.build(state, Path(path))
    if arch not in _ARCHITECTURES:
        near = difflib.get_close_matches(str(arch), names(), n=4, cutoff=0.4)
        raise ModelFileError(f"architecture {str(arch)[:60]!r} is not known; nearest: {', '.join(near or names())}")
    return _ARCHITECTURES[arch].build(state, path, labels=_imagenet_labels(path))


def _imagenet_labels(path: str | os.PathLike[str] | None) -> list[str] | None:
    """The 1000 names of ``imagenet_labels.txt`` beside a file, if it has them."""
    file = Path(path).parent / "imagenet_labels.txt" if path is not None else None
    if file is None or not file.is_file():
        return None
    lines = file.read_text(encoding="utf-8").splitlines()
    if len(lines) == 1001 and lines[0] == "background":
        del lines[0]
    return lines if len(lines) == 1000 else None
