"""`rerank report`: what a run did, as an HTML page or in the terminal."""

from __future__ import annotations

import typer

from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.terminal.streams import claim_stdout, say, write
from rerank_cli.display import counted
from rerank_cli.errors import UsageError


@declare.command
def report(
    output: str = typer.Argument(metavar="OUTPUT", help="What a run wrote, or the folder of a training run."),
    page: str | None = flag(None, "Write an HTML page.", "FILE", short="-o", long="--output"),
    given: list[str] | None = common.GIVEN,
    qrels: str | None = common.QRELS,
    baseline: str | None = flag(None, "TREC run to compare with, instead of the first stage's order.", "RUN"),
    summary: str | None = flag(None, "Figures and settings that the run wrote with --summary.", "FILE"),
    terminal: bool = flag(False, "Print it in the terminal [default without -o]."),
    overwrite: bool = common.OVERWRITE,
) -> None:
    """Show scores, rank changes, measures and examples of an output, as one HTML page or in the terminal.

    \b
      rerank report reranked.jsonl --input candidates.jsonl --qrels qrels.tsv -o report.html
      rerank report reranked.jsonl
      rerank report my-reranker/ -o training.html

    The page needs no network. The output is read once, in bounded memory; --input has the texts that it left out.
    """
    if page == "-":
        raise UsageError("--output cannot be - (stdout is for --terminal). Fix: name a file")
    from rerank_cli.reports.collect import ReportOptions, findings
    from rerank_cli.reports.training import is_training
    from rerank_cli.storage.listing import expanded

    if is_training(output):
        if given or qrels or baseline or summary:
            raise UsageError(
                "--input, --qrels, --baseline and --summary are for the output of a run. Fix: leave them out"
            )
        _training(output, page, terminal, overwrite)
        return

    options = ReportOptions(output, expanded(given or ()), qrels, baseline, summary)
    stdout = claim_stdout() if terminal or not page else None
    if page:
        from rerank_cli.reports.page import check_page, write_page

        check_page(page, options, overwrite)
    found = findings(options)
    if page:
        size = write_page(page, found)
        say(f"{page}: {size / 1e6:.2f} MB, {counted(found.queries, 'query')}")
    if stdout:
        from rerank_cli.reports.terminal import text_of

        write(stdout, text_of(found, colour=stdout.isatty()))


def _training(output: str, page: str | None, terminal: bool, overwrite: bool) -> None:
    """The report of a training run, also while it goes on."""
    from rerank_cli.reports.training import check_page, read_log, text_of, write_page

    stdout = claim_stdout() if terminal or not page else None
    if page:
        check_page(page, output, overwrite)
    found = read_log(output)
    if page:
        size = write_page(page, found)
        say(f"{page}: {size / 1e6:.2f} MB, {len(found.steps):,} steps")
    if stdout:
        write(stdout, text_of(found))
