from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_cli.choices import ScoreKind
from rerank_cli.errors import InputError
from rerank_cli.formats.runs.run_file import RunFile
from rerank_cli.records import Candidate, Shape

DOCUMENTS = (
    Candidate("A one", {"docid": "d1", "title": "A", "text": "one", "score": 7.5}, "d1", 7.5),
    Candidate("two", {"docid": 2, "text": "two", "score": 3}, 2, 3.0),
    Candidate("three", "three"),
)


@pytest.fixture
def answer(ranking):
    return ranking([0.0, 2.0, -1.0], DOCUMENTS, id="q7")


def reread(path):
    file = RunFile(str(path))
    try:
        return list(file), file.rejected
    finally:
        file.close()


def test_an_answer_is_read_with_ids_texts_and_scores(answer, save):
    ((found,), rejected) = reread(save([answer], scores=ScoreKind.BOTH))
    assert (found.id, found.query, found.tokens, found.model, rejected) == ("q7", None, 42, "m", 0)
    assert [r.id for r in found.results] == ["2", "d1", "2"]  # a document without an id has its index
    assert [r.index for r in found.results] == [1, 0, 2]
    assert [r.text for r in found.results] == ["two", "one", "three"]
    assert [r.first_score for r in found.results] == [3, 7.5, None]
    assert found.results[1].title == "A"
    assert found.results[1].logit == 0.0
    assert found.results[0].score == pytest.approx(0.8808, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("out.jsonl", "api"),
        ("out.parquet", "api"),
        ("out.jsonl", "pairs"),
        ("o.parquet", "pairs"),
        ("o", "openai-batch"),
    ],
)
@pytest.mark.parametrize("shape", [Shape.RERANK, Shape.SCORE])
def test_the_text_of_a_query_comes_back_with_its_answer(ranking, save, name, format, shape):
    one = ranking([0.0, 2.0], id="q7", shape=shape)
    ((found,), _) = reread(save([one], name=name, format=format, shape=shape, documents=False, query=True))
    assert (found.id, found.query, len(found.results)) == ("q7", "a query", 2)


def test_without_documents_ids_and_first_scores_stand_beside_the_index(answer, save):
    ((found,), _) = reread(save([answer], documents=False))
    assert [(r.id, r.first_score, r.text) for r in found.results] == [
        ("2", 3.0, None),
        ("d1", 7.5, None),
        ("2", None, None),
    ]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
def test_rows_of_pairs_are_put_together_again(answer, ranking, save, name):
    (found, _) = reread(save([answer, ranking([1.0, 3.0], id="q8")], name=name, format="pairs"))
    assert [(one.id, one.query) for one in found] == [("q7", "a query"), ("q8", "a query")]
    assert [r.index for r in found[0].results] == [1, 0, 2]
    assert [r.text for r in found[1].results] == ["text 1", "text 0"]


def test_answers_in_parquet(answer, save):
    ((found,), _) = reread(save([answer], name="out.parquet"))
    assert [(r.id, r.index, r.text) for r in found.results] == [("2", 1, "two"), ("d1", 0, "one"), ("2", 2, "three")]


def test_a_batch_envelope_is_opened(answer, rejection, save):
    ((found,), rejected) = reread(save([answer, rejection], format="openai-batch", keep_errors=True))
    assert (found.id, len(found.results), rejected) == ("q7", 3, 1)


def test_errors_in_the_place_of_answers_are_counted(answer, rejection, save):
    assert reread(save([rejection, answer], keep_errors=True))[1] == 1


def test_answers_of_the_score_shape_are_sorted(ranking, save):
    ((found,), _) = reread(save([ranking([-1.0, 1.0], shape=Shape.SCORE)]))
    assert [r.index for r in found.results] == [1, 0]


@pytest.mark.parametrize(("format", "shape"), [("pairs", Shape.PAIRS), ("api", Shape.RERANK), ("api", Shape.SCORE)])
def test_fused_scores_order_what_is_read_as_they_ordered_what_was_written(ranking, save, format, shape):
    fused = replace(ranking([3.0, 1.0, 2.0], order=[0, 1, 2], shape=shape), fused=[0.9, 0.7, 0.1])
    ((found,), _) = reread(save([fused], format=format, fused=True))
    assert [r.index for r in found.results] == [0, 1, 2]


def test_a_trec_run_is_read_without_texts(answer, save):
    ((found,), _) = reread(save([answer], name="out.trec", format="trec"))
    assert [(r.id, r.index, r.text) for r in found.results][:2] == [("2", None, None), ("d1", None, None)]


def test_rows_that_kept_their_own_columns(tmp_path):
    table = pa.table({"qid": [1, 1, 2], "pid": ["a", "b", "a"], "relevance_score": [0.5, 0.9, 0.1], "score": [9, 8, 7]})
    pq.write_table(table, tmp_path / "t.parquet")
    (found, _) = reread(tmp_path / "t.parquet")
    assert [(one.id, [r.id for r in one.results]) for one in found] == [("1", ["b", "a"]), ("2", ["a"])]
    assert found[0].results[0].first_score == 8.0


def test_a_run_that_is_one_object_is_read_as_eval_reads_it(write):
    (found, _) = reread(write(b'{\n"q1":{"d1":0.5,"d2":0.7},\n"q2":{"d1":1}\n}\n'))
    assert [(one.id, [r.id for r in one.results]) for one in found] == [("q1", ["d2", "d1"]), ("q2", ["d1"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"query": "q", "documents": ["a"]}\n', "in.jsonl:1: not a ranking (got query, documents"),
        (b"[1]\n", "in.jsonl:1: not a ranking (got a number"),
        (b"1 Q0 d 1\n", "got 4 columns"),
        (b"1 Q0 d 1 nan t\n", "got nan, expected a number"),
        (b'{"results": [1]}\n', "a result has no `index` (got a number)"),
        (b'{"results": [{"index": 0}]}\n', "`relevance_score` is not valid (got None, expected a number)"),
        (b'{"results": [{"index": 0, "relevance_score": true}]}\n', "got True, expected a number"),
        (b'{"results"\n', "in.jsonl:1: broken JSON"),
        (b"1 d 1\n", "in.jsonl:1: the run has no scores (got ranks"),
        (b'{"query_id": 1, "docid": [], "relevance_score": 1}\n', "document id cannot be used"),
    ],
)
def test_what_no_run_wrote_is_one_line(write, content, message):
    with pytest.raises(InputError) as caught:
        reread(write(content, name="in.jsonl"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        RunFile(str(tmp_path / "none"))
