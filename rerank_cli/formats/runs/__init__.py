"""Runs, judgements and our own outputs, read back.

Knows `reading` and `shapes`; not measures or corpora. Face: `results.RunFile` and `results.read_rankings` for outputs
and runs, `qrels.read_qrels`, `by_id.RunReader` for runs whose texts are in a corpus.
"""
