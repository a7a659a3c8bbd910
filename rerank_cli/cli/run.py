"""`rerank run`: flags to one frozen configuration, and its ending to an exit code."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from rerank_cli.choices import OnError, ProgressMode, Resume
from rerank_cli.cli import bundles, by_id
from rerank_cli.cli import options as opt
from rerank_cli.cli.bundles import Gathered, gathers
from rerank_cli.cli.durations import duration
from rerank_cli.cli.ranking import ranking as ranking_flags
from rerank_cli.cli.settings import Config, PrintConfig, show
from rerank_cli.cli.streams import claim_stdout, log_to_stderr, prepare_environment, say, say_json
from rerank_cli.errors import EXIT_REJECTED, EXIT_STOPPED, UsageError
from rerank_cli.formats import OutputFormat, ScoreKind
from rerank_cli.models.options import LongDocuments

if TYPE_CHECKING:
    from rerank_cli.engine.contract import ModelOptions


@gathers(given=by_id.given, reading=bundles.reading, place=bundles.place, ranking=ranking_flags)
def run(
    context: typer.Context,
    given: Gathered,
    reading: Gathered,
    place: Gathered,
    ranking: Gathered,
    output: Annotated[
        str,
        opt.flag(
            "--output", "-o", metavar="FILE", help="Where to write; .jsonl, .jsonl.gz/.zst/.bz2/.lz4 or .parquet."
        ),
    ] = "-",
    devices: Annotated[
        str | None,
        opt.flag("--devices", metavar="LIST", help="A worker process each: 0,1 or cuda:0,cuda:1 or all, or cpu,cpu."),
    ] = None,
    long_documents: Annotated[
        LongDocuments,
        opt.flag("--long-documents", help="Cut off what does not fit, or score passages: the best, first, mean of 3."),
    ] = LongDocuments.TRUNCATE,
    stride: Annotated[
        int | None,
        opt.flag("--stride", metavar="N", min=1, help="Tokens from passage to passage [default: 3/4 of one]."),
    ] = None,
    top_n: opt.TopN = None,
    scores: Annotated[
        ScoreKind,
        opt.flag("--scores", help="sigmoid (0 to 1), raw (logits), or both. The order is always the logit's."),
    ] = ScoreKind.SIGMOID,
    documents: Annotated[
        bool, opt.flag("--documents/--no-documents", help="Write the documents out again with their scores.")
    ] = True,
    format: Annotated[
        OutputFormat, opt.flag("--format", help="api: a line a query; pairs: a row a pair; the others: run files.")
    ] = OutputFormat.API,
    mark_truncated: Annotated[
        bool, opt.flag("--mark-truncated", help="Say of every result whether its pair was truncated.")
    ] = False,
    limit: opt.Limit = None,
    on_error: Annotated[
        OnError,
        opt.flag("--on-error", help="At a bad record: fail, skip it, or emit an error in its place."),
    ] = OnError.FAIL,
    errors: Annotated[str | None, opt.flag("--errors", metavar="FILE", help="Write bad records and why here.")] = None,
    max_errors: Annotated[
        int | None, opt.flag("--max-errors", metavar="N", min=0, help="Give up after more bad records.")
    ] = None,
    chunk_pairs: Annotated[
        int | None,
        opt.flag(
            "--chunk-pairs", metavar="N", min=1, help="Pairs planned and committed together [default: by device]."
        ),
    ] = None,
    commit_interval: Annotated[
        float | None,
        opt.flag(
            "--commit-interval",
            metavar="SECONDS",
            min=0,
            help="Make finished chunks durable this often [default: 1, Parquet 15].",
        ),
    ] = None,
    resume: Annotated[
        Resume, opt.flag("--resume", help="Go on where an earlier run of the same command stopped.")
    ] = Resume.AUTO,
    restart: Annotated[bool, opt.flag("--restart", help="Begin anew, whatever an earlier run left.")] = False,
    overwrite: opt.Overwrite = False,
    progress: Annotated[
        ProgressMode, opt.flag("--progress", help="auto is a bar on a terminal, plain lines elsewhere.")
    ] = ProgressMode.AUTO,
    progress_interval: Annotated[
        float,
        opt.flag(
            "--progress-interval", metavar="SECONDS", min=0.1, help="Seconds between lines of plain and json progress."
        ),
    ] = 30.0,
    summary: Annotated[str | None, opt.flag("--summary", metavar="FILE", help="Write final figures as JSON.")] = None,
    checkpoint: Annotated[
        str | None,
        opt.flag("--checkpoint", metavar="FILE", help="Keep the checkpoint here; a stream on stdout has none else."),
    ] = None,
    cache: Annotated[
        str | None,
        opt.flag("--cache", metavar="FILE", help="Keep scores here, and score only pairs that are not in it."),
    ] = None,
    cascade: Annotated[
        str | None,
        opt.flag("--cascade", metavar="MODEL:KEEP", help="A smaller model keeps the best KEEP of each query for ours."),
    ] = None,
    cascade_sample: Annotated[
        int | None,
        opt.flag(
            "--cascade-sample",
            metavar="N",
            min=0,
            help="Queries on which to measure what that changes [default: 4 to 16, 2 % of the work].",
        ),
    ] = None,
    max_duration: Annotated[
        str | None,
        opt.flag("--max-duration", metavar="TIME", help="Stop after 90s, 30m or 7h30m, work kept, with exit 10."),
    ] = None,
    verify: Annotated[
        int | None,
        opt.flag(
            "--verify", metavar="N", min=1, max=10_000, help="Score N pairs again, plainly in fp32; exit 5 if off."
        ),
    ] = None,
    verify_tolerance: Annotated[
        float | None,
        opt.flag(
            "--verify-tolerance",
            metavar="X",
            min=0,
            help="Largest difference [default: fp32 0.001, fp16 0.1, bf16 0.5, int8 1, fp8 2].",
        ),
    ] = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    config: Config = None,  # noqa: ARG001 - read before the other flags, see settings
    print_config: PrintConfig = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read in main
) -> None:
    """Rerank the candidates of every query in INPUT, best first.

    \b
      rerank run candidates.jsonl -o reranked.jsonl
      rerank run pairs.parquet -o reranked.parquet --format pairs -m mini
      zcat big.jsonl.gz | rerank run --top-n 10 --no-documents > best.jsonl
      rerank run --run bm25.trec --queries queries.jsonl --corpus corpus.jsonl --format trec -o ce.trec

    Reads JSONL (also gzip, zstd, bz2, lz4), Parquet and TSV; the shape is told from the first record.
    """
    if print_config:
        show(context)
        return
    records, where = given(), place()
    if devices is not None and where["device"] != "auto":
        raise UsageError("--device and --devices: give one of them")
    prepare_environment()
    log_to_stderr(quiet, verbose)
    from rerank_cli.engine.lazy import start_session
    from rerank_cli.engine.windows import Cutting
    from rerank_cli.formats import AnswerOptions, OutputOptions
    from rerank_cli.run.job import run as run_job
    from rerank_cli.run.options import RunConfig
    from rerank_cli.run.scoring.cascade import Cascade
    from rerank_cli.run.scoring.workers.devices import device_list, open_workers
    from rerank_cli.run.signals import die_of

    stdout = claim_stdout() if output == "-" else None
    notify = (lambda _: None) if quiet else say_json if progress is ProgressMode.JSON else say
    cutting = Cutting(long_documents, stride)
    model = replace(reading(), **where, cutting=cutting)
    ordering = ranking()
    layers = model.family.cutoff_layers or ()
    plan = RunConfig(
        model=model,
        input=records,
        output=OutputOptions(
            output,
            format,
            AnswerOptions(
                model.name,
                scores,
                documents,
                layers if len(layers) > 1 else (),
                mark_truncated,
                cutting.in_passages,
                fused=ordering["fusion"].kind is not None,
            ),
            overwrite=overwrite,
            keep_errors=on_error is OnError.EMIT,
        ),
        stdout=stdout,
        resume=Resume.NEVER if restart else resume,
        top_n=top_n,
        limit=limit,
        chunk_pairs=chunk_pairs,
        commit_interval=commit_interval,
        checkpoint=checkpoint,
        cache=cache,
        cascade=None if cascade is None else Cascade.parse(cascade, model, cascade_sample),
        max_duration=None if max_duration is None else duration(max_duration, "--max-duration"),
        verify=verify,
        verify_tolerance=verify_tolerance,
        on_error=on_error,
        errors=errors,
        max_errors=max_errors,
        progress=ProgressMode.OFF if quiet else progress,
        progress_interval=progress_interval,
        summary=summary,
        notify=notify,
        **ordering,
    )
    open_model = start_session if devices is None else partial(open_workers, device_list(devices))
    outcome, stop = run_job(plan, open_model, _revision)
    if outcome.nothing_to_do:
        measured = ", rerank eval measures it" if plan.judges else ""
        notify(f"{output}: complete already, nothing to do (--overwrite does it again{measured})")
    if outcome.tally.records:
        notify(outcome.line())
    if outcome.interrupted and outcome.model and (output != "-" or checkpoint):
        notify(f"stopped by {outcome.interrupted}, work kept; the same command goes on from here")
    if stop.signal:
        die_of(stop.signal)
    if outcome.interrupted:
        raise typer.Exit(EXIT_STOPPED)
    if outcome.tally.rejected:
        raise typer.Exit(EXIT_REJECTED)


def _revision(options: ModelOptions) -> str:
    """The revision of a model that is not loaded, to compare an output that exists with."""
    from rerank_cli.engine.limits import find

    return find(options).revision
