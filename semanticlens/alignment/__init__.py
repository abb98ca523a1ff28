"""Concept-based alignment: which concepts two networks share, and how much of their structure agrees."""

from semanticlens.alignment import measures
from semanticlens.alignment.atlas import Atlas, atlas
from semanticlens.alignment.baselines import MCD, PCA, KMeans
from semanticlens.alignment.clustering import HDBSCAN, Clusters, CondensedTree
from semanticlens.alignment.compare import Comparison, LayerPair, Representation, compare, compare_proximities
from semanticlens.alignment.concepts import (
    Concept,
    ConceptGraph,
    Robustness,
    concept_graph,
    describe,
    ground_truth,
    one_hot,
    robustness,
    same_samples,
    sanity_score,
)
from semanticlens.alignment.dictionary import NMF, TopKSAE
from semanticlens.alignment.estimator import Discovery
from semanticlens.alignment.features import Features, features
from semanticlens.alignment.index import Alignment, AlignmentMatrix, Attribution, align, attribute, crisp, matrix, proximities
from semanticlens.alignment.membership import new_membership, soft_membership
from semanticlens.alignment.nlmcd import NLMCD
from semanticlens.alignment.pairs import ConceptDistances, Match, Matching, concept_distances
from semanticlens.alignment.quality import Quality
from semanticlens.alignment.relations import Relation, relations

__all__ = [
    "HDBSCAN",
    "MCD",
    "NLMCD",
    "NMF",
    "PCA",
    "Alignment",
    "AlignmentMatrix",
    "Atlas",
    "Attribution",
    "Clusters",
    "Comparison",
    "Concept",
    "ConceptDistances",
    "ConceptGraph",
    "CondensedTree",
    "Discovery",
    "Features",
    "KMeans",
    "LayerPair",
    "Match",
    "Matching",
    "Quality",
    "Relation",
    "Representation",
    "Robustness",
    "TopKSAE",
    "align",
    "atlas",
    "attribute",
    "compare",
    "compare_proximities",
    "concept_distances",
    "concept_graph",
    "crisp",
    "describe",
    "features",
    "ground_truth",
    "matrix",
    "measures",
    "new_membership",
    "one_hot",
    "proximities",
    "relations",
    "robustness",
    "same_samples",
    "sanity_score",
    "soft_membership",
]
