"""A worker: opens a model, receives slices of texts from a channel, answers row by row."""

from __future__ import annotations

import pickle
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

from rerank_cli.engine.contract import Session, StopRequested
from rerank_cli.engine.results import Logits, by_pair
from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import Prepared
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.recovery.journal import CarriedNotes
from rerank_cli.run.scoring.local import CountedNotes
from rerank_cli.run.scoring.workers import messages
from rerank_cli.run.scoring.workers.transport import Channel, OpenSession, Resizable
from rerank_cli.run.threads import Ahead

Orders: TypeAlias = queue.SimpleQueue[messages.Score | messages.ScorePlainly | messages.Resize]


class Sender:
    """Sends whole answers, from any thread; calls `orphaned` once the job is gone."""

    def __init__(self, channel: Channel, orphaned: Callable[[], None]) -> None:
        self._channel = channel
        self.orphaned = orphaned
        self._lock = threading.Lock()

    def send(self, answer: messages.Answer) -> None:
        try:
            with self._lock:
                self._channel.send(answer)
        except OSError:
            self.orphaned()


def _receive(channel: Channel, orders: Orders, halt: threading.Event, orphaned: Callable[[], None]) -> None:
    try:
        while True:
            order = channel.recv()
            if isinstance(order, messages.Halt):
                halt.set()
            else:
                orders.put(order)
    except (EOFError, OSError):
        orphaned()


def serve(channel: Channel, sender: Sender, open_session: OpenSession) -> None:
    """Score slices until `Halt` or an exception; the last answer is `Halted` or `Failed`. One thread receives orders,
    so that the job never waits for a busy worker; one tokenizes the next slice while the device computes this one.
    """
    orders: Orders = queue.SimpleQueue()
    halt = threading.Event()
    threading.Thread(target=_receive, args=(channel, orders, halt, sender.orphaned), daemon=True).start()
    try:
        session = open_session()
        sender.send(messages.Opened(session.facts, session.sizes))
        stats = RunStatistics()
        with suppress(StopRequested), closing(Ahead(_prepared(orders, session, stats), until=halt.is_set)) as ready:
            for order, prepared in stats.waiting("wait for rows", ready):
                if isinstance(order, messages.ScorePlainly) or prepared is None:
                    sender.send(messages.PlainDone(session.score_plainly(order.texts)))
                    continue
                with stats.timing("score"):
                    notes = CountedNotes(_SentNotes(order.notes, sender), prepared, _counted(sender))
                    logits = session.score(prepared, halt.is_set, notes)
                sender.send(messages.TaskDone(by_pair(prepared, logits), _report(session, stats)))
        sender.send(messages.Halted(_report(session, stats)))
    except Exception as error:  # raised again in the job
        sender.send(_last_answer(error))


def _prepared(
    orders: Orders, session: Resizable, stats: RunStatistics
) -> Iterator[tuple[messages.Score | messages.ScorePlainly, Prepared | None]]:
    planner: Session = session
    while True:
        order = orders.get()
        if isinstance(order, messages.Resize):
            planner = session.resized(order.batch_tokens)
        elif isinstance(order, messages.ScorePlainly):
            yield order, None
        else:
            with stats.timing("tokenize"):
                prepared = planner.prepare(order.texts)
            yield order, prepared


def _report(session: Session, stats: RunStatistics) -> messages.Report:
    return messages.Report(replace(session.work), dict(stats.seconds))


def _counted(sender: Sender) -> Callable[[float, float], None]:
    return lambda pairs, tokens: sender.send(messages.RowCounted(pairs, tokens))


@dataclass(frozen=True, slots=True)
class _SentNotes:
    """`contract.RowNotes` of one task: known rows came with the order, every scored row is sent to the job."""

    carried: CarriedNotes
    sender: Sender

    def known(self, pairs: Index) -> Logits | None:
        return self.carried.known(pairs)

    def done(self, pairs: Index, scores: Logits) -> None:
        self.sender.send(messages.RowDone(pairs, scores))


def _last_answer(error: Exception) -> messages.Failed:
    """Errors are raised in the job, as their own class if it is of Python or rerank_cli and its pickle gives the same
    error back. A lost device is not the fault of the task.
    """
    lost = getattr(sys.modules.get("torch"), "AcceleratorError", None)
    described = f"{type(error).__name__}: {error}"
    if lost is not None and isinstance(error, lost):
        return messages.Failed(messages.DeviceLost(described.splitlines()[0]))
    portable: Exception = messages.WorkerFailure(described)
    if type(error).__module__.partition(".")[0] in {"builtins", "rerank_cli"}:
        with suppress(TypeError, ValueError, AttributeError, pickle.PickleError):
            copy = pickle.loads(pickle.dumps(error))
            if type(copy) is type(error) and str(copy) == str(error):
                portable = error
    portable.add_note("".join(traceback.format_exception(error)).rstrip())
    return messages.Failed(portable)
