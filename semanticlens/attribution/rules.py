"""Rules of layer-wise relevance propagation, as data: which rule, with which numbers.

A linear operation has input x, result z = L_W(x) + b and adjoint L_W^T; R is the relevance of z and Rin that of x.
t+ = max(t, 0), t- = min(t, 0); st(t) is a stabiliser, the denominators' way around zero. What every rule computes stands in its
docstring; :mod:`semanticlens.attribution.linear` computes it. Formulas after Bach et al. 2015, Montavon et al. 2017 and 2019 and
Lapuschkin et al. 2019, with the generalised gamma rule; for transformers after Ali et al. 2022 (CP-LRP) and Achtibat et al. 2024 (AttnLRP).
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "AlphaBeta",
    "Attention",
    "BetaSmooth",
    "ConstantScale",
    "Deconvnet",
    "Epsilon",
    "ExcitationBackprop",
    "Flat",
    "Gamma",
    "Gradient",
    "GuidedBackprop",
    "Norm",
    "Pass",
    "PlainGamma",
    "Product",
    "Rule",
    "SignalTakesAll",
    "Softmax",
    "Stabiliser",
    "Stop",
    "WSquare",
    "ZBox",
    "ZPlus",
    "Zero",
]

LINEAR = frozenset({"conv2d", "dense"})  # operations with a weight
ALL = frozenset({"*"})


@dataclass(frozen=True)
class Stabiliser:
    """How a denominator t is kept from zero.

    Signed: ``t + eps sgn(t)``; clipped: ``sgn(t) max(|t|, eps)``; sgn(0) = 1. With ``norm_scale`` eps is multiplied, sample by sample, by
    the root mean square of t (0 for a sample that is zero everywhere: its quotients are 0 too).
    """

    eps: float = 1e-6
    clip: bool = False
    norm_scale: bool = False

    def __post_init__(self) -> None:
        if not (_is_number(self.eps) and math.isfinite(self.eps) and self.eps >= 0):
            raise ValueError(f"eps={self.eps!r}: must be a finite number of at least 0")


def _is_number(given: Any) -> bool:
    return isinstance(given, numbers.Real) and not isinstance(given, bool)


def stabiliser(given: float | Stabiliser, argument: str = "stabiliser") -> Stabiliser:
    """A number is an eps."""
    if isinstance(given, Stabiliser):
        return given
    if not _is_number(given):
        raise TypeError(f"{argument} must be a number or a Stabiliser, not {type(given).__name__}")
    return Stabiliser(float(given))


@dataclass(frozen=True)
class Rule:
    """Base of all rules.

    Attributes
    ----------
    operations : frozenset of str
        Operations that the rule is defined for; "*" is any.
    """

    operations: ClassVar[frozenset[str]] = ALL

    def __str__(self) -> str:
        changed = [f"{name}={_text(getattr(self, name))}" for name in (item.name for item in fields(self))]
        return f"{type(self).__name__}({', '.join(changed)})"


def _text(value: Any) -> str:
    if isinstance(value, Stabiliser):
        extra = "".join(f", {name}" for name in ("clip", "norm_scale") if getattr(value, name))
        return f"{value.eps:g}{extra}"
    if isinstance(value, np.ndarray):
        return f"array{value.shape}"
    return f"{value:g}" if isinstance(value, float) else repr(value)


@dataclass(frozen=True)
class _Stabilised(Rule):
    stabiliser: float | Stabiliser = 1e-6
    zero_bias: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stabiliser", stabiliser(self.stabiliser))

    @property
    def st(self) -> Stabiliser:
        """The stabiliser as an object."""
        assert isinstance(self.stabiliser, Stabiliser)
        return self.stabiliser


@dataclass(frozen=True)
class Epsilon(Rule):
    """``Rin = x L_W^T(R / st(L_W(x) + b))``; with epsilon = 0 it is LRP-0, also called the z rule.

    For operations without weights ``Rin = x J^T(R / st(y))``, with J the Jacobian. ``zero_bias`` leaves b out of the denominator.
    """

    epsilon: float | Stabiliser = 1e-6
    zero_bias: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", stabiliser(self.epsilon, "epsilon"))

    @property
    def st(self) -> Stabiliser:
        """The stabiliser as an object."""
        assert isinstance(self.epsilon, Stabiliser)
        return self.epsilon


def Zero() -> Epsilon:
    """LRP-0: :class:`Epsilon` with epsilon = 0; the relevance of a result that is exactly 0 is dropped, and counted in the ledger."""
    return Epsilon(0.0)


@dataclass(frozen=True)
class ZPlus(_Stabilised):
    """``zp = L_{W+}(x+) + L_{W-}(x-) + b+;  s = R / st(zp);  Rin = x+ L_{W+}^T(s) + x- L_{W-}^T(s)``: alpha = 1, beta = 0."""

    operations: ClassVar[frozenset[str]] = LINEAR


@dataclass(frozen=True)
class AlphaBeta(_Stabilised):
    """Positive and negative parts apart; alpha - beta = 1, both at least 0.

    ``zp`` as in :class:`ZPlus`, ``zn = L_{W-}(x+) + L_{W+}(x-) + b-``; ``sp = R / st(zp)``, ``sn = R / st(zn)``;
    ``Rin = alpha (x+ L_{W+}^T(sp) + x- L_{W-}^T(sp)) - beta (x+ L_{W-}^T(sn) + x- L_{W+}^T(sn))``.
    """

    operations: ClassVar[frozenset[str]] = LINEAR
    alpha: float = 2.0
    beta: float = 1.0

    def __init__(
        self, alpha: float = 2.0, beta: float = 1.0, stabiliser: float | Stabiliser = 1e-6, zero_bias: bool = False
    ) -> None:
        if not (_is_number(alpha) and _is_number(beta) and alpha >= 0 and beta >= 0 and alpha - beta == 1):
            raise ValueError(f"alpha={alpha!r}, beta={beta!r}: both must be at least 0, and alpha - beta must be 1")
        for name, value in (
            ("alpha", float(alpha)),
            ("beta", float(beta)),
            ("stabiliser", stabiliser),
            ("zero_bias", zero_bias),
        ):
            object.__setattr__(self, name, value)
        self.__post_init__()


@dataclass(frozen=True)
class Gamma(_Stabilised):
    """The generalised gamma rule, for inputs and results of either sign.

    ``Wp = W + gamma W+``, ``Wm = W + gamma W-``, ``z = L_W(x) + b``;
    ``zp = L_{Wp}(x+) + L_{Wm}(x-) + b + gamma b+``, ``zn = L_{Wm}(x+) + L_{Wp}(x-) + b + gamma b-``;
    ``sp = [z > 0] R / st(zp)``, ``sn = [z < 0] R / st(zn)``;
    ``Rin = x+ L_{Wp}^T(sp) + x- L_{Wm}^T(sp) + x+ L_{Wm}^T(sn) + x- L_{Wp}^T(sn)``. The relevance of a result that is exactly 0 is dropped.
    """

    operations: ClassVar[frozenset[str]] = LINEAR
    gamma: float = 0.25

    def __init__(self, gamma: float = 0.25, stabiliser: float | Stabiliser = 1e-6, zero_bias: bool = False) -> None:
        _gamma(self, gamma, stabiliser, zero_bias)


@dataclass(frozen=True)
class PlainGamma(_Stabilised):
    """The older gamma rule, for inputs that are not negative: ``Rin = x L_{Wp}^T(R / st(L_{Wp}(x) + b + gamma b+))``, Wp = W + gamma W+."""

    operations: ClassVar[frozenset[str]] = LINEAR
    gamma: float = 0.25

    def __init__(self, gamma: float = 0.25, stabiliser: float | Stabiliser = 1e-6, zero_bias: bool = False) -> None:
        _gamma(self, gamma, stabiliser, zero_bias)


def _gamma(rule: Any, gamma: float, given: float | Stabiliser, zero_bias: bool) -> None:
    if not (_is_number(gamma) and math.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma={gamma!r}: must be a finite number of at least 0")
    for name, value in (("gamma", float(gamma)), ("stabiliser", given), ("zero_bias", zero_bias)):
        object.__setattr__(rule, name, value)
    rule.__post_init__()


@dataclass(frozen=True, eq=False)
class ZBox(_Stabilised):
    """For inputs between bounds: ``z = L_W(x) - L_{W+}(low) - L_{W-}(high)``, ``s = R / st(z)``,
    ``Rin = x L_W^T(s) - low L_{W+}^T(s) - high L_{W-}^T(s)``.

    ``low`` and ``high`` are numbers, or arrays that broadcast to the input with its batch, such as (1, C, 1, 1).
    """

    operations: ClassVar[frozenset[str]] = LINEAR
    low: ArrayLike = 0.0
    high: ArrayLike = 1.0

    def __init__(self, low: ArrayLike, high: ArrayLike, stabiliser: float | Stabiliser = 1e-6) -> None:
        bounds = []
        for name, given in (("low", low), ("high", high)):
            try:
                bound = np.asarray(given, np.float64)
            except (TypeError, ValueError):
                raise TypeError(f"{name}={given!r}: must be a number or an array of numbers") from None
            bounds.append(bound)
            if not np.isfinite(bound).all():
                raise ValueError(f"{name} holds NaN or infinite values")
        try:
            ordered = bool((bounds[0] < bounds[1]).all())
        except ValueError:
            raise ValueError(
                f"low of shape {bounds[0].shape} and high of shape {bounds[1].shape} do not go together"
            ) from None
        if not ordered:
            raise ValueError(f"low={low!r} must be below high={high!r} everywhere")
        for name, value in (("low", bounds[0]), ("high", bounds[1]), ("stabiliser", stabiliser), ("zero_bias", True)):
            object.__setattr__(self, name, value)
        self.__post_init__()


@dataclass(frozen=True)
class WSquare(_Stabilised):
    """``Rin = L_{W^2}^T(R / st(L_{W^2}(1) + b^2))``: shares by squared weight, whatever the input. Padding counts as 0, not 1."""

    operations: ClassVar[frozenset[str]] = LINEAR


@dataclass(frozen=True)
class Flat(_Stabilised):
    """``Rin = L_1^T(R / st(L_1(1)))`` with all weights 1 and no bias: equal shares. Padding counts as 0, not 1."""

    operations: ClassVar[frozenset[str]] = LINEAR | {"avg_pool2d", "adaptive_avg_pool2d"}


@dataclass(frozen=True)
class Norm(_Stabilised):
    """For operations without weights: ``Rin = x J^T(R / st(y))``: sums, means, pooling, unmerged scales."""


@dataclass(frozen=True)
class Pass(Rule):
    """``Rin = R``: for operations with one input, of the result's shape."""


@dataclass(frozen=True)
class Gradient(Rule):
    """``Rin = J^T(R)``: winners of a maximum, moved and copied values. It conserves relevance only where J moves values."""


@dataclass(frozen=True)
class SignalTakesAll(Rule):
    """All to the largest: in a maximum to the winner, in a sum of branches to the one that is larger in magnitude (the first of equals)."""

    operations: ClassVar[frozenset[str]] = frozenset({"max_pool2d", "max", "add"})


@dataclass(frozen=True)
class Stop(Rule):
    """``Rin = 0``: relevance ends here, and the ledger says how much."""


_RELUS = frozenset({"relu", "relu6", "leaky_relu"})


@dataclass(frozen=True)
class GuidedBackprop(Rule):
    """``Rin = J^T(R) [R > 0]`` at a ReLU; in the domain of gradients, not of relevance."""

    operations: ClassVar[frozenset[str]] = _RELUS


@dataclass(frozen=True)
class Deconvnet(Rule):
    """``Rin = R+`` at a ReLU; in the domain of gradients."""

    operations: ClassVar[frozenset[str]] = _RELUS


@dataclass(frozen=True)
class BetaSmooth(Rule):
    """``Rin = sigmoid(beta x) R`` at a ReLU, with x its input: the gradient of a softened ReLU; in the domain of gradients."""

    operations: ClassVar[frozenset[str]] = _RELUS
    beta: float = 10.0

    def __post_init__(self) -> None:
        if not (_is_number(self.beta) and math.isfinite(self.beta) and self.beta > 0):
            raise ValueError(f"beta={self.beta!r}: must be a finite number above 0")


def ExcitationBackprop() -> ZPlus:
    """The rule of excitation backprop for linear operations: :class:`ZPlus` without a bias."""
    return ZPlus(zero_bias=True)


@dataclass(frozen=True)
class Product(Rule):
    """A product of two values that both depend on the input, such as a gate.

    ``to="signal"``: all relevance goes to the value, none to its gate. The gate is the input that comes straight out of a sigmoid, softmax
    or other bounded activation, else out of a bent one (SiLU, GELU), else one that is repeated along axes of the other and comes out of any
    activation, scaled perhaps. Where neither is a gate, such as value times context in separable attention, each gets half.
    ``to="both"``: half each (the uniform rule of AttnLRP).
    """

    operations: ClassVar[frozenset[str]] = frozenset({"mul", "div"})
    to: str = "signal"

    def __post_init__(self) -> None:
        if self.to not in ("signal", "both"):
            raise ValueError(f"to={self.to!r}: must be 'signal' or 'both'")


@dataclass(frozen=True)
class Attention(_Stabilised):
    """Products of attention, ``o = softmax(q k^T) v``, with ``s = R / st(o)`` walked back by the Jacobian to q, k and v.

    ``through="all"`` (AttnLRP): half of what a product carries goes to each factor: ``R_q = q J_q^T(s) / 4``, the same for k, and
    ``R_v = v J_v^T(s) / 2``. ``through="values"`` (CP-LRP): weights count as constants and everything goes to v. For nodes
    "matmul" that are part of an attention written out, each factor gets ``x J^T(s) / 2``, or only the value does: what is neither weights
    out of a softmax nor, in linear attention, queries or keys out of their feature map (a ReLU).
    """

    operations: ClassVar[frozenset[str]] = frozenset({"attention", "matmul"})
    through: str = "all"

    def __init__(self, through: str = "all", stabiliser: float | Stabiliser = 1e-9) -> None:
        if through not in ("all", "values"):
            raise ValueError(f"through={through!r}: must be 'all' (AttnLRP) or 'values' (CP-LRP)")
        for name, value in (("through", through), ("stabiliser", stabiliser), ("zero_bias", False)):
            object.__setattr__(self, name, value)
        self.__post_init__()


@dataclass(frozen=True)
class Softmax(Rule):
    """``Rin = x (R - p sum(R))`` for p = softmax(x): the deep Taylor form of AttnLRP; with -inf in x counted as no relevance."""

    operations: ClassVar[frozenset[str]] = frozenset({"softmax"})


@dataclass(frozen=True)
class ConstantScale(_Stabilised):
    """Layer, group and root-mean-square normalisation with their scale held constant.

    ``Rin = x J^T(R / st(y))``, J without the derivative of the standard deviation (the mean is differentiated).
    """

    operations: ClassVar[frozenset[str]] = frozenset({"layer_norm", "rms_norm", "group_norm", "local_response_norm"})
