"""Evaluation during a run: the rankings of each judged query before and after reranking are stored until the run ends.

They are in a file beside the output and committed with it, so a resumed run is evaluated as a whole. Both rankings are
what `rerank eval` reads from the input and the output: scores where these state scores (so that ties are broken in the
same way), else document ids in their order.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import orjson

from rerank_cli.choices import OutputFormat
from rerank_cli.errors import ChangedError, RefusedError
from rerank_cli.evaluation.evaluate import Evaluation, evaluate, suspicion
from rerank_cli.evaluation.measures import DEFAULT, Measure, parse_measures
from rerank_cli.formats import OutputOptions
from rerank_cli.formats.runs.columns import RANK
from rerank_cli.formats.runs.qrels import Qrels, fingerprint_of, read_qrels
from rerank_cli.formats.runs.results import Scores, first_stage, stand_ins
from rerank_cli.formats.shapes.fields import a_number, key_of
from rerank_cli.formats.shapes.pairs import PairRow
from rerank_cli.formats.writing.scores import fused_of, run_scores, scores_of
from rerank_cli.records import Candidate, Outcome, Ranking, Request
from rerank_cli.storage.files import Committed, write_all, writing

_LARGEST = sys.float_info.max
# What begins the digest: the rankings have scores, or those from before a resume have none (rerank 0.1.0 wrote them).
_SCORED, _MIXED = "2:", "1:"


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
    """Takes outcomes in order, and stores the rankings in the file `path`, or in memory for None.

    With `kept`, an earlier run's file is continued after that commit; RefusedError if it is shorter, or if the
    judgements differ.
    """

    def __init__(self, loaded: LoadedQrels, path: Path | None, kept: Committed | None, output: OutputOptions) -> None:
        self._measures, self._qrels = loaded.measures, loaded.qrels
        self._path, self._output = path, output
        fingerprint = fingerprint_of(loaded.qrels)
        self._length = kept.length if kept else 0
        if kept and kept.digest.removeprefix(_SCORED).removeprefix(_MIXED) != fingerprint:
            fix = "the --qrels of the first run, or --restart"
            raise ChangedError(f"{output.path}: started with other judgements", fix)
        self._mixed = kept is not None and not kept.digest.startswith(_SCORED)
        self._digest = (_MIXED if self._mixed else _SCORED) + fingerprint
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
        """Store the rankings of the judged queries among these outcomes."""
        rankings = (outcome for outcome in outcomes if isinstance(outcome, Ranking))
        judged = (ranking for ranking in rankings if key_of(ranking.request.id) in self._qrels)
        data = b"".join(self._line(ranking) for ranking in judged)
        with writing(str(self._path)):
            write_all(self._file, data)
        self._length += len(data)

    def commit(self) -> Committed:
        """Make the rankings durable; returns their length in bytes and the hash of the judgements."""
        if self._path:
            with writing(str(self._path)):
                os.fsync(self._file.fileno())
        return Committed(self._length, self._digest)

    def evaluate(self, *, answered: bool = False) -> tuple[Evaluation | None, str | None]:
        """The evaluation, None if no query was judged, and a warning, if there is one.

        `answered`: over the judged queries that were ranked, instead of all judged queries.
        """
        before: dict[str, Scores] = {}
        after: dict[str, Scores] = {}
        self._file.seek(0)
        for line in self._file.read().splitlines():
            query, first, reranked = orjson.loads(line)
            if query not in after:
                before[query], after[query] = (
                    kept if isinstance(kept, dict) else stand_ins(kept) for kept in (first, reranked)
                )
        if not after:
            return None, "no query of the input is judged: nothing is measured"
        remark = suspicion(self._qrels, before)
        if self._mixed and not remark:
            what = "in what an earlier version of rerank ranked, first-stage ties are broken by id for all measures"
            remark = f"{what} (not so by rerank eval)"
        qrels = {query: self._qrels[query] for query in after} if answered else self._qrels
        return evaluate(self._measures, qrels, after, before), remark

    def close(self) -> None:
        self._file.close()

    def _line(self, ranking: Ranking) -> bytes:
        """The query's id, and its documents before and after: scores by id, or ids in order."""
        request = ranking.request
        names = [key_of(index if c.id is None else c.id) for index, c in enumerate(request.candidates)]
        after = _after(ranking, names, self._output)
        return orjson.dumps((key_of(request.id), _before(request, names), after), option=orjson.OPT_APPEND_NEWLINE)


def _before(request: Request, names: Sequence[str]) -> Scores | list[str]:
    """As the input states it: by `rank` if rows of pairs have one, by score if all candidates have one, or in order."""
    ranks = [_rank(candidate) for candidate in request.candidates]
    if None not in ranks and len({*ranks}) == len(ranks):
        return [name for _, name in sorted(zip(ranks, names, strict=True))]
    results, scores = first_stage(request.candidates)
    if scores is None:
        return [result.id for result in results]
    return {name: max(-_LARGEST, min(_LARGEST, score)) for name, score in scores.items()}  # JSON has no infinity


def _rank(candidate: Candidate) -> float | None:
    value = candidate.source.row.get(RANK) if isinstance(candidate.source, PairRow) else None
    return float(value) if isinstance(value, str) and value.isdecimal() else a_number(value)


def _after(ranking: Ranking, names: Sequence[str], output: OutputOptions) -> Scores | list[str]:
    """As the output states it."""
    kind, format = output.answers.scores, output.format
    if format.is_run and format is not OutputFormat.MSMARCO:
        return {names[index]: float(score) for index, score in zip(*run_scores(ranking, kind), strict=True)}
    rows = format in (OutputFormat.PAIRS, OutputFormat.MSMARCO)
    scores = scores_of(ranking, kind, best_first=rows)
    if not ranking.request.shape.keeps_order or rows:
        return [names[index] for index in scores.order]
    values = scores.values if ranking.fused is None else fused_of(ranking, scores.order)
    return [names[scores.order[place]] for place in np.argsort(-values, kind="stable")]
