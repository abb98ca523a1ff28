"""What contributed to an output: layer-wise relevance propagation and what builds on it."""

from semanticlens.attribution import composites, metrics, quantus, rules
from semanticlens.attribution.attention_maps import attention_rollout, class_attention, gradient_rollout
from semanticlens.attribution.attribute import Attribution, attribute
from semanticlens.attribution.baselines import Baseline, gradient_x_input, integrated_gradients, occlusion, smooth_grad
from semanticlens.attribution.composites import Composite
from semanticlens.attribution.condition import Conditional, condition
from semanticlens.attribution.graphs import Graph, graph
from semanticlens.attribution.ledger import Ledger
from semanticlens.attribution.metrics import evaluate
from semanticlens.attribution.roles import Roles, roles

__all__ = [
    "Attribution",
    "Baseline",
    "Composite",
    "Conditional",
    "Graph",
    "Ledger",
    "Roles",
    "attention_rollout",
    "attribute",
    "class_attention",
    "composites",
    "condition",
    "evaluate",
    "gradient_rollout",
    "gradient_x_input",
    "graph",
    "integrated_gradients",
    "metrics",
    "occlusion",
    "quantus",
    "roles",
    "rules",
    "smooth_grad",
]
