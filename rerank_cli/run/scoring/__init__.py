"""Slices of pairs to scores: one model in this process or many workers, a score cache, a cascade.

Knows sessions and slices; not inputs or outputs. Face: `local.Scoring`, `wrappers.ScoringWrappers`.
"""
