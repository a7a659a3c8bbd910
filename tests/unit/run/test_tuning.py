import random
from dataclasses import replace

import orjson
import pytest
from instant import config, go

from rerank_cli.choices import Fuse, Normalize
from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation.evaluate import Asked, worked_out
from rerank_cli.evaluation.evaluate import tuned as tuned_by
from rerank_cli.evaluation.measures import measure, parse_measures
from rerank_cli.evaluation.tuning import WEIGHTS, Mixable, tune
from rerank_cli.formats import AnswerOptions
from rerank_cli.formats.runs.results import Result, stand_ins
from rerank_cli.ranking import Fusion

(RR,) = parse_measures("RR")


def query(ours, first, relevant, noise=0.0):
    """Six documents whose relevant one has these scores, others around 0.5."""
    rng = random.Random(f"{ours}{first}{relevant}{noise}")
    documents = [Result(f"d{i}", rng.uniform(0.4, 0.6), i, first_score=rng.uniform(0.4, 0.6)) for i in range(6)]
    documents[relevant] = Result(f"d{relevant}", ours, relevant, first_score=first)
    return documents, {f"d{relevant}": 1}


def collection(*queries):
    rankings, qrels = {}, {}
    for number, (documents, judged) in enumerate(queries):
        rankings[str(number)], qrels[str(number)] = documents, judged
    return rankings, qrels


def tuned(rankings, qrels, **options):
    return tune("out", rankings, qrels, RR, options.get("normalize", Normalize.MINMAX), options.get("folds", 5))


def test_the_stage_that_knows_better_gets_the_weight():
    assert tuned(*collection(*[query(0.9, 0.41, i % 6) for i in range(10)])).best > 0.5
    assert tuned(*collection(*[query(0.41, 0.9, i % 6) for i in range(10)])).best < 0.5


def test_the_curve_is_what_the_mixes_are_worth():
    rankings, qrels = collection(*[query(0.7, 0.55, i % 6, i) for i in range(8)])
    found = tuned(rankings, qrels)
    assert list(found.curve) == list(WEIGHTS) == pytest.approx([i * 0.05 for i in range(21)])
    for weight in (0.0, 0.35, 1.0):
        mixed = {query: Mixable(documents).mixed(weight, Normalize.MINMAX) for query, documents in rankings.items()}
        run = {query: stand_ins([result.id for result, _ in documents]) for query, documents in mixed.items()}
        assert found.curve[weight] == pytest.approx(measure([RR], qrels, run).means["RR"])
    assert found.curve[found.best] == max(found.curve.values())


@pytest.mark.parametrize("normalize", Normalize)
def test_a_weight_does_in_a_run_what_it_does_in_tuning(tmp_path, normalize):
    rng = random.Random(2)
    records = [
        {"id": str(i), "query": f"q{i}", "documents": [
            {"id": f"d{j}", "text": f"t{rng.random()}", "score": rng.randint(0, 9)} for j in range(6)]}
        for i in range(20)
    ]  # fmt: skip
    given, plain = tmp_path / "in.jsonl", tmp_path / "plain.jsonl"
    given.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    (tmp_path / "qrels").write_text("".join(f"{i} 0 d{rng.randrange(6)} 1\n" for i in range(20)))
    go(config(given, plain))
    asked = Asked(str(plain), str(tmp_path / "qrels"))
    found = tuned_by(asked, normalize, 5, print)
    for weight in (found.best, 0.3):
        fusion = Fusion(Fuse.WEIGHTED, weight=weight, normalize=normalize)
        fused = tmp_path / f"{weight}.jsonl"
        go(config(given, fused, fusion=fusion, answers=AnswerOptions("instant", fused=True)))
        assert worked_out(replace(asked, run=str(fused)), print).after.means["nDCG@10"] == pytest.approx(
            found.curve[weight]
        )
        assert tuned_by(replace(asked, run=str(fused)), normalize, 5, print).curve == found.curve


def test_of_equal_weights_the_middlemost_is_taken():
    assert tuned(*collection(*[query(0.9, 0.9, i % 6) for i in range(6)])).best == 0.5


def test_what_is_held_out_is_no_better_than_what_was_chosen_on_all():
    found = tuned(*collection(*[query(0.55, 0.55, i % 6, i) for i in range(30)]))
    assert 0 < found.held_out <= found.curve[found.best]


def test_a_weight_for_logits_says_so():
    assert tuned(*collection(query(0.9, 0.5, 1))).flags == "--fuse weighted --fuse-weight 0.5 --normalize minmax"
    assert tuned(*collection(query(9, 0.5, 1))).flags.endswith(" --normalize minmax --scores raw")


def test_too_few_queries_are_not_cross_validated():
    assert tuned(*collection(query(0.9, 0.5, 1)), folds=2).held_out is None


def test_ties_keep_the_order_of_the_output():
    documents = [Result(name, 0.5, first_score=1.0) for name in "cab"]
    assert [result.id for result, _ in Mixable(documents).mixed(0.5, Normalize.MINMAX)] == ["c", "a", "b"]
    assert list(Mixable([]).mixed(0.5, Normalize.MINMAX)) == []


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([Result("a", index=0, first_score=1.0)], "documents without a relevance score"),
        ([Result("a", 1.0, 0)], r"without a first-stage score. Fix: rerank candidates that have a `score`"),
        ([Result("a", 1.0, 7, first_score=1.0)], r"too few candidates \(got 1, one is number 8 of the input\)"),
    ],
)
def test_an_output_that_cannot_be_mixed_again_is_refused(documents, message):
    with pytest.raises(InputError, match=f"out: query 0 has .*{message}|out: query 0 has {message}"):
        tuned({"0": documents}, {"0": {"a": 1}})


def test_one_fold_is_none():
    with pytest.raises(UsageError, match="--folds 1"):
        tuned(*collection(query(0.9, 0.5, 1)), folds=1)
