"""A ranking as rows of one pair each, best first, with `relevance_score` and `rank`.

Rows read as pairs keep their columns and column order; other shapes get the common column names.
"""

from __future__ import annotations

from collections.abc import Iterator

from rerank_cli.choices import ScoreKind
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.shapes.fields import DOC_ID, FIRST_SCORE, TEXT, a_number, first
from rerank_cli.formats.shapes.hits import HIT_TEXT, unwrapped
from rerank_cli.formats.shapes.pairs import PairRow
from rerank_cli.formats.writing.answers import Object, details, writes_documents
from rerank_cli.formats.writing.scores import scores_of
from rerank_cli.records import Candidate, Ranking, Request

OURS = ("relevance_score", "logit", "rank")


def pair_rows(ranking: Ranking, options: AnswerOptions, as_given: bool = True) -> Iterator[Object]:
    """One row per candidate, best first. Unless `as_given`, rows read as pairs get the common column names too."""
    request = ranking.request
    documents = writes_documents(request, options)
    scores = scores_of(ranking, options.scores, best_first=True)
    more = details(ranking, scores.order, options)
    for rank, index in enumerate(scores.order, 1):
        candidate = request.candidates[index]
        if as_given and documents and isinstance(candidate.source, PairRow):  # without the scores of an earlier run
            row = {key: value for key, value in candidate.source.row.items() if key not in OURS}
        else:
            row = _row(request, candidate, index, documents)
        row["relevance_score"] = scores.values[rank - 1]
        if options.scores is ScoreKind.BOTH:
            row["logit"] = scores.logits[rank - 1]
        if more is not None:
            row.update(more[rank - 1])
        row["rank"] = rank
        yield row


def _row(request: Request, candidate: Candidate, index: int, documents: bool) -> Object:
    name = index if candidate.id is None else candidate.id
    row: Object = {"query_id": request.id, "query": request.query, "docid": name}
    if documents:
        row |= document_fields(candidate)
    if candidate.score is not None:
        row["retrieval_score"] = candidate.score
    for key, value in request.extra.items():
        if key not in OURS and key != "index":
            row.setdefault(key, value)
    row["index"] = index
    return row


def document_fields(candidate: Candidate) -> Object:
    """`text`, then the document's other fields without its id and first-stage score, which have columns of their own.

    The fields of a nested `doc` object are moved up, and those of the object inside a hit that has its fields.
    """
    source = candidate.source
    if not isinstance(source, dict):
        return {"text": candidate.text}
    is_hit = "doc" not in source and first(source, TEXT).name is None
    source = unwrapped(source) if is_hit else source
    inner = source.get("doc")
    fields = {key: value for key, value in source.items() if key != "doc"} | (inner if isinstance(inner, dict) else {})
    text = first(fields, HIT_TEXT if is_hit else TEXT)
    plain = inner if isinstance(inner, str) else candidate.text
    row: Object = {"text": text.value if isinstance(text.value, str) else plain}
    taken = {text.name, first(source, DOC_ID).name, "query_id", "query", "docid", "index", *OURS}
    taken |= {key for key in FIRST_SCORE if a_number(source.get(key)) is not None}
    return row | {key: value for key, value in fields.items() if key not in taken}
