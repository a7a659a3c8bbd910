"""Checkpoints, tokenizers and models: from a model's name to scores of packed rows on a device.

Knows checkpoints, transformers classes and prompts; not records, planning or terminals. Code from a checkpoint is never
run. Entry points: `checkpoint.resolve`, `registry.identify`, `reading.rules.read_pairs`, `families.load_model`.
"""
