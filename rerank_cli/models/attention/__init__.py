"""Attention inside each sequence of a packed row, for every model that takes such rows.

Entry points: `packed.packed_attention`, and `packed.register` for transformers' classes.
"""
