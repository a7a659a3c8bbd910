"""Evaluation during a run: the orders of each judged query before and after reranking are stored until the run ends.

They are in a file beside the output and committed with it, so a resumed run is evaluated as a whole. The order before
is that of the first-stage scores, or of the input if any score is missing; the order after is the one written.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

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


class LoadedQrels(NamedTuple):
    measures: Sequence[Measure]
    qrels: Qrels


@dataclass(frozen=True, slots=True)
class QrelsOptions:
    """A file of relevance judgements, and names of measures."""

    path: str
    measures: str = DEFAULT

    def load(self) -> LoadedQrels:
        """Raises InputError and UsageError; called before the model is loaded."""
        return LoadedQrels(parse_measures(self.measures), read_qrels(self.path))


class SamePassEvaluation:
    """Takes outcomes in order, and stores the orders in the file `path`, or in memory for None.

    With `kept`, an earlier run's file is continued after that commit; RefusedError if it is shorter, or if the
    judgements differ.
    """

    def __init__(self, loaded: LoadedQrels, path: Path | None, kept: Committed | None, output: str) -> None:
        self._measures, self._qrels = loaded.measures, loaded.qrels
        self._path = path
        self._fingerprint = fingerprint_of(loaded.qrels)
        self._length = kept.length if kept else 0
        if kept and kept.digest != self._fingerprint:
            raise RefusedError(
                f"{output}: started with other judgements. Fix: the --qrels of the first run, or --restart"
            )
        if path is None:
            self._file: BinaryIO = io.BytesIO()
            return
        with writing(str(path)):
            size = path.stat().st_size if kept and path.exists() else 0
            if size < self._length:
                raise RefusedError(f"{path}: is not what its checkpoint says. Fix: --restart")
            self._file = cast("BinaryIO", open(path, "r+b" if kept else "w+b", buffering=0))  # noqa: SIM115
            self._file.truncate(self._length)
            self._file.seek(self._length)

    def take(self, outcomes: Iterable[Outcome]) -> None:
        """Store the orders of the judged queries among these outcomes."""
        rankings = (outcome for outcome in outcomes if isinstance(outcome, Ranking))
        judged = (ranking for ranking in rankings if key_of(ranking.request.id) in self._qrels)
        data = b"".join(orjson.dumps(_orders(ranking), option=orjson.OPT_APPEND_NEWLINE) for ranking in judged)
        with writing(str(self._path)):
            write_all(self._file, data)
        self._length += len(data)

    def commit(self) -> Committed:
        """Make the orders durable; returns their length in bytes and the hash of the judgements."""
        if self._path:
            with writing(str(self._path)):
                os.fsync(self._file.fileno())
        return Committed(self._length, self._fingerprint)

    def evaluate(self) -> tuple[Evaluation | None, str | None]:
        """The evaluation, None if no query was judged, and a warning, if there is one."""
        before: dict[str, list[str]] = {}
        after: dict[str, list[str]] = {}
        self._file.seek(0)
        for line in self._file.read().splitlines():
            query, first, reranked = orjson.loads(line)
            if query not in after:
                before[query], after[query] = first, reranked
        if not after:
            return None, "no query of the input is judged: nothing is measured"
        return evaluate(self._measures, self._qrels, after, before), suspicion(self._qrels, before)

    def close(self) -> None:
        self._file.close()


def _orders(ranking: Ranking) -> tuple[str, list[str], list[str]]:
    """The query's id, and its document ids in the order before and in the order after."""
    request = ranking.request
    names = [key_of(index if c.id is None else c.id) for index, c in enumerate(request.candidates)]
    order = scores_of(ranking, ScoreKind.RAW, best_first=True).order
    before = [result.id for result in first_stage(request.candidates)]
    return key_of(request.id), before, [names[index] for index in order]
