"""Relevance judgements: TREC qrels, BEIR's table with a header line, and JSON lines."""

from __future__ import annotations

from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.fields import PAIR_DOC_ID, PAIR_QUERY_ID, first
from rerank_cli.formats.lines import decode_line, numbered_lines
from rerank_cli.formats.opening import open_bytes, stamp_of
from rerank_cli.records import Rejection

_RELEVANCE = ("relevance", "rel", "label", "score")


def read_qrels(path: str) -> dict[str, dict[str, int]]:
    """Query id to document id to relevance. Raises InputError, also for a file without judgements."""
    stamp_of(path)
    qrels: dict[str, dict[str, int]] = {}
    opened = open_bytes(path)
    with opened.content as content:
        for number, item in enumerate(numbered_lines(content, opened.name)):
            if isinstance(item, Rejection):
                raise InputError(str(item))
            position, line = item
            try:
                judged = _from_json(line) if line.lstrip().startswith(b"{") else _from_columns(line)
            except (BadRecord, ValueError, TypeError, OverflowError) as error:
                if number == 0 and not line.lstrip().startswith(b"{"):
                    continue  # the header of a table
                reason = f": {error}" if isinstance(error, BadRecord) else ""
                expected = "expected `qid 0 docid relevance`, a BEIR table, or JSON with qid, docid and relevance"
                raise InputError(f"{position}: is no judgement{reason} ({expected})") from None
            query, document, relevance = judged
            qrels.setdefault(query, {})[document] = relevance
    if not qrels:
        raise InputError(f"{opened.name}: there are no judgements in it")
    return qrels


def _from_columns(line: bytes) -> tuple[str, str, int]:
    cells = line.decode("utf-8").split()
    if len(cells) == 3:
        return cells[0], cells[1], int(cells[2])
    query, _, document, relevance = cells
    return query, document, int(relevance)


def _from_json(line: bytes) -> tuple[str, str, int]:
    value = decode_line(line)
    query, document, relevance = (first(value, where).value for where in (PAIR_QUERY_ID, PAIR_DOC_ID, _RELEVANCE))
    if query is None or document is None or relevance is None:
        raise ValueError
    return str(query), str(document), int(relevance)
