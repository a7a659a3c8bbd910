"""A document compressor for LangChain. Needs the extra `langchain`: pip install 'rerank-cli[langchain]'."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict

from rerank_cli.api.reranker import Reranker


class RerankCompressor(BaseDocumentCompressor):
    """Reranks retrieved documents by their `page_content`, for `ContextualCompressionRetriever` and others.

    Returns copies of the `top_n` best (None: all), best first, with `relevance_score` in their metadata.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    reranker: Reranker
    top_n: int | None = 3

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - of the interface
    ) -> list[Document]:
        """The best documents for the query. Raises the errors of `Reranker.rank`."""
        ranked = self.reranker.rank(query, [document.page_content for document in documents], top_n=self.top_n)
        best = [(documents[one.index], one.score) for one in ranked]
        return [one.model_copy(update={"metadata": {**one.metadata, "relevance_score": score}}) for one, score in best]
