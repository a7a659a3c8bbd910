"""The columns of Parquet output, settled before the first row, and how an outcome becomes rows of them.

From Parquet input columns keep their types. From JSON lines the columns are fixed and everything else stands in one
text column `extra` as JSON, so that the schema cannot change in the middle of a long run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from rerank_cli.choices import OutputFormat, ScoreKind
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.options import AnswerOptions, OutputOptions
from rerank_cli.formats.reading.parquet_columns import shape_of, with_role
from rerank_cli.formats.shapes.fields import a_number
from rerank_cli.formats.shapes.rows import unusual
from rerank_cli.formats.writing.answers import RESERVED, Object, carried, columns_of, error_of, names_of, own_answer
from rerank_cli.formats.writing.pair_rows import OURS, document_fields, pair_rows
from rerank_cli.formats.writing.training import train_answer, train_row, train_schema
from rerank_cli.records import Candidate, Json, Outcome, Ranking, Rejection, Shape

EXTRA = "extra"
ERROR = "error"


@dataclass(frozen=True, slots=True)
class Layout:
    """The schema of the output and what makes rows of a ranking."""

    schema: ArrowSchema
    rows: Callable[[Ranking], Iterable[Object]]
    keeps_errors: bool = False
    id_column: str | None = "id"

    def rows_of(self, outcomes: Iterable[Outcome]) -> list[Object]:
        """Rows for all outcomes. A rejection is a row of nulls but for `id` and `error`, if errors are kept."""
        rows: list[Object] = []
        for outcome in outcomes:
            if isinstance(outcome, Rejection):
                rows += [self._error_row(outcome)] if self.keeps_errors else []
            elif self.keeps_errors:
                rows += ({**row, ERROR: None} for row in self.rows(outcome))
            else:
                rows += self.rows(outcome)
        return rows

    def _error_row(self, rejection: Rejection) -> Object:
        row: Object = {ERROR: error_of(rejection)}
        if self.id_column:
            row[self.id_column] = fitting(rejection.id, self.schema.field(self.id_column).type)
        return row


def layout(options: OutputOptions, columns: ArrowSchema | None, shape: Shape) -> Layout:
    """The layout for a format, from the columns of a Parquet input or for a shape of JSON lines."""
    import pyarrow as pa

    answers = options.answers
    if options.format is OutputFormat.PAIRS:
        kept = columns is not None and shape_of(columns) is Shape.PAIRS and answers.documents
        found = _kept_pairs(columns, answers) if kept else _plain_pairs(answers)
    elif shape is Shape.TRAIN:
        found = _train(columns)
    else:
        found = _answers(columns, shape if columns is None else shape_of(columns), answers)
    if not options.keep_errors:
        return found
    error = pa.struct([("code", pa.string()), ("message", pa.string()), ("line", pa.int64())])
    others = [field for field in found.schema if field.name != ERROR]
    return Layout(pa.schema([*others, pa.field(ERROR, error)]), found.rows, True, found.id_column)


def _scores(name: str, options: AnswerOptions) -> list[tuple[str, Any]]:
    import pyarrow as pa

    logit = [("logit", pa.float32())] if options.scores is ScoreKind.BOTH else []
    return [(name, pa.float32()), *logit, *columns_of(options)]


def _kept_pairs(columns: ArrowSchema, options: AnswerOptions) -> Layout:
    """Every column of the input's pairs, then ours."""
    import pyarrow as pa

    kept = [
        field for field in with_role(columns, "id", "query", "carried") if field.name not in (*OURS, *names_of(options))
    ]
    ours = [pa.field(name, kind) for name, kind in (*_scores("relevance_score", options), ("rank", pa.int32()))]
    id_column = next((field.name for field in with_role(columns, "id")), None)
    return Layout(pa.schema([*kept, *ours]), lambda ranking: pair_rows(ranking, options), id_column=id_column)


def _plain_pairs(options: AnswerOptions) -> Layout:
    import pyarrow as pa

    text = [(name, pa.string()) for name in ("title", "text")] if options.documents else []
    names = [(name, pa.string()) for name in ("query_id", "query", "docid")]
    numbers = [("retrieval_score", pa.float64()), ("index", pa.int32()), *_scores("relevance_score", options)]
    schema = pa.schema([*names, *text, *numbers, ("rank", pa.int32()), (EXTRA, pa.string())])
    kinds = {field.name: field.type for field in schema if field.name != EXTRA}
    return Layout(
        schema,
        lambda ranking: [_split(row, kinds) for row in pair_rows(ranking, options, as_given=False)],
        id_column="query_id",
    )


def _split(row: Object, kinds: dict[str, Any]) -> Object:
    """The row's values that have a column, and the others as JSON."""
    split: Object = {name: fitting(row.get(name), kind) for name, kind in kinds.items()}
    lost = {name for name in kinds if split[name] is None and row.get(name) is not None}
    split[EXTRA] = as_text({key: value for key, value in row.items() if key not in kinds or key in lost})
    return split


def _train(columns: ArrowSchema | None) -> Layout:
    """Training data with its scores: every column of a Parquet input, or fixed ones."""
    import pyarrow as pa

    if columns is not None:
        id_column = next((field.name for field in with_role(columns, "id")), None)
        schema = train_schema(with_role(columns, "id", "documents", "carried", "used"))
        return Layout(schema, lambda ranking: [train_answer(ranking)], id_column=id_column)
    fixed = train_schema(None)
    kinds = {field.name: field.type for field in fixed}
    return Layout(fixed.append(pa.field(EXTRA, pa.string())), lambda ranking: [_train_row(ranking, kinds)])


def _train_row(ranking: Ranking, kinds: dict[str, Any]) -> Object:
    row = train_row(ranking)
    return {**row, "id": fitting(row["id"], kinds["id"]), EXTRA: as_text(dict(ranking.request.extra))}


def _answers(columns: ArrowSchema | None, shape: Shape, options: AnswerOptions) -> Layout:
    """One row a request: `results`, or `data` for the score shape; a batch may hold both."""
    import pyarrow as pa

    as_json = columns is None or shape is Shape.BATCH
    document = None if as_json else _document_type(columns, shape)
    fields = [_id_field(columns), pa.field("model", pa.string())]
    fields.append(pa.field("usage", pa.struct([("total_tokens", pa.int64())])))
    if shape is not Shape.SCORE:
        fields.append(pa.field("results", pa.list_(pa.struct(_result(document, options)))))
    if shape in (Shape.SCORE, Shape.BATCH):
        data = [("index", pa.int32()), ("object", pa.string()), *_scores("score", options)]
        fields.append(pa.field("data", pa.list_(pa.struct(data))))
    if as_json:
        fields.append(pa.field(EXTRA, pa.string()))
    elif shape is not Shape.PAIRS:
        fields += [field for field in with_role(columns, "carried") if field.name not in RESERVED]
    schema = pa.schema(fields)
    return Layout(schema, lambda ranking: [_answer_row(ranking, schema, as_json, options)])


def _id_field(columns: ArrowSchema | None) -> Any:
    import pyarrow as pa

    ids = [] if columns is None else with_role(columns, "id")
    kind = ids[0].type if ids and (pa.types.is_integer(ids[0].type) or pa.types.is_string(ids[0].type)) else pa.string()
    return pa.field("id", kind)


def _document_type(columns: ArrowSchema, shape: Shape) -> Any:
    """The type of a document, from the columns of a Parquet input."""
    import pyarrow as pa

    if shape is Shape.PAIRS:
        return pa.struct(with_role(columns, "carried"))
    lists = with_role(columns, "documents")
    kind = getattr(lists[0].type, "value_type", None) if lists else None
    return kind if kind is not None and pa.types.is_struct(kind) else pa.struct([("text", pa.string())])


def _result(document: Any, options: AnswerOptions) -> list[tuple[str, Any]]:
    import pyarrow as pa

    bare = [("id", pa.string()), ("retrieval_score", pa.float64())]
    plain = pa.struct([(name, pa.string()) for name in ("id", "text", "title", EXTRA)])
    middle = [("document", plain if document is None else document)] if options.documents else bare
    return [("index", pa.int32()), *middle, *_scores("relevance_score", options)]


def _answer_row(ranking: Ranking, schema: ArrowSchema, as_json: bool, options: AnswerOptions) -> Object:
    row = own_answer(ranking, options)
    row["id"] = fitting(row["id"], schema.field("id").type)
    for result in row.get("results") or ():
        if "document" not in result:
            result["id"] = None if "id" not in result else str(result["id"])
        elif as_json:
            result["document"] = _plain_document(ranking.request.candidates[result["index"]])
    return row | ({EXTRA: as_text(carried(ranking))} if as_json else carried(ranking))


def _plain_document(candidate: Candidate) -> Object:
    import pyarrow as pa

    fields = document_fields(candidate) | {"id": candidate.id}
    if candidate.score is not None:
        fields["retrieval_score"] = candidate.score
    return _split(fields, dict.fromkeys(("id", "text", "title"), pa.string()))


def as_text(fields: Object) -> str | None:
    """JSON of what has no column of its own; None if there is nothing."""
    return orjson.dumps(fields, default=unusual, option=orjson.OPT_SERIALIZE_NUMPY).decode() if fields else None


def fitting(value: Json, kind: ArrowSchema) -> Json:
    """The value in the type of a column, None if it does not fit there."""
    import pyarrow as pa

    if value is None:
        return None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else None
    if pa.types.is_integer(kind):
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if pa.types.is_boolean(kind):
        return value if isinstance(value, bool) else None
    if pa.types.is_struct(kind):
        return value if isinstance(value, dict) else None
    if pa.types.is_floating(kind):
        return value if hasattr(value, "dtype") else a_number(value)
    return None
