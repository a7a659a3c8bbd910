import dataclasses
import json
import time

import numpy as np
import pytest
from instant import InstantSession

from rerank_cli.benchmarking.analysis import limit_of
from rerank_cli.benchmarking.input_sample import InputSample, take_sample
from rerank_cli.benchmarking.row_size_search import choose_texts, plan_trials, try_sizes
from rerank_cli.benchmarking.sample_run import run_sample
from rerank_cli.engine.contract import ModelFacts, Work
from rerank_cli.engine.rows.prepare import PairTexts, Prepared
from rerank_cli.engine.rows.windows import Windows
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.records import Candidate, Position, Request

pytestmark = pytest.mark.slow


class Measured(InstantSession):
    def costs(self):
        return None


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "in.jsonl"
    rows = [{"id": n, "query": f"q{n}", "documents": [f"d{n} {i}" for i in range(4)]} for n in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = InputOptions((str(path),))
    source = open_source(options)
    yield take_sample(source, iter(source), options, 1000, 0.05)
    source.close()


def test_a_sample_goes_through_the_pipeline_and_leaves_its_figures(sample, tmp_path):
    passed = run_sample(Measured(), sample, tmp_path)
    assert (passed.pairs, passed.work.rows) == (400, 0)
    assert passed.tokens == sum(tokens for _, tokens in passed.pace)
    assert len(passed.pace) == -(-400 // passed.chunk_pairs)
    assert passed.times.wall >= passed.times.device > 0
    assert sum(seconds for seconds, _ in passed.pace) == pytest.approx(passed.times.wall)
    assert passed.flops is None


class Slow(Measured):
    """Takes longer for one of its calls."""

    def __init__(self, prepare=0.0, score=0.0):
        super().__init__()
        self._prepare, self._score = prepare, score

    def prepare(self, pairs):
        time.sleep(self._prepare)
        return super().prepare(pairs)

    def score(self, prepared, *_):
        time.sleep(self._score)
        return super().score(prepared)


@pytest.mark.parametrize(
    ("session", "limit"), [(Slow(prepare=0.05), "tokenizer"), (Slow(score=0.05), "device")], ids=["tokenizer", "device"]
)
def test_the_slower_of_two_stages_is_found_to_be_the_limit(sample, tmp_path, session, limit):
    assert limit_of(run_sample(session, sample, tmp_path).times, "fake").what == limit


class Crawling(InputSample):
    """Takes its time over every record."""

    def read(self):
        for record in super().read():
            time.sleep(0.005)
            yield record


def test_slow_reading_is_found_to_be_the_limit(sample, tmp_path):
    crawling = Crawling(*(getattr(sample, field.name) for field in dataclasses.fields(sample)))
    assert limit_of(run_sample(Measured(), crawling, tmp_path).times, "fake").what == "reading"


def test_trials_take_as_long_as_they_may():
    plan = plan_trials((512, 1024, 2048, 4096, 8192), 2048, pace=10_000, seconds=60)
    assert plan.sizes == (512, 1024, 2048, 4096, 8192)
    assert plan.tokens >= 2 * 8192
    assert plan.rounds >= 3
    assert len(plan.sizes) * (plan.rounds + 1) * plan.tokens <= 60 * 10_000


def test_sizes_that_a_slow_device_has_no_time_for_are_not_tried():
    plan = plan_trials((512, 1024, 2048, 4096, 8192), 2048, pace=1_500, seconds=60)
    assert plan.sizes == (512, 1024, 2048)
    assert plan_trials((512, 1024, 2048, 4096, 8192), 2048, pace=200, seconds=60) is None


def test_a_round_has_rows_enough_for_every_size_to_be_what_it_says():
    plan = plan_trials((512, 1024, 2048, 4096, 8192), 2048, pace=10_000, seconds=60, least_rows=16)
    assert plan.sizes == (512, 1024, 2048)
    assert plan.tokens >= 16 * 2048


class Sized:
    """Takes longer for small rows, and runs out of memory above `most` tokens."""

    facts = ModelFacts("sized", "r1", "fake", "cpu", "fp32", 0, True, 512, 384, 2048)

    def __init__(self, most, batch_tokens=2048, work=None, log=None):
        self.work = work or Work()
        self.log = [] if log is None else log
        self._most = most
        self._size = batch_tokens

    def resized(self, batch_tokens):
        return Sized(self._most, batch_tokens, self.work, self.log)

    def prepare(self, pairs):
        count = np.arange(len(pairs))
        rows = (self._size,)
        return Prepared(rows, count, Windows.one_each(count), count + 10, count > 0, len(pairs))

    def score(self, prepared):
        (size,) = prepared.rows
        self.log.append(size)
        self.work.out_of_memory += size > self._most


TEXTS = PairTexts(["q"] * 4, ["d"] * 4, [0] * 4)


def test_rounds_of_all_sizes_are_interleaved_after_one_that_warms_up():
    session = Sized(most=1 << 30)
    plan = plan_trials((1024, 2048), 2048, pace=10_000, seconds=10)
    found = try_sizes(session, TEXTS, plan, 2048, lambda: False)
    assert session.log[:2] == [1024, 2048]
    assert sorted(session.log) == sorted([1024, 2048] * (plan.rounds + 1))
    assert session.log[2] != session.log[3]
    assert set(found.advice.medians) == {1024, 2048}
    assert found.tokens == sum(range(10, 14))


def test_sizes_that_run_out_of_memory_are_left_out_and_all_above():
    session = Sized(most=4096)
    plan = plan_trials((1024, 2048, 4096, 8192, 16384), 2048, pace=100_000, seconds=30)
    found = try_sizes(session, TEXTS, plan, 2048, lambda: False)
    assert set(found.advice.medians) == {1024, 2048, 4096}
    assert found.too_large == (8192, 16384)
    assert 16384 not in session.log


def test_nothing_is_advised_where_only_the_default_fits():
    session = Sized(most=1024)
    plan = plan_trials((2048, 4096), 2048, pace=100_000, seconds=30)
    assert try_sizes(session, TEXTS, plan, 2048, lambda: False).advice is None


def request(number, candidates):
    return Request(f"q{number}", tuple(Candidate(f"d{i}", "") for i in range(candidates)), Position("in", number))


def test_texts_of_trials_come_from_all_over_the_sample():
    texts = choose_texts([request(number, 10) for number in range(100)], 50)
    assert len(texts) == 50
    assert list(dict.fromkeys(texts.queries)) == ["q0", "q20", "q40", "q60", "q80"]
    assert len(choose_texts([request(0, 3)], 50)) == 3
