"""SemanticLens: from a network and pictures to concept examples, and from these to what its components mean."""

from semanticlens.lens import scores
from semanticlens.lens.audit import Audit, Finding, audit
from semanticlens.lens.collect import collect
from semanticlens.lens.compare import Comparison, Match, compare
from semanticlens.lens.concepts import LayerConcepts
from semanticlens.lens.crops import Crops, crop_box, crops, with_crops
from semanticlens.lens.database import ConceptDB
from semanticlens.lens.descriptions import DescriptionScores, evaluate_descriptions, simulation_correlation
from semanticlens.lens.effects import Answers, Effects, answers, effects
from semanticlens.lens.examples import ConceptExamples, LayerExamples
from semanticlens.lens.labellers import Formula, invert, soft_wpmi
from semanticlens.lens.map import Colouring, SemanticMap, map
from semanticlens.lens.pooling import Pooling, pooling, special_token
from semanticlens.lens.proof import BeforeAfter, Drift
from semanticlens.lens.regions import Region
from semanticlens.lens.related import RelatedData
from semanticlens.lens.repair import Repair, repair
from semanticlens.lens.results import Hit, Labels, Scores, SearchResult
from semanticlens.lens.sides import Estimate, Side
from semanticlens.lens.sources import ActivationSource, NetworkSource
from semanticlens.lens.track import History, Moment, Track, track

__all__ = [
    "ActivationSource",
    "Answers",
    "Audit",
    "BeforeAfter",
    "Colouring",
    "Comparison",
    "ConceptDB",
    "ConceptExamples",
    "Crops",
    "DescriptionScores",
    "Drift",
    "Effects",
    "Estimate",
    "Finding",
    "Formula",
    "History",
    "Hit",
    "Labels",
    "LayerConcepts",
    "LayerExamples",
    "Match",
    "Moment",
    "NetworkSource",
    "Pooling",
    "Region",
    "RelatedData",
    "Repair",
    "Scores",
    "SearchResult",
    "SemanticMap",
    "Side",
    "Track",
    "answers",
    "audit",
    "collect",
    "compare",
    "crop_box",
    "crops",
    "effects",
    "evaluate_descriptions",
    "invert",
    "map",
    "pooling",
    "repair",
    "scores",
    "simulation_correlation",
    "soft_wpmi",
    "special_token",
    "track",
    "with_crops",
]
