"""Concept-based alignment: which concepts two networks share, and how much of their structure agrees."""

from semanticlens.alignment import measures
from semanticlens.alignment.clustering import HDBSCAN, Clusters, CondensedTree
from semanticlens.alignment.index import Alignment, AlignmentMatrix, Attribution, align, attribute, crisp, matrix, proximities
from semanticlens.alignment.membership import new_membership, soft_membership
from semanticlens.alignment.pairs import ConceptDistances, Match, Matching, concept_distances

__all__ = [
    "HDBSCAN",
    "Alignment",
    "AlignmentMatrix",
    "Attribution",
    "Clusters",
    "ConceptDistances",
    "CondensedTree",
    "Match",
    "Matching",
    "align",
    "attribute",
    "concept_distances",
    "crisp",
    "matrix",
    "measures",
    "new_membership",
    "proximities",
    "soft_membership",
]
