"""`rerank eval`, and `rerank run` with judgements and with the first stage mixed in."""

import json
import subprocess
import sys
from pathlib import Path

import ir_measures
import pytest
import pytrec_eval
from shell import environment, rerank, write_lines

from rerank_cli.cli.terminal import completion

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).parents[2] / "sample_data"
QRELS = str(SAMPLES / "scifact.qrels")
NAMES = ["nDCG@10", "RR@10", "AP", "R@100", "P@10"]


@pytest.fixture(scope="module")
def reranked(tmp_path_factory):
    """Ten SciFact claims reranked by the built-in model, as a TREC run and measured in the same pass."""
    folder = tmp_path_factory.mktemp("reranked")
    output, summary = folder / "ce.trec", folder / "summary.json"
    ended = rerank(
        "run", SAMPLES / "scifact.jsonl", "-m", "mini", "--max-length", 128, "-o", output, "--format", "trec",
        "--qrels", QRELS, "--summary", summary,
    )  # fmt: skip
    assert ended.code == 0
    return output, json.loads(summary.read_bytes())["evaluation"], ended.err


def test_one_line_goes_from_candidates_to_figures(reranked):
    _, figures, err = reranked
    before, after = figures["baseline_means"], figures["means"]
    steps = ", ".join(f"{name} {before[name]:.4f} → {after[name]:.4f}" for name in NAMES)
    assert f"rerank: {steps}; 10 judged queries\n" in err


def test_figures_are_those_of_ir_measures_and_of_pytrec_eval_on_the_same_files(reranked):
    output, figures, _ = reranked
    measures = [ir_measures.parse_measure(name) for name in NAMES]
    theirs = ir_measures.calc_aggregate(
        measures, ir_measures.read_trec_qrels(QRELS), ir_measures.read_trec_run(str(output))
    )
    assert figures["means"] == pytest.approx({str(name): value for name, value in theirs.items()}, abs=1e-12)
    with open(QRELS) as qrels, open(output) as run:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"map", "ndcg_cut_10"})
        by_query = evaluator.evaluate(pytrec_eval.parse_run(run)).values()
    for ours, name in (("AP", "map"), ("nDCG@10", "ndcg_cut_10")):
        assert figures["means"][ours] == pytest.approx(sum(q[name] for q in by_query) / len(by_query), abs=1e-12)


def test_eval_says_the_same_of_the_output(reranked):
    output, figures, _ = reranked
    ended = rerank("eval", output, "--qrels", QRELS, "--baseline", SAMPLES / "scifact.jsonl", "--json")
    (found,) = ended.records
    assert {name: found[name] for name in figures} == figures
    assert (found["run"], found["qrels"]) == (str(output), QRELS)
    assert ended.err == ""


def test_eval_is_a_table_with_a_row_a_query(reranked):
    output, figures, _ = reranked
    args = ("--baseline", SAMPLES / "scifact.jsonl", "--measures", "MRR@10,nDCG@10", "--per-query")
    lines = rerank("eval", output, "--qrels", QRELS, *args).out.decode().splitlines()
    assert lines[0] == "10 judged queries"
    before, after = figures["baseline_means"]["RR@10"], figures["means"]["RR@10"]
    assert lines[3].split()[:4] == ["MRR@10", f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"]
    assert lines[6] == "query\tMRR@10\tnDCG@10\tΔMRR@10\tΔnDCG@10"
    assert len(lines) == 17


def test_a_run_without_a_baseline_has_its_figures_alone(tmp_path):
    run = write_lines(tmp_path / "run", ["94 Q0 1215116 1 1.0 t"])
    ended = rerank("eval", run, "--qrels", QRELS, "--measures", "RR")
    assert ended.out.decode() == "10 judged queries, 9 not in the run\n\nRR         0.1000\n"
    ended = rerank("eval", run, "--qrels", QRELS, "--measures", "RR", "--answered")
    assert ended.out.decode() == "1 judged queries\n\nRR         1.0000\n"


def test_the_best_weight_is_shown_on_a_curve_and_as_flags(tmp_path):
    results = [
        {"index": 0, "id": "d0", "relevance_score": 0.1, "retrieval_score": 2},
        {"index": 1, "id": "1215116", "relevance_score": 0.9, "retrieval_score": 1},
    ]
    output = write_lines(tmp_path / "out.jsonl", [{"id": "94", "results": results}])
    lines = rerank("eval", output, "--qrels", QRELS, "--tune-weight", "--measures", "RR").out.decode().splitlines()
    assert lines[0].split() == ["weight", "RR"]
    assert lines[1].split()[:2] == ["0.00", "0.5000"]
    assert lines[11].split() == ["0.50", "1.0000", "█" * 31, "best"]
    assert lines[-1] == "--fuse weighted --fuse-weight 0.5 --normalize minmax"
    (found,) = rerank("eval", output, "--qrels", QRELS, "--tune-weight", "--measures", "RR", "--json").records
    assert (found["best_weight"], found["best"], found["held_out"]) == (0.5, 1.0, None)
    assert [point["weight"] for point in found["curve"]] == [step / 20 for step in range(21)]


def test_the_mixed_run_can_be_written(tmp_path):
    results = [
        {"index": 0, "id": "d0", "relevance_score": 0.1, "retrieval_score": 2},
        {"index": 1, "id": "1215116", "relevance_score": 0.9, "retrieval_score": 1.5},
        {"index": 2, "id": "d2", "relevance_score": 0.2, "retrieval_score": 0},
    ]
    answers = [{"id": name, "model": "m", "results": results} for name in ("94", "not judged")]
    output, fused = write_lines(tmp_path / "out.jsonl", answers), tmp_path / "fused.json"
    tune = ("eval", output, "--qrels", QRELS, "--tune-weight", "--measures", "rr", "-o", fused, "--format", "beir")
    ended = rerank(*tune, "--json")
    assert (ended.code, ended.err) == (0, f"rerank: {fused}: 2 queries, mixed with weight 0.5\n")
    assert (ended.records[0]["output"], ended.records[0]["best"]) == (str(fused), 1.0)
    mixed = {"1215116": 0.875, "d0": 0.5, "d2": 0.0625}
    assert json.loads(fused.read_bytes()) == {"94": mixed, "not judged": mixed}
    measured = rerank("eval", fused, "--qrels", QRELS, "--measures", "RR", "--answered", "--json")
    assert measured.records[0]["means"] == {"RR": 1.0}
    ended = rerank(*tune)
    assert (ended.code, ended.out) == (6, b"")
    assert "exists already" in ended.complaint
    assert rerank(*tune, "--overwrite").code == 0
    (tmp_path / "fused.json.checkpoint").write_text("an unfinished run")
    ended = rerank(*tune, "--overwrite")
    assert (ended.code, "an unfinished run writes to" in ended.complaint) == (6, True)


def test_names_of_measures_may_have_any_case(tmp_path):
    run = write_lines(tmp_path / "run", ["94 Q0 1215116 1 1.0 t"])
    ended = rerank("eval", run, "--qrels", QRELS, "--answered", "--measures", "ndcg@10,mrr@10,recall@5,map", "--json")
    assert ended.records[0]["means"] == {"ndcg@10": 1.0, "mrr@10": 1.0, "recall@5": 1.0, "map": 1.0}
    ended = rerank("eval", run, "--qrels", QRELS, "--measures", "recal@5")
    assert (ended.code, ended.complaint.endswith("Fix: Recall@5")) == (2, True)


def test_names_of_measures_are_completed():
    assert completion.measures("nDCG@10,prec") == ["nDCG@10,Precision"]
    assert completion.measures("MRR") == ["MRR"]
    assert "nDCG@10" in completion.measures("ndcg")
    assert completion.measures("none such") == []


@pytest.mark.parametrize(
    ("args", "code", "complaint"),
    [
        (("eval", "nowhere", "--qrels", QRELS), 4, "nowhere: there is no such file"),
        (("eval", QRELS, "--qrels", "nowhere"), 4, "nowhere: there is no such file"),
        (("eval", QRELS), 2, "--qrels"),
        (("eval", "-", "--qrels", "-"), 2, "stdin can be read once only"),
        (("eval", QRELS, "--qrels", QRELS), 4, "not a line of a run (got 4 columns"),
        (("eval", QRELS, "--qrels", QRELS, "--measures", "Quality"), 2, "not a measure of ir_measures"),
        (("eval", QRELS, "--qrels", QRELS, "--tune-weight", "--per-query"), 2, "--tune-weight excludes"),
        (("eval", QRELS, "--qrels", QRELS, "--normalize", "none"), 2, "--normalize needs --tune-weight"),
        (("eval", QRELS, "--qrels", QRELS, "-o", "x"), 2, "--output needs --tune-weight"),
        (("eval", QRELS, "--qrels", QRELS, "--tune-weight", "--format", "trec"), 2, "--format needs --output FILE"),
        (("eval", QRELS, "--qrels", QRELS, "--tune-weight", "-o", "-"), 2, "--output cannot be -"),
        (("eval", "-", "--qrels", QRELS, "--tune-weight", "-o", "x"), 2, "--output reads RUN twice"),
        (("eval", QRELS, "--qrels", QRELS, "--measures", "alpha_nDCG@5"), 2, "needs judgements by subtopic"),
        (("run", QRELS, "-o", "x", "--format", "trec", "--echo-query"), 2, "--echo-query: --format trec has no field"),
        (("run", QRELS, "-o", "x", "--fuse-k", "5"), 2, "--fuse-k needs --fuse rrf"),
        (("run", QRELS, "-o", "x", "--fuse", "rrf", "--fuse-weight", "0.5"), 2, "--fuse-weight needs --fuse weighted"),
        (("run", QRELS, "-o", "x", "--fuse", "rrf", "--normalize", "none"), 2, "--normalize needs --fuse weighted"),
        (("run", QRELS, "-o", "x", "--measures", "AP"), 2, "--measures needs --qrels FILE"),
        (("run", QRELS, "-o", "x", "--min-score", "nan"), 2, "need a number"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path, args, code, complaint):
    ended = rerank(*args, cwd=tmp_path)
    assert (ended.code, ended.out) == (code, b"")
    assert complaint in ended.complaint


def test_a_run_of_other_queries_is_refused(tmp_path):
    run = write_lines(tmp_path / "run", ["q1 Q0 d1 1 1.0 t"])
    ended = rerank("eval", run, "--qrels", QRELS)
    assert ended.code == 4
    assert "none of its queries is judged (got 1 others, expected ids like" in ended.complaint


def test_a_run_of_other_documents_is_measured_and_remarked():
    ended = rerank("eval", "-", "--qrels", QRELS, "--json", stdin=b"94 Q0 d1 1 1.0 t\n")
    assert ended.records[0]["means"]["AP"] == 0
    assert "none of the documents is judged: query 94 has d1" in ended.err


def test_eval_loads_no_torch(tmp_path):
    run = write_lines(tmp_path / "run", ["94 Q0 1215116 1 1.0 t"])
    code = "import sys; from rerank_cli.cli.main import app; app(standalone_mode=False); print('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code, "eval", run, "--qrels", QRELS, "--baseline", run],
        env=environment(), capture_output=True, check=True,
    )  # fmt: skip
    assert ended.stdout.endswith(b"False\n")
