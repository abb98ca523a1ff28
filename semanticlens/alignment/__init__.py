"""Concept-based alignment: which concepts two networks share."""
