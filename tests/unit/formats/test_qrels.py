import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from rerank_cli.errors import InputError
from rerank_cli.formats.runs.qrels import fingerprint_of, read_qrels

EXPECTED = {"q1": {"d1": 1, "d2": 0}, "2": {"d1": 2}}
WRITTEN = {
    "trec": b"q1 0 d1 1\nq1 0 d2 0\n2 0 d1 2\n",
    "msmarco": b"q1\t0\td1\t1\nq1\t0\td2\t0\n2\t0\td1\t2\n",
    "beir": b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n2\td1\t2\n",
    "csv": b"query-id,corpus-id,score\r\nq1,d1,1\r\nq1,d2,0\r\n2,d1,2\r\n",
    "beir without a header": b"q1\td1\t1\nq1\td2\t0\n2\td1\t2\n",
    "flagembedding": b'{"qid":"q1","docid":"d1","relevance":1}\n{"qid":"q1","docid":"d2","relevance":0}\n'
    b'{"qid":2,"docid":"d1","relevance":2}\n',
    "mteb": b'{"query-id":"q1","corpus-id":"d1","score":1.0}\n{"query-id":"q1","corpus-id":"d2","score":0.0}\n'
    b'{"query-id":"2","corpus-id":"d1","score":2.0}\n',
    "object": b'{"q1":{"d1":1,"d2":0},"2":{"d1":2}}',
    "object over lines": b'{\n "q1": {"d1": 1, "d2": 0},\n "2": {"d1": 2}\n}\n',
    "gzip": gzip.compress(b"q1 0 d1 1\nq1 0 d2 0\n2 0 d1 2\n"),
    "a header of other names": b"topic iter docno rel\nq1 0 d1 1\nq1 0 d2 0\n2 0 d1 2\n",
    "blank lines": b"\nq1 0 d1 1\n\nq1 0 d2 0\n2 0 d1 2\n\n",
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_judgements_are_read_from(write, kind):
    assert read_qrels(write(WRITTEN[kind], name="qrels")) == EXPECTED


@pytest.mark.parametrize("write", [pq.write_table, feather.write_feather])
def test_judgements_are_read_from_parquet_and_arrow(tmp_path, write):
    path = tmp_path / "qrels"
    columns = {"query-id": ["q1", "q1", "2"], "corpus-id": ["d1", "d2", "d1"], "score": [1, 0, 2]}
    write(pa.table(columns), str(path))
    assert read_qrels(str(path)) == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"[1]", r"qrels:1: not a relevance judgement \(got no object"),
        (b"query-id\tcorpus-id\tscore\n", "contains no relevance judgements"),
        (b"q1 d1\n", r"qrels:1: not a relevance judgement \(got 2 columns, expected 4"),
        (b"q1 0 d1 1\nq1 d2 1\n", r"qrels:2: not a relevance judgement \(got 3 columns"),
        (b"q1 0 d1 1\nq1 0 d2 yes\n", r"qrels:2: the relevance is not a whole number \(got yes\)"),
        (b"q1 0 d1 0.5\n", r"qrels:1: the relevance is not a whole number"),
        (b"q1 0 d1 inf\n", r"qrels:1: the relevance is not a whole number"),
        (b"q1 0 d1 1\nq1 0 d1 2\n", r"qrels:2: document d1 is judged twice for query q1 \(got 2, after 1\)"),
        (b'{"qid":"q1"}\n', r"qrels:1: not a relevance judgement \(got qid; expected"),
        (b'{"qid":"q1","docid":"a","relevance":1}\n{"qid"', r"qrels:2: the last line is cut off"),
        (b'{"qid":"q1"', r"qrels:1: the last line is cut off"),
        (b"q1 0 \xff 1\n", r"qrels:1: the line is not valid UTF-8"),
        (b"query-id\tcorpus-id\tscore\nq1\td1\n", r"qrels:2?.*the line has 2 columns"),
    ],
)
def test_what_is_no_judgement_is_named(write, content, message):
    with pytest.raises(InputError, match=message):
        read_qrels(write(content, name="qrels"))


def test_the_same_judgement_twice_is_one(write):
    assert read_qrels(write(b"q1 0 d1 1\nq1 0 d1 1\n", name="qrels")) == {"q1": {"d1": 1}}


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match="no such file"):
        read_qrels("nowhere.qrels")


def test_judgements_are_told_from_others_whatever_their_order():
    assert fingerprint_of({"a": {"b": 1}, "c": {"d": 0}}) == fingerprint_of({"c": {"d": 0}, "a": {"b": 1}})
    assert fingerprint_of({"a": {"b": 1}}) != fingerprint_of({"a": {"b": 2}})
