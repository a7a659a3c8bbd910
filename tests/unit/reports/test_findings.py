import sys

import ir_measures
import pytest
from made import answer, request

from rerank_cli.errors import InputError, UsageError
from rerank_cli.reports.analysis import NDCG
from rerank_cli.reports.counts import Extremes, RankTable, ScoreCounts

QRELS = "a 0 d2 1\nb 0 d0 1\nc 0 d1 2\nzzz 0 d1 1\n"
ANSWERS = [answer("a", [2, 0, 1]), answer("b", [1, 0, 2]), answer("c", [0, 1, 2]), answer("d", [0, 1])]


def test_what_there_is_is_counted(found):
    seen = found([*ANSWERS, {"id": "x", "error": {"code": "bad_json", "message": "", "line": 5}}])
    assert (seen.queries, seen.pairs, seen.rejected, seen.tokens, seen.models) == (4, 11, 1, 110, ["mini"])
    assert (seen.new_first, seen.first_known) == (2, 4)
    assert "1 records were rejected" in seen.notes[-1]


def test_means_are_those_of_ir_measures_on_the_same_files(found):
    quality = found(ANSWERS, qrels=QRELS).quality
    judged = {"a": {"d2": 1}, "b": {"d0": 1}, "c": {"d1": 2}}
    after = {one["id"]: {f"d{r['index']}": r["relevance_score"] for r in one["results"]} for one in ANSWERS}
    before = {one["id"]: {f"d{r['index']}": -r["index"] for r in one["results"]} for one in ANSWERS}
    for name in ("nDCG@10", "RR@10", "P@1"):
        measure = ir_measures.parse_measure(name)
        assert quality.mean_after(name) == ir_measures.calc_aggregate([measure], judged, after)[measure]
        assert quality.mean_before(name) == ir_measures.calc_aggregate([measure], judged, before)[measure]
    assert quality.counts == (1, 1, 1)
    assert quality.wins.best_first()[0].case.id == "a"
    assert [one.case.id for one in quality.losses.best_first()] == ["b"]


def test_queries_that_means_leave_out_are_told(found):
    notes = " ".join(found(ANSWERS, qrels=QRELS).notes)
    assert "1 of 4 judged queries are not in the output" in notes
    assert "Means leave out 1 query without judgements" in notes


def test_before_is_not_known_of_an_output_that_was_cut_unless_the_input_is_there(found):
    cut = [answer("a", [2, 0])]
    unknown = found(cut, qrels="a 0 d2 1\n")
    assert (unknown.quality.mean_before(NDCG), unknown.quality.mean_after(NDCG)) == (None, 1.0)
    assert "nDCG before is unknown for 1 query:" in " ".join(unknown.notes)
    assert found(cut, [request("a")], qrels="a 0 d2 1\n").quality.mean_before(NDCG) == 0.5


def test_a_baseline_takes_the_place_of_the_first_stage(found):
    seen = found([answer("a", [2, 0, 1])], qrels="a 0 d2 1\n", baseline="a Q0 d9 1 3 t\na Q0 d2 2 2 t\n")
    assert seen.quality.mean_before(NDCG) == pytest.approx(0.6309, abs=1e-4)
    case = seen.quality.wins.best_first()[0].case
    assert [(p.id, p.text) for p in case.left] == [("d9", None), ("d2", "Text 2")]
    assert [p.other_rank for p in case.right] == [2, None, None]


def test_an_example_shows_the_first_passages_and_the_relevant_one(found):
    case = found([answer("a", [0, 1, 2, 3, 4])], qrels="a 0 d4 1\n").quality.wins.best_first()[0].case
    assert [(p.rank, p.is_relevant) for p in case.right] == [(1, False), (2, False), (3, False), (5, True)]


def test_an_output_without_answers_is_refused(found):
    with pytest.raises(InputError, match="is empty"):
        found([])


def test_a_summary_must_be_an_object(found):
    with pytest.raises(InputError, match="is not a JSON object"):
        found(ANSWERS, summary=[1])


def test_without_ir_measures_the_fix_is_named(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(UsageError, match=r"pip install 'rerank-cli\[eval\]'"):
        found(ANSWERS, qrels=QRELS)


def test_saturated_probabilities_stand_at_the_ends(found):
    counts = found([answer("a", [0, 1, 2], scores=[1.0, 0.5, 0.0])]).scores
    assert (counts.probabilities, sorted(counts.counts)) == (True, [-136, 0, 136])


def test_scores_beyond_one_are_taken_for_logits(found):
    counts = found([answer("a", [0, 1], scores=[3.0, 0.5])]).scores
    assert (counts.probabilities, sorted(counts.counts)) == (False, [4, 24])


def test_a_table_of_ranks_is_cut_into_cells():
    ranks = RankTable()
    for first in range(1, 101):
        ranks.add(first, 101 - first)
    cells, step = ranks.table(25)
    assert (cells.shape, step, int(cells.sum())) == ((25, 25), 4, 100)
    assert int(cells[0, 24]) == 4
    assert ranks.origins(10, (10, 20, 50)) == [0, 0, 0, 10]


def test_ranks_beyond_the_table_count_as_its_last():
    ranks = RankTable()
    ranks.add(5000, 1)
    assert ranks.deepest == (1024, 1)
    assert ranks.total == 1


def test_extremes_keep_the_highest_and_the_earlier_of_equals():
    extremes = Extremes(2)
    for value, name in [(1, "a"), (3, "b"), (2, "c"), (2, "d")]:
        extremes.offer(value, name)
    assert extremes.best_first() == ["b", "c"]


def test_no_scores_are_no_histogram():
    assert not ScoreCounts().counts
