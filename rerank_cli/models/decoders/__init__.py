"""Causal language models that are scored by an answer token, by a label, or by the heads of single layers.

Entry points: `causal.load_decoder`, `layerwise.load_layerwise`, `lightweight.load_lightweight`.
"""
