"""Rankings as run files: TREC and MS MARCO lines, and the JSON objects of BEIR and FlagEmbedding.

Scores strictly decrease within a query (see `run_scores`). They are float32, printed so that they read back exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import orjson

from rerank_cli.choices import OutputFormat, ScoreKind
from rerank_cli.display import shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.shapes.fields import key_of
from rerank_cli.formats.writing.scores import run_scores
from rerank_cli.records import Json, Position, Ranking


def trec_lines(ranking: Ranking, options: AnswerOptions) -> bytes:
    """`qid Q0 docid rank score tag`, best first. Raises BadRecord for an id that is not one word."""
    rows = _rows(ranking, options.scores)
    return "".join([f"{qid} Q0 {docid} {rank} {score!s} rerank\n" for qid, docid, rank, score in rows]).encode()


def msmarco_lines(ranking: Ranking) -> bytes:
    """`qid<TAB>pid<TAB>rank`, best first. Raises BadRecord for an id that is not one word."""
    return "".join([f"{qid}\t{pid}\t{rank}\n" for qid, pid, rank, _ in _rows(ranking, ScoreKind.RAW)]).encode()


def _rows(ranking: Ranking, kind: ScoreKind) -> Iterator[tuple[str, str, int, np.float32]]:
    """Query id, document id (the index of a candidate without id), rank and score."""
    request = ranking.request
    query = _one_word(request.id, "query id", request.position)
    for rank, (index, score) in enumerate(zip(*run_scores(ranking, kind), strict=True), 1):
        name = request.candidates[index].id
        yield query, str(index) if name is None else _one_word(name, "document id", request.position), rank, score


def _one_word(value: Json, what: str, position: Position) -> str:
    """An id as a column of a run file. Raises BadRecord if it is empty or contains white space or NUL."""
    name = key_of(value)
    if name and len(name.split()) == 1 and name == name.strip() and "\0" not in name:
        return name
    got, fix = f"got `{shown(name)}`, expected an id without white space", "Fix: --format pairs or beir"
    raise BadRecord("bad_trec_id", f"{position}: the {what} cannot be used in a run file ({got}). {fix}")


def beir_member(ranking: Ranking, options: AnswerOptions) -> bytes:
    """`"qid":{"docid":score,…}`, best first, scores strictly decreasing."""
    request = ranking.request
    found = {}
    for index, value in zip(*run_scores(ranking, options.scores), strict=True):
        name = request.candidates[index].id
        found[key_of(index if name is None else name)] = value
    return orjson.dumps(key_of(request.id)) + b":" + orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes before the first part of a file, between parts, and after the last part."""

    opening: bytes = b""
    between: bytes = b""
    closing: bytes = b""


def frame_of(format: OutputFormat, options: AnswerOptions) -> Frame:
    if not format.is_one_object:
        return Frame()
    if format is OutputFormat.BEIR:
        return Frame(b"{\n", b",\n", b"\n}\n")
    # The fields that FlagEmbedding's evaluators write beside the results; first stage and data set are unknown here.
    names = {"eval_name": None, "model_name": None, "reranker_name": options.model, "split": None, "dataset_name": None}
    return Frame(orjson.dumps(names)[:-1] + b',"search_results":{\n', b",\n", b"\n}}\n")
