"""rerank: reranks files of queries and candidate passages with cross-encoder models."""

__version__ = "0.1.0"
