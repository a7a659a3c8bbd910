"""The installed command on inputs that keep it busy for a second or two, alone or under somebody's hand."""

import json
import random
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from processes import RERANK, TIMEOUT, TINY, Forked, environment, foreground, forked_command


def requests(path, count=80):
    """Requests of one to twenty documents."""
    rng = random.Random(11)
    words = "the giant panda is a bear that lives in china " * 6
    with open(path, "w") as file:
        for number in range(count):
            documents = [f"{number} {n} {words}" for n in range(rng.randint(1, 20))]
            file.write(json.dumps({"id": number, "query": f"panda {number}", "documents": documents}) + "\n")
    return path


def command(given, output, *flags):
    words = [RERANK, "run", given, "-o", output, "-m", TINY, "-q", "--chunk-pairs", "40", "--commit-interval", "0"]
    return [str(word) for word in (*words, *flags)]


def ended(words, *, env=None, **settings):
    """Run to the end; exit code and stderr. Without settings of its own it is the fork server that runs the command."""
    if words[0] == RERANK and not env and not settings:
        words = [*forked_command(), *words[1:]]
    settings = {"stdin": subprocess.DEVNULL, "timeout": TIMEOUT} | settings
    done = subprocess.run(words, capture_output=True, env=one_thread(env), check=False, **settings)
    return done.returncode, done.stderr.decode()


def one_thread(extra=None):
    """The environment; two threads beside another process would wait for each other."""
    return environment({"OMP_NUM_THREADS": "1", **(extra or {})})


@contextmanager
def begun(words, *, afresh=False, **settings):
    """A process at work, with the signals of a foreground job; killed when the block is left.

    The fork server runs it, unless its start matters (`afresh`) or it has settings of its own.
    """
    afresh = afresh or bool(settings)
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    if afresh:
        process = subprocess.Popen(words, env=one_thread(), preexec_fn=foreground, **settings)
    else:
        process = Forked(words[1:], env=one_thread(), **settings)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition, seconds=TIMEOUT):
    """Poll; fails the test when it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def is_one_line(text):
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())
