"""Scores pairs of texts: tokenization, packed rows, devices.

Depends on models, and knows no files, records or terminals. Entry point: `lazy.start_session` opens a session.
"""
