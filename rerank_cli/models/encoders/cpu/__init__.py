"""BERT-like layers computed with few passes over memory, for a CPU.

Entry point: `replace.replace_layers`.
"""
