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
from rerank_cli.records import Candidate, Ranking, Rejection, Shape

Object: TypeAlias = dict[str, Any]

# Fields that an answer may have itself: request fields with these names are not carried over.
RESERVED = frozenset(("id", "model", "usage", "results", "data", "error"))


def api_answer(ranking: Ranking, options: AnswerOptions) -> Object:
    """The answer to a request, then the request's unused fields. For training data: the record with its scores."""
    if ranking.request.shape is Shape.TRAIN:
        return train_answer(ranking)
    return own_answer(ranking, options) | carried(ranking)


def carried(ranking: Ranking) -> Object:
    """The request's unused fields, without `RESERVED` names."""
    return {key: value for key, value in ranking.request.extra.items() if key not in RESERVED}


def own_answer(ranking: Ranking, options: AnswerOptions) -> Object:
    """The answer without carried fields: `data` for the score shape, else `results`, in the order of the ranking."""
    request = ranking.request
    scores = scores_of(ranking, options.scores)
    if request.shape is Shape.SCORE:
        name, score_name = "data", "score"
        results: list[Object] = [{"index": index, "object": "score"} for index in scores.order]
    else:
        name, score_name = "results", "relevance_score"
        documents = options.documents and request.return_documents is not False
        results = [_result(index, request.candidates[index], documents) for index in scores.order]
    for result, value in zip(results, scores.values, strict=True):
        result[score_name] = value
    if options.scores is ScoreKind.BOTH:
        for result, logit in zip(results, scores.logits, strict=True):
            result["logit"] = logit
    if (more := details(ranking, scores.order, options)) is not None:
        for result, fields in zip(results, more, strict=True):
            result.update(fields)
    return {"id": request.id, "model": options.model, "usage": {"total_tokens": ranking.tokens}, name: results}


def _result(index: int, candidate: Candidate, document: bool) -> Object:
    """With its document (a string becomes an object with `text`), or with the candidate's id and first-stage score."""
    if document:
        source = candidate.source
        return {"index": index, "document": {"text": source} if type(source) is str else source}
    result: Object = {"index": index}
    if candidate.id is not None:
        result["id"] = candidate.id
    if candidate.score is not None:
        result["retrieval_score"] = candidate.score
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
        values = logits if options.scores is ScoreKind.RAW else sigmoid(logits)
        names = [str(layer) for layer in options.layers]
        fields["scores"] = [dict(zip(names, row, strict=True)) for row in values]
    if options.truncated and ranking.truncated is not None:
        fields["truncated"] = [bool(ranking.truncated[index]) for index in order]
    if options.passages and ranking.passages is not None:
        passages = (ranking.passages[index] for index in order)
        fields["passage"] = [{"start": start, "end": end} for start, end in passages]
    return [{name: column[n] for name, column in fields.items()} for n in range(len(order))]
