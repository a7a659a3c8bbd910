"""A node postprocessor for LlamaIndex. Needs the extra `llama-index`: pip install 'rerank-cli[llama-index]'."""

from __future__ import annotations

from llama_index.core.bridge.pydantic import ConfigDict
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from rerank_cli.api.reranker import Reranker


class RerankPostprocessor(BaseNodePostprocessor):
    """Reranks retrieved nodes by the text that LlamaIndex embeds, for `node_postprocessors` of a query engine.

    Returns the `top_n` best (None: all), best first, with our scores. With `keep_retrieval_score`, the score of the
    retriever is in their metadata as `retrieval_score`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    reranker: Reranker
    top_n: int | None = 3
    keep_retrieval_score: bool = False

    @classmethod
    def class_name(cls) -> str:
        return "RerankPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """The best nodes for the query. Raises ValueError without a query, and the errors of `Reranker.rank`."""
        if query_bundle is None:
            raise ValueError("reranking needs a query (got none). Fix: query_str or query_bundle")
        texts = [one.node.get_content(metadata_mode=MetadataMode.EMBED) for one in nodes]
        ranked = self.reranker.rank(query_bundle.query_str, texts, top_n=self.top_n)
        return [self._scored(nodes[one.index], one.score) for one in ranked]

    def _scored(self, found: NodeWithScore, score: float) -> NodeWithScore:
        node = found.node
        if self.keep_retrieval_score:
            node = node.model_copy(update={"metadata": {**node.metadata, "retrieval_score": found.score}})
        return NodeWithScore(node=node, score=score)
