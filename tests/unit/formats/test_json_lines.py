import json
import tracemalloc

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.reading import lines
from rerank_cli.records import Rejection, Request

GOOD = {"id": "q", "query": "a", "documents": ["b"]}
LINE = orjson.dumps(GOOD) + b"\n"


def test_one_byte_order_mark_is_dropped(read, write):
    (record,) = read(write(b"\xef\xbb\xbf" + LINE))
    assert record.query == "a"


def test_a_second_byte_order_mark_is_a_bad_record(read, write):
    (record,) = read(write(b"\xef\xbb\xbf\xef\xbb\xbf" + LINE))
    assert record.code == "bad_json"


def test_carriage_returns_before_newlines_are_accepted(read, write):
    records = read(write(LINE.replace(b"\n", b"\r\n") * 2))
    assert [record.position.line for record in records] == [1, 2]


def test_blank_lines_are_skipped_and_counted(read, write):
    records = read(write(b"\n", LINE, b"  \t\r\n", b"\n", LINE))
    assert [record.position.line for record in records] == [2, 5]


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\u000b"])
def test_only_the_newline_byte_ends_a_line(only, char):
    text = f"one{char}two"
    assert only({"query": text, "documents": [text]}).candidates[0].text == text


def test_a_bare_carriage_return_does_not_end_a_line(read, write):
    (record,) = read(write(b'{"query": "a",\r"documents": ["b"]}\n'))
    assert record.candidates[0].text == "b"


def test_a_whole_last_line_needs_no_newline(read, write):
    assert isinstance(read(write(LINE.rstrip()))[0], Request)


def test_an_empty_file_has_no_records(read, write):
    assert read(write(b"")) == []


@pytest.mark.parametrize(
    ("line", "code", "part"),
    [
        (b'{"query": oops}\n', "bad_json", "column 11"),
        (b'{"query": "a"\n', "bad_json", "column 1"),
        (b'{"query": "a", "documents": ["b"', "torn_line", "cut off"),
        (b'{"query": "\xff"}\n', "bad_utf8", "byte 0xff at column 12"),
        (b'{"query": "\\ud800", "documents": ["b"]}\n', "bad_json", "surrogate"),
        (b"\0\0\0\0\n", "nul_bytes", "NUL"),
        (b"[[1]]\n", "not_an_object", "got a list"),
        (b'"text"\n', "not_an_object", "a string"),
        (b"null\n", "not_an_object", "null"),
        (b"[" * 5000 + b"]" * 5000 + b"\n", "bad_json", "depth"),
        (b'{"query": "a", "documents": ["b"], "x": ' + b"[" * 250 + b"]" * 250 + b"}\n", "too_deep", "nested"),
    ],
)
def test_a_line_that_cannot_be_used_has_a_code_and_a_reason(read, write, line, code, part):
    good, bad = read(write(LINE, line))
    assert isinstance(good, Request)
    assert bad.code == code
    assert part in bad.message.replace("is a list", "got a list")
    assert str(bad).startswith(bad.position.path + ":2: ")
    assert len(bad.message) < 300


def test_reading_goes_on_after_a_bad_line(read, write):
    kinds = [type(record) for record in read(write(LINE, b"{\n", LINE, b"\xff\n", LINE))]
    assert kinds == [Request, Rejection, Request, Rejection, Request]


def test_nesting_that_can_be_written_again_is_read(only):
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    assert only({**GOOD, "deep": deep}).extra == {"deep": deep}


def test_nul_characters_in_a_text_are_kept(only):
    assert only({"query": "a\0b", "documents": ["c\0"]}).query == "a\0b"


def test_a_line_over_the_limit_is_rejected_and_passed_over(read, write, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    long = orjson.dumps({"query": "a", "documents": ["b" * 500]}) + b"\n"
    before, bad, after = read(write(LINE, long, LINE))
    assert bad.code == "line_too_long"
    assert (before.position.line, bad.position.line, after.position.line) == (1, 2, 3)


def test_a_line_of_exactly_the_limit_is_read(read, write, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", len(LINE) - 1)
    assert all(isinstance(record, Request) for record in read(write(LINE, LINE)))


def test_a_long_line_is_read(only):
    assert len(only({"query": "a", "documents": ["b" * 5_000_000]}).candidates[0].text) == 5_000_000


def test_the_raw_line_of_a_bad_record_is_cut(read, write):
    (bad,) = read(write(b"{" + b"x" * 10_000 + b"\n"))
    assert bad.raw.startswith("{xxx")
    assert 400 < len(bad.raw) < 600


def test_a_message_never_carries_control_characters(read, write):
    (bad,) = read(write({"query": "a", "documents": [{"\x1b[31mred": 1}]}))
    assert bad.code == "missing_text"
    assert "\x1b" not in bad.message
    assert "\\x1b[31mred" in bad.message


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "big.jsonl"
    line = orjson.dumps({"query": "a", "documents": ["b" * 1000] * 20}) + b"\n"
    path.write_bytes(line * 1500)
    tracemalloc.start()
    source = open_source(InputOptions((str(path),)))
    count = sum(1 for _ in source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    source.close()
    assert count == 1500
    assert peak < 6_000_000 < path.stat().st_size / 4


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=60), st.just(LINE), st.just(b"\n"), st.just(b"\x1f\x8b")), max_size=6))
def test_any_bytes_give_records_or_one_error(tmp_path, parts):
    path = tmp_path / "fuzz"
    path.write_bytes(b"".join(parts))
    found, failure = [], ""
    try:
        source = open_source(InputOptions((str(path),)))
        found += source
        source.close()
    except InputError as error:
        failure = str(error)
    assert "\n" not in failure
    assert all(isinstance(record, Request | Rejection) for record in found)


NAMES = ["id", "query", "documents", "text_1", "text_2", "candidates", "body", "custom_id", "text", "docid", "query_id"]
NAMES += [
    "title",
    "score",
    "doc",
    "top_n",
    "instruction",
    "return_documents",
    "pos",
    "neg",
    "qid",
    "max_tokens_per_doc",
]
VALUES = [
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    1e300,
    "",
    " ",
    "a",
    "\0",
    [],
    {},
    ["a"],
    ["a", None],
    [1],
    [["a"]],
    {"text": "a"},
]
VALUES += [
    {"text": None},
    {"text": "q", "qid": 1},
    [{"text": "a", "id": 1}],
    [{"text": "a", "id": 1}, {"text": "b", "id": 1}],
]
VALUES += [{"query": "q", "documents": ["a"]}, {"text_1": "q", "text_2": "a"}, [{"docid": 1, "doc": {"body": "a"}}]]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=5), max_size=4))
@example([{"id": {}, "query": {}}])
def test_any_objects_give_requests_that_hold_what_they_promise(tmp_path, objects):
    path = tmp_path / "fuzz"
    path.write_text("".join(json.dumps(value) + "\n" for value in objects))
    source = open_source(InputOptions((str(path),)))
    for record in source:
        assert record.id is not None
        if isinstance(record, Request):
            assert record.query.strip()
            assert record.candidates or [] in objects[record.position.line - 1].values()
            assert all(isinstance(candidate.text, str) for candidate in record.candidates)
            assert record.top_n is None or record.top_n >= 1
    source.close()
