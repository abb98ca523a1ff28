"""Concept-based alignment: which concepts two networks share, and how much of their structure agrees."""

from semanticlens.alignment.clustering import HDBSCAN, Clusters, CondensedTree
from semanticlens.alignment.index import Alignment, AlignmentMatrix, align, matrix, proximities
from semanticlens.alignment.membership import new_membership, soft_membership
from semanticlens.alignment.pairs import ConceptDistances, Match, Matching, concept_distances

__all__ = [
    "HDBSCAN",
    "Alignment",
    "AlignmentMatrix",
    "Clusters",
    "ConceptDistances",
    "CondensedTree",
    "Match",
    "Matching",
    "align",
    "concept_distances",
    "matrix",
    "new_membership",
    "proximities",
    "soft_membership",
]
