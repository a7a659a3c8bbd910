"""Encoders with a classification head, and encoders saved as sentence-transformers modules.

Entry points: `classifier.load_encoder`, `modular.load_modular`; `cpu` computes BERT-like layers faster on a CPU.
"""
