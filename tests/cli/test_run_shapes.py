"""Shapes of records and kinds of files that come in, and what is answered to each."""

import bz2
import gzip
import io
import json
from itertools import pairwise

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from shell import TINY, rerank, run_tiny, write_lines

COMPRESSED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
    "lz4": lz4.frame.compress,
}


def test_a_score_request_is_answered_in_input_order():
    request = {"id": "s", "text_1": "panda", "text_2": ["hi", "bear", "bamboo", "hi"]}
    (answer,) = run_tiny(stdin=json.dumps(request).encode()).records
    assert set(answer) == {"id", "model", "usage", "data"}
    assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
    assert {item["object"] for item in answer["data"]} == {"score"}
    assert answer["data"][0]["score"] == answer["data"][3]["score"] != answer["data"][1]["score"]


def test_candidates_come_back_as_they_were_best_first(tmp_path):
    candidates = [
        {"docid": "d1", "score": 3.5, "doc": {"title": "T", "text": "hi"}},
        {"docid": "d2", "score": 2.5, "doc": {"contents": "bear"}},
    ]
    record = {"query": {"qid": 7, "text": "what is panda"}, "candidates": candidates}
    (answer,) = run_tiny(write_lines(tmp_path / "c.jsonl", [record])).records
    assert answer["id"] == 7
    found = {result["index"]: result["document"] for result in answer["results"]}
    assert found == dict(enumerate(candidates))


def test_a_batch_file_is_answered_in_its_envelope(tmp_path):
    body = {"query": "q", "documents": ["a", "b"], "top_n": 1}
    score = {"text_1": "q", "text_2": ["a", "b"]}
    path = write_lines(
        tmp_path / "batch.jsonl",
        [
            {"custom_id": "c1", "method": "POST", "url": "/v1/rerank", "body": body},
            {"custom_id": "c2", "method": "POST", "url": "/v1/score", "body": score},
        ],
    )
    first, second = run_tiny(path, "--format", "openai-batch").records
    assert set(first) == {"id", "custom_id", "response", "error"}
    assert (first["custom_id"], first["error"], first["response"]["status_code"]) == ("c1", None, 200)
    assert len(first["response"]["body"]["results"]) == 1
    assert len(second["response"]["body"]["data"]) == 2


@pytest.fixture
def tsv(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "query_id\tquery\tdocid\ttext\n"
        'q1\twhat is panda\td1\thi "there\n'
        "q1\twhat is panda\td2\tThe giant panda\n"
        "q2\tcapital\td1\tParis\n"
    )
    return str(path)


def test_tab_separated_pairs_come_out_as_rows_with_ranks(tsv):
    rows = run_tiny(tsv, "--format", "pairs").records
    assert [(row["query_id"], row["rank"]) for row in rows] == [("q1", 1), ("q1", 2), ("q2", 1)]
    assert {row["docid"]: row["text"] for row in rows[:2]} == {"d1": 'hi "there', "d2": "The giant panda"}
    assert rows[0]["relevance_score"] >= rows[1]["relevance_score"]


def test_a_trec_run_has_six_columns_and_strictly_falling_scores(tmp_path):
    documents = [{"id": f"d{i}", "text": text} for i, text in enumerate(["hi", "bear", "hi", "hi"])]
    path = write_lines(tmp_path / "r.jsonl", [{"id": "q1", "query": "panda", "documents": documents}])
    lines = run_tiny(path, "--format", "trec").out.decode().splitlines()
    columns = [line.split(" ") for line in lines]
    assert {(qid, q0, tag) for qid, q0, _, _, _, tag in columns} == {("q1", "Q0", "rerank")}
    assert [int(rank) for _, _, _, rank, _, _ in columns] == [1, 2, 3, 4]
    scores = [float(score) for _, _, _, _, score, _ in columns]
    assert all(above > below for above, below in pairwise(scores))
    assert [docid for _, _, docid, _, _, _ in columns if docid != "d1"] == ["d0", "d2", "d3"]


def test_parquet_pairs_keep_their_columns_and_gain_a_score_and_a_rank(tmp_path):
    given = pa.table(
        {
            "query_id": [1, 1, 2],
            "query": ["what", "what", "capital"],
            "docid": ["a", "b", "c"],
            "text": ["hi", "panda", "paris"],
            "lang": ["en", "en", "fr"],
            "score": pa.array([1.0, 2.0, 3.0]),
        }
    )
    pq.write_table(given, tmp_path / "in.parquet")
    ended = run_tiny(tmp_path / "in.parquet", "--format", "pairs", "-o", tmp_path / "out.parquet")
    assert (ended.code, ended.out, ended.err) == (0, b"", "")
    table = pq.read_table(tmp_path / "out.parquet")
    added = [pa.field("relevance_score", pa.float32()), pa.field("rank", pa.int32())]
    assert list(table.schema) == [*given.schema, *added]
    assert sorted(table.select(given.column_names).to_pylist(), key=lambda row: row["docid"]) == given.to_pylist()
    assert table.column("rank").to_pylist() == [1, 2, 1]
    assert not list(tmp_path.glob("*.partial"))


def test_parquet_comes_in_through_a_pipe():
    sink = io.BytesIO()
    pq.write_table(pa.table({"query": ["q"], "documents": [["a", "b", "c"]]}), sink)
    (answer,) = run_tiny("-", stdin=sink.getvalue()).records
    assert {result["document"]["text"] for result in answer["results"]} == {"a", "b", "c"}


def test_json_lines_go_out_as_parquet_with_one_row_a_record(requests_file, tmp_path):
    assert run_tiny(requests_file, "-o", tmp_path / "out.parquet").code == 0
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["a", "b"]
    assert [len(row["results"]) for row in rows] == [2, 2]


def test_scores_of_score_requests_reach_a_parquet_output(tmp_path):
    path = write_lines(tmp_path / "s.jsonl", [{"text_1": "panda", "text_2": ["hi", "bear"]}])
    assert run_tiny(path, "-o", tmp_path / "out.parquet").code == 0
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert len(row.get("data") or row.get("results") or []) == 2


def test_several_inputs_in_every_compression_are_one_stream_of_records(tmp_path):
    names = [str(tmp_path / f"{suffix}.jsonl.{suffix}") for suffix in COMPRESSED]
    for suffix, name in zip(COMPRESSED, names, strict=True):
        record = json.dumps({"id": suffix, "query": "q", "documents": ["a", "b"]}).encode()
        with open(name, "wb") as file:
            file.write(COMPRESSED[suffix](record))  # without a newline at its end
    ended = run_tiny(*names, "-o", tmp_path / "out.jsonl.zst")
    assert ended.code == 0
    packed = (tmp_path / "out.jsonl.zst").read_bytes()
    with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
        lines = reader.read().splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(COMPRESSED)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_compressed_stdin_is_recognised(suffix):
    data = COMPRESSED[suffix](b'{"query": "q", "documents": ["a", "b"]}\n' * 3)
    ended = rerank("check", "--json", "-m", TINY, stdin=data)
    assert ended.records[0]["records"] == 3


def test_bom_crlf_and_blank_lines_are_no_records():
    record = b'{"query": "q", "documents": ["a"]}'
    ended = rerank("check", "--json", "-m", TINY, stdin=b"\xef\xbb\xbf" + record + b"\r\n\r\n\n" + record + b"\r\n")
    assert (ended.code, ended.records[0]["records"]) == (0, 2)


def test_an_empty_input_is_zero_records(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    ended = run_tiny(tmp_path / "empty.jsonl", "-o", tmp_path / "out.jsonl")
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "out.jsonl").read_bytes() == b""
