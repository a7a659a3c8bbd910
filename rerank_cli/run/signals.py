"""Stopping on request: the first signal asks, the second one quits at once; a time limit asks too.

After the work is put away the signal is raised again with its default action, so that the shell sees what killed the
process and a loop around the command stops too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TIME_LIMIT = "max-duration"


class Stop:
    """Whether somebody asked to stop: a signal, or the clock after `seconds`. Called, it says so.

    `patient` is set while there is work that must be put away first.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.signal: signal.Signals | None = None
        self.patient = False
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def __call__(self) -> bool:
        return self.reason is not None

    @property
    def reason(self) -> str | None:
        """The name of the signal, `max-duration`, or None."""
        if self.signal is not None:
            return self.signal.name
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return TIME_LIMIT if late else None


@contextmanager
def listening(
    stop: Stop, on_stop: Callable[[str], None], on_status: Callable[[], None], let_go: Callable[[], None]
) -> Iterator[None]:
    """Let INT, TERM and HUP ask `stop`, and USR1 call `on_status`, until the block is left.

    Where `stop` is not patient the first one ends the process, once `let_go` has put away what it holds: an exception
    would have to pass through the imports of native libraries, which abort. One that was ignored from the start
    (`nohup`, a job in the background) stays ignored.
    """

    def ask(number: int, _: FrameType | None) -> None:
        if stop.signal is not None:
            die_of(signal.Signals(number))
        stop.signal = signal.Signals(number)
        if not stop.patient:
            let_go()
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


def die_of(number: signal.Signals) -> None:
    """End this process by the signal's default action."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
