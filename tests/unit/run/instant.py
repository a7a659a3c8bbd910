"""A session without a model, and runs with it that commit every chunk: a pair's logit is a hash of its texts."""

import zlib

import numpy as np
import pytest

from rerank_cli.choices import OutputFormat, ProgressMode
from rerank_cli.engine.contract import ModelFacts, Sizes, Work
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import Prepared
from rerank_cli.engine.rows.windows import Windows
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.run.job import run
from rerank_cli.run.options import RunConfig


class Killed(BaseException):
    """Stands for a process that is gone: nothing below may catch it for good."""


class InstantSession:
    """Dies at the call of `score` with the number `dies_at`."""

    facts = ModelFacts("instant", "r1", "fake", "cpu", "fp32", 0, True, 512, 384, 2048)
    sizes = Sizes(batch_tokens=2048, chunk_pairs=8)

    def __init__(self, dies_at=None):
        self.work = Work()
        self.calls = 0
        self._dies_at = dies_at

    def prepare(self, pairs):
        texts = zip(pairs.queries, pairs.passages, strict=True)
        hashes = np.array([zlib.crc32(f"{q}|{p}".encode()) % 1000 for q, p in texts], dtype=np.int64)
        return Prepared(
            (), hashes, Windows.one_each(hashes), hashes + 1, np.zeros(len(hashes), dtype=bool), len(hashes)
        )

    def score(self, prepared, *_):
        if self.calls == self._dies_at:
            raise Killed
        self.calls += 1
        return (prepared.distinct / 100).astype(np.float32)


def config(given, written, *, format=OutputFormat.API, overwrite=False, answers=None, **options):
    output = OutputOptions(str(written), format, answers or AnswerOptions("instant"), overwrite=overwrite)
    options = {"progress": ProgressMode.OFF, "commit_interval": 0} | options
    return RunConfig(ModelOptions("instant"), InputOptions((str(given),)), output, **options)


def go(config, session=None):
    session = session or InstantSession()
    summary, _ = run(config, lambda _: session)
    return summary, session


def kill(plan, at):
    """A run that dies at this call of `score`."""
    with pytest.raises(Killed):
        go(plan, InstantSession(dies_at=at))


def names(folder):
    return sorted(path.name for path in folder.iterdir())
