"""One record: field names, shapes, and the conversion of an object to a request.

Knows decoded JSON objects; not files, lines or columns. Entry points: `detection.detect`, `requests.request_from`,
`pairs.PairReader`.
"""
