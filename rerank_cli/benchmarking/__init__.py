"""`rerank bench`: runs a sample of an input through the real pipeline, measures it and explains the result.

Depends on `run` and `engine`. Entry point: `bench.bench`.
"""
