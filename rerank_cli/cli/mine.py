"""`rerank mine`: hard negatives from a reranked file."""

from __future__ import annotations

import re

import typer

from rerank_cli.choices import MarginFrom, Sampling, TrainFormat
from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.flags.judged import judgements
from rerank_cli.cli.terminal.streams import claim_stdout, notifier, say
from rerank_cli.errors import UsageError


@declare.command
def mine(
    reranked: str = typer.Argument(metavar="RERANKED", help="What a run wrote."),
    qrels: str | None = common.QRELS,
    dataset: str | None = flag(
        None, "Set of ir_datasets with judgements, queries and corpus, in place of these.", "ID"
    ),
    output: str = flag("-", "Where to write; - is stdout.", "FILE", short="-o"),
    given: list[str] | None = common.GIVEN,
    queries: str | None = flag(None, "Texts of the queries by id, if RERANKED and --input have none.", "FILE"),
    corpus: list[str] | None = flag(None, "Texts of the documents by id: file or folder (may be repeated).", "PATH"),
    negatives: int = flag(7, "Negatives of a query, at most.", "N", min=1),
    ranks: str = flag("1-", "Ranks that negatives come from; 10- means to the end.", "A-B", long="--range"),
    margin: float | None = flag(None, "A negative scores at least X less than the positive.", "X"),
    max_relative: float | None = flag(None, "A negative scores at most R times the positive's score.", "R", min=0),
    margin_from: MarginFrom = flag(MarginFrom.LOWEST, "Which positive of a query both are measured from."),
    max_score: float | None = flag(None, "A passage that scores higher is no negative: it may be relevant.", "X"),
    min_score: float | None = flag(None, "A passage that scores lower is no negative: it is too easy.", "X"),
    min_relevance: int = flag(1, "Relevance from which a passage is a positive.", "N", min=1),
    sampling: Sampling = flag(Sampling.TOP, "Take the best ranked that qualify, or a random sample."),
    seed: int = flag(0, "Seed of the random sample.", "N"),
    format: TrainFormat = flag(TrainFormat.TRAIN, "FlagEmbedding's train, or columns of sentence-transformers."),
    scores: bool = flag(False, "Add pos_scores and neg_scores (--format train)."),
    index_dir: str | None = common.INDEX_DIR,
    overwrite: bool = common.OVERWRITE,
    quiet: bool = common.QUIET,
) -> None:
    """Write training data: positives from judgements, hard negatives from what ranks high and is not relevant.

    \b
      rerank mine reranked.jsonl --input candidates.jsonl --qrels train.tsv --max-relative 0.95 -o train.jsonl
      rerank mine reranked.jsonl --queries queries.jsonl --corpus corpus.jsonl --qrels train.tsv --range 10-100

    Scores are those written in RERANKED. Texts come from the output, from --input, or from --queries and --corpus.
    """
    for name, path in (("--queries", queries), ("--corpus", corpus), ("--index-dir", index_dir)):
        if dataset and path:
            raise UsageError(f"{name} does not go with --dataset, which has queries and corpus. Fix: one of them")
    qrels = judgements(qrels, dataset)
    if dataset:
        from rerank_cli.formats.corpus.dataset import dataset_files

        files = dataset_files(dataset, texts=True)
        queries, corpus = files.queries, [files.corpus]
    if scores and format is not TrainFormat.TRAIN:
        raise UsageError(f"--scores needs --format train (got {format})")
    if index_dir and not corpus:
        raise UsageError("--index-dir needs --corpus PATH")
    found = re.fullmatch(r"(\d+)-(\d*)", ranks)
    first, last = (int(found[1]), int(found[2]) if found[2] else None) if found else (0, None)
    if first < 1 or (last is not None and last < first):
        raise UsageError(f"--range {ranks}: expected ranks from 1, like 10-100 or 10-")
    from rerank_cli.mining.mine import MineOptions, mine_file
    from rerank_cli.mining.negatives import Rules
    from rerank_cli.storage.listing import expanded

    rules = Rules(
        negatives, first, last, margin, max_relative, margin_from, min_score, max_score, min_relevance, sampling, seed
    )
    sides = expanded(given or ()), queries, expanded(corpus or ())
    options = MineOptions(reranked, qrels, output, rules, *sides, format, scores, overwrite, index_dir, notifier(quiet))
    counts = mine_file(options, claim_stdout() if output == "-" else None)
    if not quiet:
        say(counts.line())
        if counts.probabilities:
            say("pos_scores and neg_scores are probabilities; a run with --scores both gives logits")
