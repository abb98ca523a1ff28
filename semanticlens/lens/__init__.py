"""SemanticLens: from a network and pictures to concept examples, and from these to what its components mean."""

from semanticlens.lens.collect import collect
from semanticlens.lens.examples import ConceptExamples
from semanticlens.lens.examples import LayerExamples
from semanticlens.lens.pooling import Pooling
from semanticlens.lens.pooling import pooling
from semanticlens.lens.pooling import special_token
from semanticlens.lens.sources import ActivationSource
from semanticlens.lens.sources import NetworkSource

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
