"""Pairs of texts to scores, fast: tokenizing, planning packed rows, attention, devices.

Knows models and tensors; not files, records or terminals. Face: `lazy.start_session` gives a `contract.Session`.
"""
