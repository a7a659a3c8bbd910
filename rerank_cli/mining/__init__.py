"""Training data from a reranked file: positives from judgements, hard negatives by rank and score.

Knows outputs and corpora; no models. Face: `mine.mine_file`.
"""
