"""SemanticLens: from a network and pictures to concept examples, and from these to what its components mean."""

from semanticlens.lens.collect import collect
from semanticlens.lens.examples import ConceptExamples, LayerExamples
from semanticlens.lens.pooling import Pooling, pooling, special_token
from semanticlens.lens.sources import ActivationSource, NetworkSource

__all__ = [
    "ActivationSource",
    "ConceptExamples",
    "LayerExamples",
    "NetworkSource",
    "Pooling",
    "collect",
    "pooling",
    "special_token",
]
