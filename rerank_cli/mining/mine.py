"""From a reranked file and judgements to training data: one pass over the file, and one over a corpus, if there is one.

With a corpus the choice is spooled to a temporary file first; only the ids that were chosen are held in memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import BinaryIO

from rerank_cli.choices import TrainFormat
from rerank_cli.display import shown
from rerank_cli.errors import InputError, RefusedError
from rerank_cli.formats import InputOptions, discard_partial, open_source
from rerank_cli.formats.corpus.texts import DocumentTexts, query_texts
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.runs.rank_comparison import compare_ranks
from rerank_cli.formats.runs.results import Result, RunFile
from rerank_cli.formats.writing.sinks import open_lines
from rerank_cli.formats.writing.training import Example, example_rows
from rerank_cli.mining.negatives import Mined, Reason, Rules, mine
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.storage.paths import partial_of

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class MineOptions:
    """What is mined, and where to. `inputs`, `queries` and `corpora` give texts that the output leaves out."""

    path: str
    qrels: str
    output: str
    rules: Rules
    inputs: tuple[str, ...] = ()
    queries: str | None = None
    corpora: tuple[str, ...] = ()
    format: TrainFormat = TrainFormat.TRAIN
    scores: bool = False
    overwrite: bool = False
    index_folder: str | None = None
    notify: Callable[[str], None] = field(default=lambda _: None)

    @property
    def read(self) -> list[str]:
        """Every file that is read."""
        return [self.path, self.qrels, *self.inputs, *filter(None, [self.queries]), *self.corpora]


@dataclass(slots=True)
class MiningCounts:
    """What was found and what was left out. `probabilities` is whether written scores are no logits."""

    queries: int = 0
    used: int = 0
    positives: int = 0
    negatives: int = 0
    short: int = 0
    lost_positives: int = 0
    skipped: Counter[Reason] = field(default_factory=Counter)
    probabilities: bool = False

    def line(self) -> str:
        """For a person, on one line."""
        done = f"{self.used:,} of {self.queries:,} queries, {self.positives:,} positives, {self.negatives:,} negatives"
        parts = [done, *(f"{count:,} {reason}" for reason, count in sorted(self.skipped.items()))]
        if self.short:
            parts.append(f"{self.short:,} with fewer negatives than asked for")
        if self.lost_positives:
            parts.append(f"{self.lost_positives:,} positives left out for want of a text or a score")
        return ", ".join(parts)


def mine_file(options: MineOptions, stdout: BinaryIO | None) -> MiningCounts:
    """Write the output whole, or not at all. Raises what opening and reading raise, and RefusedError.

    What cannot be taken up again is not left behind: a failure leaves no part of the output.
    """
    checkpoint = OutputState.of(options.output, None).checkpoint
    if checkpoint and checkpoint.exists():
        raise RefusedError(f"{checkpoint}: an unfinished run writes to {shown(options.output, 300)}. Fix: another -o")
    counts = MiningCounts()
    with ExitStack() as stack:
        sink = open_lines(options.output, options.read, options.overwrite, stdout)
        try:
            rows = (
                row for example in examples(options, counts, stack) for row in example_rows(example, options.format)
            )
            while batch := list(islice(rows, _BATCH)):
                sink.write(batch)
            sink.publish()
        except BaseException:
            sink.abandon()
            if partial_of(options.output):
                discard_partial(options.output)
            raise
    return counts


def examples(options: MineOptions, counts: MiningCounts, stack: ExitStack) -> Iterator[Example]:
    """Queries with what to train on, in file order. Raises InputError; files are left to the stack."""
    qrels = read_qrels(options.qrels)
    queries = query_texts(options.queries, qrels) if options.queries else {}
    answers = RunFile(options.path)
    stack.callback(answers.close)
    source = open_source(InputOptions(options.inputs)) if options.inputs else None
    if source:
        stack.callback(source.close)
    chosen = _chosen((mine(q, qrels.get(q.id, {}), options.rules) for q in compare_ranks(answers, source)), counts)
    if options.corpora:
        texts = DocumentTexts(options.corpora, options.index_folder, options.notify)
        stack.callback(texts.close)
        chosen = _with_texts(chosen, texts)
    for mined in chosen:
        example = _example(mined, mined.query or queries.get(mined.id), options, counts)
        if example:
            yield example


def _chosen(found: Iterable[Mined | Reason], counts: MiningCounts) -> Iterator[Mined]:
    for one in found:
        counts.queries += 1
        if isinstance(one, Reason):
            counts.skipped[one] += 1
        else:
            yield one


def _example(mined: Mined, query: str | None, options: MineOptions, counts: MiningCounts) -> Example | None:
    if query is None:
        what = f"{shown(options.path, 300)}: the text of query `{shown(mined.id)}` is not in the output"
        raise InputError(f"{what}. Fix: --input CANDIDATES, or --queries FILE")
    positives = [one for one in mined.positives if one.text is not None and not (options.scores and _unscored(one))]
    counts.lost_positives += len(mined.positives) - len(positives)
    reason = None if positives else Reason.NO_TEXT
    if options.format is TrainFormat.N_TUPLES and not mined.full:
        reason = reason or Reason.TOO_FEW
    if reason:
        counts.skipped[reason] += 1
        return None
    counts.used += 1
    counts.positives += len(positives)
    counts.negatives += len(mined.negatives)
    counts.short += not mined.full
    texts = [_text(one, options) for one in positives], [_text(one, options) for one in mined.negatives]
    if not options.scores:
        return Example(query, *texts)
    counts.probabilities = counts.probabilities or any(one.logit is None and 0 <= one.score <= 1 for one in positives)
    return Example(query, *texts, [_score(one) for one in positives], [_score(one) for one in mined.negatives])


def _unscored(result: Result) -> bool:
    return math.isnan(result.score)


def _score(result: Result) -> float:
    return result.score if result.logit is None else result.logit


def _text(result: Result, options: MineOptions) -> str:
    if result.text is None:
        missing = f"the text of document `{shown(result.id)}` is not in the {'corpus' if options.corpora else 'output'}"
        fix = "--corpus with the file it is in" if options.corpora else "--input CANDIDATES, or --corpus FILE"
        raise InputError(f"{shown(options.path, 300)}: {missing}. Fix: {fix}")
    return f"{result.title} {result.text}".strip() if result.title else result.text


def _with_texts(chosen: Iterator[Mined], texts: DocumentTexts) -> Iterator[Mined]:
    """The same, with texts that were missing; looked up for many queries at a time."""
    while batch := list(islice(chosen, _BATCH)):
        lists = [one.positives + one.negatives for one in batch]
        found = texts.find(result.id for results in lists for result in results if result.text is None)
        for one in batch:
            positives, negatives = (
                tuple(_completed(result, found) for result in results) for results in (one.positives, one.negatives)
            )
            yield replace(one, positives=positives, negatives=negatives)
    texts.check_used()


def _completed(result: Result, texts: dict[str, str]) -> Result:
    return result if result.text is not None else replace(result, title=None, text=texts.get(result.id))
