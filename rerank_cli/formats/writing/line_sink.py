"""Outcomes as text: JSON lines of answers or pairs, batch envelopes, run files; plain or compressed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import orjson

from rerank_cli.choices import OutputFormat
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.shapes.rows import unusual
from rerank_cli.formats.writing.answers import Object, api_answer, batch_envelope, error_of
from rerank_cli.formats.writing.pair_rows import pair_rows
from rerank_cli.formats.writing.run_files import Frame, beir_member, msmarco_lines, trec_lines
from rerank_cli.records import Outcome, Rejection
from rerank_cli.storage.compression import member
from rerank_cli.storage.files import Committed
from rerank_cli.storage.partial_file import ByteFile

T = TypeVar("T")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def json_line(value: Object) -> bytes:
    """One line of JSON with its newline."""
    return orjson.dumps(value, default=unusual, option=_OPTIONS)


def renderer(format: OutputFormat, options: AnswerOptions, keep_errors: bool) -> Callable[[Outcome], bytes]:
    """A function that renders an outcome in `format`. Rejections give no bytes unless `keep_errors`."""

    def render(outcome: Outcome) -> bytes:
        if isinstance(outcome, Rejection):
            if not keep_errors:
                return b""
            if format is OutputFormat.OPENAI_BATCH:
                return json_line(batch_envelope(outcome.id, error=error_of(outcome)))
            return json_line({"id": outcome.id, "error": error_of(outcome)})
        match format:
            case OutputFormat.TREC:
                return trec_lines(outcome, options)
            case OutputFormat.MSMARCO:
                return msmarco_lines(outcome)
            case OutputFormat.BEIR | OutputFormat.FLAGEMBEDDING:
                return beir_member(outcome, options)
            case OutputFormat.PAIRS:
                return b"".join([json_line(row) for row in pair_rows(outcome, options)])
            case OutputFormat.OPENAI_BATCH:
                return json_line(batch_envelope(outcome.request.id, api_answer(outcome, options)))
            case OutputFormat.API:
                return json_line(api_answer(outcome, options))

    return render


@dataclass(slots=True)
class LineSink(Generic[T]):
    """Writes what `render` returns for each item to a file. A compressed file gets one complete member per `write`.

    So every committed prefix is a valid file, and the bytes depend on the chunks only, not on the commits. `finish`
    alone writes the closing of `frame`, which is never part of a commit, and the opening of an output without parts.
    `begun`: the opening is written already.
    """

    patience = 1.0

    file: ByteFile
    render: Callable[[T], bytes]
    compression: str | None
    frame: Frame
    begun: bool = False
    closed: bool = False

    def write(self, outcomes: Sequence[T]) -> None:
        parts = [part for outcome in outcomes if (part := self.render(outcome))]
        if parts:
            self._write(self.frame.between if self.begun else self.frame.opening, self.frame.between.join(parts))

    def commit(self) -> Committed:
        return self.file.sync()

    def finish(self) -> Path | None:
        if not self.closed and (self.frame.closing or (self.frame.opening and not self.begun)):
            self._write(b"" if self.begun else self.frame.opening, self.frame.closing)
            self.closed = True
        if self.compression and not self.file.sync().length:
            self._write(b"", b"")
        self.file.sync()
        return self.file.path

    def publish(self, attributes: Mapping[str, str] | None = None) -> None:
        self.finish()
        self.file.publish(attributes)

    def abandon(self) -> None:
        self.file.abandon()

    def _write(self, before: bytes, data: bytes) -> None:
        data = before + data
        if self.compression:
            data = member(self.compression, data)
        self.file.write(data)
        self.begun = True
