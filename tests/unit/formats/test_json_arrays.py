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
