"""The installed command in real processes, as a shell would run it."""

import json
import os
import select
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass

from processes import RERANK, TIMEOUT, TINY, Forked, environment, foreground, forked_command

PANDA = "The giant panda is a bear that lives in China and eats bamboo."


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended: exit code (negative: the signal it died of), stdout, and stderr as text."""

    code: int
    out: bytes
    err: str

    @property
    def records(self):
        return json_lines(self.out)

    @property
    def complaint(self):
        """The last line on stderr: an error stands there, after the notices."""
        return self.err.splitlines()[-1] if self.err else ""


def json_lines(data):
    """Every line as JSON; a line that is none fails the test."""
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def write_lines(path, records):
    """Objects as JSON lines; strings and bytes as they are."""
    path.write_bytes(b"".join(_line(record) for record in records))
    return str(path)


def _line(record):
    if isinstance(record, dict):
        record = json.dumps(record, ensure_ascii=False)
    return (record if isinstance(record, bytes) else record.encode()) + b"\n"


# Variables that are read when they are needed; others may have been read when the fork server imported.
_LATE = ("RERANK_", "TMPDIR", "XDG_STATE_HOME", "SLURM_", "JOB_")


def rerank(*args, stdin=b"", env=None, cwd=None, stdout=subprocess.PIPE, afresh=None):
    """Run to the end with `stdin` piped in: by the fork server where that changes nothing, else in a new process."""
    if afresh is None:
        afresh = any(not name.startswith(_LATE) for name in env or ())
    ended = subprocess.run(
        [*([RERANK] if afresh else forked_command()), *map(str, args)],
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(env),
        cwd=cwd,
        timeout=TIMEOUT,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout or b"", ended.stderr.decode())


def run_tiny(*args, **settings):
    """`rerank run` with the tiny model of random weights, quietly."""
    return rerank("run", *args, "-m", TINY, "-q", **settings)


@contextmanager
def started(*args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=None, afresh=False):
    """A process in the middle of its work, with the signals of a foreground job; killed when the block is left.

    The fork server runs it, unless its start matters: then it is one of its own, `afresh`.
    """
    words = list(map(str, args))
    settings = {"stdin": stdin, "stdout": stdout, "stderr": subprocess.PIPE, "env": environment(env)}
    if afresh:
        process = subprocess.Popen([RERANK, *words], preexec_fn=foreground, **settings)
    else:
        process = Forked(words, **settings)
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait()


def until(condition, seconds=TIMEOUT):
    """Poll; what the condition gives once it is true. Fails the test when that takes too long."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def stderr_until(process, text, seconds=TIMEOUT):
    """Read stderr up to a text; everything read."""
    end = time.monotonic() + seconds
    seen = b""
    while text.encode() not in seen:
        assert time.monotonic() < end, f"no {text!r} in {seen!r}"
        if select.select([process.stderr], [], [], 0.1)[0]:
            more = os.read(process.stderr.fileno(), 65536)
            assert more, f"ended without {text!r}: {seen!r}"
            seen += more
    return seen.decode()


def is_one_line(text):
    return text.endswith("\n") and text.count("\n") == 1
