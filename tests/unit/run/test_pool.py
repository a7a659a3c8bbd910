"""A pool whose workers get their places late, or lose them: links that answer in this process, as a test tells them."""

import gc
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
from elsewhere import RowSession
from instant import config, go

from rerank_cli.engine.results import by_pair
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.run.job import run
from rerank_cli.run.scoring.workers import messages, pool
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.scoring.workers.ray_places import RayOptions, RayWorkers
from rerank_cli.run.scoring.workers.transport import Ended, Place

LOST = Ended("ended with its node", blameless=True)


class Link:
    """Opens at once and scores; `ends` is how it ends, at its opening or at its first task."""

    here = False
    node = "a"

    def __init__(self, session=None, at_opening=None, at_task=None, late=0):
        self.session, self.at_task, self.late = session or RowSession(), at_task, late
        opened = messages.Opened(self.session.facts, self.session.sizes)
        self.answers, self.ended = deque([None if at_opening else opened]), at_opening or at_task
        self.killed = False

    def tell(self, order):
        if isinstance(order, messages.Halt):
            self.answers.append(messages.Halted(messages.Report()))
        elif self.at_task:
            self.answers.append(None)
        elif isinstance(order, messages.Score):
            prepared = self.session.prepare(order.texts)
            scores = by_pair(prepared, self.session.score(prepared, notes=order.notes))
            self.answers.append(messages.TaskDone(scores, messages.Report()))

    def hear(self):
        return self.answers.popleft()

    def kill(self):
        self.killed = True

    def end(self):
        return self.ended or Ended("was ended")


class Transport:
    """Gives the links in order; `late` is the number of waits before a link answers."""

    flag, window = "--workers", 8

    def __init__(self, *links):
        self.left = deque(links)
        self.waits = 0

    def start(self, places):
        return [self.left.popleft() for _ in places]

    def wait(self, links, _):
        self.waits += 1
        return [link for link in links if link.answers and self.waits > link.late]

    def wake(self):
        pass

    def shortage(self):
        return "no room"

    def close(self):
        pass


def workers(*links, most=None, least=None):
    return Workers([Place("cpu", RowSession)] * (most or len(links)), Transport(*links), least)


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"query": "q{i}", "documents": ["{i}.0", "{i}.1"]}}\n' for i in range(40)))
    return path


@pytest.fixture
def plan(given):
    return config(given, given.with_name("out.jsonl"), chunk_pairs=8)


@pytest.fixture
def whole(given):
    go(config(given, given.with_name("whole.jsonl"), chunk_pairs=8), RowSession())
    return given.with_name("whole.jsonl").read_bytes()


def test_the_job_starts_with_the_least_number_and_says_once_that_it_waits_for_that(monkeypatch, caplog):
    monkeypatch.setattr(pool, "_PATIENCE", 0.0)
    late, later = Link(late=50), Link(late=10**9)
    later.node = None
    with workers(Link(), late, later, least=2) as found:
        assert [one["state"] for one in found.shown()] == ["ready", "ready", "waiting"]
    assert caplog.messages == ["waiting for 1 of 3 workers: no room"]


def test_a_node_that_is_lost_before_the_model_is_loaded_ends_nothing(plan, whole, caplog):
    run(plan, lambda _: workers(Link(at_opening=LOST), Link(), most=1))
    assert Path(plan.output.path).read_bytes() == whole
    assert caplog.messages == ["worker 1 of 1 (cpu on a) waits for another place"]


def test_a_worker_that_joins_with_another_model_is_left_out(plan, whole, caplog):
    other = RowSession()
    other.facts = replace(other.facts, revision="r2")
    run(plan, lambda _: workers(Link(), Link(other, late=2), least=1))
    assert Path(plan.output.path).read_bytes() == whole
    assert caplog.messages == [
        "worker 2 of 2 (cpu on a) has revision r2, the first worker has r1. Fix: --batch-tokens, or identical devices; "
        "workers left: 1"
    ]


def test_a_slice_on_which_node_after_node_is_lost_ends_the_run(plan):
    links = [Link(at_task=LOST) for _ in range(6)]
    told = r"in\.jsonl:1 to 4: workers died on these records \((.*ended with its node.*){5}\)"
    with pytest.raises(ModelError, match=told):
        run(plan, lambda _: workers(*links, most=1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a stopped run leaves its input open
def test_a_stop_does_not_wait_for_workers_that_have_no_place(plan):
    absent = Link(late=10**9)
    first = Link()
    summary, _ = run(replace(plan, max_duration=0.001), lambda _: workers(first, absent, least=1))
    assert summary.exit_reason == "max-duration"
    assert absent.killed
    gc.collect()


class Cluster:
    def __init__(self, started, **total):
        self.started, self._total = started, total

    def total(self, kind):
        return self._total.get(kind, 0)


@pytest.mark.parametrize(
    ("asked", "threads", "numbers"),
    [((None, None), 1, (1, 6)), ((None, None), 4, (1, 1)), ((2, 40), 1, (2, 40)), ((3, 3), 2, (3, 3))],
)
def test_by_default_there_are_as_many_workers_as_there_is_room_for(asked, threads, numbers, plan):
    ray = RayWorkers(RayOptions("local", *asked))
    ray._cluster = Cluster(True, CPU=6)
    assert ray._numbers(replace(plan.model, device="cpu", threads=threads)) == numbers


@pytest.mark.parametrize(
    ("asked", "started", "message"),
    [
        (
            (7, 7),
            True,
            r"--workers 7: there is room for 6 on this machine \(6 CPUs, 1 a worker\). Fix: fewer --workers",
        ),
        ((None, None), False, r"--ray: a worker takes 8 CPUs, the cluster has 6 now. Fix: --workers N waits for them"),
        ((None, None), True, r"--ray: a worker takes 8 CPUs, the cluster has 6 now. Fix: --ray ADDRESS"),
    ],
)
def test_no_room_for_workers_is_told(asked, started, message, plan):
    ray = RayWorkers(RayOptions("local", *asked))
    ray._cluster = Cluster(started, CPU=6)
    with pytest.raises(UsageError, match=message):
        ray._numbers(replace(plan.model, device="cpu", threads=1 if asked[0] else 8))
