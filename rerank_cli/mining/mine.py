"""From a reranked file and relevance judgements to training data, in one pass over the file.

Missing texts are looked up in indexed corpora for many queries at a time; only these queries are in memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO

from rerank_cli.choices import TrainFormat
from rerank_cli.display import counted, shown
from rerank_cli.errors import InputError
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.corpus.texts import DocumentTexts, query_texts
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.runs.rank_comparison import compare_ranks
from rerank_cli.formats.runs.results import Result
from rerank_cli.formats.runs.run_file import RunFile
from rerank_cli.formats.writing.sinks import open_lines, published
from rerank_cli.formats.writing.training import Example, example_rows
from rerank_cli.mining.negatives import Mined, Reason, Rules, mine
from rerank_cli.run.recovery.output_state import OutputState

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class MineOptions:
    """What to mine and where to write it. `inputs`, `queries` and `corpora` provide texts that `path` does not hold."""

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


@dataclass(slots=True)
class MiningCounts:
    """Figures of the training data. `probabilities` is whether any score written is a probability, not a logit."""

    queries: int = 0
    used: int = 0
    positives: int = 0
    negatives: int = 0
    short: int = 0
    lost_positives: int = 0
    skipped: Counter[Reason] = field(default_factory=Counter)
    probabilities: bool = False

    def line(self) -> str:
        found = f"{counted(self.positives, 'positive')}, {counted(self.negatives, 'negative')}"
        done = f"{self.used:,} of {counted(self.queries, 'query')}, {found}"
        parts = [done, *(f"{count:,} {reason}" for reason, count in sorted(self.skipped.items()))]
        if self.short:
            parts.append(f"{self.short:,} with fewer negatives than asked for")
        if self.lost_positives:
            parts.append(f"{counted(self.lost_positives, 'positive')} left out for want of a text or of a score")
        return ", ".join(parts)


def mine_file(options: MineOptions, stdout: BinaryIO | None) -> MiningCounts:
    """Write the output, or remove it after an error. RefusedError if an unfinished run has the same output."""
    OutputState.of(options.output).refuse_unfinished()
    counts = MiningCounts()
    inputs = [options.path, options.qrels, *options.inputs, *filter(None, [options.queries]), *options.corpora]
    with ExitStack() as stack:
        sink = open_lines(options.output, inputs, options.overwrite, stdout)
        with published(sink, options.output):
            examples = _examples(options, counts, stack)
            rows = (row for example in examples for row in example_rows(example, options.format))
            while batch := list(islice(rows, _BATCH)):
                sink.write(batch)
    return counts


def _examples(options: MineOptions, counts: MiningCounts, stack: ExitStack) -> Iterator[Example]:
    """Training examples in the order of the reranked file; the stack closes the files."""
    qrels = read_qrels(options.qrels)
    queries = query_texts(options.queries, qrels) if options.queries else {}
    answers = stack.enter_context(closing(RunFile(options.path)))
    source = stack.enter_context(closing(open_source(InputOptions(options.inputs)))) if options.inputs else None
    texts = None
    if options.corpora:
        texts = DocumentTexts(options.corpora, options.index_folder, options.notify)
        stack.callback(texts.close)
    found = (mine(query, qrels.get(query.id, {}), options.rules) for query in compare_ranks(answers, source))
    while batch := list(islice(found, _BATCH)):
        counts.queries += len(batch)
        counts.skipped.update(one for one in batch if isinstance(one, Reason))
        chosen = [one for one in batch if isinstance(one, Mined)]
        missing = (r.id for mined in chosen for r in mined.positives + mined.negatives if r.text is None)
        found_texts = texts.find(missing) if texts else {}
        for mined in chosen:
            example = _example(mined, mined.query or queries.get(mined.id), found_texts, options, counts)
            if example:
                yield example
    if texts:
        texts.check_used()


def _example(
    mined: Mined, query: str | None, texts: Mapping[str, str], options: MineOptions, counts: MiningCounts
) -> Example | None:
    if query is None:
        what = f"{shown(options.path, 300)}: the text of query `{shown(mined.id)}` is not in the output"
        raise InputError(f"{what}. Fix: --input CANDIDATES, or --queries FILE")
    usable = [one for one in mined.positives if one.text is not None or one.id in texts]
    positives = [one for one in usable if not (options.scores and math.isnan(one.score))]
    counts.lost_positives += len(mined.positives) - len(positives)
    if not positives or (options.format is TrainFormat.N_TUPLES and not mined.full):
        counts.skipped[Reason.TOO_FEW if positives else Reason.NO_TEXT] += 1
        return None
    counts.used += 1
    counts.positives += len(positives)
    counts.negatives += len(mined.negatives)
    counts.short += not mined.full
    pair = positives, mined.negatives
    lists = [[_text(one, texts, options) for one in results] for results in pair]
    if not options.scores:
        return Example(query, lists[0], lists[1])
    counts.probabilities = counts.probabilities or any(one.logit is None and 0 <= one.score <= 1 for one in positives)
    scores = [[one.score if one.logit is None else one.logit for one in results] for results in pair]
    return Example(query, lists[0], lists[1], scores[0], scores[1])


def _text(result: Result, texts: Mapping[str, str], options: MineOptions) -> str:
    """Title and text from the output or its input, else the text from a corpus."""
    if result.text is not None:
        return f"{result.title} {result.text}".strip() if result.title else result.text
    if result.id not in texts:
        missing = f"the text of document `{shown(result.id)}` is not in the {'corpus' if options.corpora else 'output'}"
        fix = "--corpus with the file it is in" if options.corpora else "--input CANDIDATES, or --corpus FILE"
        raise InputError(f"{shown(options.path, 300)}: {missing}. Fix: {fix}")
    return texts[result.id]
