"""CSV as RFC 4180 defines it, and its dialects."""

import csv
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.choices import InputFormat
from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.reading import csv_rows
from rerank_cli.records import Rejection, Shape

HEADER = "query_id,query,docid,text,score\n"
PLAIN = [("1", "1,q,1,t,0.5\n"), ("2", "2,q,1,t,1\n")]
BAD_ROWS = {
    "too few": ("3,q,1\n", "bad_columns", "the row has 3 columns (expected 5)"),
    "too many": ("3,q,1,t,1,\n", "bad_columns", "the row has 6 columns (expected 5)"),
    "stray quote": ('3,"q" x,1,t,1\n', "bad_csv", "a cell goes on after its closing quote"),
    "backslash": ('3,"q \\"x\\"",1,t,1\n', "bad_csv", "Fix: write it with quotes doubled (Spark: .option("),
    "bytes": (b"3,q,1,\xe4,1\n", "bad_utf8", "Fix: iconv -f WINDOWS-1252 -t UTF-8"),
    "no query": ("3,,1,t,1\n", "empty_query", "query"),
}
HEADERS = {
    "no names": ("a,b\n1,2\n", r"in\.csv:1: the first line has no known column name \(got a, b; .*Fix: add a line of"),
    "twice": ("query,text,text\nq,a,b\n", r"several columns have one name \(got text more than once\)"),
    "a torn quote": ('query,"text\n', r"in\.csv:1: the header: a quoted cell of the row does not end"),
    "bytes": (b"query,text,\xe4\n", r"in\.csv:1: the row is not valid UTF-8"),
    "old Mac": (b"query,text\rq,t\r", r"its lines end with CR alone .*Fix: tr"),
    "no documents": ("query_id,query\n1,q\n", "no shape fits its columns"),
    "a bare string": ("query,documents\nq,d\n", r"`documents` is not a list .*Fix: lists of strings, in CSV as JSON"),
}


def encoded(*parts):
    return b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)


def pairs_of(records):
    return [(r.id, r.query, [(c.id, c.text, c.score) for c in r.candidates]) for r in records]


@pytest.mark.parametrize("name", ["in.csv", "in.CSV", "in.txt", "in"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_cells_may_hold_delimiters_quotes_and_line_breaks(read, write, name, begin, end):
    rows = '1,"q",d0,"a, ""b""",1.5\n1,"q","d1","two\nlines, and\n\nmore",2\n'
    records = read(write(encoded(begin, (HEADER + rows).replace("\n", end)), name=name))
    expected = [("d0", 'a, "b"', 1.5), ("d1", "two\nlines, and\n\nmore".replace("\n", end), 2.0)]
    assert pairs_of(records) == [("1", "q", expected)]


@pytest.mark.parametrize(
    ("delimiter", "number"), [(",", "1.5"), (";", "1,5"), (";", "1.5"), ("\t", "1.5"), ("|", "1.5")]
)
def test_the_delimiter_is_the_one_that_makes_known_names(read, write, delimiter, number):
    row = delimiter.join(["1", '"q, r; s|t"', "d1", '"x\ny"', number])
    content = encoded(HEADER.replace(",", delimiter), row)
    assert pairs_of(read(write(content, name="in.csv"))) == [("1", "q, r; s|t", [("d1", "x\ny", 1.5)])]


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n \r\n"])
def test_the_last_line_may_end_anyhow_and_blank_lines_are_skipped(read, write, end):
    (record,) = read(write(encoded(HEADER, "\n1,q,d,t,1", end), name="in.csv"))
    assert record.candidates[0].text == "t"


def test_an_empty_cell_is_null_but_for_query_and_text(read, write):
    content = encoded("query_id,query,docid,title,text,score,note\n", '1,q,d,,,,\n1,q,e,"","",2,n\n')
    (record,) = read(write(content, name="in.csv"))
    assert [(c.text, c.score, c.source.row["note"]) for c in record.candidates] == [("", None, None), ("", 2.0, "n")]


def test_ids_keep_their_digits(read, write):
    (record,) = read(write(encoded(HEADER, "007,q,1.0,t,1\n"), name="in.csv"))
    assert (record.id, record.candidates[0].id) == ("007", "1.0")


def test_a_score_column_with_other_words_among_its_first_rows_is_text(read, write):
    (record,) = read(write(encoded(HEADER, "1,q,a,t,n/a\n1,q,b,t,1\n"), name="in.csv"))
    assert [c.score for c in record.candidates] == [None, None]
    assert record.candidates[1].source.row["score"] == "1"


@pytest.mark.parametrize("score", ["one", "1e999", "nan", "1 000", "1_0"])
def test_a_score_that_is_no_number_is_a_bad_record_after_many_that_are(read, write, score):
    rows = [f"{n},q,d,t,{n}\n" for n in range(200)]
    records = read(write(encoded(HEADER, *rows, f"bad,q,d,t,{score}\n"), name="in.csv"))
    (bad,) = [record for record in records if isinstance(record, Rejection)]
    assert (bad.code, bad.position.line) == ("bad_score", 202)
    assert f"`score` is not a number (got '{score}'" in bad.message


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_rejected_alone(read, write, bad):
    row, code, message = bad
    records = read(write(encoded(HEADER, PLAIN[0][1], row, PLAIN[1][1]), name="in.csv"))
    bad = next(record for record in records if isinstance(record, Rejection))
    assert [record.id for record in records if record is not bad] == ["1", "2"]
    assert (bad.code, bad.position.line) == (code, 3)
    assert message in bad.message


def test_a_stray_quote_costs_one_row_not_all_up_to_the_next_quote(read, write):
    rows = ['3,"q,d,t,1\n', *(f"{n},q,d,t,1\n" for n in range(4, 8)), '8,"q",d,t,1\n']
    records = read(write(encoded(HEADER, *rows), name="in.csv"))
    assert [r.position.line for r in records] == [2, 3, 4, 5, 6, 7]
    assert [isinstance(r, Rejection) for r in records] == [True, False, False, False, False, False]


def test_a_row_beyond_all_bounds_is_rejected_alone(read, write, monkeypatch):
    monkeypatch.setattr(csv_rows, "MAX_ROW", 100)
    rows = ["3,q,d," + "x" * 500 + ",1\n", '4,q,d,"' + "x\n" * 200 + '",1\n', "5,q,d,t,1\n"]
    records = read(write(encoded(HEADER, *rows), name="in.csv"))
    assert (records[0].code, records[0].position.line) == ("bad_csv", 2)
    assert "too long, or a quoted cell does not end" in records[0].message
    assert records[1].position.line == 3
    assert records[-1].id == "5"


@pytest.mark.parametrize("bad", HEADERS.values(), ids=HEADERS)
def test_a_header_that_cannot_be_used_is_one_error(read, write, bad):
    content, message = bad
    with pytest.raises(InputError, match=message):
        read(write(encoded(content), name="in.csv"))


def test_requests_in_csv_have_lists_in_json(read, write):
    rows = ['1,q,"[""a"", ""b, \\""c\\""""]"\n', "2,q,[]\n", "3,q,[1]\n", "4,q,\n"]
    one, none, bad, empty = read(write(encoded("id,query,documents\n", *rows), name="in.csv"))
    assert one.shape is Shape.RERANK
    assert [c.text for c in one.candidates] == ["a", 'b, "c"']
    assert none.candidates == ()
    assert (bad.code, empty.code) == ("bad_documents", "no_candidates")


def test_training_data_and_scores_are_read_from_columns(read, write):
    (train,) = read(write(encoded('query,pos,neg\nq,"[""a""]","[""b"", ""c""]"\n'), name="train.csv"))
    assert (train.shape, [c.text for c in train.candidates]) == (Shape.TRAIN, ["a", "b", "c"])
    (score,) = read(write(encoded("text_1,text_2\nq,[Music] plays\n"), name="score.csv"))
    assert (score.shape, [c.text for c in score.candidates]) == (Shape.SCORE, ["[Music] plays"])


def test_a_mapped_name_is_a_known_one(read, write):
    path = write(encoded("frage;antwort\nq;t\n"), name="in.csv")
    (record,) = read(path, query_field="frage", text_field="antwort")
    assert (record.query, record.candidates[0].text) == ("q", "t")


@pytest.mark.parametrize(
    ("content", "quoted"),
    [
        ('"query"\t"text"\n"q"\t"t"\n', True),
        ('query\ttext\nq\t"a ""b"" c"\n', True),
        ('query\ttext\nq\t"two\nlines"\n', True),
        ('query\ttext\nq\t"hi" she said\n', False),
        ('query\ttext\nq\t"hi"\n', False),
        ('query\ttext\nq\t5" disk\nr\t3"" disk\n', False),
        ('\tquery\ttext\n0\tq\t"tab\there"\n', True),
    ],
)
def test_tab_separated_lines_have_quotes_if_only_that_explains_them(open_files, write, content, quoted):
    source = open_files(write(content.encode(), name="in.tsv"))
    assert source.description == ("CSV, pairs" if quoted else "TSV, pairs")
    assert len(list(source)) == content.count("\n") - 1 - ("two\n" in content)


def test_the_format_may_be_given(read, write):
    path = write(b'query\ttext\nq\t"hi"\n', name="in.tsv")
    assert read(path)[0].candidates[0].text == '"hi"'
    assert read(path, format=InputFormat.CSV)[0].candidates[0].text == "hi"
    with pytest.raises(InputError, match="not a complete Parquet file"):
        read(path, format=InputFormat.PARQUET)
    with pytest.raises(InputError, match="not a complete Arrow stream or file"):
        read(path, format=InputFormat.ARROW)
    with pytest.raises(UsageError, match="tab-separated files hold pairs only"):
        read(path, format=InputFormat.TSV, shape=Shape.RERANK)


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        ("just some text\n", "--input-format, or a header of column names"),
        ("q1 Q0 d1 1 9.5 tag\n", "--run, for a run of ids"),
        ("a;b;c\n1;2;3\n", "--input-format, or a header of column names"),
    ],
)
def test_text_of_no_format_is_one_error_and_no_broken_line(read, write, content, fix):
    with pytest.raises(InputError, match=r"in\.txt:1: is neither JSON nor a table with a header") as refused:
        read(write(content.encode(), name="in.txt"))
    assert str(refused.value).endswith(f"Fix: {fix}")


def test_binary_data_of_an_unknown_kind_is_one_error(read, write):
    with pytest.raises(
        InputError, match=r"in\.bin: is binary data of an unknown kind \(got 7f 45 .*Fix: write its rows as"
    ):
        read(write(b"\x7fELF\2\1\1\0\0\0\n", name="in.bin"))


def test_csv_may_be_stdin(read, monkeypatch, write):
    with open(write(encoded(HEADER, *(row for _, row in PLAIN))), "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        records = read("-")
    assert [record.id for record in records] == ["1", "2"]
    assert str(records[1].position) == "<stdin>:3"


def test_several_files_have_one_kind_and_one_set_of_columns(read, write):
    one, two = (write(encoded(HEADER, row), name=f"{name}.csv") for name, row in PLAIN)
    assert [record.id for record in read(one, two)] == ["1", "2"]
    other = write(b"query,text\nq,t\n", name="other.csv")
    with pytest.raises(InputError, match=r"other\.csv: its columns or their types differ"):
        read(one, other)
    lines = write({"query": "q", "text": "t"}, name="lines.jsonl")
    with pytest.raises(InputError, match=r"lines\.jsonl: is not CSV \(other inputs are\)"):
        read(one, lines)


tables = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
        st.text("a,;\t|\"'\\ \r\n", max_size=8),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(tables, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_the_csv_module_writes_is_what_is_read(tmp_path_factory, rows, delimiter, end, quoted):
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    if not quoted:  # the module writes a carriage return without quotes
        rows = [(name.replace("\r", ""), text.replace("\r", "")) for name, text in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
        writer.writerow(["query", "docid", "text"])
        writer.writerows(["q", f"{n}{name}", text] for n, (name, text) in enumerate(rows))
    source = open_source(InputOptions((str(path),), format=InputFormat.CSV))
    (record,) = source
    source.close()
    assert [(c.id, c.text) for c in record.candidates] == [(f"{n}{name}", text) for n, (name, text) in enumerate(rows)]


def test_messages_have_no_words_of_pythons_csv_module():
    errors = [csv.Error(text) for text in ("unexpected end of data", "new-line character seen", "',' expected")]
    assert not any(re.search("Error|expected after|seen in", csv_rows._explained(error, [])) for error in errors)
