"""One record: field names, shapes, and how an object becomes a request.

Knows decoded JSON objects; not files, lines or columns. Face: `detection.detect`, `requests.request_from`,
`pairs.PairReader`.
"""
