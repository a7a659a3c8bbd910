"""`rerank bench`: how fast this machine scores a file, what limits it, and which row size to set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from rerank_cli.choices import Quantize
from rerank_cli.cli.flags import common, declare, inputs, model
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.terminal.streams import claim_stdout, notifier, prepare, write
from rerank_cli.errors import EXIT_REJECTED, UsageError


@declare.command
def bench(
    given: Callable[[], Any] = inputs.given,
    reading: Callable[[], Any] = model.reading,
    place: Callable[[], dict[str, Any]] = model.place,
    passages: Callable[[], dict[str, Any]] = model.long_documents,
    seconds: float = flag(60.0, "About how long to measure, after loading.", "S", min=1),
    sample_pairs: int | None = flag(None, "Pairs in the sample [default: what --seconds allows].", "N", min=1),
    dtypes: str | None = flag(
        None, "On a CPU, compare precisions with fp32: bf16, int8, int8-bf16; instead of row sizes.", "LIST"
    ),
    as_json: bool = common.AS_JSON,
    quiet: bool = common.QUIET,
) -> None:
    """Measure a sample of INPUT: speed, what limits it, the best --batch-tokens, and the time for the whole file.

    \b
      rerank bench candidates.jsonl -m mini
      rerank bench candidates.jsonl --seconds 20 --json
      rerank bench candidates.jsonl --dtypes bf16,int8

    Takes about a minute on any machine: the sample is as large as that allows. No scores are kept.
    Exit code 3 if there are bad records in the sample.
    """
    records = given()
    prepare(quiet=quiet)
    from rerank_cli.benchmarking.bench import BenchConfig
    from rerank_cli.benchmarking.bench import bench as measure
    from rerank_cli.benchmarking.precisions import parse_precisions
    from rerank_cli.benchmarking.report import as_dict, lines
    from rerank_cli.engine.lazy import start_session

    stdout = claim_stdout()
    options = model.model_of(reading, place, passages)
    compared = () if dtypes is None else parse_precisions(dtypes)
    if compared and (options.dtype != "auto" or options.quantize is not Quantize.NONE):
        raise UsageError("--dtypes chooses the precisions itself. Fix: leave out --dtype and --quantize, or --dtypes")
    report = measure(BenchConfig(options, records, sample_pairs, seconds, compared, notifier(quiet)), start_session)
    write(stdout, as_dict(report) if as_json else "\n".join([*lines(report), ""]))
    if report.sample.rejected:
        raise typer.Exit(EXIT_REJECTED)
