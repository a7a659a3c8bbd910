"""A ranking as lines of a TREC run: `qid Q0 docid rank score tag`.

`trec_eval` ignores the rank, sorts by score and breaks ties by docid downwards: scores strictly decrease within a
query, so that it sees our order. Numbers are float32, printed so that they read back exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from rerank_cli.choices import OutputFormat, ScoreKind
from rerank_cli.display import shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.shapes.fields import key_of
from rerank_cli.formats.writing.scores import run_scores
from rerank_cli.records import Json, Position, Ranking, Request

TAG = "rerank"


def trec_lines(ranking: Ranking, options: AnswerOptions) -> bytes:
    """One line a candidate, best first. Raises BadRecord for an id that a run cannot hold."""
    request = ranking.request
    query = one_word(request.id, "query id", request.position)
    lines = []
    for rank, (index, value) in enumerate(zip(*run_scores(ranking, options.scores), strict=True), 1):
        lines.append(f"{query} Q0 {document_name(request, index)} {rank} {value!s} {TAG}\n")
    return "".join(lines).encode()


def document_name(request: Request, index: int) -> str:
    """A candidate's id, or its place in the input if it has none, as one word."""
    name = request.candidates[index].id
    return str(index) if name is None else one_word(name, "document id", request.position)


def one_word(value: Json, what: str, position: Position) -> str:
    """An id as a column of a run file. Raises BadRecord for one that would not be one column."""
    name = key_of(value)
    if name and len(name.split()) == 1 and name == name.strip() and "\0" not in name:
        return name
    got = f"got `{shown(name)}`, expected one without white space"
    raise BadRecord("bad_trec_id", f"{position}: the {what} cannot stand in a run file ({got}). Fix: --format pairs")


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands before the first part of a file, between two parts, and after the last."""

    opening: bytes = b""
    between: bytes = b""
    closing: bytes = b""


LINES = Frame()


def frame_of(format: OutputFormat, options: AnswerOptions) -> Frame:
    """The frame of a format: none for lines."""
    if not format.is_one_object:
        return LINES
    if format is OutputFormat.BEIR:
        return Frame(b"{\n", b",\n", b"\n}\n")
    # What FlagEmbedding's evaluators write beside the results; the first stage and the data set are not known here.
    names = {"eval_name": None, "model_name": None, "reranker_name": options.model, "split": None, "dataset_name": None}
    return Frame(orjson.dumps(names)[:-1] + b',"search_results":{\n', b",\n", b"\n}}\n")


def msmarco_lines(ranking: Ranking) -> bytes:
    """`qid<TAB>pid<TAB>rank`, best first. Raises BadRecord for an id that is not one word."""
    query = one_word(ranking.request.id, "query id", ranking.request.position)
    order, _ = run_scores(ranking, ScoreKind.RAW)
    lines = [f"{query}\t{document_name(ranking.request, index)}\t{rank}\n" for rank, index in enumerate(order, 1)]
    return "".join(lines).encode()


def beir_member(ranking: Ranking, options: AnswerOptions) -> bytes:
    """`"qid":{"docid":score,…}`, best first, scores strictly decreasing: readers sort by them."""
    request = ranking.request
    found = {}
    for index, value in zip(*run_scores(ranking, options.scores), strict=True):
        name = request.candidates[index].id
        found[key_of(index if name is None else name)] = value
    return orjson.dumps(key_of(request.id)) + b":" + orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)
