"""Candidates by id: a run, queries and a corpus become requests."""

import gzip
import io
import json

import orjson
import pytest
from corpora import DOCUMENTS, QUERIES, TREC, beir_corpus, lines, options, placed, read, save, summary

from rerank_cli.choices import RunValues
from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats import open_source
from rerank_cli.formats.corpus import joining
from rerank_cli.records import Shape

WHOLE = [("q1", ["d2", "d1"]), ("2", ["日本-3", "44"])]


def test_a_run_becomes_requests_with_texts_documents_and_scores(tmp_path):
    placed(tmp_path)
    first, second = read(tmp_path)
    assert (first.id, first.query, first.shape, first.position.line) == ("q1", QUERIES["q1"], Shape.RERANK, 1)
    assert first.extra == {"metadata": {"n": 0}}
    assert [(c.id, c.score, c.text) for c in first.candidates] == [
        ("d2", 2.5, DOCUMENTS["d2"][1]),
        ("d1", 1.5, "Panda The giant panda is a bear."),
    ]
    assert [c.source for c in second.candidates] == beir_corpus()[2:]
    assert str(second.position) == f"{tmp_path / 'run.trec'}:3"


@pytest.mark.parametrize(
    "run",
    [
        [line.replace(" ", "\t") for line in TREC],
        ["  " + line.replace(" ", " \t ") + " \r" for line in TREC],
        [f"{q} {d} {s}" for q, _, d, _, s, _ in map(str.split, TREC)],
        [f"{q}\t{d}\t0\t{s}" for q, _, d, _, s, _ in map(str.split, TREC)],
        [f"{q} 0 {d} {s}" for q, _, d, _, s, _ in map(str.split, TREC)],
        [f"{q}\t{d}\t{rank}" for q, _, d, rank, _, _ in map(str.split, TREC)],
        [f"{q}\t{d}" for q, _, d, _, _, _ in map(str.split, TREC)],
        ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t{s}" for q, _, d, _, s, _ in map(str.split, TREC))],
        [
            orjson.dumps({"query_id": q, "docid": d, "score": float(s)}).decode()
            for q, _, d, _, s, _ in map(str.split, TREC)
        ],
        ['{"query-id":"q1","corpus-ids":["d2","d1"]}', '{"query-id":"2","corpus-ids":["日本-3",44]}'],
        ['[{"query-id":"q1","corpus-ids":["d2","d1"]},', '{"query-id":"2","corpus-ids":["日本-3",44]}]'],
        ['{"q1": {"d1": 1.5, "d2": 2.5}, "2": {"44": 8, "日本-3": 9}}'],
        ['{"search_results":', ' {"q1": {"d1": 1.5, "d2": 2.5}, "2": {"44": 8, "日本-3": 9}}, "split": "dev"}'],
        ['{"mteb_model_meta": {"m": {}}, "default": {"t": {"q1": {"d1": 1, "d2": 2}, "2": {"44": 8, "日本-3": 9}}}}'],
    ],
)
def test_all_kinds_of_runs_are_read(tmp_path, run):
    placed(tmp_path, run)
    assert [(q, [str(d) for d in ids]) for q, ids in summary(read(tmp_path))] == WHOLE


def test_runs_in_parquet(tmp_path):
    placed(tmp_path)
    rows = [{"query-id": "q1", "corpus-ids": ["d2", "d1"]}, {"query-id": "2", "corpus-ids": ["日本-3", "44"]}]
    save(tmp_path / "top_ranked.parquet", rows)
    assert summary(read(tmp_path, run="top_ranked.parquet")) == WHOLE
    save(tmp_path / "run.parquet", [{"query_id": q, "docid": d, "score": 1.0} for q, ids in WHOLE for d in ids])
    assert summary(read(tmp_path, run="run.parquet")) == WHOLE


def test_several_runs_follow_one_another(tmp_path):
    placed(tmp_path, TREC[:2])
    (tmp_path / "more.trec").write_text(TREC[3] + "\n")
    assert summary(read(tmp_path, run=["run.trec", "more.trec"])) == [WHOLE[0], ("2", ["44"])]


def test_a_run_may_come_from_a_stream(tmp_path, monkeypatch):
    placed(tmp_path)
    data = (tmp_path / "run.trec").read_bytes()
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": io.BytesIO(data), "fileno": lambda _: 0})())
    assert summary(read(tmp_path, run="-")) == WHOLE


def test_candidates_stand_in_order_of_score_and_ties_as_in_the_file(tmp_path):
    placed(tmp_path, ["q1 Q0 44 1 1 t", "q1 Q0 d1 2 7 t", "q1 Q0 d2 3 7 t", "q1 Q0 日本-3 4 7.5 t"])
    assert summary(read(tmp_path)) == [("q1", ["日本-3", "d1", "d2", "44"])]
    assert summary(read(tmp_path, depth=2)) == [("q1", ["日本-3", "d1"])]


@pytest.mark.parametrize(
    ("values", "rows", "expected", "score"),
    [
        (RunValues.AUTO, ["q1 d1 1", "q1 d2 2"], ["d1", "d2"], 1.0),
        (RunValues.AUTO, ["q1 d1 2", "q1 d2 1"], ["d1", "d2"], 2.0),
        (RunValues.SCORES, ["q1 d1 1", "q1 d2 2"], ["d2", "d1"], 2.0),
        (RunValues.RANKS, ["q1 d1 4", "q1 d2 2"], ["d2", "d1"], 0.5),
    ],
)
def test_a_third_column_is_told_apart_or_named(tmp_path, values, rows, expected, score):
    placed(tmp_path, rows)
    (record,) = read(tmp_path, values=values)
    assert ([c.id for c in record.candidates], record.candidates[0].score) == (expected, score)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("c.jsonl", beir_corpus()),
        ("c.jsonl", [{"id": r["_id"], "title": r["title"], "text": r["text"]} for r in beir_corpus()]),
        ("c.jsonl", [{"docid": r["_id"], "title": r["title"], "segment": r["text"]} for r in beir_corpus()]),
        ("c.jsonl.gz", beir_corpus()),
        ("c.jsonl.zst", beir_corpus()),
        ("c.tsv", [{"id": r["_id"], "title": r["title"], "text": r["text"]} for r in beir_corpus()]),
        ("c.tsv.gz", [{"pid": "pid", "title": "title", "text": "passage"}, *beir_corpus()]),
        ("c.parquet", beir_corpus()),
    ],
)
def test_all_kinds_of_corpora_are_read(tmp_path, name, rows):
    placed(tmp_path)
    save(tmp_path / name, rows)
    records = read(tmp_path, corpus=name)
    assert summary(records) == WHOLE
    assert [c.text for r in records for c in r.candidates] == [
        f"{title} {text}".strip() for title, text in map(DOCUMENTS.get, ("d2", "d1", "日本-3", "44"))
    ]


def test_a_collection_of_two_columns_has_no_quoting(tmp_path):
    placed(tmp_path, ["q1 Q0 7 1 1 t"])
    (tmp_path / "collection.tsv").write_text('6\tother\n7\t"The Panda" isn\'t "red\r\n')
    (record,) = read(tmp_path, corpus="collection.tsv")
    assert record.candidates[0].text == '"The Panda" isn\'t "red'
    assert record.candidates[0].source == {"id": "7", "text": '"The Panda" isn\'t "red'}


def test_documents_of_ms_marco_have_four_columns(tmp_path):
    placed(tmp_path, ["q1 Q0 D7 1 1 t"])
    (tmp_path / "docs.tsv").write_text("D7\thttp://x\tTitle\tBody of it\n")
    (record,) = read(tmp_path, corpus="docs.tsv")
    assert record.candidates[0].text == "Title Body of it"


def test_a_folder_is_a_corpus_of_all_its_files(tmp_path):
    placed(tmp_path)
    (tmp_path / "parts").mkdir()
    for n, (name, row) in enumerate(zip(("b.jsonl", "a.jsonl.gz", "c.parquet", "d.tsv"), beir_corpus(), strict=True)):
        save(tmp_path / "parts" / name, [{"id": "id", "title": "title", "text": "text"}, row] if n == 3 else [row])
    (tmp_path / "parts" / "README.md").write_text("# no documents")
    (tmp_path / "parts" / ".hidden.jsonl").write_text("no")
    assert summary(read(tmp_path, corpus="parts")) == WHOLE


@pytest.mark.parametrize("name", ["q.tsv", "q.parquet", "q.jsonl.gz"])
def test_all_kinds_of_queries_are_read(tmp_path, name):
    placed(tmp_path)
    save(tmp_path / name, [{"id": key, "text": text} for key, text in QUERIES.items()])
    assert [r.query for r in read(tmp_path, queries=name)] == list(QUERIES.values())[:2]


def test_queries_may_bring_an_instruction(tmp_path):
    placed(tmp_path, TREC[:1], queries=[{"id": "q1", "text": "t", "instruction": "Find it."}])
    (record,) = read(tmp_path)
    assert (record.instruction, record.extra) == ("Find it.", {})


def test_ids_that_are_numbers_match_those_that_are_text(tmp_path):
    placed(tmp_path, ["1 Q0 44 1 1 t"], queries=[{"id": 1, "text": "t"}], corpus=[{"id": 44, "text": "x"}])
    (record,) = read(tmp_path)
    assert (record.id, record.candidates[0].id, record.candidates[0].source) == ("1", "44", {"id": 44, "text": "x"})


def test_fields_can_be_named(tmp_path):
    placed(
        tmp_path,
        ['{"topic": "q1", "key": "d"}'],
        queries=[{"id": "no", "topic": "q1", "ask": "what"}],
        corpus=[{"id": "no", "key": "d", "says": "text"}],
    )
    names = {"id_field": "topic", "query_field": "ask", "doc_id_field": "key", "text_field": "says"}
    (record,) = read(tmp_path, **names)
    assert (record.query, record.candidates[0].text, record.candidates[0].id) == ("what", "text", "d")


def test_names_that_were_given_go_for_columns_without_a_header_too(tmp_path):
    placed(tmp_path, ["q1 Q0 7 1 1 t"])
    (tmp_path / "c.tsv").write_text("7\tpassage\n")
    (record,) = read(tmp_path, corpus="c.tsv", doc_id_field="key", text_field="says")
    assert record.candidates[0].source == {"key": "7", "says": "passage"}


def test_byte_order_marks_crlf_and_blank_lines_do_no_harm(tmp_path):
    placed(tmp_path, b"\xef\xbb\xbf" + "\r\n\r\n".join(TREC).encode())
    for name in ("queries.jsonl", "corpus.jsonl"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n").rstrip())
    assert summary(read(tmp_path)) == WHOLE


def test_a_missing_document_is_rejected_alone_with_its_id_and_line(tmp_path):
    placed(tmp_path, [*TREC[:2], "q1 Q0 nowhere 3 1 t", *TREC[2:]])
    records = read(tmp_path)
    assert summary(records) == [("missing_document", 3), *WHOLE]
    assert records[0].id == "q1"
    assert records[0].raw == "q1 Q0 nowhere 3 1 t"
    assert f"document 'nowhere' is not in {tmp_path / 'corpus.jsonl'} (it has 4)" in str(records[0])


def test_a_missing_query_is_rejected_once(tmp_path):
    placed(tmp_path, ["q9 Q0 d1 1 2 t", "q9 Q0 nowhere 2 1 t", *TREC])
    records = read(tmp_path)
    assert summary(records) == [("missing_query", 1), *WHOLE]
    assert "query 'q9' is not in" in records[0].message


def test_a_query_all_of_whose_documents_are_missing_has_no_request(tmp_path):
    placed(tmp_path, ["q1 Q0 x 1 2 t", "q1 Q0 y 2 1 t"])
    assert summary(read(tmp_path)) == [("missing_document", 1), ("missing_document", 2)]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"_id": "d2"}, "missing_text"),
        ({"_id": "d2", "text": None}, "null_text"),
        ({"_id": "d2", "text": 7}, "bad_text"),
    ],
)
def test_a_document_without_a_text_is_rejected_when_it_is_asked_for(tmp_path, document, code):
    placed(tmp_path, corpus=[document, *(row for row in beir_corpus() if row["_id"] != "d2")])
    records = read(tmp_path)
    assert summary(records) == [(code, 1), ("q1", ["d1"]), WHOLE[1]]
    assert "document 'd2' of " in records[0].message


def test_an_empty_query_is_rejected(tmp_path):
    placed(tmp_path, TREC[:2], queries=[{"_id": "q1", "text": " "}])
    (record,) = read(tmp_path)
    assert (record.code, record.id) == ("empty_query", "q1")


def test_bad_lines_of_the_corpus_are_told_and_remembered_where_a_document_is_missing(tmp_path):
    placed(tmp_path, ["q1 Q0 torn 1 1 t"], corpus=[*beir_corpus(), {"text": "no id"}, b'{"_id": "torn'])
    said = []
    (record,) = read(tmp_path, notify=said.append)
    told = f"2 bad lines are left out, the first: {tmp_path / 'corpus.jsonl'}:5: there is no id (got text)"
    assert [line for line in said if told in line]
    assert told in record.message


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("q1 Q0 d1 2 x bm25", "bad_score"),
        ("q1 Q0 d1 2 nan bm25", "bad_score"),
        ("q1 Q0 d1", "bad_columns"),
        ("q1 Q0 d2 2 1 bm25", "duplicate_id"),
        ("q1 Q0 \udcff 2 1 bm25", "bad_utf8"),
    ],
)
def test_a_bad_row_of_a_run_is_rejected_alone(tmp_path, line, code):
    run = "\n".join([TREC[0], line, *TREC[1:]]).encode("utf-8", "surrogateescape")
    placed(tmp_path, run)
    assert summary(read(tmp_path)) == [(code, 2), *WHOLE]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"query-id": "q1", "corpus-ids": ["d1", "d1"]}, "duplicate_id"),
        ({"query-id": "q1", "corpus-ids": ["d1", None]}, "bad_id"),
        ({"query-id": "q1", "corpus-ids": "d1"}, "bad_documents"),
        ({"query-id": "q1"}, "no_candidates"),
        ({"corpus-ids": ["d1"]}, "missing_query_id"),
        ({"query-id": "q1", "docid": "d1", "rank": 0}, "bad_rank"),
        ({"query-id": [], "docid": "d1"}, "bad_id"),
        (7, "not_an_object"),
    ],
)
def test_a_bad_list_is_rejected(tmp_path, row, code):
    placed(tmp_path, lines({"query-id": "2", "corpus-ids": ["44"]}, row))
    assert summary(read(tmp_path)) == [(code, 2), ("2", ["44"])]


@pytest.mark.parametrize("row", [{"query-id": "q1", "corpus-ids": []}, {"query-id": "q1", "corpus-ids": {}}])
def test_a_query_of_a_run_may_have_no_candidates(tmp_path, row):
    placed(tmp_path, lines(row, {"query-id": "2", "corpus-ids": ["44"]}))
    assert summary(read(tmp_path)) == [("q1", []), ("2", ["44"])]


def test_a_query_that_returns_is_rejected_with_the_flag_that_mends_it(tmp_path):
    placed(tmp_path, [TREC[0], TREC[2], TREC[1], TREC[3]])
    records = read(tmp_path)
    assert summary(records) == [("q1", ["d2"]), ("query_returned", 3), ("2", ["日本-3", "44"])]
    assert "Fix: --sort" in records[1].message
    assert f"first at {tmp_path / 'run.trec'}:1" in records[1].message


def test_a_run_in_any_order_can_be_sorted(tmp_path):
    placed(tmp_path, [TREC[0], TREC[2], TREC[1], TREC[3]])
    assert summary(read(tmp_path, sort=True)) == WHOLE


@pytest.mark.parametrize("run", [b"", b"\n", b"{}", b"[]"])
def test_an_empty_run_has_no_records(tmp_path, run):
    placed(tmp_path, run)
    assert read(tmp_path) == read(tmp_path, answer_unlisted=True) == []


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (b"seven columns are more than a run has\n", "not a known run format .got 8 columns"),
        (b"a\n", "not a known run format .got 1 columns"),
        (b'{"query": "q", "documents": ["d"]}', "not a known run format .got query, documents"),
        (b'{"a": {"b": {"q": {"d": 1}}, "c": {"q": {"d": 1}}}}', "several sets of results .got b, c"),
        (b'{"q1": {"d1": 1}', "broken JSON"),
    ],
)
def test_a_file_that_is_no_run_is_refused(tmp_path, run, complaint):
    placed(tmp_path, run)
    with pytest.raises(InputError, match=complaint):
        read(tmp_path)


def test_every_batch_size_gives_the_same_records(tmp_path, monkeypatch):
    placed(tmp_path, [*TREC[:2], "q1 Q0 nowhere 3 1 t", *TREC[2:], "q3 Q0 d1 1 1 t", "q4 Q0 d1 1 1 t"])
    expected = read(tmp_path)
    for pairs, held in ((1, 1 << 20), (3, 1), (1000, 1)):
        monkeypatch.setattr(joining, "_BATCH_PAIRS", pairs)
        monkeypatch.setattr(joining, "_BATCH_BYTES", held)
        assert read(tmp_path) == expected


def taken_before(source, error):
    """The records that come before the error that ends them."""
    records = []
    with pytest.raises(InputError, match=error):
        records.extend(record for record in source if records.append(record))
    source.close()
    return summary(records)


def test_all_that_was_read_of_a_run_comes_before_the_error_that_it_is_cut(tmp_path):
    placed(tmp_path)
    path = tmp_path / "run.trec"
    path.write_bytes(gzip.compress(path.read_bytes())[:-4])
    assert taken_before(open_source(options(tmp_path)), "ends too early") == WHOLE[:1]


@pytest.mark.parametrize("pairs", [1, 1000])
def test_nothing_comes_twice_before_the_error_that_a_corpus_changed(tmp_path, monkeypatch, pairs):
    monkeypatch.setattr(joining, "_BATCH_PAIRS", pairs)
    monkeypatch.setattr(joining, "_BATCH_BYTES", 1)
    placed(tmp_path)
    source = open_source(options(tmp_path))
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(lines(*beir_corpus()[:2]))
    assert taken_before(source, "was changed while it was read") == WHOLE[:1]


@pytest.mark.parametrize("unlisted", [False, True])
@pytest.mark.parametrize("kind", ["trec", "lists", "results", "array", "parquet", "sorted"])
def test_from_every_place_the_rest_comes_out(tmp_path, kind, unlisted):
    placed(tmp_path)
    found = [(f"q{n % 3 + 1}-{n}", [d for d in DOCUMENTS if (n + len(d)) % 3]) for n in range(12)]
    queries = [{"_id": q, "text": f"query {q}"} for q, _ in found if q != "q1-3"]
    queries[4:4] = [{"_id": f"more {n}", "text": "more"} for n in range(3)]
    (tmp_path / "queries.jsonl").write_bytes(lines(*queries))
    rows = [(q, d) for q, ids in found for d in [*ids, "nowhere"]]
    rows = sorted(rows, key=lambda row: row[1]) if kind == "sorted" else rows
    lists = [{"query-id": q, "corpus-ids": ids} for q, ids in found]
    data = {
        "lists": lines(*lists, {"query-id": "q1", "corpus-ids": 7}),
        "results": json.dumps({q: dict.fromkeys(ids, 1) for q, ids in found}, indent=2).encode(),
        "array": json.dumps(lists).encode(),
    }.get(kind, "".join(f"{q} Q0 {d} 1 1 t\n" for q, d in rows).encode() + b"bad row\n")
    run = "run.parquet" if kind == "parquet" else "run.trec"
    save(tmp_path / run, lists) if kind == "parquet" else (tmp_path / run).write_bytes(data)
    given = options(tmp_path, run=run, sort=kind == "sorted", answer_unlisted=unlisted)
    source = open_source(given)
    source.keep_memory_in(tmp_path / "log")
    records = list(source)
    kept = source.sync()
    places = [record.position.place for record in records]
    assert len(set(places)) > 8
    assert [record.id for record in records if record.position.path.endswith("queries.jsonl")] == [
        f"more {n}" for n in range(3 * unlisted)
    ]
    for place in set(places):
        again = open_source(given)
        again.keep_memory_in(tmp_path / "log")
        first = places.index(place)
        assert again.go_to(place, first, Shape.RERANK, kept)
        assert list(again) == records[first:]
        assert again.bytes_read == again.total_bytes
        again.close()
    source.close()


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("q.jsonl", b'{"_id":"q1","text":"a"}\n\n{bad\n{"_id":"q7","text":"b"}\n{"_id":"2","text":"c"}\n', 4),
        ("q.tsv", b"id\ttext\nq1\ta\nq7\tb\n2\tc\n", 3),
        ("q.csv", b"id,text\nq1,a\nq7,b\n2,c\n", 2),
        ("q.jsonl.gz", gzip.compress(b'{"_id":"q1","text":"a"}\n{"_id":"q7","text":"b"}\n{"_id":"2","text":"c"}\n'), 2),
    ],
    ids=["jsonl", "tsv", "csv", "gzip"],  # of its own, a gzip file would have the time in its name
)
def test_a_query_that_the_run_does_not_name_has_its_place_in_the_queries(tmp_path, name, content, line):
    placed(tmp_path)
    (tmp_path / name).write_bytes(content)
    record = read(tmp_path, queries=name, answer_unlisted=True)[-1]
    assert (record.id, record.query, record.candidates) == ("q7", "b", ())
    assert (record.position.path, record.position.line) == (str(tmp_path / name), line)


@pytest.mark.parametrize("kind", ["numbers", "text"])
def test_ids_of_queries_that_a_run_does_not_name_have_the_type_of_the_others(tmp_path, kind):
    run = lines({"query_id": 1, "docid": "44", "score": 1}) if kind == "numbers" else ["1 Q0 44 1 1 t"]
    placed(tmp_path, run, queries=[{"id": 7, "text": "a"}, {"id": 1, "text": "b"}, {"id": 7, "text": "a"}])
    found = [record.id for record in read(tmp_path, answer_unlisted=True)]
    assert found == ([1, 7] if kind == "numbers" else ["1", "7"])


def test_a_query_all_of_whose_rows_are_bad_is_not_answered_too(tmp_path):
    rows = lines({"query_id": "q1", "docid": "d1", "score": 1}, {"query_id": "2", "docid": "d1", "score": "x"})
    placed(tmp_path, rows)
    assert summary(read(tmp_path, answer_unlisted=True)) == [("bad_score", 2), ("q1", ["d1"]), ("q3", [])]


def test_of_the_queries_that_a_run_does_not_name_only_judged_ones_may_be_answered(tmp_path):
    placed(tmp_path, TREC[:2])
    (tmp_path / "qrels").write_text("query-id\tcorpus-id\tscore\nq3\td1\t1\n")
    assert summary(read(tmp_path, answer_unlisted=True, judged=str(tmp_path / "qrels"))) == [WHOLE[0], ("q3", [])]


def test_a_query_that_cannot_be_used_is_a_bad_record_if_it_is_to_be_answered(tmp_path):
    placed(
        tmp_path, queries=[*({"_id": key, "text": text} for key, text in QUERIES.items()), {"_id": "q4", "text": " "}]
    )
    assert summary(read(tmp_path, answer_unlisted=True)) == [*WHOLE, ("q3", []), ("empty_query", 4)]


def test_flags_of_other_inputs_are_refused(tmp_path):
    placed(tmp_path)
    for flags in ({"shape": Shape.PAIRS}, {"documents_field": "x"}):
        with pytest.raises(UsageError, match="--run"):
            read(tmp_path, **flags)
    with pytest.raises(UsageError, match="stdin can be read once"):
        read(tmp_path, run=["-", "-"])


def test_what_is_there_to_read_is_described(tmp_path):
    placed(tmp_path)
    source = open_source(options(tmp_path))
    assert source.description == "a TREC run, 3 queries and 4 documents by id"
    assert len(source.stamps) == 3
    source.close()
