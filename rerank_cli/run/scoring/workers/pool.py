"""A model in several processes at once, one a device: slices go to whichever worker has the least to do.

Results are passed on in the order of the slices, so that the output is the same bytes whoever scored what. Where a
worker dies its slices go to the others. The job's own process needs no torch.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

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
    Opened,
    Order,
    Plain,
    PlainDone,
    Report,
    Resize,
    RowDone,
    Said,
    Task,
    TaskDone,
)
from rerank_cli.run.scoring.workers.task_queue import Errand, Handout
from rerank_cli.run.scoring.workers.worker import HELD, OpenSession, work
from rerank_cli.run.stages import Slice
from rerank_cli.run.statistics import Tally
from rerank_cli.run.threads import Ahead, Behind

log = logging.getLogger(__name__)

_IN_HAND = 2  # slices a worker has: one on its device, one that is tokenized meanwhile
_WINDOW = 4  # slices a worker between the first one that is not scored and the last one handed out
_DEATHS = 2  # workers that one slice may cost
_POLL = 0.1
_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs, by the name of its device, and how it opens its model there; can be pickled."""

    device: str
    open_session: OpenSession


class Workers:
    """Open models, as `contract.Model`. A context: at its end, however it comes, no process is left.

    Used by one thread, the one that opened it.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        """Start all workers and wait until the last one has its model. Raises what the first one to fail met with."""
        self._workers: list[_Worker] = []
        try:
            with _signals_held():
                for number, place in enumerate(places, 1):
                    self._workers.append(_Worker(number, place, len(places)))
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
            worker.process.kill()
        for worker in self._workers:
            worker.bury()

    @property
    def work(self) -> Work:
        """The work of all of them, those that have died included."""
        figures = [asdict(worker.report.work) for worker in self._workers]
        return Work(**{name: sum(figure[name] for figure in figures) for name in figures[0]})

    def scoring(self, journal: Journal, tally: Tally, should_stop: Callable[[], bool]) -> Scoring:
        """Score with all of them."""
        return partial(self._score, journal=journal, tally=tally, should_stop=should_stop)

    def score_plainly(self, pairs: PairTexts) -> Logits:
        """As `contract.Model`, by the first worker that lives to tell."""
        while self._alive:
            asked = self._alive[0]
            asked.tell(Plain(pairs))
            while asked in self._alive:
                for worker, answer in self._hear():
                    if isinstance(answer, PlainDone):
                        return answer.scores
                    self._take_last_word(worker, answer)
        raise ModelError(f"no worker is left to verify with: {self._deaths()}. Fix: fewer --devices")

    def _opened(self) -> list[Opened]:
        opened: dict[_Worker, Opened] = {}
        while len(opened) < len(self._workers):
            for worker, answer in self._hear():
                if isinstance(answer, Opened):
                    opened[worker] = answer
                    continue
                self._take_last_word(worker, answer)
                if worker not in self._alive:
                    raise ModelError(f"{worker.name} {worker.death} before its model was loaded. Fix: fewer --devices")
        return [opened[worker] for worker in self._workers]

    def _agree(self, found: Sequence[ModelFacts]) -> ModelFacts:
        """What is true of all. The smallest rows that one of them has room for are everybody's: plans must be alike.

        ModelError where something else differs, or where rows cannot be changed any more.
        """
        tokens = min(facts.batch_tokens for facts in found)
        free = {"device"} if found[0].compiled else {"device", "batch_tokens"}
        for worker, facts in zip(self._workers, found, strict=True):
            for name, value in asdict(facts).items():
                if name not in free and value != (first := getattr(found[0], name)):
                    what = f"{name} {value}, and the first one {first}"
                    raise ModelError(f"{worker.name} has {what}. Fix: --batch-tokens, or --devices that are alike")
            if facts.batch_tokens != tokens:
                worker.tell(Resize(tokens))
        return replace(found[0], device=", ".join(facts.device for facts in found), batch_tokens=tokens)

    def _score(
        self, slices: Iterable[Slice], journal: Journal, tally: Tally, should_stop: Callable[[], bool]
    ) -> Generator[ScoredSlice]:
        with closing(_Bell()) as bell, closing(Ahead(slices, ring=bell.ring)) as feed:
            handout = Handout(feed, journal, _WINDOW * len(self._workers))
            try:
                while True:
                    yield from handout.finished()
                    if handout.over():
                        return
                    if should_stop():
                        break
                    bell.hush()
                    self._hand_out(handout)
                    with tally.timing("wait for workers"):
                        self._listen(handout, tally, [bell.heard] if handout.has_room else [])
                self._halt(handout, tally)
            except Exception:
                journal.write()  # whatever ended the run, rows that are done need not be done again
                raise
            yield from handout.finished()
            raise StopRequested

    def _hand_out(self, handout: Handout) -> None:
        while self._alive:
            worker = min(self._alive, key=lambda worker: len(worker.errands))
            if len(worker.errands) >= _IN_HAND or (errand := handout.take()) is None:
                return
            if len(errand.deaths) >= _DEATHS:
                raise ModelError(
                    f"{errand.place}: workers died on these records ({'; '.join(errand.deaths)}). "
                    "Fix: --batch-tokens or --max-length, smaller"
                )
            worker.take(errand)
        unscored = handout.first
        where = f"{unscored.place}: " if unscored else ""
        fix = "Fix: --batch-tokens, smaller, or fewer --devices"
        raise ModelError(f"{where}no worker is left ({self._deaths()}). {fix}")

    def _halt(self, handout: Handout, tally: Tally) -> None:
        """Let the rows at hand be finished, and hear of them."""
        for worker in self._alive:
            worker.tell(Halt())
        while self._alive:
            self._listen(handout, tally, [])

    def _listen(self, handout: Handout, tally: Tally, besides: list[Connection[Any, Any]]) -> None:
        """Take in what workers have to say, for as long as they have something."""
        for worker, answer in self._hear(besides):
            match answer:
                case RowDone(number, pairs, scores):
                    worker.errand(number).note(pairs, scores)
                case TaskDone(number, found, report):
                    worker.errand(number).scores = found
                    worker.errands.popleft()
                    worker.account(report, tally)
                case Halted(report):
                    worker.account(report, tally)
                    self._alive.remove(worker)
                case _:
                    self._take_last_word(worker, answer)
                    if worker not in self._alive:
                        handout.give_back(worker.left_behind())

    def _hear(self, besides: list[Connection[Any, Any]] | None = None) -> Iterator[tuple[_Worker, Answer | None]]:
        """What workers say within a short while, one answer each; None from one that is gone."""
        by_pipe = {worker.pipe: worker for worker in self._alive}
        for ready in wait([*by_pipe, *(besides or [])], _POLL):
            worker = by_pipe.get(ready)  # type: ignore[call-overload]
            if worker is None:
                continue
            answer = worker.hear()
            if isinstance(answer, Said):
                logging.getLogger(answer.logger).log(answer.level, "%s: %s", worker.name, answer.text)
            else:
                yield worker, answer

    def _take_last_word(self, worker: _Worker, answer: Answer | None) -> None:
        """Raise what was raised in the worker; take one that is gone off the list."""
        match answer:
            case Failed(error):
                error.add_note(f"(in {worker.name})")
                raise error
            case DeviceLost(reason):
                worker.death = f"lost its device ({reason})"
            case None:
                worker.bury()
                self._alive.remove(worker)
                if self._alive:
                    log.warning("%s %s, going on with %d", worker.name, worker.death, len(self._alive))

    def _deaths(self) -> str:
        return "; ".join(f"{worker.name} {worker.death}" for worker in self._workers if worker.death)


class _Worker:
    """A process as the job sees it: what it has in hand, and what became of it."""

    def __init__(self, number: int, place: Place, of: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = f"worker {number} of {of} ({place.device})"
        self.errands: deque[Errand] = deque()
        self.report = Report()
        self.death = ""
        self.pipe, there = context.Pipe()
        level = logging.getLogger("rerank_cli").getEffectiveLevel()
        self.process = context.Process(target=work, args=(there, place.open_session, level), daemon=True)
        self.process.start()
        there.close()
        self._outbox = Behind[Order](self.pipe.send, depth=_IN_HAND + 2)

    def take(self, errand: Errand) -> None:
        self.errands.append(errand)
        self.tell(Task(errand.number, errand.part.texts, errand.carried))

    def tell(self, order: Order) -> None:
        """Send without waiting for the worker to take it. If it is gone, the end of the pipe says so soon."""
        with suppress(OSError):
            self._outbox.put(order)

    def hear(self) -> Answer | None:
        try:
            answer: Answer = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return answer

    def errand(self, number: int) -> Errand:
        return next(errand for errand in self.errands if errand.number == number)

    def account(self, report: Report, tally: Tally) -> None:
        for stage, seconds in report.seconds.items():
            more = seconds - self.report.seconds.get(stage, 0.0)
            tally.seconds[stage] = tally.seconds.get(stage, 0.0) + more
        self.report = report

    def left_behind(self) -> list[Errand]:
        """What it had in hand; the one it was at, the first, remembers how it ended."""
        errands = list(self.errands)
        self.errands.clear()
        for errand in errands[:1]:
            errand.deaths.append(f"{self.name} {self.death}")
        return errands

    def bury(self) -> None:
        """Wait for its end, and say what it was; its slices are still to be had."""
        self.process.join(_GRACE)
        self.process.kill()
        self.process.join()
        self.death = self.death or _how(self.process.exitcode or 0)
        with suppress(OSError):
            self._outbox.close()
        self.pipe.close()


class _Bell:
    """Rung on one thread, heard on another, which may wait for pipes as well."""

    def __init__(self) -> None:
        self.heard, self._rope = multiprocessing.Pipe(duplex=False)

    def ring(self) -> None:
        self._rope.send_bytes(b"!")

    def hush(self) -> None:
        while self.heard.poll():
            self.heard.recv_bytes()

    def close(self) -> None:
        self.heard.close()
        self._rope.close()


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"died of {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"


@contextmanager
def _signals_held() -> Iterator[None]:
    """What is started in here holds a Ctrl-C back until it can ignore it; ours comes when the block is left."""
    resource_tracker.ensure_running()  # would let signals through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
