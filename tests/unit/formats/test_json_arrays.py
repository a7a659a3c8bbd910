"""A file that is one JSON array, as Anserini and RankLLM write them."""

import gzip
import json
import random

import pytest

from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.reading import arrays
from rerank_cli.records import Rejection, Shape

ANSERINI = [
    {
        "query": {"qid": n, "text": f'a "query" {{{n}}} \\'},
        "candidates": [{"docid": f"d{n}", "score": 1.5, "doc": {"contents": "text ] ü " * n}}],
    }
    for n in range(1, 8)
]


def array(*elements):
    return b"[" + b",".join(e if isinstance(e, bytes) else json.dumps(e).encode() for e in elements) + b"]"


def summary(records):
    return [(r.code, r.position.line) if isinstance(r, Rejection) else r.id for r in records]


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("ascii", [True, False])
def test_elements_are_records_however_they_are_laid_out(read, write, indent, ascii):
    records = read(write(b" \n" + json.dumps(ANSERINI, indent=indent, ensure_ascii=ascii).encode() + b"\n"))
    assert summary(records) == [1, 2, 3, 4, 5, 6, 7]
    assert [r.query for r in records] == [r["query"]["text"] for r in ANSERINI]
    assert [r.candidates[0].source["doc"] for r in records] == [r["candidates"][0]["doc"] for r in ANSERINI]
    assert {r.shape for r in records} == {Shape.CANDIDATES}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_the_size_of_what_is_read_at_a_time_does_not_matter(read, write, monkeypatch, size):
    path = write(json.dumps(ANSERINI, indent=1).encode())
    expected = read(path)
    monkeypatch.setattr(arrays, "_READ", size)
    assert read(path) == expected


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_from_every_place_the_rest_comes_out(write, pack):
    path = write(pack(b"\xef\xbb\xbf" + json.dumps(ANSERINI, indent=1).encode()))
    records = list(open_source(InputOptions((path,))))
    for number, record in enumerate(records):
        source = open_source(InputOptions((path,)))
        assert source.go_to(record.position.place, number, Shape.CANDIDATES, None)
        assert list(source) == records[number:]
        assert source.bytes_read == source.total_bytes


def test_an_empty_array_has_no_records(read, write):
    assert read(write(b"[ ]\n")) == []


def test_a_bad_element_is_rejected_alone(read, write):
    bad = [b"{]", b"17", b'"text"', b'{"query": nonsense}', b"{}"]
    records = read(write(array(*[e for one, b in zip(ANSERINI, bad, strict=False) for e in (one, b)], ANSERINI[6])))
    codes = [("bad_json", 2), ("not_an_object", 4), ("not_an_object", 6), ("bad_json", 8), ("missing_query", 10)]
    assert summary(records) == [1, codes[0], 2, codes[1], 3, codes[2], 4, codes[3], 5, codes[4], 7]


@pytest.mark.parametrize(
    "end", [b"", b",", b",]", b"]]", b"] x", b",,{}]", b',{"query": "', b',{"a": [', b"{}]", b",12"]
)
def test_where_the_array_breaks_the_last_row_says_so(read, write, end):
    records = read(write(array(*ANSERINI[:2])[:-1] + end))
    assert summary(records) == [1, 2, ("torn_array", 3)]
    assert "no element after it can be read" in records[-1].message


def test_an_element_beyond_all_bounds_ends_the_array(read, write, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_LINE", 1000)
    monkeypatch.setattr(arrays, "_READ", 100)
    (record,) = read(write(array({"query": "q", "documents": ["d" * 3000]})))
    assert record.code == "torn_array"


def test_any_value_comes_out_as_it_went_in(tmp_path, monkeypatch):
    rng = random.Random(11)

    def value(depth=0):
        kind = rng.randrange(7 if depth < 4 else 4)
        if kind == 5:
            return [value(depth + 1) for _ in range(rng.randrange(4))]
        if kind == 6:
            return {text(): value(depth + 1) for _ in range(rng.randrange(4))}
        return [rng.random(), rng.randrange(9), None, True, text()][kind]

    def text():
        return "".join(rng.choices('"\\[]{},: \nüx', k=rng.randrange(9)))

    monkeypatch.setattr(arrays, "_READ", 5)
    path = tmp_path / "in.json"
    for _ in range(100):
        values = [value() for _ in range(rng.randrange(6))]
        path.write_text(json.dumps(values, ensure_ascii=bool(rng.randrange(2))))
        with path.open("rb") as file:
            assert [row.value for row in arrays.array_rows(file, "in.json")] == values


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b"\n \n"])
@pytest.mark.parametrize("between", ["\n", "", " \n\n"])
@pytest.mark.parametrize("indent", [0, 1, 4])
def test_objects_over_several_lines_follow_each_other(read, write, begin, between, indent):
    records = read(write(begin + between.join(json.dumps(record, indent=indent) for record in ANSERINI).encode()))
    assert summary(records) == [1, 2, 3, 4, 5, 6, 7]
    lines = [record.position.line for record in records]
    assert lines[0] == 1 + begin.count(b"\n")
    assert lines == sorted(lines)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_objects_may_be_read_in_any_pieces(read, write, monkeypatch, size):
    path = write("\n".join(json.dumps(record, indent=2) for record in ANSERINI).encode())
    expected = read(path)
    monkeypatch.setattr(arrays, "_READ", size)
    assert read(path) == expected


def test_a_broken_object_is_rejected_alone_with_the_line_where_it_breaks(read, write):
    whole = [json.dumps({"id": n, "query": "q", "documents": ["a"]}, indent=1) for n in range(3)]
    whole[1] = whole[1].replace('"q"', "q")
    one, bad, two = read(write("\n".join(whole).encode(), name="in.json"))
    assert (one.id, two.id) == (0, 2)
    assert (bad.code, bad.position.line) == ("bad_json", 8)
    assert "at line 10, column 1" in bad.message


@pytest.mark.parametrize("end", [2, 20, -3])
def test_an_object_that_does_not_end_is_the_last(read, write, end):
    whole = [json.dumps({"id": n, "query": "q", "documents": ["a"]}, indent=1) for n in range(2)]
    one, torn = read(write(f"{whole[0]}\n{whole[1][:end]}".encode(), name="in.json"))
    assert (one.id, torn.code, torn.position.line) == (0, "torn_object", 8)
    assert "no record after it can be read" in torn.message


@pytest.mark.parametrize("line", [b'{"query": "q", "documents": ["a"]}', b'{"query": "q"', b'{"query": "q",'])
def test_lines_of_objects_stay_lines_whatever_is_broken_in_them(read, write, line):
    records = read(write(line + b"\n" + line + b"\n" + b'{"query": "r", "documents": ["b"]}\n'))
    assert [record.position.line for record in records] == [1, 2, 3]


def test_one_object_without_a_newline_is_a_record(read, write):
    (record,) = read(write(b'{"query": "q", "documents": ["a"]}', name="in.json"))
    assert record.query == "q"
