"""`rerank bench`: a sample of an input through the real pipeline, measured and explained.

Knows `run` and `engine`. Face: `bench.bench`.
"""
