"""Stopping on request: the first signal requests a stop, the second ends the process; a time limit stops as well.

After the work is saved the signal is raised again with its default action: a shell loop around the command stops too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether a stop was requested, by a signal or because `seconds` have passed. Calling it returns that.

    `patient` is set while there is work that must be saved before the process ends.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.signal: signal.Signals | None = None
        self.patient = False
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def __call__(self) -> bool:
        return self.reason is not None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the time limit, at least a moment; None without one."""
        return None if self._deadline is None else max(0.001, self._deadline - time.monotonic())

    @property
    def reason(self) -> str | None:
        """The name of the signal, `max-duration`, or None."""
        if self.signal is not None:
            return self.signal.name
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return "max-duration" if late else None


@contextmanager
def listening(
    stop: Stop, on_stop: Callable[[str], None], on_status: Callable[[], None], clean_up: Callable[[], None]
) -> Iterator[None]:
    """Until the block is left, SIGINT, SIGTERM and SIGHUP set `stop`, and SIGUSR1 calls `on_status`.

    If `stop` is not patient, the first signal ends the process after `clean_up`. An exception instead would make native
    libraries abort while they are imported. A signal ignored at the start (`nohup`, background jobs) stays ignored.
    """

    def ask(number: int, _: FrameType | None) -> None:
        if stop.signal is not None:
            die_of(signal.Signals(number))
        stop.signal = signal.Signals(number)
        if not stop.patient:
            clean_up()
            die_of(stop.signal)
        on_stop(stop.signal.name)

    before = {number: signal.getsignal(number) for number in (*_STOPPING, signal.SIGUSR1)}
    for number in _STOPPING:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, ask)
    signal.signal(signal.SIGUSR1, lambda *_: on_status())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_of(number: signal.Signals) -> NoReturn:
    """End this process by the signal's default action.

    The first process of a container has no such action: it exits with 128 + the number, as a shell says it.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
