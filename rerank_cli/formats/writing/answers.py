"""A ranking as the answer of a rerank or score API, and a rejection in its place. Builds objects, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from rerank_cli.choices import ScoreKind
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.writing.scores import Scores, fused_of, scores_of
from rerank_cli.formats.writing.training import train_answer
from rerank_cli.ranking import sigmoid
from rerank_cli.records import Candidate, Json, Ranking, Rejection, Shape

Object: TypeAlias = dict[str, Any]


# What the answer itself may be made of: fields of these names in a request are not carried.
RESERVED = frozenset(("id", "model", "usage", "results", "data", "error"))


def api_answer(ranking: Ranking, options: AnswerOptions) -> Object:
    """The answer to one request, then the fields of it that we do not use; training data with its scores."""
    if ranking.request.shape is Shape.TRAIN:
        return train_answer(ranking)
    return own_answer(ranking, options) | carried(ranking)


def carried(ranking: Ranking) -> Object:
    """The fields of the request that we do not use."""
    return {key: value for key, value in ranking.request.extra.items() if key not in RESERVED}


def own_answer(ranking: Ranking, options: AnswerOptions) -> Object:
    """The answer to one request."""
    request = ranking.request
    answer: Object = {"id": request.id, "model": options.model, "usage": {"total_tokens": ranking.tokens}}
    scores = scores_of(ranking, options.scores)
    if request.shape is Shape.SCORE:
        answer["data"] = _data(scores, options)
    else:
        answer["results"] = results(ranking, scores, options)
    more = details(ranking, scores.order, options)
    if more is not None:
        for result, fields in zip(answer["data" if request.shape is Shape.SCORE else "results"], more, strict=True):
            result.update(fields)
    return answer


def results(ranking: Ranking, scores: Scores, options: AnswerOptions) -> list[Object]:
    """One object a candidate, in the order of the ranking."""
    candidates = ranking.request.candidates
    if not options.documents or ranking.request.return_documents is False:
        found = [_bare(index, candidates[index]) for index in scores.order]
    else:
        found = [{"index": index, "document": document(candidates[index].source)} for index in scores.order]
    for result, value in zip(found, scores.values, strict=True):
        result["relevance_score"] = value
    if options.scores is ScoreKind.BOTH:
        for result, logit in zip(found, scores.logits, strict=True):
            result["logit"] = logit
    return found


def document(source: Json) -> Json:
    """A document as it is handed back: a string becomes an object with a text."""
    return {"text": source} if type(source) is str else source


def _bare(index: int, candidate: Candidate) -> Object:
    result: Object = {"index": index}
    if candidate.id is not None:
        result["id"] = candidate.id
    if candidate.score is not None:
        result["retrieval_score"] = candidate.score
    return result


def _data(scores: Scores, options: AnswerOptions) -> list[Object]:
    data: list[Object] = [
        {"index": index, "object": "score", "score": value}
        for index, value in zip(scores.order, scores.values, strict=True)
    ]
    if options.scores is ScoreKind.BOTH:
        for item, logit in zip(data, scores.logits, strict=True):
            item["logit"] = logit
    return data


def error_of(rejection: Rejection) -> Object:
    """The error for a machine to read."""
    return {"code": rejection.code, "message": rejection.message, "line": rejection.position.line}


def api_error(rejection: Rejection) -> Object:
    """What stands in the place of an answer."""
    return {"id": rejection.id, "error": error_of(rejection)}


def batch_answer(ranking: Ranking, options: AnswerOptions) -> Object:
    """The answer in the envelope of OpenAI-style batch files. Ids are derived: a rerun writes the same bytes."""
    name = ranking.request.id
    response = {"status_code": 200, "request_id": f"request-{name}", "body": api_answer(ranking, options)}
    return {"id": f"batch-{name}", "custom_id": name, "response": response, "error": None}


def batch_error(rejection: Rejection) -> Object:
    """The envelope without an answer."""
    name = rejection.id
    return {"id": f"batch-{name}", "custom_id": name, "response": None, "error": error_of(rejection)}


def names_of(options: AnswerOptions) -> tuple[str, ...]:
    """The fields that `details` gives to every result."""
    wanted = {
        "fused_score": options.fused,
        "scores": bool(options.layers),
        "truncated": options.truncated,
        "passage": options.passages,
    }
    return tuple(name for name, there in wanted.items() if there)


def details(ranking: Ranking, order: Sequence[int], options: AnswerOptions) -> list[Object] | None:
    """One object a candidate of `order`; None where nothing more is to be said."""
    if not names_of(options):
        return None
    found: list[Object] = [{} for _ in order]
    if options.fused and ranking.fused is not None:
        for place, value in enumerate(fused_of(ranking, order)):
            found[place]["fused_score"] = value
    if options.layers and ranking.layers is not None:
        for place, values in enumerate(_by_layer(ranking, order, options)):
            found[place]["scores"] = values
    if options.truncated and ranking.truncated is not None:
        for place, index in enumerate(order):
            found[place]["truncated"] = bool(ranking.truncated[index])
    if options.passages and ranking.passages is not None:
        for place, index in enumerate(order):
            start, end = ranking.passages[index]
            found[place]["passage"] = {"start": start, "end": end}
    return found


def _by_layer(ranking: Ranking, order: Sequence[int], options: AnswerOptions) -> list[Object]:
    """Scores by the name of their layer, as the result's own score is written."""
    logits = np.asarray(ranking.layers, dtype=np.float32)[np.asarray(order, dtype=np.intp)]
    values = logits if options.scores is ScoreKind.RAW else sigmoid(logits)
    names = [str(layer) for layer in options.layers]
    return [dict(zip(names, row, strict=True)) for row in values]


def columns_of(options: AnswerOptions) -> list[tuple[str, Any]]:
    """The same as Parquet columns."""
    import pyarrow as pa

    kinds = {
        "fused_score": pa.float32(),
        "scores": pa.struct([(str(layer), pa.float32()) for layer in options.layers]),
        "truncated": pa.bool_(),
        "passage": pa.struct([("start", pa.int64()), ("end", pa.int64())]),
    }
    return [(name, kinds[name]) for name in names_of(options)]
