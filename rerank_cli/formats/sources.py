"""Input options to a source of records: files that hold their texts, or a run of ids with a corpus."""

from __future__ import annotations

from collections.abc import Callable

from rerank_cli.errors import UsageError
from rerank_cli.formats.contract import Source
from rerank_cli.formats.corpus.source import open_by_id, side_files
from rerank_cli.formats.options import InputOptions
from rerank_cli.formats.reading.file_records import open_files


def open_source(options: InputOptions, notify: Callable[[str], None] = lambda _: None) -> Source:
    """Open the inputs and read the first records, which show their shape.

    `notify` gets a line about each slow step. Raises InputError if a file is missing or holds no records.
    """
    if not options.paths:
        raise UsageError("no input was named")
    return open_by_id(options, options.by_id, notify) if options.by_id else open_files(options)


def input_files(options: InputOptions) -> tuple[str, ...]:
    """All files that are read, in the order of a source's stamps; not a first stage's run, which is made of them."""
    if options.by_id is None:
        return options.paths
    return side_files(options.by_id) + (() if options.by_id.first_stage else options.paths)
