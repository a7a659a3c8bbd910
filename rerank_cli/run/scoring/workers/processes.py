"""Workers as processes of this machine, each with a pipe to the job.

A worker obeys its pipe alone: signals for the job's process group are ignored, and when the pipe ends the worker ends.
Nothing it prints reaches the job's stdout; its log lines are sent to the job.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from rerank_cli.run.scoring.workers.messages import Answer, Logged, Order
from rerank_cli.run.scoring.workers.transport import Link, OpenSession, Place
from rerank_cli.run.scoring.workers.worker import Sender, serve
from rerank_cli.run.threads import Behind

_HELD = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}  # the job's to obey
_OUR_LOG = "rerank_cli"
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, prctl(2)
_POLL = 0.1
_GRACE = 5.0
_WAITING_ORDERS = 4


class ProcessTransport:
    """See `Transport`."""

    def __init__(self) -> None:
        self._woken, self._waker = multiprocessing.Pipe(duplex=False)

    def start(self, places: Sequence[Place]) -> list[Link]:
        links: list[Link] = []
        with _signals_held():
            try:
                for place in places:
                    links.append(ProcessLink(place.open_session))
            except BaseException:
                for link in links:
                    link.kill()
                raise
        return links

    def wait(self, links: Sequence[Link], wakeable: bool) -> list[Link]:
        by_pipe: dict[Any, Link] = {link.pipe: link for link in links if isinstance(link, ProcessLink)}
        ready = wait([*by_pipe, *([self._woken] if wakeable else [])], _POLL)
        while wakeable and self._woken.poll():
            self._woken.recv_bytes()
        return [by_pipe[one] for one in ready if one in by_pipe]

    def wake(self) -> None:
        with suppress(OSError):  # closed: nobody waits any more
            self._waker.send_bytes(b"!")

    def close(self) -> None:
        self._woken.close()
        self._waker.close()


class ProcessLink:
    """See `Link`."""

    def __init__(self, open_session: OpenSession) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        level = logging.getLogger(_OUR_LOG).getEffectiveLevel()
        self.process = context.Process(target=_main, args=(there, open_session, level), daemon=True)
        self.process.start()
        there.close()
        self._outbox = Behind[Order](self.pipe.send, depth=_WAITING_ORDERS)

    def tell(self, order: Order) -> None:
        with suppress(OSError):
            self._outbox.put(order)

    def hear(self) -> Answer | None:
        try:
            answer: Answer = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return answer

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> str:
        self.process.join(_GRACE)
        self.process.kill()
        self.process.join()
        with suppress(OSError):
            self._outbox.close()
        self.pipe.close()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name
        return f"died of {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"


@contextmanager
def _signals_held() -> Iterator[None]:
    """Processes started in here hold signals back until they can ignore them; the job's own are delivered after."""
    resource_tracker.ensure_running()  # would let signals through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _main(pipe: Connection[Any, Any], open_session: OpenSession, log_level: int) -> None:
    """The worker process; does not return."""
    for number in _HELD:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    os.dup2(2, 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(0)
    sender = Sender(pipe, lambda: os._exit(0))
    logger = logging.getLogger(_OUR_LOG)
    logger.handlers, logger.propagate = [_LogHandler(sender)], False
    logger.setLevel(log_level)
    serve(pipe, sender, open_session)
    os._exit(0)  # threads of native libraries cannot be waited for


class _LogHandler(logging.Handler):
    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self._sender.send(Logged(record.name, record.levelno, record.getMessage()))
