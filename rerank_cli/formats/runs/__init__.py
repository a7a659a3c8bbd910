"""Reads runs, relevance judgements and outputs of `rerank`.

Imports `reading` and `shapes`, never measures or corpora. Entry points: `run_file.RunFile` and `run_file.read_rankings`
for outputs and runs, `qrels.read_qrels`, and `by_id.RunReader` for runs whose texts are in a corpus.
"""
