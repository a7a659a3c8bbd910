"""Byte-level file access: opening and decompressing inputs, atomic output files, locks.

Knows no records, formats or models. Entry points: `opening.open_bytes`, `files.PartialFile`, `files.replace_file` and
`lock.locked`.
"""
