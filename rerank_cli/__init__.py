"""rerank: files of queries and candidate passages in, the same reranked by a cross-encoder out."""

__version__ = "0.1.0"
