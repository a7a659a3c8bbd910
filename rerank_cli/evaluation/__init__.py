"""Measures of rankings by relevance judgements, significance tests, tuning of fusion weights.

Knows runs and qrels; no models. Face: `evaluate.worked_out` for `rerank eval`, `same_pass.SamePassEvaluation` for
`rerank run --qrels`.
"""
