"""A model in several workers at once: slices go to whichever worker has the least to do.

Results are passed on in the order of the slices, so that the output is the same bytes whichever worker scored what.
The slices of a worker that dies go to the others. The job's own process does not import torch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from types import TracebackType

from rerank_cli.engine.contract import ModelFacts, Sizes, StopRequested, Work
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.results import Logits
from rerank_cli.errors import ModelError
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.local import ScoredSlice, Scoring
from rerank_cli.run.scoring.workers.messages import (
    Answer,
    DeviceLost,
    Failed,
    Halt,
    Halted,
    Logged,
    Opened,
    PlainDone,
    Report,
    Resize,
    RowDone,
    Score,
    ScorePlainly,
    TaskDone,
)
from rerank_cli.run.scoring.workers.processes import ProcessTransport
from rerank_cli.run.scoring.workers.task_queue import Task, TaskQueue
from rerank_cli.run.scoring.workers.transport import Link, Place, Transport
from rerank_cli.run.stages import Slice
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.run.threads import Ahead

log = logging.getLogger(__name__)

_IN_HAND = 2  # slices of a worker: one on its device, one that is tokenized meanwhile
_WINDOW = 4  # slices a worker between the first that is not scored and the last one handed out
_DEATHS = 2  # workers that one slice may cost


class _Worker:
    """A worker as the pool sees it: the tasks it has, and how it ended."""

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self.link = link
        self.tasks: deque[Task] = deque()
        self.report = Report()
        self.death = ""

    def take(self, task: Task) -> None:
        self.tasks.append(task)
        self.link.tell(Score(task.number, task.part.texts, task.carried))

    def task(self, number: int) -> Task:
        return next(task for task in self.tasks if task.number == number)

    def account(self, report: Report, stats: RunStatistics) -> None:
        for stage, seconds in report.seconds.items():
            more = seconds - self.report.seconds.get(stage, 0.0)
            stats.seconds[stage] = stats.seconds.get(stage, 0.0) + more
        self.report = report

    def left_behind(self) -> list[Task]:
        """The tasks it had; the first, which it was working on, notes how the worker ended."""
        tasks = list(self.tasks)
        self.tasks.clear()
        for task in tasks[:1]:
            task.deaths.append(f"{self.name} {self.death}")
        return tasks


class Workers:
    """Open models, see `contract.Model`. A context: at its end no worker is left. Used by one thread."""

    def __init__(self, places: Sequence[Place], transport: Transport | None = None) -> None:
        """Start all workers and wait until each has loaded its model. Raises what the first one to fail raised."""
        self._transport = transport or ProcessTransport()
        self._workers: list[_Worker] = []
        try:
            for number, (place, link) in enumerate(zip(places, self._transport.start(places), strict=True), 1):
                self._workers.append(_Worker(f"worker {number} of {len(places)} ({place.device})", link))
            self._alive = list(self._workers)
            opened = self._opened()
        except BaseException:
            self.close()
            raise
        self.sizes: Sizes = opened[0].sizes
        self.facts: ModelFacts = self._agree([found.facts for found in opened])

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.link.kill()
        for worker in self._workers:
            worker.link.end()
        self._transport.close()

    @property
    def work(self) -> Work:
        """The work of all workers, those that died included."""
        figures = [asdict(worker.report.work) for worker in self._workers]
        return Work(**{name: sum(figure[name] for figure in figures) for name in figures[0]})

    def scoring(self, journal: Journal, stats: RunStatistics, should_stop: Callable[[], bool]) -> Scoring:
        """Score with all of them."""
        return partial(self._score, journal=journal, stats=stats, should_stop=should_stop)

    def score_plainly(self, pairs: PairTexts) -> Logits:
        """See `contract.Model`; by the first worker that answers."""
        while self._alive:
            asked = self._alive[0]
            asked.link.tell(ScorePlainly(pairs))
            while asked in self._alive:
                for worker, answer in self._answers():
                    if isinstance(answer, PlainDone):
                        return answer.scores
                    self._take_last(worker, answer)
        raise ModelError(f"no worker is left to verify with: {self._deaths()}. Fix: fewer --devices")

    def _opened(self) -> list[Opened]:
        opened: dict[_Worker, Opened] = {}
        while len(opened) < len(self._workers):
            for worker, answer in self._answers():
                if isinstance(answer, Opened):
                    opened[worker] = answer
                    continue
                self._take_last(worker, answer)
                if worker not in self._alive:
                    raise ModelError(f"{worker.name} {worker.death} before its model was loaded. Fix: fewer --devices")
        return [opened[worker] for worker in self._workers]

    def _agree(self, found: Sequence[ModelFacts]) -> ModelFacts:
        """Facts that hold for all workers. All plan rows of the smallest size that one of them has memory for.

        ModelError if something else differs, or if the row size of a compiled model would have to change.
        """
        tokens = min(facts.batch_tokens for facts in found)
        free = {"device"} if found[0].compiled else {"device", "batch_tokens"}
        for worker, facts in zip(self._workers, found, strict=True):
            for name, value in asdict(facts).items():
                if name not in free and value != (first := getattr(found[0], name)):
                    what = f"{name} {value}, and the first one {first}"
                    raise ModelError(f"{worker.name} has {what}. Fix: --batch-tokens, or --devices that are alike")
            if facts.batch_tokens != tokens:
                worker.link.tell(Resize(tokens))
        return replace(found[0], device=", ".join(facts.device for facts in found), batch_tokens=tokens)

    def _score(
        self, slices: Iterable[Slice], journal: Journal, stats: RunStatistics, should_stop: Callable[[], bool]
    ) -> Generator[ScoredSlice]:
        with closing(Ahead(slices, ring=self._transport.wake)) as feed:
            queue = TaskQueue(feed, journal, _WINDOW * len(self._workers))
            try:
                while True:
                    yield from queue.finished()
                    if queue.over():
                        return
                    if should_stop():
                        break
                    self._hand_out(queue)
                    with stats.timing("wait for workers"):
                        self._listen(queue, stats, wakeable=queue.has_room)
                self._halt(queue, stats)
            except Exception:
                journal.write()  # rows that are scored need not be scored again, whatever ended the run
                raise
            yield from queue.finished()
            raise StopRequested

    def _hand_out(self, queue: TaskQueue) -> None:
        while self._alive:
            worker = min(self._alive, key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= _IN_HAND or (task := queue.take()) is None:
                return
            if len(task.deaths) >= _DEATHS:
                raise ModelError(
                    f"{task.place}: workers died on these records ({'; '.join(task.deaths)}). "
                    "Fix: --batch-tokens or --max-length, smaller"
                )
            worker.take(task)
        unscored = queue.first
        where = f"{unscored.place}: " if unscored else ""
        fix = "Fix: --batch-tokens, smaller, or fewer --devices"
        raise ModelError(f"{where}no worker is left ({self._deaths()}). {fix}")

    def _halt(self, queue: TaskQueue, stats: RunStatistics) -> None:
        """Let workers finish their current rows, and take these."""
        for worker in self._alive:
            worker.link.tell(Halt())
        while self._alive:
            self._listen(queue, stats, wakeable=False)

    def _listen(self, queue: TaskQueue, stats: RunStatistics, *, wakeable: bool) -> None:
        """Take the answers that are there."""
        for worker, answer in self._answers(wakeable):
            match answer:
                case RowDone(number, pairs, scores):
                    worker.task(number).note(pairs, scores)
                case TaskDone(number, found, report):
                    worker.task(number).scores = found
                    worker.tasks.popleft()
                    worker.account(report, stats)
                case Halted(report):
                    worker.account(report, stats)
                    self._alive.remove(worker)
                case _:
                    self._take_last(worker, answer)
                    if worker not in self._alive:
                        queue.give_back(worker.left_behind())

    def _answers(self, wakeable: bool = False) -> Iterator[tuple[_Worker, Answer | None]]:
        """One answer of each worker that has one within a short while; None from a worker that is gone."""
        by_link = {id(worker.link): worker for worker in self._alive}
        for link in self._transport.wait([worker.link for worker in self._alive], wakeable):
            worker = by_link[id(link)]
            answer = link.hear()
            if isinstance(answer, Logged):
                logging.getLogger(answer.logger).log(answer.level, "%s: %s", worker.name, answer.text)
            else:
                yield worker, answer

    def _take_last(self, worker: _Worker, answer: Answer | None) -> None:
        """Raise what was raised in the worker; remove a worker that is gone."""
        match answer:
            case Failed(error):
                error.add_note(f"(in {worker.name})")
                raise error
            case DeviceLost(reason):
                worker.death = f"lost its device ({reason})"
            case None:
                how = worker.link.end()
                worker.death = worker.death or how
                self._alive.remove(worker)
                if self._alive:
                    log.warning("%s %s, going on with %d", worker.name, worker.death, len(self._alive))

    def _deaths(self) -> str:
        return "; ".join(f"{worker.name} {worker.death}" for worker in self._workers if worker.death)
