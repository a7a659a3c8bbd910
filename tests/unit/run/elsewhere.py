"""Sessions without a model for worker processes, and a job with two of them as a program of its own.

Scores are hashes of texts, seven pairs a row of 2,048 tokens. What a worker is to do beside that goes by what it reads.
"""

import logging
import os
import signal
import sys
import time
import zlib
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np

from rerank_cli.engine.contract import ModelFacts, Sizes, StopRequested, Work
from rerank_cli.engine.rows.prepare import Prepared
from rerank_cli.engine.rows.windows import Windows
from rerank_cli.errors import BadRecord, ModelError
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.scoring.workers.transport import Place

ROW = 7


class Foreign(Exception):
    """Of no class that the job knows."""


class Lost(Exception):
    """Stands for torch's error of a device that has failed."""


class Doomed(Prepared):
    """What ends the process or raises, after its first two rows."""


RAISED = {
    "ours": BadRecord("odd", "in.jsonl:1: is odd"),
    "python's": ValueError("not a value"),
    "foreign": Foreign("from afar"),
}


@dataclass
class RowSession:
    """Takes `pause` seconds a row; ends by `way` where a passage is `at`."""

    pause: float = 0.0
    at: str = "\0"
    way: str = "kill"
    device: str = "cpu"
    batch_tokens: int = 2048
    compiled: bool = False

    def __post_init__(self):
        self.facts = ModelFacts("instant", "r1", "fake", self.device, "fp32", 0, True, 512, 384, self.batch_tokens)
        self.facts = replace(self.facts, compiled=self.compiled)
        self.sizes = Sizes(batch_tokens=2048, chunk_pairs=8)
        self.work = Work()

    def prepare(self, pairs):
        texts = zip(pairs.queries, pairs.passages, strict=True)
        hashes = np.array([zlib.crc32(f"{q}|{p}".encode()) % 1000 for q, p in texts], dtype=np.int64)
        kind = Doomed if self.at in pairs.passages else Prepared
        nothing_cut = np.zeros(len(hashes), dtype=bool)
        return kind((), hashes, Windows.one_each(hashes), hashes + 1, nothing_cut, self.batch_tokens // 290)

    def resized(self, batch_tokens):
        return replace(self, batch_tokens=batch_tokens)

    def score(self, prepared, should_stop=lambda: False, notes=None):
        count = len(prepared.distinct)
        logits = np.empty(count, dtype=np.float32)
        row = prepared.texts  # stands for the plan
        for start in range(0, count, row):
            pairs = np.arange(start, min(start + row, count))
            known = notes.known(pairs)
            if known is None:
                if should_stop():
                    raise StopRequested
                known = self._row(prepared, pairs)
                notes.done(pairs, known)
            logits[pairs] = known
            if isinstance(prepared, Doomed) and start >= ROW:
                end(self.way)
        return logits

    def _row(self, prepared, pairs):
        time.sleep(self.pause)
        self.work.rows += 1
        self.work.tokens += len(pairs)
        return (prepared.distinct[pairs] / 100).astype(np.float32)

    def score_plainly(self, pairs):
        return (self.prepare(pairs).distinct / 100).astype(np.float32)


class OtherRevision(RowSession):
    def __post_init__(self):
        super().__post_init__()
        self.facts = replace(self.facts, revision="r2")


def once(lives, way, **settings):
    """A session that ends as `settings` say, in a worker's first life; in later ones it opens well, or not: `way`."""
    with open(lives, "a") as file:
        file.write("x")
    if len(lives.read_text()) == 1:
        return RowSession(**settings)
    return RowSession() if way == "well" else failing(way)


def end(way):
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "exit":
        os._exit(3)
    if way == "device":
        sys.modules["torch"] = SimpleNamespace(AcceleratorError=Lost)
        raise Lost("CUDA error: unspecified\nand more")
    if way == "noise":
        print("a stray line", flush=True)
        logging.getLogger("rerank_cli.engine.scorer").warning("out of memory at %d tokens", ROW)
        return
    raise RAISED[way]


def failing(way):
    """Cannot be opened."""
    if way != "model":
        end(way)
    raise ModelError("no such model")


def at_work(*sessions):
    """Workers with a session of these settings each."""
    return Workers(
        [Place(f"cpu:{number}", partial(RowSession, **settings)) for number, settings in enumerate(sessions)]
    )


def main():
    """`elsewhere.py INPUT OUTPUT`: a job with two slow workers, whose ids it prints; dies as the command would."""
    from instant import config

    from rerank_cli.run.job import run
    from rerank_cli.run.signals import die_of

    def opened(_):
        workers = at_work({"pause": 0.05}, {"pause": 0.05})
        print(*[worker.link.process.pid for worker in workers._workers], flush=True)
        return workers

    _, stop = run(config(sys.argv[1], sys.argv[2], chunk_pairs=30), opened)
    if stop.signal:
        die_of(stop.signal)


if __name__ == "__main__":
    main()
