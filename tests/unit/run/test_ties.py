"""Figures of runs with many equal scores: those that ir_measures gives for the same files, for every provider."""

import json
import random
import subprocess
import sys
from pathlib import Path

import ir_measures
import orjson
import pytest
from ir_measures import read_trec_qrels, read_trec_run

from rerank_cli.errors import UsageError
from rerank_cli.evaluation.evaluate import Asked, worked_out
from rerank_cli.evaluation.measures import DEFAULT, Measure, measure, parse_measures
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.runs.run_file import read_rankings
from rerank_cli.reports.collect import ReportOptions, findings

# Computed by pytrec_eval (ties by id downwards, float32), msmarco, judged and compat (by id upwards), accuracy (in file
# order), gdeval (by id downwards, float64) and cwl_eval (in file order).
BUILT_IN = "RR,Rprec,Success@1,IPrec@0.5,infAP,SetP,NumRet,RR(rel=2)@3,Judged@5,Compat(p=0.9),Accuracy,Accuracy@20"
OTHERS = "ERR@5,nDCG(dcg='exp-log2')@5,RBP(rel=1),SDCG(max_rel=3)@5"


def available(names):
    found = [ir_measures.parse_measure(name) for name in names.split(",")]
    return [str(one) for one in found if ir_measures.DefaultPipeline.supports(one)]


NAMES = [*DEFAULT.split(","), *available(BUILT_IN), *available(OTHERS)]


def a_run(seed):
    """Twenty queries with 40 documents in any order and five scores, two of which are equal in float32 only."""
    rng = random.Random(seed)
    levels = [2.5, 1.0, 1.0000000001, -0.5, 0.0]
    return {
        str(query): {f"d{n}": rng.choice(levels) for n in rng.sample(range(60), 40)} for query in range(1, 21)
    }  # fmt: skip


def trec(run):
    rows = ((query, n, *pair) for query, documents in run.items() for n, pair in enumerate(documents.items()))
    return "".join(f"{query} Q0 {name} {n} {score!r} t\n" for query, n, name, score in rows)


@pytest.fixture
def files(tmp_path):
    """Judgements, also of queries that no run has, and two runs."""
    rng = random.Random(7)
    judged = [f"{query} 0 d{n} {rng.randint(0, 3)}\n" for query in range(1, 24) for n in rng.sample(range(60), 15)]
    (tmp_path / "qrels").write_text("".join(judged))
    for name, seed in (("after", 1), ("before", 2)):
        (tmp_path / name).write_text(trec(a_run(seed)))
    return str(tmp_path / "qrels"), str(tmp_path / "after"), str(tmp_path / "before")


def theirs(qrels, run, names=NAMES):
    measures = [ir_measures.parse_measure(name) for name in names]
    return ir_measures.calc(measures, read_trec_qrels(qrels), read_trec_run(run))


def means(found):
    return {str(one): value for one, value in found.aggregated.items()}


def test_there_are_ties_and_providers_break_them_in_different_ways(files):
    qrels, after, _ = files
    found = means(theirs(qrels, after, ["RR", "RR@60"]))
    assert found["RR"] != found["RR@60"]


def test_figures_of_a_trec_run_and_its_baseline_are_those_of_ir_measures(files):
    qrels, after, before = files
    found = worked_out(Asked(after, qrels, before, ",".join(NAMES)), print)
    for ours, run in ((found.after, after), (found.before, before)):
        expected = theirs(qrels, run)
        assert ours.means == pytest.approx(means(expected), abs=1e-12)
        values = {(one.query_id, str(one.measure)): one.value for one in expected.per_query}
        own = {(query, name): value for name, by_query in ours.values.items() for query, value in by_query.items()}
        assert {key: value for key, value in own.items() if value == value} == values


def test_the_command_of_ir_measures_prints_the_same_figures(files):
    qrels, after, _ = files
    command = [sys.executable, "-m", "ir_measures", qrels, after, *NAMES, "--places", "-1"]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    found = worked_out(Asked(after, qrels, measures=",".join(NAMES)), print).after.means
    assert {line.split("\t")[0]: float(line.split("\t")[1]) for line in printed.splitlines()} == pytest.approx(found)


@pytest.mark.parametrize("name", ["search_results", None])
def test_figures_of_an_object_are_those_of_the_same_scores_in_lines(files, tmp_path, name):
    qrels, after, _ = files
    (tmp_path / "run.json").write_bytes(orjson.dumps({name: a_run(1)} if name else a_run(1)))
    found = worked_out(Asked(str(tmp_path / "run.json"), qrels, measures=",".join(NAMES)), print)
    assert found.after.means == pytest.approx(means(theirs(qrels, after)), abs=1e-12)


@pytest.mark.parametrize("score", ["relevance_score", "score"])
def test_rows_of_pairs_without_a_rank_have_scores_too(files, tmp_path, score):
    qrels, after, _ = files
    rows = [{"query_id": q, "docid": d, score: s} for q, documents in a_run(1).items() for d, s in documents.items()]
    (tmp_path / "pairs").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    found = worked_out(Asked(str(tmp_path / "pairs"), qrels, measures=",".join(NAMES)), print)
    assert found.after.means == pytest.approx(means(theirs(qrels, after)), abs=1e-12)


def test_candidates_with_scores_are_measured_like_a_run_of_these_scores(files, tmp_path):
    qrels, after, _ = files
    requests = [
        {"id": q, "query": "x", "documents": [{"id": d, "text": "t", "score": s} for d, s in documents.items()]}
        for q, documents in a_run(1).items()
    ]
    (tmp_path / "in").write_bytes(b"".join(orjson.dumps(request) + b"\n" for request in requests))
    found = worked_out(Asked(after, qrels, str(tmp_path / "in"), ",".join(NAMES)), print)
    assert found.before.means == pytest.approx(found.after.means, abs=1e-12)


def stated(kind, order):
    """Documents in this order, all with the score 1."""
    if kind == "answers":
        results = [{"index": n, "id": name, "relevance_score": 1.0} for n, name in enumerate(order)]
        return [json.dumps({"id": "1", "results": results})]
    if kind == "pairs":
        rows = [{"query_id": "1", "docid": d, "relevance_score": 1.0, "rank": n} for n, d in enumerate(order, 1)]
        return [json.dumps(row) for row in reversed(rows)]
    return [f"1\t{name}\t{n}" for n, name in enumerate(order, 1)]


@pytest.mark.parametrize("kind", ["answers", "pairs", "msmarco"])
def test_a_stated_order_is_measured_alike_by_every_provider(tmp_path, kind):
    order = [f"d{n}" for n in random.Random(3).sample(range(30), 30)]
    (tmp_path / "out").write_text("".join(f"{line}\n" for line in stated(kind, order)))
    (tmp_path / "qrels").write_text(f"1 0 {order[3]} 1\n1 0 {order[9]} 2\n")
    names = ["RR", "RR@10", "Accuracy", *available("RBP(rel=1)")]
    found = worked_out(Asked(str(tmp_path / "out"), str(tmp_path / "qrels"), measures=",".join(names)), print).after
    (tmp_path / "run").write_text(trec({"1": {name: float(-n) for n, name in enumerate(order)}}))
    assert found.means == pytest.approx(means(theirs(str(tmp_path / "qrels"), str(tmp_path / "run"), names)))
    assert found.means["RR"] == found.means["RR@10"] == 0.25


def test_a_measure_defined_in_python_gets_scores_in_file_order(files):
    qrels, after, _ = files
    first = ir_measures.define_byquery(lambda _, run: float(run.doc_id.iloc[0].removeprefix("d")), name="first")
    found = measure([Measure("first", first)], read_qrels(qrels), {
        query: item.measured for query, item in read_rankings(after, read_qrels(qrels)).rankings.items()
    })  # fmt: skip
    assert found.means["first"] == first.calc_aggregate(list(read_trec_qrels(qrels)), list(read_trec_run(after)))


def test_a_report_has_the_figures_of_ir_measures_for_the_queries_in_the_output(files, tmp_path):
    qrels, after, before = files
    answered = tmp_path / "answered"
    judged = Path(qrels).read_text().splitlines(keepends=True)
    answered.write_text("".join(line for line in judged if int(line.split()[0]) <= 20))
    quality = findings(ReportOptions(after, (), qrels, before)).quality
    for name in ("nDCG@10", "RR@10", "P@1"):
        assert quality.mean_after(name) == pytest.approx(means(theirs(str(answered), after, [name]))[name], abs=1e-12)
        assert quality.mean_before(name) == pytest.approx(means(theirs(str(answered), before, [name]))[name], abs=1e-12)


def test_a_query_without_a_value_is_left_out_of_the_comparison(tmp_path):
    (tmp_path / "qrels").write_text("1 0 a 1\n2 0 b 1\n")
    (tmp_path / "after").write_text("1 Q0 x 1 2 t\n1 Q0 a 1 1 t\n2 Q0 x 1 1 t\n")
    run = str(tmp_path / "after")
    found = worked_out(Asked(run, str(tmp_path / "qrels"), run, "Accuracy"), print)
    assert found.after.means == {"Accuracy": 0.0}
    assert found.differences["Accuracy"].ties == 1
    values = orjson.loads(orjson.dumps(found.as_json(per_query=True)))["per_query"]
    assert [one["values"]["Accuracy"] for one in values] == [0.0, None]


@pytest.mark.parametrize(
    ("judged", "name", "message"),
    [
        ("q 0 a 1\n", "ERR@5", "--measures ERR@5: gdeval fails on these files .it needs numbers as query ids"),
        ("q 0 a 1\n", "Accuracy", "--measures Accuracy: ir_measures fails .float division by zero"),
    ],
)
def test_a_measure_that_fails_is_one_line(tmp_path, judged, name, message):
    if not available(name):
        pytest.skip("its provider is not installed")
    (tmp_path / "qrels").write_text(judged)
    (tmp_path / "run").write_text("q Q0 a 1 1 t\n")
    with pytest.raises(UsageError, match=message):
        worked_out(Asked(str(tmp_path / "run"), str(tmp_path / "qrels"), measures=name), print)


def test_measures_by_subtopic_are_refused():
    with pytest.raises(UsageError, match=r"needs judgements by subtopic.*Fix: the command ir_measures QRELS RUN"):
        parse_measures("alpha_nDCG@10")


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("ndcg@10", "nDCG@10"),
        ("mrr@10", "RR@10"),
        ("recall@5", "R@5"),
        ("map", "AP"),
        ("PRECISION@5", "P@5"),
        ("p(rel=2)@5", "P(rel=2)@5"),
        ("judged@10", "Judged@10"),
        ("SUCCESS@1", "Success@1"),
    ],
)
def test_names_of_measures_may_have_any_case(asked, name):
    (found,) = parse_measures(asked)
    assert (found.name, str(found.measure)) == (asked, name)


def test_a_parameter_that_is_missing_is_named():
    with pytest.raises(UsageError, match=r"--measures INST: not a measure of ir_measures .needs the parameter max_rel"):
        parse_measures("INST")


def test_a_mistyped_measure_gets_a_suggestion():
    with pytest.raises(UsageError, match=r"--measures ndgc@10: not a measure of ir_measures .*Fix: nDCG@10$"):
        parse_measures("ndgc@10")
