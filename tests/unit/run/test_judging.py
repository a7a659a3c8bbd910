import math
import random
from dataclasses import replace

import ir_measures
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from instant import InstantSession, config, go, kill, names

from rerank_cli.choices import Fuse, OnChanged, OutputFormat, Resume, ScoreKind
from rerank_cli.errors import InputError, RefusedError, UsageError
from rerank_cli.evaluation.evaluate import Asked, worked_out
from rerank_cli.evaluation.measures import DEFAULT
from rerank_cli.evaluation.same_pass import QrelsOptions
from rerank_cli.formats import AnswerOptions
from rerank_cli.formats.runs.results import trec_order
from rerank_cli.ranking import Fusion
from rerank_cli.run.recovery import checkpoint

RECORDS = 40


@pytest.fixture
def given(tmp_path):
    rng = random.Random(5)
    records = [
        {
            "id": i,
            "query": f"query {i}",
            "documents": [{"id": f"d{j}", "text": f"{rng.random()}", "score": rng.randint(0, 3)} for j in range(5)],
        }
        for i in range(RECORDS)
    ]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


@pytest.fixture
def qrels(tmp_path):
    """Two judged documents for every second query, and a query that nobody asked."""
    path = tmp_path / "qrels"
    lines = [f"{i} 0 d{(i // 2 + j) % 5} {j + 1}\n" for i in range(0, RECORDS, 2) for j in range(2)]
    path.write_text("".join([*lines, "absent 0 d1 1\n"]))
    return path


def judged(given, written, qrels, **options):
    return config(given, written, qrels=QrelsOptions(str(qrels)), **options)


MEASURES = "nDCG@10,RR@10,RR,AP,R@100,P@2,Judged@2,Compat,Accuracy,NumRet"


class SaturatedSession(InstantSession):
    """Logits so high that many different ones have the same sigmoid, and some below 0."""

    def score(self, prepared, *_):
        return super().score(prepared) * 8 - 6


def as_pairs(path, rows):
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


@pytest.fixture(params=["requests", "pairs", "ranked pairs", "no scores", "score"])
def shapes(request, given, tmp_path):
    """The same candidates in several shapes. Ranks disagree with scores."""
    if request.param == "requests":
        return given
    records = [orjson.loads(line) for line in given.read_bytes().splitlines()]
    if request.param == "score":
        texts = [{"id": r["id"], "text_1": r["query"], "text_2": [d["text"] for d in r["documents"]]} for r in records]
        return as_pairs(tmp_path / "score.jsonl", texts)
    if request.param == "no scores":
        for record in records:
            del record["documents"][1]["score"]
        return as_pairs(tmp_path / "some.jsonl", records)
    rows = []
    for record in records:
        for place, document in enumerate(record["documents"]):
            rank = {"rank": (place * 2) % 5 + 1} if request.param == "ranked pairs" else {}
            text, score = document["text"], document["score"]
            rows.append({"qid": record["id"], "query": record["query"], "docid": document["id"], "text": text} | rank)
            rows[-1]["score"] = score
    return as_pairs(tmp_path / "pairs.jsonl", rows)


@pytest.mark.parametrize(
    ("format", "scores"),
    [*((one, "sigmoid") for one in OutputFormat), ("api", "raw"), ("trec", "raw"), ("beir", "both")],
)
def test_a_run_says_of_itself_what_eval_says_of_its_output(shapes, tmp_path, qrels, format, scores):
    """Ties of first-stage scores and of sigmoids included, for measures that break ties in each of three ways."""
    if shapes.name == "score.jsonl":
        text = "".join(f"{i} 0 {(i // 2 + j) % 5} {j + 1}\n" for i in range(0, RECORDS, 2) for j in range(2))
        qrels.write_text(f"{text}absent 0 1 1\n")
    answers = AnswerOptions("instant", ScoreKind(scores))
    plan = config(
        shapes,
        tmp_path / "out",
        qrels=QrelsOptions(str(qrels), MEASURES),
        format=OutputFormat(format),
        answers=answers,
        commit_interval=60,
    )
    summary, _ = go(plan, SaturatedSession())
    found, said = worked_out(Asked(str(tmp_path / "out"), str(qrels), str(shapes), MEASURES), print), summary.evaluation
    own, read = (orjson.loads(orjson.dumps(one.as_json(per_query=True))) for one in (said, found))
    assert own == read | {"unjudged": 0}
    assert (said.queries, said.missing) == (RECORDS // 2 + 1, 1)


@pytest.mark.parametrize("fuse", Fuse)
@pytest.mark.parametrize("format", ["api", "pairs", "trec", "beir"])
def test_so_it_does_of_fused_scores(given, tmp_path, qrels, format, fuse):
    plan = config(
        given,
        tmp_path / "out",
        qrels=QrelsOptions(str(qrels), MEASURES),
        format=OutputFormat(format),
        fusion=Fusion(fuse),
        answers=AnswerOptions("instant", fused=True),
        top_n=4,
        commit_interval=60,
    )
    summary, _ = go(plan, SaturatedSession())
    found = worked_out(Asked(str(tmp_path / "out"), str(qrels), str(given), MEASURES), print)
    own, read = (orjson.loads(orjson.dumps(one.as_json(per_query=True))) for one in (summary.evaluation, found))
    assert own == read | {"unjudged": 0}


def test_first_stage_ties_are_those_of_ir_measures_on_a_run_of_the_same_scores(given, tmp_path, qrels):
    records = [orjson.loads(line) for line in given.read_bytes().splitlines()]
    lines = [f"{r['id']} Q0 {d['id']} 1 {d['score']} t\n" for r in records for d in r["documents"]]
    (tmp_path / "run").write_text("".join(lines))
    summary, _ = go(judged(given, tmp_path / "out", qrels))
    measures = [ir_measures.parse_measure(name) for name in DEFAULT.split(",")]
    judgements, run = ir_measures.read_trec_qrels(str(qrels)), ir_measures.read_trec_run(str(tmp_path / "run"))
    theirs = ir_measures.calc_aggregate(measures, judgements, run)
    assert summary.evaluation.before.means == pytest.approx({str(one): value for one, value in theirs.items()})


def test_scores_that_are_infinite_in_parquet_count_as_the_largest(tmp_path, qrels):
    texts = [{"id": f"d{j}", "text": f"t{j}", "score": score} for j, score in enumerate((0.0, math.inf, -math.inf))]
    rows = [{"id": "0", "query": "q", "documents": texts}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    summary, _ = go(judged(tmp_path / "in.parquet", tmp_path / "out", qrels))
    found = worked_out(Asked(str(tmp_path / "out"), str(qrels), str(tmp_path / "in.parquet")), print)
    assert summary.evaluation.as_json(per_query=True) == found.as_json(per_query=True)


@pytest.mark.parametrize("at", [0, 3, 9])
def test_queries_from_before_a_kill_are_measured_too(given, tmp_path, qrels, at):
    whole, _ = go(judged(given, tmp_path / "whole.jsonl", qrels))
    plan = judged(given, tmp_path / "out.jsonl", qrels)
    kill(plan, at)
    kill(plan, 1)
    resumed, _ = go(plan)
    assert resumed.evaluation == whole.evaluation
    assert names(tmp_path) == ["in.jsonl", "out.jsonl", "qrels", "whole.jsonl"]


def test_a_stream_is_measured_without_a_file(given, tmp_path, qrels):
    whole, _ = go(judged(given, tmp_path / "whole.jsonl", qrels))
    with open("/dev/null", "wb") as null:
        streamed, _ = go(judged(given, "-", qrels, stdout=null))
    assert streamed.evaluation == whole.evaluation


def test_a_stream_with_a_checkpoint_goes_on_measuring(given, tmp_path, qrels):
    whole, _ = go(judged(given, tmp_path / "whole.jsonl", qrels))
    with (tmp_path / "stream").open("ab") as stream:
        plan = judged(given, "-", qrels, stdout=stream, checkpoint=str(tmp_path / "checkpoint"))
        kill(plan, 4)
        resumed, _ = go(plan)
    assert resumed.evaluation == whole.evaluation
    assert (tmp_path / "stream").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert names(tmp_path) == ["in.jsonl", "qrels", "stream", "whole.jsonl"]


def test_candidates_beyond_the_top_n_count_before_and_not_after(given, tmp_path, qrels):
    cut, _ = go(judged(given, tmp_path / "cut.jsonl", qrels, top_n=1))
    whole, _ = go(judged(given, tmp_path / "whole.jsonl", qrels))
    assert cut.evaluation.before == whole.evaluation.before
    assert cut.evaluation.after.means["R@100"] < whole.evaluation.after.means["R@100"]


def test_figures_stand_on_one_line_and_in_the_summary(given, tmp_path, qrels):
    said = []
    plan = config(
        given,
        tmp_path / "out.jsonl",
        qrels=QrelsOptions(str(qrels), "RR,P@1"),
        notify=said.append,
        summary=str(tmp_path / "summary.json"),
    )
    summary, _ = go(plan)
    figures = orjson.loads((tmp_path / "summary.json").read_bytes())["evaluation"]
    assert figures == summary.evaluation.as_json()
    assert set(figures["means"]) == set(figures["baseline_means"]) == {"RR", "P@1"}
    before, after = figures["baseline_means"]["RR"], figures["means"]["RR"]
    assert any(line.startswith(f"RR {before:.4f} → {after:.4f}, P@1 ") for line in said)


def test_judgements_of_other_queries_measure_nothing_and_lose_nothing(given, tmp_path):
    (tmp_path / "other").write_text("other 0 d1 1\n")
    said = []
    summary, _ = go(judged(given, tmp_path / "out.jsonl", tmp_path / "other", notify=said.append))
    assert summary.evaluation is None
    assert summary.as_json()["evaluation"] is None
    assert "no query of the input is judged: nothing is measured" in said
    assert (tmp_path / "out.jsonl").exists()


def test_judgements_of_other_documents_are_remarked(given, tmp_path):
    (tmp_path / "other").write_text("1 0 x1 1\n")
    said = []
    go(judged(given, tmp_path / "out.jsonl", tmp_path / "other", notify=said.append))
    assert any(line.startswith("none of the documents is judged: query 1 has ") for line in said)


def test_a_query_that_comes_twice_counts_once(given, tmp_path, qrels):
    whole, _ = go(judged(given, tmp_path / "whole.jsonl", qrels))
    given.write_bytes(given.read_bytes() + b'{"id": 0, "query": "x", "documents": [{"id": "d9", "text": "t"}]}\n')
    twice, _ = go(judged(given, tmp_path / "twice.jsonl", qrels))
    assert twice.evaluation == whole.evaluation


def test_bad_judgements_show_before_anything_is_scored(given, tmp_path):
    (tmp_path / "bad").write_text("nonsense 1\n")
    with pytest.raises(InputError, match="bad:1: not a relevance judgement"):
        go(judged(given, tmp_path / "out.jsonl", tmp_path / "bad"))
    assert names(tmp_path) == ["bad", "in.jsonl"]


def test_a_run_begun_without_judgements_cannot_be_measured_from_the_middle(given, tmp_path, qrels):
    kill(config(given, tmp_path / "out.jsonl"), 5)
    with pytest.raises(RefusedError, match=r"started without --qrels. Fix: remove --qrels, rerank eval measures"):
        go(judged(given, tmp_path / "out.jsonl", qrels))
    go(config(given, tmp_path / "out.jsonl"))


def test_a_run_begun_with_other_judgements_is_refused(given, tmp_path, qrels):
    kill(judged(given, tmp_path / "out.jsonl", qrels), 5)
    (tmp_path / "other").write_text("0 0 d1 1\n")
    with pytest.raises(
        RefusedError, match=r"started with other judgements. Fix: the --qrels of the first run, or --restart"
    ):
        go(judged(given, tmp_path / "out.jsonl", tmp_path / "other"))
    go(judged(given, tmp_path / "out.jsonl", tmp_path / "other", resume=Resume.NEVER))


def test_what_is_kept_for_measuring_is_not_taken_on_trust(given, tmp_path, qrels):
    plan = judged(given, tmp_path / "out.jsonl", qrels)
    kill(plan, 5)
    (tmp_path / "out.jsonl.judged").unlink()
    with pytest.raises(RefusedError, match=r"out.jsonl.judged: is not what its checkpoint says. Fix: --restart"):
        go(plan)


def as_kept_by_version_0_1_0(output):
    """Change the kept rankings to ids in order, whose ties were broken like trec_eval."""
    path, kept = (output.with_name(output.name + suffix) for suffix in (".checkpoint", ".judged"))
    saved = checkpoint.load(path)
    rows = [orjson.loads(line) for line in kept.read_bytes()[: saved.judged.length].splitlines()]
    orders = [[query, *(trec_order(one) if isinstance(one, dict) else one for one in both)] for query, *both in rows]
    assert any(isinstance(one, dict) for _, *both in rows for one in both)
    kept.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in orders))
    digest = saved.judged.digest.removeprefix("2:")
    checkpoint.save(replace(saved, judged=replace(saved.judged, length=kept.stat().st_size, digest=digest)), path)


def test_a_run_begun_by_an_earlier_version_is_measured_as_a_whole_and_says_how(given, tmp_path, qrels):
    said = []
    whole, _ = go(judged(given, tmp_path / "whole.jsonl", qrels, notify=said.append))
    assert not any("earlier version" in line for line in said)
    plan = judged(given, tmp_path / "out.jsonl", qrels, notify=said.append)
    kill(plan, 5)
    as_kept_by_version_0_1_0(tmp_path / "out.jsonl")
    kill(plan, 3)
    found, _ = go(plan)
    assert any("an earlier version of rerank ranked, first-stage ties are broken by id" in line for line in said)
    assert found.evaluation.after == whole.evaluation.after
    by_trec_eval = [name for name in whole.evaluation.before.means if name != "RR@10"]
    for name in by_trec_eval:
        assert found.evaluation.before.values[name] == whole.evaluation.before.values[name]
    assert found.evaluation.before.values["RR@10"] != whole.evaluation.before.values["RR@10"]


def test_of_a_run_begun_by_an_earlier_version_other_judgements_are_refused_too(given, tmp_path, qrels):
    kill(judged(given, tmp_path / "out.jsonl", qrels), 5)
    as_kept_by_version_0_1_0(tmp_path / "out.jsonl")
    qrels.write_text("0 0 d1 1\n")
    with pytest.raises(RefusedError, match="started with other judgements"):
        go(judged(given, tmp_path / "out.jsonl", qrels))


@pytest.mark.parametrize("begun", [True, False], ids=["with other judgements", "without judgements"])
def test_judgements_that_do_not_fit_begin_again_with_on_changed_restart(given, tmp_path, qrels, begun):
    (tmp_path / "other").write_text("0 0 d1 1\n")
    first = judged(given, tmp_path / "out.jsonl", tmp_path / "other")
    kill(first if begun else config(given, tmp_path / "out.jsonl"), 5)
    said = []
    plan = judged(given, tmp_path / "out.jsonl", qrels, notify=said.append, on_changed=OnChanged.RESTART)
    found, _ = go(plan)
    assert any("starting over" in line for line in said)
    assert found.evaluation == go(judged(given, tmp_path / "whole.jsonl", qrels))[0].evaluation


def test_judgements_may_be_left_out_of_a_run_that_goes_on(given, tmp_path, qrels):
    kill(judged(given, tmp_path / "out.jsonl", qrels), 5)
    summary, _ = go(config(given, tmp_path / "out.jsonl"))
    assert summary.evaluation is None
    assert names(tmp_path) == ["in.jsonl", "out.jsonl", "qrels"]


def test_the_output_never_takes_the_place_of_the_judgements(given, qrels):
    with pytest.raises(RefusedError, match="would be written while it is read"):
        go(judged(given, qrels, qrels, overwrite=True))


def test_judgements_do_not_come_from_stdin(given, tmp_path):
    with pytest.raises(UsageError, match="--qrels cannot be -"):
        go(judged(given, tmp_path / "out.jsonl", "-"))


@pytest.mark.parametrize("name", ["out.json", "out.json.gz"])
@pytest.mark.parametrize("format", [OutputFormat.BEIR, OutputFormat.FLAGEMBEDDING])
@pytest.mark.parametrize("at", [0, 1, 6])
def test_one_object_is_whole_after_a_kill_too(given, tmp_path, name, format, at):
    go(config(given, tmp_path / f"whole-{name}", format=format))
    plan = config(given, tmp_path / name, format=format)
    kill(plan, at)
    kill(plan, 1)
    go(plan)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


def test_one_object_cannot_go_on_in_a_stream(given, tmp_path):
    with open("/dev/null", "wb") as null, pytest.raises(UsageError, match="a stream of it cannot be resumed"):
        go(config(given, "-", format=OutputFormat.BEIR, stdout=null, checkpoint=str(tmp_path / "checkpoint")))


@pytest.mark.parametrize("format", ["trec", "msmarco", "beir", "flagembedding"])
def test_a_run_file_has_no_place_for_marks(given, tmp_path, format):
    plan = config(given, tmp_path / "out", format=OutputFormat(format), answers=AnswerOptions("m", truncated=True))
    with pytest.raises(UsageError, match=rf"--mark-truncated: --format {format} cannot store marks"):
        go(plan)
    plan = config(given, tmp_path / "out", format=OutputFormat(format), answers=AnswerOptions("m", query=True))
    with pytest.raises(UsageError, match=rf"--echo-query: --format {format} has no field for texts. Fix: --format api"):
        go(plan)
