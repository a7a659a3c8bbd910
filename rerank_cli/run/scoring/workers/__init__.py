"""A model in several workers at once: each scores slices of texts, the job passes results on in order.

Knows slices and scores; not files, records or what a score is for. `transport.Transport` is the seam: how workers start
and how messages travel (today: processes on this machine). Face: `devices.open_workers`, `pool.Workers`.
"""
