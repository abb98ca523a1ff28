"""What contributed to an output: layer-wise relevance propagation and what builds on it."""

from semanticlens.attribution import composites, metrics, quantus, rules
from semanticlens.attribution.attribute import Attribution, attribute
from semanticlens.attribution.composites import Composite
from semanticlens.attribution.ledger import Ledger
from semanticlens.attribution.metrics import evaluate

__all__ = [
    "Attribution",
    "Composite",
    "Ledger",
    "attribute",
    "composites",
    "evaluate",
    "metrics",
    "quantus",
    "rules",
]
