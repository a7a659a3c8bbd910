import sys

import ir_measures
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import UsageError
from rerank_cli.evaluation.evaluate import check_overlap, evaluate, suspicion
from rerank_cli.evaluation.measures import DEFAULT, measure, parse_measures
from rerank_cli.formats.runs.results import Result, by_score, stand_ins, trec_order

TREC = {"nDCG@10": "ndcg_cut_10", "AP": "map", "P@10": "P_10", "R@100": "recall_100", "RR": "recip_rank"}
scores = st.dictionaries(st.sampled_from("abcdeABCDEäöü0123456789"), st.integers(0, 4), min_size=1, max_size=12)
judgements = st.dictionaries(st.sampled_from("abcdeABC01"), st.integers(0, 3), min_size=1, max_size=6)
QRELS = {"q1": {"a": 1}, "q2": {"b": 2, "c": 1}}


def test_the_names_of_the_defaults_are_those_of_ir_measures():
    assert [str(one.measure) for one in parse_measures(DEFAULT)] == DEFAULT.split(",")


def test_a_measure_keeps_the_name_it_was_asked_for_by():
    assert [one.name for one in parse_measures("MRR@10, MAP,MRR@10")] == ["MRR@10", "MAP"]
    assert str(parse_measures("MRR@10")[0].measure) == "RR@10"


def test_parameters_stand_in_parentheses():
    found = parse_measures("nDCG(dcg='exp-log2',cutoff=5),P(rel=2)@3,IPrec@0.1,Success@1")
    assert [one.name for one in found] == ["nDCG(dcg='exp-log2',cutoff=5)", "P(rel=2)@3", "IPrec@0.1", "Success@1"]


@pytest.mark.parametrize("name", ["nDCG@", "Quality@10", "nDCG@ten", "P", "AP@10,Quality", "nDCG(", "nDCG@10.5"])
def test_a_measure_that_is_none_is_named(name):
    with pytest.raises(UsageError, match=r"--measures .*: not a measure of ir_measures .*Fix: nDCG@10, say"):
        parse_measures(name)


def test_no_measure_at_all_is_said():
    with pytest.raises(UsageError, match="--measures is empty"):
        parse_measures(" , ")


def test_a_measure_that_nothing_installed_works_out_says_what_would(monkeypatch):
    monkeypatch.setattr(type(ir_measures.DefaultPipeline), "supports", lambda *_: False)
    with pytest.raises(
        UsageError, match=r"--measures RBP\(rel=1\): no installed package computes it. Fix: pip install"
    ):
        parse_measures("RBP(rel=1)")


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(UsageError, match=r"Fix: pip install 'rerank-cli\[eval\]'"):
        parse_measures("AP")


@given(scores, judgements)
def test_figures_of_scores_are_those_that_trec_eval_gives_ties_and_all(found, judged):
    run = {name: float(score) for name, score in found.items()}
    ours = measure(parse_measures(",".join(TREC)), {"q": judged}, {"q": run})
    order = stand_ins([document.id for document in by_score([Result(name) for name in run], list(run.values()))])
    assert measure(parse_measures(",".join(TREC)), {"q": judged}, {"q": order}).means == ours.means
    assert trec_order(run) == list(order)
    theirs = pytrec_eval.RelevanceEvaluator({"q": judged}, set(TREC.values())).evaluate({"q": run})
    assert {TREC[name]: value for name, value in ours.means.items()} == theirs["q"]


@given(st.permutations("abcdefgh"), judgements)
def test_an_order_is_measured_as_it_stands_by_every_provider(names, judged):
    """RR@10 is worked out by another provider than RR, which breaks ties the other way round."""
    ours = measure(parse_measures("RR,RR@10"), {"q": judged}, {"q": stand_ins(names)}).means
    assert ours["RR"] == pytest.approx(ours["RR@10"])


def test_figures_are_those_of_ir_measures_on_the_same_run():
    run = {"q1": {"b": 3.0, "a": 2.0}, "q2": {"b": 1.0}}
    names = "nDCG@10,RR@10,AP,R@100,P@10"
    ours = measure(parse_measures(names), QRELS, run)
    theirs = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in names.split(",")], QRELS, run)
    assert ours.means == {str(name): value for name, value in theirs.items()}


def test_a_judged_query_that_was_not_ranked_counts_as_nothing():
    found = evaluate(parse_measures("RR"), QRELS, {"q1": {"a": 1.0}})
    assert (found.after.means, found.queries, found.missing) == ({"RR": 0.5}, 2, 1)
    assert found.after.values["RR"] == {"q1": 1, "q2": 0}
    assert evaluate(parse_measures("RR"), QRELS, {"q1": {"a": 1.0}, "q2": {}}).missing == 1


def test_two_rankings_are_compared_query_by_query():
    after = {"q1": {"a": 1.0}, "q2": {"a": 1.0, "b": 0.5}}
    found = evaluate(parse_measures("RR"), QRELS, after, {"q1": {"b": 1.0, "a": 0.5}, "q2": {"c": 1.0}})
    difference = found.differences["RR"]
    assert (difference.wins, difference.losses, difference.mean) == (1, 1, 0)
    assert found.line == "RR 0.7500 → 0.7500; 2 judged queries"
    assert found.as_json(per_query=True)["per_query"] == [
        {"id": "q1", "values": {"RR": 1.0}, "baseline_values": {"RR": 0.5}},
        {"id": "q2", "values": {"RR": 0.5}, "baseline_values": {"RR": 1.0}},
    ]


def test_one_ranking_alone_has_figures_alone():
    found = evaluate(parse_measures("RR"), QRELS, {"q1": {"a": 1.0}})
    assert found.line == "RR 0.5000; 2 judged queries, 1 of them not ranked"
    assert found.as_json() == {"queries": 2, "missing": 1, "unjudged": 0, "means": {"RR": 0.5}}


def test_queries_are_listed_by_number():
    qrels = {name: {"a": 1} for name in ("10", "9", "b", "a")}
    found = evaluate(parse_measures("RR"), qrels, {"9": {"a": 1.0}})
    assert [query for query, *_ in found.by_query()] == ["9", "10", "a", "b"]


def test_a_run_without_a_judged_query_is_refused():
    with pytest.raises(Exception, match=r"run: none of its queries is judged \(got 3 others, expected ids like q1\)"):
        check_overlap("run", QRELS, {}, 3)
    with pytest.raises(Exception, match="it is empty"):
        check_overlap("run", QRELS, {}, 0)


def test_documents_of_which_none_is_judged_are_remarked():
    assert suspicion(QRELS, {"q1": {"x": 1.0}}) == "none of the documents is judged: query q1 has x, the judgements a"
    assert suspicion(QRELS, {"q1": {}}) == "none of the documents is judged: query q1 has none, the judgements a"
    assert suspicion(QRELS, {"q1": {"x": 1.0, "a": 0.5}}) is None
