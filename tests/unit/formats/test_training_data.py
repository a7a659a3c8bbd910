import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.corpus.texts import DocumentTexts
from rerank_cli.records import Ranking, Rejection, Shape

RECORD = {
    "type": "x",
    "query": "q",
    "pos": ["a", "b"],
    "pos_scores": None,
    "neg": ["c"],
    "prompt": "Find it: ",
    "more": {"kept": [1]},
}


def scored(record, first=0.0):
    """A ranking whose logits rise from candidate to candidate."""
    count = len(record.candidates)
    return Ranking(record, [first + index for index in range(count)], list(range(count)), 10)


def test_the_record_comes_back_with_logits_in_its_own_order(only, saved):
    assert saved([scored(only(RECORD), -0.1)]) == [
        {**RECORD, "pos_scores": [pytest.approx(-0.1), pytest.approx(0.9)], "neg_scores": [pytest.approx(1.9)]}
    ]


def test_fields_keep_their_order_and_scores_are_single_precision(only, save):
    line = save([scored(only(RECORD), 0.1)]).read_bytes()
    assert line.startswith(b'{"type":"x","query":"q","pos":["a","b"],"pos_scores":[0.1,1.1],"neg":["c"],')
    assert line.endswith(b'"neg_scores":[2.1]}\n')


def test_a_prompt_is_an_instruction_and_stays(only):
    record = only(RECORD)
    assert (record.shape, record.instruction, record.extra) == (
        Shape.TRAIN,
        "Find it: ",
        {"type": "x", "more": {"kept": [1]}},
    )
    assert record.given == RECORD


def test_either_list_may_be_empty(only, saved):
    (answer,) = saved([scored(only({"query": "q", "pos": [], "neg": ["c"]}))])
    assert (answer["pos_scores"], answer["neg_scores"]) == ([], [0.0])


def test_documents_may_be_objects(only):
    record = only({"query": "q", "pos": [{"title": "T", "text": "a"}], "neg": [{"contents": "b"}]})
    assert [candidate.text for candidate in record.candidates] == ["T a", "b"]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"query": "q", "pos": "a", "neg": ["b"]}, "bad_documents"),
        ({"query": "q", "pos": ["a"], "neg": None}, "bad_documents"),
        ({"query": "q", "pos": ["a"]}, "no_candidates"),
        ({"query": "q", "pos": [None], "neg": []}, "null_text"),
        ({"query": "", "pos": ["a"], "neg": []}, "empty_query"),
        ({"query": "q", "documents": ["a"]}, "wrong_shape"),
    ],
)
def test_what_cannot_be_scored_is_a_bad_record(read, write, bad, code):
    good, rejected = read(write(RECORD, bad))
    assert good.shape is Shape.TRAIN
    assert isinstance(rejected, Rejection)
    assert rejected.code == code


def test_training_data_among_requests_is_of_another_shape(read, write):
    _, rejected = read(write({"query": "q", "documents": ["a"]}, RECORD))
    assert rejected.code == "wrong_shape"
    _, taken = read(write({"query": "q", "documents": ["a"]}, RECORD), shape=Shape.RERANK)
    assert [candidate.text for candidate in taken.candidates] == ["a", "b", "c"]


def test_parquet_keeps_its_columns(tmp_path, save):
    table = pa.table(
        {"query": ["q"], "neg": [["c", "d"]], "pos": [["a"]], "neg_scores": [[9.0, 9.0]], "n": pa.array([7], "int8")}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    source = open_source(InputOptions((str(tmp_path / "in.parquet"),)))
    try:
        (record,) = source
        path = save([scored(record)], name="out.parquet", columns=source.columns, shape=source.shape)
    finally:
        source.close()
    written = pq.read_table(path)
    assert written.schema.names == ["query", "neg", "pos", "n", "pos_scores", "neg_scores"]
    assert written.schema.field("pos_scores").type == pa.list_(pa.float32())
    assert written.to_pylist()[0] | {"n": 7, "pos_scores": [0.0], "neg_scores": [1.0, 2.0]} == written.to_pylist()[0]


def test_json_lines_to_parquet_have_fixed_columns(only, rejection, save):
    path = save([scored(only({**RECORD, "id": 7})), rejection], name="out.parquet", shape=Shape.TRAIN, keep_errors=True)
    first, second = pq.read_table(path).to_pylist()
    assert (first["id"], first["pos"], first["neg_scores"], first["prompt"]) == ("7", ["a", "b"], [2.0], "Find it: ")
    assert orjson.loads(first["extra"]) == {"type": "x", "more": {"kept": [1]}}
    assert (second["id"], second["error"]["code"], second["pos"]) == ("q7", "bad_json", None)


def test_a_byte_order_mark_before_texts_by_id_does_no_harm(write):
    path = write(b'\xef\xbb\xbf{"_id":"d1","title":"A","text":"one"}\n', name="corpus.jsonl")
    texts = DocumentTexts((path,), None, print)
    assert texts.find(["d1", "d2"]) == {"d1": "A one"}
    texts.close()
