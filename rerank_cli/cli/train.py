"""`rerank train`: turns flags into one configuration, and the outcome of the run into an exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from rerank_cli.choices import (
    Dtype,
    InputFormat,
    LayerLoss,
    Loss,
    OnBadGroup,
    OnChanged,
    Resume,
    RunValues,
    Schedule,
    TrainedLayers,
)
from rerank_cli.cli.flags import common, declare, model
from rerank_cli.cli.flags.declare import flag, moved
from rerank_cli.cli.flags.values import duration
from rerank_cli.cli.settings import Config, PrintConfig, show
from rerank_cli.cli.terminal import completion
from rerank_cli.cli.terminal.streams import notifier, prepare
from rerank_cli.display import without_secrets
from rerank_cli.errors import EXIT_REJECTED, EXIT_STOPPED, UsageError

if TYPE_CHECKING:
    from rerank_cli.formats import InputOptions
    from rerank_cli.training.data.open import DataOptions
    from rerank_cli.training.options import HeldOutOptions, TrainConfig

data = partial(flag, panel=declare.INPUT)
by_id = partial(flag, panel=declare.BY_ID)
learning = partial(flag, panel=declare.LEARNING)
losses = partial(flag, panel=declare.LOSS)
layered = partial(flag, panel=declare.LAYERS)
lora = partial(flag, panel=declare.LORA)
held_out = partial(flag, panel=declare.HELD_OUT)
place = partial(flag, panel=declare.DEVICE)
recovery = partial(flag, panel=declare.RECOVERY)
shown = partial(flag, panel=declare.PROGRESS)


def training_data(
    inputs: list[str] | None = typer.Argument(None, metavar="INPUT", help="Files of training data, or patterns."),
    input_format: InputFormat = data(InputFormat.AUTO, "Format of INPUT or --run, where it is not recognised."),
    query_field: str | None = data(None, "Field of the query.", "FIELD"),
    text_field: str | None = data(None, "Field of a pair's passage; of --corpus, of the text.", "FIELD"),
    label_field: str | None = data(None, "Field of the label or labels.", "FIELD"),
    id_field: str | None = common.ID_FIELD,
    doc_id_field: str | None = common.DOC_ID_FIELD,
    sort: bool = data(False, "Group rows of pairs, or of --run, by query first: they may be in any order."),
    run: list[str] | None = by_id(None, "Run of ids that negatives come from (may be repeated).", "RUN"),
    qrels: str | None = by_id(None, "Relevance judgements, which name the positives.", "FILE"),
    min_relevance: int = by_id(1, "Relevance from which a passage is a positive.", "N", min=1),
    queries: str | None = by_id(None, "Texts of the queries: JSONL, CSV, Parquet or the like.", "FILE"),
    corpus: str | None = by_id(None, "Texts of the passages: a file like --queries, or a folder.", "PATH"),
    beir: str | None = by_id(None, "Folder in BEIR's layout, with queries, corpus and qrels.", "DIR"),
    split: str | None = by_id(None, "Split of --beir [default: train].", "NAME"),
    dataset: str | None = by_id(
        None, "Set of ir_datasets with queries, corpus, qrels and maybe a run; needs the extra datasets.", "ID"
    ),
    depth: int | None = by_id(None, "Take the first K candidates of each query of --run.", "K", min=1),
    run_values: RunValues | None = by_id(None, "What the third of three columns of --run is [default: auto]."),
    index_dir: str | None = moved(common.INDEX_DIR, declare.BY_ID),
    on_error: OnBadGroup = recovery(OnBadGroup.FAIL, "At a bad record: stop, or leave it out."),
    errors: str | None = recovery(None, "Write bad records with their reasons here.", "FILE"),
    max_errors: int | None = recovery(None, "Stop after more than N bad records.", "N", min=0),
) -> DataOptions:
    """The training data as DataOptions. Raises UsageError for flags that exclude each other."""
    from rerank_cli.formats import InputOptions
    from rerank_cli.training.data.open import BadRecords, DataOptions

    if errors is not None and on_error is OnBadGroup.FAIL:
        raise UsageError("--errors needs --on-error skip: with fail the first bad record ends the run")
    if split and not beir:
        raise UsageError("--split needs --beir DIR")
    if dataset and not inputs:
        from rerank_cli.formats.corpus.dataset import dataset_files

        for name, path in (("--queries", queries), ("--corpus", corpus), ("--beir", beir), ("--index-dir", index_dir)):
            if path is not None:
                raise UsageError(f"{name} does not go with --dataset, which has queries and corpus. Fix: one of them")
        files = dataset_files(dataset, texts=True, qrels=not qrels, run=not run)
        queries, corpus, qrels = files.queries, files.corpus, qrels or files.qrels
        run = run or [files.run]
    if not run:
        ids = {"--qrels": qrels, "--queries": queries, "--corpus": corpus, "--beir": beir, "--depth": depth}
        for name, value in (ids | {"--run-values": run_values, "--index-dir": index_dir}).items():
            if value is not None:
                raise UsageError(f"{name} needs --run RUN")
        if not inputs:
            raise UsageError("there is no training data. Fix: name INPUT files, or --run with --qrels")
        if dataset:
            raise UsageError(f"INPUT and --dataset were both given (got {inputs[0]}). Fix: give one of them")
        if "-" in inputs:
            raise UsageError("training data is read more than once, and stdin cannot be. Fix: save it to a file")
        texts, judgements = InputOptions(tuple(inputs)), None
    else:
        if inputs:
            raise UsageError(f"INPUT and --run were both given (got {inputs[0]}). Fix: give one of them")
        if label_field is not None:
            raise UsageError("--label-field is for INPUT: with --run the judgements have the labels")
        parts = (queries, corpus, beir, split or "train", depth, run_values, index_dir)
        texts, judgements = _by_id("", tuple(run), *parts, qrels)
    texts = replace(
        texts,
        query_field=query_field,
        text_field=text_field,
        id_field=id_field,
        doc_id_field=doc_id_field,
        sort=sort,
        format=input_format,
    )
    bad = BadRecords(on_error is OnBadGroup.SKIP, errors, max_errors)
    return DataOptions(texts, label_field, judgements, min_relevance, bad)


def _by_id(
    prefix: str,
    run: tuple[str, ...],
    queries: str | None,
    corpus: str | None,
    beir: str | None,
    split: str,
    depth: int | None,
    values: RunValues | None,
    index_dir: str | None,
    qrels: str | None,
) -> tuple[InputOptions, str]:
    """A run with its texts, and its judgements. `prefix` is part of the flags' names. Raises UsageError."""
    from rerank_cli.formats import ById, InputOptions
    from rerank_cli.formats.corpus.files import beir_folder
    from rerank_cli.storage.listing import expanded

    folder = beir_folder(beir, split) if beir else None
    queries = queries or (folder.queries if folder else None)
    corpus = corpus or (folder.corpus if folder else None)
    qrels = qrels or (folder.qrels if folder else None)
    missing = (("queries FILE", queries), ("corpus PATH", corpus), ("qrels FILE", qrels))
    for name, path in missing:
        if not path:
            instead = f"; {beir} has none for the split {split}" if beir and name.startswith("qrels") else ""
            what = "judgements" if name.startswith("qrels") else "texts"
            fix = f"Fix: --{prefix}{name}" + ("" if beir else f", or --{prefix}beir DIR")
            raise UsageError(f"--{prefix}run {run[0]}: has only ids, and the {what} are missing{instead}. {fix}")
    ids = ById(str(queries), str(corpus), depth, values or RunValues.AUTO, index_dir)
    return InputOptions(expanded(run), by_id=ids), str(qrels)


def evaluated(
    eval_run: list[str] | None = held_out(None, "Run of a held-out set, reranked while training.", "RUN"),
    eval_qrels: str | None = held_out(None, "Its relevance judgements.", "FILE"),
    eval_queries: str | None = held_out(None, "Its queries, by id.", "FILE"),
    eval_corpus: str | None = held_out(None, "Its passages, by id.", "PATH"),
    eval_beir: str | None = held_out(None, "Folder in BEIR's layout with both.", "DIR"),
    eval_split: str | None = held_out(None, "Split of --eval-beir [default: dev].", "NAME"),
    eval_depth: int | None = held_out(None, "Rerank the first K candidates of each query [default: 100].", "K", min=1),
    eval_measures: str | None = held_out(
        None,
        "Measures of ir_measures, the first decides [default: nDCG@10,RR@10].",
        "M[,M]",
        autocompletion=completion.measures,
    ),
    eval_every: int | None = held_out(None, "Evaluate every N steps [default: ten times].", "N", min=1),
    patience: int | None = held_out(None, "Stop after N evaluations without a better one.", "N", min=1),
) -> HeldOutOptions | None:
    """The held-out set. Raises UsageError for flags that exclude each other."""
    from rerank_cli.training.options import HeldOutOptions

    if not eval_run:
        given = {"--eval-qrels": eval_qrels, "--eval-queries": eval_queries, "--eval-corpus": eval_corpus}
        given |= {"--eval-beir": eval_beir, "--eval-split": eval_split, "--eval-measures": eval_measures}
        for name, value in (
            given | {"--eval-depth": eval_depth, "--eval-every": eval_every, "--patience": patience}
        ).items():
            if value is not None:
                raise UsageError(f"{name} needs --eval-run RUN")
        return None
    if eval_split and not eval_beir:
        raise UsageError("--eval-split needs --eval-beir DIR")
    parts = (eval_queries, eval_corpus, eval_beir, eval_split or "dev", eval_depth or 100, None, None)
    texts, qrels = _by_id("eval-", tuple(eval_run), *parts, eval_qrels)
    return HeldOutOptions(texts, qrels, eval_measures or "nDCG@10,RR@10", eval_every, patience)


def configured(
    training_data: Callable[[], Any] = training_data,
    reading: Callable[[], Any] = model.reading,
    evaluated: Callable[[], Any] = evaluated,
    output: str = flag(..., "Folder of the result.", "FOLDER", short="-o", local=True),
    epochs: float = learning(1.0, "How often all groups are trained on.", "X", min=0),
    max_steps: int | None = learning(None, "Compute at most N steps.", "N", min=1),
    batch_groups: int = learning(16, "Groups in a step.", "N", min=1),
    group_size: int = learning(8, "Passages of a query in a step: one positive, the others negatives.", "N", min=1),
    lr: float | None = learning(None, "Learning rate [default: 2e-5, with LoRA 2e-4].", "X", min=0),
    weight_decay: float = learning(0.01, "Weight decay of AdamW, not of biases and norms.", "X", min=0),
    warmup: float = learning(0.1, "Share of the steps in which the rate rises; from 1 on, their number.", "X", min=0),
    schedule: Schedule = learning(Schedule.LINEAR, "How the rate falls after the warm-up."),
    clip: float = learning(1.0, "Largest norm of a gradient; 0 leaves it as it is.", "X", min=0),
    dropout: float | None = learning(None, "Dropout [default: that of the model's files].", "P", min=0, max=1),
    attention_dropout: float = learning(0.0, "Dropout of attention, which makes it slower.", "P", min=0, max=1),
    freeze: str | None = learning(
        None, "Leave the tensors of these names as they are; * is any characters.", "NAME[,NAME]"
    ),
    shuffle: bool = learning(True, "Take the groups of an epoch in random order."),
    seed: int = learning(0, "Seed of the order, the draws, the dropout and new weights.", "N", min=0),
    passage_max_length: int | None = learning(
        None, "Tokens of the passage: with --query-max-length, lengths are FlagEmbedding's.", "N", min=1
    ),
    loss: Loss | None = losses(None, "What is minimised [default: distil if all groups have teacher scores, else ce]."),
    teacher: str | None = losses(
        None,
        "Score all groups with this model first, and learn from its scores.",
        "MODEL",
        local=True,
        autocompletion=completion.models,
    ),
    teacher_scores: str | None = losses(None, "Keep the groups with the teacher's scores here.", "FILE", local=True),
    ce_weight: float = losses(1.0, "Weight of the cross-entropy in distil.", "X", min=0),
    distil_weight: float = losses(1.0, "Weight of the teacher in distil.", "X", min=0),
    distil_temperature: float = losses(1.0, "Temperature of both sides in distil.", "X", min=0.001),
    pos_weight: float = losses(1.0, "Weight of positives in bce.", "X", min=0),
    layer_loss: LayerLoss | None = layered(None, "How layers teach each other [default: the last the others]."),
    start_layer: int | None = layered(
        None, "First layer that is trained [default: the first with a head].", "N", min=1
    ),
    layers: TrainedLayers = layered(TrainedLayers.ALL, "Train the heads of all layers, or the last alone."),
    adapters: bool | None = lora(
        None, "Train low-rank adapters, or all weights [default: adapters for decoders].", long="--lora/--full"
    ),
    lora_rank: int = lora(32, "Rank of the adapters.", "N", min=1),
    lora_alpha: float = lora(64.0, "Scaling of the adapters.", "X", min=0),
    lora_dropout: float = lora(0.1, "Dropout before the adapters; --dropout replaces it.", "P", min=0, max=1),
    lora_targets: str | None = lora(None, "Linear layers that get one [default: those of attention].", "NAME[,NAME]"),
    merge: bool = lora(True, "Save the merged model; else the adapter alone."),
    device: str = flag("auto", "auto, cpu, cuda, cuda:N or mps.", "DEVICE", autocompletion=completion.device),
    dtype: Dtype = place(Dtype.AUTO, "Of matrix products; auto: bf16 on CUDA, fp32 elsewhere."),
    batch_tokens: int | None = place(None, "Tokens in a packed row [default: by device].", "N", min=1),
    recompute: bool = place(False, "Compute activations again in the backward pass: less memory, more time."),
    log: str | None = recovery(None, "Write the log here: one JSON object a step.", "FILE", local=True),
    report_to: str | None = recovery(None, "Also report to tensorboard, wandb, mlflow, by accelerate.", "NAME[,NAME]"),
    report_dir: str | None = recovery(None, "Where tensorboard writes [default: FOLDER.reports].", "DIR", local=True),
    save_steps: int | None = recovery(None, "Save a checkpoint every N steps [default: by time].", "N", min=1),
    save_interval: float = recovery(300.0, "Save a checkpoint this often.", "SECONDS", min=0),
    max_duration: str | None = recovery(None, "Stop after 90s, 30m or 7h30m with exit code 10; work is kept.", "TIME"),
    resume: Resume = recovery(Resume.AUTO, "Continue where an earlier run of the same command stopped."),
    restart: bool = recovery(False, "Start over; what an earlier run left is discarded."),
    on_changed: OnChanged = recovery(
        OnChanged.FAIL, "If data or settings are not those of the unfinished run: fail, or start over and say so."
    ),
    overwrite: bool = common.OVERWRITE,
    dry_run: bool = flag(False, "Measure a few steps, estimate the run, and write nothing."),
    progress_interval: float = shown(30.0, "Seconds between lines of progress.", "SECONDS", min=0.1),
) -> TrainConfig:
    """The configuration of a run, without its streams. Raises UsageError."""
    from rerank_cli.training.options import LoraOptions, LossOptions, Rates, TrainConfig

    texts, options, evaluation = training_data(), reading(), evaluated()
    if options.family.cutoff_layers is not None:
        raise UsageError("--cutoff-layers is for scoring. Fix: --start-layer N, or --layers last")
    if options.family.layer_heads is not None:
        raise UsageError("--layer-heads is for scoring: every layer is trained with its own head. Fix: leave it out")
    if teacher_scores and not teacher:
        raise UsageError("--teacher-scores needs --teacher MODEL")
    if report_dir and not report_to:
        raise UsageError("--report-dir needs --report-to NAME")
    return TrainConfig(
        model=replace(options, device=device, dtype=dtype.value, batch_tokens=batch_tokens),
        data=texts,
        output=output,
        group_size=group_size,
        batch_groups=batch_groups,
        epochs=epochs,
        max_steps=max_steps,
        seed=seed,
        shuffle=shuffle,
        loss=LossOptions(loss, ce_weight, distil_weight, distil_temperature, pos_weight, layer_loss),
        lora=LoraOptions(adapters, lora_rank, lora_alpha, lora_dropout, _words(lora_targets)),
        rates=Rates(lr, weight_decay, warmup, schedule, clip),
        passage_max_length=passage_max_length,
        dropout=dropout,
        attention_dropout=attention_dropout,
        start_layer=start_layer,
        layers=layers,
        freeze=_words(freeze),
        recompute=recompute,
        merge=merge,
        held_out=evaluation,
        teacher=teacher,
        teacher_scores=teacher_scores,
        log=log,
        report_to=_words(report_to),
        report_dir=report_dir,
        save_steps=save_steps,
        save_interval=save_interval,
        max_duration=duration(max_duration, "--max-duration"),
        resume=Resume.NEVER if restart else resume,
        on_changed=on_changed,
        overwrite=overwrite,
        dry_run=dry_run,
        progress_interval=progress_interval,
    )


def _words(text: str | None) -> tuple[str, ...]:
    """`a,b` as (a, b)."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


@declare.command
def train(
    context: typer.Context,
    configured: Callable[[], Any] = configured,
    quiet: bool = common.QUIET,
    verbose: bool = common.VERBOSE,
    config: str | None = Config,  # noqa: ARG001 - read before the other flags, see settings
    print_config: bool = PrintConfig,
) -> None:
    """Fine-tune a reranker on queries with positives and negatives.

    \b
      rerank train train.jsonl -m BAAI/bge-reranker-v2-m3 -o my-reranker/
      rerank train --run bm25.trec --beir scifact/ -m mini -o my-reranker/
      rerank train train.jsonl -m BAAI/bge-reranker-v2-gemma -o my-reranker/ --lora
      rerank train train.jsonl -m mini -o my-reranker/ --eval-run bm25.trec --eval-beir scifact/ --eval-qrels dev.tsv

    INPUT has groups (query, pos, neg), triplets (anchor, positive, negative), or labelled pairs (query, passage,
    label), as JSONL, CSV, TSV, Parquet or Arrow, also compressed. The same command continues a run that was stopped.
    """
    if print_config:
        show(context)
        return
    prepare(quiet=quiet, verbose=verbose)
    from rerank_cli.run.signals import die_of
    from rerank_cli.training.run.job import train as run_training

    plan = replace(configured(), notify=notifier(quiet), command=without_secrets(shlex.join(["rerank", *sys.argv[1:]])))
    outcome, stop = run_training(plan)
    if outcome.estimate is not None:
        from rerank_cli.training.run.estimate import lines

        print("\n".join(lines(dict(outcome.estimate))))
    if outcome.nothing_to_do:
        plan.notify(f"{plan.output}: already complete, nothing to do (--overwrite trains again)")
    elif outcome.interrupted:
        plan.notify(f"stopped by {outcome.interrupted}, work kept; {plan.same_command} continues from here")
    elif outcome.state is not None:
        plan.notify(f"{plan.output}: {outcome.line()}; rerank run -m {plan.output} scores with it")
    if stop.signal:
        die_of(stop.signal)
    if outcome.interrupted:
        raise typer.Exit(EXIT_STOPPED)
    if outcome.rejected:
        raise typer.Exit(EXIT_REJECTED)
