"""`rerank bench`: how fast this machine scores a file, what limits it, and what to set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import typer

from rerank_cli.cli.flags import common, declare, inputs, model
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.streams import claim_stdout, log_to_stderr, prepare_environment, say
from rerank_cli.errors import EXIT_REJECTED


@declare.command(given=inputs.given, reading=model.reading, place=model.place, cutting=model.long_documents)
def bench(
    given: Callable[[], Any],
    reading: Callable[[], Any],
    place: Callable[[], Any],
    cutting: Callable[[], Any],
    seconds: float = flag(60.0, "About how long to measure, after loading.", "S", min=1),
    sample_pairs: int | None = flag(None, "Pairs in the sample [default: what --seconds allows].", "N", min=1),
    as_json: bool = common.AS_JSON,
    quiet: bool = common.QUIET,
    debug: bool = common.DEBUG,  # noqa: ARG001 - read in main
) -> None:
    """Measure a sample of INPUT: speed, what limits it, the best --batch-tokens, and the time for the whole file.

    \b
      rerank bench candidates.jsonl -m mini
      rerank bench candidates.jsonl --seconds 20 --json

    Takes about a minute on any machine: the sample is as large as that allows. No scores are kept.
    Exit code 3 if there are bad records in the sample.
    """
    records = given()
    prepare_environment()
    log_to_stderr(quiet, verbose=False)
    from rerank_cli.benchmarking.bench import BenchConfig
    from rerank_cli.benchmarking.bench import bench as measure
    from rerank_cli.benchmarking.report import as_dict, lines
    from rerank_cli.engine.lazy import start_session

    stdout = claim_stdout()
    options = model.model_of(reading, place, cutting)
    notify = (lambda _: None) if quiet else say
    report = measure(BenchConfig(options, records, sample_pairs, seconds, notify), start_session)
    if as_json:
        stdout.write(orjson.dumps(as_dict(report), option=orjson.OPT_APPEND_NEWLINE))
    else:
        stdout.write("\n".join([*lines(report), ""]).encode())
    stdout.flush()
    if report.sample.rejected:
        raise typer.Exit(EXIT_REJECTED)
