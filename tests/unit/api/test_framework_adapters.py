"""The adapters for LangChain, LlamaIndex and mteb, against the real packages: `make adapters-check` installs them."""

import asyncio
import json

import pytest
from processes import TINY

from rerank_cli import Reranker

PANDA = "The giant panda is a bear that lives in China and eats bamboo."
TEXTS = ["hi", PANDA, "Paris is the capital of France.", "bamboo"]
QUERY = "what does a panda eat?"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def tiny():
    with Reranker(TINY, device="cpu") as reranker:
        yield reranker


def test_langchain(tiny):
    documents = pytest.importorskip("langchain_core.documents", reason="needs langchain-core: make adapters-check")
    from rerank_cli.api.langchain import RerankCompressor

    found = [documents.Document(text, id=str(n), metadata={"page": n}) for n, text in enumerate(TEXTS)]
    best = tiny.rank(QUERY, TEXTS, top_n=2)
    compressor = RerankCompressor(reranker=tiny, top_n=2)
    assert isinstance(compressor, documents.BaseDocumentCompressor)
    for compressed in (
        compressor.compress_documents(found, QUERY),
        asyncio.run(compressor.acompress_documents(found, QUERY)),
    ):
        assert [one.id for one in compressed] == [str(one.index) for one in best]
        assert [one.page_content for one in compressed] == [one.document for one in best]
        assert [one.metadata for one in compressed] == [
            {"page": one.index, "relevance_score": one.score} for one in best
        ]
    assert found[0].metadata == {"page": 0}
    assert compressor.compress_documents([], QUERY) == []
    assert len(RerankCompressor(reranker=tiny, top_n=None).compress_documents(found, QUERY)) == 4


def test_llama_index(tiny):
    schema = pytest.importorskip("llama_index.core.schema", reason="needs llama-index-core: make adapters-check")
    from rerank_cli.api.llama_index import RerankPostprocessor

    def nodes():
        return [
            schema.NodeWithScore(node=schema.TextNode(id_=str(n), text=text), score=1 - n / 10)
            for n, text in enumerate(TEXTS)
        ]

    best = tiny.rank(QUERY, TEXTS, top_n=2)
    postprocessor = RerankPostprocessor(reranker=tiny, top_n=2)
    for found in (
        postprocessor.postprocess_nodes(nodes(), query_str=QUERY),
        asyncio.run(postprocessor.apostprocess_nodes(nodes(), query_str=QUERY)),
    ):
        assert [(one.node.node_id, one.score) for one in found] == [(str(one.index), one.score) for one in best]
    kept = RerankPostprocessor(reranker=tiny, keep_retrieval_score=True)
    (found, *_), given = kept.postprocess_nodes(nodes(), query_str=QUERY), nodes()
    assert found.node.metadata == {"retrieval_score": 1 - best[0].index / 10}
    assert all(one.node.metadata == {} for one in given)
    assert postprocessor.postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(ValueError, match="reranking needs a query"):
        postprocessor.postprocess_nodes(nodes())
    titled = schema.TextNode(text=PANDA, metadata={"title": "Panda"})
    (with_title,) = postprocessor.postprocess_nodes([schema.NodeWithScore(node=titled, score=0)], query_str=QUERY)
    assert with_title.score == tiny.rank(QUERY, [f"title: Panda\n\n{PANDA}"])[0].score


def test_mteb(tiny, tmp_path):
    mteb = pytest.importorskip("mteb", reason="needs mteb: make adapters-check")
    from datasets import Dataset
    from mteb.mocks.mock_tasks.reranking import MockRerankingTask

    from rerank_cli.api.mteb import RerankCrossEncoder

    queries = {"q1": QUERY, "q2": "capital of France"}
    ranked = {"q1": ["0", "1", "2", "3"], "q2": ["2", "0"]}

    class Pandas(MockRerankingTask):
        def load_data(self, num_proc=None, **_):  # noqa: ARG002 - of the interface
            part = {
                "queries": Dataset.from_list([{"id": key, "text": text} for key, text in queries.items()]),
                "corpus": Dataset.from_list([{"id": str(n), "text": text} for n, text in enumerate(TEXTS)]),
                "relevant_docs": {"q1": {"1": 1}, "q2": {"2": 1}},
                "top_ranked": ranked,
            }
            self.dataset, self.data_loaded = {"default": {"test": part}}, True

    model = RerankCrossEncoder(tiny, "test/tiny")
    found = mteb.evaluate(model, Pandas(), cache=None, prediction_folder=tmp_path, show_progress_bar=False)
    assert (found.model_name, found.model_revision) == ("test/tiny", tiny.facts.revision)
    (file,) = tmp_path.rglob("*_predictions.json")
    predicted = json.loads(file.read_text())["default"]["test"]
    for query, names in ranked.items():
        scores = tiny.score([(queries[query], TEXTS[int(name)]) for name in names], scores="raw")
        assert predicted[query] == pytest.approx(dict(zip(names, map(float, scores), strict=True)), abs=1e-5)
    with pytest.raises(ValueError, match="reranking needs texts"):
        model.predict([{"image": [1]}], [{"text": ["a"]}])
    assert RerankCrossEncoder(tiny).mteb_model_meta.name.startswith("rerank/")
