"""Files to records and back: JSON lines, Parquet and tab-separated pairs in; answers, pairs and TREC runs out.

A `Source` yields requests and rejections in input order, a `Sink` takes outcomes in the same order and publishes them
whole or not at all. Knows nothing of models, chunks or terminals.
"""

from rerank_cli.formats.corpus.beir import BeirFolder, beir_folder
from rerank_cli.formats.options import (
    AnswerOptions,
    ById,
    Committed,
    InputOptions,
    OutputFormat,
    OutputOptions,
    RunValues,
    ScoreKind,
    Sink,
    Source,
    Stamp,
)
from rerank_cli.formats.reading.sources import input_files, open_source
from rerank_cli.formats.writing.quarantine import ErrorsFile
from rerank_cli.formats.writing.sinks import check_output, check_side_file, discard_partial, open_sink, refuse_existing
from rerank_cli.storage.files import (
    append_to_special,
    final_path,
    is_special,
    partial_of,
    replace_file,
    successor_of,
    writing,
)
from rerank_cli.storage.opening import stamp_of

__all__ = [
    "AnswerOptions",
    "BeirFolder",
    "ById",
    "Committed",
    "ErrorsFile",
    "InputOptions",
    "OutputFormat",
    "OutputOptions",
    "RunValues",
    "ScoreKind",
    "Sink",
    "Source",
    "Stamp",
    "append_to_special",
    "beir_folder",
    "check_output",
    "check_side_file",
    "discard_partial",
    "final_path",
    "input_files",
    "is_special",
    "open_sink",
    "open_source",
    "partial_of",
    "refuse_existing",
    "replace_file",
    "stamp_of",
    "successor_of",
    "writing",
]
