"""A worker process: opens a model of its own, takes slices of texts from a pipe, answers row by row.

It obeys that pipe alone: signals for the job's process group are ignored, and where the pipe ends, so does the worker.
Nothing of it reaches the job's stdout; what it logs is sent to the job.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Protocol

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
    Order,
    Plain,
    PlainDone,
    Report,
    Resize,
    RowDone,
    Said,
    Scores,
    Task,
    TaskDone,
    WorkerFailure,
)
from rerank_cli.run.statistics import Tally
from rerank_cli.run.threads import Ahead


class Resizable(Session, Protocol):
    """A session whose rows can be made of another size."""

    def resized(self, batch_tokens: int) -> Session: ...


OpenSession = Callable[[], Resizable]
HELD = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
"""Signals that are the job's to obey. It holds them back while it starts a worker."""

_OUR_LOG = "rerank_cli"
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, prctl(2)


def work(pipe: Connection, open_session: OpenSession, log_level: int) -> None:
    """Serve until the pipe ends; does not return."""
    _settle()
    mouth, ears = _Mouth(pipe), _Ears(pipe)
    _log_to(mouth, log_level)
    try:
        session = open_session()
        mouth.say(Opened(session.facts, session.sizes))
        mouth.say(Halted(_serve(session, ears, mouth)))
    except Exception as error:  # raised again in the job
        mouth.say(_last_word(error))
    os._exit(0)  # threads of native libraries need no goodbye


def _serve(session: Resizable, ears: _Ears, mouth: _Mouth) -> Report:
    """Work off orders until told to halt: the next slice is tokenized while the device works on this one."""
    tally, stop = Tally(), ears.halt.is_set
    try:
        with closing(Ahead(_prepared(ears, session, tally), until=stop)) as ready:
            for order, prepared in tally.waiting("wait for rows", ready):
                if isinstance(order, Plain) or prepared is None:
                    mouth.say(PlainDone(session.score_plainly(order.texts)))
                    continue
                with tally.timing("score"):
                    logits = session.score(prepared, stop, _ToldNotes(order.number, order.notes, mouth))
                mouth.say(TaskDone(order.number, by_pair(prepared, logits), _report(session, tally)))
    except StopRequested:
        pass
    return _report(session, tally)


def _prepared(ears: _Ears, session: Resizable, tally: Tally) -> Iterator[tuple[Task | Plain, Prepared | None]]:
    planner: Session = session
    while True:
        order = ears.orders.get()
        if isinstance(order, Resize):
            planner = session.resized(order.batch_tokens)
            continue
        if isinstance(order, Plain):
            yield order, None
            continue
        with tally.timing("tokenize"):
            prepared = planner.prepare(order.texts)
        yield order, prepared


def _report(session: Session, tally: Tally) -> Report:
    return Report(replace(session.work), dict(tally.seconds))


class _Mouth:
    """What is said goes out whole, whichever thread says it; without a job to hear it, the process ends."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._one_at_a_time = threading.Lock()

    def say(self, answer: Answer) -> None:
        try:
            with self._one_at_a_time:
                self._pipe.send(answer)
        except OSError:
            os._exit(0)


class _Ears:
    """Takes what comes as it comes, so that the job never waits for a busy worker, and hears when the job is gone."""

    def __init__(self, pipe: Connection) -> None:
        self.orders: queue.SimpleQueue[Task | Plain | Resize] = queue.SimpleQueue()
        self.halt = threading.Event()
        threading.Thread(target=self._listen, args=(pipe,), daemon=True).start()

    def _listen(self, pipe: Connection) -> None:
        try:
            while True:
                order: Order = pipe.recv()
                if isinstance(order, Halt):
                    self.halt.set()
                else:
                    self.orders.put(order)
        except (EOFError, OSError):
            os._exit(0)


@dataclass(frozen=True, slots=True)
class _ToldNotes:
    """Notes of one task: known rows came with it, and the job is told of every other one."""

    number: int
    carried: CarriedNotes
    mouth: _Mouth

    def known(self, pairs: Index) -> Scores | None:
        return self.carried.known(pairs)

    def done(self, pairs: Index, scores: Scores) -> None:
        self.mouth.say(RowDone(self.number, pairs, scores))


def _settle() -> None:
    """Leave signals and stdout to the job, and die with it, if need be by the kernel's hand."""
    for number in HELD:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    os.dup2(2, 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(0)


def _last_word(error: Exception) -> Failed | DeviceLost:
    """A lost device is no fault of the work; all else is raised in the job, by its own class where it has one."""
    lost = getattr(sys.modules.get("torch"), "AcceleratorError", None)
    said = f"{type(error).__name__}: {error}"
    if lost is not None and isinstance(error, lost):
        return DeviceLost(said.splitlines()[0])
    portable = _same_elsewhere(error)
    told = error if portable else WorkerFailure(said)
    told.add_note("".join(traceback.format_exception(error)).rstrip())
    return Failed(told)


def _same_elsewhere(error: Exception) -> bool:
    """Whether it is one of ours or Python's, and comes out of a pickle as it was."""
    if type(error).__module__.partition(".")[0] not in {"builtins", "rerank_cli"}:
        return False
    try:
        copy = pickle.loads(pickle.dumps(error))
    except (TypeError, ValueError, AttributeError, pickle.PickleError):
        return False
    return type(copy) is type(error) and str(copy) == str(error)


class _Log(logging.Handler):
    def __init__(self, mouth: _Mouth) -> None:
        super().__init__()
        self._mouth = mouth

    def emit(self, record: logging.LogRecord) -> None:
        self._mouth.say(Said(record.name, record.levelno, record.getMessage()))


def _log_to(mouth: _Mouth, level: int) -> None:
    logger = logging.getLogger(_OUR_LOG)
    logger.handlers = [_Log(mouth)]
    logger.propagate = False
    logger.setLevel(level)
