"""Texts by id: an on-disk index of corpora and queries of any size, and its join with runs.

Knows `runs` and `reading`. Entry points: `source.open_by_id` for `rerank run --run`, else `texts.DocumentTexts`.
"""
