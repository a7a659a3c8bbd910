"""Causal language models that score by an answer, a label or heads of single layers.

Face: `causal.load_decoder`, `layerwise.load_layerwise`, `lightweight.load_lightweight`.
"""
