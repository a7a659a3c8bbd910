"""Pairs of texts to packed rows: tokenize, truncate, split long documents, plan rows.

Needs a model's tokenizer, prompt and limits, no weights and no torch. Entry points: `prepare.prepare`, and
`lists.prepare_lists` for models that score whole lists.
"""
