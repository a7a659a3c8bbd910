"""`rerank report`: what a run did, as a page or in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from rerank_cli.cli import options as opt
from rerank_cli.cli.streams import claim_stdout, say
from rerank_cli.errors import UsageError


def report(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="What a run wrote.")],
    given: opt.Given = None,
    qrels: opt.Qrels = None,
    baseline: Annotated[
        str | None, opt.flag("--baseline", metavar="RUN", help="TREC run to compare with, for the first stage's order.")
    ] = None,
    summary: Annotated[
        str | None, opt.flag("--summary", metavar="FILE", help="Figures and settings that the run wrote as JSON.")
    ] = None,
    page: Annotated[str | None, opt.flag("--output", "-o", metavar="FILE", help="Write an HTML page.")] = None,
    terminal: Annotated[bool, opt.flag("--terminal", help="Show it in the terminal [default without -o].")] = False,
    overwrite: opt.Overwrite = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read in main
) -> None:
    """Show scores, movement, quality and examples of an output, as one HTML page or in the terminal.

    \b
      rerank report reranked.jsonl --input candidates.jsonl --qrels qrels.tsv -o report.html
      rerank report reranked.jsonl

    The page needs no network. The output is read once, in bounded memory; --input gives texts that it leaves out.
    """
    if page == "-":
        raise UsageError("--output cannot be - (stdout carries the terminal's version). Fix: name a file")
    from rerank_cli.reports.collect import ReportOptions, findings

    options = ReportOptions(output, tuple(given or ()), qrels, baseline, summary)
    stdout = claim_stdout() if terminal or not page else None
    if page:
        from rerank_cli.reports.files import check_page, write_page

        check_page(page, options, overwrite)
        found = findings(options)
        size = write_page(page, found)
        say(f"{page}: {size / 1e6:.2f} MB, {found.queries:,} queries")
    else:
        found = findings(options)
    if stdout:
        from rerank_cli.reports.terminal import text_of

        stdout.write(text_of(found, colour=stdout.isatty()).encode("utf-8", "replace"))
        stdout.flush()
