"""How good relevance maps are: pixel flipping, localisation, sparseness, sensitivity, parameter randomisation, completeness."""

from semanticlens.attribution.metrics.case import Case, Curve, MapFunction, Metric, Part, map_function
from semanticlens.attribution.metrics.completeness import Completeness
from semanticlens.attribution.metrics.evaluate import METRICS, Evaluation, evaluate, table
from semanticlens.attribution.metrics.flipping import PixelFlipping
from semanticlens.attribution.metrics.localisation import Localisation, boxes_to_masks, mosaic
from semanticlens.attribution.metrics.randomisation import Randomisation, randomised
from semanticlens.attribution.metrics.sensitivity import Sensitivity
from semanticlens.attribution.metrics.similarity import spearman, ssim
from semanticlens.attribution.metrics.sparseness import Sparseness, gini

__all__ = [
    "METRICS",
    "Case",
    "Completeness",
    "Curve",
    "Evaluation",
    "Localisation",
    "MapFunction",
    "Metric",
    "Part",
    "PixelFlipping",
    "Randomisation",
    "Sensitivity",
    "Sparseness",
    "boxes_to_masks",
    "evaluate",
    "gini",
    "map_function",
    "mosaic",
    "randomised",
    "spearman",
    "ssim",
    "table",
]
