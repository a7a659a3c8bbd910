"""Measures of rankings by relevance judgements, significance tests, tuning of fusion weights.

Knows runs and qrels; no models. Public API: `evaluate.worked_out`, `evaluate.tuned`, `same_pass.SamePassEvaluation`.
"""
