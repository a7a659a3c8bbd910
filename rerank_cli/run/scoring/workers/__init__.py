"""One model in several workers at once: each scores slices of texts, the job passes the results on in order.

Knows slices and scores only; `transport.Transport` hides how workers start and how messages travel. Public API:
`devices.open_workers`, `pool.Workers`.
"""
