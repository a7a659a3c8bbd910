"""Files in tests/neighbours, as other programs write them: the right records, or one line that names the way out."""

import re
from pathlib import Path

import pytest

from rerank_cli.errors import InputError
from rerank_cli.records import Rejection

FILES = Path(__file__).parents[2] / "neighbours"
BEAR = 'A bear that says "hi", and\nlives in China; 熊猫'
PAIRS = [
    ("q1", "what is a panda?", [("d1", f"Panda {BEAR}", 12.5), ("d2", "hi\tthere", 11.0)]),
    ("q2", 'capital of "France"', [("d3", "Paris Paris, the capital", 3.25), ("d4", "", 0.5)]),
]
REQUESTS = [
    ("q1", "what is a panda?", [(None, BEAR, None), (None, "hi\tthere", None)]),
    ("q2", 'capital of "France"', [(None, "Paris, the capital", None)]),
]

# Each file and how it is described.
READ_AS_PAIRS = {
    "csvkit.tab.tsv": "CSV, pairs",
    "datasets.csv": "CSV, pairs",
    "datasets.jsonl": "JSON lines, pairs",
    "datasets.pairs.arrow": "Arrow, pairs",
    "datasets.parquet": "Parquet, pairs",
    "datasets.saved/data-00000-of-00001.arrow": "Arrow, pairs",
    "duckdb.array.json": "JSON array, pairs",
    "duckdb.bar.csv": "CSV, pairs",
    "duckdb.csv": "CSV, pairs",
    "duckdb.csv.gz": "CSV (gzip), pairs",
    "duckdb.json": "JSON lines, pairs",
    "duckdb.parquet": "Parquet, pairs",
    "pandas.categories.feather": "Arrow, pairs",
    "pandas.csv.bz2": "CSV (bzip2), pairs",
    "pandas.csv.gz": "CSV (gzip), pairs",
    "pandas.csv.xz": "CSV (xz), pairs",
    "pandas.csv.zst": "CSV (zstd), pairs",
    "pandas.feather": "Arrow, pairs",
    "pandas.indented.json": "JSON array, pairs",
    "pandas.index.csv": "CSV, pairs",
    "pandas.lines.jsonl": "JSON lines, pairs",
    "pandas.parquet": "Parquet, pairs",
    "pandas.quoted.csv": "CSV, pairs",
    "pandas.records.json": "JSON array, pairs",
    "pandas.semicolon.csv": "CSV, pairs",
    "pandas.tab.tsv": "CSV, pairs",
    "polars.arrow": "Arrow, pairs",
    "polars.csv": "CSV, pairs",
    "polars.json": "JSON array, pairs",
    "polars.ndjson": "JSON lines, pairs",
    "polars.parquet": "Parquet, pairs",
    "polars.quoted.tsv": "CSV, pairs",
    "polars.stream.arrow": "Arrow, pairs",
    "polars.zstd.arrow": "Arrow, pairs",
    "pyarrow.csv": "CSV, pairs",
    "pyarrow.feather": "Arrow, pairs",
    "pyarrow.lz4.arrows": "Arrow, pairs",
    "pyarrow.parquet": "Parquet, pairs",
    "python.excel.csv": "CSV, pairs",
    "spark.escaped.csv": "CSV, pairs",
    "spark.json": "JSON lines, pairs",
    "spark.json.gz": "JSON lines (gzip), pairs",
    "spark.parquet": "Parquet, pairs",
    "sqlite.csv": "CSV, pairs",
    "sqlite.json": "JSON array, pairs",
}
READ_AS_REQUESTS = {
    "datasets.requests.arrow": "Arrow, rerank",
    "jq.objects.json": "JSON objects, rerank",
    "polars.requests.arrow": "Arrow, rerank",
}
# Each file that is refused: what it is said to be, and the advice.
REFUSED = {
    "datasets.saved": ("is a folder", r"name the files in it, .*/datasets\.saved/\*\.arrow$"),
    "duckdb.begin.duckdb": ("a DuckDB database", r"COPY \(SELECT …\) TO 'NEW\.parquet'"),
    "numpy.npy": ("a NumPy array", "give the texts as JSON lines, CSV or Parquet"),
    "numpy.npz": ("a NumPy archive", "give the texts as JSON lines, CSV or Parquet"),
    "pandas.columns.json": (r"orient='columns'", r"to_json\(FILE, orient='records', lines=True\)"),
    "pandas.corpus.csv": ("no shape fits its columns", "--query-field with"),
    "pandas.csv.tar.gz": ("a tar archive", "tar -xf .*, and name the file in it"),
    "pandas.csv.zip": ("a ZIP archive", "unzip it, and name the file in it"),
    "pandas.html": ("an HTML page", "download the file itself"),
    "pandas.openpyxl.xlsx": ("an Excel workbook", r"pandas\.read_excel\('.*\.xlsx'\)\.to_csv\('NEW\.csv'"),
    "pandas.orc": ("an ORC file", r"pyarrow\.orc\.read_table\('.*\.orc'\)"),
    "pandas.pickle": ("a Python pickle, which may hold code and is never opened", r"to_parquet\('NEW\.parquet'\)"),
    "pandas.qrels.csv": ("no shape fits its columns", "--run instead of INPUT"),
    "pandas.queries.csv": ("no shape fits its columns", "--text-field"),
    "pandas.run.csv": ("no shape fits its columns", "--run instead of INPUT"),
    "pandas.split.json": (r"orient='split'", r"to_json\(FILE, orient='records', lines=True\)"),
    "pandas.table.json": (r"orient='table'", r"to_json\(FILE, orient='records', lines=True\)"),
    "pandas.utf16.csv": ("text in UTF-16", r"iconv -f UTF-16 -t UTF-8 .*\.csv > NEW"),
    "pandas.xlsx": ("an Excel workbook", r"pandas\.read_excel\('.*\.xlsx'\)\.to_csv\('NEW\.csv'"),
    "polars.avro": ("an Avro file", r"COPY \(FROM '.*\.avro'\) TO 'NEW\.parquet'"),
    "pyarrow.v1.feather": ("a Feather file of version 1", r"to_feather\('NEW\.feather'\)"),
    "python.pickle": ("a Python pickle, which may hold code and is never opened", r"to_parquet\('NEW\.parquet'\)"),
    "sqlite.db": ("a SQLite database", "sqlite3 -csv -header .*sqlite.db 'SELECT …' > NEW.csv"),
    "sqlite.sql": ("an SQL dump", "export the rows of a query as CSV with a header"),
    "xlwt.xls": ("an old Office document, such as an Excel workbook", r"to_csv\('NEW\.csv'"),
}
# Each file with rows that are rejected: the first of them, and what is said of it.
BAD_ROWS = {
    "csvkit.jsonl": (4, "the text is null"),  # csvjson writes an empty cell as null
    "pandas.backslash.csv": (2, "quotes after a backslash .* Fix: write it with quotes doubled"),
    "pandas.cp1252.csv": (2, "not valid UTF-8 .* Fix: iconv -f WINDOWS-1252 -t UTF-8"),
    "spark.csv": (2, r"quotes after a backslash .*Spark: \.option\('escape', '\"'\)"),
}
# Responses of search engines and objects of frameworks, see test_responses.py.
RESPONSES = {"azure", "elasticsearch", "haystack", "langchain", "llamaindex", "milvus", "pgvector", "pinecone"}
RESPONSES |= {"qdrant", "solr", "vespa", "weaviate"}
OF_ITS_OWN = {"python.indented.json", "make_tables.py", "README.md"}


def content_of(records):
    return [(r.id, r.query, [(c.id, c.text, c.score) for c in r.candidates]) for r in records]


@pytest.mark.parametrize(("name", "described"), (READ_AS_PAIRS | READ_AS_REQUESTS).items())
def test_a_file_of_another_program_has_the_same_records(name, described, open_files):
    source = open_files(FILES / name)
    assert source.description == described
    assert content_of(source) == (PAIRS if name in READ_AS_PAIRS else REQUESTS)


def test_one_object_over_several_lines_is_one_record(open_files):
    assert content_of(open_files(FILES / "python.indented.json")) == REQUESTS[:1]


@pytest.mark.parametrize(("name", "said"), REFUSED.items())
def test_a_file_that_is_not_read_is_named_with_the_way_out(name, said, open_files):
    what, fix = said
    with pytest.raises(InputError, match=rf"^{FILES / name}(:1)?: .*{what}.* Fix: .*{fix}") as refused:
        list(open_files(FILES / name))
    assert str(refused.value).isprintable()
    assert "--on-error" not in str(refused.value)


@pytest.mark.parametrize(("name", "row"), BAD_ROWS.items())
def test_a_row_in_another_dialect_is_rejected_with_the_way_out(name, row, open_files):
    bad = next(record for record in open_files(FILES / name) if isinstance(record, Rejection))
    assert bad.position.line == row[0]
    assert re.search(row[1], bad.message)


def test_every_file_of_the_folder_is_read_in_a_test():
    names = {path.name for path in FILES.iterdir() if path.name.split(".")[0] not in RESPONSES}
    tested = READ_AS_PAIRS | READ_AS_REQUESTS | REFUSED | BAD_ROWS
    assert names - OF_ITS_OWN == {name for name in tested if "/" not in name}
    assert len(names) >= 30
