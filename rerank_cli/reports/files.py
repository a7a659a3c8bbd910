"""Where a page goes: checked before anything is read, written whole or not at all."""

from __future__ import annotations

from rerank_cli.choices import OutputFormat
from rerank_cli.formats import AnswerOptions, OutputOptions, check_output, refuse_existing
from rerank_cli.reports.analysis import Findings
from rerank_cli.reports.collect import ReportOptions
from rerank_cli.reports.page import page
from rerank_cli.storage.files import append_to_special, replace_file
from rerank_cli.storage.paths import final_path, is_special


def check_page(path: str, options: ReportOptions, overwrite: bool) -> None:
    """Raise what would keep the page from being written: UsageError, RefusedError or OutputError."""
    read = [options.output, *options.inputs, options.qrels, options.baseline, options.summary]
    output = OutputOptions(path, OutputFormat.API, AnswerOptions(""), overwrite=overwrite)
    check_output(output, [name for name in read if name])
    refuse_existing(output)


def write_page(path: str, found: Findings) -> int:
    """Write the page; its size in bytes."""
    data = page(found).encode("utf-8", "replace")
    if is_special(path):
        append_to_special(path, data)
    else:
        replace_file(final_path(path), data)
    return len(data)
