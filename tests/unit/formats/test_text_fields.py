"""A text of several fields, a title and a score under names of the caller's, in files and in a corpus."""

import pytest

from rerank_cli.errors import UsageError
from rerank_cli.formats import ById, InputOptions, open_source

DOCUMENT = {"id": "d", "title": "T", "body": "b", "year": 2024, "tags": ["x", "y"], "meta": {"lead": "l"}, "none": None}


def text(only, document=DOCUMENT, **options):
    record = only({"query": "q", "documents": [document]}, **options)
    return record.candidates[0].text if hasattr(record, "candidates") else record.code


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("title,body", "T b"),
        ("body, title", "b T"),
        ("title,gone,body", "T b"),
        ("title,none", "T"),
        ("meta.lead,body", "l b"),
        ("title,year,tags", "T 2024 x y"),
        ("gone,none", "missing_text"),
        ("title,meta", "bad_text"),
    ],
)
def test_several_fields_are_joined_with_spaces(only, field, found):
    assert text(only, text_field=field) == found


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (r"{title}\n{body}", "T\nb"),
        ("{title} ({year}): {meta.lead}", "T (2024): l"),
        ("{gone} {body}", "b"),
        ("{{{body}}}", "{b}"),
        (r"{title}\\n{body}\t.", "T\\nb\t."),
        ("{body}", "b"),
        ("{gone}{none}", "missing_text"),
    ],
)
def test_a_template_puts_fields_into_a_text(only, template, found):
    assert text(only, text_template=template) == found


@pytest.mark.parametrize(
    "options",
    [
        {"text_template": "{title"},
        {"text_template": "title"},
        {"text_template": "{}"},
        {"text_template": "{title!r}"},
        {"text_template": "{title:>9}"},
        {"text_field": "title,"},
        {"text_field": "a,a"},
        {"text_field": "a,b", "text_template": "{a}"},
        {"text_field": "a,b", "title_field": "c"},
        {"text_template": "{a}", "title_field": "c"},
    ],
)
def test_fields_that_cannot_be_meant_are_refused(write, options):
    with pytest.raises(UsageError) as refused:
        open_source(InputOptions((write({"query": "q", "documents": [DOCUMENT]}),), **options))
    assert "--text" in str(refused.value) or "--title" in str(refused.value)


@pytest.mark.parametrize(("field", "found"), [("meta.lead", "l b"), ("gone", "b"), ("year", "b")])
def test_a_title_is_taken_from_another_field(only, field, found):
    assert text(only, text_field="body", title_field=field) == found


def test_a_nested_document_is_read_by_mapped_fields_too(only):
    nested = {"docid": "d", "doc": {"headline": "T", "words": "b"}}
    assert text(only, nested, text_field="headline,words") == "T b"
    assert text(only, nested, text_field="words", title_field="headline") == "T b"


@pytest.mark.parametrize(
    ("value", "score"), [(0.5, 0.5), ("0.5", 0.5), (3, 3.0), (None, None), ("high", "bad_score"), ("nan", "bad_score")]
)
def test_a_score_is_taken_from_another_field(only, value, score):
    document = {"text": "a", "score": 9.0, "metadata": {"bm25": value}}
    record = only({"query": "q", "documents": [document]}, score_field="metadata.bm25")
    assert (record.candidates[0].score if hasattr(record, "candidates") else record.code) == score


def test_rows_of_pairs_have_mapped_fields(read, write):
    row = {"query_id": 1, "query": "q", "docid": "d", "headline": "T", "words": "b", "bm25": 2.5, "title": "not this"}
    (record,) = read(write(row), text_field="headline,words", score_field="bm25")
    assert [(c.text, c.score) for c in record.candidates] == [("T b", 2.5)]
    (record,) = read(write(row), text_field="words", title_field="headline")
    assert record.candidates[0].text == "T b"
    assert record.candidates[0].source.row == row


def test_columns_of_a_table_of_text_have_mapped_fields(tmp_path, read):
    path = tmp_path / "pairs.tsv"
    path.write_text("query\theadline\twords\tbm25\nq\tT\tb\t2.5\n")
    (record,) = read(str(path), text_template="{headline}: {words}", score_field="bm25")
    assert [(c.text, c.score) for c in record.candidates] == [("T: b", 2.5)]


def test_parquet_columns_have_mapped_fields(tmp_path, read):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"query": ["q"], "headline": ["T"], "words": ["b"], "bm25": [2.5]})
    pq.write_table(table, tmp_path / "t.parquet")
    (record,) = read(str(tmp_path / "t.parquet"), text_field="headline,words", score_field="bm25")
    assert [(c.text, c.score) for c in record.candidates] == [("T b", 2.5)]


@pytest.mark.parametrize(
    ("options", "found"),
    [({"text_field": "headline,words"}, "T b"), ({"text_template": r"{headline}\n{words}"}, "T\nb")],
)
@pytest.mark.parametrize("corpus", ['{"_id": "d", "headline": "T", "words": "b"}\n', "_id\theadline\twords\nd\tT\tb\n"])
def test_a_corpus_has_mapped_fields(tmp_path, options, found, corpus):
    for name, content in (("run", "q 0 d 1 2.5 t\n"), ("queries.tsv", "q\ta query\n"), ("corpus", corpus)):
        (tmp_path / name).write_text(content)
    ids = ById(str(tmp_path / "queries.tsv"), str(tmp_path / "corpus"))
    source = open_source(InputOptions((str(tmp_path / "run"),), by_id=ids, **options))
    (record,) = source
    source.close()
    assert [candidate.text for candidate in record.candidates] == [found]


def test_columns_without_names_keep_theirs_if_a_text_has_several_fields(tmp_path):
    for name, content in (("run", "q 0 d 1 2.5 t\n"), ("queries.tsv", "q\ta query\n"), ("corpus.tsv", "d\tT\tb\n")):
        (tmp_path / name).write_text(content)
    ids = ById(str(tmp_path / "queries.tsv"), str(tmp_path / "corpus.tsv"))
    source = open_source(InputOptions((str(tmp_path / "run"),), by_id=ids, text_template="{title}: {text}"))
    assert [candidate.text for record in source for candidate in record.candidates] == ["T: b"]
    source.close()


@pytest.mark.parametrize("options", [{"query": "q"}, {"score_field": "s"}])
def test_a_run_has_its_queries_and_scores_itself(tmp_path, options):
    (tmp_path / "run").write_text("q 0 d 1 2.5 t\n")
    ids = ById(str(tmp_path / "queries"), str(tmp_path / "corpus"))
    with pytest.raises(UsageError, match="--run"):
        open_source(InputOptions((str(tmp_path / "run"),), by_id=ids, **options))
