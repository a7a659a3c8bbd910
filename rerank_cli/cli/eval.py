"""`rerank eval`: measures of a ranking by relevance judgements, alone, against a baseline, or per fusion weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson
import typer

from rerank_cli.choices import Normalize, OutputFormat, RunFormat
from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import flag, moved
from rerank_cli.cli.flags.judged import judgements
from rerank_cli.cli.terminal.streams import say
from rerank_cli.display import counted, without_secrets
from rerank_cli.errors import UsageError

if TYPE_CHECKING:
    from rerank_cli.evaluation.evaluate import Asked, Evaluation
    from rerank_cli.evaluation.tuning import Tuning

_BAR = 30


@declare.command
def evaluate(
    run: str = typer.Argument(metavar="RUN", help="An output of rerank run, or a run file; - is stdin."),
    qrels: str | None = common.QRELS,
    dataset: str | None = common.DATASET,
    baseline: str | None = flag(None, "Compare with this: a run file, or what was reranked.", "RUN"),
    measures: str | None = common.MEASURES,
    answered: bool = flag(False, "Average over the judged queries that are in RUN (and in the baseline) only."),
    per_query: bool = flag(False, "Print a row for each query too."),
    tune_weight: bool = flag(False, "Find the best --fuse-weight by the first of --measures."),
    normalize: Normalize | None = common.NORMALIZE,
    folds: int = flag(5, "Folds of the cross-validation of --tune-weight.", "K", min=2),
    output: str | None = flag(None, "Write RUN, mixed with the best weight, as a run file.", "FILE", short="-o"),
    format: RunFormat | None = flag(None, "Format of --output [default: trec]."),
    overwrite: bool = common.OVERWRITE,
    as_json: bool = common.AS_JSON,
    id_field: str | None = moved(common.ID_FIELD, declare.INPUT),
    doc_id_field: str | None = moved(common.DOC_ID_FIELD, declare.INPUT),
) -> None:
    """Measure the ranking in RUN by relevance judgements, and test whether it differs from another one.

    \b
      rerank eval reranked.jsonl --qrels qrels.tsv --baseline candidates.jsonl
      rerank eval ce.trec --qrels qrels.tsv --measures nDCG@10,RR@10,P@5 --json
      rerank eval reranked.jsonl --qrels dev.tsv --tune-weight -o fused.trec

    Needs the extra `eval`: pip install 'rerank-cli[eval]'. Loads no model.
    """
    from rerank_cli.evaluation.evaluate import Asked, tuned, worked_out

    if qrels and dataset:
        raise UsageError("--qrels and --dataset both have judgements. Fix: give one of them")
    qrels = judgements(qrels, dataset)
    if output is not None and not tune_weight:
        raise UsageError("--output needs --tune-weight")
    if format and output is None:
        raise UsageError("--format needs --output FILE")
    if tune_weight and (baseline or per_query or answered):
        raise UsageError("--tune-weight excludes --baseline, --per-query and --answered")
    if normalize and not tune_weight:
        raise UsageError("--normalize needs --tune-weight")
    asked = Asked(run, qrels, baseline, measures, answered, id_field, doc_id_field)
    if tune_weight:
        save = None if output is None else _mixed_run(asked, output, format, overwrite)
        tuning = tuned(asked, normalize or Normalize.MINMAX, folds, say)
        fields, text = tuning.as_json(), _tuning(tuning)
        if save:
            say(f"{output}: {counted(save(tuning), 'query')}, mixed with weight {tuning.best:g}")
            fields["output"] = output
    else:
        found = worked_out(asked, say)
        fields, text = found.as_json(per_query), _table(found, per_query)
    named = {"run": run, "qrels": qrels, "baseline": baseline}
    fields = {name: path and without_secrets(path) for name, path in named.items()} | fields
    typer.echo(orjson.dumps(fields).decode() if as_json else text)


def _mixed_run(asked: Asked, path: str, format: RunFormat | None, overwrite: bool) -> Callable[[Tuning], int]:
    """Check that the mixed run can be written; returns the function that writes it."""
    from rerank_cli.evaluation.mixed_run import check_mixed, write_mixed
    from rerank_cli.formats import AnswerOptions, OutputOptions
    from rerank_cli.run.recovery.output_state import OutputState

    output = OutputOptions(path, OutputFormat(format or RunFormat.TREC), AnswerOptions(""), overwrite)
    check_mixed(asked.run, asked.qrels, output)
    OutputState.of(path).refuse_unfinished()
    return lambda tuning: write_mixed(asked.run, asked.fields, tuning, output)


def _table(found: Evaluation, per_query: bool) -> str:
    missing = f", {found.missing:,} not in the run" if found.missing else ""
    unjudged = f"; {found.unjudged:,} more are not judged" if found.unjudged else ""
    lines = [f"{found.queries:,} judged queries{missing}{unjudged}", ""]
    width = max(7, *map(len, found.after.means))
    if found.before is None or found.differences is None:
        lines += [f"{name:<{width}}  {mean:>8.4f}" for name, mean in found.after.means.items()]
    else:
        head = f"{'':<{width}}  {'before':>8}  {'after':>8}  {'diff':>8}  {'95 % interval':>18}"
        lines.append(f"{head}  {'t-test':>8}  {'permut.':>8}  {'won':>5}  {'lost':>5}  {'tied':>5}")
        for name, mean in found.after.means.items():
            d = found.differences[name]
            if d is None:
                lines.append(f"{name:<{width}}  {found.before.means[name]:>8.4f}  {mean:>8.4f}")
                continue
            interval = "" if d.low is None else f"{d.low:+.4f} {d.high:+.4f}"
            tests = f"{_p(d.t_test_p):>8}  {_p(d.permutation_p):>8}  {d.wins:>5}  {d.losses:>5}  {d.ties:>5}"
            figures = f"{found.before.means[name]:>8.4f}  {mean:>8.4f}  {d.mean:>+8.4f}  {interval:>18}"
            lines.append(f"{name:<{width}}  {figures}  {tests}")
    return "\n".join(lines + (_by_query(found) if per_query else []))


def _by_query(found: Evaluation) -> list[str]:
    """Tab-separated rows: measures of each query, and their differences to the baseline if there is one."""
    names = list(found.after.means)
    rows = ["", "\t".join(["query", *names, *([f"Δ{name}" for name in names] if found.before else [])])]
    for query, before, after in found.by_query():
        values = [f"{after[name]:.4f}" for name in names]
        values += [f"{after[name] - before[name]:+.4f}" for name in names] if before else []
        rows.append("\t".join([query, *values]))
    return rows


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _tuning(found: Tuning) -> str:
    lowest, highest = min(found.curve.values()), max(found.curve.values())
    lines = [f"weight  {found.measure:>8}"]
    for weight, mean in found.curve.items():
        bar = "█" * round(1 + _BAR * (mean - lowest) / (highest - lowest or 1))
        lines.append(f"{weight:>6.2f}  {mean:>8.4f}  {bar}{'  best' if weight == found.best else ''}")
    held_out = "too few queries" if found.held_out is None else f"{found.held_out:.4f}"
    lines += ["", f"0 is the first stage alone, 1 the reranker alone; {found.folds}-fold cross-validated: {held_out}"]
    return "\n".join([*lines, found.flags])
