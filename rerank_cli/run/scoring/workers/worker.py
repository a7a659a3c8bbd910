"""A worker: opens a model, takes slices of texts from a channel, answers row by row."""

from __future__ import annotations

import pickle
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from rerank_cli.engine.contract import Session, StopRequested
from rerank_cli.engine.plan import Index
from rerank_cli.engine.prepare import Prepared
from rerank_cli.engine.results import by_pair
from rerank_cli.run.recovery.journal import CarriedNotes
from rerank_cli.run.scoring.workers.messages import (
    Answer,
    DeviceLost,
    Failed,
    Halt,
    Halted,
    Opened,
    PlainDone,
    Report,
    Resize,
    RowDone,
    Score,
    ScorePlainly,
    Scores,
    TaskDone,
    WorkerFailure,
)
from rerank_cli.run.scoring.workers.transport import Channel, OpenSession, Resizable
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.run.threads import Ahead


class Sender:
    """Sends answers whole, from any thread; calls `orphaned` once there is no job to receive them."""

    def __init__(self, channel: Channel, orphaned: Callable[[], None]) -> None:
        self._channel = channel
        self.orphaned = orphaned
        self._lock = threading.Lock()

    def send(self, answer: Answer) -> None:
        try:
            with self._lock:
                self._channel.send(answer)
        except OSError:
            self.orphaned()


class _Orders:
    """Receives orders on a thread of its own, so that the job never waits for a busy worker."""

    def __init__(self, channel: Channel, orphaned: Callable[[], None]) -> None:
        self.waiting: queue.SimpleQueue[Score | ScorePlainly | Resize] = queue.SimpleQueue()
        self.halt = threading.Event()
        threading.Thread(target=self._receive, args=(channel, orphaned), daemon=True).start()

    def _receive(self, channel: Channel, orphaned: Callable[[], None]) -> None:
        try:
            while True:
                order = channel.recv()
                if isinstance(order, Halt):
                    self.halt.set()
                else:
                    self.waiting.put(order)
        except (EOFError, OSError):
            orphaned()


def serve(channel: Channel, sender: Sender, open_session: OpenSession) -> None:
    """Work until told to halt, or until something is raised; the last answer says which."""
    orders = _Orders(channel, sender.orphaned)
    try:
        session = open_session()
        sender.send(Opened(session.facts, session.sizes))
        sender.send(Halted(_work(session, orders, sender)))
    except Exception as error:  # raised again in the job
        sender.send(_last_answer(error))


def _work(session: Resizable, orders: _Orders, sender: Sender) -> Report:
    """Score slice after slice; the next one is tokenized while the device works on this one."""
    stats, stop = RunStatistics(), orders.halt.is_set
    try:
        with closing(Ahead(_prepared(orders, session, stats), until=stop)) as ready:
            for order, prepared in stats.waiting("wait for rows", ready):
                if isinstance(order, ScorePlainly) or prepared is None:
                    sender.send(PlainDone(session.score_plainly(order.texts)))
                    continue
                with stats.timing("score"):
                    logits = session.score(prepared, stop, _SentNotes(order.number, order.notes, sender))
                sender.send(TaskDone(order.number, by_pair(prepared, logits), _report(session, stats)))
    except StopRequested:
        pass
    return _report(session, stats)


def _prepared(
    orders: _Orders, session: Resizable, stats: RunStatistics
) -> Iterator[tuple[Score | ScorePlainly, Prepared | None]]:
    planner: Session = session
    while True:
        order = orders.waiting.get()
        if isinstance(order, Resize):
            planner = session.resized(order.batch_tokens)
        elif isinstance(order, ScorePlainly):
            yield order, None
        else:
            with stats.timing("tokenize"):
                prepared = planner.prepare(order.texts)
            yield order, prepared


def _report(session: Session, stats: RunStatistics) -> Report:
    return Report(replace(session.work), dict(stats.seconds))


@dataclass(frozen=True, slots=True)
class _SentNotes:
    """`contract.RowNotes` of one task: known rows came with it, the job is told of every other one."""

    number: int
    carried: CarriedNotes
    sender: Sender

    def known(self, pairs: Index) -> Scores | None:
        return self.carried.known(pairs)

    def done(self, pairs: Index, scores: Scores) -> None:
        self.sender.send(RowDone(self.number, pairs, scores))


def _last_answer(error: Exception) -> Failed | DeviceLost:
    """A lost device is no fault of the task. Any other error is raised in the job, as its own class if it has one."""
    lost = getattr(sys.modules.get("torch"), "AcceleratorError", None)
    described = f"{type(error).__name__}: {error}"
    if lost is not None and isinstance(error, lost):
        return DeviceLost(described.splitlines()[0])
    portable = error if _survives_pickling(error) else WorkerFailure(described)
    portable.add_note("".join(traceback.format_exception(error)).rstrip())
    return Failed(portable)


def _survives_pickling(error: Exception) -> bool:
    """Whether it is one of ours or Python's, and comes out of a pickle as it was."""
    if type(error).__module__.partition(".")[0] not in {"builtins", "rerank_cli"}:
        return False
    try:
        copy = pickle.loads(pickle.dumps(error))
    except (TypeError, ValueError, AttributeError, pickle.PickleError):
        return False
    return type(copy) is type(error) and str(copy) == str(error)
