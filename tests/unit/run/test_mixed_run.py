"""The run that `--tune-weight` writes: bytes that a run with the best weight writes, figures that its curve shows."""

import random
from dataclasses import replace

import ir_measures
import orjson
import pytest
from instant import config, go, names

from rerank_cli.choices import Fuse, Normalize, OutputFormat, RunFormat, ScoreKind
from rerank_cli.errors import BadRecord, InputError, OutputError, RefusedError, UsageError
from rerank_cli.evaluation.evaluate import Asked, tuned
from rerank_cli.evaluation.mixed_run import check_mixed, write_mixed
from rerank_cli.formats import AnswerOptions, OutputOptions
from rerank_cli.ranking import Fusion

QUERIES = 60


@pytest.fixture
def given(tmp_path):
    """Candidates with first-stage scores that tie, also of queries without judgements."""
    rng = random.Random(2)
    records = [
        {"id": str(i), "query": f"q{i}", "documents": [
            {"id": f"d{j}", "text": f"t{rng.random()}", "score": rng.randint(0, 9) / 3} for j in range(12)]}
        for i in range(QUERIES)
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    (tmp_path / "qrels").write_text("".join(f"{i} 0 d{rng.randrange(6)} 1\n" for i in range(0, QUERIES, 2)))
    return tmp_path / "in.jsonl"


def output(path, format=RunFormat.TREC, overwrite=False):
    return OutputOptions(str(path), OutputFormat(format), AnswerOptions(""), overwrite)


@pytest.mark.parametrize("normalize", Normalize)
@pytest.mark.parametrize("format", RunFormat)
@pytest.mark.parametrize(("written", "scores"), [("api", "sigmoid"), ("api", "both"), ("pairs", "raw")])
def test_it_is_the_run_that_the_best_weight_writes(given, tmp_path, written, scores, format, normalize):
    answers = AnswerOptions("instant", ScoreKind(scores))
    go(config(given, tmp_path / "plain", format=OutputFormat(written), answers=answers))
    asked = Asked(str(tmp_path / "plain"), str(tmp_path / "qrels"))
    found = tuned(asked, normalize, 5, print)
    assert write_mixed(asked.run, asked.fields, found, output(tmp_path / "mixed", format)) == QUERIES
    fusion = Fusion(Fuse.WEIGHTED, weight=found.best, normalize=normalize)
    model = "instant" if written == "api" else ""  # rows of pairs do not name it
    answers = AnswerOptions(model, ScoreKind(scores), fused=True)
    go(config(given, tmp_path / "run", format=OutputFormat(format), fusion=fusion, answers=answers))
    assert (tmp_path / "mixed").read_bytes() == (tmp_path / "run").read_bytes()
    assert "mixed.partial" not in names(tmp_path)


def test_its_figure_is_that_of_the_curve_and_of_ir_measures(given, tmp_path):
    go(config(given, tmp_path / "plain"))
    asked = Asked(str(tmp_path / "plain"), str(tmp_path / "qrels"), measures="RR@10")
    found = tuned(asked, Normalize.MINMAX, 5, print)
    write_mixed(asked.run, asked.fields, found, output(tmp_path / "mixed.trec"))
    qrels, run = ir_measures.read_trec_qrels(asked.qrels), ir_measures.read_trec_run(str(tmp_path / "mixed.trec"))
    measure = ir_measures.parse_measure("RR@10")
    theirs = ir_measures.calc_aggregate([measure], qrels, run)[measure]
    assert found.curve[found.best] == pytest.approx(theirs, abs=1e-12)


def test_what_cannot_be_written_is_refused_first(tmp_path):
    (tmp_path / "there").write_text("")
    for path, run, error, message in (
        ("-", "run", UsageError, "--output cannot be -"),
        (str(tmp_path / "new"), "-", UsageError, "--output reads RUN twice"),
        (str(tmp_path / "there"), "run", RefusedError, "exists already"),
        (str(tmp_path / "there"), str(tmp_path / "there"), RefusedError, "would be written while it is read"),
        (str(tmp_path / "none" / "new"), "run", OutputError, "its folder does not exist"),
    ):
        with pytest.raises(error, match=message):
            check_mixed(run, "qrels", output(path))
    check_mixed("run", "qrels", output(tmp_path / "there", overwrite=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], r":61: query 0 occurs again"),
        (lambda rows: [rows[0] | {"results": rows[0]["results"][:3]}, *rows[1:]], "query 0 has too few candidates"),
        (lambda rows: [*rows, {"id": "q", "results": [{"index": 0, "relevance_score": 1}]}], "without a first-stage"),
        (lambda rows: [*rows[:-1], rows[-1] | {"id": "a b"}], r":60: the query id cannot be used in a run.* or beir"),
    ],
)
def test_a_query_that_cannot_be_mixed_leaves_no_output(given, tmp_path, change, message):
    go(config(given, tmp_path / "plain"))
    asked = Asked(str(tmp_path / "plain"), str(tmp_path / "qrels"))
    found = tuned(asked, Normalize.MINMAX, 5, print)
    rows = change([orjson.loads(line) for line in (tmp_path / "plain").read_bytes().splitlines()])
    changed = tmp_path / "changed"
    changed.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    with pytest.raises((InputError, BadRecord), match=message):
        write_mixed(str(changed), asked.fields, found, output(tmp_path / "mixed"))
    assert names(tmp_path) == ["changed", "in.jsonl", "plain", "qrels"]


def test_rows_of_a_query_that_are_not_adjacent_are_named(given, tmp_path):
    go(config(given, tmp_path / "plain", format=OutputFormat.PAIRS))
    lines = (tmp_path / "plain").read_bytes().splitlines(keepends=True)
    (tmp_path / "plain").write_bytes(b"".join([*lines[1:], lines[0]]))
    asked = Asked(str(tmp_path / "plain"), str(tmp_path / "qrels"))
    found = tuned(asked, Normalize.MINMAX, 5, print)
    with pytest.raises(InputError, match="query 0"):
        write_mixed(asked.run, asked.fields, found, output(tmp_path / "mixed"))


def test_a_compressed_run_is_written_by_suffix(given, tmp_path):
    go(config(given, tmp_path / "plain"))
    asked = Asked(str(tmp_path / "plain"), str(tmp_path / "qrels"))
    found = replace(tuned(asked, Normalize.MINMAX, 5, print), best=0.3)
    write_mixed(asked.run, asked.fields, found, output(tmp_path / "mixed.trec.gz"))
    assert (tmp_path / "mixed.trec.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert sum(1 for _ in ir_measures.read_trec_run(str(tmp_path / "mixed.trec.gz"))) == QUERIES * 12
