"""Concept-based alignment: which concepts two networks share, and how much of their structure agrees."""

from semanticlens.alignment.index import Alignment, AlignmentMatrix, align, matrix, proximities
from semanticlens.alignment.pairs import ConceptDistances, Match, Matching, concept_distances

__all__ = [
    "Alignment",
    "AlignmentMatrix",
    "ConceptDistances",
    "Match",
    "Matching",
    "align",
    "concept_distances",
    "matrix",
    "proximities",
]
