"""`rerank bench`: how fast this machine scores that file, what limits it, and what to set."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import orjson
import typer

from rerank_cli.cli import bundles, by_id
from rerank_cli.cli import options as opt
from rerank_cli.cli.bundles import Gathered, gathers
from rerank_cli.cli.streams import claim_stdout, log_to_stderr, prepare_environment, say
from rerank_cli.errors import EXIT_REJECTED
from rerank_cli.models.options import LongDocuments


@gathers(given=by_id.given, reading=bundles.reading, place=bundles.place)
def bench(
    given: Gathered,
    reading: Gathered,
    place: Gathered,
    long_documents: Annotated[
        LongDocuments, opt.flag("--long-documents", help="What a run does with documents that do not fit.")
    ] = LongDocuments.TRUNCATE,
    stride: Annotated[
        int | None,
        opt.flag("--stride", metavar="N", min=1, help="Tokens from passage to passage [default: 3/4 of one]."),
    ] = None,
    sample_pairs: Annotated[
        int | None,
        opt.flag("--sample-pairs", metavar="N", min=1, help="Pairs in the sample [default: what --seconds allows]."),
    ] = None,
    seconds: Annotated[
        float, opt.flag("--seconds", metavar="S", min=1, help="About how long to measure, loading left out.")
    ] = 60.0,
    as_json: Annotated[bool, opt.flag("--json", help="One JSON object instead of a table.")] = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read in main
) -> None:
    """Measure a sample of INPUT: speed, what limits it, the best --batch-tokens, and the time for the whole file.

    \b
      rerank bench candidates.jsonl -m mini
      rerank bench candidates.jsonl --seconds 20 --json

    Takes about a minute, on any machine: the sample is as large as that allows. Nothing is kept of what is scored.
    Exit 3 when there are bad records in the sample.
    """
    records = given()
    prepare_environment()
    log_to_stderr(quiet, verbose=False)
    from rerank_cli.benchmarking.bench import BenchConfig
    from rerank_cli.benchmarking.bench import bench as measure
    from rerank_cli.benchmarking.report import as_dict, lines
    from rerank_cli.engine.lazy import start_session
    from rerank_cli.engine.windows import Cutting
    from rerank_cli.run.options import check_cutting

    stdout = claim_stdout()
    cutting = Cutting(long_documents, stride)
    check_cutting(cutting)
    model = replace(reading(), **place(), cutting=cutting)
    notify = (lambda _: None) if quiet else say
    report = measure(BenchConfig(model, records, sample_pairs, seconds, notify), start_session)
    if as_json:
        stdout.write(orjson.dumps(as_dict(report), option=orjson.OPT_APPEND_NEWLINE))
    else:
        stdout.write("\n".join([*lines(report), ""]).encode())
    stdout.flush()
    if report.sample.rejected:
        raise typer.Exit(EXIT_REJECTED)
