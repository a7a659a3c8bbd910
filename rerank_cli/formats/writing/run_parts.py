"""A ranking as its part of a run file: lines of MS MARCO, or a member of the JSON object that BEIR keeps runs in.

A file that is one object has a frame around its members; the members are written as they come, so that it need not fit
into memory. FlagEmbedding's search results are that object in an envelope.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from rerank_cli.choices import OutputFormat, ScoreKind
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.shapes.fields import key_of
from rerank_cli.formats.writing.scores import run_scores
from rerank_cli.formats.writing.trec import document_name, one_word
from rerank_cli.records import Ranking


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
