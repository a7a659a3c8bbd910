"""Workers as processes of this machine, each connected to the job by a pipe.

A worker is controlled by its pipe only: it ignores signals sent to the job's process group, and ends when the pipe
closes. Its output never reaches the job's stdout; its log lines are sent to the job.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from rerank_cli.run.scoring.workers.messages import Answer, Logged, Order
from rerank_cli.run.scoring.workers.transport import Ended, Link, OpenSession, Place
from rerank_cli.run.scoring.workers.worker import Sender, serve
from rerank_cli.run.threads import Behind

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}  # handled by the job
_LOGGER = "rerank_cli"
_PDEATHSIG = 1  # PR_SET_PDEATHSIG, prctl(2)
_POLL = 0.1
_GRACE = 5.0
_WAITING_ORDERS = 4


class ProcessTransport:
    """See `Transport`."""

    flag = "--devices"
    window = 4

    def __init__(self) -> None:
        self._woken, self._waker = multiprocessing.Pipe(duplex=False)

    def start(self, places: Sequence[Place]) -> list[Link]:
        resource_tracker.ensure_running()  # it would unblock the signals if it started later
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the workers ignore them; pending in the job
        links: list[Link] = []
        try:
            for place in places:
                links.append(ProcessLink(place.open_session))
        except BaseException:
            for link in links:
                link.kill()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return links

    def wait(self, links: Sequence[Link], wakeable: bool) -> list[Link]:
        by_pipe: dict[Any, Link] = {link.pipe: link for link in links if isinstance(link, ProcessLink)}
        ready = wait([*by_pipe, *([self._woken] if wakeable else [])], _POLL)
        while wakeable and self._woken.poll():
            self._woken.recv_bytes()
        return [by_pipe[one] for one in ready if one in by_pipe]

    def wake(self) -> None:
        with suppress(OSError):  # closed, nobody waits any more
            self._waker.send_bytes(b"!")

    def shortage(self) -> str:
        return "none: a process has its place at once"

    def close(self) -> None:
        self._woken.close()
        self._waker.close()


class ProcessLink:
    """See `Link`."""

    here = True

    def __init__(self, open_session: OpenSession) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        level = logging.getLogger(_LOGGER).getEffectiveLevel()
        self.process = context.Process(target=_main, args=(theirs, open_session, level), daemon=True)
        self.process.start()
        theirs.close()
        self._outbox = Behind[Order](self.pipe.send, depth=_WAITING_ORDERS)
        self.node = socket.gethostname()

    def tell(self, order: Order) -> None:
        with suppress(OSError):
            self._outbox.put(order)

    def hear(self) -> Answer | None:
        with suppress(EOFError, OSError):
            answer: Answer = self.pipe.recv()
            return answer
        return None

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> Ended:
        self.process.join(_GRACE)
        self.process.kill()
        self.process.join()
        with suppress(OSError):
            self._outbox.close()
        self.pipe.close()
        code = self.process.exitcode or 0
        if code >= 0:
            return Ended(f"ended with exit code {code}")
        name = signal.Signals(-code).name
        return Ended(f"died of {name}{' (out of memory?)' if name == 'SIGKILL' else ''}")


def _main(pipe: Connection[Any, Any], open_session: OpenSession, log_level: int) -> None:
    """The worker process; does not return."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    os.dup2(2, 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(0)
    sender = Sender(pipe, lambda: os._exit(0))
    logger = logging.getLogger(_LOGGER)
    logger.handlers, logger.propagate = [SentLog(sender)], False
    logger.setLevel(log_level)
    serve(pipe, sender, open_session)
    os._exit(0)  # threads of native libraries cannot be joined


class SentLog(logging.Handler):
    """Sends a worker's log lines to the job."""

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self._sender.send(Logged(record.name, record.levelno, record.getMessage()))
