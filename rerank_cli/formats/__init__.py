"""Reading records from files, and writing outcomes to files.

Knows record shapes, file formats, runs and corpora; not models, chunks or terminals. Bytes are read and written by
`storage`. Entry points: `open_source` gives a `Source` of records in input order; `open_sink` gives a `Sink` that takes
outcomes in the same order and publishes all of them or none.
"""

from rerank_cli.formats.contract import Sink, Source
from rerank_cli.formats.options import AnswerOptions, ById, InputOptions, OutputOptions
from rerank_cli.formats.sources import input_files, open_source
from rerank_cli.formats.writing.quarantine import ErrorsFile
from rerank_cli.formats.writing.sinks import check_output, check_side_file, discard_partial, open_sink, refuse_existing

__all__ = [
    "AnswerOptions",
    "ById",
    "ErrorsFile",
    "InputOptions",
    "OutputOptions",
    "Sink",
    "Source",
    "check_output",
    "check_side_file",
    "discard_partial",
    "input_files",
    "open_sink",
    "open_source",
    "refuse_existing",
]
