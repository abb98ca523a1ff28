"""Which rule every node of a network gets, and why."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from semanticlens.attribution import rules
from semanticlens.attribution.ledger import _table
from semanticlens.attribution.rules import Rule, Stabiliser
from semanticlens.nn.graph import Checked
from semanticlens.nn.ops import ACTIVATIONS

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["GROUPS", "PRESETS", "Assigned", "Composite", "Entry", "preset"]

GROUPS: dict[str, frozenset[str]] = {
    "conv": frozenset({"conv2d"}),
    "dense": frozenset({"dense"}),
    "linear": frozenset({"conv2d", "dense"}),
    "activation": frozenset({*ACTIVATIONS, "leaky_relu", "elu", "softplus", "clamp"}),
    "relu": frozenset({"relu", "relu6", "leaky_relu"}),
    "pool": frozenset({"avg_pool2d", "adaptive_avg_pool2d", "mean", "sum"}),
    "max": frozenset({"max_pool2d", "max"}),
    "sum": frozenset({"add", "sub"}),
    "scale": frozenset({"scale_shift", "positions", "neg", "rotary", "edit"}),
    "batch_norm": frozenset({"batch_norm"}),
    "norm": frozenset({"layer_norm", "rms_norm", "group_norm", "local_response_norm"}),
    "product": frozenset({"mul", "div"}),
    "attention": frozenset({"attention", "matmul"}),
    "softmax": frozenset({"softmax"}),
    "move": frozenset(
        {
            "identity",
            "concat",
            "flatten",
            "reshape",
            "slice2d",
            "pad",
            "permute",
            "slice",
            "select",
            "expand",
            "roll",
            "pad_axes",
            "repeat",
            "channel_shuffle",
            "pick_largest",
        }
    ),
    "constant": frozenset({"constant", "embedding"}),
}
"""Names of kinds of operations, as ``type=`` takes them beside the names of operations."""


@dataclass(frozen=True)
class Entry:
    """One line of a composite: a rule, and where it holds. What is left out does not restrict.

    Attributes
    ----------
    rule : Rule
    type : frozenset of str or None
        Operations.
    name : str or None
        Pattern of node names, with ``*`` and ``?``.
    after, before : str or None
        Only nodes behind (before) the named one, in the network's order.
    nth : int or None
        Only the n-th of the nodes that the other conditions leave, from the input on; -1 is the last.
    said : str
        How the line is called in tables.
    """

    rule: Rule
    type: frozenset[str] | None = None
    name: str | None = None
    after: str | None = None
    before: str | None = None
    nth: int | None = None
    said: str = ""


@dataclass(frozen=True)
class Assigned:
    """A node's rule, and the line of the composite it comes from."""

    node: str
    op: str
    rule: Rule
    why: str


@dataclass(frozen=True)
class Composite:
    """Rules for all nodes of a network: the first line that fits a node decides.

    Attributes
    ----------
    name : str
    entries : tuple of Entry
        In the order in which they are asked.
    """

    name: str
    entries: tuple[Entry, ...] = ()

    # ------------------------------------------------------------ making

    def with_rule(
        self,
        name: str | None = None,
        rule: Rule | None = None,
        *,
        type: str | Iterable[str] | None = None,
        after: str | None = None,
        before: str | None = None,
        first: bool = False,
        last: bool = False,
        nth: int | None = None,
    ) -> Composite:
        """The composite with one more line, asked before all others.

        Parameters
        ----------
        name : str, optional
            Node name, or a pattern with ``*`` and ``?``.
        rule : Rule
        type : str or iterable of str, optional
            Operations, or groups of them: a key of ``semanticlens.attribution.composites.GROUPS``.
        after, before : str, optional
            Only nodes behind, or before, this one.
        first, last : bool
            Only the first (last) of the nodes that the other conditions leave.
        nth : int, optional
            Only the n-th of them, counted from 0; negative from the end.

        Raises
        ------
        TypeError, ValueError
            If the rule is missing or a condition makes no sense. Patterns are checked when the composite meets a network.
        """
        if not isinstance(rule, Rule):
            raise TypeError(f"rule={rule!r}: must be a rule, such as semanticlens.rules.Epsilon()")
        if (first, last, nth is not None).count(True) > 1:
            raise ValueError("first, last and nth exclude each other: give one of them")
        if nth is not None and (isinstance(nth, bool) or not isinstance(nth, int)):
            raise TypeError(f"nth={nth!r}: must be a whole number, negative from the end")
        for key, value in (("name", name), ("after", after), ("before", before)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{key}={value!r}: must be a text")
        number = 0 if first else -1 if last else nth
        entry = Entry(rule, _operations(type), name, after, before, number)
        return replace(self, entries=(replace(entry, said=_said(entry, type)), *self.entries))

    # ------------------------------------------------------------ using

    def assign(self, net: Network, graph: Sequence[Checked] | None = None) -> dict[str, Assigned]:
        """Node name -> rule, for every node.

        Raises
        ------
        ValueError
            If a line fits no node, a node gets no rule, or a rule is not defined for its operation; the message names them.
        """
        graph = net._graph if graph is None else graph
        order = {item.node.name: i for i, item in enumerate(graph)}
        chosen: dict[str, Assigned] = {}
        for entry in self.entries:
            fitting = self._fitting(entry, net, graph, order)
            if not fitting and entry.said.startswith("with_rule"):
                into = None if entry.name is None else net.folded.get(entry.name)
                merged = "" if into is None else f": {entry.name!r} was folded into {into!r}"
                raise ValueError(f"composite {self.name!r}: {entry.said} fits no node of the network{merged}")
            for item in fitting:
                chosen.setdefault(item.node.name, Assigned(item.node.name, item.op.name, entry.rule, entry.said))
        self._check(graph, chosen)
        return chosen

    def _fitting(self, entry: Entry, net: Network, graph: Sequence[Checked], order: Mapping[str, int]) -> list[Checked]:
        first = order[net.resolve(entry.after)] + 1 if entry.after is not None else 0
        end = order[net.resolve(entry.before)] if entry.before is not None else len(graph)
        fitting = [item for item in graph[first:end] if entry.type is None or item.op.name in entry.type]
        if entry.name is not None:
            exact = net.resolve(entry.name) if entry.name in net.aliases else entry.name
            fitting = [
                item for item in fitting if item.node.name == exact or fnmatch.fnmatchcase(item.node.name, entry.name)
            ]
        if entry.nth is None:
            return fitting
        return fitting[entry.nth :][:1] if -len(fitting) <= entry.nth < len(fitting) else []

    def _check(self, graph: Sequence[Checked], chosen: Mapping[str, Assigned]) -> None:
        missing = [item for item in graph if item.node.name not in chosen]
        if missing:
            shown = ", ".join(f"{item.node.name!r} ({item.op.name})" for item in missing[:6])
            raise ValueError(
                f"composite {self.name!r} has no rule for {len(missing)} nodes: {shown}{', ...' if len(missing) > 6 else ''}; "
                "decide with .with_rule(type=..., rule=...)"
            )
        for item in graph:
            given = chosen[item.node.name]
            allowed = given.rule.operations
            if "*" not in allowed and item.op.name not in allowed:
                raise ValueError(
                    f"node {given.node!r}: rule {type(given.rule).__name__} is not defined for operation {given.op!r}, "
                    f"only for {', '.join(sorted(allowed))} (line: {given.why})"
                )

    def table(self, net: Network) -> str:
        """Every node with its rule and the line that decided, as text."""
        chosen = self.assign(net)
        lines = [("node", "operation", "rule", "because of")]
        lines += [(a.node, a.op, str(a.rule), a.why) for a in (chosen[item.node.name] for item in net._graph)]
        return _table(lines)

    # ------------------------------------------------------------ presets

    @classmethod
    def epsilon(cls, epsilon: float | Stabiliser = 1e-6) -> Composite:
        """Epsilon everywhere."""
        return cls("epsilon", (_line(rules.Epsilon(epsilon), "linear"), *_base()))

    @classmethod
    def epsilon_plus(cls, epsilon: float | Stabiliser = 1e-6) -> Composite:
        """ZPlus for convolutions, Epsilon for dense layers."""
        return cls("epsilon_plus", (_line(rules.ZPlus(), "conv"), _line(rules.Epsilon(epsilon), "dense"), *_base()))

    @classmethod
    def epsilon_plus_flat(cls, epsilon: float | Stabiliser = 1e-6) -> Composite:
        """As ``epsilon_plus``, with Flat at the first linear layer."""
        return cls("epsilon_plus_flat", (_line(rules.Flat(), "linear", 0), *cls.epsilon_plus(epsilon).entries))

    @classmethod
    def epsilon_alpha2_beta1(cls, epsilon: float | Stabiliser = 1e-6) -> Composite:
        """AlphaBeta(2, 1) for convolutions, Epsilon for dense layers."""
        return cls(
            "epsilon_alpha2_beta1",
            (_line(rules.AlphaBeta(2, 1), "conv"), _line(rules.Epsilon(epsilon), "dense"), *_base()),
        )

    @classmethod
    def epsilon_alpha2_beta1_flat(cls, epsilon: float | Stabiliser = 1e-6) -> Composite:
        """As ``epsilon_alpha2_beta1``, with Flat at the first linear layer."""
        return cls(
            "epsilon_alpha2_beta1_flat", (_line(rules.Flat(), "linear", 0), *cls.epsilon_alpha2_beta1(epsilon).entries)
        )

    @classmethod
    def epsilon_gamma_box(
        cls, low: ArrayLike, high: ArrayLike, gamma: float = 0.25, epsilon: float | Stabiliser = 1e-6
    ) -> Composite:
        """ZBox at the first convolution, Gamma for the other convolutions, Epsilon for dense layers.

        ``low`` and ``high`` are the smallest and largest values a preprocessed picture can have; per channel in shape (1, C, 1, 1).
        """
        return cls(
            "epsilon_gamma_box",
            (
                _line(rules.ZBox(low, high), "conv", 0),
                _line(rules.Gamma(gamma), "conv"),
                _line(rules.Epsilon(epsilon), "dense"),
                *_base(),
            ),
        )

    @classmethod
    def excitation_backprop(cls) -> Composite:
        """ZPlus for all linear layers; activations and batch normalisation keep the gradient."""
        return cls(
            "excitation_backprop",
            (
                _line(rules.ZPlus(), "linear"),
                _line(rules.Gradient(), "activation"),
                _line(rules.Gradient(), "batch_norm"),
                *_base(),
            ),
        )

    @classmethod
    def gradient(cls) -> Composite:
        """The gradient: no rule at all."""
        return cls("gradient", (Entry(rules.Gradient(), said="gradient everywhere"),))

    @classmethod
    def guided_backprop(cls) -> Composite:
        """The gradient, with GuidedBackprop at ReLUs."""
        return cls("guided_backprop", (_line(rules.GuidedBackprop(), "relu"), *cls.gradient().entries))

    @classmethod
    def deconvnet(cls) -> Composite:
        """The gradient, with Deconvnet at ReLUs."""
        return cls("deconvnet", (_line(rules.Deconvnet(), "relu"), *cls.gradient().entries))

    @classmethod
    def beta_smooth(cls, beta: float = 10.0) -> Composite:
        """The gradient, with BetaSmooth at ReLUs."""
        return cls("beta_smooth", (_line(rules.BetaSmooth(beta), "relu"), *cls.gradient().entries))

    @classmethod
    def attn_lrp(
        cls, gamma: float | None = None, conv_gamma: float | None = None, epsilon: float | Stabiliser = 1e-9
    ) -> Composite:
        """AttnLRP for transformers: attention to queries, keys and values, halves at products, constant scales at normalisations.

        ``gamma`` puts Gamma at dense layers instead of Epsilon, ``conv_gamma`` at convolutions.
        """
        return _transformer("attn_lrp", "all", "both", gamma, conv_gamma, epsilon)

    @classmethod
    def cp_lrp(
        cls, gamma: float | None = None, conv_gamma: float | None = None, epsilon: float | Stabiliser = 1e-9
    ) -> Composite:
        """CP-LRP: attention weights and gates count as constants, relevance goes by the values."""
        return _transformer("cp_lrp", "values", "signal", gamma, conv_gamma, epsilon)


def _transformer(
    name: str, through: str, to: str, gamma: float | None, conv_gamma: float | None, epsilon: float | Stabiliser
) -> Composite:
    def linear(value: float | None) -> Rule:
        return rules.Epsilon(epsilon) if value is None else rules.Gamma(value)

    softmax: Rule = rules.Softmax() if through == "all" else rules.Stop()
    return Composite(
        name,
        (
            _line(linear(conv_gamma), "conv"),
            _line(linear(gamma), "dense"),
            _line(rules.Attention(through), "attention"),
            _line(softmax, "softmax"),
            _line(rules.Product(to), "product"),
            _line(rules.ConstantScale(1e-9), "norm"),
            _line(rules.Norm(1e-9), "sum"),
            _line(rules.Norm(1e-9), "pool"),
            _line(rules.Norm(1e-9), "scale"),
            _line(rules.Norm(1e-9), "batch_norm"),
            *_base(),
        ),
    )


def _base() -> tuple[Entry, ...]:
    """What all composites do at operations without weights."""
    return (
        _line(rules.Pass(), "activation"),
        _line(rules.Norm(), "sum"),
        _line(rules.Norm(), "pool"),
        _line(rules.Norm(), "scale"),
        _line(rules.Norm(), "batch_norm"),
        _line(rules.Gradient(), "max"),
        _line(rules.Gradient(), "move"),
        _line(rules.Product("signal"), "product"),
        _line(rules.ConstantScale(), "norm"),
        _line(rules.Stop(), "constant"),
    )


def _line(rule: Rule, group: str, nth: int | None = None) -> Entry:
    return Entry(rule, GROUPS[group], nth=nth, said=f"{'first ' if nth == 0 else ''}{group}")


def _operations(given: str | Iterable[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    from semanticlens.nn.ops import OPS

    if not isinstance(given, Iterable):
        raise TypeError(f"type={given!r}: must be an operation or a group, or several of them")
    result: set[str] = set()
    for name in (given,) if isinstance(given, str) else given:
        if name not in GROUPS and name not in OPS:
            raise ValueError(f"type={name!r} is neither an operation nor a group; groups are {', '.join(GROUPS)}")
        result |= GROUPS.get(name, {name})
    return frozenset(result)


def _said(entry: Entry, given: Any) -> str:
    parts = [
        f"{key}={value!r}"
        for key, value in (
            ("name", entry.name),
            ("type", given),
            ("after", entry.after),
            ("before", entry.before),
            ("nth", entry.nth),
        )
        if value is not None
    ]
    return f"with_rule({', '.join(parts)})"


PRESETS: dict[str, Any] = {
    name: getattr(Composite, name)
    for name in (
        "epsilon",
        "epsilon_plus",
        "epsilon_plus_flat",
        "epsilon_alpha2_beta1",
        "epsilon_alpha2_beta1_flat",
        "excitation_backprop",
        "gradient",
        "guided_backprop",
        "deconvnet",
        "beta_smooth",
        "attn_lrp",
        "cp_lrp",
    )
}


def preset(composite: str | Composite) -> Composite:
    """A composite by name, or as it is.

    Raises
    ------
    ValueError, TypeError
        If there is none of that name.
    """
    if isinstance(composite, Composite):
        return composite
    if not isinstance(composite, str):
        raise TypeError(f"composite={composite!r}: must be a Composite or the name of one")
    if composite == "epsilon_gamma_box":
        raise ValueError("composite 'epsilon_gamma_box' needs bounds: pass Composite.epsilon_gamma_box(low, high)")
    if composite not in PRESETS:
        raise ValueError(
            f"composite {composite!r} is not known; known are {', '.join(PRESETS)} and Composite.epsilon_gamma_box(low, high)"
        )
    made: Composite = PRESETS[composite]()
    return made
