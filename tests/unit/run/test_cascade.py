import random
import zlib
from dataclasses import replace

import numpy as np
import orjson
import pytest
from instant import InstantSession, Killed, config

from rerank_cli.choices import Fuse, OnError, OutputFormat
from rerank_cli.engine.contract import ModelFacts, StopRequested
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import RefusedError, UsageError
from rerank_cli.ranking import Fusion
from rerank_cli.run.job import run
from rerank_cli.run.options import Cascade
from rerank_cli.run.scoring.cascade_quality import Agreement

KEEP = 3
RECORDS = 30


class CountingSession(InstantSession):
    """Counts the pairs it is given; forgets none."""

    def __init__(self, name="instant", dies_at=None):
        super().__init__(dies_at)
        kept = InstantSession.facts
        values = {field: getattr(kept, field) for field in ModelFacts.__slots__}
        self.facts = ModelFacts(**values | {"name": name, "revision": f"{name}-1"})
        self.seen = []

    def prepare(self, pairs):
        self.seen += zip(pairs.queries, pairs.passages, strict=True)
        return super().prepare(pairs)


class SmallSession(CountingSession):
    """Scores by the length of the passage."""

    def __init__(self):
        super().__init__("small")

    def prepare(self, pairs):
        prepared = super().prepare(pairs)
        prepared.distinct[:] = [len(passage) for passage in pairs.passages]
        return prepared


def truth(query, passage):
    """The large model's logit."""
    return zlib.crc32(f"{query}|{passage}".encode()) % 1000 / 100


def write(path, records):
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    return path


def some_records():
    """Distinct documents, some of equal length."""
    rng = random.Random(3)
    sizes = [[rng.randint(1, 12) for _ in range(rng.randint(1, 12))] for _ in range(RECORDS)]
    return [
        {"id": i, "query": f"query {i}", "documents": ["x" * n + "abcdefghijkl"[j] for j, n in enumerate(lengths)]}
        for i, lengths in enumerate(sizes)
    ]


@pytest.fixture
def given(tmp_path):
    return write(tmp_path / "in.jsonl", some_records())


@pytest.fixture
def job(given, tmp_path):
    def make(name="out.jsonl", given=given, sample=0, keep=KEEP, **options):
        cascade = Cascade(ModelOptions("small"), keep, sample)
        return config(given, tmp_path / name, cascade=cascade, **options)

    return make


def go(plan, large=None, small=None):
    sessions = {"instant": large or CountingSession(), "small": small or SmallSession()}
    summary, _ = run(plan, lambda options: sessions[options.name], lambda options: f"{options.name}-1")
    return summary, sessions["instant"], sessions["small"]


def answers(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def kept_of(record):
    documents = record["documents"]
    return sorted(sorted(range(len(documents)), key=lambda i: (-len(documents[i]), i))[:KEEP])


def test_answers_hold_the_kept_candidates_in_the_large_models_order(job, tmp_path):
    go(job())
    for record, answer in zip(some_records(), answers(tmp_path / "out.jsonl"), strict=True):
        documents = record["documents"]
        expected = sorted(kept_of(record), key=lambda i: (-truth(record["query"], documents[i]), i))
        assert [result["index"] for result in answer["results"]] == expected
        tokens = [round(truth(record["query"], documents[i]) * 100) + 1 for i in expected]
        assert answer["usage"]["total_tokens"] == sum(tokens)


def test_the_large_model_sees_the_kept_candidates_alone(job):
    summary, large, small = go(job())
    records = some_records()
    assert len(large.seen) == sum(len(kept_of(record)) for record in records)
    crowded = [len(record["documents"]) for record in records if len(record["documents"]) > KEEP]
    assert len(small.seen) == sum(crowded) < summary.stats.pairs
    assert summary.stats.pairs == sum(len(record["documents"]) for record in records)
    cascade = summary.cascade
    assert (cascade.requests, cascade.pairs) == (len(crowded), sum(crowded))
    assert cascade.left_out == summary.stats.pairs - len(large.seen)


def test_a_cascade_that_keeps_everything_changes_nothing(job, given, tmp_path):
    go(config(given, tmp_path / "plain.jsonl"))
    _, _, small = go(job(keep=100))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert small.seen == []


def test_a_request_cut_into_slices_is_thinned_out_whole(job, tmp_path):
    documents = ["x" * (i % 37) + "y" for i in range(50)]
    _, large, _ = go(job(given=write(tmp_path / "large.jsonl", [{"query": "q", "documents": documents}])))
    (answer,) = answers(tmp_path / "out.jsonl")
    assert sorted(result["index"] for result in answer["results"]) == [34, 35, 36]
    assert len(large.seen) == KEEP


def test_looking_into_some_requests_changes_no_byte(job, tmp_path):
    _, large, _ = go(job("without.jsonl"))
    _, busier, _ = go(job("with.jsonl", sample=5))
    assert (tmp_path / "without.jsonl").read_bytes() == (tmp_path / "with.jsonl").read_bytes()
    assert len(busier.seen) > len(large.seen)


def test_agreement_on_all_requests_is_what_the_answers_show(job, given, tmp_path):
    summary, _, _ = go(job(sample=1000))
    go(config(given, tmp_path / "alone.jsonl"))
    shares, firsts = [], []
    for ours, alone in zip(answers(tmp_path / "out.jsonl"), answers(tmp_path / "alone.jsonl"), strict=True):
        if len(alone["results"]) > KEEP:
            best, found = ([result["index"] for result in answer["results"][:KEEP]] for answer in (alone, ours))
            shares.append(len(set(best) & set(found)) / KEEP)
            firsts.append(best[0] == found[0])
    cascade = summary.cascade
    assert (cascade.sampled, cascade.k) == (len(shares), KEEP)
    assert cascade.kept_of_top_k == pytest.approx(sum(shares) / len(shares), abs=1e-4)
    assert cascade.same_best == pytest.approx(sum(firsts) / len(firsts), abs=1e-4)
    assert cascade.same_top_k == pytest.approx(shares.count(1.0) / len(shares), abs=1e-4)
    assert cascade.extra_pairs == cascade.left_out
    assert f"({cascade.kept_of_top_k:.1%} of the large model's top {KEEP} and " in summary.line()


def test_a_small_model_that_agrees_loses_nothing(job):
    class Wise(CountingSession):
        def __init__(self):
            super().__init__("small")

    cascade = go(job(sample=1000), small=Wise())[0].cascade
    assert (cascade.kept_of_top_k, cascade.same_best, cascade.same_top_k) == (1.0, 1.0, 1.0)


def test_a_candidate_for_which_the_small_model_has_no_number_is_kept(job, tmp_path):
    class Unsure(SmallSession):
        def score(self, prepared, *_):
            logits = super().score(prepared)
            logits[prepared.distinct == 1] = np.nan
            return logits

    short = write(tmp_path / "short.jsonl", [{"query": "q", "documents": ["xxx", "x", "xxxx", "xx", "xxxxx"]}])
    go(job(given=short), small=Unsure())
    (answer,) = answers(tmp_path / "out.jsonl")
    assert sorted(result["index"] for result in answer["results"]) == [1, 2, 4]


def test_a_score_of_the_large_model_that_is_no_number_is_an_error_of_the_record(job):
    class Broken(CountingSession):
        def score(self, prepared, *_):
            return np.full(len(prepared.distinct), np.nan, dtype=np.float32)

    summary, _, _ = go(job(on_error=OnError.EMIT, sample=5), large=Broken())
    assert summary.stats.rejected == RECORDS
    assert summary.cascade.sampled == 0


def test_layers_are_spread_over_kept_candidates(job, tmp_path):
    class Layered(CountingSession):
        def score(self, prepared, *_):
            logits = super().score(prepared)
            return np.stack([-logits, logits], axis=1)

    summary, _, _ = go(job("layers.jsonl", sample=1000), large=Layered())
    plain, _, _ = go(job("plain.jsonl", sample=1000))
    assert (tmp_path / "layers.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert summary.cascade.same_best == plain.cascade.same_best


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("at", [1, 4])
def test_a_run_that_was_killed_goes_on_and_writes_the_same_bytes(job, tmp_path, name, at):
    go(job(f"whole-{name}", sample=5))
    with pytest.raises(Killed):
        go(job(name, sample=5), large=CountingSession(dies_at=at))
    go(job(name, sample=5))
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


def stopped(session):
    """One that is asked to stop at its third slice."""
    score = session.score

    def score_two(prepared, *_):
        if session.calls == 2:
            raise StopRequested
        return score(prepared)

    session.score = score_two
    return session


@pytest.mark.parametrize("who", ["large", "small"])
@pytest.mark.parametrize("cache", [None, "cache.db"])
def test_a_run_that_was_stopped_goes_on_and_writes_the_same_bytes(job, tmp_path, who, cache):
    options = {"sample": 5, "cache": cache and str(tmp_path / cache)}
    go(job("whole.jsonl", sample=5))
    summary, _, _ = go(job(**options), **{who: stopped(CountingSession() if who == "large" else SmallSession())})
    assert not summary.stats.finished
    resumed, _, _ = go(job(**options))
    assert resumed.stats.finished
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_scores_of_kept_candidates_are_verified(job):
    asked = []

    class Verifiable(CountingSession):
        def score_plainly(self, pairs):
            asked.extend(zip(pairs.queries, pairs.passages, strict=True))
            return np.array([truth(*pair) for pair in asked[-len(pairs) :]], dtype=np.float32)

    summary, large, _ = go(job(verify=1000), large=Verifiable())
    assert sorted(asked) == sorted(large.seen)
    assert summary.verdict.worst < 1e-4


def test_another_cascade_is_another_run(job):
    with pytest.raises(Killed):
        go(job(), large=CountingSession(dies_at=4))
    with pytest.raises(RefusedError, match=r"cascade small:3 → small:4"):
        go(job(keep=4))
    small = SmallSession()
    small.facts = CountingSession("retrained").facts
    with pytest.raises(RefusedError, match=r"cascade revision small-1 → retrained-1"):
        go(job(), small=small)


def test_a_finished_output_is_told_by_both_models(job):
    go(job())
    assert go(job())[0].nothing_to_do
    with pytest.raises(RefusedError, match="exists already"):
        run(job(), lambda _: CountingSession(), lambda options: f"{options.name}-2")


def test_a_cache_keeps_the_scores_of_both_models(job, tmp_path):
    cache = {"cache": str(tmp_path / "cache.db"), "sample": 5}
    first, large, small = go(job("first.jsonl", **cache))
    second, idle, idle_too = go(job("second.jsonl", **cache))
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()
    assert idle.seen == idle_too.seen == []
    assert first.cache.entries == first.cache.misses == second.cache.hits == len({*large.seen}) + len({*small.seen})


def test_a_cache_serves_a_run_without_the_cascade(job, given, tmp_path):
    cache = {"cache": str(tmp_path / "cache.db")}
    _, large, _ = go(job("first.jsonl", **cache))
    alone, rest, _ = go(config(given, tmp_path / "alone.jsonl", **cache))
    assert alone.cache.hits == len({*large.seen})
    assert not {*large.seen} & {*rest.seen}


@pytest.mark.parametrize("format", [OutputFormat.PAIRS, OutputFormat.TREC])
def test_other_formats_hold_the_kept_candidates(job, tmp_path, format):
    go(job("out.txt", format=format))
    lines = (tmp_path / "out.txt").read_bytes().splitlines()
    assert len(lines) == sum(len(kept_of(record)) for record in some_records())


def test_a_record_that_wants_more_than_is_kept_gets_what_is_kept(job, tmp_path):
    record = {"query": "q", "documents": ["x" * i for i in range(1, 9)], "top_n": 5}
    go(job(given=write(tmp_path / "one.jsonl", [record])))
    (answer,) = answers(tmp_path / "out.jsonl")
    assert sorted(result["index"] for result in answer["results"]) == [5, 6, 7]


def test_score_records_are_refused(job, tmp_path):
    scores = write(tmp_path / "scores.jsonl", [{"text_1": "q", "text_2": ["a", "b"]}])
    with pytest.raises(UsageError, match="--cascade drops candidates, but score records are answered with all of them"):
        go(job(given=scores))


def test_training_data_takes_neither_cascade_nor_fusion(job, tmp_path):
    given = write(tmp_path / "train.jsonl", [{"query": "q", "pos": ["a"], "neg": ["b", "c"]}])
    with pytest.raises(UsageError, match="--cascade drops candidates, but train records are answered with all of them"):
        go(job(given=given))
    for fusion, flag in ((Fusion(kind=Fuse.RRF), "--fuse"), (Fusion(min_score=0.5), "--min-score")):
        with pytest.raises(UsageError, match=f"{flag} does not apply to teacher scores"):
            go(replace(job(given=given), cascade=None, fusion=fusion))


def test_a_score_request_in_a_batch_is_answered_whole(job, tmp_path):
    bodies = {
        "/v1/score": {"text_1": "q", "text_2": ["a", "bb", "ccc", "dddd"]},
        "/v1/rerank": {"query": "q", "documents": ["a", "bb", "ccc", "dddd"]},
    }
    records = [{"custom_id": url, "method": "POST", "url": url, "body": body} for url, body in bodies.items()]
    go(job(given=write(tmp_path / "batch.jsonl", records[::-1])))
    reranked, scored = answers(tmp_path / "out.jsonl")
    assert len(reranked["results"]) == KEEP
    assert [result["index"] for result in scored["data"]] == [0, 1, 2, 3]


def test_more_answers_than_are_kept_are_a_usage_error(job):
    with pytest.raises(UsageError, match=r"--top-n 4: --cascade keeps 3"):
        go(job(top_n=4))


@pytest.mark.parametrize("text", ["mini", "mini:", ":5", "mini:0", "mini:-1", "mini:x", "mini:²", ""])
def test_what_is_no_cascade_is_a_usage_error(text):
    with pytest.raises(UsageError, match="expected MODEL:KEEP"):
        Cascade.parse(text, ModelOptions("large"), None)


def test_a_cascade_of_the_model_itself_is_a_usage_error(job):
    plan = job()
    with pytest.raises(UsageError, match="is the main model itself"):
        go(type(plan)(ModelOptions("small"), plan.input, plan.output, cascade=plan.cascade))


def test_the_small_model_runs_where_the_large_one_does():
    found = Cascade.parse("a:b:7", ModelOptions("large", device="cuda:1", dtype="bf16", threads=3, max_length=9), 2)
    assert found == Cascade(ModelOptions("a:b", device="cuda:1", dtype="bf16", threads=3), 7, 2)


def test_a_few_requests_are_always_looked_into_and_more_only_where_that_costs_little():
    few = Agreement(None, 20)
    assert sum(few.draw(100) is not None for _ in range(100)) == 4
    many = Agreement(None, 20)
    for _ in range(50_000):
        many.draw(100)
    assert many.extra / 80 > 16
    assert many.extra <= 0.02 * 20 * 50_000


def test_as_many_requests_are_looked_into_as_was_asked():
    asked = Agreement(50, 20)
    slots = [asked.draw(100) for _ in range(1000)]
    assert slots[:50] == list(range(50))
    assert {slot for slot in slots if slot is not None} == set(range(50))
    assert not any(Agreement(0, 20).draw(100) for _ in range(10))
