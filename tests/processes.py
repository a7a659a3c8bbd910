"""The installed command as processes: what the tests of the command line and of faults share."""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from forked import PID_TO

RERANK = str(Path(sys.executable).with_name("rerank"))
TINY = str(Path(__file__).parent / "models" / "parity" / "bert")
TIMEOUT = 180  # seconds; a busy machine is no failure


def environment(extra=None):
    """Ours without settings of rerank or of a hub, offline, with some more."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RERANK_", "HF_"))}
    return {**kept, "HF_HUB_OFFLINE": "1", **(extra or {})}


def foreground():
    """The signals of a foreground job: a test runner in the background ignores SIGINT, one under nohup SIGHUP."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@cache
def forked_command():
    """The words that run the command in the fork server (see `forked`), which is started when this is first called.

    Outside Linux it is the plain command: system libraries of macOS must not be used in a child after a fork.
    """
    if sys.platform != "linux":
        return (RERANK,)
    folder = tempfile.TemporaryDirectory()
    path, script = str(Path(folder.name) / "socket"), str(Path(__file__).with_name("forked.py"))
    server = subprocess.Popen(
        [sys.executable, script, "serve", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        preexec_fn=foreground,
    )

    def end():
        server.stdin.close()
        server.wait()
        folder.cleanup()

    atexit.register(end)
    with server.stdout:
        assert server.stdout.readline() == b"ready\n"
    return sys.executable, "-S", script, "run", path


class Forked(subprocess.Popen):
    """A command at work that the fork server runs: `command_pid` is its process, which the signals go to."""

    def __init__(self, args, *, env, **settings):
        told, tells = os.pipe()
        with open(told) as answer:
            super().__init__([*forked_command(), *args], env={**env, PID_TO: str(tells)}, pass_fds=[tells], **settings)
            os.close(tells)
            said = answer.readline()
        self.command_pid = int(said) if said else self.pid  # a plain command, outside Linux

    def send_signal(self, sig):
        with suppress(ProcessLookupError):
            os.kill(self.command_pid, sig)
