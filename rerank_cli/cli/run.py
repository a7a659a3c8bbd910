"""`rerank run`: turns flags into one configuration, and the outcome of the run into an exit code."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from rerank_cli.choices import OnChanged, OnError, OutputFormat, ProgressMode, Resume, ScoreKind
from rerank_cli.cli.flags import common, declare, inputs, model
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.flags.ranking import ranking as ranking_flags
from rerank_cli.cli.flags.values import duration
from rerank_cli.cli.settings import Config, PrintConfig, is_chosen, show
from rerank_cli.cli.terminal import completion
from rerank_cli.cli.terminal.streams import claim_stdout, notifier, prepare
from rerank_cli.display import without_secrets
from rerank_cli.errors import EXIT_REJECTED, EXIT_STOPPED, UsageError

if TYPE_CHECKING:
    from rerank_cli.formats import InputOptions
    from rerank_cli.run.folders.figures import FolderSummary
    from rerank_cli.run.options import RunConfig
    from rerank_cli.run.scoring.workers.devices import Crew
    from rerank_cli.run.summary import Summary

taken = partial(flag, panel=declare.INPUT)
speed = partial(flag, panel=declare.DEVICE)
out = partial(flag, panel=declare.OUTPUT)
recovery = partial(flag, panel=declare.RECOVERY)
shown = partial(flag, panel=declare.PROGRESS)


def configured(
    given: Callable[[], Any] = inputs.given,
    reading: Callable[[], Any] = model.reading,
    output: str = flag(
        "-", "Where to write: .jsonl, .json, .csv, .tsv or .parquet; DIR/; - is stdout.", "FILE", short="-o"
    ),
    top_n: int | None = common.TOP_N,
    place: Callable[[], dict[str, Any]] = model.place,
    passages: Callable[[], dict[str, Any]] = model.long_documents,
    ranking: Callable[[], dict[str, Any]] = ranking_flags,
    devices: str | None = speed(
        None,
        "One worker process each: 0,1 or cuda:0,cuda:1 or all, or cpu,cpu.",
        "LIST",
        autocompletion=completion.devices,
    ),
    ray: str | None = speed(
        None,
        "Workers in a Ray cluster: HOST:PORT, auto (one that runs here) or local (start one). Alone: RAY_ADDRESS, else "
        "a cluster that runs on this machine, else local.",
        "[ADDRESS]",
    ),
    workers: str | None = speed(
        None, "With --ray: workers, one a card or CPU [default: 1 to as many as there is room for].", "N|MIN..MAX"
    ),
    cache: str | None = speed(None, "Score cache: only pairs that are not in it are scored.", "FILE", local=True),
    cascade: str | None = speed(
        None,
        "A smaller model keeps the best KEEP candidates for the model.",
        "MODEL:KEEP",
        autocompletion=completion.cascades,
    ),
    cascade_sample: int | None = speed(None, "Queries to measure the cascade's loss [default: 4 to 16].", "N", min=0),
    chunk_pairs: int | None = speed(None, "Pairs planned and committed together [default: by device].", "N", min=1),
    overwrite: bool = common.OVERWRITE,
    format: OutputFormat = out(OutputFormat.API, "api: a line a query; pairs: a row a pair; others: run files."),
    scores: ScoreKind = out(
        ScoreKind.AUTO, "sigmoid (0 to 1), raw (logits) or both; auto: sigmoid, unless the checkpoint states raw."
    ),
    documents: bool = out(True, "Write the documents with their scores."),
    echo_query: bool = out(False, "Write the query in each answer too: view, report and mine need no --input then."),
    mark_truncated: bool = out(False, "Mark every result whose pair was truncated."),
    summary: str | None = out(None, "Write figures and settings of the run as JSON.", "FILE"),
    limit: int | None = common.LIMIT,
    shard: str | None = taken(
        None, "Work on part I of N of the input, from 0; auto: of a Slurm array; auto/N: of an indexed job.", "I/N"
    ),
    on_error: OnError = recovery(OnError.FAIL, "At a bad record: stop, leave it out, or write an error in its place."),
    errors: str | None = recovery(None, "Write bad records with their reasons here.", "FILE"),
    max_errors: int | None = recovery(None, "Stop after more than N bad records.", "N", min=0),
    resume: Resume = recovery(Resume.AUTO, "Continue where an earlier run of the same command stopped."),
    restart: bool = recovery(False, "Start over; what an earlier run left is discarded."),
    on_changed: OnChanged = recovery(
        OnChanged.FAIL, "If input or settings are not those of the unfinished run: fail, or start over and say so."
    ),
    checkpoint: str | None = recovery(
        None, "Keep the checkpoint here, also in a bucket; output to stdout has no other.", "FILE"
    ),
    commit_interval: float | None = recovery(
        None, "Make finished work durable this often [default: 1, Parquet 15].", "SECONDS", min=0
    ),
    max_duration: str | None = recovery(None, "Stop after 90s, 30m or 7h30m with exit code 10; work is kept.", "TIME"),
    verify: int | None = recovery(None, "Score N pairs again in plain fp32; exit 5 if off.", "N", min=1, max=10_000),
    verify_tolerance: float | None = recovery(
        None, "Largest difference [default: fp32 0.001, fp16 0.1, bf16 0.5, int8 1, fp8 2].", "X", min=0
    ),
    progress: ProgressMode = shown(ProgressMode.AUTO, "auto: a bar on a terminal, plain lines elsewhere."),
    progress_interval: float = shown(30.0, "Seconds between lines of plain and json progress.", "SECONDS", min=0.1),
    metrics: str | None = shown(
        None, "Keep figures for Prometheus' textfile collector here (NAME.prom).", "FILE", local=True
    ),
) -> tuple[RunConfig, Crew | None]:
    """The configuration of a run, without its streams, and where its workers are, if any. Raises UsageError.

    `api/files.py` calls it from Python with the same names.
    """
    from rerank_cli.evaluation.same_pass import QrelsOptions
    from rerank_cli.formats import AnswerOptions, OutputOptions
    from rerank_cli.formats.corpus.first_stage import kept_beside
    from rerank_cli.run.folders.inputs import is_folder
    from rerank_cli.run.options import Cascade, RunConfig
    from rerank_cli.run.scoring.workers.devices import device_list
    from rerank_cli.run.scoring.workers.ray_places import RayOptions
    from rerank_cli.run.shard import parse

    part = None if shard is None else parse(shard, os.environ)
    records, where = kept_beside(given(), output), place()
    if devices is not None and where["device"] != "auto":
        raise UsageError("--device and --devices: give one of them")
    if devices is not None and ray is not None:
        raise UsageError("--devices and --ray: give one of them")
    if workers is not None and ray is None:
        raise UsageError("--workers needs --ray. Fix: --devices for workers on this machine, or --ray")
    options = model.model_of(reading, lambda: where, passages)
    ordering = ranking()
    measures = ordering.pop("measures")
    if measures is not None and ordering["qrels"] is None:
        ordering["qrels"] = QrelsOptions(_own_judgements(records), measures)
    layers = options.family.cutoff_layers or ()
    answers = AnswerOptions(
        options.name,
        scores,
        documents,
        layers if len(layers) > 1 else (),
        mark_truncated,
        options.in_passages,
        fused=ordering["fusion"].kind is not None,
        query=echo_query,
    )
    config = RunConfig(
        model=options,
        input=records,
        output=OutputOptions(output, format, answers, overwrite, keep_errors=on_error is OnError.EMIT),
        resume=Resume.NEVER if restart else resume,
        on_changed=on_changed,
        top_n=top_n,
        limit=limit,
        chunk_pairs=chunk_pairs,
        commit_interval=commit_interval,
        checkpoint=checkpoint,
        cache=cache,
        cascade=None if cascade is None else Cascade.parse(cascade, options, cascade_sample),
        max_duration=duration(max_duration, "--max-duration"),
        verify=verify,
        verify_tolerance=verify_tolerance,
        on_error=on_error,
        errors=errors,
        max_errors=max_errors,
        progress=progress,
        progress_interval=progress_interval,
        metrics=metrics,
        summary=summary,
        **ordering,
    )
    if records.by_id and records.by_id.first_stage and is_folder(output):
        what = "an output folder has a file for each file of --run, and a first stage is one run"
        raise UsageError(f"-o {output}: {what}. Fix: -o with a file")
    if part and is_folder(output):
        what = "a shard is a part of one output, and in an output folder equal commands share the files"
        raise UsageError(f"--shard {shard}: {what}. Fix: leave --shard out, or -o with a file")
    if part:
        config = config.sharded(part)
    if ray is not None:
        return config, RayOptions.parse(ray, workers, options.device, cascade=cascade is not None)
    return config, None if devices is None else device_list(devices)


def _own_judgements(records: InputOptions) -> str:
    """The judgements that belong to the input, for --measures without --qrels. Raises UsageError."""
    if records.by_id is None or records.by_id.qrels is None:
        raise UsageError("--measures needs --qrels FILE, or --beir DIR or --dataset ID with judgements")
    return records.by_id.qrels


@declare.command
def run(
    context: typer.Context,
    configured: Callable[[], Any] = configured,
    quiet: bool = common.QUIET,
    verbose: bool = common.VERBOSE,
    config: str | None = Config,  # noqa: ARG001 - read before the other flags, see settings
    print_config: bool = PrintConfig,
) -> None:
    """Rerank the candidates of every query in INPUT, best first.

    \b
      rerank run candidates.jsonl -o reranked.jsonl
      rerank run pairs.csv -o reranked.csv --format pairs -m mini
      zcat big.jsonl.gz | rerank run --top-n 10 --no-documents > best.jsonl
      rerank run --run bm25.trec --beir scifact/ --format trec -o ce.trec

    Reads JSONL, JSON, CSV, TSV, Parquet and Arrow, also compressed with gzip, zstd, bz2, lz4 or xz. Format and shape
    are recognised. The suffix of the output selects its format; .gz, .zst, .bz2, .lz4 or .xz after it compresses.
    Inputs may be s3://, gs://, az://, hf:// or https://, outputs s3://, gs:// or az:// (docs/remote.md).

    With a folder as output (a slash at its end, or an existing one), each file of INPUT, which may be a folder or a
    pattern like 'in/**/*.parquet', becomes a file in it. Equal commands, on any machines, share the files.
    """
    if print_config:
        show(context)
        return
    prepare(quiet=quiet, verbose=verbose)
    from rerank_cli.engine.lazy import start_session
    from rerank_cli.engine.limits import find
    from rerank_cli.run.folders.inputs import expanded, is_folder
    from rerank_cli.run.folders.job import run_folder
    from rerank_cli.run.job import run as run_job
    from rerank_cli.run.scoring.dtype_advice import DtypeAdvice
    from rerank_cli.run.scoring.workers.devices import crew_opener
    from rerank_cli.run.signals import die_of

    plan, crew = configured()
    notify = notifier(quiet, as_json=plan.progress is ProgressMode.JSON)
    plan = replace(
        plan,
        stdout=claim_stdout() if plan.output.path == "-" else None,
        progress=ProgressMode.OFF if quiet else plan.progress,
        notify=notify,
        command=without_secrets(shlex.join(["rerank", *sys.argv[1:]])),
    )
    open_model = start_session if crew is None else crew_opener(crew)
    chosen = quiet or crew is not None or is_chosen(context, "dtype")
    advice = None if chosen else DtypeAdvice(notify, start_session)
    rejected: int
    if is_folder(plan.output.path):
        whole, stop = run_folder(plan, open_model, lambda wanted: find(wanted).revision, advice=advice)
        messages, interrupted, rejected = _last_of_folder(plan, whole), whole.interrupted, whole.rejected
    else:
        outcome, stop = run_job(expanded(plan), open_model, lambda wanted: find(wanted).revision, advice=advice)
        messages, interrupted, rejected = _last_messages(plan, outcome), outcome.interrupted, outcome.stats.rejected
    for message in messages:
        notify(message)
    if stop.signal:
        die_of(stop.signal)
    if interrupted:
        raise typer.Exit(EXIT_STOPPED)
    if rejected:
        raise typer.Exit(EXIT_REJECTED)


def _last_of_folder(plan: RunConfig, whole: FolderSummary) -> Iterator[str]:
    """What a run with an output folder says when it ends."""
    if whole.nothing_to_do:
        yield f"{whole.output}: already complete, nothing to do (--overwrite repeats the run)"
    else:
        yield whole.line()
    if whole.interrupted:
        yield f"stopped by {whole.interrupted}, work kept; {plan.same_command} continues from here"


def _last_messages(plan: RunConfig, outcome: Summary) -> Iterator[str]:
    """What a run says when it ends: what it did, and how to go on if it was stopped."""
    output = plan.output.path
    if outcome.nothing_to_do:
        measured = ", rerank eval measures it" if plan.qrels else ""
        yield f"{output}: already complete, nothing to do (--overwrite repeats the run{measured})"
    if plan.shard and outcome.stats.finished and not outcome.stats.records:
        yield f"shard {plan.shard}: 0 records, no chunk begins in it"
    elif outcome.stats.records or outcome.stats.finished:
        yield outcome.line()
    if outcome.interrupted:
        if output == "-" and not plan.checkpoint:
            kept = "; --checkpoint FILE makes a run to stdout resumable"
        elif outcome.model:
            kept = f", work kept; {plan.same_command} continues from here"
        else:
            kept = " before it had a model"
        yield f"stopped by {outcome.interrupted}{kept}"
