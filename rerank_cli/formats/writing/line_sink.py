"""Outcomes as text: JSON lines of answers or pairs, batch envelopes, runs of several kinds; plain or compressed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import orjson

from rerank_cli.choices import OutputFormat
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.shapes.rows import unusual
from rerank_cli.formats.writing.answers import Object, api_answer, api_error, batch_answer, batch_error
from rerank_cli.formats.writing.pair_rows import pair_rows
from rerank_cli.formats.writing.run_files import LINES, Frame, beir_member, msmarco_lines, trec_lines
from rerank_cli.records import Outcome, Ranking, Rejection
from rerank_cli.storage.compression import new_compressor
from rerank_cli.storage.files import ByteFile, Committed

T = TypeVar("T")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def json_line(value: Object) -> bytes:
    """One line of JSON, its newline included."""
    return orjson.dumps(value, default=unusual, option=_OPTIONS)


def renderer(format: OutputFormat, options: AnswerOptions, keep_errors: bool) -> Callable[[Outcome], bytes]:
    """What makes lines of an outcome; of a rejection none, unless errors are kept."""
    answer = _answers(format, options)
    refusal = batch_error if format is OutputFormat.OPENAI_BATCH else api_error

    def render(outcome: Outcome) -> bytes:
        if isinstance(outcome, Rejection):
            return json_line(refusal(outcome)) if keep_errors else b""
        return answer(outcome)

    return render


def _answers(format: OutputFormat, options: AnswerOptions) -> Callable[[Ranking], bytes]:
    if format is OutputFormat.TREC:
        return lambda ranking: trec_lines(ranking, options)
    if format is OutputFormat.MSMARCO:
        return msmarco_lines
    if format.is_one_object:
        return lambda ranking: beir_member(ranking, options)
    if format is OutputFormat.PAIRS:
        return lambda ranking: b"".join([json_line(row) for row in pair_rows(ranking, options)])
    if format is OutputFormat.OPENAI_BATCH:
        return lambda ranking: json_line(batch_answer(ranking, options))
    return lambda ranking: json_line(api_answer(ranking, options))


class LineSink(Generic[T]):
    """Lines to a file, made of outcomes or of whatever `render` makes lines of.

    So what was committed is a whole file by itself, and the bytes depend on the chunks alone, not on when they were
    committed. What a `frame` closes with is written at the very end alone, and never counts as committed before:
    `begun` says whether an earlier run wrote its opening.
    """

    patience = 1.0

    def __init__(
        self,
        file: ByteFile,
        render: Callable[[T], bytes],
        compression: str | None,
        frame: Frame = LINES,
        begun: bool = False,
    ) -> None:
        self._file = file
        self._render = render
        self._compression = compression
        self._frame = frame
        self._begun = begun
        self._closed = False

    def write(self, outcomes: Sequence[T]) -> None:
        parts = [part for outcome in outcomes if (part := self._render(outcome))]
        if parts:
            before = self._frame.between if self._begun else self._frame.opening
            self._file.write(self._packed(before + self._frame.between.join(parts)))
            self._begun = True

    def commit(self) -> Committed:
        return self._file.sync()

    def finish(self) -> Path | None:
        if self._frame.closing and not self._closed:
            opening = b"" if self._begun else self._frame.opening
            self._file.write(self._packed(opening + self._frame.closing))
            self._closed = True
        if self._compression and not self._file.sync().length:
            self._file.write(self._packed(b""))
        self._file.sync()
        return self._file.path

    def publish(self) -> None:
        self.finish()
        self._file.publish()

    def abandon(self) -> None:
        self._file.abandon()

    def _packed(self, data: bytes) -> bytes:
        if not self._compression:
            return data
        start, member = new_compressor(self._compression)
        return start + member.compress(data) + member.flush()
