"""One input divided among several runs: which records belong to a shard, and how finished shards become one output.

Knows chunks, receipts and files; scores nothing. Entry points: `part.Part` for a run, `merge.merge` for its outputs.
"""
