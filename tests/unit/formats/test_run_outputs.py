import gzip
import io
import json

import ir_measures
import numpy as np
import orjson
import pytest
import pytrec_eval
from ir_measures import read_trec_run

from rerank_cli.choices import OutputFormat
from rerank_cli.errors import BadRecord, UsageError
from rerank_cli.formats import AnswerOptions, OutputOptions, check_output
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.runs.run_file import read_rankings
from rerank_cli.records import Candidate, Shape

QRELS = {"q1": {"d1": 1, "d3": 2, "d7": 1}, "q2": {"d0": 1, "d4": 0}}
MEASURES = [ir_measures.parse_measure(name) for name in ("nDCG@10", "RR", "AP", "P@3", "R@3")]
TRUTH = {"q1": ["d4", "d1", "d3", "d0", "d2"], "q2": ["d1", "d2", "d4", "d3", "d0"]}
FORMATS = ("api", "pairs", "trec", "msmarco", "beir", "flagembedding", "openai-batch")


@pytest.fixture
def rankings(ranking):
    """Sigmoids that saturate, so that only the logit tells the order, and two equal logits."""
    logits = {"q1": [25, 40, 20, 39, 41], "q2": [1, 5, 4.5, 2, 4.5]}
    documents = [Candidate(f"text {i}", {"id": f"d{i}", "text": f"text {i}"}, f"d{i}") for i in range(5)]
    return [ranking(values, documents, id=query) for query, values in logits.items()]


def truth():
    return {q: {name: float(-rank) for rank, name in enumerate(names)} for q, names in TRUTH.items()}


def figures(run):
    return ir_measures.calc_aggregate(MEASURES, QRELS, run)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("scores", ["sigmoid", "raw"])
def test_every_format_is_read_back_in_the_order_that_was_written(save, rankings, format, scores):
    path = save(rankings, format=format, scores=scores)
    found = read_rankings(str(path), QRELS).rankings
    assert {query: [document.id for document in item.results] for query, item in found.items()} == TRUTH


@pytest.mark.parametrize("format", ["api", "pairs"])
@pytest.mark.parametrize("documents", [True, False])
def test_parquet_is_read_back_too(save, rankings, format, documents):
    path = save(rankings, name="out.parquet", format=format, documents=documents)
    found = read_rankings(str(path), QRELS).rankings
    assert {query: [document.id for document in item.results] for query, item in found.items()} == TRUTH


def test_a_trec_run_means_the_same_to_ir_measures_and_to_trec_eval(save, rankings):
    path = save(rankings, format="trec")
    assert figures(read_trec_run(str(path))) == figures(truth())
    evaluator = pytrec_eval.RelevanceEvaluator(QRELS, {"map", "ndcg_cut_10", "recip_rank"})
    with open(path) as file:
        assert evaluator.evaluate(pytrec_eval.parse_run(file)) == evaluator.evaluate(truth())


@pytest.mark.parametrize("format", ["beir", "flagembedding"])
def test_an_object_of_scores_means_the_same_to_trec_eval(save, rankings, format):
    content = json.loads(save(rankings, format=format).read_bytes())
    run = content if format == "beir" else content["search_results"]
    evaluator = pytrec_eval.RelevanceEvaluator(QRELS, {"map", "ndcg_cut_10", "recip_rank"})
    assert evaluator.evaluate(run) == evaluator.evaluate(truth())
    for scores in run.values():
        values = np.array(list(scores.values()), dtype=np.float32)
        assert (np.diff(values) < 0).all()


def test_a_flagembedding_file_names_the_reranker(save, rankings):
    content = json.loads(save(rankings, format="flagembedding").read_bytes())
    names = ("eval_name", "model_name", "reranker_name", "split", "dataset_name")
    assert [content[name] for name in names] == [None, None, "m", None, None]


def test_an_ms_marco_run_is_query_document_and_rank(save, rankings):
    lines = save(rankings, format="msmarco").read_text().splitlines()
    assert lines[:3] == ["q1\td4\t1", "q1\td1\t2", "q1\td3\t3"]
    assert len(lines) == 10


@pytest.mark.parametrize(("format", "empty"), [("beir", {}), ("trec", None), ("msmarco", None)])
def test_a_run_of_nothing_is_whole(save, format, empty):
    content = save([], format=format).read_bytes()
    assert content == b"" if empty is None else json.loads(content) == empty


def test_a_flagembedding_run_of_nothing_is_whole(save):
    assert json.loads(save([], format="flagembedding").read_bytes())["search_results"] == {}


def test_an_object_can_be_compressed(save, rankings):
    path = save(rankings, name="out.json.gz", format="beir")
    assert list(json.loads(gzip.decompress(path.read_bytes()))) == ["q1", "q2"]


def test_candidates_without_ids_are_called_by_their_place(save, ranking):
    path = save([ranking([1, 3, 2])], format="beir")
    assert list(json.loads(path.read_bytes())["q1"]) == ["1", "2", "0"]


@pytest.mark.parametrize("format", OutputFormat)
def test_a_whole_number_is_one_id_however_it_is_written(save, ranking, write, format):
    one = ranking([2.0], [Candidate("text", {"id": 1.0, "text": "text"}, 1.0)], id=7.0)
    ((query, found),) = read_rankings(str(save([one], format=format)), {"7"}).rankings.items()
    judged = read_qrels(write({"qid": 7.0, "docid": 1.0, "relevance": 1}, name="qrels.jsonl"))
    assert judged == {query: {found.results[0].id: 1}}


def test_ids_with_quotes_and_spaces_stay_what_they_are_in_json(save, ranking):
    path = save([ranking([1], [Candidate("t", "t", 'a "b" c')], id="q 1")], format="beir")
    assert list(json.loads(path.read_bytes())) == ["q 1"]
    assert list(json.loads(path.read_bytes())["q 1"]) == ['a "b" c']


@pytest.mark.parametrize("format", ["trec", "msmarco"])
def test_lines_of_a_run_refuse_ids_with_white_space(save, ranking, format):
    with pytest.raises(BadRecord, match="query id cannot be used in a run file"):
        save([ranking([1], id="a b")], format=format)


@pytest.mark.parametrize("format", ["msmarco", "beir", "flagembedding", "trec"])
def test_a_run_has_no_place_for_errors(tmp_path, format):
    options = OutputOptions(str(tmp_path / "out"), OutputFormat(format), AnswerOptions("m"), keep_errors=True)
    with pytest.raises(UsageError, match=rf"--format {format} cannot contain errors. Fix: --on-error skip"):
        check_output(options, ())


def test_score_records_are_put_best_first(save, ranking):
    path = save([ranking([1, 3, 2], shape=Shape.SCORE)], format="msmarco")
    assert path.read_text() == "q1\t1\t1\nq1\t2\t2\nq1\t0\t3\n"


def test_answers_to_score_records_are_read_best_first(save, ranking):
    path = save([ranking([1, 3, 2], shape=Shape.SCORE)])
    assert [document.id for document in read_rankings(str(path), {"q1"}).rankings["q1"].results] == ["1", "2", "0"]


def test_our_qrels_are_those_of_ir_measures(tmp_path):
    path = tmp_path / "qrels"
    path.write_text("q1 0 d1 1\nq1 0 d2 0\nq2 Q0 d1 2\n")
    theirs = {}
    for qrel in ir_measures.read_trec_qrels(io.StringIO(path.read_text())):
        theirs.setdefault(qrel.query_id, {})[qrel.doc_id] = qrel.relevance
    assert read_qrels(str(path)) == theirs


def test_a_bom_and_windows_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "qrels"
    path.write_bytes(b"\xef\xbb\xbfquery-id\tcorpus-id\tscore\r\nq1\td1\t1\r\n")
    assert read_qrels(str(path)) == {"q1": {"d1": 1}}
    assert orjson.dumps(read_qrels(str(path))) == b'{"q1":{"d1":1}}'
