"""Writes outcomes: API answers, pairs, TREC runs, training data, Parquet, and the file of rejected records.

Imports rankings and `storage`, never readers or models. Entry point: `sinks.open_sink`.
"""
