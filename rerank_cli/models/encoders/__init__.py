"""Encoders with a classification head, and encoders saved as sentence-transformers modules.

Entry points: `classifier.load_encoder`, `modular.load_modular`; `cpu_blocks` speeds up BERT-like layers on a CPU.
"""
