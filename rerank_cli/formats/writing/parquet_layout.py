"""The columns of Parquet and CSV output, fixed before the first row, and the conversion of outcomes to rows.

From Parquet, Arrow and CSV input, columns keep their types. From JSON lines, the columns are fixed and all other fields
are written as JSON into one text column `extra`, so that the schema cannot change during a long run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import orjson
import pyarrow as pa

from rerank_cli.choices import OutputFormat, ScoreKind
from rerank_cli.errors import BadRecord
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.options import AnswerOptions, OutputOptions
from rerank_cli.formats.reading.parquet_columns import shape_of, with_role
from rerank_cli.formats.shapes.fields import TRAIN_LISTS, TRAIN_SCORES, a_number
from rerank_cli.formats.shapes.rows import unusual
from rerank_cli.formats.writing.answers import Object, carried, error_of, names_of, own_answer, reserved
from rerank_cli.formats.writing.pair_rows import OURS, document_fields, pair_rows
from rerank_cli.formats.writing.training import train_answer, train_scores
from rerank_cli.records import Candidate, Json, Outcome, Ranking, Rejection, Shape

EXTRA = "extra"
ERROR = "error"

_Rows: TypeAlias = Callable[[Ranking], Iterable[Object]]


@dataclass(frozen=True, slots=True)
class Layout:
    """The schema of the output, and the function that converts a ranking to rows."""

    schema: ArrowSchema
    rows: _Rows
    keeps_errors: bool
    id_column: str | None

    def rows_of(self, outcomes: Iterable[Outcome]) -> list[Object]:
        """Rows of all outcomes. With `keeps_errors`, a rejection is a row of nulls except for its id and `error`."""
        rows: list[Object] = []
        for outcome in outcomes:
            if not isinstance(outcome, Rejection):
                found = self.rows(outcome)
                rows += ({**row, ERROR: None} for row in found) if self.keeps_errors else found
            elif self.keeps_errors:
                row: Object = {ERROR: error_of(outcome)}
                if self.id_column:
                    row[self.id_column] = _fitting(outcome.id, self.schema.field(self.id_column).type)
                rows.append(row)
        return rows


def layout(options: OutputOptions, columns: ArrowSchema | None, shape: Shape) -> Layout:
    """The layout for a format, from the columns of a Parquet input, or for a shape of JSON lines."""
    answers = options.answers
    id_column = "id" if columns is None else next((field.name for field in with_role(columns, "id")), None)
    if options.format is OutputFormat.PAIRS:
        if columns is not None and shape_of(columns) is Shape.PAIRS and answers.documents:
            replaced = (*OURS, *names_of(answers))
            kept = [field for field in with_role(columns, "id", "query", "carried") if field.name not in replaced]
            schema = pa.schema([*kept, *_scores("relevance_score", answers), ("rank", pa.int32())])
            rows: _Rows = partial(pair_rows, options=answers)
        else:
            schema, rows = _plain_pairs(answers)
            id_column = "query_id"
    elif shape is Shape.TRAIN:
        schema, rows = _train(columns)
    else:
        schema, rows = _answers(columns, shape if columns is None else shape_of(columns), answers)
        id_column = "id"
    if not answers.documents:
        rows = partial(_without_documents, rows)
    if options.keep_errors:
        error = pa.struct([("code", pa.string()), ("message", pa.string()), ("line", pa.int64())])
        schema = pa.schema([*(field for field in schema if field.name != ERROR), (ERROR, error)])
    return Layout(schema, rows, options.keep_errors, id_column)


def _without_documents(rows: _Rows, ranking: Ranking) -> Iterable[Object]:
    """The rows. Raises BadRecord for a record that asks for its documents: the output has no column for them."""
    if ranking.request.return_documents:
        what = f"{ranking.request.position}: `return_documents` is true, but Parquet has no column for them"
        raise BadRecord("no_document_column", f"{what} with --no-documents. Fix: --documents")
    return rows(ranking)


def _scores(name: str, options: AnswerOptions) -> list[tuple[str, Any]]:
    logit = [("logit", pa.float32())] if options.scores is ScoreKind.BOTH else []
    return [(name, pa.float32()), *logit, *columns_of(options)]


def columns_of(options: AnswerOptions) -> list[tuple[str, Any]]:
    """Names and types of the `details` fields."""
    by_layer = pa.struct([(str(layer), pa.float32()) for layer in options.layers])
    passage = pa.struct([("start", pa.int64()), ("end", pa.int64())])
    types = {"fused_score": pa.float32(), "scores": by_layer, "truncated": pa.bool_(), "passage": passage}
    return [(name, types[name]) for name in names_of(options)]


def _plain_pairs(options: AnswerOptions) -> tuple[ArrowSchema, _Rows]:
    names = ("query_id", "query", "docid", *(("title", "text") if options.documents else ()))
    numbers = [("retrieval_score", pa.float64()), ("index", pa.int32()), *_scores("relevance_score", options)]
    kinds = dict([*((name, pa.string()) for name in names), *numbers, ("rank", pa.int32())])
    schema = pa.schema([*kinds.items(), (EXTRA, pa.string())])
    return schema, lambda ranking: [_split(row, kinds) for row in pair_rows(ranking, options, as_given=False)]


def _split(row: Object, kinds: dict[str, Any]) -> Object:
    """The values that fit a column, and all others as JSON in `extra`."""
    split: Object = {name: _fitting(row.get(name), kind) for name, kind in kinds.items()}
    split[EXTRA] = _as_text(
        {key: value for key, value in row.items() if key not in kinds or (split[key] is None and value is not None)}
    )
    return split


def _train(columns: ArrowSchema | None) -> tuple[ArrowSchema, _Rows]:
    """Training data with its scores: every column of a Parquet input, or fixed columns and `extra`."""
    scores = [pa.field(name, pa.list_(pa.float32())) for name in TRAIN_SCORES]
    if columns is not None:
        given = with_role(columns, "id", "documents", "carried", "used")
        kept = [field for field in given if field.name not in TRAIN_SCORES]
        return pa.schema([*kept, *scores]), lambda ranking: [train_answer(ranking)]
    text = pa.string()
    lists = [(name, pa.list_(text)) for name in TRAIN_LISTS]
    fixed = [("id", text), ("query", text), *lists, ("prompt", text), *scores, (EXTRA, text)]
    return pa.schema(fixed), lambda ranking: [_train_row(ranking)]


def _train_row(ranking: Ranking) -> Object:
    request, scores = ranking.request, train_scores(ranking)
    texts = [candidate.text for candidate in request.candidates]
    positives = len(scores[TRAIN_SCORES[0]])
    row: Object = {"id": _fitting(request.id, pa.string()), "query": request.query, "prompt": request.instruction}
    row |= {"pos": texts[:positives], "neg": texts[positives:], EXTRA: _as_text(dict(request.extra))}
    return row | scores


def _answers(columns: ArrowSchema | None, shape: Shape, options: AnswerOptions) -> tuple[ArrowSchema, _Rows]:
    """One row per request: `results`, or `data` for the score shape; a batch may have both columns."""
    ids = [] if columns is None else [field.type for field in with_role(columns, "id")]
    id_type = ids[0] if ids and (pa.types.is_integer(ids[0]) or pa.types.is_string(ids[0])) else pa.string()
    fields: list[Any] = [("id", id_type), *([("query", pa.string())] if options.query else [])]
    fields += [("model", pa.string()), ("usage", pa.struct([("total_tokens", pa.int64())]))]
    if shape is not Shape.SCORE:
        bare = [("id", pa.string()), ("retrieval_score", pa.float64())]
        about = [("document", _document_type(columns, shape))] if options.documents else bare
        result = [("index", pa.int32()), *about, *_scores("relevance_score", options)]
        fields.append(("results", pa.list_(pa.struct(result))))
    if shape in (Shape.SCORE, Shape.BATCH):
        data = [("index", pa.int32()), ("object", pa.string()), *_scores("score", options)]
        fields.append(("data", pa.list_(pa.struct(data))))
    as_json = columns is None or shape is Shape.BATCH
    if as_json:
        fields.append((EXTRA, pa.string()))
    elif shape is not Shape.PAIRS:
        fields += [field for field in with_role(columns, "carried") if field.name not in reserved(options)]
    return pa.schema(fields), lambda ranking: [_answer_row(ranking, id_type, as_json, options)]


def _document_type(columns: ArrowSchema | None, shape: Shape) -> Any:
    """From the columns of a Parquet input; fixed for JSON lines, and for batches, whose bodies differ."""
    if columns is None or shape is Shape.BATCH:
        return pa.struct([(name, pa.string()) for name in ("id", "text", "title", EXTRA)])
    if shape is Shape.PAIRS:
        return pa.struct(with_role(columns, "carried"))
    lists = with_role(columns, "documents")
    kind = getattr(lists[0].type, "value_type", None) if lists else None
    return kind if kind is not None and pa.types.is_struct(kind) else pa.struct([("text", pa.string())])


def _answer_row(ranking: Ranking, id_type: Any, as_json: bool, options: AnswerOptions) -> Object:
    row = own_answer(ranking, options)
    row["id"] = _fitting(row["id"], id_type)
    for result in row.get("results") or ():
        if "document" not in result:
            result["id"] = None if "id" not in result else str(result["id"])
        elif as_json:
            result["document"] = _plain_document(ranking.request.candidates[result["index"]])
    extra = carried(ranking, options)
    return row | ({EXTRA: _as_text(extra)} if as_json else extra)


def _plain_document(candidate: Candidate) -> Object:
    fields = document_fields(candidate) | {"id": candidate.id}
    if candidate.score is not None:
        fields["retrieval_score"] = candidate.score
    return _split(fields, dict.fromkeys(("id", "text", "title"), pa.string()))


def _as_text(fields: Object) -> str | None:
    """Fields without a column of their own as JSON; None if there are none."""
    return orjson.dumps(fields, default=unusual, option=orjson.OPT_SERIALIZE_NUMPY).decode() if fields else None


def _fitting(value: Json, kind: ArrowSchema) -> Json:
    """The value as a column of this type takes it, None if it does not fit."""
    if value is None:
        return None
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind):
        return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else None
    if types.is_floating(kind):
        return value if hasattr(value, "dtype") else a_number(value)
    if types.is_integer(kind):
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if types.is_boolean(kind):
        return value if isinstance(value, bool) else None
    return value if types.is_struct(kind) and isinstance(value, dict) else None
