"""Objects in buckets, on web servers and on the Hugging Face Hub: one seam, `store.Store`, and what is behind it.

Knows no local files, except those that are uploaded. Entry points: `stores.store_of`, `stores.writable` and
`remote_file.RemoteFile`.
"""
