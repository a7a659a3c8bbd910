"""One model in several workers: each slice goes to the worker with the fewest tasks.

Results are passed on in the order of the slices, so the output bytes do not depend on which worker scored what. The
slices of a worker that dies go to the others, and it is started again. The job's own process does not import torch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace

from rerank_cli.engine.contract import ModelFacts, Sizes, StopRequested, Work
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.results import Logits
from rerank_cli.errors import ModelError
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.local import ScoredSlice, Scoring, ShouldStop
from rerank_cli.run.scoring.workers import messages
from rerank_cli.run.scoring.workers.processes import ProcessTransport
from rerank_cli.run.scoring.workers.task_queue import Task, TaskQueue
from rerank_cli.run.scoring.workers.transport import Link, Place, Transport
from rerank_cli.run.stages import Slice
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.run.threads import Ahead

log = logging.getLogger(__name__)

_TASKS = 2  # of a worker: one on its device, one being tokenized
_WINDOW = 4  # slices per worker between the first unscored slice and the last one handed out
_DEATHS = 2  # workers that may die on one slice before the run ends
_RESTARTS = 2  # of a worker


@dataclass(slots=True, eq=False)
class _Worker:
    """The pool's record of a worker: its unfinished tasks, its last report, and how it ended.

    `ready` once its model is loaded; `restarts` counts the workers before it at the same place.
    """

    name: str
    place: Place
    link: Link
    restarts: int = 0
    ready: bool = False
    tasks: deque[Task] = field(default_factory=deque)
    report: messages.Report = field(default_factory=messages.Report)
    death: str = ""

    def account(self, report: messages.Report, stats: RunStatistics) -> None:
        for stage, seconds in report.seconds.items():
            more = seconds - self.report.seconds.get(stage, 0.0)
            stats.seconds[stage] = stats.seconds.get(stage, 0.0) + more
        self.report = report


class Workers:
    """Open models, see `contract.Model`. A context manager that ends all workers. For one thread."""

    def __init__(self, places: Sequence[Place], transport: Transport | None = None) -> None:
        """Start all workers and wait until each has loaded its model. Raises the error of the first that fails."""
        self._transport = transport or ProcessTransport()
        self._workers: list[_Worker] = []
        try:
            for number, (place, link) in enumerate(zip(places, self._transport.start(places), strict=True), 1):
                self._workers.append(_Worker(f"worker {number} of {len(places)} ({place.device})", place, link))
            self._alive = list(self._workers)
            opened = self._opened()
            self.sizes: Sizes = opened[0].sizes
            first, smallest = opened[0].facts, min(found.facts.batch_tokens for found in opened)
            self.facts: ModelFacts = first if first.compiled else replace(first, batch_tokens=smallest)
            for worker, found in zip(self._workers, opened, strict=True):
                self._admit(worker, found.facts)
            self.facts = replace(self.facts, device=", ".join(found.facts.device for found in opened))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.link.kill()
        for worker in self._workers:
            worker.link.end()
        self._transport.close()

    @property
    def work(self) -> Work:
        """The work of all workers, including those that died."""
        figures = [asdict(worker.report.work) for worker in self._workers]
        return Work(**{name: sum(figure[name] for figure in figures) for name in figures[0]})

    def score_plainly(self, pairs: PairTexts) -> Logits:
        """See `contract.Model`; by the first worker that answers."""
        while self._alive:
            asked = self._alive[0]
            asked.link.tell(messages.ScorePlainly(pairs))
            while asked in self._alive:
                for worker, answer in self._answers():
                    if isinstance(answer, messages.PlainDone):
                        return answer.scores
                    self._take_last(worker, answer)
        raise ModelError(f"no worker is left to verify with: {self._deaths()}. Fix: fewer --devices")

    def _opened(self) -> list[messages.Opened]:
        opened: dict[_Worker, messages.Opened] = {}
        while len(opened) < len(self._workers):
            for worker, answer in self._answers():
                if isinstance(answer, messages.Opened):
                    opened[worker] = answer
                    continue
                self._take_last(worker, answer)
                if worker not in self._alive:
                    raise ModelError(f"{worker.name} {worker.death} before its model was loaded. Fix: fewer --devices")
        return [opened[worker] for worker in self._workers]

    def _admit(self, worker: _Worker, facts: ModelFacts) -> None:
        """Accept a worker that has loaded the same model as the others, and have it plan rows of the same size.

        Raises ModelError for other differences, and for another size of compiled rows.
        """
        free = {"device"} if self.facts.compiled else {"device", "batch_tokens"}
        for name, value in asdict(facts).items():
            if name not in free and value != (first := getattr(self.facts, name)):
                what = f"has {name} {value}, the first worker has {first}"
                raise ModelError(f"{worker.name} {what}. Fix: --batch-tokens, or identical --devices")
        if facts.batch_tokens != self.facts.batch_tokens:
            worker.link.tell(messages.Resize(self.facts.batch_tokens))
        worker.ready = True

    def scoring(self, journal: Journal, stats: RunStatistics, should_stop: ShouldStop) -> Scoring:
        """Score with all workers."""

        def score(slices: Iterable[Slice]) -> Generator[ScoredSlice]:
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
                            for worker in self._listen(queue, stats, wakeable=queue.has_room):
                                self._restart(worker)
                    for worker in self._alive:
                        worker.link.tell(messages.Halt())
                    while self._alive:
                        self._listen(queue, stats, wakeable=False)
                except Exception:
                    journal.write()  # keeps the rows that are scored for the next run
                    raise
                yield from queue.finished()
                raise StopRequested

        return score

    def _hand_out(self, queue: TaskQueue) -> None:
        while self._alive:
            ready = [worker for worker in self._alive if worker.ready]
            if not ready:
                return  # those that were started again are still loading
            worker = min(ready, key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= _TASKS or (task := queue.take()) is None:
                return
            if len(task.deaths) >= _DEATHS:
                what = f"{task.place}: workers died on these records ({'; '.join(task.deaths)})"
                raise ModelError(f"{what}. Fix: a smaller --batch-tokens or --max-length")
            worker.tasks.append(task)
            worker.link.tell(messages.Score(task.part.texts, task.carried))
        where = f"{queue.first.place}: " if queue.first else ""
        fix = "Fix: a smaller --batch-tokens, or fewer --devices"
        raise ModelError(f"{where}no worker is left ({self._deaths()}). {fix}")

    def _restart(self, dead: _Worker) -> None:
        """Start a worker in place of one that died, unless that has happened too often."""
        if dead.restarts < _RESTARTS:
            (link,) = self._transport.start([dead.place])
            new = _Worker(dead.name, dead.place, link, dead.restarts + 1)
            self._workers.append(new)
            self._alive.append(new)
            log.warning("%s is started again (%d of %d times)", dead.name, new.restarts, _RESTARTS)

    def _listen(self, queue: TaskQueue, stats: RunStatistics, *, wakeable: bool) -> list[_Worker]:
        """Process the answers that have arrived; returns the workers that died."""
        dead = []
        for worker, answer in self._answers(wakeable):
            match answer:
                case messages.RowDone(pairs, scores):
                    worker.tasks[0].note(pairs, scores)
                case messages.RowCounted(pairs, tokens):
                    stats.scored(worker.tasks[0].part.chunk, pairs, tokens)
                case messages.TaskDone(found, report):
                    worker.tasks.popleft().scores = found
                    worker.account(report, stats)
                case messages.Halted(report):
                    worker.account(report, stats)
                    self._alive.remove(worker)
                case messages.Opened(facts=facts):
                    self._admit(worker, facts)
                case _:
                    self._take_last(worker, answer)
                    if worker in self._alive:
                        continue
                    dead.append(worker)
                    if worker.tasks:
                        worker.tasks[0].deaths.append(f"{worker.name} {worker.death}")  # it was working on this one
                        queue.give_back(worker.tasks)
                        worker.tasks.clear()
        return dead

    def _answers(self, wakeable: bool = False) -> Iterator[tuple[_Worker, messages.Answer | None]]:
        """One answer of each worker that has one within the transport's timeout; None for a worker that has ended."""
        by_link = {id(worker.link): worker for worker in self._alive}
        for link in self._transport.wait([worker.link for worker in self._alive], wakeable):
            worker = by_link[id(link)]
            answer = link.hear()
            if isinstance(answer, messages.Logged):
                logging.getLogger(answer.logger).log(answer.level, "%s: %s", worker.name, answer.text)
            else:
                yield worker, answer

    def _take_last(self, worker: _Worker, answer: messages.Answer | None) -> None:
        """Raise the worker's exception; remove a worker that has ended."""
        match answer:
            case messages.Failed(messages.DeviceLost() as lost):
                worker.death = f"lost its device ({lost})"
            case messages.Failed(error) if worker.restarts and not worker.ready:
                worker.death = f"could not be started again ({error})"
            case messages.Failed(error):
                error.add_note(f"(in {worker.name})")
                raise error
            case None:
                how = worker.link.end()
                worker.death = worker.death or how
                self._alive.remove(worker)
                if self._alive:
                    log.warning("%s %s; workers left: %d", worker.name, worker.death, len(self._alive))

    def _deaths(self) -> str:
        return "; ".join(f"{worker.name} {worker.death}" for worker in self._workers if worker.death)
