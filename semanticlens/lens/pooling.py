"""From a layer's output to one number per component: the poolings of SemanticLens and of Concept Relevance Propagation."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError
from semanticlens._kernels import as_float32
from semanticlens._kernels import nn as kernels

_CONV = ("conv_mean", "conv_max", "conv_sum", "conv_absmean", "conv_absmax")
_TOKENS = ("transformer_mean", "transformer_max", "transformer_sum", "transformer_absmean", "transformer_absmax")
_SHAPES = {2: "(B, K)", 3: "(B, T, K)", 4: "(B, K, H, W)"}
_ABS_NORM_EPS = 1e-10  # as in CRP: R_k / (sum_j |R_j| + eps)


@dataclasses.dataclass(frozen=True, slots=True)
class Pooling:
    """How a layer's output becomes one score per sample and component.

    Parameters
    ----------
    kind : str
        - ``"conv_mean"``, ``"conv_max"``, ``"conv_sum"``, ``"conv_absmean"``, ``"conv_absmax"``: (B, K, H, W) over H and W;
        - ``"transformer_mean"``, ``"_max"``, ``"_sum"``, ``"_absmean"``, ``"_absmax"``: (B, T, K) over the tokens T;
        - ``"special_token"``: (B, T, K) at one token;
        - ``"none"``: (B, K) as it is;
        - ``"mean"``, ``"max"``, ``"sum"``, ``"absmean"``, ``"absmax"``: the one of these that fits the rank;
        - ``"auto"``: the same as ``"mean"``.
    token : int
        For ``"special_token"``; 0 is the class token, negative counts from the end.
    abs_norm : bool
        Divide each sample's scores by ``sum_k |score_k| + 1e-10`` (CRP).

    Notes
    -----
    "abs" takes the absolute value before pooling.  Means and sums are formed in double.  NaN at any position gives
    NaN.  Mean and sum rank alike where all samples have the same number of positions.
    """

    kind: str = "auto"
    token: int = 0
    abs_norm: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"pool={self.kind!r} is unknown; there are {', '.join(KINDS)}; special_token(p) as 'special_token:p'"
            )
        if self.token != 0 and self.kind != "special_token":
            raise ValueError(f"pool={self.kind!r} takes no token (token={self.token})")

    @property
    def name(self) -> str:
        """Text that :func:`pooling` reads back, for records."""
        return (
            self.kind
            + (f":{self.token}" if self.kind == "special_token" else "")
            + ("+abs_norm" if self.abs_norm else "")
        )

    def __call__(self, activations: ArrayLike, *, layer: str = "", n_threads: int | None = None) -> NDArray[np.float32]:
        """Pool ``activations`` to (B, K) float32, C-contiguous; errors name ``layer``."""
        where = f"activations of layer {layer!r}" if layer else "activations"
        x = as_float32(activations, where)
        kind = self._for_rank(x, where)
        if 0 in x.shape[1:]:
            raise DataError(f"{where} have the shape {x.shape}: there is nothing to pool")
        pooled = self._pooled(x, kind, where, n_threads)
        if self.abs_norm:
            total = np.abs(pooled).sum(axis=1, dtype=np.float64, keepdims=True) + _ABS_NORM_EPS
            pooled = (pooled / total).astype(np.float32)
        return np.ascontiguousarray(pooled)

    def _for_rank(self, x: NDArray[np.float32], where: str) -> str:
        kind = "mean" if self.kind == "auto" else self.kind
        prefix = {4: "conv_", 3: "transformer_"}.get(x.ndim)
        if kind in _FREE:
            if x.ndim == 2:
                return "abs" if kind.startswith("abs") else "none"
            if prefix is not None:
                return prefix + kind
            raise DataError(
                f"{where} have the shape {x.shape}; pool={self.kind!r} takes (B, K), (B, T, K) or (B, K, H, W)"
            )
        wanted = 2 if kind == "none" else 4 if kind in _CONV else 3
        if x.ndim != wanted:
            raise DataError(
                f"{where} have the shape {x.shape}, but pool={self.kind!r} takes {_SHAPES[wanted]}; 'auto' chooses by "
                f"the number of dimensions"
            )
        return kind

    def _pooled(self, x: NDArray[np.float32], kind: str, where: str, n_threads: int | None) -> NDArray[np.float32]:
        if kind == "none":
            return x
        if kind == "abs":
            return np.abs(x)
        if kind == "special_token":
            if not -x.shape[1] <= self.token < x.shape[1]:
                raise DataError(f"{where} have {x.shape[1]} tokens; there is none at {self.token}")
            return x[:, self.token]
        family, _, what = kind.partition("_")
        if what == "sum":
            total: NDArray[np.float32] = x.sum(axis=(2, 3) if family == "conv" else 1, dtype=np.float64).astype(
                np.float32
            )
            return total
        positions = x.reshape(*x.shape[:2], -1) if family == "conv" else x.transpose(0, 2, 1)
        return kernels.reduce_positions(np.ascontiguousarray(positions), what, n_threads=n_threads)


_FREE = ("mean", "max", "sum", "absmean", "absmax")
KINDS = ("auto", *_FREE, *_CONV, *_TOKENS, "special_token", "none")


def special_token(position: int) -> Pooling:
    """The activation at one token of (B, T, K); 0 is the class token."""
    return Pooling("special_token", token=position)


def pooling(text: str | Pooling) -> Pooling:
    """The pooling that a name such as ``"conv_max"``, ``"special_token:0"`` or ``"conv_sum+abs_norm"`` means."""
    if isinstance(text, Pooling):
        return text
    if not isinstance(text, str):
        raise TypeError(f"pool must be a name or a Pooling, not {type(text).__name__}")
    match = re.fullmatch(r"(\w+?)(?::(-?\d+))?(\+abs_norm)?", text)
    if match is None:
        raise ValueError(
            f"pool={text!r} is unknown; there are {', '.join(KINDS)}; special_token(p) as 'special_token:p'"
        )
    kind, token, abs_norm = match.groups()
    return Pooling(kind, token=int(token or 0), abs_norm=abs_norm is not None)
