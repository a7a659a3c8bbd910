"""Byte-level file access: opening and decompressing inputs, atomic output files, locks.

Knows no records, formats or models. Paths may be local or remote (`s3://`, `https://`): that only this folder knows.
Entry points: `opening.open_bytes`, `listing.expanded`, `partial_file.PartialFile`, `outputs.write_whole`, `lock.locked`
and, for objects, `stores.store_of`.
"""
