"""Relevance judgements (qrels): the relevance of documents to queries. All ids are read as text.

TREC and MS MARCO (`qid iteration docid relevance`), BEIR and MTEB (`query-id corpus-id score`, TSV or Parquet), JSON
lines of the same, as FlagEmbedding writes them, and one JSON object `{qid: {docid: relevance}}`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import closing
from typing import TypeAlias

import orjson

from rerank_cli.display import names, shown
from rerank_cli.errors import InputError
from rerank_cli.formats.runs.tables import a_mapping, open_rows
from rerank_cli.formats.shapes.fields import PAIR_DOC_ID, PAIR_QUERY_ID, first, key_of
from rerank_cli.records import Json, Position

Qrels: TypeAlias = dict[str, dict[str, int]]

_RELEVANCE = ("relevance", "score", "rel", "label")


def read_qrels(path: str) -> Qrels:
    """Query id to document id to relevance. Raises InputError for a bad row, and for two that contradict each other."""
    table = open_rows(path)
    found: Qrels = {}
    width = 0
    with closing(table):
        for position, row in table.rows:
            if table.columns:
                # A header line has no digits; a judgement ends with one.
                if not width and not any(character.isdigit() for cell in row for character in cell):
                    continue
                width = width or len(row)
                if len(row) != width or width not in (3, 4):
                    expected = "expected 4: qid iteration docid relevance, or 3: qid docid relevance, in all lines"
                    raise InputError(f"{position}: not a relevance judgement (got {len(row)} columns, {expected})")
                triples: Iterable[tuple[Json, Json, Json]] = [(row[0], row[-2], row[-1])]
            elif a_mapping(row):
                triples = ((query, *pair) for query, judged in row.items() for pair in judged.items())
            else:
                triples = [_from_object(row, position)]
            for query, document, relevance in triples:
                grade = _grade(relevance, position)
                before = found.setdefault(key_of(query), {}).setdefault(key_of(document), grade)
                if before != grade:
                    what = f"document {shown(str(document))} is judged twice for query {shown(str(query))}"
                    raise InputError(f"{position}: {what} (got {grade}, after {before})")
    if not found:
        raise InputError(f"{table.name}: contains no relevance judgements")
    return found


def fingerprint_of(qrels: Qrels) -> str:
    """A hash of the judgements, independent of their order."""
    return hashlib.blake2b(orjson.dumps(qrels, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def _from_object(row: Json, position: Position) -> tuple[Json, Json, Json]:
    fields = row if isinstance(row, dict) else {}
    query, document, relevance = (first(fields, known).value for known in (PAIR_QUERY_ID, PAIR_DOC_ID, _RELEVANCE))
    if query is None or document is None or relevance is None:
        got = names(row) if isinstance(row, dict) else "no object"
        raise InputError(f"{position}: not a relevance judgement (got {got}; expected `qid`, `docid` and `relevance`)")
    return query, document, relevance


def _grade(value: Json, position: Position) -> int:
    try:
        if (grade := float(value)) == int(grade):
            return int(grade)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{position}: the relevance is not a whole number (got {shown(str(value))})")
