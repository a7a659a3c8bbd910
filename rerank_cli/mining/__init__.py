"""Training data from a reranked file. Knows outputs and corpora; no models. Public API: `mine.mine_file`."""
