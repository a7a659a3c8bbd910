"""Training data: files, or a run with judgements and a corpus, to the groups of every step.

Knows `formats` and `storage`; no models. Entry point: `open.open_data`.
"""
