"""Texts by id: an index of corpora and queries of any size, and runs joined with it.

Knows `runs` and `reading`. Face: `source.open_by_id` for `rerank run --run`, `texts.DocumentTexts` for others.
"""
