"""`rerank check`: validate and measure an input with the model's tokenizer alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import typer

from rerank_cli.cli.flags import common, declare, inputs, model
from rerank_cli.cli.terminal.streams import claim_stdout, prepare, say, write
from rerank_cli.errors import EXIT_REJECTED

if TYPE_CHECKING:
    from rerank_cli.inspection.check import Report

_BAR = 40


@declare.command
def check(
    given: Callable[[], Any] = inputs.given,
    reading: Callable[[], Any] = model.reading,
    limit: int | None = common.LIMIT,
    as_json: bool = common.AS_JSON,
) -> None:
    """Say what INPUT holds, how long its pairs are in tokens, and what would be truncated or rejected.

    \b
      rerank check candidates.jsonl -m mini

    Loads the model's tokenizer, never its weights. Exit code 3 if there are bad records.
    """
    records = given()
    prepare()
    from rerank_cli.engine.limits import open_tokenizer
    from rerank_cli.formats import open_source
    from rerank_cli.inspection.check import check_input

    stdout = claim_stdout()
    with closing(open_source(records, say)) as source:
        known = open_tokenizer(reading())
        report = check_input(source, known, limit)
    max_length = known.limits.max_length
    fields = {
        "input": source.description,
        "records": report.records,
        "pairs": report.pairs,
        "queries_without_candidates": report.empty,
        "tokens": report.tokens,
        "longest_pair_tokens": report.longest,
        "max_length": max_length,
        "truncated_pairs": report.truncated,
        "truncated_queries": report.truncated_queries,
        "histogram": dict(report.buckets()),
        "rejected": dict(report.rejected),
        "examples": report.examples,
    }
    write(stdout, fields if as_json else _text(report, source.description, known.checkpoint.name, max_length))
    if report.rejected:
        raise typer.Exit(EXIT_REJECTED)


def _text(report: Report, description: str, model: str, max_length: int) -> str:
    mean = report.tokens / report.pairs if report.pairs else 0
    lines = [
        f"input      {description}",
        f"records    {report.records:,}",
        f"pairs      {report.pairs:,}",
        f"tokens     {report.tokens:,} ({mean:,.0f} a pair, longest {report.longest:,}; tokenizer of {model})",
        f"truncated  {report.truncated:,} pairs at --max-length {max_length}"
        + (f", {report.truncated_queries:,} with a truncated query" if report.truncated_queries else ""),
    ]
    if report.empty:
        lines.append(f"empty      {report.empty:,} {'query' if report.empty == 1 else 'queries'} without candidates")
    if report.pairs:
        buckets = list(report.buckets())
        most = max(count for _, count in buckets)
        lines += ["", "tokens a pair"]
        lines += [f"  {label:>7} {count:>10,}  {'█' * round(count / most * _BAR)}".rstrip() for label, count in buckets]
    if report.rejected:
        lines += ["", "bad records"]
        lines += [f"  {count:>10,}  {code}" for code, count in report.rejected.most_common()]
        lines += [f"  {example}" for example in report.examples]
    return "\n".join(lines) + "\n"
