"""Rankings and rejections as objects of a rerank or score API. Builds objects only; nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, TypeAlias

import numpy as np

from rerank_cli.choices import ScoreKind
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.shapes.fields import Id
from rerank_cli.formats.writing.scores import fused_of, scores_of
from rerank_cli.formats.writing.training import train_answer
from rerank_cli.ranking import sigmoid
from rerank_cli.records import Candidate, Ranking, Rejection, Request, Shape

Object: TypeAlias = dict[str, Any]

# Fields that an answer may have itself: request fields with these names are not carried over.
RESERVED = frozenset(("id", "model", "usage", "results", "data", "error"))


def api_answer(ranking: Ranking, options: AnswerOptions) -> Object:
    """The answer to a request, then the request's unused fields. For training data: the record with its scores."""
    if ranking.request.shape is Shape.TRAIN:
        return train_answer(ranking)
    return own_answer(ranking, options) | carried(ranking, options)


def carried(ranking: Ranking, options: AnswerOptions) -> Object:
    """The request's unused fields, without `reserved` names."""
    names = reserved(options)
    return {key: value for key, value in ranking.request.extra.items() if key not in names}


def reserved(options: AnswerOptions) -> frozenset[str]:
    """`RESERVED` names, and those of fields that an option adds."""
    return RESERVED | {"query"} if options.query else RESERVED


def own_answer(ranking: Ranking, options: AnswerOptions) -> Object:
    """The answer without carried fields: `data` for the score shape, else `results`, in the order of the ranking."""
    request = ranking.request
    scores = scores_of(ranking, options.scores)
    if request.shape is Shape.SCORE:
        name, score_name = "data", "score"
        results: list[Object] = [{"index": index, "object": "score"} for index in scores.order]
    else:
        name, score_name = "results", "relevance_score"
        documents, ids = writes_documents(request, options), request.shape is Shape.HITS
        results = [_result(index, request.candidates[index], documents, ids) for index in scores.order]
    for result, value in zip(results, scores.values, strict=True):
        result[score_name] = value
    if options.scores is ScoreKind.BOTH:
        for result, logit in zip(results, scores.logits, strict=True):
            result["logit"] = logit
    if (more := details(ranking, scores.order, options)) is not None:
        for result, fields in zip(results, more, strict=True):
            result.update(fields)
    answer: Object = {"id": request.id, "query": request.query} if options.query else {"id": request.id}
    return answer | {"model": options.model, "usage": {"total_tokens": ranking.tokens}, name: results}


def writes_documents(request: Request, options: AnswerOptions) -> bool:
    """Whether results have their documents: as the record says, else as the run says."""
    return options.documents if request.return_documents is None else request.return_documents


def _result(index: int, candidate: Candidate, document: bool, ids: bool) -> Object:
    """With its document (a string becomes an object with `text`), or with the candidate's id and first-stage score.

    `ids`: with both. Hits have ids and scores under names of their own, which readers of the answer do not know.
    """
    result: Object = {"index": index}
    if candidate.id is not None and (ids or not document):
        result["id"] = candidate.id
    if candidate.score is not None and (ids or not document):
        result["retrieval_score"] = candidate.score
    if document:
        source = candidate.source
        result["document"] = {"text": source} if type(source) is str else source
    return result


def error_of(rejection: Rejection) -> Object:
    """The machine-readable error of a rejected record."""
    return {"code": rejection.code, "message": rejection.message, "line": rejection.position.line}


def batch_envelope(name: Id, answer: Object | None = None, error: Object | None = None) -> Object:
    """An OpenAI-style batch envelope. Its ids are derived from the request's id, so that reruns give equal bytes."""
    response = None if answer is None else {"status_code": 200, "request_id": f"request-{name}", "body": answer}
    return {"id": f"batch-{name}", "custom_id": name, "response": response, "error": error}


def names_of(options: AnswerOptions) -> tuple[str, ...]:
    """The fields that `details` adds to every result."""
    wanted = (options.fused, options.layers, options.truncated, options.passages)
    return tuple(compress(("fused_score", "scores", "truncated", "passage"), wanted))


def details(ranking: Ranking, order: Sequence[int], options: AnswerOptions) -> list[Object] | None:
    """Requested extra fields, one object per candidate of `order`; None if `options` requests none."""
    if not names_of(options):
        return None
    fields: dict[str, Any] = {}
    if options.fused and ranking.fused is not None:
        fields["fused_score"] = fused_of(ranking, order)
    if options.layers and ranking.layers is not None:
        logits = np.asarray(ranking.layers, dtype=np.float32)[np.asarray(order, dtype=np.intp)]
        values = logits if ranking.request.score_kind(options.scores) is ScoreKind.RAW else sigmoid(logits)
        names = [str(layer) for layer in options.layers]
        fields["scores"] = [dict(zip(names, row, strict=True)) for row in values]
    if options.truncated and ranking.truncated is not None:
        fields["truncated"] = [bool(ranking.truncated[index]) for index in order]
    if options.passages and ranking.passages is not None:
        passages = (ranking.passages[index] for index in order)
        fields["passage"] = [{"start": start, "end": end} for start, end in passages]
    return [{name: column[n] for name, column in fields.items()} for n in range(len(order))]
