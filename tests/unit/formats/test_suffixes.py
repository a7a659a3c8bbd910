"""The suffix of an output is honoured or refused; one that names no kind of file stays allowed."""

import csv
import io
import json
import lzma

import orjson
import pytest

from rerank_cli.choices import OutputFormat, ScoreKind
from rerank_cli.errors import OutputError, UsageError
from rerank_cli.formats import AnswerOptions, OutputOptions, check_output
from rerank_cli.formats.writing.sinks import check_side_file, open_lines
from rerank_cli.records import Ranking
from rerank_cli.reports.page import ReportOptions, check_page

API, RAW = OutputFormat.API, ScoreKind.RAW
COLUMNS = ["query_id", "query", "docid", "text", "retrieval_score", "index", "relevance_score", "rank", "extra"]

# Suffixes, and the formats that they fit.
HONOURED = [
    ("- .out .txt .log .2024-01-01 .v1.5 .txt.gz", list(OutputFormat)),
    (".jsonl .ndjson .JSONL .jsonl.gz .jsonl.xz .json .json.xz", ["api", "pairs", "openai-batch"]),
    (".csv .tsv .CSV .csv.gz .tsv.zst", ["pairs"]),
    (".parquet .pq .PARQUET", ["api", "pairs"]),
    (".json .json.gz .run", ["beir", "flagembedding"]),
    (".trec .run .trec.gz", ["trec"]),
    (".tsv .run .tsv.gz", ["msmarco"]),
]
# Suffixes, formats that they do not fit, and what is said.
REFUSED = [
    (".csv .tsv .csv.xz", ["api", "trec", "beir", "openai-batch"], r"holds rows of pairs \(got --format"),
    (".csv", ["msmarco"], "holds rows of pairs .*Fix: the suffix .tsv"),
    (".csv", ["api"], "holds rows of pairs .*Fix: --format pairs, or another suffix"),
    (".jsonl .ndjson .json .json.gz", ["trec", "msmarco"], "is not JSON. Fix: the suffix .t"),
    (".jsonl .jsonl.gz", ["beir", "flagembedding"], "is one JSON object, not JSON lines. Fix: the suffix .json"),
    (".trec .run .trec.gz", ["api", "pairs", "openai-batch"], "holds a run .*Fix: --format trec, or"),
    (".trec", ["msmarco", "beir"], "holds a run"),
    (".parquet", ["trec", "beir", "openai-batch"], "Parquet does not support --format"),
    (".parquet.gz", ["api"], r"Parquet is compressed inside. Fix: -o .*out\.parquet$"),
    (
        ".xlsx .arrow .feather .zip .db .html .tgz .xlsx.gz",
        ["api", "pairs"],
        r"is not written. Fix: \.jsonl, .*--format p",
    ),
    (".arrow", ["trec"], "is not written. Fix: the suffix .trec"),
]


def cases(table):
    return [
        (f"out{suffix}".removesuffix("-"), OutputFormat(format), *said)
        for suffixes, formats, *said in table
        for suffix in suffixes.split()
        for format in formats
    ]


def options(path, format, **more):
    return OutputOptions(str(path), format, AnswerOptions("m"), **more)


@pytest.mark.parametrize(("name", "format"), cases(HONOURED))
def test_a_suffix_that_fits_or_means_nothing_is_accepted(tmp_path, name, format):
    check_output(options(tmp_path / name, format), [])


@pytest.mark.parametrize(("name", "format", "message"), cases(REFUSED))
def test_a_suffix_that_lies_is_refused(tmp_path, name, format, message):
    with pytest.raises(UsageError, match=rf"out.*: .*{message}") as refused:
        check_output(options(tmp_path / name, format), [])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("there", [False, True])
def test_a_name_that_ends_with_a_slash_is_a_folder(tmp_path, there):
    if there:
        (tmp_path / "outdir").mkdir()
    folder = f"{tmp_path}/outdir/"
    with pytest.raises(
        OutputError, match=r"is the name of a folder .*Fix: a file in it, such as .*/outdir/out\.jsonl$"
    ):
        check_output(options(folder, API), [])
    for flag in ("--errors", "--summary", "--cache"):
        with pytest.raises(OutputError, match="is the name of a folder"):
            check_side_file(folder, flag, options("-", API), [])


def test_side_files_and_pages_have_a_suffix_of_their_own(tmp_path):
    for flag, name, what in (
        ("--errors", "bad.csv", "JSON lines"),
        ("--errors", "bad.json", "JSON lines"),
        ("--summary", "figures.csv", "one JSON object"),
    ):
        with pytest.raises(UsageError, match=rf"{name}: is written as {what} \(got the suffix .*Fix: use \.json"):
            check_side_file(str(tmp_path / name), flag, options("-", API), [])
    check_side_file(str(tmp_path / "cache.db"), "--cache", options("-", API), [])
    with pytest.raises(UsageError, match=r"is written as an HTML page \(got the suffix \.json\). Fix: use \.html"):
        check_page(str(tmp_path / "page.json"), ReportOptions(str(tmp_path / "out.jsonl")), overwrite=False)


def test_answers_in_json_are_one_array(save, ranking, rejection):
    path = save([ranking([1], id=1), ranking([2], id=2), rejection, ranking([3], id=3)], "out.json")
    assert [answer["id"] for answer in orjson.loads(path.read_bytes())] == [1, 2, 3]
    pairs = save([ranking([1, 2]), ranking([3])], "pairs.json", format="pairs")
    assert [row["rank"] for row in orjson.loads(pairs.read_bytes())] == [1, 2, 1]
    assert orjson.loads(save([], "none.json").read_bytes()) == []


def test_xz_is_written_in_members(save, ranking):
    path = save([ranking([1])] * 3, "out.jsonl.xz")
    assert len(lzma.decompress(path.read_bytes()).splitlines()) == 3


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t"), ("csv.xz", ",")])
def test_pairs_are_rows_of_csv_with_a_header(save, only, ranking, suffix, delimiter):
    text = 'two\nlines, a\ttab and a "quote"'
    documents = [{"id": "d1", "text": text, "lang": "en"}, {"id": "d2", "text": "", "score": 1.5}]
    request = only({"id": "q1", "query": "q", "documents": documents})
    found = ranking([0, 4], candidates=request.candidates)
    content = save([found], f"out.{suffix}", format="pairs").read_bytes()
    content = lzma.decompress(content) if suffix.endswith("xz") else content
    header, first, second = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=delimiter)
    assert header == [*COLUMNS[:3], "title", *COLUMNS[3:]]
    assert dict(zip(header, first, strict=True)) | {"relevance_score": ""} == {
        **dict.fromkeys(header, ""), "query_id": "q1", "query": "a query", "docid": "d2", "index": "1", "rank": "1",
        "retrieval_score": "1.5",
    }  # fmt: skip
    assert second[header.index("text")] == text
    assert json.loads(second[header.index("extra")]) == {"lang": "en"}


@pytest.mark.parametrize(
    "content", [b'a b,query,text,"x,y"\n7,q,t,"z ""1"""\n', b'"a b"\t"query"\t"text"\n7\tq\t"a\tb"\n']
)
def test_rows_of_csv_keep_their_columns(open_files, write, save, content):
    name = "csv" if b"," in content else "tsv"
    source = open_files(write(content, name=f"in.{name}"))
    (request,) = source
    found = Ranking(request, [2.0], [0], 1)
    written = save([found], f"out.{name}", format="pairs", columns=source.columns, shape=source.shape, scores=RAW)
    header, row = written.read_bytes().splitlines()
    added = (b",relevance_score,rank", b",2.0,1") if name == "csv" else (b'\t"relevance_score"\t"rank"', b"\t2.0\t1")
    assert [header.removesuffix(added[0]), row.removesuffix(added[1])] == content.splitlines()


def test_an_output_without_rows_has_its_header(save):
    assert save([], "out.csv", format="pairs").read_text().startswith("query_id,query,docid,")
    assert save([], "out.tsv", format="pairs").read_text().startswith('"query_id"\t"query"\t')


def test_a_rejection_among_rows_is_a_row_with_an_error(save, ranking, rejection):
    path = save([rejection, ranking([1])], "out.csv", format="pairs", keep_errors=True)
    bad, good = csv.DictReader(io.StringIO(path.read_text(), newline=""))
    assert json.loads(bad["error"]) == {"code": "bad_json", "message": "broken JSON", "line": 7}
    assert (bad["query_id"], bad["relevance_score"], good["error"]) == ("q7", "", "")


def test_other_commands_write_json_lines_or_an_array(tmp_path):
    for name in ("train.csv", "train.parquet", "train.trec", "train.xlsx"):
        with pytest.raises(UsageError, match=r"is written as JSON lines \(got the suffix \.\w+\). Fix: use \.jsonl"):
            open_lines(str(tmp_path / name), [], False, None)
    for name in ("train.jsonl.xz", "train.json", "train.txt", "train"):
        sink = open_lines(str(tmp_path / name), [], False, None)
        sink.write([{"a": 1}, {"a": 2}])
        sink.publish()
    assert json.loads((tmp_path / "train.json").read_bytes()) == [{"a": 1}, {"a": 2}]
    assert (tmp_path / "train").read_bytes() == b'{"a":1}\n{"a":2}\n'
