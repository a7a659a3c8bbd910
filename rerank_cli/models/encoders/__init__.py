"""Encoders with a classification head, and encoders saved as modules of sentence-transformers.

Face: `classifier.load_encoder`, `modular.load_modular`; `cpu_blocks` speeds up BERT-like layers on a CPU.
"""
