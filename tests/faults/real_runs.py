"""The installed command on inputs that keep it busy for a second or two, alone or under somebody's hand."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

RERANK = str(Path(sys.executable).with_name("rerank"))
TINY = str(Path(__file__).parents[1] / "models" / "parity" / "bert")
PATIENCE = 180  # seconds; a busy machine is no failure


def requests(path, count=120):
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


def environment(**more):
    """One thread: two of them beside another process wait for each other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RERANK_", "HF_"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def ended(words, *, env=None, **settings):
    """Run to the end; exit code and stderr."""
    settings = {"stdin": subprocess.DEVNULL, "timeout": PATIENCE} | settings
    done = subprocess.run(words, capture_output=True, env=environment(**(env or {})), check=False, **settings)
    return done.returncode, done.stderr.decode()


@contextmanager
def begun(words, **settings):
    """A process at work, with the signals of a foreground job; killed when the block is left."""
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    process = subprocess.Popen(words, env=environment(), preexec_fn=_foreground, **settings)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _foreground():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def until(condition, seconds=PATIENCE):
    """Poll; fails the test when it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def is_one_line(text):
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())
