"""Outcomes to files: answers, pairs, run files, training data, Parquet, the file of rejected records.

Knows rankings and `storage`; not how they were read or scored. Face: `sinks.open_sink`.
"""
