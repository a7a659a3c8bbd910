"""`rerank mine`: hard negatives from a reranked file."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from rerank_cli.cli import options as opt
from rerank_cli.cli.streams import claim_stdout, say
from rerank_cli.errors import UsageError
from rerank_cli.formats.writing.mined_rows import TrainFormat
from rerank_cli.mining.negatives import MarginFrom, Rules, Sampling

_SEVERAL = "several may be named, each with its flag"


def mine(
    reranked: Annotated[str, typer.Argument(metavar="RERANKED", help="What a run wrote.")],
    qrels: opt.NeededQrels,
    output: Annotated[str, opt.flag("--output", "-o", metavar="FILE", help="Where to write; - is stdout.")] = "-",
    given: opt.Given = None,
    queries: Annotated[
        str | None, opt.flag("--queries", metavar="FILE", help="Texts of queries by id, if they are nowhere else.")
    ] = None,
    corpus: Annotated[
        list[str] | None, opt.flag("--corpus", metavar="FILE", help=f"Texts of documents by id; {_SEVERAL}.")
    ] = None,
    negatives: Annotated[int, opt.flag("--negatives", metavar="N", min=1, help="Negatives a query, at most.")] = 7,
    ranks: Annotated[str, opt.flag("--range", metavar="A-B", help="Ranks they come from; 10- is to the end.")] = "1-",
    margin: Annotated[
        float | None, opt.flag("--margin", metavar="X", help="A negative scores at least X less than the positive.")
    ] = None,
    max_relative: Annotated[
        float | None,
        opt.flag("--max-relative", metavar="R", min=0, help="A negative scores at most R times the positive's score."),
    ] = None,
    margin_from: Annotated[
        MarginFrom, opt.flag("--margin-from", help="Which positive of a query these two count from.")
    ] = MarginFrom.LOWEST,
    max_score: Annotated[
        float | None, opt.flag("--max-score", metavar="X", help="What scores higher may be relevant: no negative.")
    ] = None,
    min_score: Annotated[
        float | None, opt.flag("--min-score", metavar="X", help="What scores lower is too easy: no negative.")
    ] = None,
    min_relevance: Annotated[
        int, opt.flag("--min-relevance", metavar="N", min=1, help="What is judged so high is a positive.")
    ] = 1,
    sampling: Annotated[
        Sampling, opt.flag("--sampling", help="Take those that rank best, or draw some of all that qualify.")
    ] = Sampling.TOP,
    seed: Annotated[int, opt.flag("--seed", metavar="N", help="Another seed draws others.")] = 0,
    format: Annotated[
        TrainFormat, opt.flag("--format", help="FlagEmbedding's train, or sentence-transformers' columns.")
    ] = TrainFormat.TRAIN,
    scores: Annotated[bool, opt.flag("--scores", help="Add pos_scores and neg_scores (train).")] = False,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read in main
) -> None:
    """Write training data: positives from judgements, hard negatives from what ranks well and is not relevant.

    \b
      rerank mine reranked.jsonl --input candidates.jsonl --qrels train.tsv --max-relative 0.95 -o train.jsonl
      rerank mine reranked.jsonl --queries queries.jsonl --corpus corpus.jsonl --qrels train.tsv --range 10-100

    Scores count as they stand in RERANKED. Texts come from the output, from --input, or from --queries and --corpus.
    """
    if scores and format is not TrainFormat.TRAIN:
        raise UsageError(f"--scores goes with --format train (got {format}). Fix: leave one of them out")
    first, last = _ranks(ranks)
    rules = Rules(
        negatives, first, last, margin, max_relative, margin_from, min_score, max_score, min_relevance, sampling, seed
    )
    from rerank_cli.mining.mine import MineOptions, mine_file

    options = MineOptions(
        reranked, qrels, output, rules, tuple(given or ()), queries, tuple(corpus or ()), format, scores, overwrite
    )
    tally = mine_file(options, claim_stdout() if output == "-" else None)
    if not quiet:
        say(tally.line())
        if tally.probabilities:
            say("pos_scores and neg_scores are probabilities; a run with --scores both gives logits")


def _ranks(text: str) -> tuple[int, int | None]:
    found = re.fullmatch(r"(\d+)-(\d*)", text)
    first, last = (int(found[1]), int(found[2]) if found[2] else None) if found else (0, None)
    if first < 1 or (last is not None and last < first):
        raise UsageError(f"--range {text}: expected ranks from 1, like 10-100 or 10-")
    return first, last
