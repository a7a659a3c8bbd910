import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from instant import config, go

from rerank_cli.choices import Fuse, Normalize, OnError, OutputFormat, ScoreKind
from rerank_cli.engine.results import PairScores
from rerank_cli.errors import InputError
from rerank_cli.formats import AnswerOptions
from rerank_cli.ranking import Fusion, arrange, first_scores, normalized, rrf, weighted
from rerank_cli.records import Candidate, Position, Rejection, Request, Shape
from rerank_cli.run.stages import Scored, rank

numbers = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20)


def request(first, **fields):
    return Request("q", tuple(Candidate("t", "t", i, s) for i, s in enumerate(first)), Position("in", 1), **fields)


def ranked(given, logits, fusion, kind=ScoreKind.SIGMOID, kept=None):
    count = len(logits)
    pairs = PairScores(np.array(logits, np.float32), np.ones(count, np.int64), np.zeros(count, bool), None, 0, kept)
    return rank(given, Scored(None, pairs), slice(0, count), None, fusion, kind)


def arranged(first, logits, fusion, kind=ScoreKind.SIGMOID):
    order, fused = arrange(request(first), np.array(logits, np.float32), kind, fusion)
    return order.tolist(), fused if fused is None else fused.tolist()


def test_rrf_sums_the_reciprocals_of_both_ranks():
    fused = rrf((np.array([0, 2, 1]), np.array([1, 2, 0])), 60)
    assert fused.tolist() == pytest.approx([1 / 61 + 1 / 63, 1 / 63 + 1 / 61, 2 / 62])


def test_nothing_is_fused_unless_it_is_asked_for():
    found = ranked(request([1, 3]), [5, 6], Fusion())
    assert (found.order, found.fused) == ([1, 0], None)


@given(numbers)
def test_normalized_scores_keep_their_order(scores):
    values = np.array(scores, dtype=np.float64)
    for how in (Normalize.MINMAX, Normalize.ZSCORE):
        found = normalized(values, how)
        assert np.isfinite(found).all()
        assert (np.diff(found[np.argsort(values)]) >= 0).all()


def test_normalized_scores_have_their_range():
    values = np.array([1.0, 3, 5])
    assert normalized(values, Normalize.NONE).tolist() == [1, 3, 5]
    assert normalized(values, Normalize.MINMAX).tolist() == [0, 0.5, 1]
    assert normalized(values, Normalize.ZSCORE).mean() == pytest.approx(0)
    assert normalized(values, Normalize.ZSCORE).std() == pytest.approx(1)


@pytest.mark.parametrize("how", [Normalize.MINMAX, Normalize.ZSCORE])
def test_equal_scores_tell_nothing(how):
    assert normalized(np.array([7.0, 7.0]), how).tolist() == [0, 0]
    assert normalized(np.array([7.1]), how).tolist() == [0]


def test_the_ends_of_the_weight_are_one_stage_alone():
    ours, first = np.array([0.2, 0.9, 0.5]), np.array([10.0, 20, 30])
    assert np.argsort(-weighted(ours, first, 1, Normalize.MINMAX)).tolist() == [1, 2, 0]
    assert np.argsort(-weighted(ours, first, 0, Normalize.MINMAX)).tolist() == [2, 1, 0]


def test_rrf_goes_by_the_first_stages_scores():
    order, fused = arranged([1, 2, 9], [3, 2, 1], Fusion(Fuse.RRF, k=1))
    assert fused == pytest.approx([1 / 2 + 1 / 4, 1 / 3 + 1 / 3, 1 / 4 + 1 / 2])
    assert order == [0, 2, 1]


def test_rrf_goes_by_the_order_of_the_input_where_scores_are_missing():
    assert arranged([None, 2, 9], [3, 2, 1], Fusion(Fuse.RRF, k=1))[1] == pytest.approx([1, 2 / 3, 1 / 2])


def test_equal_fused_scores_keep_the_rerankers_order():
    assert arranged([5, 5, 5], [1, 3, 2], Fusion(Fuse.WEIGHTED, weight=0))[0] == [1, 2, 0]


def test_the_mix_counts_scores_as_they_are_written():
    fusion = Fusion(Fuse.WEIGHTED, weight=1, normalize=Normalize.NONE)
    assert arranged([5, 5], [1, 3], fusion, ScoreKind.RAW)[1] == [1, 3]
    assert arranged([5, 5], [1, 3], fusion)[1] == pytest.approx([0.7310586, 0.95257413])


def test_results_below_the_minimum_are_left_out():
    assert arranged([1, 1, 1, 1], [-1, 2, 0, 1], Fusion(min_score=0.5))[0] == [1, 3, 2]


def test_the_minimum_is_the_number_that_is_written():
    assert arranged([1], [np.log(0.7 / 0.3)], Fusion(min_score=0.7))[0] == [0]
    assert arranged([1, 1], [0.7, 0.69], Fusion(min_score=0.7), ScoreKind.RAW)[0] == [0]


def test_score_records_stay_in_input_order():
    given = request([None] * 3, shape=Shape.SCORE)
    found = ranked(given, [1, 3, 2], Fusion(Fuse.RRF, min_score=1.5), ScoreKind.RAW)
    assert found.order == [1, 2]
    assert len(found.fused) == 3


@pytest.mark.parametrize("fuse", Fuse)
def test_candidates_that_a_cascade_left_out_are_as_if_they_were_not_there(fuse):
    fusion = Fusion(fuse, min_score=0.0)
    kept = np.array([True, False, True, True])
    found = ranked(request([1, 9, 5, 3]), [2, np.nan, 0, 1], fusion, kept=kept)
    alone = ranked(request([1, 5, 3]), [2, 0, 1], fusion)
    assert found.order == [(0, 2, 3)[index] for index in alone.order]
    assert [found.fused[index] for index in (0, 2, 3)] == alone.fused


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), 1e300])
def test_a_score_that_is_missing_or_no_number_is_none(bad):
    assert first_scores(request([1, bad])) is None


def test_a_record_that_cannot_be_weighted_is_rejected():
    found = ranked(request([1, None], id="a"), [1, 3], Fusion(Fuse.WEIGHTED))
    assert isinstance(found, Rejection)
    assert (found.code, found.id) == ("no_first_score", "a")
    assert "got 1 of 2 without one, document 1 first" in found.message


@pytest.fixture
def scored_input(tmp_path):
    path = tmp_path / "in.jsonl"
    records = [
        {"id": i, "query": f"q{i}", "documents": [{"text": f"t{j}", "id": f"d{j}", "score": j} for j in range(4)]}
        for i in range(6)
    ]
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


def fused(given, written, format=OutputFormat.API, **options):
    return config(given, written, format=format, answers=AnswerOptions("m", ScoreKind.RAW, fused=True), **options)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("format", [OutputFormat.API, OutputFormat.PAIRS])
def test_a_fused_score_stands_beside_the_relevance_score_and_orders(scored_input, tmp_path, name, format):
    go(fused(scored_input, tmp_path / name, format, fusion=Fusion(Fuse.WEIGHTED, weight=0)))
    if name.endswith("parquet"):
        rows = pq.read_table(tmp_path / name).to_pylist()
    else:
        rows = [orjson.loads(line) for line in (tmp_path / name).read_bytes().splitlines()]
    results = rows[0]["results"] if format is OutputFormat.API else rows[:4]
    assert [result["fused_score"] for result in results] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert len({result["relevance_score"] for result in results}) == 4


@pytest.mark.parametrize("format", [OutputFormat.TREC, OutputFormat.BEIR])
def test_a_run_file_holds_the_fused_score(scored_input, tmp_path, format):
    go(fused(scored_input, tmp_path / "out", format, fusion=Fusion(Fuse.WEIGHTED, weight=0)))
    content = (tmp_path / "out").read_text()
    if format is OutputFormat.TREC:
        assert content.startswith("0 Q0 d3 1 1.0 rerank\n0 Q0 d2 2 0.6666667 rerank\n")
    else:
        assert orjson.loads(content)["0"] == pytest.approx({"d3": 1, "d2": 2 / 3, "d1": 1 / 3, "d0": 0})


def test_a_missing_first_stage_score_ends_the_run_before_anything_is_scored(scored_input, tmp_path):
    with scored_input.open("ab") as file:
        file.write(b'{"id": "x", "query": "q", "documents": ["t"]}\n')
    with pytest.raises(InputError, match=r"in.jsonl:7: --fuse weighted needs a first-stage `score`.*Fix: --fuse rrf"):
        go(fused(scored_input, tmp_path / "out.jsonl", fusion=Fusion(Fuse.WEIGHTED)))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_first_stage_score_can_be_skipped(scored_input, tmp_path):
    with scored_input.open("ab") as file:
        file.write(b'{"id": "x", "query": "q", "documents": ["t"]}\n')
    plan = fused(scored_input, tmp_path / "out.jsonl", fusion=Fusion(Fuse.WEIGHTED), on_error=OnError.SKIP)
    summary, _ = go(plan)
    assert summary.stats.rejected == 1
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 6
