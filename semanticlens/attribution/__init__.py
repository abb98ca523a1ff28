"""What contributed to an output: layer-wise relevance propagation and what builds on it."""

from semanticlens.attribution import composites, rules
from semanticlens.attribution.attribute import Attribution, attribute
from semanticlens.attribution.composites import Composite
from semanticlens.attribution.condition import Conditional, condition
from semanticlens.attribution.ledger import Ledger

__all__ = ["Attribution", "Composite", "Conditional", "Ledger", "attribute", "composites", "condition", "rules"]
