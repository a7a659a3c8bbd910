"""Scores slices of pairs: with one model in this process or with worker processes, with a score cache and a cascade.

Knows sessions and slices; not inputs or outputs. Public API: `local.Scoring`, `wrappers.ScoringWrappers`.
"""
