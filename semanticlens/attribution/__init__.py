"""What contributed to an output: layer-wise relevance propagation and what builds on it."""

from semanticlens.attribution import composites, metrics, quantus, rules
from semanticlens.attribution.attribute import Attribution, attribute
from semanticlens.attribution.composites import Composite
from semanticlens.attribution.condition import Conditional, condition
from semanticlens.attribution.graphs import Graph, graph
from semanticlens.attribution.ledger import Ledger
from semanticlens.attribution.metrics import evaluate
from semanticlens.attribution.roles import Roles, roles

__all__ = [
    "Attribution",
    "Composite",
    "Conditional",
    "Graph",
    "Ledger",
    "Roles",
    "attribute",
    "composites",
    "condition",
    "evaluate",
    "graph",
    "metrics",
    "quantus",
    "roles",
    "rules",
]
