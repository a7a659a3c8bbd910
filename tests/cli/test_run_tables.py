"""Tables of other programs in, tables out: CSV, Arrow, JSON over several lines; and files of other kinds."""

import csv
import io
import json
import random
from pathlib import Path

import pytest
from shell import TINY, json_lines, rerank, run_tiny, started, until

NEIGHBOURS = Path(__file__).parents[1] / "neighbours"
FILES = [
    "pandas.index.csv",
    "pandas.tab.tsv",
    "duckdb.bar.csv",
    "datasets.pairs.arrow",
    "pandas.csv.xz",
    "polars.arrow",
]


def table(path):
    content = path.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(content, newline=""), delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.fixture(scope="module")
def lines():
    """The scores of the same pairs in JSON lines, by document."""
    ended = run_tiny(NEIGHBOURS / "pandas.lines.jsonl", "--format", "pairs")
    return {row["docid"]: (row["relevance_score"], row["rank"]) for row in ended.records}


@pytest.mark.parametrize("name", FILES)
def test_a_table_of_any_kind_is_scored_like_its_lines(lines, name):
    ended = run_tiny(NEIGHBOURS / name, "--format", "pairs")
    assert (ended.code, ended.err) == (0, "")
    assert {row["docid"]: (row["relevance_score"], row["rank"]) for row in ended.records} == lines


@pytest.mark.parametrize("name", ["pandas.index.csv", "datasets.pairs.arrow", "jq.objects.json", "pandas.tab.tsv"])
def test_a_table_may_be_stdin(name):
    ended = run_tiny(stdin=(NEIGHBOURS / name).read_bytes())
    assert (ended.code, [answer["id"] for answer in ended.records]) == (0, ["q1", "q2"])


@pytest.mark.parametrize("name", ["out.csv", "out.tsv"])
def test_rows_of_pairs_are_written_as_a_table_that_every_command_reads(lines, tmp_path, name):
    given, output = NEIGHBOURS / "pandas.semicolon.csv", tmp_path / name
    assert run_tiny(given, "--format", "pairs", "-o", output, "--mark-truncated").code == 0
    rows = table(output)
    assert list(rows[0])[:6] == ["query_id", "query", "docid", "title", "text", "score"]
    assert {row["docid"]: (float(row["relevance_score"]), int(row["rank"])) for row in rows} == lines
    assert {row["truncated"] for row in rows} == {"false"}

    assert "complete" in rerank("status", output).out.decode()
    assert run_tiny(given, "--format", "pairs", "-o", output, "--mark-truncated", "--verify", "2").code == 0
    viewed = rerank("view", output).out.decode()
    assert "capital of" in viewed
    assert "was" in viewed
    assert rerank("report", output, "--input", given).code == 0
    figures = rerank("eval", output, "--qrels", NEIGHBOURS / "pandas.qrels.csv", "--measures", "P@1", "--json")
    assert figures.code == 0
    mined = rerank("mine", output, "--qrels", NEIGHBOURS / "pandas.qrels.csv", "-o", tmp_path / "train.json")
    assert mined.code == 0
    assert json.loads((tmp_path / "train.json").read_bytes()) == []

    again = tmp_path / f"again-{name}"
    assert run_tiny(output, "--format", "pairs", "-o", again).code == 0
    assert {row["docid"]: (float(row["relevance_score"]), int(row["rank"])) for row in table(again)} == lines


def test_a_run_of_ids_may_be_in_csv_like_its_texts():
    sides = ["--queries", NEIGHBOURS / "pandas.queries.csv", "--corpus", NEIGHBOURS / "pandas.corpus.csv"]
    ended = run_tiny("--run", NEIGHBOURS / "pandas.run.csv", *sides)
    assert ended.code == 0
    assert [(answer["id"], len(answer["results"])) for answer in ended.records] == [("q1", 2), ("q2", 2)]
    assert ended.records[0]["results"][0]["document"]["docid"].startswith("d")


def test_the_format_of_the_input_may_be_given(tmp_path):
    path = tmp_path / "in.tsv"
    path.write_text('query\ttext\nq\t"hi"\n')
    plain, quoted = (run_tiny(path, "--input-format", format) for format in ("tsv", "csv"))
    texts = [ended.records[0]["results"][0]["document"]["text"] for ended in (plain, quoted)]
    assert texts == ['"hi"', "hi"]
    assert run_tiny(path, "--input-format", "parquet").code == 4


@pytest.mark.parametrize("name", ["pandas.xlsx", "pandas.csv.zip", "pandas.utf16.csv", "sqlite.db", "python.pickle"])
@pytest.mark.parametrize("command", [["run"], ["check"], ["eval", "--qrels", NEIGHBOURS / "pandas.qrels.csv"]])
def test_a_file_of_another_kind_is_one_line_with_the_way_out(name, command):
    model = [] if command[0] == "eval" else ["-m", TINY]
    ended = rerank(*command, NEIGHBOURS / name, *model)
    assert (ended.code, ended.out) == (4, b"")
    assert ended.err.count("\n") == 1
    assert " Fix: " in ended.err
    assert "on-error" not in ended.err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["-o", "out.csv"], 2, "out.csv: .csv holds rows of pairs (got --format api). Fix: --format pairs, or another"),
        (["-o", "out.jsonl", "--format", "trec"], 2, "out.jsonl: --format trec is not JSON. Fix: the suffix .trec"),
        (["-o", "out.xlsx"], 2, "out.xlsx: .xlsx is not written. Fix: .jsonl, .json or .parquet; .csv or .tsv with"),
    ],
)
def test_a_suffix_that_lies_is_refused_before_any_work(tmp_path, flags, code, message):
    ended = run_tiny(NEIGHBOURS / "pandas.lines.jsonl", *flags, cwd=tmp_path)
    assert ended.code == code
    assert ended.err.startswith(f"rerank: {message}")
    assert list(tmp_path.iterdir()) == []


def test_json_and_xz_are_what_their_suffixes_say(tmp_path):
    given = NEIGHBOURS / "pandas.lines.jsonl"
    assert run_tiny(given, "-o", tmp_path / "out.json").code == 0
    assert run_tiny(given, "-o", tmp_path / "out.jsonl").code == 0
    assert run_tiny(given, "-o", tmp_path / "out.jsonl.xz").code == 0
    answers = json.loads((tmp_path / "out.json").read_bytes())
    assert answers == json_lines((tmp_path / "out.jsonl").read_bytes())
    for name in ("out.json", "out.jsonl.xz"):
        assert rerank("view", tmp_path / name).out == rerank("view", tmp_path / "out.jsonl").out


def kill_after_a_commit(command, checkpoint):
    before = checkpoint.read_bytes() if checkpoint.exists() else b""
    with started(*command) as process:
        until(lambda: process.poll() is not None or (checkpoint.exists() and checkpoint.read_bytes() != before))
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.csv", "out.json"])
def test_a_killed_run_of_csv_goes_on_and_writes_the_same_bytes(tmp_path, name):
    rng, given = random.Random(3), tmp_path / "in.csv"
    with given.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "query", "docid", "text"])
        for query in range(120):
            passages = ((n, f'{n},\n"{query}" ' + "the giant panda is a bear " * 12) for n in range(rng.randint(1, 20)))
            writer.writerows((query, f"panda {query}", n, text) for n, text in passages)
    flags = ["-m", TINY, "-q", "--chunk-pairs", "40"] + (["--format", "pairs"] if name == "out.csv" else [])
    whole, output = tmp_path / f"whole-{name}", tmp_path / name
    assert rerank("run", given, *flags, "-o", whole).code == 0
    command = ["run", given, *flags, "--commit-interval", "0", "-o", output]
    for _ in range(2):
        kill_after_a_commit(command, tmp_path / f"{name}.checkpoint")
        assert not output.exists(), "the run was over before it could be killed"
    assert rerank(*command, "--resume", "require").code == 0
    assert output.read_bytes() == whole.read_bytes()
