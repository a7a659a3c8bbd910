"""One model in several workers: each slice goes to the worker with the fewest tasks.

Results are passed on in the order of the slices, so the output bytes do not depend on which worker scored what. The
slices of a worker that dies go to the others, and it is started again. Workers may get their places late: the job
starts with some of them, and the others join. The job's own process does not import torch.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

from rerank_cli.engine.contract import ModelFacts, Sizes, StopRequested, Work
from rerank_cli.engine.results import Logits
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.errors import ModelError
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.local import ScoredSlice, Scoring, ShouldStop
from rerank_cli.run.scoring.workers import messages
from rerank_cli.run.scoring.workers.member import Member
from rerank_cli.run.scoring.workers.processes import ProcessTransport
from rerank_cli.run.scoring.workers.task_queue import TaskQueue
from rerank_cli.run.scoring.workers.transport import Place, Transport
from rerank_cli.run.stages import Slice
from rerank_cli.run.threads import Ahead

log = logging.getLogger(__name__)

_TASKS = 2  # of a worker: one on its device, one being tokenized
_DEATHS = 2  # workers that may die on one slice before the run ends
_LOSSES = 5  # workers that may die on one slice together with their nodes
_RESTARTS = 2  # of a worker, one after the other without a finished slice
_TOLD = 8  # deaths that an error lists
_PATIENCE = 10.0  # seconds without enough workers, after which that is said


class Workers:
    """Open models, see `contract.Model`. A context manager that ends all workers. For one thread."""

    def __init__(self, places: Sequence[Place], transport: Transport | None = None, least: int | None = None) -> None:
        """Start all workers and wait until `least` of them, by default all, have loaded their model.

        Raises the error of the first that fails.
        """
        self._transport = transport or ProcessTransport()
        self._workers: list[Member] = []
        self._least = least or len(places)
        self._short_since: float | None = None
        try:
            for number, (place, link) in enumerate(zip(places, self._transport.start(places), strict=True), 1):
                self._workers.append(Member(number, len(places), place, link))
            self._alive = list(self._workers)
            opened = self._opened()
            self.sizes: Sizes = opened[0][1].sizes
            first, smallest = opened[0][1].facts, min(found.facts.batch_tokens for _, found in opened)
            self.facts: ModelFacts = first if first.compiled else replace(first, batch_tokens=smallest)
            for worker, found in opened:
                self._admit(worker, found.facts)
            self.facts = replace(self.facts, device=_listed([found.facts.device for _, found in opened]))
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

    def shown(self) -> list[dict[str, Any]]:
        """All workers but those that were replaced, for progress; may be called from another thread."""
        last = {worker.number: worker for worker in list(self._workers)}
        return [worker.shown() for worker in last.values()]

    def score_plainly(self, pairs: PairTexts) -> Logits:
        """See `contract.Model`; by the first worker that answers."""
        asked: Member | None = None
        while self._alive:
            if asked not in self._alive:
                asked = next((worker for worker in self._alive if worker.ready), None)
                if asked:
                    asked.link.tell(messages.ScorePlainly(pairs))
            for worker, answer in self._answers():
                match answer:
                    case messages.PlainDone(scores):
                        return scores
                    case messages.Opened(facts=facts):
                        self._join(worker, facts)
                    case _:
                        self._take_last(worker, answer)
        flag = self._transport.flag
        raise ModelError(f"no worker is left to verify with: {self._deaths()}. Fix: fewer {flag}")

    def _opened(self) -> list[tuple[Member, messages.Opened]]:
        """The first workers that have loaded their model, in the order of their numbers."""
        opened: dict[Member, messages.Opened] = {}
        while len(opened) < self._least:
            self._remark_shortage(self._least - len(opened))
            for worker, answer in self._answers():
                if isinstance(answer, messages.Opened):
                    opened[worker] = answer
                    continue
                self._take_last(worker, answer)
                if worker in self._alive:
                    continue
                if not worker.blameless:
                    fix = f"Fix: fewer {self._transport.flag}"
                    raise ModelError(f"{worker.name} {worker.death} before its model was loaded. {fix}")
                opened.pop(worker, None)
                self._restart(worker)
        self._short_since = None
        return sorted(opened.items(), key=lambda item: item[0].number)

    def _remark_shortage(self, missing: int) -> None:
        """Say once that the job waits for places, if it has for a while. To be called again and again until it ends."""
        waiting = sum(worker.link.node is None for worker in self._alive)
        if self._short_since is None:
            self._short_since = time.monotonic()
        elif waiting and 0 <= self._short_since < time.monotonic() - _PATIENCE:
            log.warning("waiting for %d of %d workers: %s", missing, self._workers[0].of, self._transport.shortage())
            self._short_since = -1.0

    def _admit(self, worker: Member, facts: ModelFacts) -> None:
        """Accept a worker that has loaded the same model as the others, and have it plan rows of the same size.

        Raises ModelError for other differences, and for another size of compiled rows.
        """
        free = {"device"} if self.facts.compiled else {"device", "batch_tokens"}
        for name, value in asdict(facts).items():
            if name not in free and value != (first := getattr(self.facts, name)):
                what = f"has {name} {value}, the first worker has {first}"
                raise ModelError(f"{worker.name} {what}. Fix: --batch-tokens, or identical devices")
        if facts.batch_tokens != self.facts.batch_tokens:
            worker.link.tell(messages.Resize(self.facts.batch_tokens))
        worker.ready = True

    def _join(self, worker: Member, facts: ModelFacts) -> None:
        """Admit a worker while the job runs, or go on without it."""
        try:
            self._admit(worker, facts)
        except ModelError as error:
            worker.death = f"is left out: {error}"
            worker.link.kill()
            self._alive.remove(worker)
            log.warning("%s; workers left: %d", error, len(self._alive))

    def scoring(self, journal: Journal, stats: RunStatistics, should_stop: ShouldStop) -> Scoring:
        """Score with all workers."""

        def score(slices: Iterable[Slice]) -> Generator[ScoredSlice]:
            with closing(Ahead(slices, ring=self._transport.wake)) as feed:
                queue = TaskQueue(feed, journal, self._window)
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
                    self._dismiss_unready()
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

    def _window(self) -> int:
        """Slices between the first unscored one and the last one handed out, at most."""
        return self._transport.window * sum(worker.ready for worker in self._alive)

    def _dismiss_unready(self) -> None:
        """End workers that have nothing to finish: those that wait for a place or load their model."""
        for worker in self._alive:
            if not worker.ready:
                worker.link.kill()
        self._alive = [worker for worker in self._alive if worker.ready]

    def _hand_out(self, queue: TaskQueue) -> None:
        flag = self._transport.flag
        while self._alive:
            ready = [worker for worker in self._alive if worker.ready]
            if not ready:
                self._remark_shortage(1)
                return  # those that were started again are still loading, or have no place yet
            self._short_since = None
            worker = min(ready, key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= _TASKS or (task := queue.take()) is None:
                return
            if len(task.deaths) - task.lost >= _DEATHS or task.lost >= _LOSSES:
                what = f"{task.place}: workers died on these records ({'; '.join(task.deaths)})"
                raise ModelError(f"{what}. Fix: a smaller --batch-tokens or --max-length")
            worker.tasks.append(task)
            worker.link.tell(messages.Score(task.part.texts, task.carried))
        where = f"{queue.first.place}: " if queue.first else ""
        fix = f"Fix: a smaller --batch-tokens, or fewer {flag}"
        raise ModelError(f"{where}no worker is left ({self._deaths()}). {fix}")

    def _restart(self, dead: Member) -> None:
        """Start a worker in place of one that died, unless that has happened too often."""
        restarts = dead.restarts if dead.blameless else dead.restarts + 1
        if restarts > _RESTARTS:
            return
        (link,) = self._transport.start([dead.place])
        new = Member(dead.number, dead.of, dead.place, link, restarts)
        self._workers.append(new)
        self._alive.append(new)
        if dead.blameless:
            log.warning("%s waits for another place", new.name)
        else:
            log.warning("%s is started again (%d of %d times)", new.name, restarts, _RESTARTS)

    def _listen(self, queue: TaskQueue, stats: RunStatistics, *, wakeable: bool) -> list[Member]:
        """Process the answers that have arrived; returns the workers that died."""
        dead = []
        for worker, answer in self._answers(wakeable):
            match answer:
                case messages.RowDone(pairs, scores):
                    worker.tasks[0].note(pairs, scores)
                case messages.RowCounted(pairs, tokens):
                    stats.scored(worker.tasks[0].part.chunk, pairs, tokens)
                case messages.TaskDone(found, report):
                    task = worker.tasks.popleft()
                    task.scores = found
                    worker.pairs += len(task.part.texts)
                    worker.restarts = 0
                    worker.account(report, stats)
                case messages.Halted(report):
                    worker.account(report, stats)
                    self._alive.remove(worker)
                case messages.Opened(facts=facts):
                    self._join(worker, facts)
                case _:
                    self._take_last(worker, answer)
                    if worker in self._alive:
                        continue
                    dead.append(worker)
                    if worker.tasks:
                        worker.tasks[0].deaths.append(f"{worker.name} {worker.death}")  # it was working on this one
                        worker.tasks[0].lost += worker.blameless
                        queue.give_back(worker.tasks)
                        worker.tasks.clear()
        return dead

    def _answers(self, wakeable: bool = False) -> Iterator[tuple[Member, messages.Answer | None]]:
        """One answer of each worker that has one within the transport's timeout; None for a worker that has ended."""
        by_link = {id(worker.link): worker for worker in self._alive}
        for link in self._transport.wait([worker.link for worker in self._alive], wakeable):
            worker = by_link[id(link)]
            answer = link.hear()
            if isinstance(answer, messages.Logged):
                logging.getLogger(answer.logger).log(answer.level, "%s: %s", worker.name, answer.text)
            else:
                yield worker, answer

    def _take_last(self, worker: Member, answer: messages.Answer | None) -> None:
        """Raise the worker's exception; remove a worker that has ended."""
        match answer:
            case messages.Failed(messages.DeviceLost() as lost):
                worker.death = f"lost its device ({lost})"
            case messages.Failed(error) if self._begun and not worker.ready:
                worker.death = f"could not be started{' again' if worker.restarts else ''} ({error})"
            case messages.Failed(error):
                error.add_note(f"(in {worker.name})")
                raise error
            case None:
                ended = worker.link.end()
                worker.death, worker.blameless = worker.death or ended.how, ended.blameless and not worker.death
                self._alive.remove(worker)
                if self._alive:
                    log.warning("%s %s; workers left: %d", worker.name, worker.death, len(self._alive))

    @property
    def _begun(self) -> bool:
        """Whether the workers that the job starts with have loaded the model."""
        return hasattr(self, "facts")

    def _deaths(self) -> str:
        dead = [worker for worker in self._workers if worker.death]
        return "; ".join(f"{worker.name} {worker.death}" for worker in dead[-_TOLD:])


def _listed(devices: Sequence[str]) -> str:
    """`cuda:0, cuda:1`; `8 x cuda` for equal ones."""
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in Counter(devices).items())
