"""Measuring in the same pass: the order before and after of every judged query is kept until the run is over.

Kept beside the output and committed with it, so that a run that went on after a kill is measured whole. Before is what
the first stage's scores say, or the order of the input where they are not all there; after is what was written.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from rerank_cli.choices import ScoreKind
from rerank_cli.errors import RefusedError
from rerank_cli.evaluation.evaluate import Evaluation, evaluate, suspicion
from rerank_cli.evaluation.measures import DEFAULT, Measure, parse_measures
from rerank_cli.formats.runs.qrels import Qrels, fingerprint_of, read_qrels
from rerank_cli.formats.runs.results import first_stage
from rerank_cli.formats.shapes.fields import key_of
from rerank_cli.formats.writing.scores import scores_of
from rerank_cli.records import Outcome, Ranking
from rerank_cli.storage.files import Committed, write_all, writing


@dataclass(frozen=True, slots=True)
class QrelsOptions:
    """What a run is judged by: a file of judgements, and names of measures."""

    qrels: str
    measures: str = DEFAULT

    def ready(self) -> LoadedQrels:
        """Read and understood, so that whatever is wrong with it shows before a model is loaded."""
        return LoadedQrels(parse_measures(self.measures), read_qrels(self.qrels))


@dataclass(frozen=True, slots=True)
class LoadedQrels:
    measures: Sequence[Measure]
    qrels: Qrels


class SamePassEvaluation:
    """Takes outcomes in order. Without a `path` what it keeps is kept in memory.

    With `kept`, an earlier run's file is taken up behind that point; RefusedError if it is not that.
    """

    def __init__(self, judged: LoadedQrels, path: Path | None, kept: Committed | None, output: str) -> None:
        self._measures, self._qrels = judged.measures, judged.qrels
        self._path = path
        self._mark = fingerprint_of(judged.qrels)
        self._length = kept.length if kept else 0
        if kept and kept.digest != self._mark:
            raise RefusedError(f"{output}: begun with other judgements. Fix: the --qrels of before, or --restart")
        if path is None:
            self._file: BinaryIO = io.BytesIO()
            return
        with writing(str(path)):
            there = path.stat().st_size if kept and path.exists() else 0
            if there < self._length:
                raise RefusedError(f"{path}: is not what its checkpoint says. Fix: --restart")
            self._file = cast("BinaryIO", open(path, "r+b" if kept else "w+b", buffering=0))  # noqa: SIM115
            self._file.truncate(self._length)
            self._file.seek(self._length)

    def take(self, outcomes: Iterable[Outcome]) -> None:
        """Note the judged queries among some outcomes."""
        lines = [orjson.dumps(_orders(o), option=orjson.OPT_APPEND_NEWLINE) for o in outcomes if self._concerns(o)]
        data = b"".join(lines)
        with writing(str(self._path)):
            write_all(self._file, data)
        self._length += len(data)

    def _concerns(self, outcome: Outcome) -> bool:
        return isinstance(outcome, Ranking) and key_of(outcome.request.id) in self._qrels

    def commit(self) -> Committed:
        """Make it durable, and say how much it is and by which judgements it was chosen."""
        with writing(str(self._path)):
            if self._path:
                os.fsync(self._file.fileno())
        return Committed(self._length, self._mark)

    def evaluate(self) -> tuple[Evaluation | None, str | None]:
        """The figures, and what to say about them; no figures where no query was judged."""
        before: dict[str, list[str]] = {}
        after: dict[str, list[str]] = {}
        self._file.seek(0)
        for line in self._file.read().splitlines():
            query, first, ours = orjson.loads(line)
            if query not in after:
                before[query], after[query] = first, ours
        if not after:
            return None, "no query of the input is judged: nothing is measured"
        return evaluate(self._measures, self._qrels, after, before), suspicion(self._qrels, before)

    def close(self) -> None:
        self._file.close()


def _orders(outcome: Outcome) -> tuple[str, list[str], list[str]]:
    """A query's id, its documents in the order before, and in the order after."""
    assert isinstance(outcome, Ranking)
    request = outcome.request
    names = [key_of(index if c.id is None else c.id) for index, c in enumerate(request.candidates)]
    order = scores_of(outcome, ScoreKind.RAW, best_first=True).order
    before = [result.id for result in first_stage(request.candidates)]
    return key_of(request.id), before, [names[index] for index in order]
