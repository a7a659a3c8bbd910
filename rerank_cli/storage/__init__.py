"""Bytes and places: opening and decompressing inputs, files that appear whole or not at all, locks.

Knows paths, streams and compression; not records, formats or models. Face: `opening.open_bytes`, `files.PartialFile`,
`files.replace_file`, `lock.locked`.
"""
