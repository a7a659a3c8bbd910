"""Judgements: which documents are relevant to which query, and how much. Ids are text, whatever they were written as.

TREC and MS MARCO (`qid iteration docid relevance`), BEIR and MTEB (`query-id corpus-id score`, TSV or Parquet), JSON
lines of the same, as FlagEmbedding writes them, and one JSON object `{qid: {docid: relevance}}`.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import TypeAlias

import orjson

from rerank_cli.display import names, shown
from rerank_cli.errors import InputError
from rerank_cli.formats.runs.tables import a_mapping, open_table
from rerank_cli.formats.shapes.fields import PAIR_DOC_ID, PAIR_QUERY_ID, first, key_of
from rerank_cli.records import Json, Position

Qrels: TypeAlias = dict[str, dict[str, int]]

_RELEVANCE = ("relevance", "score", "rel", "label")


def read_qrels(path: str) -> Qrels:
    """Query to document to relevance. InputError for a line that is none, or two that contradict each other."""
    table = open_table(path)
    found: Qrels = {}
    with closing(table):
        width = 0
        for position, row in table.rows:
            if table.columns:
                if not width and _is_header(row):
                    continue
                width = width or len(row)
                _add(found, position, *_from_columns(row, width, position))
            elif a_mapping(row):
                for query, judged in row.items():
                    for document, relevance in judged.items():
                        _add(found, position, query, document, relevance)
            else:
                _add(found, position, *_from_object(row, position))
    if not found:
        raise InputError(f"{table.name}: holds no judgements")
    return found


def fingerprint_of(qrels: Qrels) -> str:
    """What tells these judgements from others."""
    content = orjson.dumps(qrels, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _is_header(row: list[str]) -> bool:
    """Names of columns have no digit in them; a judgement has one at its end at least."""
    return not any(character.isdigit() for cell in row for character in cell)


def _from_columns(row: list[str], width: int, position: Position) -> tuple[Json, Json, Json]:
    if len(row) == width == 4:
        return row[0], row[2], row[3]
    if len(row) == width == 3:
        return row[0], row[1], row[2]
    expected = "expected 4: qid iteration docid relevance, or 3: qid docid relevance, in all lines"
    raise InputError(f"{position}: is no judgement (got {len(row)} columns, {expected})")


def _from_object(row: Json, position: Position) -> tuple[Json, Json, Json]:
    parts = [first(row, known).value if isinstance(row, dict) else None for known in (PAIR_QUERY_ID, PAIR_DOC_ID)]
    relevance = first(row, _RELEVANCE).value if isinstance(row, dict) else None
    if None in parts or relevance is None:
        got = names(row) if isinstance(row, dict) else "no object"
        raise InputError(f"{position}: is no judgement (got {got}; expected `qid`, `docid` and `relevance`)")
    return parts[0], parts[1], relevance


def _add(found: Qrels, position: Position, query: Json, document: Json, relevance: Json) -> None:
    grade = _grade(relevance, position)
    before = found.setdefault(key_of(query), {}).setdefault(key_of(document), grade)
    if before != grade:
        what = f"document {shown(str(document))} is judged twice for query {shown(str(query))}"
        raise InputError(f"{position}: {what} (got {grade}, after {before})")


def _grade(value: Json, position: Position) -> int:
    try:
        grade = float(value)
        if grade == int(grade):
            return int(grade)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{position}: is no judgement: the relevance is no whole number (got {shown(str(value))})")
