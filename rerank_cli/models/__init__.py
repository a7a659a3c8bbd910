"""Checkpoints to models on a device, and how each reads a pair.

Knows checkpoints, transformers classes and prompts; not records, planning or terminals. No code of a checkpoint
is run. Face: `checkpoint.resolve`, `registry.identify`, `rules.read_as`, `families.load_model`.
"""
