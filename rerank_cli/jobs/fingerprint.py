"""What the bytes of an output depend on, so that two runs are never mixed in one file.

Settings are flat and readable: a difference is told by its name. Device, batch size, threads and progress are not among
them. The input is known by the content of the records that are done, not by name, size or time.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from rerank_cli.engine.contract import ModelFacts
from rerank_cli.records import Record, Rejection

if TYPE_CHECKING:
    from rerank_cli.jobs.options import RunConfig

FORMAT = 1
_ON_ERROR = "on error"

Fingerprint = dict[str, Any]


def fingerprint(config: RunConfig, facts: ModelFacts, chunk_pairs: int) -> Fingerprint:
    """Everything but the input that decides what is written."""
    answers, given = config.output.answers, config.input
    return {
        "checkpoint format": FORMAT,
        "model": facts.name,
        "model revision": facts.revision,
        "dtype": facts.dtype,
        "max length": facts.max_length,
        "query max length": facts.query_max_length,
        "scores": answers.scores.value,
        "documents": answers.documents,
        "output format": config.output.format.value,
        "top n": config.top_n,
        _ON_ERROR: config.on_error.value,
        "errors file": config.errors,
        "shape": given.shape.value if given.shape else None,
        "query field": given.query_field,
        "documents field": given.documents_field,
        "text field": given.text_field,
        "id field": given.id_field,
        "doc id field": given.doc_id_field,
        "chunk pairs": chunk_pairs,
    }


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What differs, one phrase each: `max length 512 → 1024`.

    A run that had stopped at its first bad record may go on in another way: there was none before that point.
    """
    harmless = {_ON_ERROR, "errors file"} if before.get(_ON_ERROR) == "fail" else set()
    names = [name for name in now if name not in harmless]
    return [f"{name} {before.get(name)} → {now[name]}" for name in names if before.get(name) != now[name]]


class Trace:
    """A rolling hash over the content of records, in order."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, record: Record) -> None:
        self._hash.update(_content(record))

    def digest(self) -> str:
        return self._hash.hexdigest()


def _content(record: Record) -> bytes:
    """What a record says, whatever file and line it stands in."""
    if isinstance(record, Rejection):
        said: tuple[Any, ...] = (record.code, record.id, record.raw)
    else:
        sources = [candidate.source for candidate in record.candidates]
        limits = (record.top_n, record.max_tokens_per_doc, record.return_documents)
        said = (record.id, record.query_text, sources, limits, dict(record.extra))
    return orjson.dumps(said, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
